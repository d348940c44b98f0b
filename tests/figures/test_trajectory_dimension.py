import functools

import numpy as np
import pandas as pd
import pytest
from matplotlib.legend import Legend

from learning_geometry.figures import style
from learning_geometry.figures.trajectory_dimension import NULLS, PUBLISHED, ROLES, draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

LAST = 4000
R90 = {"query": 3, "key": 3, "value": 2, "output": 2}
"""Of each role in the first layer of most seeds; every third seed has one more."""

OF_NULLS = {  # mean, low and high r90; share of PC1; p value of a run with the r90 above
    "isotropic_walk": (6.0, 6.0, 6.0, 0.61, 0.005),
    "step_norm_walk": (5.1, 5.0, 5.5, 0.64, 0.005),
    "shuffled_increments": (2.6, 2.0, 4.0, 0.81, 0.9),
    "random_signs": (4.7, 3.0, 6.0, 0.65, 0.04),
    "ornstein_uhlenbeck": (3.9, 3.0, 4.0, 0.78, 0.06),
    "weight_decay": (1.0, np.nan, np.nan, 1.0, None),
}


def rows_of(seed, layers, neighbours):
    """Query and key are below random signs in every seed, value and output in even ones."""
    noise = np.random.default_rng([seed, layers])
    rows = []

    def add(quantity, part, value, null="", low=np.nan, high=np.nan):
        unit = "fraction" if quantity.endswith("share") or "p_value" in quantity else "dimensions"
        row = {"step": LAST, "quantity": quantity, "part": part, "value": value, "null": null, "unit": unit}
        rows.append(row | {"low": low, "high": high, "n": 200 if null else 1})

    layer_parts = [f"layers.{layer}.attention" for layer in range(layers)]
    matrices = [f"{part}.{role}" for part in layer_parts for role in ROLES]
    for part in [*matrices, *layer_parts, "model", "attention_matrices"]:
        r90 = R90.get(part.rpartition(".")[2], 2) + (seed % 3 == 2)
        pc1 = 0.8 + noise.normal(0, 0.02)
        add("trajectory_r90", part, r90)
        add("trajectory_r99", part, 4.0 * r90)
        add("trajectory_participation_ratio", part, 1 / pc1**2)
        add("trajectory_pc1_share", part, pc1)
        for null, (mean, low, high, share, p_value) in OF_NULLS.items():
            add("trajectory_r90", part, mean, null, low, high)
            add("trajectory_r99", part, 4 * mean, null, 4 * low, 4 * high)
            add("trajectory_participation_ratio", part, 1 / share**2, null, 0.9 / share**2, 1.1 / share**2)
            add("trajectory_pc1_share", part, share, null, 0.97 * share, min(1.03 * share, 1.0))
            if part in matrices and p_value is not None:
                odd = null == "random_signs" and part.endswith(("value", "output")) and seed % 2
                add(f"trajectory_r90_p_value_{null}", part, 0.3 if odd else p_value)
    if neighbours:
        for quantity, scale in (("two_nearest_neighbours_dimension", 10.0), ("maximum_likelihood_dimension", 1.0)):
            add(quantity, "model", 0.4 * scale)
            for null, (mean, *_) in OF_NULLS.items():
                add(quantity, "model", mean * scale, null, 0.9 * mean * scale, 1.1 * mean * scale)
    return rows


def planted(seeds=5, layers=3, neighbours=True, experiments=("marker_sums",)):
    made = [tidy(rows_of(seed, layers, neighbours), name, seed) for name in experiments for seed in range(seeds)]
    tables = {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}
    tasks = {name: {"name": "marker_sums"} for name in experiments}
    return tables, {"experiments": list(experiments), "tasks": tasks}


@functools.cache
def drawn(**kinds):
    """A figure that tests look at and leave alone."""
    return draw(*planted(**kinds))


def marks(axes, color):
    """Centre of every errorbar mark of a colour."""
    lines = [bar.lines[0] for bar in axes.containers if bar.lines[0].get_color() == color]
    return np.concatenate([line.get_xydata() for line in lines])


def open_circles(axes):
    lines = [line for line in axes.lines if line.get_markeredgecolor() == style.VERMILION]
    return np.concatenate([line.get_xydata() for line in lines]) if lines else np.empty((0, 2))


def legend(figure):
    return [text.get_text() for text in figure.findobj(Legend)[0].get_texts()]


