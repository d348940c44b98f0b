"""Does learning go on inside the execution basis, or outside of it: training continued with projected steps."""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("subspace_training",)
"""The measurements whose tables the figure reads."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

ARMS = {
    "unprojected": (style.BLACK, "-", "unprojected"),
    "outside": (style.BLUE, "-", "outside the execution basis"),
    "random_outside": (style.SKY_BLUE, "--", "outside a random basis"),
    "inside": (style.VERMILION, "-", "inside the execution basis"),
    "random_inside": (style.ORANGE, "--", "inside a random basis"),
    "frozen": (style.CONTROL_GREY, "-.", "frozen"),
}
QUANTITIES = {
    "loss_change_after_projection": "change of loss (nats)",
    "error_change_after_projection": "change of error (fraction)",
}


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw loss and error while training goes on with projected steps, and where the free displacement lies.

    (a) Change of the loss and (b) of the error on the hardest test set (of marker sums that with most markers) against
    the steps made since the start, for each way of going on. (c) Share of the squared length of the free displacement
    that lies in the execution basis, against the mean over random bases of the same shape, on a logarithmic scale.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("subspace_training", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    losses = style.select(tables["summary"], quantity="loss_change_after_projection")
    data, start = _hardest(losses), int(losses["step"].max())
    entries: dict[str, Any] = {}
    figure = canvas(style.DOUBLE_WIDTH, 2.9)
    panels = figure.subplots(1, 3)
    for axes, (quantity, label) in zip(panels[: len(QUANTITIES)], QUANTITIES.items(), strict=True):
        for arm, (color, line, name) in ARMS.items():
            where: dict[str, str | int] = {"quantity": quantity, "data": data, "part": arm, "step": start}
            entries |= _curve(axes, tables, where, color, line, name)
        axes.set_ylabel(label)
        axes.set_title(f"{data.replace('_', ' ')}, from step {start}")
    entries |= _draw_displacement(panels[2], tables, start)
    for axes, letter in zip(panels, "abc", strict=True):
        axes.set_xlabel("steps after the start")
        axes.set_xlim(left=0)
        style.whole_ticks(axes.xaxis)
        style.panel_letter(axes, letter)
    style.legend_on_top(figure, entries, columns=3)


def _curve(
    axes: Axes,
    tables: Mapping[str, pd.DataFrame],
    where: Mapping[str, str | int],
    color: str,
    line: str,
    name: str,
) -> dict[str, Any]:
    rows = style.select(tables["summary"], **where, null="")
    if rows["n"].max() > 1:
        style.seed_lines(axes, style.select(tables["runs"], **where, null=""), "index", color, line)
    return {f"{name}, {style.seeds_text(rows)}": style.mean_line(axes, rows, "index", color, line)}


def _draw_displacement(axes: Axes, tables: Mapping[str, pd.DataFrame], start: int) -> dict[str, Any]:
    where: dict[str, str | int] = {"quantity": "displacement_share_inside", "step": start}
    entries = _curve(axes, tables, where, style.PURPLE, "-", "free displacement inside the basis")
    null = style.select(tables["summary"], **where, null="random_basis")
    entries[style.null_label("random_basis")] = style.null_band(axes, null, "index")
    axes.set_yscale("log")
    axes.set_ylim(top=1.0)
    axes.set_ylabel("share of squared length")
    axes.set_title("displacement inside")
    return entries


def _hardest(rows: pd.DataFrame) -> str:
    """Return the test set with most markers, or of another task the first by name."""
    names = sorted(rows["data"].unique())
    marked = {name: int(match[1]) for name in names if (match := re.fullmatch(r"markers_(\d+)", name))}
    return max(marked, key=lambda name: marked[name]) if marked else str(names[0])
