"""Extreme eigenpairs of a symmetric matrix given by its products: Lanczos with full reorthogonalisation."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from learning_geometry.geometry.curvature.products import Product
from learning_geometry.geometry.curvature.recurrence import EXPLORATION, lanczos, mixed_start

COMPONENT = 0.1
"""Mean size of the noise along any one eigenvector, of a start's norm, where the largest eigenvalue alone is wanted. On
trained transformers it took one product more than noise of .005, and two fewer to find another largest one."""

HIDDEN = 0.3
"""Fraction by which a hidden eigenvalue may lie above the largest Ritz value of an iteration that follows a start."""

NEAR = 0.01
"""The same of any other iteration, or its tolerance, if that is less. Where five products more were to confirm a bound
instead, at a tolerance of .05, one block of ten had an eigenvalue 3 % above it."""

DOUBT = 0.05
"""Probability allowed to one further above."""

STRICTEST = 1e-3
"""Tolerance at most of an iteration that follows a start: at a looser one the second Ritz value is still far from the
second eigenvalue, and the gap in the bound too wide (8 of 113 values were outside of theirs)."""

ROUNDING = 2000
"""Units of rounding, of the largest eigenvalue in size, by which an eigenvalue may be off: 16 to 36 were seen on
trained transformers of the default size, 440 on a tiny one with weights three times as large."""

SURE = 0.25
"""Share of the gap between Ritz values that is trusted: few products see the second eigenvalue too low. Of 400
simulated spectra followed from a start 3 values were outside of their bounds, at .5 with a further product 10."""


class Eigenpair(NamedTuple):
    """An eigenvalue with its eigenvector and how far they are trusted.

    Attributes:
        value: Ritz value, a lower bound of the largest eigenvalue (an upper bound of the smallest) up to rounding.
        vector: unit Ritz vector, shape (dimension,).
        residual: ||H v - value v||, an upper bound of the distance to the nearest eigenvalue.
        error: min(residual, residual^2 / gap), the bound of the value's error, if no larger eigenvalue stayed
            hidden.
        products: matrix-vector products used.
        converged: whether the stopping rule was met.
        gap: trusted distance from the value to the other eigenvalues; 0 where none was seen.
    """

    value: float
    vector: Float[Tensor, " dimension"]
    residual: float
    error: float
    products: int
    converged: bool
    gap: float = 0.0


def largest_eigenpair(
    product: Product,
    dimension: int,
    tolerance: float,
    start: Float[Tensor, " dimension"] | None = None,
    generator: torch.Generator | None = None,
    maximum_products: int = 200,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Eigenpair:
    r"""Algebraically largest eigenvalue of a symmetric matrix by Lanczos with full reorthogonalisation.

    The error of the largest Ritz value $\theta_1$ is bounded by $\min(r, r^2 / \delta)$, with $r$ its
    residual norm and $\delta$ a quarter (``SURE``) of $\theta_1 - (\theta_2 + r_2)$, the gap to the second Ritz value,
    lessened by its own residual (Parlett 1998, "The Symmetric Eigenvalue Problem", sections 11.7 and 13.2; a quarter,
    as few products see the second too low). A residual tells that some eigenvalue is near, not that it is the
    largest: near-multiple or newly crossed eigenvalues make $\theta_1$ rest on a smaller one for a while.

    The iteration therefore stops only when the bound is below ``tolerance`` times $|\theta_1|$, the last product
    changed $\theta_1$ by less, and it is unlikely (``DOUBT``) that an eigenvalue further above is hidden, see
    :func:`hidden_probability`: from a random start further than the tolerance, and never more than ``NEAR``, times
    $|\theta_1|$.

    A given start, such as the eigenvector at the last checkpoint, saves products. Noise is added to it, of which a
    tenth of the start's norm is along every eigenvector: otherwise an exact eigenvector of another eigenvalue, as after
    a crossing of the two largest, would pass for converged. It is then eigenvalues more than ``HIDDEN`` of $|\theta_1|$
    above that are unlikely to be hidden. One that is closer above can stay hidden, so give every checkpoint noise of
    its own.

    Args:
        product: symmetric matrix-vector product of flat vectors.
        dimension: number of rows of the matrix.
        tolerance: relative error allowed, positive; below about ten units of rounding it is not reachable.
        start: start vector of any length, shape (dimension,); its dtype and device are used. Random by
            default.
        generator: source of the random start and of the noise; by default one of seed 0 on the CPU, which an iteration
            per checkpoint should share, so that what one draw hides the next does not.
        maximum_products: products after which the iteration gives up with ``converged`` False. Memory is up to
            two vectors per product.
        dtype: type of a random start: float32 or float64. Coefficients are float64 always.
        device: device of a random start.

    Returns:
        The eigenpair.

    Raises:
        ValueError: if a product is not finite, the start is zero, not finite or of the wrong size, or
            ``tolerance`` or a number is not positive.

    Examples:
        >>> pair = largest_eigenpair(lambda v: torch.tensor([-9.0, 1.0, 4.0]) * v, 3, 1e-6)
        >>> round(pair.value, 4), pair.converged, [round(abs(x), 3) for x in pair.vector.tolist()]
        (4.0, True, [0.0, 0.0, 1.0])
    """
    return _lanczos(product, dimension, {1: tolerance}, start, generator, maximum_products, dtype, device)[1]


def extreme_eigenpairs(
    product: Product,
    dimension: int,
    tolerance: float,
    smallest_tolerance: float,
    start: Float[Tensor, " dimension"] | None = None,
    generator: torch.Generator | None = None,
    maximum_products: int = 200,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[Eigenpair, Eigenpair]:
    r"""Algebraically largest and smallest eigenvalue of a symmetric matrix by one Lanczos iteration.

    As :func:`largest_eigenpair` from a random start, with or without one given, but it goes on until the smallest
    eigenvalue meets the same rule too; a given start is mixed with noise of equal norm. A negative edge
    that is dense and close to zero needs very many products to a relative error, so that of the smallest eigenvalue is
    relative to the larger of the two in size.

    Args:
        product: symmetric matrix-vector product of flat vectors.
        dimension: number of rows of the matrix.
        tolerance: relative error allowed to the largest eigenvalue, positive.
        smallest_tolerance: error allowed to the smallest eigenvalue, as a fraction of the larger of both in size.
        start: as of :func:`largest_eigenpair`.
        generator: as of :func:`largest_eigenpair`.
        maximum_products: products after which the iteration gives up; each pair tells whether it converged.
        dtype: type of a random start.
        device: device of a random start.

    Returns:
        The pair of the largest and the pair of the smallest eigenvalue; both count all products.

    Raises:
        ValueError: as :func:`largest_eigenpair`.

    Examples:
        >>> largest, smallest = extreme_eigenpairs(lambda v: torch.tensor([-9.0, 1.0, 4.0]) * v, 3, 1e-6, 1e-6)
        >>> round(largest.value, 4), round(smallest.value, 4), [round(abs(x), 3) for x in smallest.vector.tolist()]
        (4.0, -9.0, [1.0, 0.0, 0.0])
    """
    tolerances = {1: tolerance, -1: smallest_tolerance}
    pairs = _lanczos(product, dimension, tolerances, start, generator, maximum_products, dtype, device)
    return pairs[1], pairs[-1]


def hidden_probability(
    values: Float[np.ndarray, " products"],
    above: Float[np.ndarray, " products"],
    distance: float,
    dimension: int,
    share: float = 1.0,
) -> float:
    r"""Bound the probability that an eigenvalue lies further than a distance above the largest Ritz value.

    The next Lanczos vector is $p(A) q_1$ with $p(\lambda) = \prod_j (\lambda - \theta_j) / \beta_j$, and has unit
    length. So the start has a component of at most $1 / p(\lambda)$ along the eigenvector of any eigenvalue λ above
    $\theta_1$, which is unlikely of noise: its density along a direction is at most $\sqrt{n / 2 \pi}$ (van Dorsselaer,
    Hochstenbach and van der Vorst 2000, "Computing probabilistic bounds for extreme eigenvalues of symmetric matrices
    with the Lanczos method", SIAM J. Matrix Anal. Appl. 22, 837). What else is in the start does not raise it.

    Args:
        values: Ritz values θ, in any order.
        above: off-diagonal β of the tridiagonal matrix; the last entry is the length of the new direction.
        distance: from the largest Ritz value on, in the unit of the eigenvalues; positive.
        dimension: number of rows n of the matrix.
        share: norm of the noise in the unit start vector.

    Returns:
        From 0 to 1.

    Examples:
        >>> values, above = np.array([0.0, 1.0]), np.array([0.5, 0.1])
        >>> hidden_probability(values, above, 0.3, 100), round(hidden_probability(values, above, 30.0, 100), 4)
        (1.0, 0.0004)
    """
    with np.errstate(divide="ignore"):
        of_one = np.log(above) - np.log(values.max() + distance - values)
    return float(min(1.0, np.sqrt(2 * dimension / np.pi) / share * np.exp(of_one.sum())))


def refined(pair: Eigenpair, product: Product) -> Eigenpair:
    r"""Return an eigenpair whose value and residual are those of float64 products: one of them, with its vector.

    The Rayleigh quotient of a float32 Ritz vector is as good as the vector: its error is bounded by $r^2 / \delta$,
    with r the residual that float64 sees and δ the gap that the iteration saw (Parlett 1998, theorem 11.7.1). The value
    of the iteration has the rounding of float32 products, 16 to 36 units of it on a transformer of the default size,
    and more where terms cancel.

    Args:
        pair: of an iteration in any precision.
        product: of the same matrix in float64, as ``gradient_with_graph`` gives at the parameters in float64.

    Raises:
        ValueError: if the product is not finite.

    Examples:
        >>> pair = Eigenpair(2.0001, torch.tensor([1.0, 1e-4]), 1e-3, 1e-6, 9, True, gap=1.0)
        >>> better = refined(pair, lambda v: torch.tensor([2.0, 1.0], dtype=torch.float64) * v)
        >>> round(better.value, 6), better.error < 1.1e-8, better.vector.dtype
        (2.0, True, torch.float64)
    """
    vector = pair.vector.double()
    vector = vector / torch.linalg.vector_norm(vector)
    image = product(vector)
    value = float(vector @ image)
    residual = float(torch.linalg.vector_norm(image - value * vector))
    if not np.isfinite(residual):
        raise ValueError("product: it is not finite in float64; check the loss and its parameters")
    return pair._replace(value=value, vector=vector, residual=residual, error=error_bound(residual, pair.gap))


def error_bound(residual: float, gap: float) -> float:
    """Return the bound of a Ritz value's error; without a gap it is the residual.

    >>> error_bound(0.1, 0.5), error_bound(0.1, 0.0)
    (0.020000000000000004, 0.1)
    """
    return min(residual, residual**2 / gap) if gap > 0 else residual


def value_error(pair: Eigenpair, scale: float | None = None) -> float:
    """Return how far an eigenvalue is trusted: its error bound, but never less than the rounding of its products.

    The bound is of the iteration: after a few products too many it is far below what float32 products resolve (an
    error of 1e-10 where float64 products gave a value 3e-6 away). Rounding is taken as ``ROUNDING`` units of it, which
    products of sums over many samples stay well below; where float32 does not resolve the loss itself, as of one near
    zero, nothing but float64 products tell: see ``refined``.

    Args:
        pair: the eigenvalue; the dtype of its vector is that of the products.
        scale: the spectrum's largest value in size; by default the pair's own.

    Examples:
        >>> value_error(Eigenpair(2.0, torch.ones(1), 0.0, 0.0, 9, True)).__round__(6)
        0.000477
    """
    size = max(abs(pair.value), abs(scale or 0.0))
    return pair.error + ROUNDING * torch.finfo(pair.vector.dtype).eps * size


def _lanczos(
    product: Product,
    dimension: int,
    tolerances: dict[int, float],
    start: Tensor | None,
    generator: torch.Generator | None,
    maximum_products: int,
    dtype: torch.dtype,
    device: torch.device | str,
) -> dict[int, Eigenpair]:
    """Run until every end of the spectrum asked for (1 the largest eigenvalue, -1 the smallest) has converged."""
    if dimension < 1 or maximum_products < 1:
        raise ValueError(f"dimension and maximum_products: {dimension} and {maximum_products}; pass numbers from 1 up")
    for tolerance in tolerances.values():
        if not tolerance > 0:
            raise ValueError(f"tolerance: {tolerance} cannot be reached; pass a positive relative error")
    following = start is not None and len(tolerances) == 1
    exploration = COMPONENT * dimension**0.5 if following else EXPLORATION
    first = mixed_start(start, dimension, generator, dtype, device, exploration)
    share = 1.0 if start is None else float(exploration / np.hypot(1.0, exploration))
    ends = {sign: _End(sign, tolerance, dimension, share, following) for sign, tolerance in tolerances.items()}
    for seen in lanczos(product, first, maximum_products):
        for end in ends.values():
            end.update(seen.diagonal, seen.above, seen.rounding, largest=ends.get(1))
        if all(end.settled for end in ends.values()):
            break
    pairs = {}
    for sign, end in ends.items():
        ritz = torch.from_numpy(end.weights).to(first) @ seen.basis
        ritz /= torch.linalg.vector_norm(ritz)
        converged = bool(seen.exhausted or end.settled)
        value, error = sign * end.history[-1], error_bound(end.residual, end.gap)
        pairs[sign] = Eigenpair(value, ritz, end.residual, error, len(seen.basis), converged, end.gap)
    return pairs


class _End:
    """One end of the spectrum while the iteration runs: the largest eigenvalue of ``sign`` times the matrix.

    ``share`` is that of the noise in the start; ``following`` a start that is not to be left far behind.
    """

    def __init__(self, sign: int, tolerance: float, dimension: int, share: float, following: bool):
        self.sign, self.dimension, self.share = sign, dimension, share
        self.tolerance = min(tolerance, STRICTEST if following else NEAR)
        self.hidden = HIDDEN if following else self.tolerance
        self.history: list[float] = []
        self.settled = False

    def update(self, diagonal: np.ndarray, above: np.ndarray, floor: float, largest: "_End | None") -> None:
        """Judge the Ritz values after one more product; above[-1] is the length of the new direction."""
        values, vectors = eigh_tridiagonal(self.sign * diagonal, self.sign * above[:-1])
        residuals = above[-1] * np.abs(vectors[-1])
        self.weights, self.residual = vectors[:, -1], float(residuals[-1])
        self.gap = max(float(SURE * (values[-1] - values[-2] - residuals[-2])), 0.0) if len(values) > 1 else 0.0
        self.history.append(float(values[-1]))
        scale = abs(self.history[-1])
        if self.sign < 0 and largest is not None:
            scale = max(scale, abs(largest.history[-1]))
        allowed = max(self.tolerance * scale, floor)
        self.settled = (
            len(values) > 1
            and error_bound(self.residual, self.gap) <= allowed
            and self.history[-1] - self.history[-2] <= allowed
            and hidden_probability(values, above, max(self.hidden * scale, floor), self.dimension, self.share) <= DOUBT
        )
