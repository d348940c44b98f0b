"""Write the weights of a GGUF file in float32, which all who load the model then map into memory."""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

from learning_geometry.models.language.loading import dequantise
from learning_geometry.running import job

with job(snakemake) as running:
    model = snakemake.params.model
    dequantise(model, snakemake.output[0], lambda: running.provenance(model=model))
