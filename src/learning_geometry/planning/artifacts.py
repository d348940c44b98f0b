"""What is stored inside an artifact: the key of what it was made from, and whether it is whole.

Tables and tensor files hold it in their metadata, folders in their manifest. Of figures, pages, CSV files and archives,
whose bytes tell their content alone, a record lies in the hidden folder ``.made`` of the results, with their digests.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from learning_geometry.known import Known
from learning_geometry.paths import MANIFEST, record_path, recorded
from learning_geometry.planning.jobs import Job

if TYPE_CHECKING:
    from learning_geometry.failures import Failure


class Made(NamedTuple):
    """What an artifact says of itself."""

    key: str = ""
    made_from: Mapping[str, Any] = {}
    problem: str = ""
    """Why it cannot be used, whatever it was made from: it is missing, or not whole."""


def made_from_record(path: str, job: Job, results: Path, known: Known) -> Made:
    """Return what an artifact says of itself; of a folder the files' sizes are compared, of a recorded file its digest.

    Args:
        path: of the artifact, an output of the job.
        job: that makes it.
        results: the results folder.
        known: caches what is read.
    """
    place = Path(path)
    if not place.exists():
        return Made(problem="missing")
    try:
        if place.is_dir():
            return _of_folder(place, known)
        if path in recorded(job.outputs):
            return _of_recorded(place, record_path(results, job.outputs), known)
        made = Made(*known.of(place, "made", _inside))
        if job.leaves and made.made_from.get("leaves"):
            left = _of_folder(Path(job.leaves), known) if Path(job.leaves).is_dir() else Made(problem="missing")
            if left.problem or left.key != made.key:
                return Made(problem=f"its files in {job.leaves}: {left.problem or 'of another run'}")
        return made
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Made(problem=f"not readable ({error})")


def known_failures(tables: Iterable[str], known: Known) -> "list[Failure]":
    """Return the failures that tables of measurements record, as ``failures.failures`` does.

    Args:
        tables: paths; of tables that are not there or not readable there are none.
        known: caches what is read.
    """
    found = []
    for path in tables:
        try:
            found += known.of(path, "failure", _failures)
        except OSError:
            continue
    if not found:
        return []
    from learning_geometry.failures import Failure

    return [Failure(*each) for each in found]


def _failures(path: Path) -> list[Any]:
    # imported late, as below
    from learning_geometry.failures import failures

    return [list(each) for each in failures([path])]


def _inside(path: Path) -> list[Any]:
    # imported late: planning would wait a second for pandas and pyarrow, and mostly finds all in the cache
    from learning_geometry.files import read_provenance, read_tensor_metadata

    metadata = read_provenance(path) if path.suffix == ".parquet" else read_tensor_metadata(path)
    return [metadata.get("key", ""), metadata.get("made_from", {}) | {"leaves": metadata.get("leaves", False)}]


def _manifest(path: Path) -> list[Any]:
    manifest = json.loads(path.read_text(encoding="utf-8"))
    provenance = manifest.get("provenance", {})
    sizes = {name: each["bytes"] for name, each in manifest["files"].items()}
    return [provenance.get("key", ""), provenance.get("made_from", {}), sizes]


def _of_folder(folder: Path, known: Known) -> Made:
    if not (folder / MANIFEST).is_file():
        return Made(problem=f"holds no {MANIFEST}; its job did not finish, or an older version made it")
    key, made_from, sizes = known.of(folder / MANIFEST, "manifest", _manifest)
    for name, size in sizes.items():
        try:
            actual = (folder / name).stat().st_size
        except OSError:
            return Made(problem=f"{name} is missing")
        if actual != size:
            return Made(problem=f"{name} has {actual} bytes, not {size}")
    return Made(key, made_from)


def _of_recorded(path: Path, record: Path, known: Known) -> Made:
    if not record.is_file():
        return Made(problem="without a record of what it was made from")
    content = known.of(record, "record", lambda record: json.loads(record.read_text(encoding="utf-8")))
    if known.digest(path) != content["digests"].get(path.name):
        return Made(problem="not as it was made")
    return Made(content["key"], content["made_from"])
