"""Weights that are dequantised once: the same bits, mapped, and checked again if anything that decides has changed."""

import os

import numpy as np
import pytest
import torch

from learning_geometry.files import read_tensor_metadata
from learning_geometry.fingerprint import PACKAGE, code_fingerprint, imported_modules
from learning_geometry.models.language import dequantised, loading
from learning_geometry.models.language.loading import dequantise, load
from learning_geometry.seeding import seeded
from tests.gguf_files import LLAMA, gpt2_tensors, llama_tensors, write_gguf
from tests.models.language.test_gguf import drawn, gpt2_keys
from tests.models.language.test_loading import tiny

transformers = loading.import_transformers()


@pytest.fixture
def model(tmp_path):
    """The section ``model`` of a tiny Llama, some of whose weights are rounded to 8 bits."""
    import gguf

    tensors = llama_tensors(tiny())
    kinds = {name: gguf.GGMLQuantizationType.Q8_0 for name, each in tensors.items() if each.shape[-1] % 32 == 0}
    path = write_gguf(tmp_path / "tiny.gguf", LLAMA, tensors, kinds)
    return {"source": str(path), "revision": None, "gguf": None, "download": False}


def written(model, tmp_path):
    path = tmp_path / "written.safetensors"
    dequantise(model, path, lambda: {"key": "of the job"})
    return path


def assert_same_bits(found, expected):
    assert found.parameters.keys() == expected.parameters.keys()
    for name, parameter in expected.parameters.items():
        assert found.parameters[name].dtype == torch.float32
        assert torch.equal(found.parameters[name], parameter), name
    tokens = torch.from_numpy(seeded(1).integers(31, size=(2, 9)))
    assert torch.equal(found.forward(tokens), expected.forward(tokens))
    assert (found.origin, found.sizes, found.digest()) == (expected.origin, expected.sizes, expected.digest())


def test_the_weights_are_the_same_bits(model, tmp_path):
    path = written(model, tmp_path)
    assert_same_bits(load(**model, tokenizer=False, dequantised=path), load(**model, tokenizer=False))
    assert read_tensor_metadata(path)["key"] == "of the job"


def test_those_of_transposed_maps_are_the_same_bits(tmp_path):
    config = transformers.GPT2Config(vocab_size=31, n_embd=24, n_layer=2, n_head=6, n_positions=64, n_inner=60)
    module = drawn(transformers.GPT2LMHeadModel(config))
    path = write_gguf(tmp_path / "tiny.gguf", gpt2_keys(64), gpt2_tensors(module))
    model = {"source": str(path), "revision": None, "gguf": None, "download": False}
    found = load(**model, tokenizer=False, dequantised=written(model, tmp_path))
    assert_same_bits(found, load(**model, tokenizer=False))


def test_large_weights_are_mapped_and_not_copied(tmp_path, monkeypatch):
    config = transformers.LlamaConfig(
        vocab_size=31,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=1,
        num_attention_heads=8,
        max_position_embeddings=64,
    )
    changes = {"embedding_length": 512, "feed_forward_length": 1024, "block_count": 1, "vocab_size": 31}
    changes |= {"attention.head_count": 8, "attention.head_count_kv": 8, "rope.dimension_count": 64}
    changes |= {"attention.key_length": 64, "attention.value_length": 64}
    keys = LLAMA | {f"llama.{name}": value for name, value in changes.items() if f"llama.{name}" in LLAMA}
    path = write_gguf(tmp_path / "wide.gguf", keys, llama_tensors(drawn(transformers.LlamaForCausalLM(config))))
    model = {"source": str(path), "revision": None, "gguf": None, "download": False}
    read, really = [], dequantised.read_tensors
    monkeypatch.setattr(dequantised, "read_tensors", lambda path: read.append(really(path)) or read[-1])
    found = load(**model, tokenizer=False, dequantised=written(model, tmp_path))
    large = {name for name, array in read[0].items() if array.nbytes >= 2**20}
    assert len(large) >= 7
    for name in large:
        assert found.parameters[name].data_ptr() == read[0][name].ctypes.data
        assert not read[0][name].flags.owndata
    # what is changed in memory is not changed on disk
    before = (tmp_path / "written.safetensors").read_bytes()
    digest = found.digest()
    with torch.no_grad():
        found.parameters[min(large)] += 1
    assert (tmp_path / "written.safetensors").read_bytes() == before
    assert found.digest() != digest


