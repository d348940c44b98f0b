"""What comes first: when each progress measure made half of its change, absolutely and relative to the transition."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style
from learning_geometry.tables.progress_measures import FIRST_CROSSING, LAG, MEASURES, OUT, THRESHOLDS, TRANSITION

REQUIRES = ("copying_errors",)
"""The measurements whose tables the figure reads; of others, the events that there are."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

DATA_NAMES = {"out_of_distribution": "OOD", "in_distribution": "ID"}


class _Line(NamedTuple):
    """One event: its name, its steps and its lags behind the transition, one row per seed and one over seeds."""

    label: str
    threshold: bool
    seeds: pd.DataFrame
    mean: pd.Series
    lag_seeds: pd.DataFrame
    lag_mean: pd.Series | None
    drift: float


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw one line for each event, the earliest on top, for the first of the experiments.

    Events are the steps at which the errors fell below thresholds, and at which each progress measure made more than
    half of its change over training. (a) Training step; (b) steps after the transition of the same run, so that seeds
    whose transitions come at different times compare. Every seed a dot, the mean over seeds with its 95 % interval;
    where the event did not happen in every seed there is no mean and "happened / n" stands at the side. Grey: from the
    recorded step before the event to it, mean over seeds: the event's resolution. Ticks: the crossing of an even drift.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or it has no events.
    """
    return style.blocks("first_crossings", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    style.select(tables["runs"], quantity=TRANSITION, data=OUT)  # says what is missing
    lines = sorted(_lines(tables), key=_order)
    figure = canvas(style.DOUBLE_WIDTH, 1.1 + 0.17 * len(lines))
    steps, lags = figure.subplots(1, 2, sharey=True, width_ratios=(1.0, 1.0))
    entries: dict[str, Any] = {}
    for place, line in enumerate(lines):
        entries |= _draw_line(steps, place, line.seeds, line.mean, line.threshold, line.drift)
        if line.lag_mean is not None:
            _draw_line(lags, place, line.lag_seeds, line.lag_mean, line.threshold, None)
    steps.set_yticks(range(len(lines)), [line.label for line in lines])
    steps.set_ylim(len(lines) - 0.4, -0.6)
    steps.set_xlim(0, int(tables["runs"]["step"].max()))
    steps.set_xlabel("training step")
    lags.set_xlabel("steps after the transition of the same run")
    style.whole_ticks(steps.xaxis)
    style.whole_ticks(lags.xaxis)
    lags.axvline(0, color=style.BLACK, linestyle="-.", linewidth=0.5, zorder=0)
    if not any(line.lag_seeds["value"].notna().any() for line in lines):
        lags.set_xticks([])
        lags.text(0.5, 0.5, "no seed made the transition", transform=lags.transAxes, ha="center", va="center")
    for axes, letter in zip((steps, lags), "ab", strict=True):
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", linewidth=0.3, color=style.NULL_GREY, alpha=0.5)
        axes.set_axisbelow(True)
        style.panel_letter(axes, letter)
    style.legend_on_top(figure, entries, columns=3)


def _lines(tables: Mapping[str, pd.DataFrame]) -> list[_Line]:
    events = {
        name: table[table["quantity"].str.startswith((FIRST_CROSSING, LAG, THRESHOLDS))]
        for name, table in tables.items()
    }
    measured = events["summary"][events["summary"]["null"] == ""]
    lines = []
    for measure in MEASURES:
        of_measure = _ranked(measure, measured)
        for _, row in of_measure.iterrows():
            lines.append(_line(events, row, _label(measure, row, len(of_measure)), threshold=False))
    for _, row in measured[measured["quantity"].str.startswith(THRESHOLDS)].iterrows():
        below = row["quantity"].removeprefix(THRESHOLDS)
        lines.append(_line(events, row, f"{DATA_NAMES.get(row['data'], row['data'])} error < {below}", threshold=True))
    return lines


def _ranked(measure: Any, measured: pd.DataFrame) -> pd.DataFrame:
    """Return the events of a measure: of its own parts, and of those indices that it is made of."""
    curve = measured[measured["quantity"] == FIRST_CROSSING + measure.quantity].assign(quantity=measure.quantity)
    rows = measure.rows(curve)
    return rows.assign(quantity=FIRST_CROSSING + measure.quantity)


def _label(measure: Any, row: pd.Series, lines: int) -> str:
    title = measure.title.format(rank=row["index"])
    return title if lines == 1 else f"{title}, {row['part']} {row['index']}"


def _line(events: Mapping[str, pd.DataFrame], row: pd.Series, label: str, threshold: bool) -> _Line:
    where = {name: row[name] for name in ("part", "index", "data")}

    def chosen(table: str, quantity: str, null: str = "") -> pd.DataFrame:
        rows = events[table]
        wanted = where | {"quantity": quantity, "null": null}
        return rows[np.logical_and.reduce([rows[name] == value for name, value in wanted.items()])]

    lag_mean = chosen("summary", LAG + row["quantity"])
    drift = chosen("summary", row["quantity"], "even_drift")
    return _Line(
        label,
        threshold,
        chosen("runs", row["quantity"]),
        row,
        chosen("runs", LAG + row["quantity"]),
        lag_mean.iloc[0] if len(lag_mean) else None,
        float(drift["estimate"].iloc[0]) if len(drift) else float("nan"),
    )


def _order(line: _Line) -> tuple[bool, float, str]:
    """Sort by mean; what has none because some seeds are censored comes last, by the earliest that it can be."""
    censored = bool(line.mean["censored"])
    return censored, float(line.seeds["value"].mean() if censored else line.mean["estimate"]), line.label


def _draw_line(
    axes: Axes, place: int, seeds: pd.DataFrame, mean: pd.Series, threshold: bool, drift: float | None
) -> dict[str, Any]:
    color = style.BLACK if threshold else style.BLUE
    kind = "error below threshold" if threshold else "half of change"
    happened = seeds[~seeds["censored"]]
    entries: dict[str, Any] = {}
    if len(happened):
        spread = np.linspace(-0.18, 0.18, len(happened)) if len(happened) > 1 else np.zeros(1)
        (entries["single seeds"],) = axes.plot(
            happened["value"],
            place + spread,
            linestyle="none",
            marker="o",
            markersize=2,
            color=style.NULL_GREY,
            zorder=2,
        )
    if mean["censored"]:
        text = f"{int(mean['n'] - mean['censored'])}/{int(mean['n'])}"
        where = axes.get_yaxis_transform()
        axes.text(1.01, place, text, transform=where, fontsize=7, va="center", ha="left", color=style.BLACK)
    else:
        if drift is not None and happened[["low", "high"]].notna().all(axis=None):
            before = mean["estimate"] - float((happened["high"] - happened["low"]).mean())
            (entries["since the step recorded before"],) = axes.plot(
                [before, mean["estimate"]],
                [place, place],
                color=style.NULL_GREY,
                linewidth=4.0,
                alpha=0.5,
                zorder=1,
                solid_capstyle="butt",
            )
        bars = None
        if np.isfinite([mean["low"], mean["high"]]).all():
            bars = [[mean["estimate"] - mean["low"]], [mean["high"] - mean["estimate"]]]
        entries[f"{kind}, mean, n = {int(mean['n'])}"] = axes.errorbar(
            mean["estimate"],
            place,
            xerr=bars,
            color=color,
            marker="D" if threshold else "o",
            markersize=3.5,
            linewidth=1.1,
            capsize=1.8,
            zorder=3,
        )
    if drift is not None and np.isfinite(drift):
        (entries["null: an even drift"],) = axes.plot(
            [drift], [place], linestyle="none", marker="|", markersize=7, color=style.NULL_GREY, zorder=1
        )
    return entries
