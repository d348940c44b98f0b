"""Singular-value spectra: effective dimensions, and gaps that no Gaussian matrix would show."""

import numpy as np
from jaxtyping import Float, Int

from learning_geometry.geometry.nulls import gaussian_singular_values
from learning_geometry.geometry.rounding import is_rounding

GAP_LEVEL = 0.999
GAP_DRAWS = 8000
TAIL = 0.1
"""Share of the simulated log-ratios, the largest, to which the tail of each is fitted."""
MAXIMUM_TAIL = 0.05
"""Share of the simulated maxima, the largest, from which their quantile is extrapolated."""


def singular_values(matrix: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, " rank"]:
    """Singular values of a matrix in float64, descending, min(rows, columns) of them, in the matrix's unit.

    Those that are rounding of the largest are 0.

    Raises:
        ValueError: if the matrix is empty or holds non-finite entries.

    Examples:
        >>> singular_values(np.array([[0.0, 2.0], [3.0, 0.0]]))
        array([3., 2.])
    """
    if matrix.size == 0 or not np.isfinite(matrix).all():
        raise ValueError(f"matrix: its {matrix.shape} entries are none or not all finite; drop this checkpoint")
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    return np.where(is_rounding(values, values[0], max(matrix.shape)), 0.0, values)


def effective_rank(singular_values: Float[np.ndarray, " rank"]) -> float:
    r"""Effective rank $\exp(-\sum_i p_i \ln p_i)$ with $p_i = \sigma_i / \sum_j \sigma_j$.

    Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality", definition 1.

    Args:
        singular_values: non-negative, shape (rank,), in any order and unit.

    Returns:
        A number in [1, rank]; NaN for a zero matrix, whose effective rank is undefined.

    Raises:
        ValueError: if a singular value is negative or not finite.

    Examples:
        >>> effective_rank(np.array([2.0, 2.0, 2.0, 0.0])).__round__(12)
        3.0
    """
    _check_spectrum(singular_values)
    total = singular_values.sum()
    if total == 0:
        return float("nan")
    shares = singular_values[singular_values > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))


def participation_ratio(singular_values: Float[np.ndarray, " rank"]) -> float:
    r"""Participation ratio $(\sum_i \lambda_i)^2 / \sum_i \lambda_i^2$ of variances $\lambda_i = \sigma_i^2$.

    Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement". For the
    eigenvalues of a covariance pass their square roots.

    Args:
        singular_values: non-negative, shape (rank,), in any order and unit.

    Returns:
        A number in [1, rank]; NaN for a zero matrix, whose participation ratio is undefined.

    Raises:
        ValueError: if a singular value is negative or not finite.

    Examples:
        >>> participation_ratio(np.array([2.0, 2.0, 2.0, 0.0]))
        3.0
        >>> round(participation_ratio(np.array([2.0, 1.0])), 4)  # 25 / 17
        1.4706
    """
    _check_spectrum(singular_values)
    if not singular_values.any():
        return float("nan")
    variances = (singular_values / singular_values.max()) ** 2
    return float(variances.sum() ** 2 / (variances**2).sum())


def stable_rank(singular_values: Float[np.ndarray, " rank"]) -> float:
    r"""Stable rank $\sum_i \sigma_i^2 / \sigma_1^2$: the squared Frobenius norm over the squared spectral norm.

    Rudelson and Vershynin 2007, "Sampling from large matrices", section 1.

    Args:
        singular_values: non-negative, shape (rank,), in any order and unit.

    Returns:
        A number in [1, rank]; NaN for a zero matrix, whose stable rank is undefined.

    Raises:
        ValueError: if a singular value is negative or not finite.

    Examples:
        >>> stable_rank(np.array([2.0, 2.0, 1.0]))
        2.25
    """
    _check_spectrum(singular_values)
    if not singular_values.any():
        return float("nan")
    return float(np.sum((singular_values / singular_values.max()) ** 2))


def singular_value_gaps(
    singular_values: Float[np.ndarray, "*draws rank"],
) -> Float[np.ndarray, "*draws rank-1"]:
    r"""Ratios $\sigma_i / \sigma_{i+1} \ge 1$ of successive singular values.

    Args:
        singular_values: descending along the last axis, non-negative, shape (..., rank).

    Returns:
        Ratios, shape (..., rank - 1): infinite where only $\sigma_{i+1}$ is zero, NaN where both are.

    Raises:
        ValueError: if the singular values ascend somewhere, or one is negative or not finite.

    Examples:
        >>> singular_value_gaps(np.array([8.0, 4.0, 1.0, 0.0]))
        array([ 2.,  4., inf])
    """
    _check_spectrum(singular_values)
    if (np.diff(singular_values, axis=-1) > 0).any():
        raise ValueError("singular_values: they ascend somewhere; sort them in descending order")
    with np.errstate(divide="ignore", invalid="ignore"):
        return singular_values[..., :-1] / singular_values[..., 1:]


