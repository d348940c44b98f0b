"""Archives: the same bytes twice, whatever is damaged is named, and nothing else is touched."""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from learning_geometry import archive
from learning_geometry.files import read_json, read_provenance, read_table, write_json, write_table, write_text
from learning_geometry.tables import summary
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import COLUMNS, tidy

RUN = {
    "seeds": [0],
    "task": {"name": "copying"},
    "optimizer": {"epsilon": 1e-9},
    "training": {"steps": 1000},
    "measurements": {"copying_errors": {}},
}
CONFIG = {
    "experiments": {"second": RUN, "first": RUN},  # not in alphabetical order: figures keep the config's
    "figures": {"marker_sums_learning": {"experiments": ["second", "first"]}},
}
TABLES = ["first/runs.parquet", "first/summary.parquet", "second/runs.parquet", "second/summary.parquet"]
DRAWN = ["figures/timeline.png", "claims.md"]


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    for number, name in enumerate(TABLES):
        rows = [{"step": step, "quantity": "loss", "value": float(number + step)} for step in range(1000)]
        table = tidy(rows, name.partition("/")[0], number)
        write_table(
            summarize([table]) if "summary" in name else table,
            folder / name,
            {"code": f"fingerprint {number}", "seed": number},
        )
    for name in DRAWN:
        write_text(folder / name, f"drawn {name}")
    return folder


@pytest.fixture
def packed(results):
    path = results / "archive.tar.gz"
    archive.pack(path, results, CONFIG, DRAWN)
    return path


