"""Archives: the same bytes twice, whatever is damaged is named, and nothing else is touched."""

import gzip
import hashlib
import io
import subprocess
import tarfile

import pandas as pd
import pytest
import yaml

from learning_geometry import archive
from learning_geometry.files import read_json, read_provenance, write_json, write_table, write_text

CONFIG = {
    "experiments": {
        "second": {"optimizer": {"epsilon": 1e-9}},  # not in alphabetical order: figures keep the config's
        "first": {"optimizer": {"epsilon": 1.0e-9}},
    },
    "figures": {"timeline": {"experiments": ["second", "first"]}},
}
TABLES = ["first/runs.parquet", "first/summary.parquet", "second/runs.parquet", "second/summary.parquet"]
DRAWN = ["figures/timeline.png", "claims.md"]


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    for number, name in enumerate(TABLES):
        table = pd.DataFrame({"value": [float(number + step) for step in range(1000)]})
        write_table(table, folder / name, {"code": f"fingerprint {number}", "seed": number})
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
    monkeypatch.setattr(archive, "LAYOUT", 2)
    monkeypatch.setattr(archive, "__version__", "9.0")
    with pytest.raises(ValueError, match=r"has layout 1, packed by version 0\.\d.*version 9\.0, which reads layout 2"):
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
    with pytest.raises(ValueError, match="damaged at SHA256SUMS"):
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


def test_the_command_line_says_one_line(tmp_path, capsys):
    assert archive.main(["unpack", str(tmp_path / "absent.tar.gz"), str(tmp_path / "redrawn")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
