"""From claims and tables to the ledger: one row per claim, experiment and null, the verdict computed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from learning_geometry.claims.claim import Claim, Study
from learning_geometry.claims.curves import Tables
from learning_geometry.claims.evidence import Evidence, Missing
from learning_geometry.claims.models import distinct_models
from learning_geometry.claims.names import named
from learning_geometry.claims.rule import rule_of
from learning_geometry.claims.statistics import (
    FEWEST_UNITS,
    LEVEL,
    Judgement,
    Outcome,
    holm_levels,
    nothing,
    outcome,
    p_values,
)
from learning_geometry.claims.studies import STUDIES, Experiments, judged_studies, players, setting, used_rules
from learning_geometry.finite import check_finite

COLUMNS: dict[str, str] = {
    "claim": "str",
    "study": "str",
    "statement": "str",
    "source": "str",
    "published": "str",
    "experiment": "str",
    "scale": "str",
    "unit": "str",
    "n": "int64",
    "estimate": "float64",
    "low": "float64",
    "high": "float64",
    "null": "str",
    "null_low": "float64",
    "null_high": "float64",
    "floor": "float64",
    "rule": "str",
    "verdict": "str",
}
"""Names, order and types of the columns of results/claims.csv.

A row is one comparison: claim, experiment and ``null``, the name of what the ``estimate`` is compared with,
tell rows apart. [``null_low``, ``null_high``] is what it has to be above, below or within (``rule`` says which).
``verdict`` is that of the claim in this experiment, the same in all of its rows.
"""

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"


class Ledger(NamedTuple):
    """The judged claims.

    Attributes:
        table: the columns ``COLUMNS``.
        notes: for each row of the table: "outcome", whether its own comparison "holds", "fails" or is "open";
            "observed", units it rests on of all; "why", what keeps the claim from a verdict, if anything.
    """

    table: pd.DataFrame
    notes: pd.DataFrame


class _Case(NamedTuple):
    """One claim on one experiment (or, across models, on several)."""

    claim: Claim
    experiments: tuple[str, ...]
    judgements: list[Judgement]
    steps: int
    models: int
    """How many models the experiments are."""


def judge(
    experiments: Experiments,
    tables: Iterable[pd.DataFrame],
    studies: tuple[Study, ...] = STUDIES,
    weights: Mapping[str, Sequence[str]] | None = None,
) -> Ledger:
    """Judge every claim of the studies that the experiments belong to.

    A claim is judged on each experiment whose settings play its role; with none, it has one row per comparison
    with n = 0 and is inconclusive, and so it is if a quantity was not measured. Within a study, Holm's
    correction runs over all (claim, experiment) that could be tested. A claim is supported if all its
    comparisons hold, not supported if one fails, and otherwise inconclusive; training too short to speak for or
    against it makes it inconclusive as well.

    Args:
        experiments: name -> settings: "study" and the sections that roles read.
        tables: tidy tables of these experiments, all seeds.
        studies: the claims.
        weights: name of a language model -> hashes of the weights that its tables were measured from; a claim across
            models counts those of one hash as one (``models.distinct_models``).

    Returns:
        The ledger; the same for any order of ``tables``.

    Raises:
        ValueError: a claim is malformed, naming it; the file of its rule lacks something, naming the file; a value of
            a table is not finite that must be, naming its row.
    """
    _check_rules(experiments, studies)
    collected = list(tables)
    for each in collected:
        check_finite(each)
    indexed = {str(name): Tables([rows]) for name, rows in _by_experiment(collected)}
    rows: list[dict[str, Any]] = []
    notes: list[dict[str, str]] = []
    for study in judged_studies(experiments, studies):
        cases = [case for claim in study.claims for case in _cases(study, claim, experiments, indexed, weights)]
        p = [np.array(p_values(case.judgements)) for case in cases]
        smallest = np.array([np.nanmin(each) if np.isfinite(each).any() else np.nan for each in p])
        for case, level in zip(cases, holm_levels(smallest), strict=True):
            these, those = _rows(study, case, experiments, float(level))
            rows += these
            notes += those
    table = pd.DataFrame({name: [row[name] for row in rows] for name in COLUMNS}).astype(COLUMNS)
    return Ledger(table, pd.DataFrame(notes, columns=["outcome", "observed", "why"]))


def _check_rules(experiments: Experiments, studies: tuple[Study, ...]) -> None:
    """Check that every comparison names a rule and says what it needs, before any is judged."""
    used_rules(experiments, studies)
    for study in judged_studies(experiments, studies):
        for claim in study.claims:
            for comparison in claim.comparisons:
                rule_of(claim, comparison)


def _by_experiment(tables: list[pd.DataFrame]) -> list[tuple[Any, pd.DataFrame]]:
    if not tables:
        return []
    return list(pd.concat(tables, ignore_index=True).groupby("experiment", sort=True))


def _cases(
    study: Study,
    claim: Claim,
    experiments: Experiments,
    tables: Mapping[str, Tables],
    weights: Mapping[str, Sequence[str]] | None,
) -> list[_Case]:
    playing = [name for name in players(study, claim.role, experiments) if name in tables]
    if not playing:
        reason = f"no experiment of the config plays the role {claim.role}"
        claim = named(claim, study, ())
        return [_Case(claim, (), [nothing(reason) for _ in claim.comparisons], 0, 0)]
    groups = [tuple(playing)] if claim.unit == "model" else [(name,) for name in playing]
    others = players(study, claim.reference, experiments) if claim.reference else []
    compared = _together([name for name in others if name in tables], tables)
    models = distinct_models(playing, experiments, weights)
    return [
        _case(named(claim, study, [experiments[name] for name in group]), group, tables, models, compared)
        for group in groups
    ]


def _together(names: Sequence[str], tables: Mapping[str, Tables]) -> Tables | None:
    """Return the tables of some experiments as one; None for none."""
    if not names:
        return None
    return tables[names[0]] if len(names) == 1 else Tables.merged([tables[name] for name in names])


def _case(
    claim: Claim,
    group: tuple[str, ...],
    tables: Mapping[str, Tables],
    models: Mapping[str, str],
    compared: Tables | None = None,
) -> _Case:
    together = _together(group, tables)
    assert together is not None
    reference = Evidence(claim, compared, tuple(compared.runs)) if compared is not None else None
    evidence = Evidence(claim, together, tuple(together.runs), reference, models)
    judgements = []
    for comparison in claim.comparisons:
        rule, parameters = rule_of(claim, comparison)
        if comparison.each:
            judgements.append(nothing(f"no {comparison.each.removeprefix('first ')} that all have under one name"))
            continue
        unit = comparison.unit or claim.unit
        counted = evidence if unit == claim.unit else replace(evidence, claim=replace(claim, unit=unit))
        try:
            judgement = rule.judge(counted, parameters)
            judgement = judgement._replace(compares_seeds=counted.compares_seeds(parameters))
            judgements.append(judgement if comparison.rejects else _for_it_alone(judgement, len(claim.comparisons)))
        except Missing as missing:
            # which measurement makes a quantity is not known here, so all that failed are named
            judgements.append(nothing("; ".join([str(missing), *together.failed])))
    return _Case(claim, group, judgements, min(together.last_step.values()), len({models[name] for name in group}))


def _for_it_alone(judgement: Judgement, rows: int) -> Judgement:
    """Return a judgement that can hold, but whose failing is no evidence against the claim."""
    failed = outcome(judgement, LEVEL, rows) == "fails"
    reason = "it does not hold, but too little effort would look the same" if failed else judgement.reason
    return judgement._replace(p_against=float("nan"), reason=reason)


def _rows(
    study: Study, case: _Case, experiments: Experiments, level: float
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    claim = case.claim
    outcomes = [outcome(judgement, level, len(case.judgements)) for judgement in case.judgements]
    verdict, why = _verdict(case, outcomes, level)
    rows, notes = [], []
    for comparison, judgement, each in zip(claim.comparisons, case.judgements, outcomes, strict=True):
        rule, parameters = rule_of(claim, comparison)
        words = f"{rule.name}: {rule.describe(claim, parameters)}"
        unit = comparison.unit or claim.unit
        if judgement.kind == "share" and rule.estimate != "share":
            words += "; not observed in every unit, so the share of the others that show it, above one half"
        if judgement.compares_seeds:
            words += "; jackknife over pairs of seeds"
        if not comparison.rejects:
            words += "; cannot speak against the claim"
        observed = f"{judgement.n} of {judgement.total}" if judgement.total else "0"
        scale = _scale(study, claim, case.experiments, experiments)
        if unit == "model" and case.models < len(case.experiments):
            scale = f"{len(case.experiments)} names of {case.models} model{'s' * (case.models > 1)}; {scale}"
        # beside a time, and wherever some were left out, how many the row rests on
        if judgement.total and (rule.estimate == "time" or judgement.n < judgement.total):
            scale = f"observed in {observed} {unit}s; {scale}"
        unchecked = [name for name in case.experiments if (experiments[name].get("source") or {}).get("unchecked")]
        if unchecked:
            scale = f"parameters of {', '.join(unchecked)} put in place by a map that was not checked; {scale}"
        if judgement.missing:
            scale = f"without {judgement.missing}; {scale}"
        rows.append(
            {
                "claim": claim.name,
                "study": study.name,
                "statement": claim.statement,
                "source": claim.source,
                "published": claim.published,
                "experiment": ", ".join(case.experiments),
                "scale": scale,
                "unit": unit,
                "null": comparison.null,
                "rule": words,
                "verdict": verdict,
            }
            | {name: getattr(judgement, name) for name in ("n", "estimate", "low", "high", "null_low", "null_high")}
            | {"floor": judgement.floor}
        )
        notes.append({"outcome": each, "observed": observed, "why": why})
    return rows, notes


def _verdict(case: _Case, outcomes: list[Outcome], level: float) -> tuple[str, str]:
    """Return the verdict of a claim and, where it is inconclusive, why."""
    claim = case.claim
    if "fails" in outcomes:
        if case.steps < claim.steps_to_reject:
            return INCONCLUSIVE, f"{case.steps} steps, too few to speak against it ({claim.steps_to_reject} needed)"
        return NOT_SUPPORTED, ""
    if set(outcomes) == {"holds"}:
        if case.steps < claim.steps_to_support:
            return INCONCLUSIVE, f"{case.steps} steps, too few to speak for it ({claim.steps_to_support} needed)"
        return SUPPORTED, ""
    open_ones = [
        f"{comparison.null}: {_open(judgement, level)}"
        for comparison, judgement, each in zip(claim.comparisons, case.judgements, outcomes, strict=True)
        if each == "open"
    ]
    if not case.experiments:
        return INCONCLUSIVE, case.judgements[0].reason
    return INCONCLUSIVE, "; ".join(open_ones)


def _open(judgement: Judgement, level: float) -> str:
    """Say what keeps a comparison open."""
    if judgement.reason:
        return judgement.reason
    few = f"fewer than {FEWEST_UNITS} units" if judgement.n < FEWEST_UNITS else ""
    if not np.isfinite([judgement.low, judgement.high]).all():
        return few or "no interval"
    if not np.isfinite(judgement.floor):
        return "its numerical floor is not known"
    if not judgement.each:
        return "not in every unit"
    if few:
        return few
    if judgement.kind == "mean" and _below_floor(judgement):
        return "the difference is below the numerical floor"
    if min(judgement.p_for, judgement.p_against) < 0.05:
        return f"not significant after Holm's correction (level {level:.2g})"
    if judgement.n < judgement.total:
        return f"observed in {judgement.n} of {judgement.total} only"
    return "the interval decides neither way"


def _below_floor(judgement: Judgement) -> bool:
    distance = min(abs(judgement.estimate - judgement.null_low), abs(judgement.estimate - judgement.null_high))
    return distance <= judgement.floor


def _scale(study: Study, claim: Claim, names: tuple[str, ...], experiments: Experiments) -> str:
    """Say where the settings differ from the published ones."""
    if not names:
        return f"not in this config (role {claim.role})"
    published = study.roles[claim.role].published
    differences = []
    for key, wanted in published.items():
        values = [setting(experiments[name], key) for name in names]
        if any(value != wanted for value in values):
            shown = "/".join(dict.fromkeys(_plain(value) for value in values))
            differences.append(f"{key} {shown} (published {_plain(wanted)})")
    return ", ".join(differences) or "as published"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
