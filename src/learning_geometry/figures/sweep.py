"""What the values of swept settings do: chosen quantities of every experiment of a sweep against these values."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, Transform

from learning_geometry.figures import style

REQUIRES = ()
"""The measurements whose tables the figure reads: none by itself; ``quantities`` may name what any measures."""

MOST = {"experiments": 60}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

SWEPT = True
"""It shows experiments of sweeps, and no others."""

SETTINGS = {
    "quantities": {
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["quantity"],
            "properties": {
                "quantity": {"type": "string", "minLength": 1, "description": "As in the tables."},
                "part": {"type": ["string", "null"], "default": None, "description": "Part; null for the only one."},
                "data": {"type": ["string", "null"], "default": None, "description": "Data; null for a line of each."},
                "index": {"type": ["integer", "null"], "default": None, "description": "Index; null for the only one."},
                "step": {
                    "type": ["integer", "null"],
                    "minimum": 0,
                    "default": None,
                    "description": "Step; null for the last of each experiment.",
                },
            },
        },
        "default": [{"quantity": "running_error"}, {"quantity": "running_loss"}],
        "description": (
            "What is drawn, one panel each: rows of the summaries, by `quantity` and, where this leaves several, "
            "`part` and `index`; `data` picks one of several lines, `step` a step instead of the last."
        ),
    },
    "along": {
        "type": ["string", "null"],
        "default": None,
        "description": (
            "Swept key on the horizontal axis; null for that with the most values. Others have lines of their own."
        ),
    },
}

AXIS_WIDTH = 0.9
"""Inches beside a panel for its axis, with its label."""

LINE_KEY = ["data", "others"]
"""Columns that tell the lines of a panel apart."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw one panel for each quantity, and one column of panels for each sweep.

    Points: means over seeds with their 95 % interval; small dots: single seeds, open where the event had not happened
    by the last step observed (such an experiment has no mean). Nulls in grey, with their central 95 % range. The axis
    is logarithmic where the values are positive and their ratios more even than their differences (``is_geometric``),
    and has one place for each value where they are no numbers.

    Args:
        tables: "summary", summary rows of all experiments; "runs", tidy rows of all their seeds.
        options: "experiments", their names; "swept", for each of them the "name" of its sweep and its "values", swept
            key -> value; "quantities" and "along" as in ``SETTINGS``.

    Raises:
        ValueError: an experiment is of no sweep, ``along`` is not swept, or the tables lack a quantity or hold several
            series of it.
    """
    experiments, tables = style.shown("sweep", REQUIRES, tables, options)
    sweeps = _sweeps(experiments, options.get("swept") or {})
    quantities = options["quantities"]
    with style.applied():
        figure = Figure(layout="constrained")
        grid = figure.subplots(len(quantities), len(sweeps), squeeze=False)
        letters = iter(style.letters(grid.size))
        labels: list[list[str]] = []
        for column, (name, values) in zip(grid.T, sweeps.items(), strict=True):
            along = _along(values, options.get("along"), name)
            for axes, wanted in zip(column, quantities, strict=True):
                with style.of_experiment("sweep", REQUIRES, name):
                    labels.append(_draw_panel(axes, tables, values, along, wanted))
                style.panel_letter(axes, next(letters))
            if len(sweeps) > 1:
                column[0].set_title(name.replace("_", " "), loc="right", weight="bold")
            column[-1].set_xlabel(along)
        # panels as wide as the widest legend, which stands above them
        widest = max(len(label) for entries in labels for label in entries)
        legend = style.INCHES_OF_HANDLE + style.INCHES_OF_CHARACTER * widest
        width = max(style.COLUMN_WIDTH, legend + AXIS_WIDTH)
        figure.set_size_inches(width * len(sweeps), len(quantities) * (1.9 + 0.16 * max(map(len, labels))))
    return figure


def is_geometric(values: Sequence[float | int]) -> bool:
    """Whether numbers are spaced more evenly by ratio than by difference; of two, if one is at least twice the other.

    >>> is_geometric([0.001, 0.003, 0.01]), is_geometric([1, 2, 3, 4]), is_geometric([1, 2, 4, 8])
    (True, False, True)
    >>> is_geometric([0.0, 0.1, 1.0]), is_geometric([0.001, 0.003]), is_geometric([5])
    (False, True, False)
    """
    places = sorted(set(map(float, values)))
    if len(places) < 2 or places[0] <= 0:
        return False
    if len(places) == 2:
        return places[1] >= 2 * places[0]

    def unevenness(scale: Sequence[float]) -> float:
        gaps = [right - left for left, right in pairwise(scale)]
        return max(gaps) / min(gaps)

    return unevenness([math.log(place) for place in places]) < unevenness(places)


def _sweeps(experiments: Sequence[str], swept: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return sweep -> experiment -> swept key -> value."""
    sweeps: dict[str, dict[str, dict[str, Any]]] = {}
    for name in experiments:
        if name not in swept:
            raise ValueError(f"sweep: {name} is no experiment of a sweep; give it one, or leave it out of the figure")
        sweeps.setdefault(swept[name]["name"], {})[name] = swept[name]["values"]
    return sweeps


