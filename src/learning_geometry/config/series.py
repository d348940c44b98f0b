"""Which language models of a checked config are one model at several steps of training, and which figures show them."""

from collections.abc import Mapping
from typing import Any

from learning_geometry.config.modules import module_literal
from learning_geometry.config.problems import ConfigError
from learning_geometry.config.schemas import entries


def series(config: Mapping[str, Any]) -> dict[str, dict[str, dict[str, int]]]:
    """Return name of a series -> its language models, by seed and step -> "step" and "seed".

    Args:
        config: with every series written out, see ``series_members``; it may have problems.

    >>> series({"language_models": {"a_step_5": {"of_series": {"name": "a", "step": 5, "seed": 0}}, "b": {}}})
    {'a': {'a_step_5': {'step': 5, 'seed': 0}}}
    """
    by_series: dict[str, dict[str, dict[str, int]]] = {}
    for name, language_model in entries(config.get("language_models")):
        of = language_model.get("of_series")
        if not isinstance(of, dict) or not isinstance(of.get("name"), str):
            continue
        place = {key: of[key] for key in ("step", "seed") if isinstance(of.get(key), int)}
        if len(place) == 2:
            by_series.setdefault(of["name"], {})[name] = place
    return {
        name: dict(sorted(places.items(), key=lambda item: (item[1]["seed"], item[1]["step"])))
        for name, places in by_series.items()
    }


def last_models(places: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the language models of a series that are its last step, one for each seed.

    >>> last_models({"a": {"step": 0, "seed": 0}, "b": {"step": 9, "seed": 0}, "c": {"step": 9, "seed": 1}})
    ['b', 'c']
    """
    last = max(place["step"] for place in places.values())
    return [name for name, place in places.items() if place["step"] == last]


def earlier_models(config: Mapping[str, Any]) -> set[str]:
    """Return the language models of all series that are not of the last step, which claims are not judged on."""
    return {name for places in series(config).values() for name in places.keys() - set(last_models(places))}


def shows_series(figure: str) -> bool:
    """Return whether a figure shows all steps of series, as its literal ``SERIES`` says; others show the last."""
    try:
        return bool(module_literal("figures", figure, "SERIES"))
    except (KeyError, ConfigError):
        return False


def series_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return model of a series -> name of the series, under which the config of the user lists it."""
    return {member: name for name, places in series(config).items() for member in places}


def series_shown(shown: list[Any], config: Mapping[str, Any]) -> list[str]:
    """Return the series of which a figure over steps names models, each once, in order.

    Args:
        shown: what the figure names, with every series written out.
        config: with every series written out.
    """
    name_of = series_of(config)
    return list(dict.fromkeys(name_of[each] for each in shown if isinstance(each, str) and each in name_of))
