"""A small network in the plane as the change of basis it is: layer by layer, in the stream and in the layer's basis."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MultipleLocator

from learning_geometry.figures import style

REQUIRES = ("change_of_basis",)
"""The measurements whose tables the figure reads."""

GRID, INNER, OUTER = "grid", "inner", "outer"
READ, WRITTEN, READOUT = "read_basis", "written_basis", "readout"
DOTS = 31
"""Points of each line of the grid, as in the measurement."""

COLORS = {INNER: style.VERMILION, OUTER: style.BLUE}
READ_COLOR, WRITTEN_COLOR, READOUT_COLOR = style.BLACK, style.ORANGE, style.GREEN
SHADE = 0.28
FAR = 1e3
"""Beyond every axis."""

MOST = {"experiments": 1}
"""What a config may list at most: the network shown is the same for all."""

Points = Float[np.ndarray, "points 2"]


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw two rows of panels, one column for each layer and one for the stream after the last.

    (Top) The residual stream before each layer, and after the last: a grid, and the points of two classes; the vectors
    of the basis in which the layer reads it (black), from the origin of that basis; what ReLU zeroes shaded, darker
    where both coordinates are; what the layer before has written along each coordinate (orange); the line of the
    read-out (green). Below a panel: the separability there. (Bottom) The same points in the layer's basis, before
    (faint) and after ReLU.

    Args:
        tables: "summary", summary rows.
        options: "experiments", their names; the network is the same in all.

    Raises:
        ValueError: no experiment, or nothing to show; the message names what is missing.
    """
    return style.blocks("change_of_basis", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    summary = tables["summary"]
    table = summary[summary["experiment"] == experiment]
    layers = len({part for part in style.select(table, quantity="x", data=GRID)["part"] if part.endswith(".pre")})
    side = style.DOUBLE_WIDTH / (layers + 1)
    figure = canvas(style.DOUBLE_WIDTH, 1.1 + 2 * side)
    grid = figure.subplots(2, layers + 1, squeeze=False)
    for layer in range(layers + 1):
        _draw_stream(grid[0, layer], table, layer, layers)
        if layer < layers:
            _draw_basis(grid[1, layer], table, layer)
    grid[1, layers].set_axis_off()
    style.panel_letter(grid[0, 0], "a")
    style.panel_letter(grid[1, 0], "b")
    style.legend_on_top(figure, _entries(), columns=4)


def points_of(table: pd.DataFrame, part: str, data: str) -> Points:
    """Return the points of a data set within a layer, in order.

    Raises:
        ValueError: there are none.
    """
    columns = [style.select(table, part=part, data=data, quantity=name).sort_values("index") for name in "xy"]
    return np.stack([column["estimate"].to_numpy() for column in columns], axis=1)


def _draw_stream(axes: Axes, table: pd.DataFrame, layer: int, layers: int) -> None:
    last = layer == layers
    part = f"layers.{layer - 1}.post" if last else f"layers.{layer}.pre"
    _draw_grid(axes, points_of(table, part, GRID), 0.6)
    shown = [_draw_class(axes, points_of(table, part, data), COLORS[data], 1.0) for data in COLORS]
    if not last:
        origin, *ends = points_of(table, part, READ)
        _shade(axes, origin, ends[0] - origin, ends[1] - origin)
        for end in ends:
            _arrow(axes, origin, end, READ_COLOR)
        shown.append(np.stack([origin, *ends]))
    if layer:
        written = points_of(table, f"layers.{layer - 1}.post", WRITTEN)
        for end in written:
            _arrow(axes, np.zeros(2), end, WRITTEN_COLOR)
        shown.append(written)
    if last:
        at, across = points_of(table, part, READOUT)
        along = FAR * np.array([-across[1], across[0]])
        axes.plot(*np.stack([at - along, at + along], axis=1), color=READOUT_COLOR, linewidth=1.2, zorder=2.5)
    _frame(axes, np.concatenate(shown))
    axes.set_title(f"stream after layer {layer - 1}" if last else f"stream before layer {layer}", fontsize=7)
    value, chance = (
        float(style.select(table, quantity="class_separability", part=part, null=null)["estimate"].iloc[0])
        for null in ("", "shuffled_labels")
    )
    axes.set_xlabel(f"separability {value:.2f}\n(labels shuffled: {chance:.2f})", fontsize=7)


def _draw_basis(axes: Axes, table: pd.DataFrame, layer: int) -> None:
    before, after = f"layers.{layer}.basis", f"layers.{layer}.relu"
    _draw_grid(axes, points_of(table, before, GRID), 0.25)
    shown = [_draw_class(axes, points_of(table, before, data), COLORS[data], 0.22) for data in COLORS]
    for data in COLORS:
        # on the axes, over the arrows
        _draw_class(axes, points_of(table, after, data), COLORS[data], 1.0, zorder=5.0)
    origin, units = np.zeros(2), np.eye(2)
    _shade(axes, origin, *units)
    for end in units:
        _arrow(axes, origin, end, READ_COLOR)
    _frame(axes, np.concatenate([*shown, units, origin[None]]))
    axes.set_title(f"in the basis of layer {layer}", fontsize=7)


def _draw_grid(axes: Axes, points: Points, alpha: float) -> None:
    lines = points.reshape(-1, DOTS, 2)
    axes.plot(lines[..., 0].T, lines[..., 1].T, color=style.NULL_GREY, linewidth=0.4, alpha=alpha, zorder=1.2)


def _draw_class(axes: Axes, points: Points, color: str, alpha: float, zorder: float = 2.0) -> Points:
    axes.plot(*points.T, "o", color=color, markersize=1.8, markeredgewidth=0.0, alpha=alpha, zorder=zorder)
    return points


def _shade(axes: Axes, origin: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Shade where either coordinate in a basis is negative, darker where both are."""
    for along, away in ((second, first), (first, second)):
        corners = [along, -along, -along - away, along - away]
        axes.fill(*(origin + FAR * np.stack(corners)).T, color=style.NULL_GREY, alpha=SHADE, linewidth=0.0, zorder=1)


def _arrow(axes: Axes, start: np.ndarray, end: np.ndarray, color: str) -> None:
    look = {"arrowstyle": "-|>", "color": color, "linewidth": 1.1, "mutation_scale": 7, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", tuple(end), xytext=tuple(start), arrowprops=look, zorder=4)


def _frame(axes: Axes, shown: Points) -> None:
    """Show a square around these points, with ticks one unit apart and no numbers."""
    middle = (shown.max(0) + shown.min(0)) / 2
    half = 0.58 * float(np.ptp(shown, axis=0).max())
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    axes.set_box_aspect(1.0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(1.0))
    axes.tick_params(labelbottom=False, labelleft=False)


def _entries() -> dict[str, Any]:
    def line(color: str) -> Line2D:
        return Line2D([], [], color=color, linewidth=1.2)

    entries: dict[str, Any] = {
        f"class: {data}": Line2D([], [], color=color, marker="o", markersize=3, linestyle="none")
        for data, color in COLORS.items()
    }
    return entries | {
        "basis that the layer reads in": line(READ_COLOR),
        "what ReLU zeroes": Patch(color=style.NULL_GREY, alpha=SHADE),
        "what the layer before writes along": line(WRITTEN_COLOR),
        "read-out": line(READOUT_COLOR),
        "grid of the input": line(style.NULL_GREY),
    }
