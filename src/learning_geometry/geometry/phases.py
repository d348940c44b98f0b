"""Three phases of a curve: a fall, its largest rise, a fall after that; found in one half, measured in the other.

The largest rise of a noisy curve is positive, and the curve falls before it and after it, whatever is behind the noise.
What is found in one half of the data is therefore measured in the other, whose sampling noise is independent: noise
alone then has a mean of 0 in all three. What training itself does at random is no noise of a sample, and stays.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from learning_geometry.geometry.rounding import difference


class Phases(NamedTuple):
    """Changes of a curve before, during and after a stretch, in its unit.

    Attributes:
        fall_before: value at the start of the curve minus that at the start of the stretch.
        rise: value at the end of the stretch minus that at its start.
        fall_after: value at the end of the stretch minus the last value.
        start: index where the stretch starts.
        stop: index where it ends.
    """

    fall_before: float
    rise: float
    fall_after: float
    start: int
    stop: int


def largest_rise(values: Float[np.ndarray, " n"]) -> tuple[int, int]:
    """Return between which two places, in this order, a curve rises most; the first such, and twice 0 if it never does.

    Raises:
        ValueError: if there is no value, or one is not finite.

    Examples:
        >>> largest_rise(np.array([5.0, 1.0, 3.0, 9.0, 4.0])), largest_rise(np.array([3.0, 2.0]))
        ((1, 3), (0, 0))
    """
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("values: there is none, or one is not finite; pass a curve that is known everywhere")
    rises = np.triu(values[None] - values[:, None])
    start, stop = np.unravel_index(rises.argmax(), rises.shape)
    return int(start), int(stop)


def three_phases(chosen_on: Float[np.ndarray, " n"], measured_on: Float[np.ndarray, " n"]) -> Phases:
    """Find the largest rise of one curve, and return what another does before, during and after it.

    Args:
        chosen_on: the curve from one half of the data.
        measured_on: the same from the other half.

    Examples:
        >>> curve = np.array([5.0, 1.0, 3.0, 9.0, 4.0])
        >>> three_phases(curve, curve + 1)
        Phases(fall_before=4.0, rise=8.0, fall_after=5.0, start=1, stop=3)
    """
    start, stop = largest_rise(chosen_on)
    before, rise, after = (
        difference(measured_on[0], measured_on[start]),
        difference(measured_on[stop], measured_on[start]),
        difference(measured_on[stop], measured_on[-1]),
    )
    return Phases(float(before), float(rise), float(after), start, stop)
