"""The sublayers of the transformer: attention, explicit or fused, MLP and norms, by the names of their parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from learning_geometry.model_options import head_width
from learning_geometry.models import second_derivatives
from learning_geometry.models.attention import (
    Rotation,
    attention_pattern,
    for_queries,
    fused_attention,
    last_attention,
    rotate,
)
from learning_geometry.models.differentiated import Norm, plain_norm
from learning_geometry.models.dropout import dropped_residual

Parameters = dict[str, Tensor]
Hook = Callable[[str, Tensor], Tensor]
"""Called with the name and value of every internal activation; what it returns is used instead."""
Mask = tuple[Tensor, float]
"""What dropout keeps (1, else 0), and the factor of what is kept."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class Scores(NamedTuple):
    """What attention scores depend on beside queries and keys."""

    heads: int
    factors: Rotation | None
    """Rotary factors."""
    bias: Float[Tensor, "heads position position"]
    """What is added to them."""


def normed(parameters: Parameters, x: Tensor, name: str, settings: dict[str, Any], fused: bool) -> Tensor:
    """Return the norm of ``x``, if the model has this one; fused where no hook needs autograd's own derivatives."""
    norm = _norm(parameters, name, settings)
    if norm is None:
        return x
    if fused:
        return second_derivatives.normed_rows(x.reshape(-1, len(norm.weight)), norm).view(x.shape)
    if norm.root_mean_square:
        return plain_norm(x, norm)
    return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.epsilon)


def mlp(
    parameters: Parameters, x: Float[Tensor, "*rows width"], name: str, settings: dict[str, Any], see: Hook
) -> Float[Tensor, "*rows width"]:
    """Return what the MLP of a layer makes of its normed input: down(activation(up(x))), or gated.

    Gated it is down(activation(gate(x)) · up(x)) (Shazeer 2020, arXiv 2002.05202).
    """
    activation = ACTIVATIONS[settings["activation"]]
    hidden = _linear(parameters, x, f"{name}.mlp.up")
    if settings["gated_mlp"]:
        hidden = activation(_linear(parameters, x, f"{name}.mlp.gate")) * hidden
    else:
        hidden = activation(hidden)
    return _linear(parameters, see(f"{name}.mlp.hidden", hidden), f"{name}.mlp.down")


def hooked_attention(
    parameters: Parameters,
    x: Float[Tensor, "batch position width"],
    name: str,
    settings: dict[str, Any],
    scores: Scores,
    masks: np.random.Generator | None,
    see: Hook,
) -> Float[Tensor, "batch position width"]:
    """Attention and its residual connection, one operation after the other, so that a hook sees them all."""
    batch, length, _ = x.shape
    by_head = (batch, length, -1, head_width(settings))
    roles = _roles(name)
    read = x if settings["norm"] == "post" else normed(parameters, x, f"{name}.attention_norm", settings, fused=False)
    query, key, value = (_linear(parameters, read, role).view(by_head).transpose(1, 2) for role in roles[:3])
    if scores.factors is not None:
        query, key = rotate(query, scores.factors), rotate(key, scores.factors)
    query, key = see(roles[0], query), see(roles[1], key)
    pattern = attention_pattern(query, for_queries(key, scores.heads), scores.bias)
    pattern = see(f"{name}.attention.pattern", pattern)
    z = (pattern @ for_queries(see(roles[2], value), scores.heads)).transpose(1, 2).reshape(batch, length, -1)
    output = see(roles[3], _linear(parameters, see(f"{name}.attention.z", z), roles[3]))
    return x + output if masks is None else dropped_residual(x, output, settings["dropout"], masks)


def attention_sublayer(
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
    norm = None if settings["norm"] == "post" else _norm(parameters, f"{name}.attention_norm", settings)
    inputs = (x, tokens, norm, *_projections(parameters, name))
    if twice_differentiable:
        x, output = second_derivatives.attention(*inputs, *scores)
        return x + output if mask is None else torch.addcmul(x, output, mask[0], value=mask[1])
    return fused_attention(*inputs, *scores, mask)


def last_attention_sublayer(
    parameters: Parameters,
    x: Float[Tensor, "batch position width"],
    name: str,
    settings: dict[str, Any],
    scores: Scores,
    mask: Mask | None,
) -> Float[Tensor, "batch 1 width"]:
    """Attention of the last position alone, and its residual connection."""
    read = x if settings["norm"] == "post" else normed(parameters, x, f"{name}.attention_norm", settings, fused=True)
    weights, biases = _projections(parameters, name)
    output = last_attention(read, weights, biases, *scores)
    x = x[:, -1:]
    return x + output if mask is None else torch.addcmul(x, output, mask[0][:, -1:], value=mask[1])


def _norm(parameters: Parameters, name: str, settings: dict[str, Any]) -> Norm | None:
    weight = parameters.get(f"{name}.weight")
    if weight is None:
        return None
    epsilon, root_mean_square = float(settings["norm_epsilon"]), settings["norm_kind"] == "rms_norm"
    return Norm(weight, parameters.get(f"{name}.bias"), epsilon, root_mean_square)


def _linear(parameters: Parameters, x: Tensor, name: str) -> Tensor:
    return F.linear(x, parameters[f"{name}.weight"], parameters.get(f"{name}.bias"))


def _roles(name: str) -> list[str]:
    return [f"{name}.attention.{role}" for role in ("query", "key", "value", "output")]


def _projections(parameters: Parameters, name: str) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """Weights and biases of query, key, value and output."""
    roles = _roles(name)
    weights = tuple(parameters[f"{role}.weight"] for role in roles)
    return weights, tuple(parameters.get(f"{role}.bias") for role in roles)
