"""Composition, bridge energy and embedding spectrum on weights with planted structure: width 16, 2 heads of 8."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from learning_geometry.geometry.head_products import query_key_products
from learning_geometry.geometry.nulls import haar_subspaces
from learning_geometry.measurements.runs import bridge_energy, composition, embedding_spectrum

from .conftest import put

STRENGTH = np.linspace(2.0, 1.0, 8)[:, None]
PAIR = "layers.0.heads.{}-layers.1.heads.{}"


def rotation(seed):
    return haar_subspaces(16, 16, 1, np.random.default_rng(seed))[0].T


def plant_composition(parameters):
    """Head 0 of layer 1 writes what the keys of head 1 of layer 2 read; its queries read the copied direction."""
    here, there = rotation(1)[:8], rotation(1)[8:]
    copied = STRENGTH * there
    attention = {name: parameters[f"layers.{name}.weight"].numpy().copy() for name in WEIGHTS}
    attention["0.attention.output"][:, :8] = (STRENGTH * here).T
    attention["0.attention.value"][:8] = copied
    attention["1.attention.key"][8:] = STRENGTH * here
    attention["1.attention.query"][8:] = copied
    # the other heads share nothing with it: their written or read directions lie in the complement
    attention["0.attention.output"][:, 8:] = there.T
    attention["1.attention.key"][:8] = there
    for name in WEIGHTS:
        put(parameters, f"layers.{name}.weight", attention[name])
    # tokens in the copied subspace, of unit length in the metric of M: each matches itself best, under M alone
    tokens = np.random.default_rng(2).standard_normal((24, 8))
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    put(parameters, "embedding.weight", tokens / STRENGTH.T**2 @ there)


WEIGHTS = [f"{layer}.attention.{role}" for layer in (0, 1) for role in ("query", "key", "value", "output")]


def swap(first, second):
    def change(parameters):
        plant_composition(parameters)
        parameters[first], parameters[second] = parameters[second], parameters[first]

    return change


def test_planted_composition_is_found_in_its_pair_of_heads(make_run, measured):
    found = measured(composition, make_run(lambda parameters: None, plant_composition), ranks=[3, 5, 8, 12])
    pair = PAIR.format(0, 1)
    matches = found.find("subspace_match_largest_cosine", pair, step=10)
    assert matches["index"].tolist() == [3, 5, 8]  # 12 is above the width of a head
    assert (matches["value"] > 0.9999).all()
    assert (found.find("subspace_match_rms_cosine", pair, step=10)["value"] > 0.9999).all()
    null = found.find("subspace_match_rms_cosine", pair, "random_subspaces", step=10)
    assert np.allclose(null["value"], np.sqrt(np.array([3, 5, 8]) / 16), atol=0.03)
    assert (null["high"] < 0.9).all() and (null["n"] == 1000).all()
    # the product is positive semi-definite of rank 8: its diagonal stands out
    z_score, null = (found.find("composition_z_score", pair, name, step=10).iloc[0] for name in ("", "random_weights"))
    assert z_score["value"] > 2 > null["high"] > 0 > null["low"]
    mismatch, null = (found.find("token_mismatch", pair, name, step=10).iloc[0] for name in ("", "random_weights"))
    assert mismatch["value"] == 0.0 < 0.7 < null["low"] and null["n"] == 100
    for other in (PAIR.format(1, 1), PAIR.format(0, 0)):
        assert found.value("subspace_match_largest_cosine", other, step=10, index=5) < 1e-3


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("layers.1.attention.query.weight", "layers.1.attention.key.weight"),
        ("layers.0.attention.query.weight", "layers.1.attention.key.weight"),
        ("layers.0.attention.value.weight", "layers.1.attention.value.weight"),
        ("layers.0.attention.output.weight", "layers.1.attention.output.weight"),
    ],
)
def test_swapped_weights_show_no_composition(make_run, measured, first, second):
    planted = measured(composition, make_run(plant_composition))
    swapped = measured(composition, make_run(swap(first, second)))
    pair = PAIR.format(0, 1)
    assert swapped.value("composition_z_score", pair) < planted.value("composition_z_score", pair) / 2
    if "value" not in first:  # the values are no part of what is written
        assert swapped.value("subspace_match_rms_cosine", pair, index=5) < 0.8


def test_one_head_is_one_part_at_its_largest_z_score(make_run, measured):
    def induction(parameters):
        turn = rotation(3)
        put(parameters, "layers.0.attention.value.weight", np.eye(16))
        put(parameters, "layers.0.attention.output.weight", turn)
        put(parameters, "layers.1.attention.key.weight", turn.T)
        put(parameters, "layers.1.attention.query.weight", np.eye(16))

    run = make_run(lambda parameters: None, induction, model={"heads": 1})
    found = measured(composition, run)
    assert set(found.table["part"]) == {"layers.1"}
    assert found.find("not_measured")["data"].tolist() == [
        "no subspace_match of rank 20, which is above 16, the width of a head"
    ]
    assert found.value("composition_z_score", step=10) == pytest.approx(np.sqrt(15), rel=1e-5)
    assert found.value("token_mismatch", step=10) == 0.0
    # the untrained model lies in the range of every null
    untrained = found.table[(found.table["step"] == 0) & (found.table["quantity"] != "not_measured")]
    untrained = untrained.set_index(["quantity", "index"])
    measured_rows, nulls = untrained[untrained["null"] == ""], untrained[untrained["null"] != ""]
    assert (measured_rows["value"].between(nulls["low"], nulls["high"])).mean() > 0.8


def plant_bridge(parameters, head=1):
    """Keys of one head read the embedding's bottom singular subspace, its queries the medium one."""
    embedding = parameters["embedding.weight"].double().numpy()
    right = np.linalg.svd(embedding)[2]
    query, key = (parameters[f"layers.1.attention.{role}.weight"].numpy().copy() for role in ("query", "key"))
    rows = slice(8 * head, 8 * head + 4)
    # four strong directions, and what is left of the other four is weak
    query[8 * head : 8 * head + 8] *= 1e-3
    key[8 * head : 8 * head + 8] *= 1e-3
    query[rows], key[rows] = right[2:6], right[12:]
    put(parameters, "layers.1.attention.query.weight", query)
    put(parameters, "layers.1.attention.key.weight", key)


