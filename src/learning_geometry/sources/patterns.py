"""Patterns of files, such as ``runs/seed-{seed}/ckpt_{step}.pt``: which paths match, and with which number."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from learning_geometry.sources.checkpoint import SourceError

PLACEHOLDERS = ("seed", "step", "any")
ODD_NUMBER = r"-\d+|-?\d+[.,]\d+|\d+(?:\.\d+)?[eE][+-]?\d+|\d+[kKmM]"
"""Numbers that are no steps, at least not as they stand: -1, 1.5, 1e3, 5k."""
ANY = "[^/]*"
SHOWN = 6


class Match(NamedTuple):
    """A path that a pattern matches."""

    path: Path
    number: str | None
    """What stands where the pattern has ``{step}``; None: it has no such place."""


def placeholders(pattern: str) -> list[str]:
    """Return the names in braces of a pattern, in order.

    Raises:
        SourceError: it holds another name, ``{step}`` twice, or ``**``.

    >>> placeholders("runs/seed-{seed}/epoch={any}-step={step}.ckpt")
    ['seed', 'any', 'step']
    """
    names = re.findall(r"\{(.*?)\}", pattern)
    left = re.sub(r"\{(.*?)\}", "", pattern)
    if unknown := [name for name in names if name not in PLACEHOLDERS]:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise SourceError(f"{pattern}: {{{unknown[0]}}} is not known; there are {known}")
    if "{" in left or "}" in left:
        raise SourceError(f"{pattern}: a brace is not closed or not opened; write {{step}} or {{seed}}")
    if names.count("step") > 1:
        raise SourceError(f"{pattern}: has {{step}} more than once; write {{any}} for the others")
    if "**" in pattern:
        raise SourceError(f"{pattern}: ** is not read; * stands for any part of one name, write */* for two folders")
    return names


def matches(pattern: str, seed: int, base: Path = Path()) -> list[Match]:
    """Return the files and folders that match, in the natural order of their names: numbers compare as numbers.

    ``{seed}`` and ``{step}`` are whole numbers, zero-padded or not; ``*`` and ``{any}`` any part of one name; all else
    is literal, brackets and question marks too. Hidden names match only where the pattern begins with a dot.

    Args:
        pattern: a path relative to ``base``, or an absolute one.
        seed: for ``{seed}``.
        base: folder.

    Raises:
        SourceError: nothing matches, which says what is there instead.
    """
    whole = base / pattern
    found = [Match(Path(whole.anchor), None)]
    for part in whole.parts[1:] if whole.anchor else whole.parts:
        before, found = found, [match for each in found for match in _below(each, part, seed)]
        if not found:
            raise SourceError(f"{pattern}{_of(pattern, seed)}: nothing matches; {_nearest(before, part, seed)}")
    return sorted(found, key=lambda match: natural(match.path))


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Return what to sort paths by so that numbers in them compare as numbers.

    >>> sorted([Path("step_10"), Path("step_9")], key=natural)[0].name
    'step_9'
    """
    parts = re.split(r"(\d+)", path.as_posix())
    return [(1, int(part), part) if place % 2 else (0, 0, part) for place, part in enumerate(parts)]


def left_out(pattern: str, seed: int, base: Path = Path()) -> list[Match]:
    """Return what would match if ``{step}`` were any text, and is there no whole number: ``ckpt_best.pt``.

    Args:
        pattern: with ``{step}``.
        seed: for ``{seed}``.
        base: folder.
    """
    try:
        looser = matches(pattern.replace("{step}", "{any}"), seed, base)
    except SourceError:
        return []
    text = re.compile(_expression(Path(pattern).as_posix(), seed, r"([^/]*)"))
    found = []
    for match in looser:
        path = match.path.relative_to(base).as_posix() if not Path(pattern).is_absolute() else match.path.as_posix()
        said = text.fullmatch(path)
        if said is not None and not (said[1].isascii() and said[1].isdigit()):
            found.append(Match(match.path, said[1]))
    return found


def _below(match: Match, part: str, seed: int) -> Iterator[Match]:
    """What in a folder matches one part of the pattern."""
    if not re.search(r"[*{]", part):
        if (match.path / part).exists():
            yield Match(match.path / part, match.number)
        return
    if not match.path.is_dir():
        return
    pattern = _expression(part, seed, r"(\d+)")
    expression, lazy = re.compile(pattern, re.ASCII), re.compile(pattern.replace(ANY, ANY + "?"), re.ASCII)
    for child in match.path.iterdir():
        if child.name.startswith(".") and not part.startswith("."):
            continue
        said = [each for each in (lazy.fullmatch(child.name), expression.fullmatch(child.name)) if each is not None]
        if not said:
            continue
        numbers = [each[1] if each.groups() else match.number for each in said]
        if numbers[0] != numbers[-1]:
            raise SourceError(
                f"{child}: both {numbers[0]} and {numbers[-1]} could be {{step}} in {part}; write more of the name"
            )
        yield Match(child, numbers[0])


def _expression(part: str, seed: int, step: str) -> str:
    """A part of a pattern as a regular expression; numbers in names are taken whole."""
    made = ""
    for piece in re.split(r"(\{seed\}|\{step\}|\{any\}|\*)", part):
        if piece in ("*", "{any}"):
            made += ANY
        elif piece == "{seed}":
            made += rf"{_begin(made)}0*{seed}(?!\d)"
        elif piece == "{step}":
            made += f"{_begin(made)}{step}" + (r"(?!\d)" if step.startswith(r"(\d") else "")
        else:
            made += re.escape(piece)
    return made


def _begin(before: str) -> str:
    """After any text, a number must not begin in the middle of one."""
    return r"(?<!\d)" if before.endswith(ANY) else ""


def _of(pattern: str, seed: int) -> str:
    return f" (seed {seed})" if "{seed}" in pattern else ""


def _nearest(folders: list[Match], part: str, seed: int) -> str:
    """What is there instead of a part of a pattern."""
    folder = next((match.path for match in folders if match.path.is_dir()), None)
    if folder is None:
        return f"{folders[0].path} is a file, in which nothing is; correct the pattern"
    names = [child.name for child in folder.iterdir()]
    wanted = part.replace("{seed}", str(seed)).replace("{step}", "0")
    near = difflib.get_close_matches(wanted, names, SHOWN, 0.0)
    if not near:
        return f"{folder} is empty; correct the pattern"
    more = ", …" if len(names) > len(near) else ""
    return f"{folder} holds {', '.join(sorted(near, key=lambda name: natural(Path(name))))}{more}; correct the pattern"
