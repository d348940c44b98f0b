"""Spectral density of a symmetric matrix given by its products: stochastic Lanczos quadrature."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal

from learning_geometry.geometry.curvature.products import Product
from learning_geometry.geometry.curvature.recurrence import lanczos
from learning_geometry.geometry.curvature.trace import Estimate
from learning_geometry.geometry.rounding import is_rounding


class SpectralDensity(NamedTuple):
    """Gauss quadratures of the spectral measure, one per random vector.

    A probe z sees the measure with mass (z, e_i)² at each eigenvalue, e_i its eigenvector; its mean over random z is
    the spectral measure, with equal mass for every eigenvalue. Probes are independent, so every statistic has its
    standard error from their spread.

    Attributes:
        nodes: Ritz values, in the unit of the eigenvalues, ascending, shape (probes, steps).
        weights: masses, at least 0, each probe's sum is 1. Where a probe's iteration ended early because it had the
            whole measure, the rest of its row repeats the last node with mass 0.
    """

    nodes: Float[np.ndarray, "probes steps"]
    weights: Float[np.ndarray, "probes steps"]


def spectral_density(
    product: Product,
    dimension: int,
    probes: int,
    steps: int,
    generator: np.random.Generator,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> SpectralDensity:
    r"""Spectral density by stochastic Lanczos quadrature with full reorthogonalisation.

    ``steps`` products from each of ``probes`` random sign vectors give a Gauss quadrature that is exact for polynomials
    up to degree 2 ``steps`` - 1 (Golub and Welsch 1969; Ubaru, Chen and Saad 2017, "Fast estimation of tr(f(A)) via
    stochastic Lanczos quadrature"; Ghorbani, Krishnan and Xiao 2019 for Hessians of networks). Without
    reorthogonalisation, large eigenvalues would return as ghosts with mass of their own.

    Args:
        product: symmetric matrix-vector product of flat vectors.
        dimension: number of rows of the matrix.
        probes: random vectors, at least 2.
        steps: products per probe, from 1 to ``dimension``; memory is one vector each.
        generator: source of the signs.
        dtype: type of the vectors given to ``product``, and of the basis. Nodes and weights are float64 always.
        device: device of the vectors given to ``product``.

    Returns:
        Nodes and weights.

    Raises:
        ValueError: if ``probes`` or ``steps`` is out of range, or a product is not finite.

    Examples:
        Half of the eigenvalues of this matrix are -1, and the others 3:

        >>> diagonal = torch.tensor([-1.0, 3.0, 3.0, -1.0])
        >>> density = spectral_density(lambda v: diagonal * v, 4, 2, 2, np.random.default_rng(0))
        >>> density.nodes.round(4).tolist(), density.weights.round(4).tolist()
        ([[-1.0, 3.0], [-1.0, 3.0]], [[0.5, 0.5], [0.5, 0.5]])
    """
    if probes < 2 or not 1 <= steps <= dimension:
        raise ValueError(f"probes and steps: {probes} and {steps}; pass at least 2, and from 1 to {dimension}")
    nodes, weights = np.empty((probes, steps)), np.zeros((probes, steps))
    for probe in range(probes):
        signs = 2.0 * generator.integers(2, size=dimension) - 1
        start = torch.from_numpy(signs / np.sqrt(dimension)).to(device, dtype)
        # where it ends early, the probe has no mass elsewhere
        *_, seen = lanczos(product, start, steps)
        values, vectors = eigh_tridiagonal(seen.diagonal, seen.above[:-1])
        nodes[probe] = values[-1]
        nodes[probe, : len(values)] = values
        weights[probe, : len(values)] = vectors[0] ** 2 / (vectors[0] ** 2).sum()
    return SpectralDensity(nodes, weights)


def mass_below(density: SpectralDensity, threshold: float) -> Estimate:
    """Fraction of the eigenvalues below a threshold, each node counted whole: the share of negative ones at 0.

    The standard error is that over probes alone. A node's mass may stand for eigenvalues on both sides of the
    threshold. Where many lie near it, as at 0 of a Hessian, that bias is larger than the noise (a share of .30 came
    out as .37 ± .01 from 30 steps), so give ``mass_bounds`` too, or choose a threshold away from them.

    Examples:
        >>> density = SpectralDensity(np.array([[-1.0, 1.0]] * 2), np.array([[0.25, 0.75], [0.5, 0.5]]))
        >>> mass_below(density, 0.0)
        Estimate(value=0.375, standard_error=0.125, n=2)
    """
    return _over_probes((density.weights * (density.nodes < threshold)).sum(axis=1))


def mass_bounds(density: SpectralDensity, threshold: float) -> tuple[Estimate, Estimate]:
    """Bounds of the fraction of eigenvalues below a threshold: what the quadrature leaves open, beside its noise.

    Of the measure that a probe sees, the mass below the threshold is at least that of all nodes below but the last of
    them, and at most that of the nodes below and the next one above (the Chebyshev–Markov–Stieltjes inequalities;
    Golub and Meurant 2010, "Matrices, Moments and Quadrature"). More steps narrow the bounds, more probes the
    standard errors.

    Returns:
        Means over probes of the lower and of the upper bound, each with its standard error.

    Examples:
        >>> nodes, weights = np.array([[-2.0, -1.0, 1.0, 2.0]] * 2), np.array([[0.1, 0.2, 0.3, 0.4]] * 2)
        >>> low, high = mass_bounds(SpectralDensity(nodes, weights), 0.0)
        >>> round(low.value, 3), round(high.value, 3)
        (0.1, 0.6)
    """
    low, high = [], []
    for nodes, weights in zip(density.nodes, density.weights, strict=True):
        # a node whose mass is rounding, and may be 0, only widens the bounds if it is left out
        held = ~is_rounding(weights, 1.0)
        nodes, weights = nodes[held], weights[held]
        count = int((nodes < threshold).sum())
        low.append(weights[: max(count - 1, 0)].sum())
        high.append(weights[: count + 1].sum())
    return _over_probes(np.array(low)), _over_probes(np.array(high))


def moments(density: SpectralDensity, order: int) -> Estimate:
    """Mean of the eigenvalues' powers of ``order``: order 1 times the dimension is the trace.

    Unbiased up to order 2 ``steps`` - 1.

    Raises:
        ValueError: if the order is negative.

    Examples:
        >>> moments(SpectralDensity(np.array([[-1.0, 3.0]] * 2), np.array([[0.5, 0.5], [0.25, 0.75]])), 2).value
        6.0
    """
    if order < 0:
        raise ValueError(f"order: {order}; pass 0 or more")
    return _over_probes((density.weights * density.nodes**order).sum(axis=1))


def smoothed(
    density: SpectralDensity, grid: Float[np.ndarray, " points"], width: float
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Density on a grid, every node a normal curve: what a figure shows; its integral is 1.

    Args:
        density: nodes and weights.
        grid: where to evaluate it, in the unit of the eigenvalues.
        width: standard deviation of the normal curve, same unit. Nodes further apart than this show as bumps.

    Returns:
        Mean over probes and its standard error, both per unit of eigenvalue.

    Raises:
        ValueError: if the width is not positive.

    Examples:
        >>> point = SpectralDensity(np.zeros((2, 1)), np.ones((2, 1)))
        >>> mean, error = smoothed(point, np.array([0.0, 1.0]), 1.0)
        >>> mean.round(3).tolist(), error.tolist()
        ([0.399, 0.242], [0.0, 0.0])
    """
    if not width > 0:
        raise ValueError(f"width: {width}; pass a positive standard deviation, such as a hundredth of the spectrum's")
    curves = np.stack(
        [
            np.exp(-(((grid[:, None] - nodes) / width) ** 2) / 2) @ weights
            for nodes, weights in zip(density.nodes, density.weights, strict=True)
        ]
    ) / (width * np.sqrt(2 * np.pi))
    return curves.mean(axis=0), curves.std(axis=0, ddof=1) / np.sqrt(len(curves))


def _over_probes(samples: np.ndarray) -> Estimate:
    return Estimate(float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(len(samples))), len(samples))
