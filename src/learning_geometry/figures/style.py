"""What all figures share: fonts, colours, step axes, lines with intervals, saving.

Figures are made with ``matplotlib.figure.Figure`` and never with pyplot, inside ``applied()``: neither the
user's matplotlib settings nor another figure can change what is drawn, and nothing global is left changed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import GridSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from learning_geometry.failures import NOT_MEASURED
from learning_geometry.files import atomic_path
from learning_geometry.tables.progress_measures import nearest_index as nearest_index

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

PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY_BLUE, BLACK)
"""Of what a config names, as texts or contrasts, in its order."""

FEWEST_SEEDS = 3
"""Intervals of fewer seeds are not drawn: of two, Student's t is 12.7, and the band hides all else; they have lines."""

INCHES_OF_HANDLE, INCHES_OF_CHARACTER = 0.33, 0.047
"""Of the entries of a legend, with the space between them."""

SMALL = 6.5
"""Size of letters of what is said aside."""

TITLE_HEIGHT, CHARACTERS_PER_INCH = 0.25, 16
"""Of a block's title: height in inches, and how many bold characters an inch holds."""

Canvas = Callable[[float, float], Figure | SubFigure]
"""Gives the figure, or the part of one, in which to draw, for a width and a height in inches."""

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


def colors(number: int) -> list[str]:
    """Return as many colours, all different: ``PALETTE``, or for more a spectrum from end to end.

    >>> len(set(colors(20))), colors(2) == list(PALETTE[:2])
    (20, True)
    """
    if number <= len(PALETTE):
        return list(PALETTE[:number])
    return [to_hex(color) for color in matplotlib.colormaps["turbo"](np.linspace(0.03, 0.97, number))]


def line_styles(number: int) -> list[Any]:
    """Return as many kinds of line, all different: four common ones, then dashes with two, three, ... dots between.

    >>> line_styles(5)
    ['-', '--', '-.', ':', (0, (6.0, 1.5, 1.0, 1.5, 1.0, 1.5))]
    """
    dotted = [(0, (6.0, 1.5, *(1.0, 1.5) * dots)) for dots in range(2, number - 2)]
    return ["-", "--", "-.", ":", *dotted][:number]


def marks(values: pd.Series, size: float = 2.5) -> dict[str, Any]:
    """Return how to mark the points of a line, if one has no neighbour that is known: it would not be seen.

    >>> marks(pd.Series([1.0, 2.0])), marks(pd.Series([1.0, 2.0, float("nan"), 3.0]))
    ({}, {'marker': 'o', 'markersize': 2.5})
    """
    known = values.notna().to_numpy()
    alone = known & ~np.append(known[1:], False) & ~np.append(False, known[:-1])
    return {"marker": "o", "markersize": size} if alone.any() else {}


def with_gaps(rows: pd.DataFrame, x: str, places: Iterable[float] | None = None) -> pd.DataFrame:
    """Return rows in the order of column ``x``, with rows of NaN where some are missing: a line breaks there.

    Args:
        rows: of one line.
        x: the column of the x axis.
        places: where rows should be; None: at every step of 1 from the first to the last of them.

    >>> with_gaps(pd.DataFrame({"layer": [4, 0, 1], "value": [3.0, 1.0, 2.0]}), "layer")["value"].tolist()
    [1.0, 2.0, nan, nan, 3.0]
    """
    if rows.empty:
        return rows
    first, last = float(rows[x].min()), float(rows[x].max())
    wanted = np.arange(first, last + 0.5) if places is None else np.array(sorted(places), dtype=np.float64)
    there = rows[x].to_numpy(np.float64)
    missing = [at for at in wanted if first < at < last and np.abs(there - at).min() > 0.25]
    gaps = pd.DataFrame({x: missing}, dtype=np.float64)
    return pd.concat([rows, gaps], ignore_index=True).sort_values(x, kind="stable") if missing else rows.sort_values(x)


def note(figure: Figure | SubFigure, text: str) -> None:
    """Write below all panels, in small letters, what a figure leaves out; nothing for ""."""
    if text:
        width = int(figure.bbox.width / figure.dpi * CHARACTERS_PER_INCH * 1.25)
        figure.supxlabel(fill(text, width), x=0.01, ha="left", fontsize=SMALL, color=CONTROL_GREY)


