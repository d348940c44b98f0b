import numpy as np
import pytest
import torch

from learning_geometry.geometry.curvature.lanczos import Eigenpair, largest_eigenpair
from learning_geometry.geometry.curvature.localisation import (
    loss_increases,
    masses,
    random_direction_mass,
    sine_bound,
    subspace_noise,
)
from learning_geometry.geometry.nulls import haar_subspace

LIKE = {"a": torch.zeros(2, 3), "b": torch.zeros(4), "c": torch.zeros(())}
PARTS = {"first": ["a", "c"], "second": ["b"], "all": ["a", "b", "c"]}


def test_masses_are_shares_of_the_eigenvalue():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(11, 11, generator=generator, dtype=torch.float64)
    matrix = matrix + matrix.T
    values, vectors = torch.linalg.eigh(matrix)
    top = vectors[:, -1]
    found = masses(-3 * top, LIKE, PARTS)
    assert found["first"] + found["second"] == pytest.approx(1) and found["all"] == pytest.approx(1)
    inside = torch.tensor([True] * 6 + [False] * 4 + [True])
    assert found["first"] == pytest.approx(float((top * (matrix @ top) / values[-1])[inside].sum()))


def test_masses_of_a_float32_vector_are_summed_in_float64():
    like = {"small": torch.zeros(1), "large": torch.zeros(1)}
    found = masses(torch.tensor([1e-4, 1.0]), like, {"small": ["small"], "large": ["large"]})
    assert found["small"] == pytest.approx(1e-8, rel=1e-5)


@pytest.mark.parametrize("vector", [torch.zeros(11), torch.full((11,), float("nan"))])
def test_a_vector_without_shares_is_refused(vector):
    with pytest.raises(ValueError, match="has no shares"):
        masses(vector, LIKE, PARTS)


