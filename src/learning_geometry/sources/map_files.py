"""Maps from the tensors of other tools to the parameters of the transformer: YAML files, read and checked."""

import difflib
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from learning_geometry.sources.checkpoint import MapError

FOLDER = Path(__file__).parent / "built_in"

_LINEAR = ("attention.query", "attention.key", "attention.value", "attention.output", "mlp.gate", "mlp.up", "mlp.down")
_PARTS = ("attention_norm", "mlp_norm", *_LINEAR)
PARAMETERS = (
    "embedding.weight",
    "positions.weight",
    *(f"layers.{{l}}.{part}.{kind}" for part in _PARTS for kind in ("weight", "bias")),
    "final_norm.weight",
    "final_norm.bias",
    "readout.weight",
    "readout.bias",
)
"""Every parameter that the workflow's transformer may have; ``{l}`` is the number of a layer."""

LISTS = ("ignore", "prefixes", "zeros")
"""Keys of a map that hold lists of text."""


class Entry(NamedTuple):
    """Where a parameter comes from, as a map says it; ``{l}`` stands for the number of a layer."""

    name: str
    """Of the parameter."""
    source: str | None
    """Name of the tensor in the file; None: there is none, and ``fill`` says what the parameter is."""
    part: tuple[int, int] = (0, 1)
    per_head: bool = False
    transpose: bool = False
    heads_first: bool = False
    halves: bool = False
    fill: float | None = None
    tied: str | None = None
    """The parameter whose copy the tensor must be if the model has no such parameter."""
    optional: bool = False
    """The file may lack the tensor in all layers; of a model that is given, it must have what the model has."""


class Map(NamedTuple):
    """A map that has been read."""

    name: str
    """As in the config: a built-in one, or a path."""
    entries: tuple[Entry, ...]
    ignore: tuple[str, ...] = ()
    """Patterns (``*``, ``?``) of names in the file that are left out."""
    zeros: tuple[str, ...] = ()
    """Patterns of names that are left out if no parameter is made of them, and must then hold zeros alone."""
    prefixes: tuple[str, ...] = ()
    """What names in the file may begin with or not, any number of times in any order."""
    also: tuple[tuple[str, str], ...] = ()
    """Names that some files have, without prefixes, and what the map calls them."""


def built_in() -> list[str]:
    """Return the names of the maps that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_map(name_or_path: str, base: Path = Path(), parameters: Collection[str] = PARAMETERS) -> Map:
    """Return a built-in map, or one of the user's in a YAML file.

    Args:
        name_or_path: one of :func:`built_in`, or the path of a file, which ends in ``.yaml`` or ``.yml``.
        base: the folder that a relative path starts from.
        parameters: the names that a map may give, ``{l}`` for the number of a layer.

    Raises:
        MapError: there is no such map or file, or it holds a key, an operation or a value that is not known; the
            message names file, entry and the nearest name that is.
    """
    path = base / name_or_path
    if Path(name_or_path).suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name_or_path}.yaml"
        if name_or_path not in built_in():
            raise MapError(
                f"{name_or_path!r} is no map; did you mean {nearest(name_or_path, built_in())}? Another map is a file "
                "whose name ends in .yaml"
            )
    content = _read(path)
    allowed = [*parameters, *LISTS, "also", "extends"]
    for key in content:
        if not isinstance(key, str) or _pattern(key) not in allowed:
            raise MapError(
                f"{path}: {key!r} is neither a parameter of the transformer nor a key of a map; did you mean "
                f"{nearest(str(key), allowed)}?"
            )
    lists = {key: _texts(path, key, content.pop(key, [])) for key in LISTS}
    also = content.pop("also", {})
    if not isinstance(also, dict) or not all(isinstance(each, str) for pair in also.items() for each in pair):
        raise MapError(f"{path}: also is {also!r}, and must be a mapping of names, such as lm_head.weight: out.weight")
    extended = Map("", ())
    if "extends" in content:
        extended = _extended(path, content.pop("extends"), parameters)
    entries = {entry.name: entry for entry in extended.entries}
    entries |= {name: _entry(path, name, value, parameters) for name, value in content.items()}
    if not entries:
        raise MapError(f"{path}: names no parameter; add lines such as `embedding.weight: <name in the file>`")
    joined = {key: (*getattr(extended, key), *texts) for key, texts in lists.items()}
    return Map(name_or_path, tuple(entries.values()), also=(*extended.also, *also.items()), **joined)


def map_files(name_or_path: str, base: Path = Path()) -> list[Path]:
    """Return the files that a map is read from: its own, and those that it extends.

    Raises:
        MapError: as :func:`read_map`, of what has to be read for that.
    """
    read_map(name_or_path, base)
    own = Path(name_or_path).suffix in (".yaml", ".yml")
    files = [base / name_or_path if own else FOLDER / f"{name_or_path}.yaml"]
    while (extended := _read(files[-1]).get("extends")) is not None:
        files.append(FOLDER / f"{extended}.yaml")
    return files


def nearest(name: str, names: Collection[str]) -> str:
    """Return the three names nearest to one, in words; "none" if there are none."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0)
    return " or ".join(close) if close else "none"


