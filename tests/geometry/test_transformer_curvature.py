"""Every curvature estimate against the exact Hessian of a tiny transformer."""

import warnings

import numpy as np
import pytest
import torch

from learning_geometry.geometry.curvature.density import mass_bounds, moments, spectral_density
from learning_geometry.geometry.curvature.hessian import largest_hessian_eigenpair
from learning_geometry.geometry.curvature.lanczos import extreme_eigenpairs, largest_eigenpair
from learning_geometry.geometry.curvature.products import flatten, gradient_with_graph, unflatten
from learning_geometry.geometry.curvature.trace import hutch_plus_plus
from learning_geometry.models import build
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.models.sizes import TaskSizes
from learning_geometry.models.transformer import SETTINGS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from curvlinops import HessianLinearOperator


class Tiny:
    """Two layers of width 4 on 6 tokens of 5, with its exact Hessian in float64."""

    def __init__(self, **options):
        settings = {name: schema["default"] for name, schema in SETTINGS.items()}
        settings |= {"name": "transformer", "width": 4, "heads": 2, "rotary_base": 10.0} | options
        self.model = build(settings, TaskSizes(5, 5, 6))
        drawn = self.model.initialise(np.random.default_rng(0))
        # larger weights: more curvature of the outputs
        self.point = {name: 2 * tensor.double() for name, tensor in drawn.items()}
        generator = np.random.default_rng(1)
        self.tokens, self.targets = (torch.from_numpy(generator.integers(5, size=(8, 6))) for _ in range(2))
        flat = flatten(self.point)
        self.size = len(flat)
        self.hessian = torch.autograd.functional.hessian(lambda v: self.loss(unflatten(v, self.point)), flat)

    def loss(self, parameters):
        return cross_entropy(self.model.forward(parameters, self.tokens, twice_differentiable=True), self.targets)


@pytest.fixture(scope="module", params=[{}, {"mlp_width": 6, "positions": "learned", "final_norm": True}])
def tiny(request):
    return Tiny(**request.param)


def dense(product, size):
    return torch.stack([product(row) for row in torch.eye(size, dtype=torch.float64)])


def near(value, expected, scale):
    return abs(float(value) - float(expected)) <= 1e-9 * float(scale)


def test_products_are_those_of_the_exact_matrix(tiny):
    found = dense(gradient_with_graph(tiny.loss, tiny.point).product, tiny.size)
    assert torch.allclose(found, tiny.hessian, atol=1e-11)


