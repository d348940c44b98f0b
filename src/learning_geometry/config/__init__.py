"""The one package that knows the config: reading, checking, defaults, and the text of config/README.md.

Three sources describe the keys. ``workflow/schemas/config.schema.yaml`` holds the fixed ones. The settings of
tasks, models and measurements are described by a literal ``SETTINGS`` (JSON Schema ``properties``, each key
with a description and a default) in ``tasks/<name>.py``, ``models/<name>.py`` and ``measurements/<subject>/<name>.py``,
so that adding one is adding its file. A figure names the measurements it reads in a literal ``REQUIRES`` in
``figures/<name>.py``, and in ``MOST`` how many experiments, texts and sets of prompts it can show. The literals are
read from the source text: parsing the Snakefile never imports torch. What a measurement needs of task and model is
its literal ``NEEDS``; what else a module must hold stands in ``interfaces.py``.

Outside the package, import from here; the command line is in ``__main__.py``.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from learning_geometry.config.checks import (
    check_experiment,
    check_figure,
    check_language_model,
    check_names,
    check_results,
)
from learning_geometry.config.interfaces import derived_problems, interface_problems
from learning_geometry.config.modules import (
    LITERALS,
    available,
    module_literal,
    settings_schema,
    subject,
    unknown_module,
)
from learning_geometry.config.needs import needed_seeds, needs, other_seeds, reads
from learning_geometry.config.needs_tables import needs_tables
from learning_geometry.config.problems import SHOWN_PROBLEMS, ConfigError, KeyPath, Problems, dotted
from learning_geometry.config.reading import AFTER_CONFIGFILE, read_yaml
from learning_geometry.config.schemas import SCHEMA, check, entries, filled, plain
from learning_geometry.config.texts import plan, readme

__all__ = [
    "AFTER_CONFIGFILE",
    "LITERALS",
    "SCHEMA",
    "SHOWN_PROBLEMS",
    "ConfigError",
    "available",
    "load",
    "module_literal",
    "needed_seeds",
    "needs",
    "needs_tables",
    "other_seeds",
    "plan",
    "read_yaml",
    "readme",
    "reads",
    "settings_schema",
    "subject",
    "validate",
]


def load(
    paths: Path | str | Sequence[Path | str],
    overrides: Mapping[str, Any] | None = None,
    schema: Path | str = SCHEMA,
) -> dict[str, Any]:
    """Read config files, merge them in order, apply ``overrides``, and validate.

    Mappings are merged key by key, anything else is replaced, as Snakemake does with several config files.

    Args:
        paths: one YAML file or several.
        overrides: keys merged last.
        schema: JSON Schema of the fixed keys.

    Raises:
        ConfigError: see :func:`read_yaml` and :func:`validate`.
    """
    config: dict[str, Any] = {}
    for path in [paths] if isinstance(paths, str | Path) else paths:
        config = _merged(config, read_yaml(path))
    return validate(_merged(config, overrides or {}), schema)


def _merged(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in update.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = _merged(old, value)
        result[key] = value
    return result


def validate(config: Mapping[str, Any], schema: Path | str = SCHEMA, files: bool = True) -> dict[str, Any]:
    """Return ``config`` with all defaults filled in, in the order of the schema.

    The argument is left as it is. Integers where the schema says ``number`` become floats; validating the
    result again returns the same. In a Snakefile: ``config.update(validate(config))``.

    Args:
        config: what the YAML file holds, as Snakemake or :func:`read_yaml` parse it.
        schema: JSON Schema of the fixed keys.
        files: whether the files that language models read must be there, and the memory and disk that training
            takes; not to redraw what was measured elsewhere.

    Raises:
        ConfigError: every problem found, each with its key path, what is given and what to do: unknown or
            missing keys, wrong types, values out of range, settings that contradict each other, figures
            without their measurements.
    """
    fixed = read_yaml(schema)
    problems: Problems = {}
    result = plain(config, (), problems, ())
    check(result, fixed, (), problems)
    if not isinstance(result, dict):
        raise ConfigError([f"config: {problem}" for problem in problems.values()])
    result = filled(result, fixed)
    schemas = functools.cache(settings_schema)
    check_results(result, problems)
    for name, experiment in entries(result.get("experiments")):
        path = ("experiments", name)
        _fill_settings(experiment, path, problems, schemas)
        if not any(problem[:2] == path for problem in problems):
            where = "." if ("results",) in problems else result["results"]
            check_experiment(experiment, path, problems, where, new=files)
    for name, language_model in entries(result.get("language_models")):
        path = ("language_models", name)
        _fill_settings(language_model, path, problems, schemas)
        if not any(problem[:2] == path for problem in problems):
            check_language_model(language_model, path, problems, files)
    check_names(result, problems)
    for name, problem in derived_problems().items():
        problems.setdefault(("derived", name), problem)
    for name, figure in entries(result.get("figures")):
        check_figure(name, figure, result, problems)
    if problems:
        raise ConfigError([f"{dotted(path)}: {problem}" for path, problem in problems.items()])
    return result


def _fill_settings(
    experiment: dict[str, Any],
    path: KeyPath,
    problems: Problems,
    schemas: Callable[[str, str], dict[str, Any]],
) -> None:
    """Check and fill, in place, the settings that the modules describe."""

    def fill(folder: str, name: str, section: dict[str, Any], where: KeyPath, named: KeyPath) -> dict[str, Any]:
        try:
            schema = schemas(folder, name)
        except KeyError:
            problems.setdefault(named, unknown_module(folder, name))
            return section
        except ConfigError as error:
            problems.setdefault(named, "; ".join(error.problems))
            return section
        if lacking := interface_problems(folder, name):
            problems.setdefault(named, "; ".join(lacking))
            return section
        settings = {key: value for key, value in section.items() if key != "name"}
        check(settings, schema, where, problems)
        head = {"name": name} if folder != "measurements" else {}
        return head | filled(settings, schema)

    for key in ("task", "model"):
        section = experiment.get(key)
        if isinstance(section, dict) and isinstance(section.get("name"), str):
            where = (*path, key)
            experiment[key] = fill(f"{key}s", section["name"], section, where, (*where, "name"))
    for name, section in entries(experiment.get("measurements")):
        where = (*path, "measurements", name)
        experiment["measurements"][name] = fill("measurements", name, section, where, where)
