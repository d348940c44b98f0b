import numpy as np
import pytest

from learning_geometry.geometry.ablation import ablated_norm, equal_norm_ablation, projector
from learning_geometry.geometry.nulls import haar_subspaces


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.97, 1.0])
def test_equal_norm_ablations_have_exactly_the_norm_and_reflect_nothing(generator, share):
    # rows of very different strength: directions differ in what they take
    weight = generator.standard_normal((10, 6)) * np.geomspace(1, 100, 10)[:, None]
    norm = share * np.linalg.norm(weight)
    for rotation in haar_subspaces(6, 6, 20, generator):
        ablation = equal_norm_ablation(weight, rotation, norm)
        assert np.allclose(ablation, ablation.T)
        values = np.linalg.eigvalsh(ablation)
        assert values[0] > -1e-7 and values[-1] < 1 + 1e-7
        # whole directions, none, and at most one in part
        assert ((values > 1e-6) & (values < 1 - 1e-6)).sum() <= 1
        assert ablated_norm(weight, ablation) == pytest.approx(norm, rel=1e-7, abs=1e-6)


def test_a_subspace_of_the_rotation_is_itself_of_equal_norm(generator):
    weight = generator.standard_normal((4, 6))
    (rotation,) = haar_subspaces(6, 6, 1, generator)
    real = projector(rotation[:, 2:4])
    ablation = equal_norm_ablation(weight, np.roll(rotation, -2, axis=1), ablated_norm(weight, real))
    np.testing.assert_allclose(ablation, real, atol=1e-6)


def test_the_norm_of_a_weight_that_writes_is_that_of_its_transpose(generator):
    weight = generator.standard_normal((6, 4))
    real = projector(haar_subspaces(6, 2, 1, generator)[0])
    assert ablated_norm(weight.T, real) == pytest.approx(np.linalg.norm(real @ weight))


def test_directions_without_norm_are_no_obstacle():
    weight = np.diag([0.0, 2.0, 1.0])
    ablation = equal_norm_ablation(weight, np.eye(3), 2.0)
    assert ablated_norm(weight, ablation) == pytest.approx(2.0) and ablation[2, 2] == 0.0


def test_more_than_there_is_cannot_be_removed():
    with pytest.raises(ValueError, match=r"norm: 3.0 was asked .* norm 2.0"):
        equal_norm_ablation(2 * np.eye(1), np.eye(1), 3.0)
