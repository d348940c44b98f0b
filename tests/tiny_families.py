"""Tiny random models of the families that are known, in memory."""

import math

import torch

from learning_geometry.models.language.loading import import_transformers
from learning_geometry.seeding import seeded

transformers = import_transformers()

SIZES = {"vocab_size": 31, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6, "pad_token_id": None}
NEOX = SIZES | {"intermediate_size": 40, "max_position_embeddings": 64}
LLAMA = NEOX | {"num_key_value_heads": 2}
GPT2 = {"vocab_size": 31, "n_embd": 24, "n_layer": 3, "n_head": 6, "n_positions": 64}
GPTJ = GPT2 | {"rotary_dim": 2, "n_inner": 40}
FALCON = SIZES | {"ffn_hidden_size": 40, "max_position_embeddings": 64, "num_kv_heads": 2}
BLOOM = {"vocab_size": 31, "hidden_size": 24, "n_layer": 3, "n_head": 6}
OPT = SIZES | {"ffn_dim": 40, "max_position_embeddings": 64}
SLIDING = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
GEMMA2 = LLAMA | SLIDING | {"head_dim": 6, "query_pre_attn_scalar": 9}
STABLELM = LLAMA | {"partial_rotary_factor": 0.5}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 6}
OLD = {
    "llama": lambda: transformers.LlamaConfig(**LLAMA),
    "llama with biases, wide heads": lambda: transformers.LlamaConfig(
        **LLAMA, attention_bias=True, mlp_bias=True, head_dim=6
    ),
    "qwen2": lambda: transformers.Qwen2Config(**LLAMA),
    "mistral": lambda: transformers.MistralConfig(**LLAMA, sliding_window=5),
    "gpt2": lambda: transformers.GPT2Config(**GPT2),
    "gpt2 scaled by layer": lambda: transformers.GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**NEOX),
    "gpt_neox, sequential": lambda: transformers.GPTNeoXConfig(**NEOX, use_parallel_residual=False),
}
NEW = {
    "bloom": lambda: transformers.BloomConfig(**BLOOM),
    "cohere": lambda: transformers.CohereConfig(**LLAMA),
    "cohere, normed queries": lambda: transformers.CohereConfig(**LLAMA, use_qk_norm=True),
    "cohere2": lambda: transformers.Cohere2Config(**LLAMA, **SLIDING),
    "falcon": lambda: transformers.FalconConfig(**FALCON),
    "falcon, new": lambda: transformers.FalconConfig(**FALCON, new_decoder_architecture=True),
    "falcon, new, one norm": lambda: transformers.FalconConfig(
        **FALCON, new_decoder_architecture=True, num_ln_in_parallel_attn=1
    ),
    "falcon, sequential, alibi": lambda: transformers.FalconConfig(
        **FALCON | {"num_kv_heads": None}, parallel_attn=False, multi_query=False, alibi=True, bias=True
    ),
    "gemma": lambda: transformers.GemmaConfig(**LLAMA, head_dim=6),
    "gemma2": lambda: transformers.Gemma2Config(**GEMMA2, attn_logit_softcapping=4.0, final_logit_softcapping=3.0),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(**GEMMA2),
    "gpt_bigcode": lambda: transformers.GPTBigCodeConfig(**GPT2),
    "gpt_bigcode, a key per head": lambda: transformers.GPTBigCodeConfig(**GPT2, multi_query=False),
    "gptj": lambda: transformers.GPTJConfig(**GPTJ),
    "granite": lambda: transformers.GraniteConfig(
        **LLAMA, residual_multiplier=0.22, embedding_multiplier=12.0, logits_scaling=8.0, attention_multiplier=0.4
    ),
    "mixtral": lambda: transformers.MixtralConfig(**LLAMA, sliding_window=5, num_local_experts=4),
    "olmo": lambda: transformers.OlmoConfig(**LLAMA),
    "olmo, clipped": lambda: transformers.OlmoConfig(**LLAMA, clip_qkv=0.8),
    "olmo2": lambda: transformers.Olmo2Config(**LLAMA),
    "olmo3": lambda: transformers.Olmo3Config(**LLAMA, **SLIDING),
    "opt": lambda: transformers.OPTConfig(**OPT),
    "phi": lambda: transformers.PhiConfig(**LLAMA),
    "phi, normed queries": lambda: transformers.PhiConfig(**LLAMA, qk_layernorm=True),
    "phi3": lambda: transformers.Phi3Config(**LLAMA, sliding_window=5),
    "qwen3": lambda: transformers.Qwen3Config(**LLAMA, head_dim=6),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(**LLAMA, **EXPERTS),
    "qwen3_moe, one dense": lambda: transformers.Qwen3MoeConfig(**LLAMA, **EXPERTS, mlp_only_layers=[1]),
    "smollm3": lambda: transformers.SmolLM3Config(**LLAMA, no_rope_layers=[1, 1, 0]),
    "stablelm": lambda: transformers.StableLmConfig(**STABLELM, use_qkv_bias=True),
    "stablelm, parallel, normed queries": lambda: transformers.StableLmConfig(
        **STABLELM, use_parallel_residual=True, qk_layernorm=True
    ),
}
CONFIGS = OLD | NEW


def module_of(name, attention=None):
    """A model whose parameters, biases and norms included, are all random and of order one at their output."""
    return randomised(CONFIGS[name](), name, attention)


def randomised(config, name, attention=None):
    """The same of a config of one's own."""
    module = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    generator = seeded(0, name)
    with torch.no_grad():
        for parameter in module.parameters():
            draws = torch.from_numpy(generator.standard_normal(tuple(parameter.shape), dtype="float32"))
            parameter.copy_(draws / math.sqrt(24) if parameter.ndim > 1 else 1 + 0.3 * draws)
    return module
