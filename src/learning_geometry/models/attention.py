"""Causal softmax attention twice: explicit (readable patterns) and fused (fast training)."""

import math
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int64
from torch import Tensor

from learning_geometry.models.differentiated import Norm, plain_norm, vector_jacobian

Rotation = Complex[Tensor, "position pairs"]
"""Unit complex numbers e^{i t θ_j}: what rotary positions multiply pair j at position t by."""


@lru_cache(maxsize=16)
def rotation(
    length: int, head_width: int, base: float, dtype: torch.dtype, device: str, rotary_width: int | None = None
) -> Rotation:
    """Return the rotary factors of ``length`` positions for heads of ``head_width`` (an even number).

    With ``rotary_width``, an even number, pairs beyond the first so many numbers of a head stay: their factors are 1.

    Source: Su et al. 2021 (arXiv 2104.09864), eq. 15, on interleaved pairs: θ_j = base^(−2j / rotary_width).
    """
    turned = head_width if rotary_width is None else rotary_width
    frequency = base ** (-torch.arange(0, turned, 2, dtype=torch.float64) / turned)
    frequency = torch.cat([frequency, torch.zeros((head_width - turned) // 2, dtype=torch.float64)])
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


def for_queries(
    x: Float[Tensor, "batch shared position head_width"], heads: int
) -> Float[Tensor, "batch heads position head_width"]:
    """Return keys or values with a copy for each query head that shares them (Ainslie et al. 2023, arXiv 2305.13245).

    Query head h has those of head h // (heads / shared).
    """
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


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
    norm: Norm | None,
    weights: tuple[Float[Tensor, "_ _"], ...],
    biases: tuple[Float[Tensor, "_"] | None, ...] | None,
    heads: int,
    factors: Rotation | None,
    bias: Float[Tensor, "heads position position"],
    dropout: tuple[Float[Tensor, "batch position width"], float] | None = None,
) -> Float[Tensor, "batch position width"]:
    """Return the residual stream after an attention sublayer, with a fast first derivative.

    Computes, to rounding, ``x + dropout(output(attention(norm(x))))`` as the norm, the projections,
    :func:`rotate`, :func:`attention_pattern` and the mix of the values do, but faster: rotations and sums of
    gradients happen in place, and a single head is never copied between layouts. If ``x`` holds one row per
    token of the vocabulary (the first layer), these rows are normed and projected, then looked up: far fewer
    than one per position. Under ``create_graph=True`` the gradient is that of the explicit functions, so that further
    derivatives are right too; ``second_derivatives.attention`` has faster second ones. Transforms of ``torch.func``
    and forward-mode derivatives raise RuntimeError.

    Args:
        x: the residual stream (batch, position, width), or one row per token of the vocabulary.
        tokens: which row of ``x`` stands at each position; None if ``x`` is the residual stream.
        norm: before the projections, or None for no norm.
        weights: of query, key, value and output, as of ``torch.nn.Linear`` (output dimension first); those of key and
            value may have fewer heads, which the query heads share (``for_queries``).
        biases: of query, key, value and output, each of which may be None, or None for no biases.
        heads: number of query heads; divides the rows of the query's weight.
        factors: rotary factors, or None.
        bias: what is added to the scores.
        dropout: mask and scale of the update, or None.
    """
    weight, norm_bias, *kind = norm or (None, None, 0.0, False)
    options = (tokens, heads, factors, bias, *(dropout or (None, 1.0)), kind)
    result: Tensor = _FusedAttention.apply(options, x, weight, norm_bias, *weights, *(biases or (None,) * 4))
    return result


def last_attention(
    normed: Float[Tensor, "batch position width"],
    weights: tuple[Float[Tensor, "_ _"], ...],
    biases: tuple[Float[Tensor, "_"] | None, ...] | None,
    heads: int,
    factors: Rotation | None,
    bias: Float[Tensor, "heads position position"],
) -> Float[Tensor, "batch 1 width"]:
    """Return what an attention sublayer adds to the residual stream at the last position; any derivative can be taken.

    Queries, mix and output are computed for that position alone. The arguments are those of :func:`fused_attention`,
    with the normed residual stream.
    """
    batch, length, _ = normed.shape
    head_width = len(weights[0]) // heads
    query_bias, key_bias, value_bias, output_bias = biases or (None,) * 4
    query = F.linear(normed[:, -1:], weights[0], query_bias).view(batch, 1, heads, head_width)
    key = F.linear(normed, weights[1], key_bias).view(batch, length, -1, head_width)
    value = F.linear(normed, weights[2], value_bias).view(batch, length, -1, head_width)
    if factors is not None:
        query = rotate(query.transpose(1, 2), factors[-1:]).transpose(1, 2)
        key = rotate(key.transpose(1, 2), factors).transpose(1, 2)
    if key.shape[2] != heads:
        key, value = (for_queries(x.transpose(1, 2), heads).transpose(1, 2) for x in (key, value))
    # products and sums in place: for one query, matrix products would copy keys and values into another layout
    scores = (query * key).sum(-1) * math.sqrt(heads / len(weights[0]))
    pattern = (scores + bias[:, -1].T).softmax(1)
    mixed = (pattern.unsqueeze(-1) * value).sum(1, keepdim=True)
    return F.linear(mixed.flatten(2), weights[3], output_bias)


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, options, x, norm_weight, norm_bias, w_query, w_key, w_value, w_output, *biases):
        tokens, heads, factors, bias, kept, kept_scale, kind = options
        batch, length = (x if tokens is None else tokens).shape[:2]
        inner = len(w_query)
        head_width = inner // heads
        shared = len(w_key) // head_width
        rows = normed = x.reshape(-1, x.shape[-1])
        moments = ()
        if norm_weight is not None:
            normed, *moments = _normed(rows, norm_weight, norm_bias, *kind)

        def look_up(y):
            return (y if tokens is None else y.index_select(0, tokens.flatten())).view(batch, length, -1)

        def project(weight, linear_bias, of_role):
            y = normed @ weight.T if linear_bias is None else torch.addmm(linear_bias, normed, weight.T)
            return _by_head(look_up(y), of_role)

        # everything is used right after it is computed, and written over what is not needed any more, while that is in
        # the processor's cache: most of this waits for memory
        value, query = project(w_value, biases[2], shared), project(w_query, biases[0], heads)
        if factors is not None:
            _pairs(query).mul_(factors)
        key = project(w_key, biases[1], shared)
        if factors is not None:
            _pairs(key).mul_(factors)
        # the queries of heads that share keys and values lie below each other
        query = query.reshape(batch * shared, -1, head_width)
        bias = bias.repeat(batch, 1, 1).view(batch * shared, -1, length) if heads > 1 else bias
        scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=math.sqrt(heads / inner))
        pattern = torch.softmax(scores, -1, out=scores)
        mixed = _by_position(torch.bmm(pattern, value).view(-1, length, head_width), heads)
        update = mixed @ w_output.T if biases[3] is None else torch.addmm(biases[3], mixed, w_output.T)
        update = update.view(batch, length, -1)
        ctx.options, ctx.x_shape, ctx.biased = options, x.shape, [each is not None for each in biases]
        activations = (rows, normed, query, key, value, pattern, mixed)
        inputs = (x, norm_weight, norm_bias, w_query, w_key, w_value, w_output, *biases)
        ctx.save_for_backward(*inputs, *activations, *moments)
        if kept is None:
            return update.add_(look_up(rows))
        return torch.addcmul(look_up(rows), update, kept, value=kept_scale, out=update)

    @staticmethod
    def backward(ctx, gradient):
        tokens, heads, factors, _, kept, kept_scale, kind = ctx.options
        inputs, (rows, normed, query, key, value, pattern, mixed, *moments) = _split(ctx.saved_tensors, 11)
        if torch.is_grad_enabled():
            return None, *vector_jacobian(partial(_explicit_attention, ctx.options), inputs, [gradient])
        _, norm_weight, norm_bias, w_query, w_key, w_value, w_output, *_ = inputs
        length, inner = gradient.shape[1], len(w_query)
        head_width = inner // heads
        shared = len(w_key) // head_width

        def gather(y):  # sum over the positions that look up the same row
            y = y.reshape(-1, y.shape[-1])
            if tokens is None:
                return y
            return rows.new_zeros(len(rows), y.shape[-1]).index_add_(0, tokens.flatten(), y)

        def to_linear(y, inputs, biased):  # the gradients of a weight and a bias
            return y.T @ inputs, y.sum(0) if biased else None

        # as in the forward pass, everything is used right after it is computed, and its memory given to what comes next
        to_update = gradient if kept is None else (gradient * kept).mul_(kept_scale)
        to_update = to_update.reshape(-1, gradient.shape[-1])
        to_output = to_linear(to_update, mixed, ctx.biased[3])
        to_mixed = _by_head((to_update @ w_output).view(-1, length, inner), heads).reshape(query.shape)
        del to_update
        # the scale of the scores enters here once, instead of in the two products that follow
        empty, scale = to_mixed.new_empty(1, 1, 1), math.sqrt(heads / inner)
        to_pattern = torch.baddbmm(empty, to_mixed, value.transpose(1, 2), beta=0, alpha=scale)
        to_scores = torch._softmax_backward_data(to_pattern, pattern, -1, pattern.dtype, grad_input=to_pattern)
        inverse = None if factors is None else factors.conj().resolve_conj()
        to_x, to_roles = None, []
        for weight, turn, left, right, of_role, biased in (
            (w_query, inverse, to_scores, key, heads, ctx.biased[0]),
            (w_key, inverse, to_scores.transpose(1, 2), query, shared, ctx.biased[1]),
            (w_value, None, pattern.transpose(1, 2), to_mixed, shared, ctx.biased[2]),
        ):
            to_role = torch.bmm(left, right).view(-1, length, head_width)
            if turn is not None:
                _pairs(to_role).mul_(turn)
            to_role = gather(_by_position(to_role, of_role))
            to_x = to_x.addmm_(to_role, weight) if to_roles else to_role @ weight
            to_roles.append(to_linear(to_role, normed, biased))
            del to_role
        (*to_weights,), (*to_biases,) = zip(*to_roles, to_output, strict=True)
        to_norm = [None, None]
        if norm_weight is not None:
            to_x, *to_norm = _norm_backward(to_x, rows, moments, norm_weight, norm_bias, *kind)
        return None, to_x.add_(gather(gradient)).view(ctx.x_shape), *to_norm, *to_weights, *to_biases


