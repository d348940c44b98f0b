"""Hugging Face families against their own hidden states, attention patterns and modules, on tiny random models."""

from types import SimpleNamespace

import pytest
import torch

from learning_geometry.models.language import MLP_PARTS, activation_names, activation_width
from learning_geometry.models.language.descriptions import known_family, part
from learning_geometry.models.language.families import wrap
from learning_geometry.models.language.loading import import_transformers
from learning_geometry.seeding import seeded
from tests.tiny_families import CONFIGS, module_of

transformers = import_transformers()


def some_tokens(batch=2, length=11):
    return torch.from_numpy(seeded(1).integers(31, size=(batch, length)))


def close(left, right, tolerance=1e-5):
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def blocks_of(module):
    return part(module, known_family(module.config, "here").blocks)


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    module = module_of(request.param)
    model = wrap(module, request.param)
    return module, model, model.activations(some_tokens(), model.names)


def test_the_residual_stream_is_the_hidden_states(case):
    module, _, found = case
    with torch.no_grad():
        states = module(input_ids=some_tokens(), output_hidden_states=True).hidden_states
    assert len(states) == 4
    for layer in range(3):
        close(found[f"layers.{layer}.residual_pre"], states[layer])
    for layer in range(2):
        close(found[f"layers.{layer}.residual_post"], states[layer + 1])
    close(found["final"], states[3])  # the last hidden state is the one after the final norm
    norm = module.get_submodule(known_family(module.config, "here").final_norm)
    close(norm(found["layers.2.residual_post"]), states[3])


def test_all_names_are_found_with_their_widths_and_add_up(case):
    _, model, found = case
    assert list(found) == model.names
    for name, value in found.items():
        assert value.shape == (2, 11, activation_width(model.sizes, name)), name
        assert not value.requires_grad
    for layer in range(3):
        pre, output, mid, mlp, post = (
            found[f"layers.{layer}.{name}"]
            for name in ("residual_pre", "attention.output", "residual_mid", "mlp.output", "residual_post")
        )
        close(pre + output, mid)
        close(mid + mlp, post)
        assert output.std() > 0.1 and mlp.std() > 0.1


def test_products_of_some_heads_are_those_of_all():
    model = wrap(module_of("qwen2"), "qwen2")
    for products in (model.query_key, model.output_value):
        assert (products(1, [4, 0]) == products(1)[[4, 0]]).all()
    # heads 3 to 5 share the second key and value head
    weights = model.layer_weights(0)
    assert torch.equal(weights.key[12:16], weights.key[20:24]) and not torch.equal(
        weights.key[8:12], weights.key[12:16]
    )
    with pytest.raises(ValueError, match=r"no heads \[6\]; there are 0 to 5"):
        model.query_key(0, [1, 6])
    with pytest.raises(ValueError, match="no layer 3; there are 0 to 2"):
        model.output_value(3)


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_on_the_left_changes_nothing(name):
    model = wrap(module_of(name), name)
    tokens = some_tokens(length=7)
    padded = torch.cat([torch.zeros(2, 4, dtype=torch.int64), tokens], 1)
    padded[0], mask = torch.cat([padded[0, 2:], padded[0, :2]]), torch.ones(2, 11, dtype=torch.bool)
    padded[0, :2], padded[0, 2:9], padded[0, 9:] = 0, tokens[0], tokens[0, :2]
    mask[0, :2] = mask[1, :4] = False
    names = activation_names(model.sizes)
    alone = model.activations(tokens[1:], names)
    together = model.activations(padded, names, mask)
    for each in names:
        close(together[each][1, 4:], alone[each][0], 2e-5)
    close(together["layers.0.residual_pre"][0, 2:9], model.activations(tokens[:1], names)["layers.0.residual_pre"][0])


def test_what_the_hook_returns_is_used(case):
    module, model, found = case
    tokens = some_tokens()
    with torch.no_grad():
        plain = model.forward(tokens)
        close(plain, module(input_ids=tokens).logits)
        assert torch.equal(model.forward(tokens, hook=lambda _name, value: value), plain)
        for name in [*activation_names(model.sizes, layers=[1]), "final", "logits"]:

            def slant(seen, value, name=name):
                return value + torch.linspace(-1, 1, value.shape[-1]) if seen == name else value

            other = model.forward(tokens, hook=slant)
            assert (other - plain).abs().max() > 1e-3, name
    changes = found["layers.1.residual_pre"] * 0 + 0.25
    for name in ("residual_pre", "residual_mid", "residual_post"):
        seen = {}

        def hook(each, value, name=name, seen=seen):
            seen[each] = value
            return changes if each == f"layers.1.{name}" else value

        with torch.no_grad():
            model.forward(tokens, hook=hook)
        mlp = seen["layers.1.mlp.output"]
        if name == "residual_mid":
            close(seen["layers.1.residual_post"], changes + mlp)
            if not model.parallel:
                assert mlp.std((0, 1)).max() < 1e-3  # it reads the same at every token
        if name == "residual_post":
            assert torch.equal(seen["layers.2.residual_pre"], changes)
        if name == "residual_pre":
            close(seen["layers.1.residual_mid"], changes + seen["layers.1.attention.output"])
    assert not any(
        each._forward_hooks or each._forward_pre_hooks
        for name, each in module.named_modules()
        # on routers transformers leaves hooks of its own
        if any(word in name for word in ("proj", "mlp", "dense", "norm")) and not name.endswith("mlp.gate")
    )


