"""When the dimension of the trajectory falls: in windows of equal length over training, beside walks."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style
from learning_geometry.figures.trajectory_dimension import beginning_with, colors_of, in_words, of_marker_sums

REQUIRES = ("trajectory_geometry",)
"""The measurements whose tables the figure reads."""

MATRICES = "attention_matrices"
"""The mean over all attention matrices."""

RATIO, OVER_NULL = "window_participation_ratio", "window_participation_ratio_over_null"

QUANTITIES = {
    RATIO: "participation ratio",
    "window_r90": "r90 (dimensions)",
    "window_pc1_share": "PC1 share (fraction)",
    OVER_NULL: "participation ratio\nover the walk's",
}

NULLS = {
    "isotropic_walk": ("null: isotropic walk", ":", style.NULL_GREY),
    "step_norm_walk": ("null: walk with the run's step norms", "--", style.CONTROL_GREY),
}
"""Legend entry, line and its grey."""

PUBLISHED = (0.2, 0.3)
"""By these fractions of training the dimension has collapsed, as published: arXiv 2602.10496, 20 000 steps of marker
sums."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw four panels over training for each experiment, means over all attention matrices in windows of snapshots.

    Windows have equal numbers of snapshots.

    (a) Participation ratio, (b) r90 and (c) PC1 share of the trajectory within a window, and (d) the participation
    ratio over the mean of walks with the run's own step norms in that window. A point stands at the last step of its
    window, and a horizontal line goes back to its first: mean over seeds with its 95 % interval, and single seeds.
    Nulls: isotropic walk and walk with the run's step norms, mean and central 95 % range. The other experiments show
    in every block as means with intervals. Shaded: the part of training in which the published collapse falls, for
    marker sums.

    Args:
        tables: "summary", summary rows of all experiments; "runs", tidy rows of all their seeds.
        options: "experiments", each of which has a block with its seeds and nulls; "tasks", for each of them the
            settings of its task, of which "name" is read.

    Raises:
        ValueError: no experiment, or one was not measured in windows; the message names the quantity.
    """
    experiments, tables = style.shown("trajectory_windows", REQUIRES, style.with_means_of_matrices(tables), options)
    looks = colors_of(experiments)

    def one(canvas: style.Canvas, _: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str) -> None:
        _draw_one(canvas, tables, options, beginning_with(experiment, looks))

    return style.blocks("trajectory_windows", REQUIRES, tables, options, one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiments: Mapping[str, str]
) -> None:
    """Draw the block of the first of the experiments, whose colours are given, beside the others' means."""
    first = next(iter(experiments))
    summary = tables["summary"]
    shown = summary[summary["experiment"].isin(experiments)]
    entries: dict[str, Any] = {}
    figure = canvas(style.DOUBLE_WIDTH, 4.4)
    grid = figure.subplots(2, 2, sharex=True)
    for axes, letter, quantity in zip(grid.flat, "abcd", QUANTITIES, strict=True):
        entries |= _draw_windows(axes, tables, experiments, quantity)
        if quantity == OVER_NULL:
            _draw_null_of_ratio(axes, style.select(summary, experiment=first, quantity=RATIO, part=MATRICES))
        axes.set_ylabel(QUANTITIES[quantity])
        style.panel_letter(axes, letter)
    if of_marker_sums(options, first):
        entries |= _shade_published(grid.flat, int(style.select(summary, experiment=first)["step"].max()))
    for axes in grid[1]:
        last = int(shown["step"].max())
        style.step_axis(axes, [0, last])
        axes.set_xlim(0, 1.03 * last)  # room for the last point
    measured_first = sorted(entries, key=lambda label: label.startswith(("null: ", "published")))
    style.legend_on_top(figure, {label: entries[label] for label in measured_first}, columns=2)
    figure.align_ylabels(grid.ravel().tolist())


def _draw_windows(
    axes: Axes, tables: Mapping[str, pd.DataFrame], experiments: Mapping[str, str], quantity: str
) -> dict[str, Any]:
    """Draw one quantity of all experiments, and seeds and nulls of the first; return the legend entries."""
    entries: dict[str, Any] = {}
    values: list[float] = []
    for number, (experiment, color) in enumerate(experiments.items()):
        where = {"experiment": experiment, "quantity": quantity, "part": MATRICES}
        of_quantity = style.select(tables["summary"], **where)
        rows = style.select(of_quantity, null="").sort_values("step")
        entries[f"{in_words(experiment)}, {style.seeds_text(rows)}"] = _with_widths(axes, rows, color)
        values += rows["estimate"].tolist()
        if number:
            continue
        if rows["n"].max() > 1:
            seeds = style.select(tables["runs"], **where, null="")
            style.seed_lines(axes, seeds, "step", color)
            axes.plot(seeds["step"], seeds["value"], ".", color=color, markersize=2, markeredgewidth=0.0, zorder=1)
            values += seeds["value"].tolist()
        for null, (label, line, grey) in NULLS.items():
            of_null = of_quantity[of_quantity["null"] == null]
            if len(of_null):
                entries[label] = style.null_band(axes, of_null, "step", line, grey)
                values += [*of_null["low"], *of_null["high"]]
    # intervals of two or three seeds may be wider than all there is to see
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.12 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)
    return entries


def _with_widths(axes: Axes, rows: pd.DataFrame, color: str) -> Any:
    """Draw means at the last steps of windows with their intervals, and the windows as horizontal lines."""
    steps, estimate = rows["step"].to_numpy(), rows["estimate"].to_numpy()
    starts = np.array([0, *steps[:-1]])
    axes.hlines(estimate, starts, steps, color=color, linewidth=2.4, alpha=0.25, zorder=2.5)
    bars = np.vstack([estimate - rows["low"], rows["high"] - estimate])
    return axes.errorbar(
        steps,
        estimate,
        yerr=bars if np.isfinite(bars).any() else None,
        color=color,
        linewidth=1.0,
        elinewidth=1.0,
        capsize=2.0,
        marker="o",
        markersize=3.5,
        zorder=3,
    )


def _draw_null_of_ratio(axes: Axes, ratios: pd.DataFrame) -> None:
    """Draw the null of a ratio to the mean walk: 1, with the walks' range in units of their mean."""
    walks = ratios[ratios["null"] == "step_norm_walk"]
    if walks.empty:
        return
    of_mean = {name: walks[name] / walks["estimate"] for name in ("estimate", "low", "high")}
    _, line, grey = NULLS["step_norm_walk"]
    style.null_band(axes, walks.assign(**of_mean), "step", line, grey)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.98 * of_mean["low"].min()), max(high, 1.02 * of_mean["high"].max()))


def _shade_published(panels: Iterable[Axes], last: int) -> dict[str, Any]:
    """Shade training up to the fractions by which the published collapse is over."""
    drawn: tuple[Any, ...] = ()
    for axes in panels:
        drawn = tuple(
            axes.axvspan(0.0, fraction * last, color=style.ORANGE, alpha=0.13, zorder=0) for fraction in PUBLISHED
        )
    return {"published collapse: first 20 to 30 %, other set-up": drawn}
