"""Which tensors a model of a family has, by its config: names and shapes as in Hugging Face's layout.

Names and defaults are those of ``transformers``, which is not needed here; tests compare them.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Shapes = dict[str, tuple[int, ...]]


class Layout(NamedTuple):
    """The tensors of a model, and sizes that follow from its config."""

    shapes: Shapes
    """Without the output weights of a tied model."""
    head: str
    """The weights of the logits, of shape [vocabulary, width]."""
    embedding: str
    """The embedding, which the weights of the logits are a copy of in a tied model."""
    prefix: str
    """What files of the model without its head leave out at the beginning of names."""
    tied: bool
    harmless: tuple[str, ...]
    """Patterns of names that old files hold besides: buffers that follow from the config."""
    vocabulary: int
    layers: int
    context: int
    width: int
    """Of the residual stream."""
    head_width: int
    """Width of a head, of which rotary positions turn all or a part."""


DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "head_dim": None,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
    },
    "mistral": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": None,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
    "qwen2": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": None,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
    },
    "gpt2": {
        "vocab_size": 50257,
        "n_embd": 768,
        "n_inner": None,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "tie_word_embeddings": True,
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
}
"""What the families' configs hold where ``config.json`` is silent; None: it follows from other keys."""

ALIASES = {
    "gpt2": {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }
}

MOST_LAYERS = 10_000

ROTARY = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"model\.rotary_emb\.inv_freq")
HARMLESS = {
    "llama": ROTARY,
    "mistral": ROTARY,
    "qwen2": ROTARY,
    "gpt2": (r"transformer\.h\.\d+\.attn\.bias", r"transformer\.h\.\d+\.attn\.masked_bias"),
    "gpt_neox": (
        r"gpt_neox\.layers\.\d+\.attention\.bias",
        r"gpt_neox\.layers\.\d+\.attention\.masked_bias",
        r"gpt_neox\.layers\.\d+\.attention\.rotary_emb\.inv_freq",
        r"gpt_neox\.rotary_emb\.inv_freq",
    ),
}
"""Buffers in old files: causal masks, what is added to what they hide, and rotary frequencies."""


def layout(config: Mapping[str, Any]) -> Layout:
    """Return the tensors of a model.

    Args:
        config: as ``config.json``, with a ``model_type`` of :data:`DEFAULTS`.

    Raises:
        ValueError: a size is no positive integer, or heads do not divide the width.
    """
    family = config["model_type"]
    renamed = ALIASES.get(family, {})
    given = {renamed.get(key, key): value for key, value in config.items()}
    settings = DEFAULTS[family] | {key: value for key, value in given.items() if key in DEFAULTS[family]}
    for key, value in settings.items():
        default = DEFAULTS[family][key]
        if isinstance(default, bool):
            if not isinstance(value, bool):
                raise ValueError(f"config: {key} is {value!r}, which is neither true nor false")
        elif value is None and (default is None or key == "num_key_value_heads"):
            continue
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"config: {key} is {value!r}, and must be a positive integer")
        elif key in ("num_hidden_layers", "n_layer") and value > MOST_LAYERS:
            raise ValueError(f"config: {key} is {value}, and at most {MOST_LAYERS} are read")
    return _FAMILIES[family](family, settings)


def normalised_names(names: list[str], of: Layout) -> dict[str, str]:
    """Return the names in a file -> those of the whole model, where files of a model without its head lack a prefix."""
    if any(name.startswith(of.prefix) for name in names):
        return {name: name for name in names}
    return {name: name if name == of.head else f"{of.prefix}{name}" for name in names}


def is_harmless(name: str, of: Layout) -> bool:
    """Return whether that is the name of a buffer that follows from the config."""
    return any(re.fullmatch(pattern, name) for pattern in of.harmless)


def _heads(settings: Mapping[str, Any], width: int, heads: int) -> int:
    head_width = settings.get("head_dim")
    if head_width is None:
        if width % heads:
            raise ValueError(f"config: {heads} heads do not divide the width {width}")
        head_width = width // heads
    return int(head_width)


