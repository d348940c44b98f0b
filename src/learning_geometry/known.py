"""What is known of files by their content, so that none is read twice: digests, parsed code, keys of artifacts.

An entry counts as long as the file's size, times of modification and of change, and inode are those of when it was
read. The time of change is the file system's own: ``touch``, ``mv`` and ``cp -p`` cannot set it back. The cache is one
file that may be lost or deleted at any time; of several processes that write it, the last one's entries stay.
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNSETTLED = 2_000_000_000
"""Nanoseconds after a change in which another one might bear the same times (some file systems count in seconds)."""

Signature = tuple[int, int, int, int]


def signature(path: str | Path) -> Signature:
    """Return a file's size, times of modification and of change (ns) and inode; links are followed.

    Raises:
        OSError: there is no such file.
    """
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


class Known:
    """A cache of what was computed from files, kept in one file."""

    def __init__(self, path: str | Path | None = None):
        """Open the cache at ``path``; without one, what is known is forgotten with the process."""
        self._path = None if path is None else Path(path)
        self._entries = self._read()
        self._new: dict[str, list[Any]] = {}

    def of(self, path: str | Path, kind: str, compute: Callable[[Path], Any]) -> Any:
        """Return ``compute(path)``, something that JSON can hold, from the cache if the file is as it was.

        Args:
            path: of a file.
            kind: what is computed; part of the entry's name.
            compute: is given the path; what it raises is raised, and not kept.

        Raises:
            OSError: there is no such file.
        """
        name, before = f"{kind} {path}", list(signature(path))
        entry = self._new.get(name) or self._entries.get(name)
        if isinstance(entry, list) and len(entry) == 2 and entry[0] == before:
            return entry[1]
        computed = compute(Path(path))
        if list(signature(path)) == before and abs(time.time_ns() - before[2]) > UNSETTLED:
            self._new[name] = [before, computed]
        return computed

    def digest(self, path: str | Path) -> str:
        """Return the BLAKE2b digest of a file's bytes, 32 hexadecimal digits."""
        return str(self.of(path, "digest", file_digest))

    def save(self) -> None:
        """Write what is new; a folder that cannot be written to costs time, not correctness."""
        if self._path is None or not self._new:
            return
        self._entries = self._read() | self._new
        self._new = {}
        # not files.atomic_path: planning would wait for pandas and pyarrow
        temporary = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
        try:
            temporary.write_text(json.dumps(self._entries, separators=(",", ":")), encoding="utf-8")
            os.replace(temporary, self._path)
        except OSError:
            temporary.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8")) if self._path is not None else {}
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def file_digest(path: str | Path) -> str:
    """Return the BLAKE2b digest of a file's bytes, 32 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_of(value: Any) -> str:
    """Return a digest, 16 hexadecimal digits, of what JSON can hold.

    >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
