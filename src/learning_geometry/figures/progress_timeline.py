"""Every progress measure of the copying task over one axis of training steps."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style
from learning_geometry.tables.progress_measures import TIMELINE, ProgressMeasure

REQUIRES = (
    "copying_errors",
    "head_scores",
    "attention_logits",
    "composition",
    "bridge_energy",
    "embedding_spectrum",
    "sharpness",
)
"""The measurements whose tables the figure reads."""

UP_TO_ONE = ("fraction", "cosine")
"""Units whose panels span 0 to 1, so that their sizes compare."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw twelve small panels over one axis of training steps, for the first of the experiments.

    (a, b) Error out of (OOD) and in distribution (ID), evaluated during training; (c) OOD loss. (d) Previous-token
    score of the first layer, (e) induction score of the last, (f) content's share of the variance of the attention
    logits of layer 1. (g) z-score of the composition, (h) root-mean-square cosine between what layer 2 reads and
    layer 1 writes, (i) token mismatch. (j) Energy of the bridge, key side, in the embedding's bottom subspace,
    (k) effective rank of the embedding, (l) largest Hessian eigenvalue of the ID loss. With several heads, one line
    for each head or pair. Fractions and cosines span 0 to 1; other panels have
    scales of their own.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or a panel has nothing to show; the message names the quantity.
    """
    return style.blocks("progress_timeline", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    figure = canvas(style.DOUBLE_WIDTH, 6.4)
    grid = figure.subplots(4, 3, sharex=True)
    drawn = [_draw_panel(axes, tables, panel) for axes, panel in zip(grid.flat, TIMELINE, strict=True)]
    for axes, letter in zip(grid.flat, "abcdefghijkl", strict=True):
        style.panel_letter(axes, letter)
    rows = pd.concat([panel.rows for panel in drawn])
    for axes in grid[-1]:
        style.step_axis(axes, rows["step"].tolist())
    entries: dict[str, Any] = {f"mean over seeds, {style.seeds_text(rows)}": max((d.curve for d in drawn), key=len)}
    nulls = [panel.null for panel in drawn if panel.null]
    if nulls:
        entries["null"] = max(nulls, key=len)
    transition = style.mark_transition(grid.flat, tables["summary"], experiment)
    if transition is not None:
        entries["mean step of OOD error < 0.5"] = transition
    style.legend_on_top(figure, entries, columns=3)
    figure.align_ylabels()


class _Drawn(NamedTuple):
    rows: pd.DataFrame
    curve: tuple[Artist, ...]
    null: tuple[Artist, ...]


def _draw_panel(axes: Axes, tables: Mapping[str, pd.DataFrame], measure: ProgressMeasure) -> _Drawn:
    where: dict[str, str | int] = {"quantity": measure.quantity}
    if measure.data:
        where["data"] = measure.data
    style.select(tables["summary"], **where, null="")  # says what is missing
    rows = measure.rows(tables["summary"])
    if rows.empty:
        raise ValueError(f"progress_timeline: {measure.quantity} is not measured of the parts that the figure shows")
    if measure.ranked:
        where["index"] = int(rows["index"].iloc[0])
    chosen = {name: table[table["part"].isin(rows["part"].unique())] for name, table in tables.items()}
    (curve,) = style.curves(axes, chosen, where, style.BLUE, measure.quantity).values()
    # the nulls of all parts are alike
    null_where = where | {"part": rows["part"].iloc[0], "quantity": measure.null_of or measure.quantity}
    nulls = style.null_curves(axes, tables, null_where)
    axes.set_title(measure.named(rows), loc="left")
    axes.set_ylabel(measure.unit)
    if measure.unit in UP_TO_ONE:
        axes.set_ylim(0.0, 1.02)
        axes.set_yticks([0.0, 0.5, 1.0])
    elif measure.quantity == "largest_hessian_eigenvalue":
        axes.set_ylim(bottom=0.0)
    return _Drawn(rows, curve, next(iter(nulls.values()), ()))
