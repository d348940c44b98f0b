import functools

import numpy as np
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.depth_growth import FITTED, LOOKS, draw
from learning_geometry.geometry.growth import LAWS, held_out_law_errors
from tests.layer_tables import CONTRASTS, OPTIONS, check_layout, line_in, measured, parts_of, tables


def variance(layer):
    return 1e-2 * np.exp(0.3 * layer)


def rows_of(contrast, layers, infinite=False):
    here = {"data": contrast}
    posts = [f"layers.{layer}.residual_post" for layer in range(layers)]
    after = np.arange(1, layers + 1)
    rows = [
        measured(3.0 * after, 0.05, part=posts, quantity="state_norm", **here),
        measured(2.0 + after, 0.05, part=posts, quantity="increment_norm", **here),
        measured(np.sin(after[1:]) / 3, part=posts[1:], quantity="increment_cosine", **here),
    ]
    null = {"null": "random_directions", "value": 0.0, "low": -0.08, "high": 0.08, "step": 0}
    rows.append(null | {"part": posts[1:], "quantity": "increment_cosine"} | here)
    rows.append(measured(0.03, 0.2, quantity="mean_increment_cosine", **here))
    rows.append(null | {"quantity": "mean_increment_cosine"} | here)
    for stream in ("residual_pre", "residual_mid"):
        parts = parts_of("residual_mid", layers)[0]
        parts = [part.replace("residual_mid", stream) for part in parts]
        values = variance(np.arange(layers)) * ((np.arange(layers) > 0) | (stream == "residual_mid"))
        rows.append(measured(values, part=parts, quantity="mean_variance", **here))
        if stream == "residual_mid":
            rows.append(measured(3.0 * after - 1.5, 0.05, part=parts, quantity="state_norm", **here))
        if layers < 4:
            continue
        errors = held_out_law_errors(np.arange(layers), variance(np.arange(layers)))
        for what in ("mean_variance", "state_norm"):
            for law in LAWS:
                lost = infinite and law == "linear"
                error = {"value": np.inf, "low": np.nan, "high": np.nan, "step": 0} if lost else measured(errors[law])
                rows.append(error | {"part": stream, "quantity": f"held_out_error-{law}-{what}"} | here)
            for law in ("linear", "square", "power"):
                lost = infinite and law == "linear"
                less = {"value": -np.inf, "low": np.nan, "high": np.nan, "step": 0}
                less = less if lost else measured(errors["exponential"] - errors[law])
                rows.append(less | {"part": stream, "quantity": f"exponential_minus_{law}-{what}"} | here)
    return rows


@functools.cache
def planted(layers=30, contrasts=tuple(CONTRASTS), infinite=False):
    return tables([row for contrast in contrasts for row in rows_of(contrast, layers, infinite)])


@pytest.fixture(scope="module")
def figure():
    return draw(planted(), OPTIONS)


def test_norms_and_cosines_by_depth(figure):
    norms, cosines = figure.axes[:2]
    state, added = line_in(norms, style.BLUE), line_in(norms, style.ORANGE)
    np.testing.assert_array_equal(state.get_xydata(), [(layer, 3 * layer) for layer in range(1, 31)])
    np.testing.assert_array_equal(added.get_ydata(), np.arange(1, 31) + 2)
    assert line_in(norms, style.VERMILION).get_xdata()[0] == 0.5
    assert line_in(cosines, style.ORANGE).get_xdata()[0] == 2
    null = line_in(cosines, style.NULL_GREY, ":", 0.9)
    np.testing.assert_array_equal(null.get_ydata(), 0.0)
    assert len(cosines.collections) == 2