def test_each_role_has_its_panel_with_every_layer():
    figure = drawn()
    assert [axes.get_title() for axes in figure.axes[:4]] == list(ROLES)
    for axes, role in zip(figure.axes, ROLES, strict=False):
        ours = marks(axes, style.BLUE)
        np.testing.assert_allclose(ours[:, 1], R90[role] + 0.2)  # one seed of five has one more
        assert ours[:, 0].round().tolist() == [0, 1, 2]
        (dots,) = (line for line in axes.lines if line.get_marker() == ".")
        assert sorted(set(dots.get_ydata())) == [R90[role], R90[role] + 1] and len(dots.get_ydata()) == 3 * 5
        assert axes.get_ylim() == figure.axes[0].get_ylim()


def test_published_values_stand_at_the_number_of_their_layer():
    figure = drawn()
    for axes, role in zip(figure.axes, ROLES, strict=False):
        circles = open_circles(axes)
        np.testing.assert_allclose(circles[:, 1], PUBLISHED[role])
        assert circles[:, 0].round().tolist() == [0, 1, 2, 3, 4]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3", "4", "5"]
    tables, options = planted(layers=3)
    figure = draw(tables, options | {"tasks": {"marker_sums": {"name": "binary_operations"}}})
    assert not len(open_circles(figure.axes[0])) and len(figure.axes[0].get_xticks()) == 3
    assert "published, mean of 20 seeds" not in legend(figure)


def test_every_null_has_its_marker_and_its_range():
    figure = drawn()
    query = figure.axes[0]
    by_marker = {bar.lines[0].get_marker(): bar for bar in query.containers}
    for null, (_, marker, _) in NULLS.items():
        mean, low, high, *_ = OF_NULLS[null]
        np.testing.assert_allclose(by_marker[marker].lines[0].get_xydata()[:, 1], mean)
        if null == "weight_decay":
            assert not by_marker[marker].lines[2]  # exact
        else:
            segments = np.array(by_marker[marker].lines[2][0].get_segments())
            np.testing.assert_allclose(segments[:, :, 1], [[low, high]] * 3)
    assert len({marker for _, marker, _ in NULLS.values()}) == len(NULLS)
    assert legend(figure) == [
        "marker sums, n = 5",
        "single seeds",
        "published, mean of 20 seeds",
        *(label for label, *_ in NULLS.values()),
    ]


def test_nothing_at_one_place_covers_another():
    query = draw(*planted(experiments=("marker_sums", "other"))).axes[0]
    first = [x for bar in query.containers for x in bar.lines[0].get_xdata() if x < 0.5]
    assert len(first) == 2 + 6 and (np.diff(sorted(first)) > 0.05).all() and min(first) > -0.5


def test_verdicts_count_seeds_below_each_null():
    verdicts = drawn().axes[4]
    assert len(verdicts.patches) == 5 * 12
    written = {text.get_position(): text.get_text() for text in verdicts.texts if text.get_text().isdigit()}
    assert len(written) == 5 * 12
    names = [label.get_text() for label in verdicts.get_yticklabels()]
    rows = {name: [count for (_, y), count in sorted(written.items()) if y == row] for row, name in enumerate(names)}
    assert rows["isotropic walk"] == ["5"] * 12
    assert rows["the run's steps, shuffled"] == rows["Ornstein-Uhlenbeck process"] == ["0"] * 12
    assert rows["the run's steps, random signs"] == ["5"] * 6 + ["3"] * 6  # seeds 0, 2 and 4
    assert "number of seeds, of 5," in verdicts.get_xlabel()
    faces = {tuple(patch.get_facecolor()) for patch in verdicts.patches}
    assert len(faces) == 3


def test_layers_and_the_whole_model():
    figure = drawn()
    share, ratio, r99, neighbours = figure.axes[5:]
    for axes in (share, ratio, r99):
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3", "all"]
        assert len(marks(axes, style.BLUE)) == 4
        assert len(axes.containers) == 1 + 2
    assert marks(share, style.BLUE)[:, 1] == pytest.approx(0.8, abs=0.04)
    assert [label.get_text() for label in neighbours.get_xticklabels()] == ["TwoNN", "MLE"]
    assert marks(neighbours, style.BLUE)[:, 1] == pytest.approx([4.0, 0.4])
    low, high = neighbours.get_ylim()
    assert low < 0.4 and high > 60


def test_without_neighbours_there_is_no_panel_for_them():
    assert len(drawn(neighbours=False).axes) == 8


