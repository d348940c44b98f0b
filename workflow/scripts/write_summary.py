"""Write an archived summary as CSV, as the rule summarize does."""

from learning_geometry.files import atomic_path, read_table
from learning_geometry.progress import log_to

with log_to(snakemake.log[0]):
    summary = read_table(snakemake.input[0])
    with atomic_path(snakemake.output[0]) as path:
        summary.to_csv(path, index=False, float_format="%.6g")
