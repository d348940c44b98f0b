"""A capture of a text, as the workflow runs it, against a plain forward pass of transformers over the same windows."""

import atexit
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks._memory import peak
from benchmarks._timing import Case, Count
from learning_geometry.config import load as load_config
from learning_geometry.files import read_tensor
from learning_geometry.measurements.common.language_capture import BATCH_SIZE, capture_text, text_tokens
from learning_geometry.measurements.common.language_run import MOMENTS
from learning_geometry.model_files import check_files, places_of
from learning_geometry.models.language import LanguageModel
from learning_geometry.models.language.families import wrap
from learning_geometry.models.language.loading import dequantise, import_transformers, load

CONFIG, EXPERIMENT = Path(__file__).parents[1] / "config" / "config.yaml", "smollm2_texts"
PEER = "a plain forward pass of transformers"
SMALL = {"tokens": 64, "window": 8, "layers": [1], "parts": ["mlp.output"]}
TOLERANCE = 1e-4
"""Difference of the mean stream that enters a layer, relative to its norm."""


class Work(NamedTuple):
    """What both sides do: the texts of the default run, by a model and by transformers' own with the same weights."""

    model: LanguageModel
    module: Any
    texts: tuple[str, ...]
    settings: dict[str, Any]
    folder: Path
    """For what is captured."""


def cases(small: bool) -> list[Case | Count]:
    """Return the cases with both texts of the default run, or with 64 tokens and a tiny model."""
    work = make_work(small)
    captures, plains = count(), cycle([text_tokens(work.model, text, work.settings)[0] for text in work.texts])
    texts = cycle(work.texts)

    def ours() -> None:
        folder = work.folder / str(next(captures))
        capture_text(work.model, next(texts), work.settings, folder)
        shutil.rmtree(folder)

    check(work)
    peaks: list[Callable[[], float]] = [lambda side=side: peak_memory(side, small) for side in SIDES]
    return [
        Case("capture of a text", PEER, ours, lambda: forward(work.module, next(plains)), parts=len(work.texts)),
        Count("capture of a text, peak memory less what is kept", PEER, peaks[0], peaks[1], "MB"),
    ]


def make_work(small: bool) -> Work:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if small:
        module, tokenizer = tiny()
        (folder / "text.txt").write_text("A text of a few words, again and again. " * 20)
        texts = (str(folder / "text.txt"),)
        return Work(wrap(module, "tiny", tokenizer=tokenizer), module, texts, SMALL, folder)
    chosen = load_config(CONFIG)["language_models"][EXPERIMENT]
    path = folder / "dequantised.safetensors"
    dequantise(chosen["model"], path, dict)
    model, module = load(**chosen["model"], dequantised=path), plain_module(chosen["model"])
    module.load_state_dict(model.parameters, strict=False)
    return Work(model, module, tuple(chosen["texts"].values()), chosen["text"], folder)


def plain_module(model: dict[str, Any]) -> Any:
    """Return transformers' model of the section ``model`` of a config, with weights as they are initialised."""
    transformers, files = import_transformers(), check_files(**places_of(model))
    config = transformers.AutoConfig.for_model(**files.config)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def tiny() -> tuple[Any, Any]:
    """Return a tiny Llama that reads bytes, and its tokenizer."""
    transformers = import_transformers()
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(letters, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    config = transformers.LlamaConfig(
        vocab_size=len(letters), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    return transformers.LlamaForCausalLM(config).eval(), tokenizer


@torch.inference_mode()
def forward(module: Any, windows: np.ndarray) -> None:
    """Run transformers' model over windows of tokens, as many at a time as a capture does."""
    for start in range(0, len(windows), BATCH_SIZE):
        module(input_ids=torch.from_numpy(windows[start : start + BATCH_SIZE]), use_cache=False)


def check(work: Work) -> None:
    """Raise ArithmeticError if both are not the same model; run both once, so that neither is cold."""
    layer, folder = work.model.sizes.layers - 1, work.folder / "check"
    settings = work.settings | {"tokens": BATCH_SIZE * work.settings["window"]}
    capture_text(work.model, work.texts[0], settings, folder)
    windows = text_tokens(work.model, work.texts[0], settings)[0]
    ours = read_tensor(folder / MOMENTS, f"layers.{layer}.residual_pre.mean")
    shutil.rmtree(folder)
    with torch.inference_mode():
        states = work.module(input_ids=torch.from_numpy(windows), output_hidden_states=True).hidden_states[layer]
    theirs = states[:, 1:].flatten(0, 1).double().mean(0).numpy()
    difference = float(np.linalg.norm(theirs - ours) / np.linalg.norm(ours))
    print(f"capture: the stream of transformers' model within {difference:.1e} of ours", file=sys.stderr)
    if not difference <= TOLERANCE:
        raise ArithmeticError(f"capture: the stream of transformers' model differs by {difference:.2g} of its norm")


SIDES = ("ours", "plain")


@cache
def peak_memory(side: str, small: bool) -> float:
    """Return the peak memory (MB) of a process of its own that captures a text, or runs the plain forward pass.

    What the capture writes is taken off: it is in memory until all of the text is read.
    """
    if small:  # of this process; another would import for seconds what is imported here
        return peak()
    with tempfile.TemporaryDirectory() as folder:
        chosen = load_config(CONFIG)["language_models"][EXPERIMENT]
        dequantise(chosen["model"], Path(folder) / "dequantised.safetensors", dict)
        command = [sys.executable, "-m", "benchmarks.capture", side, folder]
        return float(subprocess.check_output(command, text=True).split()[-1])


def run_side(side: str, folder: Path) -> float:
    """Return the peak memory (MB) of this process after one side's work."""
    torch.set_num_threads(1)
    chosen = load_config(CONFIG)["language_models"][EXPERIMENT]
    text, settings = next(iter(chosen["texts"].values())), chosen["text"]
    if side == "plain":
        size = settings["tokens"] // settings["window"], settings["window"]
        forward(plain_module(chosen["model"]), np.arange(size[0] * size[1]).reshape(size))
        return peak()
    model = load(**chosen["model"], dequantised=folder / "dequantised.safetensors")
    capture_text(model, text, settings, folder / "captured")
    kept = sum(path.stat().st_size for path in (folder / "captured").rglob("*") if path.is_file())
    return peak() - kept / 2**20


if __name__ == "__main__":
    print(run_side(sys.argv[1], Path(sys.argv[2])))
