"""The one module that knows the checkpoint format: one safetensors file per step, plain names."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from learning_geometry.files import (
    WithoutDigestsError,
    check_folder,
    finish_folder,
    read_tensor,
    read_tensor_metadata,
    read_tensor_shapes,
    read_tensors,
    verify_file,
    write_tensors,
)
from learning_geometry.paths import how_to_make_again

# importing torch takes seconds, which what reads arrays only need not wait for
if TYPE_CHECKING:
    import torch

FOREIGN = "checkpoints of another program are read by `source` of an experiment, see docs/checkpoints.md"
"""What to do with files that are not ours."""

BLOCK = 2**22
"""Numbers of one parameter's trajectory that are read at a time: 16 MB of float32."""


class Arrays(dict[str, np.ndarray]):
    """Parameters by name, of which one that is missing is an error that says what there is."""

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray]):
        """Hold the parameters of a file."""
        super().__init__(arrays)
        self._path = path

    def __missing__(self, name: str) -> np.ndarray:
        """Raise an error that names the file, and the names nearest to the one that is missing."""
        near = ", ".join(difflib.get_close_matches(name, self, n=3, cutoff=0)) or "none"
        raise KeyError(f"{self._path}: holds no parameter {name}; nearest are {near}; {FOREIGN}")


def schedule(settings: dict[str, Any], steps: int) -> dict[int, bool]:
    """Return the steps to keep, in order, and whether each lies on the uniform grid.

    The grid is 0, ``every``, 2 ``every``, … up to ``steps``; ``logarithmic`` further steps are spread evenly
    in log(step) between 1 and ``every``; ``settings["steps"]`` names more; the last step is always kept.

    >>> schedule({"logarithmic": 3, "every": 100, "steps": [150]}, 200)
    {0: True, 1: False, 5: False, 22: False, 100: True, 150: False, 200: True}
    """
    every = settings["every"]
    early = np.geomspace(1, every, settings["logarithmic"] + 1)[:-1].round().astype(int)
    uniform = set(range(0, steps + 1, every))
    kept = uniform | {int(step) for step in early if step <= steps} | set(settings["steps"]) | {steps}
    return {step: step in uniform for step in sorted(kept)}


def checkpoint_path(directory: str | Path, step: int) -> Path:
    """Return the path of the checkpoint of ``step``."""
    return Path(directory) / f"step-{step:06d}.safetensors"


def checkpoint_steps(directory: str | Path) -> list[int]:
    """Return the steps that have a checkpoint, in order.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file of that kind has no step in its name.
    """
    paths = [path for path in Path(directory).glob("step-*.safetensors")]
    if strange := sorted(path.name for path in paths if not re.fullmatch(r"step-[0-9]+", path.stem)):
        raise ValueError(f"{directory}: {strange[0]} bears no step in its name; {FOREIGN}")
    if not paths:
        there = sorted(path.name for path in Path(directory).glob("[!.]*"))
        shown = f"there is {', '.join(there[:3])}{', …' * (len(there) > 3)}; {FOREIGN}" if there else "train first"
        raise FileNotFoundError(f"{directory}: no checkpoint (step-*.safetensors) in this directory; {shown}")
    return sorted(int(path.stem.removeprefix("step-")) for path in paths)


def check_steps(directory: str | Path, expected: Iterable[int]) -> list[int]:
    """Return the steps that have a checkpoint, in order, after comparing them with those that there must be.

    If the folder is finished, its files are compared with its manifest as well, by names and sizes.

    Args:
        directory: of the checkpoints.
        expected: the steps of the run's :func:`schedule`.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: checkpoints are missing, or there are others; the first is named.
    """
    steps, wanted = checkpoint_steps(directory), sorted(expected)
    advice = f"{how_to_make_again(directory)} to train again"
    if missing := sorted(set(wanted) - set(steps)):
        first = checkpoint_path(directory, missing[0]).stem
        raise ValueError(
            f"{directory}: {len(missing)} of {len(wanted)} checkpoints are missing, first {first}; {advice}"
        )
    if extra := sorted(set(steps) - set(wanted)):
        first = checkpoint_path(directory, extra[0]).stem
        raise ValueError(
            f"{directory}: {len(extra)} checkpoints are not in the schedule of the settings, first {first}; {advice}"
        )
    with suppress(WithoutDigestsError):  # in progress, or of an earlier version
        check_folder(directory)
    return steps


def verify_checkpoints(directory: str | Path, steps: Iterable[int]) -> None:
    """Compare every byte of the checkpoints of some steps with their digests.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: one is not as it was written, naming it.
    """
    for step in steps:
        verify_file(checkpoint_path(directory, step))


