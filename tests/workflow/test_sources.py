"""Checkpoints of another program through the whole DAG: what runs, what runs again, and what is never touched."""

import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import psutil
import pytest
import safetensors.numpy
import yaml

from learning_geometry.files import read_provenance, read_table

from .conftest import REPOSITORY, environment, tiny_config

DOCUMENT = (REPOSITORY / "docs/checkpoints.md").read_text()


def write_series(folder, steps=8, size=8):
    for seed in (0, 1):
        generator = np.random.default_rng(seed)
        tensors = {
            "tok.weight": generator.normal(size=(12, size)),
            "h.0.qkv.weight": generator.normal(size=(size, size)),
        }
        (folder / f"run-{seed}").mkdir(parents=True)
        for step in range(0, 10 * steps, 10):
            arrays = {name: array.astype(np.float32) for name, array in tensors.items()}
            safetensors.numpy.save_file(arrays, folder / f"run-{seed}/ckpt_{step}.safetensors")
            tensors = {name: array + 0.1 * generator.normal(size=array.shape) for name, array in tensors.items()}


def config(folder="theirs"):
    mine = {
        "seeds": [0, 1],
        "source": {"files": f"{folder}/run-{{seed}}/ckpt_{{step}}.safetensors"},
        "measurements": {"series_audit": {}, "matrix_spectra": {"every": 10, "null_draws": 40}},
    }
    return {"experiments": {"mine": mine}, "figures": {"series_audit": {"experiments": ["mine"]}}}


def snapshot(folder):
    return {
        path: (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns, path.stat().st_ctime_ns)
        for path in sorted(folder.rglob("*"))
    }


def test_foreign_checkpoints_are_measured_where_they_lie_and_again_only_what_changed(workflow_copy):
    write_series(workflow_copy.folder / "theirs")
    before = snapshot(workflow_copy.folder / "theirs")
    workflow_copy.write_config(config())
    workflow_copy.snakemake("--cores", "2")
    assert snapshot(workflow_copy.folder / "theirs") == before
    runs = read_table(workflow_copy.folder / "results/mine/runs.parquet")
    assert set(runs.loc[runs["quantity"] == "matrix_stable_rank", "part"]) == {"tok", "h.0.qkv", "matrices"}
    assert (workflow_copy.folder / "results/figures/series_audit.png").is_file()
    assert workflow_copy.planned() == {}
    # where files lie is no part of what a result is made from
    (workflow_copy.folder / "theirs").rename(workflow_copy.folder / "moved")
    workflow_copy.write_config(config("moved"))
    assert workflow_copy.planned() == {}
    changed = workflow_copy.folder / "moved/run-1/ckpt_30.safetensors"
    arrays = safetensors.numpy.load_file(changed)
    arrays["tok.weight"][0, 0] = np.nan
    safetensors.numpy.save_file(arrays, changed)
    planned = workflow_copy.planned()
    assert planned == {"import_checkpoints": 1, "measure": 2, "summarize": 1, "figure_series_audit": 1}
    output = workflow_copy.snakemake("--cores", "2", check=False).stdout
    assert "matrix_spectra of mine, seed 1" in output and "tok.weight at step 30" in output
    runs = read_table(workflow_copy.folder / "results/mine/runs.parquet")
    found = runs[runs["quantity"] == "audit_not_finite"]
    assert found[["seed", "step", "part", "value"]].values.tolist() == [[1, 30, "tok", 1.0]]


def test_foreign_files_at_the_place_of_an_artifact_are_named_and_stay(workflow_copy):
    experiment = tiny_config()["experiments"]["tiny"]
    experiment["measurements"] = {"landscape": experiment["measurements"]["landscape"]}
    workflow_copy.write_config({"experiments": {"tiny": experiment}})
    for place, arguments in (("training", "-n"), ("landscape", "-n"), ("checkpoints", "--forceall")):
        theirs = workflow_copy.folder / f"results/tiny/seed-0/{place}/ckpt_10.pt"
        theirs.parent.mkdir(parents=True)
        theirs.write_bytes(b"hours of training")
        done = workflow_copy.snakemake("--cores", "2", arguments, check=False)
        assert done.returncode != 0
        assert "ckpt_10.pt was not written by this workflow" in done.stdout
        assert theirs.read_bytes() == b"hours of training"
        theirs.unlink()


