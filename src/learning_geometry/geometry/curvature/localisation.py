"""Where curvature is: shares of an eigenvector, and the loss increase under noise inside a subspace."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import betaincinv
from torch import Tensor

from learning_geometry.geometry.curvature.lanczos import Eigenpair
from learning_geometry.geometry.curvature.products import unflatten
from learning_geometry.geometry.rounding import is_rounding


def masses(
    vector: Float[Tensor, " dimension"], like: Mapping[str, Tensor], parts: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    r"""Share of a vector's squared norm in each part of the parameters.

    Of a unit eigenvector v, H v = λ v, it is the part's share of the curvature along it too: λ is the sum over parts
    p of $v_p \cdot (H v)_p = \lambda \|v_p\|^2$.

    Args:
        vector: flat vector, not zero, in the order of ``like``.
        like: tensors whose names and shapes it has.
        parts: part -> names of its parameters.

    Returns:
        A fraction for each part; they sum to 1 if every parameter is in exactly one.

    Raises:
        ValueError: if the vector does not fit, or is zero or not finite.

    Examples:
        >>> like = {"a": torch.zeros(1), "b": torch.zeros(1), "c": torch.zeros(2)}
        >>> shares = masses(torch.tensor([1.0, 1.0, 1.0, 2.0]), like, {"a and b": ["a", "b"], "c": ["c"]})
        >>> {part: round(share, 3) for part, share in shares.items()}
        {'a and b': 0.286, 'c': 0.714}
    """
    pieces = unflatten(vector, like)
    squares = {name: float(torch.linalg.vector_norm(piece, dtype=torch.float64)) ** 2 for name, piece in pieces.items()}
    total = sum(squares.values())
    if not 0 < total < np.inf:
        raise ValueError(f"vector: its squared norm is {total}, so that it has no shares; pass a finite one, not zero")
    return {part: sum(squares[name] for name in names) / total for part, names in parts.items()}


def sine_bound(pair: Eigenpair) -> float:
    r"""Bound of the sine of the angle between a Ritz vector and its eigenvector, in [0, 1]; 1 where none is known.

    $\sin\angle \le r / \delta$ with r the residual and δ the gap (Davis and Kahan 1970; Parlett 1998, theorem 11.7.1).
    By as much, at most, do the shares of both (see :func:`masses`) differ: a
    share is the mean of a projector, and the difference of the projectors on both vectors has norm $\sin\angle$.
    Where no gap was seen and nothing but rounding is left of the residual, the vector is an eigenvector.

    Examples:
        >>> sine_bound(Eigenpair(2.0, torch.ones(1), 0.25, 0.125, 9, True, gap=0.5))
        0.5
        >>> sine_bound(Eigenpair(2.0, torch.ones(1), 0.1, 0.1, 9, True))  # no gap was seen
        1.0
        >>> [sine_bound(Eigenpair(2.0, torch.ones(1), residual, residual, 1, True)) for residual in (0.0, 1e-7, 1e-4)]
        [0.0, 0.0, 1.0]
    """
    if pair.gap > 0:
        return min(pair.residual / pair.gap, 1.0)
    exact = is_rounding(pair.residual, pair.value, epsilon=torch.finfo(pair.vector.dtype).eps)
    return 0.0 if exact else 1.0


def random_direction_mass(size: int, dimension: int) -> tuple[float, float, float]:
    r"""Mean and central 95 % range of a random direction's share in ``size`` out of ``dimension`` coordinates; exact.

    The share is Beta(size / 2, (dimension - size) / 2) distributed (Muirhead 1982, "Aspects of Multivariate Statistical
    Theory", section 1.5); its mean is the share of coordinates.

    Args:
        size: from 0 to ``dimension``.
        dimension: from 1.

    Raises:
        ValueError: if a number is out of range.

    Examples:
        >>> [round(float(x), 4) for x in random_direction_mass(1, 2)]  # cos² of a uniform angle
        [0.5, 0.0015, 0.9985]
    """
    if not 0 <= size <= dimension or dimension < 1:
        raise ValueError(f"size and dimension: {size} of {dimension} coordinates; pass from 0 to all of at least one")
    share = size / dimension
    if size in (0, dimension):
        return share, share, share
    low, high = betaincinv(size / 2, (dimension - size) / 2, [0.025, 0.975])
    return share, float(low), float(high)


def subspace_noise(
    rows: int, basis: Float[np.ndarray, "columns rank"], norm: float, generator: np.random.Generator
) -> Float[np.ndarray, "rows columns"]:
    r"""Noise Ξ P of a weight matrix, inside a subspace of its input side, at a given Frobenius norm.

    P projects on the subspace, Ξ has independent standard normal entries, and the product is rescaled to the norm.
    Every row lies in the subspace. In a loss quadratic around the weights, with Hessian H over the entries by row, the
    mean increase is $\|\delta\|_F^2 / (2\, \mathrm{rows}\, \mathrm{rank}) \cdot \sum_i \mathrm{tr}(P H_{ii})$, with
    $H_{ii}$ the block of row i: half the mean curvature in the subspace times the squared norm. So over random
    subspaces of any rank it has the same mean, that of noise in all directions; the spread is larger in few dimensions.

    Args:
        rows: number of rows of the weight.
        basis: orthonormal columns.
        norm: Frobenius norm of the noise.
        generator: source of Ξ.

    Examples:
        >>> noise = subspace_noise(4, np.eye(3)[:, :1], 2.0, np.random.default_rng(0))
        >>> float(np.linalg.norm(noise).round(9)), float(abs(noise[:, 1:]).max())
        (2.0, 0.0)
    """
    # Ξ basis is a matrix of independent normal entries too
    inside = generator.standard_normal((rows, basis.shape[1]))
    return norm / np.linalg.norm(inside) * inside @ basis.T


def loss_increases(
    loss: Callable[[dict[str, Tensor]], Tensor],
    parameters: Mapping[str, Tensor],
    name: str,
    noises: Sequence[Float[np.ndarray, "rows columns"]],
) -> Float[np.ndarray, " pairs"]:
    """Loss increase (L(W + δ) + L(W − δ)) / 2 − L(W) of one parameter W, for each δ; the pair cancels the gradient.

    Computed in the dtype of the parameters: their rounding of L is the floor of the differences.

    Args:
        loss: scalar loss as a function of the named parameters; no derivative is taken.
        parameters: point.
        name: the parameter that is moved.
        noises: displacements δ of its shape.

    Returns:
        One increase per displacement, in the unit of the loss.

    Raises:
        ValueError: if a loss is not finite.

    Examples:
        >>> cube = lambda p: (p["x"] ** 3).sum()
        >>> loss_increases(cube, {"x": torch.ones(1, 1, dtype=torch.float64)}, "x", [np.full((1, 1), 0.5)])
        array([0.75])
    """
    weight = parameters[name]
    with torch.no_grad():
        here = float(loss(dict(parameters)))
        increases = np.empty(len(noises))
        for index, noise in enumerate(noises):
            moved = torch.from_numpy(noise).to(weight)
            both = [float(loss({**parameters, name: weight + sign * moved})) for sign in (1, -1)]
            increases[index] = sum(both) / 2 - here
    if not np.isfinite(increases).all() or not np.isfinite(here):
        raise ValueError(f"loss: it is not finite near {name}; lower the noise, or drop this checkpoint")
    return increases
