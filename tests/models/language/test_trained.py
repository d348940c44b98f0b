"""The workflow's own transformer behind the interface of language models, against its own forward pass."""

import numpy as np
import pytest
import torch

from learning_geometry.geometry.head_products import output_value_products, query_key_products
from learning_geometry.models import TaskSizes, build
from learning_geometry.models.language.self_check import check_identities
from learning_geometry.models.language.trained import language_model
from learning_geometry.models.transformer import SETTINGS
from learning_geometry.seeding import seeded

DEFAULTS = {key: value["default"] for key, value in SETTINGS.items()} | {"name": "transformer"}
VARIANTS = [
    {"heads": 4, "mlp_width": 12, "final_norm": True},
    {"heads": 2, "mlp_width": 12, "norm": "none", "bias": False, "activation": "relu"},
    {"heads": 1, "positions": "learned"},
    {"heads": 2, "mlp_width": 12, "readout": "last", "positions": "alibi"},
    {"heads": 4, "key_value_heads": 2, "head_width": 6, "mlp_width": 12, "gated_mlp": True, "norm_kind": "rms_norm"},
    {"heads": 2, "mlp_width": 12, "parallel_residual": True, "norm_epsilon": 0.1, "rotary_width": 2},
    {"heads": 2, "mlp_width": 12, "norm": "post", "final_norm": True},
]


def make(**options):
    model = build(DEFAULTS | {"width": 8} | options, TaskSizes(11, 11, 9))
    parameters = model.initialise(seeded(0))
    for name, value in parameters.items():
        if "norm" in name:
            value += torch.from_numpy(seeded(1, name).standard_normal(value.shape, dtype=np.float32))
    return model, parameters, language_model(model, parameters, "ours", {"step": 7})


def some_tokens():
    return torch.from_numpy(seeded(1).integers(11, size=(3, 9)))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_activations_are_those_of_the_forward_pass(options):
    model, parameters, ours = make(**options)
    expected = {}

    def see(name, value):
        expected[name] = value
        return value

    logits = model.forward(parameters, some_tokens(), hook=see)
    assert torch.equal(ours.forward(some_tokens(), hook=lambda _name, value: value), logits)
    torch.testing.assert_close(ours.forward(some_tokens()), logits)
    found = ours.activations(some_tokens(), ours.names)
    assert list(found) == ours.names
    for name in ours.names:
        if not name.endswith("mlp.input"):
            assert torch.equal(found[name], expected[name.replace("projected", "output")]), name
    assert ("layers.1.mlp.output" in found) == bool(options.get("mlp_width"))


@pytest.mark.parametrize("options", [variant for variant in VARIANTS if variant.get("mlp_width")], ids=str)
def test_the_mlps_input_and_weights_give_its_output(options):
    _, parameters, ours = make(**options)
    found = ours.activations(some_tokens(), ours.names)
    function = getattr(torch.nn.functional, options.get("activation", "gelu"))
    for layer in range(2):
        weights = ours.layer_weights(layer)
        assert weights.activation == options.get("activation", "gelu")
        hidden = function(
            torch.nn.functional.linear(found[f"layers.{layer}.mlp.input"], weights.gate, weights.gate_bias)
        )
        if options.get("gated_mlp"):
            up = [parameters[f"layers.{layer}.mlp.up.{kind}"] for kind in ("weight", "bias")]
            hidden = hidden * torch.nn.functional.linear(found[f"layers.{layer}.mlp.input"], *up)
        output = torch.nn.functional.linear(hidden, weights.down, weights.down_bias)
        torch.testing.assert_close(output, found[f"layers.{layer}.mlp.output"])
        z = torch.nn.functional.linear(found[f"layers.{layer}.attention.z"], weights.output, weights.output_bias)
        torch.testing.assert_close(z, found[f"layers.{layer}.attention.output"])


def test_without_an_mlp_there_is_no_gate():
    weights = make(heads=1)[2].layer_weights(0)
    assert weights.down is None and weights.gate is None and weights.gate_bias is None and not weights.activation


def test_products_are_those_of_the_house():
    _, parameters, ours = make(heads=4)
    arrays = {
        role: parameters[f"layers.1.attention.{role}.weight"].numpy() for role in ("query", "key", "value", "output")
    }
    np.testing.assert_allclose(ours.query_key(1), query_key_products(arrays["query"], arrays["key"], 4), rtol=1e-12)
    np.testing.assert_array_equal(
        ours.output_value(1, [2, 3]), output_value_products(arrays["output"], arrays["value"], 4)[[2, 3]]
    )


def test_products_with_shared_heads_are_those_of_the_house():
    _, parameters, ours = make(heads=4, key_value_heads=2, head_width=6)
    arrays = {
        role: parameters[f"layers.1.attention.{role}.weight"].numpy() for role in ("query", "key", "value", "output")
    }
    assert ours.layer_weights(1).key.shape == ours.layer_weights(1).value.shape == (24, 8)
    np.testing.assert_allclose(ours.query_key(1), query_key_products(arrays["query"], arrays["key"], 4), rtol=1e-12)
    np.testing.assert_array_equal(ours.output_value(1), output_value_products(arrays["output"], arrays["value"], 4))


@pytest.mark.parametrize(
    "options", [{"parallel_residual": True}, {"gated_mlp": True, "norm_kind": "rms_norm"}, {"norm": "none"}], ids=str
)
def test_activations_are_what_their_names_say(options):
    check_identities(make(mlp_width=12, heads=2, **options)[2])


def test_what_the_hook_returns_is_used_but_for_what_the_mlp_reads():
    _, _, ours = make(heads=2, mlp_width=12)
    plain = ours.forward(some_tokens())
    for name in ours.names:

        def hook(each, value, name=name):
            return value + 1 if each == name else value

        if name.endswith("mlp.input"):
            with pytest.raises(ValueError, match=f"{name}: cannot be replaced"):
                ours.forward(some_tokens(), hook=hook)
        else:
            assert (ours.forward(some_tokens(), hook=hook) - plain).abs().max() > 1e-3, name


def test_what_it_cannot_read_is_said():
    _, _, ours = make(positions="learned")
    assert ours.sizes.context == 9 and make()[2].sizes.context is None
    with pytest.raises(ValueError, match="ours: 10 tokens in a sequence, and the model's context is 9"):
        ours.forward(torch.zeros(1, 10, dtype=torch.int64))
    mask = torch.ones(3, 9, dtype=torch.bool)
    torch.testing.assert_close(ours.forward(some_tokens(), mask), ours.forward(some_tokens()))
    mask[0, 0] = False
    with pytest.raises(ValueError, match="reads no padding"):
        ours.forward(some_tokens(), mask)
