"""What the first and the last layer attend to in one sequence, before, at and after the transition."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from learning_geometry.figures import style

REQUIRES = ("attention_patterns",)
"""The measurements whose tables the figure reads."""

MOMENTS = ("before", "at", "after")
FUTURE_GREY = "#EEEEEE"
COPIES = {"first copy": style.ORANGE, "second copy": style.VERMILION}
BOX: dict[str, Any] = {"facecolor": "none", "edgecolor": style.BLACK, "linewidth": 0.6}
POSITIONS = ("first_start", "second_start", "segment_length")
TICKS = (0.0, 0.01, 0.1, 0.3, 1.0)
BAR = 0.025
"""Thickness of the bars that mark the copies, in fractions of the axes."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw 2 × 3 heat maps of attention, query position down and key position to the right, of one sequence.

    Rows are the first and the last layer, head 1; columns the checkpoints before, at and after the transition. The
    seed is the lowest whose patterns were kept; a line below says which seeds, heads and layers are kept and not shown.
    Bars along the axes mark the two copies of the segment; the box holds the pairs of a query in the second copy and a
    key in the first. Colours are the square root of attention, so that small values show.

    Args:
        tables: "runs", tidy rows of all seeds; "summary" is not used, for sequences differ between seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or no pattern was kept.
    """
    return style.blocks("attention_patterns", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    runs = tables["runs"]
    kept = style.select(runs, experiment=experiment, quantity="attention")
    seeds = sorted(kept["seed"].unique().tolist())
    seed = seeds[0]
    kept = kept[kept["seed"] == seed]
    of_seed = style.select(runs, experiment=experiment, seed=seed)
    layers = sorted({int(layer) for layer in kept["part"].str.extract(r"^layers\.(\d+)\.heads\.0$")[0].dropna()})
    moments = style.select(of_seed, quantity="attention_step").sort_values("index")
    steps = [int(step) for step in moments["value"]]
    figure = canvas(style.DOUBLE_WIDTH, 4.35)
    rows = sorted({layers[0], layers[-1]})
    grid = figure.subplots(len(rows), len(MOMENTS), sharex=True, sharey=True, squeeze=False)
    norm = PowerNorm(0.5, 0.0, 1.0)
    for panels, layer in zip(grid, rows, strict=True):
        for axes, step in zip(panels, steps, strict=True):
            part = f"layers.{layer}.heads.0"
            pattern = _matrix(style.select(kept, part=part, step=step))
            axes.set_facecolor(FUTURE_GREY)
            image = axes.imshow(pattern, norm=norm, cmap="Blues", interpolation="nearest")
            _mark_copies(axes, *(_position(of_seed, name) for name in POSITIONS))
            axes.spines[:].set_visible(False)
        panels[0].set_ylabel(f"layer {layer + 1}\nquery position")
    for axes, step, name in zip(grid[0], steps, MOMENTS, strict=True):
        when = "no transition" if moments["censored"].any() else f"{name} transition"
        axes.set_title(f"{when}, step {step}", pad=8)
    for axes in grid[-1]:
        axes.set_xlabel("key position")
    for axes, letter in zip(grid.flat, style.letters(grid.size), strict=True):
        style.panel_letter(axes, letter)
    figure.colorbar(image, ax=grid, label="attention (fraction)", ticks=TICKS, shrink=0.6, aspect=25)
    entries = {name: Rectangle((0, 0), 1, 1, color=color) for name, color in COPIES.items()}
    entries["query in the second, key in the first"] = Rectangle((0, 0), 1, 1, **BOX)
    style.legend_on_top(figure, entries, columns=3)
    heads = sorted(kept["part"].str.extract(r"\.heads\.(\d+)$")[0].dropna().astype(int).unique().tolist())
    style.note(figure, _left_out(seeds, heads, layers))


def _left_out(seeds: Sequence[int], heads: Sequence[int], layers: Sequence[int]) -> str:
    """Say what was kept and is not shown; "" for nothing.

    >>> _left_out([0, 3], [0], [0, 1, 2])
    'Shown: seed 0. Kept, and not shown: seed 3; layer 2.'
    """
    told = []
    for name, numbers in (
        ("seed", seeds[1:]),
        ("head", [head + 1 for head in heads if head]),
        ("layer", [layer + 1 for layer in layers[1:-1]]),
    ):
        if numbers:
            told.append(f"{name}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}")
    return f"Shown: seed {seeds[0]}. Kept, and not shown: {'; '.join(told)}." if told else ""


def _matrix(rows: pd.DataFrame) -> np.ndarray:
    """Return the pattern, NaN where no row is: index = query · length + key, and the last pair is always there."""
    length = round((rows["index"].max() + 1) ** 0.5)
    pattern = np.full(length * length, np.nan)
    pattern[rows["index"]] = rows["value"]
    return pattern.reshape(length, length)


def _position(of_seed: pd.DataFrame, name: str) -> int:
    return int(style.select(of_seed, quantity=name)["value"].iloc[0])


def _mark_copies(axes: Axes, first: int, second: int, length: int) -> None:
    """Draw bars above (keys) and to the right (queries) of the pattern, and the box of the pairs that match."""
    for start, color in zip((first, second), COPIES.values(), strict=True):
        above: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "color": color, "clip_on": False}
        axes.add_patch(Rectangle((start - 0.5, 1.0), length, BAR, **above))
        beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "color": color, "clip_on": False}
        axes.add_patch(Rectangle((1.0, start - 0.5), BAR, length, **beside))
    axes.add_patch(Rectangle((first - 0.5, second - 0.5), length, length, **BOX))
