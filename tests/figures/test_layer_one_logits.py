import pandas as pd
import pytest

from learning_geometry.figures.layer_one_logits import SOURCES, draw

OPTIONS = {"experiments": ["copying"], "tasks": {}}


def test_shares_against_the_untrained_model(geometry_tables):
    figure = draw(geometry_tables(), OPTIONS)
    shares, variance = figure.axes
    ends = {}
    for source, color in SOURCES.items():
        (line,) = (line for line in shares.lines if line.get_zorder() == 3 and line.get_color() == color)
        (null,) = (line for line in shares.lines if line.get_linestyle() == ":" and line.get_color() == color)
        ends[source] = line.get_ydata()[-1]
        assert set(null.get_ydata()) == {0.9 if source == "content" else 0.05}
    assert ends["content"] < 0.1 and ends["position"] > 0.8
    assert variance.get_yscale() == "log"
    assert variance.get_xlim() == shares.get_xlim() == (0, 3500)
    assert [text.get_text() for text in shares.get_legend().get_texts()] == [
        "content, n = 5",
        "position, n = 5",
        "interaction, n = 5",
        "null: untrained, in its colour",
    ]


def test_legends_lie_above_their_panels(geometry_tables):
    figure = draw(geometry_tables(), OPTIONS)
    figure.draw_without_rendering()
    for axes in figure.axes:
        box = axes.get_legend().get_window_extent()
        assert box.y0 >= axes.get_window_extent().y1 - 0.5
        assert box.x1 <= figure.bbox.x1


def test_every_head_is_drawn(geometry_tables):
    tables = {}
    for name, table in geometry_tables(2, 2).items():
        second = table[table["quantity"].str.startswith("attention_logit")].assign(index=1)
        tables[name] = pd.concat([table, second], ignore_index=True)
    shares, variance = draw(tables, OPTIONS).axes
    assert [len([line for line in axes.lines if line.get_zorder() == 3]) for axes in (shares, variance)] == [6, 2]


def test_what_is_missing_is_named(geometry_tables):
    for quantity in ("attention_logit_share_position", "attention_logit_variance", "first_step_below_0.5"):
        tables = {name: table[table["quantity"] != quantity] for name, table in geometry_tables(1, 1).items()}
        with pytest.raises(ValueError, match=quantity):
            draw(tables, OPTIONS)
