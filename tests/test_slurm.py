"""What is read of a cluster, and what is said of one that lacks something; workflow/test_slurm.py has a real one."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from learning_geometry import slurm
from learning_geometry.slurm import Partition, Site, SlurmError, Status, read_site, status

CONFIG = """Configuration data as of 2026-11-29T06:50:29
AccountingStorageEnforce = {enforced}
AccountingStorageType   = accounting_storage/{storage}
MinJobAge               = {age} sec
"""
MAIN = Partition("main", True, True, 1560.0, 8000, 2)
SITE = Site(accounting=False, needs_account=False, min_job_age=300, partitions=(MAIN,))


@pytest.fixture
def answers(monkeypatch):
    """Slurm's commands by name -> what they print."""
    said = {
        "scontrol": CONFIG.format(enforced="none", storage="none", age=300),
        "sinfo": "main*|up|1-02:00:00|8000+|2\n",
    }
    monkeypatch.setattr(slurm, "_output", lambda *command: said[command[0]])
    monkeypatch.setattr(slurm.shutil, "which", lambda command: f"/usr/bin/{command}")
    return said


@pytest.fixture
def profile(tmp_path):
    def written(**resources):
        path = tmp_path / "profile.yaml"
        path.write_text(yaml.safe_dump({"default-resources": {"mem_mb": "attempt * 2000"} | resources}))
        return path

    return written


def test_a_site_is_read(answers):
    assert read_site() == SITE
    answers["scontrol"] = CONFIG.format(enforced="associations,limits", storage="slurmdbd", age=2)
    answers["sinfo"] = "short|down|30:00|500|64\nlong|up|infinite|9000|8+\n"
    assert read_site() == Site(
        accounting=True,
        needs_account=True,
        min_job_age=2,
        partitions=(
            Partition("short", False, False, 30.0, 500, 64),
            Partition("long", False, True, float("inf"), 9000, 8),
        ),
    )


def test_a_machine_without_slurm_is_told(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SlurmError, match=r"^no sbatch, srun, squeue, .* on the PATH: run this on a login node"):
        read_site()


@pytest.mark.parametrize(
    ("accounting", "age", "expected"),
    [
        (True, 2, Status("sacct", 40)),
        (False, 300, Status("squeue", 40)),
        (False, 60, Status("squeue", 20)),
        (False, 6, Status("squeue", 2)),
    ],
)
def test_who_is_asked_what_became_of_jobs(accounting, age, expected):
    assert status(SITE._replace(accounting=accounting, min_job_age=age)) == expected


def test_nobody_to_ask_is_refused():
    with pytest.raises(SlurmError, match=r"forgets jobs 5 s after they end \(MinJobAge\)"):
        status(SITE._replace(min_job_age=5))


@pytest.mark.parametrize(
    ("account", "accounts", "well", "words"),
    [
        ("", "physics", True, "account: physics"),
        ("physics", "maths\nphysics", True, "account: physics"),
        (
            "",
            "maths\nphysics",
            False,
            "['maths', 'physics']; add slurm_account: NAME below default-resources",
        ),
        ("art", "physics", False, "account: 'art', and jobs of"),
        ("", "", False, "may be of none"),
    ],
)
def test_an_account_is_asked_for_where_one_is_needed(answers, account, accounts, well, words):
    answers["sacctmgr"] = accounts
    resources = {"slurm_account": account} if account else {}
    ((there, said),) = slurm._account(SITE._replace(needs_account=True), resources, Path("profile.yaml"))
    assert there is well and words in said
    assert next(slurm._account(SITE, {}, Path("profile.yaml")))[0] is True


def test_a_partition_is_asked_for_where_none_is_the_default(profile):
    path = profile()
    ((there, said),) = slurm._place(SITE._replace(partitions=(MAIN._replace(default=False),)), {}, path)
    assert not there and "no partition is the default; set slurm_partition" in said and said.endswith("to one of main")
    ((there, said),) = slurm._place(SITE._replace(partitions=(MAIN._replace(up=False),)), {}, path)
    assert not there and said.endswith("jobs of at most 1560 minutes; it is down")


def test_what_a_command_refuses_is_an_answer_among_the_others(answers, profile, tmp_path, monkeypatch):
    answers["scontrol"] = CONFIG.format(enforced="associations", storage="none", age=2)
    told = slurm._output

    def refuse(*command):
        if command[0] in ("sbatch", "sacctmgr"):
            raise SlurmError(f"{command[0]}: error: not today")
        return told(*command)

    monkeypatch.setattr(slurm, "_output", refuse)
    found = list(slurm.found(profile(), tmp_path / "results"))
    assert [well for well, _ in found] == [True, False, False, True, False]
    assert [said for well, said in found if not well][1:] == [
        "sacctmgr: error: not today",
        "sbatch: error: not today",
    ]
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("state", "log", "words"),
    [
        ("FAILED NonZeroExitCode", "python: not found", "FAILED NonZeroExitCode"),
        ("CANCELLED None", "", "is that folder, and"),
        ("PENDING Resources", "", "a job has waited for 0.5 s (PENDING Resources)"),
    ],
)
def test_a_job_that_writes_nothing_says_why(answers, tmp_path, monkeypatch, state, log, words):
    monkeypatch.setattr(slurm, "PATIENCE", 0.5)
    answers["squeue"] = state
    path = tmp_path / "slurm-check"
    if log:
        (tmp_path / "slurm-check.log").write_text(log)
    well, said = slurm._outcome("7", path)
    assert not well and words in said and said.endswith(log)


def test_a_job_that_writes_is_seen(tmp_path):
    (tmp_path / "slurm-check").write_text("3.11.7")
    assert slurm._outcome("7", tmp_path / "slurm-check") == (
        True,
        "a node writes where this machine reads, with Python 3.11.7",
    )


def test_another_folder_is_told(tmp_path):
    assert list(slurm.found(tmp_path / "profile.yaml", tmp_path)) == [
        (False, f"{tmp_path / 'profile.yaml'}: no such file; run this in the folder of the workflow")
    ]


def test_srun_on_a_node_finds_the_configuration(tmp_path, monkeypatch):
    commands, path = tmp_path / "commands", os.environ["PATH"]
    commands.mkdir()
    (commands / "srun").write_text('#!/bin/sh\necho "$SLURM_CONF" "$@"\n')
    (commands / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{path}")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    slurm.keep_configuration()
    assert os.environ["PATH"] == f"{commands}:{path}"
    monkeypatch.setenv("SLURM_CONF", "/a place/slurm.conf")
    slurm.keep_configuration()
    monkeypatch.delenv("SLURM_CONF")  # as the plugin does
    assert subprocess.check_output(["srun", "-n1", "a b"], text=True) == "/a place/slurm.conf -n1 a b\n"
