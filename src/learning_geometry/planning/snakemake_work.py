"""What Snakemake 9.27 does for each job though nothing in this workflow depends on it, and how it deletes and unlocks.

No plan changes: what it works out is left out only where that is certain, and otherwise left to Snakemake.
"""

import heapq
import inspect
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, TypeVar

from learning_geometry.planning.removal import remove, remove_leftovers

SPARED = "_learning_geometry_spared"
"""An attribute that says that it was done."""

FEWEST, ROOM = 20, 3
"""Among how many jobs the next are selected, at least, and for each that there is room for."""

Function = TypeVar("Function", bound=Callable[..., Any])


def signed(function: Function) -> Function:
    """Return a function that carries its parameters, which Snakemake otherwise looks up at each of its calls."""
    # snakemake.common.get_function_params reads this attribute first
    function.__dict__["_overwrite_params"] = inspect.signature(function).parameters
    return function


def spare() -> None:
    """Leave out what no plan depends on, and let no folder be met half deleted or unlocked by another run.

    Call it before there is a plan.
    """
    import snakemake.io
    from snakemake.dag import DAG, ScriptProcessor
    from snakemake.persistence.file import FilePersistence
    from snakemake.resources import Resource

    if SPARED in DAG.__dict__:
        return
    setattr(DAG, SPARED, True)
    bound = dict(inspect.signature(Resource.evaluate).parameters)
    del bound["self"]
    Resource.evaluate.__dict__["_overwrite_params"] = bound
    DAG.update_conda_envs = _if_any(DAG.update_conda_envs)
    ScriptProcessor.process_job = _once(ScriptProcessor.process_job)
    snakemake.io.remove = _whole(snakemake.io.remove)
    FilePersistence.cleanup_locks = FilePersistence.unlock
    FilePersistence.unlock = _unlock_own


def _unlock_own(persistence: Any) -> None:
    """Delete the lock files of this run alone.

    At the end of a run Snakemake deletes the whole folder of locks, with those of other runs in the same folder, and
    fails where two end at once.
    """
    for file in persistence._lockfile.values():
        with suppress(FileNotFoundError):
            os.remove(file)
    persistence._lockfile.clear()


def _if_any(update_conda_envs: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return the search for environments, made only if a rule has one: it works out the parameters of each job."""

    def updated(dag: Any) -> None:
        if any(rule.conda_env for rule in dag.workflow.rules):
            update_conda_envs(dag)

    return updated


def _once(process_job: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Return the check that a job's script is there, made once for each script whose name is the same for all jobs.

    Snakemake reads the file for each job, and before that works out the job's parameters, which may be in the name.
    """

    def checked(processor: Any, job: Any) -> None:
        kind = f"is_{processor.script_type}"
        name = str(getattr(job.rule, processor.script_type))
        if not getattr(job, kind) or "{" in name:
            process_job(processor, job)
            return
        seen = processor.__dict__.setdefault("seen", set())
        if (str(job.rule.basedir), name) not in seen:
            process_job(processor, SimpleNamespace(rule=job.rule, wildcards={}, params={}, **{kind: True}))
            seen.add((str(job.rule.basedir), name))

    return checked


def _whole(delete: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return the deletion of an output, of which a folder loses its name at once, and is deleted then.

    Snakemake deletes file by file what a job that did not end well left behind. Killed meanwhile, it leaves a part
    of it under the folder's name.
    """

    async def deleted(file: Any, remove_non_empty_dir: bool = False, only_local: bool = False) -> None:
        if remove_non_empty_dir and (only_local or not file.is_storage):
            remove_leftovers(file)
            if os.path.isdir(file) and not os.path.islink(file):
                remove(file)
                return
        await delete(file, remove_non_empty_dir=remove_non_empty_dir, only_local=only_local)

    return deleted


def rest(scheduler: Any) -> None:
    """Let Snakemake's scheduler look for jobs when one ends, and only at those that would begin first.

    With its limit of 100 jobs a second Snakemake 9.27 looks once a second for each job that ended while others waited:
    56 times a second after 60 jobs, in a core of its own after 1,000. And at each look it asks for the size of every
    input of every job that could begin: .8 s of a core for 10,000 jobs. Which begins follows from their priorities.
    """
    limiter = scheduler.job_rate_limiter
    if limiter is not None and (limiter.max_jobs, limiter.timespan) == (100, 1):
        scheduler.job_rate_limiter = None
    scheduler.job_selector = _among_first(scheduler.job_selector, scheduler)


def _among_first(job_selector: Callable[[Any], Any], scheduler: Any) -> Callable[[Any], Any]:
    """Return a selection among the first jobs by priority, many more than there is room for.

    Among all if what is selected leaves room: the first may all wait for a resource that others do not ask for.
    """

    def selected(jobs: Any) -> Any:
        rooms = {name: scheduler.resources[name] for name in ("_cores", "_nodes") if name in scheduler.resources}
        room = min(rooms.values())
        if room <= 0:
            return []
        few = max(FEWEST, ROOM * room)
        if few < len(jobs):
            chosen = job_selector(set(heapq.nlargest(few, jobs, key=lambda job: job.priority)))
            taken = {name: sum(job.scheduler_resources.get(name, 1) for job in chosen) for name in rooms}
            if any(taken[name] >= rooms[name] for name in rooms):
                return chosen
        return job_selector(jobs)

    return selected
