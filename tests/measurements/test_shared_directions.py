from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from learning_geometry.geometry.increments import shares_in_previous
from learning_geometry.geometry.nulls import haar_subspace, haar_subspaces, random_subspace_energies
from learning_geometry.geometry.shared_directions import (
    spectra_matched,
    spectral_overlaps,
    subspace_overlaps,
)
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.language_models import shared_directions
from learning_geometry.measurements.language_models.shared_directions import (
    compared,
    participation,
    random_row,
    rotation_null,
    shares_in_earlier,
)
from learning_geometry.seeding import seeded
from tests.geometry.oracles import overlap_null, spectral_overlap_mean

from .conftest import defaults

WIDTH, LAYERS, PAIRS, RANK = 30, 4, 12, 3


class Planted(LanguageRun):
    """A run of given weights and states, which reads nothing."""

    def load(self, tokenizer=False):
        weights = self.settings["weights"]
        layers = len(weights["output"])

        def of_layer(layer):
            norms = self.settings.get("norms", {"output_norm": None, "down_norm": None})
            return SimpleNamespace(**{role: torch.from_numpy(found[layer]) for role, found in weights.items()}, **norms)

        sizes = SimpleNamespace(layers=layers, width=WIDTH, mlp_width=50 if "down" in weights else 0)
        return SimpleNamespace(sizes=sizes, layer_weights=of_layer)

    def prompt_names(self):
        layers = len(self.settings["weights"]["output"])
        parts = [f"layers.{layer}.{part}" for layer in range(layers) for part in ("residual_pre", "residual_mid")]
        return [*parts, f"layers.{layers - 1}.residual_post", "final"]

    def prompt_states(self, weights, name):
        assert weights == "trained"
        _, layer, part = name.split(".")
        return self.settings["states"][int(layer) + (part == "residual_post")]

    @property
    def contrasts(self):
        return {"tense": (slice(0, PAIRS), slice(PAIRS, 2 * PAIRS))}


def gaussian(name, *shape):
    return seeded("test", name).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def common():
    return haar_subspace(WIDTH, RANK, seeded("test", "common")).astype(np.float32)


@pytest.fixture
def planted(common):
    """W_O of all layers write mostly along the same directions, W_down do not; layers add along those directions."""
    outputs = [gaussian(f"o{i}", WIDTH, WIDTH) + 20 * common @ gaussian(f"c{i}", RANK, WIDTH) for i in range(LAYERS)]
    downs = [gaussian(f"d{i}", WIDTH, 50) for i in range(LAYERS)]
    added = gaussian("added", LAYERS, 2 * PAIRS, RANK) @ common.T
    states = np.concatenate([gaussian("start", 1, 2 * PAIRS, WIDTH), added]).cumsum(0)
    return {"weights": {"output": outputs, "down": downs}, "states": states.astype(np.float32)}


def measure(settings, **options):
    run = Planted("planted", settings, {}, {})
    table = shared_directions.measure(run, defaults(shared_directions.SETTINGS) | options)

    def row(quantity, part, null="", **columns):
        chosen = table[(table["quantity"] == quantity) & (table["part"] == part) & (table["null"] == null)]
        for name, value in columns.items():
            chosen = chosen[chosen[name] == value]
        (found,) = chosen.to_dict("records")
        return found

    return table, row


def test_planted_directions_are_shared_beyond_every_null(planted):
    table, row = measure(planted, null_draws=3)
    for layer in range(LAYERS):
        for mean, null in (("mean_output_overlap", "random_subspaces"), ("mean_spectral_overlap", "spectra_matched")):
            found = row(mean, f"layers.{layer}.output", data="output")
            assert found["value"] > 0.9 and found["n"] == LAYERS - 1 and np.isnan(found["low"])
            for name in (null, "rows_permuted"):
                assert found["value"] > row(mean, f"layers.{layer}.output", name, data="output")["high"]
            down = row(mean, f"layers.{layer}.down", data="down")["value"]
            chance = row(mean, f"layers.{layer}.down", null, data="down")
            assert abs(down - chance["value"]) < 2 * (chance["high"] - chance["value"])
            assert row(mean, f"layers.{layer}.output", data="")["n"] == 2 * (LAYERS - 1)
    assert set(table["step"]) == set(table["seed"]) == {0}


