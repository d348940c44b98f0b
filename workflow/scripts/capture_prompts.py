"""Run a language model, with its own or random weights, over prompts; writes its states at their last token.

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
from learning_geometry.measurements.common.language_capture import capture_prompts, working_folder
from learning_geometry.models.language.loading import load
from learning_geometry.running import job
from learning_geometry.seeding import seeded

with job(snakemake) as running:
    torch.set_num_threads(snakemake.threads)
    started, params, wildcards = perf_counter(), snakemake.params, snakemake.wildcards
    of, device = {"settings": params.settings, "key": running.key}, params.settings["model"]["device"]
    working = working_folder(Path(params.working), of, device)
    untrained = seeded("untrained") if wildcards.weights == "untrained" else None
    # of a GGUF file
    dequantised = next(iter(snakemake.input.get("dequantised", [])), None)
    model = load(**params.settings["model"], untrained=untrained, dequantised=dequantised)
    settings = params.settings
    capture_prompts(model, settings["prompts"], settings["chat_template"], working, settings["prepend_bos"])
    finish_folder(working, snakemake.output[0], running.provenance(**settings))
    shutil.rmtree(params.working)
    running.terminal(
        f"{wildcards.experiment}: prompts of {', '.join(params.settings['prompts'])}, {wildcards.weights} weights, "
        f"in {perf_counter() - started:.0f} s"
    )
