"""Measure one trained run with the module that the wildcard ``measurement`` names; writes one tidy table."""

import sys
from importlib import import_module
from pathlib import Path
from time import perf_counter

from learning_geometry.files import write_table
from learning_geometry.measurements.run import Run
from learning_geometry.progress import log_to

with log_to(snakemake.log[0]) as log:
    started = perf_counter()
    wildcards, params = snakemake.wildcards, snakemake.params
    run = Run(
        experiment=wildcards.experiment,
        seed=params.seed,
        settings=params.run,
        checkpoints=Path(snakemake.input.checkpoints),
        dataset_file=Path(snakemake.input.dataset),
        metrics_file=Path(snakemake.input.metrics),
    )
    module = import_module(f"learning_geometry.measurements.{wildcards.measurement}")
    # measurements of weights alone do without torch, whose import takes seconds
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(snakemake.threads)
    table = module.measure(run, params.measurement)
    provenance = {"run": params.run, "seed": params.seed, "settings": params.measurement, "code": params.code}
    write_table(table, snakemake.output[0], provenance)
    log.terminal(
        f"{wildcards.measurement}, {run.experiment} seed {run.seed}: {len(table)} numbers "
        f"in {perf_counter() - started:.0f} s"
    )
