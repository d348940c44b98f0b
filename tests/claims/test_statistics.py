import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from learning_geometry.claims.statistics import (
    LEVEL,
    holm_levels,
    judge_mean,
    judge_measured,
    judge_share,
    outcome,
    p_values,
    tail,
)

ZEROS = (0.0, 0.0, 0.0, 5, 0.0, 0.0)
FIVE = np.array([1.0, 1.3, 0.8, 1.1, 0.9])


def test_tail_is_students_test():
    assert tail(FIVE, 0.7) == pytest.approx(stats.ttest_1samp(FIVE, 0.7, alternative="greater").pvalue)


@pytest.mark.parametrize("side,against", [("above", "below"), ("below", "above")])
def test_above_and_below_are_mirror_images(side, against):
    null = (0.0, 0.2) if side == "above" else (1.8, 2.0)
    values = FIVE if side == "above" else 2 - FIVE
    assert outcome(judge_mean(values, *null, side, 0.0), LEVEL) == "holds"
    assert outcome(judge_mean(values, *null, against, 0.0), LEVEL) == "fails"


def test_a_mean_inside_the_null_range_is_not_above_it():
    assert outcome(judge_mean(FIVE, -3.0, 3.0, "above", 0.0), LEVEL) == "fails"


def test_an_interval_across_the_limit_is_open():
    assert outcome(judge_mean(FIVE, 0.0, 0.95, "above", 0.0), LEVEL) == "open"


def test_within_needs_the_whole_interval_inside():
    assert outcome(judge_mean(FIVE, 0.5, 1.5, "within", 0.0), LEVEL) == "holds"
    assert outcome(judge_mean(FIVE, 0.95, 1.5, "within", 0.0), LEVEL) == "open"
    assert outcome(judge_mean(FIVE, 1.5, 2.0, "within", 0.0), LEVEL) == "fails"


@pytest.mark.parametrize("side", ["above", "below"])
def test_a_difference_up_to_the_floor_is_open(side):
    close = 1e-3 * FIVE
    assert outcome(judge_mean(close, 0.0, 0.0, side, 1e-4), LEVEL) == {"above": "holds", "below": "fails"}[side]
    assert outcome(judge_mean(close, 0.0, 0.0, side, 2e-3), LEVEL) == "open"
    assert outcome(judge_mean(close, 0.0, 0.0, side, float("nan")), LEVEL) == "open"


def test_one_unit_is_open_and_three_can_only_fail():
    assert outcome(judge_mean(FIVE[:1], 0.0, 0.0, "above", 0.0), LEVEL) == "open"
    three = np.array([1.0, 1.01, 0.99])
    assert outcome(judge_mean(three, 0.0, 0.0, "above", 0.0), LEVEL) == "open"
    assert outcome(judge_mean(three, 0.0, 0.0, "below", 0.0), LEVEL) == "fails"


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4),
    st.floats(-1e6, 1e6),
    st.sampled_from(["above", "below", "within"]),
    st.integers(0, 3),
)
def test_fewer_than_five_units_never_hold(values, threshold, side, unobserved):
    values = np.array(values + [np.nan] * unobserved)
    width = 1e7 if side == "within" else 0.0
    assert outcome(judge_mean(values, threshold - width, threshold + width, side, 0.0), LEVEL) != "holds"
    few = judge_share(np.isfinite(values), len(values) + 2, "above" if side == "within" else side)
    assert few.n > 4 or outcome(few, LEVEL) != "holds"


def test_unobserved_units_are_counted_not_averaged():
    values = np.array([1.0] * 8 + [np.nan, np.nan])
    judgement = judge_mean(values, 0.0, 0.0, "above", 0.1)
    assert (judgement.kind, judgement.n, judgement.total, judgement.estimate) == ("share", 8, 10, 1.0)
    assert judgement.null_low == judgement.null_high == 0.5
    assert judgement.p_for == pytest.approx(2 * 0.5**8)
    assert outcome(judgement, LEVEL) == "holds"
    # one that does not show it by more than the floor is no success
    assert judge_mean(np.array([1.0, 0.05, np.nan]), 0.0, 0.0, "above", 0.1).estimate == 0.5
    assert judge_mean(np.full(5, np.nan), 0.0, 0.0, "above", 0.1).n == 0


