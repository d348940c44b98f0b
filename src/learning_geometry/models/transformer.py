"""One transformer for every study: a pure function of a dictionary of named parameters."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from learning_geometry.models import second_derivatives
from learning_geometry.models.attention import (
    Rotation,
    attention_pattern,
    fused_attention,
    last_attention,
    rotate,
    rotation,
    score_bias,
)
from learning_geometry.models.dropout import dropout_mask, dropped_residual
from learning_geometry.models.sizes import TaskSizes

SETTINGS = {
    "layers": {"type": "integer", "minimum": 1, "default": 2, "description": "Number of layers."},
    "heads": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "Attention heads per layer; must divide the width.",
    },
    "width": {
        "type": "integer",
        "minimum": 1,
        "default": 64,
        "description": "Width d of the residual stream.",
    },
    "mlp_width": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "Hidden width of the MLP after each attention; 0 for attention only.",
    },
    "activation": {
        "enum": ["gelu", "relu"],
        "default": "gelu",
        "description": "Activation function of the MLP.",
    },
    "norm": {
        "enum": ["pre", "none"],
        "default": "pre",
        "description": "LayerNorm (with affine) before each sublayer, or none.",
    },
    "final_norm": {"type": "boolean", "default": False, "description": "LayerNorm before the read-out."},
    "positions": {
        "enum": ["rotary", "learned", "none", "alibi"],
        "default": "rotary",
        "description": "How positions enter: rotary on all dimensions of queries and keys (interleaved pairs), "
        "a learned embedding, not at all, or ALiBi's slopes on the scores.",
    },
    "rotary_base": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 10000.0,
        "description": "Base θ of the rotary frequencies.",
    },
    "bias": {
        "type": "boolean",
        "default": True,
        "description": "Biases on the query, key, value, output, MLP and read-out layers.",
    },
    "tied_readout": {
        "type": "boolean",
        "default": False,
        "description": "Read out with the token embedding instead of a matrix of its own.",
    },
    "dropout": {
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.0,
        "description": "Dropout rate on each attention output, in training only.",
    },
    "causal": {"type": "boolean", "default": True, "description": "Whether attention looks back only."},
    "readout": {
        "enum": ["all", "last"],
        "default": "all",
        "description": "Logits at all positions or at the last one.",
    },
}

Parameters = dict[str, Tensor]
Hook = Callable[[str, Tensor], Tensor]
"""Called with the name and value of every internal activation; what it returns is used instead."""
Mask = tuple[Tensor, float]
"""What dropout keeps (1, else 0), and the factor of what is kept."""


class Scores(NamedTuple):
    """What attention scores depend on beside queries and keys."""

    heads: int
    factors: Rotation | None
    """Rotary factors."""
    bias: Float[Tensor, "heads position position"]
    """What is added to them."""


def initialise(settings: dict[str, Any], shape: TaskSizes, generator: np.random.Generator) -> Parameters:
    """Draw float32 parameters as PyTorch's default initialisation does.

    Linear layers: weight and bias uniform in ±1/√fan_in; embeddings standard normal; norms one and zero.

    Raises:
        ValueError: a tied read-out with another number of outputs than tokens.
    """
    if settings["tied_readout"] and shape.outputs != shape.vocabulary:
        raise ValueError(
            f"tied_readout: the task has {shape.vocabulary} tokens but {shape.outputs} outputs; set it to false"
        )
    width, mlp_width = settings["width"], settings["mlp_width"]
    parameters: Parameters = {}

    def embedding(name: str, rows: int) -> None:
        draws = generator.standard_normal((rows, width), dtype=np.float32)
        parameters[f"{name}.weight"] = torch.from_numpy(draws)

    def linear(name: str, inputs: int, outputs: int, weight: bool = True) -> None:
        bound = 1 / math.sqrt(inputs)
        kinds: dict[str, tuple[int, ...]] = {"weight": (outputs, inputs)} if weight else {}
        kinds |= {"bias": (outputs,)} if settings["bias"] else {}
        for kind, size in kinds.items():
            draws = (2 * generator.random(size, dtype=np.float32) - 1) * np.float32(bound)
            parameters[f"{name}.{kind}"] = torch.from_numpy(draws)

    def norm(name: str) -> None:
        parameters[f"{name}.weight"] = torch.ones(width)
        parameters[f"{name}.bias"] = torch.zeros(width)

    embedding("embedding", shape.vocabulary)
    if settings["positions"] == "learned":
        embedding("positions", shape.length)
    for layer in range(settings["layers"]):
        if settings["norm"] == "pre":
            norm(f"layers.{layer}.attention_norm")
        for role in ("query", "key", "value", "output"):
            linear(f"layers.{layer}.attention.{role}", width, width)
        if mlp_width:
            if settings["norm"] == "pre":
                norm(f"layers.{layer}.mlp_norm")
            linear(f"layers.{layer}.mlp.up", width, mlp_width)
            linear(f"layers.{layer}.mlp.down", mlp_width, width)
    if settings["final_norm"]:
        norm("final_norm")
    linear("readout", width, shape.outputs, weight=not settings["tied_readout"])
    return parameters


def forward(
    parameters: Parameters,
    tokens: Int64[Tensor, "batch position"],
    settings: dict[str, Any],
    *,
    dropout: np.random.Generator | None = None,
    hook: Hook | None = None,
    twice_differentiable: bool = False,
) -> Float[Tensor, "batch read outputs"]:
    """Return the logits at every position, or at the last one only (``readout: last``).

    Args:
        parameters: named tensors as :func:`initialise` makes them; any float dtype and device.
        tokens: token numbers.
        settings: the options, defaults filled in.
        dropout: draws the masks while training; None evaluates.
        hook: sees, and may replace, every activation. Per layer l, ``layers.l.`` then ``residual_pre``,
            ``attention.query``, ``.key`` (rotated), ``.value``, ``.pattern`` (by head), ``.z`` (heads
            concatenated), ``.output``, ``residual_mid``, ``mlp.hidden``, ``mlp.output``,
            ``residual_post``; and ``embedding``, ``final``, ``logits``. First and second derivatives are then
            autograd's own, and transforms of ``torch.func`` apply; of LayerNorm torch 2.13 gets the third wrong, and
            the second by ``torch.func.hessian``.
        twice_differentiable: use the attention that has fast second derivatives. All derivatives are right either way.

    Raises:
        ValueError: more positions than a learned position embedding has.
    """
    positions = settings["positions"]
    embedding = parameters["embedding.weight"]
    see: Hook = hook if hook is not None else lambda name, value: value
    scores = _scores(tokens.shape[1], settings, embedding.dtype, str(tokens.device))
    fused = hook is None
    # of the last layer only what the last position needs, where nothing else is seen
    last_alone = settings["layers"] - 1 if fused and settings["readout"] == "last" else None
    # before any mixing the stream depends on the token alone, and attention that is not hooked computes by token
    by_token = fused and positions != "learned" and len(embedding) <= tokens.numel() and last_alone != 0
    masks = dropout if settings["dropout"] > 0 else None

    x = see("embedding", embedding if by_token else _embedded(parameters, tokens, positions == "learned"))
    for layer in range(settings["layers"]):
        name = f"layers.{layer}"
        x = see(f"{name}.residual_pre", x)
        if hook is not None:
            x = _hooked_attention(parameters, x, name, settings, scores, masks, hook)
        else:
            mask = None
            if masks is not None:
                mask = dropout_mask((*tokens.shape, settings["width"]), x, settings["dropout"], masks)
            if layer == last_alone:
                x = _last_attention(parameters, x, name, settings, scores, mask)
            else:
                by = tokens if by_token and layer == 0 else None
                x = _attention(parameters, x, by, name, settings, scores, mask, twice_differentiable)
        x = see(f"{name}.residual_mid", x)
        if settings["mlp_width"]:
            hidden = _linear(parameters, _norm(parameters, x, f"{name}.mlp_norm", fused), f"{name}.mlp.up")
            hidden = see(f"{name}.mlp.hidden", getattr(F, settings["activation"])(hidden))
            x = x + see(f"{name}.mlp.output", _linear(parameters, hidden, f"{name}.mlp.down"))
        x = see(f"{name}.residual_post", x)

    if settings["readout"] == "last":
        x = x[:, -1:]
    x = see("final", _norm(parameters, x, "final_norm", fused))
    readout = "embedding" if settings["tied_readout"] else "readout"
    logits = F.linear(x, parameters[f"{readout}.weight"], parameters.get("readout.bias"))
    return see("logits", logits)


def _scores(length: int, settings: dict[str, Any], dtype: torch.dtype, device: str) -> Scores:
    heads, positions = settings["heads"], settings["positions"]
    factors = None
    if positions == "rotary":
        factors = rotation(length, settings["width"] // heads, float(settings["rotary_base"]), dtype, device)
    return Scores(heads, factors, score_bias(length, heads, settings["causal"], positions == "alibi", dtype, device))


def _norm(parameters: Parameters, x: Tensor, name: str, fused: bool) -> Tensor:
    """LayerNorm, if the model has this one; fused where no hook needs autograd's own derivatives."""
    weight = parameters.get(f"{name}.weight")
    if weight is None:
        return x
    width = len(weight)
    if fused:
        return second_derivatives.layer_norm(x.reshape(-1, width), weight, parameters[f"{name}.bias"]).view(x.shape)
    return F.layer_norm(x, (width,), weight, parameters[f"{name}.bias"])


