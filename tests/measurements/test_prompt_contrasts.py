from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from learning_geometry.measurements import depth_growth, prompt_contrasts, untangling
from learning_geometry.measurements.prompt_contrasts import QUANTITIES, normalised
from learning_geometry.measurements.twins import swapped_labels

from .prompts import planted_run, walk

PAIRS, WIDTH = 16, 20
FEW = {"resamples": 60, "swapped_labellings": 20}
VARIANCES = QUANTITIES[1:]


def plain_numbers(first, second):
    """The five numbers, in plain numpy."""
    means = first.mean(0), second.mean(0)
    cosine = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    variances = first.var(0, ddof=1), second.var(0, ddof=1)
    return [cosine, *(each.mean() for each in variances), *(each.max() for each in variances)]


@pytest.fixture(scope="module")
def states():
    found = walk(np.random.default_rng(0), 2 * PAIRS, shift=lambda layer: 2.0 * layer)
    for name in found:
        found[name][:, 7] += 500.0  # a rogue coordinate
    return found


@pytest.fixture(scope="module")
def table(states):
    settings = {name: schema["default"] for name, schema in prompt_contrasts.SETTINGS.items()}
    return prompt_contrasts.measure(planted_run(states, {"any": PAIRS}), settings | FEW)


@pytest.fixture
def found(table, measured):
    return measured(SimpleNamespace(SETTINGS={}, measure=lambda *_: table), None)


@pytest.mark.parametrize("part", ["layers.3.residual_pre", "layers.4.residual_mid", "layers.5.residual_post"])
def test_numbers_are_those_of_plain_numpy(found, states, part):
    vectors = states[part].astype(np.float64)
    versions = {
        "": vectors,
        "_without_rogues": np.delete(vectors, 7, axis=1),
        "_normalised": vectors / np.sqrt((vectors**2).mean(1, keepdims=True)),
    }
    assert found.value("rogue_dimensions", part) == 1
    for suffix, version in versions.items():
        expected = plain_numbers(version[:PAIRS], version[PAIRS:])
        labels = swapped_labels("any", PAIRS, 20).astype(bool)
        nulls = np.mean([plain_numbers(version[~second], version[second]) for second in labels], axis=0)
        for quantity, value, null in zip(QUANTITIES, expected, nulls, strict=True):
            (row,) = found.find(quantity + suffix, part).to_dict("records")
            assert row["value"] == pytest.approx(value, rel=1e-4)
            assert row["low"] <= row["value"] <= row["high"]
            assert (row["n"], row["data"]) == (PAIRS, "any")
            unit = "1" if quantity == "mean_cosine" or suffix == "_normalised" else "activation²"
            assert row["unit"] == unit
            (row,) = found.find(quantity + suffix, part, "swapped_twins").to_dict("records")
            assert (row["value"], row["n"]) == (pytest.approx(null, rel=1e-4), 20)


