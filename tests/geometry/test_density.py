"""Stochastic Lanczos quadrature on planted spectra."""

import numpy as np
import pytest
import torch

from learning_geometry.geometry.curvature.density import (
    SpectralDensity,
    mass_below,
    mass_bounds,
    moments,
    smoothed,
    spectral_density,
)


def planted(spectrum, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = len(spectrum)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    matrix = (basis * torch.as_tensor(spectrum, dtype=torch.float64)) @ basis.T
    return (matrix + matrix.T) / 2


# as of a Hessian: a few outliers, a bulk near zero, negative mass
SPECTRUM = np.concatenate([[10.0, 8.0, 5.0], np.linspace(0.2, 1.0, 147), np.linspace(-0.9, -0.1, 150)])


def density_of(spectrum, seed, probes=6, steps=25, dtype=torch.float64):
    matrix = planted(spectrum).to(dtype)
    return spectral_density(lambda v: matrix @ v, len(spectrum), probes, steps, np.random.default_rng(seed), dtype)


def test_a_whole_iteration_gives_the_measure_of_each_probe_exactly():
    matrix = planted(SPECTRUM[::3])
    size = len(matrix)
    found = spectral_density(lambda v: matrix @ v, size, 2, size, np.random.default_rng(3), torch.float64)
    signs = 2.0 * np.random.default_rng(3).integers(2, size=size) - 1
    values, vectors = torch.linalg.eigh(matrix)
    assert np.allclose(found.nodes[0], values, atol=1e-10)
    assert np.allclose(found.weights[0], (vectors.T @ torch.from_numpy(signs)) ** 2 / size, atol=1e-10)


@pytest.fixture(scope="module")
def repeated():
    return [density_of(SPECTRUM, seed) for seed in range(150)]


@pytest.mark.parametrize(
    ("name", "statistic", "expected"),
    [
        ("negative mass", lambda d: mass_below(d, 0.0), 0.5),
        ("mass beyond a floor", lambda d: mass_below(d, -0.5), 0.25),
        ("mean", lambda d: moments(d, 1), SPECTRUM.mean()),
        ("second moment", lambda d: moments(d, 2), (SPECTRUM**2).mean()),
        ("fifth moment", lambda d: moments(d, 5), (SPECTRUM**5).mean()),
    ],
)
def test_statistics_and_their_standard_errors_are_right(repeated, name, statistic, expected):
    found = [statistic(each) for each in repeated]
    means, errors = (np.array([getattr(each, key) for each in found]) for key in ("value", "standard_error"))
    # the quadrature of a step function is off by less than a hundredth here, that of a polynomial not at all
    slack = 0.01 if "mass" in name else 0.0
    assert abs(means.mean() - expected) < 4 * means.std() / np.sqrt(150) + slack
    assert 0.85 < np.sqrt((errors**2).mean()) / means.std() < 1.15
    covered = np.mean([low <= expected <= high for low, high in (each.interval() for each in found)])
    assert covered > 0.88


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3])
def test_negative_share_lies_within_its_bounds(share):
    count = int(300 * share)
    spectrum = np.concatenate([np.linspace(-0.8, -0.05, count), np.geomspace(0.02, 6.0, 300 - count)])
    for seed in range(3):
        density = density_of(spectrum, seed, probes=20, steps=30)
        low, high = mass_bounds(density, 0.0)
        estimate = mass_below(density, 0.0)
        assert low.value <= estimate.value <= high.value
        assert low.value - 4 * low.standard_error <= share <= high.value + 4 * high.standard_error
        # eigenvalues crowd at the threshold: the bounds know, the noise over probes does not
        assert high.value - low.value > 2 * estimate.standard_error
    if share == 0.0:
        assert estimate.value == low.value == 0.0


