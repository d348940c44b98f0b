"""The check at loading: families that are not what an entry says of them are refused, and those that are pass."""

import dataclasses
import math
from functools import partial

import pytest
import torch

from learning_geometry.models import build
from learning_geometry.models.language import descriptions, loading
from learning_geometry.models.language.descriptions import (
    BLOOM,
    COHERE,
    GEMMA2,
    GPT2,
    GPTJ,
    LLAMA,
    OLMO2,
    OPT,
    PHI,
    PHI3,
    _grouped,
    _stacked,
)
from learning_geometry.models.language.families import wrap
from learning_geometry.models.language.loading import import_transformers, load
from learning_geometry.models.language.self_check import check_identities
from learning_geometry.models.language.trained import language_model
from learning_geometry.models.sizes import TaskSizes
from learning_geometry.seeding import seeded
from tests.tiny_families import CONFIGS, module_of

transformers = import_transformers()

SUM = r"residual_pre \+ layers\.0\.attention\.output \+ layers\.0\.mlp\.output = layers\.0\.residual_post"
READ = r"layers\.0\.mlp\.input"
VALUE = r"W_V of what attention reads of layers\.0\.residual_pre = layers\.0\.attention\.z"
GPT_STACKED = partial(_stacked, "c_attn", False)
FALCON = BLOOM._replace(
    activation="activation", mlp_norm="input_layernorm", parallel=True, written="", adds_in_place=True
)
FALCON_NEW = FALCON._replace(attention_norm="ln_attn", mlp_norm="ln_mlp")
SEQUENTIAL = LLAMA._replace(norm="layer", epsilon="layer_norm_eps", mlp_norm="input_layernorm")
WRONG = [
    ("olmo2", LLAMA._replace(attention_norm=None), SUM),
    ("olmo2", OLMO2._replace(mlp_norm="post_attention_layernorm"), READ),
    ("olmo3", OLMO2._replace(norm_after_mlp=""), SUM),
    ("gemma2", LLAMA._replace(activation="hidden_activation"), SUM),
    ("gemma3_text", LLAMA._replace(activation="hidden_activation"), SUM),
    ("gemma3_text", GEMMA2._replace(norm_after_attention=""), SUM),
    ("gemma3_text", GEMMA2._replace(norm_after_mlp=""), SUM),
    ("gemma3_text", GEMMA2._replace(mlp_norm="input_layernorm"), READ),
    ("gemma3_text", GEMMA2._replace(weight_offset=0.0), r"times output_norm = layers\.0\.attention\.output"),
    ("granite", LLAMA, SUM),
    ("cohere", SEQUENTIAL, READ),
    ("falcon", FALCON._replace(parallel=False), READ),
    ("falcon", FALCON._replace(adds_in_place=False), SUM),
    ("falcon, new", FALCON_NEW._replace(mlp_norm="ln_attn"), READ),
    ("phi", PHI._replace(parallel=False), READ),
    ("gptj", GPTJ._replace(parallel=False), READ),
    ("bloom", BLOOM._replace(written=""), SUM),
    ("opt", OPT._replace(mlp_norm="self_attn_layer_norm"), READ),
    ("stablelm", COHERE, READ),
    ("phi3", PHI3._replace(projections=partial(_grouped, "qkv_proj")), VALUE),
    ("gpt_bigcode", GPT2._replace(projections=partial(_grouped, "c_attn"), mlp_norm="ln_1", transposed=False), READ),
    ("gpt_bigcode, a key per head", GPT2._replace(projections=GPT_STACKED, transposed=False), VALUE),
    ("falcon, new", FALCON_NEW._replace(attention_norm="ln_mlp"), VALUE),
    ("olmo3", OLMO2._replace(attention_norm="post_attention_layernorm"), VALUE),
]
"""Config -> an entry that somebody might add for it, and the identity that does not hold."""


@pytest.mark.parametrize(("name", "entry", "identity"), WRONG, ids=[f"{row[0]}-{i}" for i, row in enumerate(WRONG)])
def test_a_family_that_is_not_what_its_entry_says_is_refused(monkeypatch, name, entry, identity):
    module = module_of(name)
    family = module.config.model_type
    check_identities(wrap(module, name), module)
    monkeypatch.setitem(descriptions.FAMILIES, family, entry)
    model = wrap(module, name)
    with pytest.raises(
        ValueError, match=rf"{name}: the check at loading failed for the family '{family}': .*{identity}.* is off by"
    ):
        check_identities(model, module)


@pytest.mark.parametrize("family", ["mpt", "codegen", "gpt_neo", "deepseek_v3", "mamba", "xglm"])
def test_another_family_is_refused_with_what_the_check_would_need(tmp_path, family):
    (tmp_path / "config.json").write_text(f'{{"model_type": "{family}"}}')
    says = rf"the family '{family}', which is not known.*the check at loading would need .*W_O, what stands between W_O"
    with pytest.raises(ValueError, match=says):
        load(tmp_path, tokenizer=False)


def test_a_family_that_reads_images_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}')
    with pytest.raises(ValueError, match=r"the family 'gemma3', which reads images as well; .* is 'gemma3_text'"):
        load(tmp_path, tokenizer=False)


@pytest.mark.parametrize("part", [{}, {"mlp_norm": "input_layernorm", "output": "c_proj"}])
def test_an_entry_with_a_part_that_is_not_there_is_refused(monkeypatch, part):
    monkeypatch.setitem(descriptions.FAMILIES, "cohere", LLAMA._replace(epsilon="layer_norm_eps", **part))
    with pytest.raises(ValueError, match=r"a model: the description of its family 'cohere' is wrong: .*(post_|c_proj)"):
        wrap(module_of("cohere"), "a model")


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_the_families_that_are_known_pass(name, scale):
    module = module_of(name)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    check_identities(wrap(module, name), module)


