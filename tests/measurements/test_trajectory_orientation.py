"""Orientation of trajectories across seeds, against scipy's subspace angles and on planted subspaces."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from learning_geometry.geometry.nulls import haar_subspaces
from learning_geometry.measurements.runs import trajectory_orientation
from learning_geometry.measurements.runs.trajectory_orientation import NEEDS, SETTINGS, measure
from learning_geometry.tables.tidy import check_other_seeds

from .trajectories import matrix_names, walk, write_run

NAMES = matrix_names(1)
QUERY = "layers.0.attention.query"
DEFAULTS = {"ranks": [1, 3], "null_draws": 200}


def planted(generator, basis, snapshots=21, noise=0.0):
    """Snapshots that move along the columns of a basis (entries, 3), the first most."""
    coordinates = np.linalg.qr(generator.standard_normal((snapshots, 3)))[0] * np.array([4.0, 2.0, 1.0])
    moves = coordinates @ basis.T + noise * generator.standard_normal((snapshots, len(basis)))
    return (5.0 + moves).reshape(snapshots, 6, 5)


def seeds(directory, trajectories):
    """Runs of one experiment, the first given the others."""
    runs = [write_run(directory / str(seed), each, seed=seed) for seed, each in enumerate(trajectories)]
    return write_run(directory / "0", trajectories[0], seed=0, others=runs[1:])


def value(table, quantity, part=QUERY, index=3, null="", column="value"):
    chosen = table[(table["quantity"] == quantity) & (table["part"] == part) & (table["index"] == index)]
    (found,) = chosen[chosen["null"] == null][column]
    return found


def test_cosines_are_those_of_scipys_angles(tmp_path):
    generator = np.random.default_rng(0)
    trajectories = [{name: walk(generator, 21, 6, 5) for name in NAMES} for _ in range(3)]
    table = measure(seeds(tmp_path, trajectories), DEFAULTS)
    check_other_seeds(table, NEEDS["other_seeds"], "trajectory_orientation")
    assert (table["other_seeds"] == np.where(table["null"] == "", "all", "none")).all()
    expected = {}
    for name in NAMES:
        bases = []
        for each in trajectories:
            snapshots = np.float32(each[name]).reshape(21, -1).astype(float)
            bases.append(np.linalg.svd(snapshots - snapshots.mean(0))[2].T)
        for rank in (1, 3):
            cosines = [np.cos(subspace_angles(bases[0][:, :rank], other[:, :rank])) for other in bases[1:]]
            part = name.removesuffix(".weight")
            rms, largest = np.mean([np.sqrt(np.mean(c**2)) for c in cosines]), np.mean([c.max() for c in cosines])
            expected[part, rank] = rms, largest
            assert value(table, "orientation_rms_cosine", part, rank) == pytest.approx(rms, abs=1e-6)
            assert value(table, "orientation_largest_cosine", part, rank) == pytest.approx(largest, abs=1e-6)
    for rank in (1, 3):
        means = np.mean([both for (_, k), both in expected.items() if k == rank], axis=0)
        for quantity, mean in zip(trajectory_orientation.COSINES, means, strict=True):
            assert value(table, quantity, "attention_matrices", rank) == pytest.approx(mean, abs=1e-6)
    assert set(table["step"]) == {200} and value(table, "orientation_rms_cosine", column="n") == 2


def test_shared_directions_are_found_and_random_ones_lie_in_the_null(tmp_path):
    generator = np.random.default_rng(1)
    shared = haar_subspaces(30, 3, 1, generator)[0]
    same = [{name: planted(generator, shared, noise=0.01) for name in NAMES} for _ in range(3)]
    table = measure(seeds(tmp_path / "same", same), DEFAULTS)
    assert (
        value(table, "orientation_rms_cosine")
        > 0.97
        > value(table, "orientation_rms_cosine", null="random_subspaces", column="high")
    )
    other = [{name: planted(generator, haar_subspaces(30, 3, 1, generator)[0]) for name in NAMES} for _ in range(3)]
    table = measure(seeds(tmp_path / "other", other), DEFAULTS)
    for quantity in trajectory_orientation.COSINES:
        low, high = (
            value(table, quantity, "attention_matrices", 3, "random_subspaces", column) for column in ("low", "high")
        )
        assert low - 0.05 < value(table, quantity, "attention_matrices") < high + 0.05


def test_the_null_is_the_law_of_means_over_random_subspaces(tmp_path):
    generator = np.random.default_rng(2)
    trajectories = [{name: walk(generator, 9, 6, 5) for name in NAMES} for _ in range(3)]
    table = measure(seeds(tmp_path, trajectories), DEFAULTS | {"null_draws": 3000})
    corners = haar_subspaces(30, 3, 6000, generator)[:, :3, :3]
    cosines = np.linalg.svd(corners, compute_uv=False).reshape(3000, 2, 3)
    expected = {
        "orientation_rms_cosine": np.sqrt(np.mean(cosines**2, axis=-1)).mean(1),
        "orientation_largest_cosine": cosines[..., 0].mean(1),
    }
    for quantity, draws in expected.items():
        assert value(table, quantity, null="random_subspaces") == pytest.approx(draws.mean(), abs=0.01)
        for column, level in (("low", 0.025), ("high", 0.975)):
            found = value(table, quantity, null="random_subspaces", column=column)
            assert found == pytest.approx(np.quantile(draws, level), abs=0.02)
    # a mean over four matrices spreads half as much
    ranges = [
        value(table, "orientation_rms_cosine", part, null="random_subspaces", column="high")
        - value(table, "orientation_rms_cosine", part, null="random_subspaces", column="low")
        for part in (QUERY, "attention_matrices")
    ]
    assert ranges[1] / ranges[0] == pytest.approx(0.5, abs=0.1)


def test_distance_of_dimensions_is_the_mean_over_matrices_and_seeds(tmp_path):
    generator = np.random.default_rng(3)
    wide = {name: walk(generator, 21, 20, 20) for name in NAMES}
    line = 10 * np.linspace(0, 1, 21)[:, None, None] * generator.standard_normal((20, 20))
    flat = wide | {NAMES[0]: line + 1e-3 * walk(generator, 21, 20, 20)}
    table = measure(seeds(tmp_path, [wide, wide, flat]), DEFAULTS)
    distance = value(table, "trajectory_r90_distance_from_other_seeds", "attention_matrices", 0)
    # one matrix of one of two other seeds falls from the walk's r90 to 1
    r90 = np.linalg.svd((wide[NAMES[0]] - wide[NAMES[0]].mean(0)).reshape(21, -1), compute_uv=False) ** 2
    walks = 1 + np.sum(np.cumsum(r90) / r90.sum() < 0.9)
    assert distance == pytest.approx((walks - 1) / (4 * 2))


def test_what_cannot_be_compared_is_named(tmp_path):
    generator = np.random.default_rng(4)
    one = {name: walk(generator, 9, 6, 5) for name in NAMES}
    with pytest.raises(ValueError, match="compares seeds, and there is one"):
        measure(write_run(tmp_path / "alone", one), DEFAULTS)
    longer = {name: walk(generator, 10, 6, 5) for name in NAMES}
    with pytest.raises(ValueError, match="seeds 0 and 1 have other checkpoints"):
        measure(seeds(tmp_path / "longer", [one, longer]), DEFAULTS)
    with pytest.raises(ValueError, match=r"seed 0: layers.0.attention.key.weight: directions: 9 of 9 snapshots.*ranks"):
        measure(seeds(tmp_path / "ranks", [one, one]), DEFAULTS | {"ranks": [9]})
    with pytest.raises(ValueError, match=r"no matrix is called \*"):
        measure(seeds(tmp_path / "bare", [{"readout.bias": one[NAMES[0]][:, 0]}] * 2), DEFAULTS)
    wider = {name: walk(generator, 9, 6, 6) for name in NAMES}
    with pytest.raises(ValueError, match="weight of seeds 0 and 1 differs in size"):
        measure(seeds(tmp_path / "wider", [one, wider]), DEFAULTS)


def test_it_reads_all_other_seeds_and_takes_no_torch():
    assert NEEDS["other_seeds"] == "all" and SETTINGS["ranks"]["default"] == [1, 2, 3, 4, 5]
    script = f"import sys, {trajectory_orientation.__name__}; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"
