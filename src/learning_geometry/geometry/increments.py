"""How a state moves through the layers: norms and directions of its increments, and the subspaces they lie in."""

import numpy as np
from jaxtyping import Float, Float64, Real

from learning_geometry.geometry.shared_directions import shared_subspace


def increments(states: Real[np.ndarray, "layers *samples width"]) -> Float64[np.ndarray, "layers-1 *samples width"]:
    """What each layer adds to the state, in float64.

    Raises:
        ValueError: if there are fewer than two states, or an entry is not finite.

    Examples:
        >>> increments(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]]))
        array([[1., 0.],
               [0., 3.]])
    """
    if len(states) < 2 or not np.isfinite(states).all():
        raise ValueError(f"states: {len(states)} of them, or not all finite; pass at least two finite ones")
    return np.diff(states.astype(np.float64), axis=0)


def successive_cosines(
    added: Float[np.ndarray, "layers *samples width"],
) -> Float64[np.ndarray, "layers-1 *samples"]:
    """Cosine between what a layer adds and what the next one adds, per sample.

    Chance, of unrelated directions, is 0 with a standard deviation of 1 / √width (``nulls.random_direction_cosine``).

    Args:
        added: of :func:`increments`.

    Returns:
        Cosines in [-1, 1]; NaN where an increment is zero.

    Examples:
        >>> successive_cosines(np.array([[1.0, 0.0], [1.0, 1.0], [-2.0, -2.0]])).round(4)
        array([ 0.7071, -1.    ])
    """
    lengths = np.linalg.norm(added, axis=-1)
    products = lengths[:-1] * lengths[1:]
    cosines = np.sum(added[:-1] * added[1:], axis=-1) / np.where(products > 0, products, np.nan)
    return np.clip(cosines, -1.0, 1.0)


def share_within(
    vectors: Float[np.ndarray, "*samples width"], basis: Float[np.ndarray, "width rank"]
) -> Float64[np.ndarray, "*samples"]:
    """Share of each vector's squared norm that lies in a subspace.

    Of a random subspace it is rank / width in the mean; ``nulls.random_subspace_energies`` has its law.

    Args:
        vectors: any number of leading axes.
        basis: orthonormal columns.

    Returns:
        Shares in [0, 1]; NaN of a zero vector.

    Examples:
        >>> share_within(np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([[1.0], [0.0]]))
        array([0.36, 0.  ])
    """
    squares = np.sum(vectors**2, axis=-1)
    inside = np.sum((vectors @ basis) ** 2, axis=-1)
    return np.asarray(np.minimum(inside / np.where(squares > 0, squares, np.nan), 1.0))


def shares_in_previous(
    added: Float[np.ndarray, "layers *samples width"], bases: Float[np.ndarray, "subspaces width _"], rank: int
) -> Float64[np.ndarray, "layers *samples"]:
    """Share of what each layer adds that lies in the subspace that the weights of the previous layers share.

    Args:
        added: of :func:`increments`, one per layer.
        bases: output subspace of each layer's weights, orthonormal columns (``shared_directions.output_subspace``).
        rank: dimension of the shared subspace (see ``shared_directions.shared_subspace``).

    Returns:
        Shares in [0, 1], of chance rank / width; NaN for the first layer, before which there is none.

    Raises:
        ValueError: if there is not one subspace per layer, or the rank is out of range.

    Examples:
        >>> plane = np.eye(3)[:, :1]
        >>> shares_in_previous(np.eye(3)[[0, 0, 1]], np.stack([plane] * 3), 1)
        array([nan,  1.,  0.])
    """
    if len(added) != len(bases):
        raise ValueError(f"bases: {len(bases)} subspaces for the increments of {len(added)} layers; pass one for each")
    shares = np.full(added.shape[:-1], np.nan)
    for layer in range(1, len(added)):
        shares[layer] = share_within(added[layer], shared_subspace(bases[:layer], rank))
    return shares
