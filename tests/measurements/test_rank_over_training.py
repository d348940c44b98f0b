"""Dimensions of activations over training: planted ranks, an independent singular value decomposition, the nulls."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from learning_geometry.measurements.runs import rank_over_training
from learning_geometry.measurements.runs.rank_over_training import (
    LASTING,
    isotropic_lookup_ranks,
    lasting_first_crossing,
)
from learning_geometry.tasks.copying import length

from .conftest import TASK, put

IN, OUT = "in_distribution", "out_of_distribution"
WIDTH, LENGTH = 16, length(TASK)
SETTINGS = {"sequences": 20, "null_draws": 3}
ONE = SETTINGS | {"test_sets": [OUT]}


def write_along(directions):
    """Let the first layer's attention write along so many directions alone."""

    def change(parameters):
        planted = np.zeros((WIDTH, WIDTH))
        planted[:directions] = 5 * np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0][:directions]
        put(parameters, "layers.0.attention.output.weight", planted)

    return change


def singular_values(run, step, name, data, sequences, first=1):
    tokens = torch.from_numpy(run.test_set(data, sequences)["tokens"])
    seen = {}
    run.model.forward(run.parameters(step), tokens, hook=lambda name, value: seen.setdefault(name, value))
    vectors = seen[name][:, first:].flatten(0, 1).double().numpy()
    return np.linalg.svd(vectors - vectors.mean(0), compute_uv=False)


def directions(values):
    return (np.cumsum(values**2) / np.sum(values**2) < 0.99).sum() + 1


def test_a_planted_subspace_is_found_when_it_appears(make_run, measured):
    found = measured(rank_over_training, make_run(write_along(16), write_along(3), write_along(3)), **ONE)
    part = {"part": "layers.0.attention.output", "data": OUT}
    values = [found.value("directions_99", step=step, **part) for step in (0, 10, 20)]
    assert values[0] > 0.5
    assert values[1:] == [3 / WIDTH, 3 / WIDTH]
    assert found.value("effective_rank", step=10, **part) <= 3 / WIDTH
    # z does not know what is made of it
    z = [found.value("directions_99", "layers.0.attention.z", data=OUT, step=step) for step in (0, 10)]
    assert z[0] == z[1] > 0.5
    (event,) = found.find(LASTING, **part).to_dict("records")
    assert (event["value"], event["low"], event["high"], event["step"], event["unit"]) == (10, 0, 10, 20, "steps")
    assert not event["censored"]
    assert found.find(LASTING, "layers.0.attention.z", data=OUT)["censored"].all()
    assert found.value(LASTING, null="even_drift", **part) == 20


def test_dimensions_are_those_of_the_activations_beyond_the_first_position(make_run, measured):
    run = make_run(model={"mlp_width": 12})
    found = measured(rank_over_training, run, test_sets=[IN], **SETTINGS)
    for layer in (0, 1):
        for part in ("residual_pre", "attention.z", "attention.output", "residual_mid", "mlp.output"):
            name = f"layers.{layer}.{part}"
            values = singular_values(run, 0, name, IN, 20)
            (row,) = found.find("directions_99", name).to_dict("records")
            assert row["value"] == directions(values) / WIDTH
            expected = np.exp(entropy(values)) / WIDTH
            assert found.value("effective_rank", name) == pytest.approx(expected, rel=1e-4)
            if name != "layers.0.residual_pre":
                assert (row["n"], row["unit"]) == (20 * (LENGTH - 1), "fraction")
    assert set(found.table["data"]) == {IN}


def test_nulls(make_run, measured):
    found = measured(rank_over_training, make_run(write_along(16), write_along(3)), **ONE)
    for part in ("layers.0.attention.output", "layers.1.residual_mid"):
        for quantity in ("directions_99", "effective_rank"):
            first = found.value(quantity, part, step=0)
            assert found.value(quantity, part, "untrained", step=10) == first
            (row,) = found.find(quantity, part, "isotropic", step=10).to_dict("records")
            assert row["value"] > 0.95 and row["n"] == 3
            assert row["value"] == found.value(quantity, "layers.1.attention.z", "isotropic", step=0)


def test_what_enters_the_first_layer_counts_by_different_vectors(make_run, measured):
    run = make_run()
    found = measured(rank_over_training, run, test_sets=[IN], **SETTINGS)
    different = len(np.unique(run.test_set(IN, 20)["tokens"][:, 1:]))
    (row,) = found.find("directions_99", "layers.0.residual_pre").to_dict("records")
    assert row["n"] == different <= 24
    null = found.value("directions_99", "layers.0.residual_pre", "isotropic")
    assert 0.5 < null < found.value("directions_99", "layers.0.attention.z", "isotropic")
    # an untrained embedding is such a table
    assert abs(row["value"] - null) <= 2 / WIDTH


