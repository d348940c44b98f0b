"""How the state at the end of a prompt grows through the layers, and by which law."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from learning_geometry.figures import style
from learning_geometry.figures.layer_panels import (
    MID,
    PRE,
    STREAMS,
    UNBROKEN,
    Column,
    beyond_the_embedding,
    draw_columns,
    label_rows,
    layer_axes,
    line_with_band,
    log_scale,
    log_ticks,
    null_line,
    placed,
    title_width,
    upper_limits,
    with_interval,
)
from learning_geometry.geometry.growth import FITTED_SHARE, LAWS, fit_law

REQUIRES = ("depth_growth",)
"""The measurements whose tables the figure reads."""

NORM, INCREMENT, COSINE, VARIANCE = "state_norm", "increment_norm", "increment_cosine", "mean_variance"
MEAN_COSINE, RANDOM = "mean_increment_cosine", "random_directions"

LOOKS = {
    "linear": ("linear", style.GREEN, "s", (0, (1.0, 1.0))),
    "square": ("square of a line", style.SKY_BLUE, "v", (0, (1.0, 2.2))),
    "power": ("power law", style.PURPLE, "D", (0, (5.0, 1.2, 1.0, 1.2))),
    "exponential": ("exponential", style.BLACK, "o", (0, (3.0, 1.2))),
}
"""Law -> legend entry, colour, marker and line style."""

OFFSETS = dict(zip(LAWS, (-0.27, -0.09, 0.09, 0.27), strict=True))
"""Law -> where it stands beside the others."""

FLOOR = 1e-9
"""Two thirds of 30 layers are 20 of them, whatever the rounding of 2/3."""

FITTED = ((VARIANCE, PRE), (VARIANCE, MID), (NORM, PRE), (NORM, MID))
"""What laws are fitted to, in the order of the lowest panels."""

NAMES = {(VARIANCE, PRE): "variance,\npre", (VARIANCE, MID): "variance,\nmid", (NORM, PRE): "norm,\npre"} | {
    (NORM, MID): "norm,\nmid"
}

ROWS = {
    "norm": 1.1,
    "cosine of\nincrements": 1.0,
    "variance, mean\nover features": 1.2,
    "held-out error\n(RMS of ln)": 0.95,
    "exponential\nminus other": 0.95,
}
"""Label of the y axis, and height."""

MOST = {"experiments": 4, "prompts": 5}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw five panels over one another for each contrast of each language model; both sets of prompts together.

    From top to bottom: norm of the state that leaves a layer and of what the layer adds; cosine between what a layer
    and the one before it add, its mean over layers, and its null; variance over prompts, mean over features, with the
    four laws fitted to that of the stream between attention and MLP on the first two thirds of the layers, and where
    they lead in the last third (shaded); errors of the laws there, of variance and norm in both streams; the
    exponential's error minus each other law's, in the colour of that one. Bands and bars: 95 % intervals over pairs of
    prompts. Infinite errors stand at the upper edge, and differences from them at the lower.

    Args:
        tables: "summary", not read; "runs", tidy rows of all experiments.
        options: "experiments", their names; "prompts", if there, experiment -> contrast -> its two sets.

    Raises:
        ValueError: no experiment, or one was not measured; the message names the quantity.
    """
    with style.applied():
        figure, columns = draw_columns("depth_growth", REQUIRES, tables, options, INCREMENT, tuple(ROWS.values()))
        entries: dict[str, Any] = {}
        for column in columns:
            entries |= _draw_column(column, title_width(columns))
        upper_limits(columns, 2, room=0.12)
        upper_limits(columns, 3)
        log_ticks(columns)
        style.legend_on_top(figure, entries, columns=3)
    return figure


def _draw_column(column: Column, width: int) -> dict[str, Any]:
    norms, cosines, variances, errors, differences = column.panels
    entries: dict[str, Any] = {}
    for stream, (label, color) in STREAMS.items():
        entries[label] = line_with_band(norms, placed(column.select(NORM), stream), color)
        line_with_band(variances, beyond_the_embedding(placed(column.select(VARIANCE), stream)), color)
    entries["what a layer adds"] = line_with_band(norms, placed(column.select(INCREMENT), PRE), style.ORANGE)
    line_with_band(cosines, placed(column.select(COSINE), PRE), style.ORANGE)
    entries["null: random directions"] = null_line(cosines, placed(column.select(COSINE, RANDOM), PRE))
    log_scale(norms)
    log_scale(variances)
    layers = float(placed(column.select(INCREMENT), PRE)["place"].max())
    layer_axes(column.panels[:3], layers)
    # of a model of fewer layers nothing is fitted
    if column.has(f"held_out_error-{LAWS[0]}-{VARIANCE}"):
        _draw_laws(column, variances)
        entries |= _draw_errors(column, errors)
        _draw_differences(column, differences)
    else:
        for axes in (errors, differences):
            axes.text(0.5, 0.5, "too few layers", transform=axes.transAxes, ha="center", va="center")
        for axes in (errors, differences):
            _stream_axis(axes, axes is differences)
    label_rows(column, tuple(ROWS))
    mean = _mean_cosine(column) if column.has(MEAN_COSINE) else "mean cosine: none, as some layers have none"
    column.title(int(column.select(INCREMENT)["n"].max()), width, [mean])
    return entries


