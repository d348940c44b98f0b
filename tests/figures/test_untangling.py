import functools

import numpy as np
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.untangling import draw
from tests.layer_tables import CONTRASTS, OPTIONS, check_layout, line_in, measured, parts_of, tables

LEVELS = {
    "separability": 0.9,
    "between_over_within": 0.05,
    "participation_ratio-first": 12.0,
    "participation_ratio-second": 15.0,
    "participation_ratio-union": 18.0,
    "intrinsic_dimension-first": 9.0,
    "intrinsic_dimension-second": 11.0,
    "intrinsic_dimension-union": 4.0,
    "set_cosine_rms": 0.6,
    "set_cosine_largest": 0.9,
}


def rows_of(contrast, layers, stream):
    rows = []
    parts, depth = parts_of(stream, layers)
    if stream == "residual_pre":
        parts, depth = parts[1:-1], depth[1:-1]
    for quantity, level in LEVELS.items():
        row = {"part": parts, "quantity": quantity, "data": contrast}
        value = level * (0.6 + 0.4 * depth / layers)
        single = row | {"value": value, "step": 0, "n": 64}
        rows.append(measured(value, **row) if quantity == "separability" else single)
        rows.append(row | {"step": 0, "null": "untrained", "value": np.full(len(parts), 1.2 * level)})
        if not quantity.endswith("union"):
            rows.append(measured(np.full(len(parts), 0.5 * level), null="swapped_pairs", **row))
    if layers > 2 and stream == "residual_mid":
        rows.append({"step": 0, "quantity": "separability_gain", "data": contrast, "value": 0.21, "low": 0.14})
        rows[-1]["high"] = 0.28
    return rows


@functools.cache
def planted(layers=30, contrasts=tuple(CONTRASTS), streams=("residual_mid",)):
    return tables([row for contrast in contrasts for stream in streams for row in rows_of(contrast, layers, stream)])


@pytest.fixture(scope="module")
def figure():
    return draw(planted(), OPTIONS)


COLOURS = {
    "separability": (0, style.BLACK),
    "between_over_within": (1, style.BLACK),
    "participation_ratio-first": (2, style.GREEN),
    "participation_ratio-second": (2, style.PURPLE),
    "participation_ratio-union": (2, style.BLACK),
    "intrinsic_dimension-first": (3, style.GREEN),
    "intrinsic_dimension-second": (3, style.PURPLE),
    "intrinsic_dimension-union": (3, style.BLACK),
    "set_cosine_rms": (4, style.BLUE),
    "set_cosine_largest": (4, style.ORANGE),
}


@pytest.mark.parametrize("quantity", COLOURS)
def test_trained_beside_untrained_and_swapped(figure, quantity):
    panel, color = COLOURS[quantity]
    axes, level = figure.axes[panel], LEVELS[quantity]
    depth = np.arange(30) + 0.5
    trained = line_in(axes, color)
    np.testing.assert_allclose(trained.get_xydata(), np.c_[depth, level * (0.6 + 0.4 * depth / 30)])
    np.testing.assert_allclose(line_in(axes, color, "--", 0.9).get_ydata(), 1.2 * level)
    swapped = [line.get_ydata()[0] for line in axes.lines if line.get_color() == style.NULL_GREY]
    assert (np.isclose(swapped, 0.5 * level).sum() == 1) == (not quantity.endswith(("union", "second")))
    # where two columns share an axis, it holds what is in both
    assert axes.get_ylim()[1] >= 1.2 * level


def test_titles_tell_the_gain(figure):
    assert [axes.get_title(loc="left").split("\n")[-1] for axes in (figure.axes[0], figure.axes[5])] == [
        "separability gain over untrained: 0.21 [0.14, 0.28]"
    ] * 2


def test_dimensions_start_at_zero(figure):
    assert [figure.axes[panel].get_ylim()[0] for panel in (2, 3, 7, 8)] == [0] * 4
    assert figure.axes[1].get_yscale() == "log"


@pytest.mark.parametrize("streams", [("residual_pre",), ("residual_pre", "residual_mid")])
def test_the_stream_that_was_measured_is_shown(streams):
    axes = draw(planted(6, ("mood",), streams), OPTIONS).axes[0]
    expected = np.arange(1, 6) if len(streams) == 1 else np.arange(6) + 0.5
    np.testing.assert_array_equal(line_in(axes, style.BLACK).get_xdata(), expected)
    assert axes.get_xlim() == (0, 6)


def test_nothing_overlaps(figure):
    check_layout(figure, 10)


def test_a_model_of_two_layers_whose_dimensions_no_one_can_tell():
    runs = planted(2, ("mood",))["runs"].copy()
    runs.loc[runs["quantity"].str.startswith("intrinsic"), ["value", "low", "high"]] = np.nan
    figure = draw({"runs": runs}, OPTIONS)
    assert figure.axes[0].get_title(loc="left") == "little chat, mood: negative, positive, n = 64 pairs"


@pytest.mark.parametrize("quantity", ["separability", "set_cosine_largest"])
def test_what_is_missing_is_named(quantity):
    runs = planted(2, ("mood",))["runs"]
    with pytest.raises(ValueError, match=quantity):
        draw({"runs": runs[runs["quantity"] != quantity]}, OPTIONS)


def test_experiments_must_be_named():
    with pytest.raises(ValueError, match="experiments"):
        draw(planted(2, ("mood",)), {"experiments": []})
