import numpy as np
import pytest

from learning_geometry.geometry.activation_patterns import patterns

from .oracles import most_patterns


def test_a_stream_is_counted_as_all_at_once():
    active = np.random.default_rng(0).random((300, 19)) < 0.1
    active[:, 2], active[:, 5] = False, True
    found = patterns(np.split(active, [0, 1, 90]))
    assert found.n == 300
    assert found.zeroed == pytest.approx(1 - active.mean())
    assert found.distinct == len(np.unique(active, axis=0)) < 300
    assert found.never_active == np.mean(~active.any(0)) and found.always_active == np.mean(active.all(0))


def test_a_pattern_in_two_batches_counts_once_and_the_last_coordinate_counts():
    one, other = np.zeros((1, 9), dtype=bool), np.eye(9, dtype=bool)[-1:]
    assert patterns([one, other, one, other]).distinct == 2


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_random_units_reach_the_largest_number_of_patterns_and_no_more(biased, dimension):
    generator = np.random.default_rng(dimension)
    units = 5
    weight = generator.standard_normal((units, dimension))
    bias = 0.3 * generator.standard_normal(units) * biased
    # many scales, so that small and unbounded regions are all met
    inputs = generator.standard_normal((60_000, dimension)) * 10 ** generator.uniform(-2, 3, (60_000, 1))
    found = patterns(part @ weight.T + bias > 0 for part in np.split(inputs, 10))
    assert found.distinct == most_patterns(units, dimension, biased)


def test_isotropic_units_zero_half():
    generator = np.random.default_rng(4)
    found = patterns([generator.standard_normal((2000, 12)) > 0])
    assert found.zeroed == pytest.approx(0.5, abs=0.01)
    # of 4,096 orthants, 2,000 independent vectors meet 4,096 (1 - (1 - 1/4,096)^2,000)
    assert found.distinct == pytest.approx(4096 * (1 - (1 - 1 / 4096) ** 2000), rel=0.03)


def test_counts_of_regions_recur():
    # one more hyperplane adds the regions in which it is itself cut
    for biased in (False, True):
        for units in range(2, 8):
            for dimension in range(2, 8):
                more = most_patterns(units - 1, dimension, biased) + most_patterns(units - 1, dimension - 1, biased)
                assert most_patterns(units, dimension, biased) == more
    assert most_patterns(1536, 576) > 2**1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: patterns([]), "no vector"),
        (lambda: patterns([np.zeros((0, 3), dtype=bool)]), "no vector"),
        (lambda: patterns([np.zeros((2, 0), dtype=bool)]), "no vector"),
        (lambda: patterns([np.ones((1, 3), dtype=bool), np.ones((1, 2), dtype=bool)]), "width 3 and 2"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
