"""Every curvature estimator against dense matrices: closed forms, and the exact Hessian of a tiny transformer."""

import warnings

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian, jacobian

from learning_geometry import models
from learning_geometry.geometry.curvature.density import mass_below, mass_bounds, moments, smoothed, spectral_density
from learning_geometry.geometry.curvature.eigenpairs import eigenpairs
from learning_geometry.geometry.curvature.products import (
    compressed,
    flatten,
    gauss_newton_with_graph,
    gradient_with_graph,
    unflatten,
)
from learning_geometry.geometry.curvature.trace import hutch_plus_plus
from learning_geometry.geometry.curvature.trajectory import curvature_along
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.models.shape import Shape
from learning_geometry.streams import stream

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from curvlinops import GGNLinearOperator, HessianLinearOperator


def dense(product, dimension, dtype=torch.float64):
    return torch.stack([product(row) for row in torch.eye(dimension, dtype=dtype)], dim=1)


def planted(spectrum, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(spectrum), len(spectrum), generator=generator, dtype=torch.float64))[0]
    matrix = (basis * torch.as_tensor(spectrum, dtype=torch.float64)) @ basis.T
    return ((matrix + matrix.T) / 2).to(dtype), basis


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(30, 4, generator=generator, dtype=torch.float64)


def test_least_squares(data):
    targets = data @ torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64) + 1
    point = {"weight": torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}
    found = gradient_with_graph(lambda p: ((data @ p["weight"] - targets) ** 2).mean() / 2, point)
    expected = data.T @ data / 30
    torch.testing.assert_close(dense(found.product, 4), expected)
    torch.testing.assert_close(found.gradient, data.T @ (data @ point["weight"] - targets) / 30)
    linear = gauss_newton_with_graph(
        lambda p: data @ p["weight"], lambda outputs: ((outputs - targets) ** 2).mean() / 2, point
    )
    torch.testing.assert_close(dense(linear.product, 4), expected)
    torch.testing.assert_close(linear.gradient, found.gradient)


def test_logistic_regression(data):
    labels = (data[:, 0] > 0).double()
    point = {"weight": torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64)}

    def loss_of_outputs(logits):
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)

    share = torch.sigmoid(data @ point["weight"])
    expected = (data.T * (share * (1 - share))) @ data / 30
    found = gradient_with_graph(lambda p: loss_of_outputs(data @ p["weight"]), point)
    torch.testing.assert_close(dense(found.product, 4), expected)
    linear = gauss_newton_with_graph(lambda p: data @ p["weight"], loss_of_outputs, point)
    torch.testing.assert_close(dense(linear.product, 4), expected)


def test_softmax_regression(data):
    labels = torch.arange(30) % 3
    point = {"weight": torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))}

    def loss_of_outputs(logits):
        return torch.nn.functional.cross_entropy(logits, labels)

    shares = (data @ point["weight"].T).softmax(1)
    expected = sum(
        torch.kron(torch.diag(share) - torch.outer(share, share), torch.outer(row, row))
        for share, row in zip(shares, data, strict=True)
    )
    found = gradient_with_graph(lambda p: loss_of_outputs(data @ p["weight"].T), point)
    torch.testing.assert_close(dense(found.product, 12), expected / 30)
    # linear in the parameters: the Gauss-Newton matrix is the Hessian
    linear = gauss_newton_with_graph(lambda p: data @ p["weight"].T, loss_of_outputs, point)
    torch.testing.assert_close(dense(linear.product, 12), expected / 30)


MODEL = {
    "name": "transformer",
    "layers": 2,
    "heads": 2,
    "width": 4,
    "mlp_width": 3,
    "activation": "gelu",
    "norm": "pre",
    "final_norm": False,
    "positions": "rotary",
    "rotary_base": 100.0,
    "bias": True,
    "tied_readout": False,
    "dropout": 0.1,
    "causal": True,
    "readout": "all",
}


