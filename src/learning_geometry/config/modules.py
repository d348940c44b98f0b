"""The modules that a config can name, and the literals in which they describe themselves."""

import ast
import functools
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


def module_literal(kind: str, name: str, literal: str = "") -> Any:
    """Return a literal of a module, by default that which describes it (see ``LITERALS``).

    The module is not imported.

    Raises:
        KeyError: there is no such module, or it holds no such literal.
        ConfigError: it is not Python, or what it assigns to that name is not a literal.
    """
    path = discovery.module_file(kind, name)
    return _literal(path, parsed(path), literal or LITERALS[kind])


def _literal(path: Path, tree: ast.Module, wanted: str) -> Any:
    for statement in tree.body:
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
        docstring = ast.get_docstring(parsed(path)) or ""
        result[path.stem] = docstring.partition("\n")[0]
    return result


def settings_schema(kind: str, name: str) -> dict[str, Any]:
    """Return the JSON Schema of the settings of one task, model or measurement, or of the options of a figure, if any.

    Raises:
        KeyError: there is no such module.
        ConfigError: its ``SETTINGS`` is malformed: not a literal, not a valid JSON Schema, or with a key that
            lacks a default or a description, or whose default it would itself refuse.
    """
    place = discovery.module_file(kind, name)
    try:
        settings = module_literal(kind, name, "SETTINGS")
    except KeyError:
        if kind != "figures":
            raise
        settings = {}
    if not isinstance(settings, dict):
        raise ConfigError([f"{place}: SETTINGS is {type_word(settings)}, expected a mapping of key to JSON Schema"])
    if settings and (problems := _settings_problems(place, parsed(place))):
        raise ConfigError(problems)
    return {"type": "object", "additionalProperties": False, "properties": settings}


@functools.cache
def _settings_problems(place: Path, tree: ast.Module) -> tuple[str, ...]:
    """Return what is wrong with the mapping SETTINGS of a file, looked at once for each of the file's texts."""
    problems = []
    for key, schema in _literal(place, tree, "SETTINGS").items():
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
    return tuple(problems)


def figure_limits(figure: str) -> tuple[dict[str, int], bool]:
    """Return how many of what a config lists a figure can show at most, and whether all but its first are controls.

    Both come from its literals: ``MOST``, section of a config ("experiments", "texts", "prompts") -> number, with no
    limit where there is none, and ``CONTROLS``, of which it draws what there is.

    Raises:
        ConfigError: ``MOST`` says something else.
    """
    literals: dict[str, Any] = {"MOST": {}, "CONTROLS": False}
    for literal in literals:
        try:
            literals[literal] = module_literal("figures", figure, literal)
        except KeyError:
            continue
    most = literals["MOST"]
    sections = ("experiments", "texts", "prompts")
    if not isinstance(most, dict) or not all(key in sections and type(n) is int for key, n in most.items()):
        raise ConfigError(
            [f"{discovery.module_file('figures', figure)}: MOST is {most!r}; use numbers for {', '.join(sections)}"]
        )
    return most, bool(literals["CONTROLS"])


SUBJECTS = ("runs", "language_models", "self_contained")
"""What a measurement measures, from the folder that it lies in: trained runs, language models, or neither."""


def subject(measurement: str) -> str:
    """Return what a measurement measures: one of ``SUBJECTS``.

    Raises:
        KeyError: there is no such measurement.
    """
    return discovery.module_file("measurements", measurement).parent.name


def unknown_module(kind: str, name: str) -> str:
    """Return the message for a name that no module of a kind bears, or one that does not describe itself."""
    names = list(available(kind))
    try:
        path = discovery.module_file(kind, name)
    except KeyError:
        pass
    else:
        return (
            f"{path} has no {LITERALS[kind]}, and so is no {kind.removesuffix('s')}; add it, or use one that is "
            f"available: {', '.join(names)}"
        )
    close = did_you_mean(name, names)
    return (
        f"no {kind.removesuffix('s')} {yaml_text(name)}{close} available: {', '.join(names) or 'none'} "
        f"(a new one is a file {' or '.join(f'{folder}/<name>.py' for folder in discovery.FOLDERS[kind])} with "
        f"{LITERALS[kind]})"
    )


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file, parsed once for each of its texts.

    Raises:
        ConfigError: it is not Python; names the line.
    """
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
