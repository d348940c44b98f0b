"""What no shape tells of a file is all listed, and what it would be otherwise is what another map would make of it."""

import numpy as np
import pytest
import torch

from learning_geometry.sources import doubts as of
from learning_geometry.sources.doubts import doubts, in_words, otherwise
from learning_geometry.sources.map_files import Map
from learning_geometry.sources.maps import apply, bind, read_map

from .families import gpt2, llama, neox
from .foreign_models import NanoGPT, hooked_state
from .mapped import GPT2, HOOKED, LLAMA, NANOGPT, NEOX, bound, headers, read_from, shapes, through

NEOX_STATE = {name.replace("lm_head", "embed_out"): value for name, value in neox().state_dict().items()}


def listed(name, state, model):
    return [(each.what, each.names) for each in doubts(bound(name, state, model), model)]


def attention(layer, *roles):
    return tuple(f"layers.{layer}.attention.{role}.weight" for role in roles)


def fused(layer, by_head=True):
    pairs = (("query", "key"), ("query", "value"), ("key", "value"))
    exchanged = [(of.EXCHANGED, attention(layer, *pair)) for pair in pairs]
    return exchanged + [(of.BY_HEAD, attention(layer, "query", "key", "value"))] * by_head


def test_of_fused_rows_neither_order_nor_heads_are_told_by_shapes():
    output = [(of.TRANSPOSED, attention(layer, "output")) for layer in (0, 1)]
    for name, module, model in (("nanogpt", NanoGPT(), NANOGPT), ("gpt2", gpt2(), GPT2)):
        expected = [*output, *fused(0), *fused(1)]
        assert sorted(listed(name, module.state_dict(), model)) == sorted(expected)
    one = listed("nanogpt", NanoGPT().state_dict(), NANOGPT | {"heads": 1})
    assert of.BY_HEAD not in {what for what, _ in one}


def test_pairs_of_rotary_positions_are_not_told_by_shapes():
    rotary = [(of.PAIRED, attention(layer, "query", "key")) for layer in (0, 1)]
    assert listed("llama", llama().state_dict(), LLAMA) == rotary  # no matrix of it is square
    there = listed("gpt_neox", NEOX_STATE, NEOX)
    assert {each for each in there if each[0] != of.TRANSPOSED} == {*rotary, *fused(0), *fused(1)}
    hooked = listed("transformer_lens", hooked_state(rotary=True), HOOKED | {"positions": "rotary"})
    assert [each for each in hooked if each[0] == of.PAIRED] == rotary


def test_a_single_pair_of_rotary_positions_is_told():
    state, model = NEOX_STATE, NEOX | {"rotary_width": 2}
    assert of.PAIRED not in {what for what, _ in listed("gpt_neox", state, model)}


def test_doubts_are_said_by_kind():
    said = in_words(doubts(bound("gpt_neox", NEOX_STATE, NEOX), NEOX))
    query, key = attention(0, "query", "key")
    assert f"whether rotary positions turn halves or neighbours of {query} and {key} (1 more such)" in said
    assert f"which of {query} and {key} comes first (5 more such)" in said


def made_by(name, state, model, change):
    """What a map makes of a file of which every entry was changed."""
    read = read_map(name)
    binding = bind(read._replace(entries=tuple(map(change, read.entries))), headers(state), shapes(model), model)
    return {key: torch.from_numpy(value) for key, value in apply(binding, read_from(state))}


def swapped(entry):
    order = {0: 1, 1: 0, 2: 2}
    return entry._replace(part=(order[entry.part[0]], 3)) if entry.part[1] == 3 else entry


OTHER_MAPS = {
    of.PAIRED: lambda entry: entry._replace(halves=False),
    of.BY_HEAD: lambda entry: entry._replace(per_head=False),
    of.EXCHANGED: swapped,
}


@pytest.mark.parametrize("what", OTHER_MAPS)
def test_what_would_be_is_what_another_map_makes_of_the_file(what):
    state = {name: value.float() for name, value in NEOX_STATE.items()}
    parameters = {name: value.numpy() for name, value in through("gpt_neox", state, NEOX).items()}
    expected = made_by("gpt_neox", state, NEOX, OTHER_MAPS[what])
    found = [each for each in doubts(bound("gpt_neox", state, NEOX), NEOX) if each.what == what]
    for doubt in (each for each in found if what != of.EXCHANGED or "value" not in each.names[1]):
        others = otherwise(doubt, parameters)
        assert {name.rpartition(".")[2] for name in others} == {"weight", "bias"}
        for name, array in others.items():
            np.testing.assert_array_equal(array, expected[name].numpy())
            assert not np.array_equal(array, parameters[name])


def test_of_heads_with_square_matrices_each_is_transposed():
    state = hooked_state(head_width=8)
    model = HOOKED | {"head_width": 8}
    parameters = {name: value.numpy() for name, value in through("transformer_lens", state, model).items()}
    untold = {each.names: each for each in doubts(bound("transformer_lens", state, model), model)}
    for role in ("query", "key", "value", "output"):
        (name,) = attention(0, role)
        (other,) = otherwise(untold[name,], parameters).values()
        turned = parameters[name].reshape(2, 8, 8).swapaxes(1, 2).reshape(16, 8)
        if role == "output":
            turned = parameters[name].reshape(8, 2, 8).swapaxes(0, 2).reshape(8, 16)
        np.testing.assert_array_equal(other, turned)


def test_what_lacks_a_part_is_listed_and_cannot_be_tried():
    state = {"qkv": NanoGPT().state_dict()["transformer.h.0.attn.c_attn.weight"]}
    entries = [each for each in read_map("nanogpt").entries if each.name.endswith(("query.weight", "key.weight"))]
    entries = [each._replace(name=each.name.replace("{l}", "0"), source="qkv") for each in entries]
    binding = bind(Map("mine", tuple(entries), ignore=("qkv",)), headers(state), None, {"heads": 2})
    untold = doubts(binding, {"heads": 2})
    assert [each.what for each in untold] == [of.TRANSPOSED, of.TRANSPOSED, of.EXCHANGED]
    assert all(otherwise(each, {}) == {} for each in untold)
