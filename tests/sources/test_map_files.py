"""A map says what it means, or is refused with the name that was meant."""

import re

import pytest

from learning_geometry.models import transformer
from learning_geometry.sources.checkpoint import SourceError
from learning_geometry.sources.map_files import PARAMETERS, built_in, read_map

from .mapped import settings, shapes


def written(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    return read_map("mine.yaml", tmp_path)


@pytest.mark.parametrize("name", built_in())
def test_every_built_in_map_is_read_and_names_no_tensor_part_twice(name):
    of = read_map(name)
    assert of.name == name
    places = [(entry.source, entry.part) for entry in of.entries if entry.source is not None]
    assert len(set(places)) == len(places)


def test_the_parameters_of_a_map_are_those_of_the_transformer():
    had = set()
    for options in (
        {"mlp_width": 8, "gated_mlp": True, "final_norm": True, "positions": "learned", "bias": True},
        {"tied_readout": True, "norm_kind": "rms_norm"},
    ):
        had |= {re.sub("[0-9]+", "{l}", name) for name in shapes(settings(**options))}
    assert had == set(PARAMETERS)
    assert set(transformer.SETTINGS) == set(settings()) - {"name"}


def test_a_map_of_ones_own_says_what_it_says(tmp_path):
    of = written(
        tmp_path,
        """
        embedding.weight: tok.weight
        layers.{l}.attention.query.weight:
          {from: "b.{l}.qkv", part: [0, 3], transpose: true, rotary: halves, fused: per_head}
        layers.1.attention.key.weight: {from: "odd.k", heads: first}
        final_norm.bias: {fill: 0}
        readout.weight: {from: head.weight, tied: embedding.weight, optional: true}
        ignore: ["*.mask"]
        zeros: ["*.b"]
        prefixes: [model.]
        also: {out.weight: head.weight}
        """.replace("\n        ", "\n"),
    )
    by_name = {entry.name: entry for entry in of.entries}
    query = by_name["layers.{l}.attention.query.weight"]
    assert (query.source, query.part, query.transpose, query.halves, query.per_head) == (
        "b.{l}.qkv",
        (0, 3),
        True,
        True,
        True,
    )
    assert by_name["layers.1.attention.key.weight"].heads_first
    assert by_name["final_norm.bias"].fill == 0 and by_name["final_norm.bias"].source is None
    assert (by_name["readout.weight"].tied, by_name["readout.weight"].optional) == ("embedding.weight", True)
    assert (of.ignore, of.zeros, of.prefixes) == (("*.mask",), ("*.b",), ("model.",))
    assert of.also == (("out.weight", "head.weight"),)


def test_a_map_that_extends_another_changes_it_and_adds_to_it(tmp_path):
    of = written(tmp_path, "extends: gpt2\npositions.weight: where.weight\nignore: [extra]\nprefixes: [net.]\n")
    base = read_map("gpt2")
    by_name = {entry.name: entry for entry in of.entries}
    assert by_name["positions.weight"].source == "where.weight"
    assert [entry for entry in of.entries if entry.name != "positions.weight"] == [
        entry for entry in base.entries if entry.name != "positions.weight"
    ]
    assert (of.ignore, of.prefixes) == ((*base.ignore, "extra"), (*base.prefixes, "net."))


QUERY = "layers.{l}.attention.query.weight"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "layers.{l}.attention.querry.weight: a.{l}",
            "querry.weight' is neither .* mean layers.{l}.attention.query.weight",
        ),
        ("ignored: [a]", "'ignored' is neither .* did you mean ignore"),
        ("3: a", "3 is neither"),
        (f"{QUERY}: {{from: 'a.{{l}}', transposed: true}}", "unknown operation 'transposed'; did you mean transpose"),
        (f"{QUERY}: {{from: 'a.{{l}}', transpose: 1}}", "transpose is 1, and must be true or false"),
        (f"{QUERY}: {{from: 'a.{{l}}', part: [3, 3]}}", r"part is \[3, 3\], and must be \[<number from 0>"),
        (f"{QUERY}: {{from: 'a.{{l}}', part: [-1, 3]}}", r"part is \[-1, 3\]"),
        (f"{QUERY}: {{from: 'a.{{l}}', part: 1}}", "part is 1"),
        (f"{QUERY}: {{from: 'a.{{l}}', fused: per_head}}", "fused needs part"),
        (f"{QUERY}: {{from: 'a.{{l}}', fused: rows, part: [0, 3]}}", "fused is 'rows', and must be per_head"),
        (f"{QUERY}: {{from: 'a.{{l}}', heads: last}}", "heads is 'last', and must be first"),
        (f"{QUERY}: {{from: 'a.{{l}}', heads: first, part: [0, 3]}}", "heads and part cannot both be"),
        (f"{QUERY}: {{from: 'a.{{l}}', rotary: pairs}}", "rotary is 'pairs', and must be halves"),
        (f"{QUERY}: {{transpose: true}}", "needs either `from`"),
        (f"{QUERY}: {{from: 'a.{{l}}', fill: 0}}", "needs either `from`"),
        (f"{QUERY}: {{fill: 0, transpose: true}}", "transpose says how a tensor of the file is read"),
        (f"{QUERY}: {{fill: .nan}}", "fill is nan, and must be a number"),
        (f"{QUERY}: {{fill: true}}", "fill is True, and must be a number"),
        (f"{QUERY}: a.0", "{l} must stand in the name of the parameter and in 'a.0'"),
        ("embedding.weight: a.{l}", "{l} must stand"),
        (f"{QUERY}: 'a.{{l}}.{{head}}'", "{head} in .* is not known"),
        (f"{QUERY}: [a]", r"is \['a'\]; write the name of a tensor"),
        ("embedding.weight:", "is None; write the name"),
        (
            "readout.weight: {from: a, tied: embeding.weight}",
            "tied to 'embeding.weight', which is no parameter; did you",
        ),
        ("ignore: mask\nembedding.weight: a", "ignore is 'mask', and must be a list"),
        ("prefixes: ['']\nembedding.weight: a", r"prefixes is \[''\]"),
        ("also: [a]\nembedding.weight: a", "also is .*, and must be a mapping"),
        ("ignore: [a]", "names no parameter"),
        ("embedding.weight: a\nembedding.weight: b", "line 1: embedding.weight is given twice"),
        ("readout.weight: {from: a, from: b}", "from is given twice"),
        ("embedding.weight: &a tok\nreadout.weight: *a", "has aliases"),
        ("extends: gpt3\nembedding.weight: a", "extends 'gpt3', which is no built-in map; there are gpt2"),
        ("- a", "holds no mapping"),
        ("{", "cannot be read as a map"),
        ("", "holds no mapping"),
    ],
)
def test_what_a_map_does_not_know_is_refused(tmp_path, text, message):
    with pytest.raises(SourceError, match=message) as caught:
        written(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "mine.yaml"))


def test_a_map_that_is_not_there_is_named_with_the_nearest(tmp_path):
    with pytest.raises(SourceError, match=r"'gpt-neox' is no map; did you mean gpt_neox or"):
        read_map("gpt-neox")
    with pytest.raises(SourceError, match=r"none.yaml: cannot be read as a map \(.*No such file"):
        read_map("none.yaml", tmp_path)


def test_names_of_another_model_can_be_asked_for(tmp_path):
    (tmp_path / "mine.yaml").write_text("embedding.weight: a\nlayers.{l}.gate.scale: b.{l}\n")
    of = read_map("mine.yaml", tmp_path, ("embedding.weight", "layers.{l}.gate.scale"))
    assert [entry.name for entry in of.entries] == ["embedding.weight", "layers.{l}.gate.scale"]
