"""SIGKILL at any moment loses at most what was done since the last saved state, and changes no bit."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest

from learning_geometry.files import verify

from .conftest import copy_workflow, environment, tiny_config

TARGETS = [f"results/tiny/seed-{seed}/training_metrics.parquet" for seed in (0, 1)]


def kill_config():
    config = tiny_config() | {"seconds_between_saves": 0.0}
    config["experiments"]["tiny"]["training"]["steps"] = 400
    return config


def start(copy, targets=TARGETS):
    # a process group of its own, so that the kill takes Snakemake and its jobs at once
    return subprocess.Popen(
        copy.command("--cores", "2", "--nolock", *targets),
        cwd=copy.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )


def kill_and_finish(copy, wait_for_kill):
    """Kill a run when ``wait_for_kill`` returns, run again to the end, return checkpoints and tables."""
    process = start(copy)
    try:
        wait_for_kill(process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    output = copy.snakemake("--cores", "2", "--nolock", *TARGETS).stdout
    return contents(copy), output


def contents(copy):
    root = copy.folder / "results/tiny"
    files = [*root.glob("seed-*/checkpoints/*.safetensors"), *root.glob("seed-*/*.parquet")]
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(files)}


@pytest.fixture
def uninterrupted(workflow_copy, tmp_path_factory):
    workflow_copy.write_config(kill_config())
    workflow_copy.snakemake("--cores", "2", *TARGETS)
    return contents(workflow_copy)


@pytest.fixture
def another(tmp_path_factory):
    def make():
        copy = copy_workflow(tmp_path_factory.mktemp("killed"))
        copy.write_config(kill_config())
        return copy

    return make


def test_a_killed_run_continues_and_ends_with_the_same_bits(uninterrupted, another):
    copy = another()
    state = copy.folder / "results/tiny/seed-0/training/state.safetensors"

    def until_saved(process):
        while not state.exists():
            assert process.poll() is None
            time.sleep(0.01)

    killed, output = kill_and_finish(copy, until_saved)
    assert "resumed at step" in output
    assert killed == uninterrupted


MANY_TARGETS = [
    *(f"results/tiny/seed-{seed}/copying_errors.parquet" for seed in (0, 1)),
    "results/tiny_language/measurements/dictionary_sweep.parquet",
    "results/tiny_language/prompts/trained",
]
KILLS = 30


def many_config():
    """Trainings that are measured, captures of a text and of prompts, and a sweep of dictionaries."""
    config = kill_config()
    config["experiments"]["tiny"]["measurements"] = {"copying_errors": {"every": 20}}
    language = config["language_models"]["tiny_language"]
    language["measurements"] = {"dictionary_sweep": language["measurements"]["dictionary_sweep"]}
    return config | {"figures": {}}


def artifacts(folder):
    """Every finished artifact below a folder of results: tables, tensor files, and folders that are made whole."""
    results = folder / "results"
    folders = [
        path
        for pattern in ("*/seed-*/checkpoints", "*/texts/*", "*/prompts/*", "*/measurements/*")
        for path in results.glob(pattern)
        if path.is_dir() and not path.name.startswith(".")
    ]
    return folders + [
        path
        for pattern in ("*/seed-*/*.parquet", "*/seed-*/*.safetensors", "*/measurements/*.parquet")
        for path in results.glob(pattern)
        if not path.name.startswith(".")
    ]


def bits(folder):
    """Every byte of every finished artifact, by path."""
    found = {}
    for path in artifacts(folder):
        for file in [path] if path.is_file() else path.rglob("*"):
            if file.is_file() and file.name != ".snakemake_timestamp":
                found[str(file.relative_to(folder))] = file.read_bytes()
    return found


def kill(process, whom, generator):
    """Kill Snakemake with its jobs, Snakemake alone, or one of its jobs; return whether anything was there to kill."""
    if process.poll() is not None:
        return False
    if whom == "both":
        os.killpg(process.pid, signal.SIGKILL)
    elif whom == "snakemake":
        process.kill()  # its jobs go on without it
    else:
        jobs = psutil.Process(process.pid).children(recursive=True)
        if not jobs:
            return False
        with suppress(psutil.NoSuchProcess):
            jobs[generator.integers(len(jobs))].kill()
    process.wait()
    return True


@pytest.mark.slow
def test_kills_of_jobs_and_of_snakemake_change_no_bit(workflow_copy, tmp_path_factory):
    """At every moment what has its final name is whole, and what is made in the end does not tell of the kills."""
    workflow_copy.write_config(many_config())
    began = time.monotonic()
    workflow_copy.snakemake("--cores", "2", *MANY_TARGETS)
    duration, expected = time.monotonic() - began, bits(workflow_copy.folder)
    assert sum("step-" in name for name in expected) == 2 * 23 and sum("manifest" in name for name in expected) == 5
    copy = copy_workflow(tmp_path_factory.mktemp("killed"))
    copy.write_config(many_config())
    generator, groups, kills = np.random.default_rng(0), [], dict.fromkeys(("both", "snakemake", "job"), 0)
    try:
        while sum(kills.values()) < KILLS:
            process = start(copy, MANY_TARGETS)
            groups.append(process)
            whom = str(generator.choice(list(kills)))
            try:
                process.wait(generator.uniform(0.1, 0.6) * duration)
            except subprocess.TimeoutExpired:
                kills[whom] += kill(process, whom, generator)
            for path in artifacts(copy.folder):
                verify(path)
            if process.poll() == 0:
                assert bits(copy.folder) == expected
                shutil.rmtree(copy.folder / "results")
    finally:
        for process in groups:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    print(kills)
    assert min(kills.values()) > 0
    copy.snakemake("--cores", "2", "--nolock", *MANY_TARGETS)
    assert bits(copy.folder) == expected
