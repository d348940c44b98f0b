"""The transition of the copying task over training: errors, attention scores of the heads, sharpness."""

import re
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("copying_errors", "head_scores", "sharpness")
"""The measurements whose tables the figure reads."""

MOST = {"experiments": 5}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

CONTROLS = True
"""Experiments after the first are controls, of which it shows what there is."""

IN, OUT = "in_distribution", "out_of_distribution"


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw three panels over one axis of training steps.

    (a) Error of the first experiment, in and out of distribution ("running_error", evaluated during training,
    or "error" of the checkpoints where the tables lack it); the out-of-distribution error of the other
    experiments, as controls; the plateau of always predicting the most frequent token; and per seed the first
    step at which the out-of-distribution error is below .5. (b) Previous-token score of the first layer and
    induction score of the last one, out of distribution, with their nulls. (c) Largest Hessian eigenvalue, in
    distribution. Lines are means over seeds, bands their 95 % intervals, thin lines single seeds. Where all
    seeds made the transition, a vertical line through all panels marks the mean of its step.

    Args:
        tables: "summary", summary rows of all experiments; "runs", tidy rows of all their seeds.
        options: "experiments", names of the experiments, the one drawn in colour first; "tasks", for each of
            them the settings of its task, of which "vocabulary" and "zipf_offset" of the first are read.

    Raises:
        ValueError: an option is missing, or a panel has nothing to show; the message names the quantity.
    """
    for name in ("experiments", "tasks"):
        if not options.get(name):
            raise ValueError(f"transition_timeline: the option {name!r} is missing or empty")
    (experiment, *controls), tables = style.shown("transition_timeline", REQUIRES, tables, options)
    with style.applied():
        figure = Figure(figsize=(style.COLUMN_WIDTH, 6.0), layout="constrained")
        errors, heads, sharpness = figure.subplots(3, sharex=True, height_ratios=(1.35, 1.0, 1.0))
        _draw_errors(errors, tables, experiment, controls, plateau(options["tasks"][experiment]))
        _draw_heads(heads, tables, experiment)
        _draw_sharpness(sharpness, tables, experiment)
        for axes, letter in zip((errors, heads, sharpness), "abc", strict=True):
            style.panel_letter(axes, letter)
        style.mark_transition((errors, heads, sharpness), tables["summary"], experiment)
        style.step_axis(sharpness, style.select(tables["summary"], experiment=experiment)["step"].tolist())
        if controls:
            title = fill(experiment.replace("_", " "), 52)
            figure.suptitle(title, x=0.01, ha="left", fontsize=8, weight="bold")
        figure.align_ylabels()
    return figure


def plateau(task: Mapping[str, Any]) -> float:
    """Return the error of always predicting the most frequent token: 1 − p(1) with p(i) ∝ 1/(i + offset).

    Args:
        task: settings of the copying task; "vocabulary" (number of tokens) and "zipf_offset" are read.

    >>> round(plateau({"vocabulary": 2, "zipf_offset": 0.0}), 3)  # p = (2/3, 1/3)
    0.333
    """
    weights = 1 / (np.arange(1, task["vocabulary"] + 1) + task["zipf_offset"])
    return float(1 - weights[0] / weights.sum())


def _draw_errors(
    axes: Axes,
    tables: Mapping[str, pd.DataFrame],
    experiment: str,
    controls: Sequence[str],
    plateau_error: float,
) -> None:
    entries: dict[str, Any] = {}
    curves: list[tuple[str, str, str, str, Any]] = [
        (experiment, OUT, "out of distribution", style.VERMILION, "-"),
        (experiment, IN, "in distribution", style.BLUE, "-"),
        *(
            (name, OUT, f"{name.replace('_', ' ')}, OOD", style.CONTROL_GREY, line)
            for name, line in zip(controls, style.line_styles(len(controls) + 1)[1:], strict=True)
        ),
    ]
    for name, data, label, color, linestyle in curves:
        of_experiment = style.select(tables["summary"], experiment=name)
        quantity = "running_error" if (of_experiment["quantity"] == "running_error").any() else "error"
        where = {"experiment": name, "quantity": quantity, "data": data}
        entries |= style.curve(axes, tables, where, color, label, linestyle)
    entries[f"most frequent token only, {plateau_error:.3f}"] = axes.axhline(
        plateau_error, color=style.BLACK, linestyle=":", linewidth=0.8, zorder=1
    )
    of_seeds = style.select(tables["runs"], experiment=experiment, quantity=style.TRANSITION, data=OUT, null="")
    crossed = of_seeds.loc[~of_seeds["censored"], "value"]
    (entries[f"out of distribution below 0.5: {len(crossed)} of {len(of_seeds)} seeds"],) = axes.plot(
        crossed,
        np.full(len(crossed), 0.04),
        transform=axes.get_xaxis_transform(),
        linestyle="none",
        marker="|",
        markersize=7,
        markeredgewidth=1.0,
        color=style.BLACK,
        zorder=4,
    )
    axes.set_ylim(0.0, 1.02)
    axes.set_ylabel("error (fraction)")
    style.legend_above(axes, entries)


def _draw_heads(axes: Axes, tables: Mapping[str, pd.DataFrame], experiment: str) -> None:
    entries: dict[str, Any] = {}
    nulls: dict[str, Any] = {}
    for quantity, choose, color, linestyle in (
        ("previous_token_score", min, style.GREEN, ":"),
        ("induction_score", max, style.PURPLE, "--"),
    ):
        where = {"experiment": experiment, "quantity": quantity, "data": OUT}
        rows = style.select(tables["summary"], **where, null="")
        part = choose(rows["part"].unique(), key=_layer)
        name = quantity.removesuffix("_score").replace("_", " ")
        heads = sorted(rows.loc[rows["part"] == part, "index"].unique().tolist())
        for head in heads:
            label = f"{name}, layer {_layer(part) + 1}" + (f", head {head + 1}" if len(heads) > 1 else "")
            of_head = where | {"part": part, "index": head}
            entries |= style.curve(axes, tables, of_head, color, label)
            drawn = style.null_curves(axes, tables, of_head, linestyle)
            nulls |= {f"{label} ({name})": handle for label, handle in drawn.items()}
    axes.set_ylim(0.0, 1.02)
    axes.set_ylabel("attention (fraction)")
    style.legend_above(axes, entries | nulls)


def _draw_sharpness(axes: Axes, tables: Mapping[str, pd.DataFrame], experiment: str) -> None:
    where = {"experiment": experiment, "quantity": "largest_hessian_eigenvalue", "part": "model", "data": IN}
    entries = style.curve(axes, tables, where, style.BLUE, "largest Hessian eigenvalue, in distribution")
    axes.set_ylabel("eigenvalue (nats)")
    style.legend_above(axes, entries | style.null_curves(axes, tables, where))


def _layer(part: str) -> int:
    match = re.match(r"layers\.(\d+)", part)
    if match is None:
        raise ValueError(f"transition_timeline: head scores belong to 'layers.<number>', got part {part!r}")
    return int(match.group(1))
