"""Dimensions of trajectories: against the SVD of the snapshots, and on planted walks, circles and decays."""

import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from learning_geometry.geometry import trajectories as geometry
from learning_geometry.measurements.common.neighbour_dimension import neighbour_dimensions
from learning_geometry.measurements.common.trajectory_nulls import RANDOM_NULLS, draw
from learning_geometry.measurements.runs import trajectory_geometry
from learning_geometry.measurements.runs.trajectory_geometry import cut, measure
from learning_geometry.training import checkpoints

from .trajectories import matrix_names, walk, write_run

SETTINGS = {"draws": 100, "windows": 0, "neighbours": False, "neighbour_draws": 5}
PARTS = [name.removesuffix(".weight") for name in matrix_names(2)]


def look(table, quantity, part=None, null="", index=0):
    chosen = table[(table["quantity"] == quantity) & (table["null"] == null) & (table["index"] == index)]
    return chosen if part is None else chosen[chosen["part"] == part].iloc[0]


def circle(generator, snapshots, *shape):
    """One turn in a random plane, where increments have one norm and all directions."""
    basis = np.linalg.qr(generator.standard_normal((int(np.prod(shape)), 2)))[0]
    angle = np.linspace(0, 2 * np.pi, snapshots)
    plane = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ basis.T
    return generator.standard_normal(shape) + plane.reshape(snapshots, *shape)


def every_matrix(make, *arguments, layers=2, seed=0):
    generator = np.random.default_rng(seed)
    return {name: make(generator, *arguments) for name in matrix_names(layers)}


@pytest.fixture(scope="module")
def walking(tmp_path_factory):
    """A run that walks at random, with one parameter that never moves and a checkpoint off the grid."""
    directory = tmp_path_factory.mktemp("walking")
    trajectories = every_matrix(walk, 41, 16, 20)
    trajectories["embedding.weight"] = walk(np.random.default_rng(1), 41, 9, 20)
    trajectories["positions.weight"] = np.ones((41, 3, 3))
    off_grid = {5: {name: 1e3 + snapshots[0] for name, snapshots in trajectories.items()}}
    run = write_run(directory, trajectories, off_grid=off_grid)
    return trajectories, measure(run, SETTINGS | {"windows": 5, "neighbours": True})


def test_lost_checkpoints_are_named_before_anything_is_measured(tmp_path):
    run = write_run(tmp_path, every_matrix(walk, 41, 4, 3, layers=1))
    training = {"steps": 400, "checkpoints": {"every": 10, "logarithmic": 0, "steps": []}}
    run = replace(run, settings=run.settings | {"training": training})
    assert run.uniform_steps() == list(range(0, 401, 10))
    for step in range(330, 401, 10):
        checkpoints.checkpoint_path(run.checkpoints, step).unlink()
    for part in (run, replace(run, settings=run.settings | {"training": training | {"steps": 200}})):
        with pytest.raises(ValueError, match=r"8 of 41 .* missing, first step-000330|12 .* not in the schedule"):
            measure(replace(part), SETTINGS)


def test_every_part_has_the_numbers_of_its_snapshots_svd(walking):
    trajectories, table = walking
    names = {f"layers.{layer}.attention": matrix_names(2)[4 * layer : 4 * layer + 4] for layer in (0, 1)}
    names |= {"model": list(trajectories)} | {name.removesuffix(".weight"): [name] for name in matrix_names(2)}
    for part, of_part in names.items():
        # float32, as stored
        snapshots = np.hstack([np.float32(trajectories[name]).reshape(41, -1) for name in of_part]).astype(float)
        shares = np.linalg.svd(snapshots - snapshots.mean(0), compute_uv=False) ** 2
        shares /= shares.sum()
        expected = {
            "trajectory_r90": 1 + np.sum(np.cumsum(shares) < 0.9),
            "trajectory_r99": 1 + np.sum(np.cumsum(shares) < 0.99),
            "trajectory_participation_ratio": 1 / np.sum(shares**2),
            "trajectory_pc1_share": shares[0],
        }
        for quantity, value in expected.items():
            row = look(table, quantity, part)
            assert row["value"] == pytest.approx(value, rel=1e-6) and row["step"] == 400
            assert row["unit"] == ("fraction" if quantity.endswith("share") else "dimensions")


