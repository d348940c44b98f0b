"""What a run took: one line for each call of Snakemake that ran jobs, in ``logs/runs.csv`` of its results."""

import csv
import resource
from datetime import UTC, datetime
from pathlib import Path

from learning_geometry.paths import RUNS_LOG

COLUMNS = ("ended", "jobs", "seconds", "main_process", "all_processes")
"""When it ended (UTC), jobs that ended well, wall time, processor time of Snakemake itself and of all together (s)."""


def record(results: str | Path, jobs: int, seconds: float) -> None:
    """Add the line of the run that this process has led, once the processes that it started have ended.

    Args:
        results: folder of the results.
        jobs: how many ended well.
        seconds: wall time since the first began.
    """
    path = Path(results) / RUNS_LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    main, rest = (used.ru_utime + used.ru_stime for used in (own, others))
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        if new:
            lines.writerow(COLUMNS)
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        lines.writerow([ended, jobs, f"{seconds:.1f}", f"{main:.1f}", f"{main + rest:.1f}"])
