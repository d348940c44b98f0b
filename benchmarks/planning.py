"""Planning a thousand training runs: our workflow, which compares content, and bare rules of the same shape."""

import atexit
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks._timing import Count

REPOSITORY = Path(__file__).parents[1]
RUNS = 1000
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
    """Return the row: processor time of planning runs of a dataset, a training and three measurements each."""
    runs = 3 if small else RUNS
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
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
    theirs = ["--snakefile", str(folder / "bare.smk"), "--directory", str(folder)]
    return [
        Count(
            f"planning {runs} runs",
            "bare rules of the same shape, planned by times",
            lambda: dry_run(ours),
            lambda: dry_run(theirs),
            "s",
        )
    ]


def dry_run(arguments: list[str]) -> float:
    """Return the processor time of a dry run (s).

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "2", *PROFILE, *arguments]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
