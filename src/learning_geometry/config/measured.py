"""What a measurement of trained runs asks of its experiment, from its literal ``NEEDS`` and from its settings.

Settings that mean the same bear the same name in every measurement, and are checked by it (``named_settings``).
"""

import json
from collections.abc import Iterator
from typing import Any

from learning_geometry import model_options
from learning_geometry.config import task_data
from learning_geometry.config.modules import module_literal
from learning_geometry.config.named_settings import check_named, uniform_checkpoints
from learning_geometry.config.needs import fewest, listed, needs
from learning_geometry.config.problems import Report

DRAWN_AT_MOST = 2_000_000
"""Sequences of a task, or tokens of a batch, up to which batches are drawn to see whether they differ."""


def check_measurement(name: str, settings: dict[str, Any], experiment: dict[str, Any], report: Report) -> None:
    """Report what a measurement's settings, filled in, ask of an experiment that it does not have."""

    def at(key: str, problem: str) -> None:
        report(f"measurements.{name}.{key}" if key else f"measurements.{name}", problem)

    wanted = needs(name)
    for problem in [*_of_task(wanted, experiment), *_of_model(wanted, experiment)]:
        at("", f"{problem}; leave {name} out" if "; " not in problem else f"{problem}, or leave {name} out")
        return
    if wanted.get("other_seeds") == "all" and len(experiment["seeds"]) < 2:
        at("", "it compares seeds, and the experiment has one; add a seed, or leave it out")
    check_named(name, settings, wanted, experiment, at)
    _bounds(name, settings, wanted, experiment, at)
    _checkpoints(settings, wanted, experiment, at)
    _batches(settings, wanted, experiment, at)


def _of_task(wanted: dict[str, Any], experiment: dict[str, Any]) -> Iterator[str]:
    """Yield what the task does not give."""
    settings = experiment["task"]
    if settings is None:
        return  # what needs one was refused
    task, name = json.dumps(settings, sort_keys=True), settings["name"]
    if (wanted.get("different_batches") or wanted.get("trains")) and not getattr(
        task_data.module_of(task), "TRAINS", True
    ):
        yield f"it draws training batches, and the task {name} has test sets alone"
    there = task_data.sizes(task)
    recorded = wanted.get("recorded_errors", {})
    read = wanted.get("test_sets", [])
    for each in [*read, *recorded]:
        if there is not None and not task_data.matching(each, there):
            yield f"it reads the test set {each}, and the task has {', '.join(there)} alone"
    chosen = [match for each in read for match in task_data.matching(each, there)] if read else list(there or {})
    for test_set in chosen:
        arrays = task_data.arrays(task, test_set)
        missing = [each for each in wanted.get("arrays", []) if arrays is not None and each not in arrays]
        if arrays is not None and missing:
            yield (
                f"it reads the array {missing[0]} of the test set {test_set}, which has {', '.join(sorted(arrays))} "
                "alone"
            )
    errors = task_data.errors(task)
    for error in [*wanted.get("errors", []), *recorded.values()]:
        if errors is not None and error not in errors:
            yield f"it reads the error {error}, and the task {name} has {', '.join(sorted(errors)) or 'none'} alone"
    for key, least in wanted.get("task_settings", {}).items():
        if key not in settings:
            yield f"it reads the setting {key} of a task, and the task {name} has none"
        elif least is not None and settings[key] < least:
            yield f"task.{key} is {settings[key]}, and it needs {least} or more"
    for function in wanted.get("task_functions", []):
        if not hasattr(task_data.module_of(task), function):
            yield f"it calls {function}() of a task, and the task {name} has none"


def _of_model(wanted: dict[str, Any], experiment: dict[str, Any]) -> Iterator[str]:
    """Yield what the model is not."""
    model = experiment["model"]
    for key in wanted.get("model_settings", []):
        if key not in model:
            yield f"it reads the setting {key} of a model, and the model {model['name']} has none"
    for key, values in wanted.get("model_without", {}).items():
        if key in model and model[key] in values:
            yield f"it cannot be measured of a model with {key}: {model[key]}; change model.{key}"


