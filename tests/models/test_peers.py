"""The transformer's options against the models that have them elsewhere, with the same weights."""

import pytest
import torch

from learning_geometry.models import TaskSizes, build
from learning_geometry.models.transformer import SETTINGS
from learning_geometry.seeding import seeded
from tests.tiny_families import NEOX, module_of, randomised, transformers

DEFAULTS = {key: value["default"] for key, value in SETTINGS.items()} | {"name": "transformer"}


def tokens_of(vocabulary, length=9):
    return torch.from_numpy(seeded(1).integers(vocabulary, size=(3, length)))


def interleaved(weight, head_width, turned):
    """Rows of queries or keys whose pairs are of the first and second half of what is turned, as adjacent pairs."""
    first = torch.arange(turned).view(2, -1).T.flatten()
    return weight.unflatten(0, (-1, head_width))[:, torch.cat([first, torch.arange(turned, head_width)])].flatten(0, 1)


def filled(model, arrays):
    """Parameters made of a mapping of another's tensors; each must be of the right name and shape."""
    parameters = model.initialise(seeded(0))
    assert {name: tuple(value.shape) for name, value in arrays.items()} == {
        name: tuple(value.shape) for name, value in parameters.items()
    }
    return {name: value.detach().contiguous() for name, value in arrays.items()}


def agree(model, parameters, tokens, expected, tolerance):
    """In float64, where the kernel that sums does not decide; angles and RMS norms of transformers stay in float32."""
    assert expected.dtype == torch.float64
    for how in ({}, {"twice_differentiable": True}, {"hook": lambda _name, value: value}):
        found = model.forward(parameters, tokens, **how)
        assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("causal", [True, False])
def test_an_encoder_of_torch(norm, activation, causal):
    options = {"width": 8, "heads": 2, "mlp_width": 12, "positions": "none", "activation": activation, "layers": 3}
    options |= {"norm": norm, "causal": causal, "norm_epsilon": 1e-3, "final_norm": norm == "pre"}
    model = build(DEFAULTS | options, TaskSizes(11, 11, 9))
    layer = torch.nn.TransformerEncoderLayer(
        8, 2, 12, 0.0, activation, 1e-3, batch_first=True, norm_first=norm == "pre", dtype=torch.float64
    )
    final = torch.nn.LayerNorm(8, 1e-3, dtype=torch.float64) if norm == "pre" else None
    encoder = torch.nn.TransformerEncoder(layer, 3, final, enable_nested_tensor=False).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.copy_(torch.from_numpy(seeded(2, name).standard_normal(tuple(parameter.shape))))
    ours = {name: value.double() for name, value in model.initialise(seeded(0)).items()}
    arrays = {name: ours[name] for name in ("embedding.weight", "readout.weight", "readout.bias")}
    names = {"self_attn.out_proj": "attention.output", "linear1": "mlp.up", "linear2": "mlp.down"}
    names |= {"norm1": "attention_norm", "norm2": "mlp_norm"}
    for name, value in encoder.state_dict().items():
        module, _, kind = name.rpartition(".")
        if name.startswith("norm."):
            arrays[f"final_{name}"] = value
        elif "in_proj" in kind:
            at, kind = module.removesuffix(".self_attn"), kind.removeprefix("in_proj_")
            for role, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                arrays[f"{at}.attention.{role}.{kind}"] = piece
        else:
            _, at, inside = module.split(".", 2)
            arrays[f"layers.{at}.{names[inside]}.{kind}"] = value
    arrays = filled(model, arrays)
    tokens = tokens_of(11)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(9, dtype=torch.float64) if causal else None
    with torch.no_grad():
        expected = encoder(arrays["embedding.weight"][tokens], mask=mask)
    expected = torch.nn.functional.linear(expected, arrays["readout.weight"], arrays["readout.bias"])
    agree(model, arrays, tokens, expected, 1e-12)


def of_linear(theirs, name, ours):
    return {f"{ours}.{kind}": value for kind, value in theirs[name].named_parameters()}


