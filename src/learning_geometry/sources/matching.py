"""Which tensor of a file a map means by each name, what is missing then, and what is left."""

import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from itertools import count
from typing import NamedTuple

from learning_geometry.sources.checkpoint import SourceError
from learning_geometry.sources.map_files import Entry, Map, nearest
from learning_geometry.sources.operations import Shape

NUMBER = "(0|[1-9][0-9]{0,8})"
"""The number of a layer in a name, as a regular expression; what has more digits is none."""


class Asked(NamedTuple):
    """What a map asks of one file: parameter -> its entry and the name of its tensor; what is missing, what is left."""

    found: dict[str, tuple[Entry, str]]
    copies: dict[str, tuple[Entry, str]]
    lacking: dict[str, Entry]
    left: list[str]


def bare(map: Map, name: str) -> str:
    """Return what a name of the file, or of the map, is called without prefixes, whichever of its names it is."""
    while prefix := next((each for each in map.prefixes if name.startswith(each)), ""):
        name = name.removeprefix(prefix)
    return dict(map.also).get(name, name)


def bare_names(map: Map, tensors: Iterable[str]) -> dict[str, str]:
    """Return the names of a file by what they are without prefixes."""
    names: dict[str, str] = {}
    for name in tensors:
        plain = bare(map, name)
        if plain in names:
            raise SourceError(
                f"map {map.name}: {names[plain]} and {name} are one name by its `prefixes` and "
                "`also`; write a map of your own that leaves them apart"
            )
        names[plain] = name
    return names


def matches(map: Map, name: str, patterns: Iterable[str]) -> bool:
    """Return whether a name of the file, with its prefixes or without, matches one of some patterns."""
    return any(fnmatchcase(each, pattern) for pattern in patterns for each in (name, bare(map, name)))


def numbers(pattern: str, names: Iterable[str]) -> set[int]:
    """Return the numbers of layers in names that begin as a pattern says."""
    return {int(found[1]) for found in (re.match(pattern, name) for name in names) if found}


def layers_of(map: Map, names: Iterable[str]) -> set[int]:
    """Return the numbers of layers of which a file has tensors that a map names."""
    sources = {bare(map, entry.source) for entry in map.entries if entry.source and "{l}" in entry.source}
    patterns = [re.escape(each).replace(r"\{l\}", NUMBER, 1).replace(r"\{l\}", r"\1") for each in sources]
    return {number for pattern in patterns for number in numbers(f"{pattern}$", names)}


def first_gap(layers: Collection[int]) -> int | None:
    """Return the first layer that is not there though one after it is; None: there is no such layer.

    >>> first_gap({0, 1, 3}), first_gap({0, 1}), first_gap(())
    (2, None, None)
    """
    gap = next(number for number in count() if number not in layers)
    return gap if gap < max(layers, default=0) else None


def check_layers(map: Map, layers: set[int]) -> None:
    """Refuse layers of a file, of which no model says how many there are, if one before the last is not there.

    Raises:
        SourceError: it lacks one, which neither has a line of its own in the map.
    """
    last = max(layers, default=-1)
    alone = numbers(rf"layers\.{NUMBER}\.", (entry.name for entry in map.entries))
    # one at a time: the last may be the thousand millionth
    if (gap := first_gap(layers | {number for number in alone if number < last})) is not None:
        raise SourceError(
            f"map {map.name}: the file has no layer {gap}, but a layer {last}; give a whole checkpoint, or `model`, "
            "which says how many layers there are, and `ignore` the others in a map of your own"
        )


def entries_of(map: Map, layers: int) -> dict[str, Entry]:
    """Return the entries of a map for that many layers; one for a single layer goes before that for all."""
    general, single = {}, {}
    for entry in map.entries:
        if "{l}" not in entry.name:
            single[entry.name] = entry
            continue
        for layer in range(layers):
            name, source = (text and text.replace("{l}", str(layer)) for text in (entry.name, entry.source))
            general[str(name)] = entry._replace(name=str(name), source=source)
    return general | single


def look_up(
    map: Map, entries: Mapping[str, Entry], names: Mapping[str, str], shapes: Mapping[str, Shape] | None
) -> Asked:
    """Look for what a map names among the names of a file."""
    there = {
        name: (entry, names[bare(map, entry.source)])
        for name, entry in entries.items()
        if entry.source is not None and bare(map, entry.source) in names
    }
    wanted = entries.keys() if shapes is None else shapes.keys()
    # in the order of the file's tensors, so that each is read once
    order = {tensor: number for number, tensor in enumerate(names.values())}
    found = dict(sorted(((name, there[name]) for name in wanted if name in there), key=lambda item: order[item[1][1]]))
    used = {tensor for _, tensor in found.values()}
    copies = {
        name: (entry, tensor)
        for name, (entry, tensor) in there.items()
        if name not in wanted and entry.tied in found and tensor not in used
    }
    lacking = {name: entries[name] for name in wanted if entries[name].source is not None and name not in found}
    if shapes is None:
        kinds = {re.sub("[0-9]+", "", name) for name in found}
        may = {name for name, entry in lacking.items() if entry.optional or entry.tied}
        lacking = {name: e for name, e in lacking.items() if name not in may or re.sub("[0-9]+", "", name) in kinds}
    used |= {tensor for _, tensor in copies.values()}
    return Asked(found, copies, lacking, [name for name in names.values() if name not in used])


def not_bound(
    map: Map,
    asked: Asked,
    unused: list[str],
    entries: Mapping[str, Entry],
    names: Mapping[str, str],
    layers: set[int],
) -> str:
    """Return what is missing and what is not used, in words."""
    problems = []
    if asked.lacking:
        name, entry = next(iter(asked.lacking.items()))
        problems.append(
            f"{len(asked.lacking)} tensors are missing, first {entry.source}, for {name}; nearest in the file: "
            f"{nearest(str(entry.source), unused or list(names.values()))}"
        )
        if entry.tied:
            problems.append(f"a file without it has a read-out tied to its {entry.tied}: set tied_readout: true")
    in_file = layers_of(map, names)
    if (gap := first_gap(in_file)) is not None:
        problems.append(f"the file has no layer {gap}, but a layer {max(in_file)}")
    if unused:
        sources = [str(each.source) for each in (asked.lacking or entries).values() if each.source]
        problems.append(
            f"{len(unused)} tensors of the file are not used, first {unused[0]}; nearest in the map: "
            f"{nearest(unused[0], sources)}; correct the map or the model's settings, or add names to `ignore` in a "
            "map of your own"
        )
        plain = bare(map, unused[0])
        if lacked := [name for name, each in entries.items() if each.source and bare(map, each.source) == plain]:
            problems.append(f"it is {lacked[0]}, which a model of these settings does not have")
        elif in_file - layers:
            problems.append(f"the file has a layer {max(in_file)}, and the model {max(layers, default=-1) + 1} layers")
    return f"map {map.name}: {'. '.join(problems)}"
