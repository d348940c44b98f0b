import numpy as np
import pytest
import torch

from learning_geometry.geometry.curvature.landscape import (
    along_line,
    barrier,
    descend,
    drop_both_ways,
    mean_of,
    on_plane,
    orthonormal_pair,
    share_of,
)

CURVATURES = torch.tensor([4.0, 1.0, -2.0], dtype=torch.float64)
X, Y = torch.eye(3, dtype=torch.float64)[[0, 2]]
OFFSETS = np.linspace(-1.0, 1.0, 8)


def quadratic(point):
    """Loss of 8 samples: a quadratic saddle and, per sample, an offset that cancels in paired differences."""
    return float(point @ (CURVATURES * point)) / 2 + OFFSETS


def test_a_direction_of_another_size_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"direction: \(1,\) entries for a point of \(3,\); pass equal"):
        along_line(quadratic, X, X[:1], [1.0])  # which torch would stretch


def test_the_loss_along_a_line_is_paired_and_exact():
    point = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    found = along_line(quadratic, point, X, [-1.0, 0.0, 0.5])
    np.testing.assert_allclose(found, np.repeat([[-2.0], [0.0], [2.5]], 8, axis=1), atol=1e-15)
    with pytest.raises(ValueError, match="part and whole: 1 and 1 samples; pass two or more, paired"):
        share_of(OFFSETS[:1], OFFSETS[:1])
    with pytest.raises(ValueError, match="not finite on the line"):
        along_line(lambda p: np.full(2, np.inf if p[0] < 0 else 1.0), point, X, [-2.0])


@pytest.mark.parametrize(("direction", "expected"), [(Y, 2.0 * 0.5**2 / 2), (X, -4.0 * 0.1**2 / 2)])
def test_drop_to_both_sides_is_half_the_curvature_without_the_gradient(direction, expected):
    # where the gradient is not zero: along x it is 4
    point, distances = torch.tensor([1.0, 0.0, 0.3], dtype=torch.float64), [0.1, 0.5]
    forth, back = (along_line(quadratic, point, direction, [sign * s for s in distances]) for sign in (1, -1))
    drop, row = drop_both_ways(forth, back)
    assert drop.value == pytest.approx(expected, abs=1e-12) and drop.n == 4
    assert row == (1 if expected > 0 else 0)  # in a bowl, the shortest is best


def test_the_best_of_many_distances_is_judged_on_other_samples():
    # without any effect, the largest of 200 means is far above 0 on its own samples
    noise = np.random.default_rng(0).standard_normal((200, 400))
    drop, row = drop_both_ways(noise, noise)
    assert -noise[row, :200].mean() > 2 / np.sqrt(200)
    assert abs(drop.value) < 3 * drop.standard_error


def test_share_has_the_standard_error_of_a_ratio():
    generator = np.random.default_rng(1)
    draws = []
    for _ in range(500):
        whole = 2 + generator.standard_normal(100)
        draws.append(share_of(0.5 * whole + 0.3 * generator.standard_normal(100), whole))
    assert np.mean([draw.value for draw in draws]) == pytest.approx(0.5, abs=0.005)
    spread = np.std([draw.value for draw in draws])
    assert np.mean([draw.standard_error for draw in draws]) == pytest.approx(spread, rel=0.1)
    assert np.isnan(share_of(np.ones(3), np.array([1.0, -2.0, 0.0])).value)


def test_barrier_is_above_the_higher_end():
    line = np.array([0.0, 2.0, -1.0])[:, None] + np.zeros(4)
    assert barrier(line)[0].value == 2.0 and barrier(line[::-1])[0].value == 2.0
    downhill = np.array([0.0, -1.0, -3.0])[:, None] + np.array([0.0, 1.0])
    assert barrier(downhill) == (mean_of(np.zeros(2)), 0)
    with pytest.raises(ValueError, match="two ends"):
        barrier(line[:2])


def test_a_plane_is_orthonormal_and_its_axes_are_in_order():
    first, second, cosine = orthonormal_pair(2 * X, X + Y)
    assert cosine == pytest.approx(np.sqrt(0.5))
    torch.testing.assert_close(torch.stack([first, second]), torch.stack([X, Y]))
    grid = on_plane(lambda p: float(quadratic(p).mean()), 0 * X, first, second, [0.0, 1.0], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(grid, [[0.0, -1.0, -4.0], [2.0, 1.0, -2.0]], atol=1e-12)
    for other in (3 * X, 0 * X):
        with pytest.raises(ValueError, match="span no plane"):
            orthonormal_pair(X, other)


def test_descent_leaves_a_saddle_and_rests_in_a_bowl():
    def loss_and_gradient(curvatures):
        return lambda p: (float(p @ (curvatures * p)) / 2, curvatures * p)

    start = torch.tensor([0.5, 0.5, 1e-3], dtype=torch.float64)
    saddle = list(descend(loss_and_gradient(CURVATURES), start, 0.01, 300, 100))
    bowl = list(descend(loss_and_gradient(CURVATURES.abs()), start, 0.01, 300, 100))
    assert [each.step for each in saddle] == [0, 100, 200, 300]
    assert saddle[-1].loss < -1.0 and abs(float(saddle[-1].point[0])) < 0.05
    assert 0 <= bowl[-1].loss < 1e-3
    assert start.tolist() == [0.5, 0.5, 1e-3] and saddle[0].point is not start
    # a stationary point is not left, however unstable it is
    assert list(descend(loss_and_gradient(CURVATURES), 0 * X, 0.01, 5, 5))[-1].loss == 0.0
    with pytest.raises(FloatingPointError, match="after 0 steps"):
        next(descend(lambda p: (float("nan"), p), X, 0.1, 1, 1))
    with pytest.raises(ValueError, match="positive"):
        next(descend(loss_and_gradient(CURVATURES), X, 0.0, 1, 1))


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="at least two finite"):
        mean_of(np.array([1.0]))
    with pytest.raises(ValueError, match="4 samples"):
        drop_both_ways(np.zeros((1, 3)), np.zeros((1, 3)))


@pytest.mark.parametrize("dust", [0.0, 1e-17, 1e-16])
def test_rounding_decides_no_place(dust):
    # the middle of a line is as high as its first end, on paper
    line = np.array([[1.0, 1.0], [1.0 + dust, 1.0 + dust], [0.0, 0.0]])
    assert barrier(line) == (mean_of(np.zeros(2)), 0)
    fall = np.array([[-1.0] * 4, [-1.0 - dust] * 4])
    assert drop_both_ways(fall, fall)[1] == 0
    assert np.isnan(share_of(np.array([1.0, 1.0]), np.array([1.0, -1.0 + dust])).value)


def test_small_differences_decide():
    assert barrier(np.array([[1.0, 1.0], [1.0 + 1e-6, 1.0 + 1e-6], [0.0, 0.0]]))[1] == 1
    fall = np.array([[-1.0] * 4, [-1.0 - 1e-6] * 4])
    assert drop_both_ways(fall, fall)[1] == 1
    assert share_of(np.array([1.0, 1.0]), np.array([1.0, -1.0 + 1e-6])).value == pytest.approx(2e6, rel=1e-6)
