"""The modules of the project itself: files that are not in git, such as a user's own figure, are none of its tests'."""

import functools
import subprocess
from pathlib import Path

from learning_geometry.config import available
from learning_geometry.discovery import FOLDERS, module_file

PACKAGE = Path(module_file("tasks", "copying")).parents[1]


@functools.cache
def tracked():
    """The package's files that are in git; nothing if the package is in no repository of its own."""
    listed = subprocess.run(["git", "ls-files", "-z", "."], cwd=PACKAGE, capture_output=True, text=True, check=False)
    return frozenset(PACKAGE / name for name in listed.stdout.split("\0") if name)


def is_own(path):
    """Whether a file is the project's, and not one that a user put where modules are found by name."""
    found_by_name = {PACKAGE / folder for folders in FOLDERS.values() for folder in folders}
    return not tracked() or path.parent not in found_by_name or path in tracked()


def own_summaries(kind):
    """As ``config.available``, of the project's own modules."""
    return {name: summary for name, summary in available(kind).items() if is_own(module_file(kind, name))}


def own(kind):
    """Names of the project's own modules of a kind, sorted."""
    return sorted(own_summaries(kind))
