"""Does the commutator defect announce grokking: errors, defects, lead times, false alarms, shares of PC1."""

from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from learning_geometry.figures import style
from learning_geometry.geometry.uncertainty import share_interval

REQUIRES = ("commutators", "trajectory_geometry")
"""The measurements whose tables the figure reads, of the first experiment; of the controls, what there is."""

TRAINING, HELD_OUT = "training_pairs", "held_out_pairs"
ERROR, DEFECT = "running_error", "commutator_defect"
GROK, CROSSING, LEAD, FALSE_ALARM = "grok_step", "defect_crossing_step", "grok_lead", "false_alarm"
PC1, PC1_WITHOUT = "trajectory_pc1_share", "trajectory_pc1_share_without_initial_direction"
MATRICES = "attention_matrices"
WALK = "step_norm_walk"

LEAST_DEFECT = 20.0
"""A smaller defect is no crossing."""

COLUMNS = 3
"""Experiments side by side."""


PUBLISHED_STEPS = {"add": (2500, 3200), "subtract": (3200, 3600), "multiply": (2500, 2800), "square_sum": (1800, 1900)}
"""Operation -> published steps of a held-out accuracy of .9, with 97 as the prime and weight decay 1."""

PUBLISHED_SHARES = {
    "published: operations that grok": (0.63, 0.83, style.SKY_BLUE),
    "published: that do not generalise": (0.42, 0.49, style.ORANGE),
}
"""Published ranges of the share of the first principal component, with weight decay 1."""

MOST = {"experiments": 8}
"""What a config may list at most of what the figure shows: of more it would not be readable."""

CONTROLS = True
"""Experiments after the first are controls, of which it shows what there is."""


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw errors over the commutator defect for each experiment, and beneath them one line for each of all.

    One column for each experiment, the first one expected to grok, the others controls: error on the pairs trained on
    and held out, evaluated during training, and beneath it, where measured, the commutator defect. Ticks: the seeds'
    steps of grokking and of the defect's crossing; a dotted line is the least defect that counts; a grey band the
    published steps of grokking of the same operation, if training lasts that long.

    In the last row, one line for each experiment: lead of the crossing before grokking, seeds as dots and the mean over
    seeds with its 95 % interval; where a seed lacks either event there is no mean, and the numbers are seeds with
    both, of all. Share of seeds with a false alarm, a crossing without grokking, with its exact 95 % interval. Share of
    the first principal component in the trajectories of the attention matrices, with and without their initial
    direction, a walk with the same step norms as the null, and the published ranges.

    Args:
        tables: "summary", summary rows of all experiments; "runs", tidy rows of all their seeds.
        options: "experiments", the one that groks first; "tasks", for each of them the settings of its task, of which
            "operation" is read; "optimizers", if given, of which "weight_decay" is.

    Raises:
        ValueError: an option is missing, an experiment has no errors on held-out pairs, or the first lacks its defect,
            its events or its shares.
    """
    for name in ("experiments", "tasks"):
        if not options.get(name):
            raise ValueError(f"grokking_timeline: the option {name!r} is missing or empty")
    experiments, tables = style.shown("grokking_timeline", REQUIRES, style.with_means_of_matrices(tables), options)
    for quantity in (DEFECT, LEAD, FALSE_ALARM, PC1):
        style.select(tables["summary"], experiment=experiments[0], quantity=quantity, null="")  # says what is missing
    letters = style.letters(len(experiments) + 3)
    height = 0.6 + 2.4 * -(-len(experiments) // COLUMNS)
    below = 1.15 + 0.3 * len(experiments)
    with style.applied():
        figure = Figure(figsize=(style.DOUBLE_WIDTH, height + below), layout="constrained")
        above, beneath = figure.subfigures(2, 1, squeeze=False, height_ratios=(height, below))[:, 0]
        entries = _draw_timelines(above, tables, experiments, options)
        above.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=4)
        panels = beneath.subplots(1, 3, sharey=True)
        entries = _draw_leads(panels[0], tables, experiments)
        entries |= _draw_false_alarms(panels[1], tables, experiments)
        entries |= _draw_components(panels[2], tables, experiments)
        beneath.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=3)
        names = [fill(name.replace("_", " "), 16) for name in experiments]
        panels[0].set_yticks(
            range(len(experiments)),
            [f"{letter}: {name}" for letter, name in zip(letters[: len(names)], names, strict=True)],
        )
        panels[0].set_ylim(len(experiments) - 0.4, -0.6)
        for axes, letter in zip(panels, letters[len(experiments) :], strict=True):
            axes.tick_params(axis="y", length=0)
            style.panel_letter(axes, letter)
    return figure


def _draw_timelines(
    figure: SubFigure, tables: Mapping[str, pd.DataFrame], experiments: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Any]:
    columns = min(len(experiments), COLUMNS)
    grid = figure.add_gridspec(2 * -(-len(experiments) // COLUMNS), columns)
    defects = tables["summary"][tables["summary"]["quantity"] == DEFECT]
    measured = [name for name in experiments if (defects["experiment"] == name).any()]
    entries: dict[str, Any] = {}
    lower: list[Axes] = []
    for place, (letter, experiment) in enumerate(zip(style.letters(len(experiments)), experiments, strict=True)):
        row, column = 2 * (place // COLUMNS), place % COLUMNS
        of_one = {name: table[table["experiment"] == experiment] for name, table in tables.items()}
        steps = style.select(of_one["summary"], quantity=ERROR, null="")["step"].tolist()
        if experiment in measured:
            panels = [figure.add_subplot(grid[row, column]), figure.add_subplot(grid[row + 1, column])]
            panels[0].sharex(panels[1])
            panels[0].tick_params(labelbottom=False)
        else:  # without a defect the errors have the column to themselves
            panels = [figure.add_subplot(grid[row : row + 2, column])]
        number, of_errors = _draw_errors(panels[0], of_one)
        entries |= of_errors
        for axes in panels[1:]:
            entries |= style.curve(axes, of_one, {"quantity": DEFECT, "part": "model"}, style.PURPLE, "defect")
            entries["least defect of a crossing"] = axes.axhline(
                LEAST_DEFECT, color=style.BLACK, linestyle=":", linewidth=0.6, zorder=1
            )
            axes.set_yscale("log")
            lower.append(axes)
        entries |= _mark_events(panels, of_one["runs"])
        published = _published_steps(experiment, options)
        if published is not None and published[1] <= max(steps):
            for axes in panels:
                band = axes.axvspan(*published, color=style.NULL_GREY, alpha=0.3, zorder=0)
            entries["published grok steps, p = 97"] = band
        style.step_axis(panels[-1], steps)
        panels[0].set_title(style.wrapped(experiment.replace("_", " "), number, 78 // columns), fontsize=7)
        style.panel_letter(panels[0], letter)
        if column == 0:
            panels[0].set_ylabel("error (fraction)")
            if len(panels) > 1:
                panels[1].set_ylabel("defect")
    # alike, so that the controls compare; an interval that reaches zero must not set the scale
    shown = tables["runs"][(tables["runs"]["quantity"] == DEFECT) & tables["runs"]["experiment"].isin(experiments)]
    values = shown.loc[shown["value"] > 0, "value"]
    for axes in lower:
        axes.set_ylim(values.min() / 6, values.max() * 2)
    return _merged(entries)


def _published_steps(experiment: str, options: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the published range of grok steps of an experiment's operation, if it decays its weights at all."""
    optimizer = options.get("optimizers", {}).get(experiment, {})
    if optimizer.get("weight_decay") == 0:
        return None
    return PUBLISHED_STEPS.get(options["tasks"][experiment].get("operation"))


