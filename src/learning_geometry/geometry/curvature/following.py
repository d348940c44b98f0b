"""The largest eigenvalue of one matrix after another, as along a training trajectory, with few products of each."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from learning_geometry.geometry.curvature.lanczos import Eigenpair
from learning_geometry.geometry.curvature.products import Product
from learning_geometry.geometry.curvature.recurrence import lanczos, mixed_start

PREVIEW_PRODUCTS = 10
"""Products of the preview at least: as many as a start full of noise needs to show what it holds."""

PREVIEW_TOLERANCE = 0.05
"""Relative error of the preview's largest eigenvalue: sampling moves it by more than that."""

POSSIBLE = 0.3
"""Eigenvectors of the preview whose eigenvalue is less than this fraction below its largest may be the whole's top."""

SHARE = 0.3
"""Their weight in the start, against 1 for the preview's top eigenvector and for the one followed."""

NEAR = 0.15
"""Relative gap below which the two largest eigenvalues may have crossed: equal weights, and persistence."""

PERSISTENCE = 2
"""Products over which the largest Ritz value must then stay accurate."""

UNCERTAIN = 0.2
"""What is taken off a relative gap before it enters the error: that of the preview is as uncertain as this."""

SMALLEST_GAP = 0.01
"""Least relative gap in the error: two eigenvalues closer than that are taken for one."""


def follow_largest(
    product: Product,
    preview: Product,
    dimension: int,
    tolerance: float,
    start: Float[Tensor, " dimension"] | None = None,
    generator: torch.Generator | None = None,
    maximum_products: int = 200,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Eigenpair:
    r"""Algebraically largest eigenvalue of a symmetric matrix, given a cheap matrix that resembles it.

    For the Hessian of a loss on n sequences, the preview is the Hessian of the loss on an eighth of them. What
    :func:`learning_geometry.geometry.curvature.lanczos.largest_eigenpair` does with products of the whole matrix is
    done here with the preview: a Lanczos iteration from the last eigenvector mixed with noise of equal norm, long
    enough that another eigenvalue that has become the largest shows itself. The sum of the preview's top eigenvector
    and of the last one, with a share of each of the preview's next eigenvectors that could be the top one of the
    whole, starts a Lanczos iteration of few products with the whole matrix.

    That stops when the error of the largest Ritz value $\theta_1$, estimated by $\min(r, r^2 / \delta)$ with r its
    residual norm and $\delta$ the gap to the second eigenvalue (Parlett 1998, "The Symmetric Eigenvalue Problem",
    section 11.7), is below the tolerance. The relative gap is the smaller of the preview's and that between the Ritz
    values, less .2 for its uncertainty, and not less than .01. Where it is below .15 to begin with, the rule must hold
    for two products more.

    A top eigenvector with no part in the last one nor in the preview's first ones stays hidden: use
    `largest_eigenpair` where the preview does not resemble the matrix.

    Args:
        product: Symmetric matrix-vector product of flat vectors.
        preview: The same of the cheap matrix.
        dimension: Number of rows of both.
        tolerance: Relative error allowed, positive; below about ten units of rounding it is not reachable.
        start: Eigenvector followed, such as that at the last checkpoint; its dtype and device are used. None looks at
            the preview alone.
        generator: Source of the noise; by default one of seed 0 on the CPU.
        maximum_products: Products of either matrix after which the iteration gives up with `converged` False.
        dtype: Type of the noise without a start: float32 or float64.
        device: Device of the noise without a start.

    Returns:
        The eigenpair; its `products` are those of the whole matrix.

    Raises:
        ValueError: As `largest_eigenpair`.

    Examples:
        >>> diagonal = torch.linspace(-1.0, 1.0, 50).index_fill(0, torch.tensor([7]), 4.0)
        >>> noise = 0.1 * torch.cos(torch.arange(50.0))
        >>> pair = follow_largest(lambda v: diagonal * v, lambda v: (diagonal + noise) * v, 50, 1e-3)
        >>> round(pair.value, 2), pair.converged, pair.products
        (4.0, True, 1)
    """
    if dimension < 1 or maximum_products < 1 or not tolerance > 0:
        raise ValueError(
            f"dimension, maximum_products and tolerance: {dimension}, {maximum_products} and {tolerance}; "
            "pass numbers from 1 up and a positive relative error"
        )
    first = mixed_start(start, dimension, generator, dtype, device)
    for seen in _krylov(preview, first, "preview", maximum_products):
        gap = seen.values[0] - seen.values[1] - seen.residuals[1] if len(seen.values) > 1 else 0.0
        error = seen.residuals[0] ** 2 / gap if gap > 0 else np.inf
        enough = len(seen.basis) >= PREVIEW_PRODUCTS and error <= PREVIEW_TOLERANCE * abs(seen.values[0])
        if enough or seen.exhausted:
            break
    top = abs(seen.values[0])
    relative_gap = (seen.values[0] - seen.values[1]) / top if len(seen.values) > 1 and top > 0 else 1.0

    # the signs of eigenvectors are arbitrary: towards the one followed, so that the two do not cancel
    mixed = torch.zeros_like(first) if start is None else start / torch.linalg.vector_norm(start)
    for index, vector in enumerate(seen.vectors(int((seen.values >= seen.values[0] - POSSIBLE * top).sum()))):
        weight = 1.0 if seen.values[index] >= seen.values[0] - NEAR * top else SHARE
        mixed = mixed + (weight if float(mixed @ vector) >= 0 else -weight) * vector
    history: list[float] = []
    persisted = 0
    for found in _krylov(product, mixed, "product", maximum_products):
        value, residual, scale = float(found.values[0]), float(found.residuals[0]), abs(float(found.values[0]))
        gap = min([relative_gap * scale, *(value - found.values[1:2])])
        error = (
            min(residual, residual**2 / max(gap - UNCERTAIN * scale, SMALLEST_GAP * scale)) if scale > 0 else residual
        )
        allowed = max(tolerance * scale, found.rounding)
        history.append(value)
        persisted = persisted + 1 if error <= allowed and len(history) > 1 else 0
        more = PERSISTENCE if gap < NEAR * scale else 0
        settled = persisted > more and value - history[-1 - more] <= allowed
        if settled or found.exhausted:
            break
    vector = found.vectors(1)[0]
    vector /= torch.linalg.vector_norm(vector)
    return Eigenpair(value, vector, residual, error, len(history), bool(settled or found.exhausted))


class _Krylov(NamedTuple):
    """Ritz pairs after some products, largest first, and the basis they are expressed in."""

    values: Float[np.ndarray, " products"]
    residuals: Float[np.ndarray, " products"]
    coefficients: Float[np.ndarray, "products products"]
    basis: Float[Tensor, "products dimension"]
    rounding: float
    exhausted: bool

    def vectors(self, count: int) -> Float[Tensor, "count dimension"]:
        return torch.from_numpy(self.coefficients[:, :count].T.copy()).to(self.basis) @ self.basis


def _krylov(product: Product, start: Tensor, name: str, maximum_products: int) -> Iterator[_Krylov]:
    """Yield the Ritz pairs after each product."""
    for seen in lanczos(product, start, maximum_products, name):
        values, coefficients = eigh_tridiagonal(seen.diagonal, seen.above[:-1])
        values, coefficients = values[::-1], coefficients[:, ::-1]
        residuals = seen.above[-1] * np.abs(coefficients[-1])
        yield _Krylov(values, residuals, coefficients, seen.basis, seen.rounding, seen.exhausted)
