import functools
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer

from learning_geometry.figures import style
from learning_geometry.figures.attention_concentration import FITS, draw
from learning_geometry.tables.derived.saturation_fits import derive as saturation_fits
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

STEPS = np.arange(0, 2001, 50)
NAMES = ("sums", "sums_any")
OPTIONS = {"experiments": ["sums"]}
LAST = "layers.3"


def rows_of(seed, experiment, markers):
    """Entropy that falls and rises again, as a function of the coordinate with scatter; layer 0 stays uniform."""
    noise = np.random.default_rng([seed, len(experiment)])
    crossing = (300 if experiment == "sums" else 700) * noise.uniform(0.8, 1.25)
    coordinate = 7 * (1 - np.exp(-STEPS / crossing)) + 2 * STEPS / 2000
    coordinate += np.r_[0, noise.normal(0, 0.05, len(STEPS) - 1)]
    rows = [{"step": STEPS, "part": LAST, "quantity": "routing_coordinate", "value": coordinate}]
    walk = 3 * (1 - np.cos(np.pi * STEPS / 2000))
    rows.append(rows[0] | {"value": walk, "low": 0.8 * walk, "high": 1.2 * walk, "n": 200, "null": "step_norm_walk"})
    for m in markers:
        start = 2.70 - 0.01 * m
        falls = 0.25 + 0.15 * m + (start - 0.25 - 0.15 * m) * np.exp(-((coordinate / 4) ** 2))
        entropy = falls + 0.5 * (STEPS / 2000) ** 2 + np.r_[0, noise.normal(0, 0.03, len(STEPS) - 1)]
        for part, value in ((LAST, entropy), ("layers.0", np.full(len(STEPS), 2.6))):
            for suffix, shift in (("", 0.0), ("_any_distractors", 0.2)):
                row = {"step": STEPS, "part": part, "quantity": "attention_entropy", "unit": "nats"}
                row |= {"data": f"markers_{m}{suffix}"}
                rows.append(row | {"value": value + shift, "low": value + shift - 0.05, "high": value + shift + 0.05})
                for null, level in (("uniform_attention", np.log(16)), ("untrained", value[0] + shift)):
                    level = np.full(len(STEPS), level)
                    rows.append(row | {"value": level, "low": level, "high": level, "null": null})
    return rows


@pytest.fixture(scope="module")
def make_tables():
    @functools.cache
    def make(seeds=5, markers=(1, 2, 3, 4)):
        runs = [tidy(rows_of(seed, name, markers), name, seed) for name in NAMES for seed in range(seeds)]
        runs.append(saturation_fits(pd.concat(runs)))
        return {"summary": summarize(runs), "runs": pd.concat(runs, ignore_index=True)}

    return make


def of_experiment(tables, experiment):
    return {name: table[table["experiment"] == experiment] for name, table in tables.items()}


def estimate(tables, quantity, **columns):
    rows = tables["summary"]
    for name, value in ({"quantity": quantity, "experiment": "sums", "null": ""} | columns).items():
        rows = rows[rows[name] == value]
    (found,) = rows["estimate"]
    return found


def test_entropy_over_training_of_the_last_layer_and_its_nulls(make_tables):
    tables = make_tables()
    training = draw(tables, OPTIONS).axes[0]
    means = [line for line in training.lines if line.get_zorder() == 3]
    assert [line.get_color() for line in means] == [style.SKY_BLUE, style.BLUE, style.VERMILION, style.PURPLE]
    for m, line in enumerate(means, 1):
        expected = estimate(tables, "attention_entropy", part=LAST, data=f"markers_{m}", step=1000)
        assert dict(line.get_xydata())[1000] == pytest.approx(expected)
    assert len([line for line in training.lines if line.get_zorder() == 1]) == 4 * 5
    (uniform,) = (line for line in training.lines if line.get_linestyle() == ":")
    np.testing.assert_allclose(uniform.get_ydata(), np.log(16))
    untrained = [line for line in training.lines if line.get_linestyle() == "--" and len(line.get_xdata())]
    assert len(untrained) == 4
    assert training.get_xlim() == (0, 2000)


def test_the_published_range_stands_where_training_reaches_it(make_tables):
    (bar,) = (each for each in draw(make_tables(), OPTIONS).axes[0].containers if isinstance(each, ErrorbarContainer))
    ((segment,),) = (lines.get_segments() for lines in bar.lines[2])
    np.testing.assert_allclose(segment, [[1000, 0.4], [1000, 1.0]])
    short = {name: table[table["step"] <= 900] for name, table in make_tables().items()}
    figure = draw(short, OPTIONS)
    assert not figure.axes[0].containers
    assert not any("published" in text.get_text() for text in figure.legends[0].get_texts())


