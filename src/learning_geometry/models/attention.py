"""Causal softmax attention twice: explicit (readable patterns) and fused (fast training)."""

import math
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int64
from torch import Tensor

from learning_geometry.models.differentiated import plain_layer_norm, vector_jacobian

Rotation = Complex[Tensor, "position pairs"]
"""Unit complex numbers e^{i t θ_j}: what rotary positions multiply pair j at position t by."""


@lru_cache(maxsize=16)
def rotation(length: int, head_width: int, base: float, dtype: torch.dtype, device: str) -> Rotation:
    """Return the rotary factors of ``length`` positions for heads of ``head_width`` (an even number).

    Source: Su et al. 2021 (arXiv 2104.09864), eq. 15, on interleaved pairs: θ_j = base^(−2j / head_width).
    """
    frequency = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    return torch.polar(torch.ones_like(angle), angle).to(dtype=complex_dtype, device=device)


@lru_cache(maxsize=16)
def score_bias(
    length: int, heads: int, causal: bool, alibi: bool, dtype: torch.dtype, device: str
) -> Float[Tensor, "heads position position"]:
    """Return what is added to the attention scores: −∞ on the future if ``causal``, and ALiBi's slopes.

    Source: Press et al. 2022 (arXiv 2108.12409): head h penalises distance with slope 2^(−8 h / heads).
    """
    distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    bias = torch.zeros(heads, length, length, dtype=dtype)
    if alibi:
        slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1, dtype=dtype) / heads)
        bias = bias - slopes[:, None, None] * distance.abs().to(dtype)
    if causal:
        bias = bias.masked_fill(distance < 0, -math.inf)
    return bias.to(device)


def rotate(x: Float[Tensor, "*batch position width"], factors: Rotation) -> Float[Tensor, "*batch position width"]:
    """Return ``x`` with its interleaved pairs turned by the rotary factors."""
    # gradients of gradients may come in a layout that is not by position, which complex numbers cannot view
    adjacent = x if x.stride(-1) == 1 else x.contiguous()
    return torch.view_as_real(_pairs(adjacent) * factors).flatten(-2)