class OfTokens(torch.nn.Module):
    """The tiny transformer as a module, for the peer."""

    def __init__(self, tiny):
        super().__init__()
        self.model, self.names = tiny.model, list(tiny.point)
        self.values = torch.nn.ParameterList(torch.nn.Parameter(tensor.clone()) for tensor in tiny.point.values())

    def forward(self, tokens):
        parameters = dict(zip(self.names, self.values, strict=True))
        # a hook keeps the derivatives that are written out away: the peer has those of autograd
        return self.model.forward(parameters, tokens, hook=lambda name, value: value).flatten(0, 1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("norm", ["pre", "none"])
def test_agrees_with_curvlinops(norm):
    tiny = Tiny(norm=norm)
    module = OfTokens(tiny)
    data = [(tiny.tokens, tiny.targets.flatten())]
    loss = torch.nn.CrossEntropyLoss()
    options = {"check_deterministic": False, "num_data": len(tiny.tokens)}
    peer = HessianLinearOperator(module, loss, list(module.values), data, **options)
    product = gradient_with_graph(tiny.loss, tiny.point).product
    # the peer differentiates the gradient of an inner jacrev, whose vmap torch 2.13.0 gets wrong in the rows of
    # LayerNorm's weights, as in torch.func.hessian and jacrev(jacrev); jvp(grad) and jacrev(grad) are right. There
    # it differs from the difference quotient of the gradient, which the next test compares ours with
    rows = torch.cat([torch.full((tensor.numel(),), "norm.weight" not in name) for name, tensor in tiny.point.items()])
    assert rows.sum() == tiny.size - (8 if norm == "pre" else 0)
    vectors = torch.randn(3, tiny.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for vector in vectors:
        torch.testing.assert_close(product(vector)[rows], (peer @ vector)[rows], rtol=1e-5, atol=1e-10)


def test_exact_hessian_is_the_difference_quotient_of_the_gradient(tiny):
    direction = torch.randn(tiny.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flat = flatten(tiny.point)
    step = 1e-5
    ends = [
        gradient_with_graph(tiny.loss, unflatten(flat + sign * step * direction, tiny.point)).gradient
        for sign in (1, -1)
    ]
    quotient = (ends[0] - ends[1]) / (2 * step)
    assert torch.linalg.norm(quotient - tiny.hessian @ direction) < 1e-6 * torch.linalg.norm(quotient)


def test_both_ends_of_the_spectrum(tiny):
    exact = torch.linalg.eigvalsh(tiny.hessian)
    at = gradient_with_graph(tiny.loss, tiny.point)
    found = extreme_eigenpairs(at.product, tiny.size, 1e-9, 1e-9, dtype=torch.float64)
    assert exact[0] < 0
    for pair, expected in zip(found, (exact[-1], exact[0]), strict=True):
        assert pair.converged and near(pair.value, expected, exact[-1])
        defect = tiny.hessian @ pair.vector - pair.value * pair.vector
        assert float(torch.linalg.norm(defect)) <= 1.01 * pair.residual + 1e-12


def test_every_block(tiny):
    begin = 0
    for name, parameter in tiny.point.items():
        block = slice(begin, begin + parameter.numel())
        begin += parameter.numel()
        exact = torch.linalg.eigvalsh(tiny.hessian[block, block])[-1]
        at = gradient_with_graph(lambda chosen: tiny.loss(tiny.point | chosen), {name: parameter})
        found = largest_eigenpair(at.product, parameter.numel(), 1e-9, dtype=torch.float64)
        assert near(found.value, exact, torch.linalg.norm(tiny.hessian))
    assert begin == tiny.size


def test_trace_and_its_error(tiny):
    product = gradient_with_graph(tiny.loss, tiny.point).product
    exact = float(tiny.hessian.trace())
    for sketch in (0, 10):
        found = [
            hutch_plus_plus(product, tiny.size, 8, sketch, np.random.default_rng(seed), torch.float64)
            for seed in range(12)
        ]
        values, errors = (np.array([getattr(one, key) for one in found]) for key in ("value", "standard_error"))
        assert abs(values.mean() - exact) < 4 * np.sqrt((errors**2).mean() / 12)
        assert 0.5 < np.sqrt((errors**2).mean()) / values.std(ddof=1) < 2.0
    # the sketch takes the outliers out, so its error is smaller
    assert np.sqrt((errors**2).mean()) < 0.2 * abs(exact)


def test_density_moments_and_negative_share(tiny):
    product = gradient_with_graph(tiny.loss, tiny.point).product
    density = spectral_density(product, tiny.size, 16, 45, np.random.default_rng(0), torch.float64)
    exact = torch.linalg.eigvalsh(tiny.hessian).numpy()
    for order in (1, 2, 3, 4):
        found = moments(density, order)
        assert abs(found.value - (exact**order).mean()) < 4 * found.standard_error
    # away from zero, where many eigenvalues lie
    threshold = -0.02 * exact[-1]
    low, high = mass_bounds(density, threshold)
    share = (exact < threshold).mean()
    assert 0 < share < 0.5
    assert low.value - 4 * low.standard_error <= share <= high.value + 4 * high.standard_error
    assert high.value - low.value < 0.1


def test_along_a_line_values_are_those_of_float64_from_vectors_of_float32(tiny):
    start, noise = None, torch.Generator().manual_seed(0)
    for share in (1.0, 1.01, 1.02, 1.2, 0.6):
        point = {name: (share * tensor).float() for name, tensor in tiny.point.items()}
        doubled = {name: tensor.double() for name, tensor in point.items()}
        hessian = dense(gradient_with_graph(tiny.loss, doubled, check=False).product, tiny.size)
        exact = float(torch.linalg.eigvalsh(hessian)[-1])
        pair = largest_hessian_eigenpair(tiny.loss, point, 1e-3, start, noise)
        assert pair.converged and pair.vector.dtype == torch.float64
        assert abs(pair.value - exact) <= pair.error + 1e-12 * exact <= 1e-3 * exact
        start = pair.vector
