import numpy as np
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.transition_timeline import draw, plateau

# Per panel of the full figure: (a) 3 curves with their seeds 5 + 5 + 3, plateau, ticks, transition;
# (b) 2 curves with 5 seeds each, 2 nulls, transition; (c) 1 curve with 5 seeds, null, transition
LINES = [3 + 13 + 3, 2 + 10 + 2 + 1, 1 + 5 + 1 + 1]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def without(tables, quantity):
    return {name: table[table["quantity"] != quantity] for name, table in tables.items()}


def test_plateau_of_the_published_task():
    assert plateau({"vocabulary": 64, "zipf_offset": 2.7}) == pytest.approx(1 - 0.0889, abs=5e-5)


def test_full_figure(copying_tables, timeline_options):
    figure = draw(copying_tables(), timeline_options)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == style.COLUMN_WIDTH
    errors, heads, sharpness = figure.axes
    assert [len(axes.lines) for axes in figure.axes] == LINES
    assert [len(axes.collections) for axes in figure.axes] == [
        3,
        2,
        1 + 1,
    ]  # bands; uniform attention is exact
    labels = ["error (fraction)", "attention (fraction)", "eigenvalue (nats)"]
    assert [axes.get_ylabel() for axes in figure.axes] == labels
    assert sharpness.get_xlabel() == "training step"
    assert errors.get_xlim() == heads.get_xlim() == sharpness.get_xlim() == (0, 3500)
    assert legend(errors) == [
        "out of distribution, n = 5",
        "in distribution, n = 5",
        "copying one layer, OOD, n = 3",
        "most frequent token only, 0.911",
        "out of distribution below 0.5: 5 of 5 seeds",
    ]
    assert legend(heads)[:2] == ["previous token, layer 1, n = 5", "induction, layer 2, n = 5"]
    assert legend(sharpness) == ["largest Hessian eigenvalue, in distribution, n = 5", "null: untrained"]


def test_curves_are_the_means_of_the_running_errors(copying_tables, timeline_options):
    tables = copying_tables()
    runs = tables["runs"]
    chosen = runs[
        (runs["quantity"] == "running_error")
        & (runs["data"] == "out_of_distribution")
        & (runs["experiment"] == "copying")
    ]
    means = chosen.groupby("step")["value"].mean()
    curves = [line.get_xydata() for line in draw(tables, timeline_options).axes[0].lines]
    assert any(len(xy) == len(means) and np.allclose(xy[:, 1], means, atol=1e-12) for xy in curves)


def test_transition_marks(copying_tables, timeline_options):
    errors, heads, sharpness = draw(copying_tables(), timeline_options).axes
    (ticks,) = (line for line in errors.lines if line.get_marker() == "|")
    assert sorted(ticks.get_xdata()) == [1800, 2000, 2100, 2300, 2600]
    for axes in (errors, heads, sharpness):
        (mean,) = (line for line in axes.lines if line.get_linestyle() == "-.")
        assert list(mean.get_xdata()) == [2160, 2160]


@pytest.mark.parametrize("crossing", [0, 3])
def test_censored_seeds_have_no_tick_and_no_mean_step(copying_tables, timeline_options, crossing):
    errors, heads, _ = draw(copying_tables(crossing=crossing), timeline_options).axes
    assert legend(errors)[-1] == f"out of distribution below 0.5: {crossing} of 5 seeds"
    (ticks,) = (line for line in errors.lines if line.get_marker() == "|")
    assert len(ticks.get_xdata()) == crossing
    assert not [line for line in heads.lines if line.get_linestyle() == "-."]


def test_no_control(copying_tables, timeline_options):
    options = timeline_options | {"experiments": ["copying"]}
    errors = draw(copying_tables(control=0), options).axes[0]
    assert len(legend(errors)) == 4
    assert len(errors.collections) == 2


def test_one_seed_has_no_bands_and_no_thin_lines(copying_tables, timeline_options):
    figure = draw(copying_tables(seeds=1, crossing=1, control=1), timeline_options)
    assert [len(axes.collections) for axes in figure.axes] == [0, 0, 1]  # the band of the null alone
    assert [len(axes.lines) for axes in figure.axes] == [6, 5, 3]
    assert legend(figure.axes[2])[0] == "largest Hessian eigenvalue, in distribution, n = 1"


def test_errors_of_checkpoints_stand_in_for_running_errors(copying_tables, timeline_options):
    tables = without(copying_tables(), "running_error")
    errors = draw(tables, timeline_options).axes[0]
    assert len(errors.lines) == LINES[0]
    assert len(errors.lines[-4].get_xdata()) <= 8  # every 500 steps


def test_every_head_of_the_layer_is_drawn(copying_tables, timeline_options):
    tables = dict(copying_tables(seeds=2, crossing=2, control=0))
    for name, table in tables.items():
        second = table[table["part"] == "layers.1"].assign(index=1)
        tables[name] = type(table)(np.concatenate([table, second]), columns=table.columns).astype(table.dtypes)
    heads = draw(tables, timeline_options | {"experiments": ["copying"]}).axes[1]
    assert "induction, layer 2, head 2, n = 2" in legend(heads)
    assert "previous token, layer 1, n = 2" in legend(heads)


@pytest.mark.parametrize(
    "quantity",
    ["previous_token_score", "induction_score", "largest_hessian_eigenvalue", "first_step_below_0.5"],
)
def test_missing_quantity_is_named(copying_tables, timeline_options, quantity):
    with pytest.raises(ValueError, match=quantity):
        draw(without(copying_tables(), quantity), timeline_options)


def test_scores_of_heads_belong_to_layers(copying_tables, timeline_options):
    tables = {
        name: table.assign(part=table["part"].replace("layers.1", "model")) for name, table in copying_tables().items()
    }
    with pytest.raises(ValueError, match=r"head scores belong to 'layers\.<number>', got part 'model'"):
        draw(tables, timeline_options)


def test_missing_errors_experiment_and_options_are_named(copying_tables, timeline_options):
    tables = copying_tables(control=0)
    with pytest.raises(ValueError, match="'error'"):
        draw(without(without(tables, "running_error"), "error"), timeline_options | {"experiments": ["copying"]})
    with pytest.raises(ValueError, match="copying_one_layer"):
        draw(tables, timeline_options)
    with pytest.raises(ValueError, match="'tasks' is missing"):
        draw(tables, {"experiments": ["copying"]})


def test_drawing_twice_saves_the_same_bytes(copying_tables, timeline_options, tmp_path):
    tables = copying_tables(seeds=2, crossing=1, control=2)
    for name in ("first", "second"):
        style.save(draw(tables, timeline_options), tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
    for suffix in ("pdf", "png"):
        assert (tmp_path / f"first.{suffix}").read_bytes() == (tmp_path / f"second.{suffix}").read_bytes()


def test_legends_lie_above_the_data_and_inside_the_figure(copying_tables, timeline_options):
    figure = draw(copying_tables(), timeline_options)
    figure.draw_without_rendering()
    for axes in figure.axes:
        box = axes.get_legend().get_window_extent()
        assert box.y0 >= axes.get_window_extent().y1 - 0.5
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        for other in figure.axes:
            assert not box.overlaps(other.get_window_extent().padded(-1))