def attention_pattern(
    query: Float[Tensor, "batch heads position head_width"],
    key: Float[Tensor, "batch heads position head_width"],
    bias: Float[Tensor, "heads position position"],
) -> Float[Tensor, "batch heads position position"]:
    """Return softmax(q kᵀ / √head_width + bias), query index first."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (scores + bias).softmax(-1)


def fused_attention(
    x: Float[Tensor, "*rows width"],
    tokens: Int64[Tensor, "batch position"] | None,
    norm: tuple[Float[Tensor, "width"], Float[Tensor, "width"]] | None,
    weights: tuple[Float[Tensor, "width width"], ...],
    biases: tuple[Float[Tensor, "width"], ...] | None,
    heads: int,
    factors: Rotation | None,
    bias: Float[Tensor, "heads position position"],
    dropout: tuple[Float[Tensor, "batch position width"], float] | None = None,
) -> Float[Tensor, "batch position width"]:
    """Return the residual stream after an attention sublayer, with a fast first derivative.

    Computes, to rounding, ``x + dropout(output(attention(norm(x))))`` as LayerNorm, the projections,
    :func:`rotate`, :func:`attention_pattern` and the mix of the values do, but faster: rotations and sums of
    gradients happen in place, and a single head is never copied between layouts. If ``x`` holds one row per
    token of the vocabulary (the first layer), these rows are normed and projected, then looked up: far fewer
    than one per position. Under ``create_graph=True`` the gradient is that of the explicit functions, so that further
    derivatives are right too; ``second_derivatives.attention`` has faster second ones. Transforms of ``torch.func``
    and forward-mode derivatives raise RuntimeError.

    Args:
        x: the residual stream (batch, position, width), or one row per token of the vocabulary.
        tokens: which row of ``x`` stands at each position; None if ``x`` is the residual stream.
        norm: weight and bias of the LayerNorm, or None for no norm.
        weights: of query, key, value and output, as of ``torch.nn.Linear`` (output dimension first).
        biases: of query, key, value and output, or None.
        heads: number of heads; divides the width.
        factors: rotary factors, or None.
        bias: what is added to the scores.
        dropout: mask and scale of the update, or None.
    """
    options = (tokens, heads, factors, bias, *(dropout or (None, 1.0)))
    result: Tensor = _FusedAttention.apply(options, x, *(norm or (None,) * 2), *weights, *(biases or (None,) * 4))
    return result


def last_attention(
    normed: Float[Tensor, "batch position width"],
    weights: tuple[Float[Tensor, "width width"], ...],
    biases: tuple[Float[Tensor, "width"], ...] | None,
    heads: int,
    factors: Rotation | None,
    bias: Float[Tensor, "heads position position"],
) -> Float[Tensor, "batch 1 width"]:
    """Return what an attention sublayer adds to the residual stream at the last position; any derivative can be taken.

    Queries, mix and output are computed for that position alone. The arguments are those of :func:`fused_attention`,
    with the normed residual stream.
    """
    batch, length, width = normed.shape
    by_head = (batch, length, heads, width // heads)
    query_bias, key_bias, value_bias, output_bias = biases or (None,) * 4
    query = F.linear(normed[:, -1:], weights[0], query_bias).view(batch, 1, *by_head[2:])
    key = F.linear(normed, weights[1], key_bias).view(by_head)
    value = F.linear(normed, weights[2], value_bias).view(by_head)
    if factors is not None:
        query = rotate(query.transpose(1, 2), factors[-1:]).transpose(1, 2)
        key = rotate(key.transpose(1, 2), factors).transpose(1, 2)
    # products and sums in place: for one query, matrix products would copy keys and values into another layout
    scores = (query * key).sum(-1) * math.sqrt(heads / width)
    pattern = (scores + bias[:, -1].T).softmax(1)
    mixed = (pattern.unsqueeze(-1) * value).sum(1, keepdim=True)
    return F.linear(mixed.flatten(2), weights[3], output_bias)


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, options, x, norm_weight, norm_bias, w_query, w_key, w_value, w_output, *biases):
        tokens, heads, factors, bias, kept, kept_scale = options
        shape = (*(x if tokens is None else tokens).shape[:2], x.shape[-1])
        batch, width = shape[0], shape[-1]
        rows = normed = x.reshape(-1, width)
        moments = ()
        if norm_weight is not None:
            normed, *moments = torch.native_layer_norm(rows, (width,), norm_weight, norm_bias, 1e-5)

        def look_up(y):
            return (y if tokens is None else y.index_select(0, tokens.flatten())).view(shape)

        def project(weight, linear_bias):
            y = normed @ weight.T if linear_bias is None else torch.addmm(linear_bias, normed, weight.T)
            return _by_head(look_up(y), heads)

        # everything is used right after it is computed, and written over what is not needed any more, while that is in
        # the processor's cache: most of this waits for memory
        value, query = project(w_value, biases[2]), project(w_query, biases[0])
        if factors is not None:
            _pairs(query).mul_(factors)
        key = project(w_key, biases[1])
        if factors is not None:
            _pairs(key).mul_(factors)
        bias = bias.repeat(batch, 1, 1) if heads > 1 else bias
        scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=math.sqrt(heads / width))
        pattern = torch.softmax(scores, -1, out=scores)
        mixed = _by_position(torch.bmm(pattern, value), heads)
        update = (mixed @ w_output.T if biases[3] is None else torch.addmm(biases[3], mixed, w_output.T)).view(shape)
        ctx.options, ctx.x_shape, ctx.biased = options, x.shape, biases[0] is not None
        activations = (rows, normed, query, key, value, pattern, mixed)
        inputs = (x, norm_weight, norm_bias, w_query, w_key, w_value, w_output, *biases)
        ctx.save_for_backward(*inputs, *activations, *moments)
        if kept is None:
            return update.add_(look_up(rows))
        return torch.addcmul(look_up(rows), update, kept, value=kept_scale, out=update)

    @staticmethod
    def backward(ctx, gradient):
        tokens, heads, factors, _, kept, kept_scale = ctx.options
        inputs, (rows, normed, query, key, value, pattern, mixed, *moments) = _split(ctx.saved_tensors, 11)
        if torch.is_grad_enabled():
            return None, *vector_jacobian(partial(_explicit_attention, ctx.options), inputs, [gradient])
        _, norm_weight, norm_bias, w_query, w_key, w_value, w_output, *_ = inputs
        width = gradient.shape[-1]

        def gather(y):  # sum over the positions that look up the same row
            y = y.reshape(-1, width)
            return y if tokens is None else torch.zeros_like(rows).index_add_(0, tokens.flatten(), y)

        def to_linear(y, inputs):  # the gradients of a weight and a bias
            return y.T @ inputs, y.sum(0) if ctx.biased else None

        # as in the forward pass, everything is used right after it is computed, and its memory given to what comes next
        to_update = gradient if kept is None else (gradient * kept).mul_(kept_scale)
        to_update = to_update.reshape(-1, width)
        to_output = to_linear(to_update, mixed)
        to_mixed = _by_head((to_update @ w_output).view(gradient.shape), heads)
        del to_update
        # the scale of the scores enters here once, instead of in the two products that follow
        empty, scale = to_mixed.new_empty(1, 1, 1), math.sqrt(heads / width)
        to_pattern = torch.baddbmm(empty, to_mixed, value.transpose(1, 2), beta=0, alpha=scale)
        to_scores = torch._softmax_backward_data(to_pattern, pattern, -1, pattern.dtype, grad_input=to_pattern)
        inverse = None if factors is None else factors.conj().resolve_conj()
        to_x, to_roles = None, []
        for weight, turn, left, right in (
            (w_query, inverse, to_scores, key),
            (w_key, inverse, to_scores.transpose(1, 2), query),
            (w_value, None, pattern.transpose(1, 2), to_mixed),
        ):
            to_role = torch.bmm(left, right)
            if turn is not None:
                _pairs(to_role).mul_(turn)
            to_role = gather(_by_position(to_role, heads))
            to_x = to_x.addmm_(to_role, weight) if to_roles else to_role @ weight
            to_roles.append(to_linear(to_role, normed))
            del to_role
        (*to_weights,), (*to_biases,) = zip(*to_roles, to_output, strict=True)
        to_norm = [None, None]
        if norm_weight is not None:
            to_x, *to_norm = torch.ops.aten.native_layer_norm_backward(
                to_x, rows, [width], *moments, norm_weight, norm_bias, [True, True, True]
            )
        return None, to_x.add_(gather(gradient)).view(ctx.x_shape), *to_norm, *to_weights, *to_biases


def _explicit_attention(options, x, norm_weight, norm_bias, w_query, w_key, w_value, w_output, *biases):
    """As ``_FusedAttention``, by operations that have any derivative."""
    tokens, heads, factors, bias, kept, kept_scale = options
    residual = x if tokens is None else x.index_select(0, tokens.flatten()).view(*tokens.shape, x.shape[-1])
    batch, length, width = residual.shape
    normed = residual if norm_weight is None else plain_layer_norm(residual, norm_weight, norm_bias)
    query, key, value = (
        F.linear(normed, weight, linear_bias).view(batch, length, heads, width // heads).transpose(1, 2)
        for weight, linear_bias in zip((w_query, w_key, w_value), biases[:3], strict=True)
    )
    if factors is not None:
        query, key = rotate(query, factors), rotate(key, factors)
    mixed = (attention_pattern(query, key, bias) @ value).transpose(1, 2).reshape(batch, length, width)
    update = F.linear(mixed, w_output, biases[3])
    return residual + update if kept is None else torch.addcmul(residual, update, kept, value=kept_scale)


def _split(values, first):
    return values[:first], values[first:]


def _pairs(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (x.shape[-1] // 2, 2)))


def _by_head(x: Tensor, heads: int) -> Tensor:
    """Return (batch, position, width) as (batch heads, position, head width); a view for one head."""
    batch, length, width = x.shape
    return x.view(batch, length, heads, width // heads).transpose(1, 2).reshape(-1, length, width // heads)


def _by_position(x: Tensor, heads: int) -> Tensor:
    """Undo :func:`_by_head`, flat over batch and position."""
    _, length, head_width = x.shape
    return x.view(-1, heads, length, head_width).transpose(1, 2).reshape(-1, heads * head_width)
