"""Values against a JSON Schema: what breaks it, in words with a remedy, and its defaults filled in."""

import copy
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema

from learning_geometry.config.problems import KeyPath, Problems
from learning_geometry.config.renamed import present_name
from learning_geometry.config.wording import after, did_you_mean, expected, hint, kind, yaml_text

SCHEMA = Path(__file__).parents[3] / "workflow" / "schemas" / "config.schema.yaml"
"""JSON Schema of the fixed keys."""

LARGEST = 10**8
"""Largest integer of a setting whose schema names no maximum; one beyond it would take years, or all memory."""


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    # in JSON Schema `$` is the end of the text; Python's also matches before a newline at the end
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


# JSON Schema takes 2.0 for an integer; a config that says `layers: 2.0` is more likely a slip
Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"pattern": _pattern},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def plain(value: Any, path: KeyPath, problems: Problems, above: tuple[int, ...]) -> Any:
    """Copy ``value`` into plain dicts and lists, reporting what JSON cannot hold."""
    if id(value) in above:
        problems.setdefault(path, "an anchor contains its own alias; remove the alias")
        return None
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                remedy = hint(key, ["string"]) or "write a name, or quote it"
                problems.setdefault((*path, str(key)), f"the key {yaml_text(key)} is not text; {remedy}")
        return {
            str(key): plain(entry, (*path, str(key)), problems, (*above, id(value))) for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain(entry, (*path, i), problems, (*above, id(value))) for i, entry in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        problems.setdefault(path, f"got {value}, expected a finite number")
    if value is not None and not isinstance(value, str | bool | int | float):
        problems.setdefault(path, f"YAML reads {yaml_text(value)} as {kind(value)}; quote it to have it as text")
        return str(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        problems.setdefault(path, f"got {yaml_text(value)}, expected a number of at most 64 bits")
        return 0
    return value


def check(value: Any, schema: dict[str, Any], path: KeyPath, problems: Problems) -> None:
    """Add one problem per violation of ``schema``, in the order of the config."""
    for error in Validator(schema).iter_errors(value):
        place = (*path, *error.absolute_path)
        for where, problem in _described(error, place):
            problems.setdefault(where, problem)
    for where, problem in _too_large(value, schema, path):
        problems.setdefault(where, problem)


def _too_large(value: Any, schema: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield the integers above ``LARGEST`` of keys that name no maximum of their own."""
    if not isinstance(schema, dict):
        return
    if isinstance(value, dict):
        schema = chosen(value, schema)
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, entry in value.items():
            if "seed" not in key:  # a seed counts nothing
                yield from _too_large(entry, properties.get(key, others), (*path, key))
    elif isinstance(value, list):
        for i, entry in enumerate(value):
            yield from _too_large(entry, schema.get("items"), (*path, i))
    elif isinstance(value, int) and not isinstance(value, bool) and "maximum" not in schema:
        types = schema.get("type", [])
        if "integer" in ([types] if isinstance(types, str) else types) and abs(value) > LARGEST:
            yield path, f"got {value}, and nothing here takes more than {LARGEST}; lower it"


def _described(error: jsonschema.ValidationError, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    schema, value, rule = dict(error.schema), error.instance, error.validator
    properties = schema.get("properties", {})
    if "propertyNames" in error.absolute_schema_path and rule == "maxLength":
        yield (
            (*path, value),
            f"the name has {len(value)} characters, and {error.validator_value} are the most, as paths carry it; "
            "shorten it",
        )
    elif "propertyNames" in error.absolute_schema_path:
        suggestion = re.sub(r"[^a-z0-9_]+", "_", str(value).lower()).strip("_") or "copying"
        yield (
            (*path, value),
            "the name may hold lower-case letters, digits and _ only, _ not at an end, as paths carry it; "
            f"write {suggestion}",
        )
    elif rule == "additionalProperties":
        for key in value:
            if key not in properties:
                present = present_name((*path, key))
                yield (
                    (*path, key),
                    f"a name of earlier versions; it is called {present} now, rename it"
                    if present
                    else f"unknown key{did_you_mean(key, properties)} allowed: {', '.join(properties)}",
                )
    elif rule == "required":
        for key in error.validator_value:
            if key not in value:
                wanted = properties.get(key, {})
                meaning = wanted.get("description", "").partition(". ")[0]
                yield (*path, key), f"missing; add it, {expected(wanted)}: {meaning}"
    elif rule == "uniqueItems":
        repeated = next(entry for i, entry in enumerate(value) if entry in value[:i])
        yield path, f"{yaml_text(repeated)} is repeated; list it once"
    elif rule == "enum":
        close = did_you_mean(value, error.validator_value).removesuffix(";")
        yield (
            path,
            f"got {yaml_text(value)}, expected {expected(schema)}{close}{after(hint(value, ['string']))}",
        )
    elif rule in ("minItems", "maxItems", "minProperties"):
        number = {0: "none", 1: "1 entry"}.get(len(value), f"{len(value)} entries")
        yield path, f"got {number}, expected {expected(schema)}"
    else:
        types = schema.get("type", [])
        remedy = hint(value, [types] if isinstance(types, str) else types) if rule == "type" else ""
        yield path, f"got {yaml_text(value)}, expected {expected(schema)}{after(remedy)}"


def chosen(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return, of the schema of a mapping that has kinds (``if``, ``then`` and ``else``), that of its kind.

    >>> either = {"if": {"required": ["file"]}, "then": {"title": "a file"}, "else": {"title": "numbers"}}
    >>> chosen({"file": "a.txt"}, either)["title"], chosen({}, either)["title"]
    ('a file', 'numbers')
    """
    if "if" not in schema:
        return schema
    branch = schema.get("then" if Validator(schema["if"]).is_valid(value) else "else", {})
    return {**schema, **branch}


def filled(value: Any, schema: dict[str, Any]) -> Any:
    """Return ``value`` with the defaults of ``schema``; keys in its order, unknown ones last."""
    if isinstance(value, dict):
        schema = chosen(value, schema)
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        result = {}
        for key, entry in properties.items():
            if key in value or "default" in entry:
                result[key] = filled(value[key] if key in value else copy.deepcopy(entry["default"]), entry)
        for key, entry in value.items():
            if key not in properties:
                result[key] = filled(entry, others) if isinstance(others, dict) else entry
        return result
    if isinstance(value, list):
        return [filled(entry, schema.get("items", {})) for entry in value]
    types = schema.get("type", [])
    number = "number" in ([types] if isinstance(types, str) else types)
    return float(value) if number and isinstance(value, int) and not isinstance(value, bool) else value


def entries(section: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the items of a section whose values are mappings; the schema has reported the others."""
    items = section.items() if isinstance(section, dict) else ()
    return [(name, value) for name, value in items if isinstance(value, dict)]
