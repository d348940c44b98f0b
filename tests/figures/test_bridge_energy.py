import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.bridge_energy import GROUPS, draw

OPTIONS = {"experiments": ["copying"], "tasks": {}}


def thick(axes, color):
    (line,) = (line for line in axes.lines if line.get_zorder() == 3 and line.get_color() == color)
    return line.get_xydata()


def test_the_bridge_moves_from_the_medium_into_the_bottom(geometry_tables):
    figure = draw(geometry_tables(), OPTIONS)
    key, query, key_lags, query_lags = figure.axes
    assert [axes.get_title() for axes in figure.axes] == [
        "key side, r = 10",
        "query side, r = 10",
        "key side, step 3500",
        "query side, step 3500",
    ]
    start, end = ({group: thick(key, color)[place, 1] for group, color in GROUPS.items()} for place in (0, -1))
    assert start["medium"] > start["bottom"] and end["bottom"] > 0.8 > 0.2 > end["medium"]
    assert thick(query, style.BLUE)[-1, 1] > 0.8
    for axes in (key_lags, query_lags):
        assert thick(axes, style.VERMILION)[:, 0].tolist() == list(range(36))
        assert axes.get_xlim() == (0, 35)
    assert thick(key_lags, style.VERMILION)[0, 1] == pytest.approx(thick(key, style.VERMILION)[-1, 1], abs=0.03)


def test_chance_has_a_line_for_each_group_and_a_grey_range(geometry_tables):
    for axes in draw(geometry_tables(), OPTIONS).axes:
        dotted = {
            line.get_color(): line for line in axes.lines if line.get_linestyle() == ":" and len(line.get_xdata())
        }
        for (_, color), size in zip(GROUPS.items(), (1, 34, 29), strict=True):
            np.testing.assert_allclose(dotted[color].get_ydata(), size / 64)
        assert len(axes.collections) == 3 + 3


def test_one_legend_for_all_panels_that_fits(geometry_tables):
    figure = draw(geometry_tables(), OPTIONS)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "top of embedding, n = 5",
        "medium of embedding, n = 5",
        "bottom of embedding, n = 5",
        "null: random subspace, line in its colour",
        "mean step of OOD error < 0.5",
    ]
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)


def test_every_head_is_drawn(geometry_tables):
    tables = {}
    for name, table in geometry_tables(2, 2).items():
        bridge = table["part"].str.startswith("embedding.")
        parts = [table[bridge].assign(part=f"layers.1.heads.{head}-" + table["part"][bridge]) for head in (0, 1)]
        tables[name] = pd.concat([table[~bridge], *parts], ignore_index=True)
    for axes in draw(tables, OPTIONS).axes:
        assert len([line for line in axes.lines if line.get_zorder() == 3]) == 6


def test_what_is_missing_is_named(geometry_tables):
    for quantity in ("bridge_energy_key", "bridge_energy_query_at_lag", "first_step_below_0.5"):
        tables = {name: table[table["quantity"] != quantity] for name, table in geometry_tables(1, 1).items()}
        with pytest.raises(ValueError, match=quantity):
            draw(tables, OPTIONS)
