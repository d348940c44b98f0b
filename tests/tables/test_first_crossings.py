"""Planted curves with known crossings; the events that summaries and figures read."""

import numpy as np
import pandas as pd
import pytest

from learning_geometry.tables.derived.first_crossings import FEWEST_STEPS
from learning_geometry.tables.derived.first_crossings import derive as first_crossings
from learning_geometry.tables.progress_measures import MEASURES
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import check_table, tidy

STEPS = np.arange(0, 4001, 100)
OUT = "out_of_distribution"
SCORE = {"quantity": "induction_score", "part": "layers.1", "data": OUT, "unit": "fraction"}
MISMATCH = {"quantity": "token_mismatch", "part": "layers.1"}


def curve(values, steps=STEPS, **columns):
    return {"step": steps, "value": np.broadcast_to(np.asarray(values, dtype=float), len(steps))} | columns


def transition(step, below="0.5", data=OUT):
    row = {"step": 4000, "quantity": f"first_step_below_{below}", "data": data, "unit": "steps"}
    return row | {"value": 4000.0 if step is None else float(step), "censored": step is None}


def found(*rows, seeds=1):
    table = first_crossings(pd.concat([tidy(rows, "runs", seed) for seed in range(seeds)]))
    check_table(table)
    return table


def event(table, quantity, null="", **columns):
    rows = table[(table["quantity"] == quantity) & (table["null"] == null)]
    for name, value in columns.items():
        rows = rows[rows[name] == value]
    (row,) = rows.to_dict("records")
    return row


@pytest.mark.parametrize("rises", [True, False])
@pytest.mark.parametrize("step", [300, 1950, 3900])
def test_a_step_is_found_where_it_was_planted(step, rises):
    values = 0.1 + 0.8 * (step <= STEPS)
    row = event(found(curve(values if rises else 1 - values, **MISMATCH)), "first_crossing_of_token_mismatch")
    first = STEPS[step <= STEPS][0]
    assert (row["value"], row["censored"], row["part"], row["unit"]) == (first, False, "layers.1", "steps")
    assert (row["low"], row["high"]) == (first - 100, first)
    assert row["step"] == 4000


def test_half_of_a_smooth_change():
    table = found(curve(1 / (1 + np.exp(-(STEPS - 2050) / 50)), **MISMATCH))
    assert event(table, "first_crossing_of_token_mismatch")["value"] == 2100
    assert event(table, "first_crossing_of_token_mismatch", "even_drift")["value"] == 2100  # first above 2000


def test_what_comes_back_has_no_crossing():
    peak = np.exp(-(((STEPS - 2000) / 300) ** 2))
    row = event(found(curve(peak, **MISMATCH)), "first_crossing_of_token_mismatch")
    assert (row["value"], row["censored"]) == (4000, True)
    assert np.isnan([row["low"], row["high"]]).all()


def test_what_overshoots_has_the_crossing_of_what_is_left():
    values = (STEPS > 1000) * 1.0 - 0.5 * (STEPS > 3000)
    assert event(found(curve(values, **MISMATCH)), "first_crossing_of_token_mismatch")["value"] == 1100


def test_noise_alone_is_no_crossing():
    # 200 curves of pure noise, as 200 seeds
    tables = [
        tidy([curve(np.random.default_rng(seed).normal(0, 0.1, len(STEPS)), **MISMATCH)], "runs", seed)
        for seed in range(200)
    ]
    events = first_crossings(pd.concat(tables))
    assert events.loc[events["null"] == "", "censored"].mean() > 0.99


def test_a_change_well_above_the_noise_is_never_early():
    early = 0
    for seed in range(100):
        values = (STEPS >= 2000) * 1.0 + np.random.default_rng(seed).normal(0, 0.07, len(STEPS))
        row = event(found(curve(values, **MISMATCH)), "first_crossing_of_token_mismatch")
        assert not row["censored"]
        early += row["value"] < 2000
    assert early == 0


def test_a_change_within_the_range_of_the_null_is_none():
    def planted(width):
        null = {"null": "random_weights", "n": 100, "low": np.zeros(len(STEPS)), "high": np.full(len(STEPS), width)}
        table = found(curve(0.3 * (STEPS > 2000), **MISMATCH), curve(0.1, **MISMATCH) | null)
        return event(table, "first_crossing_of_token_mismatch")

    assert not planted(0.25)["censored"]
    assert planted(0.35)["censored"]


