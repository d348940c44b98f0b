"""A finished run in one file: the tables that figures and claims read, what made them, and checksums.

An archive is a ``.tar.gz`` that any tar opens. It holds, for every experiment, the table of all runs and its
summary, under their paths in the results folder; ``config.yaml``, the config with all defaults filled in;
``archive.json``, the layout, the provenance of every table (settings, seeds, code fingerprints), the installed
packages when it was packed, and the checksums of everything that was drawn from the tables; and ``SHA256SUMS``,
which ``sha256sum --check`` reads. It holds no times and no users: packing the same run again, in the same
environment, gives the same bytes.

Command line: ``python -m learning_geometry.archive unpack ARCHIVE FOLDER`` checks an archive and unpacks it;
``python -m learning_geometry.archive compare FOLDER`` tells whether what was redrawn there is the same, byte for byte.
"""

import argparse
import gzip
import hashlib
import io
import json
import platform
import re
import secrets
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from learning_geometry import __version__
from learning_geometry.config import read_yaml, validate
from learning_geometry.config.problems import printable
from learning_geometry.config.renamed import with_present_names as config_with_present_names
from learning_geometry.files import atomic_path, read_json, read_provenance, read_table, write_table
from learning_geometry.paths import CONCLUDED_FROM, artifact
from learning_geometry.tables.renamed import with_present_names

LAYOUT = 2
"""What is in an archive and how; a change that older code cannot read takes the next number."""

CHECKSUMS, DESCRIPTION, CONFIG = "SHA256SUMS", "archive.json", "config.yaml"

DRAWS = ("python", "matplotlib", "numpy", "pandas", "pillow", "pyarrow", "scipy")
"""Packages whose version can change the bytes of figures and pages."""

RUNS = {
    "experiment": "string",
    "seed": "int64",
    "step": "int64",
    "part": "string",
    "quantity": "string",
    "index": "int64",
    "data": "string",
    "null": "string",
    "value": "double",
    "low": "double",
    "high": "double",
    "n": "int64",
    "unit": "string",
    "censored": "bool",
    "other_seeds": "string",
}
SUMMARY = {
    "experiment": "string",
    "step": "int64",
    "part": "string",
    "quantity": "string",
    "index": "int64",
    "data": "string",
    "null": "string",
    "unit": "string",
    "estimate": "double",
    "low": "double",
    "high": "double",
    "n": "int64",
    "censored": "int64",
    "interval": "string",
}
"""Columns of the two tables of an experiment, as Arrow types; what makes them is out of this module's reach."""

SINCE_LAYOUT = {1: (), 2: ("other_seeds",)}
"""Layouts that are read -> columns of the runs' tables that came with them, which readers of earlier ones fill in."""

NAMES_SINCE = 2
"""Layout since which settings, quantities and nulls have their present names; in what is unpacked they always have."""

LARGEST_RATIO = 100
"""Bytes that a byte of an archive may unpack to; tables are compressed already, and JSON shrinks to a twentieth."""

FLOOR = 2**24
"""Bytes that any archive may unpack to."""

BROKEN = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


