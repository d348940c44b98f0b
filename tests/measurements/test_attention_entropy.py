import numpy as np
import pytest
import torch
from scipy.stats import entropy

from learning_geometry.measurements.runs import attention_entropy
from learning_geometry.measurements.runs.attention_entropy import last_query_entropy

from .conftest import put

LENGTH, WIDTH = 24, 16
OUT, IN = "out_of_distribution", "in_distribution"
SETTINGS = {"sequences": 40}
WIDE = {"width": WIDTH, "heads": 2}


def attend_by(slope):
    """Scores of the first layer that grow by ``slope`` from one position to the next, for every query and head."""

    def change(parameters):
        unit = np.eye(WIDTH)
        # positions are written as numbers on coordinate 0, which LayerNorm would rescale: the model has none
        put(parameters, "embedding.weight", np.zeros((LENGTH, WIDTH)))
        put(parameters, "positions.weight", np.arange(LENGTH)[:, None] * unit[0])
        scale = slope * np.sqrt(WIDTH / 2)
        put(parameters, "layers.0.attention.query.weight", np.zeros((WIDTH, WIDTH)))
        put(parameters, "layers.0.attention.query.bias", scale * (unit[0] + unit[WIDTH // 2]))
        put(parameters, "layers.0.attention.key.weight", np.outer(unit[0] + unit[WIDTH // 2], unit[0]))
        put(parameters, "layers.0.attention.key.bias", np.zeros(WIDTH))

    return change


@pytest.fixture
def run(make_run):
    model = {"norm": "none", "positions": "learned"}
    return make_run(attend_by(0.3), attend_by(0.0), attend_by(50.0), model=model)


@pytest.mark.parametrize("data", [IN, OUT])
def test_known_patterns_have_their_entropy(run, measured, data):
    found = measured(attention_entropy, run, **SETTINGS)
    planted = np.exp(0.3 * np.arange(LENGTH))
    expected = {0: entropy(planted), 10: np.log(LENGTH), 20: 0.0}
    for step, value in expected.items():
        (row,) = found.find("attention_entropy", "layers.0", step=step, data=data).to_dict("records")
        assert row["value"] == pytest.approx(value, abs=1e-6)
        assert (row["unit"], row["n"]) == ("nats", 40)
        # the same for every sequence
        assert row["high"] - row["low"] == pytest.approx(0, abs=1e-6)


def test_nulls(run, measured):
    found = measured(attention_entropy, run, **SETTINGS)
    for step in (0, 10, 20):
        for layer in ("layers.0", "layers.1"):
            at = {"step": step, "data": OUT, "part": layer}
            uniform = found.value("attention_entropy", null="uniform_attention", **at)
            assert uniform == np.log(LENGTH)
            untrained = found.value("attention_entropy", null="untrained", **at)
            assert untrained == found.value("attention_entropy", **at | {"step": 0})


def test_it_is_the_mean_over_heads_and_sequences_of_the_models_last_row(make_run, measured):
    run = make_run()
    found = measured(attention_entropy, run, sequences=30, test_sets=[OUT])
    tokens = torch.from_numpy(run.test_set(OUT, 30)["tokens"])
    seen = {}
    run.model.forward(run.parameters(0), tokens, hook=lambda name, value: seen.setdefault(name, value))
    for layer in (0, 1):
        last = seen[f"layers.{layer}.attention.pattern"][:, :, -1].numpy()
        by_sequence = entropy(last, axis=-1).mean(1)
        (row,) = found.find("attention_entropy", f"layers.{layer}").to_dict("records")
        assert row["value"] == pytest.approx(by_sequence.mean(), abs=1e-6)
        half_width = 1.96 * by_sequence.std(ddof=1) / np.sqrt(30)
        assert row["high"] - row["value"] == pytest.approx(half_width, rel=1e-4)
        assert half_width > 1e-3
    assert set(found.table["data"]) == {OUT}


def test_batches_do_not_matter(make_run, measured, monkeypatch):
    run = make_run()
    whole = measured(attention_entropy, run, **SETTINGS).table
    monkeypatch.setattr(attention_entropy, "BATCH_SIZE", 7)
    parts = measured(attention_entropy, run, **SETTINGS).table
    np.testing.assert_allclose(parts["value"], whole["value"], rtol=1e-6)


def test_what_comes_after_the_last_position_does_not_count():
    pattern = torch.eye(3)[None, None].clone()
    pattern[0, 0, 0] = 1 / 3
    assert last_query_entropy(pattern).item() == 0.0
    pattern[0, 0, 2] = torch.tensor([0.5, 0.0, 0.5])
    assert last_query_entropy(pattern).item() == pytest.approx(np.log(2))


def test_only_every_so_often_and_always_the_first_and_last(run, measured):
    found = measured(attention_entropy, run, every=15, **SETTINGS)
    assert sorted(found.table["step"].unique()) == [0, 20]


def test_what_is_missing_is_named(make_run, measured):
    run = make_run()
    with pytest.raises(KeyError, match="no test set 'markers_9'"):
        measured(attention_entropy, run, test_sets=["markers_9"])
    with pytest.raises(KeyError, match="41 sequences asked"):
        measured(attention_entropy, run, sequences=41)
