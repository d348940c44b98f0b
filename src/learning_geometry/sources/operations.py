"""How a parameter lies in a tensor of another tool, the way from one to the other, and back.

A parameter here is that of ``torch.nn.Linear``: outputs first, heads stacked in its rows (query, key, value) or set
side by side in its columns (output), rotary positions on interleaved pairs (2j, 2j+1) of each head. Nothing is
computed: numbers only change their place, so that there and back is the same, bit by bit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Placement(NamedTuple):
    """Where and how a parameter lies in a tensor of a file."""

    transpose: bool = False
    """The tensor has inputs first; with ``heads_first``, each head's matrix has."""
    heads_first: bool = False
    """Its first dimension counts heads: (heads, inputs, head width), say, not (heads · head width, inputs)."""
    across: bool = False
    """Heads lie in the columns of the parameter, not in its rows; matters with ``heads_first`` alone."""
    part: tuple[int, int] = (0, 1)
    """Number of this parameter among those fused in the tensor's rows (after transposition), and how many they are."""
    per_head: bool = False
    """Fused head by head: rows are [heads, parts, head width], not [parts, heads, head width]."""
    heads: int = 1
    """Heads of this parameter."""
    halves: int = 0
    """Rotary positions turn this many numbers of each head, in pairs (j, j + halves / 2); 0: nothing is to be moved."""


def placed_shape(shape: Shape, at: Placement) -> Shape:
    """Return the shape of the parameter that lies so in a tensor of ``shape``.

    Raises:
        ValueError: it cannot lie so in such a tensor; the message says why.
    """
    if at.heads_first:
        return _merged_shape(shape, at)
    if at.transpose and len(shape) != 2:
        raise ValueError("only a matrix can be transposed")
    rows, *columns = shape[::-1] if at.transpose else shape or (0,)
    unit = at.part[1] * (at.heads if at.per_head else 1)
    if not shape or rows % unit:
        by_head = f" of {at.heads} heads" if at.per_head else ""
        raise ValueError(f"its rows cannot be taken apart into {at.part[1]} equal parts{by_head}")
    rows //= at.part[1]
    _check_halves(rows, at)
    return (rows, *columns)


def place(tensor: np.ndarray, at: Placement) -> np.ndarray:
    """Return the parameter that lies so in a tensor: contiguous, of shape :func:`placed_shape`.

    Raises:
        ValueError: as :func:`placed_shape`.
    """
    shape = placed_shape(tensor.shape, at)
    if at.heads_first:
        # (heads, rows, columns) with rows of outputs; a bias is (heads, head width)
        by_head = tensor.swapaxes(1, 2) if at.transpose else tensor
        whole = by_head.swapaxes(0, 1) if at.across else by_head
    else:
        whole = tensor.T if at.transpose else tensor
        number, parts = at.part
        heads = at.heads if at.per_head else 1
        whole = whole.reshape(heads, parts, -1, *whole.shape[1:])[:, number]
    return np.ascontiguousarray(_turned(whole.reshape(shape), at, back=False))


def fuse(parameters: Sequence[np.ndarray], placements: Sequence[Placement]) -> np.ndarray:
    """Return the tensor in which parameters lie, all its parts in order: the inverse of :func:`place`.

    Raises:
        ValueError: parts differ in their shapes.
    """
    at = placements[0]
    turned = [_turned(each, own, back=True) for each, own in zip(parameters, placements, strict=True)]
    if len({each.shape for each in turned}) > 1:
        raise ValueError(f"parts of one tensor have the shapes {', '.join(str(each.shape) for each in turned)}")
    if at.heads_first:
        (whole,) = turned
        if at.across:
            by_head = whole.reshape(len(whole), at.heads, -1).swapaxes(0, 1)
        else:
            by_head = whole.reshape(at.heads, -1, *whole.shape[1:])
        return np.ascontiguousarray(by_head.swapaxes(1, 2) if at.transpose else by_head)
    heads = at.heads if at.per_head else 1
    by_head = np.stack([each.reshape(heads, -1, *each.shape[1:]) for each in turned], axis=1)
    whole = by_head.reshape(-1, *by_head.shape[3:])
    return np.ascontiguousarray(whole.T if at.transpose else whole)


def stays(at: Placement) -> bool:
    """Return whether a parameter is its tensor as it is, byte by byte."""
    return not (at.transpose or at.heads_first or at.halves) and at.part == (0, 1)


def square(shape: Shape, at: Placement) -> bool:
    """Return whether a tensor of this shape fits transposed as well, so that its shape cannot tell."""
    matrix = shape[1:] if at.heads_first else shape
    return len(matrix) == 2 and matrix[0] == matrix[1]


def _merged_shape(shape: Shape, at: Placement) -> Shape:
    if len(shape) not in ((3,) if at.transpose or at.across else (2, 3)):
        raise ValueError("heads come first in tensors (heads, …, …) of weights and (heads, …) of biases alone")
    if shape[0] != at.heads:
        raise ValueError(f"its first dimension is {shape[0]}, and the model has {at.heads} heads there")
    rows, *columns = (shape[2], shape[1]) if at.transpose else shape[1:]
    if at.across:
        return rows, at.heads * columns[0]
    _check_halves(at.heads * rows, at)
    return (at.heads * rows, *columns)


def _check_halves(rows: int, at: Placement) -> None:
    if at.halves and (rows % at.heads or at.halves % 2 or at.halves > rows // at.heads):
        raise ValueError(f"rotary positions cannot turn {at.halves} of the {rows} rows of {at.heads} heads")


def _turned(parameter: np.ndarray, at: Placement, back: bool) -> np.ndarray:
    """Move what rotary positions turn from two halves of each head to interleaved pairs, or back."""
    if not at.halves:
        return parameter
    by_head = parameter.reshape(at.heads, -1, *parameter.shape[1:])
    order = np.arange(by_head.shape[1])
    order[: at.halves] = np.arange(at.halves).reshape(2, -1).T.flatten()
    if back:
        order = np.argsort(order)
    return by_head[:, order].reshape(parameter.shape)
