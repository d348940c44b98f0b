"""Null trajectories: what the shape of a trajectory is where nothing but chance, or decay, moves the parameters.

Each null takes the run's own inner products, so that it shares its sampling times, number of snapshots and step norms,
and returns the inner products of the displacements from its first snapshot, many draws at once. Random steps in N
dimensions are drawn as Wishart matrices, exactly and at a cost that does not grow with N.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from learning_geometry.geometry.rounding import rounding
from learning_geometry.geometry.trajectories import COLUMNS, from_first
from learning_geometry.geometry.wishart import wishart


class Decay(NamedTuple):
    """An Ornstein-Uhlenbeck process sampled once per snapshot: x_t+1 = decay x_t + drift + noise, x_0 = 0."""

    decay: float
    """Factor per snapshot, in [0, 1]; 1 is a random walk with drift."""
    squared_drift: float
    """Squared norm of the constant drift; the mean lies at drift / (1 - decay)."""
    squared_noise: float
    """Mean squared norm of the noise of one snapshot, isotropic."""


def isotropic_walk(
    snapshots: int, entries: int, draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draws snapshots snapshots"]:
    r"""Random walks of independent Gaussian steps of mean squared norm 1, started at 0.

    In high dimension their variance shares tend to those of $1 / (4 \sin^2(\pi k / 2 T))$, the spectrum of a centred
    walk: 61 % on the first component for 40 snapshots (Antognini and Sohl-Dickstein 2018, "PCA of high dimensional
    random walks with comparison to neural network training").

    Args:
        snapshots: number T, from 2.
        entries: dimension of the space.
        draws: number of walks.
        generator: source of randomness.

    Raises:
        ValueError: if a number is out of range.

    Examples:
        >>> from learning_geometry.geometry.trajectories import first_component_share, variances
        >>> walks = isotropic_walk(40, 100_000, 200, np.random.default_rng(0))
        >>> first_component_share(variances(walks)).mean().round(2)
        np.float64(0.61)
    """
    if entries < 1 or snapshots < 2:
        raise ValueError(f"snapshots and entries: {snapshots} and {entries} make no walk; pass at least 2 and 1")
    return _walk(wishart(snapshots - 1, entries, draws, generator) / entries)


def step_norm_walk(
    gram: Float[np.ndarray, "snapshots snapshots"], entries: int, draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draws snapshots snapshots"]:
    """Random walks whose steps have the run's own norms and independent, uniformly random directions.

    Args:
        gram: inner products of the run's snapshots about any origin.
        entries: dimension of the space.
        draws: number of walks.
        generator: source of randomness.

    Examples:
        >>> walks = step_norm_walk(np.diag([0.0, 1.0, 4.0]), 50, 3, np.random.default_rng(0))
        >>> walks[:, 1, 1].round(6)  # the first step has the run's norm, 1
        array([1., 1., 1.])
    """
    squares = np.diag(steps(gram))
    # of two equal snapshots rounding leaves a square of either sign
    norms = np.sqrt(np.where(squares > rounding(np.trace(gram), COLUMNS), squares, 0.0))
    random = wishart(len(norms), entries, draws, generator)
    lengths = np.sqrt(np.diagonal(random, axis1=1, axis2=2))
    scale = norms / lengths
    return _walk(random * scale[:, :, None] * scale[:, None, :])


def shuffled_increments(
    gram: Float[np.ndarray, "snapshots snapshots"], draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draws snapshots snapshots"]:
    """The run's own steps in random order: the same end, and the same steps, but no order of time.

    Args:
        gram: inner products of the run's snapshots about any origin.
        draws: number of orders.
        generator: source of randomness.

    Examples:
        >>> shuffled_increments(np.diag([0.0, 2.0, 2.0]), 2, np.random.default_rng(0))[:, 2, 2]  # the end stays
        array([2., 2.])
    """
    increments = steps(gram)
    orders = generator.permuted(np.tile(np.arange(len(increments)), (draws, 1)), axis=1)
    return _walk(increments[orders[:, :, None], orders[:, None, :]])


def random_signs(
    gram: Float[np.ndarray, "snapshots snapshots"], draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draws snapshots snapshots"]:
    """The run's own steps in order, each forwards or backwards by the toss of a coin.

    Args:
        gram: inner products of the run's snapshots about any origin.
        draws: number of choices of signs.
        generator: source of randomness.

    Examples:
        >>> line = np.outer([0.0, 1.0, 2.0], [0.0, 1.0, 2.0])  # two equal steps: the end is at 2, 0 or -2
        >>> np.unique(random_signs(line, 50, np.random.default_rng(0))[:, 2, 2])
        array([0., 4.])
    """
    increments = steps(gram)
    signs = generator.choice([-1.0, 1.0], size=(draws, len(increments)))
    return _walk(increments * signs[:, :, None] * signs[:, None, :])


def ornstein_uhlenbeck(
    gram: Float[np.ndarray, "snapshots snapshots"], entries: int, draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draws snapshots snapshots"]:
    """Ornstein-Uhlenbeck processes that relax from the run's start to its fitted mean with its fitted decay and noise.

    The direction from start to mean is one fixed vector; noise is isotropic. Its parameters are those of
    :func:`fit_decay`.

    Args:
        gram: inner products of the run's snapshots about any origin, at least 4 snapshots.
        entries: dimension of the space.
        draws: number of trajectories.
        generator: source of randomness.

    Raises:
        ValueError: if there are fewer than 4 snapshots, or the trajectory does not move.
    """
    decay, squared_drift, squared_noise = fit_decay(gram)
    count = len(gram) - 1
    # of the noise, its component along the drift and what is across
    along = generator.standard_normal((draws, count, 1)) * np.sqrt(squared_noise / entries) + np.sqrt(squared_drift)
    across = wishart(count, entries - 1, draws, generator) * (squared_noise / entries)
    powers = np.subtract.outer(np.arange(count), np.arange(count))
    response = np.where(powers >= 0, decay ** np.maximum(powers, 0), 0.0)
    return _from_zero(response @ (along * along.swapaxes(1, 2) + across) @ response.T)


def fit_decay(gram: Float[np.ndarray, "snapshots snapshots"]) -> Decay:
    r"""Fit an Ornstein-Uhlenbeck process to a trajectory by maximum likelihood, drift of random direction.

    Least squares with a free mean would be biased towards decay, in any dimension: a random walk of 40 snapshots would
    give .93 for 1 (Nickell 1981, "Biases in dynamic models with fixed effects"). Integrating over the direction of the
    drift removes this. With $R_t = x_{t+1} - a x_t$, $S_w$ their sum of squares about the mean and $S_b$ that of the
    mean, n steps, the decay a in [0, 1] minimises $(n - 1) \ln S_w + \ln S_b$, or $n \ln(S_w + S_b)$ where $S_b$ is no
    more than noise alone makes it and the drift is 0. Both are smooth, so their stationary points are roots.

    Args:
        gram: inner products of the run's snapshots about any origin, at least 4 snapshots.

    Raises:
        ValueError: if there are fewer than 4 snapshots, or the trajectory does not move.

    Examples:
        >>> x = 1 - 0.8 ** np.arange(6)  # from 0 towards 1, without noise
        >>> fit = fit_decay(np.outer(x, x))
        >>> round(fit.decay, 4), round(fit.squared_drift, 4), abs(round(fit.squared_noise, 4))
        (0.8, 0.04, 0.0)
    """
    if len(gram) < 4:
        raise ValueError(f"gram: {len(gram)} snapshots are too few to fit a decay; pass at least 4")
    positions = from_first(gram)
    after, before, product = positions[1:, 1:], positions[:-1, :-1], positions[1:, :-1]
    count = len(after)
    # sums of squares of R as polynomials in a, highest power first
    total = np.array([np.trace(before), -2 * np.trace(product), np.trace(after)])
    between = np.array([before.sum(), -2 * product.sum(), after.sum()]) / count
    within = total - between
    if not total[2] > 0:
        raise ValueError("gram: the trajectory does not move; leave out parameters that training does not change")
    smallest = 1e-15 * total[2]

    def cost(decay: float) -> float:
        inside, outside = (max(float(np.polyval(p, decay)), smallest) for p in (within, between))
        if outside * (count - 1) < inside:
            return count * float(np.log((inside + outside) / count))
        return (count - 1) * float(np.log(inside / (count - 1))) + float(np.log(outside))

    stationary = np.polyadd(
        (count - 1) * np.polymul(np.polyder(within), between), np.polymul(np.polyder(between), within)
    )
    # a double root, of a trajectory without noise, may come out with a rounding error in its imaginary part
    roots = np.real(np.concatenate([np.roots(stationary), np.roots(np.polyder(total)), np.roots(np.polyder(within))]))
    decay = min(np.clip([*roots, 0.0, 1.0], 0.0, 1.0).tolist(), key=cost)
    noise = max(float(np.polyval(within, decay)), 0.0) / (count - 1)
    drift = (max(float(np.polyval(between, decay)), 0.0) - noise) / count
    if drift <= 0:
        return Decay(decay, 0.0, max(float(np.polyval(total, decay)), 0.0) / count)
    return Decay(decay, drift, noise)


def weight_decay(
    squared_norm: float, rate: float, steps: Integer[np.ndarray, " snapshots"]
) -> Float[np.ndarray, "snapshots snapshots"]:
    """Weight decay alone, θ₀ (1 - rate)^t after t training steps: all snapshots on one line through the origin.

    Args:
        squared_norm: θ₀ · θ₀ of the first snapshot.
        rate: share that one training step takes off, learning rate x weight decay, in (0, 1).
        steps: training steps of the snapshots, ascending; t counts from the first.

    Returns:
        Inner products of the displacements from the first snapshot, shape (snapshots, snapshots), of rank one.

    Raises:
        ValueError: if the rate is out of range.

    Examples:
        >>> weight_decay(1.0, 0.5, np.array([0, 1, 2])).round(4)
        array([[0.    , 0.    , 0.    ],
               [0.    , 0.25  , 0.375 ],
               [0.    , 0.375 , 0.5625]])
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate: {rate} does not let weights decay; pass a number between 0 and 1")
    moved = np.expm1((steps - steps[0]) * np.log1p(-rate))
    return squared_norm * np.outer(moved, moved)


def steps(gram: Float[np.ndarray, "snapshots snapshots"]) -> Float[np.ndarray, "snapshots-1 snapshots-1"]:
    """Inner products of the steps between successive snapshots, from those of the snapshots about any origin.

    Examples:
        >>> steps(np.outer([0.0, 1.0, 3.0], [0.0, 1.0, 3.0]))
        array([[1., 2.],
               [2., 4.]])
    """
    return np.diff(np.diff(gram, axis=0), axis=1)


def _walk(increments: np.ndarray) -> np.ndarray:
    return _from_zero(increments.cumsum(-1).cumsum(-2))


def _from_zero(positions: np.ndarray) -> np.ndarray:
    """Put the first snapshot, at the origin, before the others."""
    return np.pad(positions, [(0, 0), (1, 0), (1, 0)])
