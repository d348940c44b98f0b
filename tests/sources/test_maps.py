"""Models of other tools give the same logits here, through their maps."""

import pytest
import torch
from torch import nn

from learning_geometry.sources.doubts import TRANSPOSED, doubts
from learning_geometry.sources.maps import apply, bind, read_map
from learning_geometry.sources.readers import SourceError, open_checkpoint

from .families import gpt2, llama, neox
from .foreign_models import NanoGPT, hooked_forward, hooked_state
from .mapped import (
    GPT2,
    HOOKED,
    LLAMA,
    NANOGPT,
    NEOX,
    agree,
    bound,
    logits,
    read_from,
    scattered,
    settings,
    shapes,
    through,
    tokens,
)


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_nanogpt_gives_the_same_logits(bias):
    theirs = scattered(NanoGPT(bias=bias))
    model = NANOGPT if bias else NANOGPT | {"bias": False, "norm_bias": False}
    agree(theirs(tokens()), logits(through("nanogpt", theirs.state_dict(), model), model, tokens()))


@torch.no_grad()
def test_gpt2_gives_the_same_logits_with_its_head_and_without_it_and_with_the_masks_of_old_files():
    theirs = gpt2()
    expected = theirs(tokens()).logits
    state = theirs.state_dict()
    agree(expected, logits(through("gpt2", state, GPT2), GPT2, tokens()))
    body = theirs.transformer.state_dict() | {"h.0.attn.bias": torch.ones(1, 1, 12, 12).tril().bool()}
    agree(expected, logits(through("gpt2", body, GPT2), GPT2, tokens()))
    of_lightning = {f"model.{name}": value for name, value in state.items()}
    agree(expected, logits(through("gpt2", of_lightning, GPT2), GPT2, tokens()))


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@torch.no_grad()
def test_gpt_neox_gives_the_same_logits(parallel, biased):
    theirs = neox(parallel, attention_bias=biased)
    model = NEOX | {"parallel_residual": parallel, "bias": NEOX["bias"] if biased else ["mlp"]}
    agree(theirs(tokens()).logits, logits(through("gpt_neox", theirs.state_dict(), model), model, tokens()))


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_llama_with_grouped_keys_and_a_head_width_gives_the_same_logits(tied):
    theirs = llama(tie_word_embeddings=tied)
    model = LLAMA | {"tied_readout": tied}
    agree(theirs(tokens()).logits, logits(through("llama", theirs.state_dict(), model), model, tokens()))


@torch.no_grad()
def test_llama_with_biases_gives_the_same_logits():
    theirs = llama(attention_bias=True, mlp_bias=True)
    model = LLAMA | {"bias": ["query_key_value", "output", "mlp"]}
    agree(theirs(tokens()).logits, logits(through("llama", theirs.state_dict(), model), model, tokens()))


@pytest.mark.parametrize(
    ("name", "build", "model", "shard"),
    [("gpt2", gpt2, GPT2, "1GB"), ("gpt_neox", neox, NEOX, "1GB"), ("llama", llama, LLAMA, "3KB")],
)
@torch.no_grad()
def test_what_transformers_saves_gives_the_same_logits(name, build, model, shard, tmp_path):
    theirs = build()
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert len(list(tmp_path.glob("*.safetensors"))) > (shard == "3KB")
    with open_checkpoint(tmp_path) as checkpoint:
        binding = bind(read_map(name), checkpoint.tensors, shapes(model), model)
        parameters = {key: torch.from_numpy(value) for key, value in apply(binding, checkpoint.read)}
    agree(theirs(tokens()).logits, logits(parameters, model, tokens()))


@pytest.mark.parametrize(("first", "norm"), [(True, "pre"), (False, "post")])
@torch.no_grad()
def test_an_encoder_of_torch_gives_the_same_logits_by_a_map_that_extends_the_built_in_one(first, norm, tmp_path):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True, norm_first=first, activation="relu")
    body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    theirs = nn.ModuleDict({"tok": nn.Embedding(16, 8), "encoder": body, "out": nn.Linear(8, 16)})
    scattered(theirs)
    (tmp_path / "mine.yaml").write_text(
        "extends: torch_encoder\nembedding.weight: tok.weight\nreadout.weight: out.weight\nreadout.bias: out.bias\n"
    )
    model = settings(mlp_width=32, positions="none", activation="relu", norm=norm, causal=False)
    parameters = through("mine.yaml", theirs.state_dict(), model, base=tmp_path)
    agree(theirs["out"](theirs["encoder"](theirs["tok"](tokens()))), logits(parameters, model, tokens()))


@pytest.mark.parametrize("rotary", [True, False])
def test_a_hooked_transformer_gives_the_same_logits(rotary):
    state = hooked_state(rotary=rotary)
    model = HOOKED | {"positions": "rotary"} if rotary else HOOKED
    agree(
        hooked_forward(state, tokens(), rotary=rotary),
        logits(through("transformer_lens", state, model), model, tokens()),
    )


