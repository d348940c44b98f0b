"""How many directions a language model's activations use at each step of its training, part by part, layer by layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from learning_geometry.figures import style
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

REQUIRES = ("activation_ranks",)
"""The measurements whose tables the figure reads."""

SERIES = True
"""It shows all steps of series of language models, and nothing else."""

MOST = {"experiments": 3, "texts": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

SETTINGS = {
    "step_scale": {
        "enum": ["log", "linear"],
        "default": "log",
        "description": "Scale of the steps; log has room for step 0.",
    },
}

PARTS = {
    "attention.output": ("attention output", style.BLUE),
    "mlp.output": ("MLP output", style.VERMILION),
    "residual_pre": ("residual stream", style.GREEN),
    "attention.z": ("z", style.PURPLE),
}
"""Part of a layer -> title and colour, a column each."""

QUANTITIES = {"directions_99": "directions for\n99 % / width", "effective_rank": "effective\nrank / width"}
"""Quantity -> label of the vertical axis, a row each."""

LIGHTEST = 0.3
"""How much of a part's colour the first layer has; the rest is white."""

MEAN = "mean over layers"


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw eight panels for each series: two ranks in two rows, a column for each part, against the step.

    Thin, from light to dark: the layers on the first text, means over seeds; of the residual stream what enters a
    layer, and last what leaves the last. Thick: the mean over those layers that were measured at every step and seed,
    with its 95 % interval over seeds, a kind of line for each text. Grey: the null, isotropic vectors.

    Args:
        tables: "summary" and "runs" over steps (``tables.series``), of each series.
        options: "experiments", names of series; "step_scale".

    Raises:
        ValueError: no experiment, or it was not measured; the message names the quantity.
    """
    return style.blocks("activation_ranks_by_step", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one series, of which alone the tables hold rows."""
    runs = style.select(tables["runs"], quantity=next(iter(QUANTITIES)), index=0, null="")
    texts = dict(zip(names := runs["data"].unique().tolist(), style.line_styles(len(names)), strict=True))
    figure = canvas(style.DOUBLE_WIDTH, 3.6)
    panels = figure.subplots(len(QUANTITIES), len(PARTS), sharex=True, sharey=True)
    entries: dict[str, Any] = {}
    unmeasured: list[str] = []
    letters = iter(style.letters(panels.size))
    means = _means_over_layers(tables["runs"])
    for row, (quantity, label) in enumerate(QUANTITIES.items()):
        for column, (part, (title, color)) in enumerate(PARTS.items()):
            axes = panels[row, column]
            rows = {name: _of_part(table, quantity, part) for name, table in tables.items()}
            of_panel = means[(means["quantity"] == quantity) & (means["part"] == part)]
            entries |= _draw_part(axes, rows, of_panel, texts, color)
            if row == 0:
                axes.set_title(title, loc="left", fontsize=7, pad=4)
                partly = sorted(set(rows["runs"]["layer"]) - set(_whole(rows["runs"], tables["runs"])["layer"]))
                unmeasured += [f"{title} of layer {', '.join(f'{layer:g}' for layer in partly)}"] * bool(partly)
            style.panel_letter(axes, next(letters))
        panels[row, 0].set_ylabel(label)
    for axes in panels[-1]:
        style.step_axis(axes, runs["step"].tolist(), options.get("step_scale", "log"))
    panels[0, 0].set_ylim(0.0, 1.03)
    seeds = style.seeds_text(style.select(tables["summary"], quantity=next(iter(QUANTITIES)), index=0, null=""))
    first = PARTS["attention.output"][0]
    panels[0, 0].set_title(
        style.wrapped(f"{experiment.replace('_', ' ')}: {first}", seeds, 24), loc="left", fontsize=7, pad=4
    )
    if unmeasured:
        style.note(figure, f"Not measured at some step, and in no mean over layers: {'; '.join(unmeasured)}.")
    style.legend_on_top(figure, entries | _kinds_of_line(panels[0, 0], texts), 4)


