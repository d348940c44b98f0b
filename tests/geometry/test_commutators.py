"""Commutators of two gradient steps against closed forms and the exact Hessians of a tiny transformer."""

import numpy as np
import pytest
import torch

from learning_geometry.geometry.commutators import Commutator, commutator, defect, finite_commutator, norm, scale_free
from learning_geometry.geometry.curvature.products import flatten, gradient_with_graph, unflatten
from learning_geometry.models import build
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.models.sizes import TaskSizes
from learning_geometry.models.transformer import SETTINGS


class Quadratics:
    """(x - a, P (x - a)) / 2 on batch A and the same with b and Q on batch B."""

    def __init__(self, dimension=6, dtype=torch.float64):
        generator = torch.Generator().manual_seed(0)

        def draw(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        halves = draw(2, dimension, dimension)
        self.matrices = halves @ halves.mT
        self.centres, self.x = draw(2, dimension), draw(dimension)
        # two parameters of different shapes
        self.point = {"bias": self.x[:2].clone(), "weight": self.x[2:].reshape(2, -1).clone()}

    def loss(self, which):
        def value(parameters):
            moved = flatten(parameters) - self.centres[which]
            return moved @ self.matrices[which] @ moved / 2

        return value

    def gradient(self, which):
        return gradient_with_graph(self.loss(which), self.point)


class Tiny:
    """A transformer of width 4 on two batches of 6 tokens of 5, float64."""

    def __init__(self, **options):
        settings = {name: schema["default"] for name, schema in SETTINGS.items()}
        settings |= {"name": "transformer", "width": 4, "heads": 2, "rotary_base": 10.0} | options
        self.model = build(settings, TaskSizes(5, 5, 6))
        drawn = self.model.initialise(np.random.default_rng(0))
        self.point = {name: 2 * tensor.double() for name, tensor in drawn.items()}
        generator = np.random.default_rng(1)
        self.batches = [[torch.from_numpy(generator.integers(5, size=(8, 6))) for _ in range(2)] for _ in range(2)]

    def loss(self, which, twice=True):
        tokens, targets = self.batches[which]
        return lambda p: cross_entropy(self.model.forward(p, tokens, twice_differentiable=twice), targets)

    def plain_loss(self, which):
        """The same by plain autograd: a hook keeps the derivatives that are written out away."""
        tokens, targets = self.batches[which]
        return lambda p: cross_entropy(self.model.forward(p, tokens, hook=lambda name, value: value), targets)

    def by_products(self):
        return commutator(*(gradient_with_graph(self.loss(which), self.point) for which in (0, 1)))


@pytest.fixture(scope="module", params=[{}, {"mlp_width": 6, "positions": "learned", "final_norm": True}])
def tiny(request):
    return Tiny(**request.param)


def test_quadratic_losses_have_the_closed_form_by_products_and_by_steps_of_any_size():
    case = Quadratics()
    gradients = [case.matrices[i] @ (case.x - case.centres[i]) for i in (0, 1)]
    terms = case.matrices[1] @ gradients[0], case.matrices[0] @ gradients[1]
    expected = terms[0] - terms[1]
    assert norm(expected) > 0.1 * norm(terms[0])
    for found in (
        commutator(case.gradient(0), case.gradient(1)),
        finite_commutator(case.loss(0), case.loss(1), case.point, 0.3),
        finite_commutator(case.loss(0), case.loss(1), case.point, 1e-3),
    ):
        torch.testing.assert_close(found.delta, expected, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found.terms, terms, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found.gradients, tuple(gradients))


def test_two_gradient_steps_in_both_orders_end_where_the_commutator_says():
    """The steps written out with torch's own optimiser."""
    case, step_size, ends = Quadratics(), 0.05, []
    for order in ((0, 1), (1, 0)):
        x = case.x.clone().requires_grad_()
        sgd = torch.optim.SGD([x], lr=step_size)
        for which in order:
            sgd.zero_grad()
            case.loss(which)({"x": x}).backward()
            sgd.step()
        ends.append(x.detach())
    expected = ends[0] - ends[1]
    for found in (
        commutator(case.gradient(0), case.gradient(1)),
        finite_commutator(case.loss(0), case.loss(1), case.point, step_size),
    ):
        torch.testing.assert_close(step_size**2 * found.delta, expected, rtol=1e-9, atol=1e-12)
        steps = [step_size * norm(gradient) for gradient in found.gradients]
        assert defect(found) == pytest.approx(norm(expected) / (steps[0] * steps[1]))
        halves = sum(norm(case.matrices[1 - i] @ found.gradients[i]) for i in (0, 1))
        assert scale_free(found) == pytest.approx(norm(expected) / (step_size**2 * halves))


def test_the_exact_hessians_of_a_transformer_give_the_same(tiny):
    flat = flatten(tiny.point)
    losses = [lambda v, which=which: tiny.plain_loss(which)(unflatten(v, tiny.point)) for which in (0, 1)]
    gradients = [torch.autograd.functional.jacobian(loss, flat) for loss in losses]
    hessians = [torch.autograd.functional.hessian(loss, flat, vectorize=True) for loss in losses]
    found = tiny.by_products()
    terms = hessians[1] @ gradients[0], hessians[0] @ gradients[1]
    assert norm(terms[0] - terms[1]) > 0.1 * norm(terms[0])
    torch.testing.assert_close(found.delta, terms[0] - terms[1], rtol=0, atol=1e-11 * norm(terms[0]))
    torch.testing.assert_close(found.terms, terms, rtol=0, atol=1e-11 * norm(terms[0]))
    torch.testing.assert_close(found.gradients, tuple(gradients))


@pytest.mark.parametrize("twice", [True, False])
def test_finite_steps_converge_linearly_to_the_products(tiny, twice):
    exact = tiny.by_products()

    def error(step_size):
        losses = [tiny.loss(which, twice) for which in (0, 1)]
        finite = finite_commutator(*losses, tiny.point, step_size)
        worst = max(norm(a - b) / norm(b) for a, b in zip(finite.terms, exact.terms, strict=True))
        return norm(finite.delta - exact.delta) / norm(exact.delta), worst

    coarse, fine = error(1e-3), error(1e-4)
    assert 0 < coarse[0] < 0.1
    assert fine[0] == pytest.approx(coarse[0] / 10, rel=0.05)
    assert fine[1] == pytest.approx(coarse[1] / 10, rel=0.05)
    assert error(1e-5)[0] == pytest.approx(coarse[0] / 100, rel=0.05)


def test_the_other_order_has_the_opposite_sign(tiny):
    gradients = [gradient_with_graph(tiny.loss(which), tiny.point) for which in (0, 1)]
    forward, backward = commutator(*gradients), commutator(*gradients[::-1])
    assert torch.equal(forward.delta, -backward.delta) and torch.equal(forward.terms[0], backward.terms[1])
    steps = [finite_commutator(tiny.loss(i), tiny.loss(1 - i), tiny.point, 1e-3).delta for i in (0, 1)]
    assert torch.equal(steps[0], -steps[1])
    assert defect(forward) == defect(backward) and scale_free(forward) == scale_free(backward)


def test_steps_that_commute_have_no_commutator(tiny):
    same = gradient_with_graph(tiny.loss(0), tiny.point)
    assert norm(commutator(same, same).delta) == 0 and scale_free(commutator(same, same)) == 0
    assert norm(finite_commutator(tiny.loss(0), tiny.loss(0), tiny.point, 1e-3).delta) == 0
    # losses that share no parameter
    point = {"x": torch.tensor([1.0, 2.0]), "y": torch.tensor([3.0])}
    losses = (lambda p: (p["x"] ** 4).sum()), (lambda p: (p["y"] ** 3).sum())
    apart = commutator(*(gradient_with_graph(loss, point) for loss in losses))
    assert norm(apart.delta) == 0 and defect(apart) == 0
    assert norm(finite_commutator(*losses, point, 1e-3).delta) == 0


def test_finite_steps_take_four_gradients_and_leave_the_point_alone(tiny):
    calls, before = [], {name: tensor.clone() for name, tensor in tiny.point.items()}

    def counted(which):
        def loss(parameters):
            calls.append((which, flatten(parameters).detach()))
            return tiny.loss(which)(parameters)

        return loss

    found = finite_commutator(counted(0), counted(1), tiny.point, 0.01)
    start = flatten(tiny.point)
    ends = [start, start, start - 0.01 * found.gradients[0], start - 0.01 * found.gradients[1]]
    assert [which for which, _ in calls] == [0, 1, 1, 0]
    for (_, at), expected in zip(calls, ends, strict=True):
        torch.testing.assert_close(at, expected)
    assert all(torch.equal(before[name], tiny.point[name]) for name in before)


def test_float32_steps_lose_to_rounding_what_products_keep(tiny):
    """The rounding of the points, spread over all entries, is what the docstring says; products do not have it."""
    single = {name: tensor.float() for name, tensor in tiny.point.items()}
    double = {name: tensor.double() for name, tensor in single.items()}
    losses, step_size = [tiny.loss(which) for which in (0, 1)], 1e-3
    exact = commutator(*(gradient_with_graph(loss, double) for loss in losses))
    by_products = commutator(*(gradient_with_graph(loss, single) for loss in losses))
    assert by_products.delta.dtype == torch.float32
    assert norm(by_products.delta.double() - exact.delta) < 1e-5 * norm(exact.delta)
    finite = finite_commutator(*losses, single, step_size)
    assert finite.delta.dtype == torch.float32
    precise = finite_commutator(*losses, double, step_size)
    error = norm(finite.delta.double() - precise.delta)
    expected = 1e-7 * norm(flatten(double)) / step_size**2
    assert expected / 10 < error < 10 * expected


def test_what_has_no_commutator_is_named():
    case = Quadratics()
    with pytest.raises(ValueError, match=r"step_size: 0\.0 is no step"):
        finite_commutator(case.loss(0), case.loss(1), case.point, 0.0)
    with pytest.raises(ValueError, match=r"step_size: -1\.0 is no step"):
        finite_commutator(case.loss(0), case.loss(1), case.point, -1.0)
    with pytest.raises(ValueError, match="step_size: nan is no step"):
        finite_commutator(case.loss(0), case.loss(1), case.point, float("nan"))
    other = gradient_with_graph(lambda p: p["x"].sum() ** 2, {"x": torch.ones(3, dtype=torch.float64)})
    with pytest.raises(ValueError, match="gradients by 6 and 3 parameters"):
        commutator(case.gradient(0), other)
    with pytest.raises(ValueError, match=r"of torch\.float64 and torch\.float32"):
        commutator(case.gradient(0), Quadratics(dtype=torch.float32).gradient(1))
    with pytest.raises(ValueError, match="parameters: they are of several dtypes"):
        finite_commutator(case.loss(0), case.loss(1), case.point | {"bias": torch.zeros(2)}, 0.1)
    with pytest.raises(ValueError, match="there is none to flatten"):
        finite_commutator(case.loss(0), case.loss(1), {}, 0.1)
    point = {"x": torch.tensor([1.0])}
    with pytest.raises(ValueError, match="not a finite scalar at the point; drop this checkpoint"):
        finite_commutator(lambda p: p["x"].sum() / 0, lambda p: p["x"].sum(), point, 0.1)
    with pytest.raises(ValueError, match="not a finite scalar at the point"):
        finite_commutator(lambda p: p["x"], lambda p: p["x"].sum(), point, 0.1)
    # 1 - 2 · 1 is negative, and has no logarithm
    with pytest.raises(ValueError, match=r"loss: it is nan .* after a step of 2\.0; lower step_size"):
        finite_commutator(lambda p: p["x"].sum(), lambda p: p["x"].log().sum(), point, 2.0)
    with pytest.raises(ValueError, match="commutator: an entry is not finite"):
        infinite = gradient_with_graph(lambda p: p["x"].sum() ** 1.5, {"x": torch.zeros(1)})
        commutator(infinite, gradient_with_graph(lambda p: p["x"].sum(), {"x": torch.zeros(1)}))
    zero = torch.zeros(2)
    with pytest.raises(ValueError, match="are zero; drop this checkpoint"):
        defect(Commutator(zero, (zero, zero), (zero, zero)))
    with pytest.raises(ValueError, match="are zero; drop this checkpoint"):
        scale_free(Commutator(zero, (zero, zero), (zero, zero)))
