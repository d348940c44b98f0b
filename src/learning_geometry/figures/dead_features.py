"""Dead features of sparse dictionaries: against their size, their start, their training, and the mean they see."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning_geometry.figures import style

REQUIRES = ("dictionary_sweep",)
"""The measurements whose tables the figure reads."""

DEAD, INITIAL, EXPLAINED, GAMMA = "dead_share", "initial_dead_share", "explained_variance", "mean_over_spread"

LOOKS = {  # subspace, centred -> colour, name
    ("none", False): (style.VERMILION, "standard"),
    ("none", True): (style.ORANGE, "centred"),
    ("active", False): (style.SKY_BLUE, "active subspace"),
    ("active", True): (style.BLUE, "active subspace, centred"),
    ("random", False): (style.PURPLE, "random subspace"),
    ("random", True): (style.GREEN, "random subspace, centred"),
}

PUBLISHED = (0.87, 0.01)
"""Dead features of attention-output dictionaries with a million latents, before and after (below): arXiv 2508.16929."""

FEWEST_ENTRIES = 5
"""Entries from which a rank correlation is given."""

OPEN: dict[str, Any] = {"markerfacecolor": "none", "markersize": 5.5, "markeredgewidth": 0.8, "zorder": 4}
"""Marks of what was before training: around a filled one of the same place."""

MOST = {"experiments": 4}
"""What a config may list at most of what the figure shows: of more it would not be readable."""


class Entry(NamedTuple):
    """An entry of the sweep, of which every seed has a dictionary, as the tables tell it."""

    name: str
    part: str
    latents: int
    subspace: str
    centred: bool
    tied: bool
    sparse_adam: bool
    auxiliary: int

    @property
    def transcoder(self) -> bool:
        """Whether it reads the MLP's input and writes its output."""
        return self.part.endswith(".mlp")

    @property
    def color(self) -> str:
        """Of its start."""
        return LOOKS[self.subspace, self.centred][0]

    @property
    def marker(self) -> str:
        """Square for a transcoder."""
        return "s" if self.transcoder else "o"

    @property
    def label(self) -> str:
        """What its dictionaries are, without what all have in common."""
        words = [f"{self.latents:,}", "centred" if self.centred else "not centred"]
        words.append({"none": "no subspace"}.get(self.subspace, f"{self.subspace} subspace"))
        words += ["tied" if self.tied else "untied", "SparseAdam" if self.sparse_adam else "Adam"]
        words += [f"AuxK {self.auxiliary}"] if self.auxiliary else []
        return ", ".join(words)


def draw(tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any]) -> Figure:
    """Draw four panels of one language model; colours are starts, squares transcoders.

    Dictionaries that were trained elsewhere have no start, and are left out.

    (a) Dead share against latents for autoencoders, one line for each start, optimiser and AuxK; open: before
    training. (b) Dead share against γ, the mean over the spread of what the start encodes, with Spearman's rank
    correlation over entries of the sweep, if there are at least ``FEWEST_ENTRIES``. (c) Dead share and (d) explained
    variance of every entry, transcoders below the line; ticks: before training. Everywhere means over an entry's
    dictionaries, one for each seed, with 95 % intervals, and dots for single ones.

    Args:
        tables: "summary", summary rows; "runs", tidy rows of all dictionaries.
        options: "experiments", their names.

    Raises:
        ValueError: no experiment, or it was not measured; the message names the quantity.
    """
    return style.blocks("dead_features", REQUIRES, tables, options, _draw_one)


def _draw_one(
    canvas: style.Canvas, tables: Mapping[str, pd.DataFrame], options: Mapping[str, Any], experiment: str
) -> None:
    """Draw the block of one experiment, of which alone the tables hold rows."""
    rows = style.select(tables["summary"], quantity=DEAD, null="")
    here = tables["summary"]["quantity"] == "option_centred"
    dictionaries = _dictionaries_of(rows[rows["data"].isin(tables["summary"].loc[here, "data"])], tables["summary"])
    if not dictionaries:
        raise ValueError(f"dead_features: {experiment} trained no dictionary; leave it out of the figure")
    figure = canvas(style.DOUBLE_WIDTH, 3.8 + 0.2 * len(dictionaries))
    grid = figure.add_gridspec(2, 1, height_ratios=(2.3, 0.7 + 0.2 * len(dictionaries)))
    above, below = grid[0].subgridspec(1, 2), grid[1].subgridspec(1, 2)
    size, gamma = (figure.add_subplot(above[0, column]) for column in range(2))
    dead, explained = (figure.add_subplot(below[0, column]) for column in range(2))
    entries = _draw_sizes(size, tables, [dictionary for dictionary in dictionaries if not dictionary.transcoder])
    entries |= _draw_gamma(gamma, tables, dictionaries)
    entries |= _draw_shares(dead, tables, dictionaries, DEAD)
    entries |= _draw_shares(explained, tables, dictionaries, EXPLAINED)
    entries = _starts(dictionaries) | entries
    explained.tick_params(labelleft=False)
    for axes, letter in zip((size, gamma, dead, explained), "abcd", strict=True):
        style.panel_letter(axes, letter)
    style.legend_on_top(figure, entries, columns=3)


