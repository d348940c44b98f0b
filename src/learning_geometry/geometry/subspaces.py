"""Subspaces: principal angles, shared energy, and singular subspaces of a matrix.

A subspace is given by a basis, the columns of a matrix of shape (dimension, rank). Bases need not be
orthonormal. Random baselines of these numbers are in ``nulls``, and in closed form in the docstrings.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def orthonormal_basis(basis: Float[np.ndarray, "dimension rank"]) -> Float[np.ndarray, "dimension rank"]:
    """Orthonormal basis of the span of the columns, by QR in float64.

    Args:
        basis: linearly independent columns, shape (dimension, rank), rank from 1 to dimension.

    Returns:
        Orthonormal columns of the same span, shape (dimension, rank).

    Raises:
        ValueError: if the columns are none, more than the dimension, not finite, or dependent to rounding.

    Examples:
        >>> np.abs(orthonormal_basis(np.array([[3.0], [4.0]]))).round(3)
        array([[0.6],
               [0.8]])
    """
    dimension, rank = basis.shape
    if not 1 <= rank <= dimension:
        raise ValueError(f"basis: {rank} columns span no subspace of {dimension} dimensions; pass 1 to {dimension}")
    if not np.isfinite(basis).all():
        raise ValueError("basis: an entry is not finite; drop this checkpoint")
    columns = basis.astype(np.float64)
    lengths = np.linalg.norm(columns, axis=0)
    # unit columns: independence must not depend on their scale
    orthonormal, triangular = np.linalg.qr(columns / np.where(lengths > 0, lengths, 1.0))
    rounding = dimension * np.finfo(basis.dtype).eps
    if np.linalg.svd(triangular, compute_uv=False)[-1] <= rounding:
        raise ValueError(f"basis: its {rank} columns are linearly dependent; pass independent ones")
    return orthonormal


def principal_cosines(
    first: Float[np.ndarray, "dimension first_rank"], second: Float[np.ndarray, "dimension second_rank"]
) -> Float[np.ndarray, " smaller_rank"]:
    r"""Cosines of the principal angles between two column spans: the singular values of $Q_1^\top Q_2$.

    Björck and Golub 1973, "Numerical methods for computing angles between linear subspaces".

    Args:
        first: basis of one subspace, shape (dimension, first_rank).
        second: basis of the other, shape (dimension, second_rank).

    Returns:
        Cosines in [0, 1], descending, min(first_rank, second_rank) of them.

    Raises:
        ValueError: if a basis is not one (see ``orthonormal_basis``).

    Examples:
        >>> principal_cosines(np.eye(3)[:, :2], np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])).round(4)
        array([1.    , 0.7071])
    """
    overlap = orthonormal_basis(first).T @ orthonormal_basis(second)
    return np.minimum(np.linalg.svd(overlap, compute_uv=False), 1.0)


def largest_cosine(
    first: Float[np.ndarray, "dimension first_rank"], second: Float[np.ndarray, "dimension second_rank"]
) -> float:
    """Cosine in [0, 1] of the smallest principal angle; its chance values are ``nulls.largest_cosine_null``.

    Args:
        first: basis of one subspace, shape (dimension, first_rank).
        second: basis of the other, shape (dimension, second_rank).

    Raises:
        ValueError: if a basis is not one (see ``orthonormal_basis``).

    Examples:
        >>> round(largest_cosine(np.eye(2)[:, :1], np.ones((2, 1))), 4)
        0.7071
    """
    return float(principal_cosines(first, second)[0])


def root_mean_square_cosine(
    first: Float[np.ndarray, "dimension first_rank"], second: Float[np.ndarray, "dimension second_rank"]
) -> float:
    r"""Root of the mean squared principal cosine, in [0, 1].

    Of random subspaces the mean square is max(first_rank, second_rank) / dimension exactly: for equal ranks r
    in d dimensions, chance is $\sqrt{r / d}$.

    Args:
        first: basis of one subspace, shape (dimension, first_rank).
        second: basis of the other, shape (dimension, second_rank).

    Raises:
        ValueError: if a basis is not one (see ``orthonormal_basis``).

    Examples:
        >>> round(root_mean_square_cosine(np.eye(3)[:, :2], np.eye(3)[:, 1:]), 4)  # cosines 1 and 0
        0.7071
    """
    return float(np.sqrt(np.mean(principal_cosines(first, second) ** 2)))


def nested_energies(
    reference: Float[np.ndarray, "dimension dimension"],
    bases: Float[np.ndarray, "*draws dimension vectors"],
    ranks: Sequence[int],
    sizes: Sequence[int],
) -> Float[np.ndarray, "*draws ranks groups"]:
    r"""Energy $\|P V\|_F^2 / r$ of nested subspaces in complementary groups of reference vectors, P projecting on one.

    Args:
        reference: orthonormal columns that span the space, such as all right singular vectors by descending value.
        bases: orthonormal columns; the subspace of rank r is spanned by the first r. Any number of leading axes.
        ranks: ranks r, each from 1 to ``vectors``.
        sizes: numbers of successive reference vectors in each group; they sum to ``dimension``.

    Returns:
        Fractions, shape (..., ranks, groups), that sum to 1 over the groups.

    Raises:
        ValueError: if a rank is out of range or the sizes do not fill the space.

    Examples:
        >>> nested_energies(np.eye(3), np.eye(3)[:, ::-1].copy(), [1, 2], [2, 1])
        array([[0. , 1. ],
               [0.5, 0.5]])
    """
    dimension, vectors = bases.shape[-2:]
    if min(sizes, default=0) < 1 or sum(sizes) != dimension:
        raise ValueError(
            f"sizes: groups of {list(sizes)} vectors do not fill {dimension} dimensions; pass positive parts"
        )
    if not all(1 <= rank <= vectors for rank in ranks):
        raise ValueError(f"ranks: {list(ranks)} do not all lie between 1 and the {vectors} vectors given")
    squares = (reference.T @ bases) ** 2
    starts = np.cumsum([0, *sizes[:-1]])
    by_group = np.add.reduceat(squares, starts, axis=-2)
    up_to_rank = by_group.cumsum(axis=-1)[..., np.asarray(ranks, dtype=int) - 1] / np.asarray(ranks)
    return np.minimum(np.swapaxes(up_to_rank, -1, -2), 1.0)


def right_singular_subspace(
    matrix: Float[np.ndarray, "rows columns"], first: int, last: int
) -> Float[np.ndarray, "columns rank"]:
    r"""Right singular vectors ``first`` to ``last``, counted from 1 by descending singular value, both included.

    There are as many as columns; those past min(rows, columns) span the null space. Groups of an embedding
    separated by gaps after ranks a and b are 1 to a (top), a + 1 to b (medium) and b + 1 to columns (bottom).

    Args:
        matrix: Shape (rows, columns).
        first: number of the first vector, from 1.
        last: number of the last vector, up to ``columns``.

    Returns:
        Orthonormal basis in float64, shape (columns, last - first + 1). The span is unique only where the
        singular values at both ends differ from their outer neighbours; signs are arbitrary.

    Raises:
        ValueError: if the numbers are no range of singular vectors, or an entry is not finite.

    Examples:
        >>> np.abs(right_singular_subspace(np.diag([1.0, 3.0, 2.0]), 2, 2))
        array([[0.],
               [0.],
               [1.]])
    """
    rows, columns = matrix.shape
    if not 1 <= first <= last <= columns:
        raise ValueError(f"first and last: {first} to {last} are no singular vectors out of 1 to {columns}")
    if not np.isfinite(matrix).all():
        raise ValueError("matrix: an entry is not finite; drop this checkpoint")
    # the full set, null space included, without ever forming a rows x rows matrix
    vectors = np.linalg.svd(matrix.astype(np.float64), full_matrices=rows < columns)[2]
    return vectors[first - 1 : last].T


def top_right_singular_subspace(
    matrix: Float[np.ndarray, "rows columns"], rank: int
) -> Float[np.ndarray, "columns rank"]:
    """Right singular vectors of the ``rank`` largest singular values, orthonormal, shape (columns, rank).

    For a torch ``Linear.weight`` W (y = W x) these are the input directions it reads most.

    Args:
        matrix: Shape (rows, columns).
        rank: from 1 to ``columns``.

    Raises:
        ValueError: if ``rank`` is out of range or an entry is not finite.

    Examples:
        >>> np.abs(top_right_singular_subspace(np.array([[0.0, 0.0, 5.0], [1.0, 0.0, 0.0]]), 1))
        array([[0.],
               [0.],
               [1.]])
    """
    return right_singular_subspace(matrix, 1, rank)


def top_left_singular_subspace(matrix: Float[np.ndarray, "rows columns"], rank: int) -> Float[np.ndarray, "rows rank"]:
    """Left singular vectors of the ``rank`` largest singular values, orthonormal, shape (rows, rank).

    For a torch ``Linear.weight`` W (y = W x) these are the output directions it writes most.

    Args:
        matrix: Shape (rows, columns).
        rank: from 1 to ``rows``.

    Raises:
        ValueError: if ``rank`` is out of range or an entry is not finite.

    Examples:
        >>> np.abs(top_left_singular_subspace(np.array([[0.0, 0.0, 5.0], [1.0, 0.0, 0.0]]), 1))
        array([[1.],
               [0.]])
    """
    return right_singular_subspace(matrix.T, 1, rank)
