"""How many dimensions the weights move in during training, beside nulls: by attention matrix, layer and model."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from learning_geometry.figures import style

REQUIRES = ("trajectory_geometry",)
"""The measurements whose tables the figure reads."""

R90, P_VALUE = "trajectory_r90", "trajectory_r90_p_value_"
LEVEL = 0.05
"""A p value up to this tells a matrix of one seed from a null."""

MATRIX = re.compile(r"layers\.(\d+)\.attention\.(query|key|value|output)$")
LAYER = re.compile(r"layers\.(\d+)\.attention$")
ROLES = ("query", "key", "value", "output")

PUBLISHED = {
    "query": (5.9, 5.55, 5.0, 4.4, 4.1),
    "key": (6.05, 5.65, 5.05, 4.55, 4.1),
    "value": (3.8, 3.8, 3.6, 3.15, 3.0),
    "output": (3.4, 3.55, 3.45, 3.1, 2.55),
}
"""r90 from the first layer to the fifth, mean over 20 seeds, read off a figure of arXiv 2602.10496: marker sums, width
128, learning rate 3e-4, 20 000 steps with a snapshot every 500."""

NULLS = {
    "isotropic_walk": ("null: isotropic walk", "s", style.NULL_GREY),
    "step_norm_walk": ("null: walk with the run's step norms", "D", style.CONTROL_GREY),
    "shuffled_increments": ("null: the run's steps, shuffled", "^", style.NULL_GREY),
    "random_signs": ("null: the run's steps, random signs", "v", style.CONTROL_GREY),
    "ornstein_uhlenbeck": ("null: Ornstein-Uhlenbeck process", "P", style.NULL_GREY),
    "weight_decay": ("null: weight decay alone", "_", style.CONTROL_GREY),
}
"""Legend entry, marker and grey."""

WEAKEST_AND_STRICTEST = ("isotropic_walk", "shuffled_increments")
"""The nulls of the panels of layers."""

EXPERIMENTS = (style.BLUE, style.GREEN, style.PURPLE, style.SKY_BLUE)
"""Colours of the first experiment and of further ones: as many as ``MOST`` allows."""

OF_LAYERS = {
    "trajectory_pc1_share": "PC1 share",
    "trajectory_participation_ratio": "participation ratio",
    "trajectory_r99": "r99",
}

NEIGHBOURS = {"two_nearest_neighbours_dimension": "TwoNN", "maximum_likelihood_dimension": "MLE"}

WIDTH_OF_SLOT = 0.86

Slot = dict[str, str]
"""Column values that select what stands at one place of the x axis."""

NAMED = True
"""It tells matrices apart by their names, which must be those of the workflow's transformer."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw r90 by matrix and layer beside every null, the verdicts, and other dimensions; a block for each experiment.

    (a to d) r90 of query, key, value and output matrices by layer: mean over seeds with its 95 % interval, single
    seeds, every null (mean and central 95 % range), and the published values, by the number of the layer. (e) For each
    matrix and null, in how many seeds r90 is below it, p <= .05. (f to h) PC1 share, participation ratio and r99 of
    the attention of each layer, and of all parameters, beside the isotropic walk and the run's own steps in random
    order. (i) Estimates from nearest neighbours, for all parameters, where they were measured. The other
    experiments show in every block as means with intervals in (a to d) and (f to i). Published values are shown for
    marker sums only.

    Args:
        tables: "summary", summary rows of all experiments; "runs", tidy rows of all their seeds.
        options: "experiments", each of which has a block with its seeds and nulls; "tasks", for each of them the
            settings of its task, of which "name" is read.

    Raises:
        ValueError: no experiment, or one was not measured; the message names the quantity.
    """
    experiments, tables = style.shown("trajectory_dimension", REQUIRES, tables, options)
    for name in experiments:
        style.select(tables["summary"], experiment=name, quantity=R90, null="")
    looks = colors_of(experiments)

    def one(canvas: style.Canvas, _: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str) -> None:
        _draw_one(canvas, tables, options, beginning_with(experiment, looks))

    return style.blocks("trajectory_dimension", REQUIRES, tables, options, one)


def colors_of(experiments: Sequence[str]) -> dict[str, str]:
    """Return the colour of each experiment, the same in all blocks."""
    return {name: EXPERIMENTS[number] for number, name in enumerate(experiments)}


def beginning_with(first: str, looks: Mapping[str, str]) -> dict[str, str]:
    """Return the colours of the experiments, the one of a block first."""
    return {first: looks[first], **looks}


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiments: Mapping[str, str]
) -> None:
    """Draw the block of the first of the experiments, whose colours are given, beside the others' means."""
    first = next(iter(experiments))
    neighbours = [name for name in NEIGHBOURS if _measured(tables["summary"], first, name)]
    figure = canvas(style.DOUBLE_WIDTH, 7.4)
    bands = figure.add_gridspec(3, 1, height_ratios=(2.5, 1.0, 1.2))
    of_roles, of_parts = bands[0].subgridspec(2, 2), bands[2].subgridspec(1, len(OF_LAYERS) + bool(neighbours))
    panels = [figure.add_subplot(of_roles[row, column]) for row in (0, 1) for column in (0, 1)]
    published = PUBLISHED if of_marker_sums(options, first) else {}
    entries = _draw_roles(panels, tables, experiments, published)
    verdicts = figure.add_subplot(bands[1])
    _draw_verdicts(verdicts, tables["runs"], first)
    below = [figure.add_subplot(of_parts[0, column]) for column in range(of_parts.ncols)]
    for axes, quantity in zip(below[: len(OF_LAYERS)], OF_LAYERS, strict=True):
        _draw_layers(axes, tables, experiments, quantity)
    if neighbours:
        _draw_neighbours(below[-1], tables, experiments, neighbours)
    lettered = [*panels, verdicts, *below]
    for axes, letter in zip(lettered, style.letters(len(lettered)), strict=True):
        style.panel_letter(axes, letter)
    style.legend_on_top(figure, entries, columns=3)


