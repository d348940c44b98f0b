"""Every derivative through every hand-written backward pass: right, or an error, whatever way it is asked for."""

import pytest
import torch

from learning_geometry.geometry.curvature.products import flatten, unflatten
from learning_geometry.models import TaskSizes, build, second_derivatives
from learning_geometry.models.attention import (
    attention_pattern,
    fused_attention,
    rotate,
    rotation,
    score_bias,
)
from learning_geometry.models.differentiated import Norm
from learning_geometry.models.dropout import dropped_residual
from learning_geometry.models.transformer import SETTINGS
from learning_geometry.seeding import seeded

TOKENS = torch.tensor([[0, 2, 1, 2], [1, 1, 0, 2]])
FACTORS = rotation(4, 2, 10.0, torch.float64, "cpu")
BIAS = score_bias(4, 2, True, False, torch.float64, "cpu")


def random(*shape, name=""):
    return torch.from_numpy(seeded(9, name).standard_normal(shape))


KEPT = (random(2, 4, 4, name="kept") > 0).double()


def layer_norm(x, weight, bias):
    """LayerNorm by operations whose derivatives torch has right; the third of its own one is not."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred**2).mean(-1, keepdim=True).add(1e-5).sqrt() * weight + bias


def arrays(vector, *shapes):
    return [piece.view(shape) for piece, shape in zip(vector.split([*map(product, shapes)]), shapes, strict=True)]


def product(shape):
    return int(torch.tensor(shape).prod())


SUBLAYER = ((3, 4), *[(4,)] * 6, *[(4, 4)] * 4)


def plain_attention(vector, mask=None):
    x, weight, bias, *rest = arrays(vector, *SUBLAYER)
    biases, weights = rest[:4], rest[4:]
    x = x[TOKENS]
    normed = layer_norm(x, weight, bias)
    heads = [(normed @ w.T + b).view(2, 4, 2, 2).transpose(1, 2) for w, b in zip(weights, biases, strict=True)]
    pattern = attention_pattern(rotate(heads[0], FACTORS), rotate(heads[1], FACTORS), BIAS)
    update = (pattern @ heads[2]).transpose(1, 2).reshape(2, 4, 4) @ weights[3].T + biases[3]
    return x + update if mask is None else x + mask[0] * update * mask[1]


def fused(vector, mask=None):
    x, weight, bias, *rest = arrays(vector, *SUBLAYER)
    return fused_attention(x, TOKENS, Norm(weight, bias), tuple(rest[4:]), tuple(rest[:4]), 2, FACTORS, BIAS, mask)


def written_out(vector):
    x, weight, bias, *rest = arrays(vector, *SUBLAYER)
    return sum(
        second_derivatives.attention(x, TOKENS, Norm(weight, bias), tuple(rest[4:]), tuple(rest[:4]), 2, FACTORS, BIAS)
    )


def of_norm(function):
    return lambda vector: function(*arrays(vector, (3, 4), (4,), (4,)))


def dropped(vector):
    return dropped_residual(*(part**3 for part in arrays(vector, (2, 4, 4), (2, 4, 4))), 0.5, seeded(3))


def plainly_dropped(vector):
    residual, update = (part**3 for part in arrays(vector, (2, 4, 4), (2, 4, 4)))
    kept = dropped_residual(torch.zeros_like(residual), torch.ones_like(update), 0.5, seeded(3)).detach()
    return residual + kept * update


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")

SIZE = sum(map(product, SUBLAYER))
CASES = {
    "fused_attention": (fused, plain_attention, SIZE),
    "fused_attention with dropout": (lambda v: fused(v, (KEPT, 2.0)), lambda v: plain_attention(v, (KEPT, 2.0)), SIZE),
    "second_derivatives.attention": (written_out, plain_attention, SIZE),
    "second_derivatives.layer_norm": (of_norm(second_derivatives.layer_norm), of_norm(layer_norm), 20),
    "dropped_residual": (dropped, plainly_dropped, 64),
}


def model_case(**options):
    """The whole model without a hook, against itself with one, which only torch's own derivatives act on."""
    settings = {name: schema["default"] for name, schema in SETTINGS.items()} | {"name": "transformer", "width": 4}
    model = build(settings | options, TaskSizes(3, 3, 4))
    point = {name: value.double() for name, value in model.initialise(seeded(0)).items()}

    def call(how):
        return lambda vector: model.forward(unflatten(vector, point), TOKENS, **how)

    return call({}), call({"hook": lambda name, value: value}), len(flatten(point))


def gradient(loss, point, **options):
    return torch.autograd.grad(loss(point), point, **options)[0]


def second(loss, point):
    """The Hessian's product with a vector, as the gradient of the gradient."""
    slope = gradient(loss, point, create_graph=True)
    return torch.autograd.grad(slope @ random(len(point), name="v"), point)[0]


def by_backward(loss, point):
    slope = gradient(loss, point, create_graph=True)
    (slope @ random(len(point), name="v")).backward()
    return point.grad


def third(loss, point):
    slope = gradient(loss, point, create_graph=True)
    (curved,) = torch.autograd.grad(slope @ random(len(point), name="v"), point, create_graph=True)
    return torch.autograd.grad(curved @ random(len(point), name="w"), point)[0]


