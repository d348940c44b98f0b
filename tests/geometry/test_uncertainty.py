import numpy as np
import pytest
from scipy import stats

from learning_geometry.geometry.uncertainty import (
    bca_interval,
    first_crossing,
    half_crossing,
    interval,
    pseudo_values,
    roughness,
    share_interval,
    student_t_interval,
)


def test_student_t_covers_at_five_values():
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, 5))
    intervals = [student_t_interval(sample) for sample in samples]
    coverage = np.mean([low <= 3.0 <= high for _, low, high, _, _ in intervals])
    assert abs(coverage - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_student_t_agrees_with_scipy(level):
    values = np.random.default_rng(1).exponential(size=7)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    assert np.allclose(student_t_interval(values, level)[1:3], expected)


@pytest.mark.parametrize("n", [10, 25])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_bca_agrees_with_scipy_on_skewed_values(n, level):
    values = np.random.default_rng(n).exponential(size=n)
    expected = stats.bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=20_000, rng=np.random.default_rng(3)
    ).confidence_interval
    ours = bca_interval(values, np.random.default_rng(4), level, 20_000)
    assert ours.method == "bca"
    # two Monte Carlo runs differ by a few per cent of the width; the percentile interval, by more (next line)
    assert np.allclose(ours[1:3], expected, atol=0.02 * (expected.high - expected.low))
    percentile = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=level,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert abs(ours.high - percentile.high) > 0.02 * (expected.high - expected.low)


def test_bca_equals_scipy_on_the_same_resamples():
    values = np.random.default_rng(5).exponential(size=12)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=999, batch=999, rng=np.random.default_rng(6)
    ).confidence_interval
    assert np.allclose(bca_interval(values, np.random.default_rng(6), 0.95, 999)[1:3], expected, rtol=1e-12)


def test_method_follows_the_number_of_values():
    generator = np.random.default_rng(0)
    assert [interval(generator.normal(size=n)).method for n in (1, 2, 9, 10, 11)] == [
        "none",
        "student_t",
        "student_t",
        "bca",
        "bca",
    ]


def test_interval_is_deterministic_and_ordered():
    values = np.random.default_rng(7).normal(size=20)
    first = interval(values)
    assert first == interval(values.copy())
    assert first.low < first.estimate < first.high
    assert interval(values, np.random.default_rng(8)).low != first.low


def test_one_value_has_no_interval():
    single = interval(np.array([2.5]))
    assert single.estimate == 2.5 and single.n == 1 and single.method == "none"
    assert np.isnan(single.low) and np.isnan(single.high)


@pytest.mark.parametrize("n", [2, 5, 10, 30])
def test_equal_values_have_width_zero(n):
    # 0.1 is not exact in binary: a mean of ten of them may differ from it
    result = interval(np.full(n, 0.1))
    assert result.estimate == result.low == result.high == 0.1


@pytest.mark.parametrize("n", [5, 12])
def test_non_finite_values_have_no_interval(n):
    values = np.ones(n)
    values[0], values[1] = np.inf, -np.inf
    result = interval(values)
    assert np.isnan([result.estimate, result.low, result.high]).all() and result.method == "none"


def test_integer_values_are_accepted():
    assert interval(np.array([1, 2, 3])).estimate == 2.0


