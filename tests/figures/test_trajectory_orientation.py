import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.trajectory_dimension import ROLES
from learning_geometry.figures.trajectory_orientation import draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

NAMES = ("marker_sums", "marker_sums_shared_initialisation")
RANKS = (1, 2, 3, 4, 5)


def chance(rank):
    return np.sqrt(rank / 4096)


def rows_of(seed, layers, ranks, shared):
    """Random subspaces from different initialisations; from a shared one ten times as near, and most in the output."""
    rows = []
    matrices = [f"layers.{layer}.attention.{role}" for layer in range(layers) for role in ROLES]
    for part in [*matrices, "attention_matrices"]:
        for rank in ranks:
            nearer = 1 + shared * (14 if part.endswith("output") else 9)
            row = {"step": 4000, "part": part, "index": rank, "unit": "fraction", "n": 4}
            for quantity, scale in (("orientation_rms_cosine", 1.0), ("orientation_largest_cosine", 1.5)):
                here = row | {"quantity": quantity}
                rows.append(here | {"value": scale * nearer * chance(rank) * (1 + 0.04 * (seed % 3 - 1))})
                drawn = {"null": "random_subspaces", "low": 0.9 * chance(rank), "high": 1.1 * chance(rank), "n": 1000}
                rows.append(here | drawn | {"value": chance(rank)})
    rows.append({"step": 4000, "quantity": "trajectory_r90_distance_from_other_seeds", "value": 0.4})
    return rows


def planted(seeds=5, layers=3, names=NAMES, ranks=RANKS):
    made = [tidy(rows_of(seed, layers, ranks, "shared" in name), name, seed) for name in names for seed in range(seeds)]
    tables = {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}
    return tables, {"experiments": list(names)}


def means(axes):
    (bar,) = (bar for bar in axes.containers if type(bar).__name__ == "ErrorbarContainer")
    return bar.lines[0].get_xydata().astype(float), bar.lines[2]


def dots(axes):
    return [line for line in axes.lines if line.get_marker() == "."]


def boxes(axes):
    return [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in axes.patches]


def test_a_pair_of_panels_for_each_experiment_on_one_scale():
    figure = draw(*planted())
    assert figure.get_figwidth() == style.DOUBLE_WIDTH
    over_k, shared_over_k, *_ = figure.axes
    assert over_k.get_title() == "marker sums, n = 5"
    assert shared_over_k.get_title() == "marker sums shared initialisation, n = 5"
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    for axes, factor in ((over_k, 1), (shared_over_k, 10)):
        points, _ = means(axes)
        assert points[:, 0].tolist() == list(RANKS)
        # of seeds 0 to 4 two are 4 % lower and two in the middle
        np.testing.assert_allclose(points[:, 1], factor * 0.992 * chance(np.array(RANKS)))
        np.testing.assert_allclose(boxes(axes), [(0.9 * chance(k), 1.1 * chance(k)) for k in RANKS])
        assert len(dots(axes)[0].get_xdata()) == 5 * len(RANKS)


def test_every_matrix_at_three_directions():
    *_, matrices, shared = draw(*planted()).axes
    for axes in (matrices, shared):
        points, _ = means(axes)
        assert len(points) == 12 == len(boxes(axes))
        assert axes.get_xlabel().endswith("k = 3")
        assert [label.get_text() for label in axes.get_xticklabels()] == list(ROLES)
    points = means(shared)[0]
    points = points[points[:, 0].argsort()]
    np.testing.assert_allclose(points[:, 1], 0.992 * chance(3) * np.repeat([10, 10, 10, 15], 3))
    # a gap between the roles
    assert points[:, 0].tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14]


def test_the_nearest_number_of_directions_is_shown():
    assert draw(*planted(ranks=(1, 4))).axes[-1].get_xlabel().endswith("k = 4")


@pytest.mark.parametrize(("seeds", "bars"), [(2, False), (3, True)])
def test_two_seeds_are_one_pair_and_have_no_interval(seeds, bars):
    assert bool(means(draw(*planted(seeds)).axes[0])[1]) == bars


@pytest.mark.parametrize(
    ("seeds", "layers", "names"),
    [
        (5, 3, NAMES),
        (5, 8, NAMES),
        (2, 1, NAMES[:1]),
        (3, 2, (*NAMES, "a_third_experiment_with_a_name_of_some_length")),
    ],
)
def test_nothing_overlaps(seeds, layers, names):
    figure = draw(*planted(seeds, layers, names))
    assert len(figure.axes) == 2 * len(names)
    figure.draw_without_rendering()
    found = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    for i, box in enumerate(found):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert not any(box.padded(-1).overlaps(other) for other in found[i + 1 :])


def test_what_is_missing_is_named():
    tables, options = planted(seeds=2)
    fewer = {name: table[table["quantity"] != "orientation_rms_cosine"] for name, table in tables.items()}
    with pytest.raises(ValueError, match="orientation_rms_cosine"):
        draw(fewer, options)
    with pytest.raises(ValueError, match="'experiments' is missing"):
        draw(tables, {"experiments": []})
    with pytest.raises(ValueError, match="experiment='other'"):
        draw(tables, {"experiments": ["marker_sums", "other"]})
    for part, message in (("attention_matrices", "part='attention_matrices'"), ("layers", "no part of attention")):
        fewer = {name: table[~table["part"].str.startswith(part)] for name, table in tables.items()}
        with pytest.raises(ValueError, match=message):
            draw(fewer, options)
