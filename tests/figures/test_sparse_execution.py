import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.sparse_execution import CHOICES, LABELS, SOURCES, draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

OPTIONS = {"experiments": ["sums"], "tasks": {"sums": {"modulus": 8}}}
COUNTS = np.array([1, 8, 64])


def rows(seed, markers):
    noise = 0.01 * seed
    names = ["value", "variance"] + ["marker"] * markers
    here = {"step": 900, "data": "most_markers", "unit": "fraction"}
    for quantity in ("accuracy_after_ablation", "accuracy_after_published_ablation"):
        published = "published" in quantity
        row = here | {"quantity": quantity}
        for control, value in (("intact", 1.0), ("reconstruction", 0.99), ("mean", 0.5)):
            yield row | {"part": f"ablation-{control}", "value": 1.0 if published else value}
        counts = COUNTS[-1:] if published else COUNTS
        for slope, name in enumerate([*names, "random"]):
            value = np.ones(len(counts)) if published else 1 - 0.002 * (3 - slope) * counts - noise
            row = row | {"part": f"ablation-{name}", "index": counts}
            yield row | {"value": value}
            if name != "random":
                yield row | {"value": value * 0 + 0.98, "low": 0.97, "high": 0.99, "null": "random", "n": 5}
    labels = ["value", "running_sum"] + ["marker", "running_sum_after_first"] * markers
    for source in SOURCES:
        for label in labels:
            for quantity, unit in (("decoding_accuracy", "fraction"), ("best_latent_information", "nats")):
                row = here | {"quantity": quantity, "part": f"{source}-{label}", "unit": unit}
                yield row | {"value": 0.8 - noise - 0.1 * source.endswith("states")}
                yield row | {"value": 0.12, "low": 0.1, "high": 0.14, "null": "shuffled_labels", "n": 10}
                if label == "marker" and unit == "fraction":
                    yield row | {"value": 0.6, "null": "position_only"}


def tables(seeds=5, markers=True):
    made = [tidy(rows(seed, markers), "sums", seed) for seed in range(seeds)]
    return {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}


def test_ablations_controls_and_the_published_edit():
    axes = draw(tables(), OPTIONS).axes[0]
    for slope, choice in enumerate(("value", "variance", "marker")):
        (line,) = (each for each in axes.lines if each.get_color() == CHOICES[choice][0] and each.get_zorder() == 3)
        np.testing.assert_allclose(line.get_xdata(), COUNTS)
        np.testing.assert_allclose(line.get_ydata(), 0.98 - 0.002 * (3 - slope) * COUNTS)
    levels = {line.get_linestyle(): line.get_ydata()[0] for line in axes.lines if line.get_color() == style.BLACK}
    assert levels.pop(":") == pytest.approx(1 / 8)
    assert {name: levels[name] for name in ("-", "--", "-.")} == pytest.approx({"-": 1.0, "--": 0.99, "-.": 0.5})
    (diamonds,) = (line for line in axes.lines if line.get_marker() == "D")
    assert set(diamonds.get_ydata()) == {1.0} and set(diamonds.get_xdata()) == {64}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "8", "64"]


def test_each_label_has_each_source_with_its_interval_and_its_null():
    figure = draw(tables(), OPTIONS)
    for axes in figure.axes[1:]:
        points = [line for line in axes.lines if line.get_marker() in ("o", "s")]
        assert len(points) == len(SOURCES) * len(LABELS)
        assert len(axes.containers) == len(points) and all(each.has_xerr for each in axes.containers)
        places = sorted(float(line.get_ydata()[0]) for line in points)
        nulls = [line for line in axes.lines if line.get_color() == style.NULL_GREY and line.get_linewidth() > 2]
        assert sorted(float(line.get_ydata()[0]) for line in nulls) == places
        assert {tuple(line.get_xdata()) for line in nulls} == {(0.1, 0.14)}
        open_ones = {float(line.get_xdata()[0].round(6)) for line in points if line.get_marker() == "s"}
        assert open_ones == {0.68}
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == list(LABELS.values())
    ticks, none = ([line for line in axes.lines if line.get_marker() == "|"] for axes in figure.axes[1:])
    assert [float(line.get_xdata()[0]) for line in ticks] == [pytest.approx(0.6)] * len(SOURCES) and none == []


@pytest.mark.parametrize("seeds", [5, 1])
def test_the_legend_fits(seeds):
    figure = draw(tables(seeds), OPTIONS)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert f"most informative of the marker, n = {seeds}" in texts and "published edit, any choice" in texts
    assert len(texts) == len(set(texts))
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)


def test_one_marker_has_no_marker_to_tell_apart():
    figure = draw(tables(2, markers=False), {"experiments": ["sums"]})
    assert len(figure.axes[1].get_yticklabels()) == 2
    assert not [line for line in figure.axes[0].lines if line.get_color() == CHOICES["marker"][0]]


def test_a_source_of_which_a_label_was_not_read_leaves_its_place_empty():
    lacking = f"{list(SOURCES)[-1]}-marker"
    figure = draw({name: table[table["part"] != lacking] for name, table in tables(2).items()}, OPTIONS)
    for axes, whole in zip(figure.axes[1:], draw(tables(2), OPTIONS).axes[1:], strict=True):
        shown, all_of_them = ({float(bar.lines[0].get_ydata()[0]) for bar in each.containers} for each in (axes, whole))
        (empty,) = all_of_them - shown
        assert list(LABELS)[round(empty)] == "marker"


def test_what_is_missing_is_named():
    whole = tables(2)
    for quantity in ("accuracy_after_ablation", "accuracy_after_published_ablation", "best_latent_information"):
        left = {name: table[table["quantity"] != quantity] for name, table in whole.items()}
        with pytest.raises(ValueError, match=quantity):
            draw(left, OPTIONS)
    with pytest.raises(ValueError, match="experiments"):
        draw(whole, {"experiments": []})
