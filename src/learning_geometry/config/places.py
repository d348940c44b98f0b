"""What a config says about files and folders: text that no path can be, and results folders that cannot be made."""

import os
import posixpath
import unicodedata
from pathlib import Path

LONGEST_NAME = 200
"""Bytes of one name in a path; file systems take 255, and a temporary name is longer than the final one."""

LONGEST_PATH = 3000
"""Bytes of a whole path; Linux takes 4,095, and what lies in the results folder comes on top."""


def path_problem(text: str) -> str:
    """Return what is wrong with a text as a path of this workflow, whatever is there; "" if nothing.

    >>> path_problem("data/texts.txt"), path_problem("~/texts.txt")
    ('', '~ is not expanded in a config; write the whole path')
    """
    control = [character for character in text if unicodedata.category(character) in ("Cc", "Cs", "Cf", "Zl", "Zp")]
    if control:
        return f"holds the character {control[0]!r}, which no path here may; remove it"
    if not text.strip():
        return "is empty; write a path"
    if text != text.strip():
        return "starts or ends with a space; remove it"
    if "{" in text or "}" in text:
        return "holds a brace, which Snakemake takes for a wildcard; rename the file or folder"
    if text.startswith("~"):
        return "~ is not expanded in a config; write the whole path"
    if "$" in text:
        return "$ is not expanded in a config; write the whole path"
    if "://" in text:
        return "is a web address; give a path on this machine"
    longest = max((os.fsencode(part) for part in text.split("/")), key=len)
    if len(longest) > LONGEST_NAME:
        return f"has a name of {len(longest)} bytes, and {LONGEST_NAME} is the most; shorten it"
    if len(os.fsencode(text)) > LONGEST_PATH:
        return f"has {len(os.fsencode(text))} bytes, and {LONGEST_PATH} is the most; shorten it"
    return ""


def normal_path(text: str) -> str:
    """Return a path in the one way that Snakemake compares as text: no ``./``, ``//`` or ``/`` at the end.

    >>> normal_path("./results//paper/")
    'results/paper'
    """
    return posixpath.normpath(text)


def results_problem(text: str) -> str:
    """Return why a folder cannot be the one of all results, from the folder that Snakemake runs in; "" if it can."""
    problem = path_problem(text)
    if problem:
        return problem
    folder, here = Path(text), Path.cwd()
    try:
        if folder.is_absolute() or ".." in folder.parts or normal_path(text) == ".":
            resolved = folder.resolve()
            if resolved == here or resolved in here.parents:
                return "holds the workflow itself; give a folder of its own, such as results"
        if folder.parts[0] in (".git", ".snakemake", ".venv", "config", "profiles", "src", "tests", "workflow"):
            return f"lies in {folder.parts[0]}, a folder of the workflow itself; give one of its own, such as results"
        at = folder
        while not at.exists():
            if at.is_symlink():
                return f"{at} is a link to what is not there; remove the link, or give another folder"
            at = at.parent
        if not at.is_dir():
            return f"{at} is a file; give a folder"
        if not os.access(at, os.W_OK | os.X_OK):
            return f"{at} cannot be written to; give another folder, or change its permissions"
    except OSError as error:
        return f"cannot be used ({error.strerror}); give another folder"
    return ""