def _bounds(
    name: str, settings: dict[str, Any], wanted: dict[str, Any], experiment: dict[str, Any], at: Report
) -> None:
    described = module_literal("measurements", name)
    for kind in ("at_most", "leaves_out_above", "leaves_out_from"):
        for key, bound in wanted.get(kind, {}).items():
            most, words = _bound(bound, settings, experiment["model"])
            if most is None or settings[key] is None:
                continue
            # a default that does not fit is left out, and what was asked for is not
            if kind != "at_most" and settings[key] == described[key]["default"]:
                continue
            itself = kind == "leaves_out_from"
            for value in listed(settings[key]):
                if value > most or (itself and value == most):
                    at(key, f"{value} is {'not below' if itself else 'above'} {words}; lower it")
                    break


def _bound(bound: str, settings: dict[str, Any], model: dict[str, Any]) -> tuple[int | None, str]:
    """Return the value of a bound, None if it is not known, and how a message names it."""
    if bound in settings:
        return settings[bound], f"{bound}, {settings[bound]}"
    width, heads = model.get("width"), model.get("heads", 1)
    if width is None or any(model_options.problems(model)):
        return None, ""
    if bound == "head_width":
        of_head = model_options.head_width(model)
        if of_head > width:
            return width, f"the width {width}"
        given = model.get("head_width") is not None
        return of_head, f"the head width, {of_head}" if given else f"the head width, {width} / {heads} = {of_head}"
    if bound == "key_rank":
        most = model_options.key_rank(model)
        return most, f"the width {width}" if most == width else f"the width of all keys, {most}"
    if bound == "matrix_entries":
        entries = width * min(model_options.attention_widths(model))
        return entries, f"the {entries} entries of an attention matrix"
    return width, f"the width {width}"


def _checkpoints(settings: dict[str, Any], wanted: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    """Report too few checkpoints on the uniform grid: of the run, up to ``from_step``, or in each of ``windows``."""
    numbers, there = wanted.get("checkpoints"), uniform_checkpoints(experiment)
    if numbers is None:
        return
    number, key = fewest(numbers, settings)
    every, steps = experiment["training"]["checkpoints"]["every"], experiment["training"]["steps"]
    if there < number:
        asked = f"{max(listed(settings[key]))} needs {number} checkpoints on the uniform grid" if key else ""
        at(
            key,
            f"{asked}, and there are {there}; lower it, or training.checkpoints.every"
            if key
            else f"{there} checkpoints on the uniform grid are too few, it takes {number}; lower "
            "training.checkpoints.every, or leave it out",
        )
        return
    windows = settings.get("windows") or 0
    if windows and (there - 1) // windows + 1 < number:
        at(
            "windows",
            f"{windows} windows of {there} checkpoints have {(there - 1) // windows + 1} each, fewer than {number}; "
            "lower it, or training.checkpoints.every",
        )
    start, length = settings.get("from_step"), settings.get("steps")
    if start is not None and start % every == 0 and start // every + 1 < number:
        at(
            "from_step",
            f"up to step {start} there are {start // every + 1} checkpoints on the uniform grid, and it takes "
            f"{number}; use {every * (number - 1)} or more",
        )
    elif "from_step" in settings and isinstance(length, int) and (start or 0) <= steps:
        first = every * (number - 1) if start is None else start
        if first + length > steps:
            at("steps", f"{length} steps from {first} on go beyond the run's {steps}; lower it, or from_step")


def _batches(settings: dict[str, Any], wanted: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    """Report a batch size of which all batches are the same."""
    key = wanted.get("different_batches")
    if key is None:
        return
    task = json.dumps(experiment["task"], sort_keys=True)
    size = experiment["training"]["batch_size"] if settings[key] is None else settings[key]
    length = task_data.module_of(task).length(experiment["task"])
    if sum((task_data.sizes(task) or {}).values()) > DRAWN_AT_MOST or size * length > DRAWN_AT_MOST:
        return
    if not task_data.batches_differ(task, size):
        at(key, f"batches of {size} are all the same, and it compares different ones; use smaller ones")
