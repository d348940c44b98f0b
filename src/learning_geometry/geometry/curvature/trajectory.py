"""Ends of the spectrum along a trajectory: one graph at a time, started from the last eigenvectors."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from learning_geometry.geometry.curvature.eigenpairs import CONFIRMATION, Eigenpairs, eigenpairs
from learning_geometry.geometry.curvature.guard import rounding_of
from learning_geometry.geometry.curvature.lanczos import Eigenpair
from learning_geometry.geometry.curvature.products import Gradient


class Checkpoint(NamedTuple):
    """Curvature at one point of a trajectory.

    Attributes:
        gradient: Loss, flat gradient, and product. The product can be used for more, such as a trace, until the next
            checkpoint is asked for; then its graph is freed, and it raises ValueError.
        pairs: Eigenpairs, the better of both starts; `products` counts those of both.
        cold_gain: By how much a cold start found an eigenvalue further out than the warm start did, the most over all
            pairs and at least 0, in the unit of the eigenvalues. None where there was only one start.
    """

    gradient: Gradient
    pairs: Eigenpairs
    cold_gain: float | None


def eigenpairs_along(
    points: Iterable[Mapping[str, Tensor]],
    differentiate: Callable[[Mapping[str, Tensor]], Gradient],
    largest: int,
    smallest: int,
    tolerance: float,
    cold_every: int = 0,
    generator: torch.Generator | None = None,
    maximum_products: int = 300,
    confirmation: int = CONFIRMATION,
) -> Iterator[Checkpoint]:
    """Gradient and extreme eigenpairs at each checkpoint, started from the last checkpoint's eigenvectors.

    All products of a checkpoint share one graph, which is freed before the next is built, whatever the caller keeps of
    what was yielded: the peak of memory is that of one. A warm start can stay below an eigenvalue that has
    newly crossed (see `eigenpairs`), so every `cold_every`-th checkpoint is done from a random start as well; the
    gain tells how far the warm ones can be trusted.

    Args:
        points: Parameters at each checkpoint, in order; an iterator that loads one at a time keeps one in memory.
        differentiate: Gradient with its product at a point, such as
            ``lambda point: gradient_with_graph(loss, point)``; or the Gauss–Newton matrix, one block, a subspace.
        largest: Number of largest eigenvalues.
        smallest: Number of smallest eigenvalues.
        tolerance: As of `eigenpairs`, as are the further arguments.
        cold_every: Checkpoints between two that are done from both starts; 0 for none. The first always starts cold.
        generator: Source of random vectors; one of seed 0 by default, the same for all checkpoints.
        maximum_products: Products per checkpoint and start.
        confirmation: Products from a fresh random vector.

    Yields:
        One record per checkpoint. Whether it converged is told, not raised.

    Raises:
        ValueError: If `cold_every` is negative, two points differ in their number of parameters, or as
            `gradient_with_graph` and `eigenpairs`; the message names the checkpoint, counted from 0.

    Examples:
        A loss a x² + y² with growing a, whose Hessian has the eigenvalues 2 a and 2:

        >>> from learning_geometry.geometry.curvature.products import gradient_with_graph
        >>> points = ({"a": torch.tensor(a), "x": torch.zeros(2)} for a in (0.0, 1.0, 2.0))
        >>> def differentiate(point):
        ...     loss = lambda p: point["a"] * p["x"][0] ** 2 + p["x"][1] ** 2
        ...     return gradient_with_graph(loss, {"x": point["x"]})
        >>> for at in eigenpairs_along(points, differentiate, 1, 1, 1e-6):
        ...     print(round(at.pairs.largest[0].value, 4), round(abs(at.pairs.smallest[0].value), 4))
        2.0 0.0
        2.0 2.0
        4.0 2.0
    """
    if cold_every < 0:
        raise ValueError(f"cold_every: {cold_every}; pass a number of checkpoints, or 0 for no cold starts")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    start: Tensor | None = None
    for index, point in enumerate(points):
        graph: list[Gradient] = []
        try:
            graph.append(differentiate(point))
            value, slope = graph[0].value, graph[0].gradient
            if start is not None and len(start) != len(slope):
                raise ValueError(f"parameters: {len(slope)} here, but {len(start)} before; pass points of one model")
            warm = _pairs(graph, start, largest, smallest, tolerance, generator, maximum_products, confirmation)
            pairs, gain = warm, None
            if start is not None and cold_every and index % cold_every == 0:
                cold = _pairs(graph, None, largest, smallest, tolerance, generator, maximum_products, confirmation)
                pairs, gain = _outermost(warm, cold)
        except ValueError as error:
            raise ValueError(f"checkpoint {index}: {error}") from error
        start = torch.stack([pair.vector for pair in pairs.largest + pairs.smallest], dim=1)
        # the caller's record must not keep the graph: what it has is this list, emptied below
        yield Checkpoint(Gradient(value, slope, _Borrowed(graph, index)), pairs, gain)
        graph.clear()


class _Borrowed:
    """A product for as long as its graph is there."""

    def __init__(self, graph: list[Gradient], index: int):
        self.graph, self.index, self.rounding = graph, index, rounding_of(graph[0].product)

    def __call__(self, vector: Tensor) -> Tensor:
        if not self.graph:
            raise ValueError(
                f"product: the graph of checkpoint {self.index} was freed when the next one was asked for; "
                "use it before that, or differentiate again"
            )
        return self.graph[0].product(vector)


def _pairs(
    graph: list[Gradient],
    start: Tensor | None,
    largest: int,
    smallest: int,
    tolerance: float,
    generator: torch.Generator,
    maximum_products: int,
    confirmation: int,
) -> Eigenpairs:
    """Eigenpairs of the graph's matrix."""
    slope = graph[0].gradient
    options = {"maximum_products": maximum_products, "confirmation": confirmation}
    return eigenpairs(
        graph[0].product, len(slope), largest, smallest, tolerance, start, generator, dtype=slope.dtype,
        device=slope.device, **options,
    )  # fmt: skip


def _outermost(warm: Eigenpairs, cold: Eigenpairs) -> tuple[Eigenpairs, float]:
    """Return the pairs of each end from the start that got further out, and the most that the cold one gained."""
    gain = 0.0
    ends: list[list[Eigenpair]] = []
    for sign, warm_end, cold_end in ((1, warm.largest, cold.largest), (-1, warm.smallest, cold.smallest)):
        gains = [sign * (new.value - old.value) for old, new in zip(warm_end, cold_end, strict=True)]
        gain = max([gain, *gains])
        ends.append(cold_end if sum(gains) > 0 else warm_end)
    return Eigenpairs(ends[0], ends[1], warm.products + cold.products, warm.converged and cold.converged), gain
