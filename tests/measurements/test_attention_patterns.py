from dataclasses import replace

import numpy as np
import pytest
import torch

from learning_geometry.measurements.runs import attention_patterns
from learning_geometry.measurements.runs.attention_patterns import moments

from .conftest import put, write_errors


def unchanged(parameters):
    pass


def no_content(parameters):
    """Scores that are zero: attention is uniform over the past."""
    for role in ("query", "key"):
        put(parameters, f"layers.0.attention.{role}.weight", np.zeros((16, 16)))
        put(parameters, f"layers.0.attention.{role}.bias", np.zeros(16))


@pytest.fixture
def run(make_run):
    # checkpoints at 0, 10, .., 60; error below .5 from step 45 on
    return write_errors(make_run(*[unchanged] * 6, no_content), [0.9] * 9 + [0.4] + [0.1] * 3)


def test_moments_are_the_nearest_checkpoints(run):
    assert moments(run, 0.5) == ([20, 40, 60], False)  # 22.5, and 45, whose neighbours tie
    assert moments(run, 0.2) == ([20, 50, 60], False)
    assert moments(run, 0.05) == ([10, 30, 60], True)  # 15 ties; the middle stands for the transition


def test_patterns_are_those_of_the_model(run, measured):
    found = measured(attention_patterns, run, heads=2, sequence=3)
    tokens = torch.from_numpy(run.test_set("out_of_distribution", 4)["tokens"][3:])
    seen = {}
    run.model.forward(run.parameters(40), tokens, hook=lambda name, value: seen.setdefault(name, value))
    queries, keys = np.tril_indices(24)
    for layer in (0, 1):
        for head in (0, 1):
            rows = found.find("attention", f"layers.{layer}.heads.{head}", step=40)
            assert rows["index"].tolist() == (24 * queries + keys).tolist()
            expected = seen[f"layers.{layer}.attention.pattern"][0, head].numpy()[queries, keys]
            np.testing.assert_allclose(rows["value"], expected, atol=1e-7)
    uniform = found.find("attention", "layers.0.heads.1", step=60)
    np.testing.assert_allclose(uniform["value"], 1 / (1 + queries), rtol=1e-5)
    assert sorted(found.find("attention")["step"].unique()) == [20, 40, 60]
    assert set(found.find("attention")["unit"]) == {"fraction"}


def test_the_copies_are_where_the_rows_say(run, measured):
    found = measured(attention_patterns, run, sequence=7)
    tokens = run.test_set("out_of_distribution", 8)["tokens"][7]
    first, second, length = (
        int(found.value(name, "model", step=60)) for name in ("first_start", "second_start", "segment_length")
    )
    assert length == 8 and second >= first + 8
    assert (tokens[first : first + 8] == tokens[second : second + 8]).all()
    assert set(found.find("attention")["part"]) == {"layers.0.heads.0", "layers.1.heads.0"}


def test_only_the_seeds_asked_for_are_kept(run, measured):
    found = measured(attention_patterns, run, seeds=[1, 2])
    assert set(found.table["quantity"]) == {"attention_step"}
    assert found.table["value"].tolist() == [20.0, 40.0, 60.0]
    assert not found.table["censored"].any()
    found = measured(attention_patterns, replace(run, seed=2), seeds=[1, 2])
    assert len(found.find("attention")) == 3 * 2 * 24 * 25 // 2


def test_without_a_transition(make_run, measured):
    found = measured(attention_patterns, write_errors(make_run(*[unchanged] * 3), [0.9] * 5))
    rows = found.find("attention_step")
    assert rows["value"].tolist() == [0.0, 10.0, 20.0]  # half of 10 ties between 0 and 10
    assert rows["censored"].tolist() == [True, True, False]


def test_every_key_of_a_model_that_is_not_causal(make_run, measured):
    found = measured(attention_patterns, write_errors(make_run(model={"causal": False}), [0.9, 0.1]))
    rows = found.find("attention", "layers.1.heads.0")
    assert rows["index"].tolist() == list(range(24 * 24))
    np.testing.assert_allclose(rows["value"].to_numpy().reshape(24, 24).sum(1), 1, rtol=1e-5)
    assert found.find("attention_step")["value"].tolist() == [0.0, 0.0, 0.0]


def test_what_is_missing_is_named(make_run, measured):
    run = write_errors(make_run(), [0.9], data="in_distribution")
    with pytest.raises(ValueError, match=r"tiny seed 0: .*no running_error out_of_distribution"):
        measured(attention_patterns, run)
