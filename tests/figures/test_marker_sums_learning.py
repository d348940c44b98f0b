import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.marker_sums_learning import PUBLISHED, THRESHOLD, draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

TASKS = {
    "marker_sums": {"modulus": 8, "distractors": "published"},
    "marker_sums_routed": {"modulus": 8, "distractors": "any"},
}


def planted(names=tuple(TASKS), seeds=5, markers=(1, 2, 3, 4), last=4000):
    """Models that sum small tokens: m markers are learned at step 400 m, and never with distractors of any kind."""
    steps = np.arange(0, last + 1, 100)
    made = []
    for name in names:
        published = TASKS[name]["distractors"] == "published"
        for seed in range(seeds):
            noise = np.random.default_rng([seed, published])
            rows = []
            for m in markers:
                learned = 1 / (1 + np.exp((400 * m * (1 if published else 1.8) + 40 * seed - steps) / 100))
                for suffix, level in (("", learned), ("_any_distractors", 0.35 * learned))[: 1 + published]:
                    value = (0.875 * (1 - level) + noise.normal(0, 0.01, len(steps))).clip(0, 1)
                    row = {"step": steps, "quantity": "running_error", "data": f"markers_{m}{suffix}", "value": value}
                    rows.append(row | {"unit": "fraction", "n": 500})
            made.append(tidy(rows, name, seed))
    tables = {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}
    return tables, {"experiments": list(names), "tasks": {name: TASKS[name] for name in names}}


def thick(axes):
    """The mean lines of a panel, by their number of points."""
    return [line.get_xydata() for line in axes.lines if line.get_zorder() == 3]


def test_one_panel_for_each_kind_of_test():
    figure = draw(*planted())
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "marker sums: tested as trained, n = 5",
        "marker sums: tested with any distractors, n = 5",
        "marker sums routed: tested as trained, n = 5",
    ]
    ends = [[curve[-1, 1] for curve in thick(axes)] for axes in figure.axes]
    assert [len(of_panel) for of_panel in ends] == [4, 4, 4]
    assert max(ends[0] + ends[2]) < 0.05  # learned
    assert min(ends[1]) > 0.5  # but not by finding markers
    assert figure.axes[-1].get_xlabel() == "training step"
    assert all(axes.get_xlim() == (0, 4000) for axes in figure.axes)


def test_each_curve_is_the_mean_over_seeds_of_its_test_set():
    tables, options = planted()
    runs = tables["runs"]
    axes = draw(tables, options).axes[1]
    for curve, m in zip(thick(axes), (1, 2, 3, 4), strict=True):
        chosen = runs[(runs["experiment"] == "marker_sums") & (runs["data"] == f"markers_{m}_any_distractors")]
        np.testing.assert_allclose(curve[:, 1], chosen.groupby("step")["value"].mean(), atol=1e-12)


def test_chance_threshold_and_published_accuracy():
    figure = draw(*planted())
    for axes in figure.axes:
        level = [line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 2]
        assert level == [pytest.approx(1 - 1 / 8), THRESHOLD]
    stars = [[tuple(*line.get_xydata()) for line in axes.lines if line.get_marker() == "*"] for axes in figure.axes]
    assert stars == [[PUBLISHED], [], []]  # with the published distractors alone
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["m = 1", "m = 2", "m = 3", "m = 4", "null: chance", "accuracy 0.95", "published, m up to 4"]


def test_short_training_has_no_published_mark():
    figure = draw(*planted(last=1000))
    assert not [line for axes in figure.axes for line in axes.lines if line.get_marker() == "*"]


def test_one_seed_and_one_number_of_markers_are_enough():
    figure = draw(*planted(("marker_sums_routed",), seeds=1, markers=(2,)))
    (axes,) = figure.axes
    assert len(axes.collections) == 0 and len(thick(axes)) == 1
    assert axes.get_title().endswith("n = 1")
    figure.draw_without_rendering()


def test_what_is_missing_is_named():
    tables, options = planted(seeds=1)
    with pytest.raises(ValueError, match="running_error"):
        draw({name: table.assign(quantity="loss") for name, table in tables.items()}, options)
    with pytest.raises(ValueError, match=r"marker_sums has no running_error on test sets markers_<m>.*out_of"):
        draw({name: table.assign(data="out_of_distribution") for name, table in tables.items()}, options)
    for name in ("experiments", "tasks"):
        with pytest.raises(ValueError, match=f"'{name}' is missing"):
            draw(tables, options | {name: {}})


def test_nothing_overlaps():
    figure = draw(*planted())
    figure.draw_without_rendering()
    assert figure.get_figwidth() == style.COLUMN_WIDTH
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert not any(box.padded(-1).overlaps(other) for other in boxes[i + 1 :])
