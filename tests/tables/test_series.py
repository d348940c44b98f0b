"""The tables of models at several steps as one, and its summary of each step."""

import pandas as pd
import pytest

from learning_geometry.tables.series import check_same_tokens, gather, summarize_series
from learning_geometry.tables.summary import KEY, summarize
from learning_geometry.tables.tidy import central_range, tidy

PLACES = {f"s{seed}_{step}": {"step": step, "seed": seed} for seed in (1, 2, 3) for step in (0, 10, 1000)}


def table(model, value):
    row = {"step": 0, "part": "layers.0", "quantity": "rank", "data": "text"}
    measured = row | {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9}
    return tidy([measured, row | central_range(pd.Series([0.9, 1.0]).to_numpy(), "isotropic")], model, 0)


@pytest.fixture
def tables():
    return {model: table(model, place["seed"] + place["step"] / 1000) for model, place in PLACES.items()}


def test_each_number_has_its_step_and_seed(tables):
    gathered = gather(tables, PLACES, "all")
    measured = gathered[gathered["null"] == ""]
    assert set(gathered["experiment"]) == {"all"} and len(gathered) == 2 * len(PLACES)
    assert (measured["value"] == measured["seed"] + measured["step"] / 1000).all()


def test_a_step_is_summarised_as_if_there_were_no_other(tables):
    summary = summarize_series(gather(tables, PLACES, "all"))
    assert summary[KEY].equals(summary[KEY].sort_values(KEY, ignore_index=True))
    for step in (0, 10, 1000):
        of_step = [tables[model].assign(experiment="all", seed=PLACES[model]["seed"]) for model in PLACES]
        of_step = [each for each, place in zip(of_step, PLACES.values(), strict=True) if place["step"] == step]
        here = summary[summary["step"] == step].reset_index(drop=True).assign(step=0)
        pd.testing.assert_frame_equal(here, summarize(of_step))
    measured = summary[summary["null"] == ""]
    assert set(measured["interval"]) == {"student_t"} and set(measured["n"]) == {3}


def test_the_last_point_of_one_seed_is_the_summary_of_its_model(tables):
    places = {model: place for model, place in PLACES.items() if place["seed"] == 2}
    summary = summarize_series(gather({model: tables[model] for model in places}, places, "all"))
    last = summary[summary["step"] == 1000].reset_index(drop=True)
    alone = summarize([tables["s2_1000"]])
    pd.testing.assert_frame_equal(last.assign(experiment="s2_1000", step=0), alone)
    assert set(last["interval"]) == {"within_run", "null_range"}


def test_a_model_that_is_missing_and_tables_with_seeds_of_their_own_are_refused(tables):
    with pytest.raises(ValueError, match="give a table for every model"):
        gather({model: tables[model] for model in list(PLACES)[:-1]}, PLACES, "all")
    tables["s1_10"] = tables["s1_10"].assign(seed=4)
    with pytest.raises(ValueError, match="s1_10: rank has steps or seeds of its own"):
        gather(tables, PLACES, "all")


def test_models_that_read_other_tokens_are_refused():
    def made(tokens):
        return {"tables": {"a.parquet": {"read": {"texts": {"text": {"tokens": tokens}}, "prompts": {}}}, "b": {}}}

    check_same_tokens({"one": made("1f"), "two": made("1f")}, "all")
    with pytest.raises(ValueError, match="all: one and two read other tokens of text"):
        check_same_tokens({"one": made("1f"), "two": made("2e")}, "all")