def _dictionaries_of(rows: pd.DataFrame, summary: pd.DataFrame) -> list[Entry]:
    """Return the entries that were measured: autoencoders before transcoders, then by size."""
    entries = []
    for name, part, latents in rows[["data", "part", "index"]].itertuples(index=False):

        def option(key: str, name: str = name, part: str = part) -> int:
            # all dictionaries of an entry have the same
            chosen = style.select(summary, quantity=f"option_{key}", data=name, part=part, null="")
            return int(chosen["estimate"].iloc[0])

        subspace = next((each for each in ("active", "random") if option(f"{each}_subspace")), "none")
        centred, tied, sparse_adam = (bool(option(key)) for key in ("centred", "tied", "sparse_adam"))
        entries.append(Entry(name, part, int(latents), subspace, centred, tied, sparse_adam, option("auxiliary")))
    starts = list(LOOKS)
    return sorted(
        entries,
        key=lambda dictionary: (
            *(dictionary.transcoder, dictionary.part, starts.index((dictionary.subspace, dictionary.centred))),
            *(not dictionary.tied, dictionary.sparse_adam, dictionary.auxiliary, dictionary.latents, dictionary.name),
        ),
    )


def _starts(dictionaries: list[Entry]) -> dict[str, Any]:
    """Return the entries of the legend for colours and markers."""
    here = {(dictionary.subspace, dictionary.centred) for dictionary in dictionaries}
    axes = Axes(Figure(), (0, 0, 1, 1))
    colors = {
        f"start: {name}": axes.plot([], [], color=color, linewidth=3)[0]
        for start, (color, name) in LOOKS.items()
        if start in here
    }
    if not any(dictionary.transcoder for dictionary in dictionaries):
        return colors
    (square,) = axes.plot([], [], "s", color=style.CONTROL_GREY, markersize=4)
    return colors | {"square: transcoder": square}


def _measured(tables: Mapping[str, pd.DataFrame], dictionary: Entry, quantity: str, null: str = "") -> pd.Series:
    return style.select(
        tables["summary"], quantity=quantity, data=dictionary.name, part=dictionary.part, null=null
    ).iloc[0]


def _single(tables: Mapping[str, pd.DataFrame], dictionary: Entry, quantity: str) -> "pd.Series[float]":
    rows = style.select(tables["runs"], quantity=quantity, data=dictionary.name, part=dictionary.part, null="")
    return rows.sort_values("seed")["value"]


def _draw_point(
    axes: Axes,
    tables: Mapping[str, pd.DataFrame],
    dictionary: Entry,
    quantity: str,
    place: float,
    across: bool = False,
) -> None:
    """Draw the mean of an entry with its interval, and a dot for each dictionary; ``across``: along the x axis."""
    mean, single = _measured(tables, dictionary, quantity), _single(tables, dictionary, quantity)
    ends = [[mean["estimate"] - mean["low"]], [mean["high"] - mean["estimate"]]]
    error = None if np.isnan(ends).any() else ends
    at = np.full(len(single), place)
    look: dict[str, Any] = {
        "fmt": dictionary.marker,
        "color": dictionary.color,
        "markersize": 4,
        "elinewidth": 0.9,
        "capsize": 1.5,
        "zorder": 3,
    }
    if mean["n"] > 1:
        axes.plot(*((single, at) if across else (at, single)), ".", color=dictionary.color, markersize=2.5, alpha=0.6)
    if across:
        axes.errorbar(mean["estimate"], place, xerr=error, **look)
    else:
        axes.errorbar(place, mean["estimate"], yerr=error, **look)