def test_the_interval_is_over_pairs_of_twins(states, measured):
    part = "layers.4.residual_mid"
    vectors = np.delete(states[part].astype(np.float64), 7, axis=1)

    def cosine(pairs):
        return plain_numbers(vectors[pairs], vectors[PAIRS + pairs])[0]

    ends = stats.bootstrap(
        [np.arange(PAIRS)], cosine, vectorized=False, n_resamples=1500, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    only = {name: states[name] for name in states if name.startswith("layers.0.")}
    only |= {"layers.0.residual_mid": states[part], "layers.0.residual_post": states[part]}
    found = measured(prompt_contrasts, planted_run(only, {"any": PAIRS}), resamples=1500, swapped_labellings=2)
    (row,) = found.find("mean_cosine_without_rogues", "layers.0.residual_mid").to_dict("records")
    width = ends.high - ends.low
    assert (row["low"], row["high"]) == (
        pytest.approx(ends.low, abs=width / 8),
        pytest.approx(ends.high, abs=width / 8),
    )
    # a model of one layer has no thirds, and none but the embedding
    assert set(found.table["quantity"]).isdisjoint({"cosine_middle_minus_first", "log_variance_difference"})


def test_twins_are_drawn_together(states, measured):
    layer = {name: states[name] for name in ("layers.0.residual_pre", "layers.0.residual_mid")}
    layer["layers.0.residual_post"] = states["layers.5.residual_post"]
    equal = {name: np.concatenate([each[:PAIRS]] * 2) for name, each in layer.items()}
    found = measured(prompt_contrasts, planted_run(equal, {"any": PAIRS}), **FEW)
    for suffix in ("", "_without_rogues", "_normalised"):
        rows = found.find(f"mean_cosine{suffix}")
        np.testing.assert_allclose(rows[["value", "low", "high"]], 1.0, rtol=1e-12)


def test_the_embedding_is_one_vector(found):
    part = "layers.0.residual_pre"
    for suffix in ("", "_without_rogues", "_normalised"):
        for null in ("", "swapped_twins"):
            assert found.value(f"mean_cosine{suffix}", part, null) == pytest.approx(1.0, abs=1e-12)
            assert [found.value(name + suffix, part, null) for name in VARIANCES] == [0.0] * 4
    assert "layers.0" not in set(found.find("log_variance_difference")["part"])


def test_variance_of_mid_over_pre(found, states):
    for layer in range(1, 6):
        variances = [
            states[f"layers.{layer}.{which}"].astype(np.float64).var(0, ddof=1).mean()
            for which in ("residual_mid", "residual_pre")
        ]
        (row,) = found.find("log_variance_difference", f"layers.{layer}").to_dict("records")
        assert row["value"] == pytest.approx(np.log(variances[0] / variances[1]), rel=1e-4)
        assert row["low"] < row["value"] < row["high"]


@pytest.mark.parametrize("suffix", ["", "_without_rogues", "_normalised"])
def test_differences_between_thirds_of_the_layers(found, suffix):
    by_layer = [found.value(f"mean_cosine{suffix}", f"layers.{layer}.residual_mid") for layer in range(6)]
    first, middle, last = np.reshape(by_layer, (3, 2)).mean(1)
    for quantity, value in (
        ("cosine_middle_minus_first", middle - first),
        ("cosine_last_minus_middle", last - middle),
    ):
        (row,) = found.find(quantity + suffix, "model").to_dict("records")
        assert row["value"] == pytest.approx(value, abs=1e-12)
        assert row["low"] < row["value"] < row["high"]
        (null,) = found.find(quantity + suffix, "model", "swapped_twins").to_dict("records")
        assert null["low"] < null["value"] < null["high"]
        # the sets part with depth, which swapped twins do not
        assert row["high"] < null["low"]


def test_normalisation_is_what_models_do():
    vectors = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32) * 30 + 5
    torch_vectors = torch.from_numpy(vectors)
    np.testing.assert_allclose(normalised(vectors), torch.nn.functional.rms_norm(torch_vectors, [8]), rtol=1e-4)
    layer = torch.nn.functional.layer_norm(torch_vectors, [8])
    np.testing.assert_allclose(normalised(vectors, "layer"), layer, rtol=1e-4, atol=1e-6)


def test_contrasts_are_measured_apart(states, measured):
    some = {name: states[name] for name in ("layers.0.residual_pre", "layers.0.residual_mid")}
    some["layers.0.residual_post"] = states["layers.1.residual_pre"]
    alone = measured(prompt_contrasts, planted_run({name: each[12:] for name, each in some.items()}, {"b": 10}), **FEW)
    both = measured(prompt_contrasts, planted_run(some, {"a": 6, "b": 10}), **FEW)
    of_b = both.table[both.table["data"] == "b"].reset_index(drop=True)
    assert of_b.equals(alone.table)
    # six pairs have a t interval
    rows = both.find("mean_cosine", "layers.0.residual_mid", data="a")
    assert (rows["low"] < rows["value"]).all() and (rows["n"] == 6).all()


def test_a_state_that_is_not_finite_is_refused(states, measured):
    broken = states | {"layers.0.residual_mid": states["layers.0.residual_mid"].copy()}
    broken["layers.0.residual_mid"][3, 3] = np.nan
    for module in (prompt_contrasts, depth_growth, untangling):
        with pytest.raises(ValueError, match="finite"):
            measured(module, planted_run(broken, {"any": PAIRS}), **FEW, swapped_shapes=2)
