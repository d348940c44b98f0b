import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from learning_geometry.figures import style
from learning_geometry.figures.subspace_function import HARM, draw

OPTIONS = {"experiments": ["copying"], "tasks": {}}
COMPONENTS = 7
ROWS = 3 * COMPONENTS + 4
QUERY, KEY, BRIDGE = 12, 15, 21
"""First rows of layer 2's queries, its keys, and the bridge in its keys."""


def cells(axes):
    """Text of the measured change by row and column; there are two texts in each cell."""
    return {
        (int(text.get_position()[1]), int(text.get_position()[0])): text.get_text()
        for text in axes.texts
        if 6 < text.get_fontsize() < 7 and text.get_position()[1] % 1 < 0.5
    }


def colors(axes):
    filled = [patch for patch in axes.patches if isinstance(patch, Rectangle) and not patch.get_hatch()]
    return {(int(patch.get_y()), int(patch.get_x())): to_rgb(patch.get_facecolor()) for patch in filled}


def labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_the_table_shows_the_double_dissociation(function_tables):
    tables = function_tables()
    table = draw(tables, OPTIONS).axes[0]
    assert len(labels(table)) == ROWS
    assert labels(table)[QUERY : QUERY + 3] == ["layer 2 query alone:  top", "medium", "bottom"]
    shown = cells(table)
    induction = 1
    for start, needed in ((QUERY, 1), (KEY, 2)):
        for group in range(3):
            color, text = colors(table)[start + group, induction], shown[start + group, induction]
            harm = float(text.split(" ")[0].replace("\u2212", "-"))
            assert (harm < -0.6) == (group == needed) and (harm > -0.05) == (group != needed)
            assert color == pytest.approx(to_rgb(HARM((1 - harm) / 2)), abs=0.02)
    summary = tables["summary"]
    row = summary.query(
        "part == 'layers.1.query-embedding.medium' and quantity == 'induction_score_change_after_ablation' "
        "and step == 3500 and null == ''"
    ).iloc[0]
    expected = "{:.2f} [{:.2f}, {:.2f}]".format(*row[["estimate", "low", "high"]]).replace("-", "\u2212")
    assert shown[QUERY + 1, induction] == expected
    # an error gained is harm as well
    assert not shown[KEY + 2, 2].startswith("\u2212") and colors(table)[KEY + 2, 2] == pytest.approx(
        to_rgb(HARM(0.9)), abs=0.1
    )


def test_what_cannot_change_is_empty_and_controls_are_marked(function_tables):
    table = draw(function_tables(), OPTIONS).axes[0]
    shown = cells(table)
    columns = [{column for row, column in shown if row == at} for at in range(ROWS)]
    assert columns[:6] == [{0, 1, 2}] * 6
    assert columns[6:18] == [{1, 2}] * 12
    assert columns[18:21] == [{2}] * 3
    assert columns[21:] == [{1, 2}] * 4
    hatched = {(int(patch.get_y()), int(patch.get_x())) for patch in table.patches if patch.get_hatch()}
    assert (QUERY, 1) in hatched and (QUERY + 1, 1) not in hatched
    controls = [text.get_text() for text in table.texts if text.get_fontsize() < 6]
    assert len(controls) == len(shown)
    assert all(text.startswith("dim ") and "   norm " in text for text in controls)


def test_the_bridge_of_the_nearest_rank(function_tables):
    figure = draw(function_tables(), OPTIONS)
    assert labels(figure.axes[0])[BRIDGE:] == [
        "layer 2 key:  bridge, r = 10",
        "bridge alone, r = 10",
        "layer 1 output:  bridge, r = 10",
        "bridge alone, r = 10",
    ]
    panel = figure.axes[4]
    (removed,) = (line for line in panel.lines if line.get_color() == style.PURPLE and line.get_zorder() == 3)
    assert removed.get_xdata().tolist() == [1000, 2000, 3000, 3500]
    assert removed.get_ydata()[-1] == pytest.approx(0.1 + 0.9 * 0.8, abs=0.05)
    nulls = [line for line in panel.lines if line.get_linestyle() in (":", "--")]
    assert len(nulls) == 4


def test_panels_have_every_seed_their_nulls_and_the_intact_model(function_tables):
    figure = draw(function_tables(), OPTIONS)
    for panel in figure.axes[1:4]:
        assert len([line for line in panel.lines if line.get_zorder() == 1]) == 3 * 5
        assert len([line for line in panel.lines if line.get_linestyle() == ":" and len(line.get_xdata())]) == 3
        assert [line for line in panel.lines if line.get_color() == style.BLACK and line.get_linestyle() == "-"]
        assert [line for line in panel.lines if line.get_linestyle() == "-."]


@pytest.mark.parametrize(("seeds", "crossing"), [(5, 5), (1, 0)])
def test_legend_and_labels_fit(function_tables, seeds, crossing):
    figure = draw(function_tables(seeds, crossing), OPTIONS)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert f"without medium, n = {seeds}" in texts
    assert ("mean step of OOD error < 0.5" in texts) == (crossing > 0)
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)
    table = figure.axes[0]
    for text in table.texts:
        extent = text.get_window_extent().transformed(table.transData.inverted())
        if text.get_fontsize() < 7:  # inside of its cell
            column = int(text.get_position()[0])
            assert column <= extent.x0 and extent.x1 <= column + 1
    assert min(label.get_window_extent().x0 for label in table.get_yticklabels()) >= 0


def test_without_a_bridge_a_panel_says_so(function_tables):
    tables = {name: table[~table["part"].str.endswith("-bridge")] for name, table in function_tables(2, 2).items()}
    figure = draw(tables, OPTIONS)
    assert len(labels(figure.axes[0])) == 3 * COMPONENTS
    assert [text.get_text() for text in figure.axes[4].texts if "no bridge" in text.get_text()]


def test_what_is_missing_is_named(function_tables):
    tables = function_tables(1, 1)
    for quantity in ("error_change_after_ablation", "induction_score_after_ablation", "first_step_below_0.5"):
        left = {name: table[table["quantity"] != quantity] for name, table in tables.items()}
        with pytest.raises(ValueError, match=quantity):
            draw(left, OPTIONS)
    with pytest.raises(ValueError, match="experiments"):
        draw(tables, {"experiments": []})
    other = {name: pd.concat([table.assign(experiment="other"), table]) for name, table in tables.items()}
    assert draw(other, OPTIONS).axes
