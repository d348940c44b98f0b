"""A checkpoint of another program with what is imported of it: as it is named there, or through a map."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from learning_geometry.sources.checkpoint import Checkpoint, SourceError
from learning_geometry.sources.readers import open_checkpoint

FLOATS = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f4"), "BF16": np.dtype("<f4")}
"""Types of tensors that are imported -> those that they are imported as, which hold every number of them."""


@dataclass(frozen=True)
class Opened:
    """What is imported of a checkpoint, read one tensor at a time until it is closed."""

    path: Path
    types: dict[str, tuple[np.dtype, tuple[int, ...]]]
    """Name -> type and shape."""
    read: Callable[[str], np.ndarray]
    missing: tuple[str, ...]
    """Parameters of the model that the map does not give; without a map none is known."""
    untold: tuple[str, ...]
    """Square matrices, of which no shape tells whether they are transposed."""
    left_out: dict[str, str]
    """Tensors that are not imported -> why."""
    read_as: dict[str, int]
    """Types that tensors have in the file -> how many of those that are imported."""

    def about(self) -> dict[str, Any]:
        """Return what is stored of the file in what is imported of it."""
        return {"path": str(self.path), "types": self.read_as, "left_out": self.left_out}


@contextmanager
def opened(
    path: Path, source: Mapping[str, Any], model: Mapping[str, Any] | None = None, length: int | None = None
) -> Iterator[Opened]:
    """Open a checkpoint.

    Args:
        path: file or folder.
        source: the section ``source`` of an experiment: ``state``, ``names`` and ``ignore``.
        model: settings of the workflow's transformer that it is one of, if they are known.
        length: positions of the sequences that it learned, if they are known.

    Raises:
        SourceError: it cannot be read, or the map does not fit; the attribute ``about`` of the error is "map" then.
    """
    with open_checkpoint(path, source["state"]) as checkpoint:
        if source["names"] is None:
            yield _as_named(checkpoint, source["ignore"])
        else:
            yield _through_map(checkpoint, source["names"], model, length)


def _as_named(checkpoint: Checkpoint, ignored: list[str]) -> Opened:
    """All tensors of floats that have rows, each once."""
    left_out: dict[str, str] = {}
    types = {}
    unused = dict.fromkeys(ignored)
    for name, tensor in checkpoint.tensors.items():
        patterns = [pattern for pattern in ignored if fnmatchcase(name, pattern)]
        for pattern in patterns:
            unused.pop(pattern, None)
        if patterns:
            left_out[name] = "ignored"
        elif name in checkpoint.aliases:
            left_out[name] = f"the same as {checkpoint.aliases[name]}"
        elif tensor.type not in FLOATS:
            left_out[name] = f"of type {tensor.type}"
        elif not tensor.shape:
            left_out[name] = "a single number"
        else:
            types[name] = (FLOATS[tensor.type], tensor.shape)
    if unused:
        raise SourceError(
            f"{checkpoint.path}: nothing is called {next(iter(unused))}, which is to be ignored; remove it from `ignore`"
        )
    if not types:
        raise SourceError(f"{checkpoint.path}: holds no tensor of floats that is not ignored; give other files")
    kinds = Counter(checkpoint.tensors[name].type for name in types)
    return Opened(checkpoint.path, types, checkpoint.read, (), (), left_out, dict(sorted(kinds.items())))
