"""What the figures of language models share: columns of panels over the layers, one for each contrast of prompts."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec
from matplotlib.ticker import LogLocator, MaxNLocator, StrMethodFormatter

from learning_geometry.figures import style

PLACES = re.compile(r"layers\.(\d+)\.residual_(pre|mid|post)$")

PRE, MID = "residual_pre", "residual_mid"

STREAMS = {
    PRE: ("residual stream before attention (pre)", style.BLUE),
    MID: ("between attention and MLP (mid)", style.VERMILION),
}
"""Part of a layer -> legend entry and colour."""

SECOND_SET = {
    PRE: ("variance of the second set (pre)", style.SKY_BLUE),
    MID: ("variance of the second set (mid)", style.ORANGE),
}
"""Where the two sets have curves of their own, the colours of ``STREAMS`` are the first's."""

SETS = {
    "first": ("first set", style.GREEN),
    "second": ("second set", style.PURPLE),
    "union": ("both sets together", style.BLACK),
}
"""End of the quantity's name -> legend entry and colour, where only one stream is shown."""

DASHED = (0, (3.0, 1.2))

SWAPPED, UNTRAINED = "swapped_pairs", "untrained"
SWAPPED_LABEL = "null: pairs swapped"

THIN = 0.5
"""Width of lines that stand beside what they are to be compared with."""

FEWEST_DECADES, NARROW = 1.6, 0.7
"""A logarithmic axis of fewer decades has ticks between powers of ten too; a narrower one like a linear axis."""

TEXT_SIZE = 6.5
UNBROKEN = "\u00a0"
ROW_HEIGHT = 1.3
"""Of one panel, in inches."""


class Column:
    """One contrast of one experiment: its rows, and its panels from top to bottom.

    Attributes:
        experiment: its name.
        contrast: its name, the column ``data`` of the tables.
        rows: own rows of the language model, of this contrast.
        panels: the axes.
        sets: names of the first and the second set, or none where the options do not tell.
        lacking: what could not be measured, and why.
    """

    def __init__(
        self,
        experiment: str,
        contrast: str,
        rows: pd.DataFrame,
        panels: Sequence[Axes],
        sets: tuple[str, ...],
        lacking: Sequence[str] = (),
    ):
        self.experiment = experiment
        self.contrast = contrast
        self.rows = rows
        self.panels = panels
        self.sets = sets
        self.lacking = lacking

    def select(self, quantity: str, null: str = "") -> pd.DataFrame:
        """Return the rows of a quantity, none where the tables say why; else a ``ValueError`` names it."""
        if not self.has(quantity, null) and any(reason.startswith(f"no {quantity},") for reason in self.lacking):
            return self.rows.iloc[:0]
        return style.select(self.rows, experiment=self.experiment, data=self.contrast, quantity=quantity, null=null)

    def has(self, quantity: str, null: str = "") -> bool:
        """Return whether there are rows of a quantity."""
        return bool(((self.rows["quantity"] == quantity) & (self.rows["null"] == null)).any())

    def title(self, pairs: int, width: int, beyond: Sequence[str] = ()) -> None:
        """Write above the first panel what the column shows, in lines of at most ``width`` characters."""
        name = f"{self.experiment}, {self.contrast}".replace("_", " ")
        sets = f": {self.sets[0]}, {self.sets[1]}" if self.sets else ""
        lines = [style.wrapped(name + sets, f"n = {pairs} pairs", width)]
        lines += [fill(line, width).replace(UNBROKEN, " ") for line in beyond]
        self.panels[0].set_title("\n".join(lines), loc="left", fontsize=TEXT_SIZE, pad=4, linespacing=1.25)


