"""Files of a run read with their digests compared, against the libraries that read them without."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import safetensors.numpy

from benchmarks._timing import Case
from learning_geometry.config import read_yaml, validate
from learning_geometry.files import read_table, read_tensors, write_table, write_tensors
from learning_geometry.training.loop import build_model

CONFIG = Path(__file__).parents[1] / "config/config.yaml"
CHECKPOINTS, SHARDS, ROWS = 41, 2, (60, 600, 6000)
"""Checkpoints of the default copying run, shards of 64 MB of activations, and rows of tables."""


def cases(small: bool) -> list[Case]:
    """Return a case for each kind of file: checkpoints, shards and tables, all of a kind read in each round."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    paths_by_kind = write(Path(folder), small)
    peers = {"tensors": "safetensors.numpy.load_file", "tables": "pyarrow.parquet.read_table"}

    def timed(reader: Callable[[Path], object], paths: list[Path]) -> None:
        for path in paths:
            reader(path)

    readers = {
        "tensors": (read_tensors, safetensors.numpy.load_file),
        "tables": (read_table, lambda path: pq.read_table(path).to_pandas()),
    }
    compare(paths_by_kind, readers)
    return [
        Case(
            f"verified reading, {kind}",
            peers[of],
            lambda reader=readers[of][0], paths=paths: timed(reader, paths),
            lambda reader=readers[of][1], paths=paths: timed(reader, paths),
        )
        for (kind, of), paths in paths_by_kind.items()
    ]


def write(folder: Path, small: bool) -> dict[tuple[str, str], list[Path]]:
    """Write files as a run leaves them; return the paths by what they are and what they are read with."""
    generator = np.random.default_rng(0)
    experiment = validate(read_yaml(CONFIG), files=False)["experiments"]["copying"]
    parameters = build_model(experiment).initialise(generator)
    paths_by_kind: dict[tuple[str, str], list[Path]] = {("checkpoints", "tensors"): []}
    for step in range(2 if small else CHECKPOINTS):
        path = folder / f"step-{step:06d}.safetensors"
        write_tensors(path, parameters, experiment | {"step": step})
        paths_by_kind["checkpoints", "tensors"].append(path)
    paths_by_kind["shards", "tensors"] = []
    for shard in range(SHARDS):
        path = folder / f"shard-{shard:05d}.safetensors"
        vectors = generator.standard_normal((10 if small else 29_000, 576), dtype=np.float32)
        write_tensors(path, {"layers.10.mlp.output": vectors}, {})
        paths_by_kind["shards", "tensors"].append(path)
    paths_by_kind["tables", "tables"] = []
    for rows in ROWS:
        path = folder / f"{rows}.parquet"
        table = pd.DataFrame({"step": np.arange(rows), "quantity": "loss", "value": generator.standard_normal(rows)})
        write_table(table, path, experiment)
        paths_by_kind["tables", "tables"].append(path)
    return paths_by_kind


def compare(paths_by_kind: dict, readers: dict) -> None:
    """Raise ArithmeticError if both sides do not read the same."""
    for (_, of), paths in paths_by_kind.items():
        ours, theirs = (reader(paths[-1]) for reader in readers[of])
        same = ours.equals(theirs) if of == "tables" else all(np.array_equal(ours[name], theirs[name]) for name in ours)
        if not same:
            raise ArithmeticError(f"{paths[-1]}: both sides do not read the same")
