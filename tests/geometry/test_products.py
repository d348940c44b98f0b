"""Hessian- and Gauss–Newton-vector products against closed forms, dense matrices and curvlinops."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from learning_geometry.geometry.curvature.eigenpairs import eigenpairs
from learning_geometry.geometry.curvature.products import (
    compressed,
    flatten,
    gauss_newton_with_graph,
    gradient_with_graph,
    unflatten,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from curvlinops import GGNLinearOperator, HessianLinearOperator


def dense(product, size, dtype=torch.float64):
    return torch.stack([product(row) for row in torch.eye(size, dtype=dtype)], dim=1)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def both(outputs, loss, point):
    """Dense Hessian and Gauss–Newton matrix by our products."""
    hessian = gradient_with_graph(lambda p: loss(outputs(p)), point)
    gauss_newton = gauss_newton_with_graph(outputs, loss, point)
    assert hessian.value == gauss_newton.value
    assert torch.allclose(hessian.gradient, gauss_newton.gradient, atol=1e-12)
    size = len(hessian.gradient)
    return dense(hessian.product, size), dense(gauss_newton.product, size)


def test_least_squares():
    inputs, targets = random(20, 5), random(20, seed=1)
    found = both(lambda p: inputs @ p["w"], lambda y: ((y - targets) ** 2).mean() / 2, {"w": random(5, seed=2)})
    for matrix in found:
        assert torch.allclose(matrix, inputs.T @ inputs / 20, atol=1e-13)


def test_logistic_regression():
    inputs, targets, weights = random(30, 4), (random(30, seed=1) > 0).double(), random(4, seed=2)
    loss = nn.functional.binary_cross_entropy_with_logits
    found = both(lambda p: inputs @ p["w"], lambda y: loss(y, targets), {"w": weights})
    probability = torch.sigmoid(inputs @ weights)
    expected = (inputs.T * (probability * (1 - probability))) @ inputs / 30
    for matrix in found:
        assert torch.allclose(matrix, expected, atol=1e-13)


def test_softmax_regression():
    inputs, weights = random(25, 3), random(4, 3, seed=2)
    targets = torch.arange(25) % 4
    found = both(lambda p: inputs @ p["w"].T, lambda y: nn.functional.cross_entropy(y, targets), {"w": weights})
    probability = torch.softmax(inputs @ weights.T, dim=1)
    of_logits = torch.diag_embed(probability) - torch.einsum("na,nb->nab", probability, probability)
    expected = torch.einsum("nab,ni,nj->aibj", of_logits, inputs, inputs).reshape(12, 12) / 25
    for matrix in found:
        assert torch.allclose(matrix, expected, atol=1e-13)
    # every row of weights shifted alike changes no probability: three zero eigenvalues
    assert (torch.linalg.eigvalsh(found[1]).abs() < 1e-12).sum() == 3


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    inputs, targets = random(20, 4), torch.arange(20) % 3
    parameters = dict(model.named_parameters())
    return model, inputs, targets, parameters


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_agrees_with_curvlinops():
    model, inputs, targets, parameters = network()
    hessian, gauss_newton = both(
        lambda p: functional_call(model, p, (inputs,)), lambda y: nn.functional.cross_entropy(y, targets), parameters
    )
    for matrix, operator in ((hessian, HessianLinearOperator), (gauss_newton, GGNLinearOperator)):
        peer = operator(
            model, nn.CrossEntropyLoss(), list(parameters.values()), [(inputs, targets)], check_deterministic=False
        )
        columns = peer @ torch.eye(len(matrix), dtype=torch.float64)
        assert torch.linalg.norm(matrix - columns) < 1e-10 * torch.linalg.norm(columns)
    # away from a linear model they differ, and only the Hessian has negative eigenvalues
    assert torch.linalg.eigvalsh(gauss_newton)[0] > -1e-12 > torch.linalg.eigvalsh(hessian)[0] + 1e-3
    assert torch.linalg.norm(hessian - gauss_newton) > 1e-2 * torch.linalg.norm(hessian)


def test_gauss_newton_of_a_block_is_the_block():
    model, inputs, targets, parameters = network()

    def outputs(p):
        return functional_call(model, p, (inputs,))

    def loss(y):
        return nn.functional.cross_entropy(y, targets)

    _, whole = both(outputs, loss, parameters)
    begin = 0
    for name, parameter in parameters.items():
        at = gauss_newton_with_graph(lambda p: outputs(parameters | p), loss, {name: parameter})
        size = parameter.numel()
        block = slice(begin, begin + size)
        assert torch.allclose(dense(at.product, size), whole[block, block], atol=1e-13)
        begin += size


def test_gauss_newton_of_outputs_that_ignore_parameters_or_a_loss_that_is_linear():
    point = {"used": torch.ones(2), "unused": torch.ones(1)}
    square = gauss_newton_with_graph(lambda p: p["used"], lambda y: (y**2).sum(), point)
    assert torch.equal(square.product(torch.ones(3)), torch.tensor([2.0, 2.0, 0.0]))
    linear = gauss_newton_with_graph(lambda p: p["used"] ** 3, lambda y: y.sum(), point)
    assert torch.equal(linear.gradient, torch.tensor([3.0, 3.0, 0.0]))
    assert torch.equal(linear.product(torch.ones(3)), torch.zeros(3))
    constant = gauss_newton_with_graph(lambda p: torch.ones(2), lambda y: (y**2).sum(), point)
    assert not constant.gradient.any() and not constant.product(torch.ones(3)).any()


@pytest.mark.parametrize("kind", [gradient_with_graph, gauss_newton_with_graph])
def test_float32_agrees_with_float64(kind):
    model, inputs, targets, parameters = network()
    vectors = {}
    for dtype in (torch.float64, torch.float32):
        point = {name: parameter.detach().to(dtype) for name, parameter in parameters.items()}
        parts = [
            lambda p, dtype=dtype: functional_call(model, p, (inputs.to(dtype),)),
            lambda y: nn.functional.cross_entropy(y, targets),
        ]
        if kind is gradient_with_graph:
            parts = [lambda p, parts=tuple(parts): parts[1](parts[0](p))]
        at = kind(*parts, point)
        size = len(at.gradient)
        vectors[dtype] = at.product(random(size, seed=3).to(dtype))
        assert vectors[dtype].dtype == at.gradient.dtype == dtype
    gap = torch.linalg.norm(vectors[torch.float32].double() - vectors[torch.float64])
    assert 0 < gap < 1e-5 * torch.linalg.norm(vectors[torch.float64])


def test_eigenpairs_inside_a_subspace():
    matrix = random(40, 40)
    matrix = matrix + matrix.T
    basis = torch.linalg.qr(random(40, 6, seed=1))[0]
    inside = compressed(lambda v: matrix @ v, basis)
    expected = torch.linalg.eigvalsh(basis.T @ matrix @ basis).flip(0)
    found = eigenpairs(inside, 6, 3, 3, 1e-10, dtype=torch.float64)
    values = [pair.value for pair in [*found.largest, *found.smallest[::-1]]]
    assert found.converged and np.allclose(values, expected.numpy(), atol=1e-9)


def test_a_whole_basis_changes_coordinates_only():
    point = {"x": random(3), "y": random(2, seed=1)}
    at = gradient_with_graph(lambda p: (p["x"].sum() * p["y"]).pow(3).sum(), point)
    basis = torch.linalg.qr(random(5, 5, seed=4))[0]
    inside = dense(compressed(at.product, basis), 5)
    assert torch.allclose(basis @ inside @ basis.T, dense(at.product, 5), atol=1e-10)
    assert unflatten(flatten(point), point).keys() == point.keys()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compressed(lambda v: v, torch.zeros(3, 0)), "basis: 0 columns in 3"),
        (lambda: compressed(lambda v: v, torch.eye(3)[:2]), "basis: 3 columns in 2"),
        (lambda: compressed(lambda v: v, 2 * torch.eye(3)), "not orthonormal, their inner products are off by 3"),
        (lambda: compressed(lambda v: v, torch.full((3, 1), torch.nan)), "off by nan"),
        (lambda: gradient_with_graph(lambda p: torch.ones(()), {}), "none to differentiate"),
        (lambda: gauss_newton_with_graph(lambda p: torch.ones(2), torch.sum, {}), "none to differentiate"),
        (
            lambda: gauss_newton_with_graph(lambda p: p["x"], lambda y: y, {"x": torch.ones(2)}),
            "not a finite scalar",
        ),
        (
            lambda: gauss_newton_with_graph(lambda p: p["x"].log(), torch.sum, {"x": -torch.ones(2)}),
            "not a finite scalar",
        ),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
