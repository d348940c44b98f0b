"""What the tests of figures over the layers share: options, tidy rows by hand, and that nothing overlaps."""

from itertools import pairwise

import numpy as np
import pandas as pd

from learning_geometry.tables.tidy import tidy

CONTRASTS = {"safety": ("harmful", "prompts/harmless.txt"), "mood": ("negative", "positive")}
OPTIONS = {"experiments": ["little_chat"], "prompts": {"little_chat": CONTRASTS}}


def parts_of(stream, layers):
    """Parts and depths of a stream; that before attention goes on to the last layer's output."""
    names = [f"layers.{layer}.{stream}" for layer in range(layers)]
    depths = np.arange(layers, dtype=float)
    if stream == "residual_mid":
        return names, depths + 0.5
    return [*names, f"layers.{layers - 1}.residual_post"], np.append(depths, layers)


def measured(value, spread=0.1, **columns):
    """Columns of measured rows with an interval."""
    value = np.asarray(value)
    ends = {"low": value - spread * np.abs(value), "high": value + spread * np.abs(value)}
    return {"step": 0, "value": value.tolist(), "n": 64} | {k: v.tolist() for k, v in ends.items()} | columns


def tables(rows, experiment="little_chat"):
    """Tables of figures, in which a seed that is no language model's must not be seen."""
    runs = tidy(rows, experiment, 0)
    return {"summary": runs.iloc[:0], "runs": pd.concat([runs, runs.assign(seed=7, value=1e9)], ignore_index=True)}


def renamed(given, experiment):
    return {name: table.assign(experiment=experiment) for name, table in given.items()}


def line_in(axes, color, linestyle="-", width=1.1):
    (line,) = (
        line
        for line in axes.lines
        if line.get_color() == color
        and line.get_linestyle() == linestyle
        and line.get_linewidth() == width
        and len(line.get_xdata())
    )
    return line


def check_layout(figure, panels):
    """No panel is empty, and no panel, label or legend lies over another or outside of the figure."""
    figure.draw_without_rendering()
    assert len(figure.axes) == panels
    (legend,) = figure.legends
    boxes = [legend.get_window_extent(), *(axes.get_tightbbox() for axes in figure.axes)]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :])
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for axes in figure.axes:
        assert axes.lines or axes.texts
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            shown = [label.get_window_extent() for label in labels if label.get_text() and label.get_visible()]
            assert not any(one.overlaps(other) for one, other in pairwise(shown))
