import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning_geometry.geometry.moments import covariance, gathered, growing, image, merged, moments, restricted


def sample(count=200, width=7, seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, width)) @ generator.standard_normal((width, width)) + 3.0


def batches(vectors, sizes):
    return np.split(vectors, np.cumsum(sizes))


@given(st.lists(st.integers(0, 40), max_size=12))
def test_a_stream_gives_what_numpy_gives_of_all(sizes):
    vectors = sample()
    found = gathered(iter(batches(vectors, sizes)))
    assert found.n == 200
    np.testing.assert_allclose(found.mean, vectors.mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance(found), np.cov(vectors.T), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_small_types_are_summed_in_float64(kind):
    vectors = (1e3 + sample()).astype(kind)
    found = gathered(batches(vectors, [64, 64]))
    assert found.scatter.dtype == found.mean.dtype == np.float64
    np.testing.assert_allclose(covariance(found), np.cov(vectors.astype(np.float64).T), rtol=1e-9, atol=1e-9)


def test_a_large_offset_costs_nothing():
    vectors = np.random.default_rng(1).integers(-8, 8, (250, 5)).astype(np.float64)
    plain, shifted = moments(vectors), moments(vectors + 2.0**45)
    # deviations from the first vector are exact here, those from the mean of such numbers are wrong by .004
    np.testing.assert_allclose(plain.scatter, shifted.scatter, rtol=1e-12)
    streamed = gathered(batches(vectors + 1e9, [1] * 100 + [50, 100]))
    np.testing.assert_allclose(streamed.scatter, plain.scatter, rtol=1e-6, atol=1e-5 * plain.scatter.max())
    # sums of squares, as a control: their error is of the size of the scatter
    naive = (vectors + 1e9).T @ (vectors + 1e9) - 250 * np.outer(*2 * [(vectors + 1e9).mean(0)])
    assert np.abs(naive - plain.scatter).max() > 0.01 * plain.scatter.max()


def test_merging_ignores_the_order():
    one, other, third = (moments(sample(size, seed=size)) for size in (1, 5, 90))
    for found in (merged(merged(third, one), other), merged(other, merged(one, third))):
        expected = merged(merged(one, other), third)
        assert found.n == expected.n == 96
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
        np.testing.assert_allclose(found.scatter, expected.scatter, rtol=1e-10, atol=1e-10)


def test_growing_moments_are_those_of_the_first_vectors_in_one_pass():
    vectors, read = sample(), []

    def seeded():
        for batch in batches(vectors, [30, 0, 80, 30]):
            read.append(len(batch))
            yield batch

    counts = [1, 2, 29, 30, 31, 120]
    for count, found in zip(counts, growing(seeded(), counts), strict=True):
        assert found.n == count
        np.testing.assert_allclose(found.mean, vectors[:count].mean(0), rtol=1e-12)
        expected = moments(vectors[:count]).scatter
        np.testing.assert_allclose(found.scatter, expected, rtol=1e-10, atol=1e-10)
    assert read == [30, 0, 80, 30]  # the last batch is not needed


def test_linear_maps_and_selections_of_moments_are_those_of_the_vectors():
    vectors = sample()
    weight = np.random.default_rng(2).standard_normal((4, 7)).astype(np.float32)
    kept = np.array([True, False, True, True, False, True, False])
    for found, direct in [
        (image(moments(vectors), weight), vectors @ weight.T.astype(np.float64)),
        (restricted(moments(vectors), kept), vectors[:, kept]),
    ]:
        np.testing.assert_allclose(found.mean, direct.mean(0), rtol=1e-10)
        np.testing.assert_allclose(found.scatter, moments(direct).scatter, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moments(np.zeros((0, 3))), "there is none"),
        (lambda: moments(np.array([[1.0], [np.nan]])), "not finite"),
        (lambda: gathered([np.ones((2, 2)), np.array([[np.inf, 0.0]])]), "not finite"),
        (lambda: gathered([]), "no vector"),
        (lambda: gathered([np.zeros((0, 3))]), "no vector"),
        (lambda: gathered([np.ones((1, 3)), np.ones((1, 2))]), "width 3 and 2"),
        (lambda: covariance(moments(np.ones((1, 3)))), "1 vector"),
        (lambda: restricted(moments(np.ones((1, 2))), np.array([False, False])), "no coordinate"),
        (lambda: list(growing([np.ones((3, 2))], [2, 5])), "5 vectors were asked for, and the stream holds 3"),
        (lambda: list(growing([np.ones((3, 2))], [2, 2])), "increase strictly"),
        (lambda: list(growing([np.ones((3, 2))], [0, 2])), "increase strictly"),
        (lambda: list(growing([np.ones((3, 2))], [])), "increase strictly"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
