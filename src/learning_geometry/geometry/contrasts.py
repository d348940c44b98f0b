"""Two sets of activations compared, such as those of harmful and harmless prompts: their means and their variances."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int64, Real

from learning_geometry.geometry.resampling import Resampled, pair_counts, resampled
from learning_geometry.geometry.rounding import deviations, difference, is_rounding

BLOCK = 256
"""Draws that are computed at once."""


class Contrast(NamedTuple):
    """Numbers of two sets of vectors; variances over the samples of a set, unbiased, in the square of their unit.

    Attributes:
        cosine: cosine of the two mean vectors, in [-1, 1]; NaN where one is zero.
        mean_variance_first: variance of the first set, mean over features.
        mean_variance_second: the same of the second set.
        maximum_variance_first: variance of the first set, maximum over features.
        maximum_variance_second: the same of the second set.
    """

    cosine: Float[np.ndarray, "*draws"]
    mean_variance_first: Float[np.ndarray, "*draws"]
    mean_variance_second: Float[np.ndarray, "*draws"]
    maximum_variance_first: Float[np.ndarray, "*draws"]
    maximum_variance_second: Float[np.ndarray, "*draws"]


def contrast(
    vectors: Real[np.ndarray, "samples width"],
    first: Int[np.ndarray, "draws samples"],
    second: Int[np.ndarray, "draws samples"],
) -> Contrast:
    """Compare two sets of samples, each given by how often every sample is in it, for many such pairs of sets.

    Counts serve the data itself, bootstrap resamples, and the null of sets shuffled together: then each row of
    ``first`` is a random half of the samples and ``second`` the other (of ``untangling.swapped_pairs`` or
    ``probes.shuffled_labels``).

    Args:
        vectors: samples of both sets together.
        first: how often each sample is in the first set.
        second: how often in the second.

    Returns:
        One number per draw; variances are NaN of a set of fewer than two samples.

    Raises:
        ValueError: if an entry is not finite, a count is negative, or a set is empty.

    Examples:
        >>> vectors = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> statistics = contrast(vectors, np.array([[1, 1, 0, 0]]), np.array([[0, 0, 1, 1]]))
        >>> [number.item() for number in statistics]
        [0.0, 1.0, 0.0, 2.0, 0.0]
    """
    if not np.isfinite(vectors).all():
        raise ValueError("vectors: an entry is not finite; leave out this layer, or capture in float32")
    for name, counts in (("first", first), ("second", second)):
        if counts.min(initial=0) < 0 or not counts.any(axis=1).all():
            raise ValueError(f"{name}: a count is negative, or a set is empty; pass at least one sample a set")
    exact = vectors.astype(np.float64)
    longest = np.linalg.norm(exact, axis=1).max()
    # an origin near the vectors, so that a large common part costs no digits of the variances
    centred = deviations(exact)
    squares = centred**2
    statistics = np.empty((5, len(first)))
    for start in range(0, len(first), BLOCK):
        block = slice(start, start + BLOCK)
        means = []
        for row, counts in enumerate((first[block], second[block])):
            sizes = counts.sum(1, keepdims=True)
            means.append(counts @ exact / sizes)
            sums = np.maximum(difference(counts @ squares, (counts @ centred) ** 2 / sizes, len(exact)), 0.0)
            variances = sums / np.where(sizes > 1, sizes - 1, np.nan)
            statistics[1 + row, block], statistics[3 + row, block] = variances.mean(1), variances.max(1)
        lengths = np.linalg.norm(means, axis=2)
        directed = ~is_rounding(lengths, longest, exact.size).any(0)
        cosine = np.sum(means[0] * means[1], axis=1) / np.where(directed, lengths.prod(0), np.nan)
        statistics[0, block] = np.clip(cosine, -1.0, 1.0)
    return Contrast(*statistics)


def contrast_resampled(
    first: Real[np.ndarray, "pairs width"],
    second: Real[np.ndarray, "partners width"],
    counts: Int64[np.ndarray, "draws counted"],
) -> Resampled:
    """Contrast of two sets of pairs, with resamples over pairs; its quantities are those of ``Contrast``.

    Both of a pair are drawn together. Pass the same counts for all layers and streams, so that differences between
    them are paired over prompts too.

    Args:
        first: vectors of one set.
        second: vectors of their partners, in the same order.
        counts: of the resamples (see ``resampling.bootstrap_counts``).

    Raises:
        ValueError: as :func:`contrast`, or if the sets differ in size.

    Examples:
        >>> vectors = np.arange(8.0).reshape(4, 2)
        >>> contrast_resampled(vectors, vectors, np.ones((1, 4), dtype=np.int64)).estimate.round(3)
        array([1.   , 6.667, 6.667, 6.667, 6.667])
    """
    if first.shape != second.shape or len(first) != counts.shape[1]:
        raise ValueError(
            f"first, second and counts: {len(first)} vectors, {len(second)} partners, counts of {counts.shape[1]}; "
            "pass one partner and one count for each vector"
        )
    vectors = np.concatenate([first, second])

    def statistic(drawn: Int64[np.ndarray, "draws pairs"]) -> Float[np.ndarray, "draws quantities"]:
        return np.stack(contrast(vectors, *pair_counts(drawn)), axis=1)

    return resampled(statistic, counts)
