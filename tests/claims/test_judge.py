import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as options
from hypothesis import strategies as st

from learning_geometry.claims.claim import Comparison, Role, Series, Study
from learning_geometry.claims.judge import COLUMNS, judge
from learning_geometry.claims.studies import needed_experiments
from learning_geometry.failures import row
from learning_geometry.tables.tidy import tidy

from .conftest import ABOVE_CHANCE, ABOVE_OTHER, END, RISE, STEPS, claim, curve, event, settings, study, tables

DURATION = {"first": 0.9, "second": 0.2}


def verdicts(ledger):
    """Verdict by claim; every row of a claim must carry the same."""
    by_claim = ledger.table.groupby(["claim", "experiment"], sort=False)["verdict"].unique()
    assert (by_claim.map(len) == 1).all()
    return {name: verdict for (name, _), (verdict,) in by_claim.items()}


def verdict_of(made, *comparisons, experiments=None, **fields):
    experiments = experiments or {"runs": settings()}
    ledger = judge(experiments, made, (study(claim(*comparisons, **fields)),))
    (verdict,) = set(ledger.table["verdict"])
    return verdict, ledger


@pytest.mark.parametrize(
    "planted,expected",
    [
        ({"rise": 1.0}, "supported"),
        ({"rise": -1.0}, "not supported"),
        ({"rise": 0.0}, "inconclusive"),
        ({"rise": 1.0, "n": 3}, "inconclusive"),
        ({"rise": 1.0, "n": 4, "spread": 1e-6}, "inconclusive"),
        ({"rise": 1.0, "n": 1}, "inconclusive"),
        ({"rise": -1.0, "n": 1}, "inconclusive"),
        ({"rise": -1.0, "n": 3}, "not supported"),
        ({"rise": 0.005, "spread": 0.0005}, "inconclusive"),  # below the floor of .01
        ({"rise": -0.005, "spread": 0.0005}, "inconclusive"),
        ({"rise": 1.0, "n": 12}, "supported"),
        ({"rise": -1.0, "n": 12}, "not supported"),
        ({"rise": 1.0, "transition": None}, "inconclusive"),
        ({"rise": 1.0, "transition": 3500}, "inconclusive"),  # the window after it is not observed
    ],
)
def test_planted_changes(rising, planted, expected):
    verdict, ledger = verdict_of(rising(**planted), RISE)
    assert verdict == expected
    assert (ledger.notes["why"] == "").all() == (expected != "inconclusive")


@pytest.mark.parametrize(
    "planted,expected",
    [
        ({}, "supported"),
        ({"other": (-2.0, 2.0)}, "not supported"),  # one null of two is not exceeded
        ({"other": (0.0, 1.0)}, "inconclusive"),  # one null of two leaves it open
        ({"rise": 0.0}, "not supported"),
        ({"n": 3}, "inconclusive"),
    ],
)
def test_above_every_null_needs_all_rows(rising, planted, expected):
    verdict, ledger = verdict_of(rising(**planted), ABOVE_CHANCE, ABOVE_OTHER)
    assert verdict == expected
    assert list(ledger.table["null"]) == ["chance", "other"]


def test_a_floor_that_is_not_known_keeps_a_claim_open(rising):
    # no row has an interval of its own
    verdict, ledger = verdict_of(rising(), ABOVE_CHANCE, floor="estimator_error")
    assert verdict == "inconclusive" and ledger.notes["why"].item() == "chance: its numerical floor is not known"
    assert verdict_of(rising(), ABOVE_CHANCE, floor=0.01)[0] == "supported"


@pytest.mark.parametrize(
    ("last", "verdict", "why"),
    [(1500, "supported", ""), (2010, "inconclusive", "first_half: not in every unit")],
)
def test_one_run_that_does_not_show_it_keeps_open_what_every_run_must(last, verdict, why):
    made = tables(
        *(
            [event(1000, "first_step_below_0.9"), event(second, "first_step_below_0.2"), curve("score", 0.0)]
            for second in (1400, 1450, 1500, 1550, last)
        )
    )
    series = {name: Series(f"first_step_below_{t}", data="out_of_distribution") for name, t in DURATION.items()}
    comparison = Comparison("first_half", "duration", series | {"grid": Series("score")})
    found, ledger = verdict_of(made, comparison)
    assert (found, ledger.notes["why"].item()) == (verdict, why)


def test_the_rows_tell_which_null_failed(rising):
    _, ledger = verdict_of(rising(other=(-2.0, 2.0)), ABOVE_CHANCE, ABOVE_OTHER)
    assert list(ledger.notes["outcome"]) == ["holds", "fails"]


def censored(crossed, of, rise=1.0):
    return tables(*([event(2000 if i < crossed else None), curve("score", rise * (STEPS > 2000))] for i in range(of)))


