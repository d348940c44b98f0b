"""Exponents of spectra: exact laws, planted ones in samples, and what a fit says of a spectrum that is no law."""

import numpy as np
import pytest
from scipy.stats import linregress

from learning_geometry.geometry.moments import moments, principal_variances
from learning_geometry.geometry.power_laws import planted_power_law_exponents, power_law

RANKS = np.arange(1.0, 129.0)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.5])
def test_an_exact_law_is_found_in_any_unit(exponent):
    law = power_law(1e-7 * RANKS**-exponent, 7, 64)
    assert law.exponent == pytest.approx(exponent, abs=1e-9)
    assert np.isnan(law.r_squared) or law.r_squared == pytest.approx(1.0)


def test_the_fit_is_that_of_least_squares_over_its_range_alone():
    spectrum = np.sort(np.random.default_rng(0).exponential(size=128))[::-1]
    law = power_law(spectrum, 5, 60)
    line = linregress(np.log(RANKS[4:60]), np.log(spectrum[4:60]))
    assert law.exponent == pytest.approx(-line.slope) and law.r_squared == pytest.approx(line.rvalue**2)
    outside = spectrum * np.where((RANKS < 5), 100.0, 1.0)
    assert power_law(outside, 5, 60) == law


@pytest.mark.parametrize("exponent", [0.3, 1.0, 2.0])
def test_planted_exponents_are_found_in_samples(exponent):
    # vectors that are drawn, as those of a model are measured: the reference that the measurement's null is
    generator = np.random.default_rng(1)
    vectors = generator.standard_normal((12_000, 128)) * RANKS ** (-exponent / 2)
    found = power_law(principal_variances(moments(vectors).scatter), 7, 64).exponent
    assert found == pytest.approx(exponent, abs=0.03)
    draws = planted_power_law_exponents(exponent, 12_000, 128, 7, 64, 30, generator)
    assert draws.mean() == pytest.approx(exponent, abs=0.03)
    assert abs(found - draws.mean()) < 5 * draws.std()


def test_an_exponential_spectrum_is_told_from_a_power_law():
    assert power_law(np.exp(-RANKS / 4), 7, 64).r_squared < 0.95 < power_law(RANKS**-2.0, 7, 64).r_squared


def test_zeros_have_no_exponent_and_bad_ranges_are_refused():
    spectrum = np.where(RANKS < 50, 1.0, 0.0)
    assert np.isnan(power_law(spectrum, 7, 64)).all()
    for first, last in ((0, 9), (5, 6), (9, 5), (5, 129)):
        with pytest.raises(ValueError, match="no range to fit"):
            power_law(spectrum, first, last)
    with pytest.raises(ValueError, match="negative or not finite"):
        power_law(-RANKS, 7, 64)