def test_gpt2():
    module = module_of("gpt2").double()
    theirs = dict(module.named_modules())
    options = {"width": 24, "heads": 6, "layers": 3, "mlp_width": 96, "positions": "learned", "final_norm": True}
    options |= {"activation": "gelu_tanh", "tied_readout": True, "bias": ["query_key_value", "output", "mlp"]}
    model = build(DEFAULTS | options, TaskSizes(31, 31, 64))
    arrays = {
        "embedding.weight": theirs["transformer.wte"].weight,
        "positions.weight": theirs["transformer.wpe"].weight,
    }
    arrays |= of_linear(theirs, "transformer.ln_f", "final_norm")
    for layer in range(3):
        at, ours = f"transformer.h.{layer}", f"layers.{layer}"
        for name, role in (("ln_1", "attention_norm"), ("ln_2", "mlp_norm")):
            arrays |= of_linear(theirs, f"{at}.{name}", f"{ours}.{role}")
        for name, role in (("attn.c_proj", "attention.output"), ("mlp.c_fc", "mlp.up"), ("mlp.c_proj", "mlp.down")):
            arrays[f"{ours}.{role}.weight"] = theirs[f"{at}.{name}"].weight.T
            arrays[f"{ours}.{role}.bias"] = theirs[f"{at}.{name}"].bias
        for kind, value in (
            ("weight", theirs[f"{at}.attn.c_attn"].weight.T),
            ("bias", theirs[f"{at}.attn.c_attn"].bias),
        ):
            for role, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                arrays[f"{ours}.attention.{role}.{kind}"] = piece
    tokens = tokens_of(31)
    with torch.no_grad():
        agree(model, filled(model, arrays), tokens, module(tokens).logits, 1e-12)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_gpt_neox(parallel, share):
    rope = {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": share}
    config = NEOX | {"num_attention_heads": 3, "rope_parameters": rope, "use_parallel_residual": parallel}
    module = randomised(transformers.GPTNeoXConfig(**config), "gpt_neox").double()
    theirs, turned = dict(module.named_modules()), int(8 * share)
    assert module.gpt_neox.rotary_emb.inv_freq.numel() * 2 == turned
    options = {"width": 24, "heads": 3, "layers": 3, "mlp_width": 40, "final_norm": True, "rotary_width": turned}
    options |= {"parallel_residual": parallel, "bias": ["query_key_value", "output", "mlp"], "rotary_base": 100.0}
    model = build(DEFAULTS | options, TaskSizes(31, 31, 64))
    arrays = {"embedding.weight": module.gpt_neox.embed_in.weight, "readout.weight": module.lm_head.weight}
    arrays |= of_linear(theirs, "gpt_neox.final_layer_norm", "final_norm")
    names = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
    names |= {"attention.dense": "attention.output", "mlp.dense_h_to_4h": "mlp.up", "mlp.dense_4h_to_h": "mlp.down"}
    for layer in range(3):
        for name, ours in names.items():
            arrays |= of_linear(theirs, f"gpt_neox.layers.{layer}.{name}", f"layers.{layer}.{ours}")
        for kind, value in theirs[f"gpt_neox.layers.{layer}.attention.query_key_value"].named_parameters():
            by_head = value.unflatten(0, (3, 3, 8))
            for number, role in enumerate(("query", "key", "value")):
                piece = by_head[:, number].flatten(0, 1)
                piece = piece if role == "value" else interleaved(piece, 8, turned)
                arrays[f"layers.{layer}.attention.{role}.{kind}"] = piece
    tokens = tokens_of(31)
    with torch.no_grad():
        agree(model, filled(model, arrays), tokens, module(tokens).logits, 1e-6)


@pytest.mark.parametrize("family", ["llama", "llama with biases, wide heads"])
def test_llama(family):
    module = module_of(family).double()
    theirs, head_width = dict(module.named_modules()), module.config.head_dim
    options = {"width": 24, "heads": 6, "key_value_heads": 2, "layers": 3, "mlp_width": 40, "gated_mlp": True}
    options |= {"activation": "silu", "norm_kind": "rms_norm", "norm_epsilon": 1e-6, "final_norm": True}
    options |= {"bias": ["query_key_value", "output", "mlp"] if "biases" in family else False}
    options |= {"head_width": head_width if "wide" in family else None}
    model = build(DEFAULTS | options, TaskSizes(31, 31, 64))
    arrays = {"embedding.weight": module.model.embed_tokens.weight, "readout.weight": module.lm_head.weight}
    arrays["final_norm.weight"] = module.model.norm.weight
    names = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
    names |= {f"self_attn.{role[0]}_proj": f"attention.{role}" for role in ("query", "key", "value", "output")}
    names |= {f"mlp.{role}_proj": f"mlp.{role}" for role in ("gate", "up", "down")}
    for layer in range(3):
        for name, ours in names.items():
            for kind, value in of_linear(theirs, f"model.layers.{layer}.{name}", f"layers.{layer}.{ours}").items():
                turned = ours.endswith(("query", "key"))
                arrays[kind] = interleaved(value, head_width, head_width) if turned else value
    tokens = tokens_of(31)
    with torch.no_grad():
        agree(model, filled(model, arrays), tokens, module(tokens).logits, 1e-6)