def test_only_what_is_needed_is_computed(case):
    module, model, found = case
    last = blocks_of(module)[2]
    reached = []
    handle = last.register_forward_pre_hook(lambda *_: reached.append(True))
    some = model.activations(some_tokens(), ["layers.1.mlp.output", "layers.0.attention.z"])
    assert list(some) == ["layers.1.mlp.output", "layers.0.attention.z"] and not reached
    assert all(torch.equal(some[name], found[name]) for name in some)
    model.activations(some_tokens(), ["layers.2.residual_pre"])
    assert reached
    handle.remove()


def test_what_cannot_be_read_is_said():
    model = wrap(module_of("llama"), "tiny")
    tokens = some_tokens()
    for wrong, message in [
        (torch.zeros(1, 65, dtype=torch.int64), "tiny: 65 tokens in a sequence, and the model's context is 64"),
        (tokens + 30, r"tiny: tokens from 3\d to \d\d, and the model knows 0 to 30"),
        (tokens - 31, r"tiny: tokens from -\d"),
        (tokens[:0], "which are none"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.forward(wrong)
    with pytest.raises(ValueError, match="a mask of shape"):
        model._check(tokens, torch.ones(2, 10, dtype=torch.bool))  # shapes in signatures are enforced here
    with pytest.raises(ValueError, match="sequence 1 of the batch is padding alone"):
        model.forward(tokens, torch.tensor([[True] * 11, [False] * 11]))
    with pytest.raises(
        ValueError, match=r"no activations \['layers.3.residual_pre'\]; there are layers.0.residual_pre"
    ):
        model.activations(tokens, ["layers.0.residual_pre", "layers.3.residual_pre"])
    with pytest.raises(ValueError, match="no activations"):
        model.activations(tokens, [])
    with pytest.raises(ValueError, match="here: a model of the family 'mpt', which is not known; known are"):
        known_family(transformers.MptConfig(), "here")
    with pytest.raises(ValueError, match="an MPT: a model of the family 'mpt'"):
        wrap(SimpleNamespace(config=transformers.MptConfig()), "an MPT")


def test_what_follows_shared_tokens_is_as_in_whole_sequences(case):
    """Of every family, with a window of attention shorter than what is shared, and padding within the batch."""
    module, model, _ = case
    shared, lengths = some_tokens(1, 7)[0], (4, 1, 6)
    rest = torch.from_numpy(seeded(2).integers(31, size=(3, 6)))
    continued = model.after(shared)
    for _ in range(2):  # what one batch adds to the keys and values is not there for the next
        found = continued.activations(rest, model.names)
        logits = continued.forward(rest)
        for row, length in enumerate(lengths):
            whole = torch.cat([shared, rest[row, :length]])[None]
            alone = model.activations(whole, model.names)
            for name in model.names:
                close(found[name][row, :length], alone[name][0, 7:], 3e-5)
            with torch.no_grad():
                close(logits[row, :length], module(input_ids=whole).logits[0, 7:], 3e-5)
    if model.family == "bloom":
        assert continued.sizes.context is None
        continued.forward(some_tokens(1, 58))
    else:
        assert continued.sizes.context == 64 - 7
        with pytest.raises(ValueError, match="58 tokens in a sequence, and the model's context is 57"):
            continued.forward(some_tokens(1, 58))
    with pytest.raises(ValueError, match="padded on the right, without a mask"):
        continued.forward(rest, torch.tensor([[False] + [True] * 5] * 3))
    with pytest.raises(ValueError, match="keeps no keys and values"):
        continued.after(shared)
    with pytest.raises(ValueError, match="tokens from 31 to 31"):
        model.after(torch.tensor([31]))


def test_nothing_is_computed_after_the_last_activation_that_is_shown(case):
    _, model, found = case
    seen = []
    names = ["layers.1.mlp.output", "layers.0.residual_pre"]
    model.visit(some_tokens(), names, lambda name, value: seen.append(name) or close(value, found[name]))
    assert seen == names[::-1]


def test_the_digest_is_that_of_the_weights():
    models = [wrap(module_of("gpt2"), "first"), wrap(module_of("gpt2"), "second")]
    assert models[0].digest() == models[1].digest() and len(models[0].digest()) == 32
    with torch.no_grad():
        next(reversed(models[1].parameters.values())).view(-1)[-1] += 1e-4
    assert models[0].digest() != models[1].digest()
    before = models[0].digest()
    name = next(iter(models[0].parameters))
    models[0].parameters[name] = models[0].parameters[name] * 2
    assert models[0].digest() != before


def test_names_of_parts():
    model = wrap(module_of("gpt2"), "gpt2")
    assert activation_names(model.sizes, MLP_PARTS, [1]) == ["layers.1.mlp.input", "layers.1.mlp.output"]
    with pytest.raises(ValueError, match=r"parts: \['mlp.hidden'\] of a layer are not known"):
        activation_names(model.sizes, ["mlp.hidden"])
    with pytest.raises(ValueError, match=r"no layers \[3\]; there are 0 to 2"):
        activation_names(model.sizes, layers=[2, 3])