def test_a_further_experiment_is_a_control():
    tables, options = planted(experiments=("marker_sums", "any_distractors"))
    tables = {
        name: table.assign(
            **{column: table[column] + (table["experiment"] == "any_distractors") * (table["null"] == "")}
        )
        for (name, table), column in zip(tables.items(), ("estimate", "value"), strict=True)
    }
    figure = draw(tables, options)
    query = figure.axes[0]
    np.testing.assert_allclose(marks(query, style.GREEN)[:, 1], marks(query, style.BLUE)[:, 1] + 1)
    assert "any distractors, n = 5" in legend(figure)


def test_a_further_experiment_shows_what_was_measured_of_it():
    tables, options = planted(experiments=("marker_sums", "any_distractors"))
    known = ("two_nearest_neighbours_dimension", "maximum_likelihood_dimension")
    fewer = {
        name: table[~(table["quantity"].isin(known) & (table["experiment"] == "any_distractors"))]
        for name, table in tables.items()
    }
    share, *_, neighbours = draw(fewer, options).axes[5:9]
    colors = [{bar.lines[0].get_color() for bar in axes.containers} for axes in (share, neighbours)]
    assert colors[0] - colors[1] == {style.GREEN} and style.BLUE in colors[1]


def test_every_experiment_has_a_block_with_its_seeds_nulls_and_verdicts():
    names = ("marker_sums", "any_distractors")
    tables, options = planted(experiments=names)
    runs = tables["runs"]
    # the second experiment's own: no r90 is below a null, and its walks are longer
    other = runs["experiment"] == names[1]
    runs.loc[other & runs["quantity"].str.contains("p_value"), "value"] = 0.9
    summary = tables["summary"]
    summary.loc[(summary["experiment"] == names[1]) & (summary["null"] == "isotropic_walk"), "estimate"] += 2.0
    figure = draw(tables, options)
    half = len(figure.axes) // 2
    blocks = [figure.axes[:half], figure.axes[half:]]
    for axes, color in zip(blocks, (style.BLUE, style.GREEN), strict=True):
        (seeds,) = [line for line in axes[0].lines if line.get_marker() == "."]
        assert seeds.get_color() == color
    squares = [block[0].containers for block in blocks]
    walks = [next(bar.lines[0].get_ydata()[0] for bar in bars if bar.lines[0].get_marker() == "s") for bars in squares]
    assert walks[1] == pytest.approx(walks[0] + 2.0)
    counts = [{text.get_text() for text in block[4].texts if text.get_text().isdigit()} for block in blocks]
    assert counts[1] == {"0"} != counts[0]


@pytest.mark.parametrize(("seeds", "layers"), [(1, 1), (10, 8)])
def test_nothing_overlaps(seeds, layers):
    figure = drawn(seeds=seeds, layers=layers)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == style.DOUBLE_WIDTH
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert not any(box.padded(-1).overlaps(other) for other in boxes[i + 1 :])
    counts = [text.get_window_extent() for text in figure.axes[4].texts if text.get_text().isdigit()]
    assert not any(box.overlaps(other) for i, box in enumerate(counts) for other in counts[i + 1 :])


def test_one_seed_has_no_dots_and_no_interval():
    query = drawn(seeds=1, layers=1).axes[0]
    assert not [line for line in query.lines if line.get_marker() == "."]
    (ours,) = (bar for bar in query.containers if bar.lines[0].get_color() == style.BLUE)
    assert not ours.lines[2]


def test_what_is_missing_is_named():
    tables, options = planted(seeds=1, layers=1)
    for quantity in (
        "trajectory_r90",
        "trajectory_r99",
        "trajectory_pc1_share",
        "trajectory_participation_ratio",
        "trajectory_r90_p_value_",
    ):
        fewer = {
            name: table[~table["quantity"].str.match(f"{quantity}($|iso|step|shuf|rand|orn)")]
            for name, table in tables.items()
        }
        with pytest.raises(ValueError, match=quantity):
            draw(fewer, options)
    with pytest.raises(ValueError, match="'experiments' is missing"):
        draw(tables, {"experiments": []})
    with pytest.raises(ValueError, match="experiment='other'"):
        draw(tables, options | {"experiments": ["marker_sums", "other"]})
    parts = {name: table[~table["part"].str.startswith("layers")] for name, table in tables.items()}
    with pytest.raises(ValueError, match="marker_sums hold no part of attention"):
        draw(parts, options)
