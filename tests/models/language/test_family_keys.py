"""Keys of configs that some families apply and others do not: as in published files, and as nobody should write."""

import json

import pytest
import torch

from learning_geometry.model_files import check_files
from learning_geometry.model_files.family_keys import APPLIED, ELSEWHERE, LAYER_TYPES, WINDOWS
from learning_geometry.model_files.layout_defaults import DEFAULTS
from learning_geometry.model_files.layouts import layout
from tests.tiny_families import CONFIGS, module_of, transformers

PUBLISHED = {
    "gemma-2b": {
        "model_type": "gemma",
        "attention_bias": False,
        "head_dim": 256,
        "hidden_act": "gelu",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "max_position_embeddings": 8192,
        "num_attention_heads": 8,
        "num_hidden_layers": 18,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "vocab_size": 256000,
    },
    "gemma-2-2b": {
        "model_type": "gemma2",
        "attn_logit_softcapping": 50.0,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 2304,
        "num_attention_heads": 8,
        "num_hidden_layers": 26,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
    },
    "gemma-3-1b": {
        "model_type": "gemma3_text",
        "attn_logit_softcapping": None,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": None,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "max_position_embeddings": 32768,
        "num_attention_heads": 4,
        "num_hidden_layers": 26,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 256,
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "vocab_size": 262144,
    },
    "Qwen3-0.6B": {
        "model_type": "qwen3",
        "attention_bias": False,
        "head_dim": 128,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "max_position_embeddings": 40960,
        "max_window_layers": 28,
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "Qwen3-30B-A3B": {
        "model_type": "qwen3_moe",
        "decoder_sparse_step": 1,
        "head_dim": 128,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "mlp_only_layers": [],
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_attention_heads": 32,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "Mixtral-8x7B": {
        "model_type": "mixtral",
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.02,
        "sliding_window": None,
    },
    "OLMo-1B": {
        "model_type": "olmo",
        "clip_qkv": None,
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "vocab_size": 50304,
    },
    "OLMo-7B": {"model_type": "olmo", "clip_qkv": 8.0},
    "OLMo-2-7B": {"model_type": "olmo2", "rope_theta": 500000, "rope_scaling": None, "vocab_size": 100352},
    "Olmo-3-7B": {
        "model_type": "olmo3",
        "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"] * 8,
        "max_position_embeddings": 65536,
        "rope_scaling": {
            "attention_factor": 1.2079441541679836,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "yarn",
        },
        "rope_theta": 500000,
        "sliding_window": 4096,
        "vocab_size": 100278,
    },
    "phi-2": {
        "model_type": "phi",
        "hidden_act": "gelu_new",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "partial_rotary_factor": 0.4,
        "qk_layernorm": False,
        "rope_scaling": None,
        "rope_theta": 10000.0,
    },
    "Phi-3-mini-4k": {
        "model_type": "phi3",
        "hidden_size": 3072,
        "num_key_value_heads": 32,
        "original_max_position_embeddings": 4096,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": 2047,
    },
    "granite-3.1-2b": {
        "model_type": "granite",
        "attention_multiplier": 0.015625,
        "embedding_multiplier": 12.0,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "logits_scaling": 8.0,
        "num_attention_heads": 32,
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "residual_multiplier": 0.22,
        "rope_theta": 5000000.0,
        "tie_word_embeddings": True,
    },
    "SmolLM3-3B": {
        "model_type": "smollm3",
        "layer_types": ["full_attention"] * 36,
        "max_window_layers": 28,
        "no_rope_layer_interval": 4,
        "no_rope_layers": [1, 1, 1, 0] * 9,
        "rope_theta": 5000000.0,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "stablelm-2-1_6b": {
        "model_type": "stablelm",
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_attention_heads": 32,
        "num_hidden_layers": 24,
        "num_key_value_heads": 32,
        "partial_rotary_factor": 0.25,
        "qk_layernorm": False,
        "rope_theta": 10000,
        "use_parallel_residual": False,
        "use_qkv_bias": True,
        "vocab_size": 100352,
    },
    "c4ai-command-r": {"model_type": "cohere", "logit_scale": 0.0625, "rope_theta": 8000000.0, "use_qk_norm": False},
    "c4ai-command-r7b": {
        "model_type": "cohere2",
        "cache_implementation": "hybrid",
        "head_dim": 128,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "logit_scale": 0.25,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "position_embedding_type": "rope_gptj",
        "sliding_window": 4096,
        "sliding_window_pattern": 4,
    },
    "gpt-j-6b": {"model_type": "gptj", "n_inner": None, "rotary_dim": 64, "scale_attn_weights": True, "rotary": True},
    "starcoderbase": {
        "model_type": "gpt_bigcode",
        "attention_softmax_in_fp32": True,
        "multi_query": True,
        "n_embd": 6144,
        "n_head": 48,
        "n_inner": 24576,
        "n_layer": 40,
        "n_positions": 8192,
        "scale_attention_softmax_in_fp32": True,
        "scale_attn_weights": True,
        "vocab_size": 49152,
    },
    "opt-125m": {
        "model_type": "opt",
        "_remove_final_layer_norm": False,
        "do_layer_norm_before": True,
        "ffn_dim": 3072,
        "word_embed_proj_dim": 768,
        "prefix": "</s>",
    },
    "bloom-560m": {
        "model_type": "bloom",
        "apply_residual_connection_post_layernorm": False,
        "attention_softmax_in_fp32": True,
        "hidden_size": 1024,
        "n_head": 16,
        "n_layer": 24,
        "offset_alibi": 100,
        "pretraining_tp": 1,
        "seq_length": 2048,
        "slow_but_exact": False,
        "use_cache": True,
    },
    "bloom-7b1": {"model_type": "bloom", "n_embed": 4096, "num_attention_heads": 32, "n_layer": 30},
    "falcon-7b": {"model_type": "falcon", "alibi": False, "bias": False, "multi_query": True, "parallel_attn": True},
    "falcon-40b": {
        "model_type": "falcon",
        "hidden_size": 8192,
        "new_decoder_architecture": True,
        "num_attention_heads": 128,
        "num_hidden_layers": 60,
        "num_kv_heads": 8,
        "parallel_attn": True,
    },
    "falcon-rw-1b": {
        "model_type": "falcon",
        "alibi": True,
        "bias": True,
        "hidden_size": 2048,
        "multi_query": False,
        "num_attention_heads": 32,
        "num_hidden_layers": 24,
        "parallel_attn": False,
        "vocab_size": 50304,
    },
}
"""What matters here of published configs, written from memory of their files."""


def check(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    return check_files(folder, weights=False, tokenizer=False)


@pytest.mark.parametrize("name", PUBLISHED)
def test_configs_as_they_are_published_are_read(tmp_path, name):
    config = PUBLISHED[name]
    found = check(tmp_path, config).layout
    by_transformers = transformers.AutoConfig.from_pretrained(tmp_path)
    assert layout(by_transformers.to_dict()).shapes == found.shapes
    with_weights = by_transformers.to_dict() | {"model_type": config["model_type"]}
    assert check(tmp_path, json.loads(json.dumps(with_weights))).layout == found


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_of_tiny_models_are_read_and_keys_of_other_families_are_not(tmp_path, name):
    config = json.loads(CONFIGS[name]().to_json_string(use_diff=False))
    check(tmp_path, config)
    odd = {
        "attn_logit_softcapping": 30.0,
        "clip_qkv": 8.0,
        "final_logit_softcapping": 30.0,
        "logit_scale": 0.5,
        "logits_scaling": 8.0,
        "no_rope_layers": [0, 1, 1],
        "query_pre_attn_scalar": 16,
        "residual_multiplier": 0.2,
        "rotary_dim": 2,
        "use_qk_norm": True,
    }
    applied = APPLIED.get(config["model_type"], ())
    for key in odd.keys() - set(applied):
        with pytest.raises(ValueError, match=f"{key} is .* does not apply"):
            check(tmp_path, config | {key: odd[key]})


def test_what_is_applied_is_known_elsewhere():
    assert set().union(*APPLIED.values()) <= ELSEWHERE.keys()
    assert {*APPLIED, *WINDOWS, *LAYER_TYPES} <= DEFAULTS.keys()


TYPES = ["sliding_attention", "full_attention", "full_attention"]


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("granite", {"residual_multiplier": 0.0}, "residual_multiplier is 0.0, and must be a positive number"),
        ("granite", {"embedding_multiplier": "12"}, "embedding_multiplier is '12', and must be a positive number"),
        ("granite", {"attention_multiplier": None}, "attention_multiplier is None, and must be"),
        ("cohere", {"logit_scale": True}, "logit_scale is True, and must be"),
        ("cohere", {"use_qk_norm": "yes"}, "use_qk_norm is 'yes', which is neither true nor false"),
        ("cohere2", {"sliding_window": None}, "sliding_window is null, and the family 'cohere2' needs one"),
        ("cohere2", {"head_dim": 6}, "head_dim is 6, and heads of the family 'cohere2' have the width .* 4"),
        ("gemma", {"hidden_activation": "relu"}, "hidden_activation is 'relu', which .* does not apply"),
        ("gemma", {"hidden_act": "relu", "hidden_activation": "gelu_pytorch_tanh"}, "hidden_activation is 'gelu_py"),
        ("gemma2", {"hidden_act": "silu"}, "hidden_act is 'silu' and hidden_activation 'gelu_pytorch_tanh', which is"),
        ("gemma2", {"hidden_activation": "bogus"}, "hidden_activation is 'bogus', which is no activation function"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0, and must be a positive number"),
        ("gemma2", {"attn_logit_softcapping": -1.0}, "attn_logit_softcapping is -1.0, and must be"),
        ("gemma2", {"attn_implementation": "sdpa"}, "attn_implementation is 'sdpa', which the family 'gemma2' has not"),
        ("gemma2", {"layer_types": ["sliding_attention"] * 2}, "layer_types is .* for each of the 3 layers"),
        ("gemma2", {"layer_types": ["chunked_attention"] * 3}, "layer_types is .*and must name full_attention or"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0, which .* does not apply"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        (
            "gemma3_text",
            {"rope_parameters": {"rope_type": "default"}},
            "'full_attention' and 'sliding_attention' apart",
        ),
        (
            "gemma3_text",
            {"rope_parameters": {"full_attention": {"rope_type": "bogus"}}},
            "rope_type in its rope_parameters for full_attention is 'bogus'",
        ),
        ("gemma3_text", {"rope_theta": 500.0}, "rope_theta in its rope_parameters is 1000000.0 and rope_theta is 500"),
        ("llama", {"layer_types": TYPES}, "layer_types has windows .* 'llama' does not read it"),
        ("qwen3", {"layer_types": TYPES}, "layer_types has windows of attention, and use_sliding_window or"),
        ("qwen3", {"use_sliding_window": "no"}, "use_sliding_window is 'no', and must be true or false"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers is .*0 or 1 for each of the 3 layers"),
        ("smollm3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval is 0, and must be a positive integer"),
        ("olmo", {"clip_qkv": "8"}, "clip_qkv is '8', and must be a positive number"),
        ("olmo2", {"sliding_window": 5}, "sliding_window is 5, and the family 'olmo2' applies none"),
        (
            "phi",
            {"partial_rotary_factor": 0.3},
            "partial_rotary_factor is 0.5 and .*is 0.3|in its rope_parameters is 0.5",
        ),
        (
            "stablelm",
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}},
            "partial_rotary_factor is 0.25, and must be a share of the width of heads, 4, that is an even number",
        ),
        ("gptj", {"rotary_dim": 6}, "rotary_dim is 6, and heads have a width of 4"),
        ("gptj", {"rotary_dim": 3}, "rotary_dim is 3, and must be an even number"),
        ("gptj", {"rope_parameters": {"rope_theta": 5.0}}, "rope_parameters is set, and the family 'gptj' reads none"),
        ("gpt_bigcode", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn is True, which .* does not apply"),
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before is False: norms would stand in the residual"),
        ("opt", {"_remove_final_layer_norm": True}, "_remove_final_layer_norm is True: there would be no final norm"),
        ("opt", {"word_embed_proj_dim": 12}, "word_embed_proj_dim is 12 and hidden_size 24, and embeddings that are"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "would add to the norm of the stream"),
        ("bloom", {"slow_but_exact": True}, "slow_but_exact is True: W_O would be applied in parts"),
        ("bloom", {"_attn_implementation": "sdpa"}, "_attn_implementation is 'sdpa', which the family 'bloom' has not"),
        ("falcon", {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn is 2: transformers has no such layer"),
        ("falcon, new", {"parallel_attn": False}, "parallel_attn is False: transformers has no sequential layers"),
        ("falcon, new", {"num_kv_heads": 4}, "4 key and value heads do not divide the 6 query heads"),
        ("falcon", {"alibi": None}, "alibi is None, and must be true or false"),
        (
            "falcon, sequential, alibi",
            {"_attn_implementation": "eager"},
            "_attn_implementation is 'eager': ALiBi would",
        ),
        ("falcon, sequential, alibi", {"output_attentions": True}, "output_attentions is True: ALiBi would be added"),
        ("mixtral", {"num_experts": 5}, "num_experts is 5 and num_local_experts is 4, and one is used"),
        ("mixtral", {"num_experts_per_tok": 5}, "num_experts_per_tok is 5, and there are 4 experts"),
        ("qwen3_moe", {"mlp_only_layers": "1"}, "mlp_only_layers is '1', and must be a list of integers"),
        ("qwen3_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step is 0, and must be a positive integer"),
    ],
)
def test_values_with_which_a_family_would_compute_something_else_are_refused(tmp_path, name, changes, says):
    config = json.loads(CONFIGS[name]().to_json_string(use_diff=False))
    with pytest.raises(ValueError, match=f"config(.json)?: .*{says}|config(.json)?: {says}"):
        check(tmp_path, config | changes)


def test_alibi_is_added_twice_by_eager_attention_of_falcon():
    """In transformers 5.24: to the mask, and to the scores again. If this fails, the refusal can go."""
    tokens = torch.arange(12)[None]
    name = "falcon, sequential, alibi"
    with torch.no_grad():
        usual, eager = (module_of(name, attention)(tokens).logits for attention in ("sdpa", "eager"))
    assert (usual - eager).abs().max() > 1e-2
    with torch.no_grad():
        usual, eager = (module_of("falcon", attention)(tokens).logits for attention in ("sdpa", "eager"))
    assert (usual - eager).abs().max() < 1e-4
