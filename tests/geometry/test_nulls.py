import numpy as np
import pytest
from scipy import stats

from learning_geometry.geometry.nulls import (
    gaussian_singular_values,
    haar_subspace,
    haar_subspaces,
    largest_cosine_null,
    principal_cosines_null,
    random_direction_cosine,
    random_subspace_energies,
)


@pytest.mark.parametrize("shape", [(1, 4), (6, 6), (9, 4), (4, 9)])
def test_bidiagonal_model_has_the_law_of_a_dense_gaussian_matrix(shape):
    generator = np.random.default_rng(0)
    ours = gaussian_singular_values(shape, 3000, generator)
    dense = np.linalg.svd(generator.standard_normal((3000, *shape)), compute_uv=False)
    assert ours.shape == (3000, min(shape))
    assert (np.diff(ours, axis=1) <= 0).all() and (ours >= 0).all()
    for index in range(min(shape)):
        assert stats.ks_2samp(ours[:, index], dense[:, index]).pvalue > 1e-4


def test_square_of_one_by_one_is_chi_squared():
    values = gaussian_singular_values((1, 1), 4000, np.random.default_rng(1))[:, 0]
    assert stats.kstest(values**2, stats.chi2(1).cdf).pvalue > 1e-4


def test_norm_matched_draws_have_the_norm_and_keep_the_ratios():
    free = gaussian_singular_values((5, 3), 10, np.random.default_rng(2))
    matched = gaussian_singular_values((5, 3), 10, np.random.default_rng(2), frobenius_norm=7.0)
    assert np.allclose(np.linalg.norm(matched, axis=1), 7.0)
    assert np.allclose(matched[:, 0] / matched[:, 1], free[:, 0] / free[:, 1])


def test_haar_basis_is_orthonormal_and_uniform():
    generator = np.random.default_rng(3)
    bases = np.stack([haar_subspace(5, 2, generator) for _ in range(2000)])
    assert np.allclose(bases.transpose(0, 2, 1) @ bases, np.eye(2))
    # one squared coordinate of a uniform unit vector follows Beta(1/2, (d - 1)/2); signs are symmetric
    for row, column in [(0, 0), (4, 0), (0, 1)]:
        entry = bases[:, row, column]
        assert stats.kstest(entry**2, stats.beta(0.5, 2).cdf).pvalue > 1e-4
        assert abs(np.mean(entry > 0) - 0.5) < 4 * 0.5 / np.sqrt(2000)


def test_largest_cosine_between_lines_follows_the_beta_law():
    cosines = largest_cosine_null(6, 1, 2000, np.random.default_rng(4))
    assert stats.kstest(cosines**2, stats.beta(0.5, 2.5).cdf).pvalue > 1e-4


def test_largest_cosine_of_a_line_in_a_subspace_follows_the_beta_law():
    for rank, other_rank in [(1, 3), (3, 1)]:
        cosines = largest_cosine_null(8, rank, 2000, np.random.default_rng(5), other_rank)
        assert stats.kstest(cosines**2, stats.beta(1.5, 2.5).cdf).pvalue > 1e-4


@pytest.mark.parametrize(("rank", "mean", "upper"), [(5, 0.44, 0.56), (10, 0.67, 0.75), (20, 0.90, 0.93)])
def test_largest_cosine_reaches_the_known_values_in_64_dimensions(rank, mean, upper):
    cosines = largest_cosine_null(64, rank, 1000, np.random.default_rng(6))
    assert abs(cosines.mean() - mean) < 0.01
    assert abs(np.quantile(cosines, 0.95) - upper) < 0.015


def test_subspaces_too_large_to_be_disjoint_share_a_direction():
    assert np.allclose(largest_cosine_null(5, 3, 20, np.random.default_rng(7)), 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: gaussian_singular_values((0, 3), 1, g), "shape"),
        (lambda g: gaussian_singular_values((2, 3), 0, g), "draws"),
        (lambda g: haar_subspace(3, 4, g), "rank"),
        (lambda g: largest_cosine_null(3, 2, 0, g), "draws"),
        (lambda g: largest_cosine_null(3, 2, 1, g, 4), "rank"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))


def test_many_haar_subspaces_are_each_uniform():
    bases = haar_subspaces(5, 5, 4000, np.random.default_rng(20))
    assert np.allclose(bases.transpose(0, 2, 1) @ bases, np.eye(5))
    # first, second and fourth moments of an entry of a Haar matrix: 0, 1/d, 3/(d(d+2))
    assert np.allclose(bases.mean(0), 0.0, atol=0.04)
    assert np.allclose((bases**2).mean(0), 0.2, atol=0.02)
    assert np.allclose((bases**4).mean(0), 3 / 35, atol=0.02)


