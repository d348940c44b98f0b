"""Keys of a ``config.json`` that some families apply and others pass over: applied as they should be, or refused.

What a family applies ``transformers`` computes by itself; here is checked that it is a value that it can compute with.
Seen in transformers 5.24, ``models/<model_type>``.
"""

import math
from collections.abc import Mapping
from typing import Any

from learning_geometry.model_files.layout_defaults import DEFAULTS

ELSEWHERE: dict[str, tuple[Any, ...]] = {
    "_remove_final_layer_norm": (None, False),
    "alibi": (None, False),
    "apply_residual_connection_post_layernorm": (None, False),
    "attention_multiplier": (None,),
    "attn_logit_softcapping": (None,),
    "clip_qkv": (None,),
    "decoder_sparse_step": (None, 1),
    "do_layer_norm_before": (None, True),
    "embedding_multiplier": (None, 1),
    "final_logit_softcapping": (None,),
    "hidden_activation": (None,),
    "logit_scale": (None, 1),
    "logits_scaling": (None, 1),
    "mlp_only_layers": (None, []),
    "multi_query": (None, False),
    "new_decoder_architecture": (None, False),
    "no_rope_layer_interval": (None,),
    "no_rope_layers": (None, []),
    "norm_topk_prob": (None, False),
    "num_experts": (None, 0, 1),
    "num_experts_per_tok": (None,),
    "num_ln_in_parallel_attn": (None,),
    "num_local_experts": (None, 0, 1),
    "parallel_attn": (None, False),
    "qk_layernorm": (None, False),
    "query_pre_attn_scalar": (None,),
    "reorder_and_upcast_attn": (None, False),
    "residual_multiplier": (None, 1),
    "rope_local_base_freq": (None,),
    "rotary_dim": (None,),
    "scale_attn_by_inverse_layer_idx": (None, False),
    "scale_attn_weights": (None, True),
    "sliding_window_pattern": (None,),
    "slow_but_exact": (None, False),
    "use_parallel_residual": (None, False),
    "use_qk_norm": (None, False),
    "use_qkv_bias": (None, False),
}
"""Keys that change numbers in some families, and at which values they change nothing in the others."""

APPLIED: dict[str, tuple[str, ...]] = {
    "bloom": ("apply_residual_connection_post_layernorm", "slow_but_exact"),
    "cohere": ("logit_scale", "use_qk_norm"),
    "cohere2": ("logit_scale", "sliding_window_pattern"),
    "falcon": ("alibi", "multi_query", "new_decoder_architecture", "num_ln_in_parallel_attn", "parallel_attn"),
    "gemma2": ("attn_logit_softcapping", "final_logit_softcapping", "hidden_activation", "query_pre_attn_scalar"),
    # it holds a soft cap of scores, and passes it over
    "gemma3_text": (
        "final_logit_softcapping",
        "hidden_activation",
        "query_pre_attn_scalar",
        "rope_local_base_freq",
        "sliding_window_pattern",
    ),
    "gpt2": ("reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx", "scale_attn_weights"),
    "gpt_bigcode": ("multi_query", "scale_attn_weights"),
    "gpt_neox": ("use_parallel_residual",),
    "gptj": ("rotary_dim",),
    "granite": ("attention_multiplier", "embedding_multiplier", "logits_scaling", "residual_multiplier"),
    "mixtral": ("num_experts", "num_experts_per_tok", "num_local_experts"),
    "olmo": ("clip_qkv",),
    "opt": ("_remove_final_layer_norm", "do_layer_norm_before"),
    "phi": ("qk_layernorm",),
    "qwen3_moe": (
        "decoder_sparse_step",
        "mlp_only_layers",
        "norm_topk_prob",
        "num_experts",
        "num_experts_per_tok",
        "num_local_experts",
    ),
    "smollm3": ("no_rope_layer_interval", "no_rope_layers"),
    "stablelm": ("qk_layernorm", "use_parallel_residual", "use_qkv_bias"),
}
"""Family -> those of these keys that it applies."""

