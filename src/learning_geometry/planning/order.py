"""In which order jobs begin, and about how long they take: for who waits, never for a result."""

from collections.abc import Iterable
from graphlib import TopologicalSorter

from learning_geometry.planning.jobs import Job
from learning_geometry.planning.seen import SEEN
from learning_geometry.planning.work import training_seconds, work

UNKNOWN = 3.0
"""Seconds of a kind that the default run has none of, such as a measurement of one's own."""

USUAL = 5e6
"""Bytes of the checkpoints of a run of the default, about: its runs have .3 to 7.5 million."""

IMPORTED = 1e-8
"""Core-seconds for each byte that is imported: read, told apart by a digest, and written."""

FIRST = 10**9
"""Added to the priority of what the first figure needs."""


def kind(job: Job) -> str:
    """Return what tells about how long a job takes: ``train copying``, ``measure sharpness``, ``figure``, a rule."""
    if job.rule == "train":
        return f"train {job.wildcards['experiment']}"
    if "measurement" in job.wildcards:
        return f"measure {job.wildcards['measurement']}"
    return "figure" if job.rule.startswith("figure_") else job.rule


def estimated_seconds(job: Job) -> float:
    """Return about how many seconds of one core a job takes: a measurement in proportion to what it has to do."""
    if job.rule == "train":
        return training_seconds(job.settings["experiment"])
    if job.rule == "import_checkpoints":
        return UNKNOWN + IMPORTED * float(job.found.get("bytes", 0))
    seen = SEEN.get(kind(job))
    if job.found:
        # of checkpoints of another program no more is known that work could be told from than their size
        return (seen.seconds if seen else UNKNOWN) * max(1.0, float(job.found["bytes"]) / USUAL)
    return seen.seconds * work(job) / seen.work if seen else UNKNOWN


def priorities(jobs: Iterable[Job]) -> dict[Job, int]:
    """Return the priority of each job: the greater, the earlier it begins once it can.

    What the figure with the least work behind it needs comes first, so that there is something to see early. Everything
    else has the seconds until the last job that waits for it ends, if all that can run at once did: so no long chain
    of jobs is left for the end, where a core would stand idle beside it.

    What a series of language models needs comes one model after the other, so that one core has measured a model, and
    its activations may go, before it captures those of the next.
    """
    jobs = list(jobs)
    seconds = {job: estimated_seconds(job) for job in jobs}
    made_by = {path: job for job in jobs for path in job.outputs}
    needed = {
        job: {made_by[path] for paths in job.inputs.values() for path in paths if path in made_by} for job in jobs
    }
    in_order = list(TopologicalSorter(needed).static_order())
    behind: dict[Job, frozenset[Job]] = {}
    for job in in_order:
        behind[job] = frozenset({job}).union(*(behind[each] for each in needed[job]))
    figures = [job for job in jobs if job.rule.startswith("figure_")]
    first = min(figures, key=lambda job: sum(seconds[each] for each in behind[job]), default=None)
    left = dict.fromkeys(in_order, 0.0)
    for job in reversed(in_order):
        left[job] += seconds[job]
        for each in needed[job]:
            left[each] = max(left[each], left[job])
    sooner = behind[first] if first else frozenset()
    given = {job: round(left[job]) for job in jobs}
    models = _of_models(jobs, behind, made_by)
    apart = 1 + max((given[job] for of_model in models for job in of_model), default=0)
    for place, of_model in enumerate(models):
        for job in of_model:
            given[job] = round(left[job]) + (len(models) - 1 - place) * apart
        sooner |= of_model if of_model & sooner else frozenset()
    return {job: given[job] + FIRST * (job in sooner) for job in jobs}


def _of_models(jobs: list[Job], behind: dict[Job, frozenset[Job]], made_by: dict[str, Job]) -> list[frozenset[Job]]:
    """Return what each model of every series needs until its tables are one, in the order of series and models."""
    tables = [path for job in jobs if job.rule == "gather_series" for path in job.inputs["runs"]]
    # an archive has the tables alone
    return [behind[made_by[path]] for path in tables if path in made_by]
