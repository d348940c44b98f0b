"""Settings of measurements that had other names in earlier versions: refused with the present one, or renamed."""

from collections.abc import Mapping
from typing import Any

from learning_geometry.config.problems import KeyPath

RENAMED = {
    ("dictionary_sweep", "active"): "k",
    ("dictionary_sweep", "cells"): "dictionaries",
    ("sparse_execution", "active"): "k",
    ("sparse_execution", "removed"): "ablated",
}
"""Measurement and earlier name of one of its settings -> what it is called."""


def present_name(path: KeyPath) -> str | None:
    """Return what a key is called that was renamed; None if it was not.

    >>> present_name(("language_models", "mine", "measurements", "dictionary_sweep", "cells"))
    'dictionaries'
    """
    if len(path) != 5 or path[2] != "measurements":
        return None
    return RENAMED.get((str(path[3]), str(path[4])))


def with_present_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config that an earlier version checked, with all its defaults, under the present names of settings.

    >>> earlier = {"experiments": {"sums": {"measurements": {"sparse_execution": {"active": 16}}}}}
    >>> with_present_names(earlier)
    {'experiments': {'sums': {'measurements': {'sparse_execution': {'k': 16}}}}}
    """

    def renamed(value: Any, path: KeyPath) -> Any:
        if not isinstance(value, Mapping) or len(path) == 5:
            return value
        return {present_name((*path, key)) or key: renamed(entry, (*path, key)) for key, entry in value.items()}

    result: dict[str, Any] = renamed(config, ())
    return result
