"""Short jobs that travel to a cluster together, as starting each there costs more than its work."""

from collections.abc import Callable, Iterable

from learning_geometry.planning.jobs import Job
from learning_geometry.planning.order import estimated_seconds

SHORT = 60.0
"""Seconds below which a job is short."""
SHORTEST, LONGEST, AT_ONCE, MOST = 120.0, 1800.0, 10, 100
"""A stage is divided into this many bundles, unless these would be shorter or longer (s), or of more jobs."""


def bundles(jobs: Iterable[Job], seconds: Callable[[Job], float] = estimated_seconds) -> dict[Job, int]:
    """Return which short jobs are sent to a cluster together: job -> number of its bundle.

    Jobs are assigned in stages. A short job is in the stage of the short ones that it reads from the same run, and in a
    later stage than everything else that it reads. A bundle holds jobs of one stage, all of a run's or none, so that no
    two bundles wait for each other. Long jobs are in none, nor is a job that would be alone.

    Args:
        jobs: what is to run; what they read of other jobs is there.
        seconds: about how long a job takes.
    """
    listed = list(jobs)
    made_by = {path: job for job in listed for path in job.outputs}
    reads = {
        job: {made_by[path] for paths in job.inputs.values() for path in paths if path in made_by} for job in listed
    }
    takes = {job: seconds(job) for job in listed}
    short = {job for job in listed if takes[job] < SHORT}
    stages: dict[Job, int] = {}

    def together(one: Job, other: Job) -> bool:
        return one in short and other in short and _run(one) == _run(other)

    def stage(job: Job) -> int:
        if job not in stages:
            stages[job] = max((stage(each) + (not together(each, job)) for each in reads[job]), default=0)
        return stages[job]

    of_stage: dict[int, dict[tuple[str, ...], list[Job]]] = {}
    for job in listed:
        if job in short:
            of_stage.setdefault(stage(job), {}).setdefault(_run(job), []).append(job)
    result: list[list[Job]] = []
    for runs in of_stage.values():
        whole = sum(takes[job] for of_run in runs.values() for job in of_run)
        most, total = min(max(whole / AT_ONCE, SHORTEST), LONGEST), 0.0
        result.append([])
        for of_run in runs.values():
            more = sum(takes[job] for job in of_run)
            if result[-1] and (len(result[-1]) + len(of_run) > MOST or total + more > most):
                result.append([])
                total = 0.0
            result[-1].extend(of_run)
            total += more
    several = [bundle for bundle in result if len(bundle) > 1]
    return {job: number for number, bundle in enumerate(several) for job in bundle}


def _run(job: Job) -> tuple[str, ...]:
    """What a job belongs to: a seed of an experiment, an experiment, or nothing but itself."""
    names = [job.wildcards[name] for name in ("experiment", "seed") if name in job.wildcards]
    return tuple(names) or (job.title,)
