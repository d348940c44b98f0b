import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
from xxhash import xxh3_64_hexdigest

from learning_geometry import files
from learning_geometry.paths import how_to_make_again
from learning_geometry.tasks import texts
from learning_geometry.tasks.texts import read_text

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


def test_what_marks_the_digests_cannot_be_in_what_is_written(tmp_path, table):
    with pytest.raises(ValueError, match=r"a\.parquet: the provenance holds 'pages and footer .* leave it out"):
        files.write_table(table, tmp_path / "a.parquet", {"note": "pages and footer xxh3_64 "})
    with pytest.raises(ValueError, match=r"a\.safetensors: the metadata hold 'header .* leave it out"):
        files.write_tensors(tmp_path / "a.safetensors", {"a": np.ones(2)}, {"note": "header xxh3_64 "})
    assert names(tmp_path) == []


def test_folders_that_are_not_there_are_named(tmp_path):
    for call in (lambda path: files.finish_folder(path, tmp_path / "b"), files.read_manifest):
        with pytest.raises(FileNotFoundError, match=r"a: no such folder; .* to make it"):
            call(tmp_path / "a")


def test_an_array_of_another_program_is_read_whole(tmp_path):
    safetensors.numpy.save_file({"a": np.arange(6.0).reshape(2, 3)}, tmp_path / "theirs.safetensors")
    np.testing.assert_array_equal(files.read_tensor(tmp_path / "theirs.safetensors", "a"), [[0, 1, 2], [3, 4, 5]])


def test_a_text_that_is_none_is_named(tmp_path):
    for content, says in ((b"\xff\xfe\xfd", "not UTF-8 text"), (b" \n", "holds no text"), (b"a\0b", "holds a NUL")):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.txt: {says}"):
            read_text(tmp_path / "a.txt")


def test_a_pattern_is_all_files_that_match_in_order(tmp_path):
    (tmp_path / "in").mkdir()
    for name, content in (("b.txt", "Second."), ("a.txt", " First.\n"), ("in/c.txt", "Third."), ("d.md", "No.")):
        (tmp_path / name).write_text(content)
    assert read_text(tmp_path / "*.txt") == "First.\n\nSecond."
    assert read_text(f"{tmp_path}/**/*.txt") == "First.\n\nSecond.\n\nThird."
    (tmp_path / "a[1].txt").write_text("A file whose name looks like a pattern.")
    assert read_text(tmp_path / "a[1].txt").startswith("A file")
    with pytest.raises(FileNotFoundError, match="no such text"):
        read_text(tmp_path / "*.csv")


def test_documentation_that_holds_no_topics_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "text_files", lambda name: [tmp_path / "topics.py"])
    (tmp_path / "topics.py").write_text("kind = 1\ntopics = {'b': 'Second. ', 'a': 'First.'}\n")
    assert read_text("python_documentation") == "Second.\n\nFirst."
    (tmp_path / "topics.py").write_text("topics = dict(a='First.')\n")
    with pytest.raises(ValueError, match="python_documentation: this version of Python has its topics in another form"):
        read_text("python_documentation")


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


def test_arrays_that_one_call_of_the_system_does_not_fill_are_read_one_by_one(tmp_path, monkeypatch):
    # Linux reads 2 GB at once at most, and a file system over a network may read less
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, arrays(), {})
    whole, asked = os.preadv, []

    def part(descriptor, buffers, offset):
        asked.append(len(buffers))
        return whole(descriptor, buffers[:2], offset)

    monkeypatch.setattr(os, "preadv", part)
    read = files.read_tensors(path)
    assert asked == [len(arrays())]
    for name, array in arrays().items():
        np.testing.assert_array_equal(read[name], array, strict=True)


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


def test_the_bytes_are_those_of_safetensors(tmp_path):
    kinds = ["?", *"BbHhIiLl", *"efd", "F"]
    kept = {f"{kind} {name}": array.astype(kind) for kind in kinds for name, array in arrays().items()}
    files.write_tensors(tmp_path / "ours", kept, PROVENANCE)
    ours = (tmp_path / "ours").read_bytes()
    length = int.from_bytes(ours[:8], "little")
    header = json.loads(ours[8 : 8 + length])
    theirs = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in kept.items()}, {})
    start = int.from_bytes(theirs[:8], "little")
    expected = json.loads(theirs[8 : 8 + start])
    expected.pop("__metadata__", None)
    # in the same order, too
    assert list(header.items())[1:] == list(expected.items())
    assert ours[8 + length :] == theirs[8 + start :] and length % 8 == 0
    # the other byte order is refused, not taken for this one
    with pytest.raises(ValueError, match=r"cannot hold one of the types \['>f8'\]"):
        files.write_tensors(tmp_path / "swapped", {"w": np.zeros(2, ">f8")}, {})


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


@pytest.mark.parametrize("reader", [files.read_json, files.read_tensors, files.read_tensor_metadata])
def test_what_the_system_refuses_is_no_damage(tmp_path, reader):
    with pytest.raises(IsADirectoryError):
        reader(tmp_path)


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


