"""Hessian-vector products against closed forms, dense matrices and curvlinops."""

import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call

from learning_geometry.geometry.curvature.products import flatten, gradient_with_graph, unflatten

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from curvlinops import HessianLinearOperator


def dense(product, size, dtype=torch.float64):
    return torch.stack([product(row) for row in torch.eye(size, dtype=dtype)], dim=1)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def hessian_of(outputs, loss, point):
    """Dense Hessian by our products."""
    at = gradient_with_graph(lambda p: loss(outputs(p)), point)
    return dense(at.product, len(at.gradient))


def test_least_squares():
    inputs, targets = random(20, 5), random(20, seed=1)
    found = hessian_of(lambda p: inputs @ p["w"], lambda y: ((y - targets) ** 2).mean() / 2, {"w": random(5, seed=2)})
    assert torch.allclose(found, inputs.T @ inputs / 20, atol=1e-13)


def test_logistic_regression():
    inputs, targets, weights = random(30, 4), (random(30, seed=1) > 0).double(), random(4, seed=2)
    loss = nn.functional.binary_cross_entropy_with_logits
    found = hessian_of(lambda p: inputs @ p["w"], lambda y: loss(y, targets), {"w": weights})
    probability = torch.sigmoid(inputs @ weights)
    expected = (inputs.T * (probability * (1 - probability))) @ inputs / 30
    assert torch.allclose(found, expected, atol=1e-13)


def test_softmax_regression():
    inputs, weights = random(25, 3), random(4, 3, seed=2)
    targets = torch.arange(25) % 4
    found = hessian_of(lambda p: inputs @ p["w"].T, lambda y: nn.functional.cross_entropy(y, targets), {"w": weights})
    probability = torch.softmax(inputs @ weights.T, dim=1)
    of_logits = torch.diag_embed(probability) - torch.einsum("na,nb->nab", probability, probability)
    expected = torch.einsum("nab,ni,nj->aibj", of_logits, inputs, inputs).reshape(12, 12) / 25
    assert torch.allclose(found, expected, atol=1e-13)
    # every row of weights shifted alike changes no probability: three zero eigenvalues
    assert (torch.linalg.eigvalsh(found).abs() < 1e-12).sum() == 3


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    inputs, targets = random(20, 4), torch.arange(20) % 3
    parameters = dict(model.named_parameters())
    return model, inputs, targets, parameters


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_agrees_with_curvlinops():
    model, inputs, targets, parameters = network()
    matrix = hessian_of(
        lambda p: functional_call(model, p, (inputs,)), lambda y: nn.functional.cross_entropy(y, targets), parameters
    )
    peer = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), list(parameters.values()), [(inputs, targets)], check_deterministic=False
    )
    columns = peer @ torch.eye(len(matrix), dtype=torch.float64)
    assert torch.linalg.norm(matrix - columns) < 1e-10 * torch.linalg.norm(columns)


def test_a_block_is_the_block():
    model, inputs, targets, parameters = network()

    def loss(p):
        return nn.functional.cross_entropy(functional_call(model, p, (inputs,)), targets)

    whole = hessian_of(lambda p: p, loss, parameters)
    begin = 0
    for name, parameter in parameters.items():
        block = slice(begin, begin + parameter.numel())
        found = hessian_of(lambda p: parameters | p, loss, {name: parameter})
        assert torch.allclose(found, whole[block, block], atol=1e-13)
        begin += parameter.numel()


def test_parameters_without_use_and_losses_that_are_linear():
    point = {"used": torch.ones(2), "unused": torch.ones(1)}
    square = gradient_with_graph(lambda p: (p["used"] ** 2).sum(), point)
    assert torch.equal(square.product(torch.ones(3)), torch.tensor([2.0, 2.0, 0.0]))
    linear = gradient_with_graph(lambda p: p["used"].sum(), point)
    assert torch.equal(linear.gradient, torch.tensor([1.0, 1.0, 0.0]))
    assert torch.equal(linear.product(torch.ones(3)), torch.zeros(3))


def test_float32_agrees_with_float64():
    model, inputs, targets, parameters = network()
    vectors = {}
    for dtype in (torch.float64, torch.float32):
        point = {name: parameter.detach().to(dtype) for name, parameter in parameters.items()}

        def loss(p):
            like = next(iter(p.values()))
            return nn.functional.cross_entropy(functional_call(model, p, (inputs.to(like),)), targets)

        at = gradient_with_graph(loss, point)
        vectors[dtype] = at.product(random(len(at.gradient), seed=3).to(dtype))
        assert vectors[dtype].dtype == at.gradient.dtype == dtype
    gap = torch.linalg.norm(vectors[torch.float32].double() - vectors[torch.float64])
    assert 0 < gap < 1e-5 * torch.linalg.norm(vectors[torch.float64])


def test_flat_vectors_and_parameters_are_inverse():
    point = {"x": random(3), "y": random(2, 2, seed=1)}
    again = unflatten(flatten(point), point)
    assert again.keys() == point.keys() and all(torch.equal(again[name], point[name]) for name in point)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient_with_graph(lambda p: torch.ones(()), {}), "none to differentiate"),
        (lambda: gradient_with_graph(lambda p: p["x"], {"x": torch.ones(2)}), "not a finite scalar"),
        (lambda: gradient_with_graph(lambda p: p["x"].log().sum(), {"x": -torch.ones(2)}), "not a finite scalar"),
        (
            lambda: gradient_with_graph(lambda p: p["x"].sqrt().sum(), {"x": torch.zeros(2)}),
            "gradient: it is not finite",
        ),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
