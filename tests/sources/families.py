"""Tiny models of Hugging Face's families, drawn at random; their settings here are those of ``mapped``."""

import torch

from learning_geometry.models.language.loading import import_transformers

from .mapped import scattered

transformers = import_transformers()


def tiny(model_class, config_class, **config):
    torch.manual_seed(0)
    sizes = {"vocab_size": 16, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    return scattered(model_class(config_class(**sizes | config)))


def gpt2():
    sizes = {"n_positions": 12, "n_embd": 8, "n_layer": 2, "n_head": 2}
    return tiny(transformers.GPT2LMHeadModel, transformers.GPT2Config, **sizes)


def neox(parallel=True, **config):
    rope = {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.25}
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "rope_parameters": rope,
        "use_parallel_residual": parallel,
    }
    return tiny(transformers.GPTNeoXForCausalLM, transformers.GPTNeoXConfig, **sizes | config)


def llama(**config):
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "intermediate_size": 24,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }
    return tiny(transformers.LlamaForCausalLM, transformers.LlamaConfig, **sizes | config)
