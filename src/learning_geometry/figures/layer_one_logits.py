"""What the attention logits of layer 1 depend on over training: content, relative position, both together."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("copying_errors", "attention_logits")
"""The measurements whose tables the figure reads."""

MOST = {"experiments": 6}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

SOURCES = {"content": style.VERMILION, "position": style.BLUE, "interaction": style.GREEN}


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw two panels over one axis of training steps, for the first of the experiments.

    (a) Share of the variance of layer 1's attention logits that content, relative position and their interaction
    explain; (b) that variance, on a logarithmic axis. Each against the untrained model, dotted in the same colour.
    With several heads, one line for each. Where all seeds made the transition, a vertical line marks its mean step.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all seeds.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or nothing to show; the message names the quantity.
    """
    return style.blocks("layer_one_logits", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    figure = canvas(style.COLUMN_WIDTH, 4.0)
    shares, variance = figure.subplots(2, sharex=True, height_ratios=(1.5, 1.0))
    entries: dict[str, Any] = {}
    for source, color in SOURCES.items():
        where = {"quantity": f"attention_logit_share_{source}"}
        entries |= style.curves(shares, tables, where, color, source)
        for _, null in style.select(tables["summary"], **where, null="untrained").groupby("index"):
            style.null_band(shares, null, "step", color=color)
    shares.set_ylim(0.0, 1.02)
    shares.set_ylabel("share of variance (fraction)")
    (dotted,) = shares.plot([], [], color=style.NULL_GREY, linestyle=":", linewidth=0.9)
    style.legend_above(shares, entries | {"null: untrained, in its colour": dotted}, columns=2)
    where = {"quantity": "attention_logit_variance"}
    of_variance = style.curves(variance, tables, where, style.PURPLE, "all logits")
    style.legend_above(variance, of_variance | style.null_curves(variance, tables, where), columns=2)
    variance.set_yscale("log")
    variance.set_ylabel("variance of logits")
    for axes, letter in zip((shares, variance), "ab", strict=True):
        style.panel_letter(axes, letter)
    style.step_axis(variance, style.select(tables["summary"], quantity="attention_logit_variance")["step"].tolist())
    style.mark_transition((shares, variance), tables["summary"], experiment)
    figure.align_ylabels()
