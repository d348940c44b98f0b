"""What a sparse dictionary of the states that carry the values tells and does: ablations, decoding, information."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("sparse_execution",)
"""The measurements whose tables the figure reads."""

ABLATION, PUBLISHED = "accuracy_after_ablation", "accuracy_after_published_ablation"
CHOICES = {
    "value": (style.VERMILION, "most informative of the value"),
    "marker": (style.BLUE, "most informative of the marker"),
    "variance": (style.GREEN, "of highest variance"),
}
CONTROLS = {"intact": "-", "reconstruction": "--", "mean": "-."}
CONTROL_LABELS = {"intact": "intact", "reconstruction": "reconstruction, nothing ablated", "mean": "all at their mean"}

LABELS = {
    "marker": "which marker\n(routing)",
    "running_sum": "sum so far\n(execution)",
    "running_sum_after_first": "sum so far, not\nat first marker",
    "value": "value",
}
SOURCES = {
    "latents": (style.PURPLE, "o", "latents before last attention"),
    "states": (style.PURPLE, "s", "raw states before it"),
    "final_latents": (style.ORANGE, "o", "latents after last layer"),
    "final_states": (style.ORANGE, "s", "raw states after it"),
}
SPREAD = 0.18
"""Distance between the sources of one label."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw what is left of the accuracy when latents are ablated, and what latents and states tell.

    (a) Accuracy at the last position against the number of latents ablated from the states that the last attention
    reads, by how they are chosen; horizontal lines for the controls; a diamond for the published edit, after which
    nothing reads. (b) Accuracy of linear probes, and (c) largest information of a single latent or coordinate, on the
    marker, the running sum and the value, each with its null of shuffled labels.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names; "tasks", of whose "modulus" chance follows.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("sparse_execution", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    figure = canvas(style.DOUBLE_WIDTH, 4.0)
    grid = figure.add_gridspec(1, 3, width_ratios=(1.25, 1.0, 0.85))
    ablation, decoding, information = (figure.add_subplot(grid[0, column]) for column in range(3))
    modulus = options.get("tasks", {}).get(experiment, {}).get("modulus")
    entries = _draw_ablations(ablation, tables, modulus)
    labels = _draw_labels(decoding, tables, "decoding_accuracy")
    # the legend is filled column by column: the sources come last, below each other
    entries |= dict(sorted(labels.items(), key=lambda entry: not entry[0].startswith("null")))
    _draw_labels(information, tables, "best_latent_information")
    information.tick_params(labelleft=False)
    decoding.set(xlim=(0, 1.03), xlabel="accuracy of a linear probe")
    information.set_xlim(left=0)
    information.set_xlabel("information of the best\nsingle latent (nats)")
    for axes, letter in zip((ablation, decoding, information), "abc", strict=True):
        style.panel_letter(axes, letter)
    style.legend_on_top(figure, entries, columns=3)


def _draw_ablations(axes: Axes, tables: Mapping[str, pd.DataFrame], modulus: int | None) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    rows = {name: style.select(table, quantity=ABLATION) for name, table in tables.items()}
    for choice, (color, label) in CHOICES.items():
        of_choice = {name: _ending(table, f"-{choice}") for name, table in rows.items()}
        if of_choice["summary"].empty:  # no markers to tell apart
            continue
        summary = style.select(of_choice["summary"], null="")
        if summary["n"].max() > 1:
            style.seed_lines(axes, style.select(of_choice["runs"], null=""), "index", color)
        entries[f"{label}, {style.seeds_text(summary)}"] = style.mean_line(axes, summary, "index", color)
    null = style.select(_ending(rows["summary"], "-value"), null="random")
    entries["null: random latents, range"] = style.null_band(axes, null, "index")
    published = style.select(tables["summary"], quantity=PUBLISHED, null="")
    published = published[published["index"] > 0]
    (entries["published edit, any choice"],) = axes.plot(
        published["index"],
        published["estimate"],
        "D",
        color=style.BLACK,
        markerfacecolor="white",
        markersize=5,
        zorder=4,
    )
    for control, line in CONTROLS.items():
        level = _ending(rows["summary"], f"-{control}")["estimate"].iloc[0]
        entries[CONTROL_LABELS[control]] = axes.axhline(
            level, color=style.BLACK, linestyle=line, linewidth=0.8, zorder=1.8
        )
    if modulus:
        axes.axhline(1 / modulus, color=style.BLACK, linestyle=":", linewidth=0.8)
        axes.annotate("chance", (0.02, 1 / modulus), xytext=(0, 2), xycoords=("axes fraction", "data"),
            textcoords="offset points", fontsize=7)  # fmt: skip
    counts = sorted(set(_ending(rows["summary"], "-value")["index"]))
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_xticks([], minor=True)
    axes.set_xlim(counts[0] / 1.15, counts[-1] * 1.25)
    axes.set_ylim(0.0, 1.03)
    axes.set_xlabel("latents ablated")
    axes.set_ylabel("accuracy")
    return entries


def _draw_labels(axes: Axes, tables: Mapping[str, pd.DataFrame], quantity: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    rows = {name: style.select(table, quantity=quantity) for name, table in tables.items()}
    parts = set(rows["summary"]["part"])
    shown = [label for label in LABELS if f"latents-{label}" in parts]
    for at, label in enumerate(shown):
        for offset, (source, (color, marker, name)) in enumerate(SOURCES.items()):
            place = at + SPREAD * (offset - (len(SOURCES) - 1) / 2)
            part = {table: _ending(of, f"{source}-{label}", whole=True) for table, of in rows.items()}
            if part["summary"].empty:
                continue
            measured = style.select(part["summary"], null="").iloc[0]
            seeds = style.select(part["runs"], null="")["value"]
            axes.plot(seeds, np.full(len(seeds), place), ".", color=color, markersize=2.5, alpha=0.5, zorder=1)
            ends = [[measured["estimate"] - measured["low"]], [measured["high"] - measured["estimate"]]]
            face = color if marker == "o" else "white"
            point = axes.errorbar(
                measured["estimate"], place, xerr=None if np.isnan(ends).any() else ends, fmt=marker, color=color,
                markersize=4, markerfacecolor=face, elinewidth=0.9, zorder=3,
            )  # fmt: skip
            entries.setdefault(f"{name}, n = {measured['n']}", point)
            null = style.select(part["summary"], null="shuffled_labels").iloc[0]
            (line,) = axes.plot(
                [null["low"], null["high"]], [place, place], color=style.NULL_GREY, linewidth=2.5, zorder=1.5,
                solid_capstyle="butt",
            )  # fmt: skip
            entries.setdefault("null: shuffled labels, range", line)
            from_position = part["summary"][part["summary"]["null"] == "position_only"]
            if len(from_position):
                (tick,) = axes.plot(from_position["estimate"], [place], "|", color=style.CONTROL_GREY, markersize=6)
                entries.setdefault("null: position alone", tick)
    axes.set_yticks(range(len(shown)), [LABELS[label] for label in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    for at in range(1, len(shown)):
        axes.axhline(at - 0.5, color=style.NULL_GREY, linewidth=0.3)
    return entries


def _ending(table: pd.DataFrame, end: str, whole: bool = False) -> pd.DataFrame:
    return table[table["part"] == end] if whole else table[table["part"].str.endswith(end)]
