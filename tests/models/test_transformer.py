"""The transformer against torch's own layers, closed forms, and itself."""

import itertools
import math

import numpy as np
import pytest
import torch

from learning_geometry.models import TaskSizes, build
from learning_geometry.models.attention import attention_pattern, rotate, rotation, score_bias
from learning_geometry.models.dropout import dropped_residual
from learning_geometry.models.transformer import SETTINGS
from learning_geometry.seeding import seeded

DEFAULTS = {key: value["default"] for key, value in SETTINGS.items()} | {"name": "transformer"}


def make(shape=(11, 11, 9), dtype=torch.float64, **options):
    model = build(DEFAULTS | {"width": 8} | options, TaskSizes(*shape))
    parameters = {k: v.to(dtype) for k, v in model.initialise(seeded(0)).items()}
    return model, parameters


def some_tokens(vocabulary=11, length=9, batch=3):
    return torch.from_numpy(seeded(1).integers(vocabulary, size=(batch, length)))


VARIANTS = [
    {"heads": 1},
    {"heads": 2, "positions": "alibi"},
    {"heads": 4, "positions": "learned", "bias": False},
    {"heads": 2, "positions": "none", "causal": False, "norm": "none"},
    {"heads": 2, "mlp_width": 12, "final_norm": True, "tied_readout": True},
    {"heads": 1, "mlp_width": 12, "activation": "relu", "readout": "last", "layers": 3},
    {"norm": "post", "heads": 2, "key_value_heads": 1, "head_width": 6, "norm_kind": "rms_norm", "mlp_width": 12},
    {"heads": 2, "rotary_width": 2, "parallel_residual": True, "mlp_width": 12, "norm_bias": False},
    {"bias": ["output"], "mlp_width": 12, "gated_mlp": True, "activation": "silu", "norm_epsilon": 0.1},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_fused_and_explicit_attention_agree_in_values_and_gradients(options, batch):
    model, parameters = make(**options)
    tokens = some_tokens(batch=batch)
    results = []
    for twice in (False, True):
        leaves = {k: v.clone().requires_grad_() for k, v in parameters.items()}
        logits = model.forward(leaves, tokens, twice_differentiable=twice)
        weights = torch.from_numpy(seeded(2).standard_normal(tuple(logits.shape)))
        (logits * weights).sum().backward()
        results.append((logits, leaves))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-12, atol=1e-12)
    for name in parameters:
        torch.testing.assert_close(results[0][1][name].grad, results[1][1][name].grad, rtol=1e-10, atol=1e-12)


LAST = [
    {"layers": 1, "heads": 2},
    {"layers": 1, "heads": 2, "positions": "learned", "causal": False, "mlp_width": 12, "final_norm": True},
    {"layers": 2, "heads": 1, "positions": "alibi", "bias": False, "dropout": 0.4},
    {"layers": 3, "heads": 4, "positions": "none", "norm": "none"},
    {"layers": 2, "heads": 4, "key_value_heads": 2, "head_width": 6, "rotary_width": 4, "norm": "post"},
    {"layers": 2, "parallel_residual": True, "mlp_width": 12, "norm_kind": "rms_norm", "dropout": 0.4},
    {"layers": 1, "parallel_residual": True, "mlp_width": 12, "gated_mlp": True, "bias": ["query_key_value"]},
]


@pytest.mark.parametrize("options", LAST, ids=str)
def test_a_model_read_at_the_last_position_is_the_whole_model_there(options):
    """Without a hook, only the last position is computed in the last layer; with one, all of them."""
    whole, parameters = make(**options)
    last, _ = make(**options, readout="last")
    tokens, weights = some_tokens(), torch.from_numpy(seeded(2).standard_normal((3, 1, 11)))
    directions = {k: torch.from_numpy(seeded(3, k).standard_normal(tuple(v.shape))) for k, v in parameters.items()}
    results = []
    for model, how in (
        (whole, {"hook": lambda name, value: value}),
        (last, {}),
        (last, {"twice_differentiable": True}),
    ):
        leaves = {k: v.clone().requires_grad_() for k, v in parameters.items()}
        logits = model.forward(leaves, tokens, dropout=seeded(5), **how)[:, -1:]
        loss = (weights * logits.tanh()).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()), create_graph=how != {}, materialize_grads=True)
        second = None
        if how and not options.get("dropout"):  # with dropout, attention that is hooked has a single derivative
            along = sum((g * directions[name]).sum() for name, g in zip(leaves, gradients, strict=True))
            second = torch.autograd.grad(along, list(leaves.values()), materialize_grads=True)
        results.append((logits, gradients, second))
    (expected, expected_gradients, expected_second), *others = results
    assert expected.shape == (3, 1, 11)
    for logits, gradients, second in others:
        torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
        for found, wanted in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
        for found, wanted in zip(second or (), expected_second or (), strict=bool(second)):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("heads,causal", list(itertools.product([1, 4], [True, False])))