BRIDGE = {"top": 1, "medium": 7, "ranks": [2, 4, 20], "lag_rank": 4, "lags": 5, "lags_every": 1}


def test_planted_bridge_is_found_on_its_side(make_run, measured):
    found = measured(bridge_energy, make_run(plant_bridge), **BRIDGE)
    for suffix in ("", "_norm_folded"):
        for side, group in {"key": "bottom", "query": "medium"}.items():
            for name in ("top", "medium", "bottom"):
                part = f"layers.1.heads.1-embedding.{name}"
                energy = found.find(f"bridge_energy_{side}{suffix}", part)
                assert energy["index"].tolist() == [2, 4]  # 20 is above the width of a head
                assert np.allclose(energy["value"], float(name == group), atol=1e-3)
    for lag in range(6):
        assert found.value("bridge_energy_key_at_lag", "layers.1.heads.1-embedding.bottom", index=lag) > 0.999
        assert found.value("bridge_energy_query_at_lag", "layers.1.heads.1-embedding.medium", index=lag) > 0.999
    # the head left alone lies within its null
    for name, size in {"top": 1, "medium": 7, "bottom": 8}.items():
        part = f"layers.1.heads.0-embedding.{name}"
        null = found.find("bridge_energy_key", part, "random_subspace")
        assert np.allclose(null["value"], size / 16) and (null["low"] < null["high"]).all()
        low, high = null[["low", "high"]].iloc[1]
        assert low - 0.15 < found.value("bridge_energy_key", part, index=4) < high + 0.15


def test_swapping_query_and_key_swaps_the_sides(make_run, measured):
    names = [f"layers.1.attention.{role}.weight" for role in ("query", "key")]

    def swapped(parameters):
        plant_bridge(parameters)
        parameters[names[0]], parameters[names[1]] = parameters[names[1]], parameters[names[0]]

    found = measured(bridge_energy, make_run(swapped), **BRIDGE)
    assert found.value("bridge_energy_query", "layers.1.heads.1-embedding.bottom", index=4) > 0.999
    assert found.value("bridge_energy_key", "layers.1.heads.1-embedding.bottom", index=4) < 1e-3


