import numpy as np
import pytest

from learning_geometry.geometry.increments import increments, share_within, shares_in_previous, successive_cosines
from learning_geometry.geometry.nulls import haar_subspace, haar_subspaces, random_direction_cosine
from learning_geometry.geometry.shared_directions import shared_subspace


def test_increments_and_cosines_of_every_sample():
    generator = np.random.default_rng(0)
    states = (100 + generator.standard_normal((5, 6, 8))).astype(np.float32)
    added = increments(states)
    assert added.shape == (4, 6, 8) and added.dtype == np.float64
    np.testing.assert_allclose(states[0] + added.sum(0), states[-1].astype(np.float64), rtol=1e-12)
    cosines = successive_cosines(added)
    for layer, sample in np.ndindex(3, 6):
        one, other = added[layer, sample], added[layer + 1, sample]
        expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert cosines[layer, sample] == pytest.approx(expected)
    np.testing.assert_allclose(successive_cosines(added * np.array([1e-8, 1, 1e8, 1])[:, None, None]), cosines)


def test_planted_directions():
    direction = haar_subspace(50, 1, np.random.default_rng(1))[:, 0]
    sizes = np.array([1.0, 2.0, -0.5, 3.0])
    np.testing.assert_allclose(successive_cosines(np.outer(sizes, direction)), [1.0, -1.0, -1.0])
    still = increments(np.stack([direction, direction, 2 * direction]))
    assert np.isnan(successive_cosines(still)).all()


def test_unrelated_increments_have_the_cosines_of_random_directions():
    added = np.random.default_rng(2).standard_normal((2, 20_000, 30))
    cosines = successive_cosines(added)[0]
    mean, low, high = random_direction_cosine(30)
    assert np.abs(cosines).mean() == pytest.approx(mean, rel=0.02)
    assert np.mean((np.abs(cosines) > low) & (np.abs(cosines) < high)) == pytest.approx(0.95, abs=0.01)
    assert cosines.std() == pytest.approx(30**-0.5, rel=0.02)


def test_shares_within_complementary_subspaces_add_up():
    generator = np.random.default_rng(3)
    whole = haar_subspace(12, 12, generator)
    vectors = generator.standard_normal((4, 5, 12)) * 1e3
    parts = [share_within(vectors, whole[:, piece]) for piece in (slice(0, 3), slice(3, 12))]
    np.testing.assert_allclose(parts[0] + parts[1], 1.0)
    projected = vectors @ whole[:, :3] @ whole[:, :3].T
    np.testing.assert_allclose(parts[0], np.sum(projected**2, -1) / np.sum(vectors**2, -1))
    assert np.isnan(share_within(np.zeros(12), whole[:, :1]))


def test_each_layer_is_compared_with_the_layers_before_it_alone():
    generator = np.random.default_rng(4)
    width, rank = 60, 6
    common = haar_subspace(width, rank, generator)
    other = np.linalg.qr(np.c_[common, generator.standard_normal((width, rank))])[0][:, rank:]
    bases = np.stack([common, common, common, other, other])
    added = np.stack([common, common, other, other, common]).transpose(0, 2, 1) * 5  # a sample per direction
    shares = shares_in_previous(added, bases, rank)
    assert np.isnan(shares[0]).all()
    np.testing.assert_allclose(shares[1:], np.repeat([[1.0], [0.0], [0.0], [1.0]], rank, axis=1), atol=1e-12)
    # all of what was written before
    np.testing.assert_allclose(shares_in_previous(added, bases, 2 * rank)[4], 1.0)
    for layer in (2, 4):
        direct = share_within(added[layer], shared_subspace(bases[:layer], 3))
        np.testing.assert_allclose(shares_in_previous(added, bases, 3)[layer], direct)


def test_of_unrelated_increments_the_share_is_rank_over_width():
    generator = np.random.default_rng(5)
    bases = haar_subspaces(40, 5, 6, generator)
    shares = shares_in_previous(generator.standard_normal((6, 3000, 40)), bases, 10)
    np.testing.assert_allclose(shares[1:].mean(1), 10 / 40, atol=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: increments(np.ones((1, 3))), "1 of them"),
        (lambda: increments(np.full((2, 3), np.nan)), "not all finite"),
        (
            lambda: shares_in_previous(np.ones((3, 4)), np.stack([np.eye(4)[:, :1]] * 2), 1),
            "2 subspaces .* of 3 layers",
        ),
        (lambda: shares_in_previous(np.ones((2, 4)), np.stack([np.eye(4)[:, :1]] * 2), 5), "rank 5"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