def test_bounds_hold_for_every_probe_exactly():
    # against the measure that the probe sees, so no Monte Carlo error blurs it
    matrix = planted(SPECTRUM)
    values, vectors = torch.linalg.eigh(matrix)
    width = []
    for steps in (5, 40):
        density = spectral_density(lambda v: matrix @ v, 300, 4, steps, np.random.default_rng(1), torch.float64)
        generator = np.random.default_rng(1)
        for probe in range(4):
            signs = torch.from_numpy(2.0 * generator.integers(2, size=300) - 1)
            masses = ((vectors.T @ signs) ** 2 / 300).numpy()
            one = SpectralDensity(density.nodes[[probe] * 2], density.weights[[probe] * 2])
            for threshold in (-0.7, -0.31, 0.0, 0.5, 3.0, 20.0):
                low, high = mass_bounds(one, threshold)
                true = masses[values.numpy() < threshold].sum()
                assert low.value - 1e-12 <= true <= high.value + 1e-12
                width.append((steps, high.value - low.value))
    assert np.mean([w for s, w in width if s == 40]) < np.mean([w for s, w in width if s == 5]) / 3


def test_outliers_are_nodes_and_come_once():
    density = density_of(SPECTRUM, 0, steps=40)
    for nodes, weights in zip(density.nodes, density.weights, strict=True):
        # without reorthogonalisation, converged outliers return as ghosts
        assert (nodes > 1.5).sum() == 3
        assert np.allclose(np.sort(nodes)[-3:], [5.0, 8.0, 10.0], atol=1e-9)
        assert weights.min() >= 0 and np.isclose(weights.sum(), 1.0)


def test_smoothed_density():
    density = density_of(SPECTRUM, 0, probes=30, steps=40)
    grid = np.linspace(-3, 13, 4001)
    mean, error = smoothed(density, grid, 0.2)
    assert np.isclose(np.trapezoid(mean, grid), 1.0, atol=1e-6)
    exact = np.exp(-(((grid[:, None] - SPECTRUM) / 0.2) ** 2) / 2).mean(axis=1) / (0.2 * np.sqrt(2 * np.pi))
    assert (np.abs(mean - exact) < 4.5 * error + 2e-3).all()
    assert 0 < error.max() < 0.1 * mean.max()


def test_early_end_is_padded_with_no_mass():
    density = density_of(np.repeat([2.0, -1.0], [60, 40]), 0, steps=10)
    assert density.nodes.shape == density.weights.shape == (6, 10)
    assert np.isfinite(density.nodes).all() and (density.weights[:, 2:] == 0).all()
    assert np.allclose(density.weights.sum(axis=1), 1.0)
    assert np.allclose(density.nodes[:, 0], -1.0) and np.allclose(density.nodes[:, 1:], 2.0)
    low, high = mass_bounds(density, 0.0)
    assert low.value == 0.0 and np.isclose(high.value, 1.0)


def test_float32_agrees_with_float64():
    double, single = (density_of(SPECTRUM, 0, dtype=dtype) for dtype in (torch.float64, torch.float32))
    assert single.nodes.dtype == np.float64
    for order in (1, 2, 3):
        assert np.isclose(moments(double, order).value, moments(single, order).value, rtol=1e-4)
    assert np.isclose(mass_below(double, 0.0).value, mass_below(single, 0.0).value, atol=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectral_density(lambda v: v, 4, 1, 2, np.random.default_rng(0)), "probes and steps: 1 and 2"),
        (lambda: spectral_density(lambda v: v, 4, 2, 5, np.random.default_rng(0)), "from 1 to 4"),
        (lambda: spectral_density(lambda v: v * torch.nan, 4, 2, 2, np.random.default_rng(0)), "not finite"),
        (lambda: smoothed(SpectralDensity(np.zeros((2, 1)), np.ones((2, 1))), np.zeros(1), 0.0), "width"),
        (lambda: moments(SpectralDensity(np.zeros((2, 1)), np.ones((2, 1))), -1), "order: -1"),
    ],
)  # fmt: skip
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("nothing", [0.0, 1e-34])
def test_a_node_whose_mass_is_rounding_bounds_as_one_without_any(nothing):
    nodes, weights = np.array([[-2.0, -1.0, 1.0, 2.0]] * 2), np.array([[0.4, nothing, nothing, 0.6]] * 2)
    low, high = mass_bounds(SpectralDensity(nodes, weights), 0.0)
    assert low.value == 0.0 and high.value == pytest.approx(1.0)