class Tiny:
    """A transformer with an exact Hessian: 2 layers, width 4, vocabulary 5."""

    def __init__(self, dtype=torch.float64, **options):
        self.model = models.build(MODEL | options, Shape(5, 5, 6))
        drawn = self.model.initialise(stream("test", "parameters"))
        # larger than at initialisation, so that attention is not uniform
        self.parameters = {name: (1.5 * tensor).to(dtype) for name, tensor in drawn.items()}
        draw = stream("test", "tokens")
        self.tokens = torch.from_numpy(draw.integers(5, size=(6, 6)))
        self.targets = torch.from_numpy(draw.integers(5, size=(6, 6)))
        self.dimension = sum(tensor.numel() for tensor in self.parameters.values())

    def outputs(self, parameters):
        return self.model.forward(parameters, self.tokens, explicit=True)

    def loss(self, parameters):
        return cross_entropy(self.outputs(parameters), self.targets)


@pytest.fixture(scope="module")
def tiny():
    return Tiny()


@pytest.fixture(scope="module")
def exact(tiny):
    vector = flatten(tiny.parameters)
    matrix = hessian(lambda v: tiny.loss(unflatten(v, tiny.parameters)), vector)
    return (matrix + matrix.T) / 2


@pytest.fixture(scope="module")
def spectrum(exact):
    return torch.linalg.eigvalsh(exact).numpy()


def test_the_products_are_the_hessian_and_every_block_of_it(tiny, exact):
    product = gradient_with_graph(tiny.loss, tiny.parameters).product
    torch.testing.assert_close(dense(product, tiny.dimension), exact, rtol=1e-8, atol=1e-10)
    first = 0
    for name, tensor in tiny.parameters.items():
        size = tensor.numel()
        block = gradient_with_graph(lambda b: tiny.loss(tiny.parameters | b), {name: tensor}).product
        expected = exact[first : first + size, first : first + size]
        torch.testing.assert_close(dense(block, size), expected, rtol=1e-8, atol=1e-10)
        first += size
    assert first == tiny.dimension


def test_a_subspace_of_the_parameters(tiny, exact):
    basis = torch.linalg.qr(torch.randn(tiny.dimension, 5, dtype=torch.float64))[0]
    inside = compressed(gradient_with_graph(tiny.loss, tiny.parameters).product, basis)
    torch.testing.assert_close(dense(inside, 5), basis.T @ exact @ basis)


def test_both_ends_of_the_spectrum_with_true_residuals(tiny, exact, spectrum):
    product = gradient_with_graph(tiny.loss, tiny.parameters).product
    found = eigenpairs(product, tiny.dimension, 4, 3, 1e-8, dtype=torch.float64)
    assert found.converged and all(pair.converged for pair in (*found.largest, *found.smallest))
    np.testing.assert_allclose([pair.value for pair in found.largest], spectrum[::-1][:4], rtol=1e-7)
    np.testing.assert_allclose([pair.value for pair in found.smallest], spectrum[:3], rtol=1e-6)
    for pair in (*found.largest, *found.smallest):
        residual = float(torch.linalg.vector_norm(exact @ pair.vector - pair.value * pair.vector))
        assert residual == pytest.approx(pair.residual, rel=1e-3, abs=1e-10)
        assert float(torch.linalg.vector_norm(pair.vector)) == pytest.approx(1)


def test_float32_agrees_with_float64(spectrum):
    tiny = Tiny(torch.float32)
    found = eigenpairs(gradient_with_graph(tiny.loss, tiny.parameters).product, tiny.dimension, 2, 1, 1e-4)
    assert found.converged and found.largest[0].vector.dtype == torch.float32
    values = [pair.value for pair in (*found.largest, *found.smallest)]
    np.testing.assert_allclose(values, [*spectrum[::-1][:2], spectrum[0]], rtol=1e-3)


