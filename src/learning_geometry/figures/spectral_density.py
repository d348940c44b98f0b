"""The Hessian's spectrum before, at and after the transition."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style
from learning_geometry.figures.landscape import checkpoints, color, label

REQUIRES = ("landscape",)
"""The measurements whose tables the figure reads."""

MOST = {"experiments": 6}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

LINEAR, SMALLEST = 0.01, 1e-5


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw the spectral density, logarithmic on both sides of zero, one panel per checkpoint.

    Each has the mean over seeds with its 95 % interval and every seed as a thin line; grey: the floor, within which an
    eigenvalue is not told from zero.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("spectral_density", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    parts = checkpoints(tables["runs"])
    figure = canvas(style.COLUMN_WIDTH, 0.6 + 1.15 * len(parts))
    panels = figure.subplots(len(parts), sharex=True, sharey=True, squeeze=False)[:, 0]
    entries: dict[str, Any] = {}
    for axes, part, letter in zip(panels, parts, style.letters(len(parts)), strict=True):
        entries |= _draw_spectrum(axes, tables, part, color(part, parts))
        axes.set_title(label(part), loc="right", y=0.8)
        style.panel_letter(axes, letter)
    panels[-1].set_xlabel("Hessian eigenvalue (nats)")
    figure.supylabel("density (per unit of asinh(100 λ))", fontsize=8)
    style.legend_on_top(figure, entries, columns=1)


def _draw_spectrum(axes: Axes, tables: Mapping[str, pd.DataFrame], part: str, shade: str) -> dict[str, Any]:
    runs = style.select(tables["runs"], part=part, quantity="spectral_density")
    places = style.select(tables["runs"], part=part, quantity="spectral_place").groupby("index")["value"].first()
    runs = runs.assign(place=_axis(runs["index"].map(places)))
    summary = style.select(tables["summary"], part=part, quantity="spectral_density")
    # without an estimate (some seed made no transition) the mean is that of the seeds, and has no band
    if summary["estimate"].isna().all():
        mean = runs.groupby("index")["value"].mean()
        summary = summary.assign(estimate=summary["index"].map(mean))
    summary = summary.assign(place=_axis(summary["index"].map(places)), low=summary["low"].clip(lower=SMALLEST))
    style.seed_lines(axes, runs, "place", shade)
    line = style.mean_line(axes, summary, "place", shade)
    floor = -float(style.select(tables["runs"], part=part, quantity="spectral_floor")["value"].mean())
    span = axes.axvspan(*_axis(np.array([-floor, floor])), color=style.NULL_GREY, alpha=0.3, zorder=0, linewidth=0)
    axes.set_yscale("log")
    axes.set_ylim(SMALLEST, 3.0)
    axes.set_yticks([1e-4, 1e-2, 1.0])
    axes.set_yticks([], minor=True)
    axes.set_xlim(*_axis(np.array([-20.0, 20.0])))
    ticks = np.array([-10, -1, -0.1, -0.01, 0, 0.01, 0.1, 1, 10])
    axes.set_xticks(_axis(ticks), ["" if abs(tick) == LINEAR else f"{tick:g}".replace("-", "−") for tick in ticks])
    return {f"mean, {style.seeds_text(summary)}; thin: seeds": line, "within the floor around zero": span}


def _axis(eigenvalues: Any) -> Any:
    """Return places on the axis: linear within .01 nats of zero, logarithmic outside."""
    return np.arcsinh(eigenvalues / LINEAR)
