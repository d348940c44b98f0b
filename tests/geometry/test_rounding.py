"""Rounding decides nothing: dust of 1e-17 to 1e-16 of what was summed counts as exact zero, 1e-6 of it does not."""

import numpy as np
import pytest

from learning_geometry.geometry import probes, trajectories, walks
from learning_geometry.geometry.ablation import equal_norm_ablation
from learning_geometry.geometry.activation_ranks import ranks
from learning_geometry.geometry.composition import composition_z_score, token_mismatch
from learning_geometry.geometry.contrasts import contrast
from learning_geometry.geometry.moments import principal_variances
from learning_geometry.geometry.nulls import random_subspace_energies
from learning_geometry.geometry.output_projection import projection_ranks
from learning_geometry.geometry.resampling import Resampled, bca_ends, difference
from learning_geometry.geometry.rounding import descending, deviations, equal, first_largest, is_rounding, rounding
from learning_geometry.geometry.rounding import difference as subtracted
from learning_geometry.geometry.saturation import fit_line
from learning_geometry.geometry.spectra import significant_gaps, singular_values
from learning_geometry.geometry.uncertainty import (
    bca_interval,
    first_crossing,
    half_crossing,
    share_below,
    student_t_interval,
)
from learning_geometry.geometry.untangling import between_over_within, span_coordinates, untangling
from learning_geometry.geometry.variance import logit_variance_shares

DUST = [1e-17, 1e-16]
REAL = 1e-6


def dust(shape, size, seed=0):
    """Errors of some size, of both signs."""
    return size * np.random.default_rng(seed).uniform(-1, 1, shape)


@pytest.mark.parametrize("size", DUST)
def test_the_helpers_tell_dust_from_small_numbers(size):
    assert is_rounding(size, 1.0) and is_rounding(-size, 1.0) and is_rounding(1e9 * size, 1e9)
    assert not is_rounding(REAL, 1.0) and not is_rounding(np.nan, 1.0) and not is_rounding(np.inf, np.inf)
    assert is_rounding(0.0, 0.0) and not is_rounding(size, 0.0)
    assert subtracted(1 + size, 1.0) == 0 and subtracted(1 + REAL, 1.0) == pytest.approx(REAL)
    assert np.isnan(subtracted(np.inf, np.inf)) and subtracted(1.0, -np.inf) == np.inf
    assert equal(0.3 + dust(9, size)) and not equal(np.array([0.3, 0.3 * (1 + REAL)]))
    assert (deviations(0.3 + dust((9, 2), size)) == 0).all()
    assert deviations(np.array([[1.0], [1 + REAL]]))[1, 0] == pytest.approx(REAL / 2)
    assert first_largest(np.array([1.0, 2.0, 2.0 + 4 * size]), 2.0) == 1
    assert first_largest(np.array([1.0, 2.0, 2.0 + REAL]), 2.0) == 2
    assert descending(np.array([0.0, 1.0, 1.0, size, 3.0]) + dust(5, size)).tolist() == [4, 1, 2, 0, 3]
    assert descending(np.array([1.0, 1.0 + REAL])).tolist() == [1, 0]
    assert descending(np.array([])).size == 0


def test_sums_in_any_order_are_within_the_rounding_of_their_terms():
    generator = np.random.default_rng(0)
    for terms in (10, 1000, 100_000):
        values = generator.standard_normal((20, terms))
        errors = [np.cumsum(each)[-1] - np.cumsum(each[::-1])[-1] for each in values]
        scale = np.linalg.norm(values, axis=1) * np.sqrt(terms)
        assert is_rounding(np.array(errors), scale, terms).all()
    assert rounding(1.0, 100) == 10 * rounding(1.0)


# --- trajectories


def still(size, snapshots=6):
    """Inner products of snapshots that do not move, (1, 1) from the origin, with dust."""
    errors = dust((snapshots, snapshots), 2 * size)
    return np.full((snapshots, snapshots), 2.0) + errors + errors.T


def slow(snapshots=6):
    """Of snapshots that move by 1e-6 of their distance from the origin a step."""
    places = 1 + REAL * np.arange(snapshots)
    return 2 * np.outer(places, places)


