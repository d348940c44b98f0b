import numpy as np
import pytest
import torch

from learning_geometry.measurements.runs import length_generalisation
from learning_geometry.measurements.runs.length_generalisation import draw_test_sets
from learning_geometry.tasks import copying

from .conftest import put

SETTINGS = {"every": 1, "factors": [1.0, 1.5, 3.0], "test_sequences": 400, "scale_segments": True}


def of_length(measured, quantity, length, null="", **columns):
    (row,) = measured.find(quantity, null=null, index=length, **columns).to_dict("records")
    return row


def test_the_test_sets_have_the_distribution_of_the_task(make_run):
    found = draw_test_sets(make_run(), SETTINGS)
    assert list(found) == [(length, suffix) for length in (24, 36, 72) for suffix in ("", "_scaled_segments")]
    for (length, suffix), drawn in found.items():
        segment = round(8 * length / 24) if suffix else 8
        tokens, first, second = drawn["tokens"], drawn["first_start"], drawn["second_start"]
        assert tokens.shape == (400, length)
        assert (drawn["segment_length"] == segment).all()
        np.testing.assert_array_equal(drawn["targets"][:, :-1], tokens[:, 1:])
        for row in range(400):
            one, other = (tokens[row, start : start + segment] for start in (first[row], second[row]))
            np.testing.assert_array_equal(one, other)
        # two different offsets of 0 .. length − 2 segment − 1: a token between the copies, and one after
        assert (second - first > segment).all() and (second + segment < length).all()
        offsets = length - 2 * segment
        assert first.min() == 0 and second.max() == length - segment - 1
        assert np.mean(second - segment) == pytest.approx((2 * offsets - 1) / 3, rel=0.15)
        share = np.bincount(tokens.ravel(), minlength=24) / tokens.size
        assert np.abs(share - 1 / 24).max() < 6 * np.sqrt(1 / 24 / (400 * (length - segment)))


def test_the_training_length_is_drawn_afresh(make_run):
    run = make_run()
    ours = draw_test_sets(run, SETTINGS)[24, ""]["tokens"]
    assert not (ours[:40] == run.test_set("out_of_distribution")["tokens"]).all(1).any()
    again = draw_test_sets(run, SETTINGS)[24, ""]["tokens"]
    np.testing.assert_array_equal(ours, again)


def constant(parameters):
    """Predict token 3 everywhere; attend uniformly."""
    put(parameters, "readout.weight", np.zeros((24, 16)))
    put(parameters, "readout.bias", 1e-3 * (np.arange(24) == 3))
    for layer in (0, 1):
        for role in ("query", "key"):
            put(parameters, f"layers.{layer}.attention.{role}.weight", np.zeros((16, 16)))
            put(parameters, f"layers.{layer}.attention.{role}.bias", np.zeros(16))


def test_a_constant_prediction_has_the_values_of_the_nulls(make_run, measured):
    run = make_run(constant)
    table = measured(length_generalisation, run, **SETTINGS)
    for length in (24, 36, 72):
        for suffix in ("", "_scaled_segments"):
            error = of_length(table, f"error_at_length{suffix}", length)
            best = of_length(table, f"error_at_length{suffix}", length, "constant_prediction")
            assert best["value"] - 1e-9 <= error["value"] and error["value"] == pytest.approx(23 / 24, abs=0.03)
            assert error["low"] < 23 / 24 < error["high"] and error["n"] == 400
            loss = of_length(table, f"loss_at_length{suffix}", length)
            assert loss["value"] == pytest.approx(np.log(24), abs=2e-3)
            assert of_length(table, f"loss_at_length{suffix}", length, "uniform_prediction")["value"] == np.log(24)
            for part in ("layers.0.heads.0", "layers.1.heads.1"):
                for score in ("previous_token_score", "induction_score"):
                    at = {"part": part, "quantity": f"{score}_at_length{suffix}"}
                    value, null = (
                        of_length(table, null=null, length=length, **at) for null in ("", "uniform_attention")
                    )
                    assert value["value"] == pytest.approx(null["value"], abs=1e-6)
    assert set(table.table["unit"]) == {"fraction", "nats"}


def test_uniform_attention_to_the_previous_token_is_the_mean_of_one_over_t(make_run, measured):
    table = measured(length_generalisation, make_run(constant), **SETTINGS)
    row = of_length(table, "previous_token_score_at_length", 72, part="layers.0.heads.0")
    assert row["value"] == pytest.approx(np.mean(1 / np.arange(2, 73)), rel=1e-5)


@pytest.mark.parametrize("positions,lengths", [("none", {24, 36, 72}), ("alibi", {24, 36, 72}), ("learned", {24})])
def test_learned_positions_end_at_the_training_length(make_run, measured, positions, lengths):
    table = measured(length_generalisation, make_run(model={"positions": positions}), **SETTINGS)
    assert set(table.table["index"]) == lengths


def test_lengths_that_cannot_be_are_refused(make_run, measured):
    run = make_run()
    with pytest.raises(ValueError, match="factors: 12 tokens are no length of this task"):
        measured(length_generalisation, run, **SETTINGS | {"factors": [0.5]})
    learned = make_run(model={"positions": "learned"})
    with pytest.raises(ValueError, match=r"factors: all of .* longer than the learned"):
        measured(length_generalisation, learned, **SETTINGS | {"factors": [1.5]})


def test_a_task_without_other_lengths_is_named(make_run, measured, monkeypatch):
    run = make_run()
    monkeypatch.delattr(copying, "out_of_distribution")
    with pytest.raises(ValueError, match="the task copying cannot be drawn at another length"):
        measured(length_generalisation, run, **SETTINGS)


def test_the_model_sees_the_longer_sequences(make_run, measured):
    run = make_run()
    table = measured(length_generalisation, run, **SETTINGS | {"scale_segments": False})
    drawn = draw_test_sets(run, SETTINGS)[36, ""]
    with torch.no_grad():
        logits = run.model.forward(run.parameters(0), torch.from_numpy(drawn["tokens"])).double()
    surprise = -logits[:, :-1].log_softmax(-1).gather(2, torch.from_numpy(drawn["tokens"])[:, 1:, None])
    assert of_length(table, "loss_at_length", 36)["value"] == pytest.approx(float(surprise.mean()), rel=1e-5)
