"""What the embedding's subspaces and the bridge are for: head scores and errors with each ablated, against controls."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from learning_geometry.figures import style

REQUIRES = ("copying_errors", "subspace_function")
"""The measurements whose tables the figure reads."""

RANK = 10
GROUPS = {"top": style.GREEN, "medium": style.BLUE, "bottom": style.VERMILION}
COLUMNS = {"previous_token_score": "previous-token score", "induction_score": "induction score", "error": "OOD error"}
CONTROLS = {"random_subspace": "dim", "equal_norm_ablation": "norm"}
HARM = LinearSegmentedColormap.from_list("harm", [style.BLUE, "white", style.VERMILION])
HATCH = "////"
ROW_HEIGHT = 0.25
"""In inches."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


class Row(NamedTuple):
    """One row of the table."""

    component: str
    """Empty where it is that of the row above."""
    subspace: str
    part: str
    kind: str
    rank: int = 0


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw the table of double dissociation at the last checkpoint, and its main cells over training.

    (a) A row for each component and subspace ablated from it, and for the bridge (of rank 10, or the nearest measured)
    ablated or kept alone; a column each for the previous-token score, the induction score and the out-of-distribution
    error. A cell has the change against the intact model with its interval, and the ranges of both controls; it is
    coloured by the harm, hatched if the mean change lies within the range of a control, and empty if nothing can
    change. (b) Previous-token score without the embedding's subspaces in the first layer's query-key, (c, d) induction
    score without them in the second layer's queries and keys, (e) error with the bridge ablated from the keys or kept
    alone, over training.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("subspace_function", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    writer, reader = _layers(tables["summary"])
    rows = _rows(tables["summary"], writer, reader)
    last = tables["summary"][tables["summary"]["step"] == tables["summary"]["step"].max()]
    figure = canvas(style.DOUBLE_WIDTH, 1.0 + ROW_HEIGHT * len(rows) + 1.9)
    grid = figure.add_gridspec(2, 4, height_ratios=[ROW_HEIGHT * len(rows) + 0.3, 1.45])
    table = figure.add_subplot(grid[0, :])
    _draw_table(table, last, rows)
    panels = [figure.add_subplot(grid[1, column]) for column in range(4)]
    entries = _draw_panels(panels, tables, writer, reader)
    transition = style.mark_transition(panels, tables["summary"], experiment)
    if transition is not None:
        entries["mean step of OOD error < 0.5"] = transition
    entries |= {"within the range of a control": Patch(facecolor="white", edgecolor=style.NULL_GREY, hatch=HATCH)}
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), HARM), ax=table, fraction=0.02, pad=0.01, aspect=40)
    bar.set_label("score lost, error gained")
    style.legend_on_top(figure, entries, columns=4)


def _layers(summary: pd.DataFrame) -> tuple[str, str]:
    """Return the parts of the layers of the previous-token and of the induction head, such as ``layers.0``."""
    parts = pd.Series(style.select(summary, quantity="error_change_after_ablation")["part"].unique())
    ends = [f".{role}-embedding.medium" for role in ("value_output", "key")]
    writer, reader = (str(parts[parts.str.endswith(end)].iloc[0]).removesuffix(end) for end in ends)
    return writer, reader


def _rows(summary: pd.DataFrame, writer: str, reader: str) -> list[Row]:
    first, second = (f"layer {int(part.split('.')[1]) + 1}" for part in (writer, reader))
    ablated, mean_kept = "change_after_ablation", "change_after_ablation_mean_kept"
    components = [
        (f"{first} query-key", f"{writer}.query_key", ablated),
        ("same, mean kept", f"{writer}.query_key", mean_kept),
        (f"{first} value-output", f"{writer}.value_output", ablated),
        (f"{second} query-key", f"{reader}.query_key", ablated),
        (f"{second} query alone", f"{reader}.query", ablated),
        (f"{second} key alone", f"{reader}.key", ablated),
        ("read-out", "readout", ablated),
    ]
    rows = [
        Row(name * (group == "top"), group, f"{part}-embedding.{group}", kind)
        for name, part, kind in components
        for group in GROUPS
    ]
    for name, part in ((f"{second} key", f"{reader}.key-bridge"), (f"{first} output", f"{writer}.output-bridge")):
        of_bridge = summary[(summary["part"] == part) & (summary["null"] == "")]
        if of_bridge.empty:  # no rank below the width
            continue
        rank = style.nearest_index(of_bridge, RANK)
        rows += [
            Row(name, f"bridge, r = {rank}", part, ablated, rank),
            Row("", f"bridge alone, r = {rank}", part, "change_kept_alone", rank),
        ]
    return rows


def _draw_table(axes: Axes, last: pd.DataFrame, rows: list[Row]) -> None:
    for at, row in enumerate(rows):
        for column, name in enumerate(COLUMNS):
            of_part = last[(last["part"] == row.part) & (last["index"] == row.rank)]
            cell = of_part[of_part["quantity"] == f"{name}_{row.kind}"]
            if not cell.empty:
                _draw_cell(axes, cell, column, at, harmful=1 if name == "error" else -1)
        if row.component:
            axes.axhline(at, color=style.BLACK, linewidth=0.5 if at else 0.0, clip_on=False)
    axes.set(xlim=(0, len(COLUMNS)), ylim=(len(rows), 0))
    labels = [f"{row.component + ':  ' if row.component else ''}{row.subspace}" for row in rows]
    axes.set_yticks(np.arange(len(rows)) + 0.5, labels, fontsize=6.5)
    axes.set_xticks(np.arange(len(COLUMNS)) + 0.5, [f"change of {name}" for name in COLUMNS.values()], fontsize=7)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    step, seeds = int(last["step"].max()), style.seeds_text(last[(last["null"] == "") & (last["part"] == rows[0].part)])
    axes.set_title(f"without the subspace, step {step}: mean [95 % interval], {seeds}; ranges of controls", loc="left")
    style.panel_letter(axes, "a")


