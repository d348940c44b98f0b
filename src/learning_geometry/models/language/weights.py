"""Weights of GGUF files as Hugging Face's models have them, and whether all that files hold was taken."""

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from learning_geometry.model_files import ModelFiles
from learning_geometry.model_files.headers import TYPES, Gguf, gguf_header

ROUNDED = 1e-2
"""By how much frequencies in a file may differ from the config's, relative: by the rounding of half precision."""


def gguf_weights(files: ModelFiles) -> dict[str, Float32[Tensor, "..."]]:
    """Return all weights of a GGUF file in float32, by their names in Hugging Face's layout."""
    assert files.gguf is not None and files.of_gguf is not None
    header, weights = gguf_header(files.gguf), {}
    for name in header.tensors:
        if name not in files.of_gguf.names:
            continue
        values = gguf_tensor(header, files.gguf, name)
        if heads := files.of_gguf.interleaved.get(name):
            values = _halves(values, heads)
        if name in files.of_gguf.transposed:
            values = values.T
        weights[files.of_gguf.names[name]] = torch.from_numpy(np.array(values, dtype=np.float32, order="C"))
    return weights


def gguf_tensor(header: Gguf, path: Path, name: str) -> Float32[np.ndarray, "..."]:
    """Return a tensor of a GGUF file in float32."""
    gguf: Any = import_module("gguf")
    kind, shape = header.tensors[name]
    offset, size = header.places[name]
    raw = np.fromfile(path, dtype=np.uint8, count=size, offset=offset)
    if kind in ("F32", "F16"):
        plain = {"F32": "<f4", "F16": "<f2"}[kind]
        return raw.view(plain).reshape(shape).astype(np.float32)
    block, bytes_of_block = next((block, size) for known, block, size in TYPES.values() if known == kind)
    rows = raw.reshape(*shape[:-1], shape[-1] // block * bytes_of_block)
    values: np.ndarray = gguf.dequantize(rows, gguf.GGMLQuantizationType[kind])
    return values.astype(np.float32, copy=False)


def check_report(report: Mapping[str, Any], files: ModelFiles, where: str) -> None:
    """Check that transformers took all that the files hold, and found all that it needs.

    Raises:
        ValueError: it did not.
    """
    unexpected = sorted(set(report["unexpected_keys"]) - files.extras.keys())
    missing = sorted(set(report["missing_keys"]))
    mismatched = sorted(str(each[0]) for each in report["mismatched_keys"])
    for what, names in (
        ("are in its files and not in the model", unexpected),
        ("are not in its files", missing),
        ("have another shape in its files", mismatched),
    ):
        if names:
            raise ValueError(f"{where}: {len(names)} weights {what}, such as {names[0]}; get the files again")
    if errors := report.get("error_msgs"):
        raise ValueError(f"{where}: its weights cannot be read ({errors[0]}); get the files again")


def check_weights(module: Any, where: str) -> None:
    """Check that every weight is finite: a damaged row of an embedding would show only where its token is read.

    Raises:
        ValueError: one is not; the message names the tensor.
    """
    for name, weight in module.named_parameters():
        least, most = weight.detach().aminmax()  # what is not a number comes through
        if not math.isfinite(float(least)) or not math.isfinite(float(most)):
            raise ValueError(f"{where}: {name} holds numbers that are not finite; get the files again")


def check_extras(files: ModelFiles, module: Any, where: str) -> None:
    """Check that what the files hold besides the weights follows from weights and config.

    That are copies of the embedding, causal masks, what is added to what they hide, and rotary frequencies.

    Raises:
        ValueError: it does not.
    """
    for name, (file, own) in files.extras.items():
        with safetensors.safe_open(file, framework="pt") as content:
            value: Tensor = content.get_tensor(own)
            if name == files.layout.head:
                embedding = module.get_input_embeddings().weight
                fits = value.shape == embedding.shape and torch.equal(value.to(embedding.dtype), embedding)
                what = "another than the embedding, and the config ties both; set tie_word_embeddings to false"
            elif name.endswith("inv_freq"):
                fits, what = _same_frequencies(value, module), "other frequencies than the config's; mend the config"
            elif name.endswith("masked_bias"):
                fits, what = bool((value.float() <= -1e4).all()), "no number that hides; get the files again"
            else:
                side = value.shape[-1]
                triangle = torch.ones(side, side, dtype=torch.bool).tril()
                fits = value.shape[-2:] == triangle.shape and torch.equal(value.reshape(-1, side).bool(), triangle)
                what = "another mask than a causal one, and would be left out; get the files again"
        if not fits:
            raise ValueError(f"{where}: {own} in {file.name} is {what}")


def _same_frequencies(value: Float[Tensor, " pairs"], module: Any) -> bool:
    frequencies = next(buffer for name, buffer in module.named_buffers() if name.endswith("rotary_emb.inv_freq"))
    if value.shape != frequencies.shape:
        return False
    return bool(((value.float() - frequencies).abs() <= ROUNDED * frequencies.abs()).all())


def _halves(values: Float32[np.ndarray, "rows ..."], heads: int) -> Float32[np.ndarray, "rows ..."]:
    """Rows with the two halves of each head one after the other, where they are interleaved."""
    by_pair = values.reshape(heads, len(values) // heads // 2, 2, *values.shape[1:])
    return by_pair.swapaxes(1, 2).reshape(values.shape)
