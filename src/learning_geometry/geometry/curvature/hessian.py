"""Extreme eigenvalues of a loss's Hessian at one checkpoint after the other."""

import sys
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.geometry.curvature.lanczos import Eigenpair, error_bound, largest_eigenpair, refined
from learning_geometry.geometry.curvature.products import flatten, gradient_with_graph, unflatten

Loss = Callable[[dict[str, Tensor]], Tensor]

AGREEMENT = 1e-5
"""Relative difference up to which a difference quotient of the loss in float64 confirms an eigenvalue of float32: on
trained transformers float32 was off by 4e-7 to 4e-6, the quotient by 3e-7 to 2e-6."""

RISE = 2e-9
"""Fraction of the loss by which it rises on the way: so little that rounding, 1e-6 of the quotient or less, is not far
below its other error. At eight times as much that was 1e-4 once, on a tiny transformer with large weights, and by
chance that of float32."""

CONFIRMED = 1e-4
"""Tolerance from which on that is enough; below it, values are those of a product in float64."""


def largest_hessian_eigenpair(
    loss: Loss,
    parameters: Mapping[str, Tensor],
    tolerance: float,
    start: Float[Tensor, " dimension"] | None = None,
    generator: torch.Generator | None = None,
    maximum_products: int = 200,
    check: bool = True,
) -> Eigenpair:
    """Largest eigenvalue of the Hessian at a point: vector by products in the parameters' type, value as in float64.

    Args:
        loss: scalar loss as a function of the named parameters, of their type and of float64.
        parameters: point, all of the model or one block.
        tolerance: relative error allowed to the eigenvalue of the iteration.
        start: eigenvector at the checkpoint before, of any type; None where there is none.
        generator: source of the noise added to the start, one for all checkpoints; seed 0 without a start.
        maximum_products: products after which the iteration gives up with ``converged`` False.
        check: whether the first product is checked; once is enough for one loss along a run.

    Returns:
        The pair of :func:`~learning_geometry.geometry.curvature.lanczos.largest_eigenpair`, its vector in float64. Its
        value is that of the iteration if :func:`confirmed` says so, else, and at a tolerance below ``CONFIRMED``, that
        of a product in float64 (see :func:`~learning_geometry.geometry.curvature.lanczos.refined`), three times as
        costly.

    Raises:
        ValueError: as ``gradient_with_graph`` and ``largest_eigenpair``.

    Examples:
        >>> loss = lambda p: (torch.tensor([1.0, 3.0], dtype=p["x"].dtype) * p["x"] ** 2).sum()
        >>> pair = largest_hessian_eigenpair(loss, {"x": torch.ones(2)}, 1e-6)
        >>> round(pair.value, 6), pair.vector.dtype
        (6.0, torch.float64)
    """
    at = gradient_with_graph(loss, parameters, check)
    if start is not None:
        start = start.to(at.gradient)
    size, dtype, device = at.gradient.numel(), at.gradient.dtype, at.gradient.device
    noise = None if start is None else generator
    pair = largest_eigenpair(at.product, size, tolerance, start, noise, maximum_products, dtype, device)
    # the graph goes before that of float64 is built
    del at
    better = confirmed(pair, loss, parameters) if tolerance >= CONFIRMED else None
    return refined(pair, double_product(loss, parameters)) if better is None else better


def confirmed(pair: Eigenpair, loss: Loss, parameters: Mapping[str, Tensor]) -> Eigenpair | None:
    r"""Confirm an eigenvalue by the loss alone, in float64: its second difference along the eigenvector.

    $(L(\theta + h v) + L(\theta - h v) - 2 L(\theta)) / h^2$ has errors of its own, of order $h^2$ and of rounding;
    with $h^2 \lambda$ the fraction ``RISE`` of L. Where it agrees with an eigenvalue whose error is rounding in
    float32, neither is far off. It takes three forward passes, and sees what float32 does not resolve, such as the
    curvature of a loss near zero.

    Args:
        pair: of an iteration in float32.
        loss: as of :func:`largest_hessian_eigenpair`.
        parameters: the point.

    Returns:
        The pair with its vector in float64 and twice ``AGREEMENT`` of the value added to residual and error; None if
        both differ by more than ``AGREEMENT`` of it.

    Examples:
        >>> loss = lambda p: (p["x"] ** 2).sum()
        >>> pair = Eigenpair(2.0, torch.tensor([1.0, 0.0]), 1e-3, 1e-3, 1, True)
        >>> round(confirmed(pair, loss, {"x": torch.ones(2)}).error, 6)
        0.00108
        >>> confirmed(pair._replace(value=2.01), loss, {"x": torch.ones(2)}) is None
        True
    """
    vector = pair.vector.double()
    vector = vector / torch.linalg.vector_norm(vector)
    doubled = {name: tensor.detach().double() for name, tensor in parameters.items()}
    point = flatten(doubled)
    with torch.no_grad():
        here = float(loss(doubled))
        # of a loss or a value that is rounding, the quotient does not agree with the value; it must only be computable
        square = RISE * abs(here) / abs(pair.value) if pair.value else 0.0
        if not sys.float_info.min <= square <= sys.float_info.max:
            return None
        step = square**0.5
        rises = [float(loss(unflatten(point + way * vector, doubled))) - here for way in (step, -step)]
    allowed = AGREEMENT * abs(pair.value)
    if not abs(sum(rises) / square - pair.value) <= allowed:
        return None
    residual = pair.residual + 2 * allowed
    return pair._replace(vector=vector, residual=residual, error=error_bound(residual, pair.gap) + 2 * allowed)


def double_product(loss: Loss, parameters: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the product with the Hessian in float64, unchecked, for :func:`refined`."""
    doubled = {name: tensor.double() for name, tensor in parameters.items()}
    return gradient_with_graph(loss, doubled, check=False).product
