"""Orthants: which coordinates an activation function zeroes, and how many patterns of them occur."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool


class Patterns(NamedTuple):
    """Activation patterns of a stream of vectors.

    Attributes:
        n: number of vectors.
        zeroed: share of coordinates that are zeroed, in [0, 1].
        distinct: number of different patterns, from 1 to n.
        never_active: share of coordinates that are active for no vector.
        always_active: share of coordinates that are active for every vector.
    """

    n: int
    zeroed: float
    distinct: int
    never_active: float
    always_active: float


def patterns(batches: Iterable[Bool[np.ndarray, "_ width"]]) -> Patterns:
    """Count the activation patterns of a stream in one pass; of each new one a bit per coordinate is kept.

    Args:
        batches: which coordinates are active: of a ReLU those with a positive pre-activation. Of a gated or smooth
            activation function nothing is exactly zero; the sign of the gate's pre-activation says in which half it is.

    Raises:
        ValueError: if there is no vector, no coordinate, or the widths differ.

    Examples:
        >>> patterns([np.array([[True, False], [True, True]]), np.array([[True, False]])])
        Patterns(n=3, zeroed=0.3333333333333333, distinct=2, never_active=0.0, always_active=0.5)
    """
    seen: set[bytes] = set()
    n = width = 0
    active = np.zeros(0, dtype=np.int64)
    for batch in batches:
        if len(batch) == 0:
            continue
        if n and batch.shape[1] != width:
            raise ValueError(f"batches: vectors of width {width} and {batch.shape[1]}; pass equal widths")
        width = batch.shape[1]
        n += len(batch)
        of_batch = batch.sum(0, dtype=np.int64)
        active = active + of_batch if active.size else of_batch
        seen.update(row.tobytes() for row in np.packbits(batch, axis=1))
    if not width:
        raise ValueError("batches: they hold no vector of any width; pass at least one")
    return Patterns(
        n,
        float((n * width - active.sum()) / (n * width)),
        len(seen),
        float(np.mean(active == 0)),
        float(np.mean(active == n)),
    )
