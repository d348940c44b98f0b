"""Runs on a real Slurm cluster of this machine: out of the box, and when something goes wrong.

A site without accounting is what the cluster is. What is seen of each fault must be what docs/cluster.md says.
"""

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from learning_geometry import slurm
from tests.slurm_demo import PROFILE, different, start
from tests.workflow.conftest import REPOSITORY

from .slurm_runs import QUICK, SAME, at_work, ended, prepared, running, small_config, told, until

pytestmark = pytest.mark.slow


def out_of_the_box(copy, up):
    return ended(start(copy, up), copy, up)


def cancelled(copy, up):
    process = start(copy, up, *QUICK)
    number = running(copy, up)
    up.run("scancel", number)
    return ended(process, copy, up, number)


def over_memory(copy, up):
    asked = [f"{rule}:mem_mb=attempt*attempt*400" for rule in ("make_dataset", "train", "measure")]
    found = ended(start(copy, up, *QUICK, "--set-resources", *asked), copy, up)
    return found._replace(number=found.jobs[0]["number"])


def over_time(copy, up):
    process = start(copy, up, *QUICK)
    number = running(copy, up)
    for each in until(lambda: at_work(copy)):
        os.kill(each, signal.SIGSTOP)
    up.run("scontrol", "update", f"JobId={number}", "TimeLimit=1")
    return ended(process, copy, up, number)


def killed(copy, up):
    process = start(copy, up, *QUICK)
    number = running(copy, up)
    process.kill()
    process.communicate()
    (job,) = [each for each in up.jobs(copy.folder) if each["number"] == number]
    up.run("scancel", "--name", job["name"])
    copy.snakemake(*PROFILE, "--unlock")
    found = ended(start(copy, up, *QUICK), copy, up, number)
    return found._replace(jobs=[job, *found.jobs])


def interrupted(copy, up):
    process = start(copy, up, *QUICK)
    number = running(copy, up)
    process.send_signal(signal.SIGINT)
    found = ended(process, copy, up, number)
    until(lambda: not [job for job in up.jobs(copy.folder) if job["state"] in ("RUNNING", "COMPLETING")])
    return found._replace(jobs=up.jobs(copy.folder))


def failing(copy, up):
    copy.edit("workflow/scripts/train.py", "with job(snakemake)", "raise RuntimeError('planted')\nwith job(snakemake)")
    found = ended(start(copy, up, *QUICK), copy, up)
    return found._replace(number=found.jobs[0]["number"])


def two_configs(copy, up):
    (copy.folder / "second.yaml").write_text(yaml.safe_dump(small_config() | {"results": "results/second"}))
    first, second = start(copy, up, *QUICK), start(copy, up, *QUICK, config="second.yaml")
    said, _ = second.communicate(timeout=500)
    found = ended(first, copy, up)
    return found._replace(status=found.status or second.returncode, said=found.said + said)


SCENARIOS = (out_of_the_box, over_time, over_memory, killed, failing, cancelled, interrupted, two_configs)
"""What happens in a copy of its own; they mostly wait, and so run beside each other."""


@pytest.fixture(scope="module")
def seen(up, tmp_path_factory):
    """By the name of a scenario, what returns how it ended, or raises what it raised."""
    with ThreadPoolExecutor(3) as pool:
        runs = {each: pool.submit(each, prepared(tmp_path_factory.mktemp(each.__name__)), up) for each in SCENARIOS}
    return {each.__name__: run.result for each, run in runs.items()}


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
