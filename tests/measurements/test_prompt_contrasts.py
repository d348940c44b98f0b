from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from learning_geometry.measurements.common.contrast_pairs import swapped_labels
from learning_geometry.measurements.language_models import depth_growth, prompt_contrasts, untangling
from learning_geometry.measurements.language_models.prompt_contrasts import QUANTITIES, normalised
from learning_geometry.models.language.descriptions import FAMILIES, known_family
from learning_geometry.models.language.families import wrap
from learning_geometry.models.language.loading import load
from tests.tiny_families import CONFIGS, module_of

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


def corrected(first, second, part=0):
    """One of the five numbers less its jackknife bias, and its standard error."""
    pairs = len(first)
    left_out = [
        plain_numbers(np.delete(first, pair, axis=0), np.delete(second, pair, axis=0))[part] for pair in range(pairs)
    ]
    value = pairs * plain_numbers(first, second)[part] - (pairs - 1) * np.mean(left_out)
    return value, np.sqrt((pairs - 1) * np.var(left_out))


@pytest.fixture(scope="module")
def states():
    found = walk(np.random.default_rng(0), 2 * PAIRS, shift=lambda layer: 2.0 * layer)
    for name in found:
        found[name][:, 7] += 500.0  # a rogue coordinate
    return found


def versions(states):
    vectors = states.astype(np.float64)
    return {
        "": vectors,
        "_without_rogues": np.delete(vectors, 7, axis=1),
        "_normalised": vectors / np.sqrt((vectors**2).mean(1, keepdims=True)),
    }


def swapped(vectors, labels):
    """Both sets of a labelling, pairs beside each other."""
    here, there = vectors[:PAIRS], vectors[PAIRS:]
    second = labels[:PAIRS, None]
    return np.where(second, there, here), np.where(second, here, there)


@pytest.fixture(scope="module")
def table(states):
    settings = {name: schema["default"] for name, schema in prompt_contrasts.SETTINGS.items()}
    return prompt_contrasts.measure(planted_run(states, {"any": PAIRS}), settings | FEW)


@pytest.fixture
def found(table, measured):
    return measured(SimpleNamespace(SETTINGS={}, measure=lambda *_: table), None)


@pytest.mark.parametrize("part", ["layers.3.residual_pre", "layers.4.residual_mid", "layers.5.residual_post"])
def test_numbers_are_those_of_plain_numpy(found, states, part):
    assert found.value("rogue_dimensions", part) == 1
    for suffix, version in versions(states[part]).items():
        expected = plain_numbers(version[:PAIRS], version[PAIRS:])
        labels = swapped_labels("any", PAIRS, 20).astype(bool)
        nulls = np.mean([plain_numbers(version[~second], version[second]) for second in labels], axis=0)
        expected[0] = min(corrected(version[:PAIRS], version[PAIRS:])[0], 1)
        nulls[0] = np.mean([min(corrected(*swapped(version, second))[0], 1) for second in labels])
        for quantity, value, null in zip(QUANTITIES, expected, nulls, strict=True):
            (row,) = found.find(quantity + suffix, part).to_dict("records")
            assert row["value"] == pytest.approx(value, rel=1e-4)
            assert row["low"] <= row["value"] <= row["high"]
            assert (row["n"], row["data"]) == (PAIRS, "any")
            unit = "1" if quantity == "mean_cosine" or suffix == "_normalised" else "activation²"
            assert row["unit"] == unit
            (row,) = found.find(quantity + suffix, part, "swapped_pairs").to_dict("records")
            assert (row["value"], row["n"]) == (pytest.approx(null, rel=1e-4), 20)


