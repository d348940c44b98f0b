"""A rule is one file: it is found by its name, and nothing else has to be edited."""

import shutil
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

import learning_geometry.claims.rules
from learning_geometry import discovery
from learning_geometry.claims.claim import Comparison
from learning_geometry.claims.judge import judge
from learning_geometry.claims.rule import find_rule, rule_of
from learning_geometry.claims.said import parameters_of
from learning_geometry.claims.studies import STUDIES, used_rules
from learning_geometry.config import load
from learning_geometry.discovery import module_files
from learning_geometry.fingerprint import code_files
from learning_geometry.planning.jobs import all_jobs

from .conftest import END, claim, curve, settings, study, tables

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"

LOWEST = '''"""The lowest value over training, against a number."""

from dataclasses import dataclass

import numpy as np

from learning_geometry.claims.claim import Claim, Series
from learning_geometry.claims.evidence import Evidence
from learning_geometry.claims.statistics import Judgement, Side, judge_mean
from learning_geometry.claims.words import series_words

ESTIMATE = "mean"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    side: Side
    limit: float = 0.0


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare the lowest value of each run with the limit."""
    curves = evidence.curves(evidence.claim.quantity)
    lowest = evidence.per_unit({run: float(np.min(curves[run].values)) for run in evidence.runs})
    return judge_mean(lowest, parameters.limit, parameters.limit, parameters.side, evidence.number_floor())


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    return f"lowest {series_words(claim.quantity)}, {parameters.side} {parameters.limit:g}"
'''


@pytest.fixture
def add_rule(tmp_path, monkeypatch):
    """Add a file to the folder of rules, in a copy of it; each of another name, as modules stay imported."""
    folder = tmp_path / "claims/rules"
    shutil.copytree(discovery.PACKAGE / "claims/rules", folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(discovery, "PACKAGE", tmp_path)
    package = learning_geometry.claims.rules
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])

    def add(name, source):
        (folder / f"{name}.py").write_text(source)
        return folder / f"{name}.py"

    return add


def test_a_claim_is_judged_by_a_rule_that_is_one_file(add_rule):
    add_rule("lowest", LOWEST)
    rows = [[curve("score", [3.0, 1.0 + noise, 2.0], steps=[0, 50, 100])] for noise in (-0.1, -0.05, 0.0, 0.05, 0.1)]
    stated = claim(
        Comparison("half", "lowest", {"side": "above", "limit": 0.5}), Comparison("zero", "lowest", {"side": "above"})
    )
    ledger = judge({"runs": settings()}, tables(*rows), (study(stated),)).table
    assert set(ledger["verdict"]) == {"supported"}
    assert ledger["rule"].tolist() == ["lowest: lowest score, above 0.5", "lowest: lowest score, above 0"]
    assert ledger["estimate"].tolist() == pytest.approx([1.0, 1.0])
    assert used_rules({"runs": settings()}, (study(stated),)) == ["lowest"]


@pytest.mark.parametrize(
    ("removed", "put", "wanted"),
    [
        ("def describe", "def described", r"add describe, a function describe\(claim: Claim, parameters: Parameters\)"),
        ("def judge(", "def judged(", r"add judge, a function judge\(evidence: Evidence, parameters: Parameters\)"),
        ("@dataclass(frozen=True, kw_only=True)\n", "", r"add Parameters, a class under @dataclass"),
        ('ESTIMATE = "mean"\n', "", "add ESTIMATE, one of 'mean', 'share', 'time'"),
        ('ESTIMATE = "mean"', 'ESTIMATE = "median"', "add ESTIMATE, one of 'mean', 'share', 'time'"),
    ],
)
def test_a_file_that_lacks_something_is_named_with_what_to_add(add_rule, request, removed, put, wanted):
    assert removed in LOWEST
    name = f"incomplete_{request.node.callspec.indices['removed']}"
    path = add_rule(name, LOWEST.replace(removed, put))
    stated = study(claim(Comparison("zero", name, {"side": "above"})))
    with pytest.raises(ValueError, match=f"{path}: not a rule yet; {wanted}"):
        judge({"runs": settings()}, tables([curve("score", 1.0)]), (stated,))


@pytest.mark.parametrize(
    ("comparison", "says"),
    [
        (
            Comparison("zero", "wishful"),
            r"claim: no rule 'wishful'; rules: apart, .*\(a new one is a file",
        ),
        (
            Comparison("zero", "level", {"window": END, "sides": "above"}),
            r"claim: the rule level does not know 'sides' and needs 'side' \(in the comparison with zero\); its param",
        ),
    ],
)
def test_what_a_claim_asks_of_a_rule_is_checked(comparison, says):
    with pytest.raises(ValueError, match=says):
        judge({"runs": settings()}, tables([curve("score", 1.0)]), (study(claim(comparison)),))
    with pytest.raises(ValueError, match=says):
        judge({"runs": settings()}, [], (study(claim(comparison)),))
    with pytest.raises(ValueError, match=says):  # as every job is planned
        used_rules({"runs": settings()}, (study(claim(comparison)),))


@pytest.mark.parametrize("name", [path.stem for path in module_files("rules")])
def test_parameters_are_read_from_the_source_as_the_class_has_them(name):
    has = {field.name: field.default is MISSING for field in fields(find_rule(name).parameters)}
    assert parameters_of(name) == has


def test_the_null_of_a_comparison_is_the_baseline_of_a_rule_that_reads_one():
    said = {"window": END, "side": "above"}
    assert rule_of(claim(), Comparison("chance", "level", said))[1].baseline == "chance"
    assert rule_of(claim(), Comparison("a", "level", said | {"baseline": "b"}))[1].baseline == "b"
    change = rule_of(claim(), Comparison("before", "change", {"start": END, "stop": END, "side": "above"}))[1]
    assert change.baseline is None


def test_every_rule_is_complete_and_used_and_describes_each_comparison_in_other_words():
    used = [(each, comparison) for study in STUDIES for each in study.claims for comparison in each.comparisons]
    names = [path.stem for path in module_files("rules")]
    assert [find_rule(name).name for name in names] == sorted({comparison.rule for _, comparison in used})
    texts = set()
    for each, comparison in used:
        rule, parameters = rule_of(each, comparison)
        texts.add((each.name, rule.describe(each, parameters)))
    assert len(texts) == len(used)


def test_the_code_of_the_rules_that_judge_is_part_of_the_judging_job():
    (job,) = [job for job in all_jobs(load(CONFIG)) if job.rule == "judge_claims"]
    names = [path.stem for path in module_files("rules")]
    assert job.modules == tuple(f"claims.rules.{name}" for name in names)
    followed = code_files(*(f"learning_geometry.{module}" for module in job.modules))
    assert {"learning_geometry.claims.words", "learning_geometry.geometry.uncertainty"} <= set(followed)