def _of_part(table: pd.DataFrame, quantity: str, part: str) -> pd.DataFrame:
    """Rows of all vectors of a part with the column ``layer``; what leaves the last layer is that of one more."""
    rows = table[(table["quantity"] == quantity) & (table["index"] == 0)]
    extracted = rows["part"].str.extract(r"^layers\.(\d+)\.(.+)$")
    rows = rows.assign(layer=pd.to_numeric(extracted[0]), of=extracted[1])
    if part == "residual_pre":
        leaves = rows["of"] == "residual_post"
        # of other layers it is what enters the next, and not kept
        rows.loc[leaves, "layer"] += 1
        rows.loc[leaves, "of"] = part
        rows = rows.drop_duplicates(["step", "layer", "of", "data", "null", *(["seed"] if "seed" in rows else [])])
    return rows[rows["of"] == part]


def _whole(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The measured rows of the layers that have a number at every step and seed of the series, for each text."""
    number = len(runs[["seed", "step"]].drop_duplicates())
    measured = rows[(rows["null"] == "") & rows["value"].notna()]
    there = measured.groupby(["data", "layer"])["value"].transform("size")
    return measured[there == number]


def _draw_part(
    axes: Axes, tables: Mapping[str, pd.DataFrame], means: pd.DataFrame, texts: Mapping[str, Any], color: str
) -> dict[str, Any]:
    """Draw one panel; returns the legend's entries, in grey, as colours are those of parts."""
    first = next(iter(texts))
    summary = tables["summary"][tables["summary"]["data"] == first]
    measured, null = (summary[summary["null"] == name] for name in ("", "isotropic"))
    if measured.empty:
        style.note_empty(axes, "not measured")
        return {}
    layers, steps = sorted(measured["layer"].unique()), sorted(map(float, tables["runs"]["step"].unique()))
    for layer, share in zip(layers, np.linspace(LIGHTEST, 1.0, len(layers)), strict=True):
        # a line breaks at a step at which the layer could not be measured
        rows = style.with_gaps(measured[measured["layer"] == layer], "step", steps)
        look: dict[str, Any] = {"color": shade(color, share), "linewidth": 0.7, "zorder": 2}
        axes.plot(rows["step"], rows["estimate"], **look, **style.marks(rows["estimate"]))
    entries: dict[str, Any] = {}
    for name, share in (("first layer", LIGHTEST), ("last layer", 1.0)):
        (entries[name],) = axes.plot([], [], color=shade(style.CONTROL_GREY, share), linewidth=0.7)
    for text, line in texts.items():
        of_text = means[means["data"] == text]
        if len(of_text):
            style.mean_line(axes, of_text, "step", color, line)
    band = null.groupby("step")[["estimate", "low", "high"]].mean().reset_index()
    entries["null: isotropic vectors"] = style.null_band(axes, band, "step")
    return entries


def _means_over_layers(runs: pd.DataFrame) -> pd.DataFrame:
    """Summary rows of the means over layers: mean over seeds, with an interval where it is drawn; ``part`` is a key."""
    tables = []
    of_parts = [
        _whole(_of_part(runs, quantity, part), runs).assign(part=part) for quantity in QUANTITIES for part in PARTS
    ]
    rows = pd.concat(of_parts, ignore_index=True)
    key = ["quantity", "part", "data", "step"]
    experiment = str(rows["experiment"].iloc[0])
    for seed in sorted(set(rows["seed"].tolist())):
        means = rows[rows["seed"] == seed].groupby(key, as_index=False)["value"].mean()
        columns = {name: means[name].to_numpy() for name in (*key, "value")}
        tables.append(tidy([columns | {"unit": "fraction"}], experiment, int(seed)))
    summary = summarize(tables)
    wide = (summary["interval"] == "student_t") & (summary["n"] < style.FEWEST_SEEDS)
    return summary.assign(low=summary["low"].mask(wide), high=summary["high"].mask(wide))


def _kinds_of_line(axes: Axes, texts: Mapping[str, Any]) -> dict[str, Any]:
    handles = {}
    for text, line in texts.items():
        (handle,) = axes.plot([], [], color=style.CONTROL_GREY, linestyle=line)
        handles[f"{MEAN}, {text.replace('_', ' ')}"] = handle
    return handles


def shade(color: str, share: float) -> str:
    """Return a colour mixed with white.

    >>> shade("#000000", 0.0), shade("#0072B2", 1.0)
    ('#ffffff', '#0072b2')
    """
    red, green, blue = (1.0 - share * (1.0 - each) for each in to_rgb(color))
    return to_hex((red, green, blue))
