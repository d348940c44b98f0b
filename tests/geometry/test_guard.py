"""A curvature product that autograd gets wrong is refused, a right one passes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from learning_geometry.geometry.curvature.density import spectral_density
from learning_geometry.geometry.curvature.guard import Guarded
from learning_geometry.geometry.curvature.lanczos import extreme_eigenpairs, largest_eigenpair
from learning_geometry.geometry.curvature.products import gradient_with_graph
from learning_geometry.geometry.curvature.trace import hutch_plus_plus
from learning_geometry.models import TaskSizes, build
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.models.transformer import SETTINGS
from learning_geometry.seeding import seeded

DTYPES = (torch.float32, torch.float64)


def random(*shape, name="", dtype=torch.float64):
    return torch.from_numpy(seeded(9, name).standard_normal(shape)).to(dtype)


class Forgetful(torch.autograd.Function):
    """A cube whose backward pass has no derivative of its own, as a fused kernel's."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 3 * ctx.saved_tensors[0].detach() ** 2


def forgetful(p):
    return (Forgetful.apply(p["w"]) * torch.arange(1, 7).to(p["w"])).sum() + (p["w"] ** 2).sum()


def normed(p):
    """A linear layer with torch's weight_norm, whose second derivative torch 2.13 gets wrong."""
    return (F.linear(random(5, 4, name="x", dtype=p["v"].dtype), torch._weight_norm(p["v"], p["g"], 0)) ** 3).sum()


def point(*shapes, dtype):
    return {name: random(*shape, name=name, dtype=dtype) for name, shape in shapes}


