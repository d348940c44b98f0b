"""The dataset file of one run: what was drawn once, and the fixed test sets."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from learning_geometry import tasks
from learning_geometry.files import read_tensors, write_tensors

Arrays = dict[str, np.ndarray]


class Dataset(NamedTuple):
    """What a run draws once (such as a finite pool), and its test sets by name."""

    drawn_once: Arrays
    test_sets: dict[str, Arrays]


def make_dataset(settings: dict[str, Any], seed: int) -> Dataset:
    """Draw the dataset of the task in ``settings`` for one seed."""
    task = tasks.load(settings)
    drawn_once = task.drawn_once(settings, seed)
    return Dataset(drawn_once, task.test_sets(settings, drawn_once, seed))


def write_dataset(path: str | Path, dataset: Dataset, provenance: dict[str, Any]) -> None:
    """Write a dataset as one safetensors file: ``drawn_once/<array>`` and ``test/<set>/<array>``."""
    arrays = {f"drawn_once/{name}": array for name, array in dataset.drawn_once.items()}
    for name, test_set in dataset.test_sets.items():
        arrays |= {f"test/{name}/{key}": array for key, array in test_set.items()}
    write_tensors(path, arrays, provenance)


def read_dataset(path: str | Path) -> Dataset:
    """Read what :func:`write_dataset` wrote."""
    drawn_once: Arrays = {}
    test_sets: dict[str, Arrays] = {}
    for name, array in read_tensors(path).items():
        kind, _, rest = name.partition("/")
        if kind == "drawn_once":
            drawn_once[rest] = array
        else:
            set_name, _, key = rest.partition("/")
            test_sets.setdefault(set_name, {})[key] = array
    return Dataset(drawn_once, test_sets)
