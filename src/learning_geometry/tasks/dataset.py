"""The dataset file of one run: what was drawn once, and the fixed test sets."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from learning_geometry import tasks
from learning_geometry.files import read_tensors, write_tensors

Arrays = dict[str, np.ndarray]


class Dataset(NamedTuple):
    """What a run draws once (such as a finite pool), and its test sets by name."""

    context: Arrays
    test_sets: dict[str, Arrays]


def make_dataset(settings: dict[str, Any], seed: int) -> Dataset:
    """Draw the dataset of the task in ``settings`` for one seed."""
    task = tasks.load(settings)
    context = task.context(settings, seed)
    return Dataset(context, task.test_sets(settings, context, seed))


def write_dataset(path: str | Path, dataset: Dataset, provenance: dict[str, Any]) -> None:
    """Write a dataset as one safetensors file: ``context/<array>`` and ``test/<set>/<array>``."""
    arrays = {f"context/{name}": array for name, array in dataset.context.items()}
    for name, test_set in dataset.test_sets.items():
        arrays |= {f"test/{name}/{key}": array for key, array in test_set.items()}
    write_tensors(path, arrays, provenance)


def read_dataset(path: str | Path) -> Dataset:
    """Read what :func:`write_dataset` wrote."""
    context: Arrays = {}
    test_sets: dict[str, Arrays] = {}
    for name, array in read_tensors(path).items():
        kind, _, rest = name.partition("/")
        if kind == "context":
            context[rest] = array
        else:
            set_name, _, key = rest.partition("/")
            test_sets.setdefault(set_name, {})[key] = array
    return Dataset(context, test_sets)
