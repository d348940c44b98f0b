"""Hessian- and Gauss–Newton-vector products from one kept graph, and flat vectors of parameters."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.geometry.curvature.guard import Guarded, Reference, rounding_of

Product = Callable[[Tensor], Tensor]
"""Map of a flat vector to the symmetric matrix's product with it, same shape, dtype and device."""


class Gradient(NamedTuple):
    """A loss at one point, differentiated once, with the graph for further products with its curvature matrix.

    Attributes:
        value: The loss.
        gradient: Flat gradient, shape (dimension,), in the order of the parameters.
        product: Product v -> H v of flat vectors with the Hessian, or with the Gauss–Newton matrix. It holds the
            graph: drop it to free the memory.
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


def gradient_with_graph(
    loss: Callable[[dict[str, Tensor]], Tensor], parameters: Mapping[str, Tensor], check: bool = True
) -> Gradient:
    r"""Loss, gradient and Hessian-vector product at a point, with the gradient's graph kept for all products.

    $H v = \nabla_\theta (\nabla_\theta L \cdot v)$ (Pearlmutter 1994, "Fast exact multiplication by the
    Hessian"). The forward pass and the first backward pass run once; each product is one backward pass
    through both.

    Args:
        loss: Scalar loss as a function of the named parameters, twice differentiable by autograd, deterministic.
        parameters: Point, one floating tensor per name; neither changed nor differentiated in place. A
            parameter that the loss does not use has zero gradient and curvature.
        check: Whether the first product is checked to be symmetric and the derivative of the gradient
            (:class:`~learning_geometry.geometry.curvature.guard.Guarded`, the cost of about three products). Once is
            enough for one loss along a trajectory.

    Returns:
        Value, flat gradient and product.

    Raises:
        ValueError: If the loss is not a finite scalar, its gradient not finite, or there is no parameter; at the first
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


def gauss_newton_with_graph(
    outputs: Callable[[dict[str, Tensor]], Tensor],
    loss_of_outputs: Callable[[Tensor], Tensor],
    parameters: Mapping[str, Tensor],
    check: bool = True,
) -> Gradient:
    r"""Loss, gradient and Gauss–Newton-vector product at a point, with the graphs kept for all products.

    $G v = J^\top H_L J v$, J the Jacobian of the outputs by the parameters and $H_L$ the Hessian of the loss by
    the outputs (Schraudolph 2002, "Fast curvature matrix-vector products for second-order gradient descent"). What
    it leaves out of the Hessian is the curvature of the outputs, so G = H where they are linear; G has no negative
    eigenvalue where the loss is convex in the outputs. J v is the derivative by u of $J^\top u$, which is linear in u,
    so backward passes suffice. Each product is three of them: through the graph of $J^\top u$, the loss and the model.

    Args:
        outputs: Outputs (logits) as a function of the named parameters, any shape, twice differentiable by
            autograd, deterministic.
        loss_of_outputs: Scalar loss as a function of the outputs.
        parameters: As of :func:`gradient_with_graph`.
        check: As of :func:`gradient_with_graph`; the reference has differences of the outputs and of the slope.

    Returns:
        Value, flat gradient and product.

    Raises:
        ValueError: As :func:`gradient_with_graph`.

    Examples:
        Of a loss y² / 2 of y = x² at x = 3: J = 2 x = 6 and H_L = 1, while the Hessian is 6 x² / 2 · 2 = 54.

        >>> point = {"x": torch.tensor(3.0)}
        >>> at = gauss_newton_with_graph(lambda p: p["x"] ** 2, lambda y: y**2 / 2, point)
        >>> at.value, at.gradient, at.product(torch.ones(1))
        (40.5, tensor([54.]), tensor([36.]))
        >>> gradient_with_graph(lambda p: p["x"] ** 4 / 2, point).product(torch.ones(1))
        tensor([54.])
    """
    leaves = _leaves(parameters)
    inputs = list(leaves.values())
    with torch.enable_grad():
        output = outputs(leaves)
        cut = output.detach().requires_grad_()
        value = loss_of_outputs(cut)
        _check_scalar(value)
        (slope,) = torch.autograd.grad(value, [cut], create_graph=True, materialize_grads=True)
        if output.requires_grad:
            # J^T u: its value does not matter, its derivative by u does
            dummy = torch.zeros_like(cut, requires_grad=True)
            pulled = torch.autograd.grad(output, inputs, dummy, create_graph=True, materialize_grads=True)

    def pull_back(cotangent: Tensor) -> Tensor:
        columns = torch.autograd.grad(output, inputs, cotangent, retain_graph=True, materialize_grads=True)
        return torch.cat([column.reshape(-1) for column in columns])

    if not output.requires_grad:
        gradient = torch.zeros_like(flatten(leaves)).detach()
        return Gradient(float(value.detach()), gradient, torch.zeros_like)
    used = [index for index, column in enumerate(pulled) if column.requires_grad]

    def product(vector: Tensor) -> Tensor:
        pieces = list(unflatten(vector, leaves).values())
        if not slope.requires_grad:
            return torch.zeros_like(vector)
        (pushed,) = torch.autograd.grad(
            [pulled[index] for index in used], [dummy], [pieces[index] for index in used], retain_graph=True
        )
        (curved,) = torch.autograd.grad(slope, [cut], pushed, retain_graph=True, materialize_grads=True)
        return pull_back(curved)

    def quotient(point: Tensor, direction: Tensor, step: float) -> Reference:
        with torch.no_grad():
            ends = [outputs(unflatten(point + sign * step * direction, leaves)) for sign in (1, -1)]
            pushed, middle = (ends[0] - ends[1]) / (2 * step), (ends[0] + ends[1]) / 2
        # the outputs move as far as with the parameters
        sides = [_gradient(lambda p: loss_of_outputs(p["y"]), {"y": middle + s * step * pushed}) for s in (1, -1)]
        here = {name: value.requires_grad_() for name, value in unflatten(point.clone(), leaves).items()}
        with torch.enable_grad():
            again = outputs(here)
        pulled = [
            torch.autograd.grad(again, list(here.values()), side.view_as(again), retain_graph=True, allow_unused=True,
                                materialize_grads=True)
            for side in ((sides[0] - sides[1]) / (2 * step), (sides[0] + sides[1]) / 2)
        ]  # fmt: skip
        return Reference(*(torch.cat([column.reshape(-1) for column in columns]) for columns in pulled))

    flat, height = pull_back(slope.detach()), float(value.detach())
    _check_gradient(flat)
    return Gradient(height, flat, Guarded(product, quotient, flatten(leaves).detach(), flat, height, check))


def compressed(product: Product, basis: Float[Tensor, "dimension rank"]) -> Product:
    r"""Restrict a symmetric matrix to a subspace: the product c -> $B^\top H B c$ of coordinates in the basis B.

    Its eigenvalues lie between those of H (Cauchy's interlacing), its trace is that of H inside the subspace, and
    B times its eigenvector is the direction in the space of parameters.

    Args:
        product: Symmetric matrix-vector product of flat vectors.
        basis: Orthonormal columns, of the dtype and device that `product` takes.

    Returns:
        The product of vectors with as many entries as the basis has columns; its first use checks its symmetry.

    Raises:
        ValueError: If the basis has no column, more columns than rows, or columns that are not orthonormal; at the
            first product, if it is not symmetric.

    Examples:
        >>> diagonal = torch.tensor([1.0, 2.0, 4.0])
        >>> inside = compressed(lambda v: diagonal * v, torch.eye(3)[:, 1:])
        >>> inside(torch.tensor([1.0, 1.0]))
        tensor([2., 4.])
    """
    rows, columns = basis.shape
    if not 1 <= columns <= rows:
        raise ValueError(f"basis: {columns} columns in {rows} dimensions; pass at least one, at most one per dimension")
    gram = (basis.T @ basis).double()
    distance = float((gram - torch.eye(columns, dtype=gram.dtype, device=gram.device)).abs().max())
    # sums of `rows` terms: generous for rounding, strict for a basis that was never orthonormalised
    if not distance <= 100 * torch.finfo(basis.dtype).eps * rows**0.5:
        raise ValueError(
            f"basis: its columns are not orthonormal, their inner products are off by {distance:.1g}; "
            "pass `torch.linalg.qr(basis)[0]`"
        )

    def inside(coordinates: Tensor) -> Tensor:
        return basis.T @ product(basis @ coordinates)

    guarded = Guarded(inside)
    guarded.rounding = rounding_of(product)
    return guarded


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
