"""Null trajectories against their closed forms, and against walks of explicit vectors."""

import numpy as np
import pytest
from scipy import stats

from learning_geometry.geometry.trajectories import (
    dimension,
    effective_components,
    first_component_share,
    gram_matrix,
    variances,
)
from learning_geometry.geometry.walks import (
    fit_decay,
    isotropic_walk,
    ornstein_uhlenbeck,
    random_signs,
    shuffled_increments,
    step_norm_walk,
    steps,
    weight_decay,
)


def run(snapshots=8, entries=6, seed=0, norms=None):
    """Inner products of a walk far from the origin, whose steps have the given norms."""
    generator = np.random.default_rng(seed)
    moves = generator.standard_normal((snapshots - 1, entries))
    if norms is not None:
        moves *= norms[:, None] / np.linalg.norm(moves, axis=1, keepdims=True)
    return gram_matrix([5.0 + np.vstack([np.zeros(entries), np.cumsum(moves, axis=0)])])


def grams(positions):
    return positions @ positions.swapaxes(1, 2)


def autoregressive(decay, drift, noise, snapshots, draws, generator):
    """Explicit vectors of x_t+1 = decay x_t + drift + noise from 0, shape (draws, snapshots, entries)."""
    x = np.zeros((draws, snapshots, len(drift)))
    for t in range(snapshots - 1):
        x[:, t + 1] = decay * x[:, t] + drift + noise * generator.standard_normal(x[:, t].shape)
    return x


def same_law(ours, explicit):
    """Compare the laws of variance shares and of some inner products; seeds are fixed, and 1e-4 is rare."""
    spectra = [variances(g) for g in (ours, explicit)]
    statistics = [
        lambda g, v: first_component_share(v),
        lambda g, v: effective_components(v),
        lambda g, v: v.sum(-1),
        lambda g, v: g[:, -1, -1],
        lambda g, v: g[:, 1, -1],
        lambda g, v: g[:, 2, 3],
    ]
    for statistic in statistics:
        first, second = (statistic(g, v) for g, v in zip((ours, explicit), spectra, strict=True))
        # in one dimension all shares are 1, to rounding
        assert stats.ks_2samp(first.round(9), second.round(9)).pvalue > 1e-4


def test_forty_snapshots_of_a_walk_in_high_dimension():
    """What a low-dimensional trajectory must be below: r90 = 6, 61 % on the first component, about 2.5 effective."""
    spectra = variances(isotropic_walk(40, 100_000, 200, np.random.default_rng(0)))
    assert (dimension(spectra, 0.9) == 6).all()
    shares = first_component_share(spectra)
    assert abs(shares.mean() - 0.61) < 0.02 and (abs(shares - 6 / np.pi**2) < 0.02).all()
    assert abs(effective_components(spectra).mean() - 2.5) < 0.05
    short = {8: 4, 10: 5, 12: 5}
    for snapshots, expected in short.items():
        few = variances(isotropic_walk(snapshots, 100_000, 50, np.random.default_rng(1)))
        assert (dimension(few, 0.9) == expected).all()


@pytest.mark.parametrize("snapshots", [5, 40])
def test_walks_have_the_closed_form_spectrum_as_the_dimension_grows(snapshots):
    numbers = np.arange(1, snapshots)
    limit = 1 / (4 * np.sin(np.pi * numbers / (2 * snapshots)) ** 2) / (snapshots - 1)
    found = variances(isotropic_walk(snapshots, 10**8, 3, np.random.default_rng(2)))
    assert np.allclose(found, limit, rtol=0.01)
    # of many snapshots 1 / k^2 at the head
    shares = limit / limit.sum()
    assert snapshots < 40 or np.allclose(shares[:5], 6 / np.pi**2 / numbers[:5] ** 2, rtol=0.05)


@pytest.mark.parametrize("entries", [1, 3, 6, 50])
def test_isotropic_walk_has_the_law_of_explicit_vectors(entries):
    generator = np.random.default_rng(3)
    moves = generator.standard_normal((3000, 6, entries)) / np.sqrt(entries)
    explicit = np.pad(moves.cumsum(1), [(0, 0), (1, 0), (0, 0)])
    same_law(isotropic_walk(7, entries, 3000, generator), grams(explicit))


@pytest.mark.parametrize("entries", [2, 40])
def test_step_norm_walk_has_the_norms_of_the_run_and_the_law_of_explicit_vectors(entries):
    generator = np.random.default_rng(4)
    norms = np.array([5.0, 1.0, 0.0, 2.0, 0.1, 3.0])
    ours = step_norm_walk(run(7, entries, 0, norms), entries, 3000, generator)
    found = np.array([np.diag(steps(gram)) for gram in ours])
    assert np.allclose(found, norms**2, atol=1e-9)
    moves = generator.standard_normal((3000, 6, entries))
    moves *= norms[:, None] / np.linalg.norm(moves, axis=2, keepdims=True)
    explicit = np.pad(moves.cumsum(1), [(0, 0), (1, 0), (0, 0)])
    spread = ours[:, -1, -1], grams(explicit)[:, -1, -1]
    assert stats.ks_2samp(*spread).pvalue > 1e-4
    shares = [first_component_share(variances(g)) for g in (ours, grams(explicit))]
    assert stats.ks_2samp(*shares).pvalue > 1e-4