def test_laws_lead_where_they_are_judged(figure):
    variances = figure.axes[2]
    exponential = line_in(variances, LOOKS["exponential"][1], "--", 0.9)
    np.testing.assert_array_equal(exponential.get_xdata(), np.arange(1, 30) + 0.5)
    np.testing.assert_allclose(exponential.get_ydata(), variance(np.arange(1, 30)))
    linear = line_in(variances, LOOKS["linear"][1], "--", 0.9)
    # what the errors in the panel below are made of
    missed = np.log(linear.get_ydata()[19:] / variance(np.arange(20, 30)))
    errors = held_out_law_errors(np.arange(30), variance(np.arange(30)))
    assert np.sqrt(np.mean(missed**2)) == pytest.approx(float(errors["linear"]))
    (shaded,) = variances.patches
    assert (shaded.get_x(), shaded.get_x() + shaded.get_width()) == (20, 30)
    low, high = variances.get_ylim()
    assert low < variance(1) and variance(29) < high < 1e3 * variance(29)


def test_errors_of_every_law_with_intervals(figure):
    errors, differences = figure.axes[3:5]
    assert len(errors.containers) == 4 * len(FITTED) and len(differences.containers) == 3 * len(FITTED)
    assert all(container.has_yerr for container in [*errors.containers, *differences.containers])
    power = [each.lines[0].get_ydata()[0] for each in errors.containers if each.lines[0].get_color() == style.PURPLE]
    expected = held_out_law_errors(np.arange(30), variance(np.arange(30)))
    np.testing.assert_allclose(power, [float(expected["power"])] * 4)
    less = [line.get_ydata()[0] for line, *_ in differences.containers if line.get_color() == style.PURPLE]
    np.testing.assert_allclose(less, [float(expected["exponential"] - expected["power"])] * 4)
    assert errors.get_ylim()[0] == 0
    assert [label.get_text() for label in differences.get_xticklabels()][:2] == ["variance,\npre", "variance,\nmid"]


def test_the_title_tells_the_mean_cosine_and_its_null(figure):
    assert figure.axes[5].get_title(loc="left").split("\n") == [
        "little chat, safety: harmful, harmless, n = 64 pairs",
        "mean cosine: 0.03 [0.024, 0.036]; null: \u00b10.08",
    ]


def test_infinite_errors_stand_at_the_edge():
    errors, differences = draw(planted(6, ("mood",), True), OPTIONS).axes[3:5]
    for axes, edge, others in ((errors, 0.96, 3), (differences, 0.04, 2)):
        at_edge = [line for line in axes.lines if line.get_ydata()[0] == edge]
        assert len(at_edge) == 4 and {line.get_color() for line in at_edge} == {LOOKS["linear"][1]}
        assert len(axes.containers) == others * len(FITTED)


def test_few_layers_are_not_fitted():
    figure = draw(planted(2, ("mood",)), OPTIONS)
    assert [axes.texts[-1].get_text() for axes in figure.axes[3:]] == ["too few layers"] * 2


def test_nothing_overlaps_in_three_columns():
    check_layout(draw(planted(6, ("one", "other", "third"), True), {"experiments": ["little_chat"]}), 15)


@pytest.mark.parametrize("quantity", ["increment_norm", "held_out_error-power-state_norm"])
def test_what_is_missing_is_named(quantity):
    runs = planted(6, ("mood",))["runs"]
    with pytest.raises(ValueError, match=quantity):
        draw({"runs": runs[runs["quantity"] != quantity]}, OPTIONS)


def test_experiments_must_be_named():
    with pytest.raises(ValueError, match="experiments"):
        draw(planted(6, ("mood",)), {})


@pytest.mark.parametrize("rate", [0.02, 0.3, 2.0])
def test_logarithmic_axes_have_ticks_however_narrow(rate):
    runs = planted(6, ("mood",))["runs"].copy()
    norms = runs["quantity"].isin(["state_norm", "increment_norm"])
    place = runs[norms].groupby(["quantity", "seed"]).cumcount().to_numpy()
    runs.loc[norms, ["value", "low", "high"]] = np.exp(rate * place)[:, None] * [1.0, 0.99, 1.01]
    axes = draw({"runs": runs}, OPTIONS).axes[0]
    low, high = axes.get_ylim()
    assert 2 <= sum(low <= tick <= high for tick in axes.get_yticks()) <= 8
