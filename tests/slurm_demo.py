"""``make slurm-demo``: a small config on a Slurm cluster of its own, compared with the same on this machine."""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.slurm_cluster import Cluster, cluster
from tests.workflow.conftest import LANGUAGE_FIGURES, Copy, copy_workflow, environment, tiny_config

PROFILE = ("--workflow-profile", "profiles/slurm")


def demo_config() -> dict[str, Any]:
    """Return the config of the tests of whole runs without its language model, which would take longest."""
    config: dict[str, Any] = tiny_config()
    del config["language_models"]
    config["figures"] = {name: each for name, each in config["figures"].items() if name not in LANGUAGE_FIGURES}
    return config


def prepared(folder: Path) -> Copy:
    """Return a copy of the workflow with the config."""
    folder.mkdir()
    copy = copy_workflow(folder)
    copy.write_config(demo_config())
    return copy


def start(copy: Copy, up: Cluster, *arguments: str, config: str = "tiny.yaml") -> subprocess.Popen[str]:
    """Start Snakemake as a user of the cluster does; its output is one stream."""
    return subprocess.Popen(
        # what runs in the background ignores interrupts, and hands that on
        ["env", "--default-signal=INT", *copy.command(*PROFILE, *arguments, config=config)],
        cwd=copy.folder,
        env=environment() | up.environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def different(first: Copy, second: Copy) -> list[str]:
    """Return which tables of two runs are not the same bytes, or only of one."""
    ours, theirs = first.tables(), second.tables()
    return sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))


def main() -> int:
    """Run the demonstration and print what was seen; return 1 if something differs."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = prepared(Path(folder) / "here"), prepared(Path(folder) / "there")
        began = time.monotonic()
        here.snakemake("--cores", "2")
        local = time.monotonic() - began
        print(f"on this machine: {local:.0f} s")
        began = time.monotonic()
        with cluster() as up:
            print(f"a cluster of two nodes came up in {time.monotonic() - began:.0f} s; running on it", flush=True)
            began = time.monotonic()
            process = start(there, up)
            said, _ = process.communicate()
            took, jobs = time.monotonic() - began, up.jobs()
        if process.returncode:
            print(said, file=sys.stderr)
            return 1
        changed = different(here, there)
        print(f"on the cluster: {took:.0f} s, {len(jobs)} submissions, {len(here.tables())} tables")
        print(f"not the same bytes: {', '.join(changed)}" if changed else "every table is the same bytes")
        return int(bool(changed))


if __name__ == "__main__":
    # so that the cluster is taken down
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
