"""What does not belong in a series of points along one path: detours, and jumps of a length."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64

NEIGHBOURS = 4
"""On each side, how many neighbours tell what is usual at a place."""

DETOUR = 2.5
"""How much larger a detour must be than is usual around it, and than 1."""

JUMP, SMALLEST_JUMP = 8.0, 0.1
"""How much larger the change of a logarithm must be than is usual around it, and how large at least."""


def detours(
    to_next: Float64[np.ndarray, "pairs"], to_second: Float64[np.ndarray, "_"]
) -> Float64[np.ndarray, "pairs+1"]:
    r"""How far out of the way each point of a path lies: $(d_{i-1,i}^2 + d_{i,i+1}^2) / d_{i-1,i+1}^2$.

    On a straight path of equal steps it is 1/2. For a walk of independent steps it is 1, whatever their sizes: squared
    distances add. Points scattered around one place have 2. A point of another path, or out of order, has much more.

    Args:
        to_next: squared distances between successive points.
        to_second: squared distances between points two apart.

    Returns:
        Non-negative; NaN at both ends, and where a distance is not finite; infinite where only the last is 0.

    Examples:
        >>> detours(np.array([1.0, 1.0, 1.0]), np.array([4.0, 2.0]))
        array([nan, 0.5, 1. , nan])
    """
    found = np.full(len(to_next) + 1, np.nan)
    beside = to_next[:-1] + to_next[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        found[1:-1] = np.where(np.isfinite(beside) & np.isfinite(to_second), beside / to_second, np.nan)
    return found


def unusual_detours(found: Float64[np.ndarray, "steps"]) -> Bool[np.ndarray, "steps"]:
    """Which points lie out of the way: detours above ``DETOUR``, and above as many times the usual of their neighbours.

    The usual is the median over up to ``NEIGHBOURS`` points on each side, those next to it left out: a point out of
    place changes their detours too.

    Examples:
        >>> found = np.full(12, 1.0)
        >>> found[6] = 30.0
        >>> np.flatnonzero(unusual_detours(found))
        array([6])
    """
    # where there are too few neighbours the detour tells alone
    usual = np.nan_to_num([_usual(found, place, besides=1) for place in range(len(found))])
    with np.errstate(invalid="ignore"):
        return (found > DETOUR) & (found > DETOUR * usual)


def unusual_jumps(lengths: Float64[np.ndarray, "steps"]) -> Bool[np.ndarray, "steps"]:
    """Which points are longer or shorter than both neighbours by much more than is usual there, in logarithms.

    A length that rises and stays is no such point: training does that. Of the first point nothing is said, since
    training moves fastest there; the last one is compared with the one before alone.

    Args:
        lengths: such as norms; those that are 0 or not finite are looked at no further.

    Examples:
        >>> lengths = np.linspace(1.0, 1.2, 12)
        >>> lengths[4] *= 1.5
        >>> np.flatnonzero(unusual_jumps(lengths))
        array([4])
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = np.where(lengths > 0, np.log(lengths), np.nan)
    changes = np.abs(np.diff(logarithms))
    flagged = np.zeros(len(lengths), dtype=bool)
    for place, (before, after, usual) in list(enumerate(_surroundings(logarithms, changes)))[1:]:
        apart = np.array([each for each in (before, after) if np.isfinite(each)])
        one_side = len(apart) == 0 or (len(apart) == 2 and apart[0] * apart[1] < 0)
        if one_side or not np.isfinite(usual):
            continue
        flagged[place] = np.abs(apart).min() > max(SMALLEST_JUMP, JUMP * usual)
    return flagged


def _surroundings(logarithms: np.ndarray, changes: np.ndarray) -> Iterator[tuple[float, float, float]]:
    """Yield of each point how far it lies above the one before and the one after, and the usual change around it."""
    for place, here in enumerate(logarithms):
        before = here - logarithms[place - 1] if place > 0 else np.nan
        after = here - logarithms[place + 1] if place + 1 < len(logarithms) else np.nan
        # the changes to and from this point are left out
        left = changes[max(0, place - 1 - NEIGHBOURS) : max(0, place - 1)]
        right = changes[place + 1 : place + 1 + NEIGHBOURS]
        around = np.concatenate([left, right])
        around = around[np.isfinite(around)]
        yield before, after, float(np.median(around)) if len(around) else np.nan


def _usual(values: np.ndarray, place: int, besides: int) -> float:
    left = values[max(0, place - besides - NEIGHBOURS) : max(0, place - besides)]
    right = values[place + besides + 1 : place + besides + 1 + NEIGHBOURS]
    around = np.concatenate([left, right])
    around = around[np.isfinite(around)]
    return float(np.median(around)) if len(around) else np.nan
