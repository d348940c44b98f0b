"""Attention and LayerNorm whose second derivatives are written out: fast Hessian-vector products.

Each function here equals a plain one to rounding. Its backward pass is a function of its own whose backward pass is
written out too, so that a product of the Hessian with a vector, taken as the gradient of the gradient, does little
besides the matrix products it needs. Where the second derivative has a term through an intermediate value, such as the
attention pattern, that value is an input of the backward function: autograd then adds all terms before it goes on,
and no matrix product is done twice. Under ``create_graph=True`` these last passes are those of plain operations, so
that further derivatives are right, but not fast. Transforms of ``torch.func`` and forward-mode derivatives raise
RuntimeError.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from learning_geometry.models.attention import Rotation, rotate
from learning_geometry.models.differentiated import EPSILON, Norm, plain_norm, vector_jacobian


def attention(
    x: Float[Tensor, "*rows width"],
    tokens: Int64[Tensor, "batch position"] | None,
    norm: Norm | None,
    weights: tuple[Float[Tensor, "_ _"], ...],
    biases: tuple[Float[Tensor, "_"] | None, ...] | None,
    heads: int,
    factors: Rotation | None,
    bias: Float[Tensor, "heads position position"],
) -> tuple[Float[Tensor, "batch position width"], Float[Tensor, "batch position width"]]:
    """Return the residual stream before an attention sublayer and the update that the sublayer adds to it.

    As :func:`learning_geometry.models.attention.fused_attention`, with two derivatives; the arguments are the same.
    """
    width = x.shape[-1]
    batch, length = x.shape[:2] if tokens is None else tokens.shape
    residual = x if tokens is None else x.index_select(0, tokens.flatten()).view(batch, length, width)
    rows = x.reshape(-1, width)
    normed = rows if norm is None else normed_rows(rows, norm)
    head_width = len(weights[0]) // heads
    shared = len(weights[1]) // head_width
    where = (batch, length, None if tokens is None else tokens.flatten())
    query, key, value = (
        _Place.apply(F.linear(normed, weights[role], biases[role] if biases else None), *where, of_role, turn)
        for role, (of_role, turn) in enumerate(((heads, factors), (shared, factors), (shared, None)))
    )
    # the queries of heads that share keys and values lie below each other
    query = query.reshape(batch * shared, -1, head_width)
    added = bias.repeat(batch, 1, 1).view(batch * shared, -1, length) if heads > 1 else bias
    pattern = _Pattern.apply(query, key, added)
    mixed = torch.bmm(pattern, value).view(batch, heads, length, head_width)
    mixed = mixed.transpose(1, 2).reshape(batch * length, heads * head_width)
    update = F.linear(mixed, weights[3], biases[3] if biases else None)
    return residual, update.view(batch, length, width)


def normed_rows(x: Float[Tensor, "rows width"], norm: Norm) -> Float[Tensor, "rows width"]:
    """Return the norm of the rows, with two derivatives; those of RMSNorm are autograd's own."""
    if norm.root_mean_square:
        return plain_norm(x, norm)
    return layer_norm(x, norm.weight, norm.bias, norm.epsilon)


def layer_norm(
    x: Float[Tensor, "rows width"],
    weight: Float[Tensor, "width"],
    bias: Float[Tensor, "width"] | None,
    epsilon: float = EPSILON,
) -> Float[Tensor, "rows width"]:
    """Return LayerNorm of the rows (Ba, Kiros & Hinton 2016), with two derivatives."""
    result: Tensor = _LayerNorm.apply(x, weight, bias, epsilon)
    return result


class _Place(torch.autograd.Function):
    """Look rows up by position, split them by head and rotate them: linear, so that the adjoint is all it needs."""

    @staticmethod
    def forward(ctx, rows, batch, length, tokens, heads, factors):
        ctx.where = (batch, length, tokens, heads, factors)
        ctx.rows = len(rows)
        return _place(rows, *ctx.where)

    @staticmethod
    def backward(ctx, gradient):
        return _Gather.apply(gradient, ctx.rows, *ctx.where), None, None, None, None, None


class _Gather(torch.autograd.Function):
    """The adjoint of _Place: rotate back, and sum over the positions and heads that hold the same row."""

    @staticmethod
    def forward(ctx, by_head, rows, batch, length, tokens, heads, factors):
        ctx.where = (batch, length, tokens, heads, factors)
        head_width = by_head.shape[-1]
        if factors is not None:
            by_head = _turned(by_head, factors.conj().resolve_conj())
        y = by_head.view(batch, heads, length, head_width).transpose(1, 2).reshape(-1, heads * head_width)
        return y.clone() if tokens is None and factors is None and heads == 1 else _sum_by_token(y, tokens, rows)

    @staticmethod
    def backward(ctx, gradient):
        return _Place.apply(gradient, *ctx.where), None, None, None, None, None, None


def _place(rows, batch, length, tokens, heads, factors):
    width = rows.shape[-1]
    y = rows if tokens is None else rows.index_select(0, tokens)
    y = y.reshape(batch, length, heads, width // heads).transpose(1, 2).reshape(-1, length, width // heads)
    if factors is not None:
        return _turned(y, factors)
    return y.clone() if y.data_ptr() == rows.data_ptr() else y


def _turned(x, factors):
    return rotate(x, factors)


def _sum_by_token(y, tokens, rows):
    return y if tokens is None else y.new_zeros(rows, y.shape[-1]).index_add_(0, tokens, y)


class _Pattern(torch.autograd.Function):
    """softmax(q kᵀ / √head_width + bias), by batch and head."""

    @staticmethod
    def forward(ctx, query, key, bias):
        scale = 1 / math.sqrt(query.shape[-1])
        scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scale)
        pattern = torch.softmax(scores, -1, out=scores)
        ctx.save_for_backward(query, key, pattern)
        return pattern

    @staticmethod
    def backward(ctx, gradient):
        return *_PatternBackward.apply(gradient, *ctx.saved_tensors), None


