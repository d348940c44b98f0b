"""Two sets of prompts through the layers: the cosine of their means, and how much each of them varies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style
from learning_geometry.figures.layer_panels import (
    DASHED,
    MID,
    SECOND_SET,
    STREAMS,
    SWAPPED,
    SWAPPED_LABEL,
    THIN,
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
    proxy,
    title_width,
    with_interval,
)

REQUIRES = ("prompt_contrasts",)
"""The measurements whose tables the figure reads."""

COSINE, LOG_DIFFERENCE = "mean_cosine", "log_variance_difference"
WITHOUT_ROGUES, NORMALISED = "_without_rogues", "_normalised"

DIFFERENCES = {
    "cosine_middle_minus_first": "cosine, middle \u2212 first",
    "cosine_last_minus_middle": "cosine, last \u2212 middle",
}

PUBLISHED_SETS = ("harmful", "harmless")

PUBLISHED_COSINES = {
    "Llama-3.2-3B": (0.46, 0.51),
    "Qwen-1.8B": (0.72, 0.78),
    "Qwen2.5-7B": (0.645, 0.87),
    "Qwen2.5-32B": (0.56, 0.71),
    "Mistral-Nemo": (0.785, 0.875),
}
"""Smallest cosine over layers and that of the last layer, read off the published figures, to 5 %; of 16 prompts."""

PUBLISHED_VARIANCES = {
    "Llama-3.2-3B": (0.10, 0.33),
    "Qwen-1.8B": (2.9, 8.1),
    "Qwen2.5-7B": (5.3, 15.9),
    "Qwen2.5-32B": (39.0, 68.0),
    "Mistral-Nemo": (0.93, 2.1),
}
"""Mean variance of the harmful and of the harmless prompts at the last layer, likewise."""

ROWS = {
    "cosine of the means": 1.5,
    "variance, mean\nover features": 1.25,
    "variance, largest\nof a feature": 1.0,
    "mean variance,\nnormalised": 1.0,
    "mid / pre,\ninterpolated": 0.8,
}
"""Label of the y axis, and height."""

MOST_NINES = 6.0
"""Cosines nearer to 1 than 1 - 10^-6 are beyond the axis, and near the rounding of activations in float32."""

MOST = {"experiments": 4, "prompts": 5}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw five panels over one another for each contrast of each language model; one colour a stream.

    From top to bottom: cosine of the two sets' mean vectors, on an axis that is logarithmic in its distance from 1;
    variance over prompts, one curve a set and stream, mean over features, the largest of a feature, and the mean after
    the stream's own normalisation, on logarithmic axes; variance between attention and MLP over that before the
    attention, interpolated between this layer and the next. Bands: 95 % intervals over pairs of prompts, by the
    bootstrap, of cosines by the jackknife. Null: pairs swapped, of the stream between attention and MLP. Thin lines:
    without rogue dimensions. The published values stand beside the last layer of harmful against harmless prompts. The
    embedding is left out: the chat template makes it the same for all prompts.

    Args:
        tables: "summary", not read; "runs", tidy rows of all experiments.
        options: "experiments", their names; "prompts", if there, experiment -> contrast -> its two sets.

    Raises:
        ValueError: no experiment, or one was not measured; the message names the quantity.
    """
    with style.applied():
        figure, columns = draw_columns("contrast_by_layer", REQUIRES, tables, options, COSINE, tuple(ROWS.values()))
        entries: dict[str, Any] = {}
        for column in columns:
            entries |= _draw_column(column, title_width(columns))
        for experiment in dict.fromkeys(column.experiment for column in columns):
            _cosine_axis([column for column in columns if column.experiment == experiment])
        log_ticks(columns)
        style.legend_on_top(figure, entries, columns=3)
    return figure


def _draw_column(column: Column, width: int) -> dict[str, Any]:
    cosine, mean, largest, normalised, ratio = column.panels
    entries: dict[str, Any] = {}
    for stream, (label, color) in STREAMS.items():
        entries[label] = line_with_band(cosine, beyond_the_embedding(placed(column.select(COSINE), stream)), color)
        without = beyond_the_embedding(placed(column.select(COSINE + WITHOUT_ROGUES), stream))
        line_with_band(cosine, without, color, linewidth=THIN, band=False)
    for label, color in SECOND_SET.values():
        entries[label] = proxy(column, color=color, linestyle=DASHED)
    entries["thin: without rogue dimensions"] = proxy(column, color=style.CONTROL_GREY, linewidth=THIN)
    null = beyond_the_embedding(placed(column.select(COSINE, SWAPPED), MID))
    entries[SWAPPED_LABEL] = null_line(cosine, null)
    _draw_variances(column, mean, "mean_variance-{}")
    _draw_variances(column, largest, "maximum_variance-{}")
    _draw_variances(column, normalised, "mean_variance-{}" + NORMALISED)
    for name, (color, linestyle) in _looks(MID).items():
        without = beyond_the_embedding(placed(column.select(f"mean_variance-{name}{WITHOUT_ROGUES}"), MID))
        line_with_band(mean, without, color, linestyle, linewidth=THIN, band=False)
    _draw_ratio(column, ratio)
    layers = max(placed(column.select(COSINE), stream)["place"].max() for stream in STREAMS)
    layer_axes(column.panels, float(np.ceil(layers)))
    if _like_published(column):
        entries |= _draw_published(column, float(np.ceil(layers)))
    label_rows(column, tuple(ROWS))
    # of a model of one or two layers there are no thirds
    differences = [
        f"{label}: {with_interval(column.select(quantity).iloc[0])}"
        for quantity, label in DIFFERENCES.items()
        if column.has(quantity)
    ]
    column.title(int(column.select(COSINE)["n"].max()), width, differences)
    return entries