@torch.no_grad()
def test_a_bridge_of_gpt2_gives_the_same_logits():
    # as TransformerLens 4.3.0 splits a GPT-2: query, key, value turned, all else as it was, and a bias of zeros
    theirs = gpt2()
    held = theirs.state_dict()
    state = {"embed.weight": held["transformer.wte.weight"], "pos_embed.weight": held["transformer.wpe.weight"]}
    for layer in range(2):
        old, new = f"transformer.h.{layer}", f"blocks.{layer}"
        weights = held[f"{old}.attn.c_attn.weight"].split(8, dim=1)
        biases = held[f"{old}.attn.c_attn.bias"].split(8)
        for role, weight, bias in zip("qkv", weights, biases, strict=True):
            state |= {f"{new}.attn.{role}.weight": weight.T, f"{new}.attn.{role}.bias": bias}
        renamed = {"attn.o": "attn.c_proj", "mlp.in": "mlp.c_fc", "mlp.out": "mlp.c_proj", "ln1": "ln_1", "ln2": "ln_2"}
        for kind in ("weight", "bias"):
            state |= {f"{new}.{name}.{kind}": held[f"{old}.{their}.{kind}"] for name, their in renamed.items()}
    state |= {f"ln_final.{kind}": held[f"transformer.ln_f.{kind}"] for kind in ("weight", "bias")}
    state |= {"unembed.weight": held["lm_head.weight"], "unembed.bias": torch.zeros(16)}
    agree(theirs(tokens()).logits, logits(through("transformer_lens_bridge", state, GPT2), GPT2, tokens()))
    with pytest.raises(SourceError, match=r"unembed.bias: is not zero"):
        through("transformer_lens_bridge", state | {"unembed.bias": torch.ones(16)}, GPT2)


def test_no_shape_tells_a_transposed_key_of_one_head_but_the_logits_do():
    one = {"heads": 1, "head_width": 8}
    state, model = hooked_state(**one), HOOKED | {"heads": 1}
    turned = state | {"blocks.1.attn.W_K": state["blocks.1.attn.W_K"].transpose(1, 2)}
    untold = doubts(bound("transformer_lens", turned, model), model)
    assert (TRANSPOSED, ("layers.1.attention.key.weight",)) in [each[:2] for each in untold]
    expected = hooked_forward(state, tokens())
    agree(expected, logits(through("transformer_lens", state, model), model, tokens()))
    ours = logits(through("transformer_lens", turned, model), model, tokens())
    assert (ours - expected).abs().max() > 0.01


def test_shapes_tell_a_transposed_key_of_two_heads():
    state = hooked_state()
    state["blocks.1.attn.W_K"] = state["blocks.1.attn.W_K"].transpose(1, 2)
    with pytest.raises(SourceError, match=r"1.attention.key.weight: blocks.1.attn.W_K of shape \(2, 4, 8\) gives"):
        bound("transformer_lens", state, HOOKED)


@torch.no_grad()
def test_biases_that_the_model_lacks_must_be_zero():
    state, model = hooked_state(), HOOKED | {"bias": ["query_key_value", "output", "mlp"]}
    with pytest.raises(SourceError, match=r"unembed.b_U: is not zero.*bias"):
        through("transformer_lens", state, model)
    state["unembed.b_U"] = torch.zeros(16, dtype=torch.float64)
    agree(hooked_forward(state, tokens()), logits(through("transformer_lens", state, model), model, tokens()))


def test_a_tied_head_that_is_no_copy_is_refused():
    state = NanoGPT().state_dict()
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    with pytest.raises(SourceError, match=r"lm_head.weight: is no copy of transformer.wte.weight.*tied_readout: false"):
        through("nanogpt", state, NANOGPT)


def test_a_file_without_a_head_is_not_read_as_a_model_with_one():
    state = NanoGPT().state_dict()
    del state["lm_head.weight"]
    with pytest.raises(SourceError, match=r"missing, first lm_head.weight, for readout.weight.*tied_readout: true"):
        through("nanogpt", state, NANOGPT | {"tied_readout": False})


def test_the_gated_model_of_transformer_lens_and_its_grouped_keys_are_found():
    # by name and shape, as TransformerLens 2.18.0's GatedMLP and GroupedQueryAttention have them
    state = {name: value for name, value in hooked_state(rotary=True).items() if not name.endswith((".b", "b_U"))}
    for layer in range(2):
        name = f"blocks.{layer}"
        state[f"{name}.mlp.W_gate"] = torch.randn(8, 32)
        for kind, letters in (("W", "QKVO"), ("b", "QKVO")):
            for letter in letters:
                tensor = state.pop(f"{name}.attn.{kind}_{letter}")
                tensor = torch.zeros_like(tensor) if kind == "b" else tensor
                shared = letter in "KV"
                state[f"{name}.attn.{'_' if shared else ''}{kind}_{letter}"] = tensor[:1] if shared else tensor
        state |= {f"{name}.mlp.b_in": torch.zeros(32), f"{name}.mlp.b_out": torch.zeros(8)}
    options = {"norm_kind": "rms_norm", "gated_mlp": True, "key_value_heads": 1, "bias": False}
    model = settings(mlp_width=32, final_norm=True, **options)
    made = through("transformer_lens_grouped", state, model)
    assert torch.equal(made["layers.1.mlp.gate.weight"], state["blocks.1.mlp.W_gate"].T)
    assert torch.equal(made["layers.0.attention.value.weight"], state["blocks.0.attn._W_V"][0].T)
    state["blocks.1.mlp.b_in"] = torch.ones(32)
    with pytest.raises(SourceError, match=r"blocks.1.mlp.b_in: is not zero"):
        through("transformer_lens_grouped", state, model)


def test_every_fused_tensor_is_read_once():
    state = NanoGPT().state_dict()
    binding, read = bound("nanogpt", state, NANOGPT), []

    def reading(name):
        read.append(name)
        return read_from(state)(name)

    made = dict(apply(binding, reading))
    assert made.keys() == shapes(NANOGPT).keys()
    fused = [name for name in read if "c_attn" in name]
    assert len(fused) == len(set(fused)) == 4
