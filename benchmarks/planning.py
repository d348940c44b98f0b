"""Planning up to 5,000 training runs, and leading them: our workflow, which compares content, and bare rules.

Dry runs of bare rules of the same shape; a run where all is up to date; a run in which many jobs wait while few end.
"""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import psutil
import yaml

from benchmarks._planted import plant
from benchmarks._timing import Count
from learning_geometry.config import load
from learning_geometry.planning.plan import Plan

REPOSITORY = Path(__file__).parents[1]
RUNS = (100, 1000, 5000)
PROFILE = ["--workflow-profile", str(REPOSITORY / "profiles/default")]
UP_TO_DATE, WAITING, SECONDS = 1000, 10_000, 30.0
"""Runs that are up to date; jobs that wait, and for how long they are watched."""
MEASUREMENTS = ("composition", "embedding_spectrum", "rank_over_training")

BARE = """
RUNS = range({runs})
MEASUREMENTS = {measurements}
rule all:
    input: "bare/summary"
rule dataset:
    output: "bare/{{run}}/dataset"
    shell: "touch {{output}}"
rule train:
    input: "bare/{{run}}/dataset"
    output: "bare/{{run}}/checkpoints", "bare/{{run}}/metrics"
    shell: "touch {{output}}"
rule measure:
    input: "bare/{{run}}/dataset", "bare/{{run}}/checkpoints", "bare/{{run}}/metrics"
    output: "bare/{{run}}/{{measurement}}"
    wildcard_constraints: measurement="|".join(MEASUREMENTS)
    shell: "touch {{output}}"
rule summarize:
    input: expand("bare/{{run}}/{{measurement}}", run=RUNS, measurement=MEASUREMENTS)
    output: "bare/summary"
    shell: "touch {{output}}"
"""

SLEEPING = """
import sys
sys.path.insert(0, {source!r})
from learning_geometry.planning.snakemake_work import rest, spare
rule all:
    input: expand("slept/{{job}}", job=range({jobs}))
rule sleep:
    input: "read/a", "read/b", "read/c"
    output: "slept/{{job}}"
    priority: lambda wildcards: int(wildcards.job)
    shell: "sleep 2; touch {{output}}"
if {rested}:
    spare()
    onstart:
        rest(workflow.scheduler)
"""


def cases(small: bool) -> list[Count]:
    """Return the rows: planning of runs of a dataset, a training and three measurements each, time and memory."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rows = []
    for runs in (3,) if small else RUNS:
        ours, theirs = (cache(partial(dry_run, arguments)) for arguments in written(folder / str(runs), runs))
        name, peer = f"planning {runs} runs", "bare rules of the same shape, planned by times"
        rows.append(Count(name, peer, lambda ours=ours: ours()[0], lambda theirs=theirs: theirs()[0], "s"))
        rows.append(
            Count(f"{name}, memory", peer, lambda ours=ours: ours()[1], lambda theirs=theirs: theirs()[1], "MB")
        )
    runs, waiting, seconds = (3, 100, 5.0) if small else (UP_TO_DATE, WAITING, SECONDS)
    ours, theirs = (cache(partial(up_to_date, folder / "up_to_date", runs, own)) for own in (True, False))
    rows.append(Count(f"{runs} runs that are up to date", "bare rules of the same shape", ours, theirs, "s"))
    ours, theirs = (cache(partial(led, folder / "waiting", waiting, seconds, own)) for own in (True, False))
    rows.append(Count(f"{waiting} jobs wait", "the same rules with Snakemake's defaults", ours, theirs, "% of a core"))
    return rows


def written(folder: Path, runs: int) -> tuple[list[str], list[str]]:
    """Write a config of so many runs, and bare rules of the same shape; return what Snakemake needs for each."""
    folder.mkdir()
    experiment = {
        "study": "orthogonal_subspaces",
        "seeds": list(range(runs)),
        "task": {"name": "copying"},
        "training": {"steps": 1000},
        "measurements": {name: {} for name in MEASUREMENTS},
    }
    (folder / "many.yaml").write_text(
        yaml.safe_dump({"results": str(folder / "results"), "experiments": {"many": experiment}})
    )
    (folder / "bare.smk").write_text(BARE.format(runs=runs, measurements=MEASUREMENTS))
    ours = ["--configfile", str(folder / "many.yaml")]
    return ours, ["--snakefile", str(folder / "bare.smk"), "--directory", str(folder)]


def dry_run(arguments: list[str]) -> tuple[float, float]:
    """Return the processor time (s) and the peak memory (MB) of a dry run.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    return called("--dry-run", *PROFILE, *arguments)


def up_to_date(folder: Path, runs: int, own: bool) -> float:
    """Return the processor time (s) of a run where all is up to date, the second of two: the first one reads the files.

    Args:
        folder: for config, rules and results.
        runs: how many training runs there are.
        own: our workflow, or bare rules.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    folder = folder / ("own" if own else "bare")
    folder.parent.mkdir(exist_ok=True)
    ours, theirs = written(folder, runs)
    if own:
        plant(Plan(load([folder / "many.yaml"]), REPOSITORY / "workflow/scripts"))
        arguments = [*PROFILE, "--nolock", "--directory", str(folder), *ours]
    else:
        arguments = [*PROFILE, *theirs]
        for name in ("dataset", "checkpoints", "metrics", *MEASUREMENTS):
            for run in range(runs):
                path = folder / "bare" / str(run) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        (folder / "bare/summary").touch()
    called(*arguments)
    return called(*arguments)[0]


def led(folder: Path, jobs: int, seconds: float, own: bool) -> float:
    """Return how much of a core Snakemake takes (%) that leads jobs of two seconds on two cores, while others wait.

    Args:
        folder: for rules and results.
        jobs: how many there are.
        seconds: for which it is watched, once the first job has ended.
        own: led as our workflow does, or with Snakemake's defaults.

    Raises:
        RuntimeError: it ended before.
    """
    folder = folder / ("own" if own else "bare")
    (folder / "read").mkdir(parents=True)
    for name in "abc":
        (folder / "read" / name).touch()
    rules = SLEEPING.format(source=str(REPOSITORY / "src"), jobs=jobs, rested=own)
    (folder / "sleeping.smk").write_text(rules)
    arguments = ["--snakefile", "sleeping.smk", *(PROFILE if own else [])]
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        while not any(folder.glob("slept/*")):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)}: ended with status {process.returncode} in {folder}")
            time.sleep(0.1)
        leading, began = psutil.Process(process.pid), time.monotonic()
        before = leading.cpu_times()
        time.sleep(seconds)
        after, took = leading.cpu_times(), time.monotonic() - began
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return 100 * (after.user + after.system - before.user - before.system) / took


def environment() -> dict[str, str]:
    """Return the environment of a user, who has no path to the package."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def called(*arguments: str) -> tuple[float, float]:
    """Return the processor time (s) and the peak memory (MB) of a call of Snakemake.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment(), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
