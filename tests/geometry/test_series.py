"""Detours of paths of known shape, and planted points that do not belong."""

import numpy as np
import pytest

from learning_geometry.geometry.series import DETOUR, detours, unusual_detours, unusual_jumps


def squared(points):
    return [np.sum((points[gap:] - points[:-gap]) ** 2, axis=1) for gap in (1, 2)]


def walk(steps, entries, seed, drift=0.0):
    generator = np.random.default_rng(seed)
    return np.cumsum(generator.normal(drift, 1.0, (steps, entries)), axis=0)


def test_a_straight_path_has_one_half_a_walk_one_and_scatter_two():
    generator = np.random.default_rng(0)
    straight = np.outer(np.arange(9.0), np.ones(5))
    np.testing.assert_allclose(detours(*squared(straight))[1:-1], 0.5)
    np.testing.assert_allclose(detours(*squared(walk(30, 200_000, 1)))[1:-1], 1.0, atol=0.02)
    np.testing.assert_allclose(detours(*squared(generator.normal(size=(30, 200_000))))[1:-1], 2.0, atol=0.03)


def test_a_walk_has_one_whatever_the_spacing():
    points = walk(200, 100_000, 2)[[0, 1, 2, 4, 8, 16, 40, 80, 120, 199]]
    np.testing.assert_allclose(detours(*squared(points))[1:-1], 1.0, atol=0.03)


@pytest.mark.parametrize("drift", [0.0, 3.0])
def test_a_point_of_another_path_is_found_and_its_neighbours_are_not(drift):
    points = walk(20, 500, 3, drift)
    points[7] = walk(20, 500, 4, drift)[7] + 40
    assert np.flatnonzero(unusual_detours(detours(*squared(points)))).tolist() == [7]


@pytest.mark.parametrize(("first", "second"), [(3, 15), (6, 9)])
def test_two_points_exchanged_are_found(first, second):
    points = walk(20, 500, 5)
    points[[first, second]] = points[[second, first]]
    found = set(np.flatnonzero(unusual_detours(detours(*squared(points)))))
    # close to each other they leave those between them out of the way as well
    assert {first, second} <= found <= set(range(first, second + 1)) if second - first < 4 else found == {first, second}


def test_neighbours_exchanged_on_a_path_that_goes_somewhere_are_found():
    points = walk(20, 500, 6, drift=2.0)
    points[[9, 10]] = points[[10, 9]]
    assert set(np.flatnonzero(unusual_detours(detours(*squared(points))))) == {9, 10}


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_found_in_walks_that_turn_into_scatter(seed):
    generator = np.random.default_rng(seed)
    place, points = np.zeros(300), []
    for pull in np.linspace(0.0, 1.0, 60):
        place = (1 - pull) * place + generator.normal(size=300) / (1 + 5 * pull)
        points.append(place)
    assert not unusual_detours(detours(*squared(np.array(points)))).any()


def test_what_cannot_be_compared_is_not_flagged():
    found = detours(np.array([1.0, np.nan, np.nan, 1.0]), np.array([1.0, np.nan, 2.0]))
    assert np.isnan(found[[0, 2, 4]]).all()
    assert not unusual_detours(found).any()
    assert DETOUR > 2.0  # what scatter has


@pytest.mark.parametrize("factor", [0.5, 1.5, 10.0])
@pytest.mark.parametrize("place", [1, 5, 11])
def test_a_scaled_point_jumps(factor, place):
    lengths = np.linspace(1.0, 1.3, 12)
    lengths[place] *= factor
    assert np.flatnonzero(unusual_jumps(lengths)).tolist() == [place]


def test_a_length_that_rises_and_stays_does_not_jump():
    lengths = np.concatenate([np.linspace(1.0, 1.01, 10), np.linspace(3.0, 3.01, 10)])
    assert not unusual_jumps(lengths)[1:-1].any()


def test_a_first_point_that_is_shorter_is_how_training_begins():
    assert not unusual_jumps(np.array([1.0, 1.8, 1.9, 1.95, 1.97, 1.98])).any()


def test_lengths_of_zero_and_beyond_number_are_passed_over():
    lengths = np.array([0.0, 1.0, np.nan, 1.1, 1.2, np.inf, 1.3])
    assert not unusual_jumps(lengths).any()
