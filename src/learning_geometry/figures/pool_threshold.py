"""How many segments must there be to learn from: error and transitions against the size of the pool."""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style
from learning_geometry.geometry.uncertainty import share_interval

REQUIRES = ()
"""The measurements whose tables the figure reads: none, training itself records the errors."""

OUT = "out_of_distribution"
THRESHOLD = 0.5
"""An out-of-distribution error below this is the transition."""

MOST = {"experiments": 20}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw two panels against the number of segments in the pool, logarithmic, fresh segments at the right.

    (a) Out-of-distribution error at the last step that all experiments reached: every seed a dot, open where the
    error never fell below .5 up to then; mean over seeds with its 95 % interval. Null: the expected error of any
    constant prediction, 1 − 1 / vocabulary. (b) Share of seeds whose error fell below .5 up to then, with its exact
    95 % binomial interval; the numbers are seeds with a transition of all.

    Args:
        tables: "summary", summary rows of all experiments; "runs", tidy rows of all their seeds.
        options: "experiments", names of the experiments; "tasks", for each of them the settings of its task, of
            which "pool_size" (None for fresh segments) and "vocabulary" are read.

    Raises:
        ValueError: an option is missing, or an experiment has no evaluations during training.
    """
    for name in ("experiments", "tasks"):
        if not options.get(name):
            raise ValueError(f"pool_threshold: the option {name!r} is missing or empty")
    experiments, tables = style.shown("pool_threshold", REQUIRES, tables, options)
    sizes = {name: options["tasks"][name].get("pool_size") for name in experiments}
    curves = {
        name: style.select(tables["runs"], experiment=name, quantity="running_error", data=OUT, null="")
        for name in sizes
    }
    last = min(int(rows["step"].max()) for rows in curves.values())
    curves = {name: rows[rows["step"] <= last] for name, rows in curves.items()}
    names: dict[str, str] = {}
    finite = sorted({size for size in sizes.values() if size is not None})
    beyond = _beyond(finite)
    places = {name: float(beyond if size is None else size) for name, size in sizes.items()}
    counts = pd.Series(places).value_counts()
    for place in counts[counts > 1].index:  # side by side, and told apart by colours
        same = [name for name in places if places[name] == place]
        for at, name in enumerate(same):
            places[name] = place * 1.15 ** (at - (len(same) - 1) / 2)
            names[name] = name.replace("_", " ")
    vocabulary = options["tasks"][options["experiments"][0]].get("vocabulary")
    with style.applied():
        figure = Figure(figsize=(style.COLUMN_WIDTH, 4.8 + 0.15 * len(names)), layout="constrained")
        errors, shares = figure.subplots(2, sharex=True, height_ratios=(1.3, 1.0))
        _draw_errors(errors, tables["summary"], curves, places, last, vocabulary)
        _draw_shares(shares, curves, places, names)
        for axes, letter in zip((errors, shares), "ab", strict=True):
            style.panel_letter(axes, letter)
            axes.set_ylim(-0.03, 1.06)
        _pool_axis(shares, finite, beyond, fresh=None in sizes.values())
        if None in sizes.values() and finite:
            for axes in (errors, shares):
                axes.axvline(np.sqrt(finite[-1] * beyond), color=style.BLACK, linewidth=0.5, linestyle=(0, (1, 3)))
    return figure


def _beyond(finite: list[int]) -> float:
    """Return the place of fresh segments, an infinite pool: one to the right of the largest."""
    if len(finite) < 2:
        return 10.0 * max(finite, default=1)
    return float(finite[-1] * (finite[-1] / finite[0]) ** (1 / (len(finite) - 1)))


def _draw_errors(
    axes: Axes,
    summary: pd.DataFrame,
    curves: Mapping[str, pd.DataFrame],
    places: Mapping[str, float],
    last: int,
    vocabulary: int | None,
) -> None:
    entries: dict[str, Any] = {}
    for name, rows in curves.items():
        at = int(rows["step"].max())
        final = rows[rows["step"] == at]
        made = final["seed"].map(_transitions(rows))
        for happened, label in ((True, "single seeds"), (False, f"no OOD error < {THRESHOLD} by then")):
            values = final.loc[made == happened, "value"]
            if len(values):
                spread = places[name] * 1.06 ** (np.arange(len(values)) - (len(values) - 1) / 2)
                (entries[label],) = axes.plot(
                    spread,
                    values,
                    linestyle="none",
                    marker="o",
                    markersize=4,
                    color=style.VERMILION,
                    markerfacecolor=style.VERMILION if happened else "white",
                    markeredgewidth=0.8,
                    zorder=2,
                    clip_on=False,
                )
        where: dict[str, Any] = {"experiment": name, "quantity": "running_error", "data": OUT, "step": at, "null": ""}
        mean = style.select(summary, **where).iloc[0]
        known = np.isfinite([mean["low"], mean["high"]]).all()
        bars = [[mean["estimate"] - mean["low"]], [mean["high"] - mean["estimate"]]] if known else None
        entries[f"mean, {style.seeds_text(style.select(summary, quantity='running_error', data=OUT, step=at))}"] = (
            axes.errorbar(
                places[name],
                mean["estimate"],
                yerr=bars,
                color=style.BLACK,
                marker="_",
                markersize=9,
                linewidth=1.0,
                capsize=2.5,
                zorder=3,
            )
        )
    if vocabulary:
        entries["null: constant prediction"] = axes.axhline(
            1 - 1 / vocabulary, color=style.NULL_GREY, linestyle=":", linewidth=0.9, zorder=1
        )
    axes.set_ylabel(f"OOD error at step {last} (fraction)")
    style.legend_above(axes, entries)


def _draw_shares(
    axes: Axes, curves: Mapping[str, pd.DataFrame], places: Mapping[str, float], names: Mapping[str, str]
) -> None:
    drawn = None
    entries: dict[str, Any] = {}
    colors = dict.fromkeys(curves, style.BLUE) | dict(zip(names, style.colors(len(names)), strict=True))
    for name, rows in curves.items():
        made = _transitions(rows)
        count, n = int(made.sum()), len(made)
        low, high = share_interval(count, n)
        drawn = axes.errorbar(
            places[name],
            count / n,
            yerr=[[count / n - low], [high - count / n]],
            color=colors[name],
            marker="s",
            markersize=4,
            linewidth=1.0,
            capsize=2.5,
        )
        if name in names:
            entries[fill(names[name], 46)] = drawn
        axes.annotate(
            f"{count}/{n}",
            (places[name], count / n),
            xytext=(5, -2 if count else 3),
            textcoords="offset points",
            fontsize=7,
            va="top" if count else "bottom",
        )
    axes.set_ylabel("share of seeds")
    style.legend_above(axes, {f"OOD error < {THRESHOLD} by then, exact 95 % interval": drawn} | entries)


def _pool_axis(axes: Axes, finite: list[int], beyond: float, fresh: bool) -> None:
    ticks = [float(size) for size in finite] + ([beyond] if fresh else [])
    axes.set_xscale("log")
    axes.set_xlim(min(ticks) / 1.6, max(ticks) * 1.6)
    labels = [str(size) for size in finite] + (["∞"] if fresh else [])
    axes.set_xticks(ticks, labels, rotation=45 if len(ticks) > 6 else 0)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("segments in the pool (∞: a fresh one each time)")


def _transitions(rows: pd.DataFrame) -> pd.Series:
    """Return by seed whether the error was below the threshold at some evaluation."""
    return rows.groupby("seed")["value"].min() < THRESHOLD