def pack(path: str | Path, results: str | Path, config: Mapping[str, Any], drawn: Iterable[str]) -> None:
    """Pack the tables of every experiment of a config, whole or not at all.

    Args:
        path: the archive to write.
        results: the results folder of the run.
        config: the config that made it, with all defaults filled in.
        drawn: figures and pages made from the tables, relative to ``results``; of these, only the checksums
            are kept.

    Raises:
        FileNotFoundError: a table, or something drawn, is not there.
        ValueError: a table is not readable, or holds no provenance.
    """
    results = Path(results)
    names = table_names(config)
    description = {
        "layout": LAYOUT,
        "version": __version__,
        "environment": environment(),
        "provenance": {name: read_provenance(results / name) for name in names},
        "drawn": {name: _sha256(results / name) for name in sorted(drawn)},
    }
    written = {
        CONFIG: _yaml(config),
        DESCRIPTION: (json.dumps(description, sort_keys=True, ensure_ascii=False, indent=2) + "\n").encode(),
    }
    sums = {name: _sha256(results / name) for name in names}
    sums |= {name: hashlib.sha256(data).hexdigest() for name, data in written.items()}
    written[CHECKSUMS] = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()
    with (
        atomic_path(path) as temporary,
        open(temporary, "wb") as raw,
        # a file name or a time in gzip's header would differ from run to run
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for name in sorted([*names, *written]):
            member = tarfile.TarInfo(name)  # mode 644, time 0, owner 0 without a name
            if name in written:
                member.size = len(written[name])
                tar.addfile(member, io.BytesIO(written[name]))
            else:
                member.size = (results / name).stat().st_size
                with open(results / name, "rb") as file:
                    tar.addfile(member, file)


def unpack(path: str | Path, folder: str | Path, floor: int = FLOOR) -> dict[str, Any]:
    """Check an archive and unpack it into a folder of its own, whole or not at all.

    Settings, quantities and nulls of an archive of layout 1 are renamed to what they are called since.

    Args:
        path: the archive.
        folder: where to; made if it is not there. A folder that an archive was unpacked into before is
            replaced, with all that was drawn there.
        floor: bytes that any archive may unpack to; beyond them, ``LARGEST_RATIO`` times its own size.

    Returns:
        The description of the archive: ``layout``, ``version``, ``environment`` (package -> version when it was
        packed), ``provenance`` (table -> how it was made), ``drawn`` (path -> SHA-256 of the original figure or page).

    Raises:
        FileNotFoundError: there is no such archive.
        FileExistsError: the folder holds files that are not from an archive, or the archive itself.
        ValueError: the archive is damaged, unpacks to far more than its size, has another layout, lacks a table, or
            holds something else than ``pack`` writes; the message names the archive and the file in it, and nothing of
            it stays.
    """
    path, folder = Path(path), Path(folder)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `make archive` makes one, `make redraw FROM=...` names it")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: is a file; name a new folder, `make redraw TO=...`")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / DESCRIPTION).is_file():
        raise FileExistsError(f"{folder}: holds other files; name a new folder, `make redraw TO=...`")
    if folder.resolve() in path.resolve().parents and folder.is_dir() and (folder / DESCRIPTION).is_file():
        raise FileExistsError(f"{folder}: would be replaced, and the archive is in it; move {path} elsewhere")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        _extract(path, temporary, floor)
        description = _checked(path, temporary)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return description


def compare(folder: str | Path) -> list[str]:
    """Return what is missing or not the same bytes as in the archived run, sorted, relative to the folder.

    Args:
        folder: where an archive was unpacked, and its figures and pages drawn again.

    Raises:
        FileNotFoundError: no archive was unpacked there.
        ValueError: what describes it is not as an archive has it.
    """
    drawn = read_description(folder)["drawn"]
    files = {name: Path(folder) / name for name in sorted(drawn)}
    return [name for name, file in files.items() if not file.is_file() or _sha256(file) != drawn[name]]


def table_names(config: Mapping[str, Any]) -> list[str]:
    """Return the tables that an archive of a config holds, relative to the results folder.

    >>> table_names({"experiments": {"copying": {}}})
    ['copying/runs.parquet', 'copying/summary.parquet']
    """
    return [
        Path(artifact(".", table, experiment=name)).as_posix()
        for section in ("experiments", "language_models")
        for name in config.get(section, {})
        for table in CONCLUDED_FROM
    ]


def environment() -> dict[str, str]:
    """Return the version of Python and of every installed package, none of which is imported."""
    versions = {"python": platform.python_version()}
    for distribution in distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        versions.setdefault(name, distribution.version)  # the first on the path is the one that is imported
    return dict(sorted(versions.items()))


