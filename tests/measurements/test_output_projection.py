from types import SimpleNamespace

import numpy as np
import pytest
import torch

from learning_geometry.geometry.moments import moments
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.language_models.output_projection import COUNTERFACTUALS, measure
from learning_geometry.models.language import ModelSizes

HEADS, HEAD_WIDTH, LAYERS = 4, 6, 3
INNER = HEADS * HEAD_WIDTH
SCALES = np.geomspace(1, 1e3, INNER)
"""Scales of z, which W_O undoes: a choice of gauge that must not matter."""
SETTINGS = {"every_layer": 1, "draws": 3}


def weights(width, layer):
    """Layer 0 writes into orthogonal subspaces, layer 1's heads all write into one, layer 2's at random."""
    noise = np.random.default_rng(layer).standard_normal((width, INNER))
    if layer == 0:
        return np.linalg.qr(noise)[0] if width >= INNER else noise
    if layer == 1:
        noise[HEAD_WIDTH:] = 0
        blocks = [np.linalg.qr(block[:HEAD_WIDTH])[0] for block in np.split(noise, HEADS, axis=1)]
        noise[:HEAD_WIDTH] = np.concatenate(blocks, axis=1)
    return noise


class Planted(LanguageRun):
    """White z and known W_O, in a gauge in which z is far from white."""

    width = INNER

    def load(self, tokenizer=False):
        assert not tokenizer

        def layer_weights(layer):
            return SimpleNamespace(output=torch.from_numpy(weights(self.width, layer) / SCALES))

        sizes = ModelSizes(11, LAYERS, self.width, HEADS, HEAD_WIDTH, mlp_width=0, context=None)
        return SimpleNamespace(sizes=sizes, layer_weights=layer_weights)

    summed = range(LAYERS)

    def moment_names(self, text):
        return [f"layers.{layer}.{part}" for layer in self.summed for part in ("attention.z", "attention.output")]

    def moments(self, text, name):
        assert name.endswith("attention.z")
        z = np.random.default_rng([len(text), int(name.split(".")[1])]).standard_normal((2000, INNER))
        return moments(z * SCALES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return Planted("planted", {}, {"prose": folder, "code": folder}, {})


@pytest.fixture(scope="module")
def table(run):
    return measure(run, SETTINGS)


def find(table, quantity, part, null="", data="prose"):
    where = {"quantity": quantity, "part": part, "null": null, "data": data}
    (row,) = table[np.logical_and.reduce([table[name] == value for name, value in where.items()])].to_dict("records")
    return row


def test_white_z_has_full_rank_in_any_gauge(table):
    for layer in range(LAYERS):
        for quantity in ("white_z_directions_99", "white_z_effective_rank"):
            row = find(table, quantity, f"layers.{layer}.attention.z")
            null = find(table, quantity, f"layers.{layer}.attention.z", "isotropic")
            assert row["value"] == pytest.approx(1.0, abs=1.01 / INNER)
            assert null["value"] == pytest.approx(1.0, abs=1.01 / INNER)
            assert (row["n"], null["n"]) == (2000, 1)


def test_heads_that_write_into_one_subspace_explain_the_whole_drop(table):
    part = "layers.1.attention.output"
    assert find(table, "projected_directions_99", part)["value"] == pytest.approx(HEAD_WIDTH / INNER)
    assert find(table, "projected_directions_99", part, "orthogonal_writing")["value"] == pytest.approx(
        find(table, "white_z_directions_99", "layers.1.attention.z")["value"], abs=1.01 / INNER
    )
    for quantity in ("drop_explained", "drop_explained_effective_rank"):
        assert find(table, quantity, "layers.1.orthogonal_writing")["value"] == pytest.approx(1.0, abs=0.06)
        # turned at random they overlap less than that, and more than not at all
        assert 0.3 < find(table, quantity, "layers.1.random_writing")["value"] < 0.95
        assert find(table, quantity, "layers.1.white_input")["value"] == pytest.approx(0, abs=0.06)
        # 6 singular values are not 0, whatever they read
        assert find(table, quantity, "layers.1.random_reading")["value"] == pytest.approx(0, abs=0.06)


def test_shares_follow_from_the_ranks(table):
    for layer in (1, 2):
        for name in COUNTERFACTUALS:
            for quantity, kind in (
                ("drop_explained", "directions_99"),
                ("drop_explained_effective_rank", "effective_rank"),
            ):
                z = find(table, f"white_z_{kind}", f"layers.{layer}.attention.z")["value"]
                at = (f"projected_{kind}", f"layers.{layer}.attention.output")
                output, instead = find(table, *at)["value"], find(table, *at, name)["value"]
                row = find(table, quantity, f"layers.{layer}.{name}")
                assert row["value"] == pytest.approx((instead - output) / (z - output))
                assert row["n"] == 2000


def test_random_counterfactuals_say_how_many_were_drawn(table):
    of_layer = [find(table, "projected_effective_rank", "layers.2.attention.output", name) for name in COUNTERFACTUALS]
    assert [row["n"] for row in of_layer] == [1, 3, 3, 1]
    for layer in range(LAYERS):
        assert find(table, "projected_effective_rank", f"layers.{layer}.attention.output", "random_weight")["n"] == 3
    assert set(table[table["quantity"] != "not_measured"]["data"]) == {"prose", "code"}


def test_a_gaussian_weight_is_no_lower_than_random_ones(table):
    for kind in ("directions_99", "effective_rank"):
        values = [
            find(table, f"projected_{kind}", f"layers.{layer}.attention.output")["value"] for layer in range(LAYERS)
        ]
        nulls = [
            find(table, f"projected_{kind}", f"layers.{layer}.attention.output", "random_weight")["value"]
            for layer in range(LAYERS)
        ]
        # all singular values alike, overlapping heads, Gaussian
        assert values[0] > nulls[0] + 0.05 and values[1] < nulls[1] - 0.3
        assert values[2] == pytest.approx(nulls[2], abs=0.1)
    assert not any("random_weight" in part for part in table["part"])


def test_where_nothing_drops_there_is_nothing_to_explain(table):
    # orthonormal columns that read white z: only sampling keeps the ranks from being equal
    drop = (
        find(table, "white_z_directions_99", "layers.0.attention.z")["value"]
        - find(table, "projected_directions_99", "layers.0.attention.output")["value"]
    )
    assert drop == pytest.approx(0, abs=1e-12)
    lacking = table[(table["part"] == "layers.0.random_writing") & (table["quantity"] == "not_measured")]
    assert "prose: no drop_explained, as the rank does not drop" in set(lacking["data"])


def test_a_z_that_does_not_vary_has_no_projection(run, table):
    class Still(Planted):
        def moments(self, text, name):
            of = super().moments(text, name)
            return of._replace(scatter=np.zeros_like(of.scatter)) if name.startswith("layers.1.") else of

    found = measure(Still("still", {}, {"prose": run.texts["prose"]}, {}), SETTINGS)
    of_layer = found[found["part"].str.startswith("layers.1.")]
    assert set(of_layer["quantity"]) == {"not_measured"}
    assert set(of_layer["data"]) == {"prose: no projection, as z is the same at every token"}
    assert {part.split(".", 2)[2] for part in of_layer["part"]} == {"attention.z", "attention.output", *COUNTERFACTUALS}
    at = ("projected_effective_rank", "layers.2.attention.output")
    assert find(found, *at)["value"] == find(table, *at)["value"]


def test_heads_wider_than_the_model_cannot_write_orthogonally(run, tmp_path):
    class Narrow(Planted):
        width = INNER - 8

    table = measure(Narrow("narrow", {}, {"prose": tmp_path}, {}), SETTINGS | {"every_layer": 2})
    assert "orthogonal_writing" not in set(table["null"])
    assert {part.split(".", 2)[2] for part in table[table["quantity"] == "drop_explained"]["part"]} == set(
        COUNTERFACTUALS[:-1]
    )
    assert {part.split(".")[1] for part in table["part"]} == {"0", "2"}
    assert not table["value"].isna().any()


def test_the_same_settings_give_the_same_table(run):
    settings = SETTINGS | {"every_layer": 2}
    assert measure(run, settings).equals(measure(run, settings))


def test_layers_without_moments_have_no_rows(run, table):
    class Some(Planted):
        summed = (2,)

    some = measure(Some("planted", {}, run.texts, {}), SETTINGS)
    expected = table[table["part"].str.startswith("layers.2.")].reset_index(drop=True)
    assert len(expected) and some.reset_index(drop=True).equals(expected)
