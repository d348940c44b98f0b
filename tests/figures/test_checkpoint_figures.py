"""The figures of checkpoints of other programs."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from torch import from_numpy

from learning_geometry.figures import matrix_spectra, series_audit, style
from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.runs import matrix_spectra as spectra
from learning_geometry.measurements.runs import series_audit as audit
from learning_geometry.tables.summary import summarize
from learning_geometry.training.checkpoints import finish_checkpoints, write_checkpoint

OPTIONS = {"experiments": ["mine"]}


@cache
def planted():
    """Three seeds of walks, in the second of which two checkpoints were exchanged."""
    measured = []
    for seed in range(3):
        generator = np.random.default_rng(seed)
        points = np.cumsum(generator.normal(size=(12, 8, 6)), axis=0)
        if seed == 1:
            points[[3, 8]] = points[[8, 3]]
        with TemporaryDirectory() as folder:
            for step, point in enumerate(points.astype(np.float32)):
                arrays = {"tok.weight": from_numpy(point), "out.weight": from_numpy(point[:4] + 1)}
                write_checkpoint(Path(folder) / "working", step, arrays, {"uniform": True})
            finish_checkpoints(Path(folder) / "working", Path(folder) / "imported", range(12), {})
            run = Run("mine", seed, {"source": {}}, Path(folder) / "imported", None, Path(folder) / "metrics.parquet")
            settings = {"matrices": None, "every": 1, "values": 2, "null_draws": 40}
            measured += [audit.measure(run, {}), spectra.measure(run, settings)]
    return {"summary": summarize(measured), "runs": pd.concat(measured, ignore_index=True)}


@pytest.fixture(scope="module")
def tables():
    return planted()


def test_findings_stand_in_the_row_of_their_kind_at_their_steps(tables):
    figure = series_audit.draw(tables, OPTIONS)
    findings = figure.axes[2]
    row = list(series_audit.KINDS).index("out_of_place")
    assert findings.get_yticklabels()[row].get_text() == "out of place: 2"
    marked = [line for line in findings.lines if line.get_marker() == "o" and len(line.get_xdata())]
    (line,) = [line for line in marked if abs(line.get_ydata()[0] - row) < 0.5]
    assert line.get_xdata().tolist() == [3, 8]
    assert line.get_color() == style.colors(3)[1]


def test_every_seed_has_its_course_and_paths_of_known_shape_stand_beside_it(tables):
    figure = series_audit.draw(tables, OPTIONS)
    for axes, count in zip(figure.axes[:2], (11, 10), strict=True):
        lines = [line for line in axes.lines if len(line.get_xdata()) == count]
        assert len(lines) == 3
    low, high = figure.axes[1].get_ylim()
    assert low < 0.5 and high > 2.0
    figure.draw_without_rendering()


def test_spectra_are_drawn_for_each_matrix_and_their_mean_beside_the_null(tables):
    figure = matrix_spectra.draw(tables, OPTIONS)
    axes = figure.axes[0]
    assert (
        len([line for line in axes.lines if line.get_color() == style.NULL_GREY and line.get_linestyle() == "-"]) == 2
    )
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["each matrix, mean over seeds", "mean over matrices, n = 3", "null: Gaussian matrix"]
    (mean,) = [line for line in axes.lines if line.get_zorder() == 3]
    rows = tables["summary"]
    rows = rows[(rows["quantity"] == "matrix_stable_rank") & (rows["part"] == "matrices") & (rows["null"] == "")]
    np.testing.assert_allclose(mean.get_ydata(), rows.sort_values("step")["estimate"])


def test_what_was_not_measured_is_named(tables):
    without = {name: table[~table["quantity"].str.startswith("matrix_")] for name, table in tables.items()}
    with pytest.raises(ValueError, match="matrix_spectra"):
        matrix_spectra.draw(without, OPTIONS)


def test_a_figure_says_below_itself_of_whom_the_map_was_not_checked(tables):
    with style.applied():
        figure = matrix_spectra.draw(tables, OPTIONS)
        before = figure.get_size_inches().copy()
        style.say_unchecked(figure, [])
        assert not figure.texts and (figure.get_size_inches() == before).all()
        style.say_unchecked(figure, ["mine"])
        figure.draw_without_rendering()
    (text,) = figure.texts
    assert text.get_text().startswith("unchecked: the parameters of mine were put in place by names and shapes alone")
    top = text.get_window_extent().y1
    for axes in figure.axes:
        assert axes.get_tightbbox().y0 >= top
