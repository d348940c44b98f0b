"""What a rule of the ledger is, and how one is found: a file ``claims/rules/<name>.py``, and nothing else to edit."""

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Literal, NamedTuple, get_args

from learning_geometry.claims.claim import Claim, Comparison
from learning_geometry.claims.evidence import Evidence
from learning_geometry.claims.said import parameters_of, said
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

    Raises:
        KeyError: there is no such rule.
        ValueError: the rule's file lacks something; or the comparison does not say what it must, see ``said.said``.
    """
    rule = find_rule(comparison.rule)
    return rule, rule.parameters(**said(claim, comparison, parameters_of(comparison.rule)))
