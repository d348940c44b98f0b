"""Checkpoints of the workflow as other tools have them: the way of a map, backwards.

Nothing is left out and nothing is made up: the parameters must be those that the model's settings give it, and what is
to be written is first read back through the map that reads such files, and must be the same parameters, bit by bit.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learning_geometry.files import read_json, write_json
from learning_geometry.model_options import parameter_shapes, sizes_of
from learning_geometry.sources import operations
from learning_geometry.sources.checkpoint import ForeignTensor, SourceError
from learning_geometry.sources.map_files import Entry, Map, nearest, read_map
from learning_geometry.sources.maps import apply, bind, placement
from learning_geometry.sources.matching import entries_of
from learning_geometry.sources.operations import Shape
from learning_geometry.sources.targets import HUGGING_FACE, TARGETS, config, map_of, refusals

# importing torch takes seconds, which what is refused need not wait for
if TYPE_CHECKING:
    import torch

Arrays = Mapping[str, np.ndarray]

WITH_COPY = ("nanogpt", "transformer_lens")
"""Targets that hold a tied read-out twice."""

TYPES = {"float64": "F64", "float32": "F32"}
"""Types of parameters, as numpy and as files name them."""

HALVES = {"BF16": "bfloat16", "F16": "float16"}
"""Types of tensors whose numbers are float32 in the checkpoints of a run -> PyTorch's names, with which they go out."""

SIZING = ("embedding.weight", "positions.weight", "readout.weight")
"""Parameters whose shapes tell how many tokens, positions and outputs there are."""

SHOWN = 5
"""Names that an error lists before it counts the others."""


class Exported(NamedTuple):
    """A model as another tool has it."""

    config: dict[str, Any]
    """What its config says, see :func:`targets.config`."""
    state: dict[str, np.ndarray]
    """Its tensors by name, float32 where they are to be written in one of :data:`HALVES`."""
    type: str
    """PyTorch's name of the type in which all of them are written."""


def export(
    target: str, parameters: Arrays, settings: Mapping[str, Any], length: int, read_as: str | None = None
) -> Exported:
    """Return parameters of the transformer as another tool has them.

    Args:
        target: one of :data:`targets.TARGETS`.
        parameters: by name, all float32 or all float64.
        settings: of the model, defaults filled in.
        length: number of positions that the config is to say; that of learned ones is theirs.
        read_as: the type that all of them had in the file that they are from, as files name it, if that is known; those
            of :data:`HALVES` are written so again.

    Raises:
        SourceError: as :func:`check`; or the parameters are of several types, or of one that is not written.
    """
    vocabulary, outputs = check(target, {name: value.shape for name, value in parameters.items()}, settings)
    kind = _type(parameters, read_as)
    state = unmapped(read_map(map_of(target, settings)), parameters, settings, target in WITH_COPY)
    _check_back(map_of(target, settings), parameters, settings, state)
    length = len(parameters["positions.weight"]) if "positions.weight" in parameters else length
    return Exported(config(target, settings, vocabulary, outputs, length, kind), state, kind)


def check(target: str, shapes: Mapping[str, Shape], settings: Mapping[str, Any]) -> tuple[int, int]:
    """See that a target can hold a model, and that its parameters are those that its settings give it.

    Args:
        target: one of :data:`targets.TARGETS`.
        shapes: of the parameters, by name.
        settings: of the model, defaults filled in.

    Returns:
        The numbers of tokens and of outputs.

    Raises:
        SourceError: there is no such target, parameters are missing, too many or of other shapes than the settings
            say, naming them; or the target cannot hold the model, naming every option that it lacks.
    """
    if target not in TARGETS:
        raise SourceError(f"{target!r} is no target of an export; did you mean {nearest(target, TARGETS)}?")
    if settings.get("name", "transformer") != "transformer":
        raise SourceError(f"the model is {settings['name']!r}, and the transformer alone is exported")
    _check_names(shapes, settings)
    vocabulary, outputs = _check_shapes(shapes, settings)
    if lacking := list(refusals(target, settings, vocabulary, outputs)):
        raise SourceError(f"{target} cannot hold this model: {'; '.join(lacking)}")
    return vocabulary, outputs


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
        SourceError: as :func:`write_all`.
    """
    return write_all(target, folder, [step], lambda _: exported)[0]


def write_all(target: str, folder: Path, steps: Sequence[int], exported: Callable[[int], Exported]) -> list[Path]:
    """Write checkpoints, all of them or none, and return their paths as :func:`write` does.

    They are written to a hidden folder first, and get their names when all are there.

    Args:
        target: one of :data:`targets.TARGETS`.
        folder: where to write; made if absent.
        steps: of the checkpoints, each once.
        exported: returns that of a step; it is called for one after another, and may raise.

    Raises:
        SourceError: there is something of one of the names already, or ``config.json``, which transformer_lens has once
            for all steps, is of another model.
    """
    paths = [written_path(target, folder, step) for step in steps]
    for path in paths:
        check_absent(path)
    with _all_or_none(folder) as working:
        for step in steps:
            _write_one(target, working, folder, step, exported(step))
    return paths


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


def _check_names(shapes: Mapping[str, Shape], settings: Mapping[str, Any]) -> None:
    """Compare the names of parameters with those that a model's settings give it; sizes do not matter to them."""
    expected = parameter_shapes(settings, 1, 1, 1)
    if missing := [name for name in expected if name not in shapes]:
        raise SourceError(
            f"there is no {_some(missing)}, which the model has by its settings; import it with a map that gives all "
            "parameters, or correct `model`"
        )
    if more := sorted(set(shapes) - set(expected)):
        raise SourceError(
            f"there is {_some(more)}, which the model has not by its settings; correct `model`, or the map that it was "
            "imported with"
        )