FACTORS = (
    "attention_multiplier",
    "embedding_multiplier",
    "logit_scale",
    "logits_scaling",
    "query_pre_attn_scalar",
    "residual_multiplier",
)
CAPS = ("attn_logit_softcapping", "clip_qkv", "final_logit_softcapping")
"""Positive numbers, or null."""
COUNTS = ("no_rope_layer_interval", "num_experts_per_tok", "sliding_window_pattern")

WINDOWS: dict[str, int | None] = {
    "cohere2": 4096,
    "gemma2": 4096,
    "gemma3_text": 4096,
    "mistral": 4096,
    "mixtral": None,
    "olmo3": 4096,
    "phi3": None,
    "qwen2": None,
    "qwen3": None,
    "qwen3_moe": None,
    "smollm3": None,
}
"""Families with a window of attention -> its default."""

LAYER_TYPES = ("cohere2", "gemma2", "gemma3_text", "olmo3", "qwen2", "qwen3", "smollm3")
"""Families whose layers may be of two types: with a window and without."""
ALWAYS_SLIDING = ("cohere2", "gemma2", "gemma3_text", "olmo3")
"""Those that need a window whatever types their layers have."""

GELU = "gelu_pytorch_tanh"
"""The activation function of all Gemmas where their config is silent."""

EAGER = ("bloom", "gemma2")
"""Families that compute attention in one way alone."""


def check_family_keys(config: Mapping[str, Any]) -> None:
    """Check the keys that some families apply and others pass over.

    Args:
        config: as ``config.json``, of a family that is known.

    Raises:
        ValueError: a key that the family passes over, or a value with which it does not compute what is named.
    """
    family = config["model_type"]
    applied = APPLIED.get(family, ())
    for key, neutral in ELSEWHERE.items():
        if family == "gemma" and key == "hidden_activation":
            # the first Gemma takes hidden_act alone, and "gelu" for its approximation by tanh
            neutral = (None, {"gelu": GELU}.get(act := config.get("hidden_act", GELU), act))
        if key not in applied and key in config and config[key] not in neutral:
            raise ValueError(
                f"config.json: {key} is {config[key]!r}, which a model of the family {family!r} does not apply; "
                "correct model_type, or take the key out"
            )
    for key in applied:
        if key in config:
            _check_value(key, config[key])
    if family in EAGER:
        for key in ("_attn_implementation", "attn_implementation"):
            if config.get(key) == "sdpa":
                raise ValueError(f"config.json: {key} is 'sdpa', which the family {family!r} has not; take the key out")
    _check_windows(config)
    if check := _OF_FAMILY.get(family):
        check(config)


