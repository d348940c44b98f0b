"""Copying with rotary, learned, no and ALiBi positions: errors, heads, and sequences longer than in training."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style
from learning_geometry.tables.progress_measures import first_layer, last_layer

REQUIRES = ("length_generalisation",)
"""The measurements whose tables the figure reads."""

OUT = "out_of_distribution"
SCHEMES = {
    "rotary": ("rotary", style.BLUE, "-"),
    "learned": ("learned", style.VERMILION, "--"),
    "none": ("none", style.BLACK, "-."),
    "alibi": ("ALiBi", style.GREEN, ":"),
}
"""Value of ``model.positions`` -> its name, colour and line."""

MOST = {"experiments": 8}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw four panels, one line for each of the experiments, which differ in their positions.

    (a) Out-of-distribution (OOD) error over training, evaluated during training. (b) Previous-token score of the
    first layer and (c) induction score of the last, OOD at the training length. (d) OOD error at the last checkpoint
    against test length; a dashed line marks the training length, beyond which learned positions have no embedding.
    Grey: the best constant prediction (a, d), uniform attention (b, c). With several heads, one line for each.

    Args:
        tables: "summary", summary rows of all experiments; "runs", tidy rows of all their seeds.
        options: "experiments", their names; "tasks" and "models", for each of them the settings of its task, of which
            "length" is read, and of its model, of which "positions" is read.

    Raises:
        ValueError: an option is missing, or an experiment was not measured; the message names the quantity.
    """
    for name in ("experiments", "tasks", "models"):
        if not options.get(name):
            raise ValueError(f"positions: the option {name!r} is missing or empty")
    experiments, tables = style.shown("positions", REQUIRES, tables, options)
    first = experiments[0]
    trained = int(options["tasks"][first]["length"])
    entries: dict[str, Any] = {}
    with style.applied():
        figure = Figure(figsize=(style.DOUBLE_WIDTH, 4.6), layout="constrained")
        grid = figure.subplots(2, 2)
        (errors, previous), (induction, lengths) = grid
        schemes = [options["models"][experiment]["positions"] for experiment in experiments]
        colors = dict(zip(experiments, style.colors(len(experiments)), strict=True))
        lines = dict(zip(experiments, style.line_styles(len(experiments)), strict=True))
        for experiment in experiments:
            scheme = options["models"][experiment]["positions"]
            label, color, line = SCHEMES[scheme]
            if schemes.count(scheme) > 1:  # told apart by their names, and by colours of their own
                label, color = f"{label}: {experiment.replace('_', ' ')}", colors[experiment]
                line = lines[experiment]
            of_one = {name: table[table["experiment"] == experiment] for name, table in tables.items()}
            of_curve: dict[str, str | int] = {"quantity": "running_error", "data": OUT}
            ((with_n, handle),) = style.curve(errors, of_one, of_curve, color, label, line).items()
            for axes, score, choose in (
                (previous, "previous_token_score", first_layer),
                (induction, "induction_score", last_layer),
            ):
                where = of_curve | {"quantity": f"{score}_at_length", "index": trained}
                rows = style.select(of_one["summary"], **where, null="")
                parts = rows.loc[choose(rows["part"]), "part"].unique()
                chosen = {name: table[table["part"].isin(parts)] for name, table in of_one.items()}
                style.curves(axes, chosen, where, color, label, line)
            if _draw_lengths(lengths, of_one, color, line) <= trained and scheme == "learned":
                with_n = with_n.replace("learned", f"learned (none beyond {trained})", 1)
            entries[with_n] = handle
        for axes, score, part_of in (
            (previous, "previous_token_score_at_length", first_layer),
            (induction, "induction_score_at_length", last_layer),
        ):
            rows = style.select(tables["summary"], experiment=first, quantity=score, index=trained)
            part = rows.loc[part_of(rows["part"]), "part"].iloc[0]
            style.null_curves(axes, tables, {"experiment": first, "quantity": score, "index": trained, "part": part})
        entries["null"] = _null_lines(errors, lengths, tables["summary"], first, trained)
        entries[f"training length, {trained} tokens"] = lengths.axvline(
            trained, color=style.BLACK, linestyle=(0, (6, 4)), linewidth=0.6, zorder=0
        )
        _label(grid, tables["summary"], experiments)
        style.legend_on_top(figure, entries, columns=4 if len(set(schemes)) == len(schemes) else 2)
        figure.align_ylabels()
    return figure


def _draw_lengths(axes: Axes, tables: Mapping[str, pd.DataFrame], color: str, line: str) -> int:
    """Draw the error at the last checkpoint by test length; return the longest."""
    where: dict[str, Any] = {"quantity": "error_at_length", "data": OUT}
    where["step"] = int(style.select(tables["summary"], **where)["step"].max())
    rows = style.select(tables["summary"], **where, null="")
    seeds = style.select(tables["runs"], **where, null="")
    if rows["n"].max() > 1:
        style.seed_lines(axes, seeds, "index", color, line)
    style.mean_line(axes, rows, "index", color, line)
    rows = rows.sort_values("index")
    if len(rows) == 1:  # where no line or band can be seen: the seeds and the interval at one place
        at_seeds: dict[str, Any] = {"marker": "o", "markersize": 3, "markerfacecolor": "white", "markeredgewidth": 0.8}
        axes.plot(seeds["index"], seeds["value"], linestyle="none", color=color, zorder=4, **at_seeds)
        axes.vlines(rows["index"], rows["low"], rows["high"], color=color, linewidth=1.0)
    axes.plot(rows["index"], rows["estimate"], linestyle="none", marker="o", markersize=3, color=color, zorder=4)
    return int(rows["index"].max())


def _null_lines(errors: Axes, lengths: Axes, summary: pd.DataFrame, experiment: str, trained: int) -> Any:
    where: dict[str, Any] = {"experiment": experiment, "quantity": "error_at_length", "data": OUT}
    rows = style.select(summary, **where, null="constant_prediction")
    last = rows[rows["step"] == rows["step"].max()]
    style.null_band(lengths, last, "index")
    # the error of a constant prediction does not depend on the step
    return style.null_band(errors, last[last["index"] == trained], "step")


def _label(grid: Any, summary: pd.DataFrame, experiments: list[str]) -> None:
    (errors, previous), (induction, lengths) = grid
    shown = summary[summary["experiment"].isin(experiments)]
    steps = shown.loc[shown["quantity"] == "running_error", "step"].tolist()
    for axes, letter, label in (
        (errors, "a", "OOD error (fraction)"),
        (previous, "b", "previous-token score"),
        (induction, "c", "induction score"),
        (lengths, "d", "OOD error (fraction)"),
    ):
        style.panel_letter(axes, letter)
        axes.set_ylabel(label)
        axes.set_ylim(0.0, 1.02)
        if axes is not lengths:
            style.step_axis(axes, steps)
    tested = sorted(shown.loc[shown["quantity"] == "error_at_length", "index"].unique().tolist())
    lengths.set_xlabel("test length (tokens), last checkpoint")
    lengths.set_xticks(tested)
