"""Weights that lie in several files: what their index says, against what the files hold."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SAFETENSORS = ".safetensors"


def read_mapping(path: Path, what: str, advice: str) -> dict[str, Any]:
    """Return the mapping in a JSON file.

    Args:
        path: the file.
        what: it is, in a message: "config" or "index".
        advice: what to do if it cannot be read.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = f"no {path.name}" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
        raise ValueError(f"its {what} cannot be read ({reason}); {advice}") from None
    if not isinstance(content, dict):
        raise ValueError(f"its {what} cannot be read ({path.name} holds no mapping); {advice}")
    return content


def read_index(index: Path, ending: str = SAFETENSORS) -> dict[str, str]:
    """Return which file beside an index holds which tensor, as its ``weight_map`` says: tensor -> name of the file.

    Args:
        index: such as ``model.safetensors.index.json``, as transformers, accelerate and PyTorch write it.
        ending: that of the files.

    Raises:
        ValueError: it cannot be read, or a file is of another kind, in another folder or not there.
    """
    named = read_mapping(index, "index", "get it again").get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ValueError(f"{index.name}: its weight_map names no files; get it again")
    for tensor, name in named.items():
        if not name.endswith(ending):
            read = "safetensors are read, never a pickle" if ending == SAFETENSORS else f"files {ending} may be in it"
            raise ValueError(f"{index.name}: {tensor} is in {name!r}, and only {read}")
        if Path(name).name != name or "\\" in name:
            raise ValueError(f"{index.name}: {tensor} is in {name!r}, which is not in the folder; put all files there")
        if not (index.parent / name).is_file():
            raise ValueError(f"{index.name}: {tensor} is in {name!r}, and there is no such file; get it again")
    return named


def check_shard(index: Path, named: Mapping[str, str], file: str, held: Mapping[str, Any]) -> None:
    """Check that a file holds the tensors that its index says, and no others.

    Args:
        index: where ``named`` is from.
        named: what :func:`read_index` returned.
        file: name of the file.
        held: tensors of the file, by name.

    Raises:
        ValueError: it does not; a tensor that two files hold is among these.
    """
    if lost := sorted(name for name, place in named.items() if place == file and name not in held):
        raise ValueError(f"{index.name}: {lost[0]} is not in {file}; get the files again")
    if more := sorted(name for name in held if named.get(name) != file):
        told = f"in {named[more[0]]} by" if more[0] in named else "not in"
        raise ValueError(f"{file}: {more[0]} is {told} {index.name}; get the files again")