def test_bca_survives_a_bootstrap_all_on_one_side():
    result = bca_interval(np.array([0.0] * 11 + [1.0]), np.random.default_rng(2), resamples=1)
    assert np.isfinite(result[:3]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval(np.zeros(0)), "no values"),
        (lambda: student_t_interval(np.zeros(3), 1.0), "level"),
        (lambda: bca_interval(np.zeros(3), np.random.default_rng(0), 0.0), "level"),
        (lambda: bca_interval(np.zeros(3), np.random.default_rng(0), resamples=0), "resamples"),
        (lambda: first_crossing(np.arange(3), np.zeros(1), 0.0), "one value per step"),
        (lambda: first_crossing(np.zeros(0), np.zeros(0), 0.0), "no recorded step"),
        (lambda: first_crossing(np.array([0, 2, 2]), np.zeros(3), 0.0), "strictly increase"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_direction_that_there_is_not_is_refused(unchecked):
    with pytest.raises(ValueError, match='direction: \'beside\' is unknown; pass "below" or "above"'):
        first_crossing(np.arange(3), np.zeros(3), 0.0, "beside")


def test_first_crossing_takes_the_first_of_several_and_is_strict():
    steps, values = np.array([0, 5, 10, 15]), np.array([0.9, 0.5, 0.4, 0.8])
    assert first_crossing(steps, values, 0.5) == (10.0, False)
    assert first_crossing(steps, values, 0.95) == (0.0, False)
    assert first_crossing(steps, values, 0.4) == (15.0, True)
    assert first_crossing(steps, values, 0.85, "above") == (0.0, False)
    assert first_crossing(steps[1:], values[1:], 0.5, "above") == (15.0, False)
    assert first_crossing(steps, np.array([np.nan, np.nan, 0.1, 0.2]), 0.5) == (10.0, False)


@pytest.mark.parametrize("sign", [1, -1])
def test_half_crossing_of_a_sigmoid_is_its_middle(sign):
    steps = np.arange(0, 1000, 10)
    for middle in (205, 500.5, 805):
        crossing = half_crossing(steps, sign / (1 + np.exp(-(steps - middle) / 8)))
        assert crossing.step == steps[steps > middle][0] and not crossing.censored


def test_half_crossing_needs_a_change():
    steps = np.arange(5)
    assert half_crossing(steps, np.ones(5)) == (4.0, True)
    assert half_crossing(steps, np.array([0.0, 5, 5, 5, 1]), noise=1.0) == (4.0, True)
    assert half_crossing(steps, np.array([0.0, 5, 5, 5, 1]), noise=0.9) == (1.0, False)
    assert half_crossing(steps, np.array([0.0, 1, 1, 1, np.nan])).censored
    assert half_crossing(steps, np.array([np.nan, 1, 1, 1, 1])).censored
    with pytest.raises(ValueError, match="noise: -1"):
        half_crossing(steps, np.ones(5), noise=-1.0)
    with pytest.raises(ValueError, match="no recorded step"):
        half_crossing(np.array([]), np.array([]))


def test_roughness_forgives_trends_and_jumps():
    x = np.linspace(0, 1, 400)
    noise = np.random.default_rng(0).normal(0, 0.1, 400)
    for smooth in (0 * x, 5 * x, 30 * (x > 0.5), np.sin(6 * x), 9 / (1 + np.exp((0.4 - x) * 60))):
        assert roughness(smooth + noise) == pytest.approx(0.1, rel=0.2)
    assert np.isnan(roughness(np.array([1.0, 2.0])))


def test_pseudo_values_are_those_of_leaving_a_seed_and_its_pairs_out():
    generator = np.random.default_rng(0)
    n, kernel = 7, np.add.outer(*2 * [generator.normal(size=7)]) + generator.normal(size=(7, 7))
    kernel = kernel + kernel.T
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    of_all = np.array([np.mean([kernel[pair] for pair in pairs if pair[0] == i]) for i in range(n)])
    ring = [(i, (i + 1) % n) for i in range(n)]
    of_next = np.array([kernel[pair] for pair in ring])
    for values, said, used in ((of_all, "all", pairs), (of_next, "next", ring)):
        left_out = [np.mean([kernel[pair] for pair in used if i not in pair]) for i in range(n)]
        expected = n * values.mean() - (n - 1) * np.array(left_out)
        np.testing.assert_allclose(pseudo_values(values, said), expected, rtol=1e-12)
        other = generator.normal(size=n)
        np.testing.assert_allclose(
            pseudo_values(values - other, said), pseudo_values(values, said) - pseudo_values(other, said), atol=1e-12
        )
        assert np.isnan(pseudo_values(values[:2], said)).all()
    assert pseudo_values(of_all, "none") is of_all and pseudo_values(of_all, "") is of_all


def test_ties_are_the_same_in_every_unit():
    """Equality of rounded numbers would move the ends by a tie: scipy's do, see ``bca_ends``."""
    values = np.array([0.1] * 7 + [0.3] * 5)
    expected = bca_interval(values, np.random.default_rng(1))
    for scale in (0.1, 0.7, 3.0, 7.0):
        scaled = bca_interval(values * scale, np.random.default_rng(1))
        np.testing.assert_allclose(scaled[1:3], np.array(expected[1:3]) * scale, rtol=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 7), (19, 20)])
def test_shares_have_the_ends_of_clopper_and_pearson(k, n):
    low = stats.beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = stats.beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    np.testing.assert_allclose(share_interval(k, n), (low, high), atol=1e-10)


@pytest.mark.parametrize("unit", [0.1, 0.01, 3.0, 1e-9])
def test_a_bca_interval_does_not_depend_on_the_unit(unit):
    counts = np.array([0, 0, 1, 1, 2, 3, 1, 2, 0, 4, 1, 2], dtype=float)
    whole, scaled = interval(counts), interval(counts * unit)
    assert whole.method == scaled.method == "bca"
    assert np.array([scaled.low, scaled.high]) / unit == pytest.approx([whole.low, whole.high], rel=1e-9)
