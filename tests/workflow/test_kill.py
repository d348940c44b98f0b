"""SIGKILL at any moment loses at most what was done since the last saved state, and changes no bit."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest

from .conftest import environment, tiny_config

TARGETS = [f"results/tiny/seed-{seed}/training_metrics.parquet" for seed in (0, 1)]


def kill_config():
    config = tiny_config() | {"seconds_between_saves": 0.0}
    config["experiments"]["tiny"]["training"]["steps"] = 400
    return config


def start(copy):
    # a process group of its own, so that the kill takes Snakemake and its jobs at once
    return subprocess.Popen(
        copy.command("--cores", "2", "--nolock", *TARGETS),
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
    from .conftest import copy_workflow

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


@pytest.mark.slow
def test_random_kills_change_no_bit(uninterrupted, another):
    generator = np.random.default_rng(0)
    started = time.monotonic()
    copy = another()
    copy.snakemake("--cores", "2", *TARGETS)
    duration = time.monotonic() - started
    for _ in range(12):
        moment = generator.uniform(0.2, 1.0) * duration
        killed, _ = kill_and_finish(another(), lambda process, moment=moment: time.sleep(moment))
        assert killed == uninterrupted
