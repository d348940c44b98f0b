"""Run a language model, with its own or random weights, over prompts; writes its states at their last token.

Work in progress lies in the working directory and is moved to the output at the end, so that a job killed at any moment
and started again continues from what it had saved.
"""

import shutil
from pathlib import Path
from time import perf_counter

import torch

from learning_geometry.measurements.language_capture import capture_prompts, file_digests, working_folder
from learning_geometry.models.language.loading import load
from learning_geometry.progress import log_to
from learning_geometry.streams import stream

with log_to(snakemake.log[0]) as log:
    torch.set_num_threads(snakemake.threads)
    started, params, wildcards = perf_counter(), snakemake.params, snakemake.wildcards
    of = {"settings": params.settings, "code": params.code, "files": file_digests(snakemake.input)}
    working = working_folder(Path(params.working), of)
    untrained = stream("untrained") if wildcards.weights == "untrained" else None
    model = load(**params.settings["model"], untrained=untrained)
    settings = params.settings
    capture_prompts(model, settings["prompts"], settings["chat_template"], working, settings["prepend_bos"])
    working.replace(snakemake.output[0])
    shutil.rmtree(params.working)
    log.terminal(
        f"{wildcards.experiment}: prompts of {', '.join(params.settings['prompts'])}, {wildcards.weights} weights, "
        f"in {perf_counter() - started:.0f} s"
    )