@pytest.mark.parametrize("size", DUST)
@pytest.mark.parametrize(
    "decide",
    [
        lambda gram: trajectories.dimension(trajectories.variances(gram), 0.9),
        lambda gram: trajectories.first_component_share(trajectories.variances(gram)),
        lambda gram: trajectories.effective_components(trajectories.variances(gram)),
        lambda gram: trajectories.principal_coordinates(gram, 1),
        lambda gram: trajectories.share_along_start(trajectories.InnerProducts(gram, np.ones(len(gram)), 1.0, 9)),
        walks.fit_decay,
    ],
)
def test_a_trajectory_of_dust_does_not_move(size, decide):
    with pytest.raises(ValueError, match="does not move"):
        decide(still(size))
    decide(slow())


@pytest.mark.parametrize("size", DUST)
def test_a_window_of_dust_has_no_displacements(size):
    assert (trajectories.from_first(still(size)) == 0).all()
    several = trajectories.from_first(np.stack([still(size), slow()]))
    assert not several[0].any()
    assert several[1, -1, -1] == pytest.approx(2 * (5 * REAL) ** 2, rel=1e-3)


@pytest.mark.parametrize("size", DUST)
def test_a_step_of_dust_has_no_length(size):
    places = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, REAL]])
    errors = dust((4, 4), size)
    drawn = walks.step_norm_walk(places @ places.T + errors + errors.T, 50, 3, np.random.default_rng(0))
    moved = np.stack([np.diag(walks.steps(each)) for each in drawn])
    np.testing.assert_allclose(moved, np.tile([1.0, 0.0, REAL**2], (3, 1)), atol=1e-14)
    assert (moved[:, 2] > 0.9 * REAL**2).all()


@pytest.mark.parametrize("size", DUST)
def test_the_sign_of_a_closed_path_is_that_of_its_last_entry_off_zero(size):
    for last in (size, -size, 0.0):
        curve = np.array([[1.0], [-2.0], [1.0], [last]])
        assert trajectories.ending_signs(curve) == [1.0] and trajectories.ending_signs(-curve) == [-1.0]
    assert trajectories.ending_signs(np.array([[1.0], [-REAL]])) == [-1.0]


# --- intervals and events


@pytest.mark.parametrize("size", DUST)
def test_equal_values_have_an_interval_of_no_width(size):
    values = 0.3 + dust(12, size)
    for found in (student_t_interval(values), bca_interval(values, np.random.default_rng(0))):
        assert found.low == found.high == found.estimate
    apart = 0.3 * (1 + REAL * np.arange(12))
    for found in (student_t_interval(apart), bca_interval(apart, np.random.default_rng(0))):
        assert found.low < found.estimate < found.high


@pytest.mark.parametrize("size", DUST)
def test_a_statistic_that_is_constant_but_for_dust_has_no_width(size):
    found = Resampled(np.array(0.3), 0.3 + dust(50, size), 0.3 + dust(12, size, 1))
    assert (bca_ends(found) == 0.3).all()
    other = Resampled(np.array(0.3 + size), 0.3 + dust(50, size, 2), 0.3 + dust(12, size, 3))
    assert all((part == 0).all() for part in difference(found, other))
    moved = Resampled(np.array(0.3), 0.3 + REAL * np.arange(-25, 25), 0.3 + REAL * np.arange(-6, 6))
    assert np.ptp(bca_ends(moved)) > REAL


@pytest.mark.parametrize("size", DUST)
def test_dust_does_not_take_ties_apart(size):
    values = np.repeat([0.1, 0.3, 0.4], [4, 8, 4])
    assert share_below(values + dust(16, size), 0.3) == 0.5
    assert share_below(values + np.where(values == 0.3, -REAL, 0.0), 0.3) == 0.75


@pytest.mark.parametrize("size", DUST)
def test_a_curve_of_dust_has_no_event(size):
    steps = np.arange(5)
    assert half_crossing(steps, 0.3 + dust(5, size)).censored
    assert half_crossing(steps, 0.3 + dust(5, size)[::-1]).censored
    assert not half_crossing(steps, 0.3 + REAL * np.arange(5)).censored
    for error in (size, -size):
        # not beyond the middle before the fourth
        assert half_crossing(steps, np.array([0.0, 0.5, 0.5 + error, 1.0, 1.0])) == (3.0, False)
        assert first_crossing(steps, np.array([1.0, 0.1 + error, 0.1, 0.0, 0.0]), 0.1) == (3.0, False)
        assert first_crossing(steps, np.array([1.0, error, -error, -1.0, 0.0]), 0.0) == (3.0, False)
    assert first_crossing(steps, np.array([1.0, 0.1 - REAL, 0.1, 0.0, 0.0]), 0.1) == (1.0, False)
    assert first_crossing(steps, np.array([np.inf, 1.0, 0.0, 0.0, 0.0]), 0.1) == (2.0, False)