def test_a_parallel_model_that_is_called_sequential_is_refused():
    module = module_of("gpt_neox")
    model = wrap(module, "tiny")
    assert model.parallel
    with pytest.raises(ValueError, match=r"norm of layers\.0\.residual_mid = layers\.0\.mlp\.input is off by"):
        check_identities(dataclasses.replace(model, parallel=False), module)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("output", r"layers\.1\.attention\.z W_O \+ b = layers\.1\.attention\.projected is off by"),
        ("output_bias", r"layers\.1\.attention\.z W_O \+ b = layers\.1\.attention\.projected is off by"),
    ],
)
def test_weights_that_are_not_those_of_the_stream_are_refused(change, says):
    module = module_of("llama with biases, wide heads")
    model = wrap(module, "tiny")

    def layer_weights(layer):
        weights = model.layer_weights(layer)
        return weights._replace(**{change: getattr(weights, change) * (1 + 3e-3 * layer)})

    with pytest.raises(ValueError, match=says):
        check_identities(dataclasses.replace(model, layer_weights=layer_weights), module)


@pytest.mark.parametrize(
    "name", ["residual_pre", "mlp.output", "residual_post", "attention.projected", "attention.output"]
)
def test_hooks_that_see_something_else_are_refused(name):
    module = module_of("llama")
    model = wrap(module, "tiny")

    def run(tokens, mask, hook):
        def see(activation, value):
            wrong = activation == f"layers.1.{name}" and hook is not None
            seen = hook(activation, value * 1.001 if wrong else value)
            return value if wrong else seen

        return model.run(tokens, mask, see)

    with pytest.raises(ValueError, match=rf"layers\.1\.{name}.* is off by .* at position \d+, and 0.0001 is allowed"):
        check_identities(dataclasses.replace(model, run=run), module)


def test_what_is_never_computed_or_of_another_shape_is_refused():
    module = module_of("llama")
    model = wrap(module, "tiny")

    def running(see):
        return dataclasses.replace(model, run=lambda tokens, mask, hook: model.run(tokens, mask, hook and see(hook)))

    def skips(hook):
        return lambda name, value: value if name == "layers.1.mlp.output" else hook(name, value)

    def cuts(hook):
        def see(name, value):
            hook(name, value[:, :-1] if name == "final" else value)
            return value

        return see

    with pytest.raises(ValueError, match=r"'llama': layers\.1\.mlp\.output is never computed; the architecture is"):
        check_identities(running(skips), module)
    with pytest.raises(
        ValueError, match=r"final = output_hidden_states has shapes \[1, \d+, 24\], \[1, \d+, 24\]; the"
    ):
        check_identities(running(cuts), module)


def test_another_number_of_hidden_states_is_refused(monkeypatch):
    module = module_of("llama")
    model, forward = wrap(module, "tiny"), module.forward

    def with_one_more(*arguments, **options):
        found = forward(*arguments, **options)
        if options.get("output_hidden_states"):
            found.hidden_states = (*found.hidden_states, found.hidden_states[-1])
        return found

    check_identities(model, module)
    monkeypatch.setattr(module, "forward", with_one_more)
    with pytest.raises(ValueError, match="'llama': 5 hidden states for 4; the architecture is another than"):
        check_identities(model, module)


def test_late_positions_are_checked_too():
    """A model that is wrong from some position on, as with wrong rotary frequencies of a cache, say."""
    module = module_of("llama")
    model = wrap(module, "tiny")

    def run(tokens, mask, hook):
        def see(activation, value):
            if activation == "layers.2.attention.output":
                late = torch.arange(value.shape[1])[None, :, None] >= 15
                hook(activation, value * torch.where(late, 1.01, 1.0))
                return value
            return hook(activation, value)

        return model.run(tokens, mask, see)

    with pytest.raises(ValueError, match=r"layers\.2\..* at position 1[5-9]"):
        check_identities(dataclasses.replace(model, run=run), module)


def test_numbers_that_are_not_finite_are_refused():
    module = module_of("gpt2")
    with torch.no_grad():
        module.transformer.h[1].mlp.c_proj.bias[3] = math.nan
    with pytest.raises(ValueError, match=r"layers\.1\.residual_pre \+ .* is off by .*, and 0.0001 is allowed"):
        check_identities(wrap(module, "tiny"), module)


@pytest.mark.parametrize("trained", [True, False])
def test_every_load_checks(tmp_path, monkeypatch, trained):
    def refuse(model, module):
        raise ValueError(f"{model.name}, {next(module.parameters()).dtype}: checked")

    module_of("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    monkeypatch.setattr(loading, "check_identities", refuse)
    with pytest.raises(ValueError, match=r"torch.float32: checked"):
        load(tmp_path, tokenizer=False, untrained=None if trained else seeded(0))


@pytest.mark.parametrize("mlp_width", [0, 32])
def test_the_workflows_own_transformer_passes(mlp_width):
    from learning_geometry.config import settings_schema
    from learning_geometry.config.schemas import filled

    given = {"layers": 2, "width": 16, "heads": 2, "mlp_width": mlp_width}
    settings = {"name": "transformer"} | filled(given, settings_schema("models", "transformer"))
    model = build(settings, TaskSizes(vocabulary=11, outputs=11, length=24))
    check_identities(language_model(model, model.initialise(seeded(0)), "own"))
