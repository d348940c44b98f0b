"""Ablations of a subspace from what a weight reads or writes, and random ablations to compare them with.

An ablation is a symmetric matrix R on the residual stream (width × width) with eigenvalues in [0, 1]: a weight W that
reads becomes W (1 − R), one that writes becomes (1 − R) W. Of a whole subspace R is the projector on it; keeping it
alone is the ablation of its complement. What is ablated has the Frobenius norm ‖W R‖ or ‖R W‖; no ablation ever
reflects a direction, because no eigenvalue exceeds 1.
"""

import numpy as np
from jaxtyping import Float

from learning_geometry.geometry.rounding import difference


def projector(basis: Float[np.ndarray, "width rank"]) -> Float[np.ndarray, "width width"]:
    """Orthogonal projector on the span of orthonormal columns.

    Examples:
        >>> projector(np.array([[0.6], [0.8]])).round(2)
        array([[0.36, 0.48],
               [0.48, 0.64]])
    """
    return basis @ basis.T


def ablated_norm(weight: Float[np.ndarray, "rows width"], ablation: Float[np.ndarray, "width width"]) -> float:
    """Frobenius norm of what an ablation takes from a weight that reads; of one that writes, pass its transpose.

    Examples:
        >>> ablated_norm(np.array([[3.0, 1.0], [4.0, 1.0]]), np.diag([1.0, 0.0]))
        5.0
    """
    return float(np.linalg.norm(weight @ ablation))


def equal_norm_ablation(
    weight: Float[np.ndarray, "rows width"], rotation: Float[np.ndarray, "width width"], norm: float
) -> Float[np.ndarray, "width width"]:
    r"""Ablation of successive directions of a rotation, as many as have a given Frobenius norm together.

    With q₁, q₂, … the columns, $\|W \sum_i c_i q_i q_i^\top\|_F^2 = \sum_i c_i^2 \|W q_i\|^2$: directions are removed
    whole (c = 1) while the norm is not reached, and the next one in part, so that the norm is met exactly. For a Haar
    rotation this is a random subspace whose dimension is set by the norm instead of given.

    Args:
        weight: Shape (rows, width); of a weight that writes, its transpose.
        rotation: orthonormal columns that span the space.
        norm: norm to remove, from 0 to that of the weight.

    Returns:
        The ablation R, symmetric with eigenvalues in [0, 1].

    Raises:
        ValueError: if the weight has no such norm to remove.

    Examples:
        One direction of norm 3, and a part of the next of norm 4:

        >>> ablation = equal_norm_ablation(np.diag([3.0, 4.0]), np.eye(2), np.sqrt(9 + 4))
        >>> ablation
        array([[1. , 0. ],
               [0. , 0.5]])
        >>> round(ablated_norm(np.diag([3.0, 4.0]), ablation) ** 2, 6)
        13.0
    """
    squares = np.sum((weight @ rotation) ** 2, axis=0)
    # the norm of a weight, computed in another order, may exceed the sum by rounding
    if not 0 <= norm**2 <= squares.sum() * (1 + 1e-9):
        raise ValueError(
            f"norm: {norm} was asked to be removed from a weight of norm {np.sqrt(squares.sum())}; pass at most that"
        )
    missing = difference(norm**2, np.cumsum(squares) - squares, len(squares))
    shares = np.sqrt(np.clip(missing / np.where(squares > 0, squares, 1.0), 0.0, 1.0))
    return (rotation * shares) @ rotation.T
