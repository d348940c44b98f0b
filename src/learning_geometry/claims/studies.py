"""Every study that has claims, and which experiments of a config its claims need; imports no table library."""

from collections.abc import Callable, Mapping
from typing import Any

from learning_geometry.claims.activation_geometry import STUDY as ACTIVATION_GEOMETRY
from learning_geometry.claims.attention_subspaces import STUDY as ATTENTION_SUBSPACES
from learning_geometry.claims.claim import Role, Study
from learning_geometry.claims.execution_manifolds import STUDY as EXECUTION_MANIFOLDS
from learning_geometry.claims.orthogonal_subspaces import STUDY as ORTHOGONAL_SUBSPACES
from learning_geometry.claims.said import parameters_of, said
from learning_geometry.claims.text_models import STUDY as TEXT_MODELS
from learning_geometry.discovery import module_files

STUDIES: tuple[Study, ...] = (
    ORTHOGONAL_SUBSPACES,
    EXECUTION_MANIFOLDS,
    ATTENTION_SUBSPACES,
    ACTIVATION_GEOMETRY,
    TEXT_MODELS,
)

Experiments = Mapping[str, Mapping[str, Any]]
"""Name -> settings of an experiment, as the config holds them after its check."""


def setting(experiment: Mapping[str, Any], key: str) -> Any:
    """Return the setting of a dotted key, None where a section or key is missing.

    >>> setting({"model": {"layers": 2}}, "model.layers")
    2
    """
    value: Any = experiment
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def plays(experiment: Mapping[str, Any], role: Role) -> bool:
    """Whether the settings of an experiment meet all conditions of a role.

    Raises:
        ValueError: a condition has an unknown form.
    """
    return all(_meets(setting(experiment, key), wanted) for key, wanted in role.conditions.items())


CONDITIONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "at_most": lambda value, wanted: value is not None and value <= wanted,
    "at_least": lambda value, wanted: value is not None and value >= wanted,
    "one_of": lambda value, wanted: value in wanted,
    "longer_than": lambda value, wanted: isinstance(value, list) and len(value) > wanted,
    "given": lambda value, wanted: (value is not None) == wanted,
    "filled": lambda value, wanted: bool(value) == wanted,  # a section that is there, and not empty
}
"""What a condition may ask of a setting, beside being equal to a value."""


def _meets(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Mapping):
        return bool(value == wanted)
    if len(wanted) != 1 or not set(wanted) <= set(CONDITIONS):
        raise ValueError(f"role: the condition {dict(wanted)} is unknown; write a value or one of {list(CONDITIONS)}")
    ((name, argument),) = wanted.items()
    return CONDITIONS[name](value, argument)


def players(study: Study, role: str, experiments: Experiments) -> list[str]:
    """Return the experiments of the study that play a role, in the order of the config.

    Raises:
        ValueError: the study has no such role.
    """
    if role not in study.roles:
        raise ValueError(f"{study.name}: a claim names the role {role!r}, and its roles are {', '.join(study.roles)}")
    return [
        name
        for name, experiment in experiments.items()
        if experiment["study"] == study.name and plays(experiment, study.roles[role])
    ]


def judged_studies(experiments: Experiments, studies: tuple[Study, ...] = STUDIES) -> list[Study]:
    """Return the studies that have claims and at least one experiment in the config."""
    present = {experiment["study"] for experiment in experiments.values()}
    return [study for study in studies if study.name in present]


def needed_experiments(experiments: Experiments, studies: tuple[Study, ...] = STUDIES) -> list[str]:
    """Return the experiments whose tables some claim reads, in the order of the config."""
    needed = {
        name
        for study in judged_studies(experiments, studies)
        for claim in study.claims
        for role in (claim.role, claim.reference)
        if role
        for name in players(study, role, experiments)
    }
    return [name for name in experiments if name in needed]


def used_rules(experiments: Experiments, studies: tuple[Study, ...] = STUDIES) -> list[str]:
    """Return the rules by which claims are judged, sorted.

    Raises:
        ValueError: a claim names a rule that there is not, or says to one what it does not know.
    """
    known = {path.stem: parameters_of(path.stem) for path in module_files("rules")}
    used = set()
    for study in judged_studies(experiments, studies):
        for claim in study.claims:
            for comparison in claim.comparisons:
                if comparison.rule not in known:
                    raise ValueError(
                        f"{claim.name}: no rule {comparison.rule!r}; rules: {', '.join(known)} "
                        "(a new one is a file claims/rules/<name>.py)"
                    )
                said(claim, comparison, known[comparison.rule])
                used.add(comparison.rule)
    return sorted(used)