def test_trace_and_density_moments(tiny, exact, spectrum):
    product = gradient_with_graph(tiny.loss, tiny.parameters).product
    trace = hutch_plus_plus(product, tiny.dimension, 40, 20, np.random.default_rng(0), torch.float64)
    assert abs(trace.value - spectrum.sum()) < 3 * trace.standard_error < 0.4 * abs(spectrum.sum())
    density = spectral_density(product, tiny.dimension, 60, 30, np.random.default_rng(1), torch.float64)
    np.testing.assert_allclose(density.weights.sum(1), 1)
    for order in (1, 2, 4):
        found = moments(density, order)
        assert abs(found.value - (spectrum**order).mean()) < 3.5 * found.standard_error, order
        assert found.standard_error < 0.5 * abs((spectrum**order).mean())
    assert density.nodes.max() == pytest.approx(spectrum[-1], rel=1e-6)
    assert density.nodes.min() == pytest.approx(spectrum[0], rel=1e-3)
    for threshold in (-0.1, -1e-2, -1e-3, 1e-3, 0.1):
        threshold *= spectrum[-1]
        low, high = mass_bounds(density, threshold)
        true = (spectrum < threshold).mean()
        assert low.value - 3 * low.standard_error <= true <= high.value + 3 * high.standard_error
        assert low.value <= mass_below(density, threshold).value <= high.value
    # sharp where few eigenvalues lie
    low, high = mass_bounds(density, -0.1 * spectrum[-1])
    assert high.value - low.value < 0.05 and low.value > 0


class OfTokens(torch.nn.Module):
    """The tiny transformer as a module, for the peer."""

    def __init__(self, tiny):
        super().__init__()
        self.tiny = tiny
        self.names = list(tiny.parameters)
        for index, tensor in enumerate(tiny.parameters.values()):
            self.register_parameter(f"p{index}", torch.nn.Parameter(tensor.clone()))

    def forward(self, tokens):
        parameters = {name: getattr(self, f"p{index}") for index, name in enumerate(self.names)}
        return self.tiny.model.forward(parameters, tokens, explicit=True).flatten(0, 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["hessian", "gauss_newton"])