def written(path, table):
    """Write a tensor file of several chunks, or a table, whose every byte matters."""
    if path.suffix == ".parquet":
        files.write_table(pd.concat([table] * 40, ignore_index=True), path, PROVENANCE)
    else:
        generator = np.random.default_rng(1)
        files.write_tensors(path, arrays() | {"large": generator.standard_normal((100, 200))}, PROVENANCE)
    return path


def everything(path):
    """All that can be read of a file, each part that is refused as None."""
    if path.suffix == ".parquet":
        readers = {"table": files.read_table, "provenance": files.read_provenance}
    else:
        readers = {
            "all": files.read_tensors,
            "rows": lambda path: files.read_tensor(path, "large", slice(30, 33)),
            "shapes": files.read_tensor_shapes,
            "metadata": files.read_tensor_metadata,
        }
    found = {}
    for name, reader in readers.items():
        try:
            found[name] = reader(path)
        except ValueError as error:
            assert str(path) in str(error) and "run `snakemake" in str(error)
            found[name] = None
    return found


def same(one, other):
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, pd.DataFrame):
        return one.equals(other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other)


@pytest.mark.parametrize("name", ["a.safetensors", "a.parquet"])
def test_no_flipped_bit_is_used(tmp_path, table, name):
    path = written(tmp_path / name, table)
    data, expected = path.read_bytes(), everything(path)
    files.verify(path)
    generator = np.random.default_rng(0)
    # all over the file, and as many where the parsers look first and last
    places = [*generator.integers(8 * len(data), size=200), *generator.integers(8 * 600, size=100)]
    places += [*(8 * len(data) - 1 - generator.integers(8 * 600, size=100))]
    refused = 0
    for place in map(int, places):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"not a readable .*; run `snakemake"):
            files.verify(path)
        found = everything(path)
        refused += found["table" if "table" in found else "all"] is None
        for part, value in found.items():
            assert value is None or same(value, expected[part]), (place, part)
    assert refused == len(places)


@pytest.mark.parametrize("name", ["a.safetensors", "a.parquet"])
def test_a_file_of_other_length_is_refused(tmp_path, table, name):
    path = written(tmp_path / name, table)
    data = path.read_bytes()
    for changed in (data[:-1], data[: len(data) // 2], data + b"\0", data[:7], b"", data[:40] + data[41:]):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"not a readable"):
            files.verify(path)
        assert everything(path)["table" if name.endswith("parquet") else "all"] is None


def test_rows_are_verified_by_the_chunks_in_which_they_lie(tmp_path, table):
    path = written(tmp_path / "a.safetensors", table)
    large = files.read_tensor(path, "large")
    data = bytearray(path.read_bytes())
    place = data.index(large[99, 199].tobytes())
    data[place] ^= 1
    path.write_bytes(data)
    for rows in (slice(0, 5), slice(1, 30, 3), slice(3, 3)):
        np.testing.assert_array_equal(files.read_tensor(path, "large", rows), large[rows], strict=True)
    for rows in (slice(99, 100), slice(-2, None), slice(None, None, -7)):
        with pytest.raises(ValueError, match=r"a\.safetensors: .*the bytes of 'large' are not those that were written"):
            files.read_tensor(path, "large", rows)
    with pytest.raises(KeyError, match="holds no array 'w'"):
        files.read_tensor(path, "w")


def test_files_of_an_earlier_version_are_read_and_said_to_have_no_digests(tmp_path, table):
    """As 554e122 wrote them."""
    metadata = {files.METADATA_KEY: json.dumps(PROVENANCE)}
    safetensors.numpy.save_file({"w": np.arange(6.0).reshape(2, 3)}, tmp_path / "a.safetensors", metadata)
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata(arrow.schema.metadata | metadata)
    pq.write_table(arrow, tmp_path / "a.parquet", compression="zstd")
    np.testing.assert_array_equal(files.read_tensors(tmp_path / "a.safetensors")["w"], np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(files.read_tensor(tmp_path / "a.safetensors", "w", slice(1, 2)), [[3.0, 4.0, 5.0]])
    assert files.read_tensor_metadata(tmp_path / "a.safetensors") == PROVENANCE
    pd.testing.assert_frame_equal(files.read_table(tmp_path / "a.parquet"), table)
    assert files.read_provenance(tmp_path / "a.parquet") == PROVENANCE
    for path in tmp_path.iterdir():
        with pytest.raises(files.WithoutDigestsError, match=rf"{path.name}: holds no digests"):
            files.verify(path)


@pytest.fixture
def folder(tmp_path, table):
    """A finished folder of three files, one of them in a folder inside."""
    working = tmp_path / "working"
    for step in (1, 2):
        files.write_tensors(working / f"step-{step}.safetensors", arrays(), {"step": step})
    files.write_table(table, working / "inside" / "a.parquet", {})
    (working / ".half.1234").write_text("of a writer that was killed")
    files.finish_folder(working, tmp_path / "results" / "finished", {"seed": 3})
    return tmp_path / "results" / "finished"


def test_a_folder_is_finished_in_one_rename_with_a_manifest(folder, tmp_path):
    assert names(tmp_path) == ["results"] and names(folder.parent) == ["finished"]
    manifest = files.read_manifest(folder)
    assert manifest["provenance"] == {"seed": 3}
    assert list(manifest["files"]) == ["inside/a.parquet", "step-1.safetensors", "step-2.safetensors"]
    assert manifest["files"]["step-1.safetensors"]["bytes"] == (folder / "step-1.safetensors").stat().st_size
    (folder / ".snakemake_timestamp").touch()
    files.verify(folder)
    assert files.whole(folder) and files.check_folder(folder) == manifest


def test_finishing_a_folder_replaces_what_was_there(folder, tmp_path):
    files.write_json(tmp_path / "again" / "a.json", {})
    files.finish_folder(tmp_path / "again", folder)
    assert names(folder) == ["a.json", "manifest.json"] and names(folder.parent) == ["finished"]


def test_a_damaged_file_does_not_get_into_a_manifest(folder, tmp_path):
    path = folder / "step-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"step-1\.safetensors: not a readable"):
        files.finish_folder(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "step-1.safetensors").unlink(), "1 of 3 files are missing, first step-1.safetensors"),
        (lambda folder: (folder / "more").touch(), "1 files are not in its manifest.json, first more"),
        (lambda folder: (folder / "step-2.safetensors").write_bytes(b"short"), "has 5 bytes, not"),
        (lambda folder: flip(folder / "manifest.json", 60), "manifest.json: not a readable JSON"),
    ],
)
def test_a_folder_that_is_not_as_its_manifest_says_is_refused(folder, change, message):
    change(folder)
    assert not files.whole(folder)
    for check in (files.check_folder, files.verify):
        with pytest.raises(ValueError, match=re.escape(message)) as refused:
            check(folder)
        assert f"run `snakemake --cores 1 --force {folder}" in str(refused.value)


