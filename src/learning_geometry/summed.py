"""Of which layers of a language model moments are summed, and how much memory that takes; imports no torch."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

BLOCK = 64
"""Rows of a symmetric matrix that are summed together; what is below their part of the diagonal is left out."""

SUMS_AT_MOST = 4e9
"""Bytes of sums above which moments are of some layers alone, unless the config names them."""

STREAM_SUMS = 3
"""Activations of a layer as wide as the stream whose products are summed; those of z come besides."""


@lru_cache(maxsize=8)
def upper_blocks(width: int) -> list[tuple[slice, slice]]:
    """Blocks of rows of a symmetric matrix, and where the entries of each, from the diagonal on, lie in a row."""
    blocks, start = [], 0
    for first in range(0, width, BLOCK):
        last = min(first + BLOCK, width)
        stop = start + (last - first) * (width - first)
        blocks.append((slice(first, last), slice(start, stop)))
        start = stop
    return blocks


def entries(width: int) -> int:
    """Return how many numbers the products of columns take, of which little more than one half is summed."""
    return upper_blocks(width)[-1][1].stop


def sums_of_a_layer(width: int, inner: int) -> int:
    """Return the bytes of the sums of one layer: in float64, and in float32 on the model's device.

    Args:
        width: of the stream.
        inner: of all heads together.
    """
    return (8 + 4) * (STREAM_SUMS * entries(width) + entries(inner))


def summed_layers(wanted: Sequence[int] | None, layers: int, width: int, inner: int) -> list[int]:
    """Return the layers whose moments are summed, in their order.

    Args:
        wanted: counted from 0, or from -1 backwards; None: all whose sums take no more than ``SUMS_AT_MOST``, else as
            many, evenly spread from the first to the last. It hangs on the model alone, not on the machine.
        layers: of the model.
        width: of the stream.
        inner: of all heads together.

    Raises:
        ValueError: there is no such layer.

    >>> summed_layers(None, 30, 576, 576)[-1], summed_layers(None, 28, 3584, 3584), summed_layers([-1, 0], 4, 8, 8)
    (29, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27], [0, 3])
    """
    if wanted is not None:
        if missing := [layer for layer in wanted if not -layers <= layer < layers]:
            raise ValueError(f"text.moment_layers: no layer {missing[0]}; the model has 0 to {layers - 1}")
        return sorted({layer % layers for layer in wanted})
    room = max(2, int(SUMS_AT_MOST // sums_of_a_layer(width, inner)))
    if room >= layers:
        return list(range(layers))
    return np.linspace(0, layers - 1, room).round().astype(int).tolist()
