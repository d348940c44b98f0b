"""Run a language model over a text; writes the moments of all layers, and the activations of those that are kept.

Work in progress lies in the working directory and becomes the output at the end, in one rename, so that a job killed at
any moment and started again continues from what it had saved.
"""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

import shutil
from pathlib import Path
from time import perf_counter

import torch

from learning_geometry.files import finish_folder
from learning_geometry.measurements.common.language_capture import capture_text, working_folder
from learning_geometry.models.language.loading import load
from learning_geometry.running import job

with job(snakemake) as running:
    torch.set_num_threads(snakemake.threads)
    started, params, wildcards = perf_counter(), snakemake.params, snakemake.wildcards
    of = {"model": params.model, "text": params.source, "settings": params.settings}
    of |= {"prepend_bos": params.prepend_bos}
    working = working_folder(Path(params.working), of | {"key": running.key}, params.model["device"])

    def report(tokens, what):
        """Say in the log how far it is."""
        running.unchanged()
        print(f"{what}: {tokens} tokens after {perf_counter() - started:.0f} s", flush=True)

    # of a GGUF file
    dequantised = next(iter(snakemake.input.get("dequantised", [])), None)
    model = load(**params.model, dequantised=dequantised)
    capture_text(model, params.source, params.settings, working, report, prepend_bos=params.prepend_bos)
    finish_folder(working, snakemake.output[0], running.provenance(**of))
    shutil.rmtree(params.working)
    running.terminal(
        f"{wildcards.experiment}: {params.settings['tokens']} tokens of {wildcards.text} "
        f"in {perf_counter() - started:.0f} s"
    )
