"""Whether layers untangle two sets of prompts: how well they separate, and how many dimensions each of them fills."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style
from learning_geometry.figures.layer_panels import (
    DASHED,
    MID,
    PRE,
    SETS,
    SWAPPED,
    SWAPPED_LABEL,
    UNTRAINED,
    Column,
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
    upper_limits,
    with_interval,
)

REQUIRES = ("untangling",)
"""The measurements whose tables the figure reads."""

SEPARABILITY, RATIO, GAIN = "separability", "between_over_within", "separability_gain"
PARTICIPATION, INTRINSIC = "participation_ratio", "intrinsic_dimension"

COSINES = {
    "set_cosine_rms": ("principal angles, root mean square of cosines", style.BLUE),
    "set_cosine_largest": ("largest of these cosines", style.ORANGE),
}
"""Quantity -> legend entry and colour."""

ROWS = {
    "separability\n(accuracy)": 1.1,
    "variance between\n/ within sets": 1.1,
    "participation\nratio": 1.1,
    "intrinsic\ndimension": 1.1,
    "cosine of sets'\nsubspaces": 1.1,
}
"""Label of the y axis, and height."""

MOST = {"experiments": 4, "prompts": 5}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw five panels over one another for each contrast of each language model, between attention and MLP.

    From top to bottom: accuracy of a linear probe on pairs of prompts that it has not seen; variance between the sets'
    means over that within the sets, on a logarithmic axis; participation ratio and intrinsic dimension of the first
    set, the second, and both together; cosines of the principal angles between the sets' principal subspaces. Bands:
    95 % intervals over pairs of prompts. Nulls: pairs swapped (grey), and, dashed in the colour of what it is compared
    with, the untrained model. Where only the stream before attention was measured, that is shown.

    Args:
        tables: "summary", not read; "runs", tidy rows of all experiments.
        options: "experiments", their names; "prompts", if there, experiment -> contrast -> its two sets.

    Raises:
        ValueError: no experiment, or one was not measured; the message names the quantity.
    """
    with style.applied():
        figure, columns = draw_columns("untangling", REQUIRES, tables, options, SEPARABILITY, tuple(ROWS.values()))
        entries: dict[str, Any] = {}
        for column in columns:
            entries |= _draw_column(column, title_width(columns))
        for row in (2, 3):
            upper_limits(columns, row)
        log_ticks(columns)
        style.legend_on_top(figure, entries, columns=3)
    return figure


def _draw_column(column: Column, width: int) -> dict[str, Any]:
    separability, ratio, participation, intrinsic, cosines = column.panels
    measured = column.select(SEPARABILITY)
    stream = MID if measured["part"].str.endswith(MID).any() else PRE
    _draw_with_nulls(column, separability, SEPARABILITY, stream, style.BLACK)
    _draw_with_nulls(column, ratio, RATIO, stream, style.BLACK)
    log_scale(ratio)
    for axes, quantity in ((participation, PARTICIPATION), (intrinsic, INTRINSIC)):
        for name, (_, color) in SETS.items():
            _draw_with_nulls(column, axes, f"{quantity}-{name}", stream, color)
    for quantity, (_, color) in COSINES.items():
        _draw_with_nulls(column, cosines, quantity, stream, color)
    layer_axes(column.panels, float(int(placed(measured, stream)["place"].max()) + 1))
    label_rows(column, tuple(ROWS))
    beyond = []
    if column.has(GAIN):  # of a model of one or two layers there is none
        beyond = [f"separability gain over untrained: {with_interval(column.select(GAIN).iloc[0])}"]
    column.title(int(measured["n"].max()), width, beyond)
    entries = {label: proxy(column, color=color) for label, color in (*SETS.values(), *COSINES.values())}
    entries["null: untrained, in its colour"] = proxy(column, color=style.CONTROL_GREY, linestyle=DASHED, linewidth=0.9)
    entries[SWAPPED_LABEL] = null_line(separability, placed(column.select(SEPARABILITY, SWAPPED), stream))
    return entries


def _draw_with_nulls(column: Column, axes: Axes, quantity: str, stream: str, color: str) -> None:
    line_with_band(axes, placed(column.select(quantity), stream), color)
    untrained = placed(column.select(quantity, UNTRAINED), stream)
    null_line(axes, untrained, DASHED, color)
    # swapping pairs changes nothing in both sets together, and the first of two sets drawn alike says it all
    if not quantity.endswith(("-union", "-second", SEPARABILITY)):
        null_line(axes, placed(column.select(quantity, SWAPPED), stream))