def test_each_seed_goes_along_its_own_coordinate(make_tables):
    tables = make_tables()
    along = draw(tables, OPTIONS).axes[1]
    (null,) = (line for line in along.lines if line.get_linestyle() == "-.")
    assert null.get_xdata()[0] == pytest.approx(6.0)
    paths = [line for line in along.lines if len(line.get_xdata()) > 1 and line is not null]
    ends = [line for line in along.lines if len(line.get_xdata()) == 1]
    assert len(paths) == len(ends) == 4 * 5
    runs = tables["runs"]
    of_seed = runs[(runs["experiment"] == "sums") & (runs["seed"] == 3) & (runs["null"] == "") & (runs["part"] == LAST)]
    x, y = (
        of_seed[(of_seed["quantity"] == quantity) & of_seed["data"].isin(["", "markers_2"])]["value"].to_numpy()
        for quantity in ("routing_coordinate", "attention_entropy")
    )
    (path,) = (line for line in paths if np.array_equal(line.get_xdata(), x) and line.get_color() == style.BLUE)
    np.testing.assert_array_equal(path.get_ydata(), y)


def test_errors_of_every_fit_with_seeds_intervals_and_null(make_tables):
    tables = make_tables()
    errors = draw(tables, OPTIONS).axes[2]
    means = [container.lines[0] for container in errors.containers]
    assert len(means) == 5 * 4
    for place, fit in enumerate(FITS):
        for m in range(4):
            quantity, data = f"held_out_error_{fit}", f"markers_{m + 1}"
            mean = means[4 * place + m]
            assert mean.get_xdata()[0] == pytest.approx(estimate(tables, quantity, data=data))
            assert abs(mean.get_ydata()[0] - place) < 0.3
    assert all(container.has_xerr for container in errors.containers)
    ticks = [line for line in errors.lines if line.get_marker() == "|"]
    assert len(ticks) == 20
    null = estimate(tables, "held_out_error_line_step", data="markers_4", null="mean_of_other_seeds")
    assert ticks[-5].get_xdata()[0] == pytest.approx(null)
    assert sum(len(line.get_xdata()) for line in errors.lines if line.get_color() == style.NULL_GREY) == 20 * 5
    assert [label.get_text() for label in errors.get_yticklabels()] == list(FITS.values())


@pytest.mark.parametrize(
    ("experiments", "seeds", "markers"),
    [(NAMES[:1], 5, (1, 2, 3, 4)), (NAMES, 5, (1, 2, 3, 4)), (NAMES[:1], 1, (1,)), (NAMES, 2, (2, 4))],
)
def test_nothing_overlaps(make_tables, experiments, seeds, markers):
    figure = draw(make_tables(seeds, markers), {"experiments": experiments})
    figure.draw_without_rendering()
    assert len(figure.axes) == 3 * len(experiments)
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert not any(box.overlaps(other) for other in boxes)
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :])
    for axes in figure.axes:
        assert axes.get_tightbbox().x1 <= figure.bbox.x1 and axes.get_tightbbox().x0 >= 0
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            shown = [label.get_window_extent() for label in labels if label.get_text()]
            assert not any(one.overlaps(other) for one, other in pairwise(shown))


def test_a_long_name_stays_above_its_panel(make_tables):
    long = "marker_sums_of_which_distractors_may_be_values"
    tables = {
        name: table.assign(experiment=long) for name, table in of_experiment(make_tables(2, (1,)), "sums").items()
    }
    figure = draw(tables, {"experiments": [long]})
    figure.draw_without_rendering()
    training = figure.axes[0]
    assert training.get_title(loc="left").replace("\n", " ") == f"{long.replace('_', ' ')}, n = 2"
    assert training._left_title.get_window_extent().x1 < figure.axes[1].get_tightbbox().x0
    assert not figure.legends[0].get_window_extent().overlaps(training.get_tightbbox())


def test_one_seed_has_nothing_left_out(make_tables):
    errors = draw(make_tables(1, (1,)), OPTIONS).axes[2]
    assert [text.get_text() for text in errors.texts if "too few seeds" in text.get_text()]


def test_test_sets_without_markers_are_all_shown(make_tables):
    names = {"markers_1": "in_distribution", "markers_1_any_distractors": "out_of_distribution"}
    tables = {name: table.assign(data=table["data"].replace(names)) for name, table in make_tables(2, (1,)).items()}
    figure = draw(tables, OPTIONS)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"in distribution", "out of distribution"} <= set(texts)
    # the published range is of marker sums
    assert not any("published" in text for text in texts)


def test_what_is_missing_is_named(make_tables):
    for quantity in ("attention_entropy", "routing_coordinate", "held_out_error_line_step"):
        tables = {name: table[table["quantity"] != quantity] for name, table in make_tables(2, (1,)).items()}
        with pytest.raises(ValueError, match=quantity):
            draw(tables, OPTIONS)
    with pytest.raises(ValueError, match="experiments"):
        draw(make_tables(2, (1,)), {"experiments": []})