def refuse(*_arguments):
    raise ValueError("checked again")


@pytest.mark.parametrize("check", ["check_identities", "check_weights"])
def test_what_was_checked_is_checked_again_only_after_a_change(model, tmp_path, monkeypatch, check):
    path, now = written(model, tmp_path), dequantised.checked_by()
    monkeypatch.setattr(loading, check, refuse)
    load(**model, tokenizer=False, dequantised=path)
    for changed in now:
        monkeypatch.setattr(dequantised, "checked_by", lambda changed=changed: now | {changed: "another"})
        with pytest.raises(ValueError, match="checked again"):
            load(**model, tokenizer=False, dequantised=path)
    with pytest.raises(ValueError, match="checked again"):
        load(**model, tokenizer=False)
    with pytest.raises(ValueError, match="checked again"):
        written(model, tmp_path)


def test_after_a_change_the_digest_is_computed(model, tmp_path, monkeypatch):
    path = written(model, tmp_path)
    assert len(load(**model, tokenizer=False, dequantised=path).digests) == 1
    monkeypatch.setattr(dequantised, "checked_by", dict)
    again = load(**model, tokenizer=False, dequantised=path)
    assert not again.digests and again.digest() == load(**model, tokenizer=False).digest()


def test_what_decides_is_the_code_that_reads_names_and_checks():
    now = dequantised.checked_by()
    assert now["transformers"] == transformers.__version__ and now["torch_cpu"]
    assert now["code"] == code_fingerprint(dequantised.LOADS)
    covered = imported_modules(dequantised.LOADS)
    for folder in ("models/language", "model_files"):
        names = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"}
        prefix = f"learning_geometry.{folder.replace('/', '.')}."
        # what captures activations, and a run as a language model, read no such weights
        assert names - {"cache", "trained"} <= {
            name.removeprefix(prefix) for name in covered if name.startswith(prefix)
        }


@pytest.mark.parametrize("change", ["in place", "past torch's count"])
def test_a_weight_that_is_changed_is_another_model(model, tmp_path, change):
    found = load(**model, tokenizer=False, dequantised=written(model, tmp_path))
    before, weight = found.digest(), next(iter(found.parameters.values()))
    with torch.no_grad():
        (weight if change == "in place" else weight.data).mul_(2)
    assert found.digest() != before


def test_another_file_and_a_flipped_bit_are_refused(model, tmp_path):
    path = written(model, tmp_path)
    other = write_gguf(tmp_path / "other.gguf", LLAMA, llama_tensors(tiny(1)))
    with pytest.raises(ValueError, match=r"written\.safetensors: of another file than .*other\.gguf; run `snakemake"):
        load(other, tokenizer=False, dequantised=path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"written\.safetensors: .*the bytes of .* are not those that were written"):
        load(**model, tokenizer=False, dequantised=path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"written\.safetensors: no such file"):
        load(**model, tokenizer=False, dequantised=path)


def test_only_weights_of_gguf_files_are_dequantised(model, tmp_path):
    path = written(model, tmp_path)
    with pytest.raises(ValueError, match=r"only weights of a GGUF file are dequantised; leave .*written"):
        load(**model, tokenizer=False, untrained=seeded(0), dequantised=path)
    tiny().save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="only weights of a GGUF file are dequantised"):
        load(tmp_path / "plain", tokenizer=False, dequantised=path)
    plain = {"source": str(tmp_path / "plain"), "revision": None, "gguf": None, "download": False}
    with pytest.raises(ValueError, match="its weights are in safetensors, and are read in place"):
        dequantise(plain, tmp_path / "never.safetensors", dict)
    assert not os.path.exists(tmp_path / "never.safetensors")


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    tensors = llama_tensors(tiny())
    tensors["output_norm.weight"] = np.full_like(tensors["output_norm.weight"], np.nan)
    path = write_gguf(tmp_path / "tiny.gguf", LLAMA, tensors)
    model = {"source": str(path), "revision": None, "gguf": None, "download": False}
    with pytest.raises(ValueError, match="numbers that are not finite"):
        written(model, tmp_path)
    assert not os.path.exists(tmp_path / "written.safetensors")
