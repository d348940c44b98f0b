"""Run a language model over a text; writes the moments of all layers, and the activations of those that are kept.

Work in progress lies in the working directory and is moved to the output at the end, so that a job killed at any moment
and started again continues from what it had saved.
"""

import shutil
from pathlib import Path
from time import perf_counter

import torch

from learning_geometry.measurements.language_capture import capture_text, file_digests, working_folder
from learning_geometry.models.language.loading import load
from learning_geometry.progress import log_to

with log_to(snakemake.log[0]) as log:
    torch.set_num_threads(snakemake.threads)
    started, params, wildcards = perf_counter(), snakemake.params, snakemake.wildcards
    of = {
        "model": params.model,
        "text": params.source,
        "settings": params.settings,
        "prepend_bos": params.prepend_bos,
        "code": params.code,
        "files": file_digests(snakemake.input),
    }
    working = working_folder(Path(params.working), of)

    def report(tokens, what):
        """Say in the log how far it is."""
        print(f"{what}: {tokens} tokens after {perf_counter() - started:.0f} s", flush=True)

    model = load(**params.model)
    capture_text(model, params.source, params.settings, working, report, prepend_bos=params.prepend_bos)
    working.replace(snakemake.output[0])
    shutil.rmtree(params.working)
    log.terminal(
        f"{wildcards.experiment}: {params.settings['tokens']} tokens of {wildcards.text} "
        f"in {perf_counter() - started:.0f} s"
    )