def _draw_cell(axes: Axes, cell: pd.DataFrame, column: int, at: int, harmful: int) -> None:
    by_null = {
        str(null): (float(estimate), float(low), float(high))
        for null, estimate, low, high in cell[["null", "estimate", "low", "high"]].itertuples(index=False)
    }
    estimate, *ends = by_null[""]
    color = HARM(Normalize(-1, 1)(harmful * estimate))
    axes.add_patch(Rectangle((column, at), 1, 1, facecolor=color, edgecolor="white", linewidth=0.6))
    ranges = {name: by_null[null][1:] for null, name in CONTROLS.items() if null in by_null}
    if any(low <= estimate <= high for low, high in ranges.values()):
        hatched = Rectangle((column, at), 1, 1, facecolor="none", edgecolor=style.NULL_GREY, hatch=HATCH, alpha=0.5)
        axes.add_patch(hatched)
    text = _number(estimate)
    if np.isfinite(ends).all():
        text += f" [{', '.join(_number(end) for end in ends)}]"
    controls = "   ".join(f"{name} {_number(low)}\u2026{_number(high)}" for name, (low, high) in ranges.items())
    axes.text(column + 0.5, at + 0.30, text, ha="center", va="center", fontsize=6.3)
    axes.text(column + 0.5, at + 0.74, controls, ha="center", va="center", fontsize=4.9, color="#333333")


def _number(value: float) -> str:
    r"""Write a change with two digits and a true minus.

    >>> _number(-0.123), _number(0.001), _number(-0.001)
    ('−0.12', '0.00', '0.00')
    """
    text = f"{value:.2f}"
    return (text.removeprefix("-") if float(text) == 0 else text).replace("-", "\u2212")


def _draw_panels(panels: list[Axes], tables: Mapping[str, pd.DataFrame], writer: str, reader: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    first, second = (f"layer {int(part.split('.')[1]) + 1}" for part in (writer, reader))
    shown = [
        ("previous_token_score", f"{writer}.query_key", f"{first}\nquery-key"),
        ("induction_score", f"{reader}.query", f"{second}\nquery"),
        ("induction_score", f"{reader}.key", f"{second}\nkey"),
    ]
    for axes, (score, component, title) in zip(panels[: len(shown)], shown, strict=True):
        where: dict[str, str | int] = {"quantity": f"{score}_after_ablation"}
        for group, color in GROUPS.items():
            at = where | {"part": f"{component}-embedding.{group}"}
            entries |= style.curve(axes, tables, at, color, f"without {group}")
            style.null_band(axes, style.select(tables["summary"], **at, null="random_subspace"), "step", color=color)
        _finish(axes, tables, score, f"ablated from\n{title}")
    bridge = f"{reader}.key-bridge"
    axes = panels[-1]
    of_bridge = tables["summary"][(tables["summary"]["part"] == bridge)]
    if of_bridge.empty:
        axes.text(0.5, 0.5, "no bridge of a rank\nbelow the width", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
    else:
        rank = style.nearest_index(of_bridge, RANK)
        for kind, color, label in (
            ("after_ablation", style.PURPLE, "without bridge"),
            ("kept_alone", style.SKY_BLUE, "bridge alone"),
        ):
            of_kind: dict[str, str | int] = {"quantity": f"error_{kind}", "part": bridge, "index": rank}
            entries |= style.curve(axes, tables, of_kind, color, label)
            for null, line in (("random_subspace", ":"), ("equal_norm_ablation", "--")):
                style.null_band(axes, style.select(tables["summary"], **of_kind, null=null), "step", line, color)
        _finish(axes, tables, "error", f"bridge, r = {rank},\nin {second}\nkey")
    entries |= {"intact": panels[0].lines[-1]}
    (dotted,) = panels[0].plot([], [], color=style.NULL_GREY, linestyle=":", linewidth=0.9)
    (dashed,) = panels[0].plot([], [], color=style.NULL_GREY, linestyle="--", linewidth=0.9)
    entries |= {"control: equal dimension": dotted, "control: equal norm": dashed}
    for axes, letter in zip(panels, "bcde", strict=True):
        style.panel_letter(axes, letter)
    return entries


def _finish(axes: Axes, tables: Mapping[str, pd.DataFrame], score: str, title: str) -> None:
    intact = style.select(tables["summary"], quantity=f"{score}_intact", null="").sort_values("step")
    axes.set_ylim(0.0, 1.02)
    axes.set_ylabel(COLUMNS[score])
    axes.set_title(title)
    style.step_axis(axes, intact["step"].tolist())
    axes.plot(intact["step"], intact["estimate"], color=style.BLACK, linewidth=0.8, zorder=2.5)
