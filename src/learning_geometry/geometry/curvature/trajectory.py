"""Both ends of the Hessian's spectrum at every checkpoint of a run, each started from the checkpoint before."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from learning_geometry.geometry.curvature.eigenpairs import Eigenpairs, eigenpairs
from learning_geometry.geometry.curvature.products import Gradient, gradient_with_graph


class Curvature(NamedTuple):
    """The curvature at one checkpoint.

    Attributes:
        step: The checkpoint's step.
        at: Loss, gradient and product; the product's graph is freed when the next checkpoint is asked for.
        pairs: Both ends of the spectrum.
        hidden: On checkpoints that were started cold as well, by how much the cold start's largest eigenvalue
            exceeds the warm start's, as a fraction of it; NaN on the others.
    """

    step: int
    at: Gradient
    pairs: Eigenpairs
    hidden: float


def curvature_along(
    loss: Callable[[dict[str, Tensor]], Tensor],
    checkpoints: Iterable[tuple[int, Mapping[str, Tensor]]],
    largest: int,
    smallest: int,
    tolerance: float,
    cold_every: int = 0,
    maximum_products: int = 500,
) -> Iterator[Curvature]:
    """Yield the k largest and j smallest eigenpairs of the Hessian at each checkpoint.

    Each checkpoint starts from the eigenvectors of the one before, besides random columns, and keeps the graph of its
    gradient for all its products. A warm start can miss an eigenvalue that overtook another; every `cold_every`-th
    checkpoint is therefore done again from random columns alone, and the pairs with the larger top eigenvalue are
    kept.

    Args:
        loss: Scalar loss as a function of the named parameters, twice differentiable.
        checkpoints: Step and parameters, in the order of training; read one by one.
        largest: Number k of largest eigenvalues.
        smallest: Number j of smallest eigenvalues.
        tolerance: Error allowed, as a fraction of the eigenvalue largest in size.
        cold_every: Check every so many checkpoints with a cold start; 0 for never.
        maximum_products: Products after which a checkpoint's iteration gives up.

    Raises:
        ValueError: As `eigenpairs` and `gradient_with_graph`; the message names the step.

    Examples:
        >>> points = ((step, {"x": torch.tensor([1.0, float(step)])}) for step in (0, 1))
        >>> cubes = lambda p: (p["x"] ** 3).sum()  # Hessian: 6 x on the diagonal
        >>> [round(found.pairs.largest[0].value, 3) for found in curvature_along(cubes, points, 1, 0, 1e-6)]
        [6.0, 6.0]
    """
    start: Tensor | None = None
    for number, (step, parameters) in enumerate(checkpoints):
        try:
            at = gradient_with_graph(loss, parameters)

            def found(columns: Tensor | None, at: Gradient = at) -> Eigenpairs:
                size, kind, place = at.gradient.numel(), at.gradient.dtype, at.gradient.device
                return eigenpairs(
                    at.product,
                    size,
                    largest,
                    smallest,
                    tolerance,
                    columns,
                    maximum_products=maximum_products,
                    dtype=kind,
                    device=place,
                )

            pairs, hidden = found(start), float("nan")
            if cold_every and start is not None and number % cold_every == 0:
                cold = found(None)
                ends = [each.largest[0].value if largest else -each.smallest[0].value for each in (pairs, cold)]
                hidden = (ends[1] - ends[0]) / abs(ends[0])
                pairs = cold if ends[1] > ends[0] else pairs
        except ValueError as error:
            raise ValueError(f"step {step}: {error}") from error
        start = torch.stack([pair.vector for pair in (*pairs.largest, *pairs.smallest)], dim=1)
        yield Curvature(step, at, pairs, hidden)
        del at, found
