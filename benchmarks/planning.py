"""Planning up to 5,000 training runs: our workflow, which compares content, and bare rules of the same shape."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache, partial
from pathlib import Path

import yaml

from benchmarks._timing import Count

REPOSITORY = Path(__file__).parents[1]
RUNS = (100, 1000, 5000)
PROFILE = ["--workflow-profile", str(REPOSITORY / "profiles/default")]
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
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "2", *PROFILE, *arguments]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