class _Bounded(io.RawIOBase):
    """A stream that gives no more than a number of bytes; whatever a small file unpacks to, memory is bounded."""

    def __init__(self, stream: Any, most: int):
        self._stream, self._left, self._most = stream, most, most

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most ``size``."""
        data: bytes = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise _TooLarge(self._most)
        return data


class _TooLarge(Exception):
    """An archive unpacks to more bytes than its own size can hold of tables."""


def _extract(path: Path, folder: Path, floor: int) -> None:
    """Write the files of an archive, of which each must be listed in its checksums, a plain file, and there once."""
    folder.mkdir()
    packed = path.stat().st_size
    most = max(floor, LARGEST_RATIO * packed)
    name, written, listed = "its first file", set[str](), {CHECKSUMS}
    try:
        with open(path, "rb") as raw, gzip.GzipFile(fileobj=raw) as stream:
            # a stream, not a file: tarfile then reads blocks of one size, and never goes back
            with tarfile.open(fileobj=_Bounded(stream, most), mode="r|") as tar:
                for member in tar:
                    name = member.name
                    _check_member(path, member, listed, written)
                    if name != CHECKSUMS and CHECKSUMS not in written:
                        break
                    file = tar.extractfile(member)
                    assert file is not None  # of a plain file it is one
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    with open(folder / name, "wb") as target:
                        shutil.copyfileobj(file, target)
                    written.add(name)
                    if name == CHECKSUMS:  # sorts before all others
                        listed = {CHECKSUMS, *_checksums(path, folder)}
            while stream.read(2**16):  # the checksum of gzip stands at the end
                if stream.tell() > most:
                    raise _TooLarge(most)
    except _TooLarge:
        raise ValueError(
            f"{path}: its {packed} bytes unpack to more than {most}, which no archive of a run does; nothing was kept"
        ) from None
    except BROKEN as error:
        raise ValueError(
            f"{path}: damaged at {printable(name)} ({error}); copy it again from where it came from"
        ) from None


def _check_member(path: Path, member: tarfile.TarInfo, listed: set[str], written: set[str]) -> None:
    problem = ""
    if not member.isreg() or member.issparse():
        problem = "is a link, folder, device or sparse file"
    elif member.name in written:
        problem = "is in it twice"
    elif CHECKSUMS in written and member.name not in listed:
        problem = f"is not in its {CHECKSUMS}"
    if problem:
        raise ValueError(
            f"{path}: {printable(member.name)} {problem}, as nothing in an archive of a run; copy it again from where "
            "it came from"
        )


def _checksums(path: Path, folder: Path) -> dict[str, str]:
    """Return name -> SHA-256 as the archive lists it; names stay inside the folder."""
    if not (folder / CHECKSUMS).is_file():
        raise ValueError(f"{path}: holds no {CHECKSUMS}, so it is no archive of a run; `make archive` makes one")
    lines = (folder / CHECKSUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    matches = [re.fullmatch(r"([0-9a-f]{64})  ((?:[a-z0-9_]+/)?[a-z0-9_]+\.[a-z]+)", line) for line in lines]
    if not lines or None in matches:
        raise ValueError(f"{path}: damaged at {CHECKSUMS}; copy it again from where it came from")
    return {match[2]: match[1] for match in matches if match}


def _checked(path: Path, folder: Path) -> dict[str, Any]:
    """Return the description of the archive unpacked in ``folder`` if all of it is there and sound."""
    sums = _checksums(path, folder)
    missing = [name for name in sums if not (folder / name).is_file()]
    damaged = [name for name in sums if name not in missing and _sha256(folder / name) != sums[name]]
    problems = [f"damaged: {', '.join(damaged)}"] * bool(damaged) + [f"missing: {', '.join(missing)}"] * bool(missing)
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}; copy it again from where it came from")
    if not {DESCRIPTION, CONFIG} <= set(sums):
        raise ValueError(f"{path}: holds no {DESCRIPTION} or no {CONFIG}, so it is no archive of a run; pack it again")
    try:
        description = read_description(folder)
        config = read_yaml(folder / CONFIG)
        if earlier := description["layout"] < NAMES_SINCE:
            config = config_with_present_names(config)
        # what redraw.smk will draw; what was measured elsewhere is not looked for here
        validate(config, files=False)
        absent = [name for name in table_names(config) if name not in sums]
        if absent:
            raise ValueError(f"its config asks for {', '.join(absent)}, which it does not hold; pack the run again")
        for name in table_names(config):
            _check_table(folder / name, _runs(description) if name.endswith("runs.parquet") else SUMMARY)
            if read_provenance(folder / name) != description["provenance"].get(name):
                raise ValueError(f"{DESCRIPTION} tells another provenance of {name} than the table; pack the run again")
        if earlier:
            _rename(folder, config, sums)
    except (ValueError, RecursionError) as error:
        # the temporary folder is gone when this is read
        text = str(error).replace(f"{folder}/", "") or "it is nested too deeply"
        # nor is there a run in it that could make a file again
        text = re.sub(r"run `snakemake .*? to make it again", "copy it again from where it came from", text)
        raise ValueError(f"{path}: {text}") from None
    return description


def _rename(folder: Path, config: Mapping[str, Any], sums: Mapping[str, str]) -> None:
    """Write the config, and the tables under the present names of quantities and nulls, with checksums of these."""
    (folder / CONFIG).write_bytes(_yaml(config))
    for name in table_names(config):
        write_table(with_present_names(read_table(folder / name)), folder / name, read_provenance(folder / name))
    (folder / CHECKSUMS).write_text("".join(f"{_sha256(folder / name)}  {name}\n" for name in sorted(sums)))


def read_description(folder: str | Path) -> dict[str, Any]:
    """Return the description of the archive that was unpacked in a folder, as of :func:`unpack`.

    Raises:
        FileNotFoundError: no archive was unpacked there.
        ValueError: it is no JSON, has another layout, or an entry is of another kind than ``pack`` writes.
    """
    path = Path(folder) / DESCRIPTION
    description = read_json(path)
    if not isinstance(description, dict):
        raise ValueError(f"{path}: holds {type(description).__name__}, expected a mapping; pack the run again")
    if type(description.get("layout")) is not int or description["layout"] not in SINCE_LAYOUT:
        raise ValueError(
            f"{path}: has layout {description.get('layout')!r:.50}, packed by version "
            f"{description.get('version')!s:.50}, and this is version {__version__}, which reads layouts "
            f"{', '.join(map(str, SINCE_LAYOUT))}; redraw it with the version that packed it"
        )
    for key, kind in (("version", str), ("environment", dict), ("provenance", dict), ("drawn", dict)):
        if not isinstance(description.get(key), kind):
            raise ValueError(f"{path}: {key} is no {kind.__name__}; pack the run again")
    for key, kind in (("environment", str), ("provenance", dict), ("drawn", str)):
        for name, entry in description[key].items():
            if not isinstance(entry, kind):
                raise ValueError(f"{path}: {key} of {name!r:.50} is no {kind.__name__}; pack the run again")
    outside = [name for name in description["drawn"] if not re.fullmatch(r"(?:[a-z0-9_]+/)*[a-z0-9_]+\.[a-z]+", name)]
    if outside:
        raise ValueError(f"{path}: drawn names {outside[0]!r:.50}, which no run draws; pack the run again")
    return description


def _runs(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of a table of runs in an archive of this layout."""
    later = [name for layout, names in SINCE_LAYOUT.items() if layout > description["layout"] for name in names]
    return {name: kind for name, kind in RUNS.items() if name not in later}


