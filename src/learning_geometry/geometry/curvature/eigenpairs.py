"""Several of the largest and smallest eigenpairs of a symmetric matrix given by its products: a block Krylov space."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.geometry.curvature.lanczos import Eigenpair
from learning_geometry.geometry.curvature.products import Product

PERSISTENCE = 2
"""Rounds over which all values must stay accurate: a larger one still hidden rises in them."""


class Eigenpairs(NamedTuple):
    """Both ends of a spectrum.

    Attributes:
        largest: The largest eigenvalues, in descending order.
        smallest: The smallest ones, in ascending order.
        products: Matrix-vector products used for all of them; each pair states the same number.
        converged: Whether every pair met the tolerance.
    """

    largest: list[Eigenpair]
    smallest: list[Eigenpair]
    products: int
    converged: bool


def eigenpairs(
    product: Product,
    dimension: int,
    largest: int,
    smallest: int,
    tolerance: float,
    start: Float[Tensor, "dimension columns"] | None = None,
    generator: torch.Generator | None = None,
    maximum_products: int = 500,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Eigenpairs:
    r"""The k largest and j smallest eigenpairs, counted with multiplicity, by Rayleigh-Ritz in a block Krylov space.

    A round multiplies the matrix with the residuals of the Ritz pairs that are not accurate yet, orthogonalised
    against the whole basis (Saad 2011, "Numerical methods for large eigenvalue problems", sections 6.4 and 8.4: a block
    Krylov space, from which converged directions are left out). Residuals are computed, not taken from a recurrence.

    The error of a Ritz value θ is bounded by min(r, r² / δ), r its residual norm and δ the gap to the nearest other
    Ritz value, lessened by r (Parlett 1998, section 11.7). The iteration stops when every bound has been below
    `tolerance` times the largest Ritz value in size for two further rounds over which no value moved by more. The
    first block has at least max(k, j) + 1 random columns, so that an eigenvalue of that multiplicity is found that many
    times, almost surely; of a higher multiplicity, copies can be missed. As with every Krylov method, an eigenvalue
    very close to one found can stay hidden.

    Args:
        product: Symmetric matrix-vector product of flat vectors.
        dimension: Number of rows of the matrix.
        largest: Number k of largest eigenvalues, from 0.
        smallest: Number j of smallest eigenvalues, from 0; together from 1 to `dimension`.
        tolerance: Error allowed, as a fraction of the eigenvalue largest in size; positive.
        start: Columns to start from, such as the last checkpoint's eigenvectors; need not be orthonormal. They are
            mixed with noise of equal norm. Their dtype and device are used.
        generator: Source of the random columns; by default one of seed 0 on the CPU.
        maximum_products: Products after which the iteration gives up with `converged` False. Memory is two vectors
            per product.
        dtype: Type of the vectors if there is no start.
        device: Their device.

    Raises:
        ValueError: If a number is out of range, the start does not fit or is not finite, or a product is not finite.

    Examples:
        >>> diagonal = torch.tensor([5.0, 5.0, 1.0, 0.0, -3.0, 2.0])
        >>> found = eigenpairs(lambda v: diagonal * v, 6, 3, 1, 1e-6)
        >>> [round(pair.value, 4) for pair in found.largest], [round(pair.value, 4) for pair in found.smallest]
        ([5.0, 5.0, 2.0], [-3.0])
    """
    if largest < 0 or smallest < 0 or not 1 <= largest + smallest <= dimension:
        raise ValueError(
            f"largest and smallest: {largest} and {smallest} eigenvalues of a matrix of {dimension} rows; ask for 1 to "
            f"{dimension} in all"
        )
    if not tolerance > 0 or maximum_products < 1:
        raise ValueError(
            f"tolerance and maximum_products: {tolerance} and {maximum_products}; pass a positive error and at least 1"
        )
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    block = _first_block(start, dimension, max(largest, smallest) + 1, generator, dtype, device)
    rounding = torch.finfo(block.dtype).eps
    limit = min(dimension, maximum_products)
    basis, images = (torch.empty(min(limit, 32), dimension, dtype=block.dtype, device=block.device) for _ in range(2))
    size, persisted, before = 0, 0, np.empty(0)
    while True:
        room = min(len(block), limit - size)
        for row in block[:room]:
            if size == len(basis):
                basis, images = (torch.cat([rows, torch.empty_like(rows)]) for rows in (basis, images))
            basis[size] = row
            images[size] = product(row)
            size += 1
        known, image = basis[:size], images[:size]
        projected = (known.double() @ image.double().T).cpu().numpy()
        if not np.isfinite(projected).all():
            raise ValueError(f"product: it is not finite within {size} products; check the loss and its parameters")
        values, vectors = np.linalg.eigh((projected + projected.T) / 2)
        count = min(largest, size), min(smallest, size - min(largest, size))
        wanted = [*range(size - 1, size - 1 - count[0], -1), *range(count[1])]
        weights = torch.from_numpy(vectors[:, wanted]).to(basis)
        residuals = weights.T @ image - torch.from_numpy(values[wanted]).to(basis)[:, None] * (weights.T @ known)
        norms = torch.linalg.vector_norm(residuals.double(), dim=1).cpu().numpy()
        errors = _bounds(values, wanted, norms)
        scale = float(np.abs(values).max())
        allowed = max(tolerance, 10 * rounding) * scale
        complete = len(wanted) == largest + smallest
        steady = before.shape == (len(wanted),) and np.abs(values[wanted] - before).max() <= allowed
        persisted = persisted + 1 if complete and steady and errors.max() <= allowed else 0
        before = values[wanted]
        settled = size == dimension or persisted >= PERSISTENCE
        if settled or size == limit:
            break
        # what is accurate already goes on while anything is open, and all go on to show that they persist
        active = residuals[errors > allowed] if (errors > allowed).any() else residuals
        block = _orthonormal_outside(active, known, 10 * rounding * scale)
        if not len(block):  # an invariant subspace: look outside of it, and be done if nothing is left
            block = _orthonormal_outside(_noise(1, dimension, generator, basis), known, rounding)
    vectors_found = weights.T @ known
    vectors_found /= torch.linalg.vector_norm(vectors_found, dim=1, keepdim=True)
    pairs = [
        Eigenpair(
            float(values[index]),
            vector,
            float(norm),
            float(error),
            size,
            bool(settled or (complete and error <= allowed)),
        )
        for index, vector, norm, error in zip(wanted, vectors_found, norms, errors, strict=True)
    ]
    return Eigenpairs(pairs[: count[0]], pairs[count[0] :], size, bool(settled))


def _bounds(values: np.ndarray, wanted: list[int], norms: np.ndarray) -> np.ndarray:
    """Return the error bounds of the wanted Ritz values: min(r, r² / gap)."""
    bounds = norms.copy()
    for place, index in enumerate(wanted):
        others = np.delete(values, index)
        if others.size:
            gap = np.abs(others - values[index]).min() - norms[place]
            if gap > 0:
                bounds[place] = min(norms[place], norms[place] ** 2 / gap)
    return bounds


def _first_block(
    start: Tensor | None,
    dimension: int,
    columns: int,
    generator: torch.Generator,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    """Return orthonormal rows: the given columns mixed with noise of equal norm, then noise alone."""
    if start is None:
        start = torch.empty(dimension, 0, dtype=dtype, device=device)
    if start.ndim != 2 or len(start) != dimension or not torch.isfinite(start).all():
        raise ValueError(
            f"start: shape {tuple(start.shape)}, or an entry is not finite; pass finite columns of {dimension} entries"
        )
    tiny = torch.finfo(start.dtype).tiny
    given = start.T / torch.linalg.vector_norm(start, dim=0)[:, None].clamp_min(tiny)
    rows = _noise(min(max(columns, len(given)), dimension), dimension, generator, given)
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    # exact eigenvectors would pass for converged, and hide larger eigenvalues
    rows[: len(given)] += given[: len(rows)]
    return _orthonormal_outside(rows, rows[:0], 1e3 * torch.finfo(rows.dtype).eps)


def _noise(rows: int, dimension: int, generator: torch.Generator, like: Tensor) -> Tensor:
    # float32 and float64 draw the same directions
    return torch.randn(rows, dimension, generator=generator, dtype=torch.float64, device=generator.device).to(like)


def _orthonormal_outside(rows: Tensor, known: Tensor, negligible: float) -> Tensor:
    """Return orthonormal rows that span what the rows hold outside of the known ones; short remainders are dropped."""
    kept: list[Tensor] = []
    for row in rows:
        for _ in range(2):
            row = row - known.T @ (known @ row)
            for other in kept:
                row = row - other * torch.dot(other, row)
            length = torch.linalg.vector_norm(row)
            if length <= negligible:
                break
            row = row / length
        else:
            kept.append(row)
    return torch.stack(kept) if kept else rows[:0]
