"""Ranks of weight matrices over training, and of what training adds to them."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("matrix_spectra",)
"""The measurements whose tables the figure reads."""

MOST = {"experiments": 6}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

MATRICES = "attention_matrices"
"""The mean over all matrices."""

QUANTITIES = {
    "matrix_stable_rank": "stable rank",
    "matrix_effective_rank": "effective rank",
    "increment_norm_share": "norm of the change\nover that of the matrix",
    "increment_stable_rank": "stable rank\nof the change",
}


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw four panels over training for each experiment.

    (a) Stable and (b) effective rank of matrices; (c) Frobenius norm of the change since the checkpoint measured
    before, over that of the matrix there, and (d) the stable rank of the change. Thick line: mean over matrices, and
    over seeds with its 95 % interval; thin lines: single seeds; grey lines: each matrix, mean over seeds. Null:
    Gaussian matrices of the same shapes.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or one was not measured; the message names the quantity.
    """
    return style.blocks("matrix_spectra", REQUIRES, style.with_means_of_matrices(tables), options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    summary = tables["summary"]
    figure = canvas(style.DOUBLE_WIDTH, 4.0)
    grid = figure.subplots(2, 2, sharex=True)
    entries: dict[str, Any] = {}
    for axes, letter, (quantity, label) in zip(grid.flat, "abcd", QUANTITIES.items(), strict=True):
        style.panel_letter(axes, letter)
        axes.set_ylabel(label)
        rows = summary[(summary["quantity"] == quantity) & (summary["null"] == "")]
        if quantity.startswith("increment") and rows.empty:
            style.note_empty(axes, "one checkpoint alone")
            continue
        entries |= _draw_matrices(axes, rows)
        if (rows["part"] == MATRICES).any():
            where = {"quantity": quantity, "part": MATRICES}
            entries |= style.curve(axes, tables, where, style.BLUE, "mean over matrices")
            entries |= style.null_curves(axes, tables, where)
        axes.set_ylim(bottom=0.0)
    steps = summary.loc[summary["quantity"] == "matrix_stable_rank", "step"].tolist()
    for axes in grid[1]:
        style.step_axis(axes, steps)
    style.legend_on_top(figure, entries, columns=3)


def _draw_matrices(axes: Axes, rows: pd.DataFrame) -> dict[str, Any]:
    """Draw a grey line for each matrix; return the legend entry."""
    drawn: dict[str, Any] = {}
    for _, of_part in rows[rows["part"] != MATRICES].groupby("part"):
        ordered = of_part.sort_values("step")
        (line,) = axes.plot(
            ordered["step"], ordered["estimate"], color=style.NULL_GREY, linewidth=0.5, alpha=0.8, zorder=1.5
        )
        drawn["each matrix, mean over seeds"] = line
    return drawn
