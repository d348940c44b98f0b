import numpy as np
import pytest
from scipy.linalg import subspace_angles

from learning_geometry.geometry.nulls import haar_subspace, haar_subspaces
from learning_geometry.geometry.subspaces import (
    largest_cosine,
    nested_energies,
    orthonormal_basis,
    principal_cosines,
    right_singular_subspace,
    root_mean_square_cosine,
    top_left_singular_subspace,
    top_right_singular_subspace,
)

from .oracles import subspace_energy


@pytest.mark.parametrize(("first_rank", "second_rank"), [(1, 1), (3, 3), (2, 5), (6, 4)])
def test_principal_cosines_agree_with_scipy(first_rank, second_rank):
    generator = np.random.default_rng(first_rank)
    first, second = generator.normal(size=(9, first_rank)), generator.normal(size=(9, second_rank))
    expected = np.sort(np.cos(subspace_angles(first, second)))[::-1]
    assert np.allclose(principal_cosines(first, second), expected)
    assert np.isclose(largest_cosine(first, second), expected[0])
    assert np.isclose(root_mean_square_cosine(first, second), np.sqrt(np.mean(expected**2)))


def test_cosines_depend_on_the_span_alone():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(7, 2)), generator.normal(size=(7, 3))
    mixed = first @ np.array([[1e-6, 2.0], [0.0, 1e3]])
    assert np.allclose(principal_cosines(first, second), principal_cosines(mixed, second))
    assert np.isclose(subspace_energy(first, second), subspace_energy(mixed, second))


def test_planted_angle_is_found():
    angle = 0.3
    rotated = np.eye(4)[:, :2] * np.cos([0.0, angle]) + np.eye(4)[:, 2:] * np.sin([0.0, angle])
    assert np.allclose(principal_cosines(np.eye(4)[:, :2], rotated), [1.0, np.cos(angle)])


def test_energy_is_the_projected_share_and_adds_up():
    generator = np.random.default_rng(1)
    basis, whole = haar_subspace(10, 3, generator), haar_subspace(10, 10, generator)
    parts = [subspace_energy(basis, whole[:, piece]) for piece in (slice(0, 1), slice(1, 6), slice(6, 10))]
    assert np.isclose(sum(parts), 1.0)
    projector = whole[:, 1:6] @ whole[:, 1:6].T
    assert np.isclose(parts[1], np.linalg.norm(projector @ basis) ** 2 / 3)


def test_chance_values_of_random_subspaces():
    generator = np.random.default_rng(2)
    pairs = [(haar_subspace(16, 3, generator), haar_subspace(16, 5, generator)) for _ in range(500)]
    assert abs(np.mean([subspace_energy(first, second) for first, second in pairs]) - 5 / 16) < 0.02
    assert abs(np.mean([subspace_energy(second, first) for first, second in pairs]) - 3 / 16) < 0.02
    squares = [root_mean_square_cosine(first, second) ** 2 for first, second in pairs]
    assert abs(np.mean(squares) - 5 / 16) < 0.02


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (6, 6)])
def test_planted_singular_subspaces_are_found(shape):
    generator = np.random.default_rng(3)
    left, right = haar_subspace(shape[0], 4, generator), haar_subspace(shape[1], 4, generator)
    matrix = (left * np.array([9.0, 4.0, 3.0, 1.0])) @ right.T
    assert np.allclose(principal_cosines(top_right_singular_subspace(matrix, 2), right[:, :2]), 1.0)
    assert np.allclose(principal_cosines(top_left_singular_subspace(matrix, 3), left[:, :3]), 1.0)
    medium = right_singular_subspace(matrix, 2, 3)
    assert medium.shape == (shape[1], 2) and np.allclose(principal_cosines(medium, right[:, 1:3]), 1.0)
    bottom = right_singular_subspace(matrix, 5, shape[1])
    assert bottom.shape == (shape[1], shape[1] - 4) and np.allclose(matrix @ bottom, 0.0, atol=1e-12)


def test_sides_of_a_square_matrix_are_not_confused():
    reads, writes = np.eye(4)[:, :1], np.eye(4)[:, 1:2]
    weight = writes @ reads.T
    assert largest_cosine(top_right_singular_subspace(weight, 1), reads) == 1.0
    assert largest_cosine(top_left_singular_subspace(weight, 1), writes) == 1.0
    assert largest_cosine(top_right_singular_subspace(weight, 1), writes) == 0.0


def test_float32_is_computed_in_float64():
    basis = np.random.default_rng(4).normal(size=(6, 2)).astype(np.float32)
    orthonormal = orthonormal_basis(basis)
    assert orthonormal.dtype == np.float64
    assert np.allclose(orthonormal.T @ orthonormal, np.eye(2), atol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthonormal_basis(np.ones((3, 2))), "dependent"),
        (lambda: orthonormal_basis(np.zeros((3, 1))), "dependent"),
        (lambda: orthonormal_basis(np.ones((2, 3))), "3 columns"),
        (lambda: orthonormal_basis(np.ones((2, 0))), "0 columns"),
        (lambda: orthonormal_basis(np.full((3, 1), np.nan)), "not finite"),
        (lambda: right_singular_subspace(np.eye(3), 0, 2), "first and last"),
        (lambda: right_singular_subspace(np.eye(3), 3, 2), "first and last"),
        (lambda: top_right_singular_subspace(np.ones((4, 3)), 4), "first and last"),
        (lambda: top_left_singular_subspace(np.full((2, 2), np.inf), 1), "not finite"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nested_energies_are_the_energies_of_each_rank_and_group():
    generator = np.random.default_rng(30)
    reference, *bases = haar_subspaces(9, 9, 4, generator)
    bases = np.stack(bases)[:, :, :6]
    found = nested_energies(reference, bases, [1, 4, 6], [2, 3, 4])
    assert found.shape == (3, 3, 3) and np.allclose(found.sum(-1), 1.0)
    groups = (reference[:, :2], reference[:, 2:5], reference[:, 5:])
    for basis, energies in zip(bases, found, strict=True):
        for rank, by_group in zip((1, 4, 6), energies, strict=True):
            assert np.allclose(by_group, [subspace_energy(basis[:, :rank], group) for group in groups])


@pytest.mark.parametrize(
    ("ranks", "sizes", "message"), [([7], [9], "ranks"), ([1], [4, 4], "sizes"), ([1], [9, 0], "sizes")]
)
def test_nested_energies_name_what_is_wrong(ranks, sizes, message):
    with pytest.raises(ValueError, match=message):
        nested_energies(np.eye(9), np.eye(9)[:, :6].copy(), ranks, sizes)
