import numpy as np
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.curvature_localisation import GROUPS, draw

OPTIONS = {"experiments": ["copying"], "tasks": {}}


def test_masses_of_blocks_and_of_groups(curvature_tables):
    blocks, groups, *_ = draw(curvature_tables(), OPTIONS).axes
    means = [line for line in blocks.lines if line.get_zorder() == 3]
    assert len(means) == 7
    assert np.allclose(sum(line.get_ydata() for line in means), 1.0)
    assert len({line.get_color() for line in means}) == len(means)
    assert [text.get_text() for text in blocks.get_legend().get_texts()] == [
        "embedding",
        "layer 1 query-key",
        "layer 1 value-output",
        "layer 2 query-key",
        "layer 2 value-output",
        "norms",
        "readout",
    ]
    means = {line.get_color(): line.get_ydata() for line in groups.lines if line.get_zorder() == 3}
    assert means[GROUPS["positional"]][-1] == pytest.approx(0.52, abs=0.01)
    nulls = {line.get_color(): line.get_ydata() for line in groups.lines if line.get_zorder() == 1.6}
    assert [nulls[color][0] for color in GROUPS.values()] == pytest.approx([0.3, 0.4, 0.3])


def test_eigenvalues_before_at_and_after(curvature_tables):
    _, _, blocks, groups, *_ = draw(curvature_tables(), OPTIONS).axes
    for axes, lines in ((blocks, 7), (groups, 3)):
        assert axes.get_yscale() == "log"
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == ["untrained", "0.6 t", "t", "1.25 t", "end"]
        assert len(axes.containers) == lines
    line = next(c for c in groups.containers if c[0].get_color() == GROUPS["positional"])[0]
    values = line.get_ydata()
    assert values[3] / values[1] == pytest.approx(26, rel=0.1)  # .02 to .52


def test_increases_stand_beside_their_nulls(curvature_tables):
    *_, embedding, keys = draw(curvature_tables(), OPTIONS).axes
    assert embedding.get_xlabel().endswith("embedding") and keys.get_xlabel().endswith("layer 2 key")
    for axes in (embedding, keys):
        assert [label.get_text() for label in axes.get_xticklabels()] == ["top", "medium", "bottom", "bridge"]
        assert len(axes.containers) == 4 * 4
        boxes = [box for box in axes.collections if box.get_facecolor().size and box.get_alpha() == 0.35]
        assert len(boxes) == 4 * 4
    legend = embedding.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["0.6 t", "t", "1.25 t", "end", "null: random subspace"]


def test_a_moment_that_was_not_reached_is_said_in_words(curvature_tables):
    _, _, blocks, groups, embedding, keys = draw(curvature_tables(5, 3), OPTIONS).axes
    for axes in (blocks, groups):
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == ["untrained", "0.6 t", "t", "1.25 t\n(3 of 5)", "end"]
    entries = [text.get_text() for text in embedding.get_legend().get_texts()]
    assert entries == ["0.6 t", "t", "1.25 t: 3 of 5 seeds", "end", "null: random subspace"]
    for axes in (embedding, keys):
        dots = [line.get_ydata() for line in axes.lines if line.get_marker() == "."]
        assert sorted(int(np.isfinite(values).sum()) for values in dots) == [3] * 4 + [5] * 12
        assert len(axes.containers) == 4 * 3


def test_curvature_below_zero_has_a_place(curvature_tables):
    tables = {}
    for name, table in curvature_tables(2, 2).items():
        chosen = (table["part"] == "embedding-medium") & (table["null"] == "")
        tables[name] = table.copy()
        for column in {"value", "estimate", "low", "high"} & set(table.columns):
            tables[name].loc[chosen, column] *= -1
        tables[name][["low", "high"]] = np.sort(tables[name][["low", "high"]], axis=1)
    *_, embedding, keys = draw(tables, OPTIONS).axes
    assert (embedding.get_yscale(), keys.get_yscale()) == ("symlog", "log")
    assert embedding.get_ylim()[0] < 0


def test_no_moment_at_all(curvature_tables):
    """Only the grid was asked for."""
    tables = {
        name: table[~table["quantity"].str.endswith("_at_moment") & (table["quantity"] != "curvature_moment")]
        for name, table in curvature_tables().items()
    }
    _, _, blocks, _, embedding, _ = draw(tables, OPTIONS).axes
    assert [label.get_text() for label in blocks.get_xticklabels()] == ["untrained", "end"]
    assert [text.get_text() for text in embedding.get_legend().get_texts()] == ["end", "null: random subspace"]


@pytest.mark.parametrize("reached", [5, 0])
def test_legends_lie_above_their_panels(curvature_tables, reached):
    figure = draw(curvature_tables(5, reached), OPTIONS)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == style.DOUBLE_WIDTH
    for axes in figure.axes:
        if axes.get_legend():
            box = axes.get_legend().get_window_extent()
            assert box.y0 >= axes.get_window_extent().y1 - 0.5
            assert box.x1 <= figure.bbox.x1


def test_what_is_missing_is_named(curvature_tables):
    for quantity in (
        "top_eigenvector_mass",
        "block_largest_hessian_eigenvalue",
        "noise_loss_increase",
        "first_step_below_0.5",
    ):
        tables = {name: table[table["quantity"] != quantity] for name, table in curvature_tables(1, 1).items()}
        with pytest.raises(ValueError, match=quantity):
            draw(tables, OPTIONS)
