import pytest

from learning_geometry.figures import style
from learning_geometry.figures.sharpness import QUANTITIES, draw

OPTIONS = {"experiments": ["copying"], "tasks": {}}


def test_every_seed_is_drawn_through_the_transition(curvature_tables):
    figure = draw(curvature_tables(), OPTIONS)
    largest = figure.axes[0]
    assert len([line for line in largest.lines if line.get_linewidth() == 0.4]) == 5
    (mean,) = (line for line in largest.lines if line.get_zorder() == 3)
    assert mean.get_xdata().tolist() == list(range(0, 3501, 500))
    assert mean.get_ydata()[-1] > 3 * mean.get_ydata()[0]
    (ticks,) = (line for line in largest.lines if line.get_marker() == "|")
    assert sorted(ticks.get_xdata()) == [1800, 2000, 2100, 2300, 2600]
    assert [text.get_text() for text in largest.get_legend().get_texts()] == [
        "largest eigenvalue, n = 5",
        "null: untrained",
        "OOD error below 0.5: 5 of 5 seeds",
    ]


def test_few_checkpoints_are_marked(curvature_tables):
    figure = draw(curvature_tables(), OPTIONS)
    for axes, (label, color) in zip(figure.axes, QUANTITIES.values(), strict=True):
        marked = [line for line in axes.lines if line.get_marker() == "o"]
        assert [line.get_color() for line in marked] == [color]
        assert axes.get_legend().get_texts()[0].get_text() == f"{label}, n = 5"
        assert axes.get_xlim() == (0, 3500)
    assert marked[0].get_xdata().tolist() == [0, 3500]


def test_legends_lie_above_their_panels(curvature_tables):
    figure = draw(curvature_tables(), OPTIONS)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == style.COLUMN_WIDTH
    for axes in figure.axes:
        box = axes.get_legend().get_window_extent()
        assert box.y0 >= axes.get_window_extent().y1 - 0.5
        assert box.x1 <= figure.bbox.x1


def test_what_is_missing_is_named(curvature_tables):
    for quantity in (*QUANTITIES, "first_step_below_0.5"):
        tables = {name: table[table["quantity"] != quantity] for name, table in curvature_tables(1, 1).items()}
        with pytest.raises(ValueError, match=quantity):
            draw(tables, OPTIONS)
