"""Write an archived summary as CSV, as the rule summarize does."""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

from learning_geometry.files import atomic_path, read_table
from learning_geometry.running import job

with job(snakemake):
    summary = read_table(snakemake.input.summary)
    with atomic_path(snakemake.output[0]) as path:
        summary.to_csv(path, index=False, float_format="%.6g")
