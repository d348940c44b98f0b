r"""By which law a positive quantity grows with depth: four laws fitted on the first layers, judged on the last.

All have two parameters and are fitted by least squares of the logarithm, so that every layer counts by its relative
error and no law has an advantage but being true:

- linear: $y = a + b x$;
- square: $y = (a + b x)^2$, the variance of what grows linearly;
- power: $y = a x^b$;
- exponential: $y = a e^{b x}$.

x is the number of the layer, so that layer 0 is left out: at the embedding a power law is 0 or infinite, and the
activations of a chat template's last token are all equal.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Real

LAWS = ("linear", "square", "power", "exponential")
FITTED_SHARE = 2 / 3
"""Share of the layers, the first, on which laws are fitted."""

_LOG_RATIOS = np.linspace(-20.0, 20.0, 401)
"""Logarithms of last over first value of the fit that are tried first for the line."""
_STEPS = 20


class Law(NamedTuple):
    """A fitted law; parameters as in the module's docstring, one of each per curve.

    Attributes:
        name: one of ``LAWS``.
        a: in the unit of y, of a square in its root.
        b: slope in that unit per layer, exponent, or rate per layer.
    """

    name: str
    a: Float64[np.ndarray, "*curves"]
    b: Float64[np.ndarray, "*curves"]

    def at(self, x: Real[np.ndarray, " n"]) -> Float64[np.ndarray, "*curves n"]:
        """Return the law at ``x``; a line may be negative there, and a square is 0 where its line is."""
        a, b = self.a[..., None], self.b[..., None]
        if self.name == "linear":
            return a + b * x
        if self.name == "square":
            return np.maximum(a + b * x, 0.0) ** 2
        return a * np.exp(b * x) if self.name == "exponential" else a * x.astype(np.float64) ** b


def fit_law(name: str, x: Real[np.ndarray, " n"], y: Real[np.ndarray, "*curves m"]) -> Law:
    r"""Least-squares fit of ln y by the logarithm of a law.

    The power law and the exponential are straight lines of ln y against ln x and x, and a square is the line fitted to
    the root. The line is
    $\ln y = u + \ln(1 - t + e^r t)$ with t from 0 at the first to 1 at the last place, so that it is positive between
    them; u is linear, r is searched on a grid and then by Gauss–Newton steps.

    Args:
        name: one of ``LAWS``.
        x: places, positive, shape (n,).
        y: positive values there; any number of leading axes, such as bootstrap resamples.

    Raises:
        ValueError: if the law is unknown, a place or value is not positive and finite, numbers differ, or x takes fewer
            than two values.

    Examples:
        >>> x = np.arange(1.0, 6.0)
        >>> [tuple(round(float(p), 6) for p in fit_law(*of)[1:]) for of in [
        ...     ("linear", x, 3 + 2 * x), ("square", x, (3 + 2 * x) ** 2),
        ...     ("power", x, 3 * x**2), ("exponential", x, 3 * np.exp(x / 2))]]
        [(3.0, 2.0), (3.0, 2.0), (3.0, 2.0), (3.0, 0.5)]
    """
    if name not in LAWS:
        raise ValueError(f"name: the law {name!r} is unknown; use one of {list(LAWS)}")
    _check(x, y)
    places, logs = x.astype(np.float64), np.log(y.astype(np.float64))
    if name == "linear":
        return _fit_line(places, logs)
    if name == "square":  # least squares of the logarithm of the root have the same minimum
        return _fit_line(places, logs / 2)._replace(name=name)
    regressor = np.log(places) if name == "power" else places
    centred = regressor - regressor.mean()
    slope = logs @ centred / (centred @ centred)
    return Law(name, np.asarray(np.exp(logs.mean(-1) - slope * regressor.mean())), np.asarray(slope))


def held_out_law_errors(
    layers: Real[np.ndarray, " n"], y: Real[np.ndarray, "*curves m"], share: float = FITTED_SHARE
) -> dict[str, Float64[np.ndarray, "*curves"]]:
    r"""Error of each law on the last layers, of a fit on the first ones.

    Args:
        layers: numbers of the layers, ascending; layer 0 is left out, and so is what y is there.
        y: positive values; any number of leading axes.
        share: of the layers from 1 on that are fitted, rounded down; in (0, 1).

    Returns:
        Per law the root mean square of $\ln(\hat y / y)$ on the other layers: .1 is an error of about 10 %. Infinite
        where a line, or that of a square, is not positive there.

    Raises:
        ValueError: if numbers differ, layers do not ascend, fewer than two can be fitted or none judged, or a value
            from layer 1 on is not positive.

    Examples:
        >>> layers = np.arange(31)
        >>> errors = held_out_law_errors(layers, 0.1 * np.exp(0.2 * layers))
        >>> {law: round(float(error), 2) for law, error in errors.items()}
        {'linear': 1.9, 'square': 1.3, 'power': 1.55, 'exponential': 0.0}
    """
    if y.shape[-1:] != layers.shape:
        raise ValueError(f"layers: {layers.size} for {y.shape[-1]} values; pass one value per layer")
    if not (np.diff(layers) > 0).all():
        raise ValueError("layers: they do not ascend; sort them and drop repetitions")
    if not 0 < share < 1:
        raise ValueError(f"share: {share} leaves nothing to fit or to judge on; pass a number between 0 and 1")
    after = layers > 0
    x, values = layers[after], y[..., after]
    # 2/3 of 30 layers are 20 of them, whatever the rounding of 2/3
    fitted = int(share * len(x) + 1e-9)
    if fitted < 2 or fitted == len(x):
        raise ValueError(
            f"layers: of {len(x)} from layer 1 on, {fitted} would be fitted and {len(x) - fitted} judged; "
            "pass more layers, at least 3"
        )
    _check(x[fitted:], values[..., fitted:], 1)
    errors = {}
    for name in LAWS:
        predicted = fit_law(name, x[:fitted], values[..., :fitted]).at(x[fitted:])
        with np.errstate(divide="ignore"):
            logs = np.log(np.maximum(predicted, 0.0)) - np.log(values[..., fitted:])
        errors[name] = np.asarray(np.sqrt(np.mean(logs**2, axis=-1)))
    return errors


def _fit_line(x: np.ndarray, logs: np.ndarray) -> Law:
    first, last = x.min(), x.max()
    t = (x - first) / (last - first)

    def curve(ratio: np.ndarray) -> np.ndarray:
        return np.log1p(np.expm1(ratio) * t)

    curves = curve(_LOG_RATIOS[:, None])
    curves -= curves.mean(-1, keepdims=True)
    target = logs - logs.mean(-1, keepdims=True)
    ratio = _LOG_RATIOS[np.argmin((curves**2).sum(-1) - 2 * target @ curves.T, axis=-1)][..., None]
    for _ in range(_STEPS):
        slope = np.exp(ratio) * t / (1 + np.expm1(ratio) * t)
        slope = slope - slope.mean(-1, keepdims=True)
        missing = target - (curve(ratio) - curve(ratio).mean(-1, keepdims=True))
        step = (missing * slope).sum(-1, keepdims=True) / (slope**2).sum(-1, keepdims=True)
        # within a grid step of the best of the grid
        ratio = ratio + np.clip(step, -0.1, 0.1)
    start = np.exp(logs.mean(-1) - curve(ratio).mean(-1))
    slope_per_layer = start * np.expm1(ratio[..., 0]) / (last - first)
    return Law("linear", np.asarray(start - slope_per_layer * first), np.asarray(slope_per_layer))


def _check(x: np.ndarray, y: np.ndarray, fewest: int = 2) -> None:
    if y.shape[-1:] != x.shape:
        raise ValueError(f"x and y: {x.size} places for {y.shape[-1]} values; pass one value per place")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all() and (y > 0).all()):
        raise ValueError("x and y: some are not positive and finite; leave these layers out")
    if len(np.unique(x)) < fewest:
        raise ValueError(f"x: {x.size} places do not determine two parameters; pass at least two different ones")