def _check_shapes(shapes: Mapping[str, Shape], settings: Mapping[str, Any]) -> tuple[int, int]:
    """Compare the shapes of all parameters with those of the settings; return how many tokens and outputs there are."""
    # these tell the sizes that all are compared with, and one that is no matrix tells none
    wrong = [f"{name} is {tuple(shapes[name])} and no matrix" for name in SIZING if len(shapes.get(name, (0, 0))) != 2]
    if not wrong:
        wrong = [
            f"{name} is {tuple(shapes[name])} and not {shape}"
            for name, shape in parameter_shapes(settings, *sizes_of(shapes)).items()
            if tuple(shapes[name]) != shape
        ]
    if wrong:
        raise SourceError(
            f"shapes are not those of the model's settings: {_some(wrong, '; ')}; correct `model`, or the map that it "
            "was imported with"
        )
    return sizes_of(shapes)[:2]


def _some(names: Sequence[str], between: str = ", ") -> str:
    """Return the first few of some names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return between.join(names[:SHOWN]) + more


def _type(parameters: Arrays, read_as: str | None) -> str:
    """Return PyTorch's name of the type that tensors of these parameters are written in.

    It is theirs, or the half as wide one that they were read from.

    Raises:
        SourceError: they are of several types, or of one that is not written, or hold what they cannot have been read
            as.
    """
    named: dict[str, list[str]] = {}
    for name, value in parameters.items():
        named.setdefault(str(value.dtype), []).append(name)
    if len(named) > 1:
        # a tensor has one type, and a config says one: another would be a silent conversion
        groups = "; ".join(f"{kind}: {_some(names)}" for kind, names in sorted(named.items()))
        raise SourceError(f"parameters are of several types, and are written in one ({groups}); save all in one type")
    (kind,) = named
    if kind not in TYPES:
        raise SourceError(f"parameters are of type {kind}, and are written from {', '.join(TYPES)}; convert them")
    if read_as not in HALVES or kind != "float32":
        return kind
    half = HALVES[read_as]
    if lost := [name for name, value in parameters.items() if not _fits(value, half)]:
        raise SourceError(
            f"{_some(lost)}: holds numbers that {half} lacks, and the run says that it was read from that"
        )
    return half


def _fits(value: np.ndarray, half: str) -> bool:
    """Return whether every number of a float32 array is one of a type half as wide."""
    if half == "bfloat16":  # the upper half of a float32
        return not (value.view(np.uint32) & 0xFFFF).any()
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is seen to differ
        return bool(np.array_equal(value.astype(np.float16).astype(np.float32), value, equal_nan=True))


def _tensors(exported: Exported) -> dict[str, "torch.Tensor"]:
    """Return what is to be written as PyTorch has it, since numpy has no bfloat16."""
    import torch

    def converted(value: np.ndarray) -> torch.Tensor:
        if exported.type == "bfloat16":
            # its bits, and not a conversion, which would give every NaN the same ones
            upper = (value.view(np.uint32) >> 16).astype(np.uint16)
            return torch.from_numpy(upper.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(value.astype(exported.type, copy=False))

    return {name: converted(value) for name, value in exported.state.items()}


def _write_one(target: str, working: Path, folder: Path, step: int, exported: Exported) -> None:
    """Write the checkpoint of a step below ``working``, which is to become part of ``folder``."""
    import safetensors.torch
    import torch

    tensors, path = _tensors(exported), written_path(target, working, step)
    if target in HUGGING_FACE:
        path.mkdir()
        write_json(path / "config.json", exported.config)
        safetensors.torch.save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return
    content: dict[str, Any] = tensors
    if target == "nanogpt":
        content = {"model": tensors, "model_args": exported.config, "iter_num": step}
    else:
        _describe(working, folder, exported.config)
    torch.save(content, path)  # tensors and plain values, which weights_only=True reads


def _describe(working: Path, folder: Path, described: Mapping[str, Any]) -> None:
    """Write the one ``config.json`` of all steps, or see that the one that is there says the same."""
    there = [each / "config.json" for each in (folder, working) if (each / "config.json").exists()]
    for path in there:
        if read_json(path) != described:
            raise SourceError(
                f"{folder / path.name}: is of another model, or of another step's type; export to another folder"
            )
    if not there:
        write_json(working / "config.json", described)


@contextmanager
def _all_or_none(folder: Path) -> Iterator[Path]:
    """Yield a new folder inside ``folder``, whose content moves there at the end, or goes on an exception."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    working = folder / f".exporting.{secrets.token_hex(4)}"
    try:
        working.mkdir(parents=True)
        yield working
        _move(working, folder)
        working.rmdir()
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        _remove_empty(made)
        raise


def _move(working: Path, folder: Path) -> None:
    """Move all that is in a folder to another, or nothing."""
    names = sorted(each.name for each in working.iterdir())
    moved = []
    try:
        for name in names:
            check_absent(folder / name)
            os.rename(working / name, folder / name)
            moved.append(name)
    except BaseException:
        for name in moved:
            os.rename(folder / name, working / name)
        raise


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of some folders that are there and empty."""
    for each in folders:
        with suppress(OSError):
            each.rmdir()
