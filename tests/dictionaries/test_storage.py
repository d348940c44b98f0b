"""Saved dictionaries: SAELens' format key by key, its way to compute from it, and ours back."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from learning_geometry.dictionaries import topk
from learning_geometry.dictionaries.initialisation import Options, draw
from learning_geometry.dictionaries.storage import load, save
from learning_geometry.files import read_json, read_tensor_metadata, write_json

RECORDED = Path(__file__).parent / "saelens"
WIDTH, LATENTS, ACTIVE, SCALE = 6, 20, 3, 0.25
METADATA = {"model_name": "some/model", "hook_name": "blocks.3.hook_attn_out", "context_size": 64, "seed": 7}


@pytest.fixture
def vectors():
    return torch.from_numpy(np.random.default_rng(0).standard_normal((50, WIDTH)) * 3 + 2).float()


@pytest.fixture
def dictionary(vectors):
    """Trained on vectors times SCALE, with rows of a norm that is not 1."""
    scaled = SCALE * vectors
    start = draw(scaled, Options(LATENTS), ACTIVE, np.random.default_rng(0))
    return topk.train(start, scaled, topk.Settings(k=ACTIVE, steps=20), np.random.default_rng(0)).dictionary


def saelens(directory, vectors):
    """What TopKSAE of SAELens 6.54 computes of its own files, by its documented configuration."""
    cfg = json.loads((directory / "cfg.json").read_text())
    weights = safetensors.torch.load_file(directory / "sae_weights.safetensors")
    hidden = (vectors - weights["b_dec"] * cfg["apply_b_dec_to_input"]) @ weights["W_enc"] + weights["b_enc"]
    norms = weights["W_dec"].norm(dim=-1)
    if cfg["rescale_acts_by_decoder_norm"]:
        hidden = hidden * norms
    values, where = hidden.topk(cfg["k"], dim=-1)
    latents = torch.zeros_like(hidden).scatter(-1, where, values.relu())
    rescaled = latents / norms if cfg["rescale_acts_by_decoder_norm"] else latents
    return latents, rescaled @ weights["W_dec"] + weights["b_dec"]


def test_the_configuration_has_saelens_keys_and_no_others(tmp_path, dictionary):
    save(tmp_path / "new" / "sae", dictionary, ACTIVE, METADATA, SCALE)
    assert sorted(path.name for path in (tmp_path / "new" / "sae").iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    configuration = json.loads((tmp_path / "new" / "sae" / "cfg.json").read_text())
    # the fields of TopKSAEConfig, and architecture, as its to_dict writes them
    assert configuration == {
        "k": ACTIVE,
        "rescale_acts_by_decoder_norm": False,
        "d_in": WIDTH,
        "d_sae": LATENTS,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": METADATA | {"sae_lens_version": "6.54.12", "sae_lens_training_version": None},
        "architecture": "topk",
    }
    assert read_tensor_metadata(tmp_path / "new" / "sae" / "sae_weights.safetensors") == configuration


def test_weights_of_other_shapes_are_named(tmp_path, dictionary):
    save(tmp_path, dictionary, ACTIVE, METADATA, SCALE)
    weights = safetensors.torch.load_file(tmp_path / "sae_weights.safetensors")
    safetensors.torch.save_file(weights | {"b_enc": torch.zeros(3)}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(ValueError, match=r"sae_weights\.safetensors: expected .*'b_enc': \(20,\).* found"):
        load(tmp_path)


def test_the_weights_have_saelens_names_and_shapes(tmp_path, dictionary):
    save(tmp_path, dictionary, ACTIVE, METADATA, SCALE)
    weights = safetensors.torch.load_file(tmp_path / "sae_weights.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == {
        "W_enc": (WIDTH, LATENTS),
        "b_enc": (LATENTS,),
        "W_dec": (LATENTS, WIDTH),
        "b_dec": (WIDTH,),
    }
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert torch.equal(weights["W_enc"], SCALE * dictionary["encoder.weight"].T)
    assert torch.equal(weights["W_dec"], dictionary["decoder.weight"] / SCALE)


def test_it_computes_the_same_of_vectors_that_are_not_scaled(tmp_path, dictionary, vectors):
    save(tmp_path, dictionary, ACTIVE, METADATA, SCALE)
    codes = topk.encode(dictionary, SCALE * vectors, ACTIVE)
    assert (codes >= 0).all() and codes.any(1).all()
    latents, reconstructed = saelens(tmp_path, vectors)
    torch.testing.assert_close(latents, codes)
    torch.testing.assert_close(reconstructed, topk.decode(dictionary, codes) / SCALE)
    saved = load(tmp_path)
    assert saved.k == ACTIVE and saved.metadata.items() >= METADATA.items()
    torch.testing.assert_close(topk.encode(saved.dictionary, vectors, ACTIVE), codes)
    torch.testing.assert_close(topk.decode(saved.dictionary, codes), reconstructed)


def test_what_was_not_scaled_comes_back_to_the_bit(tmp_path, dictionary):
    save(tmp_path, dictionary, ACTIVE, {})
    found = load(tmp_path).dictionary
    assert found.keys() == dictionary.keys()
    assert all(torch.equal(found[name], dictionary[name]) for name in found)
    save(tmp_path, {name: 2 * value for name, value in dictionary.items()}, ACTIVE, {})
    assert torch.equal(load(tmp_path).dictionary["decoder.bias"], 2 * dictionary["decoder.bias"])


def test_a_transcoder_of_equal_widths_is_saved_with_both_scales(tmp_path, dictionary, vectors):
    save(tmp_path, dictionary, ACTIVE, METADATA | {"hook_name_out": "blocks.3.hook_mlp_out"}, SCALE, 2.0)
    codes = topk.encode(dictionary, SCALE * vectors, ACTIVE)
    torch.testing.assert_close(saelens(tmp_path, vectors)[1], topk.decode(dictionary, codes) / 2)


@pytest.mark.parametrize("subtracted", [True, False])
@pytest.mark.parametrize("rescaled", [True, False])
def test_saelens_own_files_are_read(tmp_path, dictionary, vectors, subtracted, rescaled):
    save(tmp_path, dictionary, ACTIVE, METADATA)
    configuration = json.loads((tmp_path / "cfg.json").read_text())
    configuration |= {"apply_b_dec_to_input": subtracted, "rescale_acts_by_decoder_norm": rescaled}
    # without what ours record beside the weights
    weights = tmp_path / "sae_weights.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(weights), weights)
    write_json(tmp_path / "cfg.json", configuration)
    latents, reconstructed = saelens(tmp_path, vectors)
    found = load(tmp_path).dictionary
    codes = topk.encode(found, vectors, ACTIVE)
    torch.testing.assert_close(codes.relu(), latents)
    torch.testing.assert_close(topk.decode(found, codes.relu()), reconstructed)


@pytest.mark.parametrize("written_by", ["ours", "theirs"])
def test_saelens_computed_the_same_of_what_we_wrote(written_by):
    """``saelens/`` holds what SAELens 6.54.12 read, computed and saved, see ``record_saelens.py``."""
    found = safetensors.torch.load_file(RECORDED / "found.safetensors")
    vectors = safetensors.torch.load_file(RECORDED / "vectors.safetensors")["vectors"]
    latents, reconstructed = saelens(RECORDED / written_by, vectors)
    torch.testing.assert_close(latents, found["latents"])
    torch.testing.assert_close(reconstructed, found["reconstructed"])
    saved = load(RECORDED / written_by)
    assert saved.k == ACTIVE and saved.metadata.items() >= METADATA.items()
    codes = topk.encode(saved.dictionary, vectors, ACTIVE)
    torch.testing.assert_close(codes.relu(), found["latents"])
    torch.testing.assert_close(topk.decode(saved.dictionary, codes.relu()), found["reconstructed"])


def test_what_saelens_read_is_what_is_written_today(tmp_path):
    read = load(RECORDED / "ours")
    save(tmp_path, read.dictionary, read.k, METADATA)
    assert read_json(tmp_path / "cfg.json") == read_json(RECORDED / "ours" / "cfg.json")
    assert read_json(RECORDED / "theirs" / "cfg.json") == read_json(RECORDED / "ours" / "cfg.json")
    files = [folder / "sae_weights.safetensors" for folder in (tmp_path, RECORDED / "ours", RECORDED / "theirs")]
    ours, recorded, theirs = map(safetensors.torch.load_file, files)
    assert ours.keys() == recorded.keys() == theirs.keys()
    assert all(torch.equal(ours[name], recorded[name]) and torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architecture": "jumprelu"}, "architecture is 'jumprelu', and only 'topk'"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations is 'layer_norm'"),
        ({"reshape_activations": "hook_z"}, "reshape_activations is 'hook_z'"),
        ({"d_sae": 21}, r"d_sae is 21, and 20 in sae_weights\.safetensors"),
        ({"k": None}, "lacks k"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, dictionary, changed, message):
    save(tmp_path, dictionary, ACTIVE, METADATA)
    configuration = json.loads((tmp_path / "cfg.json").read_text()) | changed
    write_json(tmp_path / "cfg.json", {key: value for key, value in configuration.items() if value is not None})
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_what_cannot_be_saved_or_is_not_there_is_named(tmp_path, dictionary):
    narrow = dictionary | {"decoder.weight": dictionary["decoder.weight"][:, :4], "decoder.bias": torch.zeros(4)}
    with pytest.raises(ValueError, match="no transcoder from width 6 to 4"):
        save(tmp_path / "narrow", narrow, ACTIVE, {})
    assert not (tmp_path / "narrow").exists()
    with pytest.raises(FileNotFoundError, match=r"cfg\.json"):
        load(tmp_path / "nothing")


def test_a_configuration_that_is_not_as_it_was_saved_is_refused(tmp_path, dictionary):
    save(tmp_path, dictionary, ACTIVE, METADATA, SCALE)
    write_json(tmp_path / "cfg.json", read_json(tmp_path / "cfg.json") | {"k": ACTIVE + 1})
    with pytest.raises(ValueError, match=rf"cfg\.json: k is {ACTIVE + 1}, and {ACTIVE} in sae_weights"):
        load(tmp_path)
