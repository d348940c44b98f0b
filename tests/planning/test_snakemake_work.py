"""What planning no longer makes Snakemake work out for each job."""

import inspect
import sys
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from snakemake.common import get_function_params, get_input_function_aux_params
from snakemake.exceptions import WorkflowError
from snakemake.persistence.file import FilePersistence

from learning_geometry.planning import jobs
from learning_geometry.planning.snakemake_work import _if_any, _once, rest, signed, spare


def test_a_function_carries_the_parameters_that_snakemake_asks_for(monkeypatch):
    function = signed(lambda wildcards, attempt: attempt)
    expected = inspect.signature(lambda wildcards, attempt: attempt).parameters
    monkeypatch.setattr(inspect, "signature", lambda function: pytest.fail("looked up again"))
    assert get_function_params(function).keys() == expected.keys()
    assert get_input_function_aux_params(function, {"attempt": 2, "input": []}) == {"attempt": 2}


@pytest.mark.parametrize(("environments", "looked"), [([None, None], 0), ([None, "environment.yml"], 1)])
def test_environments_are_looked_for_if_a_rule_has_one(environments, looked):
    calls = []
    rules = [SimpleNamespace(conda_env=each) for each in environments]
    _if_any(calls.append)(SimpleNamespace(workflow=SimpleNamespace(rules=rules)))
    assert len(calls) == looked


def processed(checks, *scripts):
    """Let a processor look at a job of each script; return the names of those that it looked at, in order."""
    seen = []

    def process_job(processor, job):
        if checks and job.rule.script == "missing.py":
            raise WorkflowError("not accessible")
        seen.append(job.rule.script)

    processor, check = SimpleNamespace(script_type="script"), _once(process_job)
    for script in scripts:
        rule = SimpleNamespace(script=script, basedir="rules")
        check(processor, SimpleNamespace(rule=rule, is_script=script is not None, params=None))
    return seen


def test_each_script_is_looked_at_once_but_one_whose_name_depends_on_the_job():
    assert processed(True, "a.py", "b.py", "a.py") == ["a.py", "b.py"]
    assert processed(True, "{params.name}.py", "{params.name}.py") == ["{params.name}.py"] * 2
    # as Snakemake does of jobs without one, of which nothing is known here
    assert processed(True, None, None) == [None, None]


def test_a_script_that_is_missing_is_an_error():
    with pytest.raises(WorkflowError):
        processed(True, "a.py", "missing.py")


def test_the_other_seeds_are_not_listed_for_what_reads_none(project, monkeypatch):
    before = project.plan().jobs
    monkeypatch.setattr(jobs, "needed_seeds", lambda *args: pytest.fail("listed"))
    assert project.plan().jobs == before


def test_a_run_that_ends_leaves_the_locks_of_others(tmp_path):
    import snakemake.api  # noqa: F401  which imports the others in an order that they can be imported in

    spare()
    runs = [FilePersistence.__new__(FilePersistence) for _ in range(2)]
    for number, run in enumerate(runs):
        run._lockdir, run._lockfile = str(tmp_path), {}
        run._write_locks("output", [f"results/{number}"])
    runs[0].unlock()
    assert list(runs[1]._read_locks()) == [("output", "results/1")]
    runs[1].unlock()
    runs[1].unlock()
    assert list(runs[1]._read_locks()) == []
    runs[0]._write_locks("output", ["results/0"])
    # by --unlock, of a run that was killed
    runs[1].cleanup_locks()
    assert list(runs[1]._read_locks()) == []


class Scheduler(SimpleNamespace):
    """Selects the first jobs that fit; what it looked at is told."""

    def job_selector(self, jobs):
        self.looked.append(len(jobs))
        chosen, left = [], self.memory
        for job in sorted(jobs, key=lambda job: -job.priority):
            if job.memory <= left and len(chosen) < self.resources["_cores"]:
                chosen.append(job)
                left -= job.memory
        return chosen


def looking(jobs, cores, memory=10, **limits):
    """Return the jobs that are selected, and at how many jobs the selection looked."""
    resources = {"_cores": cores, "_nodes": sys.maxsize} | limits
    scheduler = Scheduler(job_rate_limiter=None, resources=resources, memory=memory, looked=[])
    rest(scheduler)
    return [job.priority for job in scheduler.job_selector(set(jobs))], scheduler.looked


class Ready(NamedTuple):
    priority: int
    memory: int = 1

    @property
    def scheduler_resources(self):
        return {"_cores": 1, "_nodes": 1, "memory": self.memory}


def test_the_scheduler_looks_at_the_first_jobs_alone():
    jobs = [Ready(priority) for priority in range(1000)]
    assert looking(jobs, cores=2) == ([999, 998], [20])
    assert looking(jobs, cores=100, memory=100)[1] == [300]
    assert looking(jobs[:5], cores=2) == ([4, 3], [5])


def test_it_looks_at_all_if_none_of_the_first_fits_and_at_none_without_room():
    jobs = [Ready(priority, memory=20 if priority >= 100 else 1) for priority in range(200)]
    assert looking(jobs, cores=2) == ([99, 98], [20, 200])
    # one of the first fits, and the core that it leaves free is for one that comes later
    jobs = [Ready(priority, memory=9 if priority >= 100 else 1) for priority in range(200)]
    assert looking(jobs, cores=2) == ([199, 99], [20, 200])
    assert looking(jobs, cores=0) == ([], [])
    assert looking(jobs, cores=sys.maxsize, _nodes=0) == ([], [])


@pytest.mark.parametrize(("limit", "kept"), [((100, 1), False), ((5, 60), True)])
def test_a_limit_of_jobs_that_was_asked_for_stays(limit, kept):
    limiter = SimpleNamespace(max_jobs=limit[0], timespan=limit[1])
    scheduler = Scheduler(job_rate_limiter=limiter, resources={}, memory=0, looked=[])
    rest(scheduler)
    assert (scheduler.job_rate_limiter is limiter) == kept
