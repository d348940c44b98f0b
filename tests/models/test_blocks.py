import itertools

import numpy as np
import pytest

from learning_geometry.models.blocks import GROUPS, blocks, groups, parts, sizes
from learning_geometry.models.sizes import TaskSizes
from learning_geometry.models.transformer import SETTINGS, initialise


def parameter_names(**model):
    settings = {name: schema["default"] for name, schema in SETTINGS.items()} | {"width": 4} | model
    return list(initialise(settings, TaskSizes(5, 5, 6), np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("layers", "mlp_width", "positions", "norm", "tied_readout", "bias"),
    list(itertools.product((1, 2, 11), (0, 3), ("rotary", "learned"), ("pre", "none"), (True, False), (True, False))),
)
def test_every_parameter_is_in_exactly_one_block_and_group(layers, mlp_width, positions, norm, tied_readout, bias):
    names = parameter_names(
        layers=layers,
        mlp_width=mlp_width,
        positions=positions,
        norm=norm,
        tied_readout=tied_readout,
        bias=bias,
        final_norm=norm == "pre",
    )
    for partition in (blocks(names), groups(names)):
        assert sorted(itertools.chain(*partition.values())) == sorted(names)
        assert all(partition.values())
    expected = {"embedding"} | ({"positions"} if positions == "learned" else set())
    for layer in range(layers):
        expected |= {f"layers.{layer}.attention.{pair}" for pair in ("query_key", "value_output")}
        expected |= {f"layers.{layer}.mlp"} if mlp_width else set()
    expected |= {"norms"} if norm == "pre" else set()
    expected |= {"readout"} if bias or not tied_readout else set()
    assert set(blocks(names)) == expected
    of_layers = [block for block in blocks(names) if block.startswith("layers")]
    assert of_layers == sorted(of_layers, key=lambda block: int(block.split(".")[1]))


def test_groups_are_unions_of_blocks():
    names = parameter_names(layers=3, mlp_width=3, positions="learned")
    of_blocks, of_groups = blocks(names), groups(names)
    assert list(of_groups) == ["positional", "matching", "rest"]
    for group, members in GROUPS.items():
        assert sorted(of_groups[group]) == sorted(itertools.chain(*(of_blocks[block] for block in members)))
    assert parts(names) == of_blocks | of_groups
    assert "layers.0.attention.key.bias" in of_groups["positional"]
    assert "layers.1.attention.key.bias" in of_groups["matching"]
    assert "layers.2.attention.key.bias" in of_groups["rest"]


def test_with_one_layer_nothing_matches():
    of_groups = groups(parameter_names(layers=1))
    assert list(of_groups) == ["positional", "rest"]
    assert "layers.0.attention.value.weight" in of_groups["rest"]


def test_other_models_have_a_block_for_each_module():
    names = ["embedding.weight", "gate", "heads.first.weight", "heads.first.bias"]
    assert blocks(names) == {"embedding": names[:1], "gate": ["gate"], "heads.first": names[2:]}
    assert groups(names) == {"rest": names}
    assert sizes(blocks(names), dict(zip(names, (6, 1, 4, 2), strict=True))) == {
        "embedding": 6,
        "gate": 1,
        "heads.first": 6,
    }
