import numpy as np
import pytest

from learning_geometry.figures.progress_timeline import draw
from learning_geometry.tables.progress_measures import TIMELINE

OPTIONS = {"experiments": ["copying"], "tasks": {}}
TITLES = [
    "OOD error",
    "ID error",
    "OOD loss",
    "previous-token score",
    "induction score",
    "content share of logits",
    "composition z-score",
    "subspace match, r = 10",
    "token mismatch",
    "bridge in bottom, r = 10",
    "effective rank of embedding",
    "largest Hessian eigenvalue",
]


def means(axes):
    """The thick line of a panel."""
    (line,) = (line for line in axes.lines if line.get_zorder() == 3)
    return line.get_xydata()


def test_every_panel_shows_its_quantity(geometry_tables):
    tables = geometry_tables()
    figure = draw(tables, OPTIONS)
    assert [axes.get_title("left") for axes in figure.axes] == TITLES
    wanted = {
        "induction score": ("induction_score", "layers.1", 0),
        "subspace match, r = 10": ("subspace_match_rms_cosine", "layers.1", 10),
        "bridge in bottom, r = 10": ("bridge_energy_key", "embedding.bottom", 10),
        "effective rank of embedding": ("effective_rank", "embedding", 0),
    }
    runs = tables["runs"][tables["runs"]["null"] == ""]
    for axes, title in zip(figure.axes, TITLES, strict=True):
        assert len(axes.lines) - (title != "OOD loss") == 1 + 5 + 1  # mean, seeds, transition; a null but for the loss
        assert axes.get_xlim() == (0, 3500)
        if title in wanted:
            quantity, part, index = wanted[title]
            chosen = runs[(runs["quantity"] == quantity) & (runs["part"] == part) & (runs["index"] == index)]
            by_step = chosen.groupby("step")["value"].mean()
            np.testing.assert_allclose(means(axes), np.column_stack([by_step.index, by_step]), atol=1e-12)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "mean over seeds, n = 5",
        "null",
        "mean step of OOD error < 0.5",
    ]


def test_fractions_share_one_scale(geometry_tables):
    for axes, panel in zip(draw(geometry_tables(), OPTIONS).axes, TIMELINE, strict=True):
        assert (axes.get_ylim() == (0.0, 1.02)) == (panel.unit in ("fraction", "cosine"))


def test_the_transition_is_marked_only_if_every_seed_has_it(geometry_tables):
    for axes in draw(geometry_tables(), OPTIONS).axes:
        (mean,) = (line for line in axes.lines if line.get_linestyle() == "-.")
        assert list(mean.get_xdata()) == [2160, 2160]
    figure = draw(geometry_tables(crossing=4), OPTIONS)
    assert not [line for axes in figure.axes for line in axes.lines if line.get_linestyle() == "-."]
    assert len(figure.legends[0].get_texts()) == 2


def test_the_nearest_rank_stands_in(geometry_tables):
    tables = {name: table[table["index"] != 10] for name, table in geometry_tables(seeds=1, crossing=1).items()}
    titles = [axes.get_title("left") for axes in draw(tables, OPTIONS).axes]
    assert {"subspace match, r = 5", "bridge in bottom, r = 5"} <= set(titles)


@pytest.mark.parametrize("quantity", [panel.quantity for panel in TIMELINE])
def test_missing_quantity_is_named(geometry_tables, quantity):
    tables = {name: table[table["quantity"] != quantity] for name, table in geometry_tables(1, 1).items()}
    with pytest.raises(ValueError, match=quantity):
        draw(tables, OPTIONS)


def test_missing_part_and_experiment_are_named(geometry_tables):
    tables = geometry_tables(1, 1)
    with pytest.raises(ValueError, match="bridge_energy_key is not measured"):
        draw({name: table[table["part"] != "embedding.bottom"] for name, table in tables.items()}, OPTIONS)
    with pytest.raises(ValueError, match="'experiments' is missing"):
        draw(tables, {"experiments": []})


def test_nothing_overlaps(geometry_tables):
    figure = draw(geometry_tables(), OPTIONS)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert not any(box.padded(-1).overlaps(other) for other in boxes[i + 1 :])
