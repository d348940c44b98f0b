"""Measure one trained run with the module that the wildcard ``measurement`` names; writes one tidy table.

Some measurements compare the run with other seeds of its experiment, and are given these as well. Files that one leaves
beside the table, for others that share them, appear in one rename, before the table.
"""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

import shutil
import sys
from pathlib import Path
from time import perf_counter

from learning_geometry.discovery import load_module
from learning_geometry.failures import attempt
from learning_geometry.files import finish_folder, write_table
from learning_geometry.measurements.common.run import Run
from learning_geometry.running import job
from learning_geometry.tables.tidy import check_other_seeds, tidy

with job(snakemake) as running:
    started = perf_counter()
    wildcards, params = snakemake.wildcards, snakemake.params
    # of the other seeds that the measurement compares with: all checkpoints, then all datasets, then all metrics
    count, dataset = len(params.others), snakemake.input.get("dataset") or None
    kinds = ("checkpoints", *(("dataset_file",) if dataset else ()), "metrics_file")
    paths = [Path(path) for path in snakemake.input.get("others", [])]
    artifacts = [dict(zip(kinds, paths[i::count], strict=True)) for i in range(count)]
    others = [
        Run(wildcards.experiment, seed, params.run, **{"dataset_file": None} | read)
        for seed, read in zip(params.others, artifacts, strict=True)
    ]
    files = Path(params.files)
    working = files.with_name(f".{files.name}")
    shutil.rmtree(working, ignore_errors=True)
    run = Run(
        experiment=wildcards.experiment,
        seed=params.seed,
        settings=params.run,
        checkpoints=Path(snakemake.input.checkpoints),
        dataset_file=Path(dataset) if dataset else None,
        metrics_file=Path(snakemake.input.metrics),
        others=tuple(others),
        shared={Path(path).stem: Path(path).with_suffix("") for path in snakemake.input.get("shared", [])},
        output=working,
    )
    module = load_module("measurements", wildcards.measurement)
    # measurements of weights alone do without torch, whose import takes seconds
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(snakemake.threads)
    running.ready()
    table, failure = attempt(lambda: module.measure(run, params.measurement))
    if failure:
        table = tidy([], run.experiment, run.seed)
        shutil.rmtree(working, ignore_errors=True)
    check_other_seeds(table, getattr(module, "NEEDS", {}).get("other_seeds", "none"), wildcards.measurement)
    more = {"other_seeds": params.others} if params.others else {}
    more |= {"failure": failure | {"experiment": run.experiment, "seed": run.seed}} if failure else {}
    more |= {"leaves": True} if working.exists() else {}
    more |= {"unchecked": True} if params.run.get("source", {}).get("unchecked") else {}
    provenance = running.provenance(run=params.run, seed=params.seed, settings=params.measurement, **more)
    if working.exists():
        finish_folder(working, files, provenance)
    else:
        shutil.rmtree(files, ignore_errors=True)
    write_table(table, snakemake.output[0], provenance)
    running.terminal(
        f"{wildcards.measurement}, {run.experiment} seed {run.seed}: "
        + (f"could not be made: {failure['message']}" if failure else f"{len(table)} numbers")
        + f" in {perf_counter() - started:.0f} s" * (not failure)
    )
