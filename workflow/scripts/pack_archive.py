"""Pack the tables of every experiment, and the checksums of what was drawn from them, into one file."""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

import os

from learning_geometry.archive import pack
from learning_geometry.running import job

with job(snakemake) as running:
    results = os.path.dirname(snakemake.output[0])
    drawn = [os.path.relpath(path, results) for path in snakemake.input.drawn]
    pack(snakemake.output[0], results, snakemake.params.config, drawn)
    size = os.path.getsize(snakemake.output[0])
    running.terminal(f"archive {snakemake.output[0]}: {len(snakemake.input.tables)} tables, {size / 1e6:.1f} MB")
