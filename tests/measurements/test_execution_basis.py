"""The execution basis on planted trajectories."""

import numpy as np
import pytest

from learning_geometry.measurements.common.execution_basis import (
    attention_matrices,
    coordinates,
    execution_basis,
    inside,
    part_names,
    project,
    random_basis,
)

from .trajectories import curve, matrix_names, walk, write_run

NAMES = matrix_names(2)


@pytest.fixture
def planted(tmp_path):
    """A run whose matrices move in planes of their own up to step 100 and leave them later."""
    generator = np.random.default_rng(0)
    trajectories = {name: curve(generator, 21, 6, 5) for name in NAMES}
    for snapshots in trajectories.values():
        snapshots[11:] += generator.standard_normal((10, 6, 5))
    trajectories["embedding.weight"] = walk(generator, 21, 9, 6)
    off_grid = {15: {name: 1e3 * np.ones_like(snapshots[0]) for name, snapshots in trajectories.items()}}
    return write_run(tmp_path, trajectories, off_grid=off_grid), trajectories


def test_the_basis_spans_what_moved_so_far_in_each_attention_matrix(planted):
    run, trajectories = planted
    basis = execution_basis(run, 100, 2)
    assert sorted(basis) == sorted(NAMES)
    for name, columns in basis.items():
        assert columns.shape == (30, 2) and np.allclose(columns.T @ columns, np.eye(2), atol=1e-12)
        moves = trajectories[name][:11].reshape(11, -1)
        centred = moves - moves.mean(0)
        right = np.linalg.svd(centred)[2][:2]
        assert np.allclose(np.abs(right @ columns), np.eye(2), atol=1e-4)
        # all that happened so far lies inside, to float32; what comes later does not
        moved = {name: trajectories[name][10] - trajectories[name][0] for name in NAMES}
        later = {name: trajectories[name][20] - trajectories[name][10] for name in NAMES}
        assert inside(basis, moved)[name] == pytest.approx(np.sum(moved[name] ** 2), rel=1e-5)
        assert inside(basis, later)[name] < 0.5 * np.sum(later[name] ** 2)


@pytest.mark.parametrize(
    "names",
    [
        ["w", "w.weight"],
        ["model", "model.weight", "matrices.weight", "attention_matrices"],
        ["h.0", "h.0.weight", "h.0.q", "h.0.k.weight"],
        ["model.weight", "model.q.weight"],
    ],
)
def test_no_two_parts_have_one_name(names):
    called = part_names(names)
    several = {"model", "matrices", "attention_matrices"} | {part.rpartition(".")[0] for part in called.values()}
    assert list(called) == names
    assert len(set(called.values()) - several) == len(names)


def test_a_weight_with_a_bias_keeps_its_name():
    names = ["layers.0.attention.key.weight", "layers.0.attention.key.bias"]
    assert list(part_names(names).values()) == ["layers.0.attention.key", "layers.0.attention.key.bias"]


def test_checkpoints_off_the_grid_and_after_the_step_do_not_count(planted):
    run, _ = planted
    # up to step 109 there is no checkpoint after that of step 100; step 15 lies 1000 away
    first, second = execution_basis(run, 100, 2), execution_basis(run, 109, 2)
    assert all(np.array_equal(first[name], second[name]) for name in NAMES)
    assert not np.allclose(first[NAMES[0]], execution_basis(run, 200, 2)[NAMES[0]])


def test_projections_are_those_of_explicit_projectors(planted):
    run, _ = planted
    basis = execution_basis(run, 200)
    generator = np.random.default_rng(1)
    vectors = {name: generator.standard_normal((6, 5)) for name in NAMES} | {"readout.weight": np.ones((3, 3))}
    projected = project(basis, vectors)
    assert sorted(projected) == sorted(NAMES)
    for name in NAMES:
        projector = basis[name] @ basis[name].T
        assert np.allclose(projected[name].ravel(), projector @ vectors[name].ravel())
        assert projected[name].shape == (6, 5)
        assert inside(basis, vectors)[name] == pytest.approx(np.sum(projected[name] ** 2))
        assert np.allclose(coordinates(basis, vectors)[name], basis[name].T @ vectors[name].ravel())


def test_a_random_basis_holds_the_share_that_chance_gives(planted):
    run, _ = planted
    basis = execution_basis(run, 200)
    generator = np.random.default_rng(2)
    vectors = {name: np.ones((6, 5)) for name in NAMES}
    shares = []
    for _ in range(300):
        random = random_basis(basis, generator)
        assert all(np.allclose(random[name].T @ random[name], np.eye(3)) for name in NAMES)
        shares.append(sum(inside(random, vectors).values()) / (30 * len(NAMES)))
    assert np.mean(shares) == pytest.approx(3 / 30, abs=0.005)


def test_names_of_attention_matrices_are_exact():
    others = ["layers.0.attention_norm.weight", "xlayers.0.attention.key.weight", "layers.0.attention.query.bias"]
    assert attention_matrices([*others, "layers.12.attention.output.weight"]) == ["layers.12.attention.output.weight"]


def test_what_has_no_basis_is_named(planted, tmp_path):
    run, _ = planted
    with pytest.raises(ValueError, match="tiny, seed 0: 4 checkpoints on the uniform grid up to step 30 are too few"):
        execution_basis(run, 30, 3)
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.key\.weight up to step 400: .*spans 2, not 3"):
        still = {name: curve(np.random.default_rng(4), 9, 4, 4) for name in NAMES}
        # in units of powers of two, so that float32 holds the line exactly
        for snapshots in still.values():
            snapshots[:] = np.round(64 * snapshots[:1]) / 64 + np.multiply.outer(np.arange(9) ** 1.0, np.eye(4))
            snapshots[4:] += np.ones((4, 4))
        execution_basis(write_run(tmp_path / "still", still), 400, 3)
    with pytest.raises(ValueError, match=r"up to step 200: directions: 5 of a space of 4"):
        small = {name: walk(np.random.default_rng(5), 9, 2, 2) for name in NAMES}
        execution_basis(write_run(tmp_path / "small", small), 200, 5)
    with pytest.raises(ValueError, match="no attention matrices"):
        bare = {"readout.weight": walk(np.random.default_rng(5), 9, 2, 2)}
        execution_basis(write_run(tmp_path / "bare", bare), 200)
    basis = execution_basis(run, 200)
    with pytest.raises(ValueError, match="vectors: none for layers"):
        inside(basis, {})
    with pytest.raises(ValueError, match="has 4 entries, its basis 30"):
        project(basis, {name: np.ones((2, 2)) for name in NAMES})
