"""Gather every table of an experiment, add what follows from them alone, and summarise over seeds with intervals."""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

import pandas as pd

from learning_geometry.discovery import load_module, module_files
from learning_geometry.failures import failure, row
from learning_geometry.files import atomic_path, read_provenance, read_table, write_table
from learning_geometry.running import job, mixed
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import check_other_seeds, gathered, tidy, with_other_seeds

with job(snakemake) as running:
    tables = [with_other_seeds(read_table(path)) for path in snakemake.input.tables]
    measured = gathered(dict(zip(snakemake.input.tables, tables, strict=True)))
    there = set(measured["quantity"])
    derived = [load_module("derived", path.stem) for path in module_files("derived")]
    for module in derived:
        if there >= set(module.DERIVED_FROM):
            tables.append(module.derive(measured))
            check_other_seeds(tables[-1], "all", module.__name__)  # of all seeds it is given the tables
    made = {path: read_provenance(path) for path in snakemake.input.tables}
    failed = [failure(provenance, path) for path, provenance in made.items() if "failure" in provenance]
    tables += [tidy([row(each.measurement, each.reason)], each.experiment, each.seed) for each in failed]
    summary = summarize(tables)
    different = mixed(made.values())
    more = {"mixed": different} if different else {}
    provenance = running.provenance(tables=made, failures=[each._asdict() for each in failed], **more)
    write_table(pd.concat(tables, ignore_index=True), snakemake.output.runs, provenance)
    write_table(summary, snakemake.output.summary, provenance)
    with atomic_path(snakemake.output.csv) as path:
        summary.to_csv(path, index=False, float_format="%.6g")
    running.terminal(f"{snakemake.wildcards.experiment}: {len(summary)} numbers over seeds")
    for name, values in different.items():
        running.terminal(f"{snakemake.wildcards.experiment}: made with different {name}: {', '.join(values)}")
