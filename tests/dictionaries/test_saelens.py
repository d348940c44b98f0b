"""Dictionaries of SAELens: what it computed of them, and what is refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from learning_geometry.dictionaries import storage, topk
from learning_geometry.dictionaries.saelens import code, load
from learning_geometry.dictionaries.sweep import judge
from learning_geometry.sources.hook_points import activation_of, hook_point
from learning_geometry.sources.saelens import describe

RECORDED = Path(__file__).parent / "saelens"
KINDS = sorted(path.name for path in (RECORDED / "kinds").iterdir())
VECTORS = safetensors.torch.load_file(RECORDED / "vectors.safetensors")["vectors"]


@pytest.mark.parametrize("kind", [*KINDS, "ours", "theirs"])
def test_saelens_computed_the_same(kind):
    """``saelens/`` holds what SAELens 6.54.12 saved and computed, see ``record_saelens.py``."""
    folder = RECORDED / kind if kind in ("ours", "theirs") else RECORDED / "kinds" / kind
    found = safetensors.torch.load_file((folder if kind in KINDS else RECORDED) / "found.safetensors")
    dictionary = load(folder)
    made = code(dictionary, VECTORS)
    assert torch.equal(made.latents != 0, found["latents"] != 0)
    torch.testing.assert_close(made.latents, found["latents"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(made.reconstructed, found["reconstructed"], rtol=1e-5, atol=1e-5)
    quality = judge(20, VECTORS.split(17), lambda vectors: code(dictionary, vectors).counted())
    assert quality.activations.tolist() == (found["latents"] != 0).sum(0).tolist()
    if kind in KINDS:
        assert quality.explained_variance == pytest.approx(float(found["explained_variance"]), rel=1e-6, abs=1e-6)


def test_what_was_trained_by_batches_is_saved_as_jumprelu():
    description = describe(RECORDED / "kinds" / "batchtopk")
    assert description.architecture == "jumprelu" and description.k is None
    assert description.metadata["training_architecture"] == "batchtopk"


def test_ours_are_read_as_their_own_reader_reads_them():
    saved = storage.load(RECORDED / "ours")
    codes = topk.encode(saved.dictionary, VECTORS, saved.k).relu()
    made = code(load(RECORDED / "ours"), VECTORS)
    torch.testing.assert_close(made.latents, codes)
    torch.testing.assert_close(made.reconstructed, topk.decode(saved.dictionary, codes))


@pytest.fixture
def change(tmp_path):
    """Copy a recorded dictionary, with other entries in its configuration (None: none) and other tensors."""

    def make(kind, changed=None, tensors=None, metadata=None):
        folder = tmp_path / "sae"
        shutil.copytree(RECORDED / "kinds" / kind, folder)
        configuration = json.loads((folder / "cfg.json").read_text()) | (changed or {})
        configuration["metadata"] |= metadata or {}
        configuration = {key: value for key, value in configuration.items() if value is not None}
        (folder / "cfg.json").write_text(json.dumps(configuration))
        weights = safetensors.torch.load_file(folder / "sae_weights.safetensors") | (tensors or {})
        weights = {name: value for name, value in weights.items() if value is not None}
        safetensors.torch.save_file(weights, folder / "sae_weights.safetensors")
        return folder

    return make


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("standard", {"architecture": "gated"}, "architecture is 'gated', and read are topk, standard, jumprelu"),
        ("topk", {"architecture": "batchtopk"}, "save_inference_model, which makes it a jumprelu"),
        ("standard", {"architecture": None}, "architecture is None"),
        ("standard", {"k": 3}, "k: not known of a standard dictionary"),
        ("jumprelu", {"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm: not known of a jumprelu"),
        ("standard", {"activation_fn": "gelu"}, "activation_fn: not known"),
        ("topk", {"k": None}, "lacks k"),
        ("topk", {"k": 21}, "k is 21, more than the 20 latents"),
        ("topk", {"k": 3.0}, "k is 3.0, and must be a positive integer"),
        ("topk", {"d_in": True}, "d_in is True"),
        ("topk", {"apply_b_dec_to_input": 1}, "apply_b_dec_to_input is 1, which is neither"),
        ("topk", {"dtype": "bfloat16"}, "dtype is 'bfloat16', and read are float32 and float64; save it in float32"),
        ("standard", {"normalize_activations": "expected_average_only_in"}, "are not in these files"),
        ("standard", {"normalize_activations": "covariance_whitening"}, "are not in these files"),
        ("standard", {"normalize_activations": "unit"}, "normalize_activations is 'unit'"),
        ("standard", {"reshape_activations": "hook_z"}, "reshape_activations is 'hook_z'"),
        ("standard", {"metadata": {"sae_lens_version": "5.9.1"}}, "sae_lens_version is 5.9.1"),
        ("standard", {"metadata": {}}, "sae_lens_version is None"),
        (
            "standard",
            {"metadata": {"sae_lens_version": "6.1.0", "hook_head_index": 2}},
            "a dictionary of a single head",
        ),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused(change, kind, changed, message):
    folder = change(kind, changed)
    with pytest.raises(ValueError, match=message) as error:
        describe(folder)
    assert str(folder / "cfg.json") in str(error.value)


@pytest.mark.parametrize(
    ("kind", "tensors", "message"),
    [
        ("jumprelu", {"threshold": None}, "lacks threshold"),
        ("jumprelu", {"threshold": None, "log_threshold": torch.zeros(20)}, "log_threshold: not known"),
        ("standard", {"b_mag": torch.zeros(20)}, "b_mag: not known of a standard"),
        ("standard", {"b_enc": torch.zeros(3)}, r"b_enc is of shape \(3,\), and by cfg.json of \(20,\)"),
        ("standard", {"b_enc": torch.zeros(20, dtype=torch.bfloat16)}, "b_enc is of type BF16"),
    ],
)
def test_tensors_that_are_not_understood_are_refused(change, kind, tensors, message):
    folder = change(kind, tensors=tensors)
    with pytest.raises(ValueError, match=message) as error:
        describe(folder)
    assert "sae_weights.safetensors" in str(error.value)


def test_weights_that_are_not_finite_or_files_that_are_not_there_are_named(change, tmp_path):
    folder = change("standard", tensors={"b_enc": torch.full((20,), np.nan)})
    with pytest.raises(ValueError, match=r"sae_weights.safetensors: b_enc holds what is not finite"):
        load(folder)
    (folder / "sae_weights.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load(folder)
    with pytest.raises(FileNotFoundError, match=r"nowhere/cfg\.json"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"of width 5, and .* is for width 6"):
        code(load(RECORDED / "kinds" / "topk"), torch.zeros(3, 5))


@pytest.mark.parametrize(
    ("metadata", "chosen", "family", "reads"),
    [
        ({}, None, "llama", "layers.3.attention.output"),
        ({"hook_name": "blocks.0.attn.hook_z"}, None, None, "layers.0.attention.z"),
        ({"hook_name": "layers.2.mlp.input"}, None, "other", "layers.2.mlp.input"),
        (
            {"hook_name": "layers.1.mlp.input", "activation": "layers.2.residual_pre"},
            None,
            "other",
            "layers.2.residual_pre",
        ),
        ({"hook_name": "model.layers.3.mlp"}, "layers.3.mlp.output", "llama", "layers.3.mlp.output"),
        ({"hook_name": None}, "layers.3.mlp.output", "llama", "layers.3.mlp.output"),
        (
            {"model_from_pretrained_kwargs": {"center_writing_weights": False}},
            None,
            "gpt2",
            "layers.3.attention.output",
        ),
    ],
)
def test_the_hook_tells_what_a_dictionary_reads(change, metadata, chosen, family, reads):
    assert describe(change("standard", metadata=metadata)).activations(chosen, family) == (reads, reads)


@pytest.mark.parametrize(
    ("metadata", "chosen", "family", "message"),
    [
        ({"hook_name": None}, None, "llama", "metadata has no hook_name; say in `activation`"),
        ({"hook_name": "blocks.3.ln2.hook_normalized"}, None, "llama", "is none of the hook points .* in `activation`"),
        ({}, "layers.4.attention.output", "llama", "the dictionary reads blocks.3.hook_attn_out; leave one out"),
        ({}, "blocks.3.hook_mlp_out", "llama", "activation: 'blocks.3.hook_mlp_out' is no activation"),
        ({}, None, "gemma2", "of the family 'gemma2' it is not known .* in `activation`"),
        (
            {"model_from_pretrained_kwargs": {"center_writing_weights": True}},
            None,
            "gpt2",
            "has center_writing_weights",
        ),
    ],
)
def test_what_a_dictionary_reads_is_not_guessed(change, metadata, chosen, family, message):
    with pytest.raises(ValueError, match=message):
        describe(change("standard", metadata=metadata)).activations(chosen, family)


def test_a_transcoder_of_ours_says_what_it_gives(change):
    metadata = {"activation": "layers.1.mlp.input", "activation_out": "layers.1.mlp.output", "hook_name": None}
    found = describe(change("topk", metadata=metadata)).activations(None, "gemma2")
    assert found == ("layers.1.mlp.input", "layers.1.mlp.output")


def test_hook_points_and_back():
    for part in ("attention.output", "attention.z", "mlp.output", "residual_pre", "residual_mid", "residual_post"):
        assert activation_of(hook_point(f"layers.7.{part}", "llama"), "llama") == f"layers.7.{part}"
    for name, family, message in [
        ("layers.7.mlp.input", "llama", "no hook point of TransformerLens is layers.7.mlp.input"),
        ("layers.7.attention.output", "granite", "something may stand between W_O and the stream"),
        ("layers.7.attention.output", None, "of the family None"),
        ("layers.7.residual_mid", "gpt_neox", "have no hook_resid_mid"),
    ]:
        with pytest.raises(ValueError, match=message):
            hook_point(name, family)
