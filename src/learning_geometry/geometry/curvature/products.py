"""Hessian-vector products from one kept graph, and flat vectors of parameters."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.geometry.curvature.guard import Guarded, Reference

Product = Callable[[Tensor], Tensor]
"""Map of a flat vector to the symmetric matrix's product with it, same shape, dtype and device."""


class Gradient(NamedTuple):
    """A loss at one point, differentiated once, with the graph for further products with its curvature matrix.

    Attributes:
        value: the loss.
        gradient: flat gradient, shape (dimension,), in the order of the parameters.
        product: product v -> H v of flat vectors with the Hessian. It holds the graph: drop it to free the memory.
    """

    value: float
    gradient: Float[Tensor, " dimension"]
    product: Product


def flatten(tensors: Mapping[str, Tensor]) -> Float[Tensor, " dimension"]:
    """Concatenate tensors, row by row and in the mapping's order, to one vector.

    Raises:
        ValueError: if there is no tensor.

    Examples:
        >>> flatten({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor(3.0)})
        tensor([1., 2., 3.])
    """
    if not tensors:
        raise ValueError("tensors: there is none to flatten; pass at least one parameter")
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


def unflatten(vector: Float[Tensor, " dimension"], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split a flat vector into views of the names and shapes of ``like``; the inverse of ``flatten``.

    Raises:
        ValueError: if the vector has not as many entries as ``like``.

    Examples:
        >>> unflatten(torch.arange(3.0), {"weight": torch.zeros(1, 2), "bias": torch.zeros(())})
        {'weight': tensor([[0., 1.]]), 'bias': tensor(2.)}
    """
    sizes = [tensor.numel() for tensor in like.values()]
    if vector.numel() != sum(sizes):
        raise ValueError(
            f"vector: {vector.numel()} entries for {sum(sizes)} parameters; pass one `flatten` made of them"
        )
    return {
        name: piece.view(tensor.shape) for (name, tensor), piece in zip(like.items(), vector.split(sizes), strict=True)
    }


def gradient_with_graph(
    loss: Callable[[dict[str, Tensor]], Tensor], parameters: Mapping[str, Tensor], check: bool = True
) -> Gradient:
    r"""Loss, gradient and Hessian-vector product at a point, with the gradient's graph kept for all products.

    $H v = \nabla_\theta (\nabla_\theta L \cdot v)$ (Pearlmutter 1994, "Fast exact multiplication by the
    Hessian"). The forward pass and the first backward pass run once; each product is one backward pass
    through both.

    Args:
        loss: scalar loss as a function of the named parameters, twice differentiable by autograd, deterministic.
        parameters: point, one floating tensor per name; neither changed nor differentiated in place. A
            parameter that the loss does not use has zero gradient and curvature.
        check: whether the first product is checked to be symmetric and the derivative of the gradient
            (:class:`~learning_geometry.geometry.curvature.guard.Guarded`, the cost of about three products). Once is
            enough for one loss along a trajectory.

    Returns:
        Value, flat gradient and product.

    Raises:
        ValueError: if the loss is not a finite scalar, its gradient not finite, or there is no parameter; at the first
            product, if it fails the check.

    Examples:
        The Hessian of a quadratic form (x, A x) / 2 is A:

        >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
        >>> point = {"x": torch.tensor([1.0, -1.0])}
        >>> value, gradient, product = gradient_with_graph(lambda p: p["x"] @ matrix @ p["x"] / 2, point)
        >>> value, gradient, product(torch.tensor([1.0, 0.0]))
        (1.5, tensor([ 1., -2.]), tensor([2., 1.]))

        The Hessian of one block of parameters, at the point of all; the others are constants:

        >>> everything = {"x": torch.tensor([1.0]), "y": torch.tensor([3.0])}
        >>> loss = lambda p: (p["x"] ** 2 * p["y"]).sum()
        >>> block = {"x": everything["x"]}
        >>> gradient_with_graph(lambda chosen: loss(everything | chosen), block).product(torch.ones(1))
        tensor([6.])
    """
    leaves = _leaves(parameters)
    with torch.enable_grad():
        value = loss(leaves)
        _check_scalar(value)
        gradients = torch.autograd.grad(value, list(leaves.values()), create_graph=True, materialize_grads=True)
    # gradients of parameters that enter linearly, or not at all, have no graph
    curved = [index for index, gradient in enumerate(gradients) if gradient.requires_grad]
    outputs = [gradients[index] for index in curved]
    inputs = list(leaves.values())

    def product(vector: Tensor) -> Tensor:
        pieces = list(unflatten(vector, leaves).values())
        if not outputs:
            return torch.zeros_like(vector)
        columns = torch.autograd.grad(
            outputs, inputs, [pieces[index] for index in curved], retain_graph=True, materialize_grads=True
        )
        return torch.cat([column.reshape(-1) for column in columns])

    def quotient(point: Tensor, direction: Tensor, step: float) -> Reference:
        ends = [_gradient(loss, unflatten(point + sign * step * direction, leaves)) for sign in (1, -1)]
        return Reference((ends[0] - ends[1]) / (2 * step), (ends[0] + ends[1]) / 2)

    flat = torch.cat([gradient.detach().reshape(-1) for gradient in gradients])
    _check_gradient(flat)
    height = float(value.detach())
    return Gradient(height, flat, Guarded(product, quotient, flatten(leaves).detach(), flat, height, check))


def _leaves(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the point as tensors to differentiate by, which share its memory."""
    if not parameters:
        raise ValueError("parameters: there is none to differentiate by; pass at least one")
    return {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}


def _gradient(loss: Callable[[dict[str, Tensor]], Tensor], point: Mapping[str, Tensor]) -> Tensor:
    """Return the flat gradient, by first derivatives alone."""
    leaves = _leaves(point)
    with torch.enable_grad():
        value = loss(leaves)
    gradients = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def _check_gradient(flat: Tensor) -> None:
    if not torch.isfinite(flat).all():
        raise ValueError("gradient: it is not finite; check the loss, or drop this checkpoint")


def _check_scalar(value: Tensor) -> None:
    if value.dim() != 0 or not torch.isfinite(value):
        raise ValueError(f"loss: it is {value.detach()} and not a finite scalar; reduce it, or drop this checkpoint")
