import numpy as np
import pytest
from scipy import stats

from learning_geometry.measurements.common.contrast_pairs import (
    mean_over_prompts,
    over_pairs,
    over_pairs_corrected,
    pair_counts,
    thirds,
    union_variance,
)


def test_union_variance_is_that_of_the_drawn_prompts():
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((14, 5)) + 1e4 * generator.standard_normal(5)
    counts = pair_counts("any", 7, 50)
    for drawn, found in zip(counts, union_variance(vectors, counts), strict=True):
        assert found == pytest.approx(np.repeat(vectors, np.tile(drawn, 2), axis=0).var(0, ddof=1).mean(), rel=1e-9)


def test_intervals_of_means_are_those_of_the_house():
    generator = np.random.default_rng(1)
    values = generator.exponential(size=(1, 12))
    # six pairs: Student's t of the means of pairs
    found = over_pairs(mean_over_prompts(values, pair_counts("any", 6, 50)))
    of_pairs = (values[0, :6] + values[0, 6:]) / 2
    low, high = stats.ttest_1samp(of_pairs, 0).confidence_interval()
    assert found["value"] == pytest.approx(values.mean())
    assert (found["low"], found["high"], found["n"]) == (pytest.approx(low), pytest.approx(high), 6)
    # forty: the BCa bootstrap
    values = generator.exponential(size=(1, 80))
    found = over_pairs(mean_over_prompts(values, pair_counts("any", 40, 4000)))
    of_pairs = (values[0, :40] + values[0, 40:]) / 2
    ends = stats.bootstrap([of_pairs], np.mean, method="BCa", rng=generator).confidence_interval
    assert found["low"] == pytest.approx(ends.low, abs=0.03 * (ends.high - ends.low))
    assert found["high"] == pytest.approx(ends.high, abs=0.03 * (ends.high - ends.low))


def test_what_has_no_bias_is_not_corrected():
    values = np.random.default_rng(2).exponential(size=(2, 80))
    found = over_pairs_corrected(mean_over_prompts(values, pair_counts("any", 40, 5)))
    of_pairs = (values[:, :40] + values[:, 40:]) / 2
    interval = stats.ttest_1samp(of_pairs, 0, axis=1).confidence_interval()
    np.testing.assert_allclose(found["value"], values.mean(1))
    np.testing.assert_allclose([found["low"], found["high"]], interval)


def test_draws_belong_to_the_contrast():
    assert (pair_counts("one", 9, 5) == pair_counts("one", 9, 5)).all()
    assert (pair_counts("one", 9, 5) != pair_counts("two", 9, 5)).any()


@pytest.mark.parametrize("layers", [3, 4, 5, 30, 32])
def test_thirds_are_all_layers_in_order(layers):
    parts = thirds(layers)
    assert np.concatenate(parts).tolist() == list(range(layers))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
