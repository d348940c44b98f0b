"""Claims in the names of a config: its texts, contrasts and dictionaries may be called anything."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from learning_geometry.claims.claim import EACH, Claim, Comparison, Series, Study

SECTIONS = {"text": "texts", "contrast": "prompts", "first contrast": "prompts"}
"""What a comparison is made for each of -> the section of the config that names them."""

SMALL = "_small"
"""Ends the name of a dictionary that differs from another by having fewer latents."""


def named(claim: Claim, study: Study, experiments: Sequence[Mapping[str, Any]]) -> Claim:
    """Return a claim with its comparisons made for each text or contrast, and its dictionaries called as in the config.

    Comparisons that follow each other and are made for each of the same are made name by name. Of several experiments
    the names count that all have, in the order of the first; with none a comparison stays as it is.

    Args:
        claim: of the study.
        study: whose ``dictionaries`` tell which dictionary of the config is which.
        experiments: settings of those that the claim is judged on together.
    """
    comparisons: list[Comparison] = []
    block: list[Comparison] = []
    for comparison in (*claim.comparisons, None):
        if block and (comparison is None or comparison.each != block[0].each):
            comparisons += _for_each(block, experiments)
            block = []
        if comparison is not None:
            block.append(comparison)
    shown = next((name for each in SECTIONS for name in shared(each, experiments)), EACH)
    dictionaries = (
        _dictionaries_of(_dictionaries(claim), study.dictionaries, experiments[0]) if len(experiments) == 1 else {}
    )
    return replace(
        claim,
        quantity=_renamed(claim.quantity, dictionaries | {EACH: shown}),
        comparisons=tuple(_with(comparison, dictionaries) for comparison in comparisons),
    )


def shared(each: str, experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of texts or contrasts that all experiments have; for "first contrast" the first alone."""
    sections = [experiment.get(SECTIONS[each]) or {} for experiment in experiments]
    names = [name for name in (sections[0] if sections else {}) if all(name in other for other in sections)]
    return names[:1] if each.startswith("first") else names


def _for_each(block: Sequence[Comparison], experiments: Sequence[Mapping[str, Any]]) -> Iterator[Comparison]:
    each = block[0].each
    if each is None:
        yield from block
        return
    names = shared(each, experiments)
    if not names:
        # still made for each: of nothing, which its judge says
        yield from (_with(comparison, {EACH: f"each {each}"}) for comparison in block)
    for name in names:
        yield from (replace(_with(comparison, {EACH: name}), each=None) for comparison in block)


def _with(comparison: Comparison, names: Mapping[str, str]) -> Comparison:
    """Return a comparison whose null and series bear other names."""
    parameters = {key: _renamed(value, names) for key, value in comparison.parameters.items()}
    return replace(comparison, null=comparison.null.replace(EACH, names.get(EACH, EACH)), parameters=parameters)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    return replace(value, data=names[value.data]) if isinstance(value, Series) and value.data in names else value


def _dictionaries(claim: Claim) -> list[str]:
    """Return what a claim calls the dictionaries that it reads, its own first."""
    series = [claim.quantity, *(value for row in claim.comparisons for value in row.parameters.values())]
    return list(dict.fromkeys(each.data for each in series if isinstance(each, Series)))


def _dictionaries_of(
    wanted: Sequence[str], known: Mapping[str, Mapping[str, Any]], experiment: Mapping[str, Any]
) -> dict[str, str]:
    """Return what a claim calls dictionaries -> what the config does.

    They are told by their settings, and may differ by nothing else, but that of a small one the latents are fewer. Of
    several sizes the largest for which all are there counts; of small ones the smallest.
    """
    sweep = (experiment.get("measurements") or {}).get("dictionary_sweep") or {}
    # of those that were trained elsewhere no claim speaks
    dictionaries: Mapping[str, Mapping[str, Any]] = {
        name: each for name, each in (sweep.get("dictionaries") or {}).items() if "latents" in each
    }
    roles = [name for name in wanted if name in known]
    largest_first = sorted({dictionary["latents"] for dictionary in dictionaries.values()}, reverse=True)

    def others(dictionary: Mapping[str, Any]) -> dict[str, Any]:
        told_by = {key for conditions in known.values() for key in conditions}
        return {key: value for key, value in dictionary.items() if key not in told_by and key != "latents"}

    def playing(role: str, like: Mapping[str, Any], latents: Sequence[int]) -> list[str]:
        return [
            name
            for size in latents
            for name, dictionary in dictionaries.items()
            if dictionary["latents"] == size
            and others(dictionary) == like
            and all(dictionary.get(key) == value for key, value in known[role].items())
        ]

    for size in largest_first:
        smallest = sorted(each for each in largest_first if each < size)
        for like in [others(dictionary) for dictionary in dictionaries.values() if dictionary["latents"] == size]:
            candidates = {role: playing(role, like, smallest if role.endswith(SMALL) else [size]) for role in roles}
            if roles and all(candidates.values()):
                return {role: names[0] for role, names in candidates.items()}
    return {}