def finish_checkpoints(
    working: str | Path, target: str | Path, expected: Iterable[int], provenance: Mapping[str, Any]
) -> None:
    """Give the folder of a finished training's checkpoints its name, in one rename, with a manifest inside.

    Raises:
        FileNotFoundError, ValueError: as :func:`check_steps`, or a checkpoint is damaged.
    """
    check_steps(working, expected)
    finish_folder(working, target, provenance)


def write_checkpoint(
    directory: str | Path, step: int, parameters: dict[str, "torch.Tensor"], provenance: dict[str, Any]
) -> None:
    """Write the parameters at ``step`` with what made them (settings, seed, code version)."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach() for name, value in parameters.items()}
    write_tensors(checkpoint_path(directory, step), tensors, provenance | {"step": step})


def read_checkpoint(
    directory: str | Path, step: int, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, "torch.Tensor"]:
    """Return the parameters at ``step``, on the CPU; if the ``shapes`` of a model's are given, compared with them.

    Raises:
        FileNotFoundError: no checkpoint of that step, naming those there are.
        ValueError: names or shapes are not those expected, naming the file and the first parameter that differs.
    """
    import torch

    arrays = read_arrays(directory, step)
    if shapes is not None:
        _check_shapes(checkpoint_path(directory, step), {name: array.shape for name, array in arrays.items()}, shapes)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def read_arrays(directory: str | Path, step: int) -> dict[str, np.ndarray]:
    """Return the parameters at ``step`` as numpy arrays, without importing torch.

    Raises:
        FileNotFoundError: no checkpoint of that step, naming those there are.

    A name that the arrays lack is a KeyError that says which there are.
    """
    path = checkpoint_path(directory, step)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint; there are steps {checkpoint_steps(directory)}")
    return Arrays(path, read_tensors(path))


def parameter_shapes(directory: str | Path, step: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters at ``step`` by name, without reading them.

    Raises:
        FileNotFoundError: no checkpoint of that step.
    """
    return read_tensor_shapes(checkpoint_path(directory, step))


def read_trajectory(directory: str | Path, steps: Sequence[int], name: str, rows: slice = slice(None)) -> np.ndarray:
    """Return one parameter, or a range of its rows, at many steps: shape (steps, ...). Nothing else is read.

    Raises:
        FileNotFoundError: no checkpoint of a step.
        KeyError: a checkpoint has no such parameter.
        ValueError: a checkpoint has one of another shape.
    """
    first = read_tensor(checkpoint_path(directory, steps[0]), name, rows)
    trajectory = np.empty((len(steps), *first.shape), dtype=first.dtype)
    trajectory[0] = first
    for i, step in enumerate(steps[1:], 1):
        path = checkpoint_path(directory, step)
        array = read_tensor(path, name, rows)
        if array.shape != first.shape:
            raise ValueError(
                f"{path}: parameter {name}: shape {array.shape}, but {first.shape} at step {steps[0]}; the checkpoints "
                "are not those of one run: train again"
            )
        trajectory[i] = array
    return trajectory


def trajectory_blocks(
    directory: str | Path, steps: Sequence[int], name: str, shape: tuple[int, ...], numbers: int | None = None
) -> Iterator[np.ndarray]:
    """Yield one parameter at many steps in ranges of its rows, each flattened to shape (steps, entries).

    So a trajectory larger than memory can be read, one block at a time.

    Args:
        directory: of the checkpoints.
        steps: of the trajectory.
        name: of the parameter.
        shape: of the parameter, see :func:`parameter_shapes`.
        numbers: how many a block may hold, over all steps together (None: ``BLOCK``); a block has at least one row.

    Raises:
        FileNotFoundError, KeyError, ValueError: see :func:`read_trajectory`.
    """
    per_row = int(np.prod(shape[1:]))
    rows = max(1, (numbers or BLOCK) // max(1, len(steps) * per_row))
    if not shape or rows >= shape[0]:
        yield read_trajectory(directory, steps, name).reshape(len(steps), -1)
        return
    for first in range(0, shape[0], rows):
        yield read_trajectory(directory, steps, name, slice(first, first + rows)).reshape(len(steps), -1)


def _check_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise an error that names the file, the first parameter that differs, and both shapes."""
    advice = "the model's settings are not those of the run: train again, or open the run with its own settings"
    for name, shape in expected.items():
        if name not in shapes:
            raise ValueError(f"{path}: parameter {name}: expected shape {shape}, found no such parameter; {advice}")
        if tuple(shapes[name]) != tuple(shape):
            raise ValueError(f"{path}: parameter {name}: expected shape {shape}, found {shapes[name]}; {advice}")
    for name in shapes:
        if name not in expected:
            raise ValueError(
                f"{path}: parameter {name}: expected no such parameter, found one of shape {shapes[name]}; {advice}"
            )


def read_provenance(directory: str | Path, step: int) -> dict[str, Any]:
    """Return what was recorded beside the parameters at ``step``."""
    return read_tensor_metadata(checkpoint_path(directory, step))