def iterations(product, size, dtype):
    generator = np.random.default_rng(0)
    return {
        "both ends": lambda: extreme_eigenpairs(product, size, 1e-3, 1e-3, dtype=dtype),
        "lanczos": lambda: largest_eigenpair(product, size, 1e-3, dtype=dtype),
        "trace": lambda: hutch_plus_plus(product, size, 2, 0, generator, dtype),
        "density": lambda: spectral_density(product, size, 2, 3, generator, dtype),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("how", ["both ends", "lanczos", "trace", "density"])
def test_a_backward_pass_without_a_derivative_is_refused_by_every_measure(dtype, how):
    product = gradient_with_graph(forgetful, point(("w", (6,)), dtype=dtype)).product
    with pytest.raises(ValueError, match=r"not the derivative of the gradient: ‖Hw‖ is .* difference quotient"):
        iterations(product, 6, dtype)[how]()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weight_norm_is_refused(dtype):
    at = gradient_with_graph(normed, point(("g", (3, 1)), ("v", (3, 4)), dtype=dtype))
    with pytest.raises(ValueError, match=r"not symmetric: w·Hv is|not the derivative of the gradient"):
        at.product(random(15, name="u", dtype=dtype))


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_loss_is_refused():
    """Its curvature came out as exactly 0, and converged."""
    inputs = random(5, 4, name="x")
    loss = torch.compile(lambda p: ((inputs @ p["w"].T).tanh() ** 3).sum(), backend="aot_eager")
    at = gradient_with_graph(loss, point(("w", (3, 4)), dtype=torch.float64))
    with pytest.raises(ValueError, match=r"‖Hw‖ is 0, the difference quotient"):
        largest_eigenpair(at.product, 12, 1e-3, dtype=torch.float64)


def test_a_loss_that_takes_no_double_precision_is_checked_in_its_own():
    weights = torch.arange(1.0, 7.0)

    def loss(p, cube):
        return (cube(p["w"]).unsqueeze(0) @ weights.unsqueeze(1)).sum()

    here = point(("w", (6,)), dtype=torch.float32)
    assert torch.allclose(
        gradient_with_graph(lambda p: loss(p, lambda x: x**3), here).product(torch.ones(6)), 6 * here["w"] * weights
    )
    with pytest.raises(ValueError, match="not the derivative of the gradient"):
        gradient_with_graph(lambda p: loss(p, Forgetful.apply), here).product(torch.ones(6))


def test_quotients_that_do_not_agree_with_each_other_judge_nothing():
    # in single precision the steps are long, and this loss turns many times within one of them
    def loss(p):
        return ((1e4 * p["w"]).sin().unsqueeze(0) @ torch.arange(1.0, 7.0).unsqueeze(1)).sum()

    here = point(("w", (6,)), dtype=torch.float32)
    vector = random(6, name="v", dtype=torch.float32)
    expected = -1e8 * (1e4 * here["w"]).sin() * torch.arange(1.0, 7.0) * vector
    assert torch.allclose(gradient_with_graph(loss, here).product(vector), expected, rtol=1e-4)


def test_without_a_quotient_the_symmetry_alone_is_checked():
    matrix = random(8, 8, name="m")
    vector = random(8, name="v")
    assert torch.equal(Guarded(lambda v: (matrix + matrix.T) @ v)(vector), (matrix + matrix.T) @ vector)
    with pytest.raises(ValueError, match="product: it is not symmetric"):
        Guarded(lambda v: matrix @ v)(vector)


def test_a_matrix_that_is_not_symmetric_is_refused_by_the_iterations_themselves():
    matrix = random(8, 8, name="m")
    for made in (matrix, matrix.float()):
        with pytest.raises(ValueError, match="not symmetric"):
            extreme_eigenpairs(lambda v, made=made: made @ v, 8, 1e-3, 1e-3, dtype=made.dtype)
        with pytest.raises(ValueError, match="not symmetric"):
            largest_eigenpair(lambda v, made=made: made @ v, 8, 1e-3, dtype=made.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_right_products_pass_and_are_left_as_they_are(dtype):
    here = point(("w", (6,)), dtype=dtype)
    losses = {
        "linear": lambda p: p["w"].sum(),
        "constant": lambda p: p["w"].sum() * 0 + 3,
        "quadratic at its minimum": lambda p: ((p["w"] - here["w"].to(p["w"])) ** 2).sum(),
        "saturated": lambda p: F.softplus(-20 - p["w"]).sum(),
        "tiny": lambda p: 1e-12 * (p["w"] ** 3).sum(),
        "huge": lambda p: 1e12 * (p["w"] ** 3).sum(),
        "kinks": lambda p: (p["w"].relu() ** 2).sum(),
        "invariant": lambda p: (p["w"].softmax(0).sum() + 4) ** 2,
        "quartic at its minimum": lambda p: ((p["w"] - here["w"].to(p["w"])) ** 4).sum(),
        "cubic at its saddle": lambda p: ((p["w"] - here["w"].to(p["w"])) ** 3).sum(),
    }
    for name, loss in losses.items():
        checked, free = (gradient_with_graph(loss, here, check=check) for check in (True, False))
        vector = random(6, name="v", dtype=dtype)
        assert torch.equal(checked.product(vector), free.product(vector)), name


@pytest.mark.parametrize(
    "options", [{}, {"mlp_width": 128, "activation": "relu"}, {"mlp_width": 32, "final_norm": True}], ids=str
)
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_products_of_transformers_in_single_precision_pass(options, scale):
    settings = {name: schema["default"] for name, schema in SETTINGS.items()}
    model = build(settings | {"name": "transformer", "width": 16} | options, TaskSizes(11, 11, 32))
    tokens = torch.from_numpy(seeded(1).integers(11, size=(32, 32)))
    for seed in range(3):
        here = {name: scale * value for name, value in model.initialise(seeded(seed)).items()}
        at = gradient_with_graph(
            lambda p: cross_entropy(model.forward(p, tokens, twice_differentiable=True), tokens.flip(1)), here
        )
        at.product(at.gradient)
        for name in ("layers.0.attention.key.bias", "layers.1.attention.query.weight"):
            for dtype in DTYPES if scale < 4 else (torch.float64,):
                # the others in float32 alone: the block is then checked in float32 too

                def loss(p, here=here, dtype=dtype, name=name):
                    others = here if dtype == torch.float32 else {k: v.to(p[name]) for k, v in here.items()}
                    return cross_entropy(model.forward(others | p, tokens, twice_differentiable=True), tokens.flip(1))

                block = gradient_with_graph(loss, {name: here[name]})
                block.product(torch.ones_like(block.gradient))
