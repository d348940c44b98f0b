"""Time and memory that a job asks a cluster for: what it took in the default run, as much more as it has to do."""

import math
from collections.abc import Iterable

from learning_geometry.planning.jobs import Job
from learning_geometry.planning.order import estimated_seconds, kind
from learning_geometry.planning.seen import SEEN

MARGIN, STARTS = 3.0, 10.0
"""Times the estimate, and minutes for the start of Python on a node and slow disks."""
UNKNOWN_MEMORY, BESIDE = 1500, 700
"""MB of a kind that the default run has none of; and of the processes that lead the job."""
ROOM = 1.5
"""Times the memory seen."""
FOREIGN = 4
"""Times the largest of another program's checkpoints: its parameters, twice as large in float32, and as much beside."""


def minutes(jobs: Iterable[Job]) -> dict[Job, int]:
    """Return the minutes of jobs that run one after the other: their sum is the time that all need.

    A job of seconds may have none, so that a hundred of them do not ask for a hundred minutes.
    """
    result: dict[Job, int] = {}
    total, given = STARTS, 0
    for job in jobs:
        total += MARGIN * estimated_seconds(job) / 60
        result[job] = math.ceil(total) - given
        given = math.ceil(total)
    return result


def megabytes(job: Job) -> int:
    """Return the memory that a job asks for (MB)."""
    seen = SEEN.get(_kind(job))
    held = FOREIGN * job.found["largest"] / 1e6 if job.found else 0.0
    return math.ceil(((UNKNOWN_MEMORY if seen is None else seen.memory) * ROOM + held + BESIDE) / 100) * 100


def _kind(job: Job) -> str:
    """Trainings of all sizes hold about the same: the libraries and one model."""
    return "train" if job.rule == "train" else kind(job)