def test_the_mean_over_matrices_is_the_mean_and_its_null_that_of_means(walking):
    _, table = walking
    for quantity in ("trajectory_r90", "trajectory_pc1_share", "trajectory_initial_direction_share"):
        row, of_matrices = look(table, quantity, "attention_matrices"), look(table, quantity)
        values = of_matrices[of_matrices["part"].isin(PARTS)]["value"]
        assert row["value"] == pytest.approx(values.mean()) and row["n"] == 8 == len(values)
    mean, single = (
        look(table, "trajectory_pc1_share", part, "isotropic_walk") for part in ("attention_matrices", PARTS[0])
    )
    # the mean of 8 independent matrices spreads about a third as much as one
    spread = (mean["high"] - mean["low"]) / (single["high"] - single["low"])
    assert 0.2 < spread < 0.55 and mean["n"] == 100


def test_a_random_walk_is_told_from_no_walk(walking):
    _, table = walking
    for null in RANDOM_NULLS:
        row = look(table, "trajectory_pc1_share", "attention_matrices", null)
        found = look(table, "trajectory_pc1_share", "attention_matrices")["value"]
        assert row["low"] - 0.01 < found < row["high"] + 0.01
        # one in twenty is below by chance, at most: r90 is a whole number
        assert look(table, f"trajectory_r90_below_{null}", "attention_matrices")["value"] <= 1 / 8
        p_values = look(table, f"trajectory_r90_p_value_{null}")
        assert sorted(p_values["part"]) == sorted(PARTS) and p_values["value"].mean() > 0.5
    # without weight decay nothing decays
    assert "weight_decay" not in set(table["null"])


def test_a_circle_is_below_the_walks_but_not_below_its_own_increments(tmp_path):
    """Shuffled or reversed, the steps of a planar curve stay in the plane: what these nulls test is order in time."""
    table = measure(write_run(tmp_path, every_matrix(circle, 41, 16, 20)), SETTINGS)
    assert (look(table, "trajectory_r90")["value"] == 2).sum() >= 8
    for null in ("isotropic_walk", "step_norm_walk"):
        assert look(table, f"trajectory_r90_below_{null}", "attention_matrices")["value"] == 1
        assert np.allclose(look(table, f"trajectory_r90_p_value_{null}")["value"], 1 / 101)
        assert abs(look(table, "trajectory_r90", "attention_matrices", null)["value"] - 6) < 0.3
    for null in ("shuffled_increments", "random_signs"):
        assert look(table, "trajectory_r90", "attention_matrices", null)["high"] <= 2
        assert look(table, f"trajectory_r90_below_{null}", "attention_matrices")["value"] == 0


def test_weight_decay_is_its_own_null_and_lies_along_the_start(tmp_path):
    generator = np.random.default_rng(2)
    rate = 1e-3
    decays = {
        name: generator.standard_normal((16, 20)) * (1 - rate) ** (10 * np.arange(41))[:, None, None]
        for name in matrix_names(2)
    }
    optimizer = {"learning_rate": 1e-2, "weight_decay": 0.1}
    table = measure(write_run(tmp_path / "decay", decays, optimizer=optimizer), SETTINGS)
    for part in (PARTS[3], "layers.1.attention", "model", "attention_matrices"):
        assert look(table, "trajectory_initial_direction_share", part)["value"] == pytest.approx(1.0, abs=1e-6)
        for null in ("", "weight_decay"):
            assert look(table, "trajectory_pc1_share", part, null)["value"] == pytest.approx(1.0, abs=1e-6)
            assert look(table, "trajectory_r99", part, null)["value"] == 1
    # decay together with a walk: the walk's first component is found below it
    both = {name: start + 0.3 * walk(generator, 41, 16, 20) for name, start in decays.items()}
    table = measure(write_run(tmp_path / "both", both, optimizer=optimizer), SETTINGS)
    for name, part in zip(matrix_names(2), PARTS, strict=True):
        snapshots = np.float32(both[name]).reshape(41, -1).astype(float)
        first, centred = snapshots[0] / np.linalg.norm(snapshots[0]), snapshots - snapshots.mean(0)
        share = np.sum((centred @ first) ** 2) / np.sum(centred**2)
        rest = np.linalg.svd(centred - np.outer(centred @ first, first), compute_uv=False) ** 2
        assert look(table, "trajectory_initial_direction_share", part)["value"] == pytest.approx(share)
        found = look(table, "trajectory_pc1_share_without_initial_direction", part)["value"]
        assert found == pytest.approx(rest[0] / rest.sum()) and abs(found - 0.61) < 0.1
        null = look(table, "trajectory_initial_direction_share", part, "isotropic_walk")
        assert share > 0.1 > null["value"] == 1 / 320


