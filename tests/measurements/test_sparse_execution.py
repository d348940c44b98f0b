"""Dictionaries of value states: in a hand-made circuit that reads the values, and in untrained models."""

import numpy as np
import pytest
import torch

from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.common.value_states import (
    answers,
    fresh_sequences,
    largest_marker_set,
    last_layer,
    read_states,
    value_labels,
)
from learning_geometry.measurements.runs import sparse_execution
from learning_geometry.models.evaluation import evaluate
from learning_geometry.models.transformer import SETTINGS as MODEL_SETTINGS
from learning_geometry.tasks import marker_sums
from learning_geometry.tasks.dataset import make_dataset, write_dataset
from learning_geometry.training.checkpoints import write_checkpoint
from learning_geometry.training.loop import build_model

from .conftest import defaults, put

VALUES = 4
TASK = {"vocabulary": 24, "length": 10, "modulus": VALUES, "first_marker": 10, "test_sequences": 300}
SMALL = {"latents": 24, "k": 4, "training_sequences": 400, "steps": 300, "learning_rate": 3e-3, "sequences": 300}
SMALL |= {"ablated": [1, 6, 12, 100], "random_draws": 4, "null_draws": 8}


def make_run(path, markers, change=lambda parameters: None, **model):
    task = defaults(marker_sums.SETTINGS) | TASK | {"name": "marker_sums", "markers": markers}
    settings = {"task": task, "model": defaults(MODEL_SETTINGS) | {"name": "transformer", "width": 16} | model}
    write_dataset(path / "dataset.safetensors", make_dataset(task, 0), {})
    parameters = build_model(settings).initialise(np.random.default_rng(0))
    change(parameters)
    write_checkpoint(path / "checkpoints", 0, parameters, {"uniform": True})
    return Run("sums", 0, settings, *(path / name for name in ("checkpoints", "dataset.safetensors", "metrics")))


def reader(parameters):
    """Every position attends to the value tokens and copies which one it is: the sum of one value."""
    width = 16
    for name in parameters:
        put(parameters, name, np.zeros(parameters[name].shape))
    embedding = np.zeros((24, width))
    embedding[:VALUES, :VALUES] = np.eye(VALUES)
    embedding[:VALUES, 8] = 1  # a value, whichever
    embedding[VALUES:, 9:] = np.random.default_rng(0).normal(0, 0.2, (20, 7))
    put(parameters, "embedding.weight", embedding)
    key, copy = np.zeros((width, width)), np.zeros((width, width))
    key[0, 8] = 20.0
    copy[:VALUES, :VALUES] = np.eye(VALUES)
    put(parameters, "layers.0.attention.key.weight", key)
    put(parameters, "layers.0.attention.query.bias", np.eye(width)[0] * 4)
    put(parameters, "layers.0.attention.value.weight", copy)
    # written beside the token's own value, so that only attention can answer
    written = np.zeros((width, width))
    written[4 : 4 + VALUES, :VALUES] = np.eye(VALUES)
    put(parameters, "layers.0.attention.output.weight", written)
    readout = np.zeros((VALUES, width))
    readout[:, 4 : 4 + VALUES] = np.eye(VALUES)
    put(parameters, "readout.weight", readout)


CIRCUIT = {"layers": 1, "norm": "none", "positions": "none", "readout": "last"}
UNTRAINED = {"layers": 2, "heads": 2, "positions": "learned", "final_norm": True, "readout": "last"}


@pytest.fixture(scope="module")
def circuit(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("circuit"), [1], reader, **CIRCUIT)
    return sparse_execution.measure(run, defaults(sparse_execution.SETTINGS) | SMALL)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("untrained"), [1, 2], **(UNTRAINED | {"layers": 1}))
    return sparse_execution.measure(run, defaults(sparse_execution.SETTINGS) | SMALL)


def find(table, quantity, part, null=""):
    rows = table[(table["quantity"] == quantity) & (table["part"] == part) & (table["null"] == null)]
    return dict(zip(rows["index"].tolist(), rows["value"].tolist(), strict=True))


