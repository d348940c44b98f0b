"""Experiments whose checkpoints another program made: which sections they have, and what stands for the others."""

from collections.abc import Mapping
from typing import Any

from learning_geometry.config.problems import KeyPath, Problems, Report
from learning_geometry.config.schemas import check, entries
from learning_geometry.sources.grid import uniform_grid

OPTIONAL = ("task", "model", "optimizer")
"""Sections that an experiment with a source need not have, and then has no defaults of."""


def check_sections(config: Mapping[str, Any], fixed: Mapping[str, Any], problems: Problems) -> None:
    """Report experiments that neither are trained nor have a source, have both, or sweep what is not trained.

    Args:
        config: as it is given, checked against the schema.
        fixed: schema of the config.
        problems: to add to.
    """
    sections = fixed["properties"]["experiments"]["additionalProperties"]["properties"]
    required = ["task", "training"]
    trained = {"required": required, "properties": {name: sections[name] for name in required}}
    for name, experiment in entries(config.get("experiments")):
        path: KeyPath = ("experiments", name)
        if "source" not in experiment:
            check(experiment, trained, path, problems)
        elif "training" in experiment:
            problems.setdefault((*path, "source"), "there is `training` too, and one of the two is done; remove one")
        elif experiment.get("sweep"):
            problems.setdefault((*path, "sweep"), "nothing is trained where there is a source; remove one of the two")


def not_given(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the experiments with a source, and the sections of each that it does not have."""
    sourced = [(name, each) for name, each in entries(config.get("experiments")) if "source" in each]
    return [(name, section) for name, each in sourced for section in OPTIONAL if section not in each]


def described(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment as if it had been trained here: with ``training`` as the checkpoints of its source have it.

    Args:
        experiment: with all defaults filled in, and the steps of its source found.
    """
    if "source" not in experiment:
        return dict(experiment)
    source = experiment["source"]
    steps, every = source["found"]["steps"], source["found"]["every"]
    grid = set(uniform_grid(steps).steps)
    checkpoints = {"every": every, "logarithmic": 0, "steps": [step for step in steps if step not in grid]}
    training = {"steps": steps[-1], "batch_size": source["batch_size"], "checkpoints": checkpoints}
    return {"task": None, "model": {}, "optimizer": None, **experiment, "training": training}


def check_source(source: Mapping[str, Any], seeds: list[int], report: Report) -> bool:
    """Report keys of a source that do not go together; returns whether files can be looked for."""
    problems = {}
    if (source["files"] is None) == (source["hub"] is None):
        problems["source"] = "give `files` or `hub`, one of the two"
    elif source["hub"] is not None and not isinstance(source["step"], list):
        problems["source.step"] = f"{source['step']}, and of a hub the steps must be listed; write [0, 1000, …]"
    elif source["hub"] is not None and len(seeds) > 1 and "{seed}" not in source["hub"] + source["revision"]:
        problems["source.hub"] = "no {seed} in it or in revision, and there are several seeds; name one seed alone"
    if source["names"] is not None and source["ignore"]:
        problems["source.ignore"] = "a map has an `ignore` of its own; move it there"
    if source["names"] is None and (source["check"] or source["unchecked"]):
        key = "check" if source["check"] else "unchecked"
        problems[f"source.{key}"] = "without `names` nothing is put in place that could be checked; remove it"
    if source["check"] and source["unchecked"]:
        problems["source.unchecked"] = "there is a `check`; remove one of the two"
    if source["check"] and source["check"]["seed"] is not None and source["check"]["seed"] not in seeds:
        problems["source.check.seed"] = f"{source['check']['seed']} is no seed of the experiment; name one of {seeds}"
    for key, problem in problems.items():
        report(key, problem)
    return not problems
