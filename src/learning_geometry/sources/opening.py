"""A checkpoint of another program with what is imported of it: as it is named there, or through a map."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from learning_geometry.model_options import parameter_shapes, sizes_of
from learning_geometry.sources.checkpoint import READABLE, Checkpoint, MapError, SourceError
from learning_geometry.sources.doubts import Doubt, doubts
from learning_geometry.sources.maps import Map, bind, check_copies, fused_once, parameter, read_map
from learning_geometry.sources.matching import bare, bare_names
from learning_geometry.sources.operations import stays
from learning_geometry.sources.readers import open_checkpoint

FLOATS: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f4"),
    "BF16": np.dtype("<f4"),
}
"""Types of tensors that are imported -> those that they are imported as, which hold every number of them."""

BESIDE = "beside the state dict"
"""Why what a file holds under other keys is not imported."""

SIZING = ("embedding.weight", "positions.weight", "readout.weight")
"""Parameters whose shapes tell how many tokens, positions and outputs there are."""


@dataclass(frozen=True)
class Opened:
    """What is imported of a checkpoint, read one tensor at a time until it is closed."""

    path: Path
    types: dict[str, tuple[np.dtype, tuple[int, ...]]]
    """Name -> type and shape."""
    read: Callable[[str], np.ndarray]
    missing: tuple[str, ...]
    """Parameters of the model that the map does not give; without a map none is known."""
    untold: tuple[Doubt, ...]
    """What no shape tells of how the parameters lie in the file."""
    left_out: dict[str, str]
    """Tensors that are not imported, and keys of others beside the state dict -> why."""
    read_as: dict[str, int]
    """Types that tensors have in the file -> how many of those that are imported."""
    places: Mapping[str, tuple[Path, int]]
    """What lies in a file as it is imported -> the file, and where in it the bytes begin."""
    check: Callable[[], None] = lambda: None
    """Raises a SourceError if a tensor that the map leaves out as a copy, or as zero, is none."""

    def about(self) -> dict[str, Any]:
        """Return what is stored of the file in what is imported of it."""
        return {"path": str(self.path), "types": self.read_as, "left_out": self.left_out}


@contextmanager
def opened(path: Path, source: Mapping[str, Any], model: Mapping[str, Any] | None = None) -> Iterator[Opened]:
    """Open a checkpoint.

    Args:
        path: file or folder.
        source: the section ``source`` of an experiment: ``state``, ``names`` and ``ignore``.
        model: settings of the workflow's transformer that it is one of, if they are known.

    Raises:
        SourceError: it cannot be read, as a MapError where the map does not fit.
    """
    with open_checkpoint(path, source["state"]) as checkpoint:
        if source["names"] is None:
            yield _as_named(checkpoint, source["ignore"])
        else:
            yield _through_map(checkpoint, source["names"], model)


def _as_named(checkpoint: Checkpoint, ignored: list[str]) -> Opened:
    """All tensors of floats that have rows, each once."""
    left_out = dict.fromkeys(checkpoint.beside, BESIDE)
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
        elif tensor.type not in READABLE:
            raise SourceError(f"{checkpoint.path}: {name} is of type {tensor.type}, which is not read; `ignore` it")
        elif tensor.type not in FLOATS:
            left_out[name] = f"of type {tensor.type}"
        elif not tensor.shape:
            left_out[name] = "a single number"
        else:
            types[name] = (FLOATS[tensor.type], tensor.shape)
    if unused:
        raise SourceError(
            f"{checkpoint.path}: nothing is called {next(iter(unused))}, which `ignore` names; remove it there"
        )
    if not types:
        raise SourceError(f"{checkpoint.path}: holds no tensor of floats that is not ignored; give other files")
    kinds = Counter(checkpoint.tensors[name].type for name in types)
    read_as = dict(sorted(kinds.items()))
    places = _places(checkpoint, {name: name for name in types})
    return Opened(checkpoint.path, types, checkpoint.read, (), (), left_out, read_as, places)


def _places(checkpoint: Checkpoint, tensors: Mapping[str, str]) -> dict[str, tuple[Path, int]]:
    """Return where the tensors that bear some names here lie, of those that lie in a file as they are."""
    found = {name: checkpoint.place(tensor) for name, tensor in tensors.items()}
    return {name: place for name, place in found.items() if place is not None}


def _through_map(checkpoint: Checkpoint, names: str, model: Mapping[str, Any] | None) -> Opened:
    """The parameters of the workflow's transformer, as far as the map gives them."""
    try:
        chosen = read_map(names)
        shapes, missing = None, []
        if model is not None:
            expected = _expected(checkpoint, chosen, model)
            given = {_any_layer(entry.name) for entry in chosen.entries}
            shapes = {name: shape for name, shape in expected.items() if _any_layer(name) in given}
            missing = [name for name in expected if name not in shapes]
        binding = bind(chosen, checkpoint.tensors, shapes, model or {})
    except SourceError as error:
        raise MapError(str(error)) from None
    bound = {each.name: each for each in binding.bound}
    filled_in = np.dtype("<f8") if binding.double else np.dtype("<f4")
    kinds = {name: checkpoint.tensors[each.tensor].type for name, each in bound.items() if each.tensor is not None}
    types = {name: (FLOATS[kinds[name]] if name in kinds else filled_in, each.shape) for name, each in bound.items()}
    read = fused_once(binding, checkpoint.read)
    left_out = dict.fromkeys(checkpoint.beside, BESIDE)
    left_out |= dict.fromkeys(binding.ignored, "ignored by the map") | dict.fromkeys(binding.zeros, "zero")
    return Opened(
        checkpoint.path,
        types,
        lambda name: parameter(binding, bound[name], read),
        tuple(missing),
        tuple(doubts(binding, model or {})),
        left_out,
        dict(sorted(Counter(kinds.values()).items())),
        _places(checkpoint, {name: each.tensor for name, each in bound.items() if each.tensor and stays(each.at)}),
        lambda: check_copies(binding, checkpoint.read),
    )


def _expected(checkpoint: Checkpoint, chosen: Map, model: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the parameters of the model, sized as the file has them."""
    tensors = {bare: checkpoint.tensors[name].shape for bare, name in bare_names(chosen, checkpoint.tensors).items()}
    sizing = {}
    for entry in chosen.entries:
        if entry.name in SIZING and entry.source is not None:
            shape = tensors.get(bare(chosen, entry.source))
            if shape is not None and len(shape) == 2:
                sizing[entry.name] = shape[::-1] if entry.transpose else shape
    if model["tied_readout"]:
        sizing.pop("readout.weight", None)
    # a map without an embedding is of parts that do not depend on it
    sizes = sizes_of({"embedding.weight": (1, 1)} | sizing)
    return parameter_shapes(model, *sizes)


def _any_layer(name: str) -> str:
    return re.sub(r"^layers\.[0-9]+\.", "layers.{l}.", name)
