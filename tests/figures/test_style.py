import os
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from learning_geometry.discovery import module_files
from learning_geometry.figures import style
from tests.own import is_own


def summary_rows(estimate, low=np.nan, high=np.nan, **columns):
    rows = {"experiment": "copying", "quantity": "loss", "step": range(len(estimate)), "n": 5, "null": ""}
    return pd.DataFrame(rows | {"estimate": estimate, "low": low, "high": high} | columns)


@pytest.fixture
def axes():
    with style.applied():
        yield Figure(figsize=(style.COLUMN_WIDTH, 2.0), layout="constrained").subplots()


def test_nothing_global_changes_and_users_settings_do_not_matter():
    with matplotlib.rc_context({"font.size": 23, "lines.linewidth": 7}):
        before = dict(matplotlib.rcParams)
        with style.applied():
            assert matplotlib.rcParams["font.size"] == style.RC["font.size"]
            assert matplotlib.rcParams["lines.linewidth"] == style.RC["lines.linewidth"]
        assert dict(matplotlib.rcParams) == before


def test_no_text_is_smaller_than_seven_points():
    sizes = [value for key, value in style.RC.items() if key.endswith(("labelsize", "fontsize", "font.size"))]
    assert len(sizes) >= 5
    assert min(sizes) >= 7


def test_saves_the_same_bytes_twice_and_nothing_else(axes, tmp_path):
    axes.plot([0, 1], [2, 3], label="α")
    style.legend_above(axes, {"a line": axes.lines[0]})
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        style.save(axes.figure, folder / "f.pdf", str(folder / "f.png"))
        assert sorted(path.name for path in folder.iterdir()) == ["f.pdf", "f.png"]
    pdf, png = ((first / name).read_bytes() for name in ("f.pdf", "f.png"))
    assert pdf == (second / "f.pdf").read_bytes()
    assert png == (second / "f.png").read_bytes()
    assert b"/CreationDate" not in pdf
    assert b"/Type3" not in pdf  # text stays text
    width = int.from_bytes(png[16:20], "big")
    assert width == round(style.COLUMN_WIDTH * style.PNG_DPI)


def test_failed_save_leaves_the_old_file(axes, tmp_path, monkeypatch):
    path = tmp_path / "f.pdf"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(axes.figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        style.save(axes.figure, path, tmp_path / "f.png")
    assert [p.name for p in tmp_path.iterdir()] == ["f.pdf"]
    assert path.read_bytes() == b"old"


def test_select_names_what_is_missing():
    table = summary_rows([1.0, 2.0])
    assert style.select(table, quantity="loss", step=1)["estimate"].tolist() == [2.0]
    with pytest.raises(ValueError, match=r"experiment='copying', quantity='error'.*takes the values \['loss'\]"):
        style.select(table, experiment="copying", quantity="error")


def test_a_line_of_no_points_has_no_gaps():
    assert style.with_gaps(summary_rows([]), "step").empty
    assert style.with_gaps(summary_rows([]), "step", places=[1.0, 2.0]).empty


def test_seeds_text():
    assert style.seeds_text(summary_rows([1.0, 2.0])) == "n = 5"
    assert style.seeds_text(summary_rows([1.0, 2.0], n=[3, 5])) == "n = 3 to 5"


def test_mean_line_sorts_and_has_a_band_only_with_an_interval(axes):
    rows = summary_rows([1.0, 2.0, 3.0], low=[0.0, 1.0, 2.0], high=[2.0, 3.0, 4.0]).iloc[::-1]
    line, band = style.mean_line(axes, rows, "step", style.BLUE)
    assert line.get_xydata().tolist() == [[0, 1], [1, 2], [2, 3]]
    vertices = band.get_paths()[0].vertices
    assert (vertices[:, 1].min(), vertices[:, 1].max()) == (0, 4)
    assert len(style.mean_line(axes, summary_rows([1.0, 2.0]), "step", style.BLUE)) == 1
    with pytest.raises(ValueError, match="loss of copying: every estimate is NaN"):
        style.mean_line(axes, summary_rows([np.nan, np.nan]), "step", style.BLUE)


def test_null_known_at_one_step_spans_the_axis(axes):
    axes.set_xlim(0, 1000)
    line, band = style.null_band(axes, summary_rows([2.0], [1.0], [3.0], null="random"), "step")
    ends = line.get_transform().transform(line.get_xydata())
    np.testing.assert_allclose(axes.transData.inverted().transform(ends), [[0, 2], [1000, 2]], atol=1e-9)
    assert set(band.get_paths()[0].vertices[:, 1]) == {1.0, 3.0}


def test_exact_null_is_a_line_alone(axes):
    assert len(style.null_band(axes, summary_rows([2.0, 2.0], 2.0, 2.0, null="uniform"), "step")) == 1


def test_logarithmic_steps_have_room_for_step_zero(axes):
    steps = [0, 1, 3, 10, 100, 3500]
    axes.plot(steps, steps)
    style.step_axis(axes, steps, "log")
    axes.figure.draw_without_rendering()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "10", "$10^{2}$", "$10^{3}$"]
    assert axes.get_xlim() == (0, 3500)
    assert axes.get_xlabel() == "training step"
    places = axes.transData.transform([[step, 0] for step in steps])[:, 0]
    assert (np.diff(places) > 5).all()  # in points of 1/100 inch: no two steps coincide


def test_linear_steps_and_unknown_scale(axes):
    style.step_axis(axes, [200, 0, 100])
    assert axes.get_xlim() == (0, 200)
    assert axes.get_xscale() == "linear"
    with pytest.raises(ValueError, match="'cubic' is no scale"):
        style.step_axis(axes, [0, 1], "cubic")


def test_empty_legend_is_refused(axes):
    with pytest.raises(ValueError, match="no entries"):
        style.legend_above(axes, {})


def test_figures_import_neither_torch_nor_pyplot():
    names = [path.stem for path in module_files("figures") if is_own(path)]
    code = f"""
import sys
from importlib import import_module
for name in {names}:
    import_module(f"learning_geometry.figures.{{name}}")
assert "learning_geometry.figures.progress_timeline" in sys.modules
print(sorted({{"torch", "matplotlib.pyplot"}} & set(sys.modules)))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
