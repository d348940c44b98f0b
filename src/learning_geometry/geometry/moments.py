"""Mean and covariance of a stream of vectors in one pass, and what linear maps make of them.

No vector is kept: batches are read once, in any sizes and of any floating type, and everything is float64.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Real

from learning_geometry.geometry.rounding import is_rounding

ACTIVATION_EPSILON = float(np.finfo(np.float32).eps)
"""Of the activations of models, which are float32 at best."""


class Moments(NamedTuple):
    """Number, mean and centred second moment of vectors.

    Attributes:
        n: number of vectors.
        mean: Shape (width,).
        scatter: sum over vectors of the outer product of their deviations from the mean, shape (width, width).
    """

    n: int
    mean: Float64[np.ndarray, " width"]
    scatter: Float64[np.ndarray, "width width"]


def moments(vectors: Real[np.ndarray, "vectors width"]) -> Moments:
    """Moments of vectors that are all there.

    Deviations are taken from the first vector before their mean is: of vectors with a large common offset no digit is
    lost that their type still holds.

    Raises:
        ValueError: if there is no vector, or an entry is not finite.

    Examples:
        >>> moments(np.array([[0.0, 1.0], [2.0, 1.0]]))  # doctest: +NORMALIZE_WHITESPACE
        Moments(n=2, mean=array([1., 1.]), scatter=array([[2., 0.], [0., 0.]]))
    """
    if len(vectors) == 0:
        raise ValueError("vectors: there is none, and so no mean; pass at least one")
    origin = vectors[0].astype(np.float64)
    deviations = vectors.astype(np.float64)
    deviations -= origin
    offset = deviations.mean(0)
    deviations -= offset
    mean = origin + offset
    if not np.isfinite(mean).all():
        raise ValueError("vectors: an entry is not finite; leave out these vectors, or capture in float32")
    return Moments(len(vectors), mean, deviations.T @ deviations)


def merged(first: Moments, second: Moments) -> Moments:
    r"""Moments of both sets of vectors together.

    With $\delta$ the difference of the means, $S = S_1 + S_2 + \frac{n_1 n_2}{n_1 + n_2} \delta\delta^\top$ (Chan,
    Golub and LeVeque 1983, "Algorithms for computing the sample variance"; of a single vector it is Welford's update).

    Raises:
        ValueError: if the widths differ.

    Examples:
        >>> one, other = moments(np.array([[0.0]])), moments(np.array([[4.0]]))
        >>> merged(one, other)
        Moments(n=2, mean=array([2.]), scatter=array([[8.]]))
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"moments: vectors of width {first.mean.size} and {second.mean.size}; merge equal widths")
    n = first.n + second.n
    difference = second.mean - first.mean
    weight = first.n * second.n / n
    return Moments(
        n,
        first.mean + second.n / n * difference,
        first.scatter + second.scatter + weight * np.outer(difference, difference),
    )


def gathered(batches: Iterable[Real[np.ndarray, "_ width"]]) -> Moments:
    """Moments of all vectors of a stream, in one pass.

    Raises:
        ValueError: if there is no vector, an entry is not finite, or the widths differ.

    Examples:
        >>> gathered(np.full((1, 1), value) for value in [1.0, 2.0, 3.0])
        Moments(n=3, mean=array([2.]), scatter=array([[2.]]))
    """
    pooled: Moments | None = None
    for batch in batches:
        if len(batch):
            pooled = moments(batch) if pooled is None else merged(pooled, moments(batch))
    if pooled is None:
        raise ValueError("batches: they hold no vector; pass at least one")
    return pooled


