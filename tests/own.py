"""The modules of the project itself: files that are not in git, such as a user's own figure, are none of its tests'."""

import functools
import subprocess
from pathlib import Path

from learning_geometry.config import available
from learning_geometry.discovery import module_file

PACKAGE = Path(module_file("tasks", "copying")).parents[1]


@functools.cache
def tracked():
    """The package's files that are in git; nothing if the package is in no repository of its own."""
    listed = subprocess.run(["git", "ls-files", "-z", "."], cwd=PACKAGE, capture_output=True, text=True, check=False)
    return frozenset(PACKAGE / name for name in listed.stdout.split("\0") if name)


def own_summaries(kind):
    """As ``config.available``, of the project's own modules."""
    chosen = available(kind)
    return {name: chosen[name] for name in chosen if not tracked() or module_file(kind, name) in tracked()}


def own(kind):
    """Names of the project's own modules of a kind, sorted."""
    return sorted(own_summaries(kind))
