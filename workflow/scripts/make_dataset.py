"""Draw the fixed test sets, and what a run draws once; writes one safetensors file."""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

from learning_geometry.running import job
from learning_geometry.tasks.dataset import make_dataset, write_dataset

with job(snakemake) as running:
    settings, seed = snakemake.params.task, snakemake.params.seed
    dataset = make_dataset(settings, seed)
    write_dataset(snakemake.output[0], dataset, running.provenance(task=settings, seed=seed))
