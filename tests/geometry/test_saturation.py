import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from learning_geometry.geometry.saturation import FORMS, fit_line, fit_saturating, held_out_error

X = np.linspace(0.0, 10.0, 41)


def saturating(x, a, b, c):
    return a + b * np.exp(-x / c)


@given(
    a=st.floats(-5, 5),
    b=st.floats(0.1, 10),
    sign=st.sampled_from([-1, 1]),
    c=st.floats(0.1, 100),
    shift=st.floats(-20, 20),
    unit=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_a_planted_curve_is_recovered(a, b, sign, c, shift, unit):
    x = unit * (X + shift)
    found = fit_saturating(x, saturating(X, a, sign * b, c))
    assert found.scale == pytest.approx(unit * c, rel=1e-5)
    assert found.origin == x[0]
    # a and b are told apart by the curvature alone, which is slight if c is many times the range
    np.testing.assert_allclose([found.asymptote, found.amplitude], [a, sign * b], atol=1e-5 * (abs(a) + b))
    np.testing.assert_allclose(found.at(x), saturating(X, a, sign * b, c), atol=1e-8 * b)


@pytest.mark.parametrize("c", [0.5, 3.0, 12.0])
def test_it_is_the_least_squares_fit_of_noisy_data(c):
    generator = np.random.default_rng(0)
    x = generator.uniform(-2, 8, 200)
    y = saturating(x, 0.7, 2.0, c) + generator.normal(0, 0.1, 200)
    theirs, _ = curve_fit(saturating, x, y, p0=(0.7, 2.0, c), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    ours = fit_saturating(x, y)
    converted = (ours.asymptote, ours.amplitude * np.exp(ours.origin / ours.scale), ours.scale)
    np.testing.assert_allclose(converted, theirs, rtol=2e-5)
    slope, intercept = np.polyfit(x, y, 1)
    np.testing.assert_allclose(fit_line(x, y), [intercept, slope], rtol=1e-10)


def test_order_and_repetition_of_points_do_not_matter():
    generator = np.random.default_rng(1)
    y = saturating(X, 1.0, -2.0, 2.0) + generator.normal(0, 0.2, len(X))
    once = fit_saturating(X, y)
    order = generator.permutation(3 * len(X))
    np.testing.assert_allclose(fit_saturating(np.tile(X, 3)[order], np.tile(y, 3)[order]), once, rtol=1e-6)


@pytest.mark.parametrize(("a", "b"), [(2.0, -0.3), (0.0, 4.0)])
def test_of_a_line_the_saturating_fit_is_the_line(a, b):
    y = a + b * X
    found = fit_saturating(X, y)
    assert found.scale > 100 * np.ptp(X)
    np.testing.assert_allclose(found.at(X), y, atol=1e-3 * abs(b) * np.ptp(X))
    between, there = X[:-1] + 0.1, a + b * (X[:-1] + 0.1)
    assert held_out_error(X, y, between, there, "line") < 1e-12
    assert held_out_error(X, y, between, there, "line") <= held_out_error(X, y, between, there, "saturating")


def mean_errors(curve, sets=100, noise=0.3):
    """Held-out error of both forms, over many training sets of 12 points and test sets of 40."""
    generator = np.random.default_rng(2)
    errors = {form: [] for form in FORMS}
    for _ in range(sets):
        train, test = generator.uniform(0, 10, 12), generator.uniform(0, 10, 40)
        y_train, y_test = (curve(x) + generator.normal(0, noise, len(x)) for x in (train, test))
        for form, found in errors.items():
            found.append(held_out_error(train, y_train, test, y_test, form))
    return {form: np.array(found) for form, found in errors.items()}


def test_held_out_errors_prefer_what_is_true():
    errors = mean_errors(lambda x: 1 + 0.3 * x)
    assert np.median(errors["line"]) < np.median(errors["saturating"])
    assert np.median(errors["line"]) == pytest.approx(0.3, rel=0.2)
    errors = mean_errors(lambda x: saturating(x, 1.0, 3.0, 2.0))
    assert np.median(errors["saturating"]) < 0.7 * np.median(errors["line"])
    assert np.median(errors["saturating"]) == pytest.approx(0.3, rel=0.3)


def test_in_sample_a_saturating_curve_never_fits_worse():
    generator = np.random.default_rng(3)
    for _ in range(20):
        y = generator.normal(size=len(X))
        errors = {form: held_out_error(X, y, X, y, form) for form in FORMS}
        assert errors["saturating"] <= errors["line"] * (1 + 1e-7)


def test_a_constant_is_fitted_by_both():
    for form in FORMS:
        assert held_out_error(X, np.full(len(X), 2.5), X + 100, np.full(len(X), 2.5), form) == 0.0


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_extrapolated(form):
    y = saturating(X, 1.0, 2.0, 0.1)
    ends = FORMS[form](X, y).at(X[[0, -1]])
    assert held_out_error(X, y, np.array([-1e6, 1e6]), ends, form) == 0.0


@pytest.mark.parametrize("form", FORMS)
def test_what_cannot_be_fitted_is_named(form):
    y = np.arange(3.0)
    with pytest.raises(ValueError, match=r"3 points at 1 different places do not determine \d parameters"):
        FORMS[form](np.full(3, 7.0), y)
    fewest = {"line": 2, "saturating": 3}[form]
    with pytest.raises(ValueError, match=f"do not determine {fewest} parameters"):
        FORMS[form](y[: fewest - 1], y[: fewest - 1])
    with pytest.raises(ValueError, match="3 places for 2 values"):
        FORMS[form](y, y[:2])
    with pytest.raises(ValueError, match="not finite"):
        FORMS[form](y, np.array([0.0, np.nan, 1.0]))
    with pytest.raises(ValueError, match="x_test and y_test: 0 points"):
        held_out_error(y, y, y[:0], y[:0], form)


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match=r"'parabola' is unknown; use one of \['saturating', 'line'\]"):
        held_out_error(X, X, X, X, "parabola")
