"""What all figures share: fonts, colours, step axes, lines with intervals, saving.

Figures are made with ``matplotlib.figure.Figure`` and never with pyplot, inside ``applied()``: neither the
user's matplotlib settings nor another figure can change what is drawn, and nothing global is left changed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.failures import NOT_MEASURED
from learning_geometry.files import atomic_path
from learning_geometry.measurements.progress_measures import nearest_index as nearest_index

COLUMN_WIDTH = 3.3
"""Width of a figure in one column of text, in inches."""

DOUBLE_WIDTH = 6.8
"""Width of a figure across both columns, in inches."""

PNG_DPI = 200

TRANSITION = "first_step_below_0.5"
"""The quantity whose value is the step of the transition."""

# Okabe and Ito 2008, "Color universal design": told apart under every common colour blindness
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY_BLUE, BLACK = "#E69F00", "#56B4E9", "#000000"
NULL_GREY, CONTROL_GREY = "#999999", "#595959"

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # shipped with matplotlib: the same on every machine
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.2,
    "legend.labelspacing": 0.3,
    "legend.borderaxespad": 0.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "patch.linewidth": 0.0,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "learning-geometry",
    "savefig.facecolor": "white",
}


@contextmanager
def applied() -> Iterator[None]:
    """Apply the style, on top of matplotlib's defaults, to what is drawn inside the ``with`` block."""
    with matplotlib.style.context(RC, after_reset=True):
        yield


def save(figure: Figure, pdf_path: Path | str, png_path: Path | str) -> None:
    """Write a figure as PDF and PNG, each atomically: the same figure always gives the same bytes."""
    with applied():
        if figure.get_layout_engine() is not None:
            # the layout is solved once: solving it again from its solution moves axes by rounding errors
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        with atomic_path(pdf_path) as temporary:
            dateless = {"Creator": "learning-geometry", "Producer": None, "CreationDate": None}
            figure.savefig(temporary, format="pdf", metadata=dateless)
        with atomic_path(png_path) as temporary:
            figure.savefig(temporary, format="png", dpi=PNG_DPI, metadata={"Software": None})


def select(table: pd.DataFrame, **conditions: str | int) -> pd.DataFrame:
    """Return the rows in which each named column equals the value given.

    Raises:
        ValueError: no row is left; the message names the conditions, and how far they can be met.
    """
    rows = table
    for column, value in conditions.items():
        matching = rows[rows[column] == value]
        if matching.empty:
            wanted = ", ".join(f"{name}={wish!r}" for name, wish in conditions.items())
            present = sorted(rows[column].unique().tolist())
            raise ValueError(
                f"the tables hold no row with {wanted}: {column} takes the values {present} only; "
                "measure it, or leave it out of the figure's settings"
            )
        rows = matching
    return rows


def seeds_text(rows: pd.DataFrame) -> str:
    """Return "n = 5", or "n = 3 to 5" where the number of seeds differs between the rows of a summary."""
    fewest, most = int(rows["n"].min()), int(rows["n"].max())
    return f"n = {most}" if fewest == most else f"n = {fewest} to {most}"


def wrapped(title: str, seeds: str, width: int) -> str:
    r"""Return "title, n = 5" in lines of at most ``width`` characters, with the number of seeds on one line.

    >>> wrapped("marker sums any distractors", "n = 5", 30)
    'marker sums any distractors,\nn = 5'
    """
    unbroken = "\u00a0"
    return fill(f"{title}, {seeds.replace(' ', unbroken)}", width).replace(unbroken, " ")


def mean_line(axes: Axes, rows: pd.DataFrame, x: str, color: str, linestyle: str = "-") -> tuple[Artist, ...]:
    """Draw the estimate of summary rows against column ``x``, with a band where they have an interval.

    Returns:
        The line and, if there is one, the band: together the handle of one legend entry.

    Raises:
        ValueError: every estimate is NaN, so that nothing would be seen; the message names the quantity.
    """
    if rows["estimate"].isna().all():
        quantity, experiment = rows[["quantity", "experiment"]].iloc[0]
        raise ValueError(f"{quantity} of {experiment}: every estimate is NaN or censored, there is nothing to draw")
    rows = rows.sort_values(x, kind="stable")
    (line,) = axes.plot(rows[x], rows["estimate"], color=color, linestyle=linestyle, zorder=3)
    if rows[["low", "high"]].isna().all(axis=None):
        return (line,)
    band = axes.fill_between(rows[x], rows["low"], rows["high"], color=color, alpha=0.2, zorder=2)
    return line, band