def test_energies_sum_to_one_and_lag_zero_is_the_plain_product(make_run, measured):
    found = measured(bridge_energy, make_run(model={"heads": 1}), **BRIDGE)
    lacking = found.table[found.table["quantity"] == "not_measured"]
    assert set(lacking["part"]) == {"layers.1"}
    assert lacking["data"].str.startswith("no bridge_energy of rank 20, which is above ").tolist() == [True]
    rest = set(found.table["part"]) - {"layers.1"}
    assert rest == {f"embedding.{name}" for name in ("top", "medium", "bottom")}
    for null in ("", "random_subspace"):
        chosen = found.table[(found.table["null"] == null) & (found.table["part"] != "layers.1")]
        assert np.allclose(chosen.groupby(["quantity", "index"])["value"].sum(), 1.0)
    for side in ("key", "query"):
        for group in ("top", "medium", "bottom"):
            plain = found.value(f"bridge_energy_{side}", f"embedding.{group}", index=4)
            lags = found.find(f"bridge_energy_{side}_at_lag", f"embedding.{group}").set_index("index")["value"]
            assert lags[0] == pytest.approx(plain) and lags[3] != pytest.approx(plain, abs=1e-6)


def test_null_of_the_energy_is_the_law_of_random_subspaces(make_run, measured):
    found = measured(bridge_energy, make_run(), **BRIDGE)
    null = found.find("bridge_energy_key", "layers.1.heads.0-embedding.top", "random_subspace", index=4).iloc[0]
    bases = haar_subspaces(16, 4, 4000, np.random.default_rng(9))
    energies = (bases[:, 5] ** 2).sum(1) / 4
    assert null["value"] == 1 / 16
    assert np.allclose(null[["low", "high"]].astype(float), np.quantile(energies, [0.025, 0.975]), atol=0.01)


def test_folded_norm_is_what_the_model_computes(make_run):
    generator = np.random.default_rng(5)

    def change(parameters):
        for name in parameters:
            if name.endswith("bias"):
                put(parameters, name, np.zeros(parameters[name].shape))
            if name.endswith("norm.weight"):
                put(parameters, name, generator.uniform(0.2, 3.0, parameters[name].shape))

    run = make_run(change, model={"positions": "none"})
    parameters, arrays = run.parameters(0), run.arrays(0)
    seen = {}
    tokens = torch.from_numpy(run.test_set("in_distribution", 3)["tokens"])
    run.model.forward(parameters, tokens, hook=lambda name, value: seen.setdefault(name, value))
    scores = seen["layers.1.attention.query"] @ seen["layers.1.attention.key"].transpose(-1, -2) / np.sqrt(8)
    normalised = F.layer_norm(seen["layers.1.residual_pre"], (16,)).double().numpy()
    scale = arrays["layers.1.attention_norm.weight"]
    query, key = (arrays[f"layers.1.attention.{role}.weight"] * scale for role in ("query", "key"))
    products = query_key_products(query, key, 2)
    assert np.allclose(np.einsum("btd,hde,bse->bhts", normalised, products, normalised), scores, atol=1e-4)
    # and this product is the one whose bridge is reported
    right = np.linalg.svd(products[0])[2][:4]
    embedded = np.linalg.svd(arrays["embedding.weight"].astype(float))[2]
    expected = np.sum((embedded[8:] @ right.T) ** 2) / 4
    settings = {name: schema["default"] for name, schema in bridge_energy.SETTINGS.items()} | BRIDGE
    table = bridge_energy.measure(run, settings)
    row = table.query(
        "quantity == 'bridge_energy_key_norm_folded' and part == 'layers.1.heads.0-embedding.bottom' "
        "and index == 4 and null == ''"
    )
    assert row["value"].item() == pytest.approx(expected, abs=1e-6)
    assert not (table["quantity"].str.endswith("at_lag")).any()  # no rotary positions, no lags


def test_without_norm_there_is_nothing_to_fold(make_run, measured):
    found = measured(bridge_energy, make_run(model={"norm": "none"}), **BRIDGE)
    assert not found.table["quantity"].str.contains("norm_folded").any()