def test_a_change_within_the_sampling_noise_is_none():
    # 40 sequences: 1.96 √(.25 / 40) = .155 at a half
    def planted(change, n):
        return event(found(curve(0.5 + change * (STEPS > 2000), n=n, **SCORE)), "first_crossing_of_induction_score")

    assert planted(0.2, 40)["censored"]
    assert not planted(0.35, 40)["censored"]
    assert not planted(0.2, 4000)["censored"]
    known = curve(0.5 + 0.2 * (STEPS > 2000), **MISMATCH)
    bounds = {"low": known["value"] - 0.15, "high": known["value"] + 0.15}
    assert event(found(known | bounds), "first_crossing_of_token_mismatch")["censored"]


def test_few_recorded_steps():
    coarse = np.array([0, 2000, 4000])
    row = event(found(curve([0, 1, 1], coarse, **MISMATCH)), "first_crossing_of_token_mismatch")
    assert (row["value"], row["low"], row["high"]) == (2000, 0, 2000)
    assert found(curve([0, 1], coarse[: FEWEST_STEPS - 1], **MISMATCH)).empty


def test_lags_are_paired_and_censored_if_either_is():
    seeds = [(1900, 2000), (2400, 2500), (1000, 1100), (None, 2000), (1900, None)]
    tables = []
    for seed, (moved, crossing) in enumerate(seeds):
        values = 1.0 * ((moved or 10_000) <= STEPS)
        tables.append(tidy([curve(values, **MISMATCH), transition(crossing), transition(3000, "0.2")], "runs", seed))
    events = first_crossings(pd.concat(tables[:3]))
    lag = event(summarize([events]), "lag_of_first_crossing_of_token_mismatch")
    assert (lag["estimate"], lag["low"], lag["high"], lag["n"]) == (-100, -100, -100, 3)
    last = event(events, "lag_of_first_step_below_0.2", seed=2)
    assert (last["value"], last["censored"]) == (1900, False)
    assert "lag_of_first_step_below_0.5" not in set(events["quantity"])

    summary = summarize([first_crossings(pd.concat(tables))])
    for quantity, censored in (
        ("first_crossing_of_token_mismatch", 1),
        ("lag_of_first_crossing_of_token_mismatch", 2),
        ("lag_of_first_step_below_0.2", 1),
    ):
        row = event(summary, quantity)
        assert (row["censored"], row["n"]) == (censored, 5)
        assert np.isnan(row["estimate"])


def test_without_a_transition_in_the_tables_there_are_no_lags():
    table = found(curve(STEPS > 100, **MISMATCH), transition(2000, data="in_distribution"))
    assert not table["quantity"].str.startswith("lag_of").any()


def test_parts_and_ranks_are_told_apart():
    bridges = [
        curve(1000 * (i + 1) <= STEPS, quantity="bridge_energy_key", part=f"embedding.{part}", index=rank)
        for i, part in enumerate(("top", "medium", "bottom"))
        for rank in (5, 10, 20)
    ]
    heads = [curve(500 + 100 * head <= STEPS, index=head, n=1, **SCORE) for head in (0, 1)]
    other = curve(STEPS >= 3000, **SCORE | {"part": "layers.0"})
    table = found(*bridges, *heads, other)
    bridge = table[(table["quantity"] == "first_crossing_of_bridge_energy_key") & (table["null"] == "")]
    assert dict(zip(bridge["part"].str[10:], bridge["value"], strict=True)) == {
        "top": 1000,
        "medium": 2000,
        "bottom": 3000,
    }
    assert set(bridge["index"]) == {10}
    scores = table[(table["quantity"] == "first_crossing_of_induction_score") & (table["null"] == "")]
    assert scores[["part", "index", "value"]].to_numpy().tolist() == [["layers.1", 0, 500], ["layers.1", 1, 600]]


def test_the_largest_gap_of_a_range():
    gaps = [
        curve(1.0 + (STEPS >= 2000) * (i == 34), quantity="singular_value_gap", part="embedding", index=i)
        for i in range(1, 64)
    ]
    table = found(*gaps)
    assert event(table, "first_crossing_of_singular_value_gap", index=20)["value"] == 2000
    assert event(table, "first_crossing_of_singular_value_gap", index=1)["censored"]


def test_events_tell_every_measure_apart():
    kinds = {(m.quantity, m.data, m.largest_of, m.title) for m in MEASURES}
    assert len(kinds) == len(MEASURES)


def test_each_experiment_has_its_own_last_step():
    shorter = tidy([curve([0, 1, 1], np.array([0, 10, 20]), **MISMATCH)], "short", 0)
    table = first_crossings(pd.concat([shorter, tidy([curve(STEPS > 0, **MISMATCH)], "long", 0)]))
    assert dict(table[["experiment", "step"]].drop_duplicates().to_numpy().tolist()) == {"short": 20, "long": 4000}