def note_empty(axes: Axes, text: str) -> None:
    """Write into a panel why there is nothing in it."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=SMALL, color=CONTROL_GREY)


def not_measured(runs: pd.DataFrame, beginning: str = "") -> pd.DataFrame:
    """Return the rows of what could not be measured whose reason begins so, with ``layer`` and ``of``, of its part."""
    rows = runs[(runs["quantity"] == NOT_MEASURED) & runs["data"].str.startswith(beginning)]
    extracted = rows["part"].str.extract(r"^layers\.(\d+)\.?(.*)$")
    return rows.assign(layer=pd.to_numeric(extracted[0]), of=extracted[1])


def whole_ticks(axis: Axis) -> None:
    """Put the ticks of an axis that counts layers, steps, heads or ranks at whole numbers alone."""
    axis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1, steps=[1, 2, 2.5, 5, 10]))


def letters(number: int) -> list[str]:
    """Return as many letters of panels: a to z, then aa, ab, ...

    >>> letters(28)[-3:]
    ['z', 'aa', 'ab']
    """
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return [(alphabet[at // 26 - 1] if at >= 26 else "") + alphabet[at % 26] for at in range(number)]


def shown(
    figure: str, requires: Sequence[str], tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]
) -> tuple[list[str], dict[str, pd.DataFrame]]:
    """Return the experiments that a figure shows, and its tables without the intervals of fewer than ``FEWEST_SEEDS``.

    Args:
        figure: name of the module, for errors.
        requires: the measurements that it reads.
        tables: "summary" and "runs".
        options: "experiments", their names, and "tasks" or what else the figure reads.

    Raises:
        ValueError: no experiment, or the tables hold nothing of one.
    """
    experiments = [str(name) for name in options.get("experiments") or ()]
    if not experiments:
        raise ValueError(f"{figure}: the option 'experiments' is missing or empty; name the experiments to show")
    for name in experiments:
        if not (tables["runs"]["experiment"] == name).any():
            present = sorted(tables["runs"]["experiment"].unique().tolist())
            raise ValueError(
                f"{figure}: the tables hold no row with experiment={name!r}, only of {present}; "
                f"measure it ({', '.join(requires) or 'training'}), or leave it out of the figure's experiments"
            )
    summary = tables.get("summary", pd.DataFrame())
    if "interval" in summary:
        wide = (summary["interval"] == "student_t") & (summary["n"] < FEWEST_SEEDS)
        summary = summary.assign(low=summary["low"].mask(wide), high=summary["high"].mask(wide))
        tables = {**tables, "summary": summary}
    return experiments, dict(tables)


@contextmanager
def of_experiment(figure: str, requires: Sequence[str], experiment: str) -> Iterator[None]:
    """Say in every ``ValueError`` of the ``with`` block of which experiment it is, and what the figure reads of it."""
    try:
        yield
    except ValueError as error:
        read = f"; the figure reads {', '.join(requires)} of it: measure what is lacking" if requires else ""
        raise ValueError(f"{figure}, experiment {experiment}: {error}{read}") from error


def blocks(
    figure: str,
    requires: Sequence[str],
    tables: Mapping[str, pd.DataFrame],
    options: Mapping[str, Any],
    draw_one: Callable[[Canvas, Mapping[str, pd.DataFrame], Mapping[str, Any], str], None],
) -> Figure:
    """Draw one block of panels for each experiment, below each other, or two side by side where they are narrow.

    Several blocks have the names of their experiments above them; a single one is the figure.

    Args:
        figure: as of ``shown``.
        requires: as of ``shown``.
        tables: as of ``shown``.
        options: as of ``shown``.
        draw_one: draws a block, given its canvas, the rows of its experiment alone, the options, and its name.

    Raises:
        ValueError: no experiment, or one was not measured; the message names it, and what is lacking.
    """
    experiments, tables = shown(figure, requires, tables, options)
    several = len(experiments) > 1
    sizes: list[tuple[float, float]] = []
    grids: list[GridSpec] = []
    with applied():
        whole = Figure(layout="constrained")

        def canvas(width: float, height: float) -> Figure | SubFigure:
            place = len(sizes)
            sizes.append((width, height + TITLE_HEIGHT * several))
            if not several:
                whole.set_size_inches(width, height)
                return whole
            if not grids:
                across = 1 if width > COLUMN_WIDTH else 2
                grids.append(whole.add_gridspec(-(-len(experiments) // across), across))
                whole.set_size_inches(across * width, height)  # legends fit the width; the height comes last
            block = whole.add_subfigure(grids[0][divmod(place, grids[0].ncols)])
            title = fill(experiments[place].replace("_", " "), int(width * CHARACTERS_PER_INCH))
            block.suptitle(title, x=0.01, ha="left", fontsize=8, weight="bold")
            # one more within, so that the title and a legend at the top have places of their own
            return block.add_subfigure(block.add_gridspec(1, 1)[0])

        for experiment in experiments:
            with of_experiment(figure, requires, experiment):
                of_one = {name: table[table["experiment"] == experiment] for name, table in tables.items()}
                draw_one(canvas, of_one, options, experiment)
        across = grids[0].ncols if several else 1
        rows = [sizes[start : start + across] for start in range(0, len(sizes), across)]
        heights = [max(height for _, height in row) for row in rows]
        whole.set_size_inches(across * sizes[0][0], sum(heights))
        if several:
            grids[0].set_height_ratios(heights)
    return whole


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


def say_unchecked(figure: Figure, experiments: Sequence[str]) -> None:
    """Write below a figure of which experiments it shows parameters that a map put in place which nobody checked."""
    if not experiments:
        return
    width, height = figure.get_size_inches()
    line = 0.16
    figure.set_size_inches(width, height + line)
    share = line / (height + line)
    engine = figure.get_layout_engine()
    if engine is None:
        figure.subplots_adjust(bottom=figure.subplotpars.bottom * (1 - share) + share)
    elif isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, share, 1, 1 - share))
    names = ", ".join(experiments)
    text = f"unchecked: the parameters of {names} were put in place by names and shapes alone (source.unchecked)"
    figure.text(0.5, 0.3 * share, text, ha="center", va="bottom", size=6, color=VERMILION)


def select(table: pd.DataFrame, **conditions: str | int) -> pd.DataFrame:
    """Return the rows in which each named column equals the value given.

    Raises:
        ValueError: no row is left; the message names the conditions, and how far they can be met.
    """
    chosen = np.ones(len(table), dtype=bool)
    for column, value in conditions.items():
        matching = chosen & (table[column] == value).to_numpy(dtype=bool)
        if not matching.any():
            wanted = ", ".join(f"{name}={wish!r}" for name, wish in conditions.items())
            present = sorted(table.loc[chosen, column].unique().tolist())
            raise ValueError(
                f"the tables hold no row with {wanted}: {column} takes the values {present} only; "
                "measure it, or leave it out of the figure's settings"
            )
        chosen = matching
    return table[chosen]


def with_means_of_matrices(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return tables in which means over all followed matrices are called as those over attention matrices are."""
    renamed = {"matrices": "attention_matrices"}
    return {name: table.assign(part=table["part"].replace(renamed)) for name, table in tables.items()}


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


