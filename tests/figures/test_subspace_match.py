import numpy as np
import pytest

from learning_geometry.figures.subspace_match import draw

OPTIONS = {"experiments": ["copying"], "tasks": {}}


def test_one_column_for_each_rank_with_its_null(geometry_tables):
    tables = geometry_tables()
    figure = draw(tables, OPTIONS)
    largest, rms = figure.axes[:4], figure.axes[4:]
    assert [axes.get_title() for axes in largest] == ["r = 5", "r = 10", "r = 15", "r = 20"]
    summary = tables["summary"]
    for panels, name in ((largest, "largest"), (rms, "rms")):
        rows = summary[(summary["quantity"] == f"subspace_match_{name}_cosine") & (summary["null"] == "")]
        for axes, rank in zip(panels, (5, 10, 15, 20), strict=True):
            assert len(axes.lines) == 1 + 5 + 1 + 1  # mean, seeds, null, transition
            (line,) = (line for line in axes.lines if line.get_zorder() == 3)
            np.testing.assert_array_equal(line.get_ydata(), rows[rows["index"] == rank].sort_values("step")["estimate"])
    nulls = [next(line for line in axes.lines if line.get_linestyle() == ":").get_ydata()[0] for axes in rms]
    np.testing.assert_allclose(nulls, np.sqrt(np.array([5, 10, 15, 20]) / 64))


def test_legend_fits(geometry_tables):
    figure = draw(geometry_tables(), OPTIONS)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "largest cosine, n = 5",
        "root-mean-square cosine, n = 5",
        "null: random subspaces",
        "mean step of OOD error < 0.5",
    ]
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)


def test_a_single_rank_and_one_seed(geometry_tables):
    tables = {name: table[table["index"].isin([0, 5])] for name, table in geometry_tables(1, 1).items()}
    figure = draw(tables, OPTIONS)
    assert len(figure.axes) == 2
    assert [len(axes.lines) for axes in figure.axes] == [3, 3]


def test_what_is_missing_is_named(geometry_tables):
    for quantity in ("subspace_match_largest_cosine", "subspace_match_rms_cosine", "first_step_below_0.5"):
        tables = {name: table[table["quantity"] != quantity] for name, table in geometry_tables(1, 1).items()}
        with pytest.raises(ValueError, match=quantity):
            draw(tables, OPTIONS)