def test_planted_gaps_and_mean_are_found_and_gaussian_matrices_have_none(make_run, measured):
    def plant(parameters):
        left, right = rotation(6), rotation(7)
        left = np.linalg.qr(np.random.default_rng(8).standard_normal((24, 16)))[0]
        left[:, 0] = 1 / np.sqrt(24)
        left = np.linalg.qr(left)[0]  # the first direction is the same for all tokens
        put(parameters, "embedding.weight", left * np.r_[30.0, np.full(8, 6.0), np.full(7, 0.5)] @ right)

    found = measured(embedding_spectrum, make_run(lambda parameters: None, plant))
    for step, ranks in {0: [], 10: [1, 9]}.items():
        significant = found.find("significant_gap", step=step)
        assert significant["index"].tolist() == list(range(1, 16))
        assert significant.loc[significant["value"] == 1, "index"].tolist() == ranks
    gaps = found.find("singular_value_gap", step=10).set_index("index")
    assert gaps["value"][1] == pytest.approx(5.0, rel=1e-4) and gaps["value"][9] == pytest.approx(12.0, rel=1e-4)
    null = found.find("singular_value_gap", null="gaussian_matrix", step=10).set_index("index")
    assert ((null["low"] == 1) & (null["low"] < null["value"]) & (null["value"] < null["high"])).all()
    assert found.value("mean_embedding_alignment", step=10) == pytest.approx(1.0, abs=1e-5)
    gaussian, direction = (
        found.find("mean_embedding_alignment", null=null, step=0).iloc[0]
        for null in ("gaussian_matrix", "random_direction")
    )
    assert gaussian["value"] > direction["value"] > 0
    draws = np.random.default_rng(10).standard_normal((2000, 24, 16))
    first = np.linalg.svd(draws, full_matrices=False)[2][:, 0]
    mean = draws.mean(1)
    cosines = np.abs(np.einsum("dw,dw->d", first, mean)) / np.linalg.norm(mean, axis=1)
    assert gaussian["value"] == pytest.approx(cosines.mean(), rel=0.15)
    assert gaussian["high"] == pytest.approx(np.quantile(cosines, 0.975), rel=0.2)


def test_gaussian_embeddings_have_gaps_at_the_stated_rate(make_run, measured):
    generator = np.random.default_rng(11)

    def gaussian(parameters):
        put(parameters, "embedding.weight", generator.standard_normal((24, 16)))

    found = measured(embedding_spectrum, make_run(*[gaussian] * 60))
    # .001 of all matrices: one in 60 has a chance of .06, two one of .002
    assert found.find("significant_gap").groupby("step")["value"].max().sum() <= 1


@pytest.mark.parametrize(
    ("module", "settings", "model", "message"),
    [
        (composition, {}, {"layers": 1}, "leave this measurement out"),
        (composition, {"writing_layer": 1, "reading_layer": 1}, {}, "cannot read"),
        (bridge_energy, {"medium": 5}, {"layers": 1}, "layer: 1 in a model of 1 layers"),
        (bridge_energy, {"medium": 15}, {}, "nothing of width 16"),
    ],
)
def test_errors_name_what_is_wrong(make_run, measured, module, settings, model, message):
    with pytest.raises(ValueError, match=message):
        measured(module, make_run(model=model), **settings)


def test_measurements_of_weights_import_no_torch(make_run, tmp_path):
    run = make_run()
    script = f"""
import sys
from pathlib import Path
from importlib import import_module
from learning_geometry.measurements.common.run import Run
paths = [Path({str(tmp_path)!r}) / name for name in ("checkpoints", "dataset.safetensors", "metrics")]
run = Run("tiny", 0, {run.settings!r}, *paths)
for name in ("composition", "bridge_energy", "attention_logits", "embedding_spectrum"):
    module = import_module("learning_geometry.measurements.runs." + name)
    settings = {{key: schema["default"] for key, schema in module.SETTINGS.items()}} | {BRIDGE!r}
    assert len(module.measure(run, settings))
print([name for name in ("torch", "scipy.stats") if name in sys.modules])
"""
    source = Path(composition.__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={"PYTHONPATH": str(source)}
    )
    assert done.stdout == "[]\n", done.stderr