def _merged(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the numbers of seeds out of the legend, as they stand above each panel."""
    return {label.partition(", n = ")[0]: handle for label, handle in entries.items()}


def _draw_errors(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> tuple[str, dict[str, Any]]:
    entries: dict[str, Any] = {}
    for data, label, color, line in (
        (TRAINING, "error, pairs trained on", style.BLUE, "--"),
        (HELD_OUT, "error, pairs held out", style.VERMILION, "-"),
    ):
        entries |= style.curve(axes, tables, {"quantity": ERROR, "data": data}, color, label, line)
    axes.set_ylim(0.0, 1.02)
    return style.seeds_text(style.select(tables["summary"], quantity=ERROR, data=HELD_OUT, null="")), entries


def _mark_events(panels: Sequence[Axes], runs: pd.DataFrame) -> dict[str, Any]:
    """Mark the steps of all seeds in which an event happened, and return one legend entry for each event."""
    entries: dict[str, Any] = {}
    for quantity, label, color, height in (
        (CROSSING, "defect's crossing, each seed", style.GREEN, 0.06),
        (GROK, "grokking, each seed", style.BLACK, 0.18),
    ):
        of_seeds = runs[(runs["quantity"] == quantity) & (runs["null"] == "")]
        happened = of_seeds.loc[~of_seeds["censored"], "value"]
        for axes in panels if len(happened) else ():
            (entries[label],) = axes.plot(
                happened,
                np.full(len(happened), height),
                "|",
                transform=axes.get_xaxis_transform(),
                markersize=6,
                markeredgewidth=1.0,
                color=color,
                zorder=4,
            )
    return entries


def _draw_leads(axes: Axes, tables: Mapping[str, pd.DataFrame], experiments: Sequence[str]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for place, experiment in _lines(experiments):
        seeds, mean = _of_quantity(tables, experiment, LEAD)
        if mean is None:
            _not_measured(axes, place)
            continue
        happened = seeds[~seeds["censored"]]
        if len(happened):
            entries["lead, single seeds"] = _dots(axes, happened["value"], place, style.NULL_GREY)
        if mean["censored"] == 0:
            entries["lead, mean over seeds"] = _mean(axes, place, mean, style.BLUE, "o")
        _at_side(axes, place, f"{len(happened)}/{len(seeds)}")
    axes.set_xlabel("lead of the crossing (steps)")
    axes.axvline(0.0, color=style.BLACK, linestyle="-.", linewidth=0.5, zorder=0)
    if entries:
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -0.05 * high), max(high, -0.05 * low))
    else:
        axes.set_xticks([])
        axes.text(0.5, 0.02, "no seed has both events", transform=axes.transAxes, fontsize=7, ha="center", va="bottom")
    return entries


def _draw_false_alarms(axes: Axes, tables: Mapping[str, pd.DataFrame], experiments: Sequence[str]) -> dict[str, Any]:
    handle = None
    for place, experiment in _lines(experiments):
        seeds, mean = _of_quantity(tables, experiment, FALSE_ALARM)
        if mean is None:
            _not_measured(axes, place)
            continue
        count, n = int(seeds["value"].sum()), len(seeds)
        low, high = share_interval(count, n)
        handle = axes.errorbar(
            count / n,
            place,
            xerr=[[count / n - low], [high - count / n]],
            color=style.VERMILION,
            marker="s",
            markersize=4,
            linewidth=1.0,
            capsize=2.0,
        )
        _at_side(axes, place, f"{count}/{n}")
    axes.set_xlim(-0.04, 1.04)
    axes.set_xlabel("false alarms (share of seeds)")
    return {"false alarms, exact 95 % interval": handle}


def _draw_components(axes: Axes, tables: Mapping[str, pd.DataFrame], experiments: Sequence[str]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for place, experiment in _lines(experiments):
        for quantity, label, color, marker, offset in (
            (PC1, "first component", style.BLUE, "o", -0.15),
            (PC1_WITHOUT, "without the initial direction", style.VERMILION, "D", 0.15),
        ):
            seeds, mean = _of_quantity(tables, experiment, quantity)
            if mean is None:
                continue
            _dots(axes, seeds["value"], place + offset, color)
            entries[label] = _mean(axes, place + offset, mean, color, marker)
        walk = tables["summary"]
        walk = walk[(walk["experiment"] == experiment) & (walk["quantity"] == PC1) & (walk["part"] == MATRICES)]
        walk = walk[walk["null"] == WALK]
        if len(walk):
            row = walk.iloc[0]
            low, high = np.nan_to_num([row["low"], row["high"]], nan=row["estimate"])
            (band,) = axes.plot(
                [low, high], [place, place], color=style.CONTROL_GREY, linewidth=3, alpha=0.5, zorder=1.5
            )
            (tick,) = axes.plot([row["estimate"]], [place], "|", color=style.BLACK, markersize=6, zorder=1.6)
            entries["null: walk, same step norms"] = (band, tick)
        if _of_quantity(tables, experiment, PC1)[1] is None:
            _not_measured(axes, place)
    for label, (low, high, color) in PUBLISHED_SHARES.items():
        entries[label] = axes.axvspan(low, high, color=color, alpha=0.25, zorder=0)
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel("share of first component")
    return entries


def _lines(experiments: Sequence[str]) -> Iterator[tuple[float, str]]:
    """Yield the place of each experiment's line, from the top."""
    for place, experiment in enumerate(experiments):
        yield float(place), experiment


def _of_quantity(
    tables: Mapping[str, pd.DataFrame], experiment: str, quantity: str
) -> tuple[pd.DataFrame, "pd.Series[Any] | None"]:
    """Return the rows of the seeds and the one over seeds, or None where this was not measured."""
    chosen = []
    for name in ("runs", "summary"):
        table = tables[name]
        rows = table[(table["experiment"] == experiment) & (table["quantity"] == quantity) & (table["null"] == "")]
        chosen.append(rows[rows["part"] == MATRICES] if quantity in (PC1, PC1_WITHOUT) else rows)
    seeds, summary = chosen
    return seeds, (None if summary.empty else summary.iloc[0])


def _dots(axes: Axes, values: "pd.Series[Any]", place: float, color: str) -> Any:
    spread = np.linspace(-0.1, 0.1, len(values)) if len(values) > 1 else np.zeros(1)
    (dots,) = axes.plot(values, place + spread, linestyle="none", marker="o", markersize=2, color=color, alpha=0.6)
    return dots


def _mean(axes: Axes, place: float, mean: "pd.Series[Any]", color: str, marker: str) -> Any:
    known = np.isfinite([mean["low"], mean["high"]]).all()
    bars = [[mean["estimate"] - mean["low"]], [mean["high"] - mean["estimate"]]] if known else None
    return axes.errorbar(
        mean["estimate"], place, xerr=bars, color=color, marker=marker, markersize=3.5, linewidth=1.0, capsize=1.8
    )


def _at_side(axes: Axes, place: float, text: str) -> None:
    axes.text(1.01, place, text, transform=axes.get_yaxis_transform(), fontsize=7, va="center", ha="left")


def _not_measured(axes: Axes, place: float) -> None:
    axes.text(
        0.5,
        place,
        "not measured",
        transform=axes.get_yaxis_transform(),
        fontsize=7,
        va="center",
        ha="center",
        color=style.CONTROL_GREY,
    )
