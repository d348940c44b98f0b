"""Where the modules lie that are found by name: one file each, and nothing else to edit."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parent
"""Folder below which the modules lie."""

FOLDERS = {
    "tasks": ("tasks",),
    "models": ("models",),
    "measurements": ("measurements/runs", "measurements/language_models", "measurements/self_contained"),
    "derived": ("tables/derived",),
    "figures": ("figures",),
    "rules": ("claims/rules",),
}
"""Kind of module -> the folders of the package that hold such modules."""


def module_files(kind: str) -> Iterator[Path]:
    """Yield the files in the folders of a kind, helpers among them, in the order of their names.

    Args:
        kind: one of ``FOLDERS``.
    """
    files = (path for folder in FOLDERS[kind] for path in (PACKAGE / folder).glob("[a-z]*.py"))
    yield from sorted(files, key=lambda path: path.stem)


def module_file(kind: str, name: str) -> Path:
    """Return the file of a module.

    Raises:
        KeyError: there is none.

    >>> module_file("measurements", "sharpness").relative_to(PACKAGE).as_posix()
    'measurements/runs/sharpness.py'
    """
    for folder in FOLDERS[kind]:
        path = PACKAGE / folder / f"{name}.py"
        if re.fullmatch(r"[a-z]\w*", name, re.ASCII) and path.is_file():
            return path
    raise KeyError(f"there is no {name}.py in {' or '.join(FOLDERS[kind])}")


def module_name(kind: str, name: str) -> str:
    """Return the dotted name of a module below the package.

    Raises:
        KeyError: there is none.

    >>> module_name("measurements", "sharpness")
    'measurements.runs.sharpness'
    """
    return ".".join(module_file(kind, name).relative_to(PACKAGE).with_suffix("").parts)


def load_module(kind: str, name: str) -> ModuleType:
    """Import a module.

    Raises:
        KeyError: there is none.
    """
    return import_module(f"{__package__}.{module_name(kind, name)}")
