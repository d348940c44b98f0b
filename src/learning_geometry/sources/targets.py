"""What models of other tools can hold, and how their configs say what they are."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from learning_geometry.model_options import has_bias, head_width, key_value_heads

Settings = Mapping[str, Any]

TARGETS = ("gpt2", "gpt_neox", "llama", "nanogpt", "transformer_lens")
"""Tools, and families of Hugging Face's models, that checkpoints are written for."""

HUGGING_FACE = {"gpt2": "GPT2LMHeadModel", "gpt_neox": "GPTNeoXForCausalLM", "llama": "LlamaForCausalLM"}
"""Family -> class of the model with its read-out."""

_GPT = {"norm": "pre", "norm_kind": "layer_norm", "final_norm": True, "causal": True, "gated_mlp": False}
_ONLY: dict[str, dict[str, Any]] = {
    "gpt2": _GPT | {"positions": "learned", "norm_bias": True, "parallel_residual": False},
    "gpt_neox": _GPT | {"positions": "rotary", "norm_bias": True},
    "llama": _GPT | {"positions": "rotary", "norm_kind": "rms_norm", "gated_mlp": True, "parallel_residual": False},
    "nanogpt": _GPT
    | {
        "positions": "learned",
        "parallel_residual": False,
        "activation": "gelu",
        "norm_epsilon": 1e-5,
        "tied_readout": True,
    },
    "transformer_lens": {},
}
"""Target -> settings of which it has one value alone."""

_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}
"""Ours -> Hugging Face's and TransformerLens'."""


def map_of(target: str, settings: Settings) -> str:
    """Return the built-in map by which a model is written for a target."""
    if target != "transformer_lens":
        return target
    if key_value_heads(settings) != settings["heads"]:
        return "transformer_lens_grouped"
    return "transformer_lens_gated" if settings["gated_mlp"] else target


def refusals(target: str, settings: Settings, vocabulary: int, outputs: int) -> Iterator[str]:
    """Yield every option of a model that a target does not have, in words.

    Args:
        target: one of :data:`TARGETS`.
        settings: of the model, defaults filled in.
        vocabulary: number of tokens.
        outputs: number of outputs.
    """
    for key, value in _ONLY[target].items():
        if settings[key] != value:
            yield f"{key} is {_word(settings[key])}, and {target} has {_word(value)} alone"
    yield from _biases(target, settings)
    heads, width = settings["heads"], head_width(settings)
    grouped = key_value_heads(settings) != heads
    if target == "transformer_lens":
        yield from _of_transformer_lens(settings, grouped)
        return
    if outputs != vocabulary:
        yield f"the model has {outputs} outputs and {vocabulary} tokens, and {target} has as many outputs as tokens"
    if not settings["mlp_width"]:
        yield f"mlp_width is 0, and {target} has an MLP in every layer"
    if target != "llama" and grouped:
        yield f"key_value_heads is {settings['key_value_heads']}, and {target} has as many as heads"
    if target != "llama" and heads * width != settings["width"]:
        yield f"head_width is {width}, and {target} has width / heads"
    if target == "llama" and (settings["rotary_width"] or width) != width:
        yield f"rotary_width is {settings['rotary_width']}, and llama turns whole heads"
    if target == "nanogpt" and settings["mlp_width"] != 4 * settings["width"]:
        yield f"mlp_width is {settings['mlp_width']}, and nanogpt has 4 · width"


def config(target: str, settings: Settings, vocabulary: int, outputs: int, length: int, kind: str) -> dict[str, Any]:
    """Return what a target's config says of a model that it can hold.

    It is that of ``config.json`` of Hugging Face, ``model_args`` of nanoGPT, or ``HookedTransformerConfig``.

    Args:
        target: one of :data:`TARGETS`.
        settings: of the model, defaults filled in.
        vocabulary: number of tokens.
        outputs: number of outputs.
        length: number of positions.
        kind: PyTorch's name of the type of all tensors, which nanoGPT's does not say.
    """
    if target == "transformer_lens":
        # float32 is its default; JSON has no types of PyTorch, and docs/maps.md says how to make one of the name
        of_type = {} if kind == "float32" else {"dtype": kind}
        return _transformer_lens(settings, vocabulary, outputs, length) | of_type
    if target == "nanogpt":
        return {
            "n_layer": settings["layers"],
            "n_head": settings["heads"],
            "n_embd": settings["width"],
            "block_size": length,
            "bias": has_bias(settings, "mlp"),
            "vocab_size": vocabulary,
            "dropout": 0.0,
        }
    common = {
        "architectures": [HUGGING_FACE[target]],
        "model_type": target,
        "torch_dtype": kind,
        "vocab_size": vocabulary,
        "tie_word_embeddings": settings["tied_readout"],
        # tokens of a task are numbers: none begins or ends a text
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return common | (_gpt2(settings, length) if target == "gpt2" else _rotary_family(target, settings, length))


def _gpt2(settings: Settings, length: int) -> dict[str, Any]:
    return {
        "n_embd": settings["width"],
        "n_layer": settings["layers"],
        "n_head": settings["heads"],
        "n_inner": settings["mlp_width"],
        "n_positions": length,
        "activation_function": _ACTIVATIONS[settings["activation"]],
        "layer_norm_epsilon": settings["norm_epsilon"],
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0),
    }


