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

ROTATIONS: dict[str, tuple[str, ...]] = {
    "default": (),
    "dynamic": ("factor",),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
    "proportional": (),
    "yarn": ("factor",),
}
"""Kinds of rotary positions -> keys that they need."""

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
    "experts_implementation": ((None,), "the family has no experts; take the key out"),
    "pruned_heads": ((None, {}, []), "heads that were pruned are not left out here; use files of the whole model"),
    "text_config": ((None,), "it describes a part of a larger model; use files of the language model alone"),
    "dtype": ((None, "auto", "float64", "float32", "float16", "bfloat16"), "correct it, or take the key out"),
    "torch_dtype": ((None, "auto", "float64", "float32", "float16", "bfloat16"), "correct it, or take the key out"),
}
"""Key -> values at which numbers are those of the family, and what to do about any other."""

SWITCHES = (
    "output_attentions",
    "output_hidden_states",
    "reorder_and_upcast_attn",
    "scale_attn_by_inverse_layer_idx",
    "scale_attn_weights",
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
        if key in config and not _among(config[key], known):
            raise ValueError(f"config.json: {key} is {config[key]!r}: {advice}")
    for key in SWITCHES:
        if key in config and not isinstance(config[key], bool):
            raise ValueError(f"config.json: {key} is {config[key]!r}, and must be true or false; correct it")
    for key in POSITIVE:
        value = config.get(key, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"config.json: {key} is {value!r}, and must be a number from 0 up; correct it")
    key = "activation_function" if config["model_type"] == "gpt2" else "hidden_act"
    if key in config and not _among(config[key], ACTIVATIONS):
        raise ValueError(
            f"config.json: {key} is {config[key]!r}, which is no activation function that is known; correct it to one "
            f"of {', '.join(ACTIVATIONS)}, or use another model"
        )
    for key in ("rope_parameters", "rope_scaling"):
        if config.get(key) and isinstance(config[key], dict):
            _check_rotation(config["model_type"], key, config[key])


def _among(value: Any, known: tuple[Any, ...]) -> bool:
    """Whether a value is one of some, of its type: 1 is not true, and 0 not false."""
    return any(type(value) is type(each) and value == each for each in known)


def _check_rotation(family: str, section: str, rope: Mapping[str, Any]) -> None:
    """Check the kind of rotary positions, and that what it needs is there."""
    if family == "gpt2":
        raise ValueError(
            f"config.json: {section} is set, and the family 'gpt2' has no rotary positions; correct model_type, or "
            "take the key out"
        )
    if nested := [key for key, value in rope.items() if isinstance(value, dict)]:
        raise ValueError(
            f"config.json: {section} describes {nested[0]!r} apart, and all layers of the family {family!r} turn "
            "alike; correct model_type, or describe them once"
        )
    said = {key: rope[key] for key in ("rope_type", "type") if key in rope}
    for key, kind in said.items():
        if not _among(kind, tuple(ROTATIONS)):
            raise ValueError(
                f"config.json: {key} in its {section} is {kind!r}, which is no kind of rotary positions that is known; "
                f"correct it to one of {', '.join(ROTATIONS)}, or use another model"
            )
    if len(set(said.values())) > 1:
        raise ValueError(
            f"config.json: rope_type in its {section} is {rope['rope_type']!r} and type is {rope['type']!r}, and one "
            "is used; take the other out"
        )
    kind = next(iter(said.values()), "default")
    for key in ROTATIONS[kind]:
        if rope.get(key) is None:
            raise ValueError(
                f"config.json: {key} is not in its {section}, and rotary positions of the kind {kind!r} need it; add it"
            )
