"""Rounding decides no claim: dust of 1e-17 to 1e-16 counts as equality, 1e-6 does not."""

import numpy as np
import pytest

from learning_geometry.claims.claim import Series, Window
from learning_geometry.claims.curves import window_mean
from learning_geometry.claims.statistics import exceeds, judge_mean, judge_measured, judge_most, outcome, tail

from .conftest import AFTER, BEFORE, STEPS, curve, event
from .test_rules import apply

DUST = [1e-17, -1e-17, 1e-16, -1e-16]
REAL = 1e-6


def dust(n, size):
    return size * np.random.default_rng(0).uniform(0, 1, n)


@pytest.mark.parametrize("size", DUST)
def test_equal_values_that_equal_the_null_speak_neither_way(size):
    values = 0.3 + dust(6, size)
    assert tail(values, 0.3) == 0.5
    for side in ("above", "below"):
        found = judge_mean(values, 0.3, 0.3 + size, side, 0.0)
        assert found.p_for == found.p_against == 1 and outcome(found, 0.05) == "open"
        assert not judge_mean(values, 0.3, 0.3, side, 0.0, each=True).each
        assert judge_most(values, 0.3, 0.3, side, 0.0).estimate == 0
        measured = judge_measured(0.3 + size, 0.3, 0.3 + size, 9, 0.3, 0.3, side, 0.0)
        assert measured.p_for == measured.p_against == 1 and outcome(measured, 0.05) == "open"
    assert judge_mean(values + REAL, 0.3, 0.3, "above", 0.0, each=True).each
    assert outcome(judge_mean(values + REAL, 0.3, 0.3, "above", 0.0), 0.05) == "holds"
    assert outcome(judge_measured(0.3 + REAL, 0.3 + REAL, 0.3 + REAL, 9, 0.3, 0.3, "above", 0.0), 0.05) == "holds"


@pytest.mark.parametrize("size", DUST)
def test_a_range_that_dust_turns_around_is_a_point(size):
    judge_mean(np.full(5, 0.3), 0.3 + abs(size), 0.3, "above", 0.0)
    with pytest.raises(ValueError, match="exchange them"):
        judge_mean(np.full(5, 0.3), 0.3 + REAL, 0.3, "above", 0.0)


def test_a_floor_is_exceeded_by_more_than_rounding():
    assert not exceeds(0.15, 0.1, 0.05) and not exceeds(0.1, 0.15, -0.05)
    assert exceeds(0.15 + REAL, 0.1, 0.05)
    assert exceeds(1.0, -np.inf) and not exceeds(1.0, np.nan) and not exceeds(-np.inf, 1.0)


@pytest.mark.parametrize("size", DUST)
def test_differences_of_dust_are_none(size):
    def rows(error):
        after = STEPS > 2000
        null = {"null": "chance", "low": 0.0, "high": 1.0, "n": 10}
        return [
            [event(2000), curve("score", 0.3 + error * after), curve("other", 0.3), curve("score", 0.3, **null)]
        ] * 5

    windows = {"start": BEFORE, "stop": AFTER, "side": "above"}
    for error, holds in ((size, False), (REAL, True)):
        found = [
            apply("change", rows(error), fields={"floor": 0.0}, **windows),
            apply("change", rows(error), fields={"floor": 0.0}, baseline="chance", **windows),
            apply("contrast", rows(error), fields={"floor": 0.0}, window=AFTER, other=Series("other"), side="above"),
            apply("level", rows(error), fields={"floor": 0.0}, window=AFTER, side="above", paired=True),
            apply(
                "excess_over_trend",
                rows(error),
                fields={"floor": 0.0},
                early=Window(0.25, 0.5),
                start=BEFORE,
                stop=AFTER,
                side="above",
            ),
        ]
        assert [outcome(each, 0.05) for each in found] == ["holds" if holds else "open"] * 5


def test_the_end_of_a_curve_lies_in_a_window_that_ends_there():
    steps, values = np.arange(0.0, 3301.0, 100.0), np.arange(34.0)
    assert steps[-1] < 1.1 * 3000
    assert window_mean(steps, values, 0.5 * 3000, 1.1 * 3000) == pytest.approx(24)
    assert np.isnan(window_mean(steps, values, 1500.0, 3300.0 * (1 + REAL)))
