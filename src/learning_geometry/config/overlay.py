"""Config files that say only what differs from another: ``extends``, and how one config is laid over another.

Mappings are merged key by key, anything else is replaced. Where names are the user's own (``REMOVABLE``) null removes
the entry; elsewhere null is a value. A task or model of another name keeps none of the settings below, which are of
other meaning. Figures lose the experiments that are removed, and go with the last of them, unless they are given anew.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learning_geometry.config.places import path_problem
from learning_geometry.config.problems import ConfigError, KeyPath, dotted
from learning_geometry.config.reading import read_yaml
from learning_geometry.config.schemas import SCHEMA
from learning_geometry.config.wording import did_you_mean, kind, yaml_text

EXTENDS = "extends"
"""The key that names the file below, relative to the folder of the file that it stands in."""

REMOVABLE: tuple[KeyPath, ...] = (
    ("experiments", "*"),
    ("experiments", "*", "measurements", "*"),
    ("experiments", "*", "sweep", "*"),
    ("language_models", "*"),
    ("language_models", "*", "texts", "*"),
    ("language_models", "*", "prompts", "*"),
    ("language_models", "*", "measurements", "*"),
    ("language_models", "*", "measurements", "dictionary_sweep", "dictionaries", "*"),
    ("figures", "*"),
)
"""Entries under names that are the user's own, or that stand for something to be made."""

REPLACED: tuple[KeyPath, ...] = (("experiments", "*", "task"), ("experiments", "*", "model"))
"""Sections whose keys depend on their ``name``."""


def read_config(paths: Sequence[Path | str], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read config files with all that they extend, lay them over each other in order, and ``overrides`` over all.

    Nothing is checked but what the files do to each other.

    Args:
        paths: YAML files; the first alone may extend another.
        overrides: keys laid over all files.

    Raises:
        ConfigError: a file cannot be read (see :func:`read_yaml`), extends what it cannot, or removes what there is
            not; the message names the file.
    """
    config: dict[str, Any] = {}
    for number, path in enumerate(paths):
        if number:
            update = read_yaml(path)
            if EXTENDS in update:
                problem = f"{EXTENDS} may stand in the first of several config files only"
                raise ConfigError([f"{path}: {problem}; remove it, or name {path} alone"])
            config = _laid_over(config, update, str(path))
        else:
            config = _extended(Path(path), ())
    return _laid_over(config, overrides or {}, "--config") if overrides else config


def _extended(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return a file laid over what it extends, and that over what it extends, and so on."""
    try:
        config = read_yaml(path)
    except ConfigError as error:
        if not above:
            raise
        raise ConfigError([f"{problem} ({EXTENDS} of {above[-1]})" for problem in error.problems]) from None
    if EXTENDS not in config:
        return config
    below = config.pop(EXTENDS)
    problem = path_problem(below) if isinstance(below, str) else f"is {kind(below)}"
    if problem or not below:
        raise ConfigError([f"{path}: {EXTENDS}: {yaml_text(below)} {problem}; give the path of one config file"])
    base = path.parent / below
    files = [*above, path]
    same = [each for each in files if each.resolve() == base.resolve()]
    if same:
        chain = " -> ".join(str(each) for each in [*files[files.index(same[0]) :], base])
        raise ConfigError([f"{path}: {EXTENDS}: {below} extends this file in turn ({chain}); remove one {EXTENDS}"])
    return _laid_over(_extended(base, (*above, path)), config, str(path))


def _laid_over(base: Mapping[str, Any], update: Mapping[str, Any], file: str) -> dict[str, Any]:
    problems: list[str] = []
    result = _merged(base, update, (), problems)
    if problems:
        raise ConfigError([f"{file}: {problem}" for problem in problems])
    removed = {
        name
        for section in ("experiments", "language_models")
        for name, entry in _mapping(update.get(section)).items()
        if entry is None
    }
    figures, given = result.get("figures"), _mapping(update.get("figures"))
    if removed and isinstance(figures, dict):
        result["figures"] = {
            name: figure if name in given else kept
            for name, figure in figures.items()
            if (kept := _without(figure, removed)) is not None or name in given
        }
    return result


def _without(figure: Any, removed: set[str]) -> Any:
    """Return a figure's section without the experiments removed; None if it showed these alone."""
    shown = figure.get("experiments") if isinstance(figure, Mapping) else None
    if not isinstance(shown, list) or not any(isinstance(name, str) and name in removed for name in shown):
        return figure
    kept = [name for name in shown if not (isinstance(name, str) and name in removed)]
    return {**figure, "experiments": kept} if kept else None


def _merged(base: Mapping[str, Any], update: Mapping[str, Any], path: KeyPath, problems: list[str]) -> dict[str, Any]:
    result = dict(base)
    for key, value in update.items():
        where, old = (*path, str(key)), result.get(key)
        if value is None and is_removable(where):
            if key in result:
                del result[key]
            else:
                close = did_you_mean(key, result)
                there = ", ".join(map(str, result)) or "none"
                problems.append(f"{dotted(where)}: null removes it, and there is none{close} there are: {there}")
            continue
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not _of_another_name(old, value, where):
            value = _merged(old, value, where, problems)
        result[key] = value
    return result


def _of_another_name(old: Mapping[str, Any], new: Mapping[str, Any], path: KeyPath) -> bool:
    if "name" not in new or not _is(path, REPLACED):
        return False
    section = read_yaml(SCHEMA)["properties"]["experiments"]["additionalProperties"]["properties"][path[-1]]
    return bool(old.get("name", section["properties"]["name"].get("default")) != new["name"])


def is_removable(path: KeyPath) -> bool:
    """Whether null removes the entry at a path, of which "*" stands for any name."""
    return _is(path, REMOVABLE)


def _is(path: KeyPath, patterns: tuple[KeyPath, ...]) -> bool:
    return any(
        len(pattern) == len(path) and all(want in ("*", part) for want, part in zip(pattern, path, strict=True))
        for pattern in patterns
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
