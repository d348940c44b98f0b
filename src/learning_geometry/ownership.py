"""Whether what lies at the place of an artifact was made by the workflow: nothing else is ever replaced or deleted."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from learning_geometry.paths import MANIFEST

TEMPORARY = re.compile(r"\.snakemake_timestamp|\..*\.[0-9a-f]{8}(\.[a-z]+)?")
"""Snakemake's time stamp, and what a writer that was killed leaves (``files.atomic_path``)."""


class NotOursError(ValueError):
    """Something lies where an artifact belongs that the workflow did not make. The message names it, and what to do."""


def check_ours(paths: Iterable[str | Path]) -> None:
    """Raise an error if one of some places holds a file that the workflow did not write.

    Args:
        paths: of artifacts, files or folders, that are to be made; those that there are not pass.

    Raises:
        NotOursError: naming the first such file.
    """
    for path in map(Path, paths):
        if (strange := foreign_file(path)) is not None:
            raise NotOursError(
                f"{strange} was not written by this workflow, and making {path} would delete it; move it elsewhere. "
                "Checkpoints of another program are read where they lie: give their place in `source` of an experiment "
                "(docs/checkpoints.md)"
            )


def foreign_file(path: Path) -> Path | None:
    """Return a file at a place that the workflow did not write; None if there is none.

    A file is the workflow's if the manifest of its folder lists it, or if it holds what it was made from. Of formats
    that hold nothing, such as figures, none is known not to be; damaged files count as the workflow's only if listed.
    """
    if path.is_symlink() or not path.exists():
        return None
    if path.is_file():
        return path if path.suffix in (".safetensors", ".parquet") and _holds_nothing(path) else None
    listed = _listed(path)
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_dir() or name in listed or file.name == MANIFEST or TEMPORARY.fullmatch(file.name):
            continue
        if file.suffix not in (".safetensors", ".parquet") or not _is_ours(file):
            return file
    return None


def _listed(folder: Path) -> set[str]:
    from learning_geometry.files import read_manifest

    with suppress(ValueError, OSError, KeyError, TypeError, AttributeError):
        return set(read_manifest(folder)["files"])
    return set()


def _is_ours(file: Path) -> bool:
    from learning_geometry.files import read_provenance, read_tensor_metadata

    with suppress(ValueError, OSError):
        (read_provenance if file.suffix == ".parquet" else read_tensor_metadata)(file)
        return True
    return False


def _holds_nothing(file: Path) -> bool:
    """Whether a file can be read and holds no word of the workflow; a damaged one may be the workflow's own."""
    from learning_geometry.files import NoMetadataError, read_provenance, read_tensor_metadata

    try:
        (read_provenance if file.suffix == ".parquet" else read_tensor_metadata)(file)
    except NoMetadataError:
        return True
    except (ValueError, OSError):
        return False
    return False
