import numpy as np
import pytest

from learning_geometry.geometry.nulls import haar_subspaces
from learning_geometry.measurements.language_models import depth_growth
from learning_geometry.measurements.language_models.depth_growth import random_directions_spread

from .prompts import planted_run, walk

PAIRS = 12
FEW = {"resamples": 60}


def along(sizes, noises, width=16, prompts=2 * PAIRS):
    """States of those norms along one direction, and noise of those sizes, the same for both streams."""
    generator = np.random.default_rng(0)
    direction = np.eye(width)[0]
    offsets = generator.standard_normal((prompts, width)) * (1 - direction)
    states = {}
    for layer, (size, noise) in enumerate(zip(sizes, noises, strict=True)):
        state = (size * direction + noise * offsets).astype(np.float32)
        states |= {f"layers.{layer}.residual_pre": state, f"layers.{layer}.residual_mid": state}
    return states | {f"layers.{len(sizes) - 1}.residual_post": state + direction.astype(np.float32)}


@pytest.fixture(scope="module")
def states():
    return walk(np.random.default_rng(0), 2 * PAIRS)


@pytest.fixture
def found(states, measured):
    return measured(depth_growth, planted_run(states, {"any": PAIRS}), **FEW)


def test_norms_and_cosines_are_those_of_plain_numpy(found, states):
    names = [*(f"layers.{layer}.residual_pre" for layer in range(6)), "layers.5.residual_post"]
    depth = np.stack([states[name] for name in names]).astype(np.float64)
    added = depth[1:] - depth[:-1]
    for layer in range(6):
        part = f"layers.{layer}.residual_post"
        expected = {
            "state_norm": np.sqrt((depth[layer + 1] ** 2).sum(1)).mean(),
            "increment_norm": np.sqrt((added[layer] ** 2).sum(1)).mean(),
        }
        if layer:
            pairs = zip(added[layer - 1], added[layer], strict=True)
            cosines = [one @ other / np.sqrt((one @ one) * (other @ other)) for one, other in pairs]
            expected["increment_cosine"] = np.mean(cosines)
        for quantity, value in expected.items():
            (row,) = found.find(quantity, part).to_dict("records")
            assert (row["value"], row["n"]) == (pytest.approx(value), PAIRS)
            assert row["low"] < row["value"] < row["high"]
    assert "layers.0.residual_post" not in set(found.find("increment_cosine")["part"])
    mean = found.find("increment_cosine")["value"].mean()
    assert found.value("mean_increment_cosine", "model") == pytest.approx(mean)
    mid = states["layers.2.residual_mid"].astype(np.float64)
    assert found.value("mean_variance", "layers.2.residual_mid") == pytest.approx(mid.var(0, ddof=1).mean())
    assert found.value("state_norm", "layers.2.residual_mid") == pytest.approx(np.linalg.norm(mid, axis=1).mean())


def test_the_null_turns_all_prompts_together():
    generator = np.random.default_rng(0)
    common = 1.5 * generator.standard_normal((2, 1, 12))
    first, second = common + generator.standard_normal((2, 9, 12))
    units = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (first, second)]
    turned = haar_subspaces(12, 12, 4000, generator)
    cosines = np.einsum("id,kde,ie->k", units[0], turned, units[1]) / 9
    spread = random_directions_spread(first, second)
    assert cosines.std() == pytest.approx(spread, rel=0.05)
    assert np.mean(np.abs(cosines) < 1.96 * spread) == pytest.approx(0.95, abs=0.015)
    # more than independent prompts would have, less than a single one
    assert 1 / np.sqrt(9 * 12) < spread < 1 / np.sqrt(12)


def test_a_state_that_goes_straight_on(measured):
    states = along(3 + 2 * np.arange(9.0), np.full(9, 1e-6))
    found = measured(depth_growth, planted_run(states, {"any": PAIRS}), **FEW)
    assert found.value("mean_increment_cosine") == pytest.approx(1.0)
    (null,) = found.find("mean_increment_cosine", null="random_directions").to_dict("records")
    # 8 cosines of single directions in 16 dimensions
    assert (null["value"], null["high"]) == (0.0, pytest.approx(1.96 / np.sqrt(16 * 8), rel=1e-3))
    (null,) = found.find("increment_cosine", "layers.3.residual_post", "random_directions").to_dict("records")
    assert (null["low"], null["high"]) == (pytest.approx(-1.96 / 4, rel=1e-3), pytest.approx(1.96 / 4, rel=1e-3))
    for part in ("residual_pre", "residual_mid"):
        errors = {
            law: found.value(f"held_out_error-{law}-state_norm", part)
            for law in ("linear", "square", "power", "exponential")
        }
        assert errors["linear"] < 1e-5 < 0.01 < min(errors["square"], errors["power"], errors["exponential"])
        difference = found.value("exponential_minus_square-state_norm", part)
        assert difference == pytest.approx(errors["exponential"] - errors["square"])


