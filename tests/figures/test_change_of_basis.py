import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch

from learning_geometry.figures import change_of_basis as drawing
from learning_geometry.figures import style
from learning_geometry.figures.change_of_basis import draw, points_of
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.self_contained import change_of_basis
from learning_geometry.tables.summary import summarize

OPTIONS = {"experiments": ["model"]}


@pytest.fixture(scope="module")
def tables():
    settings = {"layers": 2, "points": 30, "steps": 200, "null_draws": 5}
    runs = change_of_basis.measure(LanguageRun("model", {}, {}, {}), settings)
    return {"summary": summarize([runs]), "runs": runs}


@pytest.fixture(scope="module")
def figure(tables):
    return draw(tables, OPTIONS)


def marked(axes, color, alpha=1.0):
    return [
        line.get_xydata()
        for line in axes.lines
        if line.get_marker() == "o" and line.get_color() == color and line.get_alpha() == alpha
    ]


def test_names_are_those_of_the_measurement():
    for name in ("GRID", "INNER", "OUTER", "READ", "WRITTEN", "READOUT", "DOTS"):
        assert getattr(drawing, name) == getattr(change_of_basis, name)


def test_classes_and_grid_in_the_stream_and_in_each_basis(tables, figure):
    summary = tables["summary"]
    for column, part in enumerate(("layers.0.pre", "layers.1.pre", "layers.1.post")):
        axes = figure.axes[column]
        for data, color in (("inner", style.VERMILION), ("outer", style.BLUE)):
            (found,) = marked(axes, color)
            np.testing.assert_array_equal(found, points_of(summary, part, data))
        grid = np.concatenate([line.get_xydata() for line in axes.lines if line.get_color() == style.NULL_GREY])
        np.testing.assert_array_equal(grid, points_of(summary, part, "grid"))
    for layer in range(2):
        (after,) = marked(figure.axes[3 + layer], style.BLUE)
        np.testing.assert_array_equal(after, points_of(summary, f"layers.{layer}.relu", "outer"))
        (before,) = marked(figure.axes[3 + layer], style.BLUE, 0.22)
        np.testing.assert_array_equal(before, points_of(summary, f"layers.{layer}.basis", "outer"))
    assert not figure.axes[5].axison


def arrows(axes, color):
    found = []
    for text in axes.texts:
        patch = getattr(text, "arrow_patch", None)
        if isinstance(patch, FancyArrowPatch) and patch.get_edgecolor()[:3] == pytest.approx(
            tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        ):
            found.append((np.array(text.xyann), np.array(text.xy)))
    return found


def test_the_basis_read_and_the_vectors_written(tables, figure):
    summary = tables["summary"]
    origin, *ends = points_of(summary, "layers.1.pre", "read_basis")
    found = arrows(figure.axes[1], style.BLACK)
    np.testing.assert_allclose(found, [(origin, end) for end in ends])
    written = points_of(summary, "layers.0.post", "written_basis")
    np.testing.assert_allclose(arrows(figure.axes[1], style.ORANGE), [(np.zeros(2), end) for end in written])
    assert not arrows(figure.axes[0], style.ORANGE) and not arrows(figure.axes[2], style.BLACK)
    assert len(arrows(figure.axes[3], style.BLACK)) == 2


def test_what_relu_zeroes_is_shaded(tables, figure):
    summary = tables["summary"]
    for layer in range(2):
        for axes, part in ((figure.axes[layer], "pre"), (figure.axes[3 + layer], "basis")):
            grid, basis = (points_of(summary, f"layers.{layer}.{each}", "grid") for each in (part, "basis"))
            assert len(axes.patches) == 2
            for axis, patch in enumerate(axes.patches):
                clear = np.abs(basis[:, axis]) > 1e-6
                inside = patch.get_path().contains_points(grid)
                np.testing.assert_array_equal(inside[clear], basis[clear, axis] < 0)


def test_the_separability_is_below_each_panel_of_the_stream(tables, figure):
    rows = style.select(tables["summary"], quantity="class_separability", part="layers.1.post", null="")
    assert f"separability {rows['estimate'].iloc[0]:.2f}" in figure.axes[2].get_xlabel()
    assert len([line for line in figure.axes[2].lines if line.get_color() == style.GREEN]) == 1


def test_nothing_overlaps(figure):
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes if axes.axison] + [figure.legends[0].get_window_extent()]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :])
    assert all(box.x1 <= figure.bbox.x1 and box.x0 >= 0 for box in boxes)


def test_what_is_missing_is_named(tables):
    summary = tables["summary"]
    with pytest.raises(ValueError, match="grid"):
        draw(tables | {"summary": summary[summary["data"] != "grid"]}, OPTIONS)
    with pytest.raises(ValueError, match="change_of_basis: the option 'experiments'"):
        draw(tables, {})
