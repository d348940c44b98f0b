"""Intrinsic dimension from nearest neighbours, by scikit-dimension, of trajectories given by inner products."""

import numpy as np
from jaxtyping import Float

NEIGHBOURS = 20
"""Neighbours of each snapshot that the maximum-likelihood estimator takes, its default; fewer if there are fewer."""

COINCIDE = 1e-12
"""Squared distance, in units of the largest squared displacement, below which two snapshots are one."""


def neighbour_dimensions(gram: Float[np.ndarray, "draws snapshots snapshots"]) -> dict[str, np.ndarray]:
    """Return what TwoNN and maximum likelihood estimate, one number per trajectory; none where snapshots coincide.

    Inner products of the displacements fix the snapshots up to rotation: T points in T dimensions.

    Source: Facco et al. 2017, "Estimating the intrinsic dimension of datasets by a minimal neighborhood information";
    Levina and Bickel 2005, "Maximum likelihood estimation of intrinsic dimension".
    """
    if not _apart(gram):
        return {}
    # importing it takes two seconds
    from skdim.id import MLE, TwoNN

    squares, vectors = np.linalg.eigh(gram)
    points = vectors * np.sqrt(np.maximum(squares, 0.0))[:, None, :]
    neighbours = min(NEIGHBOURS, gram.shape[-1] - 1)
    maximum_likelihood = [MLE().fit(each, n_neighbors=neighbours).dimension_ for each in points]
    return {
        "two_nearest_neighbours_dimension": np.array([TwoNN().fit(each).dimension_ for each in points]),
        "maximum_likelihood_dimension": np.array(maximum_likelihood),
    }


def _apart(gram: np.ndarray) -> bool:
    lengths = np.diagonal(gram, axis1=-2, axis2=-1)
    squares = lengths[..., :, None] + lengths[..., None, :] - 2 * gram
    between = squares[..., ~np.eye(gram.shape[-1], dtype=bool)]
    return bool((between > COINCIDE * lengths.max(-1, keepdims=True)).all())
