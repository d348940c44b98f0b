"""The default run of an earlier commit and of this one, with the same settings: half an hour, so only if asked for."""

import atexit
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pandas as pd

from benchmarks._timing import Count

ON_DEMAND = True
EARLIER = "554e122"
REPOSITORY = Path(__file__).parents[1]
SETTINGS = Path(__file__).parent / "default_run.yaml"
"""The default config of that commit, its keys as they are called now."""


def cases(small: bool) -> list[Count]:
    """Return the rows: wall time, processor time, and tables that are not the same bytes against all of them."""
    if small:
        return []
    new, old = "HEAD", EARLIER
    peer = f"that of {EARLIER}"
    return [
        Count("default run, wall time", peer, lambda: run(new)[1], lambda: run(old)[1], "s"),
        Count("default run, processor time", peer, lambda: run(new)[2], lambda: run(old)[2], "s"),
        Count(
            "default run, tables of other values", peer, lambda: different(run(new)[0], run(old)[0]), tables, "tables"
        ),
    ]


@cache
def run(commit: str) -> tuple[Path, float, float]:
    """Make the default run of a commit in a checkout of its own; return its folder, wall and processor time (s).

    Both commits run with the packages of this environment, on two cores.

    Raises:
        subprocess.CalledProcessError: the commit is not in this clone's history, or its run failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="default-run-"))
    git = ["git", "-C", str(REPOSITORY)]
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    archive = subprocess.run([*git, "archive", commit], check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    config = [] if commit == EARLIER else ["--configfile", str(SETTINGS)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    began, before = time.perf_counter(), _children()
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *config]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return folder, time.perf_counter() - began, _children() - before


def tables() -> float:
    """Return how many tables both runs have under one name."""
    return float(len(_both(run("HEAD")[0], run(EARLIER)[0])))


def different(new: Path, old: Path) -> float:
    """Return how many tables hold other values, and name them."""
    names = [name for name in _both(new, old) if not _same(new / "results" / name, old / "results" / name)]
    print("other values:", ", ".join(names) or "none", file=sys.stderr)
    return float(len(names))


def _both(new: Path, old: Path) -> list[str]:
    found = [
        {str(path.relative_to(each / "results")) for path in each.rglob("results/**/*.parquet")} for each in (new, old)
    ]
    return sorted(found[0] & found[1])


def _same(new: Path, old: Path) -> bool:
    """Whether two tables have the same values, bit for bit, in the columns that both have."""
    ours, theirs = pd.read_parquet(new), pd.read_parquet(old)
    columns = [column for column in theirs if column in ours]
    return ours[columns].equals(theirs[columns])


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
