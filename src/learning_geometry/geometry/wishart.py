"""Gaussian matrices of any width through their Gram matrices alone: Wishart matrices, and corners of Haar matrices."""

import numpy as np
from jaxtyping import Float


def wishart(
    rows: int, dimension: int, draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draws rows rows"]:
    r"""Gram matrices $Z Z^\top$ of matrices Z (rows x dimension) with independent standard normal entries.

    Drawn by scipy through Bartlett's decomposition, so that a draw costs the same for any dimension N.

    Args:
        rows: number of vectors.
        dimension: number N of their entries, from 0; below ``rows`` Z is drawn itself.
        draws: number of matrices.
        generator: source of randomness.

    Raises:
        ValueError: if a number is out of range.

    Examples:
        Squared lengths have mean N, inner products variance N:

        >>> grams = wishart(2, 1_000_000, 2000, np.random.default_rng(0))
        >>> (grams[:, 0, 0].mean() / 1e6).round(3), (grams[:, 0, 1].std() / 1e3).round(1)
        (np.float64(1.0), np.float64(1.0))
    """
    if rows < 1 or dimension < 0 or draws < 1:
        raise ValueError(
            f"rows, dimension and draws: {rows}, {dimension} and {draws} describe no matrices; pass numbers from 1 up"
        )
    if dimension < rows:  # a singular matrix, which has no Wishart density
        vectors = generator.standard_normal((draws, rows, dimension))
        return vectors @ vectors.swapaxes(1, 2)
    # half a second to import, so only where there is something to draw
    from scipy.stats import wishart as distribution

    drawn = distribution.rvs(dimension, np.eye(rows), size=draws, random_state=generator)
    return np.asarray(drawn).reshape(draws, rows, rows)  # scipy drops axes of length 1


def haar_corners(
    dimension: int, rank: int, draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draws rank rank"]:
    r"""First ``rank`` rows of uniformly random orthonormal bases, shape (dimension, rank), without forming the bases.

    A Gaussian matrix's own first rows $Z_1$ and the Gram matrix of the others, a Wishart matrix, fix the triangular
    factor R of its QR decomposition, and $Z_1 R^{-1}$ is the corner. Its singular values are the cosines between a
    fixed and a random subspace of that rank; those of its leading r x r part belong to the first r vectors.

    Args:
        dimension: dimension of the space.
        rank: dimension of the subspaces, from 1 to ``dimension``.
        draws: number of subspaces.
        generator: source of randomness.

    Raises:
        ValueError: if ``rank`` or ``draws`` is out of range.

    Examples:
        The mean squared entry is 1 / dimension:

        >>> bool(abs((haar_corners(1000, 2, 5000, np.random.default_rng(0)) ** 2).mean() * 1000 - 1) < 0.05)
        True
    """
    if not 1 <= rank <= dimension:
        raise ValueError(f"rank: no subspace of {dimension} dimensions has rank {rank}; pass 1 to {dimension}")
    others = wishart(rank, dimension - rank, draws, generator)
    first = generator.standard_normal((draws, rank, rank))
    lower = np.linalg.cholesky(first.swapaxes(1, 2) @ first + others)
    return np.linalg.solve(lower, first.swapaxes(1, 2)).swapaxes(1, 2)
