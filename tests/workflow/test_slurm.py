"""Runs on a real Slurm cluster of this machine: out of the box, and when something goes wrong.

A site without accounting is what the cluster is. What is seen of each fault must be what docs/cluster.md says.
"""

import subprocess
from pathlib import Path

import pytest
import yaml

from learning_geometry import slurm
from tests.slurm_demo import different, start
from tests.workflow.conftest import REPOSITORY

from .slurm_runs import QUICK, SAME, at_work, ended, prepared, running, told, until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("scenario", "fault", "outcome"),
    [
        ("cancelled", "a job is cancelled", f"it is sent again; {SAME}"),
        ("over_memory", "a job needs more memory than it has", f"it is sent again with more; {SAME}"),
        ("over_time", "a job needs more time than it has", f"it is sent again with more; {SAME}"),
        ("killed", "Snakemake is killed (SIGKILL)", f"after `scancel`, `--unlock` and the same command: {SAME}"),
    ],
)
def test_a_fault_costs_time_alone(here, seen, scenario, fault, outcome):
    found = seen[scenario]()
    assert found.status == 0, found.said
    assert different(here, found.copy) == []
    told(fault, found.state, outcome)


def test_out_of_the_box(here, seen, up):
    found = seen["out_of_the_box"]()
    assert found.status == 0, found.said
    assert different(here, found.copy) == []
    assert [job["state"] for job in found.jobs] == ["COMPLETED"] * len(found.jobs)
    assert len(found.jobs) <= 3, found.said
    assert "SLURM account" not in found.said and "sacct" not in found.said
    again = ended(start(found.copy, up, *QUICK), found.copy, up)
    assert "Nothing to be done" in again.said
    # Slurm may have forgotten some by now
    assert {job["number"] for job in again.jobs} <= {job["number"] for job in found.jobs}


def test_an_interrupt_cancels_what_was_sent(seen):
    found = seen["interrupted"]()
    assert found.status != 0
    told("Ctrl-C", found.state, "Snakemake cancels its jobs and ends; the same command goes on")


def test_what_fails_each_time_ends_the_run_and_names_its_log(seen):
    found = seen["failing"]()
    assert found.status == 1
    assert [job["state"] for job in found.jobs] == ["FAILED"] * 3
    logs = list((found.copy.folder / ".snakemake/slurm_logs").rglob("*.log"))
    assert any("planted" in log.read_text() for log in logs)
    assert any(str(log) in found.said for log in logs)
    told(
        "a job fails each time",
        found.state,
        "it is sent three times, then the run ends with status 1 and names its log",
    )


def test_two_runs_at_once_from_one_folder(here, seen):
    found = seen["two_configs"]()
    assert found.status == 0, found.said
    ours, both = here.tables(), found.copy.tables()
    assert {path: table for path, table in both.items() if not path.startswith("second/")} == ours
    assert {path.removeprefix("second/") for path in both if path.startswith("second/")} == ours.keys()


def test_a_node_that_dies_is_left(here, seen, up, tmp_path):
    copy = prepared(tmp_path)
    process = start(copy, up, *QUICK)
    number = running(copy, up)
    until(lambda: at_work(copy))
    (node,) = [job["node"] for job in up.jobs(copy.folder) if job["number"] == number]
    try:
        up.kill_node(node)
        subprocess.run(["pkill", "-KILL", "-f", f"{copy.folder}/"], check=False)
        found = ended(process, copy, up, number)
    finally:
        up.start_node(node)
    assert found.status == 0, found.said
    assert different(here, copy) == []
    told("a node dies", found.state, f"its jobs are sent to another; {SAME}")


def test_what_is_missing_is_said_before_a_run(here, up, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in up.environment.items():
        monkeypatch.setenv(name, value)
    profile = yaml.safe_load((REPOSITORY / "profiles/slurm/config.yaml").read_text())
    Path("profile.yaml").write_text(yaml.safe_dump(profile))
    answers = list(slurm.found(Path("profile.yaml"), Path("results")))
    assert all(well for well, _ in answers), answers
    assert not Path("results").exists()
    profile["default-resources"]["slurm_partition"] = "nowhere"
    Path("profile.yaml").write_text(yaml.safe_dump(profile))
    said = [words for well, words in slurm.found(Path("profile.yaml"), Path("results")) if not well]
    assert said[0] == (
        "no partition 'nowhere'; set slurm_partition below default-resources of profile.yaml, to one of main"
    )
    assert said[1].startswith("sbatch: ")
