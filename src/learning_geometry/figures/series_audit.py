"""What does not belong in a series of checkpoints: how far each lies from the others, and what was found."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("series_audit",)
"""The measurements whose tables the figure reads."""

MOST = {"experiments": 6}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

KINDS = {
    "missing_step": "step missing",
    "same_bytes": "file as an earlier one",
    "same_parameters": "parameters as before",
    "out_of_place": "out of place",
    "norm_jumps": "norm of a matrix jumps",
    "not_finite": "numbers not finite",
    "never_moves": "tensor never moves",
    "type_changes": "types change",
}
"""Kinds of findings and what they are called, from the top."""

REFERENCES = {0.5: "straight path", 1.0: "independent steps", 2.0: "around one place"}
"""Detours of paths of known shape."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw three panels over training for each experiment, each seed a line or a colour of its own.

    (a) Distance of each checkpoint from the one before, as a share of its norm. (b) Detour: how far each lies out of
    the way from the one before to the one after, with the values of a straight path, of independent steps and of points
    around one place. (c) Findings by kind, at their steps; the number beside a kind is that of all findings.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or one was not measured.
    """
    return style.blocks("series_audit", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    runs = tables["runs"]
    steps = style.select(runs, quantity="audit_findings")["step"].tolist() + _steps(runs)
    seeds = sorted(runs["seed"].unique().tolist())
    looks = dict(zip(seeds, style.colors(len(seeds)), strict=True))
    figure = canvas(style.DOUBLE_WIDTH, 4.8)
    panels = figure.subplots(3, sharex=True, height_ratios=(1.0, 1.0, 1.3))
    _draw_course(panels[0], runs, "audit_distance", looks)
    _draw_course(panels[1], runs, "audit_detour", looks)
    panels[0].set_ylabel("distance from the one\nbefore (share of norm)")
    panels[1].set_ylabel("detour")
    low, high = panels[1].get_ylim()
    panels[1].set_ylim(min(low, 0.9 * min(REFERENCES)), max(high, 1.15 * max(REFERENCES)))
    for value, name in REFERENCES.items():
        panels[1].axhline(value, color=style.NULL_GREY, linewidth=0.6, linestyle=":", zorder=0)
        where = panels[1].get_yaxis_transform()
        panels[1].text(0.995, value, name, transform=where, fontsize=style.SMALL, va="bottom", ha="right")
    _draw_findings(panels[2], runs, looks)
    for axes, letter in zip(panels, "abc", strict=True):
        style.panel_letter(axes, letter)
    style.step_axis(panels[-1], steps)
    shown = list(looks)[:8]
    entries = {f"seed {seed}": panels[0].plot([], [], color=looks[seed])[0] for seed in shown}
    if len(looks) > len(shown):
        entries[f"and {len(looks) - len(shown)} more"] = panels[0].plot([], [], color="none")[0]
    style.legend_above(panels[0], entries, columns=4)


def _steps(runs: pd.DataFrame) -> list[int]:
    return [int(step) for step in runs.loc[runs["quantity"] == "audit_norm", "step"]]


def _draw_course(axes: Axes, runs: pd.DataFrame, quantity: str, looks: Mapping[int, str]) -> None:
    rows = runs[runs["quantity"] == quantity]
    for seed, of_seed in rows.groupby("seed"):
        ordered = of_seed.sort_values("step")
        axes.plot(ordered["step"], ordered["value"], ".-", color=looks[int(str(seed))], linewidth=0.7, markersize=2.5)
    values = rows["value"].to_numpy()
    positive = values[values > 0]
    if len(positive) and positive.max() > 5 * positive.min():
        axes.set_yscale("log")
    elif len(positive):
        axes.set_ylim(bottom=0.0)
    else:
        style.note_empty(axes, "fewer than three checkpoints that can be compared")


def _draw_findings(axes: Axes, runs: pd.DataFrame, looks: Mapping[int, str]) -> None:
    """Draw a row for each kind, and in it a mark at each step of a finding, seeds side by side."""
    spread = 0.5 / max(len(looks), 1)
    for row, kind in enumerate(KINDS):
        found = runs[runs["quantity"] == f"audit_{kind}"]
        for number, (seed, color) in enumerate(looks.items()):
            steps = sorted(found.loc[found["seed"] == seed, "step"].unique().tolist())
            height = row + spread * (number - (len(looks) - 1) / 2)
            axes.plot(steps, np.full(len(steps), height), "o", color=color, markersize=3)
    counted = runs[runs["quantity"] == "audit_findings"].groupby("data")["value"].sum()
    axes.set_yticks(range(len(KINDS)), [f"{words}: {int(counted.get(kind, 0))}" for kind, words in KINDS.items()])
    axes.set_ylim(len(KINDS) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    for boundary in range(1, len(KINDS)):
        axes.axhline(boundary - 0.5, color=style.NULL_GREY, linewidth=0.3, alpha=0.5, zorder=0)
