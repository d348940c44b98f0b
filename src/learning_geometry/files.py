"""Files of the workflow: written whole or not at all, provenance inside, the same bytes for the same input.

A file is written under a hidden temporary name in its own directory and then renamed, so a reader never meets
half a file, whatever kills the writer. Nothing is ever pickled.

Tensor files and tables hold digests (xxHash's XXH3, 64 bits) of all their bytes, and every reader compares what it
reads with them, so that a bit that flipped on the disk is an error and never a number. The digests notice accidents;
they are no protection against a forger. Files written before there were digests are read as they are.
"""

import json
import mmap
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
from xxhash import xxh3_64, xxh3_64_hexdigest

from learning_geometry.paths import MANIFEST, how_to_make_again

METADATA_KEY = "learning_geometry"
"""Where tables and tensor files keep their provenance, as JSON."""
DIGESTS_KEY = "learning_geometry_digests"
"""Where tables and tensor files keep the digests of their bytes."""
ELSEWHERE_KEY = "learning_geometry_elsewhere"
"""Where tensor files keep which of their arrays lie in other files, and where there."""
CHUNK = 2**16
"""Bytes of a tensor that have a digest of their own: a few of its rows are verified without reading the others."""
MAPPED = 2**20
"""Bytes from which an array is mapped into memory and not copied: what comparing its digests costs, the copy saved."""

_UNSET = "0" * 16
_TENSORS_MARK, _TABLE_MARK = "header xxh3_64 ", "pages and footer xxh3_64 "
"""What comes before the digests of a header and of a table, so that they are found before anything is parsed."""
_TYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
"""Types of safetensors, as numpy's."""
_NAMES = {
    "b1": "BOOL", "u1": "U8", "i1": "I8", "i2": "I16", "u2": "U16", "f2": "F16", "i4": "I32", "u4": "U32", "f4": "F32",
    "c8": "C64", "f8": "F64", "i8": "I64", "u8": "U64",
}  # fmt: skip
"""Types of numpy, little-endian, as those of safetensors, in the order in which it has them in a file, from the end."""


class NoMetadataError(ValueError):
    """A table or tensor file that is not ours: it holds no provenance."""


