"""Which tensors a model of a family has, by its config: names and shapes as in Hugging Face's layout.

Names and defaults are those of ``transformers``, which is not needed here; tests compare them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from learning_geometry.model_files.layout_defaults import ALIASES, DEFAULTS, FIXED_HEADS, INSTEAD, NULLABLE

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
    context: int | None
    """The longest sequence that it can read; None: any."""
    width: int
    """Of the residual stream."""
    head_width: int
    """Width of a head, of which rotary positions turn all or a part."""


MOST_LAYERS = 10_000

ROTARY = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"model\.rotary_emb\.inv_freq")
MASKS = (r"transformer\.h\.\d+\.attn\.bias", r"transformer\.h\.\d+\.attn\.masked_bias")
HARMLESS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gptj"), MASKS),
    "gpt_neox": (
        r"gpt_neox\.layers\.\d+\.attention\.bias",
        r"gpt_neox\.layers\.\d+\.attention\.masked_bias",
        r"gpt_neox\.layers\.\d+\.attention\.rotary_emb\.inv_freq",
        r"gpt_neox\.rotary_emb\.inv_freq",
    ),
    # layers of one kind turn otherwise than those of another, or there are no rotary positions
    **dict.fromkeys(("bloom", "falcon", "gemma3_text", "olmo3", "opt"), ()),
}
"""Buffers in old files: causal masks, what is added to what they hide, and rotary frequencies. Of others: the last."""


def layout(config: Mapping[str, Any]) -> Layout:
    """Return the tensors of a model.

    Args:
        config: as ``config.json``, with a ``model_type`` of ``layout_defaults.DEFAULTS``.

    Raises:
        ValueError: a size is no positive integer, or heads do not divide the width.
    """
    family = config["model_type"]
    defaults, renamed = DEFAULTS[family], ALIASES.get(family, {})
    given = {renamed.get(key, key): value for key, value in config.items()}
    for old, key in INSTEAD.get(family, {}).items():
        if given.get(old) is not None:
            given[key] = given[old]
    settings = defaults | {key: value for key, value in given.items() if key in defaults}
    for key, value in settings.items():
        _check_setting(key, value, defaults[key])
    found = _FAMILIES.get(family, _llama)(family, settings)
    if family in FIXED_HEADS and config.get("head_dim") not in (None, found.head_width):
        raise ValueError(
            f"config: head_dim is {config['head_dim']!r}, and heads of the family {family!r} have the width of the "
            f"model divided by their number, {found.head_width}; correct it, or take the key out"
        )
    return found


def _check_setting(key: str, value: Any, default: Any) -> None:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"config: {key} is {value!r}, which is neither true nor false")
    elif isinstance(default, list):
        if value is not None and not (isinstance(value, list) and all(type(each) is int for each in value)):
            raise ValueError(f"config: {key} is {value!r}, and must be a list of integers")
    elif value is None and (default is None or key in NULLABLE):
        return
    elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"config: {key} is {value!r}, and must be a positive integer")
    elif key in ("num_hidden_layers", "n_layer") and value > MOST_LAYERS:
        raise ValueError(f"config: {key} is {value}, and at most {MOST_LAYERS} are read")


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


class Blocks(NamedTuple):
    """What the blocks of a family that is built as Llama is have in other ways."""

    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    of_norm: tuple[str, ...] = ("weight",)
    """Parameters of all norms of the stream."""
    final_norm: str = "norm"
    output: str = "o_proj"
    fused: bool = False
    """Whether query, key and value are one tensor, and gate and up another."""
    gated: bool = True
    """Whether the MLP has a gate; otherwise it has ``fc1`` and ``fc2``."""


GEMMA = Blocks(
    norms=(
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    )
)
OLMO2 = Blocks(norms=("post_attention_layernorm", "post_feedforward_layernorm"))
BLOCKS = {
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "olmo": Blocks(norms=(), of_norm=()),
    "olmo2": OLMO2,
    "olmo3": OLMO2,
    "phi": Blocks(("input_layernorm",), ("weight", "bias"), "final_layernorm", "dense", gated=False),
    "phi3": Blocks(fused=True),
    "stablelm": Blocks(of_norm=("weight", "bias")),
    "cohere": Blocks(norms=("input_layernorm",)),
    "cohere2": Blocks(norms=("input_layernorm",)),
}
"""Families whose blocks are not Llama's."""


