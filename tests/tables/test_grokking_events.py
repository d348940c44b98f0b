"""Planted curves of error and defect with known events."""

import numpy as np
import pandas as pd
import pytest

from learning_geometry.tables.derived.grokking_events import derive as grokking_events
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import check_table, tidy

STEPS = np.arange(0, 2001, 50)
MEASURED = np.arange(0, 2001, 100)


def error(step, data="held_out_pairs", below=0.0, steps=STEPS):
    """An error of .99 that falls to ``below`` from ``step`` on; None: never."""
    values = np.where(steps >= (step if step is not None else 10**6), below, 0.99)
    return {"step": steps, "quantity": "running_error", "data": data, "value": values, "unit": "fraction"}


def defect(step, before=1.0, after=100.0, steps=MEASURED):
    values = np.where(steps >= (step if step is not None else 10**6), after, before)
    return {"step": steps, "quantity": "commutator_defect", "data": "training", "value": values}


def found(*rows, seeds=1):
    table = grokking_events(pd.concat([tidy(rows, "runs", seed) for seed in range(seeds)]))
    check_table(table)
    return table


def event(table, quantity, **columns):
    rows = table[table["quantity"] == quantity]
    for name, value in columns.items():
        rows = rows[rows[name] == value]
    (row,) = rows.to_dict("records")
    return row


def test_fit_and_grok_are_found_where_they_were_planted():
    table = found(error(1430), error(220, "training_pairs"), error(0, "training_pairs_of_another_task"))
    grok, fit = event(table, "grok_step"), event(table, "fit_step")
    assert (grok["value"], grok["low"], grok["high"], grok["censored"]) == (1450, 1400, 1450, False)
    assert (fit["value"], fit["low"], fit["high"], fit["censored"]) == (250, 200, 250, False)
    for row in (grok, fit):
        assert (row["step"], row["part"], row["index"], row["data"], row["unit"]) == (2000, "model", 0, "", "steps")
    assert set(table["quantity"]) == {"grok_step", "fit_step"}  # no defect, no rows of it


@pytest.mark.parametrize(("quantity", "threshold"), [("grok_step", 0.1), ("fit_step", 0.01)])
def test_errors_must_fall_below_their_threshold(quantity, threshold):
    def planted(below):
        return event(found(error(300, below=below), error(300, "training_pairs", below=below)), quantity)

    assert planted(threshold - 1e-6)["value"] == 300
    assert not planted(threshold - 1e-6)["censored"]
    never = planted(threshold)
    assert (never["value"], never["censored"]) == (2000, True)
    assert np.isnan([never["low"], never["high"]]).all()


def test_the_first_crossing_counts_even_if_the_error_rises_again():
    curve = error(600)
    curve["value"] = np.where((STEPS >= 600) & (STEPS < 800), 0.0, 0.99)
    assert event(found(curve), "grok_step")["value"] == 600


@pytest.mark.parametrize(("grok", "crossing", "lead"), [(1500, 400, 1100), (700, 900, -200)])
def test_the_lead_is_signed_and_carries_the_resolution_of_both(grok, crossing, lead):
    table = found(error(grok), defect(crossing))
    row = event(table, "defect_crossing_step")
    assert (row["value"], row["low"], row["high"], row["censored"]) == (crossing, crossing - 100, crossing, False)
    row = event(table, "grok_lead")
    assert (row["value"], row["low"], row["high"], row["censored"]) == (lead, lead - 50, lead + 100, False)
    assert row["unit"] == "steps"
    # brute force: whenever in their intervals the two happened, the lead lies in its own
    leads = [g - o for g in (grok - 49, grok) for o in (crossing - 99, crossing)]
    assert row["low"] <= min(leads) and max(leads) <= row["high"]
    alarm = event(table, "false_alarm")
    assert (alarm["value"], alarm["unit"], alarm["censored"]) == (0.0, "fraction", False)


