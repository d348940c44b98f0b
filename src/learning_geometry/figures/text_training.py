"""What happens while a small language model learns a text: losses, spectra, heads, the induction circuit."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("spectrum_over_training", "induction_circuit")
"""The measurements whose tables the figure reads."""

MOST = {"experiments": 3}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

HELD_OUT, REPEATED = "held_out", "repeated"

FINAL = "final_stream"

PARTS = {
    "attention.output": ("attention outputs", style.VERMILION),
    "mlp.output": ("MLP outputs", style.PURPLE),
    FINAL: ("last layer's stream", style.BLACK),
}
"""Part -> label and colour; of the first two the mean over layers."""

SPECTRA = {
    "effective_rank_of_variances": ("effective rank\n(share of width)", "isotropic", "its largest rise"),
    "power_law_exponent": ("exponent of the spectrum", "planted_power_law", "its largest fall"),
}
"""Quantity -> label, null that is shown, and what the stretch between its vertical lines is."""

SCORES = {
    "induction": ("induction", style.BLUE),
    "previous_token": ("previous token", style.GREEN),
}
"""Score -> label and colour."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw nine panels over one logarithmic axis of training steps for each experiment.

    (a) Loss and (b) error on text held out and on random tokens with a repeated segment, (c) what the repetition saves,
    (d) effective rank and (e) exponent of the spectrum of attention outputs, MLP outputs and the last layer's stream,
    with where the phases start and stop, (f) the largest scores of all heads, with the step of half the rise, (g) the
    match of the circuit's two heads, (h) how many heads of each layer write, (i) in how many dimensions. Lines are
    means over seeds, bands their 95 % intervals, thin lines single seeds, grey and dotted the nulls.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("text_training", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    figure = canvas(style.DOUBLE_WIDTH, 7.4)
    panels = figure.subplots(3, 3, sharex=True).ravel()
    _draw_learning(panels[:3], tables)
    for axes, quantity in zip(panels[3:5], SPECTRA, strict=True):
        _draw_spectra(axes, tables, quantity)
    _draw_scores(panels[5], tables)
    _draw_match(panels[6], tables)
    _draw_heads(panels[7:], tables["summary"])
    steps = style.select(tables["summary"], quantity="running_loss", null="")["step"].tolist()
    steps += style.select(tables["summary"], quantity="power_law_exponent", null="")["step"].tolist()
    for axes, letter in zip(panels, style.letters(len(panels)), strict=True):
        style.step_axis(axes, steps, "log")
        style.panel_letter(axes, letter)
        if axes not in panels[-3:]:
            axes.set_xlabel("")
    figure.align_ylabels()


def _short(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the numbers of seeds out of legends, as one panel says it."""
    return {label.partition(", n = ")[0]: handle for label, handle in entries.items()}


def _draw_learning(panels: Any, tables: Mapping[str, pd.DataFrame]) -> None:
    loss, error, saved = panels
    sets = {HELD_OUT: ("text held out", style.BLUE, "-"), REPEATED: ("repeated tokens", style.ORANGE, "-")}
    of_losses: dict[str, Any] = {}
    of_errors: dict[str, Any] = {}
    for data, (label, color, line) in sets.items():
        of_losses |= style.curve(loss, tables, {"quantity": "running_loss", "data": data}, color, label, line)
        of_errors |= style.curve(error, tables, {"quantity": "running_error", "data": data}, color, label, line)
    style.legend_above(loss, of_losses)  # with the number of seeds, which is that of all
    style.legend_above(error, _short(of_errors))
    loss.set_ylabel("loss (nats)")
    error.set_ylabel("error (fraction)")
    error.set_ylim(0.0, 1.02)
    where = {"quantity": "loss_saved_by_repetition", "data": REPEATED}
    style.legend_above(saved, _short(style.curve(saved, tables, where, style.ORANGE, "second copy below first")))
    saved.axhline(0.0, color=style.NULL_GREY, linestyle=":", linewidth=0.9)
    saved.set_ylabel("loss saved (nats)")


def _draw_spectra(axes: Axes, tables: Mapping[str, pd.DataFrame], quantity: str) -> None:
    summary, (label, null, stretch) = tables["summary"], SPECTRA[quantity]
    rows = style.select(summary, quantity=quantity, part=FINAL, null="")
    data = HELD_OUT if (rows["data"] == HELD_OUT).any() else str(rows["data"].iloc[0])
    entries: dict[str, Any] = {}
    for part, (name, color) in PARTS.items():
        where = {"quantity": quantity, "part": part, "data": data}
        if ((summary["quantity"] == quantity) & (summary["part"] == part)).any():  # there may be no MLP
            entries |= _short(style.curve(axes, tables, where, color, name))
    baseline = style.select(summary, quantity=quantity, part=FINAL, data=data, null=null)
    entries[style.null_label(null)] = style.null_band(axes, baseline, "step")
    ends = summary[(summary["quantity"] == f"{quantity}_phase_step") & (summary["data"] == data)]
    for _, end in ends.iterrows():
        entries[stretch] = axes.axvline(end["estimate"], color=style.BLACK, linestyle="-.", linewidth=0.5, zorder=0)
    style.legend_above(axes, entries)
    axes.set_ylabel(label)


def _draw_scores(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    entries: dict[str, Any] = {}
    for height, (score, (label, color)) in zip((0.06, 0.14), SCORES.items(), strict=True):
        where = {"quantity": f"largest_{score}_score", "part": "model", "data": REPEATED}
        entries |= _short(style.curve(axes, tables, where, color, label))
        of_null = style.select(tables["summary"], **where, null="uniform_attention")
        entries["null: uniform attention"] = style.null_band(axes, of_null, "step")
        events = tables["runs"][
            (tables["runs"]["quantity"] == f"{score}_score_rise_step") & tables["runs"]["null"].eq("")
        ]
        events = events[(events["index"] == 50) & ~events["censored"]]
        if len(events):
            place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "markersize": 6, "zorder": 4}
            (ticks,) = axes.plot(events["value"], [height] * len(events), "|", color=color, **place)
            entries[f"{label}, half of its rise"] = ticks
    style.legend_above(axes, entries)
    axes.set_ylim(0.0, 1.02)
    axes.set_ylabel("largest score of a head")


def _draw_match(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    rows = style.select(tables["summary"], quantity="circuit_match_rms_cosine", null="")
    rank = style.nearest_index(rows, 10)
    where: dict[str, str | int] = {"quantity": "circuit_match_rms_cosine", "index": rank}
    entries = _short(style.curve(axes, tables, where, style.BLUE, f"the circuit's heads, r = {rank}"))
    for null, line in (("random_subspaces", ":"), ("other_heads", "--")):
        of_null = tables["summary"][(tables["summary"]["quantity"] == where["quantity"])]
        of_null = of_null[(of_null["index"] == rank) & (of_null["null"] == null)]
        if len(of_null):
            entries[style.null_label(null)] = style.null_band(axes, of_null, "step", line)
    style.legend_above(axes, entries)
    axes.set_ylabel("subspace match (cosine)")


def _draw_heads(panels: Any, summary: pd.DataFrame) -> None:
    """Draw how many heads write in each layer, and in how many dimensions one does, in the mean over its heads."""
    writing, dimensions = panels
    rows = style.select(summary, quantity="participating_heads", null="")
    layers = sorted(rows["part"].unique(), key=lambda part: int(part.split(".")[1]))
    entries: dict[str, Any] = {}
    for part, color in zip(layers, style.colors(len(layers)), strict=True):
        of_layer = rows[rows["part"] == part]
        of_layer = of_layer[of_layer["data"] == of_layer["data"].iloc[0]]
        if of_layer["estimate"].notna().any():
            entries[f"layer {int(part.split('.')[1]) + 1}"] = style.mean_line(writing, of_layer, "step", color)
        heads = summary[summary["quantity"].eq("head_participation_ratio") & summary["null"].eq("")]
        heads = heads[heads["part"].str.startswith(f"{part}.heads.") & heads["data"].eq(of_layer["data"].iloc[0])]
        mean = heads.groupby("step")["estimate"].mean()
        dimensions.plot(mean.index, mean, color=color, zorder=3)
    style.legend_above(writing, entries, columns=2)
    style.legend_above(dimensions, entries, columns=2)
    writing.set_ylabel("participating heads")
    dimensions.set_ylabel("dimensions of a head")
