"""Gram matrices and corners drawn without their matrices, against the matrices themselves."""

import numpy as np
import pytest
from scipy import stats

from learning_geometry.geometry.wishart import haar_corners, wishart


@pytest.mark.parametrize(("rows", "dimension"), [(1, 1), (3, 0), (3, 2), (3, 3), (3, 20)])
def test_wishart_matrices_have_the_law_of_gaussian_matrices(rows, dimension):
    generator = np.random.default_rng(12)
    ours = wishart(rows, dimension, 4000, generator)
    matrices = generator.standard_normal((4000, rows, dimension))
    explicit = matrices @ matrices.swapaxes(1, 2)
    if dimension == 0:
        assert not ours.any()
        return
    for i in range(rows):
        assert stats.ks_2samp(ours[:, 0, i], explicit[:, 0, i]).pvalue > 1e-4
        values = [np.linalg.eigvalsh(gram)[:, i] for gram in (ours, explicit)]
        assert stats.ks_2samp(*values).pvalue > 1e-4 or rows > dimension > i


@pytest.mark.parametrize(("dimension", "rank"), [(2, 2), (3, 2), (8, 3), (60, 3)])
def test_haar_corners_have_the_law_of_random_bases(dimension, rank):
    generator = np.random.default_rng(13)
    ours = haar_corners(dimension, rank, 4000, generator)
    bases, triangular = np.linalg.qr(generator.standard_normal((4000, dimension, rank)))
    bases = bases * np.sign(np.diagonal(triangular, axis1=1, axis2=2))[:, None]
    for size in range(1, rank + 1):
        cosines = [np.linalg.svd(corner[:, :size, :size], compute_uv=False) for corner in (ours, bases)]
        for k in range(size):
            if np.ptp(cosines[1][:, k]) > 1e-9:  # subspaces too large to be disjoint share directions
                assert stats.ks_2samp(cosines[0][:, k], cosines[1][:, k]).pvalue > 1e-4
            else:
                assert np.allclose(cosines[0][:, k], cosines[1][:, k])


def test_errors_name_what_is_wrong():
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="rows, dimension and draws: 0, 3 and 1"):
        wishart(0, 3, 1, generator)
    with pytest.raises(ValueError, match="rank: no subspace of 3 dimensions has rank 4"):
        haar_corners(3, 4, 1, generator)
