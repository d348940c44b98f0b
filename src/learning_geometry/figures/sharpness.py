"""The sharpness of every seed through the transition: both ends of the Hessian's spectrum, its trace, the proxy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("copying_errors", "sharpness")
"""The measurements whose tables the figure reads."""

MOST = {"experiments": 6}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

QUANTITIES = {
    "largest_hessian_eigenvalue": ("largest eigenvalue", style.BLUE),
    "smallest_hessian_eigenvalue": ("smallest eigenvalue", style.VERMILION),
    "hessian_trace": ("trace", style.GREEN),
    "sharpness_proxy": ("mean increase nearby", style.PURPLE),
}


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw four panels over one axis of training steps, for the first of the experiments.

    Largest and smallest eigenvalue and trace of the Hessian, and the proxy: the mean loss increase under noise on all
    parameters. Lines are means over seeds, bands their 95 % intervals, thin lines single seeds, dotted the untrained
    model; where few checkpoints were measured, dots mark them. Ticks in the first panel are the seeds' transitions;
    where all have one, a vertical line marks the mean.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("sharpness", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    figure = canvas(style.COLUMN_WIDTH, 6.6)
    panels = figure.subplots(len(QUANTITIES), sharex=True, height_ratios=(1.9, 1.0, 1.0, 1.0))
    steps: list[int] = []
    for axes, letter, (quantity, (label, color)) in zip(panels, "abcd", QUANTITIES.items(), strict=True):
        where = {"quantity": quantity, "part": "model"}
        entries: dict[str, Any] = style.curve(axes, tables, where, color, label)
        measured = style.select(tables["summary"], **where, null="")
        steps += measured["step"].tolist()
        _mark_few(axes, measured, color)
        nulls = style.null_curves(axes, tables, where)
        if axes is panels[0]:
            entries |= nulls | _mark_seeds(axes, tables["runs"])
        style.legend_above(axes, entries, columns=1 if axes is panels[0] else 2)
        axes.set_ylabel("nats")
        style.panel_letter(axes, letter)
    panels[0].set_ylim(bottom=0.0)
    panels[-1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    panels[-1].yaxis.get_offset_text().set(size=7, ha="right", x=1.0)
    style.step_axis(panels[-1], steps)
    style.mark_transition(panels, tables["summary"], experiment)
    figure.align_ylabels()


def _mark_few(axes: Axes, rows: pd.DataFrame, color: str) -> None:
    """Mark the checkpoints measured where a line between few would pass for a curve."""
    if len(rows) <= 8:
        axes.plot(rows["step"], rows["estimate"], "o", color=color, markersize=3, zorder=3.5, clip_on=False)


def _mark_seeds(axes: Axes, runs: pd.DataFrame) -> dict[str, Any]:
    of_seeds = style.select(runs, quantity=style.TRANSITION, data="out_of_distribution", null="")
    crossed = of_seeds.loc[~of_seeds["censored"], "value"]
    (ticks,) = axes.plot(
        crossed,
        np.full(len(crossed), 0.04),
        "|",
        transform=axes.get_xaxis_transform(),
        markersize=7,
        markeredgewidth=1.0,
        color=style.BLACK,
        zorder=4,
    )
    return {f"OOD error below 0.5: {len(crossed)} of {len(of_seeds)} seeds": ticks}
