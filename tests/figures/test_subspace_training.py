import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.subspace_training import ARMS, draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

OPTIONS = {"experiments": ["sums"]}
AFTER = np.array([0, 20, 40])
RATES = dict(zip(ARMS, (0.01, 0.009, 0.0098, 0.002, 0.0005, 0.0), strict=True))


def rows(seed, sets):
    here = {"step": 200, "index": AFTER}
    for data in sets:
        for quantity, unit in (("loss_change", "nats"), ("error_change", "fraction")):
            for arm, rate in RATES.items():
                value = -rate * AFTER * (1 + 0.1 * seed) * (2 if data == "markers_10" else 1)
                yield (
                    here
                    | {"part": arm, "quantity": f"{quantity}_after_projection", "data": data, "unit": unit}
                    | {"value": value}
                )
    row = here | {"part": "unprojected", "quantity": "displacement_share_inside", "index": AFTER[1:]}
    yield row | {"value": np.array([0.1, 0.2]), "unit": "fraction"}
    yield row | {"value": np.array([0.001, 0.001]), "unit": "fraction", "null": "random_basis"}


def tables(seeds=5, sets=("markers_2", "markers_10", "markers_10_any_distractors")):
    made = [tidy(rows(seed, sets), "sums", seed) for seed in range(seeds)]
    return {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}


def test_every_way_on_the_set_with_most_markers():
    loss, error, share = draw(tables(), OPTIONS).axes
    for axes in (loss, error):
        assert axes.get_title() == "markers 10, from step 200"
        for arm, (color, linestyle, _) in ARMS.items():
            (line,) = (each for each in axes.lines if each.get_color() == color and each.get_zorder() == 3)
            assert line.get_linestyle() == linestyle
            np.testing.assert_allclose(line.get_xdata(), AFTER)
            np.testing.assert_allclose(line.get_ydata(), -2.4 * RATES[arm] * AFTER, atol=1e-12)
        assert len([line for line in axes.lines if line.get_zorder() == 1]) == 5 * len(ARMS)
    (measured,) = (line for line in share.lines if line.get_zorder() == 3)
    assert measured.get_ydata().tolist() == pytest.approx([0.1, 0.2])
    (null,) = (line for line in share.lines if line.get_linestyle() == ":")
    assert null.get_ydata().tolist() == pytest.approx([0.001, 0.001])
    assert share.get_yscale() == "log" and null.get_color() == style.NULL_GREY


def test_another_task_shows_its_first_test_set():
    assert draw(tables(2, ("b", "a")), OPTIONS).axes[0].get_title() == "a, from step 200"


@pytest.mark.parametrize("seeds", [5, 1])
def test_the_legend_fits(seeds):
    figure = draw(tables(seeds), OPTIONS)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert f"inside the execution basis, n = {seeds}" in [text.get_text() for text in legend.get_texts()]
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)


def test_what_is_missing_is_named():
    whole = tables(2)
    for quantity in ("loss_change_after_projection", "error_change_after_projection", "displacement_share_inside"):
        left = {name: table[table["quantity"] != quantity] for name, table in whole.items()}
        with pytest.raises(ValueError, match=quantity):
            draw(left, OPTIONS)
    with pytest.raises(ValueError, match="experiments"):
        draw(whole, {"experiments": []})
