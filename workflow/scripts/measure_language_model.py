"""Measure one language model with the module that the wildcard ``measurement`` names; writes one tidy table.

Files that it leaves beside the table, such as dictionaries, appear in one rename, before the table.
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
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.running import job
from learning_geometry.tables.tidy import tidy

with job(snakemake) as running:
    started = perf_counter()
    wildcards, params = snakemake.wildcards, snakemake.params
    files = Path(params.files)
    working = files.with_name(f".{files.name}")
    shutil.rmtree(working, ignore_errors=True)
    run = LanguageRun(
        experiment=wildcards.experiment,
        settings=params.settings,
        texts=dict(zip(params.settings.get("texts", {}), map(Path, snakemake.input.get("texts", [])), strict=True)),
        prompts=dict(zip(params.weights, map(Path, snakemake.input.get("prompts", [])), strict=True)),
        output=working,
        dequantised=next(map(Path, snakemake.input.get("dequantised", [])), None),
    )
    module = load_module("measurements", wildcards.measurement)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(snakemake.threads)
    running.ready()
    table, failure = attempt(lambda: module.measure(run, params.measurement))
    if failure:
        table = tidy([], run.experiment, 0)
        shutil.rmtree(working, ignore_errors=True)
    more = {"failure": failure | {"experiment": run.experiment, "seed": 0}} if failure else {}
    provenance = running.provenance(
        model=params.settings,
        settings=params.measurement,
        leaves=working.exists(),
        weights=run.weights(),
        read=run.reading(),
        **more,
    )
    if working.exists():
        finish_folder(working, files, provenance)
    else:
        shutil.rmtree(files, ignore_errors=True)
    write_table(table, snakemake.output.table, provenance)
    running.terminal(
        f"{wildcards.measurement}, {run.experiment}: "
        + (f"could not be made: {failure['message']}" if failure else f"{len(table)} numbers")
        + f" in {perf_counter() - started:.0f} s" * (not failure)
    )
