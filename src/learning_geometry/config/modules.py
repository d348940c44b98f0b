"""The modules that a config can name, and the literals in which they describe themselves."""

import ast
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema

from learning_geometry import discovery
from learning_geometry.config.problems import ConfigError
from learning_geometry.config.schemas import Validator
from learning_geometry.config.wording import did_you_mean, yaml_text
from learning_geometry.config.wording import kind as type_word

LITERALS = {"tasks": "SETTINGS", "models": "SETTINGS", "measurements": "SETTINGS", "figures": "REQUIRES"}
"""Kind of module -> the literal that makes one usable from a config."""

OTHER_SEEDS = ("none", "next", "all")
"""What a measurement is given of an experiment's other seeds, from its literal ``OTHER_SEEDS``; none without one."""


def module_literal(kind: str, name: str, literal: str = "") -> Any:
    """Return a literal of a module, by default that which describes it (see ``LITERALS``).

    The module is not imported.

    Raises:
        KeyError: there is no such module, or it holds no such literal.
        ConfigError: it is not Python, or what it assigns to that name is not a literal.
    """
    path = discovery.module_file(kind, name)
    wanted = literal or LITERALS[kind]
    for statement in _parsed(path).body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        if any(isinstance(target, ast.Name) and target.id == wanted for target in targets):
            try:
                return _as_json(ast.literal_eval(statement.value))  # type: ignore[attr-defined]
            except ValueError:
                raise ConfigError(
                    [f"{path}: {wanted} is computed; write a plain literal, for it is read as text"]
                ) from None
    raise KeyError(f"{path} has no {wanted}")


def available(kind: str) -> dict[str, str]:
    """Return name -> first docstring line of the modules of a kind that a config can name, sorted.

    Args:
        kind: one of ``LITERALS``.
    """
    result = {}
    for path in discovery.module_files(kind):
        try:
            module_literal(kind, path.stem)
        except (KeyError, ConfigError):
            continue
        docstring = ast.get_docstring(_parsed(path)) or ""
        result[path.stem] = docstring.partition("\n")[0]
    return result


def settings_schema(kind: str, name: str) -> dict[str, Any]:
    """Return the JSON Schema of the settings of one task, model or measurement.

    Raises:
        KeyError: there is no such module.
        ConfigError: its ``SETTINGS`` is malformed: not a literal, not a valid JSON Schema, or with a key that
            lacks a default or a description, or whose default it would itself refuse.
    """
    settings = module_literal(kind, name)
    place = discovery.module_file(kind, name)
    problems = []
    if not isinstance(settings, dict):
        raise ConfigError([f"{place}: SETTINGS is {type_word(settings)}, expected a mapping of key to JSON Schema"])
    for key, schema in settings.items():
        if key == "name":
            problems.append(f"{place}: SETTINGS['name'] is reserved for the module's name; use another key")
            continue
        try:
            Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            problems.append(f"{place}: SETTINGS[{key!r}] is not a JSON Schema: {error.message}")
            continue
        missing = [word for word in ("default", "description") if word not in schema]
        if missing:
            problems.append(f"{place}: SETTINGS[{key!r}] lacks {' and '.join(missing)}; add it")
        elif not Validator(schema).is_valid(schema["default"]):
            problems.append(f"{place}: SETTINGS[{key!r}] refuses its own default {yaml_text(schema['default'])}")
    if problems:
        raise ConfigError(problems)
    return {"type": "object", "additionalProperties": False, "properties": settings}


def other_seeds(measurement: str) -> str:
    """Return which of the experiment's other seeds a measurement reads besides its own run: one of ``OTHER_SEEDS``.

    Raises:
        ConfigError: the module says something else.
    """
    try:
        wanted = module_literal("measurements", measurement, "OTHER_SEEDS")
    except KeyError:
        return OTHER_SEEDS[0]
    if wanted not in OTHER_SEEDS:
        raise ConfigError(
            [f"{discovery.module_file('measurements', measurement)}: OTHER_SEEDS is {wanted!r}; use {OTHER_SEEDS}"]
        )
    return str(wanted)


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


