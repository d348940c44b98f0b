import numpy as np
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.activation_patterns import draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

OPTIONS = {"experiments": ["model"]}
VALUES = {("zeroed_share", 0): 0.6, ("distinct_patterns", 0): 900.0, ("distinct_patterns", 4): 12.0}
VALUES |= {("never_active", 0): 0.01, ("always_active", 0): 0.02}


def make(layers=(2, 10, 25), texts=("documentation", "source_code"), draws=3):
    rows = []
    for layer in layers:
        for text in texts:
            for (quantity, index), value in VALUES.items():
                row = {"step": 0, "part": f"layers.{layer}.mlp", "quantity": quantity, "index": index, "data": text}
                rows.append(row | {"value": value * (1 - layer / 100), "n": 1000})
                ends = (0.4 * value, 0.6 * value) if draws > 1 else (np.nan, np.nan)
                null = {"null": "random_gate", "value": 0.5 * value, "low": ends[0], "high": ends[1], "n": draws}
                rows.append(row | null)
    runs = tidy(rows, "model", 0)
    return {"summary": summarize([runs]), "runs": runs}


def test_every_quantity_by_layer_beside_its_null():
    figure = draw(make(), OPTIONS)
    zeroed, patterns, units = figure.axes
    for axes, value in ((zeroed, 0.6), (patterns, 12 / 16)):  # of four units there are 16 orthants
        measured = [line for line in axes.lines if line.get_zorder() == 3]
        assert [line.get_color() for line in measured] == [style.BLUE, style.VERMILION]
        np.testing.assert_allclose(measured[0].get_ydata(), value * np.array([0.98, 0.9, 0.75]))
        assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "10", "25"]
        nulls = [container.lines[0] for container in axes.containers]
        np.testing.assert_allclose(nulls[0].get_ydata(), 0.5 * value)
    assert "groups of 4 units" in patterns.get_ylabel()
    assert {line.get_marker() for line in units.lines if line.get_zorder() == 3} == {"v", "^"}


@pytest.mark.parametrize("options", [{}, {"layers": (7,), "texts": ("my_text",), "draws": 1}])
def test_nothing_overlaps(options):
    figure = draw(make(**options), OPTIONS)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :])
    assert all(box.x1 <= figure.bbox.x1 and box.x0 >= 0 for box in boxes)


def test_what_is_missing_is_named():
    tables = {name: table[table["quantity"] != "never_active"] for name, table in make().items()}
    with pytest.raises(ValueError, match="never_active"):
        draw(tables, OPTIONS)
    with pytest.raises(ValueError, match="activation_patterns: the option 'experiments'"):
        draw(make(), {})
