"""Trajectories of parameters: principal components of the snapshots, by their inner products.

A trajectory is T snapshots of N parameters, T far below N. All that principal components need is the T x T matrix of
inner products, which adds up over blocks of parameters, so no more than one block is ever in memory.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from learning_geometry.geometry.rounding import is_rounding, rounding

COLUMNS = 2048
"""Parameters converted to float64 at a time."""

SMALLEST_SHARE = 1e-12
"""Share of the variance below which a component found by inner products in float64 is rounding."""


class InnerProducts(NamedTuple):
    """Inner products of a trajectory's displacements from its first snapshot θ₀; they add up over blocks."""

    displacements: Float[np.ndarray, "snapshots snapshots"]
    """(θ_s - θ₀) · (θ_t - θ₀); the first row and column are zero."""
    with_start: Float[np.ndarray, " snapshots"]
    """(θ_t - θ₀) · θ₀."""
    start: float
    """θ₀ · θ₀."""
    entries: int
    """Number N of parameters."""


def inner_products(blocks: Iterable[Float[np.ndarray, "snapshots _"]]) -> InnerProducts:
    """Inner products of the displacements of a trajectory given block by block, in float64.

    θ₀ is subtracted first, in float64: parameters far larger than their changes lose nothing.

    Args:
        blocks: some of the parameters at every snapshot, shape (snapshots, entries), any float type. Together the
            blocks hold each parameter once.

    Raises:
        ValueError: if there is no block, blocks differ in snapshots, or an entry is not finite.

    Examples:
        >>> moves = inner_products([np.array([[3.0], [4.0]]), np.array([[1.0], [3.0]])])  # (3, 1) to (4, 3)
        >>> moves.displacements[1, 1], moves.with_start[1], moves.start, moves.entries
        (np.float64(5.0), np.float64(5.0), 10.0, 2)
    """
    return together([_block_products(block) for block in blocks])


def together(parts: Iterable[InnerProducts]) -> InnerProducts:
    """Inner products of the trajectory of several sets of parameters together, disjoint: the sums.

    Raises:
        ValueError: if there is no part, or parts differ in snapshots.
    """
    listed = list(parts)
    if not listed:
        raise ValueError("blocks: there is none; pass the parameters of at least one block")
    lengths = sorted({len(part.with_start) for part in listed})
    if len(lengths) > 1:
        raise ValueError(f"blocks: they have {lengths} snapshots; pass the same snapshots of every block")
    return InnerProducts(
        np.sum([part.displacements for part in listed], axis=0),
        np.sum([part.with_start for part in listed], axis=0),
        float(np.sum([part.start for part in listed])),
        sum(part.entries for part in listed),
    )


def gram_matrix(blocks: Iterable[Float[np.ndarray, "snapshots _"]]) -> Float[np.ndarray, "snapshots snapshots"]:
    """Inner products of the snapshots themselves, given block by block, in float64.

    For principal components use ``inner_products``, which also serves where snapshots hardly differ.

    Args:
        blocks: some of the parameters at every snapshot, shape (snapshots, entries), any float type.

    Raises:
        ValueError: if there is no block, blocks differ in snapshots, or an entry is not finite.

    Examples:
        >>> gram_matrix([np.array([[1.0], [0.0]]), np.array([[1.0], [2.0]])])
        array([[2., 2.],
               [2., 4.]])
    """
    products = inner_products(blocks)
    return products.displacements + products.with_start + products.with_start[:, None] + products.start


def from_first(
    gram: Float[np.ndarray, "*draws snapshots snapshots"],
) -> Float[np.ndarray, "*draws snapshots snapshots"]:
    """Inner products of the displacements from the first snapshot, from inner products about any origin.

    Exactly 0 throughout where nothing but rounding moves, so that such a trajectory can be told by its trace.

    Examples:
        >>> from_first(np.array([[4.0, 6.0], [6.0, 9.0]]))  # 2 and 3 become 0 and 1
        array([[0., 0.],
               [0., 1.]])
        >>> from_first(np.array([[0.1, 0.1], [0.1, 0.1 + 1e-17]]))
        array([[0., 0.],
               [0., 0.]])
    """
    moved = gram - gram[..., :1, :] - gram[..., :1] + gram[..., :1, :1]
    still = is_rounding(_total(moved), _total(gram), COLUMNS)
    return np.where(still[..., None, None], 0.0, moved)


def centred(gram: Float[np.ndarray, "*draws snapshots snapshots"]) -> Float[np.ndarray, "*draws snapshots snapshots"]:
    """Inner products of the snapshots minus their mean, from inner products about any origin.

    Examples:
        >>> centred(np.array([[0.0, 0.0], [0.0, 4.0]]))  # 0 and 2 become -1 and 1
        array([[ 1., -1.],
               [-1.,  1.]])
    """
    rows = gram - gram.mean(-2, keepdims=True)
    return rows - rows.mean(-1, keepdims=True)


