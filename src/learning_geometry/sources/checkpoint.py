"""What is common to the checkpoints of all tools."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from learning_geometry.model_files.headers import TensorHeader

ForeignTensor = TensorHeader
"""A tensor's type, such as "BF16", and shape. Types are named as safetensors names them; others as PyTorch does."""

READABLE = frozenset(
    {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"},
)
"""Types of tensors that are read. Others are listed in a checkpoint, and refused by name when they are read."""

STEP_KEYS = ("global_step", "iter_num", "step")
"""Names under which tools keep the step of a checkpoint in the file."""

LARGEST_STEP = 2**53
"""No step is as large; beyond it floats skip whole numbers."""

DISTRIBUTED = "_orig_mod", "module."
"""What torch.compile puts into names, and what DataParallel and DistributedDataParallel put before them."""


class SourceError(ValueError):
    """A checkpoint, or a series of them, that is not understood. The message says which, why, and what to do."""


class MapError(SourceError):
    """A map that cannot be read, or that does not fit a checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint of another tool; its tensors are read one by one."""

    path: Path
    """The file or the folder."""
    tensors: dict[str, ForeignTensor]
    """Every tensor by its name, without what wrappers put before it; tied names are among them."""
    aliases: dict[str, str]
    """Tied name -> name of the tensor that holds its values."""
    state: str
    """Keys under which the state dict stands in the file, joined by dots; "": the file itself."""
    inside: dict[str, int]
    """What may be the step: those of :data:`STEP_KEYS` that the file holds, and ``trainer_state.json``'s."""
    read: Callable[[str], np.ndarray]
    """Values of one tensor, a contiguous array of its own: float64 as it is, other floats in float32 (every bfloat16
    and float16 is one exactly), integers and booleans as they are. It may be called until the checkpoint is closed."""
    place: Callable[[str], tuple[Path, int] | None] = lambda name: None
    """The file in which a tensor's bytes lie as they are read, and where they begin; None: they are not read so."""
    beside: tuple[str, ...] = ()
    """Keys of tensors in the file that stand beside the state dict, and are not read; those of optimizers aside."""


class Held(NamedTuple):
    """What one file holds, under the names that are in it; its fields are those of :class:`Checkpoint`."""

    tensors: dict[str, ForeignTensor]
    aliases: dict[str, str]
    state: str
    inside: dict[str, int]
    read: Callable[[str], np.ndarray]
    place: Callable[[str], tuple[Path, int] | None] = lambda name: None
    beside: tuple[str, ...] = ()


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Return names without what wrappers put into them: name -> name without.

    ``_orig_mod`` (torch.compile, of the model or of its layers) goes wherever it stands, as no attribute of a model is
    called that; ``module.`` (DataParallel, DistributedDataParallel) goes where all names begin with it, again and
    again. An attribute of the user's own, such as the ``model.`` of a LightningModule, stays.

    Raises:
        ValueError: two names become one.

    >>> unwrapped(["module._orig_mod.tok.weight", "module._orig_mod.blocks.0._orig_mod.bias"])
    {'module._orig_mod.tok.weight': 'tok.weight', 'module._orig_mod.blocks.0._orig_mod.bias': 'blocks.0.bias'}
    """
    compiled, parallel = DISTRIBUTED
    short = {name: ".".join(part for part in name.split(".") if part != compiled) for name in names}
    while short and all(name.startswith(parallel) for name in short.values()):
        short = {name: shorter.removeprefix(parallel) for name, shorter in short.items()}
    first: dict[str, str] = {}
    for name, shorter in short.items():
        if first.setdefault(shorter, name) != name:
            raise ValueError(f"both {first[shorter]!r} and {name!r} are {shorter!r} without wrappers; rename one")
    return short


def steps_in(mapping: Any) -> dict[str, int]:
    """Return what may be the step of a checkpoint, of a mapping: those of :data:`STEP_KEYS` that are whole numbers.

    What is none, is not finite, has no value or is beyond :data:`LARGEST_STEP` is no step.
    """
    found = {key: _whole(mapping[key]) for key in STEP_KEYS if isinstance(mapping, dict) and key in mapping}
    return {key: number for key, number in found.items() if number is not None}


def _whole(value: Any) -> int | None:
    """A number, a tensor of one or a text of digits as int; None: something else."""
    if isinstance(value, str):
        digits = value.isascii() and value.isdigit() and len(value) <= len(str(LARGEST_STEP))
        value = int(value) if digits else None
    elif not isinstance(value, bool | int | float):
        value = _single(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # of NaN no comparison is true
    return int(value) if abs(value) < LARGEST_STEP and value == int(value) else None


def _single(value: Any) -> Any:
    """The number in an array or a tensor of one; None: it is none, or holds no value, as on the device meta."""
    try:
        return value.item() if value.shape == () else None
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None
