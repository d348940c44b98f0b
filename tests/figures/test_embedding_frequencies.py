import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.embedding_frequencies import draw, key_frequencies
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

OPTIONS = {"experiments": ["grokking_add"], "tasks": {}}
LAST = 5000


def planted_key(seed, frequencies, number=5):
    return sorted(
        np.random.default_rng([seed, 1]).choice(np.arange(1, frequencies + 1), number, replace=False).tolist()
    )


def planted(seeds=5, prime=113, steps=(0, 1000, 2000, 3000, 4000, LAST)):
    """From a Gaussian embedding to one with five key frequencies, which differ between seeds."""
    frequencies = (prime - 1) // 2
    index = np.arange(1, frequencies + 1)
    made = []
    for seed in range(seeds):
        noise = np.random.default_rng([seed, 2])
        key = planted_key(seed, frequencies)
        rows = []
        for step in steps:
            grown = step / LAST
            weights = np.exp(noise.normal(0, 0.1, frequencies))
            peaks = np.isin(index, key) * grown * 20 * np.linspace(0.7, 1.3, frequencies)
            share = weights + peaks
            row = {"step": step, "part": "embedding", "unit": "fraction", "quantity": "frequency_share", "index": index}
            even = np.full(frequencies, 1 / frequencies)
            null = {"null": "gaussian_matrix", "value": even, "low": 0.8 * even, "high": 1.25 * even, "n": 200}
            number = {"step": step, "part": "embedding", "quantity": "key_frequencies", "value": 5.0 * (grown > 0.1)}
            rows += [row | {"value": share / share.sum()}, row | null, number]
            shuffled = {"null": "shuffled_numbers", "value": even, "low": 0.6 * even, "high": 1.6 * even, "n": 200}
            of_number = {"null": "gaussian_matrix", "value": 0.05, "low": 0.0, "high": 0.0}
            rows += [row | shuffled, number | of_number]
        made.append(tidy(rows, "grokking_add", seed))
    return {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}


def panel(figure, title):
    (found,) = (axes for axes in figure.axes if axes.get_title() == title)
    return found


def marks(axes, marker):
    return [line.get_xydata() for line in axes.lines if line.get_marker() == marker]


def test_spectra_of_the_first_seed():
    figure = draw(planted(), OPTIONS)
    before, after = (panel(figure, f"seed 0, step {step}") for step in (0, LAST))
    for axes in (before, after):
        assert len(axes.patches) == 56
        assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(1)
    assert marks(before, "v") == []
    (found,) = marks(after, "v")
    assert found[:, 0].tolist() == planted_key(0, 56)
    limits = [set(line.get_ydata()) for line in after.lines if line.get_linestyle() == "--"]
    assert [value for of_line in limits for value in of_line] == pytest.approx([0.6 / 56, 1.6 / 56])  # shuffled numbers
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["embedding", "null: Gaussian matrix", "null: shuffled numbers", "key frequency"]


def test_every_seed_is_a_row_with_its_own_key_frequencies():
    figure = draw(planted(), OPTIONS)
    axes = panel(figure, f"all seeds, step {LAST}")
    (image,) = axes.images
    assert image.get_array().shape == (5, 56)
    (found,) = marks(axes, "v")
    for seed in range(5):
        assert sorted(found[found[:, 1] == seed, 0].tolist()) == planted_key(seed, 56)
        # a pixel lies where its frequency is on the axis
        left, right, *_ = image.get_extent()
        columns = (np.array(planted_key(seed, 56)) - left) / (right - left) * 56
        assert (image.get_array()[seed, columns.astype(int)] > 0.03).all()


def test_key_frequencies_of_another_seed_are_in_the_legend():
    tables = planted(2)
    for name, column in (("runs", "value"), ("summary", "estimate")):
        none = tables[name]["quantity"].eq("key_frequencies") & (tables[name]["null"] == "")
        if name == "runs":
            none &= tables[name]["seed"] == 0
        tables[name].loc[none, column] = 0.0
    figure = draw(tables, OPTIONS)
    assert marks(panel(figure, f"seed 0, step {LAST}"), "v") == []
    assert "key frequency" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_number_of_key_frequencies_over_training():
    tables = planted()
    (numbers,) = (axes for axes in draw(tables, OPTIONS).axes if axes.get_ylabel() == "number")
    (mean,) = (line for line in numbers.lines if line.get_zorder() == 3)
    assert mean.get_xydata().tolist() == [[0, 0], *([step, 5] for step in range(1000, LAST + 1, 1000))]
    assert [text.get_text() for text in numbers.get_legend().get_texts()] == ["key frequencies, n = 5"]
    (null,) = (line for line in numbers.lines if line.get_color() == style.NULL_GREY)
    assert set(null.get_ydata()) == {0.05}


def test_the_largest_shares_are_the_key_frequencies():
    runs = planted()["runs"]
    assert [key_frequencies(runs, 3, step) for step in (0, LAST)] == [[], planted_key(3, 56)]


@pytest.mark.parametrize(("seeds", "steps"), [(1, (LAST,)), (25, (0, LAST))])
def test_any_number_of_seeds_and_few_steps(seeds, steps):
    figure = draw(planted(seeds, prime=97, steps=steps), OPTIONS)
    figure.draw_without_rendering()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles.count(f"seed 0, step {LAST}") == 1 and titles.count("seed 0, step 0") == len(steps) - 1
    numbers = next(axes for axes in figure.axes if axes.get_ylabel() == "number")
    assert numbers.get_xlabel() == ("seed" if len(steps) == 1 else "training step")


def test_what_is_missing_is_named():
    tables = planted(1)
    for quantity in ("frequency_share", "key_frequencies"):
        with pytest.raises(ValueError, match=quantity):
            draw({name: table[table["quantity"] != quantity] for name, table in tables.items()}, OPTIONS)
    with pytest.raises(ValueError, match="'experiments' is missing"):
        draw(tables, {"experiments": []})


def test_nothing_overlaps():
    figure = draw(planted(), OPTIONS)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == style.DOUBLE_WIDTH
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert not any(box.padded(-1).overlaps(other) for other in boxes[i + 1 :])