def _along(values: Mapping[str, Mapping[str, Any]], along: str | None, sweep: str) -> str:
    """Return the swept key on the axis."""
    keys = list(next(iter(values.values())))
    if along is None:
        return max(keys, key=lambda key: len({_text(each[key]) for each in values.values()}))
    if along not in keys:
        raise ValueError(f"sweep: along is {along}, and {sweep} sweeps {', '.join(keys)}; name one of these")
    return along


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value)


def _draw_panel(
    axes: Axes,
    tables: Mapping[str, pd.DataFrame],
    values: Mapping[str, Mapping[str, Any]],
    along: str,
    wanted: Mapping[str, Any],
) -> list[str]:
    """Draw one quantity of one sweep; return the labels of its legend."""
    on_axis = [values[name][along] for name in values]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in on_axis)
    names = list(dict.fromkeys(map(_text, on_axis)))
    places = {
        name: float(value) if numbers else float(names.index(_text(value)))
        for name, value in zip(values, on_axis, strict=True)
    }
    summary, runs = (_placed(tables[kind], values, along, places, wanted) for kind in ("summary", "runs"))
    measured, nulls = summary[summary["null"] == ""], summary[summary["null"] != ""]
    if measured.empty:
        raise ValueError(f"the summaries hold of {_described(wanted)} nulls alone")
    entries: dict[str, Any] = {}
    kinds: dict[str, Any] = {}
    lines = list(measured[LINE_KEY].drop_duplicates().itertuples(index=False, name=None))
    for at, (line, color) in enumerate(zip(lines, style.colors(len(lines)), strict=True)):
        rows = _of_line(measured, line).sort_values("place", kind="stable")
        label = ", ".join([*filter(None, (line[0].replace("_", " "), line[1])), style.seeds_text(rows)])
        # side by side, or equal values would hide each other
        beside = ScaledTranslation((at - (len(lines) - 1) / 2) * 3 / 72, 0, axes.figure.dpi_scale_trans)
        entries[label] = _draw_estimates(axes, rows, color, axes.transData + beside)
        seeds = _of_line(runs[runs["null"] == ""], line)
        if rows["n"].max() > 1 or seeds["censored"].any():
            _draw_seeds(axes, seeds, color, axes.transData + beside)
    _show_all(axes, measured, runs[runs["null"] == ""])
    if runs["censored"].any():
        (entries["open: not by the last step"],) = axes.plot(
            [], [], linestyle="none", marker="o", markersize=3, markerfacecolor="white", color=style.BLACK
        )
    for of_null, rows in nulls.groupby(["null", *LINE_KEY], sort=False):
        null, data = of_null[:2] if isinstance(of_null, tuple) else (of_null, "")
        label = ", ".join(filter(None, (style.null_label(str(null)), str(data).replace("_", " "))))
        kinds.setdefault(label, style.line_styles(len(kinds) + 2)[-1])
        entries[label] = style.null_band(axes, rows, "place", kinds[label])
    _label_axes(axes, measured, on_axis if numbers else names, numbers, wanted)
    style.legend_above(axes, entries)
    return list(entries)


