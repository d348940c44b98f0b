"""SGD commutators and the execution subspace: how much lies inside, by which arithmetic, and in which block."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from learning_geometry.figures import style

REQUIRES = ("commutators",)
"""The measurements whose tables the figure reads."""

NORM, ENERGY, BLOCK = "commutator_share_norm", "commutator_share_energy", "commutator_block_share"
DEFECT, SCALE_FREE = "commutator_defect", "commutator_scale_free_defect"
ROUNDING, STEP_ERROR = "commutator_rounding_error", "commutator_step_error"

RANDOM_NULLS = {
    "random_subspace": ("null: random subspace", ":"),
    "random_within_matrices": ("null: random within the matrices", "--"),
}
"""Drawn in grey, with their range: legend entry and line."""

OTHER_NULLS = {
    "gradients": ("null: the gradients' own share", style.ORANGE, "--"),
    "another_seed": ("null: another seed's subspace", style.GREEN, "-."),
}
"""Measured themselves, and so drawn with single seeds: legend entry, colour and line."""

ARITHMETIC = {
    "": ("Hessian products", style.BLUE, "-"),
    "_finite_float64": ("finite steps, float64", style.GREEN, "--"),
    "_finite_float32": ("finite steps, float32", style.VERMILION, "-."),
}
"""Suffix of the quantity -> its name, colour and line."""

ERRORS = {
    ROUNDING: ("finite steps, float32 against float64", style.VERMILION, "-."),
    STEP_ERROR: ("Hessian products against finite steps", style.BLUE, "-"),
}
"""Errors relative to the commutator by finite steps in float64: name, colour and line."""

PUBLISHED = (0.074, 0.016)
"""Share (norm) of the commutator in the execution subspace, early and late: 9.7 and 2.1 times the published share of a
random subspace, .0076; one seed, finite steps in float32."""

FEW = 8
"""Up to so many checkpoints each is marked."""

SMALLEST_SHARE = 1e-4
"""Blocks with less stand at the edge of the panel."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw eight panels for the first of the experiments, six where no finite steps were taken.

    (a) Share of the commutator's norm and (b) of its energy inside the execution subspace over training, by Hessian
    products, with random subspaces, the gradients' own share and another seed's subspace, as far as measured. (c) The
    same norm by arithmetic, and (d) errors relative to finite steps in float64. (e) Defect and (f) scale-free defect,
    with every pair of batches of every seed as a dot. (g, h) Share of the commutator's energy by block of parameters
    at the first and the last checkpoint measured, beside the gradients' and the block's share of all parameters.
    Triangles at the edges of (a) to (c) mark the published shares, early and late.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("commutator_alignment", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    summary = tables["summary"]
    steps = style.select(summary, quantity=DEFECT, null="")["step"].tolist()
    blocks = style.select(summary, quantity=BLOCK, null="")["part"].unique().tolist()
    finite = ROUNDING in set(summary["quantity"])
    heights = [1.5, *([1.3] if finite else []), 1.3, 0.3 + 0.12 * len(blocks)]
    figure = canvas(style.DOUBLE_WIDTH, 1.3 * sum(heights))
    grid = figure.subplots(len(heights), 2, height_ratios=heights)
    entries = _draw_share(grid[0, 0], tables, NORM, 1) | _draw_share(grid[0, 1], tables, ENERGY, 2)
    if finite:
        _draw_arithmetic(grid[1, 0], tables)
        _draw_errors(grid[1, 1], tables)
    _draw_defect(grid[-2, 0], tables, DEFECT, style.BLUE)
    _draw_defect(grid[-2, 1], tables, SCALE_FREE, style.PURPLE)
    _draw_blocks(grid[-1], tables)
    for axes in grid[:-1].flat:
        style.step_axis(axes, [0, *steps])
    for axes, letter in zip(grid.flat, "abcdefgh" if finite else "abefgh", strict=True):
        style.panel_letter(axes, letter)
    style.legend_on_top(figure, entries, columns=3)


def _draw_share(axes: Axes, tables: Mapping[str, pd.DataFrame], quantity: str, power: int) -> dict[str, Any]:
    """Draw the share inside the subspace and its nulls; ``power`` of the published norm is marked."""
    where = {"quantity": quantity, "part": "model"}
    entries: dict[str, Any] = style.curve(axes, tables, where, style.BLUE, "commutator")
    of_quantity = style.select(tables["summary"], **where)
    _mark_few(axes, style.select(of_quantity, null=""), style.BLUE)
    present = set(of_quantity["null"])
    for null, (label, line) in RANDOM_NULLS.items():
        if null in present:
            entries[label] = style.null_band(axes, style.select(of_quantity, null=null), "step", line)
    for null, (label, color, line) in OTHER_NULLS.items():
        if null in present:
            rows = style.select(of_quantity, null=null).assign(low=np.nan, high=np.nan)
            if rows["n"].max() > 1:
                style.seed_lines(axes, style.select(tables["runs"], **where, null=null), "step", color, line)
            entries[label] = style.mean_line(axes, rows, "step", color, line)
            _mark_few(axes, rows, color)
    entries |= _mark_published(axes, power)
    _logarithmic(axes, of_quantity)
    axes.set_ylabel("share of norm, ρ" if power == 1 else "share of energy, ρ²")
    return entries


def _mark_few(axes: Axes, rows: pd.DataFrame, color: str) -> None:
    """Mark the checkpoints measured where a line between few would pass for a curve."""
    if rows["step"].nunique() <= FEW:
        axes.plot(rows["step"], rows["estimate"], "o", color=color, markersize=2.5, zorder=3.5, clip_on=False)


def _mark_published(axes: Axes, power: int) -> dict[str, Any]:
    early, late = (share**power for share in PUBLISHED)
    look: dict[str, Any] = {"color": style.BLACK, "markersize": 5, "linestyle": "none", "clip_on": False, "zorder": 4}
    place = axes.get_yaxis_transform()
    (handle,) = axes.plot([0.0], [early], ">", transform=place, **look)
    axes.plot([1.0], [late], "<", transform=place, **look)
    return {"published: early (left), late (right)": handle}


def _logarithmic(axes: Axes, rows: pd.DataFrame) -> None:
    """Make the y axis logarithmic, and as long as estimates and published marks need, whatever their intervals."""
    axes.set_yscale("log")
    marked = [y for line in axes.lines for y in np.atleast_1d(line.get_ydata())]
    values = np.array([*rows["estimate"], *marked], dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    if len(values):
        axes.set_ylim(values.min() / 1.5, values.max() * 1.5)
    # over little more than a decade, twos and fives are labelled besides; matplotlib's own choice is too dense here
    short = bool(len(values)) and values.max() < 100 * values.min()
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)) if short else LogLocator(subs=range(2, 10)))
    axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}") if short else NullFormatter())
    if short:
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _draw_arithmetic(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    entries: dict[str, Any] = {}
    shown = [quantity for quantity in (NORM + suffix for suffix in ARITHMETIC)]
    for quantity, (label, color, line) in zip(shown, ARITHMETIC.values(), strict=True):
        if (tables["summary"]["quantity"] == quantity).any():
            where = {"quantity": quantity, "part": "model"}
            entries |= style.curve(axes, tables, where, color, label, line)
            _mark_few(axes, style.select(tables["summary"], **where, null=""), color)
    _mark_published(axes, 1)
    rows = tables["summary"]
    _logarithmic(axes, rows[rows["quantity"].isin(shown) & (rows["null"] == "")])
    axes.set_ylabel("share of norm, ρ")
    style.legend_above(axes, entries)


def _draw_errors(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    entries: dict[str, Any] = {}
    shown = tables["summary"][tables["summary"]["quantity"].isin(ERRORS)]
    for quantity, (label, color, line) in ERRORS.items():
        if (shown["quantity"] == quantity).any():
            where = {"quantity": quantity, "part": "model"}
            entries |= style.curve(axes, tables, where, color, label, line)
            _mark_few(axes, style.select(shown, **where, null=""), color)
    entries["as large as the commutator"] = axes.axhline(1.0, color=style.BLACK, linestyle=":", linewidth=0.6, zorder=1)
    _logarithmic(axes, shown)
    axes.set_ylabel("relative error")
    style.legend_above(axes, entries)


def _draw_defect(axes: Axes, tables: Mapping[str, pd.DataFrame], quantity: str, color: str) -> None:
    """Draw the median over pairs of batches, and each pair of each seed as a dot."""
    where = {"quantity": quantity, "part": "model"}
    pairs = style.select(tables["runs"], quantity=f"{quantity}_of_pair", null="")
    entries: dict[str, Any] = style.curve(axes, tables, where, color, "median over pairs")
    _mark_few(axes, style.select(tables["summary"], **where, null=""), color)
    (entries["pairs of batches, all seeds"],) = axes.plot(
        pairs["step"],
        pairs["value"],
        linestyle="none",
        marker=".",
        markersize=3,
        markeredgewidth=0.0,
        color=style.CONTROL_GREY,
        alpha=0.5,
        zorder=0.5,
        clip_on=False,
        rasterized=len(pairs) > 2000,
    )
    if quantity == DEFECT:
        _logarithmic(axes, pairs.rename(columns={"value": "estimate"}, errors="raise"))
    else:
        axes.set_ylim(0.0, 1.02)
    axes.set_ylabel(quantity.removeprefix("commutator_").replace("scale_free_", "scale-free\n"))
    style.legend_above(axes, entries)


def _draw_blocks(panels: Any, tables: Mapping[str, pd.DataFrame]) -> None:
    """Draw one line for each block, at the first and at the last checkpoint."""
    summary = style.select(tables["summary"], quantity=BLOCK)
    measured = style.select(summary, null="")
    blocks = sorted(measured["part"].unique(), key=_by_number)
    place = {block: float(i) for i, block in enumerate(blocks)}
    entries: dict[str, Any] = {}
    ends = (int(measured["step"].min()), int(measured["step"].max()))
    for axes, step in zip(panels, ends, strict=True):
        rows = style.select(measured, step=step)
        seeds = style.select(tables["runs"], quantity=BLOCK, null="", step=step)
        if rows["n"].max() > 1:
            axes.plot(
                seeds["value"].clip(lower=SMALLEST_SHARE),
                seeds["part"].map(place) + 0.25,
                ".",
                color=style.BLUE,
                markersize=2,
                alpha=0.6,
                zorder=2,
            )
        estimate = rows["estimate"].to_numpy().clip(SMALLEST_SHARE)
        bars = np.vstack([estimate - rows["low"].clip(lower=SMALLEST_SHARE), rows["high"] - estimate])
        entries[f"commutator, {style.seeds_text(rows)}"] = axes.errorbar(
            estimate,
            rows["part"].map(place),
            xerr=np.nan_to_num(bars).clip(0.0),
            color=style.BLUE,
            linestyle="none",
            marker="o",
            markersize=3.5,
            elinewidth=0.8,
            zorder=3,
        )
        for null, label, color, marker in (
            ("gradients", "null: gradients", style.ORANGE, "D"),
            ("parameters", "null: share of parameters", style.BLACK, "|"),
        ):
            of_null = summary[(summary["null"] == null) & (summary["step"] == step)]
            if len(of_null):
                (entries[label],) = axes.plot(
                    of_null["estimate"].clip(lower=SMALLEST_SHARE),
                    of_null["part"].map(place),
                    marker,
                    color=color,
                    markerfacecolor="none",
                    markersize=4 if marker == "D" else 7,
                    zorder=2.5,
                )
        axes.set_xscale("log")
        axes.set_yticks(range(len(blocks)), [_words(block) for block in blocks] if axes is panels[0] else [])
        axes.set_ylim(len(blocks) - 0.4, -0.6)
        axes.grid(axis="y", linewidth=0.3, color=style.NULL_GREY, alpha=0.5)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"share of energy in the block, step {step}")
    limits = [axes.get_xlim() for axes in panels]
    for axes in panels:
        axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
    style.legend_above(panels[0], dict(list(entries.items())[:1]))
    style.legend_above(panels[1], dict(list(entries.items())[1:]), columns=2)


def _words(block: str) -> str:
    """Return a block's name for the axis, layers counted from 1.

    >>> _words("layers.0.attention.query_key")
    'layer 1 query-key'
    """
    pieces = block.split(".")
    if pieces[0] == "layers" and len(pieces) > 2:
        return f"layer {int(pieces[1]) + 1} {pieces[-1].replace('_', '-')}"
    return block.replace("_", " ").replace(".", " ")


def _by_number(block: str) -> tuple[int, int, str]:
    """Sort blocks as the signal passes them: embeddings, layers in their order, then the rest."""
    pieces = block.split(".")
    if pieces[0] == "layers" and len(pieces) > 1 and pieces[1].isdigit():
        # a layer's query-key before its value-output before its MLP
        order = {"query_key": 0, "value_output": 1}.get(pieces[-1], 2)
        return 1, 10 * int(pieces[1]) + order, block
    return (0 if block in ("embedding", "positions") else 2), 0, block
