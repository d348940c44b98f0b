"""Fail while one of the tables has no numbers because its measurement could not be made; else leave an empty file."""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

from learning_geometry.failures import failures
from learning_geometry.files import write_text
from learning_geometry.progress import log_to

with log_to(snakemake.log[0]):
    failed = failures(snakemake.input)
    if failed:
        raise RuntimeError(f"{len(failed)} could not be made, see below")
    write_text(snakemake.output[0], "")
