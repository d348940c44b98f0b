"""Does a quantity saturate along a coordinate: a saturating curve and a line, compared on held-out data."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real
from scipy.optimize import minimize_scalar

from learning_geometry.geometry.rounding import is_rounding

SCALES = np.geomspace(1e-3, 1e6, 271)
"""Scales c that are tried first, in units of the range of x: a sharper curve is a step, a wider one a line."""


class Line(NamedTuple):
    """The line y = intercept + slope x."""

    intercept: float
    slope: float

    def at(self, x: Real[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return the line at ``x``."""
        return self.intercept + self.slope * x


class Saturating(NamedTuple):
    """The curve y = asymptote + amplitude exp(−(x − origin) / scale), scale > 0: it levels off as x grows.

    In the form a + b exp(−x / c): a = asymptote, b = amplitude exp(origin / scale), c = scale.

    Attributes:
        asymptote: what y tends to, in its unit.
        amplitude: y − asymptote at the origin.
        scale: by how much x grows while the distance from the asymptote falls to 1/e, in its unit.
        origin: the smallest x of the fit.
    """

    asymptote: float
    amplitude: float
    scale: float
    origin: float

    def at(self, x: Real[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return the curve at ``x``."""
        return self.asymptote + self.amplitude * np.exp(-(x - self.origin) / self.scale)


def fit_line(x: Real[np.ndarray, " n"], y: Real[np.ndarray, " m"]) -> Line:
    """Least-squares line.

    Args:
        x: places, shape (n,).
        y: values there.

    Raises:
        ValueError: if lengths differ, a number is not finite, or x takes fewer than two values.

    Examples:
        >>> fit_line(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0]))
        Line(intercept=1.0, slope=2.0)
    """
    _check(x, y, 2)
    ((slope,), _) = _projected(x[None], y)
    return Line(float(y.mean() - slope * x.mean()), float(slope))


def fit_saturating(x: Real[np.ndarray, " n"], y: Real[np.ndarray, " m"]) -> Saturating:
    r"""Least-squares fit of $y = a + b\, e^{-x / c}$ with $c > 0$.

    Variable projection (Golub and Pereyra 1973): for a given c the best a and b solve a linear problem, so only c is
    searched, first on a logarithmic grid from 1/1000 to 10⁶ times the range of x, then by Brent's method between
    the neighbours of the best. So no starting value can lead astray. A line is the limit of large c, and data that
    bend the other way give the largest scale.

    Args:
        x: places, shape (n,).
        y: values there.

    Raises:
        ValueError: if lengths differ, a number is not finite, or x takes fewer than three values.

    Examples:
        >>> x = np.linspace(0.0, 4.0, 9)
        >>> curve = fit_saturating(x, 1.0 + 2.0 * np.exp(-x / 0.5))
        >>> [round(number, 4) for number in curve]
        [1.0, 2.0, 0.5, 0.0]
    """
    _check(x, y, 3)
    origin, extent = float(x.min()), float(np.ptp(x))

    def fallen(scales: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k n"]:
        return -np.expm1(-(x - origin) / scales[:, None])

    def squared_error(log_scale: float) -> float:
        return float(_projected(fallen(extent * np.exp([log_scale])), y)[1][0])

    logs = np.log(SCALES)
    errors = _projected(fallen(extent * SCALES), y)[1]
    best = int(np.argmin(errors))
    between = (logs[max(best - 1, 0)], logs[min(best + 1, len(logs) - 1)])
    optimum = minimize_scalar(squared_error, bounds=between, method="bounded", options={"xatol": 1e-12})
    scale = extent * np.exp([optimum.x if optimum.fun < errors[best] else logs[best]])
    ((slope,), _), gone = _projected(fallen(scale), y), fallen(scale)[0].mean()
    # y = at origin + slope (1 − e), e the exponential
    return Saturating(float(y.mean() + slope * (1 - gone)), -float(slope), float(scale[0]), origin)


FORMS: dict[str, Callable[[np.ndarray, np.ndarray], Line | Saturating]] = {
    "saturating": fit_saturating,
    "line": fit_line,
}
"""Name of a form -> its fit."""


def held_out_error(
    x_train: Real[np.ndarray, " n"],
    y_train: Real[np.ndarray, " m"],
    x_test: Real[np.ndarray, " k"],
    y_test: Real[np.ndarray, " l"],
    form: str,
) -> float:
    """Root mean square error on some data of a fit made on others.

    Only on held-out data are the forms on equal terms: a saturating curve has one parameter more than a line, and
    contains it as a limit, so that in sample it never fits worse. Nothing is extrapolated: at places beyond those of
    the fit both forms keep their value at the nearest end, since an exponential explodes to its left.

    Args:
        x_train: places of the fit.
        y_train: values there.
        x_test: places at which the fit is judged.
        y_test: values there.
        form: one of ``FORMS``.

    Returns:
        The error in the unit of y.

    Raises:
        ValueError: if the form is unknown, there is nothing to judge on, or the fit cannot be made.

    Examples:
        The line through the ends of a parabola misses its middle:

        >>> held_out_error(np.array([-2.0, 2.0]), np.array([4.0, 4.0]), np.zeros(1), np.zeros(1), "line")
        4.0
    """
    if form not in FORMS:
        raise ValueError(f"form: {form!r} is unknown; use one of {list(FORMS)}")
    _check(x_test, y_test, 1, "x_test and y_test")
    fit = FORMS[form](x_train, y_train)
    return float(np.sqrt(np.mean((fit.at(np.clip(x_test, x_train.min(), x_train.max())) - y_test) ** 2)))


def _projected(
    regressors: Real[np.ndarray, "k n"], y: Real[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Return slopes and squared errors of the least-squares lines through (regressor, y), one for each regressor."""
    centred, of_y = regressors - regressors.mean(1, keepdims=True), y - y.mean()
    slopes = centred @ of_y / (centred**2).sum(1)
    return slopes, ((of_y - slopes[:, None] * centred) ** 2).sum(1)


def _check(x: np.ndarray, y: np.ndarray, fewest: int, names: str = "x and y") -> None:
    if x.shape != y.shape:
        raise ValueError(f"{names}: {x.size} places for {y.size} values; pass one value per place")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"{names}: some are not finite; leave these points out")
    distinct = 1 + int(np.sum(~is_rounding(np.diff(np.sort(x)), np.abs(x).max(initial=0.0)))) if x.size else 0
    if distinct < fewest:
        raise ValueError(
            f"{names}: {x.size} points at {distinct} different places do not determine {fewest} parameters; "
            "pass more places"
        )