# --- activations


@pytest.mark.parametrize("size", DUST)
def test_a_mean_of_dust_has_no_cosine_and_equal_vectors_no_variance(size):
    vectors = np.array([[1.0, 2.0], [-1.0, -2.0], [3.0, 1.0], [3.0, 1.0]]) + dust((4, 2), size)
    found = contrast(vectors, np.array([[1, 1, 0, 0]]), np.array([[0, 0, 1, 1]]))
    assert np.isnan(found.cosine) and found.mean_variance_second == 0 == found.maximum_variance_second
    vectors[0] += REAL
    vectors[2] += REAL
    found = contrast(vectors, np.array([[1, 1, 0, 0]]), np.array([[0, 0, 1, 1]]))
    assert found.cosine == pytest.approx(4 / np.sqrt(20), rel=1e-4)
    assert found.mean_variance_second == pytest.approx(REAL**2 / 2, rel=1e-3)


@pytest.mark.parametrize("size", DUST)
def test_sets_that_vary_by_dust_do_not_vary(size):
    labels = np.repeat([0, 1], 4)
    means = np.repeat([[1.0, 2.0, 0.0], [-1.0, 1.0, 5.0]], 4, axis=0)
    for vectors in (means, span_coordinates(np.hstack([means, np.zeros((8, 20))])), span_coordinates(means @ ROTATION)):
        assert between_over_within(vectors + dust(vectors.shape, size), labels) == np.inf
        assert np.isnan(between_over_within(np.ones_like(vectors) + dust(vectors.shape, size), labels))
        found = untangling(vectors + dust(vectors.shape, size), labels, 1)
        assert np.isnan([found.participation_first, found.participation_second, found.largest_cosine]).all()
    moved = means + REAL * np.tile([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], (4, 1))
    assert between_over_within(moved, labels) == pytest.approx(7.5 / REAL**2, rel=1e-3)
    found = untangling(moved, labels, 1)
    assert found.participation_first == pytest.approx(1) and found.largest_cosine == pytest.approx(1)


ROTATION = np.linalg.qr(np.random.default_rng(1).standard_normal((40, 40)))[0][:3]


@pytest.mark.parametrize("size", DUST)
def test_scores_that_dust_tells_apart_are_equal(size):
    for error in (size, -size):
        weights = np.array([[1.0, 1.0 + error, 0.0], [0.0, 0.0, 1.0]])
        probe = probes.Probe(weights, np.array([0.5, 0.5 - error, 0.0]), np.array(["a", "b", "c"]))
        assert probes.predict(probe, np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])).tolist() == ["a", "c", "a"]
    weights = np.array([[1.0, 1.0 + REAL, 0.0], [0.0, 0.0, 1.0]])
    probe = probes.Probe(weights, np.zeros(3), np.array(["a", "b", "c"]))
    assert probes.predict(probe, np.array([[1.0, 0.0]])).tolist() == ["b"]


def test_small_features_are_rescaled_and_constant_ones_are_not():
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=100)
    features = 1e-14 * (labels[:, None] - 0.5 + 0.1 * generator.standard_normal((100, 3)))
    probe = probes.ridge_probe(features, labels)
    assert probes.accuracy(probe, features, labels) == 1
    shifted = np.column_stack([np.full(100, 0.1) + dust(100, 1e-17), labels])
    assert abs(probes.ridge_probe(shifted, labels).weights[0]).max() < 1e-6


def test_independent_variables_have_no_information():
    codes = np.repeat(np.arange(3), 21)[:, None]
    labels = np.tile(np.arange(7), 9)
    assert (probes.mutual_information(np.hstack([codes, codes % 2, 0 * codes]), labels) == 0).all()
    rare = np.zeros((1_000_000, 1), dtype=int)
    rare[0] = 1
    assert probes.mutual_information(rare, np.arange(1_000_000) % 2)[0] > 0


