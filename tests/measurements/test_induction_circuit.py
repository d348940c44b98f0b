"""Induction in models of several heads: which heads make the circuit, when scores rise, and what a repetition saves."""

import numpy as np
import pytest
import torch

from learning_geometry.geometry.composition import subspace_match
from learning_geometry.geometry.head_products import output_value_products, query_key_products
from learning_geometry.measurements.runs import head_scores, induction_circuit
from learning_geometry.measurements.runs.induction_circuit import Head, circuit, match, rise, saved_in, subspaces
from learning_geometry.tasks.dataset import read_dataset, write_dataset

from .conftest import put

SETTINGS = {"sequences": 20, "rank": 3, "null_draws": 200}


@pytest.fixture
def repeated(make_run):
    """Runs of copying, whose out-of-distribution sequences are called as those of a text."""

    def make(*changes, **options):
        run = make_run(*changes, **options)
        dataset = read_dataset(run.dataset_file)
        sets = dataset.test_sets | {"repeated": dataset.test_sets["out_of_distribution"]}
        write_dataset(run.dataset_file, dataset._replace(test_sets=sets), {})
        return run

    return make


def test_scores_are_those_of_copying_and_the_largest_is_of_all_heads(repeated, measured):
    run = repeated()
    ours = measured(induction_circuit, run, **SETTINGS)
    theirs = measured(head_scores, run, sequences=20)
    for name in ("previous_token_score", "induction_score"):
        values = []
        for part in ("layers.0", "layers.1"):
            expected = theirs.find(name, part)["value"].tolist()
            assert ours.find(name, part)["value"].tolist() == expected
            values += expected
        assert ours.value(f"largest_{name}") == max(values)
        chance = set(theirs.find(name, null="uniform_attention")["value"])
        assert set(ours.find(f"largest_{name}", null="uniform_attention")["value"]) == chance


def test_the_match_is_that_of_the_heads_products(repeated, measured):
    run = repeated(model={"layers": 3})
    found = measured(induction_circuit, run, **SETTINGS)
    writer, _, reader, _ = (int(value) for value in found.find("circuit_head").sort_values("index")["value"])
    assert writer < reader
    heads = found.find("circuit_head").sort_values("index")["value"].astype(int).tolist()
    arrays = run.arrays(0)

    def weight(layer, role):
        return arrays[f"layers.{layer}.attention.{role}.weight"]

    read = query_key_products(weight(heads[2], "query"), weight(heads[2], "key"), 2)[heads[3]]
    written = output_value_products(weight(heads[0], "output"), weight(heads[0], "value"), 2)[heads[1]]
    (cosines,) = subspace_match(read, written, [3])
    expected = np.sqrt((cosines**2).mean())
    assert found.value("circuit_match_rms_cosine") == pytest.approx(expected)
    reads, writes = subspaces(run, 0, 3)
    others = [
        match(reads[Head(b, h)], writes[Head(a, g)])
        for a, g, b, h in np.ndindex(3, 2, 3, 2)
        if a < b and [a, g, b, h] != heads
    ]
    (null,) = found.find("circuit_match_rms_cosine", null="other_heads").to_dict("records")
    assert (null["n"], null["value"]) == (11, pytest.approx(np.mean(others)))
    chance = found.value("circuit_match_rms_cosine", null="random_subspaces")
    assert chance == pytest.approx(np.sqrt(3 / 16), abs=0.03)


def test_a_planted_match_rises_when_it_is_planted(repeated, measured):
    def planted(parameters):
        basis = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0]
        for head in range(2):  # all heads alike, so that it does not matter which are chosen
            rows = slice(8 * head, 8 * head + 8)
            for role, columns in (("value", basis[:, 8:]), ("query", basis[:, 8:]), ("key", basis[:, :8])):
                array = parameters[f"layers.{int(role != 'value')}.attention.{role}.weight"].numpy().copy()
                array[rows] = columns.T
                put(parameters, f"layers.{int(role != 'value')}.attention.{role}.weight", array)
            output = parameters["layers.0.attention.output.weight"].numpy().copy()
            output[:, rows] = basis[:, :8] * np.linspace(2, 1, 8)
            put(parameters, "layers.0.attention.output.weight", output)

    run = repeated(lambda _: None, planted)
    found = measured(induction_circuit, run, **SETTINGS | {"rank": 8})
    before, after = (found.value("circuit_match_rms_cosine", step=step) for step in (0, 10))
    assert before < 0.9 and after == pytest.approx(1.0)


def test_the_circuit_reads_in_a_later_layer_than_it_writes():
    previous = np.array([[0.2, 0.3], [0.9, 0.1], [0.8, 0.8]])
    induction = np.array([[0.9, 0.9], [0.1, 0.4], [0.2, 0.1]])
    assert circuit(previous, induction) == (Head(0, 1), Head(1, 1))
    induction[2, 0] = 0.5
    assert circuit(previous, induction) == (Head(1, 0), Head(2, 0))


def test_times_of_a_rise():
    steps, values = [0, 10, 20, 30, 40], [0.1, 0.1, 0.5, 0.9, 1.1]
    assert [rise(steps, values, percent).step for percent in (10, 50, 90)] == [20, 30, 40]
    assert rise(steps, [0.1, 0.2, 0.1, 0.1, 0.12], 50).censored


def test_the_rise_of_a_planted_head_is_dated(repeated, measured):
    """Every query of layer 1 comes to attend to all alike, and the largest score falls: no rise, no date."""

    def flat(parameters):
        for layer in (0, 1):
            put(parameters, f"layers.{layer}.attention.query.weight", np.zeros((16, 16)))
            bias = f"layers.{layer}.attention.query.bias"
            if bias in parameters:
                put(parameters, bias, np.zeros(16))

    found = measured(induction_circuit, repeated(lambda _: None, flat), **SETTINGS)
    events = found.find("induction_score_rise_step")
    assert events["censored"].all() and set(events["index"]) == {10, 50, 90} and set(events["value"]) == {10}
    chance = found.value("largest_induction_score", null="uniform_attention", step=10)
    assert found.value("largest_induction_score", step=10) == pytest.approx(chance, rel=1e-5)


def test_what_a_repetition_saves(repeated, measured):
    losses = np.arange(24.0)[None].repeat(2, 0)
    first, second, length = np.array([2, 0]), np.array([10, 12]), np.array([4, 6])
    assert saved_in(losses, first, second, length).tolist() == [-8.0, -12.0]
    run = repeated()
    found = measured(induction_circuit, run, **SETTINGS)
    (row,) = found.find("loss_saved_by_repetition").to_dict("records")
    assert row["low"] < row["value"] < row["high"] and (row["n"], row["unit"]) == (20, "nats")
    held = run.test_set("repeated", 20)
    logits = run.model.forward(run.parameters(0), torch.from_numpy(held["tokens"]))
    expected = []
    for row_number, logit in enumerate(logits.log_softmax(-1)):
        means = []
        for name in ("first_start", "second_start"):
            start, size = int(held[name][row_number]), int(held["segment_length"][row_number])
            tokens = held["tokens"][row_number]
            means.append(np.mean([-float(logit[t, tokens[t + 1]]) for t in range(start, start + size - 1)]))
        expected.append(means[0] - means[1])
    assert row["value"] == pytest.approx(np.mean(expected), abs=1e-5)


def test_one_layer_has_no_circuit(repeated, measured):
    with pytest.raises(ValueError, match="a model of one layer has no circuit"):
        measured(induction_circuit, repeated(model={"layers": 1}), **SETTINGS)