def test_collapse_shows_in_the_windows(tmp_path):
    """A walk in the first fifth, then a curve in a plane: dimension falls, against the null at the same length too."""
    generator = np.random.default_rng(3)
    trajectories = {}
    for name in matrix_names(1):
        snapshots = circle(generator, 41, 16, 20)
        snapshots[:9] = walk(generator, 9, 16, 20)
        trajectories[name] = snapshots
    table = measure(write_run(tmp_path, trajectories), SETTINGS | {"windows": 5})
    found = [look(table, "window_r90", "attention_matrices", index=i) for i in range(5)]
    assert [row["step"] for row in found] == [80, 160, 240, 320, 400]
    assert found[0]["value"] >= 4 and all(row["value"] <= 2 for row in found[2:])
    ratios = [look(table, "window_participation_ratio_over_null", "attention_matrices", index=i) for i in range(5)]
    assert abs(ratios[0]["value"] - 1) < 0.15 and all(row["value"] < 0.7 for row in ratios[2:])
    for index in range(5):
        null = look(table, "window_participation_ratio", PARTS[0], "step_norm_walk", index)
        value = look(table, "window_participation_ratio", PARTS[0], index=index)["value"]
        ratio = look(table, "window_participation_ratio_over_null", PARTS[0], index=index)
        assert ratio["value"] == pytest.approx(value / null["value"]) and ratio["unit"] == "1"
        # nine snapshots of a walk give 4 by themselves
        assert abs(look(table, "window_r90", PARTS[0], "isotropic_walk", index)["value"] - 4) < 0.7


def test_a_window_without_motion_is_left_out(tmp_path):
    trajectories = every_matrix(walk, 21, 4, 5, layers=1)
    for snapshots in trajectories.values():
        snapshots[10:] = snapshots[10]
    table = measure(write_run(tmp_path, trajectories), SETTINGS | {"windows": 2, "neighbours": True})
    assert set(table[table["quantity"] == "window_r90"]["index"]) == {0}
    # nor have neighbours a distance then
    assert not table["quantity"].str.endswith("dimension").any()


def test_neighbours_see_the_sampling_of_a_series(walking):
    """The nearest snapshots are the next ones, so walks with the run's step norms give the run's own number."""
    _, table = walking
    found = look(table, "two_nearest_neighbours_dimension", "model")["value"]
    for null in ("step_norm_walk", "random_signs"):
        row = look(table, "two_nearest_neighbours_dimension", "model", null)
        assert row["value"] == pytest.approx(found, rel=0.1) and row["n"] == 5
    assert found > 20
    assert len(look(table, "maximum_likelihood_dimension", "model", "ornstein_uhlenbeck")) > 0