def test_curvlinops_gives_the_same_products(kind):
    # without norms: curvlinops differentiates forward over reverse, which torch 2.13 gets wrong for layer_norm's weight
    tiny = Tiny(norm="none")
    module = OfTokens(tiny)
    operator = HessianLinearOperator if kind == "hessian" else GGNLinearOperator
    peer = operator(
        module,
        torch.nn.CrossEntropyLoss(),
        list(module.parameters()),
        [(tiny.tokens, tiny.targets.flatten())],
        check_deterministic=False,
    )
    if kind == "hessian":
        product = gradient_with_graph(tiny.loss, tiny.parameters).product
    else:
        product = gauss_newton_with_graph(
            tiny.outputs, lambda outputs: cross_entropy(outputs, tiny.targets), tiny.parameters
        ).product
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        vector = torch.randn(tiny.dimension, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(product(vector), peer @ vector, rtol=1e-5, atol=1e-12)


def test_central_differences_of_the_gradient_give_the_same_products(tiny):
    vector, spacing = flatten(tiny.parameters), 1e-4
    direction = torch.randn(tiny.dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    after, before = (
        gradient_with_graph(tiny.loss, unflatten(vector + sign * spacing * direction, tiny.parameters)).gradient
        for sign in (1, -1)
    )
    product = gradient_with_graph(tiny.loss, tiny.parameters).product
    torch.testing.assert_close(product(direction), (after - before) / (2 * spacing), rtol=1e-5, atol=1e-5)


def test_gauss_newton_is_the_jacobians_product_and_semidefinite(tiny):
    vector = flatten(tiny.parameters)
    slopes = jacobian(lambda v: tiny.outputs(unflatten(v, tiny.parameters)).flatten(), vector)
    shares = tiny.outputs(tiny.parameters).flatten(0, 1).softmax(1)
    count = len(shares)
    curvature = torch.block_diag(*(torch.diag(share) - torch.outer(share, share) for share in shares)) / count
    product = gauss_newton_with_graph(
        tiny.outputs, lambda outputs: cross_entropy(outputs, tiny.targets), tiny.parameters
    ).product
    found = dense(product, tiny.dimension)
    torch.testing.assert_close(found, slopes.T @ curvature @ slopes, rtol=1e-8, atol=1e-12)
    assert torch.linalg.eigvalsh(found).min() > -1e-12


def test_gauss_newton_of_a_network_is_not_its_hessian(tiny, exact):
    product = gauss_newton_with_graph(
        tiny.outputs, lambda outputs: cross_entropy(outputs, tiny.targets), tiny.parameters
    ).product
    assert (dense(product, tiny.dimension) - exact).abs().max() > 0.01 * exact.abs().max()


# Planted spectra -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiplicity", [1, 2, 3])
def test_eigenvalues_are_counted_with_multiplicity(multiplicity):
    bulk = np.linspace(-0.5, 0.5, 60)
    matrix, _ = planted([*[3.0] * multiplicity, 2.0, *bulk, *[-1.0] * multiplicity])
    found = eigenpairs(lambda v: matrix @ v, len(matrix), 4, multiplicity, 1e-8, dtype=torch.float64)
    expected = sorted([*[3.0] * multiplicity, 2.0, *bulk], reverse=True)[:4]
    np.testing.assert_allclose([pair.value for pair in found.largest], expected, atol=1e-6)
    np.testing.assert_allclose([pair.value for pair in found.smallest], -1.0, atol=1e-6)
    vectors = torch.stack([pair.vector for pair in (*found.largest, *found.smallest)])
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(len(vectors), dtype=torch.float64), rtol=0, atol=1e-5)


def test_near_degenerate_pairs_are_told_apart():
    matrix, basis = planted([2.0, 1.98, *np.linspace(-0.5, 0.5, 80)])
    found = eigenpairs(lambda v: matrix @ v, len(matrix), 2, 0, 1e-6, dtype=torch.float64)
    np.testing.assert_allclose([pair.value for pair in found.largest], [2.0, 1.98], atol=1e-5)
    assert abs(float(found.largest[0].vector @ basis[:, 0])) > 0.999


def test_a_wrong_start_hides_nothing_and_a_good_one_saves_products():
    matrix, basis = planted([2.0, 1.9, *np.linspace(-0.5, 0.5, 200)])
    cold = eigenpairs(lambda v: matrix @ v, len(matrix), 1, 0, 1e-6, dtype=torch.float64)
    good = eigenpairs(lambda v: matrix @ v, len(matrix), 1, 0, 1e-6, start=basis[:, :1].contiguous())
    wrong = eigenpairs(lambda v: matrix @ v, len(matrix), 1, 0, 1e-6, start=basis[:, 1:2].contiguous())
    for found in (cold, good, wrong):
        assert found.converged and found.largest[0].value == pytest.approx(2.0, abs=1e-5)
    assert good.products < cold.products


def test_the_whole_spectrum_of_a_small_matrix():
    matrix, _ = planted([1.0, 1.0, 0.0, -2.0])
    found = eigenpairs(lambda v: matrix @ v, 4, 2, 2, 1e-10, dtype=torch.float64)
    assert found.converged and found.products == 4
    np.testing.assert_allclose([pair.value for pair in (*found.largest, *found.smallest)], [1, 1, -2, 0], atol=1e-12)
    nothing = eigenpairs(torch.zeros_like, 9, 2, 1, 1e-6)
    assert nothing.converged and {pair.value for pair in nothing.largest} == {0.0}


def test_too_few_products_are_said():
    matrix, _ = planted(np.linspace(-1, 1, 300))
    found = eigenpairs(lambda v: matrix @ v, 300, 2, 2, 1e-9, maximum_products=12, dtype=torch.float64)
    assert not found.converged and found.products == 12
    assert not any(pair.converged for pair in found.largest)


def test_the_density_of_a_planted_spectrum():
    spectrum = np.r_[np.full(300, -0.2), np.full(650, 0.05), np.full(50, 4.0)]
    matrix, _ = planted(spectrum)
    density = spectral_density(lambda v: matrix @ v, 1000, 20, 5, np.random.default_rng(0), torch.float64)
    below = mass_below(density, 0.0)
    assert abs(below.value - 0.3) < 4 * below.standard_error < 0.1
    assert mass_below(density, -1.0).value == pytest.approx(0.0, abs=1e-12)
    grid = np.linspace(-1, 5, 3001)
    curve, error = smoothed(density, grid, 0.05)
    assert np.trapezoid(curve, grid) == pytest.approx(1.0, abs=1e-3)
    assert (error >= 0).all() and error.max() > 0
    peak = curve[(grid > 3.5)].max() * 0.05 * np.sqrt(2 * np.pi)
    assert peak == pytest.approx(0.05, rel=0.3)


def test_the_error_of_the_density_is_right():
    """Over repetitions the standard error is the spread of the estimate."""
    matrix, _ = planted(np.r_[np.full(20, -1.0), np.full(80, 1.0)])
    found = [
        mass_below(spectral_density(lambda v: matrix @ v, 100, 10, 3, np.random.default_rng(i), torch.float64), 0.0)
        for i in range(200)
    ]
    spread = np.std([estimate.value for estimate in found], ddof=1)
    assert np.mean([estimate.standard_error for estimate in found]) == pytest.approx(spread, rel=0.2)
    assert np.mean([estimate.value for estimate in found]) == pytest.approx(0.2, abs=4 * spread / np.sqrt(200))


# Along a trajectory --------------------------------------------------------------------------------------


def crossing(step):
    """Two eigenvalues that cross at step 5, far from a bulk."""
    return {
        "x": torch.cat([torch.tensor([2.0 - 0.1 * step, 1.0 + 0.1 * step]), torch.linspace(-0.3, 0.3, 60)]).double()
    }


def cubes(parameters):
    return (parameters["x"] ** 3).sum() / 6  # the Hessian is diag(x)


def test_a_trajectory_follows_eigenvalues_through_a_crossing():
    points = [(step, crossing(step)) for step in range(11)]
    warm = list(curvature_along(cubes, points, 2, 1, 1e-6, cold_every=4))
    assert [found.step for found in warm] == list(range(11))
    for (_, point), found in zip(points, warm, strict=True):
        ordered = point["x"].sort(descending=True).values
        np.testing.assert_allclose([pair.value for pair in found.pairs.largest], ordered[:2], rtol=1e-5)
        assert found.pairs.smallest[0].value == pytest.approx(-0.3, rel=1e-4)
    assert [found.step for found in warm if np.isfinite(found.hidden)] == [4, 8]
    assert all(abs(found.hidden) < 1e-5 for found in warm if np.isfinite(found.hidden))
    cold = sum(eigenpairs(found.at.product, 62, 2, 1, 1e-6, dtype=torch.float64).products for found in warm)
    assert sum(found.pairs.products for found in warm) < cold


# Errors --------------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_says_why():
    with pytest.raises(ValueError, match=r"3 and 2 eigenvalues of a matrix of 4 rows; ask for 1 to 4"):
        eigenpairs(lambda v: v, 4, 3, 2, 1e-3)
    with pytest.raises(ValueError, match="ask for 1 to 4"):
        eigenpairs(lambda v: v, 4, 0, 0, 1e-3)
    with pytest.raises(ValueError, match="positive error"):
        eigenpairs(lambda v: v, 4, 1, 0, 0.0)
    with pytest.raises(ValueError, match=r"start: shape \(3, 1\)"):
        eigenpairs(lambda v: v, 4, 1, 0, 1e-3, start=torch.ones(3, 1))
    with pytest.raises(ValueError, match="not finite within"):
        eigenpairs(lambda v: v * torch.nan, 4, 1, 0, 1e-3)
    with pytest.raises(ValueError, match="not finite at product 1"):
        spectral_density(lambda v: v * torch.inf, 4, 2, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="probes and steps: 4, 1 and 2"):
        spectral_density(lambda v: v, 4, 1, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="there is none to differentiate by"):
        gauss_newton_with_graph(lambda p: torch.ones(1), torch.sum, {})
    with pytest.raises(ValueError, match="not a finite scalar"):
        gauss_newton_with_graph(lambda p: p["x"], lambda z: z / 0, {"x": torch.ones(1)})
    points = [(0, {"x": torch.ones(3)}), (200, {"x": torch.full((3,), torch.nan)})]
    with pytest.raises(ValueError, match="step 200: loss: it is nan"):
        list(curvature_along(cubes, points, 1, 0, 1e-3))
