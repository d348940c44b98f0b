"""What settings of a measurement of trained runs ask by their name alone, which means the same in all of them."""

import json
from fnmatch import fnmatchcase
from typing import Any

from learning_geometry import model_options
from learning_geometry.config import task_data
from learning_geometry.config.needs import listed
from learning_geometry.config.problems import Report
from learning_geometry.sources.grid import uniform_grid

BY_NAME = {
    "layer, reading_layer, writing_layer": "layers that the model has; the reading one comes after the writing one",
    "matrices": "the pattern of a name that a matrix of the model has",
    "top, medium": "sizes of subspaces, which leave something of the model's width",
    "bridge_rank": "at most the model's width, or that of all keys of a layer if it is less",
    "seeds, slice_seeds": "seeds of the experiment",
    "every": "fits the uniform grid of checkpoints",
    "from_step": "a checkpoint on the uniform grid",
    "first_step": "a step of training",
    "steps": "a list names steps that have a checkpoint, and is not empty where `every` is null",
    "steps, points": "steps are split into so many equal parts",
    "test_sets, first, second": "test sets that the task has; the first and the second are not the same",
    "sequences, noise_sequences, sequence": "number, or index from 0, of sequences that those test sets have",
    "least_vectors_per_width": "so many positions that the model makes use of, for each dimension of its width",
    "place, offset": "an array of positions of the test sets; with the offset they lie inside of their sequences",
    "factors, scale_segments": "multiples of `task.length` at which the task can be drawn, and the model read",
}
"""Names of settings -> what is asked of them, in words."""

SUBSETS = ("sequences", "noise_sequences", "sequence")
"""Settings that count, or pick from, the sequences of a test set."""


def check_named(
    name: str, settings: dict[str, Any], wanted: dict[str, Any], experiment: dict[str, Any], at: Report
) -> None:
    """Report what settings ask by their name that an experiment does not have.

    Args:
        name: of the measurement.
        settings: its settings, filled in.
        wanted: its needs.
        experiment: with all defaults filled in.
        at: called with a setting and what is wrong with it.
    """
    _layers(name, settings, experiment, at)
    _matrices(settings, experiment, at)
    _ranks(settings, experiment, at)
    _seeds(settings, experiment, at)
    _steps(settings, experiment, at)
    if experiment["task"] is None:
        return
    if _test_sets(settings, experiment, at):
        _sequences(settings, wanted, experiment, at)
        _vectors(settings, wanted, experiment, at)
        _places(settings, experiment, at)
    _lengths(settings, experiment, at)


