import functools
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from learning_geometry.figures import style
from learning_geometry.figures.dead_features import draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

OPTIONS = {"experiments": ["tiny"]}
NONE, ACTIVE, RANDOM = "none", "active", "random"
ENTRIES = {  # latents, subspace, centred, tied, SparseAdam, AuxK; dead share, before training, explained variance, γ
    "standard_288": (288, NONE, False, True, False, 0, 0.17, 0.02, 0.72, 0.92),
    "standard_1152": (1152, NONE, False, True, False, 0, 0.44, 0.15, 0.74, 0.92),
    "centred_1152": (1152, NONE, True, True, False, 0, 0.15, 0.0, 0.76, 0.11),
    "recipe_1152": (1152, ACTIVE, True, True, True, 0, 0.07, 0.01, 0.77, 0.11),
    "revived_1152": (1152, RANDOM, False, False, False, 64, 0.3, 0.1, 0.7, 0.92),
    "transcoder_1152": (1152, NONE, True, False, False, 0, 0.19, 0.0, 0.54, 0.07),
    "transcoder_active_subspace_1152": (1152, ACTIVE, True, False, False, 0, 0.2, 0.0, 0.55, 0.07),
}


def rows(seed, chosen):
    for name in chosen:
        latents, subspace, centred, tied, sparse_adam, auxiliary, dead, initial, explained, gamma = ENTRIES[name]
        part = "layers.15.mlp" if "transcoder" in name else "layers.15.attention.output"
        base = {"step": 0, "part": part, "index": latents, "data": name, "unit": "fraction"}
        yield base | {"quantity": "dead_share", "value": dead + 0.01 * seed, "n": 12780}
        yield base | {"quantity": "initial_dead_share", "value": initial, "n": 12780}
        yield base | {"quantity": "explained_variance", "value": explained - 0.01 * seed, "n": 2540}
        yield base | {"quantity": "explained_variance", "value": explained - 1.1, "n": 2540, "null": "untrained"}
        yield base | {"quantity": "mean_over_spread", "value": gamma, "unit": "1"}
        flags = {"centred": centred, "tied": tied, "sparse_adam": sparse_adam, "auxiliary": auxiliary}
        flags |= {f"{each}_subspace": subspace == each for each in (ACTIVE, RANDOM)}
        for key, value in flags.items():
            yield base | {"quantity": f"option_{key}", "value": float(value), "unit": "1"}


@functools.cache
def tables(seeds=3, dictionaries=tuple(ENTRIES)):
    made = [tidy(rows(seed, dictionaries), "tiny", seed) for seed in range(seeds)]
    made.append(tidy(rows(0, ("standard_288",)), "other", 0))
    return {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}


@functools.cache
def drawn(seeds=3, dictionaries=tuple(ENTRIES)):
    figure = draw(tables(seeds, dictionaries), OPTIONS)
    figure.draw_without_rendering()
    return figure


def marks(axes, marker, filled=True):
    """Where marks of this kind stand, by colour: x and y of each line."""
    return [
        (to_hex(line.get_color()).upper(), *map(np.atleast_1d, line.get_data()))
        for line in axes.lines
        if line.get_marker() == marker and (line.get_markerfacecolor() == "none") != filled and len(line.get_xdata())
    ]


def test_dead_share_against_size_for_each_start():
    axes = drawn().axes[0]
    found = {(color, float(x[0])): float(y[0]) for color, x, y in marks(axes, "o")}
    expected = {
        (style.VERMILION, 288): 0.18,
        (style.VERMILION, 1152): 0.45,
        (style.ORANGE, 1152): 0.16,
        (style.BLUE, 1152): 0.08,
        (style.PURPLE, 1152): 0.31,
    }
    assert found == pytest.approx(expected)
    (line,) = (each for each in axes.lines if each.get_linestyle() == "-" and len(each.get_xdata()) == 2)
    np.testing.assert_allclose(line.get_xydata(), [[288, 0.18], [1152, 0.45]])
    before = {color: list(y) for color, _, y in marks(axes, "o", filled=False)}
    assert before[style.VERMILION] == [0.02, 0.15] and before[style.BLUE] == [0.01]
    single = [y for color, x, y in marks(axes, ".") if color == style.VERMILION and x[0] == 1152]
    np.testing.assert_allclose(single, [[0.44, 0.45, 0.46]])
    assert all(container.has_yerr for container in axes.containers)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["288", "1,152"]


def test_dead_share_against_gamma_with_its_rank_correlation():
    axes = drawn().axes[1]
    assert sorted((x[0], round(y[0], 6)) for _, x, y in marks(axes, "s")) == [(0.07, 0.2), (0.07, 0.21)]
    assert len(marks(axes, "o")) == len(marks(axes, "o", filled=False)) == 5
    # ranks of γ and of the dead share by hand
    (text,) = axes.texts[:-1] if len(axes.texts) > 1 else axes.texts
    gamma, before, after = ([ENTRIES[name][i] for name in ENTRIES] for i in (9, 7, 6))
    expected = [np.corrcoef(pd.Series(gamma).rank(), pd.Series(found).rank())[0, 1] for found in (before, after)]
    assert text.get_text() == "Spearman over 7 dictionaries:\nbefore training {:.2f}, after {:.2f}".format(*expected)