@pytest.mark.parametrize(
    "crossed,of,rise,expected",
    [
        (4, 5, 1.0, "inconclusive"),
        (9, 10, 1.0, "supported"),
        (9, 10, -1.0, "not supported"),
        (5, 10, 1.0, "inconclusive"),
    ],
)
def test_censored_runs_are_counted_not_averaged(crossed, of, rise, expected):
    verdict, ledger = verdict_of(censored(crossed, of, rise), RISE)
    assert verdict == expected
    row, note = ledger.table.iloc[0], ledger.notes.iloc[0]
    assert row["n"] == crossed and note["observed"] == f"{crossed} of {of}"
    assert row["estimate"] == (rise > 0)  # a share: every run that crossed has the same rise
    assert "share" in row["rule"]


def test_crossed_share_of_pools():
    never = Comparison(
        "half", "crossed", {"event": Series("first_step_below_0.5", data="out_of_distribution"), "side": "below"}
    )
    for crossed, of, expected in [(0, 10, "supported"), (10, 10, "not supported"), (0, 5, "inconclusive")]:
        verdict, ledger = verdict_of(censored(crossed, of), never)
        assert verdict == expected
        assert ledger.table["estimate"].item() == crossed / of


def test_short_training_cannot_speak(rising):
    verdict, ledger = verdict_of(rising(), RISE, steps_to_support=20_000)
    assert verdict == "inconclusive" and "4000 steps, too few" in ledger.notes["why"].item()
    assert verdict_of(rising(rise=-1.0), RISE, steps_to_support=20_000)[0] == "not supported"
    assert verdict_of(rising(rise=-1.0), RISE, steps_to_reject=20_000)[0] == "inconclusive"
    assert verdict_of(rising(), RISE, steps_to_reject=20_000)[0] == "supported"


def test_holm_runs_over_the_claims_of_a_study(rising):
    # alone p = .03 is enough; beside eleven claims of no effect it is not, and beside eleven of a large one it is
    values = np.array([1.0, 1.0, 1.0, 1.0, 1.0]) + 0.75 * np.array([-1.2, 0.9, 1.2, -0.4, -0.5])
    weak = [[event(2000), curve("weak", value * (STEPS > 2000))] for value in values]
    generator = np.random.default_rng(1)
    for i in range(11):
        for seed, rows in enumerate(weak):
            rows.append(curve(f"nothing_{i}", 0.01 * generator.standard_normal() * (STEPS > 2000)))
            rows.append(curve(f"large_{i}", (100 + seed) * (STEPS > 2000)))

    def claims(kind):
        return [claim(RISE, name=f"{kind}_{i}", quantity=Series(f"{kind}_{i}"), floor=0.0) for i in range(11)]

    first = claim(RISE, name="weak", quantity=Series("weak"), floor=0.0)

    def result(*others):
        return verdicts(judge({"runs": settings()}, tables(*weak), (study(first, *others),)))["weak"]

    assert result() == "supported"
    assert result(*claims("nothing")) == "inconclusive"
    assert result(*claims("large")) == "supported"
    why = judge({"runs": settings()}, tables(*weak), (study(first, *claims("nothing")),)).notes["why"][0]
    assert "Holm" in why


def test_one_model_never_supports_a_claim_across_models(rising):
    assert verdict_of(rising(n=10), ABOVE_CHANCE, unit="model")[0] == "inconclusive"
    names = [f"model_{i}" for i in range(5)]
    several = [
        table.assign(experiment=pd.Series([name] * len(table), dtype="str"))
        for i, name in enumerate(names)
        for table in rising(n=2, seed=i)
    ]
    verdict, ledger = verdict_of(several, ABOVE_CHANCE, unit="model", experiments=dict.fromkeys(names, settings()))
    assert verdict == "supported"
    assert (ledger.table["n"].item(), ledger.table["unit"].item()) == (5, "model")
    assert ledger.table["experiment"].item() == ", ".join(names)


def test_each_experiment_of_a_role_is_judged_by_itself(rising):
    other = [table.assign(experiment=pd.Series(["other"] * len(table), dtype="str")) for table in rising(rise=-1.0)]
    experiments = {"runs": settings(), "other": settings(), "absent": settings(study="another")}
    ledger = judge(experiments, [*rising(), *other], (study(claim(RISE)),))
    assert dict(zip(ledger.table["experiment"], ledger.table["verdict"], strict=True)) == {
        "runs": "supported",
        "other": "not supported",
    }


