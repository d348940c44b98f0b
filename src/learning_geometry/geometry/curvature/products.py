"""Hessian-vector products from one kept graph, and flat vectors of parameters."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""Map of a flat vector to the symmetric matrix's product with it, same shape, dtype and device."""


class Gradient(NamedTuple):
    """A loss at one point, differentiated once, with the graph for further Hessian-vector products.

    Attributes:
        value: The loss.
        gradient: Flat gradient, shape (dimension,), in the order of the parameters.
        product: Hessian-vector product v -> H v of flat vectors. It holds the graph: drop it to free the
            memory.
    """

    value: float
    gradient: Float[Tensor, " dimension"]
    product: Product


def flatten(tensors: Mapping[str, Tensor]) -> Float[Tensor, " dimension"]:
    """Concatenate tensors, row by row and in the mapping's order, to one vector.

    Raises:
        ValueError: If there is no tensor.

    Examples:
        >>> flatten({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor(3.0)})
        tensor([1., 2., 3.])
    """
    if not tensors:
        raise ValueError("tensors: there is none to flatten; pass at least one parameter")
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


def unflatten(vector: Float[Tensor, " dimension"], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split a flat vector into views of the names and shapes of `like`; the inverse of `flatten`.

    Raises:
        ValueError: If the vector has not as many entries as `like`.

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


def gradient_with_graph(loss: Callable[[dict[str, Tensor]], Tensor], parameters: Mapping[str, Tensor]) -> Gradient:
    r"""Loss, gradient and Hessian-vector product at a point, with the gradient's graph kept for all products.

    $H v = \nabla_\theta (\nabla_\theta L \cdot v)$ (Pearlmutter 1994, "Fast exact multiplication by the
    Hessian"). The forward pass and the first backward pass run once; each product is one backward pass
    through both.

    Args:
        loss: Scalar loss as a function of the named parameters, twice differentiable by autograd (fused
            attention is not), deterministic.
        parameters: Point, one floating tensor per name; neither changed nor differentiated in place. A
            parameter that the loss does not use has zero gradient and curvature.

    Returns:
        Value, flat gradient and product.

    Raises:
        ValueError: If the loss is not a finite scalar, or there is no parameter.

    Examples:
        The Hessian of a quadratic form (x, A x) / 2 is A:

        >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
        >>> point = {"x": torch.tensor([1.0, -1.0])}
        >>> value, gradient, product = gradient_with_graph(lambda p: p["x"] @ matrix @ p["x"] / 2, point)
        >>> value, gradient, product(torch.tensor([1.0, 0.0]))
        (1.5, tensor([ 1., -2.]), tensor([2., 1.]))
    """
    if not parameters:
        raise ValueError("parameters: there is none to differentiate by; pass at least one")
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
    with torch.enable_grad():
        value = _finite_scalar(loss(leaves))
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

    return Gradient(
        float(value.detach()), torch.cat([gradient.detach().reshape(-1) for gradient in gradients]), product
    )


def gauss_newton_with_graph(
    outputs: Callable[[dict[str, Tensor]], Tensor],
    loss_of_outputs: Callable[[Tensor], Tensor],
    parameters: Mapping[str, Tensor],
) -> Gradient:
    r"""Loss, gradient and Gauss-Newton-vector product at a point, with all graphs kept for all products.

    $G v = J^\top H_L J v$ with J the Jacobian of the outputs by the parameters and $H_L$ the Hessian of the loss by the
    outputs (Schraudolph 2002, "Fast curvature matrix-vector products for second-order gradient descent"). It is the
    Hessian where the outputs are linear in the parameters, and positive semi-definite where the loss is convex in them.
    $J v$ is the derivative of $J^\top u$ by u, which is linear in u: reverse mode alone, so any model will do.

    Args:
        outputs: The outputs as a function of the named parameters.
        loss_of_outputs: Scalar loss as a function of these, twice differentiable by autograd.
        parameters: Point, one floating tensor per name; neither changed nor differentiated in place.

    Raises:
        ValueError: If the loss is not a finite scalar, or there is no parameter.

    Examples:
        Of (w² x)² / 2 at w = 1, x = 1 the Hessian is 6 w² and the Gauss-Newton matrix is (2 w)² = 4:

        >>> point = {"w": torch.tensor([1.0])}
        >>> found = gauss_newton_with_graph(lambda p: p["w"] ** 2, lambda z: (z**2).sum() / 2, point)
        >>> found.value, found.gradient, found.product(torch.tensor([1.0]))
        (0.5, tensor([2.]), tensor([4.]))
    """
    if not parameters:
        raise ValueError("parameters: there is none to differentiate by; pass at least one")
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
    inputs = list(leaves.values())
    with torch.enable_grad():
        made = outputs(leaves)
        at = made.detach().requires_grad_()
        value = _finite_scalar(loss_of_outputs(at))
        (to_outputs,) = torch.autograd.grad(value, at, create_graph=True, materialize_grads=True)
        probe = torch.zeros_like(made, requires_grad=True)
        transposed = torch.autograd.grad(made, inputs, probe, create_graph=True, materialize_grads=True)
    # where an output is linear in a parameter, its row of Jᵀu depends on u alone, but it does depend on it
    reached = [index for index, piece in enumerate(transposed) if piece.requires_grad]

    def backward(of_outputs: Tensor) -> Tensor:
        columns = torch.autograd.grad(made, inputs, of_outputs, retain_graph=True, materialize_grads=True)
        return torch.cat([column.reshape(-1) for column in columns])

    def product(vector: Tensor) -> Tensor:
        pieces = list(unflatten(vector, leaves).values())
        (tangent,) = torch.autograd.grad(
            [transposed[index] for index in reached],
            probe,
            [pieces[index] for index in reached],
            retain_graph=True,
            materialize_grads=True,
        )
        if not to_outputs.requires_grad:  # a loss linear in the outputs
            return torch.zeros_like(vector)
        (curved,) = torch.autograd.grad(to_outputs, at, tangent, retain_graph=True, materialize_grads=True)
        return backward(curved)

    return Gradient(float(value.detach()), backward(to_outputs.detach()), product)


def compressed(product: Product, basis: Float[Tensor, "dimension rank"]) -> Product:
    """Product of the matrix compressed to a subspace: c -> Bᵀ A B c, for orthonormal columns B.

    Examples:
        >>> inside = compressed(lambda v: torch.tensor([1.0, 2.0, 3.0]) * v, torch.eye(3)[:, 1:])
        >>> inside(torch.tensor([1.0, 1.0]))
        tensor([2., 3.])
    """
    return lambda coordinates: basis.T @ product(basis @ coordinates)


def _finite_scalar(value: Tensor) -> Tensor:
    if value.dim() != 0 or not torch.isfinite(value):
        raise ValueError(f"loss: it is {value.detach()} and not a finite scalar; reduce it, or drop this checkpoint")
    return value
