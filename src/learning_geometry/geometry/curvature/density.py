"""Spectral density of a symmetric matrix given by its products, by stochastic Lanczos quadrature."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from learning_geometry.geometry.curvature.products import Product
from learning_geometry.geometry.curvature.trace import Estimate


class SpectralDensity(NamedTuple):
    """A quadrature of the density of eigenvalues for each random probe.

    Attributes:
        nodes: Ritz values, shape (probes, steps), ascending in each probe; in the unit of the eigenvalues.
        weights: Share of the eigenvalues that each node stands for, same shape, at least 0, sum 1 in each probe.
            Probes that exhausted the space early repeat their last node with weight 0.
        dimension: Number of eigenvalues.
    """

    nodes: Float[np.ndarray, "probes steps"]
    weights: Float[np.ndarray, "probes steps"]
    dimension: int


def spectral_density(
    product: Product,
    dimension: int,
    probes: int,
    steps: int,
    generator: np.random.Generator,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> SpectralDensity:
    r"""Density of the eigenvalues by Lanczos from random vectors, with full reorthogonalisation.

    For a random unit vector v, $E[v^\top f(A) v] = \mathrm{tr} f(A) / n$; Lanczos from v gives the Gauss quadrature
    of the left side, exact for polynomials f up to degree 2 `steps` - 1 (Ubaru, Chen and Saad 2017, "Fast estimation of
    tr(f(A)) via stochastic Lanczos quadrature"; Ghorbani, Krishnan and Xiao 2019 for Hessians). Without
    reorthogonalisation the largest eigenvalues would be counted again and again.

    Args:
        product: Symmetric matrix-vector product of flat vectors.
        dimension: Number of rows of the matrix.
        probes: Random vectors, at least 2: their spread gives the standard errors.
        steps: Products for each probe, from 1; more than `dimension` are not made.
        generator: Source of the vectors.
        dtype: Type of the vectors given to `product`; the quadrature is float64.
        device: Device of these vectors.

    Raises:
        ValueError: If a number is out of range or a product is not finite.

    Examples:
        >>> diagonal = torch.tensor([-1.0, 0.0, 2.0])
        >>> density = spectral_density(lambda v: diagonal * v, 3, 50, 3, np.random.default_rng(0))
        >>> density.nodes[0].round(3) + 0.0
        array([-1.,  0.,  2.])
        >>> found = mass_below(density, -0.5)  # one of three
        >>> abs(found.value - 1 / 3) < 3 * found.standard_error < 0.2
        True
    """
    if dimension < 1 or probes < 2 or steps < 1:
        raise ValueError(
            f"dimension, probes and steps: {dimension}, {probes} and {steps}; pass at least 1, 2 and 1, for the spread "
            "over probes is the error"
        )
    steps = min(steps, dimension)
    nodes, weights = np.empty((probes, steps)), np.zeros((probes, steps))
    for probe in range(probes):
        start = torch.from_numpy(generator.standard_normal(dimension))
        diagonal, above = _tridiagonal(product, start.to(device, dtype), steps)
        values, vectors = eigh_tridiagonal(diagonal, above)
        nodes[probe] = values[-1]
        nodes[probe, : len(values)] = values
        weights[probe, : len(values)] = vectors[0] ** 2
    return SpectralDensity(nodes, weights / weights.sum(1, keepdims=True), dimension)


def mass_below(density: SpectralDensity, threshold: float) -> Estimate:
    """Share of the eigenvalues below a threshold, in [0, 1], with its standard error over probes.

    Nodes count whole or not at all: with few steps this is far off where many eigenvalues lie close to the threshold,
    and `mass_bounds` tells how far it can be.

    Examples:
        >>> two = SpectralDensity(np.array([[-1.0, 2.0], [-1.0, 2.0]]), np.array([[0.25, 0.75], [0.35, 0.65]]), 9)
        >>> [round(number, 3) for number in mass_below(two, 0.0)]
        [0.3, 0.05, 2]
    """
    return _over_probes((density.weights * (density.nodes < threshold)).sum(1))


def mass_bounds(density: SpectralDensity, threshold: float) -> tuple[Estimate, Estimate]:
    """Bounds of the share of the eigenvalues below a threshold that hold for any number of steps.

    Of each probe's own measure, the share below a node lies between the weights of the nodes before it and those up to
    and with it (the separation theorem of Chebyshev, Markov and Stieltjes; Szegő 1975, "Orthogonal polynomials",
    theorem 3.41.1). So the last node below the threshold may count or not, and so may the first one above.

    Returns:
        The lower and the upper bound, each a mean over probes with its standard error.

    Examples:
        >>> two = SpectralDensity(np.array([[-1.0, 0.5, 2.0]] * 2), np.array([[0.2, 0.3, 0.5]] * 2), 9)
        >>> [round(bound.value, 3) for bound in mass_bounds(two, 1.0)]
        [0.2, 1.0]
    """
    cumulative = np.concatenate([np.zeros((len(density.nodes), 1)), density.weights.cumsum(1)], axis=1)
    below = (density.nodes < threshold).sum(1)
    rows = np.arange(len(below))
    low = cumulative[rows, np.maximum(below - 1, 0)]
    high = cumulative[rows, np.minimum(below + 1, density.nodes.shape[1])]
    return _over_probes(low), _over_probes(high)


def moments(density: SpectralDensity, order: int) -> Estimate:
    """Mean of the eigenvalues to the power `order`, with its standard error over probes; times n it is tr(A^order).

    Raises:
        ValueError: If `order` is negative.
    """
    if order < 0:
        raise ValueError(f"order: {order} is negative; pass 0 or more")
    return _over_probes((density.weights * density.nodes**order).sum(1))


def smoothed(
    density: SpectralDensity, grid: Float[np.ndarray, " points"], width: float
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Density on a grid, each node widened to a Gaussian of standard deviation `width`: mean and its standard error.

    Raises:
        ValueError: If `width` is not positive.
    """
    if not width > 0:
        raise ValueError(f"width: {width} is not positive; pass the standard deviation of the kernel")
    kernel = np.exp(-0.5 * ((grid[:, None, None] - density.nodes) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    by_probe = (kernel * density.weights).sum(-1)
    return by_probe.mean(1), by_probe.std(1, ddof=1) / np.sqrt(by_probe.shape[1])


def _over_probes(values: Float[np.ndarray, " probes"]) -> Estimate:
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))), len(values))


def _tridiagonal(product: Product, start: Tensor, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the diagonal and off-diagonal of Lanczos's matrix; shorter if the space is exhausted."""
    rounding = torch.finfo(start.dtype).eps
    basis = torch.empty(steps, len(start), dtype=start.dtype, device=start.device)
    diagonal, above = np.empty(steps), np.empty(steps)
    vector = start / torch.linalg.vector_norm(start)
    for step in range(steps):
        basis[step] = vector
        known = basis[: step + 1]
        image = product(vector).clone()  # the product may return its argument
        diagonal[step] = float(torch.dot(vector.double(), image.double()))
        for _ in range(2):  # twice is enough (Parlett 1998, section 6.9)
            image -= known.T @ (known @ image)
        above[step] = float(torch.linalg.vector_norm(image, dtype=torch.float64))
        if not (np.isfinite(diagonal[step]) and np.isfinite(above[step])):
            raise ValueError(f"product: it is not finite at product {step + 1}; check the loss and its parameters")
        spread = float(np.abs(diagonal[: step + 1]).max() + 2 * above[:step].max(initial=0.0))
        if above[step] <= 10 * rounding * spread:
            return diagonal[: step + 1], above[:step]
        vector = image / above[step]
    return diagonal, above[:-1]