def _rotary_family(target: str, settings: Settings, length: int) -> dict[str, Any]:
    width = head_width(settings)
    common = {
        "hidden_size": settings["width"],
        "num_hidden_layers": settings["layers"],
        "num_attention_heads": settings["heads"],
        "intermediate_size": settings["mlp_width"],
        "max_position_embeddings": length,
        "hidden_act": _ACTIVATIONS[settings["activation"]],
        "attention_bias": has_bias(settings, "query_key_value"),
    }
    if target == "llama":
        return common | {
            "num_key_value_heads": key_value_heads(settings),
            "head_dim": width,
            "mlp_bias": has_bias(settings, "mlp"),
            "rms_norm_eps": settings["norm_epsilon"],
            "rope_theta": settings["rotary_base"],
        }
    turned = settings["rotary_width"] or width
    part = turned / width
    # the family takes int(head width · part)
    part = part if int(width * part) == turned else math.nextafter(part, 1.0)
    return common | {
        "layer_norm_eps": settings["norm_epsilon"],
        "rotary_pct": part,
        "rotary_emb_base": settings["rotary_base"],
        "use_parallel_residual": settings["parallel_residual"],
    }


def _transformer_lens(settings: Settings, vocabulary: int, outputs: int, length: int) -> dict[str, Any]:
    base, kind = settings["rotary_base"], {"layer_norm": "LN", "rms_norm": "RMS"}[settings["norm_kind"]]
    made = {
        "n_layers": settings["layers"],
        "d_model": settings["width"],
        "n_ctx": length,
        "d_head": head_width(settings),
        "n_heads": settings["heads"],
        "d_vocab": vocabulary,
        "d_vocab_out": outputs,
        "eps": settings["norm_epsilon"],
        "normalization_type": kind if settings["norm"] == "pre" else None,
        "positional_embedding_type": "rotary" if settings["positions"] == "rotary" else "standard",
        "attention_dir": "causal" if settings["causal"] else "bidirectional",
        "attn_only": not settings["mlp_width"],
    }
    if settings["mlp_width"]:
        made |= {
            "d_mlp": settings["mlp_width"],
            "act_fn": _ACTIVATIONS[settings["activation"]],
            "gated_mlp": settings["gated_mlp"],
            "parallel_attn_mlp": settings["parallel_residual"],
        }
    if key_value_heads(settings) != settings["heads"]:
        made["n_key_value_heads"] = key_value_heads(settings)
    if settings["positions"] == "rotary":
        made["rotary_dim"] = settings["rotary_width"] or head_width(settings)
        made |= {"rotary_base": int(base) if base == int(base) else base, "rotary_adjacent_pairs": False}
    return made


def _of_transformer_lens(settings: Settings, grouped: bool) -> Iterator[str]:
    if settings["positions"] not in ("learned", "rotary"):
        yield f"positions is {settings['positions']}, and transformer_lens is written with learned and rotary ones"
    if settings["norm"] == "post":
        yield "norm is post, and transformer_lens has pre or none"
    elif settings["final_norm"] != (settings["norm"] == "pre"):
        yield (
            f"final_norm is {_word(settings['final_norm'])} with norm {settings['norm']}, and transformer_lens has all "
            "norms or none"
        )
    if grouped and not settings["gated_mlp"]:
        yield "key_value_heads are fewer than heads without gated_mlp, and transformer_lens is written with both"


def _biases(target: str, settings: Settings) -> Iterator[str]:
    """Yield the biases that a target does not have, or lacks one of."""
    if target == "transformer_lens":
        return
    has = {layers: has_bias(settings, layers) for layers in ("query_key_value", "output", "mlp", "readout")}
    needed = {"gpt2": ("query_key_value", "output", "mlp"), "gpt_neox": ("mlp",)}.get(target, ())
    if has["readout"]:
        yield f"bias holds readout, and {target} has none there"
    for layers in needed:
        if not has[layers]:
            yield f"bias lacks {layers}, and {target} has it always"
    together = ["query_key_value", "output", *(["mlp"] if target == "nanogpt" else [])]
    if len({has[layers] for layers in together}) > 1:
        yield f"bias holds one of {', '.join(together)} without another, and {target} has them together"
    elif target == "nanogpt" and has["mlp"] != settings["norm_bias"]:
        yield "norm_bias and bias differ, and nanogpt has both or none"


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