def _extended(path: Path, name: Any, parameters: Collection[str]) -> Map:
    if name not in built_in():
        raise MapError(f"{path}: extends {name!r}, which is no built-in map; there are {', '.join(built_in())}")
    if path == FOLDER / f"{name}.yaml":
        raise MapError(f"{path}: extends itself")
    return read_map(name, parameters=parameters)


def _pattern(key: str) -> str:
    """Return the name of a parameter with ``{l}`` for the number of its layer."""
    return re.sub(r"^layers\.(0|[1-9][0-9]*)\.", "layers.{l}.", key)


def _read(path: Path) -> dict[Any, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise MapError(f"{path}: has aliases (*), which maps do without; quote a pattern that begins with *")
        _check_repeated(path, yaml.compose(text, yaml.SafeLoader))
        content = yaml.safe_load(text)
    except (OSError, UnicodeError, RecursionError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, MapError):
            raise
        raise MapError(f"{path}: cannot be read as a map ({' '.join(str(error).split())}); correct it") from None
    if not isinstance(content, dict):
        raise MapError(f"{path}: holds no mapping; write lines such as `embedding.weight: <name in the file>`")
    return content


def _check_repeated(path: Path, node: yaml.Node | None) -> None:
    """Refuse a key that is given twice: YAML would keep the last one in silence."""
    for pairs in [node.value] if isinstance(node, yaml.MappingNode) else []:
        keys = [key.value for key, _ in pairs]
        for key, value in pairs:
            if keys.count(key.value) > 1:
                line = key.start_mark.line + 1
                raise MapError(f"{path}, line {line}: {key.value} is given twice; remove one of the two")
            _check_repeated(path, value)


def _texts(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise MapError(f"{path}: {key} is {value!r}, and must be a list of text, such as {key}: [model.]")
    return tuple(value)


def _entry(path: Path, name: str, value: Any, parameters: Collection[str]) -> Entry:
    """Return an entry after checking it."""

    def wrong(problem: str) -> MapError:
        return MapError(f"{path}: {name}: {problem}")

    said = {"from": value} if isinstance(value, str) else value
    if not isinstance(said, dict):
        raise wrong(f"is {value!r}; write the name of a tensor, or a mapping with `from`")
    for key, given in said.items():
        if key not in _KEYS:
            raise wrong(f"unknown operation {key!r}; did you mean {nearest(str(key), list(_KEYS))}?")
        known, expected = _KEYS[key]
        if not known(given):
            raise wrong(f"{key} is {given!r}, and must be {expected}")
    source, fill = said.get("from"), said.get("fill")
    if (source is None) == (fill is None):
        raise wrong("needs either `from`, the name of a tensor in the file, or `fill`, a number")
    if fill is not None and (more := sorted(set(said) - {"fill"})):
        raise wrong(f"{more[0]} says how a tensor of the file is read, and with `fill` there is none; take it out")
    if source is not None and ("{l}" in source) != ("{l}" in name):
        raise wrong(f"{{l}} must stand in the name of the parameter and in {source!r}, or in neither")
    if source is not None and (strange := set(re.findall(r"{.*?}", source)) - {"{l}"}):
        raise wrong(f"{min(strange)} in {source!r} is not known; {{l}} stands for the number of a layer")
    if "heads" in said and "part" in said:
        raise wrong("heads and part cannot both be: tensors with heads first are not fused")
    if "fused" in said and "part" not in said:
        raise wrong("fused needs part: [<number>, <how many>]")
    if said.get("tied") is not None and said["tied"] not in parameters:
        raise wrong(
            f"tied to {said['tied']!r}, which is no parameter; did you mean {nearest(said['tied'], parameters)}?"
        )
    return Entry(
        name=name,
        source=source,
        part=tuple(said.get("part", (0, 1))),
        per_head="fused" in said,
        transpose=said.get("transpose", False),
        heads_first="heads" in said,
        halves="rotary" in said,
        fill=fill,
        tied=said.get("tied"),
        optional=said.get("optional", False),
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_TRUE_OR_FALSE = (lambda value: isinstance(value, bool), "true or false")
_KEYS: dict[Any, tuple[Any, str]] = {
    "from": (lambda value: isinstance(value, str) and bool(value), "the name of a tensor in the file"),
    "part": (
        lambda value: (
            isinstance(value, list) and len(value) == 2 and all(map(_whole, value)) and 0 <= value[0] < value[1]
        ),
        "[<number from 0>, <how many are fused>], such as [0, 3]",
    ),
    "fused": (lambda value: value == "per_head", "per_head: rows are [heads, parts, head width]"),
    "transpose": _TRUE_OR_FALSE,
    "heads": (lambda value: value == "first", "first: heads are the first dimension"),
    "rotary": (lambda value: value == "halves", "halves: pairs are j and j + half of what is turned"),
    "fill": (lambda value: _whole(value) or (isinstance(value, float) and math.isfinite(value)), "a number"),
    "tied": (lambda value: isinstance(value, str), "the name of a parameter"),
    "optional": _TRUE_OR_FALSE,
}
"""What an entry may say, how it is checked, and what it must be."""
