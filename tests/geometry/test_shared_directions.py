import numpy as np
import pytest

from learning_geometry.geometry.nulls import haar_subspace, haar_subspaces
from learning_geometry.geometry.shared_directions import (
    output_subspace,
    rows_permuted,
    shared_subspace,
    spectra_matched,
    spectral_overlaps,
    subspace_overlaps,
)
from learning_geometry.geometry.spectra import participation_ratio
from learning_geometry.geometry.subspaces import principal_cosines, top_left_singular_subspace

from .oracles import overlap_null, spectral_overlap_mean

WIDTH = 20


@pytest.mark.parametrize("inputs", [8, WIDTH, 50])
def test_output_subspaces_are_top_left_singular_vectors(inputs):
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((WIDTH, inputs)).astype(np.float32)
    for rank in (1, 5):
        found = output_subspace(weight, rank)
        np.testing.assert_allclose(found.T @ found, np.eye(rank), atol=1e-12)
        np.testing.assert_allclose(principal_cosines(found, top_left_singular_subspace(weight, rank)), 1.0, atol=1e-10)
    # in descending order
    lengths = np.linalg.norm(weight.T @ output_subspace(weight, 5), axis=0)
    assert (np.diff(lengths) < 0).all()


def test_overlaps_are_mean_squared_principal_cosines():
    bases = haar_subspaces(WIDTH, 4, 5, np.random.default_rng(1))
    found = subspace_overlaps(bases)
    for i, j in np.ndindex(5, 5):
        assert found[i, j] == pytest.approx(np.mean(principal_cosines(bases[i], bases[j]) ** 2))
    np.testing.assert_allclose(np.diag(found), 1.0)


def test_the_overlap_null_is_that_of_random_subspaces_and_of_spectra_matched_matrices():
    generator = np.random.default_rng(2)
    rank, draws = 4, 2000
    null = overlap_null(WIDTH, rank, draws, generator)
    direct = subspace_overlaps(haar_subspaces(WIDTH, rank, 64, generator))[np.triu_indices(64, 1)]
    values = np.geomspace(9, 0.1, WIDTH)
    # any spectrum: the top subspaces are random
    matched = np.stack([output_subspace(spectra_matched(values, WIDTH, generator), rank) for _ in range(64)])
    of_matched = subspace_overlaps(matched)[np.triu_indices(64, 1)]
    for sample in (null, direct, of_matched):
        assert sample.mean() == pytest.approx(rank / WIDTH, rel=0.03)
        assert sample.std() == pytest.approx(null.std(), rel=0.1)
        np.testing.assert_allclose(np.quantile(sample, [0.025, 0.975]), np.quantile(null, [0.025, 0.975]), atol=0.02)


def test_planted_directions_are_shared_beyond_chance():
    generator = np.random.default_rng(3)
    common = haar_subspace(WIDTH, 3, generator)
    weights = [
        common @ generator.standard_normal((3, 30)) * 2 + generator.standard_normal((WIDTH, 30)) for _ in range(6)
    ]
    bases = np.stack([output_subspace(weight, 3) for weight in weights])
    upper = np.triu_indices(6, 1)
    assert subspace_overlaps(bases)[upper].min() > np.quantile(overlap_null(WIDTH, 3, 2000, generator), 0.999)
    found = spectral_overlaps(weights)
    values = [np.linalg.svd(weight, compute_uv=False) for weight in weights]
    for i, j in zip(*upper, strict=True):
        assert found[i, j] > 1.3 * spectral_overlap_mean(values[i], values[j], WIDTH)
    np.testing.assert_allclose(principal_cosines(shared_subspace(bases, 3), common), 1.0, atol=0.04)


def test_spectral_overlaps_are_cosines_of_output_covariances():
    generator = np.random.default_rng(4)
    weights = [generator.standard_normal((WIDTH, inputs)).astype(np.float32) for inputs in (5, 40)]
    grams = [weight.astype(np.float64) @ weight.T.astype(np.float64) for weight in weights]
    expected = np.sum(grams[0] * grams[1]) / np.linalg.norm(grams[0]) / np.linalg.norm(grams[1])
    found = spectral_overlaps(weights)
    assert found[0, 1] == found[1, 0] == pytest.approx(expected)
    turned = [7 * weights[0] @ haar_subspace(5, 5, generator), weights[1]]
    np.testing.assert_allclose(spectral_overlaps(turned), found, rtol=1e-6)  # inputs do not matter
    apart = [np.eye(6)[:, :2], np.eye(6)[:, 2:] * 3]
    np.testing.assert_allclose(spectral_overlaps(apart), np.eye(2), atol=1e-12)