def fourth(loss, point):
    result = loss(point)
    for order in range(4):
        (slope,) = torch.autograd.grad(result, point, create_graph=True)
        result = slope @ random(len(point), name=f"direction {order}")
    return slope.detach()


def batched(loss, point):
    pair = torch.tensor([1.0, -2.0], dtype=torch.float64)
    return torch.autograd.grad(loss(point), point, pair, is_grads_batched=True)[0]


def hessian(loss, point):
    """Rows of the Hessian for the first entries of the point, the others held."""

    def of_few(few):
        return loss(torch.cat([few, point[12:].detach()]))

    return torch.autograd.functional.hessian(of_few, point[:12].detach())


def vector(point):
    return random(len(point), name="v")


RIGHT = {
    "grad": gradient,
    "grad of grad": second,
    "backward of grad": by_backward,
    "third": third,
    "fourth": fourth,
    "functional.hessian": hessian,
    "functional.hvp": lambda f, x: torch.autograd.functional.hvp(f, x, vector(x))[1],
    "functional.vhp": lambda f, x: torch.autograd.functional.vhp(f, x, vector(x))[1],
    "functional.jvp": lambda f, x: torch.autograd.functional.jvp(f, x, vector(x))[1],
}
EITHER = {
    "batched grad": batched,
    "functional.hessian, vectorised": lambda f, x: torch.autograd.functional.hessian(f, x, vectorize=True),
    "functional.hessian, forward": lambda f, x: torch.autograd.functional.hessian(
        f, x, vectorize=True, outer_jacobian_strategy="forward-mode"
    ),
    "func.grad": lambda f, x: torch.func.grad(f)(x),
    "func.hessian": lambda f, x: torch.func.hessian(f)(x),
    "func.jvp": lambda f, x: torch.func.jvp(f, (x,), (vector(x),))[1],
    "func.jvp of func.grad": lambda f, x: torch.func.jvp(torch.func.grad(f), (x,), (vector(x),))[1],
    "func.jacrev of func.grad": lambda f, x: torch.func.jacrev(torch.func.grad(f))(x),
    "func.vmap": lambda f, x: torch.func.vmap(f)(torch.stack([x, x + vector(x)])),
}


def loss_of(function):
    return lambda point: (function(point) ** 2).sum() + function(point).sin().sum()


def both(case, way):
    """Return what a way of differentiating gives of the function and of its plain counterpart."""
    function, plain, size = case
    return [way(loss_of(f), random(size, name="point").requires_grad_()) for f in (function, plain)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", RIGHT)
def test_every_derivative_by_autograd_is_right(case, way):
    found, expected = both(CASES[case], RIGHT[way])
    assert float((found - expected).norm()) <= 1e-11 * float(expected.norm())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", EITHER)
def test_every_transform_is_right_or_raises(case, way):
    try:
        found, expected = both(CASES[case], EITHER[way])
    except RuntimeError as error:
        assert "autograd.Function" in str(error) or "atching" in str(error) or "not implemented" in str(error)
    else:
        assert float((found - expected).norm()) <= 1e-11 * float(expected.norm())


@pytest.mark.parametrize("case", CASES)
def test_forward_mode_raises(case):
    function, _, size = CASES[case]
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match=r"forward mode AD|forward AD"):
        function(torch.autograd.forward_ad.make_dual(random(size), random(size, name="tangent")))


@pytest.mark.parametrize("way", ["grad of grad", "backward of grad", "functional.hvp"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": 2, "mlp_width": 6, "final_norm": True},
        {"readout": "last"},
        {"norm": "none", "bias": False},
        {"norm_kind": "rms_norm", "heads": 2, "key_value_heads": 1, "head_width": 6, "rotary_width": 4},
        {"norm_bias": False, "bias": ["query_key_value", "readout"], "readout": "last", "heads": 2},
        {"norm": "post", "norm_epsilon": 0.3, "mlp_width": 6, "gated_mlp": True, "activation": "silu"},
        {"parallel_residual": True, "mlp_width": 6, "activation": "gelu_tanh", "norm_kind": "rms_norm"},
    ],
    ids=str,
)
def test_second_derivatives_through_the_default_forward_are_right(way, options):
    """They were off by 74 %, and nothing raised."""
    found, expected = both(model_case(**options), RIGHT[way])
    assert float((found - expected).norm()) <= 1e-11 * float(expected.norm())


def test_an_input_computed_from_another_is_not_counted_twice():
    """The sublayer's weights made from its stream: the second derivative has each path once."""

    def tied(function):
        def call(vector):
            mixed = vector.clone()
            mixed[-16:] = vector[:12].repeat(2)[:16].sin() * vector[-16:]
            return function(mixed)

        return call

    found, expected = both((tied(fused), tied(plain_attention), SIZE), second)
    assert float((found - expected).norm()) <= 1e-11 * float(expected.norm())


def test_third_derivative_of_layer_norm_is_the_difference_quotient_of_the_second():
    """Torch's own is wrong here (2.13), ours not."""
    function, direction = loss_of(of_norm(second_derivatives.layer_norm)), random(20, name="w")

    def curved(point):
        return second(function, point.requires_grad_())

    point, step = random(20, name="point"), 1e-5
    quotient = (curved(point + step * direction) - curved(point - step * direction)) / (2 * step)
    found = third(function, point.clone().requires_grad_())
    assert float((found - quotient).norm()) <= 1e-7 * float(quotient.norm())