def variances(
    gram: Float[np.ndarray, "*draws snapshots snapshots"],
) -> Float[np.ndarray, "*draws snapshots-1"]:
    """Variances along the principal components of a trajectory, from inner products about any origin.

    What rounding leaves of the inner products is 0: take an origin near the snapshots (see ``inner_products``).

    Args:
        gram: inner products of T snapshots; any number of leading axes.

    Returns:
        T - 1 variances (sums of squares / (T - 1)), descending, non-negative, in the square of the parameters' unit.

    Raises:
        ValueError: if there are fewer than 3 snapshots, or an entry is not finite.

    Examples:
        >>> variances(gram_matrix([np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])]))
        array([1., 0.])
    """
    snapshots = gram.shape[-1]
    _check_gram(gram)
    squares = np.linalg.eigvalsh(centred(gram))[..., :0:-1]
    smallest = rounding(_total(gram), COLUMNS)[..., None]
    return np.where(squares > smallest, squares, 0.0) / (snapshots - 1)


def dimension(variances: Float[np.ndarray, "*draws components"], share: float) -> Int[np.ndarray, "*draws"]:
    """Smallest number of components that hold at least a share of the variance: r90 for a share of .9.

    Args:
        variances: descending along the last axis, non-negative.
        share: in (0, 1).

    Returns:
        Numbers from 1 to ``components``, of the leading axes' shape: an array without axes for one trajectory.

    Raises:
        ValueError: if the share is out of range, or a trajectory does not move.

    Examples:
        >>> int(dimension(np.array([5.0, 4.0, 1.0]), 0.9))
        2
    """
    if not 0 < share < 1:
        raise ValueError(f"share: {share} is no share of the variance; pass a number between 0 and 1")
    cumulative = np.cumsum(_shares(variances), axis=-1)
    # a share met exactly must not be missed by rounding
    return np.asarray(1 + np.sum(cumulative < share - SMALLEST_SHARE, axis=-1))


def first_component_share(variances: Float[np.ndarray, "*draws components"]) -> Float[np.ndarray, "*draws"]:
    """Share of the variance, in (0, 1], on the first principal component.

    Raises:
        ValueError: if a trajectory does not move.

    Examples:
        >>> float(first_component_share(np.array([3.0, 1.0])))
        0.75
    """
    return np.asarray(_shares(variances)[..., 0])


def effective_components(variances: Float[np.ndarray, "*draws components"]) -> Float[np.ndarray, "*draws"]:
    r"""Participation ratio $(\sum \lambda)^2 / \sum \lambda^2$ of the variances of many draws.

    Returns:
        Numbers from 1 to ``components``, of the leading axes' shape.

    Raises:
        ValueError: if a trajectory does not move.

    Examples:
        >>> float(effective_components(np.array([1.0, 1.0, 0.0])))
        2.0
    """
    return np.asarray(1 / np.sum(_shares(variances) ** 2, axis=-1))


def share_along_start(products: InnerProducts) -> float:
    """Share of the centred snapshots' variance, in [0, 1], along the direction of θ₀; 0 where θ₀ is 0.

    Raises:
        ValueError: if the trajectory does not move.
    """
    total = np.trace(centred(products.displacements))
    _check_moves(total, np.trace(products.displacements))
    return float(min(np.sum(_along_start(products) ** 2) / total, 1.0))


def without_start(products: InnerProducts) -> Float[np.ndarray, "snapshots snapshots"]:
    """Inner products of the displacements with what lies along θ₀ removed."""
    along = _along_start(products)
    return centred(products.displacements) - along[:, None] * along


def principal_directions(
    snapshots: Float[np.ndarray, "snapshots entries"], directions: int
) -> Float[np.ndarray, "entries directions"]:
    """Directions of the largest variance of a trajectory, first the largest: orthonormal columns in float64.

    The sign is that along which the last snapshot lies above the mean.

    Args:
        snapshots: parameters at every snapshot, shape (snapshots, entries).
        directions: how many, from 1 to snapshots - 1 and to entries.

    Raises:
        ValueError: if there are fewer than 3 snapshots or too few for the directions, an entry is not finite, or the
            trajectory spans fewer directions.

    Examples:
        >>> np.abs(principal_directions(np.array([[0.0, 5.0], [1.0, 5.0], [3.0, 5.0]]), 1))
        array([[1.],
               [0.]])
    """
    entries = snapshots.shape[1]
    if directions > entries:
        raise ValueError(f"directions: {directions} of a space of {entries}; ask for at most {entries}")
    coordinates = principal_coordinates(inner_products([snapshots]).displacements, directions)
    weights = coordinates / np.sum(coordinates**2, axis=0)
    spanning = np.empty((entries, directions))
    for columns in _slices(entries):
        block = snapshots[:, columns].astype(np.float64)
        # the weights sum to zero, so the origin is free
        spanning[columns] = (block - block[0]).T @ weights
    orthonormal, triangular = np.linalg.qr(spanning)
    return orthonormal * np.sign(np.diag(triangular))


