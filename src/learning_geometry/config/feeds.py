"""What the checkpoints of a source hold, and which measurements they can feed."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from learning_geometry.config.needs import needs
from learning_geometry.config.problems import Report
from learning_geometry.config.sourced import check_source
from learning_geometry.sources.checkpoint import SourceError
from learning_geometry.sources.chosen import checkpoints_of
from learning_geometry.sources.grid import uniform_grid
from learning_geometry.sources.opening import opened

MATRICES = "*"
"""What a measurement says that it needs of the weights if any matrices will do."""


class Held(NamedTuple):
    """The parameters that are imported of every checkpoint."""

    shapes: dict[str, tuple[int, ...]]
    """Of the workflow's names where there is a map, else of the file's."""
    missing: tuple[str, ...]
    """Parameters of the model that the map does not give."""
    untold: tuple[str, ...]
    """Square matrices, of which no shape tells whether they are transposed."""


def check_files(experiment: dict[str, Any], report: Report) -> None:
    """Find the checkpoints of a source, write down their steps, and report what of them cannot be read or put in place.

    Of every seed all names are looked at, of the first seed the head of the first checkpoint; the others are compared
    with it when they are imported.

    Args:
        experiment: with all defaults filled in; ``source.found`` is written.
        report: called with a key and what is wrong with it.
    """
    source, seeds = experiment["source"], experiment["seeds"]
    if not check_source(source, seeds, report):
        return
    place = "source.files" if source["hub"] is None else "source.hub"
    try:
        series = checkpoints_of(source, seeds)
        steps = sorted({step for of_seed in series.values() for step in of_seed})
        source["found"] = {"steps": steps, "every": uniform_grid(steps).every}
        held = held_by(experiment)
    except SourceError as error:
        key = {"map": "source.names", "model": "model"}.get(getattr(error, "about", ""), place)
        report(key, str(error))
        return
    if source["names"] is not None and held.untold and not (source["check"] or source["unchecked"]):
        report(
            "source.check",
            f"{held.untold[0]} is square, as {len(held.untold)} of the matrices are, and no shape tells whether it is "
            "transposed; give a file with tokens and the logits of your own code, or set source.unchecked: true",
        )


def held_by(experiment: Mapping[str, Any]) -> Held:
    """Return what is imported of the checkpoints of an experiment's source; the head of one of them is read.

    Raises:
        SourceError: it cannot be read, or the map does not fit.
    """
    chosen = {key: experiment[key] for key in ("seeds", "source", "model") if key in experiment}
    return _held_by(json.dumps(chosen, sort_keys=True))


@functools.lru_cache(maxsize=32)
def _held_by(experiment: str) -> Held:
    chosen = json.loads(experiment)
    seed = chosen["seeds"][0]
    of_seed = checkpoints_of(chosen["source"], [seed])[seed]
    with opened(of_seed[min(of_seed)], chosen["source"], chosen.get("model")) as one:
        shapes = {name: shape for name, (_, shape) in one.types.items()}
        return Held(shapes, one.missing, one.untold)


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
