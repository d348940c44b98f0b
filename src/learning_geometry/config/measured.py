"""What a measurement of trained runs asks of its experiment: layers, ranks, test sets, checkpoints, other seeds.

Settings that mean the same bear the same name in every measurement, and are checked by it.
"""

import functools
import importlib
import json
from collections.abc import Callable
from typing import Any

from learning_geometry.config.modules import module_literal, other_seeds, settings_schema

Report = Callable[[str, str], None]
"""Called with a dotted key of the experiment and what is wrong there."""

FEWEST_SNAPSHOTS = {"trajectory_geometry": 4, "routing_coordinate": 3}
"""Checkpoints on the uniform grid that a measurement of trajectories takes; two others if it is not named."""

SUBSETS = ("sequences", "noise_sequences", "sequence")
"""Settings that count, or pick from, the sequences of a test set."""


def check_measurement(name: str, settings: dict[str, Any], experiment: dict[str, Any], report: Report) -> None:
    """Report what a measurement's settings, filled in, ask of an experiment that it does not have."""

    def at(key: str, problem: str) -> None:
        report(f"measurements.{name}.{key}" if key else f"measurements.{name}", problem)

    if other_seeds(name) == "all" and len(experiment["seeds"]) < 2:
        at("", "it compares seeds, and the experiment has one; add a seed, or leave it out")
    for check in (_layers, _ranks, _seeds, _steps, _test_sets):
        check(name, settings, experiment, at)
    of_its_own = OF_THEIR_OWN.get(name)
    if of_its_own is not None:
        of_its_own(name, settings, experiment, at)


