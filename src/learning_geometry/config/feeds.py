"""What the checkpoints of a source hold, and which measurements they can feed."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from learning_geometry import tasks
from learning_geometry.config.needs import needs
from learning_geometry.config.problems import Report
from learning_geometry.config.sourced import check_source
from learning_geometry.model_options import sizes_of
from learning_geometry.sources.checkpoint import MapError, SourceError
from learning_geometry.sources.chosen import checked_at, checkpoints_of
from learning_geometry.sources.doubts import Doubt, in_words
from learning_geometry.sources.folders import files_of
from learning_geometry.sources.grid import uniform_grid
from learning_geometry.sources.map_files import map_files
from learning_geometry.sources.opening import opened

SHOWN = 5
"""Steps that a message lists."""

OF_CHECK = (
    "it must hold `tokens` (sequences, positions) and `logits` (sequences, positions read, outputs), and nothing else"
)

MATRICES = "*"
"""What a measurement says that it needs of the weights if any matrices will do."""


class Held(NamedTuple):
    """What is imported of the checkpoints of a source."""

    shapes: dict[str, tuple[int, ...]]
    """Of the parameters, by the workflow's names where there is a map, else by the file's."""
    missing: tuple[str, ...]
    """Parameters of the model that the map does not give."""
    untold: tuple[Doubt, ...]
    """What no shape tells of how the parameters lie in the files."""
    uneven: str
    """Which seed lacks steps that another has; "": none."""


def check_files(experiment: dict[str, Any], report: Report) -> Held | None:
    """Find the checkpoints of a source, write down their steps, and report what of them cannot be read or put in place.

    Of every seed all names are looked at, of the first seed the head of the first checkpoint; the others are compared
    with it when they are imported.

    Args:
        experiment: with all defaults filled in; ``source.found`` is written.
        report: called with a key and what is wrong with it.

    Returns:
        What the source holds; None if something is wrong.
    """
    source, wrong = experiment["source"], []

    def refuse(key: str, problem: str) -> None:
        wrong.append(key)
        report(key, problem)

    if not check_source(source, experiment["seeds"], refuse):
        return None
    try:
        source["found"] = _found(checkpoints_of(source, experiment["seeds"]))
        held = held_by(experiment)
    except SourceError as error:
        place = "source.files" if source["hub"] is None else "source.hub"
        refuse("source.names" if isinstance(error, MapError) else place, str(error))
        return None
    if source["names"] is not None and held.untold and not (source["check"] or source["unchecked"]):
        refuse(
            "source.check",
            f"no shape tells {in_words(held.untold)}; give a file with tokens and the logits of your own code, or set "
            "source.unchecked: true",
        )
    if source["check"]:
        _check_check(source, experiment["seeds"], refuse)
    if experiment.get("task") and source["names"] is not None and not held.missing:
        _check_sizes(experiment, held, refuse)
    return None if wrong else held


def _found(series: Mapping[int, Mapping[int, Path]]) -> dict[str, Any]:
    """Return the steps that all seeds have, and sizes (bytes): of all files of a seed, and of a checkpoint, at most."""
    steps = sorted(set.intersection(*(set(of_seed) for of_seed in series.values())))
    if not steps:
        raise SourceError("there is no step of which every seed has a checkpoint; give seeds of one kind of run")
    sizes = {
        seed: [sum(path.stat().st_size for path in files_of(place)) for place in of_seed.values()]
        for seed, of_seed in series.items()
    }
    return {
        "steps": steps,
        "every": uniform_grid(steps).every,
        "bytes": max(sum(of_seed) for of_seed in sizes.values()),
        "largest": max(max(of_seed) for of_seed in sizes.values()),
    }


def _check_check(source: Mapping[str, Any], seeds: Sequence[int], report: Report) -> None:
    """Report a file of logits that there is not or that holds something else, and a step that there is not."""
    from learning_geometry.files import read_tensor_shapes  # which imports pandas

    file = source["check"]["file"]
    try:
        shapes = read_tensor_shapes(file)
        checked_at(source, seeds)
    except SourceError as error:
        report("source.check.step", str(error))
    except (OSError, ValueError) as error:
        report("source.check.file", str(error))
    else:
        if {name: len(shape) for name, shape in shapes.items()} != {"tokens": 2, "logits": 3}:
            report("source.check.file", f"{file}: holds {shapes}; {OF_CHECK}")


def _check_sizes(experiment: Mapping[str, Any], held: Held, report: Report) -> None:
    """Report a task with tokens, outputs or positions that the model of the checkpoints does not have."""
    task = dict(experiment["task"])
    module = tasks.load(task)
    vocabulary, outputs, positions = sizes_of(held.shapes)
    for what, wanted, there in (
        ("tokens", module.vocabulary(task), vocabulary),
        ("outputs", module.outputs(task), outputs),
        ("positions", module.length(task), positions if "positions.weight" in held.shapes else None),
    ):
        if there is not None and wanted > there:
            report(
                "task", f"it has {wanted} {what}, and the model of the checkpoints {there}; give the task of these runs"
            )


def held_by(experiment: Mapping[str, Any]) -> Held:
    """Return what is imported of the checkpoints of an experiment's source; the head of one of them is read.

    Raises:
        SourceError: it cannot be read, or the map does not fit.
    """
    source, seeds = experiment["source"], experiment["seeds"]
    series = checkpoints_of(source, seeds)
    first = series[seeds[0]]
    place = first[min(first)]
    files = [*files_of(place), *(map_files(source["names"]) if source["names"] else ())]
    stamps = [[str(path), path.stat().st_mtime_ns, path.stat().st_size] for path in files]
    chosen = {"source": {key: source[key] for key in ("state", "names", "ignore")}, "model": experiment.get("model")}
    shapes, missing, untold = _held_as_of(place, json.dumps([chosen, stamps], sort_keys=True))
    return Held(shapes, missing, untold, _uneven(series))


def _uneven(series: Mapping[int, Mapping[int, Path]]) -> str:
    """Return in words which seed lacks a step that another has; "" if none does."""
    steps = sorted(set().union(*series.values()))
    for seed, of_seed in series.items():
        if lacks := [step for step in steps if step not in of_seed]:
            shown = ", ".join(map(str, lacks[:SHOWN])) + ", …" * (len(lacks) > SHOWN)
            return f"seed {seed} has no checkpoint of step {shown}, which others have"
    return ""


@functools.lru_cache(maxsize=32)
def _held_as_of(place: Path, chosen: str) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...], tuple[Doubt, ...]]:
    of = json.loads(chosen)[0]
    with opened(place, of["source"], of["model"]) as one:
        return {name: shape for name, (_, shape) in one.types.items()}, one.missing, one.untold


def lacking(name: str, settings: Mapping[str, Any], experiment: Mapping[str, Any], held: Held) -> str:
    """Return what a measurement needs and the source does not give, first of all; "" if it can be made.

    Args:
        name: of the measurement.
        settings: its settings, filled in.
        experiment: with all defaults filled in.
        held: by its source.
    """
    return next(_lacking(needs(name), settings, experiment, held), "")


def _lacking(
    wanted: Mapping[str, Any], settings: Mapping[str, Any], experiment: Mapping[str, Any], held: Held
) -> Iterator[str]:
    source = experiment["source"]
    if held.uneven and wanted.get("other_seeds"):
        yield f"it compares seeds, and {held.uneven}; add it, or leave out seeds"
        return
    weights: Sequence[str] = wanted.get("weights", ())
    if MATRICES in weights:
        chosen = settings.get("matrices") or MATRICES
        there = [name for name, shape in held.shapes.items() if len(shape) == 2]
        if not any(fnmatchcase(name, chosen) for name in there):
            shown = ", ".join(there[:3]) + ", …" * (len(there) > 3)
            yield f"no matrix of the checkpoints is called {chosen}; there are {shown or 'none'}"
        return
    if source["names"] is None:
        yield "it tells the parameters of the workflow's transformer apart, and `source.names` is null; name a map"
        return
    if "model" not in experiment:
        yield "it needs the settings of the model; give `model`, with heads, layers and width"
        return
    does = f"reads {', '.join(weights)}" if weights else "runs the model"
    missing = [name for name in held.missing if not weights or any(fnmatchcase(name, each) for each in weights)]
    if missing:
        more = f" and {len(missing) - 1} more" * (len(missing) > 1)
        yield f"it {does}, and the map {source['names']} does not give {missing[0]}{more}; add it there"
        return
    if (not weights or _reads_data(wanted)) and experiment.get("task") is None:
        yield ("it reads sequences; give the `task` that the runs learned, or {name: given_test_sets, file: …}")
    elif wanted.get("trains") and "optimizer" not in experiment:
        yield "it trains on from a checkpoint; give `optimizer`, as far as it is known"
    elif source["batch_size"] is None and _null_batch(wanted, settings):
        yield "it draws batches of training's size; give source.batch_size"


def _reads_data(wanted: Mapping[str, Any]) -> bool:
    keys = ("test_sets", "arrays", "errors", "recorded_errors", "task_settings", "task_functions", "different_batches")
    return any(wanted.get(key) for key in keys)


def _null_batch(wanted: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    batches = wanted.get("different_batches")
    return bool(wanted.get("trains")) or (batches is not None and settings[batches] is None)
