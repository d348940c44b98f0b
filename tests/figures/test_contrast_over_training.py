import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.contrast_over_training import draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

STEPS = np.arange(0, 1001, 100)
PLACES = {
    "layers.0.residual_pre": "before layer 1",
    "layers.0.residual_mid": "after attention of layer 1",
    "layers.1.residual_mid": "after attention of layer 2",
}
OPTIONS = {"experiments": ["copying"]}


def rows_of(seed):
    noise = np.random.default_rng(seed)
    here = {"step": STEPS, "data": "in_distribution-out_of_distribution", "n": 300}
    rows = []
    for place, part in enumerate(PLACES):
        grown = place * STEPS / 1000
        values = {
            "mean_cosine": (0.9 - 0.2 * grown, 0.95),
            "mean_variance-first": (1 + grown, 1.1 + grown),
            "mean_variance-second": (1.2 + grown, 1.1 + grown),
            "separability": (0.6 + 0.1 * grown, 0.5),
        }
        for quantity, (value, null) in values.items():
            row = here | {"part": part, "quantity": quantity}
            value = value + noise.normal(0, 0.01, len(STEPS))
            rows.append(row | {"value": value, "low": value - 0.05, "high": value + 0.05})
            level = np.broadcast_to(null, len(STEPS))
            rows.append(row | {"null": "shuffled_labels", "value": level, "low": level - 0.08, "high": level + 0.08})
            first = np.full(len(STEPS), value[0])
            rows.append(row | {"null": "untrained", "value": first, "low": first, "high": first})
    where = {"step": 1000, "data": "out_of_distribution", "quantity": "first_step_below_0.5", "unit": "steps"}
    return [*rows, where | {"value": 600.0}]


@pytest.fixture(scope="module")
def tables():
    runs = [tidy(rows_of(seed), "copying", seed) for seed in range(3)]
    return {"summary": summarize(runs), "runs": pd.concat(runs, ignore_index=True)}


@pytest.fixture(scope="module")
def figure(tables):
    figure = draw(tables, OPTIONS)
    figure.draw_without_rendering()
    return figure


def estimates(tables, quantity, part, null=""):
    rows = tables["summary"]
    rows = rows[(rows["quantity"] == quantity) & (rows["part"] == part) & (rows["null"] == null)]
    return rows.sort_values("step")["estimate"].to_numpy()


def test_every_place_has_its_curves_in_every_panel(figure, tables):
    panels = [("mean_cosine",), ("mean_variance-first", "mean_variance-second"), ("separability",)]
    for axes, quantities in zip(figure.axes, panels, strict=True):
        means = [line for line in axes.lines if line.get_zorder() == 3]
        assert len(means) == 3 * len(quantities)
        for i, quantity in enumerate(quantities):
            for line, part in zip(means[3 * i :], PLACES, strict=False):
                np.testing.assert_allclose(line.get_ydata(), estimates(tables, quantity, part))
                assert line.get_linestyle() == ("--" if quantity.endswith("second") else "-")
        assert len([line for line in axes.lines if line.get_zorder() == 1]) == 3 * 3 * len(quantities)
        (transition,) = (line for line in axes.lines if line.get_zorder() == 0)
        assert transition.get_xdata()[0] == 600.0
    assert figure.axes[1].get_yscale() == "log"


def test_nulls(figure):
    dotted = [line for line in figure.axes[0].lines if line.get_linestyle() == ":" and len(line.get_xdata())]
    assert [line.get_color() for line in dotted] == [style.BLACK, style.SKY_BLUE, style.VERMILION]
    np.testing.assert_allclose(dotted[0].get_ydata(), 0.95)
    bands = [band for band in figure.axes[2].collections if band.get_zorder() == 1.5]
    assert len(bands) == 3
    assert bands[0].get_paths()[0].get_extents().ymin == pytest.approx(0.42)
    assert figure.axes[2].get_ylim()[0] <= 0.42


def test_legends_name_places_sets_and_nulls(figure):
    texts = [text.get_text().partition(", n = ")[0] for text in figure.legends[0].get_texts()]
    assert texts[:3] == list(PLACES.values())
    assert {"null: shuffled labels, mean", "null: shuffled labels, range", "transition, mean"} <= set(texts)
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == [
        "in distribution",
        "out of distribution",
    ]


def test_nothing_overlaps(figure):
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    legend = figure.legends[0].get_window_extent()
    assert legend.x1 <= figure.bbox.x1
    assert not any(box.overlaps(legend) for box in boxes)
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :])
    # the sets' legend lies above the curves
    axes = figure.axes[1]
    lowest = axes.transData.inverted().transform(axes.get_legend().get_window_extent())[0, 1]
    assert lowest > max(line.get_ydata().max() for line in axes.lines if line.get_zorder() == 3)


def test_what_is_missing_is_named(tables):
    with pytest.raises(ValueError, match="'experiments'"):
        draw(tables, {"experiments": []})
    lacking = {name: table[table["quantity"] != "separability"] for name, table in tables.items()}
    with pytest.raises(ValueError, match="separability"):
        draw(lacking, OPTIONS)