def draw_columns(
    figure_name: str,
    requires: Sequence[str],
    tables: Mapping[str, pd.DataFrame],
    options: Mapping[str, Any],
    quantity: str,
    heights: Sequence[float],
) -> tuple[Figure, list[Column]]:
    """Return a figure with a block of panels for each experiment, and in it a column for each contrast.

    Panels of one row of a block share their y axis. Must be called, as all drawing, inside ``style.applied()``.

    Args:
        figure_name: of the module, for errors.
        requires: the measurements that it reads, likewise.
        tables: "summary" and "runs"; the rows come from "runs", where intervals are those over prompts.
        options: "experiments", their names; "prompts", if there, experiment -> contrast -> names or paths of its two
            sets.
        quantity: every experiment must have it; its contrasts are shown.
        heights: of the panels of a column from top to bottom, in units of ``ROW_HEIGHT``.

    Raises:
        ValueError: no experiment, or one without the quantity.
    """
    experiments, tables = style.shown(figure_name, requires, tables, options)
    # a language model is neither trained here nor drawn: there is one seed and one step
    own = tables["runs"][(tables["runs"]["seed"] == 0) & (tables["runs"]["step"] == 0)]
    contrasts = {
        name: sorted(style.select(own, experiment=name, quantity=quantity, null="")["data"].unique().tolist())
        for name in experiments
    }
    figure = Figure(
        figsize=(style.DOUBLE_WIDTH, len(experiments) * (0.45 + ROW_HEIGHT * sum(heights)) + 0.5), layout="constrained"
    )
    blocks = GridSpec(len(experiments), 1, figure=figure)
    columns = []
    for number, experiment in enumerate(experiments):
        shown = contrasts[experiment]
        grid = GridSpecFromSubplotSpec(len(heights), len(shown), blocks[number], height_ratios=heights)
        first: list[Axes] = []
        for place, contrast in enumerate(shown):
            panels = [
                figure.add_subplot(grid[row, place], sharey=first[row] if first else None)
                for row in range(len(heights))
            ]
            if first:
                for axes in panels:
                    axes.tick_params(labelleft=False)
            else:
                first = panels
            sets = options.get("prompts", {}).get(experiment, {}).get(contrast, ())
            rows = own[(own["experiment"] == experiment) & (own["data"] == contrast)]
            lacking = style.not_measured(own[own["experiment"] == experiment], f"{contrast}: ")["data"]
            reasons = [reason.removeprefix(f"{contrast}: ") for reason in lacking]
            columns.append(
                Column(experiment, contrast, rows, panels, tuple(PurePath(name).stem for name in sets), reasons)
            )
    everything = [axes for column in columns for axes in column.panels]
    for axes, letter in zip(everything, style.letters(len(everything)), strict=True):
        style.panel_letter(axes, letter)
    return figure, columns


def title_width(columns: Sequence[Column]) -> int:
    """Return how many characters fit above a column, given how many columns stand side by side."""
    abreast = max(sum(column.experiment == other.experiment for other in columns) for column in columns)
    return 110 // abreast


def placed(rows: pd.DataFrame, stream: str) -> pd.DataFrame:
    """Return the rows of one stream by their place in depth, column "place", ascending.

    States before a layer's attention, and the last layer's output, which comes before nothing, stand at whole numbers;
    states between attention and MLP half a layer further.

    Args:
        rows: of one quantity and null.
        stream: ``PRE`` or ``MID``.

    Raises:
        ValueError: there are no such rows.

    >>> rows = pd.DataFrame({"part": [f"layers.1.residual_{name}" for name in ("post", "mid", "pre")], "value": 1.0})
    >>> placed(rows, PRE)["place"].tolist(), placed(rows, MID)["place"].tolist()
    ([1.0, 2.0], [1.5])
    """
    extracted = rows["part"].str.extract(PLACES).set_axis(["layer", "state"], axis="columns")
    kept = extracted["state"].isin(("mid",) if stream == MID else ("pre", "post"))
    if not kept.any():
        raise ValueError(f"the tables hold no row of {stream} among the parts {sorted(rows['part'].unique())}")
    shift = extracted["state"].map({"pre": 0.0, "mid": 0.5, "post": 1.0})
    place = extracted["layer"].astype(float) + shift
    return rows.assign(place=place)[kept].sort_values("place", kind="stable")