@pytest.mark.parametrize(("law", "sign"), [("exponential", -1), ("power", 1)])
def test_the_law_of_the_variance(measured, law, sign):
    layers = np.arange(10.0)
    curve = np.exp(0.3 * layers) if law == "exponential" else layers**1.5
    generator = np.random.default_rng(1)
    states = along(np.full(10, 50.0), curve)
    for name, state in states.items():  # prompts do not all grow alike
        states[name] = state + (0.05 * state.std() * generator.standard_normal(state.shape)).astype(np.float32)
    found = measured(depth_growth, planted_run(states, {"any": PAIRS}), **FEW)
    variances = [
        states[f"layers.{layer}.residual_mid"].astype(np.float64).var(0, ddof=1).mean() for layer in range(1, 10)
    ]
    expected = {}
    for name, x in (("exponential", layers[1:]), ("power", np.log(layers[1:]))):
        line = np.polyfit(x[:6], np.log(variances[:6]), 1)
        expected[name] = np.sqrt(np.mean((np.polyval(line, x[6:]) - np.log(variances[6:])) ** 2))
        assert found.value(f"held_out_error-{name}-mean_variance", "residual_mid") == pytest.approx(expected[name])
    (row,) = found.find("exponential_minus_power-mean_variance", "residual_mid").to_dict("records")
    assert row["value"] == pytest.approx(expected["exponential"] - expected["power"])
    assert row["low"] < row["high"] and sign * row["low"] > 0 and sign * row["high"] > 0


def test_a_variance_where_norms_grow_linearly_is_no_exponential(measured):
    states = along(np.full(12, 50.0), 12.0 + np.arange(12.0))
    generator = np.random.default_rng(1)
    for name, state in states.items():
        states[name] = state + (0.01 * generator.standard_normal(state.shape)).astype(np.float32)
    found = measured(depth_growth, planted_run(states, {"any": PAIRS}), **FEW)
    assert found.value("held_out_error-square-mean_variance", "residual_mid") < 0.01
    ends = {}
    for law in ("power", "square"):
        (row,) = found.find(f"exponential_minus_{law}-mean_variance", "residual_mid").to_dict("records")
        ends[law] = row["low"], row["high"]
    # against a power law alone it would look exponential
    assert ends["power"][1] < 0 < ends["square"][0]


def test_layer_zero_is_in_no_fit(found, states, measured):
    moved = {name: 9 * each if name.startswith("layers.0.") else each for name, each in states.items()}
    other = measured(depth_growth, planted_run(moved, {"any": PAIRS}), **FEW)
    for part in ("residual_pre", "residual_mid"):
        for what in ("mean_variance", "state_norm"):
            for quantity in (f"held_out_error-power-{what}", f"exponential_minus_power-{what}"):
                columns = ["value", "low", "high"]
                np.testing.assert_array_equal(
                    other.find(quantity, part)[columns], found.find(quantity, part)[columns], strict=True
                )


def test_three_layers_are_too_few_for_a_fit(states, measured):
    three = {name: each for name, each in states.items() if int(name.split(".")[1]) < 3}
    three["layers.2.residual_post"] = states["layers.3.residual_pre"]
    found = measured(depth_growth, planted_run(three, {"any": PAIRS}), **FEW)
    assert not found.table["quantity"].str.contains("held_out|minus").any()
    assert len(found.find("increment_cosine")) == 2


def test_where_no_two_layers_after_one_another_add_something_there_is_no_cosine(states, measured):
    # every other layer leaves the stream as it was
    names = [*(f"layers.{layer}.residual_pre" for layer in range(6)), "layers.5.residual_post"]
    still = dict(states)
    for before, after in zip(names[1::2], names[2::2], strict=False):
        still[after] = still[before]
    found = measured(depth_growth, planted_run(still, {"any": PAIRS}), **FEW)
    assert not found.table["quantity"].str.contains("increment_cosine").any()
    told = found.find("not_measured")
    told = dict(zip(told["part"], told["data"], strict=True))
    assert set(told) == {"model", *(f"layers.{layer}.residual_post" for layer in range(1, 6))}
    assert told["model"] == "any: no mean_increment_cosine over all layers, as 5 of them have none"
    lengths = found.find("increment_norm")["value"].to_numpy()
    assert len(lengths) == 6 and (lengths[1::2] == 0).all() and (lengths[::2] > 0).all()
