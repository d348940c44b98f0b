"""Hugging Face models of known families behind the interface: how to run them and look into them."""

from collections.abc import Callable
from copy import copy
from functools import partial
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from learning_geometry.models.language import Between, Hook, LanguageModel, LayerWeights, ModelSizes, Norm
from learning_geometry.models.language.descriptions import Family, known_family, part

QUERY_KEY_NORMS = ("q_norm", "k_norm", "q_layernorm", "k_layernorm")
"""What attention modules call norms of queries and keys, if they have any."""


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
    family = known_family(config, name)
    module.eval()
    blocks = list(part(module, family.blocks))
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    epsilon = getattr(config, family.epsilon) if isinstance(family.epsilon, str) else family.epsilon

    def layer_weights(layer: int) -> LayerWeights:
        return _layer_weights(blocks[layer], family, heads, head_width, getattr(config, family.activation, ""))

    def before(name: str | None) -> Callable[[int, Tensor], Tensor]:
        norms = [None if name is None else part(block, name) for block in blocks]

        def apply(layer: int, stream: Tensor) -> Tensor:
            norm = norms[layer]
            return stream if norm is None else norm(stream)

        return apply

    layer_weights(0)  # a part that is not there is missed now
    return LanguageModel(
        name=name,
        family=config.model_type,
        sizes=ModelSizes(
            vocabulary=len(module.get_input_embeddings().weight),
            layers=len(blocks),
            width=config.hidden_size,
            heads=heads,
            head_width=head_width,
            mlp_width=_mlp_width(blocks[0], family),
            context=getattr(config, "max_position_embeddings", None),
        ),
        parallel=family.parallel,
        run=partial(_run, module, family, blocks),
        run_after=partial(_run_after, module, family, blocks),
        layer_weights=layer_weights,
        parameters=dict(module.named_parameters()),
        norm=Norm(family.norm, float(epsilon)),
        attention_norm=before(family.attention_norm),
        mlp_norm=before(family.mlp_norm),
        between=_between(blocks, family, config),
        besides=_besides(blocks, family, config),
        origin=origin or {},
        tokenizer=tokenizer,
    )


def _between(blocks: list[Any], family: Family, config: Any) -> Between | None:
    """What stands between W_O and the stream."""
    if family.norm_after_attention:
        norms = [part(block, family.norm_after_attention) for block in blocks]
        return Between(None, lambda layer, projected: norms[layer](projected))
    if family.factor and (factor := float(getattr(config, family.factor))) != 1.0:
        return Between(factor, lambda layer, projected: factor * projected)
    return None


def _besides(blocks: list[Any], family: Family, config: Any) -> dict[str, str]:
    """What is computed besides products of weights, so that these are not what is named."""
    besides = dict[str, str]()
    attentions = [part(block, family.attention) for block in blocks]
    if any(getattr(attention, name, None) is not None for attention in attentions for name in QUERY_KEY_NORMS):
        besides["query_key"] = "queries and keys are normed before their products"
    if getattr(config, "clip_qkv", None) is not None:
        besides |= dict.fromkeys(("query_key", "output_value"), "queries, keys and values are clipped")
    return besides


def _mlp_width(block: Any, family: Family) -> int:
    """Hidden width of the MLP of a block, or of each expert."""
    if (experts := _experts(block, family)) is not None:
        return int(experts.down_proj.shape[-1])
    return _weight(part(block, family.down), family.transposed).shape[1]


def _experts(block: Any, family: Family) -> Any:
    """The experts that the MLP of a block is a mixture of; None: it is one MLP."""
    return getattr(part(block, family.mlp), "experts", None)


def _layer_weights(block: Any, family: Family, heads: int, head_width: int, activation: str) -> LayerWeights:
    attention = part(block, family.attention)
    output = part(attention, family.output)
    query, key, value = family.projections(attention, heads, head_width)
    down = down_bias = gate = gate_bias = None
    if _experts(block, family) is None:
        of_down, of_gate = part(block, family.down), part(block, family.gate)
        down, down_bias = _weight(of_down, family.transposed), _bias(of_down)
        gate, gate_bias = _weight(of_gate, family.transposed), _bias(of_gate)
        if family.gate_and_up:
            gate, gate_bias = gate.chunk(2)[0], None if gate_bias is None else gate_bias.chunk(2)[0]
    return LayerWeights(
        query=query.detach(),
        key=key.detach(),
        value=value.detach(),
        output=_weight(output, family.transposed),
        output_bias=_bias(output),
        down=down,
        down_bias=down_bias,
        gate=gate,
        gate_bias=gate_bias,
        activation=activation or family.activation,
        score_scale=float(part(attention, family.scale)),
        output_norm=_norm_weight(block, family.norm_after_attention, family),
        down_norm=_norm_weight(block, family.norm_after_mlp, family),
    )


