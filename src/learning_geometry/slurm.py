"""What a Slurm cluster is like, as far as a run must know: ``python -m learning_geometry.slurm`` says what is missing.

Nothing here starts a run. Commands are those of Slurm 20.11 and later.
"""

import atexit
import getpass
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "sinfo", "scancel")
POLLS = 3
"""How often an ended job must be seen before squeue forgets it."""
LONGEST_POLL, SHORTEST_POLL = 40, 2
"""Seconds before jobs are looked at."""
PATIENCE = 10.0
"""Seconds that a check waits for its job."""
PROFILE = Path("profiles/slurm/config.yaml")


class SlurmError(RuntimeError):
    """The cluster cannot be used as it is; says what to do."""


class Partition(NamedTuple):
    """A partition of a cluster."""

    name: str
    default: bool
    up: bool
    minutes: float
    """The longest time of a job; infinite where there is no limit."""
    memory: int
    """MB of its smallest node."""
    cores: int
    """Of its smallest node."""


class Site(NamedTuple):
    """What a cluster says of itself."""

    accounting: bool
    """Whether a database keeps what became of jobs."""
    needs_account: bool
    """Whether jobs without an account that is registered are refused."""
    min_job_age: int
    """Seconds for which the controller still knows a job that has ended."""
    partitions: tuple[Partition, ...]


class Status(NamedTuple):
    """How Snakemake learns what became of jobs."""

    command: str
    seconds: int
    """Before it looks for the first time."""


def read_site() -> Site:
    """Ask the controller what the cluster is like.

    Raises:
        SlurmError: Slurm's commands are not there, or the controller does not answer.
    """
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if missing:
        raise SlurmError(f"no {', '.join(missing)} on the PATH: run this on a login node, or load Slurm's module")
    config = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", _output("scontrol", "show", "config"), re.MULTILINE))
    listed = _output("sinfo", "--noheader", "--format=%P|%a|%l|%m|%c")
    enforced = config.get("AccountingStorageEnforce", "none").split(",")
    return Site(
        accounting=config.get("AccountingStorageType", "").endswith("slurmdbd"),
        needs_account="associations" in enforced,
        min_job_age=int(next(iter(re.findall(r"\d+", config.get("MinJobAge", ""))), 0)),
        partitions=tuple(_partition(line) for line in listed.splitlines()),
    )