def mean_line(axes: Axes, rows: pd.DataFrame, x: str, color: str, linestyle: Any = "-") -> tuple[Artist, ...]:
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
    (line,) = axes.plot(
        rows[x], rows["estimate"], color=color, linestyle=linestyle, zorder=3, **marks(rows["estimate"])
    )
    known = rows[["low", "high"]].notna().all(axis=1).sum()
    if not known:
        return (line,)
    if known == 1:  # where a band has no width
        return line, axes.vlines(rows[x], rows["low"], rows["high"], color=color, linewidth=0.9, zorder=2)
    return line, axes.fill_between(rows[x], rows["low"], rows["high"], color=color, alpha=0.2, zorder=2)


def seed_lines(axes: Axes, runs: pd.DataFrame, x: str, color: str, linestyle: Any = "-") -> None:
    """Draw the value of tidy rows against column ``x``, one thin line for each seed."""
    for _, rows in runs.sort_values(x, kind="stable").groupby("seed"):
        look = {"color": color, "linestyle": linestyle, "linewidth": 0.4, "alpha": 0.6, "zorder": 1}
        axes.plot(rows[x], rows["value"], **look, **marks(rows["value"], 2.0))


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
    if len(rows) > 1 and marks(rows["estimate"]):  # a point between gaps has no line
        style |= {"marker": "_", "markersize": 5}
    (line,) = axes.plot(places, mean, color=color, linestyle=linestyle, linewidth=0.9, zorder=1.6, **style)
    style = {"transform": transform}
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
    whole_ticks(axes.xaxis)
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


def legend_on_top(
    figure: Figure | SubFigure, entries: Mapping[str, Any], columns: int, handle_length: float | None = None
) -> None:
    """Put one legend (label: handle) for all panels above them; the figure's layout must be constrained.

    Args:
        figure: the figure, or the part of one.
        entries: label -> handle.
        columns: side by side, fewer where the labels are too long for the width.
        handle_length: of the handles' lines, in units of the font's size; that of the style if None.
    """
    width = figure.bbox.width / figure.dpi
    while columns > 1 and _legend_width(list(entries), columns, handle_length) > width:
        columns -= 1
    figure.legend(
        list(entries.values()), list(entries), loc="outside upper left", ncols=columns, handlelength=handle_length
    )


def _legend_width(labels: Sequence[str], columns: int, handle_length: float | None = None) -> float:
    """Return about how wide a legend is, in inches: it is filled column by column."""
    rows = -(-len(labels) // columns)
    longest = [max(map(len, labels[start : start + rows])) for start in range(0, len(labels), rows)]
    usual = matplotlib.rcParams["legend.handlelength"]
    handle = INCHES_OF_HANDLE + ((handle_length or usual) - usual) * matplotlib.rcParams["legend.fontsize"] / 72
    return sum(handle + INCHES_OF_CHARACTER * length for length in longest)


def legend_above(axes: Axes, entries: Mapping[str, Any], columns: int = 1) -> None:
    """Put a legend (label: handle) above the axes, where it cannot cover data.

    Args:
        axes: whose width, before the layout is made, is about that of the panel.
        entries: label -> handle.
        columns: side by side, fewer where the labels are too long for the width.

    Raises:
        ValueError: there is no entry.
    """
    if not entries:
        raise ValueError("legend_above: no entries; name what the panel shows")
    of_figure = axes.get_figure(root=False)
    assert of_figure is not None
    width = axes.get_position().width * of_figure.bbox.width / of_figure.dpi
    while columns > 1 and _legend_width(list(entries), columns) > width:
        columns -= 1
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
