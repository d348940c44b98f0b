"""Tiny random models of the families that are known, in memory."""

import math

import torch

from learning_geometry.models.language.loading import import_transformers
from learning_geometry.seeding import seeded

transformers = import_transformers()

SIZES = {"vocab_size": 31, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6}
LLAMA = SIZES | {"intermediate_size": 40, "num_key_value_heads": 2, "max_position_embeddings": 64}
GPT2 = {"vocab_size": 31, "n_embd": 24, "n_layer": 3, "n_head": 6, "n_positions": 64}
NEOX = SIZES | {"intermediate_size": 40, "max_position_embeddings": 64}
CONFIGS = {
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


def module_of(name, attention="sdpa"):
    """A model whose parameters, biases and norms included, are all random and of order one at their output."""
    return randomised(CONFIGS[name](), name, attention)


def randomised(config, name, attention="sdpa"):
    """The same of a config of one's own."""
    module = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    generator = seeded(0, name)
    with torch.no_grad():
        for parameter in module.parameters():
            draws = torch.from_numpy(generator.standard_normal(tuple(parameter.shape), dtype="float32"))
            parameter.copy_(draws / math.sqrt(24) if parameter.ndim == 2 else 1 + 0.3 * draws)
    return module