class WithoutDigestsError(ValueError):
    """A file or folder of an earlier version, without digests or manifest: nothing can be said about its bytes."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` at the end, or remove it on an exception.

    Missing directories are made. The temporary name is hidden and keeps the suffix, from which some writers
    choose the format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, obj: Any) -> None:
    """Write ``obj`` as indented JSON with sorted keys.

    Raises:
        ValueError: JSON cannot hold ``obj``: NaN, an infinity, or something other than dictionaries with
            string keys, lists, numbers, strings, booleans and None (numpy arrays and scalars and paths are
            converted).
    """
    write_text(path, _to_json(obj, path, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """Return the object that :func:`write_json` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON.
    """
    with _reading(path, "JSON"):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def write_table(table: pd.DataFrame, path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Write a table as Parquet (zstd) with its provenance in the schema's metadata; the index is not kept.

    The file's key-value metadata hold the digests of its pages and of its footer; each page has a checksum as well,
    for readers that know nothing of the former.

    Raises:
        ValueError: JSON cannot hold the provenance (see :func:`write_json`).
    """
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {METADATA_KEY: _to_json(provenance, path), DIGESTS_KEY: _TABLE_MARK + 2 * _UNSET}
    arrow = arrow.replace_schema_metadata((arrow.schema.metadata or {}) | metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(arrow, sink, compression="zstd", write_page_checksum=True)
    data = memoryview(sink.getvalue())
    footer = bytes(data[_footer_start(data) :])
    if footer.count(_TABLE_MARK.encode()) != 1:
        raise ValueError(f"{path}: the provenance holds {_TABLE_MARK!r}, which marks the digests; leave it out")
    place = footer.index(_TABLE_MARK.encode()) + len(_TABLE_MARK)
    pages = data[: len(data) - len(footer)]
    footer = footer[:place] + xxh3_64_hexdigest(pages).encode() + footer[place + 16 :]
    footer = footer[: place + 16] + xxh3_64_hexdigest(footer).encode() + footer[place + 32 :]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(pages)
        file.write(footer)


def read_table(path: str | Path) -> pd.DataFrame:
    """Return the table that :func:`write_table` wrote; every byte of the file is verified.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not Parquet, or not as it was written.
    """
    with _reading(path, "Parquet"):
        data = Path(path).read_bytes()
        start = _footer_start(data)
        digest = _verified_footer(data[start:])
        if digest is not None and xxh3_64_hexdigest(memoryview(data)[:start]) != digest:
            raise ValueError("its pages are not as they were written")
        file = pq.ParquetFile(pa.BufferReader(data))
        if digest is None:
            _check_undigested(file.schema_arrow.metadata)
        table = file.read()
        metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != DIGESTS_KEY.encode()}
        return table.replace_schema_metadata(metadata).to_pandas()


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Return the provenance of a table without reading its rows; the file's footer is verified.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not Parquet, not as it was written, or :func:`write_table` did not write it.
    """
    with _reading(path, "Parquet"), Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        length = 8 + _footer_length(file.read(), size)
        file.seek(size - length)
        footer = file.read(length)
        digest = _verified_footer(footer)
        # a Parquet file without rows but with this footer; offsets of pages are not looked at
        metadata = pq.read_schema(pa.BufferReader(b"PAR1" + footer)).metadata or {}
        if digest is None:
            _check_undigested(metadata)
    return _metadata(metadata.get(METADATA_KEY.encode()), path, "write_table")


def write_tensors(path: str | Path, tensors: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write named arrays as one safetensors file; read without any code of ours, in any language.

    Its header holds the digests of the header itself and of every ``CHUNK`` bytes of every array.

    Args:
        path: where to write.
        tensors: numpy arrays or torch tensors (on any device) by name, of any shape and memory layout.
        metadata: what JSON can hold, such as the configuration that made the tensors.

    Raises:
        ValueError: an array has a type that numpy or the format lacks, or JSON cannot hold the metadata.
    """
    arrays = {name: _array(name, tensor, path) for name, tensor in tensors.items()}
    types = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    write_tensors_in_turn(path, types, arrays.__getitem__, metadata)


