"""What a GGUF file says of its model, as the config and the names of Hugging Face's layout.

Every key of the architecture's own namespace is used here, or known to change nothing at the value that it has, or
refused; so is every tensor. What keys mean is taken from the GGUF specification and from llama.cpp, whose converter
writes these files.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from learning_geometry.model_files.headers import Count, Gguf
from learning_geometry.model_files.layouts import MOST_LAYERS

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor by which rotary frequencies are divided, as Llama 3.1 and later have it."""

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "gpt2": "gpt2"}
"""Architecture of a GGUF file -> family. Mistral is converted as ``llama``."""

ROTARY = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
LEARNED = {
    "block_count": "n_layer",
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
FACTORS = ("scaling.factor", "scale_linear")
"""Names of the factor by which positions are divided: today's, and that of old files."""

NEEDED = {"llama": ROTARY, "qwen2": ROTARY, "gpt2": LEARNED}
"""Keys that a file must have, and the config's names of them."""

CHANGES_NOTHING: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.scale": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "logit_scale": (0.0, 1.0),
    "pooling_type": (0,),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.finetuned": (True, False),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (1.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "tensor_data_layout": ("Meta AI original pth",),
    "use_parallel_residual": (False,),
}
"""Keys that change nothing at these values; at another they are refused."""

PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GPT2_PARTS = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}
GPT2_NAMES = {
    "token_embd.weight": "transformer.wte.weight",
    "position_embd.weight": "transformer.wpe.weight",
    "output_norm.weight": "transformer.ln_f.weight",
    "output_norm.bias": "transformer.ln_f.bias",
}
"""Tensors outside of the blocks, and the names of their weights, but for the read-out."""
GPT2_TRANSPOSED = ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")
"""Weights that GPT-2 has with the input dimension first, and GGUF files have not."""

TEXT_SPLITS = ("gpt-2", "smollm", "llama-bpe", "llama3", "llama-v3", "qwen2", "deepseek-r1-qwen")
"""Ways to split texts before byte pairs are merged (``tokenizer.ggml.pre``) that are known to be right here."""


class GgufModel(NamedTuple):
    """A GGUF file's model in the terms of Hugging Face's layout."""

    config: dict[str, Any]
    """With ``model_type``, as ``config.json`` has it."""
    names: dict[str, str]
    """Name of a tensor in the file -> name of the weight."""
    transposed: frozenset[str]
    """Tensors of the file whose transpose is the weight."""
    interleaved: dict[str, int]
    """Tensors of the file whose rows have the halves of each head interleaved -> number of heads."""
    rope_factors: bool
    """Whether the file has :data:`ROPE_FACTORS`."""


def gguf_model(header: Gguf) -> GgufModel:
    """Return what the file says of its model.

    Raises:
        ValueError: its architecture is not known, a key is missing, or one is there that is not understood.
    """
    architecture = _architecture(header.keys)
    family, tensors = ARCHITECTURES[architecture], header.tensors
    own = {
        key.removeprefix(f"{architecture}."): value
        for key, value in header.keys.items()
        if key.startswith(f"{architecture}.")
    }
    config = {"model_type": family, **_needed(architecture, NEEDED[family], own)}
    config |= _vocabulary(architecture, own, header)
    config["tie_word_embeddings"] = "output.weight" not in tensors
    layers = config[NEEDED[family]["block_count"]]
    if layers > MOST_LAYERS:
        raise ValueError(f"{architecture}.block_count: {layers}, and at most {MOST_LAYERS} are read")
    heads = config[NEEDED[family]["attention.head_count"]]
    shared = own.pop("attention.head_count_kv", heads)
    shared = shared[0] if isinstance(shared, list) and len(set(shared)) == 1 else shared
    transposed: frozenset[str] = frozenset()
    interleaved: dict[str, int] = {}
    if family == "gpt2":
        if shared != heads:
            raise ValueError(
                f"{architecture}.attention.head_count_kv: {shared}, and GPT-2 has as many as heads, {heads}"
            )
        names = _names(layers, GPT2_PARTS, "transformer.h") | GPT2_NAMES
        transposed = frozenset(name for name in names if name.endswith(GPT2_TRANSPOSED) and name.startswith("blk."))
    else:
        config["num_key_value_heads"] = shared
        config["head_dim"] = _head_width(architecture, own, header, heads, config["hidden_size"])
        config |= _rope(architecture, own, config["max_position_embeddings"])
        names = _names(layers, PARTS, "model.layers") | NAMES
        if family == "llama":
            config["attention_bias"] = "blk.0.attn_q.bias" in tensors
            config["mlp_bias"] = "blk.0.ffn_down.bias" in tensors
        if architecture == "llama":
            turned = {".attn_q.": heads, ".attn_k.": shared}
            interleaved = {name: number for name in names for part, number in turned.items() if part in name}
    names["output.weight"] = "lm_head.weight"
    _check_known(architecture, own, own_context(config))
    factors = ROPE_FACTORS in tensors
    if factors:
        _check_rope_factors(header, config, architecture)
    return GgufModel(config, names, transposed, interleaved, factors)


