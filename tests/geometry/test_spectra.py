import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning_geometry.geometry.nulls import gaussian_singular_values, haar_subspace
from learning_geometry.geometry.spectra import (
    effective_rank,
    gaussian_gap_quantiles,
    participation_ratio,
    significant_gaps,
    singular_value_gaps,
    singular_values,
)

spectra = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12).map(lambda v: np.sort(np.array(v))[::-1].copy())


def test_planted_singular_values_are_found_from_float32():
    generator = np.random.default_rng(0)
    planted = np.array([5.0, 2.0, 0.5])
    matrix = haar_subspace(7, 3, generator) * planted @ haar_subspace(4, 3, generator).T
    found = singular_values(matrix.astype(np.float32))
    assert found.dtype == np.float64
    assert np.allclose(found, [5.0, 2.0, 0.5, 0.0], atol=1e-6)


@given(spectra)
def test_both_dimensions_lie_between_one_and_the_rank_in_order(values):
    low, high = participation_ratio(values), effective_rank(values)
    assert 1 - 1e-9 <= low <= len(values) + 1e-9
    assert 1 - 1e-9 <= high <= len(values) + 1e-9


@given(spectra, st.floats(1e-3, 1e3))
def test_both_dimensions_ignore_the_scale(values, scale):
    assert np.isclose(effective_rank(values), effective_rank(scale * values))
    assert np.isclose(participation_ratio(values), participation_ratio(scale * values))


def test_effective_rank_of_two_unequal_values():
    # p = (3/4, 1/4): exp(entropy) = 4 / 3^(3/4)
    assert np.isclose(effective_rank(np.array([3.0, 1.0])), 4 / 3**0.75)


def test_a_zero_matrix_has_no_dimension():
    assert np.isnan(effective_rank(np.zeros(3))) and np.isnan(participation_ratio(np.zeros(3)))


def test_gaps_of_zero_singular_values():
    gaps = singular_value_gaps(np.array([2.0, 0.0, 0.0]))
    assert np.isinf(gaps[0]) and np.isnan(gaps[1])
    assert significant_gaps(np.array([2.0, 0.0, 0.0]), np.array([10.0, 10.0])).tolist() == [1]


@pytest.mark.parametrize("shape", [(2, 2), (8, 8), (8, 20)])
def test_family_wise_rate_of_gaps_in_gaussian_matrices(shape):
    fresh = singular_value_gaps(gaussian_singular_values(shape, 40_000, np.random.default_rng(2)))
    # at .001: 40 expected events scatter by 16 %, the simulated thresholds by about 25 %
    for level, low, high in [(0.95, 0.85, 1.15), (0.999, 0.35, 2.0)]:
        thresholds = gaussian_gap_quantiles(shape, np.random.default_rng(1), level)
        assert thresholds.shape == (min(shape) - 1,) and (thresholds > 1).all()
        assert low < (fresh > thresholds).any(axis=1).mean() / (1 - level) < high


def test_indices_share_the_false_alarms():
    thresholds = gaussian_gap_quantiles((12, 12), np.random.default_rng(3), 0.9)
    fresh = singular_value_gaps(gaussian_singular_values((12, 12), 15_000, np.random.default_rng(4)))
    rates = (fresh > thresholds).mean(axis=0) / (0.1 / 11)
    assert (rates > 0.6).all() and (rates < 1.6).all()


def test_thresholds_follow_the_position_in_the_spectrum():
    thresholds = gaussian_gap_quantiles((64, 64), np.random.default_rng(5), draws=2000)
    # a square Gaussian matrix has a wild last ratio and very regular middle ones
    assert 1.1 < thresholds[34] < 1.3
    assert thresholds[-1] > 1000


def test_planted_groups_are_found_in_noise():
    generator = np.random.default_rng(6)
    planted = np.concatenate([[30.0], np.full(6, 8.0), np.zeros(9)])
    matrix = np.diag(planted) + 0.3 * generator.standard_normal((16, 16))
    thresholds = gaussian_gap_quantiles((16, 16), generator)
    assert significant_gaps(singular_values(matrix), thresholds).tolist() == [1, 7]
    assert significant_gaps(singular_values(generator.standard_normal((16, 16))), thresholds).size == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: singular_values(np.full((2, 2), np.nan)), "matrix"),
        (lambda: singular_values(np.zeros((0, 2))), "matrix"),
        (lambda: effective_rank(np.array([1.0, -1.0])), "negative"),
        (lambda: participation_ratio(np.array([np.inf])), "not finite"),
        (lambda: singular_value_gaps(np.array([1.0, 2.0])), "ascend"),
        (lambda: gaussian_gap_quantiles((4, 4), np.random.default_rng(0), 1.0), "level"),
        (lambda: gaussian_gap_quantiles((4, 4), np.random.default_rng(0), draws=10), "draws"),
        (lambda: gaussian_gap_quantiles((4, 1), np.random.default_rng(0)), "shape"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
