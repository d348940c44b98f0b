"""Gather the summaries of all experiments of a sweep, with one column for each swept key."""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

from learning_geometry.files import atomic_path, read_table, write_table
from learning_geometry.running import job
from learning_geometry.tables.sweeps import gather

with job(snakemake) as running:
    values = snakemake.params.values
    summaries = {name: read_table(path) for name, path in zip(values, snakemake.input.summaries, strict=True)}
    table = gather(summaries, values)
    write_table(table, snakemake.output.table, running.provenance(values=values))
    with atomic_path(snakemake.output.csv) as path:
        table.to_csv(path, index=False, float_format="%.6g")
    running.terminal(f"{snakemake.wildcards.experiment}: {len(table)} numbers of {len(values)} experiments")