def figure_limits(figure: str) -> tuple[dict[str, int], bool]:
    """Return how many of what a config lists a figure can show at most, and whether all but its first are controls.

    Both come from its literals: ``MOST``, section of a config ("experiments", "texts", "prompts") -> number, with no
    limit where there is none, and ``CONTROLS``, of which it draws what there is.

    Raises:
        ConfigError: ``MOST`` says something else.
    """
    found: dict[str, Any] = {"MOST": {}, "CONTROLS": False}
    for literal in found:
        try:
            found[literal] = module_literal("figures", figure, literal)
        except KeyError:
            continue
    most = found["MOST"]
    sections = ("experiments", "texts", "prompts")
    if not isinstance(most, dict) or not all(key in sections and type(n) is int for key, n in most.items()):
        raise ConfigError(
            [f"{discovery.module_file('figures', figure)}: MOST is {most!r}; use numbers for {', '.join(sections)}"]
        )
    return most, bool(found["CONTROLS"])


SUBJECTS = ("runs", "language_models", "self_contained")
"""What a measurement measures, from the folder that it lies in: trained runs, language models, or neither."""

NEEDS = ("texts", "prompts", "untrained_prompts", "model")
"""What a measurement of a language model may read, from its literal ``NEEDS``."""


def subject(measurement: str) -> str:
    """Return what a measurement measures: one of ``SUBJECTS``.

    Raises:
        KeyError: there is no such measurement.
    """
    return discovery.module_file("measurements", measurement).parent.name


def needs(measurement: str) -> tuple[str, ...]:
    """Return what a measurement of a language model reads: some of ``NEEDS``.

    Raises:
        ConfigError: the module says something else.
    """
    try:
        found = module_literal("measurements", measurement, "NEEDS")
    except KeyError:
        return ()
    if not isinstance(found, list) or not all(each in NEEDS for each in found):
        raise ConfigError(
            [f"{discovery.module_file('measurements', measurement)}: NEEDS is {found!r}; use {', '.join(NEEDS)}"]
        )
    return tuple(found)


def fewest_pairs(measurement: str, settings: Mapping[str, Any]) -> tuple[int, str]:
    """Return how many pairs of prompts a measurement of language models needs, and which setting asks for so many.

    Its literal ``FEWEST_PAIRS`` maps "always" to a number, and settings to what is needed beyond their value; without
    it one pair will do.

    Args:
        measurement: its module.
        settings: of the config, defaults filled in.

    Raises:
        ConfigError: the literal is of another form.
    """
    try:
        wanted = module_literal("measurements", measurement, "FEWEST_PAIRS")
    except KeyError:
        return 1, ""
    known = isinstance(wanted, dict) and all(key == "always" or isinstance(settings.get(key), int) for key in wanted)
    if not known or not all(isinstance(number, int) for number in wanted.values()):
        raise ConfigError(
            [
                f"{discovery.module_file('measurements', measurement)}: FEWEST_PAIRS is {wanted!r}; map always, or "
                "settings that are integers, to integers"
            ]
        )
    found = {key: number + (0 if key == "always" else settings[key]) for key, number in wanted.items()}
    largest = max(found, key=lambda key: found[key])
    return found[largest], "" if largest == "always" else f" ({largest}: {settings[largest]})"


def unknown_module(kind: str, name: str) -> str:
    """Return the message for a name that no module of a kind bears."""
    names = list(available(kind))
    close = did_you_mean(name, names)
    return (
        f"no {kind.removesuffix('s')} {yaml_text(name)}{close} available: {', '.join(names) or 'none'} "
        f"(a new one is a file {' or '.join(f'{folder}/<name>.py' for folder in discovery.FOLDERS[kind])} with "
        f"{LITERALS[kind]})"
    )


def _parsed(path: Path) -> ast.Module:
    status = path.stat()
    return _parsed_as_of(path, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


@functools.cache
def _parsed_as_of(path: Path, *stamp: int) -> ast.Module:
    del stamp  # another one is another text
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ConfigError([f"{path}, line {error.lineno}: {error.msg}; correct the Python of this file"]) from None


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(entry) for key, entry in value.items()}
    return [_as_json(entry) for entry in value] if isinstance(value, list | tuple) else value
