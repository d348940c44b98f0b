"""Every progress measure of the copying task over one axis of training steps."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

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

IN, OUT = "in_distribution", "out_of_distribution"
RANK = 10


def _all(parts: pd.Series) -> pd.Series:
    return parts == parts


def _first(parts: pd.Series) -> pd.Series:
    return parts == min(parts, key=_layer)


def _last(parts: pd.Series) -> pd.Series:
    return parts == max(parts, key=_layer)


def _bottom(parts: pd.Series) -> pd.Series:
    return parts.str.endswith("embedding.bottom")


def _layer(part: str) -> int:
    return int(part.split(".")[1])


class Panel(NamedTuple):
    """What one panel shows."""

    title: str
    """Where the rows have a rank, its place is ``{rank}``."""
    unit: str
    quantity: str
    data: str = ""
    parts: Callable[[pd.Series], pd.Series] = _all
    """Which parts of the model, from those there are."""
    ranked: bool = False
    """Whether the index is a rank, of which the one nearest to ``RANK`` is shown."""
    null_of: str = ""
    """Quantity whose null is drawn, if not the panel's own."""


PANELS = (
    Panel("OOD error", "fraction", "running_error", OUT, null_of="error"),
    Panel("ID error", "fraction", "running_error", IN, null_of="error"),
    Panel("OOD loss", "nats", "running_loss", OUT),
    Panel("previous-token score", "fraction", "previous_token_score", OUT, _first),
    Panel("induction score", "fraction", "induction_score", OUT, _last),
    Panel("content share of logits", "fraction", "attention_logit_share_content", OUT),
    Panel("composition z-score", "z", "composition_z_score"),
    Panel("subspace match, r = {rank}", "cosine", "subspace_match_rms_cosine", ranked=True),
    Panel("token mismatch", "fraction", "token_mismatch"),
    Panel("bridge in bottom, r = {rank}", "fraction", "bridge_energy_key", parts=_bottom, ranked=True),
    Panel("effective rank of embedding", "rank", "effective_rank", parts=lambda parts: parts == "embedding"),
    Panel("largest Hessian eigenvalue", "nats", "largest_hessian_eigenvalue", IN),
)
UP_TO_ONE = ("fraction", "cosine")
"""Units whose panels span 0 to 1, so that their sizes compare."""


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
        options: "experiments", of which the first is shown.

    Raises:
        ValueError: no experiment, or a panel has nothing to show; the message names the quantity.
    """
    experiment = style.one_experiment("progress_timeline", options)
    tables = {name: table[table["experiment"] == experiment] for name, table in tables.items()}
    with style.applied():
        figure = Figure(figsize=(style.DOUBLE_WIDTH, 6.4), layout="constrained")
        grid = figure.subplots(4, 3, sharex=True)
        drawn = [_draw_panel(axes, tables, panel) for axes, panel in zip(grid.flat, PANELS, strict=True)]
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
    return figure


class _Drawn(NamedTuple):
    rows: pd.DataFrame
    curve: tuple[Artist, ...]
    null: tuple[Artist, ...]


def _draw_panel(axes: Axes, tables: Mapping[str, pd.DataFrame], panel: Panel) -> _Drawn:
    where: dict[str, str | int] = {"quantity": panel.quantity}
    if panel.data:
        where["data"] = panel.data
    rows = style.select(tables["summary"], **where, null="")
    rows = rows[panel.parts(rows["part"])]
    if rows.empty:
        raise ValueError(f"progress_timeline: {panel.quantity} is not measured of the parts that the figure shows")
    title = panel.title
    if panel.ranked:
        where["index"] = style.nearest_index(rows, RANK)
        title = title.format(rank=where["index"])
    chosen = {name: table[table["part"].isin(rows["part"].unique())] for name, table in tables.items()}
    (curve,) = style.curves(axes, chosen, where, style.BLUE, panel.quantity).values()
    # the nulls of all parts are alike
    null_where = where | {"part": rows["part"].iloc[0]}
    nulls = style.null_curves(axes, tables, null_where | ({"quantity": panel.null_of} if panel.null_of else {}))
    axes.set_title(title, loc="left")
    axes.set_ylabel(panel.unit)
    if panel.unit in UP_TO_ONE:
        axes.set_ylim(0.0, 1.02)
        axes.set_yticks([0.0, 0.5, 1.0])
    elif panel.quantity == "largest_hessian_eigenvalue":
        axes.set_ylim(bottom=0.0)
    return _Drawn(rows, curve, next(iter(nulls.values()), ()))
