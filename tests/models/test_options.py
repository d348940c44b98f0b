"""Options of the transformer: what they mean, by hand, what a hook sees of them, and which do not go together."""

import re

import pytest
import torch
from torch.nn.functional import silu

from learning_geometry.config import validate
from learning_geometry.config.machine import needs_of
from learning_geometry.model_options import layer_weights, problems
from learning_geometry.models import TaskSizes, build, second_derivatives
from learning_geometry.models.attention import fused_attention, rotate, rotation, score_bias
from learning_geometry.models.differentiated import Norm
from learning_geometry.models.transformer import SETTINGS
from learning_geometry.planning.work import sequence_operations
from learning_geometry.seeding import seeded
from learning_geometry.tasks import load as load_task

DEFAULTS = {key: value["default"] for key, value in SETTINGS.items()} | {"name": "transformer"}


def random(*shape, name=""):
    return torch.from_numpy(seeded(9, name).standard_normal(shape))


def make(**options):
    model = build(DEFAULTS | {"width": 8} | options, TaskSizes(11, 11, 9))
    return model, {name: random(*value.shape, name=name) for name, value in model.initialise(seeded(0)).items()}


def seen_of(model, parameters):
    seen = {}

    def see(name, value):
        seen[name] = value
        return value

    model.forward(parameters, torch.from_numpy(seeded(1).integers(11, size=(3, 9))), hook=see)
    return seen


def linear(parameters, name, x):
    y = x @ parameters[f"{name}.weight"].T
    return y + parameters[f"{name}.bias"] if f"{name}.bias" in parameters else y


def root_mean_square_norm(x, weight, epsilon):
    return x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt() * weight


def test_a_gated_mlp_and_a_root_mean_square_norm_by_hand():
    model, parameters = make(
        mlp_width=12, gated_mlp=True, activation="silu", norm_kind="rms_norm", norm_epsilon=0.2, bias=["mlp"]
    )
    assert not [name for name in parameters if name.endswith("norm.bias")]
    seen = seen_of(model, parameters)
    at = "layers.1"
    x = root_mean_square_norm(seen[f"{at}.residual_mid"], parameters[f"{at}.mlp_norm.weight"], 0.2)
    hidden = silu(linear(parameters, f"{at}.mlp.gate", x)) * linear(parameters, f"{at}.mlp.up", x)
    torch.testing.assert_close(seen[f"{at}.mlp.hidden"], hidden)
    output = linear(parameters, f"{at}.mlp.down", hidden)
    torch.testing.assert_close(seen[f"{at}.mlp.output"], output)
    torch.testing.assert_close(seen[f"{at}.residual_post"], seen[f"{at}.residual_mid"] + output)


def test_parallel_sublayers_read_the_same_stream_and_residual_mid_is_a_sum_that_is_not_read():
    model, parameters = make(mlp_width=12, parallel_residual=True, norm_kind="rms_norm")
    seen, at = seen_of(model, parameters), "layers.1"
    entered = seen[f"{at}.residual_pre"]
    torch.testing.assert_close(seen[f"{at}.residual_mid"], entered + seen[f"{at}.attention.output"])
    x = root_mean_square_norm(entered, parameters[f"{at}.mlp_norm.weight"], 1e-5)
    hidden = torch.nn.functional.gelu(linear(parameters, f"{at}.mlp.up", x))
    torch.testing.assert_close(seen[f"{at}.mlp.output"], linear(parameters, f"{at}.mlp.down", hidden))
    torch.testing.assert_close(seen[f"{at}.residual_post"], seen[f"{at}.residual_mid"] + seen[f"{at}.mlp.output"])


