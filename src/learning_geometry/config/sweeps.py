"""An experiment with a ``sweep`` stands for one experiment for each value, or each combination of values.

The check writes these members in its place. Each says in ``swept`` of which sweep it is and which values it has, so
that a checked config, such as that of an archive, can be checked again.
"""

import copy
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from learning_geometry.config.checks import RESERVED
from learning_geometry.config.modules import module_literal
from learning_geometry.config.problems import ConfigError, KeyPath, Problems
from learning_geometry.config.schemas import check, entries, filled
from learning_geometry.config.wording import did_you_mean, yaml_text

SECTIONS = ("task", "model", "optimizer", "training")
"""Sections of an experiment whose keys can be swept."""

MOST_MEMBERS = 200
"""Experiments of one sweep; more are a slip, or need a config of their own."""

Schemas = Callable[[str, str], dict[str, Any]]


def sweeps(config: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return name of a sweep -> its experiments, in order -> swept key -> value.

    Args:
        config: as ``config.validate`` returns it.
    """
    by_sweep: dict[str, dict[str, dict[str, Any]]] = {}
    for name, experiment in config["experiments"].items():
        swept = experiment.get("swept")
        if swept:
            by_sweep.setdefault(swept["name"], {})[name] = swept["values"]
    return by_sweep


def leaf_schemas(
    experiment: Mapping[str, Any], fixed: Mapping[str, Any], schemas: Schemas
) -> dict[str, dict[str, Any]]:
    """Return the schema of every key that can be swept, by its dotted name.

    Args:
        experiment: with the names of its task and model.
        fixed: schema of the sections of an experiment, by key.
        schemas: ``settings_schema``, of a kind and a name.
    """
    leaves: dict[str, dict[str, Any]] = {}

    def walk(properties: Mapping[str, Any], path: str) -> None:
        for key, schema in properties.items():
            if "properties" in schema:
                walk(schema["properties"], f"{path}.{key}")
            else:
                leaves[f"{path}.{key}"] = schema

    for section in SECTIONS:
        named = section in ("task", "model")
        walk((schemas(f"{section}s", experiment[section]["name"]) if named else fixed[section])["properties"], section)
    return leaves


def members(
    name: str, experiment: dict[str, Any], fixed: Mapping[str, Any], schemas: Schemas, problems: Problems
) -> dict[str, dict[str, Any]]:
    """Return what an experiment stands for: itself, or the experiments of its sweep by their names.

    Args:
        name: of the experiment.
        experiment: with all defaults filled in, and without problems.
        fixed: schema of the sections of an experiment, by key.
        schemas: ``settings_schema``, of a kind and a name.
        problems: to add to.
    """
    path: KeyPath = ("experiments", name)
    leaves = leaf_schemas(experiment, fixed, schemas)
    if experiment.get("swept"):
        _check_member(experiment, leaves, path, problems)
    wanted = experiment.get("sweep")
    if not wanted:
        return {name: experiment}
    if experiment.get("swept"):
        problems.setdefault((*path, "sweep"), "an experiment of a sweep cannot sweep again; remove it, or swept")
        return {}
    before = len(problems)
    for key, values in wanted.items():
        _check_values(key, values, leaves, (*path, "sweep", key), problems)
    number = 1
    for values in wanted.values():
        number *= len(values)
    if number > MOST_MEMBERS:
        problems.setdefault(
            (*path, "sweep"), f"it stands for {number} experiments, and {MOST_MEMBERS} are the most; leave out values"
        )
    if len(problems) > before:
        return {}
    chosen = {key: [filled(value, leaves[key]) for value in values] for key, values in wanted.items()}
    return _expanded(name, experiment, chosen, problems)


def _expanded(
    name: str, experiment: dict[str, Any], chosen: Mapping[str, Sequence[Any]], problems: Problems
) -> dict[str, dict[str, Any]]:
    path: KeyPath = ("experiments", name, "sweep")
    expanded: dict[str, dict[str, Any]] = {}
    words = _short(list(chosen))
    for values in itertools.product(*chosen.values()):
        here = dict(zip(chosen, values, strict=True))
        member = "_".join([name, *(f"{words[key]}_{in_name(value)}" for key, value in here.items())])
        if member in expanded:
            problems.setdefault(
                path, f"two of its experiments would have the name {member}; change one of their values"
            )
        if len(member) > 100:
            problems.setdefault(
                path,
                f"the name {member} of one of its experiments has {len(member)} characters, and 100 are the most; "
                f"shorten {name}",
            )
        each = copy.deepcopy(experiment)
        for key, value in here.items():
            *above, last = key.split(".")
            section = each
            for part in above:
                section = section[part]
            section[last] = copy.deepcopy(value)
        each["sweep"] = {}
        each["swept"] = {"name": name, "values": here}
        expanded[member] = each
    return expanded


def in_name(value: Any) -> str:
    """Return a value as part of an experiment's name: lower-case letters, digits and _.

    >>> [in_name(value) for value in (0.001, 1e-09, -2, 4.0, True, None, "Rotary+x", [0.9, 0.98])]
    ['0_001', '0_000000001', 'minus_2', '4', 'true', 'null', 'rotary_x', '0_9_0_98']
    """
    if isinstance(value, list):
        return "_".join(map(in_name, value)) or "none"
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = format(Decimal(repr(value)), "f")
        value = (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "minus_")
    text = yaml_text(value) if not isinstance(value, str) else value
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "empty"


def check_sweeps(config: Mapping[str, Any], problems: Problems) -> None:
    """Report sweeps that do not fit together: names that something else has, or members with other keys or twice.

    Args:
        config: with every sweep written out.
        problems: to add to.
    """
    for name, by_member in _by_sweep(config).items():
        first = next(iter(by_member))
        where: KeyPath = ("experiments", first, "swept")
        for section in ("experiments", "language_models"):
            if name in dict(entries(config.get(section))):
                problems.setdefault(
                    where, f"its sweep has the name of another entry, {section}.{name}; rename one of the two"
                )
        if name in RESERVED:
            problems.setdefault(
                where, f"the results folder has a folder {name} for {RESERVED[name]}; give the sweep another name"
            )
        seen: list[Any] = []
        for member, values in by_member.items():
            path: KeyPath = ("experiments", member, "swept", "values")
            if set(values) != set(by_member[first]):
                problems.setdefault(path, f"has other keys than {first} of the same sweep; give all the same")
            elif values in seen:
                problems.setdefault(path, f"another experiment of the sweep {name} has the same values; remove one")
            seen.append(values)


def shown_members(config: dict[str, Any]) -> None:
    """Write, in place, the experiments of a sweep where a figure names the sweep."""
    by_sweep = _by_sweep(config)
    for _, figure in entries(config.get("figures")):
        shown = figure.get("experiments")
        if isinstance(shown, list):
            lists = [list(by_sweep[name]) if isinstance(name, str) and name in by_sweep else [name] for name in shown]
            figure["experiments"] = [name for names in lists for name in names]


def check_swept_figure(name: str, figure: Mapping[str, Any], config: Mapping[str, Any], problems: Problems) -> None:
    """Report experiments of no sweep where a figure shows sweeps (its literal ``SWEPT``), and a wrong ``along``.

    Args:
        name: of the figure.
        figure: its section, with sweeps written out.
        config: with every sweep written out.
        problems: to add to.
    """
    try:
        if not module_literal("figures", name, "SWEPT"):
            return
    except (KeyError, ConfigError):
        return
    if any(problem[:1] == ("experiments",) for problem in problems) or not isinstance(figure.get("experiments"), list):
        return  # a sweep that could not be written out is said already
    of_sweeps = {member: values for by_member in _by_sweep(config).values() for member, values in by_member.items()}
    for i, shown in enumerate(figure["experiments"]):
        if shown not in of_sweeps:
            problems.setdefault(
                ("figures", name, "experiments", i),
                f"{yaml_text(shown)} is no sweep; give experiments.{shown} a sweep, or leave it out",
            )
        elif figure.get("along") is not None and figure["along"] not in of_sweeps[shown]:
            problems.setdefault(
                ("figures", name, "along"),
                f"{yaml_text(figure['along'])} is not swept by {shown}; use one of "
                f"{', '.join(of_sweeps[shown])}, or null",
            )


def _by_sweep(config: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what ``sweeps`` does, of a config that may have problems."""
    by_sweep: dict[str, dict[str, dict[str, Any]]] = {}
    for name, experiment in entries(config.get("experiments")):
        swept = experiment.get("swept")
        if isinstance(swept, dict) and isinstance(swept.get("name"), str) and isinstance(swept.get("values"), dict):
            by_sweep.setdefault(swept["name"], {})[name] = swept["values"]
    return by_sweep


def _check_values(
    key: str, values: Sequence[Any], leaves: Mapping[str, dict[str, Any]], path: KeyPath, problems: Problems
) -> None:
    if key not in leaves:
        below = [leaf for leaf in leaves if leaf.startswith(f"{key}.")]
        if below:
            problems.setdefault(path, f"is a section; sweep one of its keys: {', '.join(below)}")
        else:
            problems.setdefault(
                path,
                f"no key of this experiment can be swept under this name{did_you_mean(key, leaves)} "
                f"write a dotted key of {', '.join(SECTIONS)}, such as optimizer.learning_rate",
            )
        return
    for i, value in enumerate(values):
        check(value, leaves[key], (*path, i), problems)


def _check_member(experiment: Mapping[str, Any], leaves: Mapping[str, Any], path: KeyPath, problems: Problems) -> None:
    """Report values of a member that are not those it has."""
    for key, value in experiment["swept"]["values"].items():
        where: KeyPath = (*path, "swept", "values", key)
        if key not in leaves:
            problems.setdefault(where, "is no key of this experiment that can be swept; remove it")
            continue
        has: Any = experiment
        for part in key.split("."):
            has = has[part]
        if has != value or isinstance(has, bool) != isinstance(value, bool):
            problems.setdefault(
                where, f"is {yaml_text(value)}, and the experiment has {yaml_text(has)}; make them agree"
            )


def _short(keys: Sequence[str]) -> dict[str, str]:
    """Return for each dotted key its fewest last parts that no other key ends with.

    >>> _short(["optimizer.name", "optimizer.schedule.name", "model.layers"])
    {'optimizer.name': 'optimizer_name', 'optimizer.schedule.name': 'schedule_name', 'model.layers': 'layers'}
    """
    short = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-number:]) for number in range(1, len(parts) + 1)]
        others = [f".{other}" for other in keys if other != key]
        end = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)
        short[key] = end.replace(".", "_")
    return short
