"""How many directions a language model's activations use, why attention outputs use fewer, and what the loss needs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("activation_ranks", "output_projection")
"""The measurements whose tables the figure reads; of ``downstream_loss`` it draws what there is."""

PARTS = {
    "attention.output": ("attention output", style.BLUE),
    "mlp.output": ("MLP output", style.VERMILION),
    "residual_pre": ("residual stream", style.GREEN),
    "attention.z": ("z", style.PURPLE),
}
"""Part of a layer -> label and colour."""

COUNTERFACTUALS = {
    "white_input": ("uncorrelated heads", style.ORANGE),
    "random_reading": ("random reading", style.SKY_BLUE),
    "random_writing": ("random writing", style.BLACK),
    "orthogonal_writing": ("orthogonal writing", style.CONTROL_GREY),
}
"""What is changed of the output projection -> label and colour."""

RANDOM_WEIGHT = "random_weight"
"""Null of an output projection of Gaussian entries."""

PUBLISHED = (("attention.output", 0.6), ("mlp.output", 0.9))
"""Part and share of the directions that hold 99 % of the variance: abstract of arXiv 2508.16929, of other models."""

MOST = {"experiments": 4, "texts": 8}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

NO_RANK = r"no ranks, as it is the same at every token$|no projection,"
"""In the reasons of activations that have no rank."""

DIRECTIONS, EFFECTIVE = "directions_99", "effective_rank"


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw five or six panels for the first experiment; colours tell activations apart, line styles texts.

    (a) Share of the directions that hold 99 % of the variance and (b) effective rank, by layer; the residual stream is
    that which enters the layer, and at the last place the one that leaves the last. Triangles: the published shares.
    (c) The former against the number of vectors, mean over layers. (d) The same of z, white within heads, of the output
    and of what counterfactual W_O make of z, of the first text; dotted: a random W_O. (e) Share of the drop from z to
    output that each counterfactual undoes: a dot for each layer, bars are medians, a row for each text. (f) Loss
    recovered against the number of directions kept in all layers at once, where it was measured, with intervals over
    windows; open: random ones.

    Args:
        tables: "runs", tidy rows.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or it was not measured; the message names the quantity.
    """
    return style.blocks("activation_ranks", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    runs = style.select(tables["runs"], experiment=experiment)
    of_ranks = style.select(runs, quantity=DIRECTIONS, index=0, null="")
    names = of_ranks["data"].unique().tolist()
    texts = dict(zip(names, style.line_styles(len(names)), strict=True))
    with_loss = bool((runs["quantity"] == "loss_recovered").any())
    figure = canvas(style.DOUBLE_WIDTH, 4.9)
    panels = figure.subplot_mosaic([["a", "b", "c"], ["d", "e", "f" if with_loss else "e"]])
    entries = _draw_layers(panels["a"], runs, texts, DIRECTIONS, "directions for\n99 % / width")
    entries |= _draw_published(panels["a"])
    _draw_layers(panels["b"], runs, texts, EFFECTIVE, "effective\nrank / width")
    _draw_numbers(panels["c"], runs, texts)
    of_projection = _draw_counterfactuals(panels["d"], runs, next(iter(texts)))
    _draw_shares(panels["e"], runs, texts)
    if with_loss:
        _draw_loss(panels["f"], runs, texts)
    panels["a"].set_title(_title(experiment, of_ranks), loc="left", fontsize=7, pad=4)
    for letter, axes in panels.items():
        style.panel_letter(axes, letter)
    style.note(figure, _without(runs))
    for text, line in texts.items():
        (entries[text.replace("_", " ")],) = panels["a"].plot([], [], color=style.BLACK, linestyle=line)
    entries |= of_projection
    # four kinds of line are told apart in short handles, more are not
    style.legend_on_top(figure, entries, 4, handle_length=4.5 if len(texts) > 4 else None)


def _title(experiment: str, rows: pd.DataFrame) -> str:
    fewest, most = int(rows["n"].min()), int(rows["n"].max())
    number = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return style.wrapped(experiment.replace("_", " "), f"{number.replace(',', ' ')} tokens", 40)


def _by_layer(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """Rows of a part of every layer with the column ``layer``; what leaves the last layer is that of one more."""
    extracted = rows["part"].str.extract(r"^layers\.(\d+)\.(.+)$")
    chosen = rows.assign(layer=pd.to_numeric(extracted[0]), of=extracted[1])
    if part == "residual_pre":
        leaves = chosen["of"] == "residual_post"
        chosen.loc[leaves, "layer"] += 1
        chosen.loc[leaves, "of"] = part
    return chosen[chosen["of"] == part].sort_values("layer")


def _with_gaps(rows: pd.DataFrame, part: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of a part by layer, with gaps at the layers in which it could not be measured."""
    lacking = style.not_measured(runs)
    return style.with_gaps(
        _by_layer(rows, part), "layer", lacking.loc[lacking["of"] == part, "layer"].unique().astype(float).tolist()
    )


def _without(runs: pd.DataFrame) -> str:
    """Say of which layers activations could not be measured, and so are in no mean over layers either."""
    lacking = style.not_measured(runs)
    layers = {
        name: sorted(lacking.loc[(lacking["of"] == part) & lacking["data"].str.contains(NO_RANK), "layer"].unique())
        for part, (name, _) in PARTS.items()
    }
    told = [
        f"{name} of layer {', '.join(f'{each:g}' for each in unmeasured)}"
        for name, unmeasured in layers.items()
        if unmeasured
    ]
    return f"Not measured, and in no mean over layers: {'; '.join(told)}." if told else ""


def _draw_layers(axes: Axes, runs: pd.DataFrame, texts: Mapping[str, Any], quantity: str, label: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for text, line in texts.items():
        rows = style.select(runs, quantity=quantity, index=0, data=text)
        for part, (name, color) in PARTS.items():
            measured = _with_gaps(style.select(rows, null=""), part, runs)
            look: dict[str, Any] = {"color": color, "linestyle": line, "linewidth": 1.0} | style.marks(
                measured["value"]
            )
            (handle,) = axes.plot(measured["layer"], measured["value"], **look)
            entries.setdefault(name, handle)
        null = _with_gaps(style.select(rows, null="isotropic"), "attention.output", runs)
        entries["null: isotropic (d: random W_O)"] = _null(axes, null, "layer")
    axes.set_xlabel("layer")
    style.whole_ticks(axes.xaxis)
    axes.set_ylabel(label)
    axes.set_ylim(0.0, 1.03)
    return entries


def _draw_published(axes: Axes) -> dict[str, Any]:
    for part, share in PUBLISHED:
        axes.plot(
            1.0,
            share,
            "<",
            color=PARTS[part][1],
            markersize=4.5,
            markeredgecolor="white",
            markeredgewidth=0.4,
            transform=axes.get_yaxis_transform(),
            clip_on=False,
            zorder=5,
        )
    (handle,) = axes.plot([], [], "<", color=style.CONTROL_GREY, markersize=4.5)
    return {"published, other models": handle}


def _draw_numbers(axes: Axes, runs: pd.DataFrame, texts: Mapping[str, Any]) -> None:
    """The curve against the number of vectors; without one, the point of all vectors alone."""
    rows = runs[runs["quantity"] == DIRECTIONS]
    curve = rows[rows["index"] > 0]
    rows = (
        curve.assign(count=curve["index"]) if len(curve) else rows.assign(count=rows.loc[rows["null"] == "", "n"].max())
    )
    for text, line in texts.items():
        for part, (_, color) in PARTS.items():
            of_part = _by_layer(style.select(rows, data=text, null=""), part)
            means = of_part.groupby("count")["value"].mean()
            axes.plot(means.index, means, color=color, linestyle=line, linewidth=1.0, marker="o", markersize=2.2)
        null = _by_layer(style.select(rows, data=text, null="isotropic"), "attention.output")
        _null(axes, null.groupby("count")[["value", "low", "high"]].mean().reset_index(), "count")
    axes.set_xlabel("tokens")
    axes.set_ylabel("directions for\n99 % / width")
    axes.set_ylim(0.0, 1.03)
    axes.set_xlim(left=0.0)
    axes.locator_params(axis="x", nbins=4)


def _draw_counterfactuals(axes: Axes, runs: pd.DataFrame, text: str) -> dict[str, Any]:
    of_text = style.select(runs, data=text)

    def line(quantity: str, part: str, null: str, color: str, width: float) -> Any:
        rows = _with_gaps(style.select(of_text, quantity=quantity, null=null), part, runs)
        return axes.plot(rows["layer"], rows["value"], color=color, linewidth=width, **style.marks(rows["value"]))[0]

    line("white_z_directions_99", "attention.z", "", PARTS["attention.z"][1], 1.4)
    entries: dict[str, Any] = {
        f"null: {label}": line("projected_directions_99", "attention.output", name, color, 0.8)
        for name, (label, color) in _counterfactuals(runs).items()
    }
    if RANDOM_WEIGHT in set(of_text["null"]):
        rows = style.select(of_text, quantity="projected_directions_99", null=RANDOM_WEIGHT)
        rows = _with_gaps(rows, "attention.output", runs)
        axes.plot(rows["layer"], rows["value"], color=style.NULL_GREY, linestyle=":", linewidth=0.9)
    line("projected_directions_99", "attention.output", "", PARTS["attention.output"][1], 1.4)
    axes.set_title(style.wrapped(text.replace("_", " "), "white z", 30), loc="left", fontsize=7, pad=4)
    axes.set_xlabel("layer")
    style.whole_ticks(axes.xaxis)
    axes.set_ylabel("directions for\n99 % / possible")
    axes.set_ylim(0.0, 1.03)
    return entries


def _draw_shares(axes: Axes, runs: pd.DataFrame, texts: Mapping[str, Any]) -> None:
    rows = runs[(runs["quantity"] == "drop_explained") & (runs["null"] == "")]
    if rows.empty and style.not_measured(runs)["data"].str.contains("no drop_explained,").any():
        axes.text(0.5, 0.5, "no rank drops", transform=axes.transAxes, ha="center", va="center")
    elif rows.empty:
        style.select(runs, quantity="drop_explained", null="")
    looks = _counterfactuals(runs)
    offsets = np.linspace(-0.18, 0.18, len(texts)) if len(texts) > 1 else np.zeros(1)
    for place, (name, (_, color)) in enumerate(looks.items()):
        for offset, text in zip(offsets, texts, strict=True):
            shares = _by_layer(rows[rows["data"] == text], name)["value"].dropna()
            y = np.full(len(shares), place + offset)
            axes.plot(shares, y, "o", color=color, markersize=2.2, alpha=0.5, markeredgewidth=0)
            if len(shares):
                axes.plot(shares.median(), place + offset, "|", color=style.BLACK, markersize=9, zorder=3)
    for level in (0.0, 1.0):
        axes.axvline(level, color=style.NULL_GREY, linestyle=":", linewidth=0.9, zorder=0)
    axes.set_yticks(range(len(looks)), [label.replace(" ", "\n") for label, _ in looks.values()])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(looks) - 0.5, -0.5)
    axes.set_xlabel("share of the drop undone")


def _draw_loss(axes: Axes, runs: pd.DataFrame, texts: Mapping[str, Any]) -> None:
    recovered = style.select(runs, quantity="loss_recovered")
    for text, line in texts.items():
        for part in ("attention.output", "mlp.output"):
            rows = recovered[(recovered["data"] == text) & (recovered["part"] == part)].sort_values("index")
            if rows.empty:  # of a text that was not measured
                continue
            measured, null = (rows[rows["null"] == name] for name in ("", "random_subspace"))
            look: dict[str, Any] = {"color": PARTS[part][1], "linestyle": line, "linewidth": 1.0, "markersize": 3.0}
            bars = np.abs(measured[["low", "high"]].to_numpy().T - measured["value"].to_numpy())
            shown = bars if np.isfinite(bars).all() else None
            axes.errorbar(measured["index"], measured["value"], yerr=shown, marker="o", zorder=3, **look)
            random = look | {"color": style.NULL_GREY, "markeredgecolor": PARTS[part][1], "markerfacecolor": "white"}
            axes.plot(null["index"], null["value"], marker="o", zorder=2, **random)
    for level in (0.0, 1.0):
        axes.axhline(level, color=style.NULL_GREY, linestyle=":", linewidth=0.9, zorder=0)
    axes.set_title("all layers at once", loc="left", fontsize=7, pad=4)
    axes.set_xlabel("directions kept")
    style.whole_ticks(axes.xaxis)
    axes.set_ylabel("loss recovered")
    axes.set_xlim(left=0.0)


def _counterfactuals(runs: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Label and colour of those that were measured."""
    there = set(style.select(runs, quantity="projected_directions_99")["null"])
    return {name: look for name, look in COUNTERFACTUALS.items() if name in there}


def _null(axes: Axes, rows: pd.DataFrame, x: str) -> tuple[Any, ...]:
    """A null's mean and central 95 % range, in grey."""
    return style.null_band(axes, rows.rename(columns={"value": "estimate"}), x)
