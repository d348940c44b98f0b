"""How the last layer's attention concentrates: over training, along the routing coordinate, and which of them tells."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style
from learning_geometry.figures.marker_sums_learning import LOOKS, OWN
from learning_geometry.tables.progress_measures import last_layer

REQUIRES = ("attention_entropy", "routing_coordinate")
"""The measurements whose tables the figure reads."""

ENTROPY, COORDINATE = "attention_entropy", "routing_coordinate"

FITS = {
    "saturating_coordinate": "saturating,\ncoordinate",
    "line_coordinate": "line,\ncoordinate",
    "saturating_step": "saturating,\nstep",
    "line_step": "line, step",
    "free_step": "any function,\nstep",
}
"""End of the quantity's name -> form of the fit and what it is a function of."""

PUBLISHED = ((1000, 0.4, 1.0), (19_500, 1.0, 1.4))
"""Step, lowest and highest entropy in nats read off a published figure: arXiv 2602.10496, 5 layers of width 128 and
learning rate 3e-4, over numbers of markers."""

MOST = {"experiments": 6}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw three panels for each experiment; everywhere one colour for each test set, of the last layer.

    (Left) Entropy of the attention at the last query position over training: mean over seeds, its 95 % interval as a
    band, single seeds as thin lines; nulls: uniform attention, and the untrained model in the colour of the test set.
    Black bars: the published range, where training lasts that long. (Middle) The same entropies against the routing
    coordinate, one line for each seed from its first checkpoint on the uniform grid to its last, a dot; null: where
    random walks with the run's step norms end. (Right) Error on a seed left out of the fit: mean over seeds with its
    95 % interval, single seeds as dots; null: a constant.

    Args:
        tables: "summary", summary rows of all experiments; "runs", tidy rows of all their seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or one was not measured; the message names the quantity.
    """
    names, tables = style.shown("attention_concentration", REQUIRES, tables, options)
    entries: dict[str, Any] = {}
    with style.applied():
        figure = Figure(figsize=(style.DOUBLE_WIDTH, 0.6 + 2.35 * len(names)), layout="constrained")
        grid = figure.subplots(len(names), 3, squeeze=False, width_ratios=(1.15, 1.0, 0.95))
        letters = iter(style.letters(3 * len(names)))
        for experiment, (training, along, errors) in zip(names, grid, strict=True):
            of_one = {name: table[table["experiment"] == experiment] for name, table in tables.items()}
            looks = _looks(style.select(of_one["summary"], quantity=ENTROPY)["data"].unique().tolist())
            # published with distractors that leave a short cut; of other tasks they are not known
            distractors = options.get("tasks", {}).get(experiment, {}).get("distractors", "published")
            entries |= _draw_training(training, of_one, looks, distractors == "published")
            entries |= _draw_along(along, of_one, looks)
            entries |= _draw_errors(errors, of_one, looks)
            along.sharey(training)
            along.set_ylabel("entropy (nats)")
            number = style.seeds_text(style.select(of_one["summary"], quantity=ENTROPY, null=""))
            training.set_title(style.wrapped(experiment.replace("_", " "), number, 32), loc="left", fontsize=7, pad=4)
            for axes in (training, along, errors):
                style.panel_letter(axes, next(letters))
        style.legend_on_top(figure, entries, columns=min(5, -(-len(entries) // 2)))
    return figure


def _looks(names: list[str]) -> dict[str, tuple[str, str]]:
    """Return label and colour of each test set shown: those as in training where sets are told by markers, or all."""
    markers = {int(match[1]): name for name in names if (match := OWN.match(name))}
    if not markers:
        colors = _colors(len(names))
        return {name: (name.replace("_", " "), colors[i]) for i, name in enumerate(sorted(names))}
    colors = _colors(max(markers))
    return {name: (f"m = {count}", colors[count - 1]) for count, name in sorted(markers.items())}


def _colors(number: int) -> list[str]:
    """Return the colours of as many test sets, those of the errors as long as they suffice."""
    return [color for color, _ in LOOKS][:number] if number <= len(LOOKS) else style.colors(number)


def _last_layer_entropy(summary: pd.DataFrame) -> dict[str, str | int]:
    rows = style.select(summary, quantity=ENTROPY, null="")
    return {"quantity": ENTROPY, "part": str(rows.loc[last_layer(rows["part"]), "part"].iloc[0])}


def _draw_training(
    axes: Axes, tables: Mapping[str, pd.DataFrame], looks: Mapping[str, tuple[str, str]], with_published: bool
) -> dict[str, Any]:
    where = _last_layer_entropy(tables["summary"])
    entries: dict[str, Any] = {}
    for data, (label, color) in looks.items():
        ((_, handle),) = style.curve(axes, tables, where | {"data": data}, color, label).items()
        for band in handle[1:]:
            band.set_alpha(0.12)  # of several test sets, over one another
        entries[label] = handle
        untrained = style.select(tables["summary"], **where, data=data, null="untrained")
        style.null_band(axes, untrained, "step", "--", color)
    shown = style.select(tables["summary"], **where)
    uniform = style.select(shown, data=next(iter(looks)), null="uniform_attention")
    entries["null: uniform attention"] = style.null_band(axes, uniform, "step")
    (entries["null: untrained, in its colour"],) = axes.plot(
        [], [], color=style.NULL_GREY, linestyle="--", linewidth=0.9
    )
    last = int(shown["step"].max())
    reached = [published for published in PUBLISHED if published[0] <= last]
    if reached and with_published and all(OWN.match(data) for data in looks):
        steps, low, high = np.array(reached).T
        entries["published range, other set-up"] = axes.errorbar(
            steps,
            (low + high) / 2,
            yerr=(high - low) / 2,
            linestyle="none",
            color=style.BLACK,
            linewidth=1.6,
            capsize=2.5,
            zorder=4,
        )
    style.step_axis(axes, shown["step"].tolist())
    axes.set_ylabel("entropy (nats)")
    axes.set_ylim(0.0, 1.06 * float(uniform["estimate"].iloc[0]))
    return entries


def _draw_along(axes: Axes, tables: Mapping[str, pd.DataFrame], looks: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    where = _last_layer_entropy(tables["summary"])
    columns = ["seed", "step", "value"]
    coordinates = style.select(tables["runs"], quantity=COORDINATE, part=where["part"], null="")[columns]
    for data, (_, color) in looks.items():
        entropies = style.select(tables["runs"], **where, data=data, null="")[columns]
        points = coordinates.merge(entropies, on=["seed", "step"], suffixes=("", "_of_entropy")).sort_values("step")
        for _, of_seed in points.groupby("seed"):
            x, y = of_seed["value"].to_numpy(), of_seed["value_of_entropy"].to_numpy()
            axes.plot(x, y, color=color, linewidth=0.5, alpha=0.7, zorder=2)
            axes.plot(
                x[-1:], y[-1:], "o", color=color, markersize=3.2, markeredgecolor="white", markeredgewidth=0.4, zorder=3
            )
    axes.set_xlabel("routing coordinate")
    walks = style.select(tables["summary"], quantity=COORDINATE, part=where["part"], null="step_norm_walk")
    end = walks.sort_values("step").iloc[-1]
    line = axes.axvline(end["estimate"], color=style.NULL_GREY, linestyle="-.", linewidth=0.9, zorder=1.6)
    band = axes.axvspan(end["low"], end["high"], color=style.NULL_GREY, alpha=0.35, zorder=1.5)
    return {"null: end of random walks": (line, band)}


def _draw_errors(
    axes: Axes, tables: Mapping[str, pd.DataFrame], looks: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    summary = tables["summary"]
    entries: dict[str, Any] = {}
    axes.set_xlabel("held-out error (nats)")
    if not summary["quantity"].str.startswith("held_out_error_").any():
        axes.set_yticks([])
        axes.set_xticks([])
        axes.text(0.5, 0.5, "too few seeds or checkpoints", transform=axes.transAxes, ha="center", va="center")
        return entries
    offsets = np.linspace(-0.28, 0.28, len(looks)) if len(looks) > 1 else np.zeros(1)
    for place, fit in enumerate(FITS):
        for offset, (data, (_, color)) in zip(offsets, looks.items(), strict=True):
            where = {"quantity": f"held_out_error_{fit}", "data": data}
            seeds = style.select(tables["runs"], **where, null="")["value"]
            mean = style.select(summary, **where, null="").iloc[0]
            constant = style.select(summary, **where, null="mean_of_other_seeds").iloc[0]
            y = place + offset
            axes.plot(seeds, np.full(len(seeds), y), "o", color=style.NULL_GREY, markersize=1.6, zorder=2)
            bars = [[mean["estimate"] - mean["low"]], [mean["high"] - mean["estimate"]]]
            axes.errorbar(
                mean["estimate"],
                y,
                xerr=bars if np.isfinite(bars).all() else None,
                color=color,
                marker="o",
                markersize=2.6,
                linewidth=1.1,
                zorder=3,
            )
            (entries["null: mean of the other seeds"],) = axes.plot(
                constant["estimate"], y, "|", color=style.CONTROL_GREY, markersize=5, markeredgewidth=1.0, zorder=1
            )
    axes.set_yticks(range(len(FITS)), list(FITS.values()))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(FITS) - 0.5, -0.5)
    axes.set_xlim(left=0.0)
    return entries