def _check_value(key: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in FACTORS or (key in CAPS and value is not None):
        if not number or not 0 < value < math.inf:
            raise ValueError(f"config.json: {key} is {value!r}, and must be a positive number; correct it")
    elif key in COUNTS and (type(value) is not int or value < 1):
        raise ValueError(f"config.json: {key} is {value!r}, and must be a positive integer; correct it")


def _check_windows(config: Mapping[str, Any]) -> None:
    family = config["model_type"]
    window = config.get("sliding_window", WINDOWS.get(family))
    if window is not None and (type(window) is not int or window < 1):
        raise ValueError(f"config.json: sliding_window is {window!r}, and must be an integer above 0 or null")
    if family in ALWAYS_SLIDING and window is None:
        raise ValueError(f"config.json: sliding_window is null, and the family {family!r} needs one; correct it")
    if config.get("use_sliding_window") not in (None, True, False):
        raise ValueError(
            f"config.json: use_sliding_window is {config['use_sliding_window']!r}, and must be true or false"
        )
    types = config.get("layer_types")
    if types is None:
        return
    layers = _layers(config)
    known = ("full_attention", "sliding_attention")
    if not isinstance(types, list) or len(types) != layers or any(each not in known for each in types):
        raise ValueError(
            f"config.json: layer_types is {types!r}, and must name {' or '.join(known)} for each of the {layers} layers"
        )
    if "sliding_attention" not in types:
        return
    if family not in LAYER_TYPES:
        raise ValueError(
            f"config.json: layer_types has windows of attention, and the family {family!r} does not read it; correct "
            "model_type, or take the key out"
        )
    if family not in ALWAYS_SLIDING and not (window is not None and config.get("use_sliding_window")):
        raise ValueError(
            "config.json: layer_types has windows of attention, and use_sliding_window or sliding_window none; mend it"
        )


def _layers(config: Mapping[str, Any]) -> Any:
    return config.get("num_hidden_layers") or DEFAULTS[config["model_type"]].get("num_hidden_layers")


def _refuse(config: Mapping[str, Any], key: str, reason: str) -> None:
    raise ValueError(f"config.json: {key} is {config[key]!r}: {reason}; use another model")


def _check_bloom(config: Mapping[str, Any]) -> None:
    if config.get("apply_residual_connection_post_layernorm"):
        _refuse(config, "apply_residual_connection_post_layernorm", "layers would add to the norm of the stream")
    if config.get("slow_but_exact"):
        _refuse(config, "slow_but_exact", "W_O would be applied in parts, without its bias, which are not seen")


def _check_opt(config: Mapping[str, Any]) -> None:
    if config.get("do_layer_norm_before") is False:
        _refuse(config, "do_layer_norm_before", "norms would stand in the residual stream itself (as in OPT-350m)")
    if config.get("_remove_final_layer_norm"):
        _refuse(config, "_remove_final_layer_norm", "there would be no final norm")


def _check_falcon(config: Mapping[str, Any]) -> None:
    new, parallel = config.get("new_decoder_architecture", False), config.get("parallel_attn", True)
    norms = config.get("num_ln_in_parallel_attn")
    if norms not in (None, 1, 2) or isinstance(norms, bool) or (norms == 2 and not new and parallel):
        _refuse(config, "num_ln_in_parallel_attn", "transformers has no such layer")
    if new and not parallel:
        _refuse(config, "parallel_attn", "transformers has no sequential layers of the new decoder architecture")
    if config.get("alibi"):
        # transformers (5.24) adds ALiBi to the mask, and eager attention adds it to the scores as well
        for key in ("_attn_implementation", "attn_implementation"):
            if config.get(key) == "eager":
                _refuse(config, key, "ALiBi would be added twice")
        if config.get("output_attentions"):
            _refuse(config, "output_attentions", "ALiBi would be added twice")


def _check_gemma2(config: Mapping[str, Any]) -> None:
    act, used = config.get("hidden_act"), config.get("hidden_activation", GELU)
    if act is not None and act != used:
        raise ValueError(
            f"config.json: hidden_act is {act!r} and hidden_activation {used!r}, which is used; take hidden_act out"
        )


def _check_experts(config: Mapping[str, Any]) -> None:
    default = DEFAULTS[config["model_type"]]["num_local_experts"]
    named = {key: config[key] for key in ("num_experts", "num_local_experts") if config.get(key) is not None}
    if len(set(named.values())) > 1:
        both = " and ".join(f"{key} is {value}" for key, value in named.items())
        raise ValueError(f"config.json: {both}, and one is used; take the other out")
    experts, chosen = next(iter(named.values()), default), config.get("num_experts_per_tok", 1)
    if type(experts) is int and chosen > experts:
        raise ValueError(f"config.json: num_experts_per_tok is {chosen}, and there are {experts} experts; correct it")


def _check_smollm3(config: Mapping[str, Any]) -> None:
    turned, layers = config.get("no_rope_layers"), _layers(config)
    if turned is not None and not (
        isinstance(turned, list) and len(turned) == layers and all(each in (0, 1) for each in turned)
    ):
        raise ValueError(
            f"config.json: no_rope_layers is {turned!r}, and must be 0 or 1 for each of the {layers} layers; correct it"
        )


_OF_FAMILY = {
    "bloom": _check_bloom,
    "falcon": _check_falcon,
    "gemma2": _check_gemma2,
    "gemma3_text": _check_gemma2,
    "mixtral": _check_experts,
    "opt": _check_opt,
    "qwen3_moe": _check_experts,
    "smollm3": _check_smollm3,
}
