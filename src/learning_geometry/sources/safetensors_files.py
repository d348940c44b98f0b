"""Tensors of safetensors files, read one by one and without PyTorch, bfloat16 among them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from learning_geometry.model_files.headers import safetensors_head
from learning_geometry.sources.checkpoint import READABLE, ForeignTensor, Held, SourceError, steps_in

FORMAT = "format"
"""Key of the metadata that says which library wrote a file, and ties no names."""
PART = "shard-"
"""How HuggingFaceStorageWriter begins the names of files of one rank's parts of tensors (``save_distributed=True``)."""


@contextmanager
def open_safetensors(path: Path) -> Iterator[Held]:
    """Open a safetensors file.

    Names that ``safetensors.torch.save_model`` left out because they are tied are in the file's metadata alone, as
    left out -> kept (https://huggingface.co/docs/safetensors/torch_shared_tensors), and are aliases.

    Raises:
        SourceError: it is cut or no such file, or holds parts of tensors.
    """
    if path.name.startswith(PART):
        raise SourceError(
            f"{path}: holds one rank's parts of the tensors; save with HuggingFaceStorageWriter(…, "
            "enable_consolidation=True), and give the folder of the whole tensors"
        )
    try:
        head = safetensors_head(path)
    except ValueError as error:
        raise SourceError(str(error)) from error
    aliases = {
        name: kept
        for name, kept in head.metadata.items()
        if name != FORMAT and kept in head.tensors and name not in head.tensors
    }
    tensors = head.tensors | {name: head.tensors[kept] for name, kept in aliases.items()}
    with open(path, "rb", buffering=0) as file:

        def read(name: str) -> np.ndarray:
            kept = aliases.get(name, name)
            return _read(file, head.places[kept][0], head.tensors[kept], f"{path}: {name}")

        def place(name: str) -> tuple[Path, int] | None:
            kept = aliases.get(name, name)
            return (path, head.places[kept][0]) if head.tensors[kept].type in ("F32", "F64") else None

        yield Held(tensors, aliases, "", steps_in(head.metadata), read, place)


def _read(file: Any, start: int, tensor: ForeignTensor, where: str) -> np.ndarray:
    if tensor.type not in READABLE:
        raise SourceError(f"{where} is of type {tensor.type}, which is not read; save it in float32, or ignore it")
    count = math.prod(tensor.shape)
    file.seek(start)
    raw = np.fromfile(file, _numpy_type(tensor.type), count)
    if raw.size != count:
        raise SourceError(f"{where}: the file was cut while it was read; copy it again")
    if tensor.type == "BF16":  # the upper half of a float32
        wide = raw.astype(np.uint32)
        wide <<= 16
        raw = wide.view(np.float32)
    elif tensor.type == "F16":
        raw = raw.astype(np.float32)
    return raw.astype(raw.dtype.newbyteorder("="), copy=False).reshape(tensor.shape)


def _numpy_type(kind: str) -> np.dtype[Any]:
    """Return numpy's type of the bytes: F32 as <f4; BF16, which numpy lacks, as <u2."""
    if kind == "BOOL":
        return np.dtype("?")
    if kind == "BF16":
        return np.dtype("<u2")
    return np.dtype(f"<{kind[0].lower()}{int(kind[1:]) // 8}")