def _draw_variances(column: Column, axes: Axes, quantity: str) -> None:
    """Draw a variance of both sets in both streams, and of the first set with pairs swapped."""
    for stream in STREAMS:
        for name, (color, linestyle) in _looks(stream).items():
            rows = beyond_the_embedding(placed(column.select(quantity.format(name)), stream))
            line_with_band(axes, rows, color, linestyle)
    null_line(axes, beyond_the_embedding(placed(column.select(quantity.format("first"), SWAPPED), MID)))
    log_scale(axes)


def _looks(stream: str) -> dict[str, tuple[str, Any]]:
    """Return colour and line style of the variance of each set, by the end of the quantity's name."""
    return {"first": (STREAMS[stream][1], "-"), "second": (SECOND_SET[stream][1], DASHED)}


def _draw_ratio(column: Column, axes: Axes) -> None:
    """Draw the variance after attention over the geometric mean of those before it and after the MLP, of both sets."""
    rows = column.select(LOG_DIFFERENCE)
    layer = rows["part"].str.extract(r"layers\.(\d+)")[0].astype(float)
    rows = rows.assign(place=layer + 0.5, **{name: np.exp(rows[name]) for name in ("value", "low", "high")})
    line_with_band(axes, rows.sort_values("place", kind="stable"), style.BLACK)
    axes.axhline(1.0, color=style.NULL_GREY, linewidth=0.6, zorder=1)
    log_scale(axes)


def _like_published(column: Column) -> bool:
    return column.sets == PUBLISHED_SETS or (not column.sets and column.contrast.startswith("harm"))


def _draw_published(column: Column, layers: float) -> dict[str, Any]:
    """Draw two marks and a bar between them for each published model, beyond the last layer."""
    spacing = 0.035 * layers
    places = layers + spacing * (1.5 + np.arange(len(PUBLISHED_COSINES)))
    look: dict[str, Any] = {"color": style.BLACK, "linestyle": "none", "markersize": 2.4, "zorder": 3}
    entries: dict[str, Any] = {}
    for axes, published, marker, label in (
        (column.panels[0], PUBLISHED_COSINES, "v", "published, smallest cosine"),
        (column.panels[1], PUBLISHED_VARIANCES, "_", "published, variance of harmful"),
    ):
        starts, ends = np.array([published[name] for name in PUBLISHED_COSINES]).T
        axes.vlines(places, starts, ends, color=style.BLACK, linewidth=0.8, zorder=2.9)
        (last,) = axes.plot(places, ends, marker="o", **look)
        entries["published, last layer (variance: of harmless)"] = last
        (entries[label],) = axes.plot(places, starts, marker=marker, **look)
        axes.axvline(layers + 0.6 * spacing, color=style.NULL_GREY, linewidth=0.4, zorder=1)
    for axes in column.panels:
        axes.set_xlim(0.0, places[-1] + spacing)
    return entries


def _cosine_axis(columns: Sequence[Column]) -> None:
    """Make the cosines' axis logarithmic in 1 - cosine, with ticks at .9, .99, ..., wide enough for all columns."""
    shown = [
        column.select(quantity, null)["value"]
        for column in columns
        for quantity, null in ((COSINE, ""), (COSINE + WITHOUT_ROGUES, ""), (COSINE, SWAPPED))
    ]
    if any(map(_like_published, columns)):
        shown.append(pd.Series(np.ravel(list(PUBLISHED_COSINES.values()))))
    reached = _nines(np.concatenate(shown))
    reached = reached[np.isfinite(reached)]
    if not reached.size:
        raise ValueError(f"{COSINE} of {columns[0].experiment}: every value is NaN, there is nothing to draw")
    low, high = reached.min() - 0.15, min(reached.max(), MOST_NINES) + 0.15
    axes = columns[0].panels[0]
    axes.set_yscale("function", functions=(_nines, _from_nines))
    axes.set_ylim(*_from_nines(np.array([low, high])))
    ticks = [0.0 if low < 0 else 0.5, *_from_nines(np.arange(1, MOST_NINES + 1))]
    ticks = [tick for tick in ticks if low <= _nines(np.array(tick)) <= high]
    axes.set_yticks(ticks, [_cosine_text(tick) for tick in ticks])


def _nines(cosine: np.ndarray) -> np.ndarray:
    """Return how many nines a cosine has after the decimal point.

    >>> _nines(np.array([0.9, 0.99])).round(6)
    array([1., 2.])
    """
    # of an exact 1 they would be infinite
    return np.asarray(-np.log10(np.maximum(1.0 - cosine, 1e-9)))


def _cosine_text(cosine: float) -> str:
    nines = round(float(_nines(np.array(cosine))))
    return rf"$1-10^{{-{nines}}}$" if nines > 3 else f"{cosine:g}"


def _from_nines(nines: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 - 10.0**-nines)
