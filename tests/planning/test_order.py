"""The order in which jobs begin, and what the terminal says of how long they take."""

import logging

import pytest

from learning_geometry.config import read_yaml, validate
from learning_geometry.planning import order
from learning_geometry.planning.jobs import Job, all_jobs
from learning_geometry.planning.order import FIRST, estimated_seconds, kind, priorities
from learning_geometry.planning.remaining import OF_A_KIND, TRUST, Remaining


def job(rule, name, needs=(), **settings):
    return Job(rule, {"experiment": name}, (f"{rule}/{name}",), {"needs": tuple(needs)}, settings)


@pytest.fixture
def jobs(monkeypatch):
    monkeypatch.setattr(order, "SECONDS", {"long": 100.0, "short": 10.0, "summarize": 1.0, "figure": 2.0})
    return [
        job("long", "a"),
        job("short", "a", ["long/a"]),
        job("short", "b"),
        job("figure_of_a", "", ["short/a"]),
        job("figure_of_b", "", ["short/b"]),
    ]


def test_the_figure_with_the_least_work_comes_first_then_the_longest_chain(jobs):
    given = priorities(jobs)
    assert [given[each] for each in jobs] == [112, 12, FIRST + 12, 2, FIRST + 2]


def test_a_training_is_as_long_as_it_has_steps(monkeypatch):
    monkeypatch.setattr(order, "SECONDS", {"train copying": 0.5})
    settings = {"training": {"steps": 30}}
    assert estimated_seconds(job("train", "copying", experiment=settings)) == pytest.approx(15.0)
    assert estimated_seconds(job("train", "mine", experiment=settings)) == pytest.approx(30 * order.UNKNOWN_STEP)


def test_every_kind_of_job_of_the_default_run_was_measured():
    jobs = all_jobs(validate(read_yaml("config/config.yaml"), files=False))
    assert {kind(each) for each in jobs if each.rule != "archive"} <= set(order.SECONDS)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_what_is_left_is_told_from_how_fast_others_of_the_kind_were(jobs):
    clock, lines = Clock(), []
    logger = logging.Logger("a run")
    remaining = Remaining(dict(enumerate([*jobs, None])), cores=2, show=lines.append, interval=15.0, clock=clock)
    logger.addHandler(remaining)

    def at(now, event, **more):
        clock.now = now
        logger.info("", extra={"event": event, **more})

    at(0.0, "job_started", jobs=[0, 2])
    at(5.0, "job_finished", job_id=2)  # twice as fast as estimated; too early for a line
    assert lines == []
    at(5.0, "job_started", jobs=[4])
    at(7.0, "job_finished", job_id=4)
    # no other long one is known: it is taken to be as fast as all, 7 s for an estimate of 12, once that weighs enough
    overall = (7 + TRUST) / (12 + TRUST)
    short, figure = ((took + OF_A_KIND * overall) / (estimate + OF_A_KIND) for took, estimate in ((5, 10), (2, 2)))
    left = (100 * overall - 7) + 10 * short + 2 * figure
    assert lines == [
        f"2 of 5 jobs, 1 of 2 figures are done, {100 * 7 / (7 + left):.0f} % of the work, about {left / 2:.0f} s left"
    ]
    at(90.0, "job_finished", job_id=0)
    assert lines[1].startswith("3 of 5 jobs, 1 of 2 figures are done, 9")
    at(90.0, "job_started", jobs=[1])
    at(99.0, "job_finished", job_id=1)
    at(99.0, "job_started", jobs=[3])
    at(101.0, "job_finished", job_id=3)
    at(101.0, "job_finished", job_id=3)
    at(101.0, "job_finished", job_id=5)
    assert lines[2:] == ["5 of 5 jobs, 2 of 2 figures are done, 100 % of the work"]
    assert (remaining.jobs, remaining.seconds) == (5, 101.0)
