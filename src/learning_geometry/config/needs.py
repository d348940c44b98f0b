"""What a measurement needs of what it measures: its literal ``NEEDS``, a mapping, which is read before any job.

What each key says stands in ``OF_RUNS`` and ``OF_LANGUAGE_MODELS``; ``measured`` and ``language_models`` compare it
with a config, and ``needs_tables`` writes it down.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learning_geometry import discovery
from learning_geometry.config.modules import module_literal, subject
from learning_geometry.config.problems import ConfigError
from learning_geometry.config.schemas import Validator

OTHER_SEEDS = ("none", "next", "all")
"""What a measurement is given of an experiment's other seeds, from ``other_seeds`` of its needs; none without it."""

READS = ("texts", "prompts", "untrained_prompts", "model")
"""What a measurement of a language model may read."""

_NAMES = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
_NUMBERS = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "integer"}}
_BOUNDS = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}

OF_RUNS: dict[str, dict[str, Any]] = {
    "test_sets": _NAMES
    | {"description": "test sets that the task must have, all of them; a * at the end stands for any ending"},
    "arrays": _NAMES
    | {"description": "arrays that these test sets must have, or all of them where none is named in `test_sets`"},
    "errors": _NAMES | {"description": "errors that the task's `errors` must return"},
    "recorded_errors": _BOUNDS
    | {"description": "test set: error of it whose course training must record, such as to find the transition in"},
    "task_settings": {"type": "object", "minProperties": 1, "additionalProperties": {"type": ["number", "null"]}}
    | {"description": "setting that the task must have: the smallest value that will do, or null for any"},
    "task_functions": _NAMES | {"description": "functions that the task must have beside those of every task"},
    "model_settings": _NAMES | {"description": "settings that the model must have"},
    "model_without": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "array"}}
    | {"description": "setting of the model: values with which it cannot be measured"},
    "weights": _NAMES
    | {
        "description": "parameters that it reads, where it runs no model; a * stands for anything, and alone for any "
        "matrices, whatever they are called. With it checkpoints of a `source` do without the others"
    },
    "trains": {"const": True} | {"description": "it trains on from a checkpoint, with the optimizer of the run"},
    "other_seeds": {"enum": list(OTHER_SEEDS[1:])}
    | {
        "description": "other seeds of the experiment that it reads, in `run.others`: the next one if there is one, "
        "or all, of which there must be one"
    },
    "shares": {"type": "object", "minProperties": 1, "additionalProperties": _NAMES}
    | {
        "description": "other measurement of the run: settings. If the config has it, with these settings the same, it "
        "comes first, and the files that it leaves are read, in `run.shared`"
    },
    "checkpoints": _NUMBERS
    | {
        "description": "how many checkpoints on the uniform grid there must be: `always`, and beyond the (largest) "
        "value of a setting; also up to the setting `from_step`, from which on there are `steps` of training, "
        "and in each of the setting `windows`"
    },
    "sequences": _NAMES | {"description": "settings that together count sequences of a test set"},
    "at_most": _BOUNDS
    | {
        "description": "setting: what it must not exceed, `width`, `head_width` or `key_rank` (that of a "
        "head, or of all keys of a layer, if it is less), "
        "`matrix_entries` (of the smallest attention matrix) or another setting"
    },
    "leaves_out_above": _BOUNDS
    | {"description": "the same of a setting whose entries above that are left out: refused unless it is the default"},
    "leaves_out_from": _BOUNDS | {"description": "the same, where that itself is left out too"},
    "different_batches": {"type": "string"}
    | {"description": "setting with a batch size, null being training's: batches of it must not all be the same"},
}
"""JSON Schema of the ``NEEDS`` of a measurement of trained runs; all keys are optional."""

OF_LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "reads": {"type": "array", "items": {"enum": list(READS)}, "minItems": 1, "uniqueItems": True}
    | {"description": "what it reads: `texts`, `prompts`, `untrained_prompts` (of random weights too), `model`"},
    "reads_for": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "array", "items": {"enum": list(READS)}, "minItems": 1, "uniqueItems": True},
    }
    | {"description": "what it reads besides if one of its `dictionaries` has this key"},
    "pairs": _NUMBERS
    | {"description": "how many pairs of prompts each contrast must have: `always`, and beyond the value of a setting"},
    "parts": {"type": "object", "minProperties": 1, "additionalProperties": _NAMES}
    | {
        "description": "parts of a layer whose activations must be kept of texts: `always`, and for the `target` of a "
        "dictionary"
    },
}
"""JSON Schema of the ``NEEDS`` of a measurement of language models; all keys are optional."""

NAME_SETTINGS = ("checkpoints", "sequences", "at_most", "leaves_out_above", "leaves_out_from", "pairs")
"""Keys that name settings of the measurement."""

FORMER = {
    "TEST_SETS": "test_sets",
    "OTHER_SEEDS": "other_seeds",
    "FEWEST_PAIRS": "pairs",
}
"""Literals of their own before there was one for all."""


