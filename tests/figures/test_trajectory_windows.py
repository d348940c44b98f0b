import numpy as np
import pandas as pd
import pytest
from matplotlib.legend import Legend

from learning_geometry.figures import style
from learning_geometry.figures.trajectory_windows import QUANTITIES, draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

LAST = 4000
RATIOS = (2.1, 1.6, 1.5, 1.6, 1.7)
WALKS = (2.2, 2.0, 2.0, 1.9, 1.8)
PC1 = (0.6, 0.75, 0.8, 0.78, 0.74)


def rows_of(seed, windows, shift):
    rows = []
    deviation = 0.02 * (seed - 2)
    for index in range(windows):
        ratio, walk, share = RATIOS[index] + shift + deviation, WALKS[index], PC1[index] + deviation
        here = {"step": LAST * (index + 1) // max(windows, 5), "index": index, "part": "attention_matrices"}
        for name, value, isotropic, walked in (
            ("window_participation_ratio", ratio, 2.3, walk),
            ("window_r90", 2 * ratio, 4.0, 1.8 * walk),
            ("window_pc1_share", share, 0.63, 0.66),
        ):
            row = here | {"quantity": name}
            rows.append(row | {"value": value})
            for null, mean in (("isotropic_walk", isotropic), ("step_norm_walk", walked)):
                drawn = {"value": mean, "low": 0.98 * mean, "high": 1.03 * mean, "n": 200, "null": null}
                rows += [row | drawn, row | drawn | {"part": "layers.0.attention.query"}]
        rows.append(here | {"quantity": "window_participation_ratio_over_null", "value": ratio / walk})
        rows.append(here | {"quantity": "window_r90", "value": 1.0, "part": "layers.0.attention.query"})
    # what else is in the tables tells how long training lasted
    rows.append({"step": LAST, "quantity": "running_error", "data": "markers_2", "value": 0.0})
    return rows


def planted(seeds=5, windows=5, experiments=("marker_sums",)):
    made = [
        tidy(rows_of(seed, windows, 0.5 * number), name, seed)
        for number, name in enumerate(experiments)
        for seed in range(seeds)
    ]
    tables = {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}
    tasks = {name: {"name": "marker_sums"} for name in experiments}
    return tables, {"experiments": list(experiments), "tasks": tasks}


def means(axes, color=style.BLUE):
    (bar,) = (bar for bar in axes.containers if bar.lines[0].get_color() == color)
    return bar.lines[0].get_xydata(), bar.lines[2]


def nulls(axes):
    return {line.get_linestyle(): line.get_xydata() for line in axes.lines if line.get_zorder() == 1.6}


def legend(figure):
    return [text.get_text() for text in figure.findobj(Legend)[0].get_texts()]


def test_windows_stand_at_their_last_steps_and_reach_back_to_their_first():
    ratio, r90, share, over = draw(*planted()).axes
    for axes, values in (
        (ratio, RATIOS),
        (r90, 2 * np.array(RATIOS)),
        (share, PC1),
        (over, np.divide(RATIOS, WALKS)),
    ):
        points, bars = means(axes)
        np.testing.assert_allclose(points[:, 1].astype(float), values)
        assert points[:, 0].tolist() == [800, 1600, 2400, 3200, 4000]
        assert len(bars[0].get_segments()) == 5
        widths = [lines for lines in axes.collections if lines.get_zorder() == 2.5]
        ends = np.array(widths[0].get_segments())[:, :, 0]
        assert ends.tolist() == [[0, 800], [800, 1600], [1600, 2400], [2400, 3200], [3200, 4000]]
        assert len([line for line in axes.lines if line.get_zorder() == 1 and line.get_linestyle() == "-"]) == 5


def test_walks_and_their_ratio():
    ratio, _, _, over = draw(*planted()).axes
    drawn = nulls(ratio)
    np.testing.assert_allclose(drawn[":"][:, 1], 2.3)
    np.testing.assert_allclose(drawn["--"][:, 1], WALKS)
    of_ratio = nulls(over)
    assert set(of_ratio) == {"--"}
    np.testing.assert_allclose(of_ratio["--"][:, 1], 1.0)
    (band,) = (each for each in over.collections if each.get_zorder() == 1.5)
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.98, 1.03))


def test_without_walks_there_is_no_null_of_their_ratio():
    tables, options = planted()
    tables = {name: table[table["null"] != "step_norm_walk"] for name, table in tables.items()}
    ratio, _, _, over = draw(tables, options).axes
    assert set(nulls(ratio)) == {":"} and nulls(over) == {}
    np.testing.assert_allclose(means(over)[0][:, 1].astype(float), np.divide(RATIOS, WALKS))


def test_the_published_collapse_is_shaded_for_marker_sums():
    tables, options = planted()
    figure = draw(tables, options)
    for axes in figure.axes:
        assert [patch.get_x() + patch.get_width() for patch in axes.patches] == [800, 1200]
    assert legend(figure)[-1].startswith("published collapse: first 20 to 30 %")
    figure = draw(tables, options | {"tasks": {"marker_sums": {"name": "binary_operations"}}})
    assert not figure.axes[0].patches and "published" not in " ".join(legend(figure))


def test_a_further_experiment_is_a_control():
    figure = draw(*planted(experiments=("marker_sums", "any_distractors")))
    ratio = figure.axes[0]
    np.testing.assert_allclose(means(ratio, style.GREEN)[0][:, 1].astype(float), np.add(RATIOS, 0.5))
    assert len([line for line in ratio.lines if line.get_zorder() == 1.6]) == 2
    further = figure.axes[4]  # the block of the other experiment, with its seeds
    assert {line.get_color() for line in further.lines if line.get_marker() == "."} == {style.GREEN}
    assert {line.get_color() for line in ratio.lines if line.get_marker() == "."} == {style.BLUE}
    assert len([line for line in further.lines if line.get_zorder() == 1.6]) == 2
    np.testing.assert_allclose(means(further, style.BLUE)[0][:, 1].astype(float), RATIOS)
    assert legend(figure)[:3] == ["marker sums, n = 5", "any distractors, n = 5", "null: isotropic walk"]
    low, high = ratio.get_ylim()
    assert low < 1.5 and high > 2.6


@pytest.mark.parametrize(("seeds", "windows"), [(1, 5), (5, 1), (5, 5)])
def test_nothing_overlaps(seeds, windows):
    figure = draw(*planted(seeds, windows))
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert not any(box.padded(-1).overlaps(other) for other in boxes[i + 1 :])
    if seeds == 1:
        assert not means(figure.axes[0])[1]


def test_what_is_missing_is_named():
    tables, options = planted(seeds=1)
    for quantity in QUANTITIES:
        fewer = {name: table[table["quantity"] != quantity] for name, table in tables.items()}
        with pytest.raises(ValueError, match=quantity):
            draw(fewer, options)
    with pytest.raises(ValueError, match="'experiments' is missing"):
        draw(tables, {})
    with pytest.raises(ValueError, match="experiment='other'"):
        draw(tables, options | {"experiments": ["marker_sums", "other"]})
