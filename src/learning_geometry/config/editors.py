"""One JSON Schema of everything that a config file can hold, for editors: config/schema.json.

The check of a config goes further: it knows what keys mean together, and its messages say what to do. A file with
``extends`` may leave out what the file below has, and remove entries with null; any other must be complete.
"""

import copy
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from learning_geometry.config.modules import available, settings_schema, subject
from learning_geometry.config.overlay import EXTENDS, is_removable
from learning_geometry.config.problems import KeyPath
from learning_geometry.config.reading import read_yaml
from learning_geometry.config.schemas import SCHEMA
from learning_geometry.config.sweeps import leaf_schemas

Schema = dict[str, Any]


def editor_schema(schema: Path | str = SCHEMA) -> Schema:
    """Return the JSON Schema (draft 7, which editors know) of config files, with the settings of every module.

    Args:
        schema: JSON Schema of the fixed keys.
    """
    whole = _with_modules(read_yaml(schema))
    complete = _required(whole, ())
    _relaxed(whole, ())
    extends = {"type": "string", "minLength": 1, "description": "Config file below this one, from this file's folder."}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Config of learning-geometry",
        "type": "object",
        "additionalProperties": False,
        "properties": {EXTENDS: extends, **whole["properties"]},
        "if": {"required": [EXTENDS]},
        "else": complete,
    }


def editor_text(schema: Path | str = SCHEMA) -> str:
    """Return the text of config/schema.json."""
    return json.dumps(editor_schema(schema), indent=1, ensure_ascii=False) + "\n"


def _with_modules(fixed: Schema) -> Schema:
    """Return the fixed schema with the settings of tasks, models, measurements and figures in it."""
    whole = copy.deepcopy(fixed)
    experiment = whole["properties"]["experiments"]["additionalProperties"]["properties"]
    for section in ("task", "model"):
        experiment[section] = _named(f"{section}s", experiment[section])
    experiment["sweep"] = _sweep(fixed, experiment["sweep"])
    language_model = whole["properties"]["language_models"]["additionalProperties"]["properties"]
    for properties, of_runs in ((experiment, True), (language_model, False)):
        names = [name for name in available("measurements") if (subject(name) == "runs") == of_runs]
        properties["measurements"] = _by_name("measurements", properties["measurements"], names)
    whole["properties"]["figures"] = _by_name("figures", whole["properties"]["figures"], available("figures"))
    return whole


def _by_name(kind: str, section: Schema, names: Iterable[str]) -> Schema:
    """Return the schema of a section whose keys are names of modules."""
    schemas, summaries = {}, available(kind)
    for name in names:
        entry = copy.deepcopy(section["additionalProperties"])
        entry["properties"] = entry.get("properties", {}) | copy.deepcopy(settings_schema(kind, name)["properties"])
        schemas[name] = entry | {"additionalProperties": False, "description": summaries[name]}
    return section | {"additionalProperties": False, "properties": schemas}


def _named(kind: str, section: Schema) -> Schema:
    """Return the schema of a section whose keys depend on the module that its ``name`` names."""
    settings = {name: copy.deepcopy(settings_schema(kind, name)["properties"]) for name in available(kind)}
    name = section["properties"]["name"]
    cases = [
        {
            "if": {"required": ["name"], "properties": {"name": {"const": each}}},
            "then": {"additionalProperties": False, "properties": {"name": True, **properties}},
        }
        for each, properties in settings.items()
    ]
    # the name may stand in the file below
    unnamed = {"additionalProperties": False, "properties": _together(settings.values())}
    cases.append({"if": {"not": {"required": ["name"]}}, "then": unnamed})
    return section | {"properties": {"name": name | {"enum": list(settings)}}, "allOf": cases}


def _sweep(fixed: Schema, section: Schema) -> Schema:
    """Return the schema of a sweep: every dotted key, with a list of its values."""
    sections = fixed["properties"]["experiments"]["additionalProperties"]["properties"]
    schemas = functools.cache(settings_schema)
    leaves = _together(
        leaf_schemas({"task": {"name": task}, "model": {"name": model}}, sections, schemas)
        for task in available("tasks")
        for model in available("models")
    )
    lists = {
        key: section["additionalProperties"] | {"items": leaf, "description": leaf.get("description", "")}
        for key, leaf in leaves.items()
    }
    return section | {"additionalProperties": False, "properties": lists}


def _together(several: Iterable[Mapping[str, Schema]]) -> dict[str, Schema]:
    """Return the schemas by key; of a key that several describe, either."""
    alternatives: dict[str, list[Schema]] = {}
    for properties in several:
        for key, schema in properties.items():
            if schema not in alternatives.setdefault(key, []):
                alternatives[key].append(copy.deepcopy(schema))
    return {key: schemas[0] if len(schemas) == 1 else {"anyOf": schemas} for key, schemas in alternatives.items()}


def _below(node: Schema, path: KeyPath) -> list[tuple[str, Schema, KeyPath]]:
    """Return the schemas of the values of a mapping: its key or "" for any, the schema, and the path."""
    named = [(key, entry, (*path, key)) for key, entry in node.get("properties", {}).items() if isinstance(entry, dict)]
    others = node.get("additionalProperties")
    return named + ([("", others, (*path, "*"))] if isinstance(others, dict) else [])


def _required(node: Schema, path: KeyPath) -> Schema:
    """Return what a complete file must have, and that nothing in it is removed."""
    requirement: Schema = {"required": node["required"]} if node.get("required") else {}
    if is_removable(path):
        requirement["type"] = node["type"]
    for key, entry, where in _below(node, path):
        inside = _required(entry, where)
        if inside and key:
            requirement.setdefault("properties", {})[key] = inside
        elif inside:
            requirement["additionalProperties"] = inside
    return requirement


def _relaxed(node: Schema, path: KeyPath) -> None:
    """Let, in place, keys be left out and entries be removed."""
    node.pop("required", None)
    for kind in ("then", "else"):
        node.get(kind, {}).pop("required", None)
    if is_removable(path):
        node["type"] = [node["type"], "null"]
    for _, entry, where in _below(node, path):
        _relaxed(entry, where)