def test_the_interval_is_over_contrast_pairs(states, measured):
    part = "layers.4.residual_mid"
    vectors = np.delete(states[part].astype(np.float64), 7, axis=1)
    only = {name: states[name] for name in states if name.startswith("layers.0.")}
    only |= {"layers.0.residual_mid": states[part], "layers.0.residual_post": states[part]}
    found = measured(prompt_contrasts, planted_run(only, {"any": PAIRS}), resamples=1500, swapped_labellings=2)
    at = "layers.0.residual_mid"
    (row,) = found.find("mean_cosine_without_rogues", at).to_dict("records")
    value, error = corrected(vectors[:PAIRS], vectors[PAIRS:])
    half_width = stats.t.ppf(0.975, PAIRS - 1) * error
    assert (row["low"], row["high"]) == (pytest.approx(value - half_width), pytest.approx(min(value + half_width, 1)))

    def variance(pairs):
        return plain_numbers(vectors[pairs], vectors[PAIRS + pairs])[1]

    ends = stats.bootstrap(
        [np.arange(PAIRS)], variance, vectorized=False, n_resamples=1500, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    (row,) = found.find("mean_variance-first_without_rogues", at).to_dict("records")
    width = ends.high - ends.low
    assert (row["low"], row["high"]) == (
        pytest.approx(ends.low, abs=width / 8),
        pytest.approx(ends.high, abs=width / 8),
    )
    # a model of one layer has no thirds, and none but the embedding
    assert set(found.table["quantity"]).isdisjoint({"cosine_middle_minus_first", "log_variance_difference"})


@pytest.mark.parametrize("apart", [0.0, 0.5])
def test_noise_of_the_means_does_not_lower_the_cosine(measured, apart):
    pairs, width, repeats = 64, 64, 40
    generator = np.random.default_rng(3)
    common, other = generator.standard_normal((2, width))
    means = common + apart * other, common - apart * other
    truth = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    names = [f"layers.{layer}.{which}" for layer in range(repeats) for which in ("residual_pre", "residual_mid")]
    # one repeat a layer
    given = {
        name: np.repeat(means, pairs, axis=0) + generator.standard_normal((2 * pairs, width))
        for name in [*names, f"layers.{repeats - 1}.residual_post"]
    }
    found = measured(prompt_contrasts, planted_run(given, {"any": pairs}), resamples=50, swapped_labellings=40)
    rows = found.find("mean_cosine").set_index("part").loc[names[1::2]]
    assert (rows["low"] <= rows["value"]).all() and (rows["value"] <= rows["high"]).all()
    assert (rows["high"] > rows["low"]).all() and (rows["high"] <= 1).all()
    assert np.mean((rows["low"] <= truth) & (truth <= rows["high"])) >= 0.85
    # the plain cosine is lower by noise / mean, 1 / 64 here
    assert np.mean(rows["value"]) == pytest.approx(truth, abs=0.005)
    for quantity in ("cosine_middle_minus_first", "cosine_last_minus_middle"):
        (row,) = found.find(quantity, "model").to_dict("records")
        assert row["low"] < row["value"] < row["high"] and row["low"] < 0 < row["high"]
    # the null is corrected alike: without a difference measured cosines are among its draws, with one below
    null = found.find("mean_cosine", null="swapped_pairs").set_index("part").loc[names[1::2]]
    inside = (null["low"] <= rows["value"]) & (rows["value"] <= null["high"])
    assert np.mean(inside) >= 0.85 if apart == 0 else not inside.any()


def test_both_of_a_pair_are_drawn_together(states, measured):
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
        for null in ("", "swapped_pairs"):
            assert found.value(f"mean_cosine{suffix}", part, null) == pytest.approx(1.0, abs=1e-12)
            assert [found.value(name + suffix, part, null) for name in VARIANCES] == [0.0] * 4
    assert "layers.0" not in set(found.find("log_variance_difference")["part"])


def test_variance_of_mid_over_pre_around_it(found, states):
    for layer in range(1, 6):
        after = f"layers.{layer + 1}.residual_pre" if layer < 5 else "layers.5.residual_post"
        mid, *around = (
            np.log(states[name].astype(np.float64).var(0, ddof=1).mean())
            for name in (f"layers.{layer}.residual_mid", f"layers.{layer}.residual_pre", after)
        )
        (row,) = found.find("log_variance_difference", f"layers.{layer}").to_dict("records")
        assert row["value"] == pytest.approx(mid - np.mean(around), abs=1e-4)
        assert row["low"] < row["value"] < row["high"]


def test_one_exponential_curve_has_no_variance_of_mid_over_pre(measured):
    vectors = np.random.default_rng(0).standard_normal((2 * PAIRS, WIDTH))
    names = [f"layers.{layer}.{which}" for layer in range(4) for which in ("residual_pre", "residual_mid")]
    grown = {name: vectors * np.exp(0.3 * i) for i, name in enumerate([*names, "layers.3.residual_post"])}
    found = measured(prompt_contrasts, planted_run(grown, {"any": PAIRS}), **FEW)
    rows = found.find("log_variance_difference")
    assert rows["part"].tolist() == ["layers.1", "layers.2", "layers.3"]
    np.testing.assert_allclose(rows[["value", "low", "high"]], 0.0, atol=1e-10)


@pytest.mark.parametrize("suffix", ["", "_without_rogues", "_normalised"])
def test_differences_between_thirds_of_the_layers(found, states, suffix):
    by_layer = []
    for layer in range(6):
        vectors = versions(states[f"layers.{layer}.residual_mid"])[suffix]
        by_layer.append(corrected(vectors[:PAIRS], vectors[PAIRS:])[0])  # above 1 in the first layers
    first, middle, last = np.reshape(by_layer, (3, 2)).mean(1)
    for quantity, value in (
        ("cosine_middle_minus_first", middle - first),
        ("cosine_last_minus_middle", last - middle),
    ):
        (row,) = found.find(quantity + suffix, "model").to_dict("records")
        assert row["value"] == pytest.approx(value, rel=1e-4, abs=1e-7)
        assert row["low"] < row["value"] < row["high"]
        (null,) = found.find(quantity + suffix, "model", "swapped_pairs").to_dict("records")
        assert null["low"] < null["value"] < null["high"]
        # the sets part with depth, which swapped pairs do not
        assert row["high"] < null["low"]


@pytest.mark.parametrize("family", [name for name in CONFIGS if name in FAMILIES])
@pytest.mark.parametrize("scale", [30.0, 1e-3])
def test_normalisation_is_the_models_own(family, scale):
    module = module_of(family)
    model = wrap(module, family)
    norm = module.get_submodule(known_family(module.config, "here").final_norm)
    with torch.no_grad():
        if getattr(norm, "weight", None) is not None:
            norm.weight.fill_(1.0 - known_family(module.config, "here").weight_offset)
        if getattr(norm, "bias", None) is not None:
            norm.bias.fill_(0.0)
        vectors = scale * (torch.randn(5, 24, generator=torch.Generator().manual_seed(0)) + 2.0)
        expected = norm(vectors).numpy()
    np.testing.assert_allclose(normalised(vectors.numpy(), *model.norm), expected, rtol=1e-5, atol=1e-6)
    other = {"layer": "root_mean_square", "root_mean_square": "layer"}[model.norm.kind]
    away = np.linalg.norm(normalised(vectors.numpy(), other, model.norm.epsilon) - expected) / np.linalg.norm(expected)
    assert away > 0.2  # what the wrong norm would do


def test_the_norm_of_the_captured_model_is_used(tiny_language, measured):
    assert tiny_language.norm() == load(**tiny_language.settings["model"]).norm == ("root_mean_square", 1e-6)
    states = tiny_language.prompt_states("trained", "layers.2.residual_mid")
    first, _ = tiny_language.contrasts["sentiment"]
    table = measured(prompt_contrasts, tiny_language, **FEW)
    (row,) = table.find("mean_variance-first_normalised", "layers.2.residual_mid", data="sentiment").to_dict("records")
    vectors = states[first].astype(np.float64)
    version = vectors / np.sqrt((vectors**2).mean(1, keepdims=True) + 1e-6)
    assert row["value"] == pytest.approx(version.var(0, ddof=1).mean(), rel=1e-4)


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


def test_a_norm_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="norm: 'batch' is not known; there are root_mean_square and layer"):
        normalised(np.ones((2, 3)), "batch", 0.0)


def test_a_mean_state_of_zero_has_no_cosine(states, measured):
    zero = states["layers.3.residual_mid"].copy()
    zero[:PAIRS] = 0.0
    found = measured(prompt_contrasts, planted_run(states | {"layers.3.residual_mid": zero}, {"any": PAIRS}), **FEW)
    told = found.find("not_measured")
    why = "the mean state of a set is zero, or that without a pair"
    of_layer = {f"any: no mean_cosine{suffix}, as {why}" for suffix in ("", "_without_rogues", "_normalised")}
    assert set(told[told["part"] == "layers.3.residual_mid"]["data"]) == of_layer
    of_model = {
        f"any: no {quantity}{suffix}, as in some layer {why}"
        for suffix in ("", "_without_rogues", "_normalised")
        for quantity in ("cosine_middle_minus_first", "cosine_last_minus_middle")
    }
    assert set(told[told["part"] == "model"]["data"]) == of_model
    assert "layers.3.residual_mid" not in set(found.find("mean_cosine")["part"])
    assert found.value("mean_variance-first", "layers.3.residual_mid") == 0.0
