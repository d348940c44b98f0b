"""A job compares what it depends on with the plan, before it begins and before it writes."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from learning_geometry.files import write_tensors
from learning_geometry.fingerprint import code_fingerprint
from learning_geometry.known import file_digest
from learning_geometry.progress import Log
from learning_geometry.running import Changed, Running, job, made_with, mixed


@pytest.fixture
def planned(tmp_path):
    """The derivation of a job with one script, a text from outside and one input, and the Snakemake object for it."""
    script = tmp_path / "train.py"
    script.write_text("print(1)\n")
    (tmp_path / "text").write_text("abc")
    write_tensors(tmp_path / "input.safetensors", {}, {"key": "0123"})
    derivation = {
        "key": "4567",
        "made_from": {"code": code_fingerprint(script), "outside": {"text/0": file_digest(tmp_path / "text")}},
        "roots": [str(script)],
        "outside": {"text/0": str(tmp_path / "text")},
        "inputs": {str(tmp_path / "input.safetensors"): "0123"},
        "outputs": [str(tmp_path / "results/page.html")],
        "results": str(tmp_path / "results"),
        "works_in": str(tmp_path / "working"),
    }
    (tmp_path / "working").mkdir()
    return SimpleNamespace(params=SimpleNamespace(derivation=derivation), log=[str(tmp_path / "log")]), script


def edit_and_put_back(path):
    before = path.read_text(), path.stat()
    path.write_text(before[0].replace("1", "2").replace("a", "z"))
    time.sleep(0.02)
    path.write_text(before[0])
    os.utime(path, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))


def run(snakemake, within=lambda: None):
    with job(snakemake) as running:
        within()
        running.provenance(seed=1)
        Path(snakemake.params.derivation["outputs"][0]).parent.mkdir()
        Path(snakemake.params.derivation["outputs"][0]).write_text("page")


def log(snakemake):
    return Path(snakemake.log[0]).read_text()


def test_a_job_leaves_a_record_of_files_that_hold_none(planned, tmp_path):
    run(planned[0])
    record = (tmp_path / "results/.made/page.html.json").read_text()
    assert '"key": "4567"' in record and file_digest(tmp_path / "results/page.html") in record


@pytest.mark.parametrize("change", [edit_and_put_back, Path.unlink])
@pytest.mark.parametrize("name", ["train.py", "text"])
def test_what_was_removed_or_edited_and_put_back_while_the_job_ran_is_noticed(planned, tmp_path, name, change):
    snakemake, _ = planned
    with pytest.raises(SystemExit):
        run(snakemake, lambda: change(tmp_path / name))
    words = "the code changed while this job ran" if name == "train.py" else "changed while this job ran"
    assert f"{words}" in log(snakemake) and str(tmp_path / name) in log(snakemake)
    assert not (tmp_path / "results").exists() and not (tmp_path / "working").exists()


def test_what_changed_after_the_plan_is_noticed_before_the_work(planned, tmp_path):
    snakemake, script = planned
    never = pytest.fail
    script.write_text("print(2)\n")
    with pytest.raises(SystemExit):
        run(snakemake, never)
    assert f"the code changed while this job ran ({script})" in log(snakemake)
    script.write_text("print(1)\n")
    (tmp_path / "text").write_text("xyz")
    with pytest.raises(SystemExit):
        run(snakemake, never)
    assert "text changed after this run was planned" in log(snakemake)
    (tmp_path / "text").write_text("abc")
    write_tensors(tmp_path / "input.safetensors", {}, {"key": "another"})
    with pytest.raises(SystemExit):
        run(snakemake, never)
    assert "input.safetensors was made by other settings or other code" in log(snakemake)


def test_code_that_was_imported_before_it_was_put_back_is_noticed(planned):
    snakemake, script = planned
    started = script.stat().st_ctime_ns
    terminal = Log(script, print)
    Running(snakemake.params.derivation, terminal, started)
    time.sleep(0.02)
    edit_and_put_back(script)
    with pytest.raises(Changed, match=r"train\.py"):
        Running(snakemake.params.derivation, terminal, started)


def test_other_errors_keep_the_work_done_so_far(planned, tmp_path):
    with pytest.raises(SystemExit):
        run(planned[0], lambda: 1 / 0)
    assert (tmp_path / "working").exists()


def test_libraries_and_processor_are_recorded():
    found = made_with()
    assert {"python", "numpy", "processor", "openblas"} <= found.keys() and all(found.values())
    assert mixed([{"made_with": found}, {"made_with": found}, {}]) == {}
    assert mixed([{"made_with": found}, {"made_with": found | {"openblas": "other"}}]) == {
        "openblas": sorted([found["openblas"], "other"])
    }


def test_a_library_without_a_version_and_a_processor_without_a_name_stop_no_job(monkeypatch):
    def without_numpy(name):
        if name == "numpy":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("learning_geometry.running.version", without_numpy)
    monkeypatch.setattr(Path, "read_text", Mock(side_effect=FileNotFoundError(2, "No such file or directory")))
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    found = made_with()
    assert "numpy" not in found and (found["pandas"], found["processor"]) == ("1.0", "riscv64")