def test_an_unchecked_map_is_said_by_every_table(workflow_copy):
    write_series(workflow_copy.folder / "theirs")
    (workflow_copy.folder / "own.yaml").write_text(
        "embedding.weight: tok.weight\nlayers.{l}.attention.query.weight: h.{l}.qkv.weight\n"
    )
    chosen = config()
    chosen["experiments"]["mine"] |= {"model": {"width": 8, "layers": 1}}
    chosen["experiments"]["mine"]["source"] |= {"names": "own.yaml", "unchecked": True}
    workflow_copy.write_config(chosen)
    workflow_copy.snakemake("--cores", "2")
    root = workflow_copy.folder / "results"
    for seed in (0, 1):
        for name in ("series_audit", "matrix_spectra"):
            assert read_provenance(root / f"mine/seed-{seed}/{name}.parquet")["unchecked"]
    summary = pd.read_csv(root / "mine/summary.csv")
    assert summary.loc[summary["quantity"] == "map_unchecked", "estimate"].tolist() == [1.0]
    assert (root / "figures/series_audit.png").is_file()
    # a map is told by what it says
    (workflow_copy.folder / "own.yaml").rename(workflow_copy.folder / "moved.yaml")
    chosen["experiments"]["mine"]["source"] |= {"names": "moved.yaml"}
    workflow_copy.write_config(chosen)
    assert workflow_copy.planned() == {}
    with (workflow_copy.folder / "moved.yaml").open("a") as file:
        file.write("ignore: [nothing.*]\n")
    assert workflow_copy.planned()["import_checkpoints"] == 2


@pytest.mark.slow
def test_a_kill_while_checkpoints_are_imported_loses_none_that_were_whole(workflow_copy):
    write_series(workflow_copy.folder / "theirs", steps=150, size=256)
    before = snapshot(workflow_copy.folder / "theirs")
    chosen = config()
    chosen["experiments"]["mine"]["measurements"] = {"series_audit": {}}
    workflow_copy.write_config(chosen | {"figures": {}})
    process = subprocess.Popen(
        workflow_copy.command("--cores", "1", "--nolock"),
        cwd=workflow_copy.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    working = workflow_copy.folder / "results/mine/seed-0/importing/checkpoints"
    while len(list(working.glob("step-*.safetensors"))) < 20:
        assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for child in psutil.process_iter(["cmdline"]):
        assert str(workflow_copy.folder) not in " ".join(child.info["cmdline"] or [])
    whole = {path.name: path.stat().st_mtime_ns for path in working.glob("step-*.safetensors")}
    assert 20 <= len(whole) < 150
    workflow_copy.snakemake("--cores", "2", "--nolock")
    imported = workflow_copy.folder / "results/mine/seed-0/imported"
    kept = [name for name, time in whole.items() if (imported / name).stat().st_mtime_ns == time]
    assert len(kept) >= len(whole) - 1
    assert snapshot(workflow_copy.folder / "theirs") == before
    first = read_table(workflow_copy.folder / "results/mine/runs.parquet")
    shutil.rmtree(workflow_copy.folder / "results")
    workflow_copy.snakemake("--cores", "2", "--nolock")
    assert read_table(workflow_copy.folder / "results/mine/runs.parquet").equals(first)


@pytest.mark.slow
def test_the_run_of_nanogpt_goes_from_start_to_figure_as_documented(tmp_path):
    (commands,) = re.findall(r"^```bash\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    clone = environment() | {"CLONE": str(REPOSITORY), "PATH": path}
    done = subprocess.run(["bash", "-ec", commands], cwd=tmp_path, env=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    chosen = yaml.safe_load((REPOSITORY / "docs/checkpoints/nanogpt.yaml").read_text())
    for figure in chosen["figures"]:
        assert (tmp_path / f"results/figures/{figure}.png").stat().st_size > 10_000
    runs = read_table(tmp_path / "results/nanogpt/runs.parquet")
    loss = runs[(runs["quantity"] == "running_loss") & (runs["seed"] == 0)].set_index("step")["value"]
    assert loss[100] < 0.6 * loss[0]
    assert abs(loss[0] - np.log(96)) < 0.1
    for snippet in re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL):
        shutil.copy(REPOSITORY / "docs/checkpoints/nanogpt.yaml", tmp_path)
        code = clone | {"PYTHONPATH": str(REPOSITORY / "src")}
        ran = subprocess.run(
            [sys.executable, "-c", snippet + "\nprint(len(table))"],
            cwd=tmp_path,
            env=code,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0 and int(ran.stdout) > 100, ran.stderr
