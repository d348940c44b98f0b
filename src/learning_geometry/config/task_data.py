"""What a task gives to measurements: test sets and their sizes, arrays, errors, and the read-outs that can learn it.

Each comes from the task's own literal or function where it has one. Of a task without them, a single sequence of each
test set is drawn where that is quick, and nothing is known where it is not. Tasks are given by their settings, filled
in, as JSON, so that answers are kept.
"""

import functools
import importlib
import json
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np

from learning_geometry.config.modules import module_literal

TestSets = dict[str, dict[str, np.ndarray]]


def module_of(task: str) -> ModuleType:
    """Return the module of a task."""
    return importlib.import_module(f"learning_geometry.tasks.{json.loads(task)['name']}")


@functools.cache
def sizes(task: str) -> dict[str, int] | None:
    """Return how many sequences each test set has, by name; None if the task does not say quickly."""
    module, settings = module_of(task), json.loads(task)
    if hasattr(module, "test_set_sizes"):
        return dict(module.test_set_sizes(settings))
    drawn = _one_sequence_each(task)
    return None if drawn is None else dict.fromkeys(drawn, settings["test_sequences"])


def matching(wanted: str, names: Iterable[str] | None) -> list[str]:
    """Return which of some test sets one that is wanted stands for; its * at the end stands for any ending.

    >>> matching("markers_*", ["markers_1", "held_out"]), matching("held", ["held_out"])
    (['markers_1'], [])
    """
    if wanted.endswith("*"):
        return [name for name in names or () if name.startswith(wanted[:-1])]
    return [name for name in names or () if name == wanted]


def arrays(task: str, test_set: str) -> set[str] | None:
    """Return the names of the arrays of a test set; None if the task does not say quickly."""
    said, module = _literal(task, "ARRAYS"), module_of(task)
    if said is not None:
        return set(said)
    if hasattr(module, "test_set_arrays"):
        return set(module.test_set_arrays(json.loads(task))[test_set])
    drawn = _one_sequence_each(task)
    return None if drawn is None or test_set not in drawn else set(drawn[test_set])


def errors(task: str) -> set[str] | None:
    """Return the names of the errors that a task computes; None if it does not say quickly."""
    said = _literal(task, "ERRORS")
    if said is not None:
        return set(said)
    drawn = _one_sequence_each(task)
    if not drawn:
        return None
    one = next(iter(drawn.values()))
    try:
        return set(module_of(task).errors(np.zeros_like(one["tokens"]), one))
    except (ValueError, KeyError, IndexError):
        return None


def readouts(task: str) -> set[str] | None:
    """Return the values of the model's ``readout`` with which a task can be learned; None if it does not say."""
    said = _literal(task, "READOUTS")
    return None if said is None else set(said)


@functools.lru_cache(maxsize=8)
def test_sets(task: str, seed: int) -> TestSets:
    """Return the test sets of a seed, whole."""
    module, settings = module_of(task), json.loads(task)
    return dict(module.test_sets(settings, module.drawn_once(settings, seed), seed))


@functools.lru_cache(maxsize=64)
def batches_differ(task: str, size: int) -> bool:
    """Return whether two training batches of a size can differ: whether any of three pairs that are drawn does."""
    module, settings = module_of(task), json.loads(task)
    drawn_once = module.drawn_once(settings, 0)
    draws = [module.training_batch(settings, drawn_once, np.random.default_rng(seed), size, 0) for seed in range(6)]
    return any(
        not np.array_equal(one, other)
        for first, second in zip(draws[::2], draws[1::2], strict=True)
        for one, other in zip(first, second, strict=True)
    )


def _literal(task: str, name: str) -> Any:
    try:
        return module_literal("tasks", json.loads(task)["name"], name)
    except KeyError:
        return None


@functools.cache
def _one_sequence_each(task: str) -> TestSets | None:
    module, settings = module_of(task), json.loads(task)
    if "test_sequences" not in settings:
        return None
    small = settings | {"test_sequences": 1}
    try:
        return dict(module.test_sets(small, module.drawn_once(small, 0), 0))
    except (ValueError, KeyError, MemoryError):
        return None