def gaussian_gap_quantiles(
    shape: tuple[int, int], generator: np.random.Generator, level: float = GAP_LEVEL, draws: int = GAP_DRAWS
) -> Float[np.ndarray, " ratios"]:
    r"""Ratios of singular values that a Gaussian matrix exceeds at any index with probability 1 - level.

    One threshold per index, each exceeded with the same probability, and corrected for the number of indices
    by the maximum statistic (Westfall and Young 1993, "Resampling-based multiple testing"):

    1. On the first half of the draws the tail of each $g_i = \ln(\sigma_i / \sigma_{i+1})$ is fitted as
       $-\ln P(g_i > x) = (x / s_i)^{c_i}$, by regression of $\ln g_i$ on $\ln(-\ln p)$ over the largest
       tenth. This is the form of the known laws: level repulsion (the Wigner surmise) gives $c = 2$ in the
       bulk, the Tracy-Widom law $c = 3/2$ at the upper edge, the hard edge of a square matrix $c = 1$.
    2. On the other half, $M = \max_i (g_i / s_i)^{c_i}$ is the statistic. Its tail is close to exponential,
       so its quantile $m$ at ``level`` is extrapolated from the mean excess over its 95 % quantile.
    3. The thresholds are $\exp(s_i m^{1 / c_i})$.

    Args:
        shape: rows and columns of the matrix; the ratios do not depend on its scale.
        generator: source of randomness.
        level: family-wise level in (.5, 1): 1 minus the chance that any ratio of a Gaussian matrix exceeds
            its own.
        draws: simulated matrices, at least 400.

    Returns:
        Threshold of each ratio, shape (min(shape) - 1,), all above 1.

    Raises:
        ValueError: if ``level``, ``draws`` or ``shape`` is out of range.

    Examples:
        The ratio of a square 2 x 2 Gaussian matrix has the tail P(ratio > x) = 2 x / (1 + x^2):

        >>> bool(abs(gaussian_gap_quantiles((2, 2), np.random.default_rng(0), 0.99)[0] / 200 - 1) < 0.3)
        True
    """
    if not 0.5 < level < 1:
        raise ValueError(f"level: {level} is not a family-wise level; pass a number between 0.5 and 1")
    if draws < 400:
        raise ValueError(f"draws: {draws} matrices cannot show a tail; pass at least 400")
    if min(shape) < 2:
        raise ValueError(f"shape: a matrix of shape {shape} has no two singular values; pass at least (2, 2)")
    logarithms = np.log(singular_value_gaps(gaussian_singular_values(shape, draws, generator)))
    half = draws // 2
    scale, exponent = _weibull_tail(logarithms[:half])
    largest = ((logarithms[half:] / scale) ** exponent).max(axis=1)
    share = max(MAXIMUM_TAIL, 1 - level)
    base = np.quantile(largest, 1 - share)
    quantile = base + np.mean(largest[largest > base] - base) * np.log(share / (1 - level))
    return np.exp(scale * quantile ** (1 / exponent))


def _weibull_tail(
    samples: Float[np.ndarray, "draws columns"],
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    r"""Scale $s$ and exponent $c$ of $P(x) = \exp(-(x / s)^c)$ for the largest tenth of each column."""
    kept = int(TAIL * len(samples))
    rank = np.arange(kept, 0, -1)
    exceedance = (rank - 0.5) / len(samples)
    position = np.log(-np.log(exceedance))
    # the k-th largest has variance about 1 / k in -ln p, hence 1 / (k (ln p)^2) in ln(-ln p)
    weight = rank * np.log(exceedance) ** 2
    response = np.log(np.sort(samples, axis=0)[-kept:])
    centre = np.average(position, weights=weight)
    slope = (weight * (position - centre)) @ response / np.sum(weight * (position - centre) ** 2)
    return np.exp(np.average(response, axis=0, weights=weight) - slope * centre), 1 / slope


def significant_gaps(
    singular_values: Float[np.ndarray, " rank"], thresholds: Float[np.ndarray, " rank-1"]
) -> Int[np.ndarray, " gaps"]:
    r"""Ranks after which there is a gap: all $i$ (from 1) with $\sigma_i / \sigma_{i+1}$ above its threshold.

    Args:
        singular_values: descending, shape (rank,).
        thresholds: one per ratio, as ``gaussian_gap_quantiles`` of the matrix's shape gives them.

    Returns:
        Ascending ranks: [1, 35] means groups 1, 2 to 35, and 36 on. Empty where there is no gap.

    Raises:
        ValueError: if the singular values are not descending and non-negative.

    Examples:
        >>> significant_gaps(np.array([9.0, 3.0, 2.9, 1.0]), np.array([2.0, 2.0, 2.0]))
        array([1, 3])
    """
    gaps = singular_value_gaps(singular_values)
    return np.flatnonzero(gaps > thresholds) + 1


def _check_spectrum(values: np.ndarray) -> None:
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("singular_values: one is negative or not finite; pass the singular values of a finite matrix")
