"""Hugging Face models of known families behind the interface: where their parts are, and how to look into them."""

from collections.abc import Callable
from copy import copy
from functools import partial
from importlib import import_module
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from learning_geometry.model_files import check_family
from learning_geometry.models.language import Hook, LanguageModel, LayerWeights, ModelSizes, Norm

Projections = tuple[Tensor, Tensor, Tensor]


def _separate(attention: Any, heads: int, head_width: int) -> Projections:
    """Query, key and value of their own, where several query heads may share one key and value head."""

    def one_per_head(weight: Tensor) -> Tensor:
        by_head = weight.unflatten(0, (-1, head_width))
        return by_head.repeat_interleave(heads // len(by_head), 0).flatten(0, 1)

    return attention.q_proj.weight, one_per_head(attention.k_proj.weight), one_per_head(attention.v_proj.weight)


def _side_by_side(attention: Any, heads: int, head_width: int) -> Projections:
    """All queries, all keys, all values, in the columns of one transposed weight."""
    query, key, value = attention.c_attn.weight.T.chunk(3)
    return query, key, value


def _head_by_head(attention: Any, heads: int, head_width: int) -> Projections:
    """Query, key and value of the first head, then of the second, and so on."""
    by_head = attention.query_key_value.weight.unflatten(0, (heads, 3, head_width))
    query, key, value = (by_head[:, role].flatten(0, 1) for role in range(3))
    return query, key, value


class Family(NamedTuple):
    """Where the parts of a family's models are: attributes of the model, the others of a block, or of what is named."""

    blocks: str
    final_norm: str
    attention: str
    projections: Callable[[Any, int, int], Projections]
    """Weights of query, key and value of an attention module, its heads and their width; one of each per head."""
    output: str
    """W_O, of the attention."""
    mlp: str
    down: str
    """W_down, of the MLP."""
    gate: str
    """What the activation function is applied to the output of, of the MLP."""
    activation: str
    """Attribute of the config that names the activation function."""
    transposed: bool
    """Whether weights have the input dimension first."""
    mlp_norm: str
    """The norm before the MLP, of the block."""
    norm: str
    """Kind of all norms, as of ``Norm``."""
    epsilon: str
    """Attribute of the config with the number that norms add to mean squares."""


LLAMA = Family(
    "model.layers",
    "model.norm",
    "self_attn",
    _separate,
    "o_proj",
    "mlp",
    "down_proj",
    "gate_proj",
    "hidden_act",
    False,
    "post_attention_layernorm",
    "root_mean_square",
    "rms_norm_eps",
)
GPT2 = Family(
    "transformer.h",
    "transformer.ln_f",
    "attn",
    _side_by_side,
    "c_proj",
    "mlp",
    "c_proj",
    "c_fc",
    "activation_function",
    True,
    "ln_2",
    "layer",
    "layer_norm_epsilon",
)
GPT_NEOX = Family(
    "gpt_neox.layers",
    "gpt_neox.final_layer_norm",
    "attention",
    _head_by_head,
    "dense",
    "mlp",
    "dense_4h_to_h",
    "dense_h_to_4h",
    "hidden_act",
    False,
    "post_attention_layernorm",
    "layer",
    "layer_norm_eps",
)
FAMILIES = {"llama": LLAMA, "qwen2": LLAMA, "mistral": LLAMA, "gpt2": GPT2, "gpt_neox": GPT_NEOX}
"""The families that are known, by the ``model_type`` of their config; ``model_files.layouts`` has their tensors.

An entry is a claim: every load compares it with what the model computes (``self_check``).
"""


def known_family(model_type: str, where: str) -> Family:
    """Return the family of that ``model_type``.

    Raises:
        ValueError: it is not known.
    """
    try:
        return FAMILIES[model_type if model_type in FAMILIES else check_family(model_type)]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def wrap(module: Any, name: str, origin: dict[str, Any] | None = None, tokenizer: Any = None) -> LanguageModel:
    """Return a Hugging Face causal language model behind the interface; it is put in evaluation mode.

    Args:
        module: such as ``LlamaForCausalLM``, on any device.
        name: what messages and provenance call it.
        origin: where its weights come from.
        tokenizer: its tokenizer, if there is one.

    Raises:
        ValueError: its family is not known, or it lacks a part that its family is said to have.
    """
    try:
        return _wrapped(module, name, origin, tokenizer)
    except AttributeError as error:
        raise ValueError(
            f"{name}: the description of its family {module.config.model_type!r} is wrong: {error}"
        ) from error


def _wrapped(module: Any, name: str, origin: dict[str, Any] | None, tokenizer: Any) -> LanguageModel:
    config = module.config
    family = known_family(config.model_type, name)
    module.eval()
    blocks = list(attrgetter(family.blocks)(module))
    norms = [attrgetter(family.mlp_norm)(block) for block in blocks]
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads

    def layer_weights(layer: int) -> LayerWeights:
        return _layer_weights(blocks[layer], family, heads, head_width, getattr(config, family.activation))

    return LanguageModel(
        name=name,
        family=config.model_type,
        sizes=ModelSizes(
            vocabulary=len(module.get_input_embeddings().weight),
            layers=len(blocks),
            width=config.hidden_size,
            heads=heads,
            head_width=head_width,
            mlp_width=layer_weights(0).down.shape[1],  # type: ignore[union-attr]
            context=config.max_position_embeddings,
        ),
        parallel=bool(getattr(config, "use_parallel_residual", False)),
        run=partial(_run, module, family, blocks),
        run_after=partial(_run_after, module, family, blocks),
        layer_weights=layer_weights,
        parameters=dict(module.named_parameters()),
        norm=Norm(family.norm, float(getattr(config, family.epsilon))),
        mlp_norm=lambda layer, stream: norms[layer](stream),
        origin=origin or {},
        tokenizer=tokenizer,
    )


def _layer_weights(block: Any, family: Family, heads: int, head_width: int, activation: str) -> LayerWeights:
    attention, mlp = (attrgetter(part)(block) for part in (family.attention, family.mlp))
    output = attrgetter(family.output)(attention)
    down, gate = (attrgetter(part)(mlp) for part in (family.down, family.gate))
    query, key, value = family.projections(attention, heads, head_width)
    return LayerWeights(
        query=query.detach(),
        key=key.detach(),
        value=value.detach(),
        output=_weight(output, family.transposed),
        output_bias=_bias(output),
        down=_weight(down, family.transposed),
        down_bias=_bias(down),
        gate=_weight(gate, family.transposed),
        gate_bias=_bias(gate),
        activation=activation,
        score_scale=float(attention.scaling),
    )


def _run_after(module: Any, family: Family, blocks: list[Any], before: Tensor) -> Callable[..., Tensor]:
    """Return :func:`_run` for what follows these tokens, whose keys and values are computed once."""
    past = import_module("transformers").DynamicCache(config=module.config)
    with torch.no_grad():
        # without the head, which nobody asks for
        module.base_model(input_ids=before[None], cache=past, use_cache=True)

    def run(tokens: Tensor, mask: Tensor | None, hook: Hook | None) -> Tensor:
        if mask is not None:
            # it would stand between, and count as tokens where attention has a window
            raise ValueError("after other tokens sequences are padded on the right, without a mask")
        return _run(module, family, blocks, tokens, None, hook, past)

    return run


def _for_batch(past: Any, sequences: int) -> Any:
    """Keys and values of one sequence as those of several; what these add is not added to the former."""
    copied = copy(past)
    copied.layers = [copy(layer) for layer in past.layers]
    for layer in copied.layers:
        layer.keys, layer.values = (each.expand(sequences, -1, -1, -1) for each in (layer.keys, layer.values))
    return copied


def _run(
    module: Any,
    family: Family,
    blocks: list[Any],
    tokens: Tensor,
    mask: Tensor | None,
    hook: Hook | None,
    past: Any = None,
) -> Tensor:
    """Return the logits; the hook sees and may replace what is computed on the way.

    ``past`` are keys and values of tokens that stand before each sequence.
    """
    inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": False}
    if past is not None:
        inputs |= {"cache": _for_batch(past, len(tokens)), "use_cache": True}
    if mask is not None:
        # padding on the left would otherwise move the positions that are learned
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        inputs |= {"attention_mask": mask.long(), "position_ids": positions}
    handles: list[RemovableHandle] = []
    try:
        if hook is not None:
            for layer, block in enumerate(blocks):
                handles += _look_into(block, family, f"layers.{layer}", hook)
            handles.append(
                attrgetter(family.final_norm)(module).register_forward_hook(
                    lambda _module, _inputs, output: hook("final", output)
                )
            )
        logits = module(**inputs).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits if hook is None else hook("logits", logits)


def _look_into(block: Any, family: Family, name: str, hook: Hook) -> list[RemovableHandle]:
    """Let the hook see and replace the activations of a block."""
    attention, mlp = (attrgetter(part)(block) for part in (family.attention, family.mlp))
    entered: list[Tensor] = []

    def enter(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        entered[:] = [hook(f"{name}.residual_pre", inputs[0])]
        return (entered[0], *inputs[1:])

    def attend(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        output = hook(f"{name}.attention.output", output)
        middle = entered[0] + output
        replaced = hook(f"{name}.residual_mid", middle)
        # the stream in the middle is no module's output: what attention adds is changed to give what is wanted
        return output if replaced is middle else replaced - entered[0]

    def first_input(part: str) -> Callable[..., tuple[Any, ...]]:
        return lambda _module, inputs: (hook(f"{name}.{part}", inputs[0]), *inputs[1:])

    def output(part: str) -> Callable[..., Tensor]:
        return lambda _module, _inputs, value: hook(f"{name}.{part}", value)

    projection = attrgetter(family.output)(attention)
    return [
        block.register_forward_pre_hook(enter),
        projection.register_forward_pre_hook(first_input("attention.z")),
        projection.register_forward_hook(attend),
        mlp.register_forward_pre_hook(first_input("mlp.input")),
        mlp.register_forward_hook(output("mlp.output")),
        block.register_forward_hook(output("residual_post")),
    ]


def _weight(module: Any, transposed: bool) -> Float[Tensor, "outputs inputs"]:
    weight: Tensor = module.weight.detach()
    return weight.T if transposed else weight


def _bias(module: Any) -> Float[Tensor, " outputs"] | None:
    bias: torch.Tensor | None = getattr(module, "bias", None)
    return None if bias is None else bias.detach()
