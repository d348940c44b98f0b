"""Stochastic estimates: the trace of a symmetric matrix, and the mean loss increase near a point."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from learning_geometry.geometry.curvature.products import Product


class Estimate(NamedTuple):
    """A Monte Carlo mean.

    Attributes:
        value: mean over the draws.
        standard_error: standard deviation over the draws, divided by the root of their number.
        n: number of draws.
    """

    value: float
    standard_error: float
    n: int

    def interval(self) -> tuple[float, float]:
        """Return the 95 % confidence interval by Student's t; too narrow for few draws of a very skewed quantity.

        >>> [round(end, 3) for end in Estimate(1.0, 0.1, 2).interval()]
        [-0.271, 2.271]
        """
        half_width = float(stdtrit(self.n - 1, 0.975)) * self.standard_error
        return self.value - half_width, self.value + half_width


def hutch_plus_plus(
    product: Product,
    dimension: int,
    probes: int,
    sketch: int,
    generator: np.random.Generator,
    dtype: torch.dtype = torch.float32,
) -> Estimate:
    r"""Trace of a symmetric matrix: exact on a sketched subspace, stochastic on its complement.

    $\mathrm{tr}\, Q^\top A Q + E[z^\top (1 - QQ^\top) A (1 - QQ^\top) z]$ with Q a basis of the range of A S, where S
    holds ``sketch`` random sign vectors, and z random signs (Meyer, Musco, Musco and Woodruff 2021, "Hutch++: Optimal
    stochastic trace estimation", algorithm 1). Unbiased; it uses 2 · ``sketch`` + ``probes`` products. With ``sketch``
    0 it is Hutchinson's estimator, the better one for few products where no few eigenvalues dominate.

    Args:
        product: symmetric matrix-vector product of flat vectors.
        dimension: number of rows of the matrix.
        probes: sign vectors z, at least 2.
        sketch: dimension of the subspace, from 0 to ``dimension``.
        generator: source of the signs.
        dtype: type of the vectors given to ``product``.

    Returns:
        The trace with its standard error, from the spread over probes; n = probes.

    Raises:
        ValueError: if ``probes`` or ``sketch`` is out of range, or a product is not finite.

    Examples:
        Signs give the trace of a diagonal matrix without any error:

        >>> diagonal = torch.tensor([1.0, 2.0, -5.0])
        >>> hutch_plus_plus(lambda v: diagonal * v, 3, 4, 0, np.random.default_rng(0))
        Estimate(value=-2.0, standard_error=0.0, n=4)
    """
    if probes < 2 or not 0 <= sketch <= dimension:
        raise ValueError(f"probes and sketch: {probes} and {sketch}; pass at least 2, and from 0 to {dimension}")

    def signs() -> Tensor:
        return torch.from_numpy(2.0 * generator.integers(2, size=dimension) - 1).to(dtype)

    basis = torch.zeros(dimension, 0, dtype=torch.float64)
    exact = 0.0
    if sketch:
        image = torch.stack([product(signs()).double() for _ in range(sketch)], dim=1)
        basis = torch.linalg.qr(image)[0]
        exact = sum(float(column @ product(column.to(dtype)).double()) for column in basis.T)
    samples = np.empty(probes)
    for index in range(probes):
        sign = signs().double()
        outside = sign - basis @ (basis.T @ sign)
        samples[index] = float(outside @ product(outside.to(dtype)).double())
    if not np.isfinite(samples).all() or not np.isfinite(exact):
        raise ValueError("product: it is not finite; check the loss and its parameters")
    return Estimate(float(exact + samples.mean()), float(samples.std(ddof=1) / np.sqrt(probes)), probes)


def mean_loss_increase(
    loss: Callable[[dict[str, Tensor]], Tensor],
    parameters: Mapping[str, Tensor],
    radius: float,
    pairs: int,
    generator: np.random.Generator,
) -> Estimate:
    r"""Mean loss increase E[L(θ + r ξ) − L(θ)], ξ ~ N(0, 1), with antithetic pairs ±ξ, in float64.

    The pairs cancel the gradient; what is left is $r^2/2 \cdot \mathrm{tr}\, H$ up to order r⁴ (Hochreiter and
    Schmidhuber 1997, "Flat minima", perturb in this way). It is often smaller than the float32 rounding of the loss,
    so everything is computed in float64, whose rounding of L sets the floor, about 1e-16 L.

    Args:
        loss: scalar loss as a function of the named parameters, in their type; no derivative is taken.
        parameters: point; converted to float64.
        radius: standard deviation r of each parameter's perturbation, positive.
        pairs: number of pairs ±ξ, at least 2.
        generator: source of ξ.

    Returns:
        The mean with its standard error over pairs; n = pairs. The unit is that of the loss.

    Raises:
        ValueError: if ``radius`` or ``pairs`` is out of range, or a loss is not finite.

    Examples:
        Of a quadratic with Hessian 2 in one dimension: r² ξ² is r² in the mean.

        >>> square = lambda p: (p["x"] ** 2).sum()
        >>> increase = mean_loss_increase(square, {"x": torch.ones(1)}, 1e-3, 4000, np.random.default_rng(0))
        >>> bool(abs(increase.value - 1e-6) < 3 * increase.standard_error < 1e-7)
        True
    """
    if not radius > 0 or pairs < 2:
        raise ValueError(f"radius and pairs: {radius} and {pairs}; pass a positive radius and at least 2 pairs")
    point = {name: tensor.detach().double() for name, tensor in parameters.items()}
    samples = np.empty(pairs)
    with torch.no_grad():
        here = float(loss(dict(point)))
        for index in range(pairs):
            noise = {
                name: radius * torch.from_numpy(generator.standard_normal(tuple(tensor.shape))).to(tensor.device)
                for name, tensor in point.items()
            }
            both = [
                float(loss({name: tensor + sign * noise[name] for name, tensor in point.items()})) for sign in (1, -1)
            ]
            samples[index] = sum(both) / 2 - here
    if not np.isfinite(samples).all():
        raise ValueError("loss: it is not finite near these parameters; lower the radius, or drop this checkpoint")
    return Estimate(float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(pairs)), pairs)