def _draw_sizes(axes: Axes, tables: Mapping[str, pd.DataFrame], dictionaries: list[Entry]) -> dict[str, Any]:
    axes.set_xscale("log", base=2)
    axes.set_ylim(-0.03, 1.0)
    axes.set_xlabel("latents of autoencoders")
    axes.set_ylabel("dead share")
    entries: dict[str, Any] = {}
    lines: dict[tuple[Any, ...], list[Entry]] = {}
    for dictionary in dictionaries:
        lines.setdefault((dictionary.part, *dictionary[3:]), []).append(dictionary)
    for same in lines.values():
        sizes = [dictionary.latents for dictionary in same]
        ends = [_measured(tables, dictionary, DEAD)["estimate"] for dictionary in same]
        starts = [_measured(tables, dictionary, INITIAL)["estimate"] for dictionary in same]
        plain = not (same[0].sparse_adam or same[0].auxiliary or not same[0].tied)
        axes.plot(sizes, ends, "-" if plain else "--", color=same[0].color, linewidth=0.9, zorder=2)
        (entries["open: before training"],) = axes.plot(sizes, starts, "o:", color=same[0].color, linewidth=0.8, **OPEN)
        for dictionary in same:
            _draw_point(axes, tables, dictionary, DEAD, float(dictionary.latents))
    if dictionaries:
        sizes = sorted({dictionary.latents for dictionary in dictionaries})
        axes.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xticks([], minor=True)
    return entries


def _draw_gamma(axes: Axes, tables: Mapping[str, pd.DataFrame], dictionaries: list[Entry]) -> dict[str, Any]:
    axes.set_xlabel("γ = ‖mean‖ / ‖standard deviation‖\nof what the start encodes")
    axes.set_ylabel("dead share")
    axes.set_ylim(-0.03, 1.0)
    values = {
        # twelve digits: what rounding tells apart is a tie
        quantity: [float(f"{_measured(tables, dictionary, quantity)['estimate']:.12g}") for dictionary in dictionaries]
        for quantity in (GAMMA, INITIAL, DEAD)
    }
    for dictionary, gamma, initial in zip(dictionaries, values[GAMMA], values[INITIAL], strict=True):
        axes.plot(gamma, initial, dictionary.marker, color=dictionary.color, **OPEN)
        _draw_point(axes, tables, dictionary, DEAD, gamma)
    axes.set_xlim(left=0.0)
    if len(dictionaries) < FEWEST_ENTRIES:
        text = f"fewer than {FEWEST_ENTRIES} dictionaries:\nno rank correlation"
    elif min(len(set(estimates)) for estimates in values.values()) == 1:
        text = "all equal: no rank correlation"
    else:
        ranks = pd.DataFrame(values).rank()
        before, after = (ranks[GAMMA].corr(ranks[quantity]) for quantity in (INITIAL, DEAD))
        text = f"Spearman over {len(dictionaries)} dictionaries:\nbefore training {before:.2f}, after {after:.2f}"
    axes.text(0.03, 0.98, text.replace("-", "−"), transform=axes.transAxes, ha="left", va="top", fontsize=7)
    return {}


def _draw_shares(
    axes: Axes, tables: Mapping[str, pd.DataFrame], dictionaries: list[Entry], quantity: str
) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for place, dictionary in enumerate(dictionaries):
        first = _measured(tables, dictionary, *((INITIAL,) if quantity == DEAD else (quantity, "untrained")))
        (entries["tick: before training"],) = axes.plot(
            first["estimate"], place, "|", color=style.CONTROL_GREY, markersize=6, zorder=2
        )
        _draw_point(axes, tables, dictionary, quantity, float(place), across=True)
    transcoders = sum(dictionary.transcoder for dictionary in dictionaries)
    if 0 < transcoders < len(dictionaries):
        axes.axhline(len(dictionaries) - transcoders - 0.5, color=style.NULL_GREY, linewidth=0.5)
    axes.set_yticks(range(len(dictionaries)), [dictionary.label for dictionary in dictionaries])
    axes.set_ylim(len(dictionaries) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    if quantity == DEAD:
        for level in PUBLISHED:
            entries["published, 1M latents: without and with"] = axes.axvline(
                level, color=style.BLACK, linestyle=":", linewidth=0.9, zorder=1
            )
        axes.set_xlim(-0.03, 1.0)
        numbers = style.seeds_text(style.select(tables["summary"], quantity=DEAD, null=""))
        axes.set_xlabel(f"dead share ({numbers})")
    else:
        # starts that are not centred can be far below 0
        axes.set_xlim(min(0.0, axes.get_xlim()[0]), 1.0)
        axes.axvline(0.0, color=style.NULL_GREY, linewidth=0.5, zorder=1)
        axes.set_xlabel("explained variance, held out")
    return entries