@pytest.mark.parametrize(
    ("before", "after", "fires"),
    [(1.0, 20.0, False), (1.0, 20.1, True), (5.0, 50.0, False), (5.0, 50.1, True), (0.01, 19.0, False)],
)
def test_the_defect_must_exceed_ten_times_its_baseline_and_twenty(before, after, fires):
    row = event(found(error(1500), defect(800, before, after)), "defect_crossing_step")
    assert row["censored"] == (not fires)
    assert row["value"] == (800 if fires else 2000)


def test_the_baseline_is_the_median_of_the_first_three_and_the_third_may_be_the_crossing():
    def planted(*first):
        curve = defect(None)
        curve["value"][: len(first)] = first
        return event(found(error(1500), curve), "defect_crossing_step")

    assert planted(300.0, 1.0, 1.0)["censored"]  # the first two make the baseline, they cannot fire
    assert planted(1.0, 300.0, 1.0)["censored"]
    assert planted(1.0, 1.0, 300.0)["value"] == 200
    assert planted(1.0, 30.0, 30.0, 299.0)["censored"]
    assert planted(1.0, 30.0, 30.0, 301.0)["value"] == 300


def test_what_never_happens_is_censored():
    table = found(error(None), defect(500))
    assert event(table, "grok_lead")["censored"] and event(table, "grok_lead")["value"] == 1500  # a lower bound
    assert event(table, "false_alarm")["value"] == 1.0
    table = found(error(900), defect(None))
    assert event(table, "grok_lead")["censored"] and np.isnan(event(table, "grok_lead")["value"])
    assert event(table, "false_alarm")["value"] == 0.0
    table = found(error(None), defect(None))
    assert event(table, "grok_lead")["censored"] and event(table, "false_alarm")["value"] == 0.0
    assert np.isnan(table.loc[table["censored"], ["low", "high"]].to_numpy()).all()


def test_other_tasks_and_single_values_have_no_events():
    assert found(error(500, "out_of_distribution"), defect(500)).empty
    table = found(error(500), defect(200, steps=np.array([0, 1000])))
    assert set(table["quantity"]) == {"grok_step"}  # two values are no baseline
    nulls = [defect(500) | {"null": "gradients"}, defect(500) | {"part": "layers.0"}]
    assert set(found(error(500), *nulls)["quantity"]) == {"grok_step"}
    assert grokking_events(tidy([], "runs", 0)).empty


def test_seeds_are_told_apart_and_summarised_with_their_censoring():
    made = [(1500, 400), (1000, 500), (None, 600)]
    tables = [tidy([error(grok), defect(crossing)], "runs", seed) for seed, (grok, crossing) in enumerate(made)]
    two = summarize([grokking_events(pd.concat(tables[:2]))])
    assert event(two, "grok_lead")["estimate"] == 800
    three = summarize([grokking_events(pd.concat(tables))])
    assert (event(three, "grok_step")["censored"], event(three, "grok_step")["n"]) == (1, 3)
    assert np.isnan(event(three, "grok_lead")["estimate"])
    assert event(three, "false_alarm")["estimate"] == pytest.approx(1 / 3)
    assert event(three, "defect_crossing_step")["estimate"] == 500


def test_each_experiment_has_its_own_last_step():
    short = error(10, steps=np.array([0, 10, 20]))
    table = grokking_events(pd.concat([tidy([short], "short", 0), tidy([error(500)], "long", 0)]))
    assert dict(table[["experiment", "step"]].drop_duplicates().to_numpy().tolist()) == {"short": 20, "long": 2000}


@pytest.mark.parametrize(
    ("grok", "crossing", "warned"),
    [
        (1000, 500, True),
        (500, 1000, False),
        (1000, 1000, False),  # no earlier
        (None, 500, True),  # the run may grok later, or never: what makes it a false alarm
        (1000, None, False),  # its lead is censored, and its sign is known all the same
        (None, None, False),
    ],
)
def test_a_warning_is_a_defect_crossing_before_grokking(grok, crossing, warned):
    row = event(found(error(grok), defect(crossing)), "defect_crossing_before_grok")
    assert row["censored"] != warned
    assert row["value"] == (crossing if warned else 2000)
