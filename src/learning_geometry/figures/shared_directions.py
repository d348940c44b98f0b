"""Whether layers write along the same directions: weights pair by pair, their means by layer, and the increments."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure, FigureBase

from learning_geometry.figures import style

REQUIRES = ("shared_directions",)
"""The measurements whose tables the figure reads."""

OUTPUT, DOWN = "output", "down"
NAMES = {OUTPUT: "$W_O$", DOWN: r"$W_\mathrm{down}$"}
COLORS = {OUTPUT: style.BLUE, DOWN: style.VERMILION}
CONTRAST_COLORS = (style.GREEN, style.PURPLE, style.ORANGE, style.SKY_BLUE)
"""Of the contrasts, as long as they suffice: not those of the weights."""
OVERLAP, SPECTRAL, SHARE = "output_overlap", "spectral_overlap", "increment_share"
RANDOM = {OVERLAP: "random_subspaces", SPECTRAL: "spectra_matched"}
"""Name of the null without preferred directions, of each overlap."""

MOST = {"experiments": 4, "prompts": 8}
"""What a config may list at most of what the figure shows: of more it would not be readable."""
PERMUTED = "rows_permuted"
COLOR_MAP = "RdBu_r"


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw maps of the overlaps of pairs of weights above curves by layer, for the first of the experiments.

    (Top) Overlap of the top output directions for every two layers: W_O with W_O, W_down with W_down, and W_O with
    W_down; one colour scale, white at chance. (Bottom) By layer: mean overlap of the top directions with the same
    weight of all other layers; mean overlap of spectra; share of the layer's increment within what the weights before
    it share, with its 95 % interval over pairs of prompts. Nulls: random directions (dotted, grey), and permuted rows
    (dashed, in the colour of what they belong to).

    Lines break at a layer that could not be measured.

    Args:
        tables: "summary", summary rows; "runs", tidy rows, which have the intervals within the run.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("shared_directions", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    summary = tables["summary"]
    maps = {
        pair: overlap_map(summary, *pair)
        for pair in ((OUTPUT, OUTPUT), (DOWN, DOWN), (OUTPUT, DOWN))
        if set(pair) <= set(style.select(summary, quantity=OVERLAP)["data"])
    }
    chance = float(style.select(summary, quantity=OVERLAP, null=RANDOM[OVERLAP])["estimate"].iloc[0])
    entries: dict[str, Any] = {}
    figure = canvas(style.DOUBLE_WIDTH, 4.9)
    grid = figure.subplots(2, 3, height_ratios=(1.12, 1.0))
    _draw_maps(figure, grid[0], maps, chance)
    entries |= _draw_means(grid[1, 0], summary, f"mean_{OVERLAP}", "overlap with other layers")
    entries |= _draw_means(grid[1, 1], summary, f"mean_{SPECTRAL}", "overlap of spectra")
    entries |= _draw_shares(grid[1, 2], tables)
    for axes, letter in zip(grid.flat, "abcdef", strict=True):
        style.panel_letter(axes, letter)
    nulls = {name: entries.pop(name) for name in list(entries) if name.startswith("null: ")}
    style.legend_on_top(figure, entries | nulls, columns=3)
    lacking = style.not_measured(tables["runs"]).dropna(subset="layer").sort_values("layer")
    weights = lacking[lacking["of"] != ""].groupby("of", sort=False)["layer"].unique()
    told = [
        f"{NAMES[role]} of layer {', '.join(f'{each:g}' for each in weights[role])}"
        for role in NAMES
        if role in weights
    ]
    style.note(figure, f"Not measured, and in no mean: {'; '.join(told)}." if told else "")


def overlap_map(summary: pd.DataFrame, role: str, other: str) -> Float[np.ndarray, "layers layers"]:
    """Return the overlaps of each layer's weight of a role with each layer's weight of another; NaN with itself.

    Raises:
        ValueError: there are none.
    """
    rows = style.select(summary, quantity=OVERLAP, null="", data=other)
    rows = rows[rows["part"].str.endswith(f".{role}")]
    layer, index = layer_of(rows).to_numpy(), rows["index"].to_numpy()
    overlaps = np.full((int(layer.max(initial=0)) + 1, int(index.max(initial=0)) + 1), np.nan)
    overlaps[layer, index] = rows["estimate"]
    return overlaps


def layer_of(rows: pd.DataFrame) -> "pd.Series[int]":
    """Return the number of the layer of each row, whose part starts with ``layers.<l>``."""
    return rows["part"].str.split(".").str[1].astype("int64")


def _draw_maps(figure: FigureBase, row: np.ndarray, maps: Mapping[tuple[str, str], np.ndarray], chance: float) -> None:
    largest = max(float(np.nanmax(each)) for each in maps.values())
    norm = TwoSlopeNorm(chance, vmin=0.0, vmax=max(largest, 1.05 * chance))
    for axes, (pair, overlaps) in zip(row[: len(maps)], maps.items(), strict=True):
        image = axes.imshow(overlaps, origin="lower", cmap=COLOR_MAP, norm=norm, interpolation="nearest")
        axes.set_title(" with ".join(NAMES[role] for role in pair), fontsize=7)
        axes.set_ylabel(f"layer of {NAMES[pair[0]]}")
        axes.set_xlabel(f"layer of {NAMES[pair[1]]}")
        axes.set_facecolor(style.NULL_GREY)
        style.whole_ticks(axes.xaxis)
        style.whole_ticks(axes.yaxis)
    for axes in row[len(maps) :]:
        axes.set_axis_off()
    bar = figure.colorbar(image, ax=list(row), fraction=0.03, pad=0.01)
    bar.ax.axhline(chance, color=style.BLACK, linewidth=0.8)
    bar.set_ticks([0.0, chance, largest], labels=["0", f"{chance:.2f}\n(chance)", f"{largest:.2f}"])
    bar.ax.minorticks_off()
    bar.set_label("overlap of top directions", labelpad=2)
    bar.outline.set_visible(False)


def _draw_means(axes: Axes, summary: pd.DataFrame, quantity: str, label: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for role, color in COLORS.items():
        rows = summary[(summary["quantity"] == quantity) & (summary["data"] == role)]
        rows = rows[rows["part"].str.endswith(f".{role}")]
        if rows.empty and role == DOWN:  # no MLP
            continue
        rows = rows.assign(layer=layer_of(rows))
        entries |= _draw_nulls(axes, rows, quantity, color)
        measured = style.with_gaps(style.select(rows, quantity=quantity, null=""), "layer")
        entries[NAMES[role]] = style.mean_line(axes, measured, "layer", color)
    axes.set_xlabel("layer")
    style.whole_ticks(axes.xaxis)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0.0)
    return entries


def _draw_shares(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    # summaries of one seed have no interval; that over prompts is in the run's own rows
    runs = style.select(tables["runs"], quantity=SHARE, null="").rename(columns={"value": "estimate"})
    entries: dict[str, Any] = {}
    contrasts = runs["data"].unique().tolist()
    colors = (
        CONTRAST_COLORS[: len(contrasts)] if len(contrasts) <= len(CONTRAST_COLORS) else style.colors(len(contrasts))
    )
    for color, data in zip(colors, contrasts, strict=True):
        nulls = style.select(tables["summary"], quantity=SHARE, data=data)
        entries |= _draw_nulls(axes, nulls.assign(layer=layer_of(nulls)), SHARE, color)
        rows = runs[runs["data"] == data]
        label = f"prompts: {data.replace('_', ' ')}, {style.seeds_text(rows)} pairs"
        placed = style.with_gaps(rows.assign(layer=layer_of(rows)), "layer")
        entries[label] = style.mean_line(axes, placed, "layer", color)
    axes.set_xlabel("layer")
    style.whole_ticks(axes.xaxis)
    axes.set_ylabel("share of increment")
    axes.set_ylim(bottom=0.0)
    return entries


def _draw_nulls(axes: Axes, rows: pd.DataFrame, quantity: str, color: str) -> dict[str, Any]:
    null = RANDOM[SPECTRAL if quantity.endswith(SPECTRAL) else OVERLAP]
    random = style.null_band(axes, style.with_gaps(style.select(rows, quantity=quantity, null=null), "layer"), "layer")
    # of two draws, whose range would hide all else
    permuted = style.select(rows, quantity=quantity, null=PERMUTED).assign(low=np.nan, high=np.nan)
    style.null_band(axes, style.with_gaps(permuted, "layer"), "layer", "--", color)
    (dashed,) = axes.plot([], [], color=style.NULL_GREY, linestyle="--", linewidth=0.9)
    return {"null: random directions": random, "null: rows permuted, in its colour": dashed}