def _linear(parameters: Parameters, x: Tensor, name: str) -> Tensor:
    return F.linear(x, parameters[f"{name}.weight"], parameters.get(f"{name}.bias"))


def _embedded(
    parameters: Parameters, tokens: Int64[Tensor, "batch position"], learned: bool
) -> Float[Tensor, "batch position width"]:
    """Embed every token at its position, with learned position embeddings or without."""
    weight, length = parameters["embedding.weight"], tokens.shape[1]
    # F.embedding's gradient is slow
    x = weight.index_select(0, tokens.flatten()).view(*tokens.shape, weight.shape[1])
    if not learned:
        return x
    positions = parameters["positions.weight"]
    if length > len(positions):
        raise ValueError(
            f"{length} positions, but the learned position embedding has {len(positions)}; "
            "use shorter sequences or other positions"
        )
    return x + positions[:length]


def _hooked_attention(
    parameters: Parameters,
    x: Float[Tensor, "batch position width"],
    name: str,
    settings: dict[str, Any],
    scores: Scores,
    masks: np.random.Generator | None,
    see: Hook,
) -> Float[Tensor, "batch position width"]:
    """Attention and its residual connection, one operation after the other, so that a hook sees them all."""
    batch, length, width = x.shape
    by_head = (batch, length, scores.heads, width // scores.heads)
    roles = _roles(name)
    normed = _norm(parameters, x, f"{name}.attention_norm", fused=False)
    query, key, value = (_linear(parameters, normed, role).view(by_head).transpose(1, 2) for role in roles[:3])
    if scores.factors is not None:
        query, key = rotate(query, scores.factors), rotate(key, scores.factors)
    query, key = see(roles[0], query), see(roles[1], key)
    pattern = see(f"{name}.attention.pattern", attention_pattern(query, key, scores.bias))
    z = (pattern @ see(roles[2], value)).transpose(1, 2).reshape(batch, length, width)
    output = see(roles[3], _linear(parameters, see(f"{name}.attention.z", z), roles[3]))
    return x + output if masks is None else dropped_residual(x, output, settings["dropout"], masks)


def _attention(
    parameters: Parameters,
    x: Float[Tensor, "*inputs width"],
    tokens: Int64[Tensor, "batch position"] | None,
    name: str,
    settings: dict[str, Any],
    scores: Scores,
    mask: Mask | None,
    twice_differentiable: bool,
) -> Float[Tensor, "batch position width"]:
    """Attention of all positions and its residual connection; with tokens, of the rows of ``x`` that they number."""
    affine = None
    if settings["norm"] == "pre":
        affine = (parameters[f"{name}.attention_norm.weight"], parameters[f"{name}.attention_norm.bias"])
    weights, biases = _projections(parameters, name, settings["bias"])
    inputs = (x, tokens, affine, weights, biases)
    if twice_differentiable:
        x, output = second_derivatives.attention(*inputs, *scores)
        return x + output if mask is None else torch.addcmul(x, output, mask[0], value=mask[1])
    return fused_attention(*inputs, *scores, mask)


def _last_attention(
    parameters: Parameters,
    x: Float[Tensor, "batch position width"],
    name: str,
    settings: dict[str, Any],
    scores: Scores,
    mask: Mask | None,
) -> Float[Tensor, "batch 1 width"]:
    """Attention of the last position alone, and its residual connection."""
    weights, biases = _projections(parameters, name, settings["bias"])
    normed = _norm(parameters, x, f"{name}.attention_norm", fused=True)
    output = last_attention(normed, weights, biases, *scores)
    x = x[:, -1:]
    return x + output if mask is None else torch.addcmul(x, output, mask[0][:, -1:], value=mask[1])


def _roles(name: str) -> list[str]:
    return [f"{name}.attention.{role}" for role in ("query", "key", "value", "output")]


def _projections(parameters: Parameters, name: str, bias: bool) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """Weights and biases of query, key, value and output."""
    roles = _roles(name)
    weights = tuple(parameters[f"{role}.weight"] for role in roles)
    return weights, tuple(parameters[f"{role}.bias"] for role in roles) if bias else None