def _check_table(path: Path, columns: Mapping[str, str]) -> None:
    """Check the names and types of a table's columns, without reading its rows."""
    try:
        schema = pq.read_schema(path)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: is no Parquet table ({error}); pack the run again") from None
    types = {field.name: str(field.type).removeprefix("large_") for field in schema}
    if types != dict(columns):
        differ = sorted(name for name in {*types, *columns} if types.get(name) != columns.get(name)) or ["their order"]
        name = differ[0]
        raise ValueError(
            f"{path}: column {name!r:.50} is {types.get(name, 'absent')}, expected {columns.get(name, 'none')}; redraw "
            "it with the version that packed it"
        )


def _yaml(config: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).encode()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _say_difference(folder: str) -> str:
    description = read_description(folder)
    different, total = compare(folder), len(description["drawn"])
    if not different:
        return f"{folder}: all {total} figures and pages are the same bytes as in the archived run"
    then, now = description["environment"], environment()
    versions = [f"{name} {then.get(name)} -> {now.get(name)}" for name in DRAWS if then.get(name) != now.get(name)]
    why = f"versions: {', '.join(versions)}" if versions else "the code that draws them has changed"
    return f"{folder}: {len(different)} of {total} differ from the archived run ({why}): {', '.join(different)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m learning_geometry.archive", description="Archives of runs.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("unpack", help="check an archive and unpack it into a folder of its own")
    command.add_argument("archive")
    command.add_argument("folder")
    command = commands.add_parser("compare", help="tell whether what was redrawn is the same, byte for byte")
    command.add_argument("folder")
    options = parser.parse_args(arguments)
    try:
        if options.command == "compare":
            print(_say_difference(options.folder))
        else:
            description = unpack(options.archive, options.folder)
            tables = len(description["provenance"])
            print(f"{options.archive}: sound, {tables} tables unpacked into {options.folder}")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