@pytest.mark.parametrize("mlp_width", [0, 12])
def test_a_norm_after_a_sublayer_is_in_the_stream_that_the_hook_sees(mlp_width):
    model, parameters = make(mlp_width=mlp_width, norm="post")
    seen, at = seen_of(model, parameters), "layers.1"

    def norm(x, name):
        return torch.nn.functional.layer_norm(x, (8,), parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    middle = norm(seen[f"{at}.residual_pre"] + seen[f"{at}.attention.output"], f"{at}.attention_norm")
    torch.testing.assert_close(seen[f"{at}.residual_mid"], middle)
    expected = norm(middle + seen[f"{at}.mlp.output"], f"{at}.mlp_norm") if mlp_width else middle
    torch.testing.assert_close(seen[f"{at}.residual_post"], expected)


def test_shared_heads_are_as_many_heads_with_copies():
    shared, parameters = make(heads=4, key_value_heads=2, head_width=6)
    assert parameters["layers.0.attention.query.weight"].shape == (24, 8)
    assert parameters["layers.0.attention.key.weight"].shape == (12, 8)
    assert parameters["layers.0.attention.value.bias"].shape == (12,)
    assert parameters["layers.0.attention.output.weight"].shape == (8, 24)
    each, _ = make(heads=4, head_width=6)
    copied = dict(parameters)
    for name, value in parameters.items():
        if ".key." in name or ".value." in name:
            by_head = value.unflatten(0, (2, 6))
            copied[name] = torch.stack([by_head[h // 2] for h in range(4)]).flatten(0, 1)
    found, expected = seen_of(shared, parameters), seen_of(each, copied)
    torch.testing.assert_close(found["logits"], expected["logits"])
    assert found["layers.0.attention.key"].shape == (3, 2, 9, 6)
    assert found["layers.0.attention.pattern"].shape == (3, 4, 9, 9)
    assert found["layers.0.attention.z"].shape == (3, 9, 24)


def test_partial_rotary_turns_the_first_numbers_as_a_head_of_that_width():
    x = random(5, 8)
    turned = rotate(x, rotation(5, 8, 100.0, torch.float64, "cpu", 4))
    torch.testing.assert_close(turned[:, :4], rotate(x[:, :4], rotation(5, 4, 100.0, torch.float64, "cpu")))
    assert torch.equal(turned[:, 4:], x[:, 4:])


@pytest.mark.parametrize(
    ("bias", "layers"),
    [
        ([], set()),
        (False, set()),
        (["query_key_value"], {"query", "key", "value"}),
        (["output", "mlp"], {"output", "gate", "up", "down"}),
        (["readout"], {"readout"}),
        (True, {"query", "key", "value", "output", "gate", "up", "down", "readout"}),
    ],
)
def test_biases_are_those_of_the_layers_named(bias, layers):
    _, parameters = make(bias=bias, mlp_width=12, gated_mlp=True)
    biased = {name.split(".")[-2] for name in parameters if name.endswith("bias")}
    assert biased - {"attention_norm", "mlp_norm"} == layers


@pytest.mark.parametrize("options", [{}, {"heads": 4, "key_value_heads": 2, "head_width": 6, "mlp_width": 5}], ids=str)
@pytest.mark.parametrize("gated", [False, True])
def test_the_number_of_a_layers_weights_is_that_of_its_parameters(options, gated):
    options = options | {"gated_mlp": gated, "mlp_width": options.get("mlp_width", int(gated))}
    model, parameters = make(**options, layers=1)
    matrices = [value for name, value in parameters.items() if name.startswith("layers.") and value.ndim == 2]
    assert layer_weights(model.settings) == sum(value.numel() for value in matrices)


def test_estimates_count_the_numbers_of_a_model_with_these_options():
    """Multiplications of a position by its matrices, and with each other's keys; and the bytes of the parameters."""
    sections = {"seeds": [0], "task": {"name": "copying", "vocabulary": 11, "length": 64}, "training": {"steps": 10}}
    options = {"width": 8, "heads": 4, "key_value_heads": 1, "head_width": 6, "mlp_width": 12, "gated_mlp": True}
    options |= {"bias": False, "norm": "none"}
    experiment = validate({"experiments": {"a": sections | {"model": options, "measurements": {}}}})["experiments"]["a"]
    task, length = load_task(experiment["task"]), experiment["task"]["length"]
    sizes = TaskSizes(task.vocabulary(experiment["task"]), task.outputs(experiment["task"]), length)
    parameters = build(experiment["model"], sizes).initialise(seeded(0))
    layers = sum(value.numel() for name, value in parameters.items() if name.startswith("layers"))
    attention = 2 * 2 * length**2 * 24  # scores and mix of 4 heads of 6, in 2 layers
    assert sequence_operations(experiment) == 6 * (length * (layers + sizes.outputs * 8) + attention)
    (needed,) = [need for need in needs_of(experiment, task) if "parameters, gradients" in need.what]
    assert needed.bytes == 4 * 4 * sum(value.numel() for value in parameters.values())


SUBLAYERS = [
    # x, shared heads, root mean square, biases
    (False, 1, True, "all"),
    (True, 2, True, "none"),
    (False, 2, False, "all but the norm's"),
    (True, 1, False, "query and output"),
]


@pytest.mark.parametrize(("by_token", "shared", "root_mean_square", "biased"), SUBLAYERS)
@pytest.mark.parametrize("how", ["fused", "written out"])
def test_attention_with_shared_wide_heads_against_finite_differences(how, by_token, shared, root_mean_square, biased):
    """Two query heads of width 6, of which four numbers are turned, on a stream of width 4."""
    tokens = torch.tensor([[0, 2, 1], [1, 1, 0]])
    x = random(3, 4) if by_token else random(2, 3, 4)
    rows = (12, 6 * shared, 6 * shared)
    weights = [random(count, 4, name=f"m{i}") for i, count in enumerate(rows)] + [random(4, 12, name="o")]
    wanted = {"all": (0, 1, 2, 3), "none": (), "all but the norm's": (0, 1, 2, 3), "query and output": (0, 3)}[biased]
    biases = [random(count, name=f"b{i}") if i in wanted else None for i, count in enumerate((*rows, 4))]
    norm_bias = None if root_mean_square or biased == "all but the norm's" else random(4, name="nb")
    factors = rotation(3, 6, 10.0, torch.float64, "cpu", 4)
    bias = score_bias(3, 2, True, False, torch.float64, "cpu")
    given = [x, random(4, name="n"), norm_bias, *weights, *biases]
    present = [value is not None for value in given]

    def function(*inputs):
        rest = iter(inputs)
        x, weight, shift, *arrays = [next(rest) if here else None for here in present]
        norm = Norm(weight, shift, 0.1, root_mean_square)
        arguments = (x, tokens if by_token else None, norm, tuple(arrays[:4]), tuple(arrays[4:]), 2, factors, bias)
        return fused_attention(*arguments) if how == "fused" else sum(second_derivatives.attention(*arguments))

    inputs = [value.requires_grad_() for value in given if value is not None]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_layer_norm_without_a_bias_has_third_derivatives():
    def norm(x, weight):
        return second_derivatives.layer_norm(x, weight, None, 0.1)

    def plain(x, weight):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 0.1).sqrt() * weight

    results = []
    for function in (norm, plain):
        inputs = [random(3, 5, name="x").requires_grad_(), random(5, name="w").requires_grad_()]
        value = function(*inputs).sin().sum()
        for order in range(3):
            gradients = torch.autograd.grad(value, inputs, create_graph=True)
            value = sum((g * random(*g.shape, name=f"{order}")).sum() for g in gradients)
        results.append(gradients)
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


REFUSED = [
    ({"heads": 4, "key_value_heads": 3}, "key_value_heads: 3 does not divide the 4 heads; use one of 1, 2, 4, or null"),
    ({"heads": 3}, "heads: 3 does not divide the width 8; use one of 1, 2, 4, 8"),
    ({"head_width": 5}, "head_width: rotary positions need an even head width, and it is 5; change it, or set"),
    ({"rotary_width": 3}, "rotary_width: 3 is odd, and pairs are turned; use an even number"),
    ({"rotary_width": 10}, "rotary_width: 10 is above the head width, 8; lower it"),
    ({"rotary_width": 6, "heads": 2}, "rotary_width: 6 is above the head width, 4; lower it"),
    ({"rotary_width": 2, "positions": "alibi"}, "rotary_width: positions: alibi turns nothing; set it to null"),
    ({"rotary_width": 2, "positions": "none"}, "rotary_width: positions: none turns nothing"),
    ({"rotary_width": 2, "positions": "learned"}, "rotary_width: positions: learned turns nothing"),
    ({"gated_mlp": True}, "gated_mlp: the model has no MLP; set mlp_width, or this to false"),
    ({"parallel_residual": True}, "parallel_residual: the model has no MLP; set mlp_width, or this to false"),
    ({"bias": ["mlp"]}, "bias: mlp is named, and the model has no MLP; set mlp_width, or remove it"),
    (
        {"parallel_residual": True, "mlp_width": 4, "norm": "post"},
        "parallel_residual: norm: post norms the stream between attention and MLP, which are side by side",
    ),
    ({"norm": "none", "norm_kind": "rms_norm"}, "norm_kind: the model has no norms; leave it out, or set norm to"),
    ({"norm": "none", "norm_bias": False}, "norm_bias: the model has no norms"),
    ({"norm": "none", "norm_epsilon": 0.1}, "norm_epsilon: the model has no norms"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda value: str(value)[:50])
def test_options_that_do_not_go_together_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"head_width": 3, "positions": "alibi"},
        {"heads": 3, "head_width": 4},
        {"heads": 3, "head_width": 4, "key_value_heads": 3},
        {"norm": "none", "final_norm": True, "norm_kind": "rms_norm"},
        {"norm_kind": "rms_norm", "norm_bias": False},
        {"rotary_width": 8},
    ],
    ids=str,
)
def test_what_goes_together_is_not_refused(options):
    model, parameters = make(**options)
    assert torch.isfinite(seen_of(model, parameters)["logits"]).all()


def test_models_of_ones_own_that_lack_these_settings_are_not_refused():
    assert list(problems({})) == list(problems({"width": 8, "bias": False})) == []
