"""How sequences in and out of distribution come apart in the residual stream over training."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("contrast_over_training",)
"""The measurements whose tables the figure reads."""

COSINE, SEPARABILITY = "mean_cosine", "separability"
VARIANCES = {"mean_variance-first": "-", "mean_variance-second": "--"}
"""Quantity -> kind of line, of the first and of the second set."""

COLORS = (style.BLACK, style.SKY_BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.ORANGE)
"""Of the places in the residual stream, in the order in which a model passes them."""

MOST = {"experiments": 6}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

PARTS = {"residual_pre": "before", "residual_mid": "after attention of", "residual_post": "after"}
ORDER = tuple(PARTS)

TRANSITION = "first_step_below_0.5"


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw three panels for each experiment, one row each, a colour for each place in the residual stream.

    (Left) Cosine of the two sets' means over training. (Middle) Variance over the sequences of a set, mean over
    coordinates, of the first (solid) and of the second set (dashed), logarithmic. (Right) Held-out accuracy of a linear
    probe that tells the sets apart. Mean over seeds, its 95 % interval as a band, single seeds as thin lines. Nulls:
    shuffled labels, mean as a dotted line in the colour of the place, and on the right the range of all places as a
    grey band; the untrained model is where the curves begin. Dash-dotted: mean step of the transition.

    Args:
        tables: "summary", summary rows of all experiments; "runs", tidy rows of all their seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or one was not measured; the message names the quantity.
    """
    names, tables = style.shown("contrast_over_training", REQUIRES, tables, options)
    letters = iter(style.letters(3 * len(names)))
    entries: dict[str, Any] = {}
    with style.applied():
        figure = Figure(figsize=(style.DOUBLE_WIDTH, 0.65 + 2.2 * len(names)), layout="constrained")
        grid = figure.subplots(len(names), 3, squeeze=False)
        for experiment, panels in zip(names, grid, strict=True):
            of_one = {name: table[table["experiment"] == experiment] for name, table in tables.items()}
            rows = style.select(of_one["summary"], quantity=COSINE, null="")
            places = _places(rows)
            cosine, variance, separability = panels
            entries |= _draw(cosine, of_one, COSINE, places)
            for quantity, line in VARIANCES.items():
                _draw(variance, of_one, quantity, places, line)
            entries |= _draw(separability, of_one, SEPARABILITY, places)
            sets = rows["data"].iloc[0].split("-")
            of_sets = {}
            for name, line in zip(sets, VARIANCES.values(), strict=True):
                (handle,) = variance.plot([], [], color=style.CONTROL_GREY, linestyle=line)
                of_sets[name.replace("_", " ")] = handle
            variance.legend(of_sets.values(), of_sets, loc="upper left")
            _set_limits(of_one, *panels)
            cosine.set_ylabel("cosine of the sets' means")
            variance.set_ylabel("variance within a set,\nmean over coordinates")
            separability.set_ylabel("held-out accuracy")
            seeds = style.seeds_text(rows)
            cosine.set_title(style.wrapped(experiment.replace("_", " "), seeds, 34), loc="left", fontsize=7, pad=4)
            for axes in panels:
                style.step_axis(axes, rows["step"].tolist())
                style.panel_letter(axes, next(letters))
                entries |= _mark_transition(axes, of_one["summary"])
        style.legend_on_top(figure, entries, columns=3)
    return figure


def _places(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return label and colour of each part, in the order in which the model passes them."""

    def order(part: str) -> tuple[int, int]:
        _, layer, place = part.split(".")
        return int(layer), ORDER.index(place)

    looks = {}
    parts = sorted(rows["part"].unique().tolist(), key=order)
    colors = COLORS[: len(parts)] if len(parts) <= len(COLORS) else style.colors(len(parts))
    for part, color in zip(parts, colors, strict=True):
        _, layer, place = part.split(".")
        looks[part] = (f"{PARTS[place]} layer {int(layer) + 1}", color)
    return looks


def _draw(
    axes: Axes,
    tables: Mapping[str, pd.DataFrame],
    quantity: str,
    places: Mapping[str, tuple[str, str]],
    line: str = "-",
) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for part, (label, color) in places.items():
        where = {"quantity": quantity, "part": part}
        ((_, handle),) = style.curve(axes, tables, where, color, label, line).items()
        for band in handle[1:]:
            band.set_alpha(0.12)  # several over one another
        entries[label] = handle
        null = style.select(tables["summary"], **where, null="shuffled_labels").sort_values("step")
        if quantity == SEPARABILITY:
            band = axes.fill_between(
                null["step"], null["low"], null["high"], color=style.NULL_GREY, alpha=0.15, zorder=1.5
            )
            entries["null: shuffled labels, range"] = band
        elif quantity == COSINE:  # the variances of random halves are the mean of those shown
            axes.plot(null["step"], null["estimate"], color=color, linestyle=":", linewidth=0.9, zorder=1.6)
    if quantity == COSINE:
        (entries["null: shuffled labels, mean"],) = axes.plot([], [], color=style.NULL_GREY, linestyle=":")
    return entries


def _set_limits(tables: Mapping[str, pd.DataFrame], cosine: Axes, variance: Axes, separability: Axes) -> None:
    """Set limits by what single seeds have: intervals of few seeds reach beyond what these numbers can be."""
    runs = tables["runs"]
    lowest = runs.loc[runs["quantity"] == COSINE, "value"].min()
    cosine.set_ylim(lowest - 0.05, 1.02)
    values = runs.loc[runs["quantity"].isin(VARIANCES) & (runs["value"] > 0), "value"]
    variance.set_yscale("log")
    variance.set_ylim(values.min() / 1.3, values.max() * 3)  # room for the legend
    of_probes = runs[runs["quantity"] == SEPARABILITY]
    separability.set_ylim(min(of_probes["value"].min() - 0.05, of_probes["low"].min()), 1.02)


def _mark_transition(axes: Axes, summary: pd.DataFrame) -> dict[str, Any]:
    rows = summary[(summary["quantity"] == TRANSITION) & (summary["data"] == "out_of_distribution")]
    rows = rows[rows["null"] == ""]
    if rows.empty or rows.iloc[0]["censored"]:
        return {}
    line = axes.axvline(rows.iloc[0]["estimate"], color=style.BLACK, linestyle="-.", linewidth=0.5, zorder=0)
    return {"transition, mean": line}