def _mean_cosine(column: Column) -> str:
    chance = f"null:{UNBROKEN}\u00b1{column.select(MEAN_COSINE, RANDOM)['high'].iloc[0]:.2g}"
    return f"mean cosine: {with_interval(column.select(MEAN_COSINE).iloc[0])}; {chance}"


def _draw_laws(column: Column, axes: Axes) -> None:
    """Draw the laws that the first layers give, as those judged in the panel below, and shade where they are judged."""
    rows = placed(column.select(VARIANCE), MID)
    rows = rows[rows["place"] > 1]
    places = rows["place"].to_numpy()
    fitted = int(FITTED_SHARE * len(places) + FLOOR)
    layers, values = places - 0.5, rows["value"].to_numpy()
    for law, (_, color, _, linestyle) in LOOKS.items():
        predicted = fit_law(law, layers[:fitted], values[:fitted]).at(layers)
        # a line may be negative; and laws that miss by decades must not squeeze what they are to predict
        shown = np.where(predicted > 0, predicted, np.nan)
        axes.add_artist(Line2D(places, shown, color=color, linestyle=linestyle, linewidth=0.9, zorder=3))
    axes.axvspan(layers[fitted], layers[-1] + 1, color=style.NULL_GREY, alpha=0.15, zorder=0)


def _draw_errors(column: Column, axes: Axes) -> dict[str, Any]:
    """Draw the error of each law where it was judged, side by side."""
    entries: dict[str, Any] = {}
    infinite: list[tuple[float, str]] = []
    for law, offset in OFFSETS.items():
        label, color, marker, linestyle = LOOKS[law]
        (entries[label],) = column.panels[0].plot(
            [], [], color=color, marker=marker, markersize=3.2, linestyle=linestyle, linewidth=0.9
        )
        for number, (what, stream) in enumerate(FITTED):
            row = _of_stream(column, f"held_out_error-{law}-{what}", stream)
            if row is None:
                _undefined(axes, float(number))
            elif np.isfinite(row["value"]):
                _point(axes, number + offset, row, color, marker)
            else:
                infinite.append((number + offset, color))
    for place, color in infinite:
        axes.plot(place, 0.96, "^", color=color, markersize=4, transform=axes.get_xaxis_transform(), zorder=3)
    _stream_axis(axes, False)
    return entries


def _draw_differences(column: Column, axes: Axes) -> None:
    for law, offset in OFFSETS.items():
        _, color, marker, _ = LOOKS[law]
        for number, (what, stream) in enumerate(FITTED if law != "exponential" else ()):
            row = _of_stream(column, f"exponential_minus_{law}-{what}", stream)
            if row is None:
                _undefined(axes, float(number))
            elif np.isfinite(row["value"]):
                _point(axes, number + offset, row, color, marker)
            else:
                place = axes.get_xaxis_transform()
                axes.plot(number + offset, 0.04, "v", color=color, markersize=4, transform=place, zorder=3)
    axes.axhline(0.0, color=style.NULL_GREY, linewidth=0.6, zorder=1)
    _stream_axis(axes, True)


def _of_stream(column: Column, quantity: str, stream: str) -> pd.Series | None:
    """The row of a stream; None where no law could be fitted to it."""
    rows = column.select(quantity)
    what = quantity.rpartition("-")[2]
    if not (rows["part"] == stream).any() and any(each.startswith(f"no law of {what},") for each in column.lacking):
        return None
    return style.select(rows, part=stream).iloc[0]


def _undefined(axes: Axes, place: float) -> None:
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": style.SMALL, "color": style.CONTROL_GREY}
    if not any(text.get_position()[0] == place for text in axes.texts):
        axes.text(place, 0.5, "none", transform=axes.get_xaxis_transform(), **look)


def _point(axes: Axes, x: float, row: pd.Series, color: str, marker: str) -> None:
    """Draw a value, and its interval where it is known."""
    bars = np.array([[row["value"] - row["low"]], [row["high"] - row["value"]]])
    known = bool(np.isfinite(bars).all())
    axes.errorbar(
        x,
        row["value"],
        # the bootstrap's interval may leave the value out
        yerr=bars.clip(0.0) if known else None,
        color=color,
        marker=marker,
        markersize=3.2,
        linewidth=1.0,
        zorder=3,
    )


def _stream_axis(axes: Axes, labelled: bool) -> None:
    axes.set_xticks(range(len(FITTED)), [NAMES[each] for each in FITTED] if labelled else [])
    axes.tick_params(axis="x", length=0, labelsize=6)
    axes.set_xlim(-0.5, len(FITTED) - 0.5)