def _described(wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in wanted.items() if value is not None)


def _placed(
    table: pd.DataFrame,
    values: Mapping[str, Mapping[str, Any]],
    along: str,
    places: Mapping[str, float],
    wanted: Mapping[str, Any],
) -> pd.DataFrame:
    """Return the rows of a quantity with their place on the axis, and in ``others`` the other swept values."""
    conditions = {key: wanted[key] for key in ("quantity", "part", "data", "index") if wanted.get(key) is not None}
    placed = []
    for name, each in values.items():
        rows = style.select(table, experiment=name, **conditions)
        measured = rows[rows["null"] == ""]
        if measured.empty:
            raise ValueError(f"{name} holds of {_described(wanted)} nulls alone")
        for column in ("part", "index"):
            there = measured[column].unique().tolist()
            if len(there) > 1:
                raise ValueError(
                    f"{name} has {_described(wanted)} of several: {column} {', '.join(map(str, there[:8]))}; "
                    f"name one in figures.sweep.quantities"
                )
        step = wanted.get("step")
        rows = style.select(rows, step=int(measured["step"].max()) if step is None else step)
        others = ", ".join(f"{key.rpartition('.')[2]} {_text(value)}" for key, value in each.items() if key != along)
        placed.append(rows.assign(place=places[name], others=others.replace("_", " ")))
    return pd.concat(placed, ignore_index=True)


def _of_line(rows: pd.DataFrame, line: tuple[str, str]) -> pd.DataFrame:
    return rows[(rows["data"] == line[0]) & (rows["others"] == line[1])]


def _draw_estimates(axes: Axes, rows: pd.DataFrame, color: str, transform: Transform) -> Any:
    """Draw the means, joined, each with its interval if it has one."""
    bars = [(rows["estimate"] - rows["low"]).to_numpy(), (rows["high"] - rows["estimate"]).to_numpy()]
    look: dict[str, Any] = {"color": color, "marker": "s", "markersize": 3.5, "linewidth": 1.0, "capsize": 2.5}
    return axes.errorbar(rows["place"], rows["estimate"], yerr=bars, **look, transform=transform, zorder=3)


def _draw_seeds(axes: Axes, rows: pd.DataFrame, color: str, transform: Transform) -> None:
    for censored, face in ((False, color), (True, "white")):
        some = rows[rows["censored"] == censored]
        look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 2.5, "markeredgewidth": 0.6}
        look["transform"] = transform
        axes.plot(some["place"], some["value"], **look, color=color, markerfacecolor=face, alpha=0.7, zorder=2)


def _show_all(axes: Axes, rows: pd.DataFrame, seeds: pd.DataFrame) -> None:
    """Stretch the axes over means, intervals and seeds, which matplotlib leaves out as they are moved aside."""
    columns = [rows[["place", name]] for name in ("estimate", "low", "high")] + [seeds[["place", "value"]]]
    points = np.concatenate([column.to_numpy(dtype=float) for column in columns])
    axes.update_datalim(points[np.isfinite(points).all(axis=1)])
    axes.autoscale_view()


def _label_axes(
    axes: Axes, rows: pd.DataFrame, on_axis: Sequence[Any], numbers: bool, wanted: Mapping[str, Any]
) -> None:
    unit = rows["unit"].iloc[0]
    parts = [wanted["quantity"].replace("_", " "), *([str(wanted["part"])] if wanted.get("part") else [])]
    axes.set_ylabel("\n".join([", ".join(parts), *([f"({unit})"] if unit != "1" else [])]))
    ticks = sorted({float(value) for value in on_axis}) if numbers else list(range(len(on_axis)))
    if numbers and is_geometric(ticks):
        axes.set_xscale("log")
    labels = [_text(tick) for tick in ticks] if numbers else list(on_axis)
    axes.set_xticks(ticks, labels, rotation=45 if sum(map(len, labels)) > 32 else 0)
    axes.set_xticks([], minor=True)
    axes.margins(x=0.08)