def test_shuffles_and_signs_move_the_runs_own_steps():
    snapshots = np.cumsum(np.random.default_rng(5).standard_normal((6, 4)), axis=0) + 3.0
    gram, moves = gram_matrix([snapshots]), np.diff(snapshots, axis=0)
    assert np.allclose(steps(gram), moves @ moves.T)
    generator = np.random.default_rng(6)
    shuffled, signed = shuffled_increments(gram, 300, generator), random_signs(gram, 300, generator)
    for found in shuffled:
        assert np.allclose(found[-1, -1], np.sum((snapshots[-1] - snapshots[0]) ** 2))
        assert np.allclose(np.sort(np.diag(steps(found))), np.sort(np.diag(steps(gram))))
    for found in signed:
        assert np.allclose(np.abs(steps(found)), np.abs(steps(gram)))
    # every step is first in some order, and every order and sign pattern of the first two steps occurs
    first = np.diag(steps(gram))[None, :] == pytest.approx(shuffled[:, 1, 1][:, None])
    assert np.isclose(shuffled[:, 1, 1][:, None], np.diag(steps(gram))[None]).any(0).all() and not first
    ends = np.unique(signed[:, 2, 2].round(9))
    assert np.allclose(ends, np.sort([np.sum((moves[0] - moves[1]) ** 2), np.sum((moves[0] + moves[1]) ** 2)]))
    # one explicit draw: the Gram matrix is that of the vectors so moved
    order = np.random.default_rng(7).permuted(np.tile(np.arange(5), (1, 1)), axis=1)[0]
    explicit = np.vstack([np.zeros(4), np.cumsum(moves[order], axis=0)])
    assert np.allclose(shuffled_increments(gram, 1, np.random.default_rng(7))[0], explicit @ explicit.T)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("drift", [0.0, 0.5, 3.0])
def test_planted_decay_is_recovered_in_high_dimension(decay, drift):
    entries = 3000
    direction = np.zeros(entries)
    direction[0] = drift
    x = autoregressive(decay, direction, 1 / np.sqrt(entries), 41, 1, np.random.default_rng(8))[0]
    found = fit_decay(gram_matrix([x + 7.0]))
    assert found.decay == pytest.approx(decay, abs=0.015)
    assert found.squared_drift == pytest.approx(drift**2, abs=0.03, rel=0.05)
    assert found.squared_noise == pytest.approx(1.0, abs=0.03)


def test_a_walk_is_not_taken_for_decay():
    """Least squares with a free mean finds .93 in a walk of 40 steps; so would a fit of fixed effects here."""
    x = autoregressive(1.0, np.zeros(5000), 1.0, 41, 1, np.random.default_rng(9))[0]
    before, after = x[:-1] - x[:-1].mean(0), x[1:] - x[1:].mean(0)
    assert abs(np.sum(before * after) / np.sum(before**2) - 0.93) < 0.02
    assert fit_decay(gram_matrix([x])).decay > 0.985


def test_accelerating_and_alternating_runs_are_fitted_at_the_ends_of_the_range():
    t = np.arange(8.0)
    assert fit_decay(np.outer(t, t)) == pytest.approx((1.0, 1.0, 0.0), abs=1e-6)
    growing = 1.5**t
    assert fit_decay(np.outer(growing, growing)).decay == 1.0
    alternating = np.where(t % 2, 1.0, -1.0)
    assert fit_decay(np.outer(alternating, alternating)).decay == 0.0


@pytest.mark.parametrize(("decay", "drift"), [(0.7, 1.0), (0.9, 0.0), (1.0, 0.4)])
@pytest.mark.parametrize("entries", [1, 4, 60])
def test_ornstein_uhlenbeck_has_the_law_of_explicit_vectors(decay, drift, entries, monkeypatch):
    from learning_geometry.geometry import walks

    monkeypatch.setattr(walks, "fit_decay", lambda gram: walks.Decay(decay, drift**2, 2.0))
    generator = np.random.default_rng(10)
    ours = ornstein_uhlenbeck(np.eye(7), entries, 3000, generator)
    # any direction of the drift gives the same inner products
    direction = np.full(entries, drift / np.sqrt(entries))
    explicit = autoregressive(decay, direction, np.sqrt(2.0 / entries), 7, 3000, generator)
    same_law(ours, grams(explicit))


def test_weight_decay_is_a_line_and_the_trajectory_it_says():
    start = np.random.default_rng(11).standard_normal(30)
    when = np.array([0, 10, 20, 50])
    explicit = start * 0.98 ** when[:, None]
    found = weight_decay(float(start @ start), 0.02, when)
    moved = explicit - explicit[0]
    assert np.allclose(found, moved @ moved.T)
    assert np.allclose(weight_decay(float(start @ start), 0.02, when + 7), found)
    spectrum = variances(found)
    assert first_component_share(spectrum) == pytest.approx(1.0) and dimension(spectrum, 0.99) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: isotropic_walk(1, 5, 1, g), "snapshots and entries: 1 and 5"),
        (lambda g: isotropic_walk(5, 0, 1, g), "snapshots and entries: 5 and 0"),
        (lambda g: isotropic_walk(5, 5, 0, g), "rows, dimension and draws: 4, 5 and 0"),
        (lambda g: ornstein_uhlenbeck(np.eye(3), 5, 1, g), "3 snapshots are too few"),
        (lambda g: fit_decay(np.ones((5, 5))), "does not move"),
        (lambda g: weight_decay(1.0, 0.0, np.arange(3)), "rate: 0.0"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))