def growing(batches: Iterable[Real[np.ndarray, "_ width"]], counts: Sequence[int]) -> Iterator[Moments]:
    """Moments of the first vectors of a stream, for each of several numbers of them, in one pass.

    Args:
        batches: the stream; its batches are cut where a count ends. What follows the last count is not read.
        counts: strictly increasing, from 1.

    Yields:
        Moments of as many vectors as each count says.

    Raises:
        ValueError: if the counts are not strictly increasing from 1 up, the stream holds fewer vectors than the last
            of them, an entry is not finite, or the widths differ.

    Examples:
        >>> [of_first.mean.item() for of_first in growing([np.arange(3.0)[:, None], np.full((9, 1), 5.0)], [1, 4])]
        [0.0, 2.0]
    """
    if not counts or counts[0] < 1 or not (np.diff(counts) > 0).all():
        raise ValueError(f"counts: {list(counts)} do not increase strictly from 1 up; sort them and drop repetitions")
    pooled: Moments | None = None
    waiting = list(counts)
    for batch in batches:
        start = 0
        while waiting and start < len(batch):
            missing = waiting[0] - (pooled.n if pooled else 0)
            piece = moments(batch[start : start + missing])
            pooled = piece if pooled is None else merged(pooled, piece)
            start += piece.n
            if pooled.n == waiting[0]:
                yield pooled
                del waiting[0]
        if not waiting:
            return
    there = pooled.n if pooled else 0
    raise ValueError(f"counts: {waiting[0]} vectors were asked for, and the stream holds {there}; ask for at most that")


def covariance(of: Moments) -> Float64[np.ndarray, "width width"]:
    """Unbiased covariance, scatter / (n − 1), in the square of the vectors' unit.

    Raises:
        ValueError: if there are fewer than two vectors.

    Examples:
        >>> covariance(moments(np.array([[0.0], [2.0]])))
        array([[2.]])
    """
    if of.n < 2:
        raise ValueError(f"moments: {of.n} vector has no covariance; pass at least 2")
    return of.scatter / (of.n - 1)


def image(of: Moments, weight: Float[np.ndarray, "outputs width"]) -> Moments:
    """Moments of W x from those of x: the vectors are not needed again.

    Examples:
        >>> image(moments(np.array([[0.0], [2.0]])), np.array([[3.0]]))
        Moments(n=2, mean=array([3.]), scatter=array([[18.]]))
    """
    exact = weight.astype(np.float64)
    return Moments(of.n, exact @ of.mean, exact @ of.scatter @ exact.T)


def varies(of: Moments, epsilon: float = ACTIVATION_EPSILON) -> bool:
    """Whether vectors vary by more than the rounding of what they were computed with.

    Args:
        of: moments of the vectors.
        epsilon: of their precision.

    Examples:
        >>> varies(moments(np.array([[1.0], [1.0 + 1e-7]]))), varies(moments(np.array([[1.0], [1.001]])))
        (False, True)
    """
    variance = float(np.trace(of.scatter)) / of.n
    return not is_rounding(np.sqrt(variance), np.sqrt(variance + float(of.mean @ of.mean)), epsilon=epsilon)


def restricted(of: Moments, kept: Bool[np.ndarray, " width"]) -> Moments:
    """Moments of some coordinates of the vectors.

    Raises:
        ValueError: if no coordinate is kept.

    Examples:
        >>> restricted(moments(np.array([[0.0, 1.0], [2.0, 1.0]])), np.array([True, False]))
        Moments(n=2, mean=array([1.]), scatter=array([[2.]]))
    """
    if not kept.any():
        raise ValueError("kept: no coordinate is left; keep at least one")
    return Moments(of.n, of.mean[kept], of.scatter[np.ix_(kept, kept)])


def principal_variances(scatter: Float[np.ndarray, "width width"], scale: float = 0.0) -> Float64[np.ndarray, " width"]:
    """Eigenvalues of a covariance or scatter matrix, descending; those below the rounding of the largest are 0.

    Args:
        scatter: symmetric, positive semi-definite.
        scale: size of what the matrix is a product of, where that may cancel: the rounding of it is 0, too.

    So a standard deviation below √(width · 2e-16), 4e-7 for a width of 576, of the largest counts as none.

    Raises:
        ValueError: if an entry is not finite.

    Examples:
        >>> principal_variances(np.diag([1.0, 4.0, 0.0]))
        array([4., 1., 0.])
    """
    if not np.isfinite(scatter).all():
        raise ValueError("scatter: an entry is not finite; leave out the vectors that are not")
    values = np.linalg.eigvalsh(scatter.astype(np.float64))[::-1]
    return np.where(is_rounding(values, max(values[0], scale), len(values)) | (values < 0), 0.0, values)