def _layers(name: str, settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    layers = experiment["model"].get("layers")
    if layers is None:
        return
    for key in ("layer", "reading_layer", "writing_layer"):
        if settings.get(key) is not None and settings[key] >= layers:
            at(key, f"{settings[key]} in a model of {layers} layers, counted from 0; lower it, or leave {name} out")
    reader, writer = settings.get("reading_layer"), settings.get("writing_layer")
    if reader is not None and writer is not None and writer >= reader:
        at("writing_layer", f"layer {reader} cannot read layer {writer}; set writing_layer < reading_layer")


def _ranks(name: str, settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    width, heads = experiment["model"].get("width"), experiment["model"].get("heads", 1)
    if width is None:
        return
    if "top" in settings and "medium" in settings and settings["top"] + settings["medium"] >= width:
        key = "top" if settings["top"] >= width else "medium"
        at(
            key,
            f"top {settings['top']} and medium {settings['medium']} leave nothing of the width {width} for the bottom "
            "subspace; lower it",
        )
    if settings.get("bridge_rank", 0) > width:
        at("bridge_rank", f"{settings['bridge_rank']} is above the width {width}; lower it")
    # a default that does not fit is left out, and a rank that was asked for is not
    defaults = settings_schema("measurements", name)["properties"]
    for key in ("ranks", "lag_rank"):
        if key not in settings or settings[key] == defaults[key]["default"] or name not in RANKS_OF_HEADS:
            continue
        above = [rank for rank in _listed(settings[key]) if rank > width // heads]
        if above:
            at(key, f"{above[0]} is above the head width, {width} / {heads} = {width // heads}; lower it")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


RANKS_OF_HEADS = ("bridge_energy", "composition", "subspace_function")
"""Measurements whose ranks are those of subspaces that a head reads or writes."""


def _seeds(name: str, settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    for key in ("seeds", "slice_seeds"):
        absent = [seed for seed in settings.get(key) or [] if seed not in experiment["seeds"]]
        if absent:
            at(key, f"{absent[0]} is no seed of the experiment, whose are {experiment['seeds']}; name one of these")


def _steps(name: str, settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    training = experiment["training"]
    steps, grid = training["steps"], training["checkpoints"]["every"]
    every = settings.get("every")
    if isinstance(every, int) and max(every, grid) <= steps and every % grid and grid % every:
        at("every", f"{every} does not fit the checkpoints every {grid} steps; use {grid} or a multiple of it")
    for key in ("from_step", "first_step"):
        step = settings.get(key)
        if step is not None and step > steps:
            at(key, f"{step} lies beyond the {steps} steps of training; lower it")
        elif key == "from_step" and step is not None and step % grid:
            at(key, f"{step} is no checkpoint on the uniform grid; use a multiple of {grid}")
    length, points = settings.get("steps"), settings.get("points")
    if isinstance(length, int) and isinstance(points, int) and length % points:
        at(
            "steps",
            f"{length} cannot be split into {points} equal parts; make it a multiple of {points}, such as "
            f"{length - length % points + points}",
        )


def _test_sets(name: str, settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    there = test_set_sizes(json.dumps(experiment["task"], sort_keys=True))
    if there is None:
        return
    try:
        fixed = module_literal("measurements", name, "TEST_SETS")
    except KeyError:
        fixed = []
    for wanted in fixed:
        if not any(each == wanted or (wanted.endswith("*") and each.startswith(wanted[:-1])) for each in there):
            at("", f"it reads the test set {wanted}, and the task has {', '.join(there)} alone; leave it out")
            return
    for key in ("test_sets", "first", "second"):
        if key not in settings or settings[key] is None:
            continue
        absent = [each for each in _listed(settings[key]) if each not in there]
        if absent:
            at(key, f"the task has no test set {absent[0]}; use {', '.join(there)}")
            return
    fewest = min(there.values(), default=0)
    tests = experiment["task"].get("test_sequences")
    which = f"the task's {fewest} test_sequences" if tests is not None else f"the {fewest} of a test set"
    for key in SUBSETS:
        number = settings.get(key)
        if isinstance(number, int) and number + (key == "sequence") > fewest:
            at(key, f"{number} is more than {which}; lower it")
    parts = [settings[key] for key in ("sequences", "held_out", "descent_sequences") if key in settings]
    if len(parts) == 3 and sum(parts) > fewest and parts[0] <= fewest:
        at("held_out", f"sequences, held_out and descent_sequences are {sum(parts)}, more than {which}; lower them")


@functools.cache
def test_set_sizes(task: str) -> dict[str, int] | None:
    """Return the names of a task's test sets and how many sequences each has; None if the task does not say quickly.

    Args:
        task: its settings, filled in, as JSON.
    """
    settings = json.loads(task)
    module = importlib.import_module(f"learning_geometry.tasks.{settings['name']}")
    if not hasattr(module, "test_sets") or not hasattr(module, "context"):
        return None
    if "test_sequences" not in settings and settings.get("prime", LARGEST_PRIME + 1) > LARGEST_PRIME:
        return None
    small = settings | {
        key: value for key, value in {"test_sequences": 1, "pool_size": None}.items() if key in settings
    }
    try:
        sets = module.test_sets(small, module.context(small, 0), 0)
    except (ValueError, KeyError, MemoryError):
        return None
    return {each: settings.get("test_sequences", len(arrays["tokens"])) for each, arrays in sets.items()}


LARGEST_PRIME = 500
"""Up to which the pairs of a task modulo a prime are written out to be counted."""


def _trajectory(name: str, settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    snapshots, fewest = _uniform(experiment), FEWEST_SNAPSHOTS.get(name, 2)
    if snapshots < fewest:
        at(
            "",
            f"{snapshots} checkpoints on the uniform grid are too few, it takes {fewest}; lower "
            "training.checkpoints.every, or leave it out",
        )
        return
    windows = settings.get("windows", 0)
    if windows and (snapshots - 1) // windows + 1 < fewest:
        at(
            "windows",
            f"{windows} windows of {snapshots} checkpoints have {(snapshots - 1) // windows + 1} each, fewer than "
            f"{fewest}; lower it, or training.checkpoints.every",
        )
    if name == "trajectory_orientation" and max(settings["ranks"]) > snapshots - 1:
        at("ranks", f"{max(settings['ranks'])} directions of {snapshots} checkpoints; use at most {snapshots - 1}")


def _uniform(experiment: dict[str, Any]) -> int:
    return experiment["training"]["steps"] // experiment["training"]["checkpoints"]["every"] + 1


def _subspace_training(name: str, settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    del name
    steps, grid, directions = experiment["training"]["steps"], _uniform(experiment), settings["directions"]
    if grid < directions + 2:
        at(
            "directions",
            f"{grid} checkpoints on the uniform grid give no {directions} directions; lower it, or "
            "training.checkpoints.every",
        )
        return
    every, start = experiment["training"]["checkpoints"]["every"], settings["from_step"]
    start = (directions + 1) * every if start is None else start
    if start + settings["steps"] > steps:
        at("steps", f"{settings['steps']} steps from {start} on go beyond the run's {steps}; lower it, or from_step")


def _commutators(name: str, settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    del name
    if settings["every"] is None and not settings["steps"]:
        at("every", "it is null and steps is empty; give one of them")
    training = experiment["training"]
    steps, checkpoints = training["steps"], training["checkpoints"]
    named = {*checkpoints["steps"], 0, steps}
    absent = [step for step in settings["steps"] if step > steps or (step % checkpoints["every"] and step not in named)]
    if absent and not checkpoints["logarithmic"]:
        at(
            "steps",
            f"there is no checkpoint of step {absent[0]}; name it in training.checkpoints.steps, or leave it out",
        )
    elif any(step > steps for step in absent):
        at("steps", f"{max(absent)} lies beyond the {steps} steps of training; remove it")


def _contrast(name: str, settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    del name
    if settings["first"] == settings["second"]:
        at("second", f"first and second are both {settings['first']}; name two test sets")
    if settings["place"] is not None and experiment["model"].get("readout") == "last":
        at("place", f"the model reads out at its last position alone, and it is {settings['place']}; set it to null")


def _logits(name: str, settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    del name, settings
    if experiment["model"].get("positions") == "learned":
        at("", "with learned positions a logit depends on more than content and lag; leave it out, or change positions")


def _frequencies(name: str, settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    del name, settings
    prime = experiment["task"].get("prime")
    if prime is None:
        at("", f"the task {experiment['task']['name']} has no numbers modulo a prime; leave it out")
    elif prime < 5:
        at("", f"the prime {prime} has one frequency only; use 5 or more")


def _sparse_execution(name: str, settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    del name, experiment
    if settings["active"] > settings["latents"]:
        at("active", f"{settings['active']} are active of {settings['latents']} latents; lower it")
    elif max(settings["removed"]) > settings["latents"]:
        at("removed", f"{max(settings['removed'])} are removed of {settings['latents']} latents; lower it")


OF_THEIR_OWN: dict[str, Callable[[str, dict[str, Any], dict[str, Any], Report], None]] = {
    "trajectory_geometry": _trajectory,
    "trajectory_orientation": _trajectory,
    "routing_coordinate": _trajectory,
    "subspace_training": _subspace_training,
    "commutators": _commutators,
    "contrast_over_training": _contrast,
    "attention_logits": _logits,
    "embedding_frequencies": _frequencies,
    "sparse_execution": _sparse_execution,
}
"""What single measurements ask beside what all do."""