def write_tensors_in_turn(
    path: str | Path,
    types: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    read: Callable[[str], np.ndarray],
    metadata: Mapping[str, Any],
    elsewhere: Mapping[str, tuple[Path, int]] | None = None,
) -> None:
    """Write the file that :func:`write_tensors` writes, holding one array at a time.

    Arrays that lie in other files may stay there: the file then holds where, and their digests, and every reader here
    follows it. Other libraries see the arrays alone that are in the file itself.

    Args:
        path: where to write.
        types: type and shape of every array by name.
        read: returns an array by its name; called once for each, in the order of the file.
        metadata: what JSON can hold.
        elsewhere: names of arrays that stay where they are -> file, and where in it their bytes begin.

    Raises:
        ValueError: a type is none that the format has, JSON cannot hold the metadata, or an array is of another type
            or shape than was said.
    """
    if any(dtype.str.lstrip("<|") not in _NAMES for dtype, _ in types.values()):
        names = sorted({str(dtype) for dtype, _ in types.values()})
        raise ValueError(f"{path}: safetensors cannot hold one of the types {names}; convert to bool, integer or float")
    # digests have a length of their own, whatever they are: the header is written again over its first version
    digests = {name: _UNSET * -(-_bytes(*kind) // CHUNK) for name, kind in types.items()}
    there = {name: (place.resolve(), start) for name, (place, start) in (elsewhere or {}).items()}
    header = _tensors_header(types, digests, metadata, path, there)
    if header.count(_TENSORS_MARK.encode()) != 1:
        raise ValueError(f"{path}: the metadata hold {_TENSORS_MARK!r}, which marks the digests; leave it out")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        for name in _file_order(types):
            array = read(name)
            if (array.dtype, array.shape) != types[name]:
                raise ValueError(
                    f"{path}: {name} is {array.dtype} of shape {array.shape}, not {types[name][0]} of {types[name][1]}"
                )
            data = _bytes_of(np.ascontiguousarray(array))
            digests[name] = "".join(_chunk_digests(data))
            if name not in there:
                file.write(data.data)
            del array, data
        header = _tensors_header(types, digests, metadata, path, there)
        place = header.index(_TENSORS_MARK.encode()) + len(_TENSORS_MARK)
        file.seek(0)
        file.write(header[:place] + xxh3_64_hexdigest(header).encode() + header[place + 16 :])


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Return all arrays of a safetensors file by name, each a writable copy; all its bytes are verified.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not safetensors, or not as it was written.
    """
    with _reading(path, "safetensors"):
        with Path(path).open("rb", buffering=0) as file:
            header = _read_header(file)
            if header.digested:
                return _read_arrays(file, header)
        with safetensors.safe_open(path, framework="numpy") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dictionary)


def read_tensor(path: str | Path, name: str, rows: slice = slice(None)) -> np.ndarray:
    """Return one array of a safetensors file, or a range of its rows, without reading the rest; both are verified.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not safetensors, or the header or these rows are not as they were written.
        KeyError: it holds no array of that name.
    """
    with _reading(path, "safetensors"), Path(path).open("rb", buffering=0) as file:
        header = _read_header(file)
        if name in header.arrays and header.digested:
            return _read_array(file, header, name, rows)
    if name not in header.arrays:
        raise KeyError(f"{path}: holds no array {name!r}; there are {sorted(header.arrays)}")
    with _reading(path, "safetensors"), safetensors.safe_open(path, framework="numpy") as opened:
        if rows == slice(None):
            return opened.get_tensor(name)
        part = opened.get_slice(name)
        # unlike numpy it takes no ends beyond the last row
        return part[slice(*rows.indices(part.get_shape()[0]))]


def read_tensor_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all arrays of a safetensors file by name, without reading them; the header is verified.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not safetensors, or its header not as it was written.
    """
    with _reading(path, "safetensors"), Path(path).open("rb", buffering=0) as file:
        return {name: array.shape for name, array in _read_header(file).arrays.items()}


def read_tensor_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a tensor file without reading its arrays; the header is verified.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not safetensors, its header is not as it was written, or :func:`write_tensors` did
            not write it.
    """
    with _reading(path, "safetensors"), Path(path).open("rb", buffering=0) as file:
        metadata = _read_header(file).metadata
    return _metadata(metadata.get(METADATA_KEY), path, "write_tensors")


def verify_file(path: str | Path) -> None:
    """Compare every byte of a tensor file or a table with its digests; other files need only be there and readable.

    Raises:
        FileNotFoundError: there is no such file.
        WithoutDigestsError: an earlier version wrote the file, without digests.
        ValueError: the file is not as it was written, naming it.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        with _reading(path, "safetensors"), path.open("rb", buffering=0) as file:
            header = _read_header(file)
            for name in header.arrays if header.digested else ():
                _read_array(file, header, name)
        if not header.digested:
            raise WithoutDigestsError(f"{path}: holds no digests, written by an earlier version")
    elif path.suffix == ".parquet":
        read_table(path)
        with _reading(path, "Parquet"):
            if DIGESTS_KEY.encode() not in (pq.read_schema(path).metadata or {}):
                raise WithoutDigestsError(f"{path}: holds no digests, written by an earlier version")
    elif path.suffix == ".json":
        read_json(path)
    else:
        with _reading(path, path.suffix.removeprefix(".") or "plain"):
            if path.stat().st_size == 0:
                raise ValueError("it is empty")


def finish_folder(working: str | Path, target: str | Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write the manifest of a folder whose files are all there, and give the folder its name, in one rename.

    Nobody meets the folder half full. What was there under its name is removed. Hidden files, of writers that were
    killed, are removed as well.

    Args:
        working: the folder, on the disk where the target will be.
        target: its name from now on.
        provenance: what made the folder, as JSON can hold it; kept in the manifest.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is damaged, or JSON cannot hold the provenance.
    """
    working, target = Path(working), Path(target)
    if not working.is_dir():
        raise FileNotFoundError(f"{working}: no such folder; {how_to_make_again(target)} to make it")
    (working / MANIFEST).unlink(missing_ok=True)
    for leftover in [path for path in working.rglob(".*") if path.is_file()]:
        leftover.unlink()
    files = {}
    for name, size in _sizes(working).items():
        verify_file(working / name)
        files[name] = {"bytes": size, "digest": fast_digest(working / name)}
    listed = json.loads(_to_json({"files": files, "provenance": provenance or {}}, working / MANIFEST))
    write_json(working / MANIFEST, listed | {"digest": _manifest_digest(listed)})
    # what a power cut takes from the files themselves is noticed by their digests
    for path in (working / MANIFEST, working):
        _to_disk(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    if target.exists():
        target.replace(old)
    working.replace(target)
    _to_disk(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Return a folder's manifest: ``files`` (name -> ``bytes`` and ``digest``) and ``provenance``.

    Raises:
        FileNotFoundError: there is no such folder.
        WithoutDigestsError: an earlier version made the folder, without a manifest, or the folder is not finished.
        ValueError: the manifest is not as it was written.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; {how_to_make_again(folder)} to make it")
        raise WithoutDigestsError(f"{folder}: holds no {MANIFEST}; an earlier version made it, or it is not finished")
    manifest = read_json(path)
    with _reading(path, "JSON"):
        digest = manifest.pop("digest")
        if _manifest_digest(manifest) != digest:
            raise ValueError("it is not as it was written")
    return manifest


def check_folder(folder: str | Path) -> dict[str, Any]:
    """Compare the names and sizes of a folder's files with its manifest, without reading them; return the manifest.

    Hidden files, such as Snakemake's time stamp, are not looked at.

    Raises:
        FileNotFoundError, WithoutDigestsError: as :func:`read_manifest`.
        ValueError: files are missing, have another size, or are not in the manifest; the first is named.
    """
    manifest = read_manifest(folder)
    expected = {name: entry["bytes"] for name, entry in manifest["files"].items()}
    actual = {name: size for name, size in _sizes(Path(folder)).items() if name != MANIFEST}
    advice = f"{how_to_make_again(folder)} to make them again"
    if missing := sorted(expected.keys() - actual.keys()):
        raise ValueError(f"{folder}: {len(missing)} of {len(expected)} files are missing, first {missing[0]}; {advice}")
    if extra := sorted(actual.keys() - expected.keys()):
        raise ValueError(f"{folder}: {len(extra)} files are not in its {MANIFEST}, first {extra[0]}; {advice}")
    for name, size in expected.items():
        if actual[name] != size:
            raise ValueError(f"{Path(folder) / name}: has {actual[name]} bytes, not {size}; {advice}")
    return manifest


def verify(path: str | Path) -> None:
    """Compare every byte of an artifact, a file or a folder with a manifest, with what was written.

    Of files without digests (text, images, CSV) it is only seen that they are there and not empty.

    Raises:
        FileNotFoundError: there is no such file or folder.
        WithoutDigestsError: an earlier version wrote it, so that nothing can be said.
        ValueError: it is not as it was written; the message names the file and what is wrong.
    """
    if not Path(path).is_dir():
        verify_file(path)
        return
    for name, entry in check_folder(path)["files"].items():
        inside = Path(path) / name
        if fast_digest(inside) != entry["digest"]:
            raise ValueError(f"{inside}: not as it was written; {how_to_make_again(inside)} to make it again")


def whole(path: str | Path) -> bool:
    """Whether an artifact is there, a file not empty, a folder with the names and sizes of its manifest if it has one.

    Nothing is read but a manifest: what bytes have become is for :func:`verify` to say.
    """
    if not Path(path).is_dir():
        return Path(path).is_file() and Path(path).stat().st_size > 0
    try:
        check_folder(path)
    except WithoutDigestsError:
        return bool(_sizes(Path(path)))
    except (ValueError, OSError):
        return False
    return True


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of every file of a folder that is not hidden, by its path in the folder, in order."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    return {name.as_posix(): (folder / name).stat().st_size for name in shown}


def _manifest_digest(listed: Mapping[str, Any]) -> str:
    return xxh3_64_hexdigest(_to_json(listed, MANIFEST).encode())


def fast_digest(path: Path) -> str:
    """Return the XXH3 digest of a file's bytes, 16 hexadecimal digits, at the speed at which it can be read."""
    hasher = xxh3_64()
    with path.open("rb") as file:
        while block := file.read(2**22):
            hasher.update(block)
    return hasher.hexdigest()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Entry(NamedTuple):
    """An array in a safetensors file: numpy's type (None: it has none), shape, bytes in the file, digests."""

    dtype: str | None
    shape: tuple[int, ...]
    start: int
    stop: int
    digests: str
    path: str | None = None
    """Of another file in which the bytes are."""


class _Header(NamedTuple):
    metadata: dict[str, str]
    arrays: dict[str, _Entry]
    chunk: int
    digested: bool


def _read_header(file: BinaryIO) -> _Header:
    """Read and verify the header of a safetensors file."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(_read(file, 8), "little")
    if length > size - 8:
        raise ValueError(f"it has {size} bytes, fewer than its header")
    header = _parsed(length.to_bytes(8, "little") + _read(file, length))
    end = max((array.stop for array in header.arrays.values() if array.path is None), default=8 + length)
    if end != size:
        raise ValueError(f"it has {size} bytes, not {end}")
    return header


# of a measurement that reads each parameter of each checkpoint in turn, parsing the headers would take most of the time
@lru_cache(maxsize=1024)
def _parsed(header: bytes) -> _Header:
    place = header.find(_TENSORS_MARK.encode())
    if place >= 0:
        place += len(_TENSORS_MARK)
        unset = header[:place] + _UNSET.encode() + header[place + 16 :]
        if xxh3_64_hexdigest(unset).encode() != header[place : place + 16]:
            raise ValueError("its header is not as it was written")
    entries = json.loads(header[8:])
    metadata = entries.pop("__metadata__", {})
    chunk, digests = CHUNK, {}
    if place >= 0:
        _, size, text = metadata[DIGESTS_KEY].removeprefix(_TENSORS_MARK).split(" ", 2)
        chunk, digests = int(size), json.loads(text)
    else:
        _check_undigested({key.encode(): value for key, value in metadata.items()})
    arrays = {}
    # in the order of the bytes, so that a file is read from its beginning to its end
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = (len(header) + int(offset) for offset in entry["data_offsets"])
        if place >= 0 and entry["dtype"] not in _TYPES:
            raise ValueError(f"{name!r} is of a type that numpy lacks")
        arrays[name] = _Entry(_TYPES.get(entry["dtype"]), tuple(entry["shape"]), start, stop, digests.get(name, ""))
    if place >= 0:
        for name, (path, start, kind, shape) in json.loads(metadata.get(ELSEWHERE_KEY, "{}")).items():
            stop = start + _bytes(np.dtype(_TYPES[kind]), tuple(shape))
            arrays[name] = _Entry(_TYPES[kind], tuple(shape), start, stop, digests.get(name, ""), path)
    return _Header(metadata, arrays, chunk, place >= 0)


def _tensors_header(
    types: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    digests: Mapping[str, str],
    metadata: Mapping[str, Any],
    path: str | Path,
    elsewhere: Mapping[str, tuple[Path, int]],
) -> bytes:
    """Return the header of a safetensors file, its length before it; the place of its own digest is unset."""
    text = {METADATA_KEY: _to_json(metadata, path)}
    text[DIGESTS_KEY] = f"{_TENSORS_MARK}{_UNSET} {CHUNK} {json.dumps(dict(sorted(digests.items())))}"
    if elsewhere:
        places = {
            name: [at.as_posix(), start, _NAMES[types[name][0].str.lstrip("<|")], list(types[name][1])]
            for name, (at, start) in sorted(elsewhere.items())
        }
        text[ELSEWHERE_KEY] = json.dumps(places, ensure_ascii=False)
    entries: dict[str, Any] = {"__metadata__": text}
    start = 0
    for name in (each for each in _file_order(types) if each not in elsewhere):
        dtype, shape = types[name]
        stop = start + _bytes(dtype, shape)
        entries[name] = {
            "dtype": _NAMES[dtype.str.lstrip("<|")],
            "shape": list(shape),
            "data_offsets": [start, stop],
        }
        start = stop
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _bytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    return int(dtype.itemsize * np.prod(shape, dtype=np.int64))


def _file_order(types: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> list[str]:
    """Return names in the order in which safetensors itself writes them: large types first, so that all are aligned."""
    order = list(_NAMES.values())
    return sorted(types, key=lambda name: (-order.index(_NAMES[types[name][0].str.lstrip("<|")]), name))


def _check_undigested(metadata: Mapping[bytes, Any] | None) -> None:
    """Raise an error if a file without digests is ours and had some: what names them was damaged."""
    keys = set(metadata or {})
    if METADATA_KEY.encode() in keys and (unknown := keys - {METADATA_KEY.encode(), b"pandas", b"ARROW:schema"}):
        raise ValueError(f"its metadata hold {sorted(unknown)}, which is not as it was written")


def _read_arrays(file: BinaryIO, header: _Header) -> dict[str, np.ndarray]:
    """Read all arrays and compare their bytes with their digests."""
    if any(entry.path is not None for entry in header.arrays.values()):
        return {name: _read_array(file, header, name) for name in header.arrays}
    start = min((entry.start for entry in header.arrays.values()), default=0)
    end = max((entry.stop for entry in header.arrays.values()), default=0)
    if end - start >= MAPPED or len(header.arrays) >= 1000 or not hasattr(os, "preadv"):
        return {name: _read_array(file, header, name) for name in header.arrays}
    arrays = {name: np.empty(entry.shape, dtype=entry.dtype) for name, entry in header.arrays.items()}
    data = {name: _bytes_of(array) for name, array in arrays.items()}
    # the arrays follow each other: one call of the system fills them all
    if os.preadv(file.fileno(), [part.data for part in data.values()], start) != end - start:
        return {name: _read_array(file, header, name) for name in header.arrays}
    for name, part in data.items():
        _compare(part, header.arrays[name], 0, header.chunk, name)
    return arrays


def _read_array(file: BinaryIO, header: _Header, name: str, rows: slice = slice(None)) -> np.ndarray:
    """Read rows of an array and compare the chunks of bytes in which they lie with their digests."""
    entry, chunk = header.arrays[name], header.chunk
    if entry.path is not None:
        here = header._replace(arrays={name: entry._replace(path=None)})
        try:
            with open(entry.path, "rb", buffering=0) as other:
                return _read_array(other, here, name, rows)
        except FileNotFoundError:
            raise ValueError(f"{name!r} lies in {entry.path}, which is not there; put it back") from None
        except ValueError as error:
            raise ValueError(f"{error}; they lie in {entry.path}, which was changed") from None
    assert entry.dtype is not None  # the header of a file with digests holds no other
    if rows == slice(None):
        content = _read_verified(file, entry, 0, entry.stop - entry.start, chunk, name)
        return content.view(entry.dtype).reshape(entry.shape)
    first, last, stride = rows.indices(entry.shape[0])
    first, last = (first, max(first, last)) if stride > 0 else (0, entry.shape[0])
    per_row = np.dtype(entry.dtype).itemsize * int(np.prod(entry.shape[1:], dtype=np.int64))
    start = first * per_row // chunk * chunk
    stop = min(entry.stop - entry.start, -(-last * per_row // chunk) * chunk)
    content = _read_verified(file, entry, start, max(start, stop), chunk, name)
    part = content[first * per_row - start : last * per_row - start].view(entry.dtype)
    part = part.reshape(last - first, *entry.shape[1:])
    return part[:: abs(stride)].copy() if stride > 0 else part[rows].copy()


def _read_verified(file: BinaryIO, entry: _Entry, start: int, stop: int, chunk: int, name: str) -> np.ndarray:
    """Return the bytes of an array between two offsets, the first a multiple of the chunk, which are compared.

    Many bytes are mapped, copy on write: files are replaced by renaming, so that a mapped one stays what it was.
    """
    if stop - start >= MAPPED and entry.start % 8 == 0:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        data = np.frombuffer(mapped, np.uint8, stop - start, entry.start + start)
    else:
        data = np.empty(stop - start, dtype=np.uint8)
        file.seek(entry.start + start)
        _read_into(file, data.data)
    _compare(data, entry, start, chunk, name)
    return data


def _compare(data: np.ndarray, entry: _Entry, start: int, chunk: int, name: str) -> None:
    first = 16 * (start // chunk)
    digests = "".join(_chunk_digests(data, chunk))
    if digests != entry.digests[first : first + len(digests)]:
        raise ValueError(f"the bytes of {name!r} are not those that were written")


def _bytes_of(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def _chunk_digests(data: np.ndarray, chunk: int = CHUNK) -> Iterator[str]:
    whole = data.data
    return (xxh3_64_hexdigest(whole[start : start + chunk]) for start in range(0, len(whole), chunk))


def _read(file: BinaryIO, count: int) -> bytes:
    data = bytearray(count)
    _read_into(file, memoryview(data))
    return bytes(data)


def _read_into(file: Any, view: memoryview) -> None:
    """Fill all of ``view``; one call may read less."""
    while len(view):
        count = file.readinto(view)
        if not count:
            raise ValueError(f"it ends {len(view)} bytes too soon")
        view = view[count:]


def _footer_length(end: bytes, size: int) -> int:
    """Return the length of a Parquet file's footer, of which the last 8 bytes are given."""
    length = int.from_bytes(end[:4], "little")
    if len(end) < 8 or end[4:] != b"PAR1" or length > size - 12:
        raise ValueError(f"its {size} bytes do not end as those of a Parquet file")
    return length


def _footer_start(data: bytes | memoryview) -> int:
    return len(data) - 8 - _footer_length(bytes(data[-8:]), len(data))


def _verified_footer(footer: bytes) -> str | None:
    """Compare a Parquet file's footer with its digest; return that of the pages, or None if there are none."""
    place = footer.find(_TABLE_MARK.encode())
    if place < 0:
        return None
    place += len(_TABLE_MARK)
    unset = footer[: place + 16] + _UNSET.encode() + footer[place + 32 :]
    if xxh3_64_hexdigest(unset).encode() != footer[place + 16 : place + 32]:
        raise ValueError("its footer is not as it was written")
    return footer[place : place + 16].decode()


@contextmanager
def _reading(path: str | Path, kind: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; {how_to_make_again(path)} to make it") from None
    except WithoutDigestsError:
        raise
    except (*_DAMAGED, OSError) as error:
        # pyarrow reports damage as an OSError without a number; those of the system have one
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"{path}: not a readable {kind} file ({error}); {how_to_make_again(path)} to make it again"
        ) from error


_DAMAGED = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, RecursionError,
    pa.ArrowException, safetensors.SafetensorError,
)  # fmt: skip
"""What parsers raise on damaged bytes."""


def _metadata(text: str | bytes | None, path: str | Path, writer: str) -> dict[str, Any]:
    if text is None:
        raise NoMetadataError(f"{path}: holds no {METADATA_KEY} metadata; only files written by files.{writer} have it")
    return json.loads(text)


def _to_json(obj: Any, path: str | Path, indent: int | None = None) -> str:
    try:
        return json.dumps(obj, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=indent, default=_plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: JSON cannot hold what is to be written: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{value!r} is a {type(value).__name__}; convert it to numbers, strings, lists or dictionaries")


def _array(name: str, tensor: Any, path: str | Path) -> np.ndarray:
    # torch is not imported at this floor; a tensor is recognised by its method
    if hasattr(tensor, "detach"):
        try:
            tensor = tensor.detach().cpu().numpy()
        except TypeError as error:
            raise ValueError(
                f"{path}: tensor {name!r} is {tensor.dtype}, which numpy lacks; convert it to float32"
            ) from error
    return np.asarray(tensor, order="C")  # safetensors would write other memory layouts scrambled
