"""Sequences of your own, from a file: for checkpoints of another program, of a task that is not among these."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from learning_geometry.files import read_tensor_shapes, read_tensors
from learning_geometry.tasks.batch import IGNORED, Batch
from learning_geometry.tasks.dataset import Arrays

SETTINGS = {
    "file": {
        "type": ["string", "null"],
        "minLength": 1,
        "default": None,
        "description": "Safetensors file with `<test set>/tokens` and `<test set>/targets` (integers, sequences × "
        "positions; -100 where nothing is predicted), and further arrays with a row for each sequence.",
    },
}

ERRORS = ("error",)
TRAINS = False
"""There are no batches to train on."""
REQUIRED = ("tokens", "targets")


def check(settings: dict[str, Any]) -> None:
    """Raise ValueError, naming the key, if there is no such file, or it holds no test sets or what none can be."""
    if settings["file"] is None:
        raise ValueError("file: missing; give a safetensors file with `<test set>/tokens` and `<test set>/targets`")
    try:
        shapes = read_tensor_shapes(settings["file"])
    except (OSError, ValueError) as error:
        raise ValueError(f"file: {error}") from None
    by_set: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        test_set, slash, array = name.partition("/")
        if not slash or not array:
            raise ValueError(f"file: {settings['file']}: {name} is of no test set; call it `<test set>/<array>`")
        by_set.setdefault(test_set, {})[array] = shape
    if not by_set:
        raise ValueError(f"file: {settings['file']} holds nothing; write `<test set>/tokens` and `<test set>/targets`")
    lengths = set()
    for test_set, arrays in by_set.items():
        for name in REQUIRED:
            if len(arrays.get(name, ())) != 2:
                raise ValueError(
                    f"file: {settings['file']}: {test_set}/{name} is {arrays.get(name, 'missing')}; it must be "
                    "sequences × positions"
                )
        if arrays["tokens"] != arrays["targets"]:
            raise ValueError(
                f"file: {settings['file']}: {test_set}/tokens is {arrays['tokens']}, and its targets "
                f"{arrays['targets']}; give each position a target, -100 for none"
            )
        if odd := [name for name, shape in arrays.items() if shape[:1] != arrays["tokens"][:1]]:
            raise ValueError(f"file: {settings['file']}: {test_set}/{odd[0]} has not one row for each sequence")
        lengths.add(arrays["tokens"][1])
    if len(lengths) > 1:
        raise ValueError(f"file: {settings['file']}: test sets of {sorted(lengths)} positions; give all the same")
    try:
        content = _read(settings["file"])
    except ValueError as error:
        raise ValueError(f"file: {error}") from None
    for test_set, held in content.items():
        if not held["targets"].size:
            raise ValueError(f"file: {settings['file']}: {test_set} has no sequences; leave it out")
        if len(without := np.flatnonzero((held["targets"] == IGNORED).all(1))):
            raise ValueError(
                f"file: {settings['file']}: sequence {without[0]} of {test_set} has no target, as {len(without)} of "
                f"{len(held['targets'])} have; leave them out"
            )


def vocabulary(settings: dict[str, Any]) -> int:
    """Return one more than the largest token of any test set."""
    return 1 + max(int(arrays["tokens"].max()) for arrays in _read(settings["file"]).values())


def outputs(settings: dict[str, Any]) -> int:
    """Return one more than the largest target of any test set."""
    return 1 + max(int(arrays["targets"].max()) for arrays in _read(settings["file"]).values())


def length(settings: dict[str, Any]) -> int:
    """Return the number of positions."""
    return next(shape[1] for name, shape in read_tensor_shapes(settings["file"]).items() if name.endswith("/tokens"))


def test_set_sizes(settings: dict[str, Any]) -> dict[str, int]:
    """Return the number of sequences of every test set; none if no file is given."""
    shapes = read_tensor_shapes(settings["file"]) if settings["file"] else {}
    return {name.partition("/")[0]: shape[0] for name, shape in shapes.items() if name.endswith("/tokens")}


def test_set_arrays(settings: dict[str, Any]) -> dict[str, set[str]]:
    """Return the names of the arrays of every test set."""
    arrays: dict[str, set[str]] = {}
    for name in read_tensor_shapes(settings["file"]):
        test_set, _, array = name.partition("/")
        arrays.setdefault(test_set, set()).add(array)
    return arrays


def drawn_once(settings: dict[str, Any], seed: int) -> Arrays:
    """Return nothing: a file holds no more than its test sets."""
    del settings, seed
    return {}


def training_batch(
    settings: dict[str, Any], drawn_once: Arrays, generator: np.random.Generator, size: int, step: int
) -> Batch:
    """Raise ValueError: there are no training sequences."""
    del drawn_once, generator, size, step
    raise ValueError(f"{settings['file']} holds test sets alone, and nothing to train on; leave out what draws batches")


def test_sets(settings: dict[str, Any], drawn_once: Arrays, seed: int) -> dict[str, Arrays]:
    """Return the test sets of the file, the same for every seed.

    Raises:
        ValueError: a token or target is negative, or of a type that is no integer.
    """
    del drawn_once, seed
    return {name: dict(arrays) for name, arrays in _read(settings["file"]).items()}


def errors(
    predictions: Int64[np.ndarray, "sequences read"], test_set: Arrays
) -> dict[str, Float64[np.ndarray, "sequences"]]:
    """Return ``error``: of each sequence's targets at positions that are read, the share that is not predicted.

    Raises:
        ValueError: a sequence has no target at these positions.
    """
    targets = test_set["targets"][:, -predictions.shape[1] :]
    counted: Bool[np.ndarray, "sequences read"] = targets != IGNORED
    if not counted.any(1).all():
        raise ValueError(
            f"sequence {int(np.flatnonzero(~counted.any(1))[0])} of a test set has no target at the last "
            f"{predictions.shape[1]} positions, which alone the model reads (model.readout); give targets there"
        )
    return {"error": ((predictions != targets) & counted).sum(1) / counted.sum(1)}


def _read(file: str) -> dict[str, Arrays]:
    status = Path(file).stat()
    return _read_as_of(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _read_as_of(file: str, *stamp: int) -> dict[str, Arrays]:
    del stamp  # another one is another content
    by_set: dict[str, Arrays] = {}
    for name, array in read_tensors(file).items():
        test_set, _, key = name.partition("/")
        if key in REQUIRED:
            if array.dtype.kind not in "iu":
                raise ValueError(f"{file}: {name} is {array.dtype}; give integers")
            array = array.astype(np.int64)
            if array.min(initial=0) < 0 and (key == "tokens" or set(array[array < 0].tolist()) != {IGNORED}):
                raise ValueError(f"{file}: {name} holds negative numbers; give tokens, and {IGNORED} for no target")
        by_set.setdefault(test_set, {})[key] = array
    return by_set
