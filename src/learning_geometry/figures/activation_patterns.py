"""Which hidden units of a language model's MLPs are zeroed, and in how many patterns, by layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from learning_geometry.figures import style
from learning_geometry.figures.shared_directions import layer_of

REQUIRES = ("activation_patterns_by_layer",)
"""The measurements whose tables the figure reads."""

PATTERNS = "distinct_patterns"
PANELS = (
    ("share of units zeroed", (("zeroed_share", "o"),)),
    ("share of orthants visited", ((PATTERNS, "o"),)),
    ("share of units", (("never_active", "v"), ("always_active", "^"))),
)
"""Label of each panel, and what it shows with which marker."""

MOST = {"experiments": 4, "texts": 10}
"""What a config may list at most of what the figure shows: of more it would not be readable."""
MARKERS = {"never active": "v", "always active": "^"}
NULL = "random_gate"


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw three panels by layer, for the first of the experiments, in one colour for each text.

    Share of hidden units that are zeroed; patterns of groups of units, over the most that there can be; share of units
    that are never (down) and always (up) active. Null: random gates (hollow, mean and 95 % range).

    Args:
        tables: "summary", summary rows; "runs", tidy rows, which know the number of tokens.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("activation_patterns", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    runs = tables["runs"]
    runs = runs[runs["experiment"] == experiment]
    texts = sorted(style.select(runs, quantity="zeroed_share")["data"].unique().tolist())
    layers = sorted(set(layer_of(style.select(runs, quantity="zeroed_share"))))
    entries: dict[str, Any] = {}
    figure = canvas(style.DOUBLE_WIDTH, 2.3)
    for axes, (label, shown), letter in zip(figure.subplots(1, 3), PANELS, "abc", strict=True):
        for place, (text, color) in enumerate(zip(texts, style.colors(len(texts)), strict=True)):
            # side by side, within the room that a layer has
            spacing = min(0.3, 0.9 / len(texts))
            shift = spacing * (place - (len(texts) - 1) / 2)
            for quantity, marker in shown:
                rows = style.select(runs, quantity=quantity, data=text)
                # patterns of all units are as many as tokens
                rows = rows[rows["index"] == rows["index"].max()]
                n = int(rows.loc[rows["null"] == "", "n"].iloc[0])
                _draw_layers(axes, rows, layers, shift, _most(quantity, rows, n), spacing, color=color, marker=marker)
                look: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linestyle": "none"}
                entries[f"{text.replace('_', ' ')}, n = {n:,} tokens"] = Line2D([], [], color=color, **look)
        axes.set_xlabel("layer")
        axes.set_ylabel(label if len(shown) > 1 or shown[0][0] != PATTERNS else _with_group(label, runs))
        axes.set_xticks(range(len(layers)), [str(layer) for layer in layers])
        axes.set_xlim(-0.6, len(layers) - 0.4)
        if len(shown) == 1:
            axes.set_ylim(0.0, 1.0)
        style.panel_letter(axes, letter)
    for label, marker in MARKERS.items():
        entries[label] = Line2D([], [], color=style.CONTROL_GREY, marker=marker, markersize=3.5, linestyle="none")
    hollow: dict[str, Any] = {"marker": "o", "markersize": 3.5, "markerfacecolor": "white", "linestyle": "none"}
    entries["null: random gate, in its colour"] = Line2D([], [], color=style.CONTROL_GREY, **hollow)
    style.legend_on_top(figure, entries, columns=3)


def _most(quantity: str, rows: pd.DataFrame, n: int) -> float:
    """The most patterns that there can be: one for each token, or each orthant; 1 of shares."""
    return float(min(n, 2 ** int(rows["index"].iloc[0]))) if quantity == PATTERNS else 1.0


def _with_group(label: str, runs: pd.DataFrame) -> str:
    return f"{label}\nby groups of {style.select(runs, quantity=PATTERNS)['index'].max()} units"


def _draw_layers(
    axes: Axes,
    rows: pd.DataFrame,
    layers: list[int],
    shift: float,
    divisor: float,
    spacing: float,
    color: str,
    marker: str,
) -> None:
    look: dict[str, Any] = {"color": color, "marker": marker, "linestyle": "none", "markersize": 3.5}
    measured, null = style.select(rows, null=""), style.select(rows, null=NULL)
    places, of_null = (np.searchsorted(layers, layer_of(each)) + shift for each in (measured, null))
    axes.plot(places, measured["value"] / divisor, zorder=3, **look)
    value, low, high = (null[name].to_numpy() / divisor for name in ("value", "low", "high"))
    # of one draw there is no range
    bars = np.nan_to_num(np.stack([value - low, high - value]))
    look |= {"markerfacecolor": "white", "markeredgewidth": 0.7, "elinewidth": 0.7}
    axes.errorbar(of_null + 0.3 * spacing, value, yerr=bars, **look)
