r"""How many directions activations use, from the moments of a stream of them.

Of N centred vectors of width d with singular values σ (of the N × d matrix), in shares of d:

- directions: the smallest number of principal directions that hold 99 % of the variance;
- effective rank: $\exp H(\sigma / \sum \sigma)$, and the same of σ² (Roy and Vetterli 2007, "The effective rank").

They are invariant to the scale of the vectors, to their mean and to rotations of the space, and to nothing else. Fewer
than about 10 d vectors lower them; :func:`isotropic_ranks` says by how much where nothing is low-dimensional.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from learning_geometry.geometry.moments import Moments, principal_variances
from learning_geometry.geometry.nulls import gaussian_singular_values
from learning_geometry.geometry.spectra import effective_rank
from learning_geometry.geometry.trajectories import dimension

VARIANCE_SHARE = 0.99
ROGUE_RATIO = 6.0
"""A coordinate is rogue if its root mean square exceeds this many times the median over coordinates."""


class Ranks(NamedTuple):
    """Dimensions in shares of the width, each in (0, 1].

    Attributes:
        directions: principal directions that hold 99 % of the variance.
        effective_rank: exponential of the entropy of the singular values.
        effective_rank_of_variances: the same of their squares.
    """

    directions: float
    effective_rank: float
    effective_rank_of_variances: float


def ranks(variances: Float[np.ndarray, " width"], share: float = VARIANCE_SHARE) -> Ranks:
    """Dimensions of vectors with given principal variances, in shares of their number.

    Args:
        variances: descending, non-negative, in any unit.
        share: share of the variance that the directions hold, in (0, 1).

    Returns:
        Three shares; NaN of vectors that do not vary, whose dimensions are undefined.

    Raises:
        ValueError: if the share is out of range, or a variance is negative or not finite.

    Examples:
        >>> ranks(np.array([2.0, 2.0, 0.0, 0.0]))
        Ranks(directions=0.5, effective_rank=0.5, effective_rank_of_variances=0.5)
    """
    width = len(variances)
    if not variances.any():
        return Ranks(np.nan, np.nan, np.nan)
    # as effective_rank checks the variances, it comes first
    of_variances = effective_rank(variances) / width
    of_values = effective_rank(np.sqrt(variances)) / width
    return Ranks(int(dimension(variances, share)) / width, of_values, of_variances)


def activation_ranks(of: Moments, share: float = VARIANCE_SHARE) -> Ranks:
    """Dimensions of a stream of vectors (see :func:`ranks`).

    For the curve against the number of vectors, take :func:`~learning_geometry.geometry.moments.growing`; without the
    rogue dimensions, :func:`~learning_geometry.geometry.moments.restricted` to the others, of which shares are then.

    Raises:
        ValueError: if there are fewer than two vectors, or the share is out of range.

    Examples:
        >>> from learning_geometry.geometry.moments import moments
        >>> activation_ranks(moments(np.array([[1.0, 5.0], [-1.0, 5.0]]))).directions
        0.5
    """
    if of.n < 2:
        raise ValueError(f"moments: {of.n} vector does not vary; pass at least 2")
    return ranks(principal_variances(of.scatter), share)


def principal_directions(of: Moments, rank: int) -> Float64[np.ndarray, "width rank"]:
    """Orthonormal basis of the directions of largest variance, in descending order.

    Args:
        of: moments of the vectors.
        rank: number of directions, from 1 to the width.

    Raises:
        ValueError: if the rank is out of range.

    Examples:
        >>> from learning_geometry.geometry.moments import moments
        >>> np.abs(principal_directions(moments(np.array([[0.0, 3.0], [0.0, -3.0]])), 1))
        array([[0.],
               [1.]])
    """
    width = len(of.mean)
    if not 1 <= rank <= width:
        raise ValueError(f"rank: vectors of width {width} have no {rank} principal directions; pass 1 to {width}")
    return np.linalg.eigh(of.scatter)[1][:, : -rank - 1 : -1]


def rogue_dimensions(of: Moments, ratio: float = ROGUE_RATIO) -> Bool[np.ndarray, " width"]:
    r"""Coordinates that are out of all proportion: those whose root mean square exceeds ``ratio`` times the median.

    About zero, not about the mean: a coordinate that is large and constant dominates cosines, one that is large and
    varies dominates variances. The rule has no unit, and what it is compared with does not depend on the rogues unless
    they are half of all. Of Gaussian coordinates of equal variance none is rogue.

    Source: Timkey and van Schijndel 2021, "All bark and no bite: rogue dimensions in transformer language models
    obscure representational quality"; their rule names the coordinates by their share of the mean cosine. A ratio to
    the median is how Sun et al. 2024, "Massive activations in large language models", define theirs, of single entries.

    Args:
        of: moments of the vectors.
        ratio: from 1; 6 means 36 times the median's mean square.

    Returns:
        True where the coordinate is rogue.

    Raises:
        ValueError: if the ratio is below 1.

    Examples:
        >>> from learning_geometry.geometry.moments import moments
        >>> rogue_dimensions(moments(np.array([[1.0, 50.0, 1.0], [-1.0, 50.0, 2.0]])))
        array([False,  True, False])
    """
    if not ratio >= 1:
        raise ValueError(
            f"ratio: {ratio} would make coordinates rogue that are smaller than half of all; pass 1 or more"
        )
    squares = of.mean**2 + np.diag(of.scatter) / of.n
    return squares > ratio**2 * np.median(squares)


def isotropic_ranks(
    count: int, width: int, draws: int, generator: np.random.Generator, share: float = VARIANCE_SHARE
) -> list[Ranks]:
    """Null: the ranks of as many vectors whose entries are independent and normal, of equal variance.

    Args:
        count: number of vectors, from 2.
        width: their width.
        draws: number of samples.
        generator: source of randomness.
        share: as of :func:`ranks`.

    Raises:
        ValueError: if there are fewer than two vectors, a number is below 1, or the share is out of range.

    Examples:
        >>> isotropic_ranks(20_000, 100, 1, np.random.default_rng(0))[0].directions
        0.99
        >>> isotropic_ranks(101, 100, 1, np.random.default_rng(0))[0].directions  # as many vectors as dimensions
        0.77
    """
    if count < 2:
        raise ValueError(f"count: {count} vectors do not vary; pass at least 2")
    # centring takes one degree of freedom
    values = gaussian_singular_values((count - 1, width), draws, generator)
    padded = np.zeros((draws, width))
    padded[:, : values.shape[1]] = values**2
    return [ranks(variances, share) for variances in padded]
