"""Fourier frequencies of the embedding of the numbers mod p: spectra, and the key frequencies of every seed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from learning_geometry.figures import style

REQUIRES = ("embedding_frequencies",)
"""The measurements whose tables the figure reads."""

LINES = {"gaussian_matrix": ":", "shuffled_numbers": "--"}
"""Lines of the nulls."""

MOST_TICKS = 20
"""With more seeds not every one is named."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

SHARE, NUMBER = "frequency_share", "key_frequencies"


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw the embedding's energy by Fourier frequency for the first of the experiments.

    (a) At the first step measured and (b) at the last, of the first seed, as each seed has its own key frequencies:
    share of the centred embedding's energy at each frequency, with its nulls in grey; triangles mark the key
    frequencies. (c) The same at the last step for every seed, one row each. (d) Number of key frequencies over
    training: mean over seeds with its 95 % interval, single seeds as thin lines, nulls in grey. Where a single step
    was measured, (a) is left out and the last panel shows the number by seed.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("embedding_frequencies", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    runs = tables["runs"]
    shares = style.select(runs, quantity=SHARE, null="")
    seeds = sorted(shares["seed"].unique().tolist())
    ends = (int(shares["step"].min()), int(shares["step"].max()))
    height = 0.05 * min(len(seeds), MOST_TICKS)
    figure = canvas(style.DOUBLE_WIDTH, 4.0 + 2 * height)
    spectra = dict(zip("fl", ends, strict=True)) if ends[0] < ends[1] else {"l": ends[1]}
    panels = figure.subplot_mosaic("fl;sn" if len(spectra) > 1 else "ll;sn", height_ratios=(1.0, 0.9 + height))
    entries: dict[str, Any] = {}
    for name, step in spectra.items():
        entries |= _draw_spectrum(panels[name], runs, seeds[0], step)
    entries |= _draw_seeds(panels["s"], runs, seeds, ends[1])
    _draw_numbers(panels["n"], tables)
    for axes in (panels[name] for name in (*spectra, "s")):
        axes.set_xlabel("frequency")
        style.whole_ticks(axes.xaxis)
        axes.set_xlim(0.3, shares["index"].max() + 0.7)
    for axes, letter in zip(panels.values(), style.letters(len(panels)), strict=True):
        style.panel_letter(axes, letter)
    style.legend_on_top(figure, entries, columns=4)


def key_frequencies(runs: pd.DataFrame, seed: int, step: int) -> list[int]:
    """Return the key frequencies of a seed, ascending: as many as were counted, those with the largest shares.

    Args:
        runs: tidy rows of one experiment.
        seed: of the run.
        step: of the checkpoint.

    Raises:
        ValueError: shares or their count were not measured there.
    """
    here: dict[str, str | int] = {"seed": seed, "step": step, "null": ""}
    number = int(style.select(runs, **here, quantity=NUMBER)["value"].iloc[0])
    ranked = style.select(runs, **here, quantity=SHARE).sort_values("value", ascending=False, kind="stable")
    return sorted(ranked["index"].iloc[:number].tolist())


def _draw_spectrum(axes: Axes, runs: pd.DataFrame, seed: int, step: int) -> dict[str, Any]:
    rows = style.select(runs, quantity=SHARE, seed=seed, step=step)
    measured = style.select(rows, null="").set_index("index")["value"]
    entries: dict[str, Any] = {"embedding": axes.bar(measured.index, measured, color=style.BLUE, width=0.8, zorder=1.4)}
    for name, null in rows[rows["null"] != ""].groupby("null"):
        entries[style.null_label(str(name))] = _draw_null(axes, null, str(name))
    key = key_frequencies(runs, seed, step)
    top = float(measured.max())
    if key:
        (entries["key frequency"],) = axes.plot(
            key, measured[key] + 0.04 * top, "v", color=style.VERMILION, markersize=3.5, linestyle="none", zorder=4
        )
    axes.set_title(f"seed {seed}, step {step}")
    axes.set_ylabel("share of energy")
    axes.yaxis.set_major_locator(MaxNLocator(5, prune="upper"))  # room for the panel's letter
    axes.set_ylim(0.0, 1.12 * max(top, float(np.nanmax(rows["high"].fillna(0.0)))))
    return entries


def _draw_null(axes: Axes, rows: pd.DataFrame, name: str) -> Any:
    """Draw a null of the shares: all have the same mean, so that what tells them apart is their range."""
    if name == "gaussian_matrix":
        return style.null_band(axes, rows.rename(columns={"value": "estimate"}), "index")
    rows = rows.sort_values("index")
    look: dict[str, Any] = {"color": style.CONTROL_GREY, "linestyle": LINES.get(name, "-."), "linewidth": 0.7}
    axes.plot(rows["index"], rows["low"], zorder=1.7, **look)
    return axes.plot(rows["index"], rows["high"], zorder=1.7, **look)[0]


def _draw_seeds(axes: Axes, runs: pd.DataFrame, seeds: list[int], step: int) -> dict[str, Any]:
    rows = style.select(runs, quantity=SHARE, null="", step=step)
    table = rows.pivot(index="seed", columns="index", values="value").reindex(seeds)
    low, high = float(table.columns.min()), float(table.columns.max())
    image = axes.imshow(
        table.to_numpy(),
        cmap="Greys",
        vmin=0.0,
        aspect="auto",
        interpolation="nearest",
        extent=(low - 0.5, high + 0.5, len(seeds) - 0.5, -0.5),
    )
    marked = [(k, place) for place, seed in enumerate(seeds) for k in key_frequencies(runs, seed, step)]
    entries: dict[str, Any] = {}
    if marked:
        (entries["key frequency"],) = axes.plot(
            *zip(*marked, strict=True), "v", color=style.VERMILION, markersize=3.5, linestyle="none"
        )
    every = -(-len(seeds) // MOST_TICKS)
    axes.set_yticks(range(0, len(seeds), every), [str(seed) for seed in seeds[::every]])
    axes.set_ylabel("seed")
    axes.set_title(f"all seeds, step {step}")
    colorbar = axes.figure.colorbar(image, ax=axes, pad=0.02)
    colorbar.set_label("share of energy")
    colorbar.outline.set_linewidth(0.4)
    return entries


def _draw_numbers(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    where = {"quantity": NUMBER}
    steps = style.select(tables["summary"], **where, null="")["step"]
    entries: dict[str, Any] = {}
    if steps.nunique() > 1:
        entries |= style.curve(axes, tables, where, style.BLUE, "key frequencies")
        nulls = style.select(tables["summary"], **where)
        for name, null in nulls[nulls["null"] != ""].groupby("null"):
            style.null_band(axes, null, "step", LINES.get(str(name), "-."))
        style.step_axis(axes, steps.tolist())
    else:  # a single point would be no line
        seeds = style.select(tables["runs"], **where, null="")
        (entries[f"key frequencies, step {steps.iloc[0]}"],) = axes.plot(
            seeds["seed"], seeds["value"], "o", color=style.BLUE, markersize=3, linestyle="none"
        )
        axes.set_xlabel("seed")
        axes.set_xlim(seeds["seed"].min() - 0.6, seeds["seed"].max() + 0.6)
        axes.set_xticks(seeds["seed"].unique()[:: -(-len(seeds) // MOST_TICKS)])
    counted = style.select(tables["runs"], **where, null="")["value"]
    axes.set_ylim(0.0, 1.15 * max(float(counted.max()), 1.0))  # an interval over few seeds may be far wider
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("number")
    style.legend_above(axes, {label: entries[label] for label in list(entries)[:1]})
