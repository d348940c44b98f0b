"""Phases of a curve: planted ones, and noise alone, in which cross-fitting must find none."""

import numpy as np
import pytest

from learning_geometry.geometry.phases import largest_rise, three_phases


def brute_force(values):
    pairs = [(i, j) for i in range(len(values)) for j in range(i, len(values))]
    return max(values[j] - values[i] for i, j in pairs)


def test_the_largest_rise_is_that_of_all_pairs():
    generator = np.random.default_rng(0)
    for _ in range(50):
        values = generator.standard_normal(12)
        start, stop = largest_rise(values)
        assert start <= stop and values[stop] - values[start] == pytest.approx(brute_force(values))


def test_planted_phases_are_found():
    curve = np.concatenate([np.linspace(2.0, 1.0, 5), np.linspace(1.1, 3.0, 10), np.linspace(2.9, 2.0, 8)])
    noise = 0.01 * np.random.default_rng(0).standard_normal((2, len(curve)))
    found = three_phases(curve + noise[0], curve + noise[1])
    assert found[:3] == pytest.approx((1.0, 2.0, 1.0), abs=0.06)
    assert (found.start, found.stop) == (4, 14)


def test_a_curve_that_only_falls_has_no_rise_and_one_that_only_rises_no_falls():
    falls = three_phases(np.linspace(3.0, 1.0, 9), np.linspace(3.0, 1.0, 9))
    assert (falls.fall_before, falls.rise) == (0.0, 0.0)
    rises = three_phases(np.linspace(1.0, 3.0, 9), np.linspace(1.0, 3.0, 9))
    assert (rises.fall_before, rises.rise, rises.fall_after) == (0.0, 2.0, 0.0)


def test_noise_has_phases_in_its_own_half_and_none_in_the_other():
    generator = np.random.default_rng(1)
    curves = generator.standard_normal((400, 2, 30))
    own = np.array([three_phases(first, first)[:3] for first, _ in curves]).mean(0)
    other = np.array([three_phases(first, second)[:3] for first, second in curves])
    assert (own > 1.0).all()
    assert (np.abs(other.mean(0)) < 4 * other.std(0) / 20).all()


def test_a_curve_with_holes_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        largest_rise(np.array([1.0, np.nan]))