def _norm_weight(block: Any, name: str, family: Family) -> Float[Tensor, " width"] | None:
    if not name:
        return None
    weight: Tensor = part(block, name).weight.detach()
    return weight + family.weight_offset


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
            factor = float(getattr(module.config, family.factor)) if family.factor else 1.0
            for layer, block in enumerate(blocks):
                handles += _look_into(block, family, f"layers.{layer}", hook, factor)
            handles.append(
                part(module, family.final_norm).register_forward_hook(
                    lambda _module, _inputs, output: hook("final", output)
                )
            )
        logits = module(**inputs).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits if hook is None else hook("logits", logits)


def _look_into(block: Any, family: Family, name: str, hook: Hook, factor: float) -> list[RemovableHandle]:
    """Let the hook see and replace the activations of a block.

    Args:
        block: a layer.
        family: where its parts are.
        name: of the layer.
        hook: sees, and may replace.
        factor: what attention and MLP are multiplied by before they are added to the stream.
    """
    entered: list[Tensor] = []

    def see(what: str, value: Tensor) -> Tensor:
        # some blocks flatten the batch for their MLP
        of_batch = value if value.ndim == 3 else value.view(*entered[0].shape[:-1], value.shape[-1])
        seen = hook(f"{name}.{what}", of_batch)
        # what was not replaced is given back itself
        return value if seen is of_batch else seen.reshape(value.shape)

    def enter(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        entered[:] = [hook(f"{name}.residual_pre", inputs[0])]
        return (entered[0], *inputs[1:])

    def first_input(what: str) -> Callable[..., tuple[Any, ...]]:
        return lambda _module, inputs: (see(what, inputs[0]), *inputs[1:])

    def attended(_module: Any, _inputs: Any, value: Tensor) -> Tensor:
        added = value if factor == 1.0 else factor * value
        output = hook(f"{name}.attention.output", added)
        middle = entered[0] + output
        replaced = hook(f"{name}.residual_mid", middle)
        # the stream in the middle is no module's output: what attention adds is changed to give what is wanted
        output = output if replaced is middle else replaced - entered[0]
        return value if output is added else output / factor

    def projected(_module: Any, _inputs: Any, value: Tensor) -> Tensor:
        return hook(f"{name}.attention.projected", value)

    def projected_and_added(_module: Any, inputs: Any, value: Tensor) -> Tensor:
        return attended(_module, inputs, projected(_module, inputs, value))

    def fed_forward(_module: Any, _inputs: Any, value: Tensor) -> Tensor:
        added = value if factor == 1.0 else factor * value
        output = see("mlp.output", added)
        output = value if output is added else output / factor
        return output.clone() if family.adds_in_place else output

    def leave(_module: Any, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (hook(f"{name}.residual_post", output[0]), *output[1:])
        return hook(f"{name}.residual_post", output)

    projection = part(part(block, family.attention), family.output)
    after_attention, after_mlp = family.norm_after_attention, family.norm_after_mlp
    handles = [
        block.register_forward_pre_hook(enter),
        projection.register_forward_pre_hook(first_input("attention.z")),
        projection.register_forward_hook(projected if after_attention else projected_and_added),
        part(block, family.mlp).register_forward_pre_hook(first_input("mlp.input")),
        part(block, after_mlp or family.written or family.mlp).register_forward_hook(fed_forward),
        block.register_forward_hook(leave),
    ]
    if after_attention:
        handles.append(part(block, after_attention).register_forward_hook(attended))
    return handles


def _weight(module: Any, transposed: bool) -> Float[Tensor, "outputs inputs"]:
    weight: Tensor = module.weight.detach()
    return weight.T if transposed else weight


def _bias(module: Any) -> Float[Tensor, " outputs"] | None:
    bias: torch.Tensor | None = getattr(module, "bias", None)
    return None if bias is None else bias.detach()