def seed_lines(axes: Axes, runs: pd.DataFrame, x: str, color: str, linestyle: str = "-") -> None:
    """Draw the value of tidy rows against column ``x``, one thin line for each seed."""
    for _, rows in runs.sort_values(x, kind="stable").groupby("seed"):
        axes.plot(rows[x], rows["value"], color=color, linestyle=linestyle, linewidth=0.4, alpha=0.6, zorder=1)


def null_band(
    axes: Axes, rows: pd.DataFrame, x: str, linestyle: str = ":", color: str = NULL_GREY
) -> tuple[Artist, ...]:
    """Draw the mean (line) and central 95 % range (band) of the summary rows of a null baseline, in grey.

    A null that is known at a single place holds everywhere: it spans the axis. Where a panel has several nulls,
    ``color`` tells their lines apart; bands stay grey.
    """
    rows = rows.sort_values(x, kind="stable")
    # [0, 1] in fractions of the axis
    places, transform = (
        (rows[x], axes.transData) if len(rows) > 1 else (np.array([0.0, 1.0]), axes.get_yaxis_transform())
    )
    mean, low, high = (np.broadcast_to(rows[name].to_numpy(), len(places)) for name in ("estimate", "low", "high"))
    style: dict[str, Any] = {"transform": transform}
    (line,) = axes.plot(places, mean, color=color, linestyle=linestyle, linewidth=0.9, zorder=1.6, **style)
    if not (low < high).any():  # an exact null, or one drawn once
        return (line,)
    return line, axes.fill_between(places, low, high, color=NULL_GREY, alpha=0.35, zorder=1.5, **style)


def null_label(name: str) -> str:
    """Return what the legend calls a null baseline.

    >>> null_label("gaussian_matrix")
    'null: Gaussian matrix'
    """
    return f"null: {name}".replace("_", " ").replace("gaussian", "Gaussian")


def curve(
    axes: Axes,
    tables: Mapping[str, pd.DataFrame],
    where: Mapping[str, str | int],
    color: str,
    label: str,
    linestyle: str = "-",
) -> dict[str, tuple[Artist, ...]]:
    """Draw a quantity over training: mean over seeds with its 95 % interval, and each seed as a thin line.

    Args:
        axes: where to draw.
        tables: "summary" and "runs", the summary and tidy rows.
        where: column values that select the rows.
        color: of all that is drawn.
        label: name of the quantity in the legend; the number of seeds is added.
        linestyle: of the mean and of single seeds.

    Returns:
        The legend entry: label and handle.

    Raises:
        ValueError: the tables hold no such rows.
    """
    rows = select(tables["summary"], **where, null="")
    if rows["n"].max() > 1:
        seed_lines(axes, select(tables["runs"], **where, null=""), "step", color, linestyle)
    return {f"{label}, {seeds_text(rows)}": mean_line(axes, rows, "step", color, linestyle)}


def curves(
    axes: Axes,
    tables: Mapping[str, pd.DataFrame],
    where: Mapping[str, str | int],
    color: str,
    label: str,
    linestyle: str = "-",
) -> dict[str, tuple[Artist, ...]]:
    """Draw ``curve`` for every part and index that the rows hold, such as the heads of a layer, all alike.

    Returns:
        One legend entry for all.
    """
    rows = select(tables["summary"], **where, null="")
    entries: dict[str, tuple[Artist, ...]] = {}
    for part, index in rows[["part", "index"]].drop_duplicates().itertuples(index=False):
        drawn = curve(axes, tables, {**where, "part": part, "index": index}, color, label, linestyle)
        entries = entries or drawn
    return entries


def null_curves(
    axes: Axes, tables: Mapping[str, pd.DataFrame], where: Mapping[str, str | int], linestyle: str = ":"
) -> dict[str, tuple[Artist, ...]]:
    """Draw every null baseline that the tables hold for a quantity over training; arguments as of ``curve``.

    Returns:
        The legend entries: "null: ..." and handle; none where there is no null.
    """
    summary = tables["summary"]
    of_quantity = summary[np.logical_and.reduce([summary[name] == value for name, value in where.items()])]
    return {
        null_label(str(name)): null_band(axes, rows, "step", linestyle)
        for name, rows in of_quantity[of_quantity["null"] != ""].groupby("null")
    }