def test_rounding_takes_no_ranks_apart():
    summary = tables()["summary"]
    dust = 1 + 4e-16 * np.random.default_rng(0).integers(-1, 2, len(summary))
    moved = tables() | {"summary": summary.assign(estimate=summary["estimate"] * dust)}
    plain, other = (figure.axes[1].texts[0].get_text() for figure in (drawn(), draw(moved, OPTIONS)))
    assert other == plain


@pytest.mark.parametrize(
    ("dictionaries", "message"),
    [
        (("standard_288", "centred_1152"), "fewer than 5 dictionaries:\nno rank correlation"),
        (("centred_1152",), "fewer than 5"),
    ],
)
def test_of_a_few_dictionaries_there_is_no_rank_correlation(dictionaries, message):
    assert any(message in text.get_text() for text in drawn(1, dictionaries).axes[1].texts)


@pytest.mark.parametrize("quantity", ["dead_share", "initial_dead_share", "mean_over_spread"])
def test_of_dictionaries_that_are_all_equal_there_is_none_either(quantity):
    summary = tables()["summary"]
    equal = summary["estimate"].where(summary["quantity"] != quantity, 0.1 + 0.2)
    summary = summary.assign(estimate=equal, low=np.nan, high=np.nan)
    axes = draw(tables() | {"summary": summary}, OPTIONS).axes[1]
    assert [text.get_text() for text in axes.texts if len(text.get_text()) > 1] == ["all equal: no rank correlation"]


def test_every_cell_has_its_row_transcoders_last():
    figure = drawn()
    _, _, dead, explained = figure.axes
    assert [label.get_text() for label in dead.get_yticklabels()] == [
        "288, not centred, no subspace, tied, Adam",
        "1,152, not centred, no subspace, tied, Adam",
        "1,152, centred, no subspace, tied, Adam",
        "1,152, centred, active subspace, tied, SparseAdam",
        "1,152, not centred, random subspace, untied, Adam, AuxK 64",
        "1,152, centred, no subspace, untied, Adam",
        "1,152, centred, active subspace, untied, Adam",
    ]
    names = list(ENTRIES)
    for axes, column, sign, first in ((dead, 6, 1, 7), (explained, 8, -1, None)):
        found = {round(y[0]): x[0] for marker in "os" for _, x, y in marks(axes, marker)}
        assert found == pytest.approx({i: ENTRIES[name][column] + sign * 0.01 for i, name in enumerate(names)})
        # the ends of intervals are such marks as well, in the colours of dictionaries
        ticks = {round(y[0]): x[0] for color, x, y in marks(axes, "|") if color == style.CONTROL_GREY}
        before = [ENTRIES[name][8] - 1.1 if first is None else ENTRIES[name][first] for name in names]
        assert ticks == pytest.approx(dict(enumerate(before)))
        assert all(container.has_xerr for container in axes.containers)
    published = sorted(line.get_xdata()[0] for line in dead.lines if line.get_color() == style.BLACK)
    assert published == [0.01, 0.87]
    assert dead.get_xlabel() == "dead share (n = 3)"


@pytest.mark.parametrize(("seeds", "dictionaries"), [(1, tuple(ENTRIES)), (3, tuple(ENTRIES)), (1, ("centred_1152",))])
def test_nothing_overlaps(seeds, dictionaries):
    figure = drawn(seeds, dictionaries)
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert not any(box.overlaps(other) for other in boxes)
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :])
    assert all(each.x0 >= 0 and each.x1 <= figure.bbox.x1 for each in boxes)
    for labels in (axes.get_xticklabels() for axes in figure.axes):
        shown = [label.get_window_extent() for label in labels if label.get_text()]
        assert not any(one.overlaps(other) for one, other in pairwise(shown))
    texts = [text.get_text() for text in legend.get_texts()]
    assert ("square: transcoder" in texts) == (len(dictionaries) > 1) and len(texts) == len(set(texts))


def test_one_dictionary_has_neither_interval_nor_dots():
    figure = drawn(1)
    assert not any(marks(axes, ".") for axes in figure.axes)
    assert not any(container.has_yerr or container.has_xerr for axes in figure.axes for container in axes.containers)


def test_what_is_missing_is_named():
    whole = tables(2)
    for quantity in ("dead_share", "explained_variance", "option_tied"):
        left = {name: table[table["quantity"] != quantity] for name, table in whole.items()}
        with pytest.raises(ValueError, match=quantity):
            draw(left, OPTIONS)
    with pytest.raises(ValueError, match="experiments"):
        draw(whole, {"experiments": []})
