"""Measure one language model with the module that the wildcard ``measurement`` names; writes one tidy table."""

import shutil
import sys
from importlib import import_module
from pathlib import Path
from time import perf_counter

from learning_geometry.files import write_table
from learning_geometry.measurements.language_run import LanguageRun
from learning_geometry.progress import log_to

with log_to(snakemake.log[0]) as log:
    started = perf_counter()
    wildcards, params = snakemake.wildcards, snakemake.params
    files = Path(params.files)
    shutil.rmtree(files, ignore_errors=True)
    run = LanguageRun(
        experiment=wildcards.experiment,
        settings=params.settings,
        texts=dict(zip(params.settings.get("texts", {}), map(Path, snakemake.input.get("texts", [])), strict=True)),
        prompts=dict(zip(params.weights, map(Path, snakemake.input.get("prompts", [])), strict=True)),
        output=files,
    )
    module = import_module(f"learning_geometry.measurements.{wildcards.measurement}")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(snakemake.threads)
    table = module.measure(run, params.measurement)
    provenance = {"model": params.settings, "settings": params.measurement, "code": params.code}
    provenance |= {"weights": run.weights(), "read": run.reading()}
    write_table(table, snakemake.output.table, provenance)
    log.terminal(f"{wildcards.measurement}, {run.experiment}: {len(table)} numbers in {perf_counter() - started:.0f} s")
