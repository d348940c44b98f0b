"""Parameters by block: the parts of a model whose curvature is told apart, and the groups that claims compare."""

import re
from collections.abc import Iterable, Mapping

GROUPS = {
    "positional": {"embedding", "positions", "layers.0.attention.query_key"},
    "matching": {"layers.0.attention.value_output", "layers.1.attention.query_key"},
}
"""Groups of blocks: where a token may find the previous one, and where the two layers meet to match tokens."""

REST = "rest"
"""The group of all other blocks."""

ATTENTION = {"query": "query_key", "key": "query_key", "value": "value_output", "output": "value_output"}


def blocks(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the parameters of every block; each parameter is in exactly one.

    A block is the weights and biases of ``embedding``, ``positions`` (learned), per layer l
    ``layers.l.attention.query_key``, ``layers.l.attention.value_output`` and ``layers.l.mlp``, all LayerNorms together
    as ``norms``, and ``readout``; a read-out tied to the embedding belongs to it. A parameter of any other name
    belongs to the block of its module.

    Args:
        names: names of parameters, as ``models.transformer.initialise`` gives them.

    Returns:
        Block -> its parameters, in the order of the names; blocks sorted, layer 2 before layer 10.

    >>> blocks(["embedding.weight", "layers.0.attention.key.bias", "layers.0.attention.query.bias"])
    {'embedding': ['embedding.weight'], 'layers.0.attention.query_key': ['layers.0.attention.key.bias', \
'layers.0.attention.query.bias']}
    """
    result: dict[str, list[str]] = {}
    for name in names:
        result.setdefault(_block(name), []).append(name)
    return dict(sorted(result.items(), key=lambda item: _by_number(item[0])))


def groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the parameters of the groups of blocks; each parameter is in exactly one.

    - ``positional``: the embedding (a learned one of positions too) with the query-key block of the first layer;
    - ``matching``: the value-output block of the first layer with the query-key block of the second;
    - ``rest``: everything else.

    A group that lacks a block in this model, as ``matching`` with one layer, is left out, and ``rest`` if it is empty.

    >>> list(groups(["embedding.weight", "layers.0.attention.key.weight", "layers.0.attention.value.weight"]))
    ['positional', 'rest']
    """
    of_blocks = blocks(names)
    optional = {"positions"}
    whole = {group: members for group, members in GROUPS.items() if members - optional <= set(of_blocks)}
    result: dict[str, list[str]] = {group: [] for group in [*whole, REST]}
    for block, parameters in of_blocks.items():
        group = next((group for group, members in whole.items() if block in members), REST)
        result[group] += parameters
    return {group: parameters for group, parameters in result.items() if parameters}


def parts(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the parameters of every block and of every group: overlapping parts, to be measured one by one."""
    listed = list(names)
    return blocks(listed) | groups(listed)


def sizes(parts: Mapping[str, Iterable[str]], parameters: Mapping[str, int]) -> dict[str, int]:
    """Return how many numbers each part has, from those of each parameter.

    >>> sizes({"both": ["a", "b"]}, {"a": 2, "b": 3, "c": 4})
    {'both': 5}
    """
    return {part: sum(parameters[name] for name in names) for part, names in parts.items()}


def _block(name: str) -> str:
    module = name.rpartition(".")[0] or name
    parent, _, role = module.rpartition(".")
    if role.endswith("norm"):
        return "norms"
    if parent.endswith(".attention") and role in ATTENTION:
        return f"{parent}.{ATTENTION[role]}"
    return parent if parent.endswith(".mlp") else module


def _by_number(block: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", block)]
