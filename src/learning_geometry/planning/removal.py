"""Deleting artifacts so that nobody meets a folder half deleted, whenever a process is killed."""

import re
import secrets
import shutil
from pathlib import Path

LEFT = r"\.removed\.[0-9a-f]{8}"
"""What follows the name of a folder, after a dot, until it is deleted."""


def remove(path: str | Path) -> None:
    """Delete a file or a folder with all it holds; of a link, the link.

    A folder loses its name before anything in it is deleted. What a killed process left of it under a hidden name goes
    with it.

    Raises:
        FileNotFoundError: there is nothing of that name.
    """
    path = Path(path)
    remove_leftovers(path)
    if path.is_dir() and not path.is_symlink():
        aside = path.with_name(f".{path.name}.removed.{secrets.token_hex(4)}")
        path.replace(aside)
        shutil.rmtree(aside)
    else:
        path.unlink()


def remove_leftovers(path: str | Path) -> None:
    """Delete what was left of a folder where a process was killed as it removed it; nothing without such a name."""
    path = Path(path)
    if not path.parent.is_dir():
        return
    for left in path.parent.iterdir():
        if re.fullmatch(re.escape(f".{path.name}") + LEFT, left.name) and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
