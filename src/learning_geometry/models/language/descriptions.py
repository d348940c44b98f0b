"""Where the parts of Hugging Face's models are, by family: a table of claims, each of which every load checks.

Sources are the modules of ``transformers`` 5.24 (``models/<model_type>/modeling_<model_type>.py``). What is computed is
theirs; a description only says where to look, and ``self_check`` compares what is seen there with what it should be.
"""

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from learning_geometry.model_files import check_family

Projections = tuple[Float[Tensor, "inner width"], Float[Tensor, "inner width"], Float[Tensor, "inner width"]]


class Family(NamedTuple):
    """Where the parts of a model are: attributes of the model, of a block, of its attention, or of the config."""

    blocks: str
    """Of the model: its layers."""
    final_norm: str
    """Of the model."""
    attention: str
    """Of a block."""
    projections: Callable[[Any, int, int], Projections]
    """Weights of query, key and value of an attention module, its heads and their width; one of each per head."""
    output: str
    """Of the attention: W_O."""
    mlp: str
    """Of a block: the module that gets mlp.input first."""
    down: str
    """Of a block: W_down."""
    gate: str
    """Of a block: what the activation function is applied to the output of."""
    activation: str
    """Of the config: name of the activation function; or that name, where the config has none."""
    attention_norm: str | None
    """Of a block: the norm before the attention; None: it reads the stream as it is."""
    mlp_norm: str | None
    """Of a block: the norm before the MLP; None, likewise."""
    norm: str
    """Kind of all norms of the stream, as of ``Norm``."""
    epsilon: str | float
    """Of the config, the number that norms add to mean squares; or that number."""
    parallel: bool = False
    """Whether attention and MLP of a layer both read residual_pre."""
    transposed: bool = False
    """Whether weights have the input dimension first."""
    scale: str = "scaling"
    """Of the attention: what products of queries and keys are multiplied by."""
    written: str = ""
    """Of a block: the module whose output the MLP writes, before what stands between; "": that of ``mlp``."""
    norm_after_attention: str = ""
    """Of a block: the norm between W_O and the stream; "": none."""
    norm_after_mlp: str = ""
    """Of a block: the norm between the MLP and the stream; "": none."""
    weight_offset: float = 0.0
    """What these norms add to their weight before they multiply by it: Gemma's multiply by 1 + w."""
    factor: str = ""
    """Of the config: what attention and MLP are multiplied by before they are added to the stream; "": by nothing."""
    gate_and_up: bool = False
    """Whether ``gate`` holds the rows of the gate first, and below them those of what it is multiplied by."""
    adds_in_place: bool = False
    """Whether the block adds to what the MLP gives in its place."""


Entry = Family | Callable[[Any], Family]
"""A family, or what makes one of a config, where that says where parts are."""


def _separate(attention: Any, heads: int, head_width: int) -> Projections:
    """Query, key and value of their own, where several query heads may share one key and value head."""
    shared = partial(_one_per_head, heads=heads, head_width=head_width)
    return attention.q_proj.weight, shared(attention.k_proj.weight), shared(attention.v_proj.weight)