def beyond_the_embedding(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop the embedding of the last token, which the chat template makes the same for all prompts."""
    return rows[rows["part"] != f"layers.0.{PRE}"]


def line_with_band(
    axes: Axes, rows: pd.DataFrame, color: str, linestyle: Any = "-", linewidth: float = 1.1, band: bool = True
) -> Any:
    """Draw placed rows as a line, and their intervals, where known, as a band; return the handle of the legend.

    The line breaks where a layer was not measured.
    """
    rows = style.with_gaps(rows, "place")
    look: dict[str, Any] = {"linestyle": linestyle, "linewidth": linewidth, "zorder": 3} | style.marks(rows["value"])
    (line,) = axes.plot(rows["place"], rows["value"], color=color, **look)
    if not band or rows[["low", "high"]].isna().all(axis=None):
        return line
    if len(rows) == 1:
        return line, axes.vlines(rows["place"], rows["low"], rows["high"], color=color, linewidth=0.9, zorder=2)
    return line, axes.fill_between(rows["place"], rows["low"], rows["high"], color=color, alpha=0.2, zorder=2)


def null_line(axes: Axes, rows: pd.DataFrame, linestyle: Any = ":", color: str = style.NULL_GREY) -> Any:
    """Draw placed rows of a null: its mean as a line, and its central 95 % range, where known, in grey."""
    rows = style.with_gaps(rows, "place")
    look: dict[str, Any] = {"linestyle": linestyle, "linewidth": 0.9, "zorder": 1.6}
    if style.marks(rows["value"]):
        look |= {"marker": "_", "markersize": 6}
    (line,) = axes.plot(rows["place"], rows["value"], color=color, **look)
    if not (rows["low"] < rows["high"]).any():
        return line
    if len(rows) == 1:
        return line, axes.vlines(
            rows["place"], rows["low"], rows["high"], color=style.NULL_GREY, alpha=0.35, linewidth=4, zorder=1.5
        )
    band = axes.fill_between(
        rows["place"], rows["low"], rows["high"], color=style.NULL_GREY, alpha=0.35, linewidth=0.0, zorder=1.5
    )
    return line, band


def proxy(column: Column, **look: Any) -> Any:
    """Return a line for the legend alone."""
    (line,) = column.panels[0].plot([], [], **look)
    return line


def log_scale(axes: Axes) -> None:
    """Make the y axis logarithmic, without minor ticks."""
    axes.set_yscale("log")
    axes.minorticks_off()


def log_ticks(columns: Sequence[Column]) -> None:
    """Put ticks between powers of ten where a logarithmic y axis holds hardly any of these; call it at the end."""
    for column in {column.experiment: column for column in columns}.values():
        for axes in column.panels:
            if axes.get_yscale() != "log":
                continue
            decades = np.log10(np.divide(*axes.get_ylim()[::-1]))
            if decades < FEWEST_DECADES:
                axes.yaxis.set_major_locator(
                    LogLocator(subs=(1.0, 2.0, 5.0)) if decades > NARROW else MaxNLocator(nbins=4)
                )
                axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def layer_axes(panels: Sequence[Axes], layers: float, label: str = "layer") -> None:
    """Set up the x axes of panels over one another: from the embedding to after the last layer, labelled below all."""
    for axes in panels:
        axes.set_xlim(0.0, layers)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
        axes.tick_params(labelbottom=axes is panels[-1])
    panels[-1].set_xlabel(label)


def upper_limits(columns: Sequence[Column], row: int, room: float = 0.0) -> None:
    """Let the y axes of a row of panels, once all are drawn, start at 0; or, logarithmic, end some ``room`` higher.

    Limits set earlier would be those of the columns drawn until then, as panels of a row share them.
    """
    for axes in {column.experiment: column.panels[row] for column in columns}.values():
        low, high = axes.get_ylim()
        if axes.get_yscale() == "log":
            axes.set_ylim(low, high * (high / low) ** room)
        else:
            axes.set_ylim(0.0, high)


def label_rows(column: Column, labels: Sequence[str]) -> None:
    """Label the y axes of the first column of a block; the others share them."""
    for axes, label in zip(column.panels, labels, strict=True):
        if axes.yaxis.get_tick_params()["labelleft"]:
            axes.set_ylabel(label)


def with_interval(row: pd.Series) -> str:
    r"""Write a value and its interval, to two digits; lines do not break within the interval.

    >>> with_interval(pd.Series({"value": -0.1184, "low": -0.15, "high": -0.0961}))
    '−0.12 [−0.15,\xa0−0.096]'
    >>> with_interval(pd.Series({"value": 0.5, "low": np.nan, "high": np.nan}))
    '0.5'
    """
    value, low, high = (f"{number:.2g}".replace("-", "\u2212") for number in row[["value", "low", "high"]])
    return f"{value} [{low},{UNBROKEN}{high}]" if np.isfinite([row["low"], row["high"]]).all() else value
