"""The singular values of the token embedding over training, against Gaussian matrices of equal norm."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, FigureBase

from learning_geometry.figures import style

REQUIRES = ("embedding_spectrum",)
"""The measurements whose tables the figure reads."""

NULL = "gaussian_matrix"
PUBLISHED_GROUPS = {"top": 1, "medium": 34}
"""Sizes of the groups of singular values, largest first, in the published model of width 64; the rest is the bottom."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""
SHARES = LinearSegmentedColormap.from_list("shares", ["#DDDDDD", style.BLACK])
COLORS = (style.SKY_BLUE, style.ORANGE, style.VERMILION)


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw four panels on the singular values of the token embedding of one experiment.

    (a) Every singular value over training, mean over seeds, coloured by its rank. (b) The spectrum at the
    first checkpoint, the one nearest to half of training and the last: mean over seeds with 95 % interval,
    each against the null of Gaussian matrices of equal Frobenius norm. (c) Effective rank over training:
    mean, interval, single seeds, null. (d) After which singular values there is a significant gap, over training,
    the darker the more seeds have it. Lines in (b) and (d) part the published groups, if the embedding is wider than
    the first two.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: an option is unusable, or a panel has nothing to show; the message names the
            quantity.
    """
    return style.blocks("embedding_singular_values", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    embedding: dict[str, str | int] = {"experiment": experiment, "part": "embedding"}
    where = embedding | {"quantity": "singular_value"}
    values = style.select(tables["summary"], **where, null="")
    nulls = style.select(tables["summary"], **where, null=NULL)
    figure = canvas(style.DOUBLE_WIDTH, 5.0)
    (over_training, spectra), (rank, gaps) = figure.subplots(2, 2)
    _draw_over_training(figure, over_training, values)
    _draw_spectra(spectra, values, nulls, _few_steps(values))
    of_rank = embedding | {"quantity": "effective_rank"}
    entries = style.curve(rank, tables, of_rank, style.VERMILION, "embedding")
    rank.set_ylabel("effective rank")
    rank.set_ylim(bottom=0.0)
    style.legend_above(rank, entries | style.null_curves(rank, tables, of_rank))
    width = int(values["index"].max())
    _draw_gaps(figure, gaps, style.select(tables["summary"], **embedding, quantity="significant_gap", null=""), width)
    _mark_groups(spectra, gaps, width)
    for axes, letter in zip((over_training, spectra, rank, gaps), "abcd", strict=True):
        style.panel_letter(axes, letter)
    for axes in (over_training, rank, gaps):
        style.step_axis(axes, values["step"].tolist())


def _draw_over_training(figure: FigureBase, axes: Axes, values: pd.DataFrame) -> None:
    by_step = values.pivot(index="step", columns="index", values="estimate").sort_index()
    lines = LineCollection(
        [np.column_stack([by_step.index, by_step[index]]) for index in by_step.columns],
        array=by_step.columns.to_numpy(),
        cmap=matplotlib.colormaps["viridis"],
        linewidths=0.7,
    )
    axes.add_collection(lines)
    axes.autoscale_view()
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("singular value")
    above = axes.inset_axes((0.0, 1.08, 1.0, 0.05))
    label = f"rank, {style.seeds_text(values)}"
    figure.colorbar(lines, cax=above, orientation="horizontal", ticklocation="top", label=label)


def _draw_spectra(axes: Axes, values: pd.DataFrame, nulls: pd.DataFrame, steps: Sequence[int]) -> None:
    entries: dict[str, Any] = {}
    for step, color in zip(steps, COLORS[: len(steps)], strict=True):
        rows = style.select(values, step=step)
        entries[f"step {step}, {style.seeds_text(rows)}"] = style.mean_line(axes, rows, "index", color)
        null = style.null_band(axes, style.select(nulls, step=step), "index")
    entries[style.null_label(NULL)] = null
    axes.set_xlabel("rank of singular value")
    style.whole_ticks(axes.xaxis)
    axes.set_ylabel("singular value")
    axes.set_xlim(0, values["index"].max() + 1)  # the first value stands clear of the axis
    axes.set_ylim(bottom=0.0)
    style.legend_above(axes, entries)


def _draw_gaps(figure: FigureBase, axes: Axes, rows: pd.DataFrame, width: int) -> None:
    gaps = rows[rows["estimate"] > 0]
    seeds = int(rows["n"].max())
    points = axes.scatter(
        gaps["step"],
        gaps["index"],
        c=gaps["estimate"],
        cmap=SHARES,
        vmin=0.0,
        vmax=1.0,
        s=7,
        marker="s",
        linewidths=0,
        clip_on=False,
    )
    axes.set_ylim(-1, width)  # the first gap stands clear of the axis
    axes.set_ylabel("gap after rank")
    if gaps.empty:
        axes.annotate("none", (0.5, 0.5), xycoords="axes fraction", ha="center")
    above = axes.inset_axes((0.0, 1.08, 1.0, 0.05))
    label = f"seeds with a significant gap (fraction), n = {seeds}"
    figure.colorbar(points, cax=above, orientation="horizontal", ticklocation="top", label=label)


def _mark_groups(spectra: Axes, gaps: Axes, width: int) -> None:
    """Draw where the published groups end, and write their names and sizes into the spectrum."""
    ends = np.cumsum(list(PUBLISHED_GROUPS.values()))
    if ends[-1] >= width:
        return
    line: dict[str, Any] = {"color": style.BLACK, "linewidth": 0.5, "linestyle": "-.", "zorder": 0}
    for end in ends:
        spectra.axvline(end + 0.5, **line)
        gaps.axhline(end, **line)
    edges = [*ends, width]
    sizes = PUBLISHED_GROUPS | {"bottom": width - int(ends[-1])}
    for (name, size), end in zip(sizes.items(), edges, strict=True):
        if size > 4:  # the name of a narrower one has no room
            spectra.text(
                end - size / 2, 0.97, f"{name}, {size}", transform=spectra.get_xaxis_transform(), ha="center", va="top"
            )


def _few_steps(values: pd.DataFrame) -> list[int]:
    """Return the first step, the one nearest to half of the last, and the last, without repetitions."""
    steps = np.unique(values["step"])
    middle = steps[np.argmin(np.abs(steps - steps[-1] / 2))]
    return sorted({int(steps[0]), int(middle), int(steps[-1])})
