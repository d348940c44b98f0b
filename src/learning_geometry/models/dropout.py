"""Dropout whose mask comes from a generator that is passed, so that no global one is touched."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def dropped_residual(
    residual: Float[Tensor, "*shape"],
    update: Float[Tensor, "*shape"],
    rate: float,
    generator: np.random.Generator,
) -> Float[Tensor, "*shape"]:
    """Return ``residual + dropout(update)`` with inverted dropout (Srivastava et al. 2014)."""
    kept, scale = dropout_mask(tuple(update.shape), update, rate, generator)
    result: Tensor = _DroppedResidual.apply(residual, update, kept, scale)
    return result


def dropout_mask(
    shape: tuple[int, ...], like: Tensor, rate: float, generator: np.random.Generator
) -> tuple[Float[Tensor, "*shape"], float]:
    """Draw what to keep (1, else 0), typed and placed like a tensor, and return it with 1 / (1 − rate).

    The rate is rounded to a multiple of 2⁻¹⁶, so that one 64-bit draw serves four entries.
    """
    threshold, size = round(rate * 65536), math.prod(shape)
    draws = generator.bit_generator.random_raw(-(-size // 4))
    uniform = torch.from_numpy(draws.view(np.int16)[:size]).view(shape)
    kept = torch.ge(uniform, threshold - 32768, out=torch.empty(shape, dtype=like.dtype))
    return kept.to(like.device), 65536 / (65536 - threshold)


class _DroppedResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx, residual, update, kept, scale):
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return torch.addcmul(residual, update, kept, value=scale)

    @staticmethod
    def backward(ctx, gradient):
        (kept,) = ctx.saved_tensors
        return gradient, (gradient * kept).mul_(ctx.scale), None, None
