"""Runs on the Slurm cluster of the slow tests, and what is seen of them."""

import subprocess
import time
from typing import NamedTuple

from tests.workflow.conftest import OPERATIONS_FIGURES, REPOSITORY, Copy, copy_workflow, tiny_config

QUICK = ("--slurm-init-seconds-before-status-checks", "2")
"""So that a test need not wait for the first look at its jobs."""
DOCS = (REPOSITORY / "docs/cluster.md").read_text()
RUN = "results/tiny_grokking/seed-0"
SAME = "every table is the same bytes as without the fault"


def small_config():
    """One run of seconds, what is measured of it, two figures and the ledger."""
    config = tiny_config()
    config["experiments"] = {"tiny_grokking": config["experiments"]["tiny_grokking"]}
    del config["language_models"]
    config["figures"] = {name: {"experiments": ["tiny_grokking"]} for name in OPERATIONS_FIGURES}
    return config


def prepared(folder, **changes):
    copy = copy_workflow(folder)
    copy.write_config(small_config() | changes)
    return copy


class Ended(NamedTuple):
    """A run on the cluster that has ended."""

    copy: Copy
    status: int
    said: str
    jobs: list[dict[str, str]]
    """All that it sent."""
    number: str = ""
    """Of the job that something happened to."""
    asked: tuple[str, ...] = ()
    """What Slurm tells of each of the jobs."""

    @property
    def state(self):
        """What Slurm says of that job."""
        return next(job["state"] for job in self.jobs if job["number"] == self.number)


def edit(copy, path):
    """Add a statement that changes no number."""
    with (copy.folder / path).open("a") as file:
        file.write("\n_EDITED = True\n")


def until(condition, seconds=180.0):
    """Wait for a condition, and return what it gives."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited for {seconds:g} s")


def running(copy, up):
    """Wait for the first job of a copy that runs, and return its number."""
    jobs = until(lambda: [job for job in up.jobs(copy.folder) if job["state"] == "RUNNING"])
    return jobs[0]["number"]


def at_work(copy):
    """The processes of jobs of a copy: they name its folder, the leading process does not."""
    found = subprocess.run(["pgrep", "-f", f"{copy.folder}/.*--mode remote"], capture_output=True, text=True).stdout
    return [int(each) for each in found.split()]


def ended(process, copy, up, number=""):
    """Wait for a run to end."""
    said, _ = process.communicate(timeout=500)
    return Ended(copy, process.returncode, said, up.jobs(copy.folder), number)


def told(fault, state, outcome):
    """Whether the docs have this row."""
    row = f"| {fault} | {state} | {outcome} |"
    assert row in DOCS.splitlines(), f"docs/cluster.md has no row\n{row}"
