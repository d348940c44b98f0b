"""Curvature of a loss: Hessian-vector products from one kept graph, extreme eigenvalues, trace, mean loss increase."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal
from scipy.special import stdtrit
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""Map of a flat vector to the symmetric matrix's product with it, same shape, dtype and device."""

EXPLORATION = 1.0
"""Relative norm of the noise added to a given start, so that no eigenvector is orthogonal to it."""

PERSISTENCE = 5
"""Products over which the largest Ritz value must stay accurate: a larger one still hidden rises in them."""


class Gradient(NamedTuple):
    """A loss at one point, differentiated once, with the graph for further Hessian-vector products.

    Attributes:
        value: The loss.
        gradient: Flat gradient, shape (dimension,), in the order of the parameters.
        product: Hessian-vector product v -> H v of flat vectors. It holds the graph: drop it to free the
            memory.
    """

    value: float
    gradient: Float[Tensor, " dimension"]
    product: Product


class Eigenpair(NamedTuple):
    """An eigenvalue with its eigenvector and how far they are trusted.

    Attributes:
        value: Ritz value, a lower bound of the largest eigenvalue (an upper bound of the smallest) up to rounding.
        vector: Unit Ritz vector, shape (dimension,).
        residual: ||H v - value v||, an upper bound of the distance to the nearest eigenvalue.
        error: min(residual, residual^2 / gap), the bound of the value's error, if no larger eigenvalue stayed
            hidden.
        products: Matrix-vector products used.
        converged: Whether the stopping rule was met.
    """

    value: float
    vector: Float[Tensor, " dimension"]
    residual: float
    error: float
    products: int
    converged: bool


class Estimate(NamedTuple):
    """A Monte Carlo mean.

    Attributes:
        value: Mean over the draws.
        standard_error: Standard deviation over the draws, divided by the root of their number.
        n: Number of draws.
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


def flatten(tensors: Mapping[str, Tensor]) -> Float[Tensor, " dimension"]:
    """Concatenate tensors, row by row and in the mapping's order, to one vector.

    Raises:
        ValueError: If there is no tensor.

    Examples:
        >>> flatten({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor(3.0)})
        tensor([1., 2., 3.])
    """
    if not tensors:
        raise ValueError("tensors: there is none to flatten; pass at least one parameter")
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


def unflatten(vector: Float[Tensor, " dimension"], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split a flat vector into views of the names and shapes of `like`; the inverse of `flatten`.

    Raises:
        ValueError: If the vector has not as many entries as `like`.

    Examples:
        >>> unflatten(torch.arange(3.0), {"weight": torch.zeros(1, 2), "bias": torch.zeros(())})
        {'weight': tensor([[0., 1.]]), 'bias': tensor(2.)}
    """
    sizes = [tensor.numel() for tensor in like.values()]
    if vector.numel() != sum(sizes):
        raise ValueError(
            f"vector: {vector.numel()} entries for {sum(sizes)} parameters; pass one `flatten` made of them"
        )
    return {
        name: piece.view(tensor.shape) for (name, tensor), piece in zip(like.items(), vector.split(sizes), strict=True)
    }


