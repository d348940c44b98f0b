import numpy as np
import pytest
from scipy.optimize import least_squares

from learning_geometry.geometry.growth import LAWS, fit_law, held_out_law_errors

LAYERS = np.arange(31)
X = LAYERS[1:]
CURVES = {
    "linear": lambda x: 2.0 + 0.7 * x,
    "square": lambda x: (1.5 + 0.3 * x) ** 2,
    "power": lambda x: 0.3 * x**1.8,
    "exponential": lambda x: 0.1 * np.exp(0.15 * x),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_planted_law_is_recovered(name, unit):
    x = X.astype(float)
    law = fit_law(name, x, unit * CURVES[name](x))
    expected = {"linear": (2.0 * unit, 0.7 * unit), "power": (0.3 * unit, 1.8), "exponential": (0.1 * unit, 0.15)}
    expected["square"] = 1.5 * unit**0.5, 0.3 * unit**0.5
    np.testing.assert_allclose([law.a, law.b], expected[name], rtol=1e-8)
    np.testing.assert_allclose(law.at(np.array([0.5, 40.0])), unit * CURVES[name](np.array([0.5, 40.0])), rtol=1e-8)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_it_is_the_least_squares_fit_of_the_logarithm(name, sign):
    generator = np.random.default_rng(0)
    x = np.sort(generator.uniform(1, 20, 15))
    y = np.exp(sign * 0.1 * x + generator.normal(0, 0.2, 15))
    law = fit_law(name, x, y)

    def residuals(parameters):
        a, b = parameters
        line = np.log(np.maximum(a + b * x, 1e-9))
        curves = {"linear": line, "square": 2 * line}
        if name not in curves:
            curves |= {"power": np.log(a) + b * np.log(x), "exponential": np.log(a) + b * x}
        return curves[name] - np.log(y)

    theirs = least_squares(residuals, (law.a * 1.05, law.b * 0.95), x_scale=(abs(law.a), abs(law.b)), xtol=1e-15)
    ours = np.sum(residuals((law.a, law.b)) ** 2)
    assert ours <= 2 * theirs.cost * (1 + 1e-9)
    np.testing.assert_allclose(theirs.x, (law.a, law.b), rtol=1e-4)


@pytest.mark.parametrize("steep", [1e-4, 1e-2, 1e2, 1e6])
def test_lines_of_every_steepness_are_recovered(steep):
    # value at the last place over that at the first, falling and rising
    x = np.linspace(1, 21, 14)
    y = 3.0 * (1 + (steep - 1) * (x - 1) / 20)
    law = fit_law("linear", x, y)
    np.testing.assert_allclose(law.at(x), y, rtol=1e-6)


@pytest.mark.parametrize("name", LAWS)
def test_many_curves_at_once_are_fitted_one_by_one(name):
    generator = np.random.default_rng(1)
    y = CURVES["power"](X.astype(float)) * np.exp(0.3 * generator.standard_normal((3, 4, len(X))))
    law = fit_law(name, X, y)
    assert law.a.shape == law.b.shape == (3, 4) and law.at(X).shape == y.shape
    for i, j in np.ndindex(3, 4):
        alone = fit_law(name, X, y[i, j])
        np.testing.assert_allclose([law.a[i, j], law.b[i, j]], [alone.a, alone.b], rtol=1e-9)


@pytest.mark.parametrize("true", LAWS)
def test_held_out_layers_prefer_the_true_law(true):
    generator = np.random.default_rng(2)
    y = CURVES[true](X.astype(float)) * np.exp(0.05 * generator.standard_normal((200, len(X))))
    errors = held_out_law_errors(X, y)
    best = np.array([errors[name] for name in LAWS]).argmin(0)
    assert np.mean(best == LAWS.index(true)) > 0.85
    # the fit's error adds to that of the values: 10 of them, relative error .05
    assert np.median(errors[true]) == pytest.approx(0.06, rel=0.5)


@pytest.mark.parametrize("intercept", [12.0, 16.0, 20.0])
def test_a_variance_where_norms_grow_linearly_is_no_exponential(intercept):
    errors = held_out_law_errors(LAYERS, (intercept + LAYERS) ** 2)
    # against a power law alone it would look exponential
    assert errors["square"] < 1e-9 < errors["exponential"] < errors["power"]


def test_the_last_third_is_judged_by_a_fit_on_the_rest_and_layer_0_is_left_out():
    y = CURVES["exponential"](LAYERS.astype(float))
    y[21:] *= 2.0
    y[0] = np.nan
    errors = held_out_law_errors(LAYERS, y)
    assert errors["exponential"] == pytest.approx(np.log(2))
    y[0], y[20] = 0.0, y[20] * 1.5
    assert held_out_law_errors(LAYERS, y)["exponential"] != pytest.approx(np.log(2), abs=1e-3)
    # a part that is fitted too
    assert held_out_law_errors(LAYERS, y, share=0.96)["power"] < held_out_law_errors(LAYERS, y, share=0.5)["power"]
    # layers need not be whole numbers, nor all there: before and after attention
    half = np.arange(0, 12, 0.5)
    assert held_out_law_errors(half, 3.0 * np.maximum(half, 1e-9) ** 2)["power"] < 1e-10


def test_a_line_that_would_be_negative_is_infinitely_wrong():
    x = np.arange(1.0, 13.0)
    y = np.where(x <= 8, 9.0 - x, 1.0)
    errors = held_out_law_errors(x, y)
    assert errors["linear"] == np.inf and np.isfinite([errors["power"], errors["exponential"]]).all()


@pytest.mark.parametrize("name", LAWS)
def test_a_constant_is_fitted_by_all(name):
    assert held_out_law_errors(LAYERS, np.full(31, 2.5))[name] < 1e-9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fit_law("cubic", X, X),
            r"'cubic' is unknown; use one of \['linear', 'square', 'power', 'exponential'\]",
        ),
        (lambda: fit_law("power", X, X[:3]), "30 places for 3 values"),
        (lambda: fit_law("power", LAYERS, LAYERS + 1), "not positive"),
        (lambda: fit_law("power", X, -X), "not positive"),
        (lambda: fit_law("power", X, np.where(X == 3, np.nan, X)), "not positive and finite"),
        (lambda: fit_law("power", np.ones(3), np.ones(3)), "at least two different"),
        (lambda: held_out_law_errors(X, X[:3]), "30 for 3 values"),
        (lambda: held_out_law_errors(np.arange(3), np.ones(3)), "of 2 from layer 1 on, 1 would be fitted"),
        (lambda: held_out_law_errors(X[::-1], X), "do not ascend"),
        (lambda: held_out_law_errors(X, X, share=1.0), "share"),
        (lambda: held_out_law_errors(X, X - 25), "not positive"),
        (lambda: held_out_law_errors(X, 25 - X), "not positive"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