def uniform_checkpoints(experiment: dict[str, Any]) -> int:
    """Return the number of checkpoints on the uniform grid."""
    if "source" in experiment:
        return len(uniform_grid(experiment["source"]["found"]["steps"]).steps)
    return int(experiment["training"]["steps"] // experiment["training"]["checkpoints"]["every"] + 1)


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


def _matrices(settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    """Report a pattern that no matrix of a model that is trained has as its name; of a source its files tell."""
    pattern, model = settings.get("matrices"), experiment["model"]
    if pattern is None or "source" in experiment or model["name"] != "transformer":
        return
    if any(model_options.problems(model)):
        return  # which says more
    shapes = model_options.parameter_shapes(model, 1, 1, 1)
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if not any(fnmatchcase(name, pattern) for name in matrices):
        at("matrices", f"no matrix of the model is called {pattern}; there are {', '.join(matrices[:3])}, …")


def _ranks(settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    width = experiment["model"].get("width")
    if width is None:
        return
    if "top" in settings and "medium" in settings and settings["top"] + settings["medium"] >= width:
        key = "top" if settings["top"] >= width else "medium"
        at(
            key,
            f"top {settings['top']} and medium {settings['medium']} leave nothing of the width {width} for the bottom "
            "subspace; lower it",
        )
    if any(model_options.problems(experiment["model"])):
        return
    most = model_options.key_rank(experiment["model"])
    if settings.get("bridge_rank", 0) > most:
        what = f"the width {width}" if most == width else f"the width of all keys, {most}"
        at("bridge_rank", f"{settings['bridge_rank']} is above {what}; lower it")


def _seeds(settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    for key in ("seeds", "slice_seeds"):
        absent = [seed for seed in settings.get(key) or [] if seed not in experiment["seeds"]]
        if absent:
            at(key, f"{absent[0]} is no seed of the experiment, whose are {experiment['seeds']}; name one of these")


def _steps(settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    steps, grid = experiment["training"]["steps"], experiment["training"]["checkpoints"]["every"]
    every = settings.get("every")
    if isinstance(every, int) and max(every, grid) <= steps and every % grid and grid % every:
        at("every", f"{every} does not fit the checkpoints every {grid} steps; use {grid} or a multiple of it")
    for key in ("from_step", "first_step"):
        step = settings.get(key)
        if step is not None and step > steps:
            at(key, f"{step} lies beyond the {steps} steps of training; lower it")
        elif key == "from_step" and step is not None and not _on_grid(step, experiment):
            at(key, f"{step} is no checkpoint on the uniform grid; use a multiple of {grid}{_offset(experiment)}")
    length, points = settings.get("steps"), settings.get("points")
    if isinstance(length, int) and isinstance(points, int) and length % points:
        at(
            "steps",
            f"{length} cannot be split into {points} equal parts; make it a multiple of {points}, such as "
            f"{length - length % points + points}",
        )
    if isinstance(length, list):
        _named_steps(settings, experiment, at)


def _on_grid(step: int, experiment: dict[str, Any]) -> bool:
    """Whether a step is on the uniform grid, which of checkpoints of another program need not begin at 0."""
    if "source" in experiment:
        return step in uniform_grid(experiment["source"]["found"]["steps"]).steps
    return bool(step % experiment["training"]["checkpoints"]["every"] == 0)


def _offset(experiment: dict[str, Any]) -> str:
    """What is added to multiples of the grid's spacing, in words."""
    first = uniform_grid(experiment["source"]["found"]["steps"]).steps[0] if "source" in experiment else 0
    return f" beyond {first}" if first else ""


def _named_steps(settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    if settings.get("every") is None and not settings["steps"]:
        at("every", "it is null and steps is empty; give one of them")
    steps, checkpoints = experiment["training"]["steps"], experiment["training"]["checkpoints"]
    named = {*checkpoints["steps"], 0, steps}
    absent = [step for step in settings["steps"] if step > steps or (step % checkpoints["every"] and step not in named)]
    if "source" in experiment:
        found = experiment["source"]["found"]["steps"]
        if absent := [step for step in settings["steps"] if step not in found]:
            at("steps", f"there is no checkpoint of step {absent[0]} of every seed; leave it out")
        return
    if absent and not checkpoints["logarithmic"]:
        at(
            "steps",
            f"there is no checkpoint of step {absent[0]}; name it in training.checkpoints.steps, or leave it out",
        )
    elif any(step > steps for step in absent):
        at("steps", f"{max(absent)} lies beyond the {steps} steps of training; remove it")


def _test_sets(settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> bool:
    """Report test sets that the task does not have; returns whether all that are named are there."""
    there = task_data.sizes(json.dumps(experiment["task"], sort_keys=True))
    for key in ("test_sets", "first", "second"):
        if there is None or settings.get(key) is None:
            continue
        absent = [each for each in listed(settings[key]) if each not in there]
        if absent:
            at(key, f"the task has no test set {absent[0]}; use {', '.join(there)}")
            return False
    if "first" in settings and settings["first"] == settings.get("second"):
        at("second", f"first and second are both {settings['first']}; name two test sets")
    return True


def _read(settings: dict[str, Any], wanted: dict[str, Any], there: dict[str, int]) -> list[str]:
    """Return the names of the test sets that a measurement reads."""
    named = [each for key in ("test_sets", "first", "second") for each in listed(settings.get(key)) if each is not None]
    fixed = [match for each in wanted.get("test_sets", []) for match in task_data.matching(each, there)]
    return named or fixed or list(there)


def _sequences(settings: dict[str, Any], wanted: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    there = task_data.sizes(json.dumps(experiment["task"], sort_keys=True))
    if not there:
        return
    shortest = min(_read(settings, wanted, there), key=lambda name: there[name])
    fewest, tests = there[shortest], experiment["task"].get("test_sequences")
    which = f"the task's {fewest} test_sequences" if tests is not None else f"the {fewest} of the test set {shortest}"
    together = wanted.get("sequences", [])
    parts = [settings[key] for key in together]
    if sum(parts) > fewest:
        added = f"{' + '.join(together)} is {' + '.join(map(str, parts))} = {sum(parts)}" if together[1:] else parts[0]
        remedy = "lower them" if together[1:] else "lower it"
        at("" if together[1:] else together[0], f"{added}, more than {which}; {remedy}")
    for key in SUBSETS:
        number = settings.get(key)
        if key not in together and isinstance(number, int) and number + (key == "sequence") > fewest:
            at(key, f"{number} is more than {which}; lower it")


def _vectors(settings: dict[str, Any], wanted: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    """Report too few vectors for the model's width: the first position is left out, or all but the one read out."""
    task, model = json.dumps(experiment["task"], sort_keys=True), experiment["model"]
    there, width = task_data.sizes(task), model.get("width")
    if "least_vectors_per_width" not in settings or not there or width is None:
        return
    if not any(model_options.problems(model)):
        # what the heads mix may be wider than the stream
        width = max(width, model_options.attention_widths(model)[0])
    most = min(there[name] for name in _read(settings, wanted, there))
    sequences = most if settings["sequences"] is None else settings["sequences"]
    of_each = 1 if model.get("readout") == "last" else task_data.module_of(task).length(experiment["task"]) - 1
    least = settings["least_vectors_per_width"] * width
    if sequences * of_each < least:
        at(
            "sequences",
            f"{sequences} sequences give {sequences * of_each} vectors, fewer than {least:g} for a width of {width}, "
            "and would make any activation look low-dimensional; raise it, or lower least_vectors_per_width",
        )


def _places(settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    """Report a place that is no array of positions, or lies outside of a sequence, in the test sets of any seed."""
    task, place = json.dumps(experiment["task"], sort_keys=True), settings.get("place")
    if place is None:
        return
    if experiment["model"].get("readout") == "last":
        at("place", f"the model reads out at its last position alone, and it is {place}; set it to null")
        return
    read = [settings[key] for key in ("first", "second") if key in settings]
    for name in read:
        arrays = task_data.arrays(task, name)
        if arrays is not None and place not in arrays:
            at("place", f"the test set {name} has no array {place}; set it to null, for the last position")
            return
    for seed in experiment["seeds"]:
        try:
            drawn = task_data.test_sets(task, seed)
        except (ValueError, KeyError, MemoryError):
            return
        for name in read:
            array, length = drawn[name][place], drawn[name]["tokens"].shape[1]
            if array.ndim != 1:
                at("place", f"the array {place} of {name} is not one position for each sequence; set it to null")
                return
            positions = array[: settings["sequences"]] + settings.get("offset", 0)
            if positions.min() < 0 or positions.max() >= length:
                at(
                    "offset",
                    f"{place} + {settings['offset']} is {positions.min()} to {positions.max()} in {name}, of {length} "
                    "positions; lower it",
                )
                return


def _lengths(settings: dict[str, Any], experiment: dict[str, Any], at: Report) -> None:
    """Report test lengths that the task cannot be drawn at, or that a learned position embedding has not."""
    task = experiment["task"]
    module = task_data.module_of(json.dumps(task, sort_keys=True))
    if "factors" not in settings or not hasattr(module, "at_length"):
        return
    limit = task["length"] if experiment["model"].get("positions") == "learned" else None
    lengths = sorted({round(factor * task["length"]) for factor in settings["factors"]})
    readable = [length for length in lengths if limit is None or length <= limit]
    if not readable:
        at("factors", f"all of them are longer than the learned position embedding, {limit} tokens; add 1.0")
    for length in readable:
        for scaled in (False, True) if settings.get("scale_segments") else (False,):
            try:
                module.at_length(task, length, scaled)
            except ValueError as error:
                at("factors", f"{length} tokens are no length of this task ({error})")
                return