def principal_coordinates(
    gram: Float[np.ndarray, "snapshots snapshots"], directions: int
) -> Float[np.ndarray, "snapshots directions"]:
    """Coordinates of the snapshots along their first principal components, about their mean.

    Args:
        gram: inner products of the snapshots about any origin.
        directions: number of components, from 1 to snapshots - 1.

    Returns:
        One column per component, of sum 0 and of sum of squares (T - 1) x variance; the last entry that is more than
        rounding is positive.

    Raises:
        ValueError: if there are fewer than 3 snapshots or too few for the directions, an entry is not finite, or the
            trajectory spans fewer directions.

    Examples:
        >>> principal_coordinates(gram_matrix([np.array([[0.0], [1.0], [5.0]])]), 1).round(6).ravel()
        array([-2., -1.,  3.])
    """
    count = gram.shape[-1]
    _check_gram(gram)
    if not 1 <= directions < count:
        raise ValueError(f"directions: {directions} of {count} snapshots; ask for 1 to {count - 1}")
    squares, vectors = np.linalg.eigh(centred(gram))
    squares, vectors = squares[::-1][:directions], vectors[:, ::-1][:, :directions]
    _check_moves(squares[0], np.trace(gram))
    spanned = int(np.sum(squares > SMALLEST_SHARE * squares[0]))
    if spanned < directions:
        raise ValueError(f"directions: the trajectory spans {spanned}, not {directions}; ask for fewer")
    return vectors * ending_signs(vectors) * np.sqrt(squares)


def ending_signs(curves: Float[np.ndarray, "snapshots curves"]) -> Float[np.ndarray, " curves"]:
    """Sign, -1 or 1, of the last entry of each curve that is more than rounding of its largest; 1 if there is none.

    Examples:
        >>> ending_signs(np.array([[1.0, 1.0], [-1.0, 2.0], [1e-17, -3.0]]))
        array([-1., -1.])
    """
    counts = ~is_rounding(curves, np.abs(curves).max(0), len(curves))
    last = len(curves) - 1 - counts[::-1].argmax(0)
    return np.where(np.take_along_axis(curves, last[None], 0)[0] < 0, -1.0, 1.0)


def _block_products(block: np.ndarray) -> InnerProducts:
    snapshots, entries = block.shape
    displacements, with_start, start = np.zeros((snapshots, snapshots)), np.zeros(snapshots), 0.0
    for columns in _slices(entries):
        part = block[:, columns].astype(np.float64)
        first = part[0].copy()
        part -= first
        displacements += part @ part.T
        with_start += part @ first
        start += float(first @ first)
    if not np.isfinite([start, *np.diag(displacements)]).all():
        raise ValueError("blocks: an entry is not finite; drop the checkpoints where training diverged")
    return InnerProducts(displacements, with_start, start, entries)


def _slices(entries: int) -> list[slice]:
    return [slice(begin, begin + COLUMNS) for begin in range(0, entries, COLUMNS)]


def _along_start(products: InnerProducts) -> np.ndarray:
    if products.start == 0:
        return np.zeros_like(products.with_start)
    return (products.with_start - products.with_start.mean()) / np.sqrt(products.start)


def _shares(variances: np.ndarray) -> np.ndarray:
    totals = variances.sum(-1, keepdims=True)
    _check_moves(totals)
    return variances / totals


def _total(gram: np.ndarray) -> np.ndarray:
    """Sum of the squared norms of the snapshots about the origin."""
    return np.asarray(np.trace(gram, axis1=-2, axis2=-1))


def _check_moves(totals: np.ndarray | float, scale: float = 0.0) -> None:
    if not (np.asarray(totals) > rounding(scale, COLUMNS)).all():
        raise ValueError("variances: a trajectory does not move; leave out parameters that training does not change")


def _check_gram(gram: np.ndarray) -> None:
    if gram.shape[-1] < 3:
        raise ValueError(f"gram: {gram.shape[-1]} snapshots are too few for principal components; pass at least 3")
    if not np.isfinite(gram).all():
        raise ValueError("gram: an entry is not finite; drop the checkpoints where training diverged")
