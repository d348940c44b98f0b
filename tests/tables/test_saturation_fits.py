"""Planted entropies that depend on the coordinate, on the step, or on neither."""

import numpy as np
import pandas as pd
import pytest

from learning_geometry.tables.derived.saturation_fits import FEWEST_STEPS
from learning_geometry.tables.derived.saturation_fits import derive as saturation_fits
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import check_table, tidy

STEPS = np.arange(0, 2001, 100)
FITS = ("saturating_coordinate", "line_coordinate", "saturating_step", "line_step")
DATA = ("markers_1", "markers_2")


def saturating(x, scale):
    return 0.5 + 2.2 * np.exp(-x / scale)


def coordinate(seed):
    """Half of a cosine, as of a walk, but faster or slower in each seed."""
    return 6 * (1 - np.cos(np.pi * (STEPS / 2000) ** (0.5 + 0.4 * seed)))


def run(entropy, seed, experiment="sums", steps=STEPS):
    """The tables of one seed; of layer 0, what would mislead."""
    rows = [{"step": steps, "part": "layers.1", "quantity": "routing_coordinate", "value": coordinate(seed)}]
    for data in DATA:
        of_data = {"data": data, "quantity": "attention_entropy", "unit": "nats"}
        rows += [
            of_data | {"step": steps, "part": "layers.1", "value": entropy(seed)},
            of_data | {"step": steps, "part": "layers.0", "value": np.full(len(steps), 100.0)},
            # checkpoints off the grid, which have no coordinate
            of_data | {"step": [1, 3], "part": "layers.1", "value": [50.0, 60.0]},
            of_data | {"step": steps, "part": "layers.1", "value": np.full(len(steps), 2.77), "null": "untrained"},
        ]
    return tidy([*rows, {"step": 2500, "quantity": "running_error", "value": 0.0}], experiment, seed)


def fits(entropy, seeds=5):
    table = saturation_fits(pd.concat([run(entropy, seed) for seed in range(seeds)]))
    check_table(table)
    return table


def error(table, fit, null="", **columns):
    rows = table[(table["quantity"] == f"held_out_error_{fit}") & (table["null"] == null)]
    for name, value in ({"data": "markers_2", "seed": 2} | columns).items():
        rows = rows[rows[name] == value]
    (row,) = rows.to_dict("records")
    return row


PLANTED = {
    "saturating_coordinate": lambda seed: saturating(coordinate(seed), 3.0),
    "line_coordinate": lambda seed: 2.77 - 0.2 * coordinate(seed),
    "saturating_step": lambda seed: saturating(STEPS, 300.0),
    "line_step": lambda seed: 2.77 - 0.001 * STEPS,
}


@pytest.mark.parametrize("fit", FITS)
def test_what_was_planted_has_no_error_on_the_seed_left_out(fit):
    table = fits(PLANTED[fit])
    errors = {name: error(table, name)["value"] for name in FITS}
    # seed 0's coordinate differs from all others most; nothing there is extrapolated
    assert errors[fit] < 1e-5
    same_form = f"saturating_{fit.split('_')[1]}"  # contains the line
    for name, value in errors.items():
        if name not in (fit, same_form):
            assert value > 0.05, name


def test_rows():
    table = fits(PLANTED["saturating_coordinate"])
    assert len(table) == 5 * 2 * 5 * 2
    measured = table[table["null"] == ""]
    assert set(measured["n"]) == {len(STEPS)}
    assert set(table["unit"]) == {"nats"} and set(table["part"]) == {"last_layer"}
    assert set(table["step"]) == {2500}
    assert set(summarize([table])["n"]) == {5}


def test_each_seed_is_judged_by_all_others_and_not_by_itself():
    def entropy(seed):
        return np.full(len(STEPS), [1.0, 1.0, 4.0][seed])

    table = fits(entropy, seeds=3)
    for name in (*FITS, "free_step"):
        assert error(table, name)["value"] == pytest.approx(3.0)
        # of seed 0: the mean of 1 and 4
        assert error(table, name, "mean_of_other_seeds", seed=0)["value"] == pytest.approx(1.5)
    assert error(table, "free_step", seed=0)["value"] == pytest.approx(1.5)


def test_a_free_function_of_the_step_is_the_mean_of_the_others_at_that_step():
    def entropy(seed):
        return np.sin(STEPS / 200) + 0.1 * (seed == 2)

    table = fits(entropy)
    assert error(table, "free_step")["value"] == pytest.approx(0.1)
    assert error(table, "free_step", seed=1)["value"] == pytest.approx(0.025)
    assert error(table, "saturating_step")["value"] > 0.5
    null = error(table, "line_step", "mean_of_other_seeds")
    expected = np.sqrt(np.mean((np.sin(STEPS / 200).mean() - entropy(2)) ** 2))
    assert null["value"] == null["low"] == null["high"] == pytest.approx(expected)


def test_scatter_between_seeds_is_the_error_where_it_is_the_floor():
    noise = {seed: np.random.default_rng(seed).normal(0, 0.1, len(STEPS)) for seed in range(5)}
    table = fits(lambda seed: saturating(coordinate(seed), 3.0) + noise[seed])
    mean = summarize([table]).query("quantity == 'held_out_error_saturating_coordinate' and null == ''")["estimate"]
    assert mean.to_numpy() == pytest.approx(0.1, rel=0.2)


def test_one_seed_or_few_checkpoints_have_no_rows():
    assert fits(PLANTED["line_step"], seeds=1).empty
    few = [run(PLANTED["line_step"], seed) for seed in range(3)]
    few = pd.concat([table[table["step"] < 100 * (FEWEST_STEPS - 1)] for table in few])
    assert saturation_fits(few).empty
    other = tidy([{"step": 0, "quantity": "loss", "value": 1.0}], "other", 0)
    assert saturation_fits(other).empty
    check_table(saturation_fits(other))


def test_data_of_one_seed_alone_have_no_rows():
    runs = [run(PLANTED["line_step"], seed) for seed in range(3)]
    alone = pd.concat([runs[0], *(table[table["data"] != "markers_2"] for table in runs[1:])])
    table, whole = saturation_fits(alone), saturation_fits(pd.concat(runs))
    assert set(table["data"]) == {"markers_1"} and set(table["seed"]) == {0, 1, 2}
    pd.testing.assert_frame_equal(table, whole[whole["data"] == "markers_1"].reset_index(drop=True))


def test_experiments_are_kept_apart():
    runs = [run(PLANTED["saturating_coordinate"], seed) for seed in range(3)]
    others = [run(lambda seed: np.full(len(STEPS), 9.0), seed, experiment="constant") for seed in range(2)]
    together = saturation_fits(pd.concat(runs + others))
    alone = saturation_fits(pd.concat(runs))
    pd.testing.assert_frame_equal(together[together["experiment"] == "sums"].reset_index(drop=True), alone)
    assert error(together[together["experiment"] == "constant"], "line_step", seed=1)["value"] == 0.0
