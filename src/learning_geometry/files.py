"""Files of the workflow: written whole or not at all, provenance inside, the same bytes for the same input.

A file is written under a hidden temporary name in its own directory and then renamed, so a reader never meets
half a file, whatever kills the writer. Nothing is ever pickled.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.numpy

METADATA_KEY = "learning_geometry"
"""Where tables and tensor files keep their provenance, as JSON."""


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

    Raises:
        ValueError: JSON cannot hold the provenance (see :func:`write_json`).
    """
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {METADATA_KEY: _to_json(provenance, path)}
    arrow = arrow.replace_schema_metadata((arrow.schema.metadata or {}) | metadata)
    with atomic_path(path) as temporary:
        pq.write_table(arrow, temporary, compression="zstd")


def read_table(path: str | Path) -> pd.DataFrame:
    """Return the table that :func:`write_table` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not Parquet.
    """
    with _reading(path, "Parquet"):
        return pq.read_table(path).to_pandas()


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Return the provenance of a table without reading its rows.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not Parquet, or :func:`write_table` did not write it.
    """
    with _reading(path, "Parquet"):
        metadata = pq.read_schema(path).metadata or {}
    return _metadata(metadata.get(METADATA_KEY.encode()), path, "write_table")


def write_tensors(path: str | Path, tensors: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write named arrays as one safetensors file; read without any code of ours, in any language.

    Args:
        path: where to write.
        tensors: numpy arrays or torch tensors (on any device) by name, of any shape and memory layout.
        metadata: what JSON can hold, such as the configuration that made the tensors.

    Raises:
        ValueError: an array has a type that numpy or the format lacks, or JSON cannot hold the metadata.
    """
    arrays = {name: _array(name, tensor, path) for name, tensor in tensors.items()}
    text = {METADATA_KEY: _to_json(metadata, path)}
    try:
        data = safetensors.numpy.save(arrays, text)
    except (KeyError, safetensors.SafetensorError) as error:
        types = sorted({str(array.dtype) for array in arrays.values()})
        raise ValueError(
            f"{path}: safetensors cannot hold one of the types {types}; convert to bool, integer or float"
        ) from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Return all arrays of a safetensors file by name, each a writable copy.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not safetensors.
    """
    with _reading(path, "safetensors"), safetensors.safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)


def read_tensor(path: str | Path, name: str, rows: slice = slice(None)) -> np.ndarray:
    """Return one array of a safetensors file, or a range of its rows, without reading the rest.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not safetensors.
        KeyError: it holds no array of that name.
    """
    with _reading(path, "safetensors"), safetensors.safe_open(path, framework="numpy") as file:
        if name not in file.keys():  # noqa: SIM118 (it is no dictionary)
            raise KeyError(f"{path}: holds no array {name!r}; there are {sorted(file.keys())}")
        if rows == slice(None):
            return file.get_tensor(name)
        part = file.get_slice(name)
        # unlike numpy it takes no ends beyond the last row
        return part[slice(*rows.indices(part.get_shape()[0]))]


def read_tensor_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all arrays of a safetensors file by name, without reading them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not safetensors.
    """
    with _reading(path, "safetensors"), safetensors.safe_open(path, framework="numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dictionary)


def read_tensor_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a tensor file without reading its arrays.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not safetensors, or :func:`write_tensors` did not write it.
    """
    with _reading(path, "safetensors"), safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
    return _metadata(metadata.get(METADATA_KEY), path, "write_tensors")


@contextmanager
def _reading(path: str | Path, kind: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; run `snakemake {path}` to make it") from None
    except (ValueError, pa.ArrowException, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path}: not a readable {kind} file ({error}); delete it and run the workflow again"
        ) from error


def _metadata(text: str | bytes | None, path: str | Path, writer: str) -> dict[str, Any]:
    if text is None:
        raise ValueError(f"{path}: holds no {METADATA_KEY} metadata; only files written by files.{writer} have it")
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


def finish_folder(folder: str | Path, provenance: Mapping[str, Any]) -> None:
    """Write the manifest of a folder: what its files are, and what it was made from."""
    folder = Path(folder)
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    write_json(folder / "manifest.json", {"files": files, "provenance": dict(provenance)})
