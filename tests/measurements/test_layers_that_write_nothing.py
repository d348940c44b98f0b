"""A language model with layers that write nothing, or the same at every token: each number that has none is named."""

import importlib

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from learning_geometry.claims.judge import judge
from learning_geometry.geometry.moments import Moments, varies
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.language_models.output_projection import of_varying_heads
from tests.measurements import language
from tests.measurements.conftest import defaults
from tests.tiny_language_model import write_tiny_language_model

SMALL = {
    "activation_patterns_by_layer": {"vectors": 200},
    "activation_ranks": {"null_draws": 2},
    "depth_growth": {"resamples": 50},
    "output_projection": {},
    "untangling": {
        "rank": 2,
        "resamples": 50,
        "swapped_labellings": 3,
        "swapped_shapes": 2,
        "streams": ["residual_pre"],
    },
    "downstream_loss": {"layers": [1]},
    "prompt_contrasts": {"resamples": 50, "swapped_labellings": 3},
    "shared_directions": {},
}
SILENT = {"mlp.down_proj", "self_attn.o_proj"}


def run_without(folder, *weights):
    """A tiny model of which some weights are zero, captured."""

    def write(at, *sizes):
        write_tiny_language_model(at, *sizes)
        file = at / "model.safetensors"
        tensors = load_file(file)
        for weight in weights:
            tensors[f"model.layers.{weight}.weight"].zero_()
        save_file(tensors, file, metadata={"format": "pt"})
        return at

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language, "write_tiny_language_model", write)
        return language.tiny_language_run(folder)


@pytest.fixture(scope="module")
def silent_layer(tmp_path_factory) -> LanguageRun:
    return run_without(tmp_path_factory.mktemp("silent"), *(f"1.{weight}" for weight in sorted(SILENT)))


@pytest.fixture(scope="module")
def silent_first_layer(tmp_path_factory) -> LanguageRun:
    return run_without(tmp_path_factory.mktemp("first"), *(f"0.{weight}" for weight in sorted(SILENT)))


def table_of(name, run):
    module = importlib.import_module(f"learning_geometry.measurements.language_models.{name}")
    return module.measure(run, defaults(module.SETTINGS) | SMALL[name])


def lacking(table):
    rows = table[table["quantity"] == "not_measured"]
    return {(row["part"], row["data"]) for _, row in rows.iterrows()}


@pytest.mark.parametrize("which", ["silent_layer", "silent_first_layer"])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_no_number_is_missing_without_a_reason(name, which, request):
    table = table_of(name, request.getfixturevalue(which))
    measured = table[(table["quantity"] != "not_measured") & (table["null"] == "")]
    assert len(measured) and measured["value"].notna().all()
    # a null of what has no number is none
    key = ["part", "quantity", "data", "index"]
    nulls = table[(table["null"] != "") & (table["null"] != "untrained")]
    assert set(map(tuple, nulls[key].to_numpy())) <= set(map(tuple, measured[key].to_numpy()))
    assert nulls["value"].notna().all()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("activation_ranks", {"layers.1.attention.output", "layers.1.mlp.output"}),
        (
            "output_projection",
            {
                f"layers.1.{part}"
                for part in (
                    "attention.output",
                    "white_input",
                    "random_reading",
                    "random_writing",
                    "orthogonal_writing",
                )
            },
        ),
        ("depth_growth", {"model", "layers.1.residual_post", "layers.2.residual_post"}),
    ],
)
def test_each_part_and_data_set_is_named(name, parts, silent_layer):
    found = lacking(table_of(name, silent_layer))
    data = silent_layer.contrasts if name == "depth_growth" else silent_layer.texts
    assert {part for part, _ in found} == parts
    assert {(part, reason.partition(": ")[0]) for part, reason in found} == {
        (part, on) for part in parts for on in data
    }


def test_streams_that_do_not_vary_are_named(silent_first_layer):
    """A template's last token leaves a silent first layer as it was, the same for all prompts."""
    found = lacking(table_of("depth_growth", silent_first_layer))
    assert (
        "residual_pre",
        "harmfulness: no law of mean_variance, as it is 0 in some layer after 0, or in a resample",
    ) in (found)
    found = lacking(table_of("prompt_contrasts", silent_first_layer))
    reason = "no log_variance_difference, as all prompts have the same state there, before it or after it"
    assert found == {("layers.1", f"{contrast}: {reason}") for contrast in silent_first_layer.contrasts}
    found = lacking(table_of("untangling", silent_first_layer))
    assert {part for part, _ in found} == {"layers.1.residual_pre"}
    assert len(found) == 2 * 9  # numbers of two contrasts


def test_the_claims_say_which_layer_is_missing(silent_layer):
    tables = [table_of(name, silent_layer) for name in ("activation_ranks", "output_projection")]
    given = {name: silent_layer.settings[name] for name in ("model", "texts", "prompts")}
    rows = judge({silent_layer.experiment: given | {"study": "attention_subspaces"}}, tables).table
    counted = rows[rows["n"] > 0]
    missing = {
        "attention_outputs_are_low_dimensional": "directions 99 (attention.output, source code), no ranks, as",
        "reading_explains_the_low_dimension": "drop explained (random reading, source code), no projection, as",
    }
    for claim, reason in missing.items():
        of_claim = counted[(counted["claim"] == claim) & counted["null"].str.endswith("source_code")]
        assert f"layer 1: {reason}" in of_claim["scale"].str.cat()
    assert counted["scale"].str.startswith("without layer 1: ").all()
    of_layers = counted[counted["unit"] == "layer"]
    assert set(of_layers["n"]) == {3} and of_layers["scale"].str.contains("observed in 3 of 4 layers").all()
    models = judge(
        {silent_layer.experiment: given | {"study": "activation_geometry"}}, [table_of("depth_growth", silent_layer)]
    )
    (moves,) = models.table.index[models.table["null"] == "random_directions-harmfulness"]
    assert "layers.1.residual_post failed: harmfulness: no increment_cosine" in models.notes["why"][moves]


def test_vectors_that_differ_by_rounding_alone_do_not_vary():
    """A constant z computed in float32 differs from token to token by some 1e-7 of itself."""
    generator = np.random.default_rng(0)
    mean = np.array([1.0, 2.0, 0.5, 3.0])
    noise = 1e-7 * mean * generator.standard_normal((500, 4))
    assert not varies(Moments(500, mean, noise.T @ noise))
    noise[:, 2:] = generator.standard_normal((500, 2))
    mixed = Moments(500, mean, noise.T @ noise)
    assert varies(mixed)
    scatter = of_varying_heads(mixed, 2).scatter
    assert not scatter[:2].any() and not scatter[:, :2].any()
    assert np.array_equal(scatter[2:, 2:], mixed.scatter[2:, 2:])