def test_nested_cosines_agree_with_the_largest_and_the_exact_mean_square():
    nested = principal_cosines_null(10, [2, 4], 3000, np.random.default_rng(21))
    assert [cosines.shape for cosines in nested] == [(3000, 2), (3000, 4)]
    for cosines, rank in zip(nested, (2, 4), strict=True):
        assert np.isclose((cosines**2).mean(), rank / 10, atol=0.01)
        other = largest_cosine_null(10, rank, 3000, np.random.default_rng(22))
        assert np.allclose(np.quantile(cosines[:, 0], [0.1, 0.5, 0.9]), np.quantile(other, [0.1, 0.5, 0.9]), atol=0.02)
    assert principal_cosines_null(10, [], 5, np.random.default_rng(0)) == []


@pytest.mark.parametrize("dimension", [2, 3, 64])
def test_cosine_of_a_random_direction(dimension):
    generator = np.random.default_rng(23)
    first, others = generator.standard_normal(400_000), generator.chisquare(dimension - 1, 400_000)
    cosines = np.abs(first) / np.sqrt(first**2 + others)
    expected = (cosines.mean(), *np.quantile(cosines, [0.025, 0.975]))
    assert np.allclose(random_direction_cosine(dimension), expected, atol=1.5e-2 / np.sqrt(dimension))
    with pytest.raises(ValueError, match="dimension: directions in 1"):
        random_direction_cosine(1)


@pytest.mark.parametrize(("dimension", "rank"), [(12, 3), (7, 6), (40, 36), (5, 1)])
def test_share_of_one_vector_in_a_random_subspace_follows_the_beta_law(dimension, rank):
    shares = random_subspace_energies(np.array([[4.0]]), dimension, rank, 3000, np.random.default_rng(6))[:, 0] / 4
    assert stats.kstest(shares, stats.beta(rank / 2, (dimension - rank) / 2).cdf).pvalue > 1e-4


@pytest.mark.parametrize(("dimension", "rank", "count"), [(7, 2, 3), (6, 4, 6), (4, 3, 9), (30, 5, 2)])
def test_energies_of_several_vectors_have_the_joint_law_of_brute_force_projections(dimension, rank, count):
    generator = np.random.default_rng(7)
    # alike but not equal, as commutators at one point are
    vectors = generator.standard_normal(dimension) + generator.standard_normal((count, dimension))
    ours = random_subspace_energies(vectors @ vectors.T, dimension, rank, 4000, generator)
    brute = np.sum((vectors @ haar_subspaces(dimension, rank, 4000, generator)) ** 2, axis=2)
    assert ours.shape == brute.shape == (4000, count)
    assert (ours >= 0).all() and (ours <= np.sum(vectors**2, axis=1)).all()
    for index in range(count):
        assert stats.ks_2samp(ours[:, index], brute[:, index]).pvalue > 1e-4
    for of_all in (lambda x: np.sqrt(x).mean(1), lambda x: x[:, 0] - x[:, 1], lambda x: x.min(1)):
        assert stats.ks_2samp(of_all(ours), of_all(brute)).pvalue > 1e-4


def test_equal_vectors_are_projected_alike_and_the_whole_space_holds_everything():
    gram = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    energies = random_subspace_energies(gram, 50, 4, 200, np.random.default_rng(8))
    assert np.allclose(energies[:, 0], energies[:, 1]) and not np.allclose(energies[:, 0], energies[:, 2])
    whole = random_subspace_energies(gram, 50, 50, 20, np.random.default_rng(9))
    assert np.allclose(whole, [1.0, 1.0, 2.0])


def test_several_blocks_of_one_vector_add_up():
    """A random subspace in each block: the sum of independent Beta shares, weighted by the blocks' energies."""
    generator = np.random.default_rng(10)
    sizes, ranks, blocks = (6, 9), (2, 3), [generator.standard_normal(size) for size in (6, 9)]
    total = sum(block @ block for block in blocks)
    brute = np.zeros(3000)
    ours = np.zeros(3000)
    for size, rank, block in zip(sizes, ranks, blocks, strict=True):
        brute += np.sum((block @ haar_subspaces(size, rank, 3000, generator)) ** 2, axis=-1) / total
        ours += random_subspace_energies(np.array([[block @ block]]), size, rank, 3000, generator)[:, 0] / total
    beta = sum(
        stats.beta(rank / 2, (size - rank) / 2).rvs(3000, random_state=generator) * (block @ block) / total
        for size, rank, block in zip(sizes, ranks, blocks, strict=True)
    )
    assert stats.ks_2samp(ours, brute).pvalue > 1e-4 and stats.ks_2samp(ours, beta).pvalue > 1e-4


def test_inner_products_of_no_vectors_are_an_error():
    generator = np.random.default_rng(11)
    with pytest.raises(ValueError, match="gram: it has a negative eigenvalue"):
        random_subspace_energies(np.diag([1.0, -1.0]), 5, 2, 3, generator)
    with pytest.raises(ValueError, match="gram: it is not finite and symmetric"):
        random_subspace_energies(np.array([[1.0, 2.0], [0.0, 4.0]]), 5, 2, 3, generator)
    with pytest.raises(ValueError, match="rank: no subspace of 5 dimensions has rank 6"):
        random_subspace_energies(np.eye(2), 5, 6, 3, generator)
    with pytest.raises(ValueError, match="draws: 0"):
        random_subspace_energies(np.eye(2), 5, 2, 0, generator)