def test_what_the_config_lacks_is_inconclusive_with_no_unit(rising):
    planted = study(claim(RISE, ABOVE_CHANCE), conditions={"model.layers": 1})
    ledger = judge({"runs": settings(model={"layers": 2})}, rising(), (planted,))
    assert len(ledger.table) == 2
    assert set(ledger.table["n"]) == {0} and set(ledger.table["verdict"]) == {"inconclusive"}
    assert "no experiment" in ledger.notes["why"][0]
    verdict, ledger = verdict_of(rising(), RISE, quantity=Series("unheard"))
    assert verdict == "inconclusive" and ledger.table["n"].item() == 0
    assert "not measured: unheard" in ledger.notes["why"].item()
    assert judge({"runs": settings(study="none")}, rising(), (planted,)).table.empty


def test_one_missing_null_keeps_a_claim_open(rising):
    absent = Comparison("absent", "level", {"window": END, "side": "above"})
    assert verdict_of(rising(), ABOVE_CHANCE, absent)[0] == "inconclusive"
    assert verdict_of(rising(rise=0.0), ABOVE_CHANCE, absent)[0] == "not supported"


def test_the_scale_is_computed_from_the_settings(rising):
    _, ledger = verdict_of(rising(), RISE)
    assert ledger.table["scale"].item() == "training.steps 4000 (published 20000)"
    published = {"runs": settings(training={"steps": 20_000})}
    assert verdict_of(rising(), RISE, experiments=published)[1].table["scale"].item() == "as published"


def test_the_order_of_tables_changes_nothing(rising):
    made = rising(n=10)
    first, second = (verdict_of(each, RISE, ABOVE_CHANCE)[1] for each in (made, made[::-1]))
    pd.testing.assert_frame_equal(first.table, second.table, check_exact=True)
    assert list(first.table.columns) == list(COLUMNS)


@options(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 4),
    rise=st.floats(-100, 100),
    spread=st.floats(0, 1),
    transition=st.sampled_from([None, 1000, 2000]),
    floor=st.sampled_from([0.0, 0.1]),
)
def test_fewer_than_five_seeds_never_support(rising, n, rise, spread, transition, floor):
    made = rising(n=n, rise=rise, spread=spread, transition=transition)
    for comparison in (RISE, ABOVE_CHANCE):
        assert verdict_of(made, comparison, floor=floor)[0] != "supported"


def test_a_claim_with_a_reference_is_judged_against_the_experiments_of_that_role():
    roles = {"any": Role({"task.kind": "ours"}, {}), "others": Role({"task.kind": {"one_of": ["a", "b"]}}, {})}
    comparison = Comparison("others", "difference", {"window": END, "side": "above"})
    planted = Study("planted", "A planted study", roles, (claim(comparison, reference="others"),))
    experiments = {name: settings(task={"kind": kind}) for name, kind in (("runs", "ours"), ("one", "a"), ("two", "b"))}
    made = [
        table
        for name, height in (("runs", 2.0), ("one", 0.0), ("two", 1.0))
        for table in tables(*([curve("score", height + 0.01 * seed)] for seed in range(5)), experiment=name)
    ]
    assert needed_experiments(experiments, (planted,)) == ["runs", "one", "two"]
    ledger = judge(experiments, made, (planted,)).table
    assert ledger["estimate"].tolist() == [pytest.approx(1.5)] and ledger["verdict"].tolist() == ["supported"]
    assert ledger["experiment"].tolist() == ["runs"]
    assert "minus the mean of the same seed in others experiments" in ledger["rule"].item()
    alone = judge({"runs": experiments["runs"]}, made[:5], (planted,))
    assert alone.table["verdict"].tolist() == ["inconclusive"]
    assert "no experiment of the config plays the role others" in alone.notes["why"].item()


def test_what_failed_is_named_where_a_quantity_is_missing(rising):
    tables = rising()
    tables[0] = pd.concat([tables[0], tidy([row("sharpness", "ValueError: flat")], "runs", 0)], ignore_index=True)
    absent = claim(RISE, quantity=Series("absent"))
    ledger = judge({"runs": settings()}, tables, (study(absent),))
    assert set(ledger.table["verdict"]) == {"inconclusive"}
    assert "not measured: absent of model; sharpness failed: ValueError: flat" in ledger.notes["why"].iloc[0]


@pytest.mark.parametrize(("said", "expected"), [("none", "supported"), ("all", "inconclusive")])
def test_seeds_that_are_compared_are_no_more_than_they_are(said, expected):
    """Five values whose mean is 3.1 standard errors above 1 if each is of its own, and 1.2 if they are of pairs."""
    values = 1.0 + 0.13 + 0.1 * np.array([-1.2, -0.6, 0.0, 0.6, 1.2])
    rows = [[event(2000), curve("score", value, other_seeds=said)] for value in values]
    above = Comparison("one", "level", {"window": END, "side": "above", "threshold": 1.0})
    ledger = judge({"runs": settings()}, tables(*rows), (study(claim(above)),)).table
    assert ledger["verdict"].tolist() == [expected]
    assert ledger["rule"].str.endswith("; jackknife over pairs of seeds").tolist() == [said == "all"]
