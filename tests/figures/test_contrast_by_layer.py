import functools

import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.contrast_by_layer import PUBLISHED_COSINES, PUBLISHED_VARIANCES, draw
from tests.layer_tables import CONTRASTS, OPTIONS, check_layout, line_in, measured, parts_of, renamed, tables

FAR = {"": 1.0, "_without_rogues": 3.0, "_normalised": 0.5}


def cosine(depth, layers):
    return 1 - 0.02 * (depth / layers) ** 2


def variance(depth, second):
    return (1.4 if second else 1.0) * 1e-3 * np.exp(0.35 * depth)


def rows_of(contrast, layers):
    rows = []
    for stream, factor in (("residual_pre", 1.0), ("residual_mid", 1.5)):
        parts, depth = parts_of(stream, layers)
        for suffix, far in FAR.items():
            values = {"mean_cosine": 1 - far * (1 - cosine(depth, layers))}
            for second, name in enumerate(("first", "second")):
                values[f"mean_variance-{name}"] = factor * variance(depth, second) / far
                values[f"maximum_variance-{name}"] = 50 * factor * variance(depth, second) / far
            for quantity, value in values.items():
                row = {"part": parts, "quantity": f"{quantity}{suffix}", "data": contrast}
                # the embedding is the same for all prompts
                value = np.where(np.array(parts) == "layers.0.residual_pre", quantity == "mean_cosine", value)
                rows.append(measured(value, 1e-4 if quantity == "mean_cosine" else 0.2, **row))
                null = 1 - (1 - value) / 9 if quantity == "mean_cosine" else value
                rows.append(measured(null, 1e-5, null="swapped_pairs", **row))
    parts = [f"layers.{layer}" for layer in range(1, layers)]
    row = {"part": parts, "quantity": "log_variance_difference", "data": contrast}
    rows.append(measured(np.full(layers - 1, np.log(1.5)), 0.2, **row))
    if layers > 2:
        for quantity, value in (("cosine_middle_minus_first", -0.0123), ("cosine_last_minus_middle", 0.0456)):
            rows.append({"step": 0, "quantity": quantity, "data": contrast, "value": value, "low": -0.05, "high": 0.05})
    return rows


@functools.cache
def planted(layers=30, contrasts=tuple(CONTRASTS)):
    return tables([row for contrast in contrasts for row in rows_of(contrast, layers)])


@pytest.fixture(scope="module")
def figure():
    return draw(planted(), OPTIONS)


def test_every_stream_and_set_has_its_curve_without_the_embedding(figure):
    # contrasts by name: mood first
    means, variances, largest, normalised, _ = figure.axes[5:]
    pre, mid = line_in(means, style.BLUE), line_in(means, style.VERMILION)
    np.testing.assert_array_equal(pre.get_xdata(), np.arange(1, 31))
    np.testing.assert_allclose(pre.get_ydata(), cosine(np.arange(1, 31), 30))
    np.testing.assert_array_equal(mid.get_xdata(), np.arange(30) + 0.5)
    thin = line_in(means, style.BLUE, width=0.5)
    np.testing.assert_allclose(thin.get_ydata(), 1 - 3 * (1 - pre.get_ydata()))
    for axes, scale in ((variances, 1.0), (largest, 50.0), (normalised, 2.0)):
        first, second = (line_in(axes, color, look) for color, look in ((style.VERMILION, "-"), (style.ORANGE, "--")))
        np.testing.assert_allclose(first.get_ydata(), 1.5 * scale * variance(mid.get_xdata(), False))
        np.testing.assert_allclose(second.get_ydata(), 1.5 * scale * variance(mid.get_xdata(), True))
        np.testing.assert_allclose(
            line_in(axes, style.SKY_BLUE, "--").get_ydata(), scale * variance(np.arange(1, 31), True)
        )
        # four intervals, the null, and bars of published values
        assert axes.get_yscale() == "log" and len(axes.collections) == 5 + (axes is variances)


