"""Where the sharpness sits before, at and after the transition: blocks of parameters, and subspaces."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("copying_errors", "sharpness", "block_curvature")
"""The measurements whose tables the figure reads."""

MASS, EIGENVALUE, INCREASE = "top_eigenvector_mass", "block_largest_hessian_eigenvalue", "noise_loss_increase"
GROUPS = {"positional": style.BLUE, "matching": style.VERMILION, "rest": style.CONTROL_GREY}
COLORS = (style.SKY_BLUE, style.BLUE, style.ORANGE, style.VERMILION, style.PURPLE, style.GREEN, style.BLACK)
MOMENT_COLORS = (style.SKY_BLUE, style.ORANGE, style.VERMILION, style.PURPLE, style.GREEN, style.BLACK)
SUBSPACES = ("top", "medium", "bottom", "bridge")

Look = tuple[str, Any]
"""Colour and line style."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw six panels for the first of the experiments.

    (a) Share of the top Hessian eigenvector in every block of parameters over training, and (b) in groups of blocks,
    with the shares of a random direction. (c) Largest eigenvalue of the Hessian of each block alone, untrained, at
    multiples of the transition step t, and at the end; (d) of each group. (e) Mean loss increase when noise is added to
    the embedding inside one of its subspaces or the bridge, and (f) to the keys of the second layer, at the same
    moments, each beside random subspaces of the same dimension. Where some seeds did not reach a moment, dots show
    those that did, and the figure says how many.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("curvature_localisation", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    summary = tables["summary"]
    masses = style.select(summary, quantity=MASS, null="")
    measured = masses["part"].unique().tolist()
    dashes = style.line_styles(-(-len(measured) // len(COLORS)))
    blocks = sorted((part for part in measured if part not in GROUPS), key=_by_number)
    combined: list[Look] = [(color, line) for line in dashes for color in COLORS]
    looks = dict(zip(blocks, combined[: len(blocks)], strict=True))
    of_groups: dict[str, Look] = {part: (color, "-") for part, color in GROUPS.items() if part in measured}
    figure = canvas(style.DOUBLE_WIDTH, 7.4)
    grid = figure.subplots(3, 2, height_ratios=(1.0, 1.0, 1.1))
    for axes, parts in zip(grid[0], (looks, of_groups), strict=True):
        entries = _draw_masses(axes, tables, parts)
        style.legend_above(axes, entries, columns=2)
    for axes, parts in zip(grid[1], (looks, of_groups), strict=True):
        _draw_eigenvalues(axes, tables, parts)
    weights = style.select(summary, quantity=INCREASE, null="")["part"].str.rpartition("-")[0].unique()
    for axes, weight in zip(grid[2], sorted(weights, key=lambda name: name != "embedding"), strict=True):
        entries = _draw_increases(axes, tables, weight)
        axes.set_xlabel(f"subspace of the noise on {_words(weight)}")
    style.legend_above(grid[2, 0], entries, columns=2)
    for axes, letter in zip(grid.flat, "abcdef", strict=True):
        style.panel_letter(axes, letter)
    style.mark_transition(grid[0], summary, experiment)


def _draw_masses(axes: Axes, tables: Mapping[str, pd.DataFrame], parts: Mapping[str, Look]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for part, (color, dashes) in parts.items():
        where = {"quantity": MASS, "part": part}
        rows = style.select(tables["summary"], **where, null="")
        style.seed_lines(axes, style.select(tables["runs"], **where, null=""), "step", color, dashes)
        label = f"{part}, {style.seeds_text(rows)}" if part in GROUPS else _words(part)
        entries[label] = style.mean_line(axes, rows, "step", color, dashes)
        null = style.select(tables["summary"], **where, null="random_direction")
        if len(parts) <= len(GROUPS):
            style.null_band(axes, null, "step", color=color)
    if len(parts) <= len(GROUPS):
        (dotted,) = axes.plot([], [], color=style.NULL_GREY, linestyle=":", linewidth=0.9)
        entries["null: random direction"] = dotted
    axes.set_ylim(0.0, 1.02)
    axes.set_ylabel("share of top eigenvector")
    style.step_axis(axes, rows["step"].tolist())
    return entries


def _draw_eigenvalues(axes: Axes, tables: Mapping[str, pd.DataFrame], parts: Mapping[str, Look]) -> None:
    """Draw one line for each part through untrained, the moments and the end; points where there is a gap."""
    labels: list[str] = []
    values: list[float] = []
    missing = _missing(tables["runs"])
    for part, (color, dashes) in parts.items():
        on_grid = style.select(tables["summary"], quantity=EIGENVALUE, part=part, null="").sort_values("step")
        moments = _at_moments(tables["summary"], EIGENVALUE, part)
        rows = pd.concat([on_grid.iloc[:1], moments, on_grid.iloc[1:].tail(1)])
        labels = [
            "untrained",
            *(_moment(index) + (f"\n({missing[index]})" if index in missing else "") for index in moments["index"]),
            *("end" for _ in range(len(rows) - len(moments) - 1)),
        ]
        axes.errorbar(
            np.arange(len(rows)),
            rows["estimate"],
            yerr=np.hstack([_lengths(row) for row in rows.itertuples()]),
            color=color,
            linestyle=dashes,
            marker="o",
            markersize=2.5,
            elinewidth=0.8,
            zorder=3,
        )
        values += [*rows["estimate"], *_seed_dots(axes, tables["runs"], part, rows, color)]
    _logarithmic(axes, values)
    axes.set_xticks(np.arange(len(labels)), labels)
    axes.set_xlim(-0.3, len(labels) - 0.7)
    axes.set_ylabel("largest eigenvalue (nats)")
    axes.set_xlabel("when (t: transition step)")


def _seed_dots(axes: Axes, runs: pd.DataFrame, part: str, rows: pd.DataFrame, color: str) -> list[float]:
    """Draw the value of each seed beside the estimate of every row, and return all values."""
    drawn: list[float] = []
    of_part = runs[(runs["part"] == part) & (runs["null"] == "")]
    for place, (quantity, step, index) in enumerate(zip(rows["quantity"], rows["step"], rows["index"], strict=True)):
        chosen = (of_part["quantity"] == quantity) & (of_part["step"] == step) & (of_part["index"] == index)
        values = of_part.loc[chosen, "value"]
        axes.plot(np.full(len(values), place + 0.12), values, ".", color=color, markersize=2, alpha=0.6, zorder=2)
        drawn += values.tolist()
    return drawn


def _draw_increases(axes: Axes, tables: Mapping[str, pd.DataFrame], weight: str) -> dict[str, Any]:
    """Draw the increase at each moment, side by side in each subspace, in front of its null."""
    summary = tables["summary"]
    first = style.select(summary, quantity=INCREASE, part=f"{weight}-{SUBSPACES[0]}", null="")
    moments = _at_moments(summary, INCREASE, f"{weight}-{SUBSPACES[0]}")
    wanted: list[tuple[str, str, int, int]] = [
        (_moment(int(index)), f"{INCREASE}_at_moment", int(step), int(index))
        for index, step in zip(moments["index"], moments["step"], strict=True)
    ]
    wanted.append(("end", INCREASE, int(first["step"].max()), 0))
    entries: dict[str, Any] = {}
    values: list[float] = []
    missing = _missing(tables["runs"])
    width = 0.8 / len(wanted)
    colors = MOMENT_COLORS[: len(wanted)] if len(wanted) <= len(MOMENT_COLORS) else style.colors(len(wanted))
    for number, ((label, quantity, step, index), color) in enumerate(zip(wanted, colors, strict=True)):
        for place, subspace in enumerate(SUBSPACES):
            where: dict[str, str | int] = {
                "quantity": quantity,
                "part": f"{weight}-{subspace}",
                "step": step,
                "index": index,
            }
            x = place + (number - (len(wanted) - 1) / 2) * width
            null: Any = style.select(summary, **where, null="random_subspace").iloc[0]
            row: Any = style.select(summary, **where, null="").iloc[0]
            seeds = style.select(tables["runs"], **where, null="")["value"]
            (dots,) = axes.plot(np.full(len(seeds), x + 0.2 * width), seeds, ".", color=color, markersize=2, alpha=0.6)
            values += [row.estimate, *seeds]
            if index in missing:
                entries[f"{label}: {missing[index]} seeds"] = dots
                continue
            half = 0.45 * width
            box = axes.fill_between([x - half, x + half], null.low, null.high, color=style.NULL_GREY, alpha=0.35)
            (line,) = axes.plot([x - half, x + half], [null.estimate] * 2, color=style.NULL_GREY, linewidth=1.0)
            null_entry = {"null: random subspace": (box, line)}
            point = axes.errorbar(x, row.estimate, yerr=_lengths(row), color=color, marker="o", markersize=3)
            entries.setdefault(label, point)
    _logarithmic(axes, values)
    axes.set_xticks(np.arange(len(SUBSPACES)), SUBSPACES)
    axes.set_xlim(-0.5, len(SUBSPACES) - 0.5)
    axes.set_ylabel("mean loss increase (nats)")
    return entries | null_entry


def _lengths(row: Any) -> list[list[float]]:
    """Return how far an interval reaches below and above; from a positive value not to zero, for a logarithmic axis."""
    if not np.isfinite([row.low, row.high]).all():
        return [[0.0], [0.0]]
    below = row.estimate - row.low
    return [[min(below, 0.9 * row.estimate) if row.estimate > 0 else below], [row.high - row.estimate]]


def _logarithmic(axes: Axes, values: Iterable[float]) -> None:
    """Make the y axis logarithmic; with room for zero and below if some value is not positive."""
    finite = [value for value in values if np.isfinite(value)]
    if min(finite) > 0:
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=max(map(abs, finite)) / 100 or 1.0)


def _at_moments(summary: pd.DataFrame, quantity: str, part: str) -> pd.DataFrame:
    """Return the measured rows at the moments, none if there are none."""
    chosen = (summary["quantity"] == f"{quantity}_at_moment") & (summary["part"] == part) & (summary["null"] == "")
    return summary[chosen].sort_values("index")


def _missing(runs: pd.DataFrame) -> dict[int, str]:
    """Return, for each moment that some seed did not reach, how many did: "3 of 5"."""
    moments = runs[runs["quantity"] == "curvature_moment"]
    return {
        index: f"{(~censored).sum()} of {len(censored)}"
        for index in moments["index"].unique().tolist()
        if (censored := moments.loc[moments["index"] == index, "censored"]).any()
    }


def _moment(percent: int) -> str:
    return "t" if percent == 100 else f"{percent / 100:g} t"


def _by_number(part: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", part)]


def _words(part: str) -> str:
    """Return the name of a part as one reads it: ``layers.0.attention.query_key`` is "layer 1 query-key"."""
    match = re.fullmatch(r"layers\.(\d+)\.(?:attention\.)?(\w+)", part)
    name = f"layer {int(match[1]) + 1} {match[2]}" if match else part
    return name.replace("_", "-")
