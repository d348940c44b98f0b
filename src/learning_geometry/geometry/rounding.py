"""What of a number is rounding: decisions by a scale, never by exact zero or equality.

What is zero on paper by cancellation (a difference, a deviation from a mean, an eigenvalue, a residual) is exactly zero
with the kernels of one processor, and some 1e-17 of what was summed with those of another. So it is compared with what
was summed. A number as it was given, or a sum of squares of such numbers, is zero with every kernel or with none, and
needs no scale.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Real

Numbers = float | int | np.number | Real[np.ndarray, "..."]

EPSILON = float(np.finfo(np.float64).eps)

UNITS = 8
"""Units in the last place that count as rounding, for each √term."""


def rounding(scale: Numbers, terms: int = 1, epsilon: float = EPSILON) -> Float64[np.ndarray, "..."]:
    r"""How large a zero may come out: $8 \varepsilon \sqrt{\text{terms}} \cdot |\text{scale}|$.

    The error of a sum of n rounded terms grows like √n (Higham and Mary 2019, "A new approach to probabilistic rounding
    error analysis", SIAM J. Sci. Comput. 41, A2815), not like the bound n of the worst case.

    Args:
        scale: size of what was summed: the norms of two vectors multiplied, the largest of some numbers.
        terms: number of terms that were summed, from 1.
        epsilon: of the precision of the sum, or of its terms if they are less precise.

    Returns:
        Of the scale's shape and unit.

    Examples:
        >>> bool(0.1 + 0.2 - 0.3 <= rounding(0.3)), bool(1e-15 <= rounding(0.3))
        (True, False)
    """
    return np.asarray(UNITS * epsilon * np.sqrt(terms) * np.abs(scale), dtype=np.float64)


def is_rounding(value: Numbers, scale: Numbers, terms: int = 1, epsilon: float = EPSILON) -> Bool[np.ndarray, "..."]:
    """Whether numbers are no larger than rounding makes a zero (see :func:`rounding`); NaN is not.

    Examples:
        >>> is_rounding(np.array([0.0, 1e-16, 1e-6, np.nan]), 1.0)
        array([ True,  True, False, False])
    """
    return np.asarray(np.isfinite(value) & (np.abs(value) <= rounding(scale, terms, epsilon)))


def difference(first: Numbers, second: Numbers, terms: int = 1) -> Float64[np.ndarray, "..."]:
    """First minus second; 0 where nothing but rounding tells them apart.

    Args:
        first: any shape.
        second: of a shape that fits it.
        terms: number of terms that either is a sum of.

    Examples:
        >>> difference(np.array([0.1 + 0.2, 0.3, np.inf]), 0.3)
        array([ 0.,  0., inf])
    """
    with np.errstate(invalid="ignore"):
        differences = np.asarray(np.subtract(first, second), dtype=np.float64)
    scale = np.maximum(np.abs(first), np.abs(second))
    return np.where(np.isfinite(scale) & is_rounding(differences, scale, terms), 0.0, differences)


def equal(values: Real[np.ndarray, "*values"], terms: int = 1) -> bool:
    """Whether nothing but rounding tells finite numbers apart.

    Examples:
        >>> equal(np.array([0.3, 0.1 + 0.2])), equal(np.array([0.3, 0.300001]))
        (True, False)
    """
    return bool(is_rounding(np.ptp(values), np.abs(values).max(), terms))


def deviations(
    values: Real[np.ndarray, "samples *features"], scale: Numbers | None = None
) -> Float64[np.ndarray, "samples *features"]:
    """Values minus their mean over the samples, in float64; exactly 0 where nothing but rounding is left.

    Args:
        values: finite, at least one sample.
        scale: size of the values before anything was taken from them; None: of each feature the largest.

    Examples:
        >>> deviations(np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]]))
        array([[ 0., -1.],
               [ 0.,  0.],
               [ 0.,  1.]])
    """
    exact = values.astype(np.float64)
    centred = exact - exact.mean(0)
    centred[is_rounding(centred, np.abs(exact).max(0) if scale is None else scale, len(exact))] = 0.0
    return centred


def first_largest(values: Float[np.ndarray, "*rows n"], scale: Numbers) -> Int64[np.ndarray, "*rows"]:
    """Index of the largest value along the last axis, the first of those that nothing but rounding tells from it.

    Args:
        values: finite.
        scale: of a shape that fits the values: size of what was summed to each.

    Examples:
        >>> first_largest(np.array([0.2, 0.3, 0.1 + 0.2]), 1.0)
        array(1)
    """
    largest = values.max(-1, keepdims=True)
    return np.asarray(is_rounding(largest - values, scale, values.shape[-1]).argmax(-1))


def descending(values: Real[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Order from the largest to the smallest; those that nothing but rounding tells apart stay in their order.

    Examples:
        >>> descending(np.array([0.3, 0.5, 0.1 + 0.2, 0.0]))
        array([1, 0, 2, 3])
    """
    order = np.argsort(-values, kind="stable")
    falls = -np.diff(values[order])
    # each value's rank, equal for ties
    rank = (
        np.concatenate([[0], np.cumsum(~is_rounding(falls, np.abs(values).max(initial=0.0)))]) if len(order) else order
    )
    return order[np.lexsort((order, rank))]