def test_only_verifying_sees_a_flipped_bit_in_a_folder(folder):
    flip(folder / "inside" / "a.parquet", 40)
    assert files.whole(folder)
    with pytest.raises(ValueError, match=r"inside/a\.parquet: not as it was written"):
        files.verify(folder)


def test_a_folder_without_a_manifest_is_of_an_earlier_version(folder):
    (folder / "manifest.json").unlink()
    assert files.whole(folder)
    with pytest.raises(files.WithoutDigestsError, match=r"finished: holds no manifest\.json"):
        files.verify(folder)


def test_what_is_not_there_or_empty_is_not_whole(tmp_path):
    assert not files.whole(tmp_path / "nothing") and not files.whole(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing: no such file"):
        files.verify(tmp_path / "nothing")
    for name in ("empty.csv", "empty.png", "empty.parquet"):
        (tmp_path / name).touch()
        assert not files.whole(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name}: not a readable"):
            files.verify(tmp_path / name)


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("results/a/seed-0/checkpoints/step-000100.safetensors", "results/a/seed-0/checkpoints"),
        ("results/a/seed-0/checkpoints", "results/a/seed-0/checkpoints"),
        ("results/a/seed-0/training/checkpoints/step-000100.safetensors", "results/a/seed-0/checkpoints"),
        ("/far/results/a/texts/wiki/activations/shard-00000.safetensors", "/far/results/a/texts/wiki"),
        ("results/a/capturing/text_wiki/0123/moments-partial.safetensors", "results/a/texts/wiki"),
        ("results/a/prompts/untrained/activations.json", "results/a/prompts/untrained"),
        ("results/a/capturing/prompts_trained/0123", "results/a/prompts/trained"),
        (
            "results/a/measurements/dictionary_sweep/one-seed-0/cfg.json",
            "results/a/measurements/dictionary_sweep.parquet",
        ),
        ("results/a/measurements/depth_growth.parquet", "results/a/measurements/depth_growth.parquet"),
        ("results/a/seed-0/dataset.safetensors", "results/a/seed-0/dataset.safetensors"),
        ("results/claims.md", "results/claims.md"),
    ],
)
def test_the_command_that_makes_an_artifact_again(path, target):
    assert f"`snakemake --cores 1 --force {target}`" in how_to_make_again(path)


def test_an_array_with_digests_of_a_type_that_numpy_lacks_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, {"w": np.ones(8, dtype=np.float16)}, {})
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end].replace(b'"F16"', b'"BF16"').rstrip()
    header = len(header).to_bytes(8, "little") + header
    header = re.sub(rb"xxh3_64 \w{16}", b"xxh3_64 " + b"0" * 16, header)
    written = xxh3_64_hexdigest(header).encode()
    path.write_bytes(header.replace(b"xxh3_64 " + b"0" * 16, b"xxh3_64 " + written) + content[end:])
    for read in (files.read_tensors, lambda path: files.read_tensor(path, "w")):
        with pytest.raises(ValueError, match=r"'w' is of a type that numpy lacks"):
            read(path)