def own_context(config: Mapping[str, Any]) -> int:
    """Return the longest sequence that a config names."""
    return int(config.get("max_position_embeddings") or config["n_positions"])


def check_text_splits(keys: Mapping[str, Any]) -> None:
    """Check that the tokenizer of a GGUF file is one that is known to cut texts rightly.

    Raises:
        ValueError: it is not.
    """
    kind, split = keys.get("tokenizer.ggml.model"), keys.get("tokenizer.ggml.pre")
    advice = "use the model's safetensors files, which have a tokenizer of their own"
    if kind == "gpt2":
        if split not in TEXT_SPLITS:
            what = "it is absent" if split is None else f"{split!r} is not known"
            raise ValueError(
                f"tokenizer.ggml.pre: {what}, and so is how texts are split before byte pairs are merged; known are "
                f"{', '.join(TEXT_SPLITS)}; {advice}"
            )
    elif kind == "llama":
        if split not in (None, "default"):
            raise ValueError(f"tokenizer.ggml.pre: {split!r} with the tokenizer 'llama', which has none; {advice}")
        if keys.get("tokenizer.ggml.remove_extra_whitespaces"):
            raise ValueError(f"tokenizer.ggml.remove_extra_whitespaces: true, which is not applied; {advice}")
    else:
        raise ValueError(f"tokenizer.ggml.model: {kind!r}, and only gpt2 and llama are read; {advice}")
    if "tokenizer.ggml.tokens" not in keys:
        raise ValueError(f"tokenizer.ggml.tokens: the file has none; {advice}")


def _architecture(keys: Mapping[str, Any]) -> str:
    """Return the architecture of a file that holds a whole model of a known one."""
    architecture = keys.get("general.architecture")
    if architecture not in ARCHITECTURES:
        more = (
            "; neither the file nor transformers says all that GPT-NeoX needs: use its safetensors files"
            if architecture == "gptneox"
            else ""
        )
        raise ValueError(
            f"general.architecture: {architecture!r} is not read from GGUF, but {', '.join(ARCHITECTURES)} are{more}"
        )
    if keys.get("general.type", "model") != "model":
        raise ValueError(f"general.type: {keys['general.type']!r}, and only whole models are read")
    if keys.get("split.count", 1) not in (0, 1):
        raise ValueError(
            f"split.count: the file is one of {keys['split.count']} parts of a model; merge them with llama-gguf-split"
        )
    if adapter := sorted(key for key in keys if key.startswith("adapter.")):
        raise ValueError(f"{adapter[0]}: the file is an adapter to a model; merge it into the model first")
    return architecture


def _needed(architecture: str, names: Mapping[str, str], own: dict[str, Any]) -> dict[str, Any]:
    """Settings that every file must have, by the config's names of them; their keys are taken from ``own``."""
    config: dict[str, Any] = {}
    for key, name in names.items():
        if key not in own:
            raise ValueError(f"{architecture}.{key}: the file lacks this key; convert the model again")
        value = own.pop(key)
        if isinstance(value, list) and len(set(value)) == 1:  # one for each layer, all alike
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise ValueError(f"{architecture}.{key}: {value!r}, and one positive number for all layers is read")
        if "epsilon" not in key and not isinstance(value, int):
            raise ValueError(f"{architecture}.{key}: {value!r}, and must be an integer")
        config[name] = value
    return config


def _vocabulary(architecture: str, own: dict[str, Any], header: Gguf) -> dict[str, int]:
    """Number of tokens, whose key is taken from ``own``, and the special ones."""
    rows = header.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in header.tensors else 0
    config = {"vocab_size": own.pop("vocab_size", rows)}
    if config["vocab_size"] != rows:
        raise ValueError(
            f"{architecture}.vocab_size: {config['vocab_size']}, and token_embd.weight has {rows} rows; convert the "
            "model again"
        )
    for key in ("bos", "eos", "padding"):
        token = header.keys.get(f"tokenizer.ggml.{key}_token_id")
        # random weights have zeros in the row of padding, as transformers draws them
        if isinstance(token, int) and 0 <= token < rows:
            config[f"{key.replace('padding', 'pad')}_token_id"] = token
    return config


