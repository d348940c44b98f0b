"""What a product with a curvature matrix must fulfil: symmetry, and agreement with a difference quotient."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

STEPS = (1e-7, 1e-8, 1e-9)
"""Steps of the quotient as fractions of the point's norm, one after the other while it disagrees: a kink of ReLU on the
way shows at one of them, a wrong derivative at all."""

COARSE_STEPS = (1e-3, 3e-3)
"""The same in less than double precision; both quotients are taken, and judge if they agree with each other."""

COARSE = 0.3
"""Relative disagreement allowed to a quotient in less than double precision, and half of it to two of them."""

SHRINKS = 5.0
"""By how much less apart both are at a step of a tenth, if what is between them is the step's length alone."""

MOST = 0.5
"""Relative disagreement allowed where the precision of the product does not resolve the gradient."""


class Reference(NamedTuple):
    """A product with the same matrix and the gradient, by first derivatives alone.

    Attributes:
        product: the difference quotient.
        gradient: at the point, up to the square of the step.
    """

    product: Float[Tensor, " dimension"]
    gradient: Float[Tensor, " dimension"]


Quotient = Callable[[Tensor, Tensor, float], Reference]
"""Map of a point, a unit direction (of one dtype, which is that of the evaluation) and a step to the reference."""


class Guarded:
    r"""A product that is checked when it is first used, once.

    With a random unit vector w, and v the first vector multiplied: $w \cdot Hv = v \cdot Hw$, and H w is the
    difference quotient of the gradient along w. Costs one product and two or three gradients in float64.

    Both hold up to .05 in float32 (of which sums over many samples use up little), .001 in float64; the first relative
    to the mean size of such an inner product, $\|Hv\| \|w\| / \sqrt{n}$. A loss that takes no float64 has its
    quotient in its own dtype, and then .3 is allowed: enough to tell a derivative that autograd leaves out, as of a
    compiled loss (all zero), or gets wrong (``weight_norm`` of torch 2.13, by 24 to 150 %).

    Args:
        product: symmetric matrix-vector product of flat vectors.
        quotient: the reference; None checks the symmetry alone.
        point: flat point at which the matrix is taken; None for none.
        gradient: flat gradient there.
        value: the loss there.
        check: whether to check at all.

    Raises:
        ValueError: at the first product, if a check fails; the numbers seen are in the message.

    Examples:
        >>> turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        >>> try:
        ...     Guarded(lambda v: turn @ v)(torch.ones(2))
        ... except ValueError as error:
        ...     print(str(error).split(" (")[0])
        product: it is not symmetric: w·Hv is 1.169 and v·Hw -1.169
    """

    def __init__(
        self,
        product: Callable[[Tensor], Tensor],
        quotient: Quotient | None = None,
        point: Tensor | None = None,
        gradient: Tensor | None = None,
        value: float = 0.0,
        check: bool = True,
    ):
        self.product, self.quotient, self.point, self.gradient = product, quotient, point, gradient
        self.checked = not check
        self.rounding = 0.0
        if point is not None and gradient is not None:
            size = _norm(point) or point.numel() ** 0.5
            of_gradient = _norm(gradient) / size + abs(value) / size**2
            self.rounding = 100 * torch.finfo(point.dtype).eps * of_gradient
        self.value = value

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product; the first one is checked."""
        image = self.product(vector)
        # what is not finite is for the iteration to report
        if not self.checked and bool(torch.isfinite(image).all()):
            self._check(vector, image)
            self.checked = True
            # the point and its gradient are not needed any more
            self.quotient = self.point = self.gradient = None
        return image

    def _check(self, vector: Tensor, image: Tensor) -> None:
        allowed = 0.001 if vector.dtype == torch.float64 else 0.05
        floor = self.rounding
        generator = torch.Generator().manual_seed(0)
        direction = _unit(vector, generator)
        turned = self.product(direction)
        forth, back = _inner(direction, image), _inner(vector, turned)
        lengths = _norm(image) + _norm(vector) * _norm(turned)
        limit = allowed * lengths / vector.numel() ** 0.5 + 0.05 * floor * _norm(vector)
        if not abs(forth - back) <= limit:
            raise ValueError(
                f"product: it is not symmetric: w·Hv is {forth:.4g} and v·Hw {back:.4g} (a rounding of "
                f"{limit:.2g} is allowed); {REMEDY}"
            )
        if self.quotient is None:
            return
        seen = []
        for step in STEPS:
            try:
                agrees, numbers, _ = self._compare(direction, turned, step, allowed)
            except RuntimeError:
                # the loss holds numbers of its own in another precision
                agrees, numbers, _ = self._compare_coarsely(direction, turned)
            if agrees:
                return
            seen.append(numbers)
            direction = _unit(vector, generator)
            turned = self.product(direction)
        if self._tends(direction, turned, allowed):
            return
        raise ValueError(f"product: it is not the derivative of the gradient: {'; '.join(seen)}; {REMEDY}")

    def _compare(self, direction: Tensor, turned: Tensor, step: float, allowed: float) -> tuple[bool, str, float]:
        assert self.point is not None and self.gradient is not None
        reference, rounding = self._quotient(self.point.double(), direction.double(), step)
        unresolved = _norm(self.gradient.double() - reference.gradient.double())
        known = _norm(reference.gradient)
        allowed = min(max(allowed, 10 * unresolved / known if known else MOST), MOST)
        return self._judge(turned, reference, allowed, rounding)

    def _tends(self, direction: Tensor, turned: Tensor, allowed: float) -> bool:
        """Whether the quotient tends to the product along one direction: where the matrix is 0, no step is enough."""
        try:
            apart = [self._compare(direction, turned, step, allowed)[2] for step in STEPS]
        except RuntimeError:
            return False
        return all(after <= before / SHRINKS for before, after in pairwise(apart))

    def _compare_coarsely(self, direction: Tensor, turned: Tensor) -> tuple[bool, str, float]:
        assert self.point is not None
        (near, rounding), (far, _) = (self._quotient(self.point, direction, step) for step in COARSE_STEPS)
        lengths = max(_norm(near.product), _norm(far.product))
        if not _norm(near.product - far.product) <= COARSE / 2 * lengths + rounding:
            return True, "", 0.0
        return self._judge(turned, near, COARSE, rounding)

    def _quotient(self, point: Tensor, direction: Tensor, step: float) -> tuple[Reference, float]:
        """Return the reference, and the length of its product that is rounding alone."""
        assert self.quotient is not None
        size = _norm(point) or point.numel() ** 0.5
        reference = self.quotient(point, direction, step * size)
        # a gradient that cancels, as by the keys' biases, has the rounding of what it is the sum of
        summed = _norm(reference.gradient) + abs(self.value) / size
        return reference, 100 * torch.finfo(point.dtype).eps * summed / (step * size)

    def _judge(self, turned: Tensor, reference: Reference, allowed: float, rounding: float) -> tuple[bool, str, float]:
        lengths = _norm(turned), _norm(reference.product)
        off = _norm(turned.double() - reference.product.double())
        limit = allowed * max(lengths) + self.rounding + rounding
        numbers = (
            f"‖Hw‖ is {lengths[0]:.4g}, the difference quotient {lengths[1]:.4g}, and they are {off:.2g} apart "
            f"({limit:.2g} allowed)"
        )
        return off <= limit, numbers, off


REMEDY = (
    "autograd gets a second derivative of this loss wrong, or leaves it out (as of torch.compile, and of weight_norm "
    "in torch 2.13): write it with plain operations, uncompiled and deterministic"
)

SYMMETRY = 10.0
"""Roots of the unit of rounding by which a matrix seen in an orthonormal basis may differ from its transpose."""


def rounding_of(product: Callable[[Tensor], Tensor]) -> float:
    """Return the length of a product with a unit vector that is rounding alone, 0 where it is not known."""
    return float(getattr(product, "rounding", 0.0))


def check_symmetric(
    forth: float, back: float, norm: float, unit: float, rounding: float = 0.0, name: str = "product"
) -> None:
    """Compare two entries of a matrix across its diagonal, as an iteration sees them at no cost.

    Args:
        forth: an entry in an orthonormal basis.
        back: the one that mirrors it.
        norm: estimate of the matrix's norm.
        unit: unit of rounding of the products.
        rounding: as ``rounding_of`` the product.
        name: what an error calls the product.

    Raises:
        ValueError: if they differ by more than rounding.

    Examples:
        >>> check_symmetric(1.0, 1.0 + 1e-7, 2.0, 1e-7)
    """
    allowed = SYMMETRY * unit**0.5 * norm + 2 * rounding
    if abs(forth - back) > allowed:
        raise ValueError(
            f"{name}: it is not symmetric: one entry is {forth:.4g}, its mirror image {back:.4g} ({allowed:.2g} "
            f"allowed); {REMEDY}"
        )


def _unit(like: Tensor, generator: torch.Generator) -> Tensor:
    draw = torch.randn(like.numel(), generator=generator, dtype=torch.float64)
    return (draw / torch.linalg.vector_norm(draw)).to(like)


def _inner(first: Tensor, second: Tensor) -> float:
    return float(first.double() @ second.double())


def _norm(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
