"""Which entries of a config are one model: a claim across models counts each model once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

TRAINED_BY = ("task", "model", "optimizer", "training")
"""Sections that make the set-up of a training, of which seeds are outcomes."""

NO_SETTING = ("seconds_between_saves",)
"""Keys of the training that change no number."""


def distinct_models(
    names: Sequence[str],
    experiments: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, str]:
    """Return for each entry the first one of the same model.

    Entries are one model if they share the hash of their weights, the source that these are read from (whatever the
    revision), the ``set_up`` that the config gives them, or, of trained ones, every setting but their seeds; or are
    each one with a third.

    Args:
        names: entries of the config.
        experiments: name -> settings.
        weights: name -> hashes of the weights that its tables were measured from (:func:`weights_in`).

    >>> read = {name: {"model": {"source": name}} for name in "abc"}
    >>> distinct_models("abc", read, {"a": ["1f"], "b": ["9e"], "c": ["1f"]})
    {'a': 'a', 'b': 'b', 'c': 'a'}
    """
    representatives: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in names:
        marks = [f"weights {each}" for each in (weights or {}).get(name, ())] + list(_marks(experiments[name]))
        alike = {representatives[first[mark]] for mark in marks if mark in first}
        representatives[name] = min([*alike, name], key=list(names).index)
        representatives = {
            other: representatives[name] if model in alike else model for other, model in representatives.items()
        }
        for mark in marks:
            first.setdefault(mark, name)
    return representatives


def weights_in(provenance: Mapping[str, Any]) -> list[str]:
    """Return the hashes of the weights that the tables in the provenance of a table of all runs were measured from.

    >>> weights_in({"tables": {"a.parquet": {"weights": "1f"}, "b.parquet": {"weights": None}, "c.parquet": {}}})
    ['1f']
    """
    made = provenance.get("tables", {}).values()
    return sorted({str(each["weights"]) for each in made if each.get("weights")})


def _marks(experiment: Mapping[str, Any]) -> Iterator[str]:
    """What an entry shares with every other of the same model."""
    if experiment.get("set_up"):
        yield f"set_up {experiment['set_up']}"
    if experiment.get("source") and "training" not in experiment:
        yield f"files {json.dumps([experiment['source'].get(key) for key in ('files', 'hub', 'revision')])}"
    elif "task" in experiment:
        made = {section: experiment.get(section) for section in TRAINED_BY}
        training = made["training"]
        if isinstance(training, Mapping):
            made["training"] = {key: value for key, value in training.items() if key not in NO_SETTING}
        yield f"trained {json.dumps(made, sort_keys=True, default=str)}"
    elif model := experiment.get("model"):
        yield f"source {json.dumps([model.get('source'), model.get('gguf')])}"
