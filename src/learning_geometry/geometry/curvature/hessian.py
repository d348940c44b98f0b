"""The largest eigenvalue of a loss's Hessian at one checkpoint after the other."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.geometry.curvature.lanczos import Eigenpair, largest_eigenpair, refined
from learning_geometry.geometry.curvature.products import gradient_with_graph


def largest_hessian_eigenpair(
    loss: Callable[[dict[str, Tensor]], Tensor],
    parameters: Mapping[str, Tensor],
    tolerance: float,
    start: Float[Tensor, " dimension"] | None = None,
    generator: torch.Generator | None = None,
    maximum_products: int = 200,
    check: bool = True,
) -> Eigenpair:
    """Largest eigenvalue of the Hessian at a point: vector by products in the parameters' type, value in float64.

    Args:
        loss: scalar loss as a function of the named parameters, of their type and of float64.
        parameters: point, all of the model or one block.
        tolerance: relative error allowed to the eigenvalue of the iteration.
        start: eigenvector at the checkpoint before, of any type; None where there is none.
        generator: source of the noise added to the start, one for all checkpoints; seed 0 without a start.
        maximum_products: products after which the iteration gives up with ``converged`` False.
        check: whether the first product is checked; once is enough for one loss along a run.

    Returns:
        The pair of :func:`~learning_geometry.geometry.curvature.lanczos.largest_eigenpair`, with value, vector and
        residual of float64 (see :func:`~learning_geometry.geometry.curvature.lanczos.refined`).

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
    return refined(pair, double_product(loss, parameters))


def double_product(
    loss: Callable[[dict[str, Tensor]], Tensor], parameters: Mapping[str, Tensor]
) -> Callable[[Tensor], Tensor]:
    """Return the product with the Hessian in float64, unchecked, for :func:`refined`."""
    doubled = {name: tensor.double() for name, tensor in parameters.items()}
    return gradient_with_graph(loss, doubled, check=False).product
