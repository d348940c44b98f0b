import numpy as np
import pytest

from learning_geometry.geometry.resampling import (
    Resampled,
    bca_ends,
    bootstrap_counts,
    difference,
    pair_counts,
    resampled,
)
from learning_geometry.geometry.uncertainty import bca_interval


def mean_of(values):
    return lambda counts: counts @ values / counts.sum(1, keepdims=values.ndim > 1)


@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize("decimals", [9, 0])  # whole numbers: many resamples equal the estimate
def test_of_a_mean_it_is_the_interval_of_a_mean(level, decimals):
    values = np.random.default_rng(0).exponential(size=40).round(decimals)
    expected = bca_interval(values, np.random.default_rng(1), level, resamples=2000)
    found = resampled(mean_of(values), bootstrap_counts(40, 2000, np.random.default_rng(1)))
    np.testing.assert_allclose(bca_ends(found, level), [expected.low, expected.high], rtol=1e-10)
    assert float(found.estimate) == pytest.approx(expected.estimate)


def test_quantities_are_treated_one_by_one():
    values = np.random.default_rng(0).exponential(size=(30, 2, 3))
    counts = bootstrap_counts(30, 500, np.random.default_rng(1))

    def statistic(drawn):
        return np.einsum("du,uij->dij", drawn, values) / drawn.sum(1)[:, None, None]

    together = bca_ends(resampled(statistic, counts))
    assert together.shape == (2, 2, 3)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_allclose(together[:, i, j], bca_ends(resampled(mean_of(values[:, i, j]), counts)))


def test_counts_are_those_of_draws_with_replacement():
    counts = bootstrap_counts(12, 20_000, np.random.default_rng(0))
    assert (counts.sum(1) == 12).all() and (counts >= 0).all()
    np.testing.assert_allclose(counts.mean(0), 1.0, atol=0.03)
    covariance = np.cov(counts.T)
    np.testing.assert_allclose(np.diag(covariance), 11 / 12, atol=0.04)
    np.testing.assert_allclose(covariance[np.triu_indices(12, 1)], -1 / 12, atol=0.03)


def test_a_skewed_statistic_is_covered_where_the_percentile_interval_undercovers():
    # variance of exponential values: 1, with a skewed law; 50 values
    generator = np.random.default_rng(2)
    covered = {"bca": 0, "percentile": 0}
    repeats = 600
    for _ in range(repeats):
        values = generator.exponential(size=50)
        values -= values.mean()

        def variance(counts, values=values):
            sizes = counts.sum(1)
            return (counts @ values**2 - (counts @ values) ** 2 / sizes) / (sizes - 1)

        found = resampled(variance, bootstrap_counts(50, 400, generator))
        low, high = bca_ends(found)
        covered["bca"] += low <= 1 <= high
        low, high = np.quantile(found.resamples, [0.025, 0.975])
        covered["percentile"] += low <= 1 <= high
    assert covered["bca"] > covered["percentile"] + 0.02 * repeats
    assert covered["bca"] > 0.8 * repeats


def test_paired_differences_do_not_count_what_is_common():
    generator = np.random.default_rng(3)
    common = 10 * generator.standard_normal(60)
    first, second = common + 1 + 0.1 * generator.standard_normal(60), common
    counts = bootstrap_counts(60, 1000, generator)
    found = [resampled(mean_of(values), counts) for values in (first, second)]
    low, high = bca_ends(difference(*found))
    assert 0.9 < low < 1 < high < 1.1
    expected = bca_ends(resampled(mean_of(first - second), counts))
    np.testing.assert_allclose([low, high], expected, rtol=1e-9)
    low, high = bca_ends(found[0])
    assert high - low > 3


def test_degenerate_statistics():
    counts = bootstrap_counts(10, 50, np.random.default_rng(4))
    values = np.stack([np.full(10, 2.5), np.r_[np.nan, np.ones(9)], np.arange(10.0)], axis=1)
    ends = bca_ends(resampled(mean_of(values), counts))
    assert (ends[:, 0] == 2.5).all() and np.isnan(ends[:, 1]).all() and ends[0, 2] < 4.5 < ends[1, 2]


def test_both_of_a_pair_are_drawn_together():
    counts = bootstrap_counts(5, 3, np.random.default_rng(5))
    first, second = pair_counts(counts)
    np.testing.assert_array_equal(first[:, :5], counts)
    np.testing.assert_array_equal(second[:, 5:], counts)
    assert not first[:, 5:].any() and not second[:, :5].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_counts(0, 5, np.random.default_rng(0)), "units and draws"),
        (lambda: bootstrap_counts(5, 0, np.random.default_rng(0)), "units and draws"),
        (lambda: bca_ends(Resampled(np.zeros(()), np.zeros(4), np.zeros(9))), "at least 10"),
        (lambda: bca_ends(Resampled(np.zeros(()), np.zeros(4), np.zeros(10)), 1.0), "level"),
        (
            lambda: difference(
                Resampled(np.zeros(()), np.zeros(4), np.zeros(9)), Resampled(np.zeros(()), np.zeros(5), np.zeros(9))
            ),
            "draws: 4 and 5",
        ),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