def gradient_with_graph(loss: Callable[[dict[str, Tensor]], Tensor], parameters: Mapping[str, Tensor]) -> Gradient:
    r"""Loss, gradient and Hessian-vector product at a point, with the gradient's graph kept for all products.

    $H v = \nabla_\theta (\nabla_\theta L \cdot v)$ (Pearlmutter 1994, "Fast exact multiplication by the
    Hessian"). The forward pass and the first backward pass run once; each product is one backward pass
    through both.

    Args:
        loss: Scalar loss as a function of the named parameters, twice differentiable by autograd (fused
            attention is not), deterministic.
        parameters: Point, one floating tensor per name; neither changed nor differentiated in place. A
            parameter that the loss does not use has zero gradient and curvature.

    Returns:
        Value, flat gradient and product.

    Raises:
        ValueError: If the loss is not a finite scalar, or there is no parameter.

    Examples:
        The Hessian of a quadratic form (x, A x) / 2 is A:

        >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
        >>> point = {"x": torch.tensor([1.0, -1.0])}
        >>> value, gradient, product = gradient_with_graph(lambda p: p["x"] @ matrix @ p["x"] / 2, point)
        >>> value, gradient, product(torch.tensor([1.0, 0.0]))
        (1.5, tensor([ 1., -2.]), tensor([2., 1.]))
    """
    if not parameters:
        raise ValueError("parameters: there is none to differentiate by; pass at least one")
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
    with torch.enable_grad():
        value = loss(leaves)
        if value.dim() != 0 or not torch.isfinite(value):
            raise ValueError(
                f"loss: it is {value.detach()} and not a finite scalar; reduce it, or drop this checkpoint"
            )
        gradients = torch.autograd.grad(value, list(leaves.values()), create_graph=True, materialize_grads=True)
    # gradients of parameters that enter linearly, or not at all, have no graph
    curved = [index for index, gradient in enumerate(gradients) if gradient.requires_grad]
    outputs = [gradients[index] for index in curved]
    inputs = list(leaves.values())

    def product(vector: Tensor) -> Tensor:
        pieces = list(unflatten(vector, leaves).values())
        if not outputs:
            return torch.zeros_like(vector)
        columns = torch.autograd.grad(
            outputs, inputs, [pieces[index] for index in curved], retain_graph=True, materialize_grads=True
        )
        return torch.cat([column.reshape(-1) for column in columns])

    return Gradient(
        float(value.detach()), torch.cat([gradient.detach().reshape(-1) for gradient in gradients]), product
    )


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
    residual norm and $\delta = \theta_1 - (\theta_2 + r_2)$ the gap to the second Ritz value, lessened by its
    own residual (Parlett 1998, "The Symmetric Eigenvalue Problem", sections 11.7 and 13.2). A residual tells
    that some eigenvalue is near, not that it is the largest: near-multiple or newly crossed eigenvalues make
    $\theta_1$ rest on a smaller one for a while. So the iteration stops only when the bound has been below
    `tolerance` times $|\theta_1|$ for five products more, over which $\theta_1$ rose by less than that.

    A given start, such as the eigenvector at the last checkpoint, saves products. It is mixed with noise of
    equal norm: otherwise an exact eigenvector of another eigenvalue, as after a crossing of the two largest,
    would pass for converged. No stopping rule is certain: an eigenvalue a few per cent above the one started
    from can stay hidden.

    Args:
        product: Symmetric matrix-vector product of flat vectors.
        dimension: Number of rows of the matrix.
        tolerance: Relative error allowed, positive; below about ten units of rounding it is not reachable.
        start: Start vector of any length, shape (dimension,); its dtype and device are used. Random by
            default.
        generator: Source of the random start and of the noise; by default one of seed 0 on the CPU.
        maximum_products: Products after which the iteration gives up with `converged` False. Memory is up to
            two vectors per product.
        dtype: Type of a random start: float32 or float64. Coefficients are float64 always.
        device: Device of a random start.

    Returns:
        The eigenpair.

    Raises:
        ValueError: If a product is not finite, the start is zero, not finite or of the wrong size, or
            `tolerance` or a number is not positive.

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

    As :func:`largest_eigenpair`, but it goes on until the smallest eigenvalue meets its own rule too. A negative edge
    that is dense and close to zero needs very many products to a relative error, so that of the smallest eigenvalue is
    relative to the larger of the two in size; a tolerance above about .01 lets the iteration stop inside such an edge.

    Args:
        product: Symmetric matrix-vector product of flat vectors.
        dimension: Number of rows of the matrix.
        tolerance: Relative error allowed to the largest eigenvalue, positive.
        smallest_tolerance: Error allowed to the smallest eigenvalue, as a fraction of the larger of both in size.
        start: As of :func:`largest_eigenpair`.
        generator: As of :func:`largest_eigenpair`.
        maximum_products: Products after which the iteration gives up; each pair tells whether it converged.
        dtype: Type of a random start.
        device: Device of a random start.

    Returns:
        The pair of the largest and the pair of the smallest eigenvalue; both count all products.

    Raises:
        ValueError: As :func:`largest_eigenpair`.

    Examples:
        >>> largest, smallest = extreme_eigenpairs(lambda v: torch.tensor([-9.0, 1.0, 4.0]) * v, 3, 1e-6, 1e-6)
        >>> round(largest.value, 4), round(smallest.value, 4), [round(abs(x), 3) for x in smallest.vector.tolist()]
        (4.0, -9.0, [1.0, 0.0, 0.0])
    """
    tolerances = {1: tolerance, -1: smallest_tolerance}
    pairs = _lanczos(product, dimension, tolerances, start, generator, maximum_products, dtype, device)
    return pairs[1], pairs[-1]


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
    holds `sketch` random sign vectors, and z random signs (Meyer, Musco, Musco and Woodruff 2021, "Hutch++: Optimal
    stochastic trace estimation", algorithm 1). Unbiased; it uses 2 · `sketch` + `probes` products. With `sketch` 0 it
    is Hutchinson's estimator, the better one for few products where no few eigenvalues dominate.

    Args:
        product: Symmetric matrix-vector product of flat vectors.
        dimension: Number of rows of the matrix.
        probes: Sign vectors z, at least 2.
        sketch: Dimension of the subspace, from 0 to `dimension`.
        generator: Source of the signs.
        dtype: Type of the vectors given to `product`.

    Returns:
        The trace with its standard error, from the spread over probes; n = probes.

    Raises:
        ValueError: If `probes` or `sketch` is out of range, or a product is not finite.

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
        loss: Scalar loss as a function of the named parameters, in their type; no derivative is taken.
        parameters: Point; converted to float64.
        radius: Standard deviation r of each parameter's perturbation, positive.
        pairs: Number of pairs ±ξ, at least 2.
        generator: Source of ξ.

    Returns:
        The mean with its standard error over pairs; n = pairs. The unit is that of the loss.

    Raises:
        ValueError: If `radius` or `pairs` is out of range, or a loss is not finite.

    Examples:
        Of a quadratic with Hessian 2 in one dimension: r² ξ² is r² in the mean.

        >>> square = lambda p: (p["x"] ** 2).sum()
        >>> found = mean_loss_increase(square, {"x": torch.ones(1)}, 1e-3, 4000, np.random.default_rng(0))
        >>> bool(abs(found.value - 1e-6) < 3 * found.standard_error < 1e-7)
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
    vector = _start(start, dimension, generator, dtype, device)
    rounding = torch.finfo(vector.dtype).eps
    limit = min(dimension, maximum_products)
    basis = torch.empty(min(limit, 16), dimension, dtype=vector.dtype, device=vector.device)
    diagonal, above = np.empty(limit), np.empty(limit)
    ends = {sign: _End(sign, tolerance) for sign, tolerance in tolerances.items()}
    for step in range(limit):
        if step == len(basis):
            basis = torch.cat([basis, torch.empty_like(basis)])
        basis[step] = vector
        known = basis[: step + 1]
        # a copy: the product may return its argument, or a view of it
        image = product(vector).clone()
        diagonal[step] = float(torch.dot(vector.double(), image.double()))
        # twice is enough (Parlett 1998, section 6.9); this holds the three-term recurrence as well
        for _ in range(2):
            image -= known.T @ (known @ image)
        above[step] = float(torch.linalg.vector_norm(image, dtype=torch.float64))
        if not (np.isfinite(diagonal[step]) and np.isfinite(above[step])):
            raise ValueError(f"product: it is not finite at product {step + 1}; check the loss and its parameters")
        spread = float(np.abs(diagonal[: step + 1]).max() + 2 * above[:step].max(initial=0.0))
        for end in ends.values():
            end.update(diagonal[: step + 1], above[: step + 1], rounding * spread, largest=ends.get(1))
        # an invariant subspace: a further vector would be rounding noise
        exhausted = step + 1 == dimension or above[step] <= 10 * rounding * spread
        if exhausted or all(end.settled for end in ends.values()):
            break
        vector = image / above[step]
    pairs = {}
    for sign, end in ends.items():
        ritz = torch.from_numpy(end.weights).to(vector) @ known
        ritz /= torch.linalg.vector_norm(ritz)
        converged = bool(exhausted or end.settled)
        pairs[sign] = Eigenpair(sign * end.history[-1], ritz, end.residual, end.error, step + 1, converged)
    return pairs


class _End:
    """One end of the spectrum while the iteration runs: the largest eigenvalue of `sign` times the matrix."""

    def __init__(self, sign: int, tolerance: float):
        self.sign, self.tolerance = sign, tolerance
        self.history: list[float] = []
        self.persisted, self.settled = 0, False

    def update(self, diagonal: np.ndarray, above: np.ndarray, floor: float, largest: "_End | None") -> None:
        """Judge the Ritz values after one more product; above[-1] is the length of the new direction."""
        size = len(diagonal)
        values, vectors = eigh_tridiagonal(
            self.sign * diagonal, self.sign * above[:-1], select="i", select_range=(max(size - 2, 0), size - 1)
        )
        residuals = above[-1] * np.abs(vectors[-1])
        gap = values[-1] - values[0] - residuals[0] if size > 1 else 0.0
        self.weights, self.residual = vectors[:, -1], float(residuals[-1])
        self.error = float(min(self.residual, self.residual**2 / gap) if gap > 0 else self.residual)
        self.history.append(float(values[-1]))
        scale = abs(self.history[-1])
        if self.sign < 0 and largest is not None:
            scale = max(scale, abs(largest.history[-1]))
        allowed = max(self.tolerance * scale, floor)
        self.persisted = self.persisted + 1 if self.error <= allowed else 0
        self.settled = self.persisted > PERSISTENCE and self.history[-1] - self.history[-1 - PERSISTENCE] <= allowed


def _start(
    start: Tensor | None,
    dimension: int,
    generator: torch.Generator | None,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    """Unit start vector: random, or the given one with noise."""
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    if start is not None:
        dtype, device = start.dtype, start.device
        if start.shape != (dimension,):
            raise ValueError(f"start: its shape is {tuple(start.shape)}, not ({dimension},); pass one entry per row")
        norm = torch.linalg.vector_norm(start)
        if not torch.isfinite(norm) or norm == 0:
            raise ValueError(
                "start: it is zero or not finite and has no direction; pass another, or None for a random one"
            )
    # float32 and float64 draw the same direction
    noise = torch.randn(dimension, generator=generator, dtype=torch.float64, device=generator.device).to(device, dtype)
    noise /= torch.linalg.vector_norm(noise)
    if start is None:
        return noise
    mixed = start / norm + EXPLORATION * noise
    return mixed / torch.linalg.vector_norm(mixed)
