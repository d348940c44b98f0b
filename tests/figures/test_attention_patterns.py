import numpy as np
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.attention_patterns import draw

OPTIONS = {"experiments": ["copying"], "tasks": {}}
COPY_STARTS, SEGMENT = (6, 35), 25  # of the synthetic sequence


def test_patterns_are_where_they_belong(attention_tables):
    figure = draw(attention_tables(), OPTIONS)
    grid = [axes for axes in figure.axes if axes.images]
    assert len(grid) == 6
    titles = ["before transition, step 1000", "at transition, step 2000", "after transition, step 3500"]
    assert [axes.get_title() for axes in grid[:3]] == titles
    patterns = [np.ma.filled(axes.images[0].get_array(), np.nan) for axes in grid]
    above = np.triu_indices(64, 1)
    for pattern in patterns:
        assert pattern.shape == (64, 64)
        assert np.isnan(pattern[above]).all()
        assert np.isfinite(pattern[np.tril_indices(64)]).all()
    assert patterns[0][10, 3] == pytest.approx(1 / 11)
    assert (patterns[2].diagonal(-1) > 0.9).all()  # layer 1 looks at the previous token
    first, second = COPY_STARTS
    for offset in range(SEGMENT - 1):  # layer 2 looks behind the match
        assert patterns[5][second + offset, first + offset + 1] > 0.9
    assert np.nanmax(patterns[5][second - 1]) < 0.1


def test_copies_are_marked(attention_tables):
    axes = draw(attention_tables(), OPTIONS).axes[0]
    *bars, box = axes.patches
    assert [(bar.get_x(), bar.get_width()) for bar in bars[::2]] == [(start - 0.5, SEGMENT) for start in COPY_STARTS]
    assert [(bar.get_y(), bar.get_height()) for bar in bars[1::2]] == [(start - 0.5, SEGMENT) for start in COPY_STARTS]
    assert (box.get_x(), box.get_y()) == (COPY_STARTS[0] - 0.5, COPY_STARTS[1] - 0.5)


def test_the_lowest_seed_is_shown(attention_tables):
    grid = draw(attention_tables(seeds=(2, 1)), OPTIONS).axes
    assert grid[0].get_title() == "before transition, step 1100"


def test_no_transition_and_one_layer(attention_tables):
    figure = draw(attention_tables(layers=1, censored=True), OPTIONS)
    grid = [axes for axes in figure.axes if axes.images]
    assert len(grid) == 3
    assert [axes.get_title() for axes in grid] == [
        "no transition, step 1000",
        "no transition, step 2000",
        "no transition, step 3500",
    ]


def test_nothing_overlaps(attention_tables):
    figure = draw(attention_tables(), OPTIONS)
    figure.draw_without_rendering()
    texts = [axes.title.get_window_extent() for axes in figure.axes[:3]]
    letters = [axes.texts[0].get_window_extent() for axes in figure.axes[:3]]
    boxes = [*texts, *letters, figure.legends[0].get_window_extent()]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_what_is_missing_is_named(attention_tables):
    for quantity in ("attention", "attention_step", "first_start"):
        tables = {name: table[table["quantity"] != quantity] for name, table in attention_tables().items()}
        with pytest.raises(ValueError, match=f"'{quantity}'"):
            draw(tables, OPTIONS)


def test_drawing_twice_saves_the_same_bytes(attention_tables, tmp_path):
    for name in ("first", "second"):
        style.save(draw(attention_tables(), OPTIONS), tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
    for suffix in ("pdf", "png"):
        assert (tmp_path / f"first.{suffix}").read_bytes() == (tmp_path / f"second.{suffix}").read_bytes()
