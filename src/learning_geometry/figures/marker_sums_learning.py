"""Learning to sum what markers point at: error by the number of markers, and with distractors that may be values."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ()
"""The measurements whose tables the figure reads: none, training itself records the errors."""

ERROR = "running_error"
OWN = re.compile(r"markers_(\d+)$")
ANY = re.compile(r"markers_(\d+)_any_distractors$")
"""Test sets: as in training, and with distractors that may be value tokens."""

THRESHOLD = 0.05
"""An error below this is an accuracy above .95."""

PUBLISHED = (1500, 0.01)
"""Step and error that the released code reaches, with its distractors."""

LOOKS = (
    (style.SKY_BLUE, "-"),
    (style.BLUE, "--"),
    (style.VERMILION, "-."),
    (style.PURPLE, ":"),
    (style.GREEN, "-"),
    (style.BLACK, "--"),
)
"""Colour and line by number of markers, from one marker on."""

MOST = {"experiments": 8}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


class _Panel(NamedTuple):
    """The test sets of one experiment that a panel shows: data set by number of markers."""

    experiment: str
    tested: str
    sets: dict[int, str]
    chance: float
    published: bool


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw the error over training, a panel for each experiment, and one more for distractors unlike those trained on.

    One line for each number m of markers, on the test set ``markers_<m>``: mean over seeds, its 95 % interval as a
    band, single seeds as thin lines. An experiment whose distractors are never values is also shown on
    ``markers_<m>_any_distractors``, where they may be: a model that adds up small tokens without finding the markers
    fails there. Null: chance, 1 − 1 / modulus. Dashed: accuracy .95. A star marks the published accuracy, where
    distractors are as published and training lasts that long.

    Args:
        tables: "summary", summary rows of all experiments; "runs", tidy rows of all their seeds.
        options: "experiments", their names; "tasks", for each of them the settings of its task, of which "modulus"
            and "distractors" are read.

    Raises:
        ValueError: an option is missing, or an experiment has no errors on sets of markers.
    """
    for name in ("experiments", "tasks"):
        if not options.get(name):
            raise ValueError(f"marker_sums_learning: the option {name!r} is missing or empty")
    experiments, tables = style.shown("marker_sums_learning", REQUIRES, tables, options)
    panels = [panel for name in experiments for panel in _panels(tables["summary"], name, options["tasks"][name])]
    entries: dict[str, Any] = {}
    with style.applied():
        figure = Figure(figsize=(style.COLUMN_WIDTH, 0.9 + 1.5 * len(panels)), layout="constrained")
        grid = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
        last = max(
            int(style.select(tables["summary"], experiment=panel.experiment, quantity=ERROR)["step"].max())
            for panel in panels
        )
        for axes, letter, panel in zip(grid, style.letters(len(panels)), panels, strict=True):
            entries |= _draw_panel(axes, tables, panel, last)
            style.panel_letter(axes, letter)
        style.step_axis(grid[-1], [0, last])
        markers_first = sorted(entries, key=lambda label: label if label.startswith("m = ") else "n")
        style.legend_on_top(figure, {label: entries[label] for label in markers_first}, columns=2)
    return figure


def _look(markers: int) -> tuple[str, Any]:
    """Return colour and line of a number of markers: no two the same."""
    again, place = divmod(markers - 1, len(LOOKS))
    color, line = LOOKS[place]
    return color, line if not again else style.line_styles(4 + again)[-1]


def _panels(summary: pd.DataFrame, experiment: str, task: Mapping[str, Any]) -> list[_Panel]:
    rows = style.select(summary, experiment=experiment, quantity=ERROR, null="")
    names = sorted(rows["data"].unique())
    own, other = ({int(match[1]): name for name in names if (match := kind.match(name))} for kind in (OWN, ANY))
    if not own:
        raise ValueError(
            f"marker_sums_learning: {experiment} has no {ERROR} on test sets markers_<m>, only on {names}; "
            "show an experiment with the task marker_sums"
        )
    chance = 1 - 1 / task["modulus"]
    published = task["distractors"] == "published"
    panels = [_Panel(experiment, "tested as trained", own, chance, published)]
    if published and other:
        panels.append(_Panel(experiment, "tested with any distractors", other, chance, False))
    return panels


def _draw_panel(axes: Axes, tables: Mapping[str, pd.DataFrame], panel: _Panel, last: int) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for markers, data in sorted(panel.sets.items()):
        color, line = _look(markers)
        where = {"experiment": panel.experiment, "quantity": ERROR, "data": data, "null": ""}
        rows = style.select(tables["summary"], **where)
        if rows["n"].max() > 1:
            style.seed_lines(axes, style.select(tables["runs"], **where), "step", color)
        entries[f"m = {markers}"] = style.mean_line(axes, rows, "step", color, line)
        number = style.seeds_text(rows)
    entries["null: chance"] = axes.axhline(panel.chance, color=style.NULL_GREY, linestyle=":", linewidth=0.9, zorder=1)
    entries["accuracy 0.95"] = axes.axhline(THRESHOLD, color=style.BLACK, linestyle="--", linewidth=0.5, zorder=1)
    if panel.published and last >= PUBLISHED[0]:
        (entries["published, m up to 4"],) = axes.plot(
            *PUBLISHED, "*", color=style.BLACK, markersize=6, linestyle="none", zorder=4, clip_on=False
        )
    axes.set_ylim(0.0, 1.02)
    axes.set_ylabel("error (fraction)")
    axes.set_title(style.wrapped(f"{panel.experiment.replace('_', ' ')}: {panel.tested}", number, 52), fontsize=7)
    return entries