def _llama(family: str, settings: Mapping[str, Any]) -> Layout:
    width, heads, hidden = settings["hidden_size"], settings["num_attention_heads"], settings["intermediate_size"]
    vocabulary, head_width = settings["vocab_size"], _heads(settings, width, heads)
    shared = settings["num_key_value_heads"] or heads
    if heads % shared:
        raise ValueError(f"config: {shared} key and value heads do not divide the {heads} query heads")
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    for layer in range(settings["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        maps = {
            "self_attn.q_proj": (heads * head_width, width),
            "self_attn.k_proj": (shared * head_width, width),
            "self_attn.v_proj": (shared * head_width, width),
            "self_attn.o_proj": (width, heads * head_width),
            "mlp.gate_proj": (hidden, width),
            "mlp.up_proj": (hidden, width),
            "mlp.down_proj": (width, hidden),
        }
        for part, shape in maps.items():
            shapes[f"{name}.{part}.weight"] = shape
            if part.startswith("mlp"):
                biased = settings.get("mlp_bias", False)
            else:
                biased = settings.get("attention_bias", False) or (family == "qwen2" and part[-6:] != "o_proj")
            if biased:
                shapes[f"{name}.{part}.bias"] = shape[:1]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{name}.{norm}.weight"] = (width,)
    return _whole(family, settings, shapes, "lm_head.weight", "model.embed_tokens.weight", "model.", head_width)


def _gpt2(family: str, settings: Mapping[str, Any]) -> Layout:
    width, context = settings["n_embd"], settings["n_positions"]
    hidden, vocabulary = settings["n_inner"] or 4 * width, settings["vocab_size"]
    shapes: Shapes = {"transformer.wte.weight": (vocabulary, width), "transformer.wpe.weight": (context, width)}
    for layer in range(settings["n_layer"]):
        maps = {
            "attn.c_attn": (width, 3 * width),
            "attn.c_proj": (width, width),
            "mlp.c_fc": (width, hidden),
            "mlp.c_proj": (hidden, width),
        }
        for part, shape in maps.items():
            shapes[f"transformer.h.{layer}.{part}.weight"] = shape
            shapes[f"transformer.h.{layer}.{part}.bias"] = shape[1:]
        for norm in ("ln_1", "ln_2"):
            shapes |= _layer_norm(f"transformer.h.{layer}.{norm}", width)
    shapes |= _layer_norm("transformer.ln_f", width)
    head_width = _heads(settings, width, settings["n_head"])
    return _whole(family, settings, shapes, "lm_head.weight", "transformer.wte.weight", "transformer.", head_width)


def _gpt_neox(family: str, settings: Mapping[str, Any]) -> Layout:
    width, hidden, vocabulary = settings["hidden_size"], settings["intermediate_size"], settings["vocab_size"]
    shapes: Shapes = {"gpt_neox.embed_in.weight": (vocabulary, width)}
    for layer in range(settings["num_hidden_layers"]):
        name = f"gpt_neox.layers.{layer}"
        maps = {
            "attention.query_key_value": (3 * width, width),
            "attention.dense": (width, width),
            "mlp.dense_h_to_4h": (hidden, width),
            "mlp.dense_4h_to_h": (width, hidden),
        }
        for part, shape in maps.items():
            shapes[f"{name}.{part}.weight"] = shape
            if part.startswith("mlp") or settings["attention_bias"]:
                shapes[f"{name}.{part}.bias"] = shape[:1]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes |= _layer_norm(f"{name}.{norm}", width)
    shapes |= _layer_norm("gpt_neox.final_layer_norm", width)
    head_width = _heads(settings, width, settings["num_attention_heads"])
    return _whole(family, settings, shapes, "embed_out.weight", "gpt_neox.embed_in.weight", "gpt_neox.", head_width)


_FAMILIES: dict[str, Callable[[str, Mapping[str, Any]], Layout]] = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}


def _layer_norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _whole(
    family: str,
    settings: Mapping[str, Any],
    shapes: Shapes,
    head: str,
    embedding: str,
    prefix: str,
    head_width: int,
) -> Layout:
    tied = settings["tie_word_embeddings"]
    return Layout(
        shapes=shapes if tied else shapes | {head: shapes[embedding]},
        head=head,
        embedding=embedding,
        prefix=prefix,
        tied=tied,
        harmless=HARMLESS[family],
        vocabulary=settings["vocab_size"],
        layers=settings.get("num_hidden_layers") or settings["n_layer"],
        context=settings.get("max_position_embeddings") or settings["n_positions"],
        width=shapes[embedding][1],
        head_width=head_width,
    )
