"""Draw the fixed test sets, and what a run draws once; writes one safetensors file."""

from learning_geometry.progress import log_to
from learning_geometry.tasks.dataset import make_dataset, write_dataset

with log_to(snakemake.log[0]):
    settings, seed = snakemake.params.task, snakemake.params.seed
    provenance = {"task": settings, "seed": seed, "code": snakemake.params.code}
    write_dataset(snakemake.output[0], make_dataset(settings, seed), provenance)