def test_removing_what_is_read_where_it_is_read_destroys_the_answer(circuit):
    quantity = "accuracy_after_ablation"
    assert find(circuit, quantity, "ablation-intact") == {0: 1.0}
    assert find(circuit, quantity, "ablation-reconstruction")[0] > 0.95
    assert find(circuit, quantity, "ablation-mean")[0] == pytest.approx(1 / VALUES, abs=0.1)
    by_value, at_random = (find(circuit, quantity, f"ablation-{choice}") for choice in ("value", "random"))
    assert list(by_value) == list(at_random) == [1, 6, 12]  # not 100 of 24
    assert by_value[12] < 0.6 and by_value[12] < at_random[12]
    assert find(circuit, quantity, "ablation-value", "random") == at_random
    assert set(circuit["data"]) == {"most_markers"}


@pytest.mark.parametrize("table", ["circuit", "untrained"])
def test_the_published_edit_changes_nothing(table, request):
    rows = request.getfixturevalue(table)
    published = rows[rows["quantity"] == "accuracy_after_published_ablation"]
    intact = find(rows, "accuracy_after_ablation", "ablation-intact")[0]
    assert set(published["value"]) == {intact}
    assert {"ablation-reconstruction", "ablation-mean", "ablation-value", "ablation-random"} <= set(published["part"])


def test_what_states_hold_is_decoded_and_what_they_cannot_hold_is_not(untrained):
    """Before the first layer a state is its own token and position: the value, not the one before it."""
    quantity = "decoding_accuracy"
    for source in ("latents", "states"):
        value, after_first = (
            find(untrained, quantity, f"{source}-{label}")[0] for label in ("value", "running_sum_after_first")
        )
        assert value > 0.95
        assert after_first == pytest.approx(1 / VALUES, abs=0.1)
        # at the first of two markers the sum is the value
        assert 1 / 2 < find(untrained, quantity, f"{source}-running_sum")[0] < 0.75
        null = untrained[(untrained["part"] == f"{source}-value") & (untrained["null"] == "shuffled_labels")]
        null = null[null["quantity"] == quantity].iloc[0]
        assert null["value"] == pytest.approx(1 / VALUES, abs=0.1) and null["n"] == 8
        marker, position = (find(untrained, quantity, f"{source}-marker", null)[0] for null in ("", "position_only"))
        assert marker > 0.7  # from the position
        # of two markers the first is more probable at position p if fewer positions are left of p than right of it
        assert position == pytest.approx(marker, abs=0.06)
    # after the layer the second value's position may have attended to the first
    assert set(untrained[untrained["quantity"] == quantity]["part"]) == {
        f"{site}{source}-{label}"
        for site in ("", "final_")
        for source in ("latents", "states")
        for label in ("value", "marker", "running_sum", "running_sum_after_first")
    }


def test_information_is_bounded_and_above_its_null(circuit, untrained):
    quantity = "best_latent_information"
    for table in (circuit, untrained):
        found, null = (find(table, quantity, "latents-value", name)[0] for name in ("", "shuffled_labels"))
        assert null < 0.1 and 0.2 < found <= np.log(VALUES)
    found, null = (
        find(untrained, quantity, "states-running_sum_after_first", name)[0] for name in ("", "shuffled_labels")
    )
    assert found < 2 * null


def test_with_one_marker_there_is_no_marker_to_tell(circuit):
    assert not circuit["part"].str.contains("marker|after_first").any()


def test_quality_of_the_dictionary(circuit):
    explained = find(circuit, "sparse_explained_variance", "layers.0.residual_pre")[0]
    assert 0.9 < explained <= 1
    assert 0 <= find(circuit, "sparse_dead_share", "layers.0.residual_post")[0] < 1


def test_the_same_run_gives_the_same_table(tmp_path):
    run = make_run(tmp_path, [1], reader, **CIRCUIT)
    settings = defaults(sparse_execution.SETTINGS) | SMALL | {"steps": 5}
    one, other = (sparse_execution.measure(run, settings) for _ in range(2))
    assert one.equals(other)