def test_neighbour_estimates_are_those_of_the_points_and_find_a_known_dimension():
    from skdim.id import MLE, TwoNN

    generator = np.random.default_rng(4)
    points = np.zeros((400, 30))
    points[:, :3] = generator.uniform(size=(400, 3))
    rotation = np.linalg.qr(generator.standard_normal((30, 30)))[0]
    found = neighbour_dimensions((points @ points.T)[None])
    for name, estimator in {"two_nearest_neighbours": TwoNN(), "maximum_likelihood": MLE()}.items():
        (value,) = found[f"{name}_dimension"]
        assert value == pytest.approx(estimator.fit(points @ rotation).dimension_, rel=1e-3)
        assert abs(value - 3) < 0.5
    points[1] = points[0]
    assert neighbour_dimensions((points @ points.T)[None]) == {}


def test_a_trajectory_larger_than_the_block_is_read_in_its_memory(tmp_path, monkeypatch):
    """20 snapshots of 4 matrices of 300 x 300 take 28.8 MB."""
    run = write_run(tmp_path, every_matrix(walk, 20, 300, 300, layers=1))
    expected = measure(run, SETTINGS)
    monkeypatch.setattr(checkpoints, "BLOCK", 2**16)
    monkeypatch.setattr(geometry, "COLUMNS", 256)
    opened = []
    read = checkpoints.read_tensor
    monkeypatch.setattr(checkpoints, "read_tensor", lambda *key: opened.append(key[0:3]) or read(*key))
    tracemalloc.start()
    found = measure(run, SETTINGS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6
    # one pass: every row of every parameter of every checkpoint once
    rows = [len(range(*key[2].indices(300))) for key in opened]
    assert sum(rows) == 20 * 4 * 300 and len({str(key) for key in opened}) == len(opened)
    assert np.allclose(found["value"], expected["value"], rtol=1e-6)


def test_equal_runs_give_equal_tables_and_seeds_other_nulls(tmp_path):
    trajectories = every_matrix(walk, 9, 4, 5, layers=1)
    one, again = (measure(write_run(tmp_path / str(i), trajectories), SETTINGS) for i in range(2))
    assert one.equals(again)
    other = measure(write_run(tmp_path / "2", trajectories, seed=1), SETTINGS)
    assert not np.array_equal(one["value"], other["value"])


def test_what_cannot_be_measured_is_named(tmp_path):
    short = write_run(tmp_path / "short", every_matrix(walk, 3, 4, 5))
    with pytest.raises(ValueError, match="tiny, seed 0: 3 checkpoints on the uniform grid, but a trajectory takes 4"):
        measure(short, SETTINGS)
    few = write_run(tmp_path / "few", every_matrix(walk, 9, 4, 5))
    with pytest.raises(ValueError, match=r"trajectory_geometry.windows: 5 windows of 9 .* have 2 each, fewer than 4"):
        measure(few, SETTINGS | {"windows": 5})
    still = write_run(tmp_path / "still", {"readout.weight": np.ones((9, 4, 5))})
    with pytest.raises(ValueError, match="tiny, seed 0: of readout none moves"):
        measure(still, SETTINGS)
    assert cut(41, 5)[-1] == slice(32, 41) and cut(41, 0) == []
    products = geometry.inner_products([walk(np.random.default_rng(0), 4, 2, 3).reshape(4, -1)])
    with pytest.raises(ValueError, match=r"null: 'brownian' is not known; use one of \('isotropic_walk', 'step_norm"):
        draw("brownian", products, 10, np.random.default_rng(0))


def test_a_layer_called_like_the_model_is_beside_it(tmp_path):
    generator = np.random.default_rng(0)
    names = ["model.a", "model.a.weight", "model.b.weight", "readout.weight"]
    table = measure(write_run(tmp_path, {name: walk(generator, 9, 4, 5) for name in names}), SETTINGS)
    r90 = table[(table["quantity"] == "trajectory_r90") & (table["null"] == "")]
    parts = ["matrices", "model", "model (layer)", "model.a", "model.a (weight)", "model.b", "readout"]
    assert sorted(r90["part"]) == parts


def test_importing_it_takes_neither_torch_nor_the_neighbours(tmp_path):
    script = f"import sys, {trajectory_geometry.__name__}; print({{'torch', 'skdim'}} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "set()"
