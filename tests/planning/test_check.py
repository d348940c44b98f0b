"""`make check` names what is damaged or out of date, and removes nothing else."""

import os
import runpy
import sys
from pathlib import Path

import pytest

from learning_geometry import check as command
from learning_geometry.check import main
from learning_geometry.files import read_provenance, read_table, write_table
from learning_geometry.planning.check import disk_usage, removable, report, verified

CHECKPOINTS = Path("results/small/seed-0/checkpoints")
TABLE = Path("results/small/seed-0/attention_logits.parquet")
PNG = Path("results/figures/embedding_singular_values.png")
SUMMARY = Path("results/small/summary.parquet")


def files():
    return {path: path.read_bytes() for path in Path(".").rglob("*") if path.is_file() and path.name != ".known.json"}


def flip_a_bit(path, place=-40):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def check(project, *arguments):
    project.plan()
    return main(["--configfile", "small.yaml", *arguments])


def test_a_finished_project_is_sound(project, capsys):
    before = files().keys()
    assert check(project) == 0
    output = capsys.readouterr().out
    assert "0 are not, 0 are missing" in output and "captures of texts" in output
    assert files().keys() - {Path("small.yaml")} == before - {Path("small.yaml")}


@pytest.mark.parametrize(
    ("path", "removed"),
    [
        (CHECKPOINTS / "step-000020.safetensors", {CHECKPOINTS}),
        (TABLE, {TABLE}),
        (PNG, {PNG.with_suffix(".pdf"), PNG, Path("results/.made/figures/embedding_singular_values.pdf.json")}),
        (Path("results/read/texts/letters/step-000000.safetensors"), {Path("results/read/texts/letters")}),
        (
            Path("results/read/measurements/dictionary_sweep/standard/sae_weights.safetensors"),
            {Path(f"results/read/measurements/dictionary_sweep{suffix}") for suffix in ("", ".parquet")},
        ),
    ],
)
def test_a_flipped_bit_is_named_and_only_what_it_spoils_removed(project, capsys, path, removed):
    flip_a_bit(path)
    before = files()
    assert check(project) == 1
    output = capsys.readouterr().out
    assert path.stem in output and " 1 are not" in output
    plan = project.plan()
    assert set(removable(plan, verified(plan))) == removed
    assert check(project, "--remove") == 0
    gone = before.keys() - files().keys()
    assert gone == {each for each in before if any(each == top or top in each.parents for top in removed)}


def test_other_settings_are_named_and_nothing_that_is_no_artifact_is_removed(project, capsys):
    Path("results/notes.txt").write_text("mine")
    Path("results/small/seed-0/mine").mkdir()
    (Path("results/small/seed-0/mine") / "a.parquet").write_text("mine")
    project.config["experiments"]["small"]["measurements"]["attention_logits"] = {"every": 20}
    assert check(project) == 1
    assert f"{TABLE}: changed: setting measurement" in capsys.readouterr().out
    assert check(project, "--remove") == 0
    assert not TABLE.exists() and not SUMMARY.exists() and CHECKPOINTS.exists()
    assert Path("results/notes.txt").exists() and Path("results/small/seed-0/mine/a.parquet").exists()
    assert Path("model/model.safetensors").exists() and Path("letters.txt").exists()
    assert check(project) == 0


def test_what_takes_the_disk_is_listed_by_size(project):
    Path("results/small/seed-0/training").mkdir()
    Path("results/small/seed-0/training/state.safetensors").write_bytes(b"0" * 10**6)
    found = disk_usage(project.plan())
    assert [usage.size for usage in found] == sorted((usage.size for usage in found), reverse=True)
    sizes = {usage.kind: usage.size for usage in found}
    assert sizes["work in progress"] == 10**6
    one = (CHECKPOINTS / "step-000040.safetensors").stat().st_size
    assert sizes["early checkpoints"] == 4 * one and sizes["last checkpoints"] == 2 * one
    every = sum(path.stat().st_size for path in Path("results").rglob("*") if path.is_file())
    assert sum(sizes.values()) == every
    lines, sound = report(project.plan())
    assert sound and any("work in progress" in line and "may go" in line for line in lines)


def test_a_config_that_is_wrong_is_an_error(project, capsys):
    Path("small.yaml").write_text("experiments: 3")
    assert main(["--configfile", "small.yaml"]) == 2
    assert "experiments" in capsys.readouterr().err


def test_the_command_ends_with_its_status(project, capsys, monkeypatch):
    TABLE.write_bytes(b"")
    for more, status in ((["--remove"], 0), (["--none"], 2)):
        monkeypatch.setattr(sys, "argv", ["check", "--configfile", "small.yaml", *more])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(Path(command.__file__)), run_name="__main__")
        assert ended.value.code == status
    assert f"{TABLE}" in capsys.readouterr().out and not TABLE.exists()


def test_a_measurement_that_could_not_be_made_is_named_and_removed_to_be_tried_again(project, capsys):
    failure = {"failure": {"error": "ValueError", "message": "a layer of zeros", "experiment": "small", "seed": 0}}
    write_table(read_table(TABLE), TABLE, read_provenance(TABLE) | failure)
    assert project.again() == {}
    assert check(project) == 1
    assert f"{TABLE}: could not be made: ValueError: a layer of zeros" in capsys.readouterr().out
    assert check(project, "--remove") == 0
    assert not TABLE.exists() and project.again()["measure"] == 1
