"""Every tensor of a file becomes a parameter, is left out by name, or is an error; so is every parameter."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learning_geometry.sources.checkpoint import ForeignTensor, SourceError
from learning_geometry.sources.doubts import TRANSPOSED, doubts
from learning_geometry.sources.map_files import Entry, Map
from learning_geometry.sources.maps import apply, bind, read_map

from .families import llama, neox
from .foreign_models import NanoGPT, hooked_state
from .mapped import HOOKED, LLAMA, NANOGPT, NEOX, bound, headers, read_from, settings, shapes, through

NANO = NanoGPT().state_dict()
MODELS = {
    "nanogpt": (NANO, NANOGPT),
    "transformer_lens": (hooked_state(), HOOKED),
    # in memory transformers calls the read-out lm_head, in files embed_out
    "gpt_neox": ({name.replace("lm_head", "embed_out"): value for name, value in neox().state_dict().items()}, NEOX),
    "llama": (llama().state_dict(), LLAMA),
}


def without(state, *names):
    return {name: value for name, value in state.items() if name not in names}


def test_a_missing_tensor_is_named_with_the_nearest():
    with pytest.raises(SourceError) as caught:
        bound("nanogpt", without(NANO, "transformer.h.1.ln_2.weight"), NANOGPT)
    assert "1 tensors are missing, first transformer.h.1.ln_2.weight, for layers.1.mlp_norm.weight" in str(caught.value)
    assert "nearest in the file: transformer.h.1.ln_1.weight or transformer.h.0.ln_2.weight or" in str(caught.value)


def test_a_renamed_tensor_is_the_nearest_of_the_missing_one_and_the_other_way_round():
    state = without(NANO, "transformer.ln_f.bias") | {"transformer.lnf.bias": NANO["transformer.ln_f.bias"]}
    with pytest.raises(SourceError) as caught:
        bound("nanogpt", state, NANOGPT)
    assert "for final_norm.bias; nearest in the file: transformer.lnf.bias. " in str(caught.value)
    assert "not used, first transformer.lnf.bias; nearest in the map: transformer.ln_f.bias; correct" in str(
        caught.value
    )


def test_a_tensor_that_would_be_a_parameter_the_model_lacks_is_named_so():
    with pytest.raises(
        SourceError, match=r"not used, first .*ln_1.bias.*it is layers.0.attention_norm.bias, which a model"
    ):
        bound("nanogpt", NANO, NANOGPT | {"norm_bias": False})


def test_layers_that_the_model_lacks_are_counted():
    with pytest.raises(SourceError, match=r"the file has a layer 1, and the model 1 layers"):
        bound("nanogpt", NANO, NANOGPT | {"layers": 1})


@pytest.mark.parametrize("model", [True, False])
def test_a_layer_missing_in_the_middle_is_named(model):
    state = NanoGPT(layers=3).state_dict()
    state = {name: value for name, value in state.items() if ".h.1." not in name}
    with pytest.raises(SourceError, match=r"the file has no layer 1, but a layer 2"):
        bind(
            read_map("nanogpt"),
            headers(state),
            shapes(NANOGPT | {"layers": 3}) if model else None,
            NANOGPT | {"layers": 3},
        )


@pytest.mark.parametrize("model", [True, False])
@pytest.mark.parametrize(
    ("digits", "said"),
    [
        (9, "the file has no layer 2, but a layer 100000000"),
        (10, r"not used, first transformer\.h\.10{9}\.ln_1"),
        (5001, r"not used, first transformer\.h\.10{5000}\.ln_1"),
    ],
)
def test_a_number_of_a_layer_is_not_counted_up_to(model, digits, said):
    state = NANO | {f"transformer.h.1{'0' * (digits - 1)}.ln_1.weight": torch.ones(8)}
    with pytest.raises(SourceError, match=said):
        bind(read_map("nanogpt"), headers(state), shapes(NANOGPT) if model else None, NANOGPT)


def test_a_parameter_that_the_map_lacks_is_named():
    with pytest.raises(SourceError, match=r"map torch_encoder: does not say what embedding.weight is"):
        bound("torch_encoder", {}, settings(mlp_width=32))


def test_every_shape_that_does_not_fit_is_named_with_both():
    with pytest.raises(SourceError) as caught:
        bound("nanogpt", NANO, NANOGPT | {"mlp_width": 24})
    lines = str(caught.value).splitlines()
    assert lines[0] == "map nanogpt: 6 tensors do not fit:"
    assert (
        "layers.1.mlp.down.weight: transformer.h.1.mlp.c_proj.weight of shape (8, 32) gives (8, 32), and the model has "
        "(8, 24)" in lines
    )


def test_a_tensor_that_cannot_be_taken_apart_is_named():
    state = NANO | {"transformer.h.0.attn.c_attn.weight": torch.zeros(25, 8)}
    with pytest.raises(
        SourceError, match=r"c_attn.weight has the shape \(25, 8\): its rows cannot be taken apart into 3"
    ):
        bound("nanogpt", state, NANOGPT)


def test_numbers_that_are_no_floats_are_refused():
    with pytest.raises(SourceError, match=r"transformer.wpe.weight is of type I64, and parameters are F64"):
        bound("nanogpt", NANO | {"transformer.wpe.weight": torch.zeros(12, 8, dtype=torch.int64)}, NANOGPT)


def test_two_names_that_are_one_without_prefixes_are_refused():
    with pytest.raises(SourceError, match=r"lm_head.weight and model.lm_head.weight are one name"):
        bound("nanogpt", NANO | {"model.lm_head.weight": NANO["lm_head.weight"]}, NANOGPT)


@pytest.mark.parametrize("prefix", ["model.", "model.model."])
def test_prefixes_may_be_there_or_not(prefix):
    made = through("nanogpt", {f"{prefix}{name}": value for name, value in NANO.items()}, NANOGPT)
    bare = through("nanogpt", {name.removeprefix("transformer."): value for name, value in NANO.items()}, NANOGPT)
    expected = through("nanogpt", NANO, NANOGPT)
    for name, value in expected.items():
        assert torch.equal(made[name], value) and torch.equal(bare[name], value)


def entry(name, source, **said):
    return Entry(name, source, **said)


def test_a_part_that_is_no_parameter_is_refused_unless_its_tensor_is_ignored():
    state = {"qkv": ForeignTensor("F32", (12, 4))}
    parts = (entry("a.weight", "qkv", part=(0, 3)), entry("b.weight", "qkv", part=(2, 3)))
    with pytest.raises(SourceError, match=r"of qkv only the parts \[\(0, 3\), \(2, 3\)\] are parameters"):
        bind(Map("mine", parts), state, None, {})
    assert len(bind(Map("mine", parts, ignore=("qk*",)), state, None, {}).bound) == 2


def test_what_is_filled_in_is_made_of_the_type_of_the_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: nanogpt\nfinal_norm.bias: {fill: 2}\n")
    state = {name: value.double() for name, value in without(NANO, "transformer.ln_f.bias").items()}
    made = through("mine.yaml", state, NANOGPT, base=tmp_path)
    assert torch.equal(made["final_norm.bias"], torch.full((8,), 2.0, dtype=torch.float64))
    single = {name: value.float() for name, value in state.items()}
    assert through("mine.yaml", single, NANOGPT, base=tmp_path)["final_norm.bias"].dtype == torch.float32


def test_an_entry_of_one_layer_goes_before_that_of_all(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: nanogpt\nlayers.1.mlp_norm.bias: odd.bias\n")
    state = without(NANO, "transformer.h.1.ln_2.bias") | {"odd.bias": torch.full((8,), 3.0)}
    assert through("mine.yaml", state, NANOGPT, base=tmp_path)["layers.1.mlp_norm.bias"].mean() == 3


def test_without_a_model_what_the_map_names_is_bound_and_the_layers_are_those_of_the_file(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "embedding.weight: transformer.wte.weight\n"
        + "".join(
            f"layers.{{l}}.attention.{role}.weight: "
            f'{{from: "transformer.h.{{l}}.attn.c_attn.weight", part: [{number}, 3]}}\n'
            for number, role in enumerate(("query", "key", "value"))
        )
        + 'ignore: ["*.wpe.*", "*.ln_*", "*.c_proj.*", "*.c_fc.*", "*.c_attn.bias", "lm_head.weight"]\n'
    )
    with pytest.raises(
        SourceError, match=r"nothing says whether the 3 parts of .*c_attn.weight are equal.*give `model`"
    ):
        bind(read_map("mine.yaml", tmp_path), headers(NANO), None, {})
    binding = bind(read_map("mine.yaml", tmp_path), headers(NANO), None, {"heads": 2})
    made = dict(apply(binding, read_from(NANO)))
    assert sorted(made) == [
        "embedding.weight",
        *sorted(f"layers.{layer}.attention.{role}.weight" for layer in (0, 1) for role in ("key", "query", "value")),
    ]
    key = NANO["transformer.h.1.attn.c_attn.weight"][8:16]
    assert np.array_equal(made["layers.1.attention.key.weight"], key.numpy())
    # there is nothing that a shape could be compared with
    turned = [each.names[0] for each in doubts(binding, {}) if each.what == TRANSPOSED]
    assert sorted(turned) == sorted(made)


@pytest.mark.parametrize("given_settings", [{}, {"heads": 4, "key_value_heads": 1}])
def test_without_a_model_grouped_keys_fused_with_queries_are_refused(given_settings):
    # four heads of queries and one of keys and of values, each of width 4: 24 rows, of which a third is no parameter
    state = {"qkv": ForeignTensor("F32", (24, 16)), "out": ForeignTensor("F32", (16, 16))}
    roles = ("query", "key", "value")
    fused = [entry(f"layers.0.attention.{role}.weight", "qkv", part=(n, 3)) for n, role in enumerate(roles)]
    output = entry("layers.0.attention.output.weight", "out")
    with pytest.raises(SourceError, match=r"query.weight would be 8 of the rows of qkv.*fewer keys than queries"):
        bind(Map("mine", (*fused, output)), state, None, given_settings)
    said = "nothing says whether the 3 parts of qkv" if not given_settings else "would be 8 of the rows of qkv"
    with pytest.raises(SourceError, match=said):
        bind(Map("mine", tuple(fused), ignore=("out",)), state, None, given_settings)


def test_without_a_model_keys_fused_with_values_alone_are_equal_parts():
    state = {"kv": ForeignTensor("F32", (8, 16))}
    pair = [entry(f"layers.0.attention.{role}.weight", "kv", part=(n, 2)) for n, role in enumerate(("key", "value"))]
    assert [each.shape for each in bind(Map("mine", tuple(pair)), state, None, {}).bound] == [(4, 16), (4, 16)]


def test_without_a_model_a_built_in_map_takes_what_all_layers_have_and_misses_what_one_lacks():
    unbiased = NanoGPT(bias=False).state_dict()
    made = dict(apply(bind(read_map("nanogpt"), headers(unbiased), None, {}), read_from(unbiased)))
    assert not [name for name in made if name.endswith("bias")]
    assert made["readout.weight"].shape == (16, 8)
    with pytest.raises(SourceError, match=r"first transformer.h.1.ln_1.bias, for layers.1.attention_norm.bias"):
        bind(read_map("nanogpt"), headers(without(NANO, "transformer.h.1.ln_1.bias")), None, {})


@pytest.mark.parametrize(("given_settings", "key"), [({}, "positions"), ({"positions": "rotary"}, "heads")])
def test_a_setting_that_an_operation_needs_is_asked_for(given_settings, key):
    with pytest.raises(SourceError, match=f"depends on {key}; give {key} under `model`"):
        bind(read_map("llama"), headers(llama().state_dict()), None, given_settings)


@pytest.mark.parametrize("name", MODELS)
@given(st.data())
def test_nothing_of_a_file_is_dropped_in_silence(name, data):
    state, model = MODELS[name]
    taken = data.draw(st.sets(st.sampled_from(sorted(state)), max_size=2))
    added = data.draw(
        st.dictionaries(st.sampled_from(["x", "transformer.h.7.ln_1.weight", "lnf.weight"]), st.none(), max_size=1)
    )
    changed = {key: value for key, value in state.items() if key not in taken}
    changed |= dict.fromkeys(added, torch.zeros(8))
    try:
        binding = bound(name, changed, model)
    except SourceError as error:
        assert any(key in str(error) for key in {*taken, *added}) or len(taken) > 1
        return
    copies = {str(copy.tensor) for copy, _ in binding.copies}
    used = {str(each.tensor) for each in binding.bound} | copies | set(binding.zeros)
    assert used | set(binding.ignored) == set(changed)
    assert all(key.endswith(("mask", "IGNORE")) for key in binding.ignored)
    assert {each.name for each in binding.bound} == shapes(model).keys()


@pytest.mark.parametrize("name", MODELS)
def test_every_number_of_a_file_is_in_one_parameter(name):
    state, model = MODELS[name]
    floats = [key for key, value in state.items() if value.is_floating_point() and value.ndim]
    numbers = iter(range(10**6))
    told_apart = {
        key: torch.tensor([float(next(numbers)) for _ in range(state[key].numel())]).reshape(state[key].shape)
        for key in floats
    }
    if name == "nanogpt":
        told_apart["lm_head.weight"] = told_apart["transformer.wte.weight"]
        floats.remove("lm_head.weight")
    made = through(name, state | told_apart, model)
    held = torch.cat([value.flatten() for value in made.values()])
    assert torch.equal(held.sort().values, torch.cat([told_apart[key].flatten() for key in floats]).sort().values)
