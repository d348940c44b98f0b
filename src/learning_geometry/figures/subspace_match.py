"""How well what layer 2 reads matches what layer 1 writes, by the rank of the subspaces, over training."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("copying_errors", "composition")
"""The measurements whose tables the figure reads."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

STATISTICS = {
    "subspace_match_largest_cosine": ("largest cosine", style.VERMILION),
    "subspace_match_rms_cosine": ("root-mean-square cosine", style.BLUE),
}


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw the largest (top row) and root-mean-square cosine (bottom row) over training, one column for each rank.

    The cosines are between the top-r right singular subspace of layer 2's query-key product and the top-r left one
    of layer 1's output-value product; with several heads, one line for each pair. Each panel has its null of random
    subspaces. Where all seeds made the transition, a vertical line marks its mean step.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("subspace_match", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    rows = style.select(tables["summary"], quantity=next(iter(STATISTICS)), null="")
    ranks = sorted(rows["index"].unique().tolist())
    figure = canvas(style.DOUBLE_WIDTH, 3.3)
    grid = figure.subplots(len(STATISTICS), len(ranks), sharex=True, sharey=True, squeeze=False)
    entries: dict[str, Any] = {}
    nulls: dict[str, Any] = {}
    for row, (quantity, (label, color)) in zip(grid, STATISTICS.items(), strict=True):
        for axes, rank in zip(row, ranks, strict=True):
            where = {"quantity": quantity, "index": rank}
            entries |= style.curves(axes, tables, where, color, label)
            # random subspaces are the same for every pair of heads
            of_first = where | {"part": style.select(tables["summary"], **where, null="")["part"].iloc[0]}
            nulls |= style.null_curves(axes, tables, of_first)
        row[0].set_ylabel("cosine")
    for axes, rank in zip(grid[0], ranks, strict=True):
        axes.set_title(f"r = {rank}")
        axes.set_ylim(0.0, 1.02)
    for axes, letter in zip(grid[:, 0], "ab", strict=True):
        style.panel_letter(axes, letter)
    for axes in grid[-1]:
        style.step_axis(axes, rows["step"].tolist())
    transition = style.mark_transition(grid.flat, tables["summary"], experiment)
    if transition is not None:
        nulls["mean step of OOD error < 0.5"] = transition
    style.legend_on_top(figure, entries | nulls, columns=4)
