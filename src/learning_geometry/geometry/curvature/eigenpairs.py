"""Several of the largest and smallest eigenpairs of a symmetric matrix given by its products."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.geometry.curvature.krylov import Krylov
from learning_geometry.geometry.curvature.lanczos import PERSISTENCE, Eigenpair
from learning_geometry.geometry.curvature.products import Product
from learning_geometry.geometry.curvature.recurrence import EXPLORATION

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
