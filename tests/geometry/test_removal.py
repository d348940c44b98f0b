import numpy as np
import pytest

from learning_geometry.geometry.nulls import haar_subspaces
from learning_geometry.geometry.removal import equal_norm_removal, projector, removed_norm


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.97, 1.0])
def test_equal_norm_removals_have_exactly_the_norm_and_reflect_nothing(generator, share):
    # rows of very different strength: directions differ in what they take
    weight = generator.standard_normal((10, 6)) * np.geomspace(1, 100, 10)[:, None]
    norm = share * np.linalg.norm(weight)
    for rotation in haar_subspaces(6, 6, 20, generator):
        removal = equal_norm_removal(weight, rotation, norm)
        assert np.allclose(removal, removal.T)
        values = np.linalg.eigvalsh(removal)
        assert values[0] > -1e-7 and values[-1] < 1 + 1e-7
        # whole directions, none, and at most one in part
        assert ((values > 1e-6) & (values < 1 - 1e-6)).sum() <= 1
        assert removed_norm(weight, removal) == pytest.approx(norm, rel=1e-7, abs=1e-6)


def test_a_subspace_of_the_rotation_is_itself_of_equal_norm(generator):
    weight = generator.standard_normal((4, 6))
    (rotation,) = haar_subspaces(6, 6, 1, generator)
    real = projector(rotation[:, 2:4])
    removal = equal_norm_removal(weight, np.roll(rotation, -2, axis=1), removed_norm(weight, real))
    np.testing.assert_allclose(removal, real, atol=1e-6)


def test_the_norm_of_a_weight_that_writes_is_that_of_its_transpose(generator):
    weight = generator.standard_normal((6, 4))
    real = projector(haar_subspaces(6, 2, 1, generator)[0])
    assert removed_norm(weight.T, real) == pytest.approx(np.linalg.norm(real @ weight))


def test_directions_without_norm_are_no_obstacle():
    weight = np.diag([0.0, 2.0, 1.0])
    removal = equal_norm_removal(weight, np.eye(3), 2.0)
    assert removed_norm(weight, removal) == pytest.approx(2.0) and removal[2, 2] == 0.0


def test_more_than_there_is_cannot_be_removed():
    with pytest.raises(ValueError, match=r"norm: 3.0 was asked .* norm 2.0"):
        equal_norm_removal(2 * np.eye(1), np.eye(1), 3.0)