def test_lookups_of_more_positions_with_learned_ones(make_run, measured):
    run = make_run(model={"positions": "learned"})
    found = measured(rank_over_training, run, test_sets=[IN], **SETTINGS)
    tokens = run.test_set(IN, 20)["tokens"][:, 1:]
    pairs = {(token, position) for row in tokens for position, token in enumerate(row.tolist())}
    assert found.find("directions_99", "layers.0.residual_pre")["n"].item() == len(pairs)


def test_a_lookup_null_weighs_vectors_by_how_often_they_are_there():
    generator = np.random.default_rng(0)
    # one vector nearly always: what varies are the others, all but alone
    (rare,) = isotropic_lookup_ranks(np.array([10_000, 1, 1]), 50, 1, generator)
    (evenly,) = isotropic_lookup_ranks(np.full(3, 10), 50, 1, generator)
    assert rare.directions == evenly.directions == 2 / 50
    (dominated,) = isotropic_lookup_ranks(np.array([10_000, 10_000, 1]), 50, 1, generator)
    assert dominated.directions == 1 / 50


def test_a_last_layer_that_is_read_at_the_last_position_is_measured_there(make_run, measured):
    run = make_run(model={"readout": "last"})
    found = measured(rank_over_training, run, test_sets=[IN], sequences=40, least_vectors_per_width=2, null_draws=2)
    counts = found.find("directions_99").set_index("part")["n"]
    everywhere = 40 * (LENGTH - 1)
    for part in ("layers.0.attention.output", "layers.0.residual_mid", "layers.1.residual_pre"):
        assert counts[part] == everywhere
    for part in ("layers.1.attention.z", "layers.1.attention.output", "layers.1.residual_mid"):
        assert counts[part] == 40
    values = singular_values(run, 0, "layers.1.attention.output", IN, 40, first=LENGTH - 1)
    assert found.value("directions_99", "layers.1.attention.output") == directions(values) / WIDTH


def test_too_few_vectors_are_an_error_that_says_so(make_run, measured):
    with pytest.raises(ValueError, match=r"138 vectors of layers.0.*6 sequences\) are fewer than 160.*`sequences`"):
        measured(rank_over_training, make_run(), sequences=6)
    with pytest.raises(ValueError, match=r"40 vectors of layers.1.attention.z \(one of each sequence"):
        measured(rank_over_training, make_run(model={"readout": "last"}), sequences=40)


def test_batches_do_not_matter(make_run, measured, monkeypatch):
    run = make_run()
    whole = measured(rank_over_training, run, **ONE).table
    monkeypatch.setattr(rank_over_training, "BATCH_SIZE", 7)
    parts = measured(rank_over_training, run, **ONE).table
    np.testing.assert_allclose(parts["value"], whole["value"], rtol=1e-6)


def test_only_every_so_often_and_always_the_first_and_last(make_run, measured):
    run = make_run(*(write_along(9) for _ in range(4)))
    found = measured(rank_over_training, run, every=20, **ONE)
    assert sorted(found.table["step"].unique()) == [0, 20, 30]


def test_all_sequences(make_run, measured):
    run = make_run()
    found = measured(rank_over_training, run, sequences=None, null_draws=2)
    assert set(found.find("directions_99", "layers.1.residual_mid")["n"]) == {40 * (LENGTH - 1)}
    with pytest.raises(KeyError, match="no test set 'markers_9'"):
        measured(rank_over_training, run, test_sets=["markers_9"])


def test_a_lasting_first_crossing_is_not_set_off_by_a_dip():
    steps = np.arange(0, 60, 10)
    fall = np.array([1.0, 0.1, 0.9, 0.8, 0.3, 0.2])
    assert lasting_first_crossing(steps, fall, 0.1) == (40, False)
    assert lasting_first_crossing(steps, -fall, 0.1) == (40, False)
    assert lasting_first_crossing(steps, fall, 0.8) == (50, True)
    assert lasting_first_crossing(steps, np.full(6, np.nan), 0.1) == (50, True)
    # exactly half way is not beyond
    assert lasting_first_crossing(steps[:3], np.array([0.0, 0.5, 1.0]), 0.1) == (20, False)