def _check_known(architecture: str, own: dict[str, Any], context: int) -> None:
    """Check that the keys that are left in ``own`` change nothing."""
    window = own.pop("attention.sliding_window", 0)
    if window and window < context:
        raise ValueError(
            f"{architecture}.attention.sliding_window: {window}, less than the context of {context}, and "
            "none is applied; use the model's safetensors files"
        )
    for key, value in own.items():
        if key not in CHANGES_NOTHING:
            raise ValueError(
                f"{architecture}.{key}: {_shown(value)}, and what this key does is not known here, so that the numbers "
                "might be wrong; use the model's safetensors files"
            )
        if value not in CHANGES_NOTHING[key]:
            allowed = " or ".join(str(each) for each in CHANGES_NOTHING[key])
            raise ValueError(
                f"{architecture}.{key}: {_shown(value)}, and what it does is applied for {allowed} alone; use the "
                "model's safetensors files"
            )


def _names(layers: int, parts: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {
        f"blk.{layer}.{part}.{kind}": f"{prefix}.{layer}.{name}.{kind}"
        for layer in range(layers)
        for part, name in parts.items()
        for kind in ("weight", "bias")
    }


def _head_width(architecture: str, own: dict[str, Any], header: Gguf, heads: int, width: int) -> int:
    """Width of a head, which up to three keys repeat; they are taken from ``own``."""
    query = header.tensors.get("blk.0.attn_q.weight")
    head_width = (width if query is None else query.shape[0]) // heads
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        value = own.pop(key, head_width)
        if value != head_width:
            raise ValueError(
                f"{architecture}.{key}: {value}, and heads have a width of {head_width}; only models whose queries, "
                "keys and values are as wide and turned as a whole are read"
            )
    return head_width


def _rope(architecture: str, own: dict[str, Any], context: int) -> dict[str, Any]:
    """Rotary settings; their keys are taken from ``own``."""
    base = _number(architecture, own, "rope.freq_base", 10000.0)
    if not base > 0:
        raise ValueError(f"{architecture}.rope.freq_base: {base}, and must be a positive number")
    kind = own.pop("rope.scaling.type", None)
    given = {key: _number(architecture, own, f"rope.{key}", 0.0) for key in FACTORS if f"rope.{key}" in own}
    if len(set(given.values())) > 1:
        both = " and ".join(f"{architecture}.rope.{key}: {value:g}" for key, value in given.items())
        raise ValueError(f"{both}, which are one number under two names; convert the model again")
    factor = next(iter(given.values()), 0.0)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": base}
    if kind == "none" or (kind in (None, "linear") and factor in (0.0, 1.0)):
        own.pop("rope.scaling.original_context_length", None)
    elif kind in (None, "linear"):  # a factor alone is a linear one
        own.pop("rope.scaling.original_context_length", None)
        rope |= {"rope_type": "linear", "factor": factor}
    elif kind == "yarn":
        original = _number(architecture, own, "rope.scaling.original_context_length", 0.0)
        if original < 1 or factor < 1:
            raise ValueError(
                f"{architecture}.rope.scaling: YaRN needs original_context_length and a factor of at least 1, and "
                f"they are {original:g} and {factor:g}; convert the model again"
            )
        rope |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": int(original)}
        for key in ("beta_fast", "beta_slow"):
            if f"rope.scaling.yarn_{key}" in own:
                rope[key] = _number(architecture, own, f"rope.scaling.yarn_{key}", 0.0)
    else:
        raise ValueError(
            f"{architecture}.rope.scaling.type: {kind!r} is not read from GGUF, but none, linear and yarn are; use the "
            "model's safetensors files"
        )
    return {"rope_parameters": rope}


def _number(architecture: str, own: dict[str, Any], key: str, default: float) -> float:
    """A number of a key, which is taken from ``own``; none below 0 means anything here."""
    value = own.pop(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{architecture}.{key}: {_shown(value)}, and must be a positive number")
    return float(value)


def _check_rope_factors(header: Gguf, config: Mapping[str, Any], architecture: str) -> None:
    if "rope_parameters" not in config:
        raise ValueError(f"{ROPE_FACTORS}: the file has it, and {architecture} has no rotary positions")
    if config["rope_parameters"]["rope_type"] == "yarn":
        raise ValueError(f"{ROPE_FACTORS}: the file has it and YaRN too, and how both go together is not known here")
    expected, factors = (config["head_dim"] // 2,), header.tensors[ROPE_FACTORS]
    if factors.shape != expected or factors.type != "F32":
        raise ValueError(
            f"{ROPE_FACTORS}: {factors.type} of shape {factors.shape}, and {expected} numbers of type F32 are read"
        )


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"{int(value)} texts" if isinstance(value, Count) else repr(value)