def needs(measurement: str) -> dict[str, Any]:
    """Return what a measurement needs: keys of ``OF_RUNS`` or ``OF_LANGUAGE_MODELS``; empty if it says nothing.

    Raises:
        KeyError: there is no such measurement.
        ConfigError: its ``NEEDS`` is of another form, or names a setting that it does not have.
    """
    path = discovery.module_file("measurements", measurement)
    status = path.stat()
    return _needs_as_of(measurement, path, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


@functools.cache
def _needs_as_of(measurement: str, path: Path, *stamp: int) -> dict[str, Any]:
    del stamp  # another one is another text
    for literal, key in FORMER.items():
        try:
            former = module_literal("measurements", measurement, literal)
        except (KeyError, ConfigError):
            continue
        raise ConfigError([f"{path}: {literal} is not read; write it as NEEDS = {{{key!r}: {former!r}}}"])
    try:
        wanted = module_literal("measurements", measurement, "NEEDS")
    except KeyError:
        return {}
    properties = {"runs": OF_RUNS, "language_models": OF_LANGUAGE_MODELS}.get(subject(measurement), {})
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    if isinstance(wanted, list):
        raise ConfigError([f"{path}: NEEDS is a list; write NEEDS = {{'reads': {wanted!r}}}"])
    for error in Validator(schema).iter_errors(wanted):
        key = f"[{error.absolute_path[0]!r}]" if error.absolute_path else ""
        allowed = f"; its keys may be {', '.join(properties)}" if error.validator == "additionalProperties" else ""
        raise ConfigError([f"{path}: NEEDS{key}: {error.message}{allowed or '; correct it'}"])
    settings = module_literal("measurements", measurement)
    named = [(key, name) for key in NAME_SETTINGS for name in wanted.get(key, ()) if name != "always"]
    named += [("different_batches", wanted["different_batches"])] if "different_batches" in wanted else []
    for key, name in named:
        if name not in settings:
            raise ConfigError([f"{path}: NEEDS[{key!r}] names {name}, which is not in SETTINGS; add it, or remove it"])
    for other, same in wanted.get("shares", {}).items():
        _check_shared(path, other, same, settings)
    return wanted if isinstance(wanted, dict) else {}


def _check_shared(path: Path, other: str, same: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Refuse to share with what is no measurement, lacks a setting, or itself waits for another one."""
    try:
        known = module_literal("measurements", other)
    except KeyError:
        raise ConfigError([f"{path}: NEEDS['shares'] names {other}, and there is no such measurement"]) from None
    missing = [name for name in same if name not in settings or name not in known]
    if missing:
        raise ConfigError([f"{path}: NEEDS['shares'] names {missing[0]}, which both SETTINGS must have; correct it"])
    try:
        chained = "shares" in module_literal("measurements", other, "NEEDS")
    except KeyError:
        chained = False
    if chained:
        raise ConfigError([f"{path}: NEEDS['shares'] names {other}, which itself shares; name one that does not"])


def shared(measurement: str, asked: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the measurements of the same run whose files a measurement reads.

    Args:
        measurement: one of those asked for.
        asked: measurement -> its settings, filled in, of all that an experiment asks for.

    Raises:
        ConfigError: the module says something else.
    """
    wanted = needs(measurement).get("shares", {})
    return [
        other
        for other, same in wanted.items()
        if other in asked and all(asked[other][name] == asked[measurement][name] for name in same)
    ]


def other_seeds(measurement: str) -> str:
    """Return which of the experiment's other seeds a measurement reads besides its own run: one of ``OTHER_SEEDS``.

    Raises:
        ConfigError: the module says something else.
    """
    return str(needs(measurement).get("other_seeds", OTHER_SEEDS[0]))


def needed_seeds(wanted: str, seed: int, seeds: Sequence[int]) -> list[int]:
    """Return the other seeds that a measurement of one run reads, in the order of the config.

    Args:
        wanted: one of ``OTHER_SEEDS``; the next is the next larger, and after the largest the smallest, in whatever
            order the config has them.
        seed: the run's.
        seeds: all of the experiment.

    >>> [needed_seeds(wanted, 2, [0, 1, 2]) for wanted in OTHER_SEEDS], needed_seeds("next", 0, [0])
    ([[], [0], [0, 1]], [])
    """
    others = [other for other in seeds if other != seed]
    if wanted == "next" and others:
        return [min((other for other in others if other > seed), default=min(others))]
    return others if wanted == "all" else []


def reads(measurement: str, settings: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Return what a measurement of a language model reads: some of ``READS``.

    Args:
        measurement: its name.
        settings: its settings, of which its ``dictionaries`` may need more than is always read; None: what always is.

    Raises:
        ConfigError: the module says something else.
    """
    wanted = needs(measurement)
    found = list(wanted.get("reads", ()))
    for dictionary in ((settings or {}).get("dictionaries") or {}).values():
        for key, more in wanted.get("reads_for", {}).items():
            found += more if key in dictionary else []
    return tuple(dict.fromkeys(found))


def fewest(numbers: Mapping[str, int], settings: Mapping[str, Any]) -> tuple[int, str]:
    """Return the largest of some needed numbers, and the setting that asks for it, "" if it is always needed.

    Args:
        numbers: "always" -> a number; setting -> what is needed beyond its value, or its largest entry. Settings that
            are null ask for nothing.
        settings: of the config, defaults filled in.

    >>> fewest({"always": 2, "ranks": 1}, {"ranks": [1, 5]})
    (6, 'ranks')
    """
    needed = {"": numbers.get("always", 0)}
    for key, more in numbers.items():
        if key != "always" and settings[key] is not None:
            needed[key] = more + max(listed(settings[key]), default=0)
    largest = max(needed, key=lambda key: needed[key])
    return needed[largest], largest


def listed(value: Any) -> list[Any]:
    """Return a list as it is, and anything else as the only entry of one."""
    return value if isinstance(value, list) else [value]