@pytest.mark.parametrize("ranks", [(WIDTH, WIDTH), (3, 12)])
def test_the_spectral_null_has_the_closed_mean(ranks):
    generator = np.random.default_rng(5)
    values = [np.geomspace(1, 0.05, rank) for rank in ranks]
    mean = spectral_overlap_mean(*values, WIDTH)
    draws = [spectral_overlaps([spectra_matched(each, WIDTH, generator) for each in values])[0, 1] for _ in range(3000)]
    assert np.mean(draws) == pytest.approx(mean, rel=0.03)
    assert mean == pytest.approx(np.sqrt(participation_ratio(values[0]) * participation_ratio(values[1])) / WIDTH)
    np.testing.assert_allclose(
        np.linalg.svd(spectra_matched(values[0], WIDTH, generator), compute_uv=False), values[0], rtol=1e-8
    )


def test_large_coordinates_alone_make_shared_directions_and_permuted_rows_keep_them():
    generator = np.random.default_rng(6)
    sizes = np.ones((WIDTH, 1))
    sizes[[3, 7]] = 20.0
    weights = [sizes * generator.standard_normal((WIDTH, 30)) for _ in range(2)]
    permuted = [rows_permuted(weight, generator) for weight in weights]
    for weight, null in zip(weights, permuted, strict=True):
        np.testing.assert_allclose(np.sort(np.abs(null), axis=1), np.sort(np.abs(weight), axis=1))
        assert np.abs(null - weight).max() > 1
    values = [np.linalg.svd(weight, compute_uv=False) for weight in weights]
    found, null = spectral_overlaps(weights)[0, 1], spectral_overlaps(permuted)[0, 1]
    # far above matrices of the same spectra, and no more than the coordinates explain
    assert found > 4 * spectral_overlap_mean(*values, WIDTH) and null == pytest.approx(found, rel=0.2)
    # a direction across coordinates is lost
    mixed = np.outer(np.ones(WIDTH), generator.standard_normal(400))
    assert np.abs(np.corrcoef(rows_permuted(mixed, generator))[np.triu_indices(WIDTH, 1)]).max() < 0.3
    signs = np.sign(rows_permuted(np.ones((WIDTH, 1000)), generator)).mean(1)
    assert np.abs(signs).max() < 0.15


def test_the_shared_subspace_has_the_largest_mean_overlap():
    generator = np.random.default_rng(7)
    bases = haar_subspaces(WIDTH, 3, 4, generator)
    found = shared_subspace(bases, 3)
    best = np.mean(np.sum((bases.transpose(0, 2, 1) @ found) ** 2, axis=(1, 2)))
    projectors = np.mean(bases @ bases.transpose(0, 2, 1), axis=0)
    assert best == pytest.approx(np.linalg.eigvalsh(projectors)[-3:].sum())
    for other in haar_subspaces(WIDTH, 3, 50, generator):
        assert np.trace(other.T @ projectors @ other) < best
    # beyond their span there are directions too
    whole = shared_subspace(bases, WIDTH)
    np.testing.assert_allclose(whole.T @ whole, np.eye(WIDTH), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: output_subspace(np.eye(3), 4), "no 4 output directions"),
        (lambda: output_subspace(np.full((2, 2), np.nan), 1), "not finite"),
        (lambda: spectral_overlaps([np.eye(2), np.zeros((2, 3))]), "number 1 is zero"),
        (lambda: spectra_matched(np.ones(4), 3, np.random.default_rng(0)), "rank"),
        (lambda: shared_subspace(np.zeros((0, 3, 1)), 1), "0 subspaces"),
        (lambda: shared_subspace(np.stack([np.eye(3)[:, :1]]), 4), "rank 4"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
