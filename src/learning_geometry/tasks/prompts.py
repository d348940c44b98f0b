"""Contrastive prompts: two text files, one prompt a line; line i of one file is the partner of line i of the other.

The prompts of a pair have the same form and, within a word, the same length, and differ in what makes the contrast, so
that topic and length do not. The sets that come with the package lie in ``prompt_sets`` beside this file; any other
file may take their place. The harmful set holds requests that a model should refuse, in general words, and no answers.
"""

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "prompt_sets"
SUFFIX = ".txt"


class ContrastPairs(NamedTuple):
    """Two sets of prompts, as many in one as in the other; those of a pair are at the same place."""

    first: tuple[str, ...]
    second: tuple[str, ...]


def prompt_file(name: str | Path) -> Path:
    """Return the file of a set that comes with the package, or of any other by its path.

    Args:
        name: such as "harmful", or a path, which has a suffix or a folder.

    Raises:
        FileNotFoundError: there is no such set or file.

    >>> prompt_file("harmful").name
    'harmful.txt'
    """
    bundled = FOLDER / f"{name}{SUFFIX}"
    if Path(name).name == str(name) and bundled.is_file():
        return bundled
    path = Path(name)
    if not path.is_file():
        sets = sorted(file.stem for file in FOLDER.glob(f"*{SUFFIX}"))
        raise FileNotFoundError(f"{name}: no such prompt file; give the path of a text file, or one of {sets}")
    return path


def read_prompts(name: str | Path) -> tuple[str, ...]:
    """Read prompts, one a line; spaces at the ends of lines and empty lines at the end of the file do not count.

    Args:
        name: as of :func:`prompt_file`.

    Raises:
        FileNotFoundError: as :func:`prompt_file`.
        ValueError: the file is not UTF-8 text, holds no prompt, an empty line among them, or a prompt twice.
    """
    path = prompt_file(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from None
    # not splitlines, which also splits at characters that a prompt may hold
    prompts = [line.strip() for line in text.rstrip().split("\n")]
    if prompts == [""]:
        raise ValueError(f"{path}: holds no prompt; write one a line")
    places: dict[str, int] = {}
    for number, prompt in enumerate(prompts, start=1):
        if "\0" in prompt:
            raise ValueError(f"{path}, line {number}: holds a NUL, so that it is no text; give a text file in UTF-8")
        if not prompt:
            raise ValueError(
                f"{path}, line {number}: empty; delete the line, so that the prompts of a pair stay at the same place"
            )
        if prompt in places:
            raise ValueError(
                f"{path}, line {number}: the same prompt as in line {places[prompt]}, {prompt!r}; delete one of them "
                "and its partner"
            )
        places[prompt] = number
    return tuple(prompts)


def read_contrast_pairs(first: str | Path, second: str | Path) -> ContrastPairs:
    """Read both sets of a contrast.

    Args:
        first: as of :func:`prompt_file`.
        second: of their partners.

    Raises:
        FileNotFoundError: as :func:`prompt_file`.
        ValueError: as :func:`read_prompts`; or one file holds more prompts than the other, or a prompt of the other.

    >>> [len(prompts) for prompts in read_contrast_pairs("harmful", "harmless")]
    [64, 64]
    """
    pairs = ContrastPairs(read_prompts(first), read_prompts(second))
    counts = [len(prompts) for prompts in pairs]
    if counts[0] != counts[1]:
        short, long = (first, second) if counts[0] < counts[1] else (second, first)
        raise ValueError(
            f"{prompt_file(short)}: holds {min(counts)} prompts, and {prompt_file(long)} {max(counts)}; "
            "write one partner for each, at the same line"
        )
    places = {prompt: number for number, prompt in enumerate(pairs.first, start=1)}
    for number, prompt in enumerate(pairs.second, start=1):
        if prompt in places:
            raise ValueError(
                f"{prompt_file(second)}, line {number}: the same prompt as in {prompt_file(first)}, "
                f"line {places[prompt]}, {prompt!r}; a prompt belongs to one set"
            )
    return pairs