def _explicit_attention(options, x, norm_weight, norm_bias, w_query, w_key, w_value, w_output, *biases):
    """As ``_FusedAttention``, by operations that have any derivative."""
    tokens, heads, factors, bias, kept, kept_scale, kind = options
    residual = x if tokens is None else x.index_select(0, tokens.flatten()).view(*tokens.shape, x.shape[-1])
    batch, length, _ = residual.shape
    normed = residual if norm_weight is None else plain_norm(residual, Norm(norm_weight, norm_bias, *kind))
    query, key, value = (
        F.linear(normed, weight, linear_bias).view(batch, length, -1, len(w_query) // heads).transpose(1, 2)
        for weight, linear_bias in zip((w_query, w_key, w_value), biases[:3], strict=True)
    )
    if factors is not None:
        query, key = rotate(query, factors), rotate(key, factors)
    pattern = attention_pattern(query, for_queries(key, heads), bias)
    mixed = (pattern @ for_queries(value, heads)).transpose(1, 2).reshape(batch, length, -1)
    update = F.linear(mixed, w_output, biases[3])
    return residual + update if kept is None else torch.addcmul(residual, update, kept, value=kept_scale)


def _normed(rows, weight, bias, epsilon, root_mean_square):
    """The normed rows, and what the backward pass needs of their moments."""
    if not root_mean_square:
        return torch.native_layer_norm(rows, rows.shape[-1:], weight, bias, epsilon)
    inverse = rows.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
    return (rows * inverse).mul_(weight), inverse


def _norm_backward(gradient, rows, moments, weight, bias, epsilon, root_mean_square):
    """The gradients of the rows, the weight and the bias."""
    if not root_mean_square:
        wanted = [True, True, bias is not None]
        return torch.ops.aten.native_layer_norm_backward(
            gradient, rows, rows.shape[-1:], *moments, weight, bias, wanted
        )
    (inverse,) = moments
    z = rows * inverse
    to_weight = (gradient * z).sum(0)
    to_z = gradient * weight
    to_rows = to_z.addcmul_(z, (to_z * z).mean(-1, keepdim=True), value=-1).mul_(inverse)
    return to_rows, to_weight, None


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
