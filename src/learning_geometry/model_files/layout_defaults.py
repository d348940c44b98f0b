"""What configs of the families hold where ``config.json`` is silent, as far as tensors follow from it.

Names and defaults are those of ``transformers``, which is not needed here; tests compare them.
"""

from typing import Any


def _llama(**of_family: Any) -> dict[str, Any]:
    """Defaults of a family whose sizes are called as Llama's are, most of which these are."""
    return {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "head_dim": None,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    } | of_family


def _olmo(**of_family: Any) -> dict[str, Any]:
    return _llama(vocab_size=50304, attention_bias=False, **of_family)


def _gemma(**of_family: Any) -> dict[str, Any]:
    """Those of Gemma 2."""
    return _llama(
        **{
            "vocab_size": 256000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            "attention_bias": False,
        }
        | of_family
    )


def _cohere(**of_family: Any) -> dict[str, Any]:
    return _llama(
        vocab_size=256000,
        hidden_size=8192,
        intermediate_size=22528,
        num_hidden_layers=40,
        num_attention_heads=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        attention_bias=False,
        **of_family,
    )


DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": _llama(attention_bias=False, mlp_bias=False),
    "mistral": _llama(intermediate_size=14336, num_key_value_heads=8, max_position_embeddings=131072),
    "qwen2": _llama(vocab_size=151936, intermediate_size=22016, num_key_value_heads=32, max_position_embeddings=32768),
    "qwen3": _llama(
        vocab_size=151936,
        intermediate_size=22016,
        num_key_value_heads=32,
        head_dim=128,
        max_position_embeddings=32768,
        attention_bias=False,
    ),
    "qwen3_moe": _llama(
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=24,
        num_key_value_heads=4,
        max_position_embeddings=32768,
        attention_bias=False,
        num_local_experts=128,
        moe_intermediate_size=768,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    ),
    "mixtral": _llama(
        intermediate_size=14336, num_key_value_heads=8, max_position_embeddings=131072, num_local_experts=8
    ),
    "gemma": _gemma(
        hidden_size=3072,
        intermediate_size=24576,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=16,
    ),
    "gemma2": _gemma(),
    "gemma3_text": _gemma(vocab_size=262208, max_position_embeddings=131072),
    "olmo": _olmo(),
    "olmo2": _olmo(),
    "olmo3": _olmo(),
    "phi": _llama(vocab_size=51200, hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, qk_layernorm=False),
    "phi3": _llama(vocab_size=32064, hidden_size=3072, intermediate_size=8192, max_position_embeddings=4096),
    "granite": _llama(attention_bias=False, mlp_bias=False),
    "smollm3": _llama(
        vocab_size=128256,
        hidden_size=2048,
        num_hidden_layers=36,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
    ),
    "stablelm": _llama(
        vocab_size=50304,
        hidden_size=2560,
        intermediate_size=6912,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        use_qkv_bias=False,
        qk_layernorm=False,
        use_parallel_residual=False,
    ),
    "cohere": _cohere(use_qk_norm=False),
    "cohere2": _cohere(),
    "gpt2": {
        "vocab_size": 50257,
        "n_embd": 768,
        "n_inner": None,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "tie_word_embeddings": True,
    },
    "gpt_bigcode": {
        "vocab_size": 50257,
        "n_embd": 768,
        "n_inner": None,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "multi_query": True,
        "tie_word_embeddings": True,
    },
    "gptj": {
        "vocab_size": 50400,
        "n_embd": 4096,
        "n_inner": None,
        "n_layer": 28,
        "n_head": 16,
        "n_positions": 2048,
        "rotary_dim": 64,
        "tie_word_embeddings": False,
    },
    "gpt_neox": {
        "vocab_size": 50432,
        "hidden_size": 6144,
        "intermediate_size": 24576,
        "num_hidden_layers": 44,
        "num_attention_heads": 64,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "attention_bias": True,
    },
    "opt": {
        "vocab_size": 50272,
        "hidden_size": 768,
        "ffn_dim": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 2048,
        "word_embed_proj_dim": None,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "tie_word_embeddings": True,
    },
    "bloom": {
        "vocab_size": 250880,
        "hidden_size": 64,
        "n_layer": 2,
        "n_head": 8,
        "tie_word_embeddings": True,
    },
    "falcon": {
        "vocab_size": 65024,
        "hidden_size": 4544,
        "ffn_hidden_size": None,
        "num_hidden_layers": 32,
        "num_attention_heads": 71,
        "num_kv_heads": None,
        "num_ln_in_parallel_attn": None,
        "new_decoder_architecture": False,
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
}
"""Family -> key -> value; None: it follows from other keys."""

NULLABLE = ("num_key_value_heads",)
"""Keys that may be null in a file, whatever their default: they then follow from others."""

_GPT = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
_EXPERTS = {"num_experts": "num_local_experts"}
ALIASES = {
    "bloom": {"num_attention_heads": "n_head", "num_hidden_layers": "n_layer"},
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gptj": _GPT,
    "mixtral": _EXPERTS,
    "qwen3_moe": _EXPERTS,
}
"""Family -> other names of keys -> those of the defaults."""

INSTEAD = {family: {"n_embed": "hidden_size"} for family in ("bloom", "falcon")}
"""Family -> keys of old files -> those that they go before."""

FIXED_HEADS = ("bloom", "cohere2", "falcon", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "opt", "stablelm")
"""Families whose heads are as wide as the model divided by their number, whatever the config says."""
