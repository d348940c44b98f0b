"""Null baselines: what an estimator gives on random matrices and random subspaces."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigvalsh_tridiagonal
from scipy.special import betaincinv, gammaln

from learning_geometry.geometry.wishart import wishart

ASYMMETRY = 1e-5
"""Of a matrix of inner products, in units of the largest: more is no rounding, even of sums in float32."""


def gaussian_singular_values(
    shape: tuple[int, int],
    draws: int,
    generator: np.random.Generator,
    frobenius_norm: float | None = None,
) -> Float[np.ndarray, "draws rank"]:
    r"""Singular values of matrices with independent standard normal entries.

    No matrix is formed: Householder reflections reduce a Gaussian $m \times n$ matrix ($m \ge n$) to an upper
    bidiagonal one of the same singular values whose entries are independent, $\chi_m, \dots, \chi_{m-n+1}$ on
    the diagonal and $\chi_{n-1}, \dots, \chi_1$ above it (Dumitriu and Edelman 2002, "Matrix models for beta
    ensembles", section III; Silverstein 1985). So tall matrices cost no more than square ones.

    Args:
        shape: rows and columns of the matrix.
        draws: number of matrices.
        generator: source of randomness.
        frobenius_norm: if given, every draw is rescaled to this Frobenius norm, so that it is norm-matched.

    Returns:
        Singular values of each draw, descending, shape (draws, min(shape)).

    Raises:
        ValueError: if a dimension or ``draws`` is below 1.

    Examples:
        The squared Frobenius norm of a Gaussian matrix has mean m n; of a norm-matched one it is given:

        >>> values = gaussian_singular_values((3, 5), 20_000, np.random.default_rng(0))
        >>> (values**2).sum(axis=1).mean().round(1)
        np.float64(15.0)
        >>> matched = gaussian_singular_values((3, 5), 2, np.random.default_rng(0), frobenius_norm=2.0)
        >>> np.linalg.norm(matched, axis=1)
        array([2., 2.])
    """
    rows, columns = max(shape), min(shape)
    if columns < 1 or draws < 1:
        raise ValueError(f"shape and draws: {shape} and {draws} describe no matrices; pass numbers from 1 up")
    diagonal = np.sqrt(generator.chisquare(np.arange(rows, rows - columns, -1), size=(draws, columns)))
    above = np.sqrt(generator.chisquare(np.arange(columns - 1, 0, -1), size=(draws, columns - 1)))
    # the tridiagonal Gram matrix of the bidiagonal one
    gram_diagonal = diagonal**2
    gram_diagonal[:, 1:] += above**2
    gram_above = diagonal[:, :-1] * above
    squares = np.empty((draws, columns))
    for draw in range(draws):
        squares[draw] = (
            gram_diagonal[draw]
            if columns == 1
            else eigvalsh_tridiagonal(gram_diagonal[draw], gram_above[draw], lapack_driver="sterf", check_finite=False)
        )
    values = np.sqrt(np.maximum(squares[:, ::-1], 0.0))
    if frobenius_norm is not None:
        values *= frobenius_norm / np.linalg.norm(values, axis=1, keepdims=True)
    return values


def haar_subspace(dimension: int, rank: int, generator: np.random.Generator) -> Float[np.ndarray, "dimension rank"]:
    """Orthonormal basis of a uniformly distributed subspace, itself uniform (Haar) on the Stiefel manifold.

    The Q factor of a Gaussian matrix, with the signs that make R's diagonal positive (Mezzadri 2007, "How to
    generate random matrices from the classical compact groups").

    Args:
        dimension: dimension of the space.
        rank: dimension of the subspace, from 1 to ``dimension``.
        generator: source of randomness.

    Returns:
        Basis with orthonormal columns, shape (dimension, rank).

    Raises:
        ValueError: if ``rank`` is not between 1 and ``dimension``.

    Examples:
        >>> basis = haar_subspace(6, 2, np.random.default_rng(0))
        >>> np.allclose(basis.T @ basis, np.eye(2))
        True
    """
    _check_rank(rank, dimension)
    orthonormal, triangular = np.linalg.qr(generator.standard_normal((dimension, rank)))
    return orthonormal * np.sign(np.diag(triangular))


def largest_cosine_null(
    dimension: int, rank: int, draws: int, generator: np.random.Generator, other_rank: int | None = None
) -> Float[np.ndarray, " draws"]:
    """Largest principal cosine between a fixed and a uniformly random subspace.

    The largest singular value of the first ``other_rank`` rows of a Haar basis: by rotation invariance the
    fixed subspace may be that of the first coordinates (Absil, Edelman and Koev 2006, "On the largest
    principal angle between random subspaces").

    Args:
        dimension: dimension of the space.
        rank: dimension of the random subspace.
        draws: number of random subspaces.
        generator: source of randomness.
        other_rank: dimension of the fixed subspace; by default ``rank``.

    Returns:
        One cosine in [0, 1] per draw, shape (draws,).

    Raises:
        ValueError: if a rank is not between 1 and ``dimension``, or ``draws`` is below 1.

    Examples:
        The squared cosine between two lines in d dimensions has mean 1 / d:

        >>> (largest_cosine_null(5, 1, 2000, np.random.default_rng(0)) ** 2).mean().round(1)
        np.float64(0.2)
    """
    other_rank = rank if other_rank is None else other_rank
    _check_rank(rank, dimension)
    _check_rank(other_rank, dimension)
    _check_draws(draws)
    cosines = np.empty(draws)
    for draw in range(draws):
        rows = np.linalg.qr(generator.standard_normal((dimension, rank)))[0][:other_rank]
        cosines[draw] = np.linalg.norm(rows, 2)
    return np.minimum(cosines, 1.0)


def haar_subspaces(
    dimension: int, rank: int, draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draws dimension rank"]:
    """Bases of many independent uniformly distributed subspaces; of rank ``dimension``: random rotations.

    Each is distributed as :func:`haar_subspace`. The first r columns are a Haar basis of rank r, so one set of draws
    serves several ranks.

    Args:
        dimension: dimension of the space.
        rank: dimension of the subspaces, from 1 to ``dimension``.
        draws: number of subspaces, from 1.
        generator: source of randomness.

    Returns:
        Bases with orthonormal columns, shape (draws, dimension, rank).

    Raises:
        ValueError: if ``rank`` or ``draws`` is out of range.

    Examples:
        >>> bases = haar_subspaces(6, 2, 3, np.random.default_rng(0))
        >>> np.allclose(bases.transpose(0, 2, 1) @ bases, np.eye(2))
        True
    """
    _check_rank(rank, dimension)
    _check_draws(draws)
    orthonormal, triangular = np.linalg.qr(generator.standard_normal((draws, dimension, rank)))
    return orthonormal * np.sign(np.diagonal(triangular, axis1=1, axis2=2))[:, None]


def principal_cosines_null(
    dimension: int, ranks: Sequence[int], draws: int, generator: np.random.Generator
) -> list[Float[np.ndarray, "draws _"]]:
    """Principal cosines between a fixed and a uniformly random subspace of the same rank, for several ranks.

    As :func:`largest_cosine_null`, but all cosines; the draws of different ranks are nested and so dependent.

    Args:
        dimension: dimension of the space.
        ranks: ranks of both subspaces.
        draws: number of random subspaces.
        generator: source of randomness.

    Returns:
        For each rank r the cosines in [0, 1], descending along the last axis, shape (draws, r).

    Raises:
        ValueError: if a rank is not between 1 and ``dimension``, or ``draws`` is below 1.

    Examples:
        The mean squared cosine between r-dimensional subspaces of d dimensions is r / d:

        >>> (small,) = principal_cosines_null(8, [2], 4000, np.random.default_rng(0))
        >>> small.shape, (small**2).mean().round(2)
        ((4000, 2), np.float64(0.25))
    """
    if not ranks:
        return []
    for rank in ranks:
        _check_rank(rank, dimension)
    rows = haar_subspaces(dimension, max(ranks), draws, generator)
    return [np.minimum(np.linalg.svd(rows[:, :rank, :rank], compute_uv=False), 1.0) for rank in ranks]


def random_direction_cosine(dimension: int) -> tuple[float, float, float]:
    r"""Mean and central 95 % range of |cosine| between a fixed and a uniformly random direction; exact.

    The squared cosine is Beta(1/2, (d - 1)/2) distributed, so the mean is
    $\Gamma(d/2) / (\sqrt\pi\, \Gamma((d+1)/2))$ (Muirhead 1982, "Aspects of Multivariate Statistical Theory",
    section 1.5).

    Args:
        dimension: dimension d of the space, from 2.

    Returns:
        Mean, 2.5 % and 97.5 % quantile.

    Raises:
        ValueError: if ``dimension`` is below 2.

    Examples:
        In the plane the angle is uniform: the mean is 2 / pi, and the quantiles are those of |cos|:

        >>> [round(x, 4) for x in random_direction_cosine(2)]
        [0.6366, 0.0393, 0.9992]
    """
    if dimension < 2:
        raise ValueError(f"dimension: directions in {dimension} dimensions are not random; pass at least 2")
    low, high = np.sqrt(betaincinv(0.5, (dimension - 1) / 2, [0.025, 0.975]))
    mean = np.exp(gammaln(dimension / 2) - gammaln((dimension + 1) / 2)) / np.sqrt(np.pi)
    return float(mean), float(low), float(high)


def random_subspace_energies(
    gram: Float[np.ndarray, "vectors vectors"], dimension: int, rank: int, draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draws vectors"]:
    r"""Squared norms of fixed vectors inside a uniformly random subspace; all vectors meet the same subspace in a draw.

    Of one vector the share of the squared norm is Beta(k/2, (d - k)/2) distributed, with mean k / d. Of several, the
    joint law depends on their inner products alone. With v orthonormal vectors in the span, as the rows of $Q$, and a
    basis $B$ of the subspace, $Q B B^\top Q^\top$ is matrix-variate Beta: $L^{-1} W_1 L^{-\top}$ with Wishart matrices
    $W_1$ of k and $W_2$ of d - k degrees of freedom and $L L^\top = W_1 + W_2$ (Muirhead 1982, "Aspects of
    Multivariate Statistical Theory", section 3.3). So no subspace is formed, whatever the dimension.

    Args:
        gram: inner products of the vectors.
        dimension: dimension d of the space.
        rank: dimension k of the subspaces, from 1 to ``dimension``.
        draws: number of subspaces.
        generator: source of randomness.

    Returns:
        Squared norms, from 0 to those of the vectors, shape (draws, vectors).

    Raises:
        ValueError: if ``rank`` or ``draws`` is out of range, or ``gram`` holds no inner products: not symmetric, an
            entry not finite, or a negative eigenvalue.

    Examples:
        A 60-dimensional subspace of 367,624 dimensions holds a share of 60 / 367,624 of any vector's squared norm:

        >>> energies = random_subspace_energies(np.eye(1), 367_624, 60, 4000, np.random.default_rng(0))
        >>> float((energies.mean() * 367_624).round())
        60.0
    """
    _check_rank(rank, dimension)
    _check_draws(draws)
    if not np.isfinite(gram).all() or (np.abs(gram - gram.T) > ASYMMETRY * np.abs(gram).max(initial=0.0)).any():
        raise ValueError("gram: it is not finite and symmetric; pass vectors @ vectors.T of finite vectors")
    values, directions = np.linalg.eigh(gram.astype(np.float64))
    if len(values) and values[0] < -1e-6 * abs(values[-1]):
        raise ValueError("gram: it has a negative eigenvalue, so that no vectors have these inner products")
    # coordinates of the vectors in an orthonormal basis of their span
    spanned = min(len(gram), dimension)
    coordinates = directions[:, -spanned:] * np.sqrt(np.maximum(values[-spanned:], 0.0))
    within = wishart(spanned, rank, draws, generator)
    lower = np.linalg.cholesky(within + wishart(spanned, dimension - rank, draws, generator))
    # L^-1 W L^-T, one triangle at a time
    half = np.linalg.solve(lower, within)
    projector = np.linalg.solve(lower, half.swapaxes(1, 2))
    energies = np.einsum("vi,nij,vj->nv", coordinates, projector, coordinates, optimize=True)
    return np.clip(energies, 0.0, np.diag(gram))


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise ValueError(f"draws: {draws} random subspaces were asked for; pass at least 1")


def _check_rank(rank: int, dimension: int) -> None:
    if not 1 <= rank <= dimension:
        raise ValueError(f"rank: no subspace of {dimension} dimensions has rank {rank}; pass 1 to {dimension}")