def in_words(experiment: str) -> str:
    """Return the name of an experiment with spaces."""
    return experiment.replace("_", " ")


def of_marker_sums(options: Mapping[str, Any], experiment: str) -> bool:
    """Return whether an experiment has the task that the published numbers are about."""
    task: Mapping[str, Any] = options.get("tasks", {}).get(experiment, {})
    return task.get("name") == "marker_sums"


def number_of_layers(summary: pd.DataFrame, experiments: Iterable[str], pattern: re.Pattern[str]) -> int:
    """Return the largest number of layers of some experiments, from the parts that match a pattern.

    Raises:
        ValueError: no part matches.
    """
    parts = summary.loc[summary["experiment"].isin(experiments), "part"].unique()
    layers = [int(match[1]) for part in parts if (match := pattern.match(part))]
    if not layers:
        raise ValueError(f"the tables of {', '.join(experiments)} hold no part of attention, only {sorted(parts)}")
    return 1 + max(layers)


def draw_slots(
    axes: Axes,
    tables: Mapping[str, pd.DataFrame],
    slots: Sequence[Slot],
    experiments: Mapping[str, str],
    nulls: Sequence[str],
    published: Sequence[float] = (),
) -> dict[str, Any]:
    """Draw side by side, at each place 0, 1, ... of the x axis: experiments, published values, nulls of the first.

    Args:
        axes: where to draw.
        tables: "summary" and "runs".
        slots: what stands at each place.
        experiments: name -> colour; of the first seeds and nulls are shown.
        nulls: names of those to be shown, if there are any.
        published: a value for each place.

    Returns:
        The legend entries of what was drawn.
    """
    summary, runs = (_at_places(tables[name], slots) for name in ("summary", "runs"))
    first = next(iter(experiments))
    of_first = summary[summary["experiment"] == first]
    shown = [null for null in nulls if (of_first["null"] == null).any()]
    items = [*experiments, *(["published"] if published else []), *shown]
    spacing = WIDTH_OF_SLOT / len(items)
    offsets = {item: spacing * (number - (len(items) - 1) / 2) for number, item in enumerate(items)}
    entries: dict[str, Any] = {}
    for experiment, color in experiments.items():
        rows = summary[(summary["experiment"] == experiment) & (summary["null"] == "")]
        if rows.empty:
            continue
        entries[f"{in_words(experiment)}, {style.seeds_text(rows)}"] = _with_ranges(
            axes, rows["place"] + offsets[experiment], rows, color, marker="o", markersize=3.2, linewidth=1.1, zorder=3
        )
        if experiment == first and rows["n"].max() > 1:
            seeds = runs[(runs["experiment"] == experiment) & (runs["null"] == "")].sort_values("seed", kind="stable")
            of_slot = seeds.groupby("place")["seed"]
            spread = (of_slot.cumcount() + 0.5) / of_slot.transform("size") - 0.5
            (entries["single seeds"],) = axes.plot(
                seeds["place"] + offsets[experiment] + 0.7 * spacing * spread,
                seeds["value"],
                linestyle="none",
                marker=".",
                markersize=3,
                markeredgewidth=0.0,
                color=color,
                alpha=0.45,
                zorder=2,
            )
    if published:
        (entries["published, mean of 20 seeds"],) = axes.plot(
            np.arange(len(published)) + offsets["published"],
            published,
            linestyle="none",
            marker="o",
            markersize=4,
            markerfacecolor="white",
            markeredgecolor=style.VERMILION,
            markeredgewidth=1.0,
            zorder=2.5,
        )
    for null in shown:
        label, marker, grey = NULLS[null]
        rows = of_first[of_first["null"] == null]
        entries[label] = _with_ranges(
            axes, rows["place"] + offsets[null], rows, grey, marker=marker, markersize=3.4, linewidth=0.8, zorder=1.6
        )
    for boundary in range(1, len(slots)):
        axes.axvline(boundary - 0.5, color=style.NULL_GREY, linewidth=0.3, alpha=0.5, zorder=0)
    # intervals of two or three seeds may be wider than all there is to see
    nulls_high = of_first.loc[of_first["null"].isin(shown), "high"]
    values = np.array([*summary["estimate"], *nulls_high, *runs["value"], *published])
    axes.set_ylim(0.0, 1.06 * values[np.isfinite(values)].max())
    axes.set_xlim(-0.5, len(slots) - 0.5)
    axes.tick_params(axis="x", length=0)
    return entries