def members(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def rewrite(path, contents):
    """Write an archive with other members, its checksums left as they are."""
    with tarfile.open(path, "w:gz") as tar:
        for name, data in sorted(contents.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def with_checksums(contents):
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in contents.items() if name != "SHA256SUMS"]
    return contents | {"SHA256SUMS": "".join(lines).encode()}


def test_an_archive_holds_tables_config_provenance_and_checksums(packed, results, tmp_path):
    description = archive.unpack(packed, tmp_path / "redrawn")
    found = sorted(str(path.relative_to(tmp_path / "redrawn")) for path in (tmp_path / "redrawn").rglob("*.*"))
    assert found == sorted([*TABLES, "archive.json", "config.yaml"])
    for name in TABLES:
        assert (tmp_path / "redrawn" / name).read_bytes() == (results / name).read_bytes()
        assert description["provenance"][name] == read_provenance(results / name)
    config = yaml.safe_load((tmp_path / "redrawn/config.yaml").read_text())
    assert config == CONFIG and list(config["experiments"]) == ["second", "first"]
    assert description["environment"]["numpy"] and description["environment"]["python"].startswith("3.")
    assert description["drawn"].keys() == set(DRAWN)


def test_checksums_are_those_that_other_programs_read(packed, tmp_path):
    archive.unpack(packed, tmp_path / "redrawn")
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "redrawn", capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.count(": OK") == len(TABLES) + 2


def test_packing_twice_gives_the_same_bytes(packed, results, tmp_path):
    for path in results.rglob("*.parquet"):
        path.touch()
    archive.pack(tmp_path / "again.tar.gz", results, CONFIG, reversed(DRAWN))
    assert (tmp_path / "again.tar.gz").read_bytes() == packed.read_bytes()
    with tarfile.open(packed) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
    assert packed.read_bytes()[3:8] == bytes(5)  # gzip's header: no file name, no time


def test_a_table_that_is_not_there_leaves_no_archive(results):
    (results / "first/runs.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"first/runs\.parquet"):
        archive.pack(results / "archive.tar.gz", results, CONFIG, DRAWN)
    assert not list(results.glob("*.gz"))


@pytest.mark.parametrize("name", [*TABLES, "config.yaml", "archive.json"])
def test_a_damaged_and_a_missing_file_are_named(packed, tmp_path, name):
    contents = members(packed)
    middle = len(contents[name]) // 2
    flipped = bytes([contents[name][middle] ^ 1])
    rewrite(packed, contents | {name: contents[name][:middle] + flipped + contents[name][middle + 1 :]})
    with pytest.raises(ValueError, match=rf"archive\.tar\.gz: damaged: {name}; copy it again"):
        archive.unpack(packed, tmp_path / "redrawn")
    del contents[name]
    rewrite(packed, contents)
    with pytest.raises(ValueError, match=rf"archive\.tar\.gz: missing: {name}; copy it again"):
        archive.unpack(packed, tmp_path / "redrawn")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


def test_every_truncation_and_every_flipped_byte_is_refused_or_harmless(packed, tmp_path):
    data = packed.read_bytes()
    archive.unpack(packed, tmp_path / "sound")
    sound = {path: path.read_bytes() for path in (tmp_path / "sound").rglob("*.*")}
    damaged, refused = tmp_path / "damaged.tar.gz", 0
    for place in range(0, len(data), max(len(data) // 60, 1)):
        for changed in (data[:place], data[:place] + bytes([data[place] ^ 8]) + data[place + 1 :]):
            damaged.write_bytes(changed)
            try:
                archive.unpack(damaged, tmp_path / "sound")
            except ValueError as error:
                assert str(error).startswith(str(damaged))
                refused += 1
            assert {path: path.read_bytes() for path in (tmp_path / "sound").rglob("*.*")} == sound
    assert refused > 100


def test_another_layout_says_which_version_to_use(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "SINCE_LAYOUT", {1: (), 3: ()})
    monkeypatch.setattr(archive, "__version__", "9.0")
    with pytest.raises(
        ValueError, match=r"has layout 2, packed by version 0\.\d.*version 9\.0, which reads layouts 1, 3"
    ):
        archive.unpack(packed, tmp_path / "redrawn")


def test_a_config_that_asks_for_more_than_there_is_is_refused(packed, tmp_path):
    contents = members(packed)
    del contents["first/runs.parquet"]
    rewrite(packed, with_checksums(contents))
    with pytest.raises(ValueError, match=r"asks for first/runs\.parquet"):
        archive.unpack(packed, tmp_path / "redrawn")


@pytest.mark.parametrize("name", ["../outside.parquet", "/tmp/outside.parquet", "a/../../outside.parquet"])
def test_nothing_is_written_outside_the_folder(packed, tmp_path, name):
    rewrite(packed, with_checksums(members(packed) | {name: b"outside"}))
    with pytest.raises(ValueError, match="SHA256SUMS"):
        archive.unpack(packed, tmp_path / "deep/redrawn")
    assert not list(tmp_path.rglob("outside*"))


def test_what_is_no_archive_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="make archive"):
        archive.unpack(tmp_path / "absent.tar.gz", tmp_path / "redrawn")
    path = tmp_path / "other.tar.gz"
    for data in (b"", b"text", gzip.compress(b"text")):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"other\.tar\.gz"):
            archive.unpack(path, tmp_path / "redrawn")
    rewrite(path, {"a/b.txt": b"text"})
    with pytest.raises(ValueError, match="holds no SHA256SUMS"):
        archive.unpack(path, tmp_path / "redrawn")


def test_a_folder_with_other_files_is_not_touched(packed, results, tmp_path):
    before = {path: path.read_bytes() for path in results.rglob("*.*")}
    with pytest.raises(FileExistsError, match=r"results: holds other files.*TO="):
        archive.unpack(packed, results)
    assert {path: path.read_bytes() for path in results.rglob("*.*")} == before
    with pytest.raises(FileExistsError, match="is a file"):
        archive.unpack(packed, packed)


def test_an_earlier_redraw_is_replaced_but_never_with_the_archive_in_it(packed, tmp_path):
    archive.unpack(packed, tmp_path / "redrawn")
    (tmp_path / "redrawn/stale.png").write_text("stale")
    inside = packed.rename(tmp_path / "redrawn/archive.tar.gz")
    with pytest.raises(FileExistsError, match="the archive is in it"):
        archive.unpack(inside, tmp_path / "redrawn")
    archive.unpack(inside.rename(packed), tmp_path / "redrawn")
    assert not (tmp_path / "redrawn/stale.png").exists()


def test_compare_names_what_differs(packed, results, tmp_path, capsys):
    folder = tmp_path / "redrawn"
    assert archive.main(["unpack", str(packed), str(folder)]) == 0
    assert archive.compare(folder) == sorted(DRAWN)
    for name in DRAWN:
        write_text(folder / name, f"drawn {name}")
    assert archive.compare(folder) == [] and archive.main(["compare", str(folder)]) == 0
    assert "all 2 figures and pages are the same bytes" in capsys.readouterr().out
    write_text(folder / "claims.md", "another verdict")
    assert archive.main(["compare", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "1 of 2 differ" in out and "the code that draws them has changed" in out and out.endswith(": claims.md\n")
    description = read_json(folder / "archive.json")
    description["environment"]["matplotlib"] = "1.0"
    write_json(folder / "archive.json", description)
    archive.main(["compare", str(folder)])
    assert "matplotlib 1.0 -> " in capsys.readouterr().out


def test_the_columns_are_those_of_the_tables():
    arrow = {"str": "string", "float64": "double"}
    assert {name: arrow.get(kind, kind) for name, kind in COLUMNS.items()} == archive.RUNS
    assert {name: arrow.get(kind, kind) for name, kind in summary.COLUMNS.items()} == archive.SUMMARY


def refused(path, folder, says, **limits):
    """An archive is refused in one line that names it, and leaves nothing."""
    before = sorted(folder.parent.iterdir())
    with pytest.raises(ValueError, match=says) as caught:
        archive.unpack(path, folder, **limits)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000 and "Traceback" not in str(caught.value)
    assert sorted(folder.parent.iterdir()) == before


def test_what_unpacks_to_more_than_its_size_can_hold_is_refused_before_it_is_written(packed, tmp_path, monkeypatch):
    zeros = members(packed) | {"first/runs.parquet": bytes(300_000)}
    rewrite(packed, with_checksums(zeros))
    written, copy = [], archive.shutil.copyfileobj

    def counted(source, target):
        copy(source, target)
        written.append(target.tell())

    monkeypatch.setattr(archive.shutil, "copyfileobj", counted)
    monkeypatch.setattr(archive, "LARGEST_RATIO", 2)
    refused(packed, tmp_path / "redrawn", r"unpack to more than \d+, which no archive of a run does", floor=1)
    assert sum(written) < 300_000


def test_a_header_that_declares_too_much_is_refused(packed, tmp_path, monkeypatch):
    contents = members(packed)
    monkeypatch.setattr(archive, "LARGEST_RATIO", 2)
    with tarfile.open(packed, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("SHA256SUMS")
        member.size, member.pax_headers = len(contents["SHA256SUMS"]), {"comment": "x" * 300_000}
        tar.addfile(member, io.BytesIO(contents["SHA256SUMS"]))
    refused(packed, tmp_path / "redrawn", "unpack to more than", floor=1)


def test_what_follows_the_last_file_is_bounded_too(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST_RATIO", 20)
    packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()) + bytes(10_000_000)))
    refused(packed, tmp_path / "redrawn", "unpack to more than", floor=1)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (tarfile.SYMTYPE, "is a link, folder, device or sparse file"),
        (tarfile.LNKTYPE, "is a link, folder, device or sparse file"),
        (tarfile.DIRTYPE, "is a link, folder, device or sparse file"),
        (tarfile.FIFOTYPE, "is a link, folder, device or sparse file"),
        (tarfile.CHRTYPE, "is a link, folder, device or sparse file"),
    ],
)
def test_links_and_devices_are_refused(packed, tmp_path, kind, says):
    contents = members(packed)
    with tarfile.open(packed, "w:gz") as tar:
        for name, data in sorted(contents.items()):
            member = tarfile.TarInfo(name)
            if name == "first/runs.parquet":
                member.type, member.linkname = kind, "archive.json"
                tar.addfile(member)
            else:
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    refused(packed, tmp_path / "redrawn", rf"first/runs\.parquet {says}")


def test_a_file_twice_and_a_file_that_is_not_listed_are_refused(packed, tmp_path):
    contents = members(packed)
    rewrite(packed, contents | {"first/more.parquet": b""})
    refused(packed, tmp_path / "redrawn", r"first/more\.parquet is not in its SHA256SUMS")
    rewrite(packed, contents | {"line\nbreak": b""})
    refused(packed, tmp_path / "redrawn", r"line\\nbreak is not in its SHA256SUMS")
    with tarfile.open(packed, "w:gz") as tar:
        for name in [*sorted(contents), "config.yaml"]:
            member = tarfile.TarInfo(name)
            member.size = len(contents[name])
            tar.addfile(member, io.BytesIO(contents[name]))
    refused(packed, tmp_path / "redrawn", r"config\.yaml is in it twice")


@pytest.mark.parametrize("name", ["archive.json", "config.yaml"])
def test_what_lists_neither_a_description_nor_a_config_is_no_archive_of_a_run(packed, tmp_path, name):
    rewrite(packed, with_checksums({each: data for each, data in members(packed).items() if each != name}))
    refused(packed, tmp_path / "redrawn", r"holds no archive\.json or no config\.yaml, so it is no archive of a run")


ODD = [
    ("archive.json", b"[1]", "holds list, expected a mapping"),
    ("archive.json", b"not JSON", r"not a readable JSON file \(.*\); copy it again from where it came from$"),
    ("archive.json", b"\xff\xfe", "not a readable JSON file"),
    ("archive.json", b"[" * 100_000, "archive"),
    ("archive.json", {"layout": True}, "has layout True"),
    ("archive.json", {"layout": 1}, "column 'other_seeds' is string, expected none"),
    ("archive.json", {"layout": [1]}, r"has layout \[1\]"),
    ("archive.json", {"version": 1}, "version is no str"),
    ("archive.json", {"environment": []}, "environment is no dict"),
    ("archive.json", {"environment": {"numpy": 2}}, "environment of 'numpy' is no str"),
    ("archive.json", {"provenance": None}, "provenance is no dict"),
    ("archive.json", {"provenance": {"first/runs.parquet": 1}}, r"provenance of 'first/runs\.parquet' is no dict"),
    ("archive.json", {"provenance": {}}, r"another provenance of second/runs\.parquet than the table"),
    ("archive.json", {"drawn": ["claims.md"]}, "drawn is no dict"),
    ("archive.json", {"drawn": {"claims.md": 3}}, "drawn of 'claims.md' is no str"),
    ("archive.json", {"drawn": {"../../secret.txt": "0"}}, "drawn names '../../secret.txt', which no run draws"),
    ("config.yaml", b"- a\n- b\n", "holds a list at the top level, expected a mapping"),
    ("config.yaml", b"", "is empty"),
    ("config.yaml", b"\xff", "is not UTF-8"),
    ("config.yaml", b"experiments: [first]\n", "experiments: got .*, expected mapping"),
    ("config.yaml", b"experiments: {first: 3}\n", r"experiments\.first: got 3, expected mapping"),
    ("config.yaml", b"a: " + b"[" * 3000, "more than 40 levels inside each other"),
    ("first/runs.parquet", b"no table", "is no Parquet table"),
    ("first/runs.parquet", b"", "is no Parquet table"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "says"), ODD, ids=range(len(ODD)))
def test_contents_of_another_kind_are_named(packed, tmp_path, name, content, says):
    contents = members(packed)
    if isinstance(content, dict):
        content = json.dumps(json.loads(contents[name]) | content).encode()
    rewrite(packed, with_checksums(contents | {name: content}))
    refused(packed, tmp_path / "redrawn", says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.drop(columns="unit"), "column 'unit' is absent, expected string"),
        (lambda table: table.assign(more=1), "column 'more' is int64, expected none"),
        (lambda table: table.assign(value="x"), "column 'value' is string, expected double"),
        (lambda table: table.assign(seed=0.5), "column 'seed' is double, expected int64"),
        (lambda table: table.assign(part=[b"x"] * len(table)), "column 'part' is binary, expected string"),
    ],
)
def test_a_table_with_other_columns_is_named(packed, results, tmp_path, change, says):
    path = results / "first/runs.parquet"
    write_table(change(read_table(path)), path, read_provenance(path))
    archive.pack(packed, results, CONFIG, DRAWN)
    refused(packed, tmp_path / "redrawn", rf"first/runs\.parquet: {says}")


