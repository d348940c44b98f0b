"""Where the bridge between the layers lies in the embedding: over training, and by rotary lag."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("copying_errors", "bridge_energy")
"""The measurements whose tables the figure reads."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

RANK = 10
GROUPS = {"top": style.GREEN, "medium": style.BLUE, "bottom": style.VERMILION}
SIDES = ("key", "query")


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw the energy of the bridge in the embedding's top, medium and bottom right singular subspaces.

    (a) Key side and (b) query side of the rank-10 bridge (or the nearest rank measured) over training; where all
    seeds made the transition, a vertical line marks its mean step. (c, d) The same at the last checkpoint, with the
    rotary turn of each lag put between query and key. Each group has its null of random subspaces: chance, size of
    the group / width, in the group's colour, and its range in grey. With several heads, one line for each.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show, such as no lags; the message names the quantity.
    """
    return style.blocks("bridge_energy", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    entries: dict[str, Any] = {}
    figure = canvas(style.DOUBLE_WIDTH, 4.6)
    grid = figure.subplots(2, 2, sharey=True, sharex="row")
    for side, over_training, at_lags in zip(SIDES, *grid, strict=True):
        rows = style.select(tables["summary"], quantity=f"bridge_energy_{side}", null="")
        rank = style.nearest_index(rows, RANK)
        entries |= _draw_groups(over_training, tables, {"quantity": f"bridge_energy_{side}", "index": rank}, "step")
        over_training.set_title(f"{side} side, r = {rank}")
        style.step_axis(over_training, rows["step"].tolist())
        of_lags = style.select(tables["summary"], quantity=f"bridge_energy_{side}_at_lag", null="")
        last = int(of_lags["step"].max())
        _draw_groups(at_lags, tables, {"quantity": f"bridge_energy_{side}_at_lag", "step": last}, "index")
        at_lags.set_title(f"{side} side, step {last}")
        at_lags.set_xlabel("rotary lag (positions)")
        style.whole_ticks(at_lags.xaxis)
        at_lags.set_xlim(0, of_lags["index"].max())
    for axes, letter in zip(grid.flat, "abcd", strict=True):
        style.panel_letter(axes, letter)
        axes.set_ylim(0.0, 1.02)
    for axes in grid[:, 0]:
        axes.set_ylabel("energy (fraction)")
    transition = style.mark_transition(grid[0], tables["summary"], experiment)
    if transition is not None:
        entries["mean step of OOD error < 0.5"] = transition
    style.legend_on_top(figure, entries, columns=3)


def _draw_groups(
    axes: Axes, tables: Mapping[str, pd.DataFrame], where: Mapping[str, str | int], x: str
) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    bands: list[Any] = []
    measured = {name: style.select(table, **where) for name, table in tables.items()}
    for group, color in GROUPS.items():
        of_group = {name: rows[rows["part"].str.endswith(f"embedding.{group}")] for name, rows in measured.items()}
        summary = of_group["summary"]
        for part in summary["part"].unique():
            rows = style.select(summary, part=part, null="")
            if rows["n"].max() > 1:
                style.seed_lines(axes, style.select(of_group["runs"], part=part, null=""), x, color)
            entries.setdefault(f"{group} of embedding, {style.seeds_text(rows)}", style.mean_line(axes, rows, x, color))
        # the same for every head
        null = style.select(summary, null="random_subspace", part=summary["part"].iloc[0])
        bands += style.null_band(axes, null, x, color=color)[1:]
    (dotted,) = axes.plot([], [], color=style.NULL_GREY, linestyle=":", linewidth=0.9)
    return entries | {"null: random subspace, line in its colour": (dotted, *bands[:1])}
