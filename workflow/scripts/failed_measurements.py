"""Fail while one of the tables has no numbers because its measurement could not be made; else leave an empty file."""

from learning_geometry.failures import failures
from learning_geometry.files import write_text
from learning_geometry.progress import log_to

with log_to(snakemake.log[0]):
    found = failures(snakemake.input)
    if found:
        raise RuntimeError(f"{len(found)} could not be made, see below")
    write_text(snakemake.output[0], "")