def _llama(family: str, settings: Mapping[str, Any]) -> Layout:
    width, heads, of = settings["hidden_size"], settings["num_attention_heads"], BLOCKS.get(family, Blocks())
    vocabulary = settings["vocab_size"]
    head_width = _heads({} if family in FIXED_HEADS else settings, width, heads)
    shared = settings["num_key_value_heads"] or heads
    if heads % shared:
        raise ValueError(f"config: {shared} key and value heads do not divide the {heads} query heads")
    norms = of.norms
    if settings.get("use_parallel_residual"):
        norms = norms[:1]
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, width)}
    shapes |= {f"model.{of.final_norm}.{parameter}": (width,) for parameter in of.of_norm}
    inner, keys = heads * head_width, shared * head_width
    for layer in range(settings["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        maps: Shapes
        if of.fused:
            maps = {"self_attn.qkv_proj": (inner + 2 * keys, width)}
        else:
            maps = {f"self_attn.{role}_proj": (inner if role == "q" else keys, width) for role in "qkv"}
        maps |= {f"self_attn.{of.output}": (width, inner)} | _mlp(family, settings, of, layer)
        for part, shape in maps.items():
            shapes[f"{name}.{part}.weight"] = shape
            if _biased(family, settings, part):
                shapes[f"{name}.{part}.bias"] = shape[:1]
        for norm in norms:
            shapes |= {f"{name}.{norm}.{parameter}": (width,) for parameter in of.of_norm}
        shapes |= {
            f"{name}.self_attn.{norm}": each for norm, each in _of_queries(family, settings, heads, shared, head_width)
        }
    if family == "phi":
        shapes["lm_head.bias"] = (vocabulary,)
    return _whole(family, settings, shapes, "lm_head.weight", "model.embed_tokens.weight", "model.", head_width)


def _mlp(family: str, settings: Mapping[str, Any], of: Blocks, layer: int) -> Shapes:
    """Maps of the MLP of a layer, or of the router and the experts."""
    width, hidden = settings["hidden_size"], settings["intermediate_size"]
    maps: Shapes
    if family == "mixtral":
        experts = range(settings["num_local_experts"])
        by_role = {"w1": (hidden, width), "w2": (width, hidden), "w3": (hidden, width)}
        name = "block_sparse_moe"
        maps = {f"{name}.experts.{expert}.{role}": shape for expert in experts for role, shape in by_role.items()}
        return maps | {f"{name}.gate": (len(experts), width)}
    if family == "qwen3_moe" and _is_sparse(settings, layer):
        experts, hidden = range(settings["num_local_experts"]), settings["moe_intermediate_size"]
        of_expert = _gated(width, hidden)
        maps = {f"mlp.experts.{expert}.{role}": shape for expert in experts for role, shape in of_expert.items()}
        return maps | {"mlp.gate": (len(experts), width)}
    if of.fused:
        return {"mlp.gate_up_proj": (2 * hidden, width), "mlp.down_proj": (width, hidden)}
    if not of.gated:
        return {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
    return {f"mlp.{role}": shape for role, shape in _gated(width, hidden).items()}


def _gated(width: int, hidden: int) -> Shapes:
    return {"gate_proj": (hidden, width), "up_proj": (hidden, width), "down_proj": (width, hidden)}


def _is_sparse(settings: Mapping[str, Any], layer: int) -> bool:
    """Whether the MLP of a layer of Qwen 3 MoE is a mixture of experts."""
    dense = settings["mlp_only_layers"] or ()
    return layer not in dense and (layer + 1) % settings["decoder_sparse_step"] == 0


def _biased(family: str, settings: Mapping[str, Any], part: str) -> bool:
    if family == "phi":
        return True
    if part.startswith("mlp"):
        return bool(settings.get("mlp_bias", False))
    of_queries = part[-6:] in ("q_proj", "k_proj", "v_proj")
    if of_queries and (family == "qwen2" or settings.get("use_qkv_bias")):
        return True
    return part.startswith("self_attn") and bool(settings.get("attention_bias", False))


def _of_queries(
    family: str, settings: Mapping[str, Any], heads: int, shared: int, head_width: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the norms of queries and keys."""
    for role, of in (("q", heads), ("k", shared)):
        if family in ("qwen3", "qwen3_moe", "gemma3_text"):
            yield f"{role}_norm.weight", (head_width,)
        elif family in ("olmo2", "olmo3"):
            yield f"{role}_norm.weight", (of * head_width,)
        elif settings.get("use_qk_norm"):
            yield f"{role}_norm.weight", (of, head_width)
        elif family == "phi" and settings["qk_layernorm"]:
            yield from ((f"{role}_layernorm.{each}", (head_width,)) for each in ("weight", "bias"))
        elif settings.get("qk_layernorm"):
            yield from ((f"{role}_layernorm.norms.{head}.weight", (head_width,)) for head in range(of))


def _gpt2(family: str, settings: Mapping[str, Any]) -> Layout:
    """GPT-2, and of GPT-BigCode and GPT-J what is built so."""
    width, context = settings["n_embd"], settings["n_positions"]
    hidden, vocabulary = settings["n_inner"] or 4 * width, settings["vocab_size"]
    head_width = _heads(settings, width, settings["n_head"])
    keys = head_width if settings.get("multi_query") else width
    shapes: Shapes = {"transformer.wte.weight": (vocabulary, width)}
    if family == "gptj":
        maps = {f"attn.{role}_proj": (width, width) for role in ("q", "k", "v", "out")}
        maps |= {"mlp.fc_in": (hidden, width), "mlp.fc_out": (width, hidden)}
    else:
        maps = {
            "attn.c_attn": (width + 2 * keys, width),
            "attn.c_proj": (width, width),
            "mlp.c_fc": (hidden, width),
            "mlp.c_proj": (width, hidden),
        }
        shapes["transformer.wpe.weight"] = (context, width)
    for layer in range(settings["n_layer"]):
        for part, shape in maps.items():
            shapes[f"transformer.h.{layer}.{part}.weight"] = shape[::-1] if family == "gpt2" else shape
            if family != "gptj" or part.startswith("mlp"):
                shapes[f"transformer.h.{layer}.{part}.bias"] = shape[:1]
        for norm in ("ln_1",) if family == "gptj" else ("ln_1", "ln_2"):
            shapes |= _layer_norm(f"transformer.h.{layer}.{norm}", width)
    shapes |= _layer_norm("transformer.ln_f", width)
    if family == "gptj":
        shapes["lm_head.bias"] = (vocabulary,)
        turned = settings["rotary_dim"]
        if turned > head_width:
            raise ValueError(f"config: rotary_dim is {turned}, and heads have a width of {head_width}")
        if turned % 2:
            raise ValueError(f"config: rotary_dim is {turned}, and must be an even number; correct it")
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


def _opt(family: str, settings: Mapping[str, Any]) -> Layout:
    width, hidden, vocabulary = settings["hidden_size"], settings["ffn_dim"], settings["vocab_size"]
    if settings["word_embed_proj_dim"] not in (None, width):
        raise ValueError(
            f"config: word_embed_proj_dim is {settings['word_embed_proj_dim']} and hidden_size {width}, and embeddings "
            "that are projected into the stream are not known here; use another model"
        )
    of_norm = ("weight", "bias") if settings["layer_norm_elementwise_affine"] else ()
    shapes: Shapes = {
        "model.decoder.embed_tokens.weight": (vocabulary, width),
        # the first two rows belong to no position
        "model.decoder.embed_positions.weight": (settings["max_position_embeddings"] + 2, width),
    }
    maps = {f"self_attn.{role}_proj": (width, width) for role in ("q", "k", "v", "out")}
    maps |= {"fc1": (hidden, width), "fc2": (width, hidden)}
    norms = ["model.decoder.final_layer_norm"]
    for layer in range(settings["num_hidden_layers"]):
        name = f"model.decoder.layers.{layer}"
        for part, shape in maps.items():
            shapes[f"{name}.{part}.weight"] = shape
            if settings["enable_bias"]:
                shapes[f"{name}.{part}.bias"] = shape[:1]
        norms += [f"{name}.self_attn_layer_norm", f"{name}.final_layer_norm"]
    shapes |= {f"{norm}.{parameter}": (width,) for norm in norms for parameter in of_norm}
    head_width = _heads(settings, width, settings["num_attention_heads"])
    return _whole(family, settings, shapes, "lm_head.weight", "model.decoder.embed_tokens.weight", "model.", head_width)


def _bloom(family: str, settings: Mapping[str, Any]) -> Layout:
    """BLOOM, and Falcon with what is other in it."""
    width, vocabulary, falcon = settings["hidden_size"], settings["vocab_size"], family == "falcon"
    heads = settings["num_attention_heads"] if falcon else settings["n_head"]
    hidden = (settings["ffn_hidden_size"] if falcon else None) or 4 * width
    head_width, groups, biased = _heads(settings, width, heads), heads, True
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    if falcon:
        biased, new = settings["bias"], settings["new_decoder_architecture"]
        if new:
            groups = settings["num_kv_heads"] or heads
        elif settings["multi_query"]:
            groups = 1
        if heads % groups:
            raise ValueError(f"config: {groups} key and value heads do not divide the {heads} query heads")
        if new and settings["num_ln_in_parallel_attn"] != 1:
            norms = ("ln_attn", "ln_mlp")
        elif settings["parallel_attn"]:
            norms = ("input_layernorm",)
    maps: Shapes = {
        "self_attention.query_key_value": ((heads + 2 * groups) * head_width, width),
        "self_attention.dense": (width, width),
        "mlp.dense_h_to_4h": (hidden, width),
        "mlp.dense_4h_to_h": (width, hidden),
    }
    shapes: Shapes = {"transformer.word_embeddings.weight": (vocabulary, width)}
    if not falcon:
        shapes |= _layer_norm("transformer.word_embeddings_layernorm", width)
    for layer in range(settings["num_hidden_layers" if falcon else "n_layer"]):
        name = f"transformer.h.{layer}"
        for part, shape in maps.items():
            shapes[f"{name}.{part}.weight"] = shape
            if biased:
                shapes[f"{name}.{part}.bias"] = shape[:1]
        for norm in norms:
            shapes |= _layer_norm(f"{name}.{norm}", width)
    shapes |= _layer_norm("transformer.ln_f", width)
    return _whole(
        family, settings, shapes, "lm_head.weight", "transformer.word_embeddings.weight", "transformer.", head_width
    )


_FAMILIES: dict[str, Callable[[str, Mapping[str, Any]], Layout]] = {
    "bloom": _bloom,
    "falcon": _bloom,
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt2,
    "gpt_neox": _gpt_neox,
    "gptj": _gpt2,
    "opt": _opt,
}
"""Families that are not built as Llama is."""


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
        harmless=HARMLESS.get(family, ROTARY),
        vocabulary=settings["vocab_size"],
        layers=settings.get("num_hidden_layers") or settings["n_layer"],
        context=settings.get("max_position_embeddings") or settings.get("n_positions"),
        width=shapes[embedding][1],
        head_width=head_width,
    )