@pytest.mark.parametrize("side", ["above", "below"])
def test_unobserved_units_beside_differences_below_the_floor_are_open(side):
    sign = 1 if side == "above" else -1
    tiny, unobserved = sign * np.array([1e-3] * 6 + [-1e-3] * 2), np.full(2, np.nan)
    assert outcome(judge_mean(np.append(tiny, unobserved), 0.0, 0.0, side, 0.01), LEVEL) == "open"
    contrary = np.append(np.full(8, -1.0 * sign), unobserved)
    assert outcome(judge_mean(contrary, 0.0, 0.0, side, 0.01), LEVEL) == "fails"
    assert outcome(judge_mean(np.append(tiny, unobserved), -0.005, 0.005, "within", 0.01), LEVEL) == "open"
    assert outcome(judge_mean(contrary, -0.5, 0.5, "within", 0.01), LEVEL) == "fails"


def test_share_is_the_exact_binomial_test():
    judgement = judge_share(np.arange(10) < 9, 10, "above")
    test = stats.binomtest(9, 10, 0.5, alternative="greater")
    interval = stats.binomtest(9, 10).proportion_ci(method="exact")
    assert judgement.p_for == pytest.approx(2 * test.pvalue)
    assert (judgement.low, judgement.high) == pytest.approx((interval.low, interval.high))
    assert outcome(judgement, LEVEL) == "holds"
    assert outcome(judge_share(np.zeros(10, dtype=bool), 10, "above"), LEVEL) == "fails"
    assert outcome(judge_share(np.zeros(10, dtype=bool), 10, "below"), LEVEL) == "holds"
    assert outcome(judge_share(np.zeros(5, dtype=bool), 5, "below"), LEVEL) == "open"


def test_each_keeps_one_exception_from_being_averaged_away():
    values = np.array([-10.0, -11.0, -9.0, -10.5, -9.5, 0.5])
    assert outcome(judge_mean(values, 0.0, 0.0, "below", 0.0), LEVEL) == "holds"
    assert outcome(judge_mean(values, 0.0, 0.0, "below", 0.0, each=True), LEVEL) == "open"


def test_holm_agrees_with_adjusted_p_values():
    p = np.array([0.001, 0.04, 0.012, 0.3, 0.011])
    # by hand: 5 * .001, then 4 * .011, 3 * .012 raised to .044, 2 * .04, .3
    adjusted = np.array([0.005, 0.08, 0.044, 0.3, 0.044])
    assert ((p < holm_levels(p)) == (adjusted < 0.05)).all()


@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=1, max_size=12))
def test_holm_rejects_what_the_definition_rejects(p):
    p = np.array(p)
    rejected = p < holm_levels(p)
    tested = np.sort(p[np.isfinite(p)])
    kept_on = tested < LEVEL / (len(tested) - np.arange(len(tested)))
    number = len(tested) if kept_on.all() else int(np.argmin(kept_on))
    assert rejected.sum() == number
    assert (holm_levels(p) <= LEVEL).all()


def test_a_claim_is_as_good_as_its_worst_comparison():
    strong, weak = judge_mean(FIVE, 0.0, 0.0, "above", 0.0), judge_mean(FIVE, 0.8, 0.8, "above", 0.0)
    p_for, p_against = p_values([strong, weak])
    assert p_for == weak.p_for
    assert p_against == min(1.0, 2 * weak.p_against)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="no units"):
        judge_mean(np.array([]), 0.0, 0.0, "above", 0.0)
    with pytest.raises(ValueError, match="exchange"):
        judge_mean(FIVE, 1.0, 0.0, "above", 0.0)


def test_a_side_that_there_is_not_is_refused(unchecked):
    for judged in (lambda side: judge_mean(FIVE, 0.0, 0.0, side, 0.0), lambda side: judge_measured(*ZEROS, side, 0.0)):
        with pytest.raises(ValueError, match='side: \'beside\' is unknown; use "above", "below" or "within"'):
            judged("beside")


@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("distribution", ["standard_normal", "uniform", "standard_t"])
def test_false_positives_are_rare(n, distribution):
    """Of simulated studies of six claims without an effect, at most 5 % find any, in either direction."""
    simulations, claims = 300, 6
    generator = np.random.default_rng(n)
    parameters = {"standard_normal": (), "uniform": (-1.0, 1.0), "standard_t": (3,)}[distribution]
    holding = failing = 0
    for _ in range(simulations):
        samples = getattr(generator, distribution)(*parameters, size=(claims, n))
        judged = [judge_mean(values, 0.0, 0.0, "above", 0.0) for values in samples]
        levels = holm_levels(np.array([min(p_values([each])) for each in judged]))
        outcomes = {outcome(each, level) for each, level in zip(judged, levels, strict=True)}
        holding += "holds" in outcomes
        failing += "fails" in outcomes
    assert holding / simulations <= LEVEL
    assert failing / simulations <= LEVEL
    assert holding + failing > 0  # the level is used, not avoided