def test_a_layer_equals_torch_transformer_encoder_layer(heads, causal):
    model, ours = make(
        layers=1,
        heads=heads,
        mlp_width=16,
        positions="none",
        causal=causal,
        final_norm=True,
        tied_readout=False,
    )
    layer = torch.nn.TransformerEncoderLayer(
        8, heads, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    prefix = "layers.0."
    roles = [prefix + f"attention.{role}" for role in ("query", "key", "value")]
    state = {
        "self_attn.in_proj_weight": torch.cat([ours[f"{role}.weight"] for role in roles]),
        "self_attn.in_proj_bias": torch.cat([ours[f"{role}.bias"] for role in roles]),
    }
    names = {
        "self_attn.out_proj": "attention.output",
        "linear1": "mlp.up",
        "linear2": "mlp.down",
        "norm1": "attention_norm",
        "norm2": "mlp_norm",
    }
    for theirs, name in names.items():
        for kind in ("weight", "bias"):
            state[f"{theirs}.{kind}"] = ours[f"{prefix}{name}.{kind}"]
    layer.load_state_dict(state)
    tokens = some_tokens()
    mask = torch.nn.Transformer.generate_square_subsequent_mask(9, dtype=torch.float64) if causal else None
    x = layer(ours["embedding.weight"][tokens], src_mask=mask)
    x = torch.nn.functional.layer_norm(x, (8,), ours["final_norm.weight"], ours["final_norm.bias"])
    expected = x @ ours["readout.weight"].T + ours["readout.bias"]
    torch.testing.assert_close(model.forward(ours, tokens), expected)
    torch.testing.assert_close(model.forward(ours, tokens, twice_differentiable=True), expected)


def test_pattern_equals_scaled_dot_product_attention():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 6, 8, generator=generator)
    pattern = attention_pattern(query, key, score_bias(6, 4, True, False, torch.float32, "cpu"))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(pattern @ value, expected)


def test_rotary_scores_depend_on_the_lag_alone():
    factors = rotation(16, 8, 10000.0, torch.float64, "cpu")
    query, key = (torch.from_numpy(seeded(3, name).standard_normal(8)).expand(16, 8) for name in "qk")
    scores = rotate(query, factors) @ rotate(key, factors).T
    for lag in range(8):
        diagonal = scores.diagonal(-lag)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert not torch.allclose(scores[3, 2], scores[3, 1])


def test_rotation_by_hand():
    factors = rotation(3, 4, 100.0, torch.float64, "cpu")
    turned = rotate(torch.tensor([[1.0, 0.0, 0.0, 1.0]] * 3, dtype=torch.float64), factors)
    # angles at position 2: 2·100^0 = 2 for the first pair, 2·100^(-1/2) = 0.2 for the second
    expected = [math.cos(2), math.sin(2), -math.sin(0.2), math.cos(0.2)]
    torch.testing.assert_close(turned[2], torch.tensor(expected, dtype=torch.float64))


def test_alibi_slopes():
    bias = score_bias(4, 2, True, True, torch.float64, "cpu")
    assert bias[0, 3].tolist() == [-3 / 16, -2 / 16, -1 / 16, 0]
    assert bias[1, 3].tolist() == [-3 / 256, -2 / 256, -1 / 256, 0]
    assert (bias[:, 0, 1:] == -math.inf).all()


@pytest.mark.parametrize("positions", ["rotary", "learned", "none", "alibi"])
def test_causal_models_do_not_see_the_future(positions):
    tokens = some_tokens()
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    model, parameters = make(positions=positions, heads=2)
    before, after = model.forward(parameters, tokens), model.forward(parameters, changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])
    model, parameters = make(positions=positions, heads=2, causal=False)
    before, after = model.forward(parameters, tokens), model.forward(parameters, changed)
    assert not torch.allclose(before[:, :5], after[:, :5])


def test_positions_none_cannot_tell_order_and_the_others_can():
    tokens = torch.tensor([[1, 2, 3, 4]])
    swapped = torch.tensor([[2, 1, 3, 4]])
    for positions in ("none", "rotary", "learned", "alibi"):
        model, parameters = make(positions=positions, layers=1, causal=False)
        same = torch.allclose(
            model.forward(parameters, tokens)[:, 3], model.forward(parameters, swapped)[:, 3], atol=1e-12
        )
        assert same == (positions == "none")


