"""Whether the weights of several seeds move in the same directions, beside random subspaces."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from learning_geometry.figures import style
from learning_geometry.figures.trajectory_dimension import MATRIX, ROLES, in_words, number_of_layers

REQUIRES = ("trajectory_orientation",)
"""The measurements whose tables the figure reads."""

COSINE, NULL = "orientation_rms_cosine", "random_subspaces"
NAMED = True
"""It tells matrices apart by their names, which must be those of the workflow's transformer."""

MATRICES = "attention_matrices"
"""The mean over all attention matrices."""

RANK = 3
"""Number of directions whose subspaces are compared matrix by matrix, or else the nearest measured."""

COLUMNS = 2
"""Experiments side by side; further ones follow below."""

MOST = {"experiments": 6}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw two panels for each experiment, one below the other; all y axes are alike.

    (Above) Root-mean-square cosine of the principal angles between the trajectory subspaces of two seeds, against the
    number k of directions, mean over all attention matrices. (Below) The same for each matrix at k = 3, or the nearest
    measured. Points: mean over pairs of seeds with its 95 % jackknife interval (none for two seeds); small dots:
    single seeds, each compared with all others. Null: random subspaces, mean and central 95 % range.

    Args:
        tables: "summary", summary rows of all experiments; "runs", tidy rows of all their seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or one was not measured; the message names the quantity.
    """
    experiments, tables = style.shown("trajectory_orientation", REQUIRES, style.with_means_of_matrices(tables), options)
    of_all = {name: table[table["quantity"] == COSINE] for name, table in tables.items()}
    for experiment in experiments:
        style.select(tables["summary"], experiment=experiment, quantity=COSINE, null="")
    columns = min(COLUMNS, len(experiments))
    bands = -(-len(experiments) // columns)
    entries: dict[str, Any] = {}
    with style.applied():
        width = style.COLUMN_WIDTH if columns == 1 else style.DOUBLE_WIDTH
        figure = Figure(figsize=(width, 0.5 + 3.8 * bands), layout="constrained")
        grid = figure.subplots(2 * bands, columns, squeeze=False)
        for number, experiment in enumerate(experiments):
            of_one = {name: table[table["experiment"] == experiment] for name, table in of_all.items()}
            band, column = divmod(number, columns)
            over_k, by_matrix = grid[2 * band : 2 * band + 2, column]
            measured = style.select(of_one["summary"], null="")
            entries |= _draw_over_k(over_k, of_one)
            _draw_by_matrix(by_matrix, of_one)
            over_k.set_title(style.wrapped(in_words(experiment), style.seeds_text(measured), 52), fontsize=7)
        for axes in grid[-2:, len(experiments) - columns * (bands - 1) :].flat:
            axes.remove()
        low, high = _limits(of_all, experiments)
        for axes, letter in zip(figure.axes, style.letters(len(figure.axes)), strict=True):
            style.panel_letter(axes, letter)
            axes.set_yscale("log")
            axes.set_ylim(low, high)
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
            axes.set_ylabel("rms cosine")
        style.legend_on_top(figure, entries, columns=3 if columns > 1 else 1)
    return figure


def _draw_over_k(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    summary, runs = (style.select(tables[name], part=MATRICES) for name in ("summary", "runs"))
    null = style.select(summary, null=NULL).sort_values("index")
    entries = _draw_measured(axes, style.select(summary, null=""), style.select(runs, null=""), "index")
    entries["null: random subspaces"] = _null_boxes(axes, null["index"].to_numpy(), null)
    axes.set_xlabel("number k of directions")
    style.whole_ticks(axes.xaxis)
    axes.set_xlim(null["index"].min() - 0.6, null["index"].max() + 0.6)
    return entries


def _draw_by_matrix(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    parts = tables["summary"]["part"].unique()
    of_matrices = tables["summary"][tables["summary"]["part"].isin([part for part in parts if MATRIX.match(part)])]
    layers = number_of_layers(of_matrices, of_matrices["experiment"].unique().tolist(), MATRIX)
    rank = style.nearest_index(of_matrices, RANK)
    summary, runs = (
        table.assign(place=table["part"].map(lambda part: _place(part, layers)))
        for table in (
            style.select(of_matrices, index=rank),
            tables["runs"][tables["runs"]["part"].isin(of_matrices["part"]) & (tables["runs"]["index"] == rank)],
        )
    )
    null = style.select(summary, null=NULL).sort_values("place")
    _draw_measured(axes, style.select(summary, null=""), style.select(runs, null=""), "place")
    _null_boxes(axes, null["place"].to_numpy(), null)
    starts = [place * (layers + 1) for place in range(len(ROLES))]
    axes.set_xticks([start + (layers - 1) / 2 for start in starts], ROLES)
    for start in starts[1:]:
        axes.axvline(start - 1, color=style.NULL_GREY, linewidth=0.3, alpha=0.5, zorder=0)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-1, starts[-1] + layers)
    axes.set_xlabel(f"matrix, layers from left to right, k = {rank}")


def _place(part: str, layers: int) -> int:
    """Return where a matrix stands: by role, and by layer within it."""
    match = MATRIX.match(part)
    assert match is not None, part
    return ROLES.index(match[2]) * (layers + 1) + int(match[1])


def _draw_measured(axes: Axes, rows: pd.DataFrame, runs: pd.DataFrame, x: str) -> dict[str, Any]:
    """Draw means over pairs with intervals, and single seeds, against a column."""
    bars = np.vstack([rows["estimate"] - rows["low"], rows["high"] - rows["estimate"]])
    entries: dict[str, Any] = {
        "mean over pairs of seeds": axes.errorbar(
            rows[x],
            rows["estimate"],
            yerr=bars if np.isfinite(bars).any() else None,
            color=style.BLUE,
            linestyle="none",
            marker="o",
            markersize=3,
            elinewidth=1.1,
            zorder=3,
        )
    }
    if rows["n"].max() > 1:
        of_place = runs.sort_values("seed", kind="stable").groupby(x)["seed"]
        spread = (of_place.cumcount() + 0.5) / of_place.transform("size") - 0.5
        (entries["single seeds, to all others"],) = axes.plot(
            runs[x] + 0.5 * spread,
            runs["value"],
            linestyle="none",
            marker=".",
            markersize=2.5,
            markeredgewidth=0.0,
            color=style.BLUE,
            alpha=0.45,
            zorder=2,
        )
    return entries


def _null_boxes(axes: Axes, x: np.ndarray, rows: pd.DataFrame) -> tuple[Any, ...]:
    """Draw mean and range of a null as a line and a box at each place."""
    line = axes.hlines(
        rows["estimate"], x - 0.42, x + 0.42, color=style.NULL_GREY, linestyle=":", linewidth=0.9, zorder=1.6
    )
    boxes = axes.bar(
        x, rows["high"] - rows["low"], bottom=rows["low"], width=0.84, color=style.NULL_GREY, alpha=0.35, zorder=1.5
    )
    return line, boxes


def _limits(tables: Mapping[str, pd.DataFrame], experiments: list[str]) -> tuple[float, float]:
    """Return limits of the y axes: all that is shown but intervals, which may be wider than all the rest."""
    values: list[float] = []
    for experiment in experiments:
        summary, runs = (style.select(tables[name], experiment=experiment) for name in ("summary", "runs"))
        rank = style.nearest_index(summary, RANK)
        summary, runs = (rows[(rows["part"] == MATRICES) | (rows["index"] == rank)] for rows in (summary, runs))
        nulls = summary[summary["null"] != ""]
        values += [*summary["estimate"], *runs["value"], *nulls["low"], *nulls["high"]]
    shown = np.array(values)
    shown = shown[np.isfinite(shown) & (shown > 0)]
    return float(shown.min() / 1.3), float(max(1.3 * shown.max(), 1.0))
