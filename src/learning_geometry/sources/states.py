"""Where in a file of PyTorch the state dict stands, and what may be its step."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from learning_geometry.sources.checkpoint import SourceError, unwrapped

STATE_KEYS = ("model", "state_dict", "model_state_dict", "module", "net")
"""Keys under which tools keep the state dict: nanoGPT, Lightning, PyTorch's tutorials, DeepSpeed, older scripts."""
OF_TRAINING = re.compile("optim|sched|scaler|rng|random|grad|loss", re.IGNORECASE)
"""What keys hold beside a state dict to go on training with: expected there, and of no use here."""
DEPTH = 3
SHOWN = 8


def find_state(content: Any, asked: str | None, path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the state dict of a loaded file, and the keys that lead to it, joined by dots.

    Args:
        content: of the file.
        asked: keys that lead to it, as the user gave them; None: it is the file itself, or under one of
            :data:`STATE_KEYS`.
        path: of the file, for messages.

    Raises:
        SourceError: there is none, there are several, or one of the same names beside it, such as averaged weights; or
            what stands beside its tensors is no tensor.
    """
    if asked is not None:
        return asked, _checked(_at(content, asked), asked, path)
    if isinstance(content, Tensor):
        raise SourceError(f"{path}: holds one tensor without a name; save a dictionary of names and tensors")
    if not isinstance(content, dict):
        raise SourceError(f"{path}: holds a {type(content).__name__}; save model.state_dict()")
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return "", _checked(content, "", path)
    found = [key for key in STATE_KEYS if _has_tensors(content.get(key))]
    if len(found) > 1:
        raise SourceError(f"{path}: holds state dicts under {' and '.join(found)}; say which, as `state: {found[0]}`")
    if found:
        state = _checked(content[found[0]], found[0], path)
        _check_alone(content, found[0], path)
        return found[0], state
    elsewhere = list(_paths(content, ""))
    keys = ", ".join(str(key) for key in list(content)[:SHOWN]) + (", …" if len(content) > SHOWN else "")
    if elsewhere:
        raise SourceError(
            f"{path}: holds no state dict under {', '.join(STATE_KEYS)}, but tensors under "
            f"{', '.join(elsewhere[:SHOWN])}; say which, as `state: {elsewhere[0]}`"
        )
    if _has_tensors(content):
        return "", _checked(content, "", path)
    raise SourceError(f"{path}: holds {keys or 'nothing'} and no state dict; save model.state_dict()")


def beside(content: Any, where: str) -> list[str]:
    """Return the keys, joined by dots, under which tensors stand beside the state dict that is read.

    Those of :data:`OF_TRAINING` and single numbers are left out, and so is what lists hold.

    Args:
        content: of the file.
        where: keys that lead to the state dict, joined by dots.

    >>> from torch import ones
    >>> beside({"model": {"a": ones(2)}, "ema": {"a": ones(2)}, "extra": ones(2), "optimizer": {"m": ones(2)}}, "model")
    ['ema', 'extra']
    """
    return [key for key in _holding(content, "") if where and not _within(where, key) and not OF_TRAINING.search(key)]


def _holding(content: Any, before: str, depth: int = DEPTH) -> Iterator[str]:
    """Keys of tensors with rows, and of dictionaries of tensors alone."""
    for key, value in content.items() if isinstance(content, dict) else ():
        here = f"{before}{key}"
        if isinstance(value, Tensor):
            if value.dim():
                yield here
        elif isinstance(value, dict):
            if value and all(isinstance(each, Tensor) for each in value.values()):
                yield here
            elif depth > 1:
                yield from _holding(value, f"{here}.", depth - 1)


def _within(keys: str, other: str) -> bool:
    """Whether one of two ways leads through the other."""
    return f"{keys}.".startswith(f"{other}.") or f"{other}.".startswith(f"{keys}.")


def _check_alone(content: dict[Any, Any], where: str, path: Path) -> None:
    """Refuse a state dict beside which another one has the same names, but for wrappers: either may be meant."""
    names = _bare(content[where])
    for key in _paths(content, ""):
        if not _within(where, key) and not OF_TRAINING.search(key) and _bare(_at(content, key)) == names:
            raise SourceError(
                f"{path}: holds state dicts of the same names under {where} and {key}; say which, as `state: {where}`"
            )


def _bare(names: Iterable[str]) -> set[str] | None:
    """Names without wrappers; None: two would be one, which is refused where they are read."""
    try:
        return set(unwrapped(names).values())
    except ValueError:
        return None


def _checked(state: Any, where: str, path: Path) -> dict[str, Tensor]:
    place = f"under {where!r}" if where else "in the file"
    if not isinstance(state, dict) or not _has_tensors(state):
        what = "nothing" if state is None else f"a {type(state).__name__} without tensors"
        raise SourceError(f"{path}: there is {what} {place}, and no state dict; correct `state`")
    for name, value in state.items():
        if not isinstance(value, Tensor) or not isinstance(name, str):
            raise SourceError(
                f"{path}: {name!r} {place} is a {type(value).__name__} beside tensors, and would be left out; save "
                "the tensors alone, under names"
            )
    return state


def _has_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(each, Tensor) for each in value.values())


def _at(content: Any, keys: str) -> Any:
    """What stands under keys joined by dots, each of which may have dots itself; None: nothing."""
    if not keys:
        return content
    if isinstance(content, dict):
        for key, value in content.items():
            if key == keys:
                return value
            if isinstance(key, str) and keys.startswith(f"{key}."):
                found = _at(value, keys[len(key) + 1 :])
                if found is not None:
                    return found
    return None


def _paths(content: dict[Any, Any], before: str, depth: int = DEPTH) -> Iterator[str]:
    """Keys that lead to dictionaries of tensors alone; numbered ones are of optimizers."""
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, dict) or not value:
            continue
        if all(isinstance(name, str) and isinstance(each, Tensor) for name, each in value.items()):
            yield before + key
        elif depth > 1:
            yield from _paths(value, f"{before}{key}.", depth - 1)