def _draw_roles(
    panels: Sequence[Axes],
    tables: Mapping[str, pd.DataFrame],
    experiments: Mapping[str, str],
    published: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """Draw r90 of the matrices of each role, a panel for each, on one scale; return the legend entries."""
    layers = number_of_layers(tables["summary"], experiments, MATRIX)
    entries: dict[str, Any] = {}
    for axes, role in zip(panels, ROLES, strict=True):
        of_role = published.get(role, ())
        shown = range(max(layers, len(of_role)))
        slots = [{"quantity": R90, "part": f"layers.{layer}.attention.{role}"} for layer in shown]
        entries |= draw_slots(axes, tables, slots, experiments, tuple(NULLS), of_role)
        axes.set_xticks(shown, [str(layer + 1) for layer in shown])
        axes.set_ylabel("r90 (dimensions)")
        axes.set_title(role)
    for axes in panels[2:]:
        axes.set_xlabel("layer")
    top = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(0.0, top)
        style.whole_ticks(axes.yaxis)
    return entries


def _draw_layers(axes: Axes, tables: Mapping[str, pd.DataFrame], experiments: Mapping[str, str], quantity: str) -> None:
    """Draw a number of the attention of each layer and of all parameters."""
    style.select(tables["summary"], experiment=next(iter(experiments)), quantity=quantity, null="")
    layers = range(number_of_layers(tables["summary"], experiments, LAYER))
    parts = [*(f"layers.{layer}.attention" for layer in layers), "model"]
    slots = [{"quantity": quantity, "part": part} for part in parts]
    draw_slots(axes, tables, slots, experiments, WEAKEST_AND_STRICTEST)
    axes.set_xticks(range(len(parts)), [*(str(layer + 1) for layer in layers), "all"])
    axes.set_xlabel("layer, or all")
    axes.set_ylabel(OF_LAYERS[quantity])
    if quantity.endswith("share"):
        axes.set_ylim(0.0, 1.02)


def _draw_neighbours(
    axes: Axes, tables: Mapping[str, pd.DataFrame], experiments: Mapping[str, str], quantities: Sequence[str]
) -> None:
    """Draw what estimators by nearest neighbours make of all parameters."""
    slots = [{"quantity": quantity, "part": "model"} for quantity in quantities]
    draw_slots(axes, tables, slots, experiments, tuple(NULLS))
    axes.set_xticks(range(len(slots)), [NEIGHBOURS[quantity] for quantity in quantities])
    axes.set_xlabel("estimator, all")
    axes.set_ylabel("dimensions")
    values = _at_places(tables["summary"], slots)["estimate"]
    values = values[np.isfinite(values) & (values > 0)]
    axes.set_yscale("log")
    axes.set_ylim(values.min() / 1.6, values.max() * 1.6)


def _at_places(table: pd.DataFrame, slots: Sequence[Slot]) -> pd.DataFrame:
    """Return the rows of all slots, with the number of their slot in the column "place"."""
    return table.merge(pd.DataFrame([slot | {"place": place} for place, slot in enumerate(slots)])).sort_values(
        "place", kind="stable"
    )


def _with_ranges(axes: Axes, x: pd.Series, rows: pd.DataFrame, color: str, **look: Any) -> Any:
    """Draw estimates, and bars from low to high where these are known."""
    known = rows[["low", "high"]].notna().all(axis=1)
    bars = np.vstack([rows["estimate"] - rows["low"], rows["high"] - rows["estimate"]])
    return axes.errorbar(
        x,
        rows["estimate"],
        # quantiles of a few distinct values may leave their mean just outside
        yerr=np.where(known, bars, 0.0).clip(0.0) if known.any() else None,
        color=color,
        linestyle="none",
        markeredgewidth=0.9 if look["marker"] == "_" else 0.0,
        elinewidth=look.pop("linewidth"),
        **look,
    )


def _draw_verdicts(axes: Axes, runs: pd.DataFrame, experiment: str) -> None:
    """Draw a cell for each matrix and null: its colour the share of seeds below the null, its number the seeds."""
    runs = runs[runs["experiment"] == experiment]
    measured = [null for null in NULLS if (runs["quantity"] == P_VALUE + null).any()]
    if not measured:
        style.select(runs, quantity=P_VALUE + next(iter(NULLS)))
    layers = number_of_layers(runs, [experiment], MATRIX)
    starts = {role: place * (layers + 0.5) for place, role in enumerate(ROLES)}
    seeds = 0
    for row, null in enumerate(measured):
        of_null = runs[runs["quantity"] == P_VALUE + null]
        for part, values in of_null.groupby("part")["value"]:
            match = MATRIX.match(str(part))
            assert match is not None, part
            x, below = starts[match[2]] + int(match[1]), int((values <= LEVEL).sum())
            seeds = max(seeds, len(values))
            share = below / len(values)
            face = colormaps["Blues"](0.85 * share)
            axes.add_patch(
                Rectangle((x - 0.5, row - 0.5), 1, 1, facecolor=face, edgecolor=style.NULL_GREY, linewidth=0.4)
            )
            axes.text(
                x, row, str(below), size=7, ha="center", va="center", color="white" if share > 0.6 else style.BLACK
            )
    axes.set_yticks(range(len(measured)), [NULLS[null][0].removeprefix("null: ") for null in measured])
    axes.set_xticks(
        [start + layer for start in starts.values() for layer in range(layers)],
        [str(layer + 1) for _ in starts for layer in range(layers)],
    )
    for role, start in starts.items():
        axes.text(start + (layers - 1) / 2, -0.65, role, ha="center", va="bottom")
    axes.set_xlim(-0.6, starts[ROLES[-1]] + layers - 0.4)
    axes.set_ylim(len(measured) - 0.4, -0.6)
    axes.set_xlabel(f"layer; number of seeds, of {seeds}, with r90 below the null, p ≤ {LEVEL}")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _measured(summary: pd.DataFrame, experiment: str, quantity: str) -> bool:
    return bool(((summary["experiment"] == experiment) & (summary["quantity"] == quantity)).any())
