"""Bootstrap intervals of any statistic of independent units, such as prompts, by counts of how often each is drawn.

A statistic here is a function of counts: of all ones it is the estimate, of random counts a bootstrap resample, of all
ones but one 0 a jackknife value. The same counts for several statistics (layers, streams, both sets of a contrast) pair
them: the interval of their difference is that of :func:`difference`. The interval of a mean is in ``uncertainty``.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int64

from learning_geometry.geometry import rounding, uncertainty
from learning_geometry.geometry.uncertainty import SMALLEST_BOOTSTRAP_SAMPLE

Statistic = Callable[[Int64[np.ndarray, "draws units"]], Float[np.ndarray, "draws *quantities"]]
"""From counts, one row per draw, to the statistic of each draw."""


class Resampled(NamedTuple):
    """A statistic of the data, of bootstrap resamples, and with each unit left out.

    Attributes:
        estimate: Shape (*quantities).
        resamples: Shape (draws, *quantities).
        left_out: Shape (units, *quantities).
    """

    estimate: Float[np.ndarray, "*quantities"]
    resamples: Float[np.ndarray, "draws *quantities"]
    left_out: Float[np.ndarray, "units *quantities"]


def bootstrap_counts(units: int, draws: int, generator: np.random.Generator) -> Int64[np.ndarray, "draws units"]:
    """How often each unit is drawn when as many are drawn as there are, with replacement.

    Raises:
        ValueError: if a number is below 1.

    Examples:
        >>> bootstrap_counts(5, 3, np.random.default_rng(0)).sum(1)
        array([5, 5, 5])
    """
    if units < 1 or draws < 1:
        raise ValueError(f"units and draws: {units} and {draws} make no resamples; pass numbers from 1 up")
    drawn = generator.integers(units, size=(draws, units)) + units * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * units).reshape(draws, units)


def resampled(statistic: Statistic, counts: Int64[np.ndarray, "draws units"]) -> Resampled:
    """Evaluate a statistic on the data, on resamples, and with each unit left out.

    Args:
        statistic: a function of counts.
        counts: of the resamples (see :func:`bootstrap_counts`).

    Examples:
        >>> values = np.array([1.0, 2.0, 6.0])
        >>> mean = lambda counts: counts @ values / counts.sum(1)
        >>> resamples = resampled(mean, bootstrap_counts(3, 10, np.random.default_rng(0)))
        >>> float(resamples.estimate), resamples.left_out
        (3.0, array([4. , 3.5, 1.5]))
    """
    units = counts.shape[1]
    ones = np.ones((1, units), dtype=np.int64)
    left_out = statistic(ones - np.eye(units, dtype=np.int64))
    return Resampled(np.asarray(statistic(ones)[0]), statistic(counts), left_out)


def difference(first: Resampled, second: Resampled) -> Resampled:
    """Paired difference of two statistics that were resampled with the same counts.

    Raises:
        ValueError: if the numbers of draws or units differ.
    """
    for name, one, other in zip(("draws", "units"), first[1:], second[1:], strict=True):
        if len(one) != len(other):
            raise ValueError(f"{name}: {len(one)} and {len(other)} are no pairs; resample both with the same counts")
    units = len(first.left_out)
    return Resampled(*(rounding.difference(one, other, units) for one, other in zip(first, second, strict=True)))


def bca_ends(of: Resampled, level: float = 0.95) -> Float[np.ndarray, "2 *quantities"]:
    """Ends of the bias-corrected and accelerated (BCa) bootstrap interval of each quantity (``bca_ends``).

    Args:
        of: of :func:`resampled`, of at least 10 units.
        level: confidence level in (0, 1).

    Returns:
        Lower and upper ends; NaN where a value is not finite, the estimate itself where nothing varies.

    Raises:
        ValueError: if there are fewer than 10 units, or ``level`` is outside (0, 1).

    Examples:
        Of a large normal sample, the mean plus and minus 1.96 standard errors of 1 / 20:

        >>> from scipy import special
        >>> values = special.ndtri((np.arange(400) + 0.5) / 400)
        >>> counts = bootstrap_counts(400, 10_000, np.random.default_rng(0))
        >>> bca_ends(resampled(lambda counts: counts @ values / counts.sum(1), counts)).round(2)
        array([-0.1,  0.1])
    """
    if not 0 < level < 1:
        raise ValueError(f"level: {level} is not a confidence level; pass a number between 0 and 1")
    units, draws = len(of.left_out), len(of.resamples)
    if units < SMALLEST_BOOTSTRAP_SAMPLE:
        raise ValueError(
            f"units: the bootstrap undercovers with {units}; pass at least {SMALLEST_BOOTSTRAP_SAMPLE}, such as prompts"
        )
    estimate = np.asarray(of.estimate, dtype=np.float64).ravel()
    resamples, left_out = of.resamples.reshape(draws, -1), of.left_out.reshape(units, -1)
    ends = np.empty((2, estimate.size))
    for i, value in enumerate(estimate):
        values, leaves = resamples[:, i], left_out[:, i]
        if not (np.isfinite(value) and np.isfinite(values).all() and np.isfinite(leaves).all()):
            ends[:, i] = np.nan
            continue
        if rounding.equal(leaves, units) or rounding.equal(values, units):
            ends[:, i] = value
            continue
        ends[:, i] = uncertainty.bca_ends(float(value), values, leaves, level)
    return ends.reshape(2, *of.estimate.shape)


def pair_counts(
    counts: Int[np.ndarray, "draws pairs"],
) -> tuple[Int[np.ndarray, "draws samples"], Int[np.ndarray, "draws samples"]]:
    """Counts of all samples of contrast pairs, the first set before the second: both of a pair are drawn together.

    Examples:
        >>> pair_counts(np.array([[2, 0]]))
        (array([[2, 0, 0, 0]]), array([[0, 0, 2, 0]]))
    """
    nothing = np.zeros_like(counts)
    return np.concatenate([counts, nothing], axis=1), np.concatenate([nothing, counts], axis=1)
