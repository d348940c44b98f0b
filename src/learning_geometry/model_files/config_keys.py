"""Keys of a ``config.json`` that name what a model computes, or how it returns it: each value is known, or refused.

Names are those of ``transformers``, which is not needed here; tests compare them.
"""

import math
from collections.abc import Mapping
from typing import Any

ACTIVATIONS = (
    "gelu",
    "gelu_10",
    "gelu_accurate",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_python_tanh",
    "gelu_pytorch_tanh",
    "hardswish",
    "laplace",
    "leaky_relu",
    "linear",
    "mish",
    "quick_gelu",
    "relu",
    "relu2",
    "relu6",
    "sigmoid",
    "silu",
    "sqrtsoftplus",
    "swish",
    "tanh",
)
"""Activation functions without weights of their own."""

ACTIVATION_KEYS = {
    "falcon": "activation",
    **dict.fromkeys(("gemma2", "gemma3_text"), "hidden_activation"),
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gptj", "opt"), "activation_function"),
}
"""Families -> what their activation function is called, where that is not ``hidden_act``."""

ATTENTIONS = (None, "eager", "sdpa")
"""How attention is computed: both run on every machine, and give the same numbers to rounding."""

ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "return_dict": ((None, True), "the model would return tuples, which are not read; take the key out"),
    "use_return_dict": ((), "transformers does not take it from a file; take the key out"),
    "is_causal": ((None, True), "attention would see what follows, and a language model must not; use another model"),
    "use_bidirectional_attention": (
        (None, False),
        "the family's attention sees nothing that follows; correct model_type, or take the key out",
    ),
    "_attn_implementation": (ATTENTIONS, "'eager' and 'sdpa' are known; take the key out"),
    "attn_implementation": (ATTENTIONS, "'eager' and 'sdpa' are known; take the key out"),
    "experts_implementation": ((None,), "experts are computed in transformers' own way alone; take the key out"),
    "pruned_heads": ((None, {}, []), "heads that were pruned are not left out here; use files of the whole model"),
    "text_config": ((None,), "it describes a part of a larger model; use files of the language model alone"),
    "dtype": ((None, "auto", "float64", "float32", "float16", "bfloat16"), "correct it, or take the key out"),
    "torch_dtype": ((None, "auto", "float64", "float32", "float16", "bfloat16"), "correct it, or take the key out"),
}
"""Key -> values at which numbers are those of the family, and what to do about any other."""

SWITCHES = (
    "_remove_final_layer_norm",
    "alibi",
    "apply_residual_connection_post_layernorm",
    "do_layer_norm_before",
    "new_decoder_architecture",
    "norm_topk_prob",
    "output_attentions",
    "output_hidden_states",
    "reorder_and_upcast_attn",
    "scale_attn_by_inverse_layer_idx",
    "scale_attn_weights",
    "slow_but_exact",
    "torchscript",
    "use_cache",
    "use_parallel_residual",
)
POSITIVE = ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps")


def check_keys(config: Mapping[str, Any]) -> None:
    """Check the keys of a config that name what is computed or how it is returned.

    Args:
        config: as ``config.json``, of a family that is known.

    Raises:
        ValueError: a value is not known; the message names key, value, and what to do.
    """
    for key, (known, advice) in ONLY.items():
        if key in config and not among(config[key], known):
            raise ValueError(f"config.json: {key} is {config[key]!r}: {advice}")
    for key in SWITCHES:
        if key in config and not isinstance(config[key], bool):
            raise ValueError(f"config.json: {key} is {config[key]!r}, and must be true or false; correct it")
    for key in POSITIVE:
        value = config.get(key, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"config.json: {key} is {value!r}, and must be a number from 0 up; correct it")
    key = ACTIVATION_KEYS.get(config["model_type"], "hidden_act")
    if key in config and not among(config[key], ACTIVATIONS):
        raise ValueError(
            f"config.json: {key} is {config[key]!r}, which is no activation function that is known; correct it to one "
            f"of {', '.join(ACTIVATIONS)}, or use another model"
        )


def among(value: Any, known: tuple[Any, ...]) -> bool:
    """Whether a value is one of some, of its type: 1 is not true, and 0 not false."""
    return any(type(value) is type(each) and value == each for each in known)
