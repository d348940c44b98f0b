"""What to say of a file that PyTorch does not load without making pickled objects."""

import json
import re
import shlex
import zipfile
from pathlib import Path

import torch

from learning_geometry.sources.checkpoint import SourceError
from learning_geometry.sources.states import STATE_KEYS

SHOWN = 4
OLD = 2**20
"""Bytes at the head of a file of the old format in which its pickle is looked for; tensors come after it."""
PROTOCOL = b"\x80\x02"
"""How a pickle begins, as ``torch.save`` writes it."""


def refusal(path: Path, error: Exception) -> SourceError:
    """Return the error to raise for a file that ``torch.load(weights_only=True)`` refused.

    The pickle in it is looked at as bytes, and nothing of it is made.

    Args:
        path: the file.
        error: what PyTorch said.
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    if "TorchScript" in text:
        return SourceError(f"{path}: is a TorchScript program; load it with torch.jit.load, and save its state_dict()")
    if blocked := re.search(r"unsupported GLOBAL (\S+) whose module", text):
        return SourceError(
            f"{path}: would run {blocked[1]} when it is loaded, which no checkpoint needs; do not load it elsewhere, "
            "and ask who wrote it"
        )
    classes = _classes(path, text)
    if not classes:
        # of PyTorch's advice for other readers only what it met
        reason = " ".join(text.split("WeightsUnpickler error:")[-1].split(". ")[0].split())
        return SourceError(
            f"{path}: cannot be read as a file of PyTorch ({reason or type(error).__name__}); it is cut, damaged or no "
            "such file: copy it again, or save it again"
        )
    shown = ", ".join(classes[:SHOWN]) + (", …" if len(classes) > SHOWN else "")
    pickle = _pickle(path)
    if pickle.startswith(PROTOCOL + b"c") and b"_parameters" in pickle:
        what, value = f"holds a whole module ({shown}), which only its own code can make", ".state_dict()"
    else:
        key = _state_key(pickle)
        module = ".state_dict()" if b"_parameters" in pickle and key in ("model", "module", "net") else ""
        what = f"holds {shown} besides tensors, which are pickled objects and never made"
        value = f"[{json.dumps(key or 'KEY')}]{module}"
    new = f"{path.stem}-weights.pt"
    code = (
        f'import torch; torch.save(torch.load({json.dumps(str(path))}, map_location="cpu", weights_only=False){value}, '
        f"{json.dumps(new)})"
    )
    meaning = " (KEY: of its state dict)" if '"KEY"' in value else ""
    return SourceError(
        f"{path}: {what}; save model.state_dict() alone, or, if you trust who wrote it, convert it once in your own "
        f"environment: `python -c {shlex.quote(code)}`{meaning}"
    )


def _classes(path: Path, text: str) -> list[str]:
    """Names of the classes that loading would need; PyTorch's message names the first alone."""
    try:
        found = set(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # it is of the old format, which that does not read
        found = set()
    return sorted(found | set(re.findall(r"GLOBAL (\S+) was not", text)))


def _state_key(pickle: bytes) -> str | None:
    """The first of the keys of state dicts after which a pickle makes a dictionary or an object; None: there is none.

    Names of modules, of which state dicts hold some as well, come after it.
    """
    places = {}
    for key in STATE_KEYS:
        text = re.escape(b"X" + len(key).to_bytes(4, "little") + key.encode())
        # kept for later uses, or not; then an empty dictionary, or a class, named or kept
        if found := re.search(text + rb"(?:q.|r....)?(?:\}|c|h.\)|j....\))", pickle, re.DOTALL):
            places[key] = found.start()
    return min(places, key=lambda key: places[key]) if places else None


def _pickle(path: Path) -> bytes:
    """The bytes of the pickle in a file; nothing if there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            return archive.read(name)
    except (zipfile.BadZipFile, StopIteration):
        with open(path, "rb") as file:
            # a magic number, a version and the system come before
            return PROTOCOL + b"".join(file.read(OLD).split(PROTOCOL, 4)[4:])
