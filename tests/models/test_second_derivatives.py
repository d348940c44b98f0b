"""The written-out second derivatives against finite differences and against autograd's own."""

import pytest
import torch

from learning_geometry.geometry.curvature.products import flatten, gradient_with_graph
from learning_geometry.models import TaskSizes, build, second_derivatives
from learning_geometry.models.attention import rotation, score_bias
from learning_geometry.models.differentiated import Norm
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.models.transformer import SETTINGS
from learning_geometry.seeding import seeded

DEFAULTS = {key: value["default"] for key, value in SETTINGS.items()} | {"name": "transformer", "width": 8}
LLAMA = {
    "heads": 4,
    "key_value_heads": 2,
    "head_width": 6,
    "norm_kind": "rms_norm",
    "norm_epsilon": 1e-3,
    "mlp_width": 12,
    "gated_mlp": True,
    "activation": "silu",
    "bias": False,
    "final_norm": True,
}
NEOX = {
    "heads": 2,
    "rotary_width": 2,
    "parallel_residual": True,
    "mlp_width": 12,
    "final_norm": True,
    "bias": ["query_key_value", "output", "mlp"],
}
VARIANTS = [
    {},
    {"heads": 2},
    {"heads": 2, "positions": "alibi", "layers": 3},
    {"heads": 4, "positions": "learned", "bias": False},
    {"heads": 2, "positions": "none", "causal": False, "norm": "none"},
    {"norm": "none", "bias": False, "positions": "alibi"},
    {"heads": 2, "mlp_width": 12, "final_norm": True, "tied_readout": True},
    {"mlp_width": 12, "activation": "relu", "readout": "last"},
    {"layers": 1, "positions": "learned", "final_norm": True},
    {"norm": "post", "mlp_width": 12, "heads": 2, "final_norm": True},
    {"norm_kind": "rms_norm", "mlp_width": 12, "final_norm": True},
    {"norm_kind": "rms_norm", "norm": "post", "readout": "last", "mlp_width": 12},
    {"norm_bias": False, "norm_epsilon": 0.1},
    {"mlp_width": 12, "activation": "gelu_tanh"},
    {"mlp_width": 12, "activation": "silu", "gated_mlp": True},
    {"heads": 4, "key_value_heads": 2},
    {"heads": 4, "key_value_heads": 1, "head_width": 6, "positions": "alibi"},
    {"head_width": 10, "heads": 2, "readout": "last", "key_value_heads": 1},
    {"heads": 2, "rotary_width": 2},
    {"parallel_residual": True, "mlp_width": 12, "heads": 2},
    {"parallel_residual": True, "mlp_width": 12, "norm": "none", "readout": "last"},
    {"bias": ["query_key_value"], "mlp_width": 12},
    {"bias": ["output", "mlp"], "mlp_width": 12, "gated_mlp": True},
    {"bias": ["readout"], "heads": 2, "tied_readout": True, "layers": 3},
    LLAMA,
    NEOX,
    NEOX | {"readout": "last", "key_value_heads": 1},
]


def random(*shape, name="", dtype=torch.float64):
    return torch.from_numpy(seeded(9, name).standard_normal(shape)).to(dtype)


def see(name, value):
    return value


def both_gradients(options, dtype, batch=4):
    """Gradients with graph of the plain attention, which a hook asks for, and of the written-out one."""
    model = build(DEFAULTS | options, TaskSizes(11, 11, 9))
    parameters = {k: v.to(dtype) for k, v in model.initialise(seeded(0)).items()}
    # norms that are not the identity
    for name, value in parameters.items():
        if "norm" in name:
            value += 0.3 * random(*value.shape, name=name, dtype=dtype)
    tokens = torch.from_numpy(seeded(1).integers(11, size=(batch, 9)))
    targets = torch.from_numpy(seeded(2).integers(11, size=(batch, 9)))
    targets[:, -2] = -100
    return [
        gradient_with_graph(lambda p, how=how: cross_entropy(model.forward(p, tokens, **how), targets), parameters)
        for how in ({"hook": see}, {"twice_differentiable": True})
    ]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("batch", [1, 4])
def test_products_agree_with_those_of_plain_autograd(options, dtype, tolerance, batch):
    # with one sequence of 9 tokens of 11 the first layer works by position, with four by token
    plain, ours = both_gradients(options, dtype, batch)
    assert ours.value == pytest.approx(plain.value, rel=tolerance)
    torch.testing.assert_close(ours.gradient, plain.gradient, rtol=0, atol=tolerance * float(plain.gradient.norm()))
    for vector in (random(len(ours.gradient), name="a", dtype=dtype), ours.gradient):
        expected = plain.product(vector)
        assert float((ours.product(vector) - expected).norm()) <= 3 * tolerance * float(expected.norm())


def test_products_are_symmetric():
    _, at = both_gradients({"heads": 2, "final_norm": True}, torch.float64)
    left, right = (random(len(at.gradient), name=name) for name in "ab")
    assert float(left @ at.product(right)) == pytest.approx(float(right @ at.product(left)), rel=1e-12)


@pytest.mark.parametrize(
    "block", ["layers.0.attention.query.weight", "embedding.weight", "layers.1.attention_norm.bias"]
)
def test_one_block_of_parameters_has_its_block_of_the_hessian(block):
    model = build(DEFAULTS, TaskSizes(11, 11, 9))
    parameters = {k: v.double() for k, v in model.initialise(seeded(0)).items()}
    tokens = torch.from_numpy(seeded(1).integers(11, size=(4, 9)))

    def loss(p):
        return cross_entropy(model.forward(parameters | p, tokens, twice_differentiable=True), tokens.flip(1))

    whole, part = gradient_with_graph(loss, parameters), gradient_with_graph(loss, {block: parameters[block]})
    vector = random(len(part.gradient))
    placed = flatten({k: vector.view(v.shape) if k == block else torch.zeros_like(v) for k, v in parameters.items()})
    mask = flatten({k: torch.full_like(v, k == block) for k, v in parameters.items()}).bool()
    torch.testing.assert_close(part.product(vector), whole.product(placed)[mask], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
def test_attention_against_finite_differences(heads, by_token, rotary):
    tokens = torch.tensor([[0, 2, 1, 2], [1, 1, 0, 2]])
    x = random(3, 4) if by_token else random(2, 4, 4)
    factors = rotation(4, 4 // heads, 10.0, torch.float64, "cpu") if rotary else None
    bias = score_bias(4, heads, True, False, torch.float64, "cpu")
    arrays = [random(4, name=f"v{i}") for i in range(6)] + [random(4, 4, name=f"m{i}") for i in range(4)]

    def function(x, *arrays):
        where = tokens if by_token else None
        norm, biases, weights = Norm(*arrays[:2]), arrays[2:6], arrays[6:]
        residual, update = second_derivatives.attention(x, where, norm, weights, biases, heads, factors, bias)
        return residual + update

    inputs = [value.requires_grad_() for value in (x, *arrays)]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_layer_norm_against_finite_differences():
    inputs = [value.requires_grad_() for value in (random(3, 5, name="x"), random(5, name="w"), random(5, name="b"))]
    assert torch.autograd.gradgradcheck(second_derivatives.layer_norm, inputs)