@pytest.mark.parametrize("tolerance", [0.1, 1e-2, 1e-4])
def test_the_sine_bound_holds_for_the_vector_and_its_masses(tolerance):
    generator = torch.Generator().manual_seed(1)
    size = 200
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    spectrum = torch.linspace(-1, 3, size, dtype=torch.float64)
    spectrum[-1] = 3.5
    matrix = (basis * spectrum) @ basis.T
    pair = largest_eigenpair(lambda v: matrix @ v, size, tolerance, dtype=torch.float64)
    bound = sine_bound(pair)
    sine = float(torch.linalg.vector_norm(pair.vector - basis[:, -1] * (basis[:, -1] @ pair.vector)))
    assert sine <= bound < 1
    like = {"half": torch.zeros(size // 2), "rest": torch.zeros(size // 2)}
    parts = {name: [name] for name in like}
    both = [masses(vector, like, parts)["half"] for vector in (pair.vector, basis[:, -1])]
    assert abs(both[0] - both[1]) <= bound


def test_without_a_gap_nothing_is_known_and_an_exact_vector_is_exact():
    vector = torch.ones(1)
    assert sine_bound(Eigenpair(1.0, vector, 0.3, 0.3, 1, False)) == 1.0
    # what kernels leave of a residual of zero decides nothing
    for rounding in (0.0, 1e-17, 4e-16):
        assert sine_bound(Eigenpair(1.0, vector.double(), rounding, rounding, 1, True)) == 0.0
        assert sine_bound(Eigenpair(1.0, vector.double(), rounding, rounding, 9, True, gap=0.1)) < 1e-14
    assert sine_bound(Eigenpair(1.0, vector.double(), 1e-12, 1e-12, 1, True)) == 1.0


@pytest.mark.parametrize(("size", "dimension"), [(3, 10), (1, 50), (49, 50)])
def test_random_directions_have_the_mass_given(size, dimension):
    draws = np.random.default_rng(0).standard_normal((40_000, dimension)) ** 2
    shares = draws[:, :size].sum(1) / draws.sum(1)
    mean, low, high = random_direction_mass(size, dimension)
    assert shares.mean() == pytest.approx(mean, abs=0.005)
    assert np.quantile(shares, [0.025, 0.975]) == pytest.approx([low, high], abs=0.01)


def test_random_directions_in_nothing_and_in_all():
    assert random_direction_mass(0, 5) == (0, 0, 0) and random_direction_mass(5, 5) == (1, 1, 1)
    with pytest.raises(ValueError, match="6 of 5"):
        random_direction_mass(6, 5)


def quadratic(seed=0, rows=3, columns=6):
    """A loss whose Hessian over the entries of one matrix is known, with a gradient far larger than its curvature."""
    generator = np.random.default_rng(seed)
    hessian = generator.standard_normal((rows * columns, rows * columns))
    hessian = torch.from_numpy(hessian @ hessian.T)
    slope = 100 * torch.from_numpy(generator.standard_normal(rows * columns))

    def loss(parameters):
        entries = parameters["weight"].reshape(-1)
        return slope @ entries + entries @ hessian @ entries / 2

    return loss, {"weight": torch.from_numpy(generator.standard_normal((rows, columns)))}, hessian.numpy()


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_noise_has_its_norm_and_lies_in_the_subspace(rank):
    generator = np.random.default_rng(rank)
    basis = haar_subspace(6, rank, generator)
    noise = subspace_noise(3, basis, 0.7, generator)
    assert noise.shape == (3, 6) and np.linalg.norm(noise) == pytest.approx(0.7)
    assert np.allclose(noise @ basis @ basis.T, noise)


@pytest.mark.parametrize("rank", [1, 2, 6])
def test_the_mean_increase_of_a_quadratic_loss_is_the_closed_form(rank):
    loss, point, hessian = quadratic()
    generator = np.random.default_rng(7)
    basis, norm = haar_subspace(6, rank, generator), 0.1
    noises = [subspace_noise(3, basis, norm, generator) for _ in range(6000)]
    by_row = hessian.reshape(3, 6, 3, 6)
    curvature = sum(np.trace(basis.T @ by_row[i, :, i] @ basis) for i in range(3))
    found = loss_increases(loss, point, "weight", noises)
    assert abs(found.mean() - norm**2 * curvature / (2 * 3 * rank)) < 4 * found.std() / np.sqrt(6000)
    each = [noise.reshape(-1) @ hessian @ noise.reshape(-1) / 2 for noise in noises[:20]]
    assert np.allclose(found[:20], each, atol=1e-9)


def test_planted_curvature_is_found_in_its_subspace_alone():
    direction = np.eye(6)[:, :1]

    def loss(parameters):
        return 5 * (parameters["weight"][:, 0] ** 2).sum() / 2 + parameters["weight"].sum()

    point = {"weight": torch.ones(3, 6, dtype=torch.float64)}
    generator = np.random.default_rng(0)
    inside, outside = (
        loss_increases(loss, point, "weight", [subspace_noise(3, basis, 0.2, generator) for _ in range(5)])
        for basis in (direction, np.eye(6)[:, 1:])
    )
    assert np.allclose(inside, 5 * 0.2**2 / 2) and np.allclose(outside, 0, atol=1e-13)


def test_over_random_subspaces_the_mean_increase_is_the_same_for_every_rank():
    """Curvature along one input of every row: one dimension finds it seldom but then much, all dimensions always."""
    hessian = np.kron(np.eye(3), np.diag([6.0, 0, 0, 0, 0, 0]))
    point = {"weight": torch.zeros(3, 6, dtype=torch.float64)}
    generator = np.random.default_rng(3)
    spreads = []
    for rank in (1, 6):
        noises = [subspace_noise(3, haar_subspace(6, rank, generator), 0.1, generator) for _ in range(4000)]
        found = loss_increases(lambda p: 6.0 * (p["weight"][:, 0] ** 2).sum() / 2, point, "weight", noises)
        assert abs(found.mean() - 0.1**2 * np.trace(hessian) / (2 * 18)) < 4 * found.std() / np.sqrt(4000)
        spreads.append(found.std())
    assert spreads[0] > 1.3 * spreads[1]


def test_a_loss_that_is_not_finite_nearby_is_refused():
    point = {"weight": torch.full((1, 1), 1e-3, dtype=torch.float64)}
    with pytest.raises(ValueError, match="not finite near weight"):
        loss_increases(lambda p: p["weight"].log().sum(), point, "weight", [np.ones((1, 1))])
