"""Hand-written backward passes when they must be differentiable themselves."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


def vector_jacobian(
    function: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    cotangents: Sequence[Tensor],
) -> list[Tensor | None]:
    """Return the gradients of a function's outputs, weighted by ``cotangents``, by its inputs, with their graph.

    For the backward pass of a ``torch.autograd.Function`` under ``create_graph=True``. There
    ``torch.autograd.function.once_differentiable`` is no guard: the error that it plants lies on no path to the
    inputs, so that ``torch.autograd.grad`` leaves every term through the function out and says nothing.

    Args:
        function: of all inputs, made of operations that autograd differentiates any number of times.
        inputs: as saved by the function's forward pass; None where an optional one is absent.
        cotangents: one of the shape of each output.

    Returns:
        One gradient per input; None where the input requires no gradient or is absent.
    """
    with torch.enable_grad():
        # aliases end the graph here, even where one input was computed from another
        aliases = [None if value is None else value.view_as(value) for value in inputs]
        outputs = function(*aliases)
        wanted = [value for value in aliases if value is not None and value.requires_grad]
        gradients = iter(torch.autograd.grad(outputs, wanted, cotangents, create_graph=True, allow_unused=True))
    return [None if value is None or not value.requires_grad else next(gradients) for value in aliases]


EPSILON = 1e-5
"""What LayerNorm adds to the variance, unless another number is given; torch's own."""


class Norm(NamedTuple):
    """A norm of rows with its parameters."""

    weight: Float[Tensor, " width"]
    bias: Float[Tensor, " width"] | None
    epsilon: float = EPSILON
    """Added to the variance, or to the mean square."""
    root_mean_square: bool = False
    """RMSNorm, of which the bias is None; else LayerNorm."""


def plain_norm(x: Float[Tensor, "*rows width"], norm: Norm) -> Float[Tensor, "*rows width"]:
    """Return LayerNorm (Ba, Kiros & Hinton 2016) or RMSNorm (Zhang & Sennrich 2019) of the rows, with any derivative.

    Torch 2.13 gets the third derivative of ``layer_norm`` by x wrong.
    """
    centred = x if norm.root_mean_square else x - x.mean(-1, keepdim=True)
    normed = centred * (centred.square().mean(-1, keepdim=True) + norm.epsilon).rsqrt() * norm.weight
    return normed if norm.bias is None else normed + norm.bias
