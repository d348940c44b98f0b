"""What no shape tells of how parameters lie in a file, and what they would be if they lay otherwise.

Those are square matrices, which fit transposed; parts of a fused tensor, which fit in any order, and fused by role or
head by head; and rotary positions, which turn halves of a head or neighbours. Logits of the code that wrote the file
tell, if they differ between the two.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from learning_geometry.model_options import key_value_heads
from learning_geometry.sources import operations
from learning_geometry.sources.maps import Binding, Bound
from learning_geometry.sources.operations import Placement

TRANSPOSED = "whether {} is transposed"
EXCHANGED = "which of {} comes first"
BY_HEAD = "whether {} are fused by role or head by head"
PAIRED = "whether rotary positions turn halves or neighbours of {}"
ATTENTION = r"(.*\.attention)\.(query|key|value)\.(weight|bias)"


class Change(NamedTuple):
    """Parameters of one tensor, how they lie in it by the map, and how they may lie in it as well."""

    names: tuple[str, ...]
    before: tuple[Placement, ...]
    after: tuple[Placement, ...]


class Doubt(NamedTuple):
    """One thing that no shape tells."""

    what: str
    """In words, with braces for the parameters."""
    names: tuple[str, ...]
    """The parameters that would be others."""
    changes: tuple[Change, ...]
    """What they would be; none: it cannot be tried, as the map leaves out parts of the tensor, or there is no model."""


def doubts(binding: Binding, settings: Mapping[str, Any]) -> list[Doubt]:
    """Return all that no shape tells of the parameters of a file.

    Without a model to compare with no shape tells of any matrix whether it is transposed.

    Args:
        binding: of :func:`maps.bind`.
        settings: of the model, as of :func:`maps.bind`.
    """
    bound = [each for each in binding.bound if each.tensor is not None]
    tensors: dict[str, list[Bound]] = {}
    for each in bound:
        tensors.setdefault(str(each.tensor), []).append(each)
    fused = [sorted(parts, key=lambda each: each.at.part) for parts in tensors.values() if parts[0].at.part[1] > 1]
    found = [
        *(_transposed(binding, each, tensors[str(each.tensor)]) for each in bound if len(each.shape) == 2),
        *_exchanged(fused),
        *_by_head(fused, settings),
        *(_paired(bound, settings) if settings.get("positions") == "rotary" else ()),
    ]
    known = [each for each in found if each is not None]
    return known if binding.model else [each._replace(changes=()) for each in known]


def otherwise(doubt: Doubt, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the parameters of a doubt as they would be; {}: it cannot be tried."""
    others: dict[str, np.ndarray] = {}
    for names, before, after in doubt.changes:
        tensor = operations.fuse([parameters[name] for name in names], before)
        others |= {name: operations.place(tensor, at) for name, at in zip(names, after, strict=True)}
    return others


def in_words(found: Sequence[Doubt]) -> str:
    """Return doubts in words: of each kind the first, and how many there are.

    >>> in_words([Doubt(TRANSPOSED, ("a",), ()), Doubt(TRANSPOSED, ("b",), ()), Doubt(EXCHANGED, ("c", "d"), ())])
    'whether a is transposed (1 more such), which of c and d comes first'
    """
    kinds: dict[str, list[Doubt]] = {}
    for each in found:
        kinds.setdefault(each.what, []).append(each)
    return ", ".join(said(same[0]) + f" ({len(same) - 1} more such)" * (len(same) > 1) for same in kinds.values())


def said(doubt: Doubt) -> str:
    """Return one doubt in words."""
    return doubt.what.format(" and ".join(doubt.names))


def _transposed(binding: Binding, each: Bound, together: Sequence[Bound]) -> Doubt | None:
    if binding.model and not operations.square(each.tensor_shape, each.at):
        return None
    parts = sorted(together, key=lambda part: part.at.part)
    turned = _change(parts, [part.at._replace(transpose=not part.at.transpose) for part in parts])
    return Doubt(TRANSPOSED, (each.name,), (turned,) if _whole(parts) else ())


def _exchanged(fused: Sequence[Sequence[Bound]]) -> Iterator[Doubt]:
    """Every two parts of equal shape; a bias with its weight, if both are fused so."""
    changes: dict[tuple[str, str], list[Change]] = {}
    for parts in fused:
        for pair in combinations(parts, 2):
            if pair[0].shape != pair[1].shape:
                continue
            first, second = (part.at._replace(part=(number, 2)) for number, part in enumerate(pair))
            after = (first._replace(part=(1, 2)), second._replace(part=(0, 2)))
            key = pair[0].name.rpartition(".")[0], pair[1].name.rpartition(".")[0]
            changes.setdefault(key, []).append(Change((pair[0].name, pair[1].name), (first, second), after))
    for each in changes.values():
        yield Doubt(EXCHANGED, max(each, key=lambda change: change.names[0]).names, tuple(each))


def _by_head(fused: Sequence[Sequence[Bound]], settings: Mapping[str, Any]) -> Iterator[Doubt]:
    """Queries, keys and values of as many heads, of which rows by role fit those head by head."""
    changes: dict[str, list[Change]] = {}
    names: dict[str, tuple[str, ...]] = {}
    heads = int(settings.get("heads") or 1)
    for parts in fused:
        of = [re.fullmatch(ATTENTION, part.name) for part in parts]
        if heads == 1 or not all(of) or not _whole(parts) or key_value_heads(settings) != heads:
            continue
        layer = str(of[0] and of[0][1])
        after = [part.at._replace(per_head=not part.at.per_head, heads=heads) for part in parts]
        changes.setdefault(layer, []).append(_change(parts, after))
        names[layer] = max(names.get(layer, ()), tuple(part.name for part in parts))
    for layer, each in changes.items():
        yield Doubt(BY_HEAD, names[layer], tuple(each))


def _paired(bound: Sequence[Bound], settings: Mapping[str, Any]) -> Iterator[Doubt]:
    """Queries and keys of a layer, all together: so a map of another tool would have them."""
    changes: dict[str, list[Change]] = {}
    for each in bound:
        of = re.fullmatch(ATTENTION, each.name)
        if of is None or of[2] == "value" or not settings.get("heads"):
            continue
        heads = int(key_value_heads(settings) if of[2] == "key" else settings["heads"])
        halves = int(settings.get("rotary_width") or each.shape[0] // heads)
        if halves > 2:  # one pair is both
            here, other = Placement(heads=heads), Placement(heads=heads, halves=halves)
            before, after = (other, here) if each.at.halves else (here, other)
            changes.setdefault(of[1], []).append(Change((each.name,), (before,), (after,)))
    for layer in changes.values():
        names = tuple(name for change in layer for name in change.names if name.endswith("weight"))
        yield Doubt(PAIRED, names or layer[0].names, tuple(layer))


def _change(parts: Sequence[Bound], after: Sequence[Placement]) -> Change:
    return Change(tuple(part.name for part in parts), tuple(part.at for part in parts), tuple(after))


def _whole(parts: Sequence[Bound]) -> bool:
    """Whether all parts of a tensor are there, each once."""
    return [part.at.part for part in parts] == [(number, len(parts)) for number in range(len(parts))]