# --- spectra and weights


@pytest.mark.parametrize("size", DUST)
def test_singular_values_of_dust_are_zero_and_have_no_gaps(size):
    generator = np.random.default_rng(0)
    planted = (ROTATION.T * [3.0, 2.0, REAL]) @ np.linalg.qr(generator.standard_normal((12, 12)))[0][:3]
    values = singular_values(planted + dust(planted.shape, size))
    assert np.count_nonzero(values) == 3 and values[2] == pytest.approx(REAL, rel=1e-6)
    assert significant_gaps(values, np.full(11, 2.0)).tolist() == [2, 3]


@pytest.mark.parametrize("size", DUST)
def test_variances_of_a_product_that_cancels_are_zero(size):
    scatter = np.diag([1.0, 1.0, 0.0, 0.0])
    blind = np.eye(4)[2:] + dust((2, 4), size)
    assert not principal_variances(blind @ scatter @ blind.T + dust((2, 2), size), 2.0).any()
    sees = blind + REAL * np.eye(4)[:2]
    assert np.count_nonzero(principal_variances(sees @ scatter @ sees.T, 2.0)) == 2
    found = projection_ranks(scatter + np.diag(dust(4, size) ** 2), blind, 1, 1, np.random.default_rng(0))
    assert np.isnan(found.output).all() and not np.isnan(found.z).any()
    assert np.isnan(ranks(np.zeros(3))).all()


@pytest.mark.parametrize("size", DUST)
def test_a_tie_of_tokens_is_no_mismatch_and_equal_entries_have_no_score(size):
    embedding = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    for seed in range(5):
        assert token_mismatch(embedding + dust((3, 2), size, seed), np.eye(2) + dust((2, 2), size, seed)) == 0
        assert np.isnan(composition_z_score(0.1 + dust((4, 4), size, seed)))
    assert token_mismatch(embedding, np.zeros((2, 2))) == 0
    assert token_mismatch(embedding + REAL * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), np.eye(2)) == 1 / 3
    assert np.isfinite(composition_z_score(0.1 + REAL * np.eye(4)))


@pytest.mark.parametrize("size", DUST)
def test_logits_that_vary_by_dust_do_not_vary(size):
    weights = np.ones(2), np.ones(50), np.ones(40)
    assert logit_variance_shares(0.3 + dust((2, 50, 40), size), *weights).total == 0
    planted = 0.3 + np.broadcast_to(REAL * np.sign(np.arange(50) - 24.5)[:, None], (2, 50, 40))
    assert logit_variance_shares(planted, *weights).content == pytest.approx(1)


@pytest.mark.parametrize("size", DUST)
def test_an_ablation_of_all_that_is_read_ablates_nothing_else(size):
    weight = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]) + dust((2, 3), size)
    for error in (size, -size):
        ablation = equal_norm_ablation(weight, np.eye(3), float(np.sqrt(5 * (1 + error))))
        np.testing.assert_allclose(ablation, np.diag([1.0, 1.0, 0.0]), atol=1e-7)
    weight[0, 2] = REAL
    ablation = equal_norm_ablation(weight, np.eye(3), float(np.linalg.norm(weight)))
    np.testing.assert_allclose(ablation, np.eye(3), atol=0.1)


@pytest.mark.parametrize("size", DUST)
def test_places_that_dust_tells_apart_are_one(size):
    with pytest.raises(ValueError, match="1 different places"):
        fit_line(0.3 + dust(4, size), np.arange(4.0))
    assert fit_line(np.array([0.3, 0.3 + REAL]), np.array([0.0, REAL])).slope == pytest.approx(1)


def test_symmetry_is_judged_by_the_size_of_the_inner_products():
    generator = np.random.default_rng(0)
    gram = 1e-12 * np.array([[2.0, 1.0], [1.0, 2.0]])
    assert random_subspace_energies(gram, 10, 2, 3, generator).shape == (3, 2)
    with pytest.raises(ValueError, match="symmetric"):
        random_subspace_energies(1e-12 * np.array([[2.0, 1.0], [0.5, 2.0]]), 10, 2, 3, generator)