def test_every_pair_is_that_of_the_library(planted):
    table, row = measure(planted, null_draws=1)
    overlaps, bases = compared(planted["weights"], RANK)
    every = [*planted["weights"]["output"], *planted["weights"]["down"]]
    both = np.concatenate([bases["output"], bases["down"]])
    np.testing.assert_allclose(overlaps["output_overlap"], subspace_overlaps(both))
    values = [np.linalg.svd(weight, compute_uv=False) for weight in every]
    for i, j in ((0, 3), (2, 5), (7, 4), (1, 5)):
        (a, role), (b, other) = ((k % LAYERS, ("output", "down")[k // LAYERS]) for k in (i, j))
        where = {"part": f"layers.{a}.{role}", "data": other, "index": b}
        assert row("output_overlap", **where)["value"] == pytest.approx(overlaps["output_overlap"][i, j])
        assert row("spectral_overlap", **where)["value"] == pytest.approx(spectral_overlaps(every)[i, j])
        assert row("output_overlap", **where, null="random_subspaces")["value"] == pytest.approx(RANK / WIDTH)
        expected = spectral_overlap_mean(values[i], values[j], WIDTH)
        assert row("spectral_overlap", **where, null="spectra_matched")["value"] == pytest.approx(expected)
        assert np.isnan(row("output_overlap", **where, null="rows_permuted")["low"])  # of one draw
    pairs = table[(table["quantity"] == "output_overlap") & (table["null"] == "")]
    assert len(pairs) == 2 * LAYERS * (2 * LAYERS - 1)
    mean = row("mean_output_overlap", "layers.1.down", data="output")["value"]
    assert mean == pytest.approx(overlaps["output_overlap"][5, [0, 2, 3]].mean())


def test_heavy_coordinates_alone_are_what_permuted_rows_share():
    heavy = np.ones((WIDTH, 1), dtype=np.float32)
    heavy[:RANK] = 10
    weights = {"output": [heavy * gaussian(f"h{i}", WIDTH, 40) for i in range(LAYERS)]}
    table, row = measure({"weights": weights, "states": gaussian("states", LAYERS + 1, 2 * PAIRS, WIDTH)}, null_draws=4)
    assert set(table["data"]) == {"output", "", "tense"}  # no MLP
    for quantity in ("mean_output_overlap", "mean_spectral_overlap"):
        found = row(quantity, "layers.2.output", data="output")["value"]
        permuted = row(quantity, "layers.2.output", "rows_permuted", data="output")
        assert permuted["low"] < found < permuted["high"]
        assert found > 2 * row(quantity, "layers.2.output", shared_directions.RANDOM[quantity[5:]], data="")["high"]


def test_increments_within_what_the_layers_before_share(planted, common):
    _, row = measure(planted, null_draws=3)
    for layer in range(2, LAYERS):  # before layer 1 W_O is one weight among two
        where = {"part": f"layers.{layer}", "data": "tense"}
        found = row("increment_share", **where)
        assert 0.9 < found["low"] <= found["value"] <= found["high"] <= 1 and found["n"] == PAIRS
        for null in ("random_subspaces", "rows_permuted"):
            assert row("increment_share", **where, null=null)["high"] < 0.7
    elsewhere = planted["states"] @ (np.eye(WIDTH, dtype=np.float32) - common @ common.T)
    _, row = measure(planted | {"states": gaussian("elsewhere", *elsewhere.shape)})
    found, null = (row("increment_share", "layers.2", null=null) for null in ("", "random_subspaces"))
    assert null["value"] == pytest.approx(RANK / WIDTH) and null["low"] < found["value"] < null["high"]


def test_shares_are_those_of_the_library():
    bases = haar_subspaces(WIDTH, RANK, LAYERS, seeded("test", "bases"))
    added = gaussian("any", LAYERS, 6, WIDTH).astype(np.float64)
    found = shares_in_earlier(added, {"output": bases}, RANK)
    np.testing.assert_allclose(found, shares_in_previous(added, bases, RANK)[1:])
    # of two roles the projectors add up
    other = haar_subspaces(WIDTH, RANK, LAYERS, seeded("test", "others"))
    both = shares_in_previous(added, np.concatenate([bases, other], axis=2), 2)[1:]
    np.testing.assert_allclose(shares_in_earlier(added, {"output": bases, "down": other}, 2), both)


def test_exact_nulls_are_those_of_draws():
    generator, draws = seeded("test", "nulls"), 1500
    sample = overlap_null(WIDTH, RANK, draws, generator)
    mean, variance = rotation_null(float(RANK), float(RANK), WIDTH)
    assert mean == pytest.approx(sample.mean(), rel=0.02) and variance**0.5 == pytest.approx(sample.std(), rel=0.06)
    row = random_row("", mean, variance)
    np.testing.assert_allclose(np.quantile(sample, [0.025, 0.975]), [row["low"], row["high"]], atol=0.006)
    values = [np.geomspace(5, 1, 20), np.geomspace(9, 0.1, WIDTH)]
    fixed = spectra_matched(values[0], WIDTH, generator)
    drawn = [spectra_matched(values[1], WIDTH, generator) for _ in range(300)]
    sample = spectral_overlaps([fixed, *drawn])[0, 1:]
    mean, variance = rotation_null(participation(fixed), participation(drawn[0]), WIDTH)
    assert mean == pytest.approx(spectral_overlap_mean(*values, WIDTH)) == pytest.approx(sample.mean(), rel=0.01)
    assert variance**0.5 == pytest.approx(sample.std(), rel=0.15)


def test_the_null_of_shares_allows_for_alike_increments(planted):
    # one direction for all prompts: as uncertain as a single vector
    states = planted["states"].copy()
    states[3] = states[2] + gaussian("one", WIDTH)
    _, row = measure(planted | {"states": states})
    null = row("increment_share", "layers.2", "random_subspaces")
    energies = random_subspace_energies(np.eye(1), WIDTH, RANK, 4000, seeded("test", "energies"))[:, 0]
    np.testing.assert_allclose([null["low"], null["high"]], np.quantile(energies, [0.025, 0.975]), atol=0.015)


def test_of_a_captured_model(tiny_language):
    table = shared_directions.measure(tiny_language, defaults(shared_directions.SETTINGS))
    assert set(table["data"]) == {"", "output", "down", "harmfulness", "sentiment"}
    shares = table[(table["quantity"] == "increment_share") & (table["null"] == "")]
    assert set(shares["part"]) == {"layers.1", "layers.2", "layers.3"}
    assert (shares["low"] <= shares["value"]).all() and (shares["value"] <= shares["high"]).all()
    assert table["value"].between(0, 1).all()


def test_one_layer_shares_nothing(planted):
    weights = {role: found[:1] for role, found in planted["weights"].items()}
    with pytest.raises(ValueError, match="planted: its model has one layer"):
        measure(planted | {"weights": weights})


def test_a_norm_between_a_weight_and_the_stream_is_part_of_what_is_compared(planted):
    norms = {"output_norm": 1 + gaussian("n", WIDTH), "down_norm": 2 + gaussian("m", WIDTH)}
    multiplied = {
        role: [norms[f"{role}_norm"][:, None] * weight for weight in matrices]
        for role, matrices in planted["weights"].items()
    }
    through = {name: torch.from_numpy(norm) for name, norm in norms.items()}
    table, _ = measure(planted | {"norms": through}, null_draws=1)
    expected, _ = measure(planted | {"weights": multiplied}, null_draws=1)
    pd.testing.assert_frame_equal(table, expected)
    without, _ = measure(planted, null_draws=1)
    assert np.abs(table["value"] - without["value"]).max() > 0.1


def test_a_mixture_of_experts_is_refused_by_name(planted):
    run = Planted("planted", planted, {}, {})
    model = run.load()
    none = SimpleNamespace(output=torch.ones(WIDTH, WIDTH), output_norm=None, down=None, down_norm=None)
    run.load = lambda: SimpleNamespace(sizes=model.sizes, layer_weights=lambda layer: none)
    with pytest.raises(ValueError, match="planted: the MLP of layer 0 is a mixture of experts, each with a W_down"):
        shared_directions.measure(run, defaults(shared_directions.SETTINGS))


def test_a_layer_of_zeros_is_named_and_all_others_are_measured(planted):
    """One weight of zeros, and one of too few directions: the others are as without the two."""
    weights = {role: [weight.copy() for weight in found] for role, found in planted["weights"].items()}
    roles = list(weights)
    weights[roles[0]][1][:] = 0.0
    directions = np.linalg.svd(weights[roles[0]][2], full_matrices=False)
    low = directions[0][:, :2] * directions[1][:2] @ directions[2][:2]
    weights[roles[0]][2] = low.astype(weights[roles[0]][2].dtype)
    table, whole = (measure(planted | {"weights": of})[0] for of in (weights, planted["weights"]))
    lacking = table[table["quantity"] == "not_measured"]
    of_weights = lacking[lacking["part"].str.endswith(roles[0])]
    assert of_weights["part"].tolist() == [f"layers.{layer}.{roles[0]}" for layer in (1, 2)]
    assert of_weights["data"].tolist() == [f"{n} directions are written along, and 3 are compared" for n in (0, 2)]
    assert lacking["value"].isna().all() and (lacking["n"] == 0).all()
    rest = table[table["quantity"] != "not_measured"]
    assert rest["value"].notna().all()
    gone = {f"layers.{layer}.{roles[0]}" for layer in (1, 2)}
    assert not gone & set(rest["part"])
    key = ["part", "quantity", "data", "index"]
    of_pairs = rest[(rest["quantity"] == "output_overlap") & (rest["null"] == "")].merge(
        whole[whole["null"] == ""], on=key
    )
    assert len(of_pairs) > 0
    np.testing.assert_allclose(of_pairs["value_x"], of_pairs["value_y"])
    means = rest[(rest["quantity"] == "mean_output_overlap") & (rest["null"] == "") & (rest["data"] == "")]
    of_others = [len(roles) * LAYERS - 2 - len(roles) + (layer in (1, 2)) for layer in map(int, means["part"].str[7])]
    assert means["n"].tolist() == of_others


def test_the_only_weight_of_its_role_is_compared_with_the_other_role_alone(planted):
    weights = dict(planted["weights"])
    weights["down"] = [weights["down"][0], *(np.zeros_like(weight) for weight in weights["down"][1:])]
    table, row = measure(planted | {"weights": weights})
    of_down = table[(table["part"] == "layers.0.down") & (table["null"] == "")]
    for quantity in ("output_overlap", "spectral_overlap"):
        assert set(of_down[of_down["quantity"] == quantity]["data"]) == {"output"}
        assert set(of_down[of_down["quantity"] == f"mean_{quantity}"]["data"]) == {"", "output"}
        assert row(f"mean_{quantity}", "layers.0.down", data="")["n"] == LAYERS - 1
    assert table[(table["quantity"] != "not_measured")]["value"].notna().all()


def test_weights_that_write_nowhere_are_refused(planted):
    weights = {role: [np.zeros_like(weight) for weight in found] for role, found in planted["weights"].items()}
    with pytest.raises(ValueError, match="fewer than two layers have a weight that writes along 3 directions"):
        measure(planted | {"weights": weights})
