r"""Power laws of spectra: $\lambda_i \propto i^{-\alpha}$ over a range of ranks, and how well it describes them.

The exponent of a covariance's eigenvalues measures how fast they decay: Stringer et al. 2019, "High-dimensional
geometry of population responses in visual cortex"; Agrawal et al. 2022, "α-ReQ: assessing representation quality in
self-supervised learning by measuring eigenspectrum decay". It means something over a stated range of ranks alone: the
first eigenvalues are few and follow no law, the last ones are those of the sample.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from learning_geometry.geometry.moments import principal_variances
from learning_geometry.geometry.rounding import equal
from learning_geometry.geometry.wishart import wishart

FEWEST_RANKS = 3
"""Two points lie on any line."""


class PowerLaw(NamedTuple):
    """A line through logarithms of eigenvalues against those of their ranks.

    Attributes:
        exponent: α, minus the slope; positive where eigenvalues fall.
        r_squared: share of the variance of ln λ that the line explains, at most 1.
    """

    exponent: float
    r_squared: float


def power_law(variances: Float[np.ndarray, " width"], first: int, last: int) -> PowerLaw:
    r"""Exponent α of $\lambda_i \propto i^{-\alpha}$ by ordinary least squares of $\ln \lambda_i$ on $\ln i$.

    Args:
        variances: eigenvalues of a covariance, descending, non-negative, in any unit.
        first: first rank of the fit, from 1.
        last: last rank of the fit, included.

    Returns:
        NaN where an eigenvalue of the range is 0; an r² of NaN where all of them are equal.

    Raises:
        ValueError: if the range has fewer than three ranks or is not within the spectrum, or a value is not finite.

    Examples:
        >>> law = power_law(np.arange(1.0, 101.0) ** -1.5, 5, 50)
        >>> round(law.exponent, 12), round(law.r_squared, 12)
        (1.5, 1.0)
    """
    if not 1 <= first <= last - FEWEST_RANKS + 1 or last > len(variances):
        raise ValueError(
            f"first and last: ranks {first} to {last} of {len(variances)} eigenvalues are no range to fit; pass at "
            f"least {FEWEST_RANKS} that there are"
        )
    chosen = variances[first - 1 : last]
    if not np.isfinite(chosen).all() or (chosen < 0).any():
        raise ValueError("variances: one is negative or not finite; pass the eigenvalues of a finite covariance")
    if not chosen.all():
        return PowerLaw(np.nan, np.nan)
    ranks = np.log(np.arange(first, last + 1))
    values = np.log(chosen)
    ranks, values = ranks - ranks.mean(), values - values.mean()
    slope = float(ranks @ values / (ranks @ ranks))
    rest = float(np.sum((values - slope * ranks) ** 2))
    return PowerLaw(-slope, np.nan if equal(chosen) else 1 - rest / float(values @ values))


def planted_power_law_exponents(
    exponent: float, count: int, width: int, first: int, last: int, draws: int, generator: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    r"""What :func:`power_law` finds in samples of Gaussian vectors whose covariance has a known exponent.

    The difference of their mean from the exponent is the bias of the estimator at this number of vectors, and their
    spread its sampling error.

    Args:
        exponent: α of the covariance $\mathrm{diag}(i^{-\alpha})$, over all ranks.
        count: number of vectors, more than the width.
        width: of the vectors.
        first: as of :func:`power_law`.
        last: as of :func:`power_law`.
        draws: number of samples.
        generator: source of randomness.

    Examples:
        >>> found = planted_power_law_exponents(1.0, 10_000, 64, 5, 32, 20, np.random.default_rng(0))
        >>> bool(abs(found.mean() - 1.0) < 0.02)
        True
    """
    scale = np.arange(1, width + 1) ** (-exponent / 2)
    # centring takes one degree of freedom
    scatters = wishart(width, count - 1, draws, generator) * np.outer(scale, scale)
    return np.array([power_law(principal_variances(scatter), first, last).exponent for scatter in scatters])
