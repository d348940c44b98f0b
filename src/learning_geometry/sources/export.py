"""Checkpoints of the workflow as other tools have them: the way of a map, backwards.

Nothing is left out and nothing is made up: what is to be written is first read back through the map that reads such
files, and must be the same parameters, bit by bit.
"""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from learning_geometry.files import atomic_path, read_json, write_json
from learning_geometry.sources import operations
from learning_geometry.sources.checkpoint import ForeignTensor, SourceError
from learning_geometry.sources.map_files import Entry, Map, nearest, read_map
from learning_geometry.sources.maps import apply, bind, placement
from learning_geometry.sources.matching import entries_of
from learning_geometry.sources.targets import HUGGING_FACE, TARGETS, config, map_of, refusals

Arrays = Mapping[str, np.ndarray]

WITH_COPY = ("nanogpt", "transformer_lens")
"""Targets that hold a tied read-out twice."""

TYPES = {"float64": "F64", "float32": "F32"}


class Exported(NamedTuple):
    """A model as another tool has it."""

    config: dict[str, Any]
    """What its config says, see :func:`targets.config`."""
    state: dict[str, np.ndarray]
    """Its tensors by name."""


def export(target: str, parameters: Arrays, settings: Mapping[str, Any], length: int) -> Exported:
    """Return parameters of the transformer as another tool has them.

    Args:
        target: one of :data:`targets.TARGETS`.
        parameters: by name, float32 or float64.
        settings: of the model, defaults filled in.
        length: number of positions that the config is to say; that of learned ones is theirs.

    Raises:
        SourceError: there is no such target, or it cannot hold the model; every option that it lacks is named.
    """
    if target not in TARGETS:
        raise SourceError(f"{target!r} is no target of an export; did you mean {nearest(target, TARGETS)}?")
    if settings.get("name", "transformer") != "transformer":
        raise SourceError(f"the model is {settings['name']!r}, and the transformer alone is exported")
    positions, embedding = parameters.get("positions.weight"), parameters["embedding.weight"]
    outputs = len(parameters.get("readout.weight", embedding))
    if lacking := list(refusals(target, settings, len(embedding), outputs)):
        raise SourceError(f"{target} cannot hold this model: {'; '.join(lacking)}")
    state = unmapped(read_map(map_of(target, settings)), parameters, settings, target in WITH_COPY)
    _check_back(map_of(target, settings), parameters, settings, state)
    length = length if positions is None else len(positions)
    return Exported(config(target, settings, len(embedding), outputs, length), state)


def unmapped(of: Map, parameters: Arrays, settings: Mapping[str, Any], copy: bool) -> dict[str, np.ndarray]:
    """Return the tensors that a map makes these parameters of.

    Args:
        of: the map; prefixes are as it writes them.
        parameters: by name.
        settings: of the model.
        copy: whether a tied read-out is a tensor as well.

    Raises:
        SourceError: a parameter has no place in the tensors, or a tensor lacks one of its parts.
    """
    entries = entries_of(of, settings["layers"])
    placed: dict[str, dict[int, tuple[np.ndarray, operations.Placement]]] = {}
    for name, value in parameters.items():
        if name not in entries:
            raise SourceError(f"map {of.name}: has no place for {name}; choose another target")
        _put(placed, entries[name], value, settings)
    for name, entry in entries.items():
        if copy and name not in parameters and entry.tied is not None and entry.tied in parameters:
            _put(placed, entry, parameters[entry.tied], settings)
    state = {}
    for tensor, parts in placed.items():
        count = next(iter(parts.values()))[1].part[1]
        if missing := sorted(set(range(count)) - set(parts)):
            raise SourceError(f"map {of.name}: the model lacks part {missing[0]} of {tensor}; choose another target")
        values, places = zip(*(parts[number] for number in range(count)), strict=True)
        state[tensor] = operations.fuse(values, places)
    return state


def write(target: str, folder: Path, step: int, exported: Exported) -> Path:
    """Write a checkpoint of a step, whole or not at all, and return its path: a folder of Hugging Face, or a file.

    Raises:
        SourceError: there is something of that name already.
    """
    path = written_path(target, folder, step)
    check_absent(path)
    if target in HUGGING_FACE:
        with _whole_folder(path) as working:
            write_json(working / "config.json", exported.config)
            safetensors.numpy.save_file(exported.state, working / "model.safetensors", metadata={"format": "pt"})
        return path
    import torch

    state = {name: torch.from_numpy(value) for name, value in exported.state.items()}
    content: dict[str, Any] = state
    if target == "nanogpt":
        content = {"model": state, "model_args": exported.config, "iter_num": step}
    else:
        described = folder / "config.json"
        if not described.exists():
            write_json(described, exported.config)
        elif read_json(described) != exported.config:
            raise SourceError(f"{described}: is of another model; export to another folder")
    with atomic_path(path) as temporary:
        torch.save(content, temporary)  # tensors and plain values, which weights_only=True reads
    return path


def written_path(target: str, folder: Path, step: int) -> Path:
    """Return where :func:`write` writes a step."""
    name = {"nanogpt": f"ckpt_{step}.pt", "transformer_lens": f"model_{step}.pt"}.get(target, f"checkpoint-{step}")
    return folder / name


def check_absent(path: Path) -> None:
    """Raise a SourceError if there is anything at a path: nothing is ever overwritten."""
    if path.exists() or path.is_symlink():
        raise SourceError(f"{path}: is there already, and nothing is overwritten; export to another folder")


def _put(
    placed: dict[str, dict[int, tuple[np.ndarray, operations.Placement]]],
    entry: Entry,
    value: np.ndarray,
    settings: Mapping[str, Any],
) -> None:
    """Note a parameter as a part of its tensor, or see that it is what its entry fills in."""
    if entry.source is None:
        if value.tobytes() != np.full_like(value, entry.fill).tobytes():
            raise SourceError(f"{entry.name}: the target has none, as if it were {entry.fill}, and it is not")
        return
    at = placement(entry, settings, lambda _: len(value))
    placed.setdefault(entry.source, {})[at.part[0]] = value, at


def _check_back(map_name: str, parameters: Arrays, settings: Mapping[str, Any], state: Arrays) -> None:
    """Read what is to be written through its map, and compare it with what it was made of."""
    headers = {name: ForeignTensor(TYPES[str(value.dtype)], value.shape) for name, value in state.items()}
    shapes = {name: value.shape for name, value in parameters.items()}
    back = dict(apply(bind(read_map(map_name), headers, shapes, settings), lambda name: state[name]))
    if differing := [name for name in parameters if back[name].tobytes() != parameters[name].tobytes()]:
        raise AssertionError(f"{differing[0]}: is not what it was after the way there and back")


@contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path``, which gets its name at the end, or goes on an exception."""
    working = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    working.mkdir(parents=True)
    try:
        yield working
        check_absent(path)
        os.rename(working, path)
    except BaseException:
        shutil.rmtree(working)
        raise
