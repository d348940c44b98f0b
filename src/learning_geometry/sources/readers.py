"""Checkpoints of other tools, opened without making a pickled object and read tensor by tensor."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np

from learning_geometry.model_files.shards import check_shard
from learning_geometry.sources.checkpoint import Checkpoint, ForeignTensor, Held, SourceError, unwrapped
from learning_geometry.sources.folders import TRAINER_STATE, Weights, trainer_steps, weight_files
from learning_geometry.sources.safetensors_files import open_safetensors

__all__ = ["Checkpoint", "ForeignTensor", "SourceError", "open_checkpoint"]

OF_TORCH = (b"PK\x03\x04", b"\x80")
"""How files of ``torch.save`` begin: a zip archive, and a pickle as it was before PyTorch 1.6."""


@contextmanager
def open_checkpoint(path: Path, state: str | None = None) -> Iterator[Checkpoint]:
    """Open a checkpoint that another tool wrote.

    It may be a safetensors file, a file of ``torch.save`` under any name, an index of shards, or the folder of a
    checkpoint that transformers, accelerate or PyTorch wrote (:func:`folders.weight_files`). Nothing is unpickled but
    tensors, containers and numbers, PyTorch is imported for its own files only, and a tensor is read when asked for.

    Args:
        path: file or folder; nothing is written there.
        state: keys that lead to the state dict in a file of PyTorch, joined by dots; None: the file itself, or one of
            :data:`states.STATE_KEYS`.

    Raises:
        SourceError: it cannot be read, or it cannot be told what is meant; the message says what to do.
    """
    path = Path(path)
    weights = weight_files(path)
    steps = trainer_steps(path)
    with ExitStack() as stack:
        held = [stack.enter_context(_open(file, state)) for file in weights.files]
        yield _joined(path, weights, held, steps, stack)


def _open(file: Path, state: str | None) -> AbstractContextManager[Held]:
    with open(file, "rb") as opened:
        head = opened.read(9)
    if not head:
        raise SourceError(f"{file}: is empty (0 bytes), as failed saves leave it; save it again, or give other files")
    safe = head[8:] == b"{" or file.suffix == ".safetensors"
    if head.startswith(OF_TORCH) and head[8:] != b"{":  # a length of a header may begin with these bytes, too
        # whoever plans jobs over safetensors does without PyTorch
        opening = import_module("learning_geometry.sources.torch_files").open_torch(file, state)
        assert isinstance(opening, AbstractContextManager)
        return opening
    if not safe:
        raise SourceError(f"{file}: is neither a safetensors file nor one of torch.save; correct the path")
    if state:
        raise SourceError(f"{file}: is a safetensors file, in which no `state` {state!r} can be; leave `state` out")
    return open_safetensors(file)


def _joined(path: Path, weights: Weights, held: list[Held], steps: dict[str, int], stack: ExitStack) -> Checkpoint:
    """One checkpoint of all its files, under names without wrappers."""
    _check_of_one_save(weights.files, held)
    place: dict[str, tuple[Held, str]] = {}
    try:
        for file, part in zip(weights.files, held, strict=True):
            if weights.index_file is not None:
                own = {name for name in part.tensors if name not in part.aliases or name in weights.named}
                check_shard(weights.index_file, weights.named, file.name, dict.fromkeys(own))
            place |= {name: (part, name) for name in part.tensors}
        short = unwrapped(place)
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from None
    if not place:
        raise SourceError(f"{path}: holds no tensors; correct the path")
    place = {short[name]: whole for name, whole in place.items()}
    is_open = True

    def close() -> None:
        nonlocal is_open
        is_open = False

    stack.callback(close)

    def read(name: str) -> np.ndarray:
        if name not in place:
            near = difflib.get_close_matches(name, place, 3, 0.0)
            raise SourceError(f"{path}: holds no tensor {name!r}; the nearest are {', '.join(near)}")
        if not is_open:
            raise SourceError(f"{path}: is closed; read {name} before")
        part, inside = place[name]
        return part.read(inside)

    return Checkpoint(
        path=path,
        tensors={name: part.tensors[inside] for name, (part, inside) in place.items()},
        aliases={short[name]: short[kept] for part in held for name, kept in part.aliases.items()},
        state=held[0].state,
        inside=_inside(held, steps),
        read=read,
        place=lambda name: place[name][0].place(place[name][1]),
        beside=tuple(dict.fromkeys(key for part in held for key in part.beside)),
    )


def _check_of_one_save(files: Sequence[Path], held: Sequence[Held]) -> None:
    """Refuse files of one checkpoint that say different steps, or hold their tensors under different keys.

    Raises:
        SourceError: they do; both files are named.
    """
    said: dict[str, tuple[Path, int]] = {}
    for file, part in zip(files, held, strict=True):
        if part.state != held[0].state:
            first, here = (f"under {each!r}" if each else "at its top" for each in (held[0].state, part.state))
            raise SourceError(
                f"{files[0]}: holds its tensors {first}, and {file}, of the same checkpoint, {here}; they are not of "
                "one save: copy both again"
            )
        for key, number in part.inside.items():
            before, step = said.setdefault(key, (file, number))
            if step != number:
                raise SourceError(
                    f"{before}: its {key} is {step}, and that of {file}, of the same checkpoint, {number}; they are "
                    "not of one save: copy both again"
                )


def _inside(held: Sequence[Held], steps: Mapping[str, int]) -> dict[str, int]:
    """What may be the step; what ``trainer_state.json`` says otherwise than the files is there beside it."""
    inside = {key: number for part in held for key, number in part.inside.items()}
    for key, number in steps.items():
        inside[key if inside.get(key, number) == number else f"{TRAINER_STATE}'s {key}"] = number
    return inside
