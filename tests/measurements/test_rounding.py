"""Rounding decides nothing that is measured: dust of 1e-17 to 1e-16 counts as exact zero, 1e-6 does not."""

import numpy as np
import pytest

from learning_geometry.geometry.resampling import Resampled
from learning_geometry.geometry.trajectories import InnerProducts, inner_products
from learning_geometry.measurements.common.contrast_pairs import over_pairs, union_variance
from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.common.token_losses import share_recovered
from learning_geometry.measurements.language_models.prompt_contrasts import _corrected_cosines
from learning_geometry.measurements.language_models.untangling import two_nearest_neighbours_dimension
from learning_geometry.measurements.runs.embedding_frequencies import frequency_shares
from learning_geometry.measurements.runs.rank_over_training import lasting_first_crossing
from learning_geometry.measurements.runs.routing_coordinate import first_coordinate
from learning_geometry.measurements.runs.trajectory_geometry import window_rows
from learning_geometry.tables.tidy import central_range

from .trajectories import walk

DUST = [1e-17, 1e-16]
REAL = 1e-6


def dust(shape, size, seed=0):
    """Errors of some size, of both signs."""
    return size * np.random.default_rng(seed).uniform(-1, 1, shape)


@pytest.mark.parametrize("size", DUST)
def test_a_window_whose_inner_products_are_dust_is_left_out(size, tmp_path):
    generator = np.random.default_rng(0)
    moving, stopping, slowing = (walk(generator, 9, 30) for _ in range(3))
    stopping[4:] = stopping[4]
    slowing[4:] = slowing[4] + REAL * walk(generator, 5, 30)
    products = {}
    for name, snapshots in {"moving": moving, "stopping": stopping, "slowing": slowing}.items():
        of_one = inner_products([snapshots])
        errors = dust((9, 9), size * of_one.displacements.max())
        products[name] = InnerProducts(of_one.displacements + errors + errors.T, *of_one[1:])
    run = Run("tiny", 0, {}, tmp_path, tmp_path, tmp_path)
    found = [
        {row["part"] for row in window_rows(run, products, "matrices", i, slice(4 * i, 4 * i + 5), 40)} for i in (0, 1)
    ]
    assert found == [{*products, "matrices"}, {"moving", "slowing", "matrices"}]


@pytest.mark.parametrize("size", DUST)
def test_the_coordinate_of_a_closed_path_has_the_sign_of_its_last_point_off_the_start(size):
    path = np.array([0.0, 1.0, 2.0, 1.0, 0.0])
    for seed in range(5):
        errors = dust((5, 5), size, seed)
        np.testing.assert_allclose(first_coordinate(np.outer(path, path) + errors + errors.T), path, atol=1e-7)
    path[-1] = -10 * REAL
    assert first_coordinate(np.outer(path, path))[2] < 0


@pytest.mark.parametrize("size", [*DUST, *(-size for size in DUST)])
def test_the_middle_of_a_curve_is_not_past_it(size):
    steps = np.arange(0, 50, 10)
    values = np.array([0.1, 0.2 + size, 0.3, 0.3, 0.3])
    assert lasting_first_crossing(steps, values, 0.0) == (20.0, False)
    assert lasting_first_crossing(steps, values + np.array([0, REAL, 0, 0, 0]), 0.0) == (10.0, False)
    assert lasting_first_crossing(steps, 0.3 + dust(5, size), 0.0).censored


@pytest.mark.parametrize("size", DUST)
def test_equal_rows_have_no_frequencies(size):
    with pytest.raises(ValueError, match=r"same row.*drop"):
        frequency_shares(np.full((53, 4), 0.3) + dust((53, 4), size))
    wave = np.cos(2 * np.pi * 3 * np.arange(53)[:, None] / 53)
    assert frequency_shares(0.3 + REAL * wave)[2] == pytest.approx(1)


def test_what_costs_the_rounding_of_a_loss_has_nothing_to_recover():
    counts = np.ones((1, 10), dtype=np.int64)
    intact = np.full(10, 4.0)
    for cost in (0.0, 1e-7, -1e-7):
        assert np.isnan(share_recovered(np.zeros(10), np.full(10, cost), intact)(counts)).all()
    assert share_recovered(np.full(10, 1e-5), np.full(10, 4e-5), intact)(counts) == pytest.approx(0.75)


@pytest.mark.parametrize("size", DUST)
def test_points_that_coincide_but_for_dust_have_no_dimension(size):
    points = np.random.default_rng(0).standard_normal((20, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    distances[0, 1] = distances[1, 0] = size
    assert np.isnan(two_nearest_neighbours_dimension(distances))
    distances[0, 1] = distances[1, 0] = REAL
    assert np.isfinite(two_nearest_neighbours_dimension(distances))


@pytest.mark.parametrize("size", DUST)
def test_prompts_that_are_equal_but_for_dust(size):
    counts = np.array([[1, 1, 1, 1], [2, 1, 1, 0]])
    assert (union_variance(0.3 + dust((8, 5), size), counts) == 0).all()
    small = union_variance(0.3 + REAL * np.repeat([[1.0], [-1.0]], 4, axis=0) * np.ones(5), counts)
    np.testing.assert_allclose(small, 8 / 7 * REAL**2, rtol=1e-3)
    # sums of three that cancel have no direction
    vectors = np.array([[1.0], [1.0], [-2.0], [0.5]] * 2) * [1.0, 2.0]
    labels = np.repeat([[0, 1]], 4, axis=1)
    assert np.isnan(_corrected_cosines(vectors + dust((8, 2), size), labels, np.ones(1))).all()
    vectors[[0, 4]] += 10 * REAL
    assert np.isfinite(_corrected_cosines(vectors, labels, np.ones(1))).all()


@pytest.mark.parametrize("size", DUST)
def test_constant_statistics_and_nulls_have_no_width(size):
    found = over_pairs(Resampled(np.array(0.3), 0.3 + dust(50, size), 0.3 + dust(4, size)))
    assert found["low"] == found["high"] == 0.3
    null = central_range(0.3 + dust(5, size), "none")
    assert null["low"] == null["high"] == null["value"]
    moved = central_range(0.3 + REAL * np.arange(5), "none")
    assert moved["high"] - moved["low"] > REAL
