import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch

from learning_geometry import files

PROVENANCE = {"config": {"seeds": [0, 1], "rate": 1e-3, "pool": None, "name": "énergie Δ"}, "code": "a1"}


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "experiment": ["copying", "copying", "Δ"],
            "seed": np.array([0, 1, 2], dtype=np.int64),
            "value": [0.1, float("nan"), -1e-300],
            "censored": [True, False, False],
        }
    )


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_atomic_path_is_beside_hidden_and_keeps_the_suffix(tmp_path):
    target = tmp_path / "new" / "figure.pdf"
    with files.atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".pdf"
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert names(target.parent) == ["figure.pdf"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_no_other(tmp_path, error):
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    with pytest.raises(error), files.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_body_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), files.atomic_path(tmp_path / "a.txt"):
        pass


def test_a_kill_in_mid_write_leaves_no_half_file(tmp_path):
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    script = f"""
        import sys, time
        from learning_geometry.files import atomic_path
        with atomic_path({str(target)!r}) as temporary, open(temporary, "w") as file:
            file.write("half")
            file.flush()
            print("written", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert target.read_text() == "old"
    # what is left is hidden, so no pattern such as *.txt finds it
    assert [path.name for path in tmp_path.glob("*.txt") if not path.name.startswith(".")] == ["a.txt"]
    files.write_text(target, "new")
    assert target.read_text() == "new"


def test_files_have_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x")
    files.write_text(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == plain.stat().st_mode


def test_json_round_trip(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, PROVENANCE)
    assert files.read_json(path) == PROVENANCE
    files.write_json(path, {"n": np.int64(3), "x": np.float32(0.5), "v": np.arange(2), "p": tmp_path})
    assert files.read_json(path) == {"n": 3, "x": 0.5, "v": [0, 1], "p": tmp_path.as_posix()}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), {(1, 2): 3}])
def test_what_json_cannot_hold_is_refused(tmp_path, table, value):
    with pytest.raises(ValueError, match=r"a\.json: JSON cannot hold"):
        files.write_json(tmp_path / "a.json", {"key": value})
    with pytest.raises(ValueError, match=r"a\.parquet: JSON cannot hold"):
        files.write_table(table, tmp_path / "a.parquet", {"key": value})
    assert names(tmp_path) == []


def test_table_round_trip(tmp_path, table):
    path = tmp_path / "a.parquet"
    files.write_table(table, path, PROVENANCE)
    pd.testing.assert_frame_equal(files.read_table(path), table, check_exact=True)
    assert files.read_provenance(path) == PROVENANCE
    pd.testing.assert_frame_equal(pd.read_parquet(path), table)


def test_the_index_of_a_table_is_not_kept(tmp_path, table):
    files.write_table(table[table["seed"] > 0], tmp_path / "a.parquet", {})
    read = files.read_table(tmp_path / "a.parquet")
    assert list(read.columns) == list(table.columns)
    assert list(read.index) == [0, 1]


def test_an_empty_table_keeps_its_columns(tmp_path, table):
    files.write_table(table.iloc[:0], tmp_path / "a.parquet", {})
    read = files.read_table(tmp_path / "a.parquet")
    assert list(read.columns) == list(table.columns)
    assert len(read) == 0


def arrays():
    generator = np.random.default_rng(0)
    return {
        "weights": generator.standard_normal((3, 4)).astype(np.float32),
        "transposed": generator.standard_normal((3, 4)).T,
        "strided": np.arange(10)[::3],
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3)),
        "mask": np.array([True, False]),
    }


def test_tensors_round_trip(tmp_path):
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, arrays(), PROVENANCE)
    read = files.read_tensors(path)
    assert set(read) == set(arrays())
    for name, array in arrays().items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array, strict=True)
    assert files.read_tensor_metadata(path) == PROVENANCE
    read["weights"][:] = 0  # a copy, not a view of the file


def test_one_tensor_and_some_of_its_rows_are_read(tmp_path):
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, arrays(), {})
    for name, array in arrays().items():
        np.testing.assert_array_equal(files.read_tensor(path, name), array, strict=True)
    for rows in (slice(1, 2), slice(1, 9), slice(2)):
        np.testing.assert_array_equal(files.read_tensor(path, "weights", rows), arrays()["weights"][rows], strict=True)
    assert files.read_tensor_shapes(path) == {name: array.shape for name, array in arrays().items()}
    with pytest.raises(KeyError, match=r"a\.safetensors: holds no array 'weight'; there are \['empty', 'mask'"):
        files.read_tensor(path, "weight")


def test_torch_tensors_are_written_like_arrays(tmp_path):
    as_torch = {
        "weights": torch.from_numpy(arrays()["weights"]).requires_grad_(),
        "transposed": torch.from_numpy(arrays()["transposed"]),
    }
    as_numpy = {name: arrays()[name] for name in as_torch}
    files.write_tensors(tmp_path / "torch", as_torch, {})
    files.write_tensors(tmp_path / "numpy", as_numpy, {})
    assert (tmp_path / "torch").read_bytes() == (tmp_path / "numpy").read_bytes()
    np.testing.assert_array_equal(files.read_tensors(tmp_path / "torch")["transposed"], as_numpy["transposed"])


def test_types_that_cannot_be_stored_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"tensor 'w' is torch\.bfloat16, which numpy lacks; convert it"):
        files.write_tensors(tmp_path / "a", {"w": torch.zeros(2, dtype=torch.bfloat16)}, {})
    with pytest.raises(ValueError, match=r"cannot hold one of the types .*convert"):
        files.write_tensors(tmp_path / "a", {"w": np.array(["text"])}, {})
    assert names(tmp_path) == []


def test_equal_input_gives_equal_bytes(tmp_path, table):
    reordered = dict(reversed(PROVENANCE.items()))
    for name, provenance, tensors in [
        ("one", PROVENANCE, arrays()),
        ("two", reordered, dict(reversed(arrays().items()))),
    ]:
        files.write_json(tmp_path / name / "a.json", provenance)
        files.write_table(table, tmp_path / name / "a.parquet", provenance)
        files.write_tensors(tmp_path / name / "a.safetensors", tensors, provenance)
        time.sleep(0.01)
    for file in ["a.json", "a.parquet", "a.safetensors"]:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


READERS = [
    files.read_json,
    files.read_table,
    files.read_provenance,
    files.read_tensors,
    lambda path: files.read_tensor(path, "weights"),
    files.read_tensor_shapes,
    files.read_tensor_metadata,
]


@pytest.mark.parametrize("reader", READERS)
def test_reading_a_missing_file_says_how_to_make_it(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match=r"missing: no such file; run `snakemake .*missing` .*to make it"):
        reader(tmp_path / "missing")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe not what is expected", b'{"half": '])
def test_reading_a_damaged_file_names_it_and_the_remedy(tmp_path, reader, content):
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged: not a readable \w+ file .*; run `snakemake .*damaged`"):
        reader(path)


def test_a_truncated_file_is_damaged(tmp_path, table):
    files.write_table(table, tmp_path / "table", {})
    files.write_tensors(tmp_path / "tensors", arrays(), {})
    for name, reader in [("table", files.read_table), ("tensors", files.read_tensors)]:
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match=f"{name}: not a readable"):
            reader(tmp_path / name)


def test_foreign_files_have_no_provenance(tmp_path, table):
    table.to_parquet(tmp_path / "foreign.parquet")
    safetensors.numpy.save_file({"w": np.zeros(2)}, tmp_path / "foreign.safetensors")
    assert len(files.read_table(tmp_path / "foreign.parquet")) == 3
    assert set(files.read_tensors(tmp_path / "foreign.safetensors")) == {"w"}
    with pytest.raises(ValueError, match=r"foreign\.parquet: holds no .* files\.write_table"):
        files.read_provenance(tmp_path / "foreign.parquet")
    with pytest.raises(ValueError, match=r"foreign\.safetensors: holds no .* files\.write_tensors"):
        files.read_tensor_metadata(tmp_path / "foreign.safetensors")
