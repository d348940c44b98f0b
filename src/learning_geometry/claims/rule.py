"""What a rule of the ledger is, and how one is found: a file ``claims/rules/<name>.py``, and nothing else to edit."""

from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, NamedTuple, get_args

from learning_geometry.claims.claim import Claim, Comparison
from learning_geometry.claims.evidence import Evidence
from learning_geometry.claims.statistics import Judgement
from learning_geometry.discovery import load_module, module_file

Estimate = Literal["mean", "share", "time"]
"""What a rule estimates: a "mean" over units; what may be a "share" of them, also where every unit was observed; or a
mean "time", beside which the ledger always says in how many units it was observed."""


class Rule(NamedTuple):
    """One rule: it reduces every run to one number, and compares these with a null.

    Attributes:
        name: of its file.
        parameters: the file's ``Parameters``, a frozen dataclass.
        judge: the file's ``judge``.
        describe: the file's ``describe``: what a comparison computes and demands, in words, from its data alone.
        estimate: the file's ``ESTIMATE``.
    """

    name: str
    parameters: type
    judge: Callable[[Evidence, Any], Judgement]
    describe: Callable[[Claim, Any], str]
    estimate: Estimate


PARTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "Parameters": (
        lambda part: isinstance(part, type) and is_dataclass(part),
        "a class under @dataclass(frozen=True, kw_only=True), with what a comparison can say",
    ),
    "judge": (callable, "a function judge(evidence: Evidence, parameters: Parameters) -> Judgement"),
    "describe": (callable, "a function describe(claim: Claim, parameters: Parameters) -> str"),
    "ESTIMATE": (lambda part: part in get_args(Estimate), f"one of {', '.join(map(repr, get_args(Estimate)))}"),
}
"""What the file of a rule holds: name -> whether something is one, and what to write."""


def find_rule(name: str) -> Rule:
    """Return the rule of a file.

    Raises:
        KeyError: there is no such file.
        ValueError: it lacks a part of a rule, naming the file and what to add.
    """
    module = load_module("rules", name)
    wrong = [f"{part}, {wanted}" for part, (fits, wanted) in PARTS.items() if not fits(getattr(module, part, None))]
    if wrong:
        raise ValueError(f"{module_file('rules', name)}: not a rule yet; add {'; and '.join(wrong)}")
    return Rule(name, module.Parameters, module.judge, module.describe, module.ESTIMATE)


def rule_of(claim: Claim, comparison: Comparison) -> tuple[Rule, Any]:
    """Return the rule of a comparison, and its ``Parameters`` as the comparison fills them.

    A rule that reads a null of the tables has a parameter ``baseline`` without a default: it is the name of the
    comparison's null, unless the comparison says otherwise (two of its rows may read nulls of one name).

    Raises:
        KeyError: there is no such rule.
        ValueError: the rule's file lacks something; or the comparison says what the rule does not know, or does not
            say what it needs, naming the claim.
    """
    rule = find_rule(comparison.rule)
    known = {field.name: field for field in fields(rule.parameters)}
    needed = {name for name, field in known.items() if field.default is MISSING and field.default_factory is MISSING}
    said = ({"baseline": comparison.null} if "baseline" in needed else {}) | dict(comparison.parameters)
    problems = [f"does not know {name!r}" for name in said if name not in known]
    problems += [f"needs {name!r}" for name in known if name in needed - set(said)]
    if problems:
        raise ValueError(
            f"{claim.name}: the rule {rule.name} {' and '.join(problems)} (in the comparison with "
            f"{comparison.null}); its parameters: {', '.join(known)}"
        )
    return rule, rule.parameters(**said)