def status(site: Site) -> Status:
    """Return how to learn what became of jobs.

    The database is asked if there is one. Without, the controller is, often enough to see each job before it forgets
    it: snakemake-executor-plugin-slurm 2.8.0 would ask the database for ever, as its program is there.

    Raises:
        SlurmError: there is no database, and the controller forgets jobs too soon.
    """
    if site.accounting:
        return Status("sacct", LONGEST_POLL)
    seconds = min(LONGEST_POLL, site.min_job_age // POLLS)
    if seconds < SHORTEST_POLL:
        raise SlurmError(
            f"this cluster has no accounting and forgets jobs {site.min_job_age} s after they end (MinJobAge), so "
            "nobody can say how they ended; ask its administrators for accounting or a MinJobAge of 300"
        )
    return Status("squeue", seconds)


def keep_configuration() -> None:
    """On a node, let srun find Slurm's configuration where SLURM_CONF says: another srun on the PATH passes it on.

    snakemake-executor-plugin-slurm-jobstep 0.6.1 takes that variable away (findings/snakemake_slurm_jobstep_...sh).
    """
    configuration, program = os.environ.get("SLURM_CONF"), shutil.which("srun")
    if configuration is None or program is None:
        return
    folder = Path(tempfile.mkdtemp(prefix="srun-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    passing = folder / "srun"
    passing.write_text(
        f'#!/bin/sh\nSLURM_CONF={shlex.quote(configuration)} exec {shlex.quote(program)} "$@"\n', encoding="utf-8"
    )
    passing.chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def found(profile: Path, folder: Path) -> Iterator[tuple[bool, str]]:
    """Look at all that a run needs: yield whether each is there, and what to say of it.

    Args:
        profile: the file of the Slurm profile.
        folder: where results will be; a job writes a file there, which is deleted.
    """
    if not profile.is_file():
        yield False, f"{profile}: no such file; run this in the folder of the workflow"
        return
    try:
        site = read_site()
    except SlurmError as error:
        yield False, str(error)
        return
    yield True, f"the controller answers; accounting: {'yes' if site.accounting else 'no'}"
    resources = _resources(profile)
    for answers in (
        _status(site),
        _account(site, resources, profile),
        _place(site, resources, profile),
        _trial(resources, folder),
    ):
        try:
            yield from answers
        except SlurmError as error:
            yield False, str(error)


def main() -> int:
    """Print what is there and what is missing; return 1 if something is missing."""
    answers = list(found(PROFILE, Path("results")))
    for there, words in answers:
        print(f"{'ok     ' if there else 'MISSING'}  {words}")
    return int(not all(there for there, _ in answers))


def _status(site: Site) -> Iterator[tuple[bool, str]]:
    learned = status(site)
    yield True, f"what became of jobs is asked of {learned.command}, first after {learned.seconds} s"


def _account(site: Site, resources: dict[str, str], profile: Path) -> Iterator[tuple[bool, str]]:
    account = resources.get("slurm_account", "")
    if not site.needs_account:
        yield True, f"account: {account or 'none, and none is needed'}"
        return
    user = getpass.getuser()
    listed = _output("sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=account")
    accounts = sorted(set(listed.split()))
    if account in accounts or (not account and len(accounts) == 1):
        yield True, f"account: {account or accounts[0]}"
    else:
        yield (
            False,
            f"account: {account!r}, and jobs of {user} may be of {accounts or 'none'}; add slurm_account: NAME below "
            f"default-resources of {profile}",
        )


def _place(site: Site, resources: dict[str, str], profile: Path) -> Iterator[tuple[bool, str]]:
    """Whether there is a partition for the jobs."""
    name = resources.get("slurm_partition", "")
    fitting = [each for each in site.partitions if (each.name == name if name else each.default)]
    if not fitting:
        names = ", ".join(each.name for each in site.partitions) or "none"
        why = f"no partition {name!r}" if name else "no partition is the default"
        yield False, f"{why}; set slurm_partition below default-resources of {profile}, to one of {names}"
        return
    partition = fitting[0]
    limit = "of any length" if partition.minutes == float("inf") else f"of at most {partition.minutes:g} minutes"
    down = "" if partition.up else "; it is down"
    yield (
        partition.up,
        f"partition {partition.name}: {partition.memory} MB and {partition.cores} cores a node, jobs {limit}{down}",
    )


def _trial(resources: dict[str, str], folder: Path) -> Iterator[tuple[bool, str]]:
    """Send a job that writes a file with this Python: the file system, the libraries and the memory of a node."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"slurm-check-{secrets.token_hex(4)}"
    work = "import numpy, snakemake, sys; open(sys.argv[1], 'w').write(sys.version.split()[0])"
    options = [
        f"--{key}={resources[f'slurm_{key}']}" for key in ("account", "partition") if f"slurm_{key}" in resources
    ]
    command = ["sbatch", "--parsable", "--mem=500", "--time=1", f"--output={path}.log", *options]
    wrapped = f"{sys.executable} -c {shlex.quote(work)} {shlex.quote(str(path.resolve()))}"
    number = ""
    try:
        number = _output(*command, "--job-name=slurm-check", f"--wrap={wrapped}").strip().split(";")[0]
        yield _outcome(number, path)
    finally:
        if number:
            subprocess.run(["scancel", number], check=False, capture_output=True)
        for leftover in (path, Path(f"{path}.log")):
            leftover.unlink(missing_ok=True)
        if made:
            folder.rmdir()


def _outcome(number: str, path: Path) -> tuple[bool, str]:
    """Wait for a job's file."""
    state, end = "", time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if path.exists() and path.read_text(encoding="utf-8"):
            return True, f"a node writes where this machine reads, with Python {path.read_text(encoding='utf-8')}"
        state = _output("squeue", "--noheader", "--states=all", f"--jobs={number}", "--format=%T %r").strip()
        if state and state.split(" ")[0] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
            os.listdir(path.parent)  # a file system over the network may need to be asked
            time.sleep(1)
            if path.exists():
                continue
            log = Path(f"{path}.log")
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
            return False, (
                f"a job ended ({state}) without the file that it was to write to {path.parent.resolve()}: "
                + (said[-1] if said else f"is that folder, and {sys.executable}, there on the nodes?")
            )
        time.sleep(0.25)
    return (
        False,
        f"a job has waited for {PATIENCE:g} s ({state}), so what is on the nodes was not seen; try again later",
    )


def _resources(profile: Path) -> dict[str, str]:
    read: Any = yaml.safe_load(profile.read_text(encoding="utf-8")) or {}
    chosen = read.get("default-resources") or {}
    pairs = chosen.items() if isinstance(chosen, dict) else (str(each).split("=", 1) for each in chosen)
    return {str(key): str(value) for key, value in pairs}


def _partition(line: str) -> Partition:
    name, up, limit, memory, cores = line.split("|")
    return Partition(
        name=name.removesuffix("*"),
        default=name.endswith("*"),
        up=up == "up",
        minutes=_minutes(limit),
        memory=int(memory.rstrip("+")),
        cores=int(cores.rstrip("+")),
    )


def _minutes(limit: str) -> float:
    """Read a time limit as sinfo writes it.

    >>> _minutes("1-02:00:00"), _minutes("30:00"), _minutes("infinite")
    (1560.0, 30.0, inf)
    """
    if limit in ("infinite", "n/a"):
        return float("inf")
    days, _, clock = limit.rpartition("-")
    *hours, minutes, seconds = [int(each) for each in clock.split(":")]
    return int(days or 0) * 1440 + (hours[0] if hours else 0) * 60 + minutes + seconds / 60


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]} does not answer: {error}") from error
    if done.returncode:
        raise SlurmError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
