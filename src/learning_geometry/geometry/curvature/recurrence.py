"""The Lanczos recurrence with full reorthogonalisation: what eigenvalues and densities are computed from."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.geometry.curvature.guard import check_symmetric, rounding_of
from learning_geometry.geometry.curvature.products import Product

EXPLORATION = 1.0
"""Relative norm of the noise added to a given start by default, so that no eigenvector is orthogonal to it."""


class Tridiagonal(NamedTuple):
    """The matrix seen in the Krylov space of a start vector, after some products.

    Attributes:
        diagonal: diagonal of the tridiagonal matrix, shape (products,), float64.
        above: its off-diagonal; the last entry is the length of what the last product has outside of the space.
        basis: orthonormal rows, shape (products, dimension); valid until the next product.
        rounding: estimate of the matrix's norm times the unit of rounding.
        exhausted: whether the space is invariant: a further vector would be rounding noise.
    """

    diagonal: Float[np.ndarray, " products"]
    above: Float[np.ndarray, " products"]
    basis: Float[Tensor, "products dimension"]
    rounding: float
    exhausted: bool


def lanczos(
    product: Product, start: Float[Tensor, " dimension"], maximum_products: int, name: str = "product"
) -> Iterator[Tridiagonal]:
    """Yield the tridiagonal matrix after each product, until the space is exhausted or the products are.

    Lanczos 1950; every new vector is orthogonalised twice against all before (Parlett 1998, "The Symmetric Eigenvalue
    Problem", section 6.9: twice is enough), so that no eigenvalue returns as a ghost.

    Args:
        product: symmetric matrix-vector product of flat vectors.
        start: start vector of any length but zero; its dtype and device are used. Coefficients are float64 always.
        maximum_products: at most so many products; memory is one vector each, and up to as many more.
        name: what an error calls the product.

    Raises:
        ValueError: if a product is not finite, or the matrix not symmetric.

    Examples:
        >>> states = list(lanczos(lambda v: torch.tensor([1.0, 3.0]) * v, torch.ones(2), 5))
        >>> [state.diagonal.round(3).tolist() for state in states], states[-1].exhausted
        ([[2.0], [2.0, 2.0]], True)
    """
    dimension = start.numel()
    limit = min(dimension, maximum_products)
    unit = torch.finfo(start.dtype).eps
    basis = torch.empty(min(limit, 16), dimension, dtype=start.dtype, device=start.device)
    diagonal, above = np.empty(limit), np.empty(limit)
    vector = start / torch.linalg.vector_norm(start)
    for step in range(limit):
        if step == len(basis):
            basis = torch.cat([basis, torch.empty_like(basis)])
        basis[step] = vector
        known = basis[: step + 1]
        # a copy: the product may return its argument, or a view of it
        image = product(vector).clone()
        diagonal[step] = float(torch.dot(vector.double(), image.double()))
        along = known @ image
        image -= known.T @ along
        image -= known.T @ (known @ image)
        above[step] = float(torch.linalg.vector_norm(image, dtype=torch.float64))
        if not (np.isfinite(diagonal[step]) and np.isfinite(above[step])):
            raise ValueError(f"{name}: it is not finite at product {step + 1}; check the loss and its parameters")
        rounding = unit * float(np.abs(diagonal[: step + 1]).max() + 2 * above[:step].max(initial=0.0))
        _check_tridiagonal(along[:-1], above[:step], rounding, unit, rounding_of(product), name)
        exhausted = step + 1 == dimension or above[step] <= 10 * rounding
        yield Tridiagonal(diagonal[: step + 1], above[: step + 1], known, rounding, exhausted)
        if exhausted:
            return
        vector = image / above[step]


def _check_tridiagonal(along: Tensor, above: np.ndarray, rounding: float, unit: float, floor: float, name: str) -> None:
    """Compare what a product has along earlier vectors with what theirs had along the one multiplied."""
    if not len(above):
        return
    expected = np.zeros(len(above))
    expected[-1] = above[-1]
    seen = along.double().cpu().numpy()
    worst = int(np.abs(seen - expected).argmax())
    check_symmetric(float(expected[worst]), float(seen[worst]), rounding / unit, unit, floor, name)


def mixed_start(
    start: Float[Tensor, " dimension"] | None,
    dimension: int,
    generator: torch.Generator | None,
    dtype: torch.dtype,
    device: torch.device | str,
    exploration: float = EXPLORATION,
) -> Float[Tensor, " dimension"]:
    """Return a unit start vector: random, or the given one with noise.

    Without the noise an exact eigenvector of another eigenvalue would pass for converged.

    Args:
        start: of any length; its dtype and device are used. None for noise alone.
        dimension: number of entries.
        generator: source of the noise; by default one of seed 0 on the CPU.
        dtype: type of noise alone; float32 and float64 draw the same direction.
        device: device of noise alone.
        exploration: norm of the noise relative to that of the start.

    Raises:
        ValueError: if the start is zero, not finite, or of another shape.

    Examples:
        >>> first = mixed_start(torch.tensor([0.0, 9.0]), 2, None, torch.float64, "cpu")
        >>> first.dtype, round(float(first @ first), 6), bool(first[0] != 0)
        (torch.float32, 1.0, True)
    """
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    if start is not None:
        dtype, device = start.dtype, start.device
        if start.shape != (dimension,):
            raise ValueError(f"start: its shape is {tuple(start.shape)}, not ({dimension},); pass one entry per row")
        norm = torch.linalg.vector_norm(start)
        if not torch.isfinite(norm) or norm == 0:
            raise ValueError(
                "start: it is zero or not finite and has no direction; pass another, or None for a random one"
            )
    # float32 and float64 draw the same direction
    noise = torch.randn(dimension, generator=generator, dtype=torch.float64, device=generator.device).to(device, dtype)
    noise /= torch.linalg.vector_norm(noise)
    if start is None:
        return noise
    mixed = start / norm + exploration * noise
    return mixed / torch.linalg.vector_norm(mixed)