def mark_transition(panels: Iterable[Axes], summary: pd.DataFrame, experiment: str) -> Artist | None:
    """Draw a vertical line at the mean first step with an out-of-distribution error below .5, if every seed has one.

    Returns:
        The line in the last of the panels, or None where a seed is censored.

    Raises:
        ValueError: the summary has no such step.
    """
    where = {"experiment": experiment, "quantity": TRANSITION, "data": "out_of_distribution", "null": ""}
    transition = select(summary, **where).iloc[0]
    line = None
    for axes in panels:
        if transition["censored"] == 0:
            line = axes.axvline(transition["estimate"], color=BLACK, linestyle="-.", linewidth=0.5, zorder=0)
    return line


def one_experiment(figure: str, options: Mapping[str, Any]) -> str:
    """Return the first of the experiments in a figure's options: the one shown.

    Raises:
        ValueError: there is none.
    """
    if not options.get("experiments"):
        raise ValueError(f"{figure}: the option 'experiments' is missing or empty; name the experiment to show")
    return str(options["experiments"][0])


def step_axis(axes: Axes, steps: Sequence[int], scale: str = "linear") -> None:
    """Set up the x axis for training steps.

    Args:
        axes: its x label is set to "training step".
        steps: the steps drawn.
        scale: "linear", or "log" for a logarithmic axis with room for step 0: linear up to the first step
            after 0.

    Raises:
        ValueError: the scale is unknown.
    """
    if scale not in ("linear", "log"):
        raise ValueError(f"step_scale: {scale!r} is no scale of steps; use 'linear' or 'log'")
    last = max(steps)
    axes.set_xlabel("training step")
    positive = [step for step in steps if step > 0]
    if scale == "log" and positive:
        smallest = min(positive)
        axes.set_xscale("symlog", linthresh=smallest, linscale=0.4)
        decades = range(int(np.ceil(np.log10(smallest))), int(np.floor(np.log10(last))) + 1)
        ticks = [10**decade for decade in decades] or [smallest]
        if min(steps) == 0:
            ticks = [0, *ticks]
        axes.set_xticks(ticks, [_plain_or_power(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
    if last > min(steps):
        axes.set_xlim(min(steps), last)


def panel_letter(axes: Axes, letter: str) -> None:
    """Write the letter of a panel in bold, above its y axis and left of its legend."""
    axes.annotate(
        letter,
        (0.0, 1.0),
        xytext=(-24.0, 4.0),
        xycoords="axes fraction",
        textcoords="offset points",
        weight="bold",
        ha="left",
    )


def legend_on_top(figure: Figure, entries: Mapping[str, Any], columns: int) -> None:
    """Put one legend (label: handle) for all panels above them; the figure's layout must be constrained."""
    figure.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=columns)


def legend_above(axes: Axes, entries: Mapping[str, Any], columns: int = 1) -> None:
    """Put a legend (label: handle) above the axes, where it cannot cover data.

    Raises:
        ValueError: there is no entry.
    """
    if not entries:
        raise ValueError("legend_above: no entries; name what the panel shows")
    axes.legend(list(entries.values()), list(entries), loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns)


def _plain_or_power(step: int) -> str:
    """Write powers of ten from 100 on as such, and anything else plainly."""
    exponent = round(np.log10(max(step, 1)))
    return rf"$10^{{{exponent}}}$" if exponent > 1 and step == 10**exponent else str(step)


def check_measured(runs: pd.DataFrame, needed: Sequence[str], experiments: Sequence[str]) -> None:
    """Check that no measurement which a figure reads failed: it would show less than it says.

    Args:
        runs: tidy rows of all runs, with those of what could not be measured.
        needed: measurements that the figure reads.
        experiments: that it shows.

    Raises:
        ValueError: one failed in a run, with its reason.
    """
    failed = runs[(runs["quantity"] == NOT_MEASURED) & runs["part"].isin(needed) & runs["experiment"].isin(experiments)]
    for _, row in failed.iterrows():
        raise ValueError(
            f"{row['part']} of {row['experiment']}, seed {row['seed']}, could not be made ({row['data']}), and the "
            "figure shows it; leave the figure out, or change what the reason names"
        )
