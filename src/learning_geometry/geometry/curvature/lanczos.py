"""Extreme eigenpairs of a symmetric matrix given by its products: Lanczos with full reorthogonalisation."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from learning_geometry.geometry.curvature.krylov import Krylov
from learning_geometry.geometry.curvature.products import Product

EXPLORATION = 1.0
"""Relative norm of the noise added to a given start, so that no eigenvector is orthogonal to it."""

PERSISTENCE = 5
"""Products over which the largest Ritz value must stay accurate: a larger one still hidden rises in them."""


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


def value_error(pair: Eigenpair, scale: float | None = None) -> float:
    """Return how far an eigenvalue is trusted: its error bound, but never less than the rounding of its products.

    The bound is of the iteration: after a few products too many it is far below what float32 products resolve (an
    error of 1e-10 where float64 products gave a value 3e-6 away). Rounding is taken as ten units of it.

    Args:
        pair: The eigenvalue; the dtype of its vector is that of the products.
        scale: The spectrum's largest value in size; by default the pair's own.

    Examples:
        >>> value_error(Eigenpair(2.0, torch.ones(1), 0.0, 0.0, 9, True)).__round__(8)
        2.38e-06
    """
    size = max(abs(pair.value), abs(scale or 0.0))
    return max(pair.error, 10 * torch.finfo(pair.vector.dtype).eps * size)


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


CONFIRMATION = 10
"""Products from a fresh random vector that must find no further eigenvalue beyond those found."""

FURTHER = 4
"""Ritz values beyond those wanted at which a cluster may be cut off for an error bound."""


class Eigenpairs(NamedTuple):
    """The ends of a spectrum.

    Attributes:
        largest: Pairs of the largest eigenvalues, descending, repeated ones as often as they occur.
        smallest: Pairs of the smallest eigenvalues, ascending.
        products: Matrix-vector products used for all.
        converged: Whether every pair converged and the confirmation found nothing more.
    """

    largest: list[Eigenpair]
    smallest: list[Eigenpair]
    products: int
    converged: bool


def eigenpairs(
    product: Product,
    dimension: int,
    largest: int,
    smallest: int,
    tolerance: float,
    start: Float[Tensor, "dimension columns"] | None = None,
    generator: torch.Generator | None = None,
    maximum_products: int = 300,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    confirmation: int = CONFIRMATION,
) -> Eigenpairs:
    r"""Several largest and smallest eigenpairs of a symmetric matrix, repeated ones included.

    Lanczos with full reorthogonalisation from one vector: a random one, or the sum of the columns of `start` with noise
    of equal norm (on Hessians along a trajectory a block of the columns took 1.4 times as many products). Each next
    product is along the largest residual of the wanted pairs. All pairs must hold the tolerance for five products more.
    Then `confirmation` products follow from a fresh random vector in the complement: one vector's Krylov space has a
    single copy of each eigenvalue. If a wanted eigenvalue turns up there, the iteration goes on, and the confirmation
    begins anew.

    What holds. Ritz values come from inside: the i-th largest never exceeds the i-th eigenvalue, up to rounding. A
    residual tells that an eigenvalue is near. An `error` bounds the distance to the i-th eigenvalue if nothing is
    hidden: with E the residuals of the c ≥ i outermost Ritz vectors and η the distance of the i-th Ritz value from
    the next one after those, lessened by its residual, it is $2\|E\|^2 / (\eta + \sqrt{\eta^2 + 4\|E\|^2})$ at the
    best c (Li and Li 2005, "A note on eigenvalues of perturbed Hermitian matrices"); cutting behind a cluster makes it
    small for repeated eigenvalues.

    What is hidden can only be excluded with a probability. An eigenvector orthogonal to the space, as further copies
    of repeated eigenvalues are, whose eigenvalue lies beyond the last pair wanted by more than ε times the spectrum's
    width stays hidden with probability below $1.648 \sqrt{n} e^{-(2c - 1) \sqrt{\varepsilon}}$, n the dimension and
    c = `confirmation` (Kuczyński and Woźniakowski 1992, "Estimating the largest eigenvalue by the power and Lanczos
    algorithms with a random start"). This is pessimistic for eigenvalues apart from the bulk, which ten products
    find. Inside a dense edge, or after a crossing of a few per cent, a warm start can stay on eigenvalues that are
    no longer the outermost: start cold now and then.

    Args:
        product: Symmetric matrix-vector product of flat vectors.
        dimension: Number of rows of the matrix.
        largest: Number of largest eigenvalues, 0 or more.
        smallest: Number of smallest eigenvalues, 0 or more.
        tolerance: Error bound allowed to each eigenvalue, as a fraction of the largest in size; positive.
        start: Columns to start from, such as the last checkpoint's eigenvectors; need not be orthogonal. Their
            dtype and device are used. One random vector by default.
        generator: Source of random vectors; by default one of seed 0 on the CPU.
        maximum_products: Products after which the iteration gives up with `converged` False. Memory is up to two
            vectors per product.
        dtype: Type of a random start: float32 or float64. Coefficients are float64 always.
        device: Device of a random start.
        confirmation: Products from a fresh random vector; 0 for none.

    Returns:
        The pairs. Each tells whether it converged, whatever the others did.

    Raises:
        ValueError: If a product is not finite, there are fewer rows than eigenvalues wanted, a start is zero, not
            finite or of the wrong size, or a number is out of range.

    Examples:
        >>> diagonal = torch.tensor([-9.0, 1.0, 4.0, 4.0])
        >>> found = eigenpairs(lambda v: diagonal * v, 4, 2, 1, 1e-6)
        >>> [round(pair.value, 4) for pair in found.largest], [round(pair.value, 4) for pair in found.smallest]
        ([4.0, 4.0], [-9.0])
    """
    wanted = largest + smallest
    if min(largest, smallest, confirmation) < 0 or min(wanted, dimension) < 1:
        raise ValueError(
            f"largest, smallest, confirmation, dimension: {largest}, {smallest}, {confirmation}, {dimension}; "
            "pass none below 0, at least one eigenvalue and one dimension"
        )
    if wanted > dimension:
        raise ValueError(
            f"largest and smallest: {largest} and {smallest} eigenvalues of a matrix with {dimension} rows; "
            "ask for no more than it has"
        )
    if maximum_products < wanted:
        raise ValueError(f"maximum_products: {maximum_products} for {wanted} eigenvalues; pass more products than that")
    if not tolerance > 0:
        raise ValueError(f"tolerance: {tolerance} cannot be reached; pass a positive relative error")
    if start is not None:
        _check_columns(start, dimension)
        dtype, device = start.dtype, start.device
    generator = generator if generator is not None else torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        draw = torch.randn(dimension, generator=generator, dtype=torch.float64, device=generator.device)
        return draw.to(device, dtype)

    space = Krylov(product, dimension, dtype, device)
    first = noise()
    if start is not None:
        together = (start / torch.linalg.vector_norm(start, dim=0)).sum(dim=1)
        scale = torch.linalg.vector_norm(together)
        first = together + EXPLORATION * scale * first / torch.linalg.vector_norm(first) if scale > 0 else first
    space.add(first)
    # what to multiply next: where the last product went, unless it is the largest residual or a fresh start
    direction = np.zeros(0)
    persisted = np.zeros(wanted, dtype=int)
    history: list[np.ndarray] = []
    confirming, done = 0, False
    while not done and space.size < maximum_products:
        if not direction.any():
            if not space.pending:
                space.add(noise())
            direction = np.eye(space.pending)[0]
        direction = space.expand(direction)
        if space.size < wanted:
            continue
        values, weights, outside = space.ritz()
        floor = space.rounding * space.spread
        allowed = max(tolerance * float(np.abs(values).max()), floor)
        chosen = [*range(space.size - 1, space.size - 1 - largest, -1), *range(smallest)]
        errors = np.array([*_bounds(values[::-1], outside[:, ::-1], largest), *_bounds(-values, outside, smallest)])
        history.append(values[chosen])
        persisted = np.where(errors <= allowed, persisted + 1, 0)
        if not persisted.all() or _moved(history, 1) > allowed:
            confirming = 0
        elif confirming:
            confirming -= 1
            done = confirming == 0
        elif persisted.min() > PERSISTENCE and _moved(history, PERSISTENCE) <= allowed:
            confirming, done = confirmation, confirmation == 0
            if confirming and (fresh := space.add(noise())) is not None:
                direction = fresh
        if not confirming:
            residuals = outside[:, chosen]
            direction = residuals[:, int(np.linalg.norm(residuals, axis=0).argmax())]
        done = done or space.size == dimension
    pairs = [
        Eigenpair(
            float(values[index]),
            space.vector(weights[:, index]),
            max(float(np.linalg.norm(outside[:, index])), floor),
            max(float(error), floor),
            space.size,
            bool(done or count > PERSISTENCE),
        )
        for index, error, count in zip(chosen, errors, persisted, strict=True)
    ]
    return Eigenpairs(pairs[:largest], pairs[largest:], space.size, done)


def _bounds(values: np.ndarray, residuals: np.ndarray, count: int) -> list[float]:
    """Return error bounds of the first `count` Ritz values, which descend; one column of residuals each."""
    last = min(count + FURTHER, len(values))
    lengths = np.linalg.norm(residuals, axis=0)
    found = []
    together = [float(np.linalg.norm(residuals[:, :cut], 2)) if residuals.size else 0.0 for cut in range(1, last + 1)]
    for index in range(count):
        bounds = []
        for cut in range(index + 1, last + 1):
            norm = together[cut - 1]
            gap = max(values[index] - values[cut] - lengths[cut], 0.0) if cut < len(values) else 0.0
            bounds.append(2 * norm**2 / (gap + np.sqrt(gap**2 + 4 * norm**2)) if norm else 0.0)
        found.append(float(min(bounds)))
    return found


def _moved(history: list[np.ndarray], products: int) -> float:
    """Return by how much a wanted Ritz value changed over the last products; infinite if there were fewer."""
    return float(np.abs(history[-1] - history[-1 - products]).max()) if len(history) > products else np.inf


def _check_columns(start: Tensor, dimension: int) -> None:
    if start.shape[0] != dimension or not 1 <= start.shape[1] <= dimension:
        raise ValueError(
            f"start: its shape is {tuple(start.shape)}, not ({dimension}, columns); pass one row per row of the matrix"
        )
    norms = torch.linalg.vector_norm(start, dim=0)
    if not torch.isfinite(norms).all() or (norms == 0).any():
        raise ValueError("start: a column is zero or not finite and has no direction; leave it out")