def test_states_are_those_behind_the_markers(tmp_path):
    run = make_run(tmp_path, [1, 2], **UNTRAINED)
    parameters, test_set = run.parameters(0), run.test_set("markers_2")
    seen = {}
    run.model.forward(parameters, torch.from_numpy(test_set["tokens"]), hook=lambda name, x: seen.setdefault(name, x))
    states = read_states(run, parameters, test_set)
    kept = np.flatnonzero(test_set["marker_positions"][:, -1] < 8)
    assert 0 < len(kept) < 300  # a marker at position 8 has its value at the last, 9
    for at, sequence in enumerate(kept[:20]):
        for marker in range(2):
            position = test_set["marker_positions"][sequence, marker] + 1
            assert test_set["tokens"][sequence, position] == states.labels["value"][at, marker]
            for name, of in (("residual_pre", states.before), ("residual_post", states.final)):
                torch.testing.assert_close(of[at, marker], seen[f"layers.1.{name}"][sequence, position])
    running = states.labels["running_sum"]
    np.testing.assert_array_equal(running[:, -1], states.targets)


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"positions": "rotary"},
        {"positions": "alibi", "readout": "all", "mlp_width": 8},
        {"positions": "rotary", "rotary_width": 2, "parallel_residual": True, "mlp_width": 8},
        {"norm": "post", "norm_kind": "rms_norm", "mlp_width": 8, "gated_mlp": True},
        {"heads": 2, "key_value_heads": 1, "head_width": 16, "bias": ["query_key_value"]},
    ],
)
def test_the_last_layer_alone_answers_as_the_model(tmp_path, variant):
    run = make_run(tmp_path, [1, 2], **(UNTRAINED | variant))
    parameters, test_set = run.parameters(0), run.test_set("markers_2")
    states, layer = read_states(run, parameters, test_set), last_layer(run, parameters)
    expected = evaluate(run.model, parameters, test_set["tokens"], test_set["targets"]).predictions[:, -1]
    kept = test_set["marker_positions"][:, -1] < 8
    np.testing.assert_array_equal(answers(layer, states), expected[kept])
    np.testing.assert_array_equal(answers(layer, states, before=states.before), expected[kept])
    np.testing.assert_array_equal(answers(layer, states, final=1e3 * states.final), expected[kept])
    assert (answers(layer, states, before=-9 * states.before) != expected[kept]).any()


@pytest.mark.parametrize("distractors", ["published", "any"])
def test_fresh_sequences_are_those_of_the_task(tmp_path, distractors):
    run = make_run(tmp_path, [1, 2])
    run.settings["task"]["distractors"] = distractors
    drawn = fresh_sequences(run, 2, 50, np.random.default_rng(0))
    assert len(drawn["tokens"]) == 56  # whole batches
    rows = np.arange(56)[:, None]
    np.testing.assert_array_equal(drawn["tokens"][rows, drawn["marker_positions"]], np.broadcast_to([10, 11], (56, 2)))
    np.testing.assert_array_equal(drawn["values"].sum(1) % VALUES, drawn["targets"][:, -1])
    assert drawn["values"].max() < VALUES
    assert len(np.unique(drawn["marker_positions"], axis=0)) > 3


def test_labels_with_one_marker_and_with_three():
    labels = value_labels(np.array([[3, 2, 3]]), VALUES)
    assert {name: label.tolist() for name, label in labels.items()} == {
        "value": [[3, 2, 3]],
        "running_sum": [[3, 1, 0]],
        "marker": [[0, 1, 2]],
    }
    assert set(value_labels(np.array([[3]]), VALUES)) == {"value", "running_sum"}


def test_the_test_set_with_most_markers_is_chosen(tmp_path):
    assert largest_marker_set(make_run(tmp_path, [3, 1, 2])) == "markers_3"


def test_another_task_is_refused(tmp_path, request):
    run = make_run(tmp_path, [1])
    run.dataset.test_sets.clear()
    run.dataset.test_sets["in_distribution"] = {}
    with pytest.raises(ValueError, match="no test set markers_<m>, only"):
        sparse_execution.measure(run, defaults(sparse_execution.SETTINGS))


def test_too_few_states_are_named(tmp_path):
    run = make_run(tmp_path, [1], **CIRCUIT)
    settings = defaults(sparse_execution.SETTINGS) | SMALL | {"training_sequences": 16}
    with pytest.raises(ValueError, match="cannot train 24 latents"):
        sparse_execution.measure(run, settings)
