import numpy as np
import pytest

from learning_geometry.geometry.moments import Moments, moments, principal_variances
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.language_models.activation_ranks import measure, measured_layers
from learning_geometry.models.language import ModelSizes

WIDTH, LAYERS, VECTORS = 20, 3, 400
COUNTS = (100, 200, 400)
SETTINGS = {"every_layer": 1, "null_draws": 5}
PARTS = ("residual_pre", "attention.z", "attention.output")


class Planted(LanguageRun):
    """Vectors whose ranks are known: each layer's attention output varies along 5 (1 + layer) directions alone."""

    def sizes(self):
        return ModelSizes(11, LAYERS, WIDTH, heads=2, head_width=WIDTH // 2, mlp_width=0, context=None)

    def moment_names(self, text):
        return [f"layers.{layer}.{part}" for layer in range(LAYERS) for part in PARTS]

    def vectors(self, text, name):
        noise = np.random.default_rng([len(text), len(name)]).standard_normal((VECTORS, WIDTH))
        layer = int(name.split(".")[1])
        if name.endswith("attention.output"):
            # orthonormal columns: equal variances, to the last digit
            found = np.zeros((VECTORS, WIDTH))
            found[:, : 5 * (1 + layer)] = np.linalg.qr(noise - noise.mean(0))[0][:, : 5 * (1 + layer)]
            return found
        if name.endswith("residual_pre"):
            # two coordinates out of all proportion: one large and constant, one that varies
            noise[:, 3] += 1e3
            noise[:, 7] *= 1e3
        return noise

    def moments(self, text, name):
        return moments(self.vectors(text, name))

    def spectra(self, text, name):
        return {n: principal_variances(moments(self.vectors(text, name)[:n]).scatter) for n in COUNTS}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return Planted("planted", {}, {"prose": folder, "code": folder}, {})


@pytest.fixture(scope="module")
def table(run):
    return measure(run, SETTINGS)


def find(table, quantity, part, null="", index=0, data="prose"):
    where = {"quantity": quantity, "part": part, "null": null, "index": index, "data": data}
    (row,) = table[np.logical_and.reduce([table[name] == value for name, value in where.items()])].to_dict("records")
    return row


def test_shares_of_the_width_that_were_planted(run, table):
    for layer in range(LAYERS):
        share = 5 * (1 + layer) / WIDTH
        part = f"layers.{layer}.attention.output"
        for quantity in ("directions_99", "effective_rank", "effective_rank_of_variances"):
            row = find(table, quantity, part)
            assert row["value"] == pytest.approx(share)
            assert (row["n"], row["unit"], row["step"], row["seed"]) == (VECTORS, "1", 0, 0)
            assert np.isnan(row["low"])
    lacking = table["quantity"] == "not_measured"
    assert set(table[~lacking]["data"]) == {"prose", "code"}
    # its 5 directions are rogue coordinates, and the others are zero
    assert set(table[lacking]["part"]) == {"layers.0.attention.output"}
    assert set(table[lacking]["data"]) == {
        f"{text}: no ranks, as it is the same at every token without the rogue coordinates" for text in run.texts
    }


def test_the_null_is_what_gaussian_vectors_give(table):
    gaussian = find(table, "effective_rank", "layers.1.attention.z")
    null = find(table, "effective_rank", "layers.1.attention.z", "isotropic")
    assert null["n"] == 5
    assert null["low"] - 0.01 < gaussian["value"] < null["high"] + 0.01
    # of fewer vectors as of all: lower for both
    for count in COUNTS:
        few = find(table, "effective_rank", "layers.1.attention.z", index=count)
        expected = find(table, "effective_rank", "layers.1.attention.z", "isotropic", count)
        assert few["n"] == count and few["value"] == pytest.approx(expected["value"], abs=0.02)
    assert find(table, "effective_rank", "layers.1.attention.z", "isotropic", 100)["value"] < null["value"] - 0.01
    measured, nulls = (
        table[(table["null"] == null) & (table["quantity"] != "not_measured")] for null in ("", "isotropic")
    )
    assert len(measured) == len(nulls)


def test_the_curve_ends_at_all_vectors(table):
    for quantity in ("directions_99", "effective_rank"):
        for part in PARTS:
            last = find(table, quantity, f"layers.2.{part}", index=VECTORS)
            assert last["value"] == find(table, quantity, f"layers.2.{part}")["value"]
    assert set(table[table["quantity"] == "effective_rank_of_variances"]["index"]) == {0}


def test_rogue_dimensions_are_counted_and_left_out(table):
    part = "layers.0.residual_pre"
    count = find(table, "rogue_dimensions", part)
    assert (count["value"], count["unit"]) == (2, "dimensions")
    assert find(table, "rogue_dimensions", part, "isotropic")["value"] == 0
    # one coordinate holds all of the variance; without it the others hold it equally
    assert find(table, "directions_99", part)["value"] == 1 / WIDTH
    without = find(table, "effective_rank_without_rogues", part)["value"]
    null = find(table, "effective_rank_without_rogues", part, "isotropic")
    assert without == pytest.approx(null["value"], abs=0.02)
    assert find(table, "directions_99_without_rogues", part)["value"] == pytest.approx(1.0, abs=1 / 17)
    plain = find(table, "directions_99", "layers.0.attention.z")["value"]
    assert find(table, "directions_99_without_rogues", "layers.0.attention.z")["value"] == plain


def test_without_a_spectrum_of_all_vectors_it_is_computed(run, table):
    class Shorter(Planted):
        def spectra(self, text, name):
            return dict(list(super().spectra(text, name).items())[:-1])

    found = measure(Shorter(run.experiment, {}, run.texts, {}), SETTINGS)
    assert set(found["index"]) == {0, *COUNTS}
    at = ("effective_rank", "layers.0.attention.z")
    assert find(found, *at)["value"] == pytest.approx(find(table, *at)["value"])


def test_first_vectors_that_do_not_vary_have_no_rank(run, table):
    class Late(Planted):
        def spectra(self, text, name):
            return super().spectra(text, name) | {100: np.zeros(WIDTH)}

    found = measure(Late(run.experiment, {}, {"prose": run.texts["prose"]}, {}), SETTINGS)
    part = "layers.0.attention.z"
    told = found[(found["quantity"] == "not_measured") & (found["part"] == part)]
    assert told["data"].tolist() == ["prose: no ranks, as it is the same at every token of the first 100"]
    assert set(found[(found["part"] == part) & (found["quantity"] == "effective_rank")]["index"]) == {0, 200, 400}
    at = ("effective_rank", part, "", 200)
    assert find(found, *at) == pytest.approx(find(table, *at), nan_ok=True)


def test_activations_that_do_not_vary_have_no_rank(run):
    class Still(Planted):
        def moments(self, text, name):
            return Moments(VECTORS, np.ones(WIDTH), np.zeros((WIDTH, WIDTH)))

        def spectra(self, text, name):
            return {}

    found = measure(Still(run.experiment, {}, run.texts, {}), SETTINGS)
    assert set(found["quantity"]) == {"not_measured", "rogue_dimensions"}
    reason = "code: no ranks, as it is the same at every token"
    assert np.isnan(find(found, "not_measured", "layers.0.attention.z", data=reason)["value"])
    assert find(found, "rogue_dimensions", "layers.0.attention.z")["value"] == 0


def test_only_every_so_many_layers_and_the_last(run):
    found = measure(run, SETTINGS | {"every_layer": 2, "null_draws": 2})
    assert {part.split(".")[1] for part in found["part"]} == {"0", "2"}
    assert measured_layers(5, 3) == [0, 3, 4] and measured_layers(1, 4) == [0]


def test_the_same_settings_give_the_same_table(run, table):
    assert measure(run, SETTINGS).equals(table)