def test_the_null_is_of_pairs_swapped(figure):
    null = line_in(figure.axes[5], style.NULL_GREY, ":", 0.9)
    np.testing.assert_allclose(null.get_ydata(), 1 - (1 - cosine(np.arange(30) + 0.5, 30)) / 9)


def test_cosines_near_one_can_be_told_apart(figure):
    means = figure.axes[0]
    heights = means.transData.transform([(1, value) for value in (0.9, 0.99, 0.999)])[:, 1]
    np.testing.assert_allclose(heights[1] - heights[0], heights[2] - heights[1])
    labels = [label.get_text() for label in means.get_yticklabels()]
    assert labels[:5] == ["0.5", "0.9", "0.99", "0.999", "$1-10^{-4}$"]


def test_variance_ratio_of_the_streams(figure):
    ratio = line_in(figure.axes[9], style.BLACK)
    np.testing.assert_allclose(ratio.get_ydata(), 1.5)
    np.testing.assert_allclose(ratio.get_xdata(), np.arange(1, 30) + 0.5)


def test_titles_tell_sets_and_differences(figure):
    assert figure.axes[5].get_title(loc="left").split("\n") == [
        "little chat, safety: harmful, harmless, n = 64\u00a0pairs".replace("\u00a0", " "),
        "cosine, middle \u2212 first: \u22120.012 [\u22120.05, 0.05]",
        "cosine, last \u2212 middle: 0.046 [\u22120.05, 0.05]",
    ]


def test_published_values_stand_beside_harmful_against_harmless(figure):
    for axes in figure.axes[:5]:
        assert not [line for line in axes.lines if line.get_marker() in "v_" and len(line.get_xdata())]
        assert axes.get_xlim() == (0, 30)
    for axes, published, marker in (
        (figure.axes[5], PUBLISHED_COSINES, "v"),
        (figure.axes[6], PUBLISHED_VARIANCES, "_"),
    ):
        (starts,) = (line for line in axes.lines if line.get_marker() == marker and len(line.get_xdata()))
        (ends,) = (line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()))
        np.testing.assert_array_equal(np.c_[starts.get_ydata(), ends.get_ydata()], list(published.values()))
        assert starts.get_xdata().min() > 30 and starts.get_xdata().max() < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < starts.get_ydata().min()


def test_nothing_overlaps(figure):
    check_layout(figure, 10)


def test_two_models_of_two_layers():
    first, other = planted(2, ("mood",)), renamed(planted(2, ("harm",)), "other")
    both = {name: pd.concat([first[name], other[name]], ignore_index=True) for name in first}
    figure = draw(both, {"experiments": ["little_chat", "other"]})
    assert len(figure.axes) == 10
    assert figure.axes[5].get_title(loc="left") == "other, harm, n = 64 pairs"
    # sets without names are known by that of their contrast
    assert figure.axes[5].get_xlim()[1] > 2 == figure.axes[0].get_xlim()[1]


@pytest.mark.parametrize("quantity", ["mean_cosine", "log_variance_difference", "mean_variance-second_normalised"])
def test_what_is_missing_is_named(quantity):
    runs = planted(2, ("mood",))["runs"]
    with pytest.raises(ValueError, match=quantity):
        draw({"runs": runs[runs["quantity"] != quantity]}, OPTIONS)


def test_experiments_must_be_named():
    with pytest.raises(ValueError, match="experiments"):
        draw(planted(2, ("mood",)), {"experiments": []})


def test_cosines_that_are_all_unknown_are_named():
    runs = planted(2, ("mood",))["runs"]
    unknown = runs["value"].where(~runs["quantity"].str.startswith("mean_cosine"))
    with pytest.raises(ValueError, match="mean_cosine of little_chat: every value is NaN, there is nothing to draw"):
        draw({"runs": runs.assign(value=unknown)}, OPTIONS)