def test_a_table_without_provenance_is_named(packed, tmp_path):
    contents, bare = members(packed), tmp_path / "bare.parquet"
    table = pq.read_table(pa.BufferReader(contents["first/runs.parquet"]))
    pq.write_table(table.replace_schema_metadata(None), bare)
    rewrite(packed, with_checksums(contents | {"first/runs.parquet": bare.read_bytes()}))
    refused(packed, tmp_path / "redrawn", r"first/runs\.parquet: holds no learning_geometry metadata")


def test_an_archive_of_the_first_layout_is_read(tmp_path):
    """Packed by the code before tables had checksums of their own, and a column that says what compares seeds."""
    path = Path(__file__).parent / "archives" / "layout-1.tar.gz"
    description = archive.unpack(path, tmp_path / "redrawn")
    assert description["layout"] == 1 and archive.compare(tmp_path / "redrawn") == ["claims.md"]
    runs, summarized = (read_table(tmp_path / f"redrawn/small/{name}.parquet") for name in ("runs", "summary"))
    assert len(runs) == 6 and runs["value"].max() == 1.0
    pd.testing.assert_frame_equal(summarize([runs]), summarized)


def test_the_command_line_says_one_line(tmp_path, capsys):
    assert archive.main(["unpack", str(tmp_path / "absent.tar.gz"), str(tmp_path / "redrawn")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