def test_published_parameter_count_of_the_marker_sum_model():
    model = build(
        DEFAULTS | {"layers": 5, "heads": 4, "width": 128, "positions": "learned", "final_norm": True},
        TaskSizes(256, 8, 16),
    )
    assert sum(value.numel() for value in model.initialise(seeded(0)).values()) == 367_624


def test_initialisation_is_that_of_torch():
    parameters = build(DEFAULTS | {"width": 64}, TaskSizes(64, 64, 64)).initialise(seeded(0))
    weight = parameters["layers.0.attention.query.weight"].numpy()
    reference = torch.nn.Linear(64, 64)
    bound = 1 / 8
    assert reference.weight.abs().max() <= bound
    assert np.abs(weight).max() <= bound
    assert abs(weight.std() / (bound / math.sqrt(3)) - 1) < 0.02
    assert abs(weight.mean()) < 3 * bound / math.sqrt(3) / 64
    assert abs(parameters["embedding.weight"].std() - 1) < 0.03
    assert {value.dtype for value in parameters.values()} == {torch.float32}


def test_dropout_keeps_the_mean_and_the_rate_and_repeats_with_its_stream():
    residual, update = torch.zeros(200, 500), torch.ones(200, 500)
    result = dropped_residual(residual, update, 0.1, seeded(4))
    assert abs((result == 0).float().mean() - 0.1) < 4 * math.sqrt(0.09 / 1e5)
    assert torch.unique(result[result != 0]).tolist() == pytest.approx([1 / 0.9], rel=1e-4)
    assert torch.equal(result, dropped_residual(residual, update, 0.1, seeded(4)))
    assert not torch.equal(result, dropped_residual(residual, update, 0.1, seeded(5)))


def test_dropout_gradient_flows_through_what_was_kept():
    residual, update = torch.zeros(3, 5, requires_grad=True), torch.ones(3, 5, requires_grad=True)
    result = dropped_residual(residual, update, 0.5, seeded(6))
    result.sum().backward()
    assert torch.equal(update.grad, result.detach())
    assert torch.equal(residual.grad, torch.ones(3, 5))
    assert 0 < (result == 0).sum() < 15


def test_dropout_is_off_in_evaluation():
    model, parameters = make(dropout=0.5)
    tokens = some_tokens()
    evaluated = model.forward(parameters, tokens)
    assert torch.equal(evaluated, model.forward(parameters, tokens))
    assert not torch.allclose(evaluated, model.forward(parameters, tokens, dropout=seeded(7)))


def test_hook_sees_every_activation_and_may_replace_it():
    model, parameters = make(heads=2, mlp_width=12, final_norm=True)
    tokens, seen = some_tokens(), {}

    def see(name, value):
        seen[name] = value
        return value

    logits = model.forward(parameters, tokens, hook=see)
    assert torch.equal(seen["logits"], logits)
    expected = {"embedding", "final", "logits"}
    for layer in range(2):
        sublayers = ("residual_pre", "residual_mid", "residual_post", "mlp.hidden", "mlp.output")
        heads = ("query", "key", "value", "pattern", "z", "output")
        expected |= {f"layers.{layer}.{name}" for name in sublayers}
        expected |= {f"layers.{layer}.attention.{name}" for name in heads}
    assert set(seen) == expected
    assert seen["layers.0.attention.pattern"].shape == (3, 2, 9, 9)
    torch.testing.assert_close(
        seen["layers.0.residual_pre"] + seen["layers.0.attention.output"], seen["layers.0.residual_mid"]
    )

    def silence(name, value):
        return torch.zeros_like(value) if name.endswith(("attention.output", "mlp.output")) else value

    silenced = model.forward(parameters, tokens, hook=silence)
    one_token = model.forward(parameters, tokens[:, :1], hook=silence)
    torch.testing.assert_close(silenced[:, :1], one_token)
    torch.testing.assert_close(silenced[0, 3], model.forward(parameters, tokens[:1, 3:4], hook=silence)[0, 0])


@pytest.mark.parametrize("twice", [True, False])
def test_second_derivatives_are_the_difference_quotients_of_the_first(twice):
    model, parameters = make(layers=1, width=4)
    tokens = some_tokens(batch=1, length=4)
    name = "layers.0.attention.query.weight"

    def loss(weight):
        return (model.forward(parameters | {name: weight}, tokens, twice_differentiable=twice) ** 2).sum()

    weight = parameters[name].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(loss, (weight,))


def test_learned_positions_refuse_longer_sequences():
    model, parameters = make(positions="learned")
    with pytest.raises(ValueError, match="9; use shorter sequences"):
        model.forward(parameters, some_tokens(length=10))


def test_tied_readout_needs_as_many_outputs_as_tokens():
    with pytest.raises(ValueError, match="tied_readout: the task has 11 tokens but 5 outputs"):
        make(shape=(11, 5, 9), tied_readout=True)
