"""The one package that knows the config: reading, checking, defaults, and the text of config/README.md.

Three sources describe the keys. ``workflow/schemas/config.schema.yaml`` holds the fixed ones. The settings of
tasks, models and measurements are described by a literal ``SETTINGS`` (JSON Schema ``properties``, each key
with a description and a default) in ``tasks/<name>.py``, ``models/<name>.py`` and ``measurements/<subject>/<name>.py``,
so that adding one is adding its file. A figure names the measurements it reads in a literal ``REQUIRES`` in
``figures/<name>.py``, in ``MOST`` how many experiments, texts and sets of prompts it can show, and in ``SETTINGS`` its
options, if it has any. The literals are read from the source text: parsing the Snakefile never imports torch. What a
measurement needs of task and model is its literal ``NEEDS``; what else a module must hold stands in ``interfaces.py``.

Outside the package, import from here; the command line is in ``__main__.py``.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from learning_geometry.config.checks import (
    check_experiment,
    check_figure,
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
from learning_geometry.config.overlay import read_config
from learning_geometry.config.problems import SHOWN_PROBLEMS, ConfigError, KeyPath, Problems, dotted
from learning_geometry.config.reading import AFTER_CONFIGFILE, read_yaml
from learning_geometry.config.schemas import SCHEMA, check, entries, filled, plain
from learning_geometry.config.series import series
from learning_geometry.config.series_members import (
    check_members,
    check_series,
    check_series_figure,
    shown_models,
)
from learning_geometry.config.series_members import members as models_of
from learning_geometry.config.sourced import check_sections, not_given
from learning_geometry.config.sweeps import check_sweeps, check_swept_figure, members, shown_members, sweeps
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
    "read_config",
    "read_yaml",
    "readme",
    "reads",
    "series",
    "settings_schema",
    "subject",
    "sweeps",
    "validate",
]


def load(
    paths: Path | str | Sequence[Path | str],
    overrides: Mapping[str, Any] | None = None,
    schema: Path | str = SCHEMA,
    files: bool = True,
) -> dict[str, Any]:
    """Read config files with all that they extend, lay them over each other in order, and validate.

    Args:
        paths: one YAML file or several; see ``overlay`` for how they are merged.
        overrides: keys merged last.
        schema: JSON Schema of the fixed keys.
        files: as of :func:`validate`.

    Raises:
        ConfigError: see :func:`read_config` and :func:`validate`.
    """
    return validate(read_config([paths] if isinstance(paths, str | Path) else paths, overrides), schema, files)


def validate(config: Mapping[str, Any], schema: Path | str = SCHEMA, files: bool = True) -> dict[str, Any]:
    """Return ``config`` with all defaults filled in, and sweeps and series written out, in the order of the schema.

    The argument is left as it is. Integers where the schema says ``number`` become floats; validating the
    result again returns the same.

    Args:
        config: as :func:`read_config` returns it.
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
    check_sections(result, fixed, problems)
    absent = not_given(result)
    result = filled(result, fixed)
    for name, section in absent:
        result["experiments"][name].pop(section, None)
    schemas = functools.cache(settings_schema)
    check_results(result, problems)
    _check_experiments(result, fixed, problems, schemas, files)
    _check_language_models(result, problems, schemas, files)
    check_names(result, problems)
    for name, problem in derived_problems().items():
        problems.setdefault(("derived", name), problem)
    check_sweeps(result, problems)
    check_series(result, problems)
    shown_members(result)
    shown_models(result)
    for name, figure in entries(result.get("figures")):
        _fill_options(name, figure, problems, schemas)
        check_figure(name, figure, result, problems)
        check_swept_figure(name, figure, result, problems)
        check_series_figure(name, figure, result, problems)
    if problems:
        raise ConfigError([f"{dotted(path)}: {problem}" for path, problem in problems.items()])
    return result


def _check_experiments(
    config: dict[str, Any],
    fixed: dict[str, Any],
    problems: Problems,
    schemas: Callable[[str, str], dict[str, Any]],
    files: bool,
) -> None:
    """Check, fill and, where one is a sweep, write out the experiments, in place."""
    given = config.get("experiments")
    if not isinstance(given, dict):
        return
    results = "." if ("results",) in problems else config["results"]
    sections = fixed["properties"]["experiments"]["additionalProperties"]["properties"]
    written: dict[str, Any] = {}
    for name, experiment in given.items():
        written_out: dict[str, Any] = {name: experiment}
        if isinstance(experiment, dict):
            _fill_settings(experiment, ("experiments", name), problems, schemas)
            if not _has_problem(("experiments", name), problems) and "source" not in experiment:
                written_out = members(name, experiment, sections, schemas, problems) or written_out
        for member, each in written_out.items():
            path = ("experiments", member)
            if member in written or (member != name and member in given):
                problems.setdefault(
                    ("experiments", name, "sweep"), f"{member} is the name of another experiment; rename one of the two"
                )
                continue
            written[member] = each
            if isinstance(each, dict) and not _has_problem(path, problems):
                check_experiment(each, path, problems, results, new=files)
    config["experiments"] = written


def _check_language_models(
    config: dict[str, Any], problems: Problems, schemas: Callable[[str, str], dict[str, Any]], files: bool
) -> None:
    """Check, fill and, where one is a series, write out the language models, in place."""
    given = config.get("language_models")
    if not isinstance(given, dict):
        return
    written: dict[str, Any] = {}
    for name, language_model in given.items():
        path = ("language_models", name)
        written_out: dict[str, Any] = {}
        if isinstance(language_model, dict):
            _fill_settings(language_model, path, problems, schemas)
            if not _has_problem(path, problems):
                written_out = models_of(name, language_model, given, problems, files)
                check_members(name, written_out, problems, files)
        written |= written_out or {name: language_model}
    config["language_models"] = written


def _has_problem(path: KeyPath, problems: Problems) -> bool:
    return any(problem[:2] == path for problem in problems)


def _fill_options(
    name: str, figure: dict[str, Any], problems: Problems, schemas: Callable[[str, str], dict[str, Any]]
) -> None:
    """Check and fill, in place, the options of a figure that its module describes."""
    try:
        options = schemas("figures", name)
    except KeyError:
        return  # there is no such figure, as check_figure says
    except ConfigError as error:
        problems.setdefault(("figures", name), "; ".join(error.problems))
        return
    with_experiments = options | {"properties": {"experiments": {}} | options["properties"]}
    check(figure, with_experiments, ("figures", name), problems)
    figure.update(filled(figure, with_experiments))


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
