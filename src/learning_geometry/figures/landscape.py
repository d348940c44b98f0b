"""The loss before, at and after the transition: curvature, steps downhill, the way from plateau to solution."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from learning_geometry.figures import style

REQUIRES = ("landscape",)
"""The measurements whose tables the figure reads."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

Tables = Mapping[str, pd.DataFrame]
COLORS = {"untrained": style.CONTROL_GREY, "transition": style.GREEN, "solution": style.VERMILION}
PLATEAU_COLORS = (style.BLUE, style.SKY_BLUE, style.PURPLE)
HELD_OUT, OWN = "held_out", "in_distribution"
CENSORED = "no mean: some seed made no transition"


def draw(tables: Tables, options: Mapping[str, Any]) -> Figure:
    """Draw six panels for each experiment.

    (a) Gradient norm at each checkpoint with what sampling alone gives; (b) smallest over largest Hessian eigenvalue;
    (c) held-out loss along ± the most negative direction at the first plateau and at the solution, with the batch's
    own loss and the null of a random direction; (d) held-out loss on the line from plateau to solution; (e) descent
    without noise from the plateau; (f) the loss on the plane of top eigenvector and displacement, lowest seed. A
    line below says at which other plateaus there are directions, and of which other seeds planes, that are not shown.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("landscape", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    parts = checkpoints(tables["runs"])
    plateau = next(part for part in parts if part.startswith("plateau"))
    figure = canvas(style.DOUBLE_WIDTH, 7.4)
    grid = figure.subplots(3, 2)
    norms, ratios, steps, line, descent, plane = grid.flat
    _draw_norms(norms, tables, parts)
    _draw_ratios(ratios, tables, parts)
    _draw_steps(steps, tables, plateau)
    _draw_line(line, tables, plateau)
    _draw_descent(descent, tables, plateau)
    _draw_plane(figure, plane, tables["runs"], plateau)
    for axes, letter in zip(grid.flat, "abcdef", strict=True):
        style.panel_letter(axes, letter)
    style.note(figure, _left_out(tables["runs"], parts, plateau))


def _left_out(runs: pd.DataFrame, parts: list[str], plateau: str) -> str:
    """Say which other plateaus (c) and planes of other seeds (f) there are; "" for none."""
    others = [label(part) for part in parts if part.startswith("plateau") and part != plateau]
    planes = sorted(runs.loc[runs["quantity"] == "loss_on_slice", "seed"].unique().tolist())[1:]
    told = [f"the most negative direction at {' and at '.join(others)} (c)"] if others else []
    told += [f"the plane of seed{'s' * (len(planes) > 1)} {', '.join(map(str, planes))} (f)"] if planes else []
    return f"c to f: {label(plateau)}. Measured, and not shown: {'; '.join(told)}." if told else ""


def checkpoints(runs: pd.DataFrame) -> list[str]:
    """Return the parts of the landscape in the order of training.

    Raises:
        ValueError: there is no landscape, or no plateau in it.
    """
    parts = set(style.select(runs, quantity="checkpoint_step")["part"])
    plateaus = sorted((part for part in parts if re.fullmatch(r"plateau_[\d.]+", part)), key=_fraction)
    if not plateaus:
        raise ValueError(f"checkpoint_step: no part is a plateau, only {sorted(parts)}; measure the landscape")
    return [part for part in ("untrained", *plateaus, "transition", "solution") if part in parts]


def label(part: str) -> str:
    """Return how a part is called in the figure.

    >>> label("plateau_0.5"), label("solution")
    ('plateau, 0.5 t', 'solution')
    """
    return f"plateau, {_fraction(part):g} t" if part.startswith("plateau") else part


def color(part: str, parts: list[str]) -> str:
    """Return the colour of a part, the same in every panel."""
    plateaus = [each for each in parts if each.startswith("plateau")]
    enough = len(plateaus) <= len(PLATEAU_COLORS)
    colors = PLATEAU_COLORS if enough else style.colors(len(plateaus))
    return COLORS[part] if part in COLORS else colors[plateaus.index(part)]


def _fraction(part: str) -> float:
    return float(part.removeprefix("plateau_"))


def _by_checkpoint(
    axes: Axes, tables: Tables, parts: list[str], where: Mapping[str, str]
) -> dict[str, tuple[Any, ...]]:
    """Draw every seed as a dot and the mean with its interval beside it, at one place for each checkpoint."""
    entries: dict[str, Any] = {}
    for place, part in enumerate(parts):
        values = style.select(tables["runs"], **where, part=part)
        axes.plot(place + np.linspace(-0.18, 0.06, len(values)), values["value"], ".", color=color(part, parts), ms=4)
        row = style.select(tables["summary"], **where, part=part).iloc[0]
        entries = {f"seeds; mean, n = {int(row['n'])}": ()}
        if np.isfinite(row["estimate"]):
            error = np.nan_to_num([[row["estimate"] - row["low"]], [row["high"] - row["estimate"]]])
            axes.errorbar(place + 0.22, row["estimate"], error, color=style.BLACK, marker="_", ms=6, lw=0.9, capsize=2)
    names = ["plateau\n" + label(part).split(", ")[1] if "," in label(part) else part for part in parts]
    axes.set_xticks(range(len(parts)), names)
    axes.set_xlim(-0.5, len(parts) - 0.5)
    (dot,) = axes.plot([], [], ".", color=style.BLUE, ms=4)
    (mean,) = axes.plot([], [], color=style.BLACK, marker="_", ms=6, lw=0)
    return {name: (dot, mean) for name in entries}


def _draw_norms(axes: Axes, tables: Tables, parts: list[str]) -> None:
    where = {"quantity": "gradient_norm", "null": ""}
    entries = _by_checkpoint(axes, tables, parts, where)
    for place, part in enumerate(parts):
        null = style.select(tables["runs"], quantity="gradient_norm", null="sampling_noise", part=part)
        of_null = axes.plot([place - 0.3, place + 0.35], [null["value"].mean()] * 2, ":", color=style.NULL_GREY)
    axes.set_ylabel("gradient norm (nats)")
    axes.set_ylim(bottom=0.0)
    style.legend_above(axes, entries | {"null: sampling of the batch alone": of_null[0]})


def _draw_ratios(axes: Axes, tables: Tables, parts: list[str]) -> None:
    entries = _by_checkpoint(axes, tables, parts, {"quantity": "smallest_to_largest_eigenvalue", "null": ""})
    zero = axes.axhline(0.0, color=style.NULL_GREY, linestyle=":", linewidth=0.9, zorder=0)
    axes.set_ylabel("smallest / largest eigenvalue")
    style.legend_above(axes, entries | {"0: no negative curvature": zero})


def _draw_steps(axes: Axes, tables: Tables, plateau: str) -> None:
    places = _places(tables["runs"], plateau, "distance")
    entries: dict[str, Any] = {}
    for name, part, data, null, shade, linestyle in (
        ("plateau, held out", plateau, HELD_OUT, "", style.BLUE, "-"),
        ("plateau, own batch", plateau, OWN, "", style.BLUE, "--"),
        ("null: at the solution", "solution", HELD_OUT, "", style.VERMILION, "-"),
        ("null: random direction", plateau, HELD_OUT, "random_direction", style.NULL_GREY, ":"),
    ):
        where = {"quantity": "loss_along_most_negative_direction", "part": part, "data": data, "null": null}
        entries |= _curve(axes, tables, where, places, shade, name, linestyle, thin=data == HELD_OUT and not null)
    axes.axhline(0.0, color=style.BLACK, linewidth=0.4, zorder=0)
    axes.set_yscale("symlog", linthresh=1e-3, linscale=0.7)
    axes.set_yticks([-1e-2, -1e-3, 0.0, 1e-3, 1e-2, 1e-1], minor=False)
    axes.set_yticks([], minor=True)
    axes.set_xlabel("± most negative direction (distance)")
    axes.set_ylabel("loss − loss there (nats)")
    style.legend_above(axes, entries, columns=1)


def _draw_line(axes: Axes, tables: Tables, plateau: str) -> None:
    where = {"quantity": "loss_on_line", "part": plateau, "data": HELD_OUT, "null": ""}
    count = int(style.select(tables["runs"], **where)["index"].max()) + 1
    places = pd.Series(np.linspace(0.0, 1.0, count))
    entries = _curve(axes, tables, where, places, style.BLUE, "held out", "-", thin=True)
    height = style.select(tables["summary"], quantity="barrier_height", part=plateau).iloc[0]
    if np.isfinite(height["estimate"]):
        interval = f" [{height['low']:.2g}, {height['high']:.2g}]" if np.isfinite(height["low"]) else ""
        axes.text(0.03, 0.05, f"barrier {height['estimate']:.2g}{interval} nats", transform=axes.transAxes, fontsize=7)
    zero = axes.axhline(0.0, color=style.NULL_GREY, linestyle=":", linewidth=0.9, zorder=0)
    axes.set_xlabel("plateau (0) to solution (1)")
    axes.set_ylabel("loss − plateau's (nats)")
    style.legend_above(axes, entries | {"loss of the plateau": zero}, columns=2)


def _draw_descent(axes: Axes, tables: Tables, plateau: str) -> None:
    steps = _places(tables["runs"], plateau, "descent_step")
    entries: dict[str, Any] = {}
    for name, data, shade, linestyle in (
        ("loss, held out", HELD_OUT, style.BLUE, "-"),
        ("loss, own batch", OWN, style.BLUE, "--"),
    ):
        where = {"quantity": "descent_loss", "part": plateau, "data": data, "null": ""}
        entries |= _curve(axes, tables, where, steps, shade, name, linestyle, thin=data == HELD_OUT)
    error = axes.twinx()
    error.spines["right"].set_visible(True)
    where = {"quantity": "descent_error", "part": plateau, "data": HELD_OUT, "null": ""}
    entries |= _curve(error, tables, where, steps, style.PURPLE, "error, held out (right)", "-.", thin=True)
    error.set_ylim(0.0, 1.02)
    error.set_ylabel("error (fraction)")
    axes.set_xlabel("steps of descent without noise")
    axes.set_ylabel("loss (nats)")
    style.legend_above(axes, entries, columns=1)


def _draw_plane(figure: FigureBase, axes: Axes, runs: pd.DataFrame, plateau: str) -> None:
    of_plateau = runs[(runs["part"] == plateau) & (runs["quantity"].str.contains("slice"))]
    if of_plateau.empty:
        axes.text(0.5, 0.5, "no slice measured", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    seed = of_plateau["seed"].min()
    of_seed = of_plateau[of_plateau["seed"] == seed]
    rows, columns = (_values(of_seed, name) for name in ("slice_row", "slice_column"))
    grid = _values(of_seed, "loss_on_slice").reshape(len(rows), len(columns))
    # beyond the loss that a wrong turn soon reaches, levels would hide the valley
    top = float(np.quantile(grid, 0.8))
    levels = np.linspace(grid.min(), top if top > grid.min() else grid.min() + 1e-9, 16)
    filled = axes.contourf(columns, rows, grid, levels=levels, cmap="cividis", extend="max")
    length = (columns[-1] - columns[0]) / 1.5
    cosine = _values(of_seed, "slice_cosine")[0]
    solution = length * np.sqrt(max(1 - cosine**2, 0.0)), length * cosine
    (start,) = axes.plot(0, 0, "o", color="white", mec=style.BLACK, ms=4, lw=0)
    (end,) = axes.plot(*solution, "*", color="white", mec=style.BLACK, ms=7, lw=0)
    axes.set_xlabel("displacement to solution")
    axes.set_ylabel("top eigenvector")
    figure.colorbar(filled, ax=axes, label="loss (nats)", format="%.2f", ticks=levels[::5])
    style.legend_above(axes, {f"plateau, seed {seed}": start, "solution": end}, columns=2)


def _curve(
    axes: Axes,
    tables: Tables,
    where: Mapping[str, str],
    places: "pd.Series[float]",
    shade: str,
    name: str,
    linestyle: str,
    thin: bool,
) -> dict[str, tuple[Any, ...]]:
    """Draw mean, interval and seeds by place (index); nothing but a word where a seed is censored."""
    summary = style.select(tables["summary"], **where)
    if summary["estimate"].isna().all():
        if not axes.texts:
            # below the axis' label, where it covers no data
            axes.text(0.5, -0.27, CENSORED, ha="center", va="top", transform=axes.transAxes, fontsize=7)
        for _, rows in style.select(tables["runs"], **where).groupby("seed"):
            (line,) = axes.plot(rows["index"].map(places), rows["value"], color=shade, linestyle=linestyle, lw=0.6)
        return {f"{name}, single seeds": (line,)}
    if thin and summary["n"].max() > 1:
        runs = style.select(tables["runs"], **where)
        style.seed_lines(axes, runs.assign(place=runs["index"].map(places)), "place", shade, linestyle)
    placed = summary.assign(place=summary["index"].map(places))
    return {f"{name}, {style.seeds_text(summary)}": style.mean_line(axes, placed, "place", shade, linestyle)}


def _places(runs: pd.DataFrame, part: str, quantity: str) -> "pd.Series[float]":
    """Return index -> place; settings, and so the same for every seed."""
    rows = style.select(runs, part=part, quantity=quantity)
    return rows.groupby("index")["value"].first()


def _values(rows: pd.DataFrame, quantity: str) -> np.ndarray:
    values: np.ndarray = style.select(rows, quantity=quantity).sort_values("index")["value"].to_numpy()
    return values
