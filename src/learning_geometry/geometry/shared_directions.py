r"""Do the weights of different layers write along the same directions?

Two overlaps of weights W and V that write to the same space (width × inputs, y = W x):

- of subspaces: mean squared cosine of the principal angles between the top k left singular subspaces;
- of spectra: $\langle W W^\top, V V^\top \rangle / (\|W W^\top\| \|V V^\top\|)$, which weighs directions by how much is
  written along them and needs no k.

**Nulls.** Random subspaces: k / width in the mean (``wishart.haar_corners``). Random matrices with the same singular
values and Haar-random vectors: their top k subspaces are random subspaces whatever the spectrum, so for the first
overlap this is the same null; for the second the spectrum matters (:func:`spectra_matched`). Its mean is
$\operatorname{tr}(A) \operatorname{tr}(B) / (d \|A\| \|B\|)$ of W Wᵀ = A and V Vᵀ = B in d dimensions.
Neither knows that coordinates of the residual stream are not alike: where all weights write more to some coordinates,
they share directions without any finer structure. :func:`rows_permuted` keeps the coordinates' norms alone.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

from learning_geometry.geometry.nulls import haar_subspace


def output_subspace(weight: Float[np.ndarray, "width inputs"], rank: int) -> Float64[np.ndarray, "width rank"]:
    """Left singular vectors of the largest singular values, from the smaller Gram matrix W Wᵀ.

    As ``subspaces.top_left_singular_subspace``, for wide weights several times faster.

    Args:
        weight: y = W x.
        rank: from 1 to ``width``.

    Raises:
        ValueError: if the rank is out of range, or an entry is not finite.

    Examples:
        >>> np.abs(output_subspace(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 5.0]]), 1))
        array([[0.],
               [1.]])
    """
    if not 1 <= rank <= len(weight):
        raise ValueError(f"rank: a weight that writes {len(weight)} coordinates has no {rank} output directions")
    return np.linalg.eigh(_gram(weight))[1][:, : -rank - 1 : -1]


def output_rank(weight: Float[np.ndarray, "width inputs"]) -> int:
    """Number of directions that a weight writes along: singular values above the rounding of the largest.

    Below it, directions are those of rounding, or of the algorithm, and mean nothing. 0 of a weight of zeros.

    Raises:
        ValueError: if an entry is not finite.

    Examples:
        >>> output_rank(np.diag([3.0, 1.0, 1e-9]).astype(np.float32)), output_rank(np.zeros((2, 3)))
        (2, 0)
    """
    # squares of the singular values; of a Gram matrix, values below the root of float64's rounding are lost
    squares = np.linalg.eigvalsh(_gram(weight))
    precision = np.finfo(weight.dtype).eps if np.issubdtype(weight.dtype, np.floating) else 0.0
    rounding = max(precision * max(weight.shape), np.sqrt(np.finfo(np.float64).eps * len(weight)))
    return int(np.sum(squares > squares[-1] * rounding**2)) if squares[-1] > 0 else 0


def subspace_overlaps(bases: Float[np.ndarray, "layers width rank"]) -> Float64[np.ndarray, "layers layers"]:
    r"""Mean squared cosine of the principal angles between every two subspaces, $\|B_i^\top B_j\|_F^2 / k$.

    Args:
        bases: orthonormal columns.

    Returns:
        Overlaps in [0, 1], symmetric, 1 on the diagonal; of random subspaces k / width in the mean.

    Examples:
        >>> subspace_overlaps(np.stack([np.eye(3)[:, :2], np.eye(3)[:, 1:]]))
        array([[1. , 0.5],
               [0.5, 1. ]])
    """
    layers, width, rank = bases.shape
    columns = bases.transpose(1, 0, 2).reshape(width, layers * rank)
    squares = ((columns.T @ columns) ** 2).reshape(layers, rank, layers, rank)
    return np.minimum(squares.sum((1, 3)) / rank, 1.0)


def spectral_overlaps(weights: Sequence[Float[np.ndarray, "width _"]]) -> Float64[np.ndarray, "layers layers"]:
    r"""Cosine of $W W^\top$ and $V V^\top$ as vectors, for every two weights.

    Args:
        weights: of one width; numbers of inputs may differ.

    Returns:
        Overlaps in [0, 1], symmetric, 1 on the diagonal: 0 if they write to orthogonal subspaces, 1 if they write the
        same covariance.

    Raises:
        ValueError: if a weight is zero or not finite.

    Examples:
        >>> spectral_overlaps([np.eye(2), np.diag([1.0, 0.0])]).round(4)
        array([[1.    , 0.7071],
               [0.7071, 1.    ]])
    """
    flat = np.stack([_gram(weight).ravel() for weight in weights])
    lengths = np.linalg.norm(flat, axis=1)
    if not lengths.all():
        raise ValueError(f"weights: number {int(np.argmin(lengths))} is zero; leave it out")
    return np.minimum(flat @ flat.T / np.outer(lengths, lengths), 1.0)


def spectra_matched(
    singular_values: Float[np.ndarray, " rank"], width: int, generator: np.random.Generator
) -> Float64[np.ndarray, "width rank"]:
    """A random matrix with given singular values and Haar-random left vectors; right ones do not matter to outputs.

    Raises:
        ValueError: if there are more singular values than the width.

    Examples:
        >>> np.linalg.svd(spectra_matched(np.array([3.0, 1.0]), 5, np.random.default_rng(0)), compute_uv=False)
        array([3., 1.])
    """
    return haar_subspace(width, len(singular_values), generator) * singular_values


def rows_permuted(
    weight: Float[np.ndarray, "width inputs"], generator: np.random.Generator
) -> Float64[np.ndarray, "width inputs"]:
    """Null that knows the coordinates: entries permuted within each row, with random signs.

    Norms of rows stay, so that a coordinate to which much is written keeps it; all correlation between rows goes.

    Examples:
        >>> np.linalg.norm(rows_permuted(np.array([[3.0, 4.0], [0.0, 1.0]]), np.random.default_rng(0)), axis=1)
        array([5., 1.])
    """
    signs = generator.choice([-1.0, 1.0], size=weight.shape)
    return generator.permuted(weight.astype(np.float64), axis=1) * signs


def shared_subspace(bases: Float[np.ndarray, "layers width rank"], shared: int) -> Float64[np.ndarray, "width shared"]:
    r"""Directions that most of several subspaces share: top eigenvectors of the mean of their projectors.

    Among all subspaces of its rank it has the largest mean overlap with the given ones (Draper et al. 2014, "A flag
    representation for finite collections of subspaces of mixed dimensions").

    Args:
        bases: orthonormal columns, one subspace per layer.
        shared: rank of the result, from 1 to ``width``.

    Raises:
        ValueError: if the rank is out of range, or no subspace is given.

    Examples:
        >>> np.abs(shared_subspace(np.stack([np.eye(3)[:, :2], np.eye(3)[:, 1:]]), 1))
        array([[0.],
               [1.],
               [0.]])
    """
    layers, width, _ = bases.shape
    if not layers or not 1 <= shared <= width:
        raise ValueError(
            f"bases and shared: {layers} subspaces of {width} dimensions share none of rank {shared}; "
            f"pass at least one subspace and a rank of 1 to {width}"
        )
    columns = bases.transpose(1, 0, 2).reshape(width, -1)
    vectors = np.linalg.svd(columns, full_matrices=shared > columns.shape[1])[0]
    return vectors[:, :shared]


def _gram(weight: np.ndarray) -> Float64[np.ndarray, "width width"]:
    if not np.isfinite(weight).all():
        raise ValueError("weight: an entry is not finite; drop this checkpoint")
    exact = weight.astype(np.float64)
    return exact @ exact.T
