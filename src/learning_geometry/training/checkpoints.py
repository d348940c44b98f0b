"""The one module that knows the checkpoint format: one safetensors file per step, plain names."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from learning_geometry.files import read_tensor_metadata, read_tensors, write_tensors

# importing torch takes seconds, which what reads arrays only need not wait for
if TYPE_CHECKING:
    import torch


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
    """
    steps = sorted(int(path.stem.removeprefix("step-")) for path in Path(directory).glob("step-*.safetensors"))
    if not steps:
        raise FileNotFoundError(f"{directory}: no checkpoint (step-*.safetensors) in this directory; train first")
    return steps


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
    """
    path = checkpoint_path(directory, step)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint; there are steps {checkpoint_steps(directory)}")
    return read_tensors(path)


def _check_shapes(path: Path, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise an error that names the file, the first parameter that differs, and both shapes."""
    advice = "the model's settings are not those of the run: train again, or open the run with its own settings"
    for name, shape in expected.items():
        if name not in found:
            raise ValueError(f"{path}: parameter {name}: expected shape {shape}, found no such parameter; {advice}")
        if tuple(found[name]) != tuple(shape):
            raise ValueError(f"{path}: parameter {name}: expected shape {shape}, found {found[name]}; {advice}")
    for name in found:
        if name not in expected:
            raise ValueError(
                f"{path}: parameter {name}: expected no such parameter, found one of shape {found[name]}; {advice}"
            )


def read_provenance(directory: str | Path, step: int) -> dict[str, Any]:
    """Return what was recorded beside the parameters at ``step``."""
    return read_tensor_metadata(checkpoint_path(directory, step))
