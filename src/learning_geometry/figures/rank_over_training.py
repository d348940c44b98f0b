"""When the activations of trained runs become low-dimensional, part by part."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("rank_over_training",)
"""The measurements whose tables the figure reads."""

QUANTITIES = {
    "directions_99": "directions for 99 % of\nvariance (share of width)",
    "effective_rank": "effective rank\n(share of width)",
}
EVENT = "lasting_first_crossing_of_directions_99"

PARTS = {
    "residual_pre": ("stream that enters", style.BLACK),
    "attention.z": ("heads' mix z", style.SKY_BLUE),
    "attention.output": ("attention output", style.VERMILION),
    "residual_mid": ("stream after attention", style.GREEN),
    "mlp.output": ("MLP output", style.PURPLE),
}
"""Part of a layer -> label and colour."""
SHOWN_LAST = "attention.output"
"""On top of the others: of a layer that attends from one token alone the stream after it has the same dimensions."""

LINES = ("-", "--", ":")
"""Of the test sets of an experiment, in order of their names, as long as these suffice."""

COLUMNS = 3
"""Layers side by side."""

TRANSITIONS = ("first_step_below_0.5", "grok_step")
"""Events that are marked where the tables have them: out of distribution, and on pairs held out."""

MOST = {"experiments": 6}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw a column of two panels for every layer of every experiment: both dimensions over training.

    Each part in its colour, each test set in its kind of line: mean over seeds, of the first test set with its 95 %
    interval as a band, and of the attention output with single seeds too, thin. Nulls: isotropic vectors (grey, of the
    attention output), and the attention output of the untrained model (horizontal, in its colour). Ticks at the bottom
    of the upper panel: the seeds' lasting first crossings of the attention output on the first test set. Dash-dotted:
    the mean step of the transition (out of distribution, or of grokking), where every seed has one.

    Args:
        tables: "summary", summary rows of all experiments; "runs", tidy rows of all their seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or one was not measured; the message names the quantity.
    """
    experiments, tables = style.shown("rank_over_training", REQUIRES, tables, options)
    columns = [(name, layer) for name in experiments for layer in _layers(tables["summary"], name)]
    across = min(COLUMNS, len(columns))
    blocks = -(-len(columns) // across)
    letters = iter(style.letters(len(QUANTITIES) * len(columns)))
    parts: dict[str, Any] = {}
    sets: dict[Any, list[str]] = {}
    others: dict[str, Any] = {}
    with style.applied():
        figure = Figure(figsize=(style.DOUBLE_WIDTH, 0.7 + 3.6 * blocks), layout="constrained")
        grid = figure.add_gridspec(2 * blocks, across)
        for place, (experiment, layer) in enumerate(columns):
            block, column = divmod(place, across)
            of_one = {name: table[table["experiment"] == experiment] for name, table in tables.items()}
            first: Axes | None = None
            for row, (quantity, label) in enumerate(QUANTITIES.items()):
                axes = figure.add_subplot(grid[2 * block + row, column], sharex=first)
                of_parts, of_sets, nulls = _draw_ranks(axes, of_one, layer, quantity)
                parts, others = parts | of_parts, others | nulls
                for line, data in of_sets.items():
                    sets[line] = list(dict.fromkeys([*sets.get(line, []), data]))
                axes.set_ylim(0.0, 1.03)
                if column == 0:
                    axes.set_ylabel(label)
                else:
                    axes.tick_params(labelleft=False)
                style.panel_letter(axes, next(letters))
                if first is None:
                    first = axes
                    others |= _mark_seeds(axes, of_one, layer)
                    rows = style.select(of_one["summary"], quantity=quantity, null="")
                    name = experiment.replace("_", " ")
                    seeds = style.seeds_text(rows)
                    axes.set_title(
                        style.wrapped(f"{name}, layer {layer + 1}", seeds, 34), loc="left", fontsize=7, pad=4
                    )
                    axes.tick_params(labelbottom=False)
                    steps = rows["step"].tolist()
                else:
                    style.step_axis(axes, steps)
                others |= _mark_transition(axes, of_one["summary"])
        # experiments have test sets of other names, in the same kinds of line
        lines = {
            ", ".join(names): axes.plot([], [], color=style.CONTROL_GREY, linestyle=line)[0]
            for line, names in sets.items()
        }
        style.legend_on_top(figure, parts | lines | others, columns=3)
    return figure


def _layers(summary: pd.DataFrame, experiment: str) -> list[int]:
    rows = style.select(summary, experiment=experiment, quantity=next(iter(QUANTITIES)), null="")
    # beside layers there may be means over them
    return sorted({int(part.split(".")[1]) for part in rows["part"] if part.startswith("layers.")})


def _test_sets(summary: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    """Yield the test sets shown and their lines."""
    rows = style.select(summary, quantity=next(iter(QUANTITIES)), null="")
    names = sorted(rows["data"].unique().tolist())
    lines = LINES[: len(names)] if len(names) <= len(LINES) else style.line_styles(len(names))
    return zip(names, lines, strict=True)


def _draw_ranks(
    axes: Axes, tables: Mapping[str, pd.DataFrame], layer: int, quantity: str
) -> tuple[dict[str, Any], dict[Any, str], dict[str, Any]]:
    """Return the legend entries of parts, the test set of each kind of line, and the entries of nulls."""
    parts: dict[str, Any] = {}
    sets: dict[Any, str] = {}
    nulls: dict[str, Any] = {}
    shown = style.select(tables["summary"], quantity=quantity, null="")
    for number, (data, line) in enumerate(_test_sets(tables["summary"])):
        for part in sorted(PARTS, key=lambda part: part == SHOWN_LAST):
            label, color = PARTS[part]
            where = {"quantity": quantity, "part": f"layers.{layer}.{part}", "data": data}
            rows = shown[(shown["part"] == where["part"]) & (shown["data"] == data)]
            if rows.empty or rows["estimate"].isna().all():  # no MLP, or nothing that varies
                continue
            # intervals of one test set are enough to see, as the others have the same runs
            rows = rows if number == 0 else rows.assign(low=np.nan, high=np.nan)
            handle = style.mean_line(axes, rows, "step", color, line)
            for band in handle[1:]:
                band.set_alpha(0.15)  # several over one another
            if number == 0:
                parts[label] = handle
            if number == 0 and part == SHOWN_LAST:
                if rows["n"].max() > 1:
                    style.seed_lines(axes, style.select(tables["runs"], **where, null=""), "step", color)
                isotropic, untrained = (
                    style.select(tables["summary"], **where, null=null) for null in ("isotropic", "untrained")
                )
                nulls["null: isotropic vectors"] = style.null_band(axes, isotropic, "step")
                label = f"null: untrained {label}"
                nulls[label] = style.null_band(axes, untrained, "step", "-.", color)
        sets[line] = data.replace("_", " ")
    ordered = {label: parts[label] for label, _ in PARTS.values() if label in parts}
    return ordered, sets, nulls


def _mark_seeds(axes: Axes, tables: Mapping[str, pd.DataFrame], layer: int) -> dict[str, Any]:
    data, _ = next(_test_sets(tables["summary"]))
    label, color = PARTS["attention.output"]
    where = {"quantity": EVENT, "part": f"layers.{layer}.attention.output", "data": data}
    events = style.select(tables["runs"], **where, null="")
    happened = events.loc[~events["censored"], "value"]
    if happened.empty:
        return {}
    (ticks,) = axes.plot(
        happened, [0.05] * len(happened), "|", transform=axes.get_xaxis_transform(), markersize=7, color=color, zorder=4
    )
    return {f"{label}'s first crossing, seeds": ticks}


def _mark_transition(axes: Axes, summary: pd.DataFrame) -> dict[str, Any]:
    rows = summary[summary["quantity"].isin(TRANSITIONS) & (summary["null"] == "")]
    rows = rows[(rows["quantity"] != TRANSITIONS[0]) | (rows["data"] == "out_of_distribution")]
    if rows.empty or rows.iloc[0]["censored"]:
        return {}
    line = axes.axvline(rows.iloc[0]["estimate"], color=style.BLACK, linestyle="-.", linewidth=0.5, zorder=0)
    return {"transition, mean": line}