class _PatternBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gradient, query, key, pattern):
        scale = 1 / math.sqrt(query.shape[-1])
        to_scores = torch._softmax_backward_data(gradient, pattern, -1, pattern.dtype).mul_(scale)
        ctx.save_for_backward(gradient, query, key, pattern, to_scores)
        return torch.bmm(to_scores, key), torch.bmm(to_scores.transpose(1, 2), query)

    @staticmethod
    def backward(ctx, query_dot, key_dot):
        gradient, query, key, pattern, to_scores = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*vector_jacobian(_pattern_backward, (gradient, query, key, pattern), (query_dot, key_dot)),)
        scale = 1 / math.sqrt(query.shape[-1])
        scores_dot = torch.bmm(query_dot, key.transpose(1, 2))
        scores_dot.baddbmm_(query, key_dot.transpose(1, 2), beta=scale, alpha=scale)
        # with a and b the gradient and the tangent less their means under the pattern, the scores' tangent of the
        # softmax is P b, and that of its backward pass is the softmax's backward pass of a b
        pattern_dot = pattern * scores_dot
        mean = pattern_dot.sum(-1, keepdim=True)
        pattern_dot.addcmul_(pattern, mean, value=-1)
        scores_dot.sub_(mean)
        centred = gradient - torch.linalg.vecdot(gradient, pattern).unsqueeze(-1)
        to_pattern = scores_dot.mul_(centred)
        return pattern_dot, torch.bmm(to_scores, key_dot), torch.bmm(to_scores.transpose(1, 2), query_dot), to_pattern


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, epsilon):
        normed, mean, inverse = torch.native_layer_norm(x, x.shape[-1:], weight, bias, epsilon)
        ctx.save_for_backward(x, weight, bias, mean, inverse)
        ctx.epsilon = epsilon
        return normed

    @staticmethod
    def backward(ctx, gradient):
        return *_LayerNormBackward.apply(gradient, *ctx.saved_tensors, ctx.epsilon), None


class _LayerNormBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gradient, x, weight, bias, mean, inverse, epsilon):
        wanted = [True, True, bias is not None]
        results = _layer_norm_backward(gradient, x, mean, inverse, weight, bias, wanted)
        ctx.save_for_backward(gradient, x, weight, mean, inverse, results[0])
        ctx.epsilon = epsilon
        return results

    @staticmethod
    def backward(ctx, x_dot, weight_dot, bias_dot):
        gradient, x, weight, mean, inverse, to_x = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs, cotangents = (gradient, x, weight), (x_dot, weight_dot, bias_dot)
            if bias_dot is None:
                cotangents = cotangents[:2]
            function = partial(_plain_layer_norm_backward, ctx.epsilon, bias_dot is not None)
            return *vector_jacobian(function, inputs, cotangents), None, None, None, None
        z = (x - mean) * inverse
        to_z = gradient * weight
        # dz/dx is symmetric, so that the backward pass of z is its forward derivative too
        z_dot = _layer_norm_backward(x_dot, x, mean, inverse)[0]
        weighted = z_dot * weight if bias_dot is None else torch.addcmul(bias_dot, z_dot, weight)
        to_gradient = weighted.addcmul_(z, weight_dot)
        to_weight = (gradient * z_dot).sum(0)
        means = [(a * b).mean(-1, keepdim=True).mul_(-inverse) for a, b in ((to_z, z_dot), (z, to_z), (z, x_dot))]
        second = _layer_norm_backward(gradient, x, mean, inverse, weight_dot)[0]
        second.addcmul_(z, means[0]).addcmul_(z_dot, means[1]).addcmul_(to_x, means[2])
        return to_gradient, second, to_weight, None, None, None, None


def _pattern_backward(gradient, query, key, pattern):
    """As ``_PatternBackward``, by operations that have any derivative."""
    scale = 1 / math.sqrt(query.shape[-1])
    to_scores = scale * pattern * (gradient - (gradient * pattern).sum(-1, keepdim=True))
    return torch.bmm(to_scores, key), torch.bmm(to_scores.transpose(1, 2), query)


def _plain_layer_norm_backward(epsilon, biased, gradient, x, weight):
    """As ``_LayerNormBackward``, by operations that have any derivative."""
    centred = x - x.mean(-1, keepdim=True)
    inverse = (centred.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    z = centred * inverse
    to_z = gradient * weight
    to_x = inverse * (to_z - to_z.mean(-1, keepdim=True) - z * (to_z * z).mean(-1, keepdim=True))
    return to_x, (gradient * z).sum(0), *((gradient.sum(0),) if biased else ())


def _layer_norm_backward(gradient, x, mean, inverse, weight=None, bias=None, wanted=(True, False, False)):
    return torch.ops.aten.native_layer_norm_backward(
        gradient, x, x.shape[-1:], mean, inverse, weight, bias, list(wanted)
    )