def _stacked(name: str, transposed: bool, attention: Any, heads: int, head_width: int) -> Projections:
    """All queries, all keys, all values, one below the other; of keys and values there may be fewer."""
    weight = getattr(attention, name).weight
    weight = weight.T if transposed else weight
    queries = heads * head_width
    query, key, value = weight.split([queries, *2 * [(len(weight) - queries) // 2]])
    return query, _one_per_head(key, heads, head_width), _one_per_head(value, heads, head_width)


def _grouped(name: str, attention: Any, heads: int, head_width: int) -> Projections:
    """The queries of some heads, then their one key and value; then the next group: of one head, of some, or of all."""
    weight = getattr(attention, name).weight
    groups = (len(weight) // head_width - heads) // 2
    by_group = weight.unflatten(0, (groups, heads // groups + 2, head_width))
    query, key, value = (by_group[:, part] for part in (slice(-2), -2, -1))
    return (
        query.flatten(0, 2),
        _one_per_head(key.flatten(0, 1), heads, head_width),
        _one_per_head(value.flatten(0, 1), heads, head_width),
    )


def _one_per_head(weight: Tensor, heads: int, head_width: int) -> Tensor:
    """Rows of keys or values that query heads share, once for each of these."""
    by_head = weight.unflatten(0, (-1, head_width))
    if len(by_head) == heads:
        return weight
    return by_head.repeat_interleave(heads // len(by_head), 0).flatten(0, 1)


LLAMA = Family(
    blocks="model.layers",
    final_norm="model.norm",
    attention="self_attn",
    projections=_separate,
    output="o_proj",
    mlp="mlp",
    down="mlp.down_proj",
    gate="mlp.gate_proj",
    activation="hidden_act",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    norm="root_mean_square",
    epsilon="rms_norm_eps",
)
GEMMA = LLAMA._replace(weight_offset=1.0)
GEMMA2 = GEMMA._replace(
    activation="hidden_activation",
    mlp_norm="pre_feedforward_layernorm",
    norm_after_attention="post_attention_layernorm",
    norm_after_mlp="post_feedforward_layernorm",
)
# its norms have neither weights nor a key: OlmoLayerNorm adds 1e-5
OLMO = LLAMA._replace(norm="layer", epsilon=1e-5)
OLMO2 = LLAMA._replace(
    attention_norm=None,
    mlp_norm=None,
    norm_after_attention="post_attention_layernorm",
    norm_after_mlp="post_feedforward_layernorm",
)
PHI = LLAMA._replace(
    final_norm="model.final_layernorm",
    output="dense",
    down="mlp.fc2",
    gate="mlp.fc1",
    mlp_norm="input_layernorm",
    norm="layer",
    epsilon="layer_norm_eps",
    parallel=True,
)
PHI3 = LLAMA._replace(
    projections=partial(_stacked, "qkv_proj", False),
    gate="mlp.gate_up_proj",
    gate_and_up=True,
)
GRANITE = LLAMA._replace(factor="residual_multiplier")
STABLELM = LLAMA._replace(norm="layer", epsilon="layer_norm_eps")
COHERE = STABLELM._replace(mlp_norm="input_layernorm", parallel=True)
GPT2 = Family(
    blocks="transformer.h",
    final_norm="transformer.ln_f",
    attention="attn",
    projections=partial(_stacked, "c_attn", True),
    output="c_proj",
    mlp="mlp",
    down="mlp.c_proj",
    gate="mlp.c_fc",
    activation="activation_function",
    attention_norm="ln_1",
    mlp_norm="ln_2",
    norm="layer",
    epsilon="layer_norm_epsilon",
    transposed=True,
)
GPTJ = GPT2._replace(
    projections=_separate,
    output="out_proj",
    down="mlp.fc_out",
    gate="mlp.fc_in",
    mlp_norm="ln_1",
    parallel=True,
    transposed=False,
)
GPT_BIGCODE = GPT2._replace(projections=partial(_grouped, "c_attn"), transposed=False)
GPT_NEOX = Family(
    blocks="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    attention="attention",
    projections=partial(_grouped, "query_key_value"),
    output="dense",
    mlp="mlp",
    down="mlp.dense_4h_to_h",
    gate="mlp.dense_h_to_4h",
    activation="hidden_act",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    norm="layer",
    epsilon="layer_norm_eps",
)
# its blocks have no module for the MLP, and their LayerNorms the epsilon of torch
OPT = Family(
    blocks="model.decoder.layers",
    final_norm="model.decoder.final_layer_norm",
    attention="self_attn",
    projections=_separate,
    output="out_proj",
    mlp="fc1",
    down="fc2",
    gate="fc1",
    activation="activation_function",
    attention_norm="self_attn_layer_norm",
    mlp_norm="final_layer_norm",
    norm="layer",
    epsilon=1e-5,
    written="fc2",
)
# attention and MLP add the stream to what they write by themselves
BLOOM = Family(
    blocks="transformer.h",
    final_norm="transformer.ln_f",
    attention="self_attention",
    projections=partial(_grouped, "query_key_value"),
    output="dense",
    mlp="mlp",
    down="mlp.dense_4h_to_h",
    gate="mlp.dense_h_to_4h",
    activation="gelu_new",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    norm="layer",
    epsilon="layer_norm_epsilon",
    scale="inv_norm_factor",
    written="mlp.dense_4h_to_h",
)


def _gpt_neox(config: Any) -> Family:
    return GPT_NEOX._replace(parallel=bool(config.use_parallel_residual))


def _stablelm(config: Any) -> Family:
    parallel = bool(config.use_parallel_residual)
    return STABLELM._replace(parallel=parallel, mlp_norm="input_layernorm" if parallel else STABLELM.mlp_norm)


def _falcon(config: Any) -> Family:
    parallel = bool(config.parallel_attn or config.new_decoder_architecture)
    falcon = BLOOM._replace(activation="activation", parallel=parallel, written="", adds_in_place=True)
    # blocks of the new architecture set this number themselves where the config is silent
    if config.new_decoder_architecture and config.num_ln_in_parallel_attn == 2:
        return falcon._replace(attention_norm="ln_attn", mlp_norm="ln_mlp")
    return falcon._replace(mlp_norm="input_layernorm" if parallel else "post_attention_layernorm")


FAMILIES: dict[str, Entry] = {
    "bloom": BLOOM,
    "cohere": COHERE,
    "cohere2": COHERE,
    "falcon": _falcon,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA2,
    "gpt2": GPT2,
    "gpt_bigcode": GPT_BIGCODE,
    "gpt_neox": _gpt_neox,
    "gptj": GPTJ,
    "granite": GRANITE,
    "llama": LLAMA,
    "mistral": LLAMA,
    "mixtral": LLAMA,
    "olmo": OLMO,
    "olmo2": OLMO2,
    "olmo3": OLMO2,
    "opt": OPT,
    "phi": PHI,
    "phi3": PHI3,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "qwen3_moe": LLAMA,
    "smollm3": LLAMA,
    "stablelm": _stablelm,
}
"""The families that are known, by the ``model_type`` of their config; ``model_files.layouts`` has their tensors."""


def known_family(config: Any, where: str) -> Family:
    """Return the description of a model.

    Args:
        config: of ``transformers``.
        where: what messages call the model.

    Raises:
        ValueError: its family is not known.
    """
    try:
        model_type = config.model_type
        entry = FAMILIES[model_type if model_type in FAMILIES else check_family(model_type)]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return entry if isinstance(entry, Family) else entry(config)


def part(of: Any, path: str) -> Any:
    """Return what lies at a path of attributes.

    Raises:
        AttributeError: nothing lies there.
    """
    return attrgetter(path)(of)
