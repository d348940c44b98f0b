"""How much memory and disk a trained experiment takes at the least, against what this machine has.

The estimates are lower bounds, made of the largest arrays alone: what they refuse cannot run, and what they let
pass may still be too much.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from learning_geometry import model_options
from learning_geometry.config.modules import settings_schema

NUMBER = 4
"""Bytes of a parameter or activation, float32; tokens and targets have twice as many."""

METRIC_ROW = 200
"""Bytes of a row of metrics in memory, at the least."""


class Need(NamedTuple):
    """What some settings need: how many bytes, of memory or of disk, for what, and which keys decide it."""

    bytes: int
    of: str
    what: str
    keys: tuple[str, ...]


def memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def disk(folder: str) -> int:
    """Return the bytes, used and free, of the disk that a folder lies on, or would."""
    at = Path(folder).absolute()
    while not at.exists():
        at = at.parent
    return shutil.disk_usage(at).total


def shown(size: float) -> str:
    """Return a number of bytes as text.

    >>> shown(2.4e10), shown(3e20)
    ('24 GB', '3e+11 GB')
    """
    gigabytes = size / 1e9
    return f"{gigabytes:.3g} GB" if gigabytes >= 1e5 or gigabytes < 1 else f"{gigabytes:,.0f} GB"


def needs_of(experiment: dict[str, Any], task_module: ModuleType) -> Iterator[Need]:
    """Yield what an experiment with all defaults filled in needs; nothing of what a model of the user's own needs."""
    task, model, training = experiment["task"], experiment["model"], experiment["training"]
    length, outputs = task_module.length(task), task_module.outputs(task)
    pairs, sequences = task.get("prime", 0) ** 2, task.get("test_sequences", 0)
    sizes = tuple(f"task.{key}" for key in ("prime", "test_sequences", "length") if key in task)
    if sizes:
        yield Need((pairs + sequences) * length * 2 * 2 * NUMBER, "memory", "its test sets", sizes)
    if task.get("vocabulary", 0) > 0:
        yield Need(task["vocabulary"] * 2 * NUMBER, "memory", "its vocabulary", ("task.vocabulary",))
    if task.get("pool_size"):
        yield Need(task["pool_size"] * length * 2 * NUMBER, "memory", "its pool", ("task.pool_size", "task.length"))
    steps, evaluations = training["steps"], training["steps"] // training["evaluate_every"]
    keys: tuple[str, ...] = ("training.steps", "training.evaluate_every")
    yield Need(evaluations * METRIC_ROW, "memory", f"the metrics of {evaluations} evaluations", keys)
    if {"layers", "heads", "width", "mlp_width"} - set(model) or any(model_options.problems(model)):
        return
    width, layers = model["width"], model["layers"]
    gated = bool(model.get("gated_mlp"))
    parameters = width * (task_module.vocabulary(task) + outputs * (not model["tied_readout"]))
    parameters += layers * model_options.layer_weights(model)
    parameters += width * length * (model["positions"] == "learned")
    of_task = tuple(f"task.{key}" for key in ("vocabulary", "prime", "length") if key in task)
    keys = ("model.width", "model.mlp_width", "model.layers", *of_task)
    yield Need(4 * NUMBER * parameters, "memory", f"{parameters:.3g} parameters, gradients and moments", keys)
    batch = min(training["batch_size"], pairs) if pairs else training["batch_size"]
    in_layer = 4 * width + 2 * sum(model_options.attention_widths(model)) + (1 + 2 * gated) * model["mlp_width"]
    activations = batch * length * (layers * (in_layer + model["heads"] * length) + 2 * outputs)
    keys = ("training.batch_size", *keys, "model.heads")
    yield Need(NUMBER * activations, "memory", "the activations of a training step", keys)
    checkpoints = training["checkpoints"]
    count = steps // checkpoints["every"] + checkpoints["logarithmic"] + len(checkpoints["steps"]) + 2
    keys = ("training.steps", "training.checkpoints.every", "training.checkpoints.logarithmic")
    yield Need(
        NUMBER * parameters * count * len(experiment["seeds"]), "disk", f"{count} checkpoints of each seed", keys
    )
    for name, settings in experiment["measurements"].items():
        if "latents" in settings:
            key = f"measurements.{name}.latents"
            yield Need(8 * NUMBER * settings["latents"] * width, "memory", "its dictionary", (key, "model.width"))
        if "training_sequences" in settings:
            key = f"measurements.{name}.training_sequences"
            size = settings["training_sequences"] * (2 * NUMBER * length + NUMBER * width)
            yield Need(size, "memory", "its training sequences", (key, "model.width", "task.length"))


def check_sizes(
    experiment: dict[str, Any],
    task_module: ModuleType,
    results: str,
    report: Callable[[str, str], None],
) -> bool:
    """Report the first thing that takes more than there is, at the largest key for its default; whether all fits."""
    for need in needs_of(experiment, task_module):
        there = memory() if need.of == "memory" else disk(results)
        if need.bytes > there:
            key = max(need.keys, key=lambda key: _excess(experiment, key))
            report(
                key,
                f"some {shown(float(need.bytes))} of {need.of} for {need.what}, and this machine has "
                f"{shown(float(there))}; change it",
            )
            return False
    return True


def _excess(experiment: dict[str, Any], key: str) -> float:
    """Return how many times its default a setting is; of spacings, the inverse."""
    section, _, rest = key.partition(".")
    value: Any = experiment
    for part in key.split("."):
        value = value[part]
    if section == "measurements":
        measurement, _, name = rest.partition(".")
        default = settings_schema(section, measurement)["properties"][name]["default"]
    elif section == "training":
        default = {"steps": 1000, "batch_size": 50, "checkpoints.every": 100, "checkpoints.logarithmic": 8}.get(
            rest, 50
        )
    else:
        default = settings_schema(f"{section}s", experiment[section]["name"])["properties"][rest]["default"]
    ratio = (value or 0) / (default or 64)
    return 1 / ratio if "every" in rest and ratio else ratio
