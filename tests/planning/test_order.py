"""The order in which jobs begin, and what the terminal says of how long they take."""

import copy
import logging

import pytest

from learning_geometry.config import read_yaml, validate
from learning_geometry.planning import order
from learning_geometry.planning.jobs import Job, all_jobs
from learning_geometry.planning.order import FIRST, estimated_seconds, kind, priorities
from learning_geometry.planning.remaining import OF_A_KIND, TRUST, Remaining
from learning_geometry.planning.seen import SEEN, Seen


def job(rule, name, needs=(), **settings):
    return Job(rule, {"experiment": name}, (f"{rule}/{name}",), {"needs": tuple(needs)}, settings)


@pytest.fixture
def jobs(monkeypatch):
    seconds = {"long": 100.0, "short": 10.0, "summarize": 1.0, "figure": 2.0}
    monkeypatch.setattr(order, "SEEN", {name: Seen(each, 1.0, 500) for name, each in seconds.items()})
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


@pytest.fixture(scope="module")
def default_jobs():
    return all_jobs(validate(read_yaml("config/config.yaml"), files=False))


@pytest.mark.parametrize(
    ("experiment", "recorded"),
    [("copying", 48.2), ("marker_sums", 6.9), ("grokking_addition", 4.3), ("small_alibi", 2.4)],
)
def test_the_estimate_of_a_training_is_near_what_a_log_had_recorded(default_jobs, experiment, recorded):
    # core-seconds of a run in the past; nothing is timed here
    found = next(each for each in default_jobs if kind(each) == f"train {experiment}")
    assert recorded / 1.5 < estimated_seconds(found) < recorded * 1.5
    twice = copy.deepcopy(found.settings)
    twice["experiment"]["training"]["steps"] *= 2
    assert estimated_seconds(found._replace(settings=twice)) == pytest.approx(2 * estimated_seconds(found))


def test_a_measurement_takes_longer_the_more_it_has_to_do(default_jobs):
    found = next(each for each in default_jobs if kind(each) == "measure sharpness")
    assert estimated_seconds(found) == pytest.approx(SEEN["measure sharpness"].seconds, rel=0.01)
    larger = copy.deepcopy(found.settings)
    larger["run"]["training"]["steps"] *= 4
    assert 2.5 < estimated_seconds(found._replace(settings=larger)) / estimated_seconds(found) < 4
    wider = copy.deepcopy(found.settings)
    wider["run"]["model"]["width"] *= 2
    assert 2 < estimated_seconds(found._replace(settings=wider)) / estimated_seconds(found) < 4


def test_what_trains_dictionaries_takes_as_long_as_their_product(default_jobs):
    for name, of in (("dictionary_sweep", "steps"), ("sparse_execution", "steps"), ("sparse_execution", "latents")):
        found = next(each for each in default_jobs if kind(each) == f"measure {name}")
        more = copy.deepcopy(found.settings)
        more["measurement"][of] *= 10
        assert estimated_seconds(found._replace(settings=more)) == pytest.approx(10 * estimated_seconds(found))


def test_every_kind_of_job_of_the_default_run_was_measured(default_jobs):
    kinds = {kind(each) for each in default_jobs if each.rule not in ("archive", "train")}
    assert kinds <= set(SEEN)
    assert all(seen.memory > 100 for seen in SEEN.values())


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


def test_on_a_cluster_no_time_is_told_and_no_line_for_each_figure(jobs):
    clock, lines = Clock(), []
    logger = logging.Logger("a run")
    logger.addHandler(Remaining(dict(enumerate(jobs)), cores=None, show=lines.append, interval=15.0, clock=clock))
    clock.now = 20.0
    for number in (2, 4, 0):
        logger.info("", extra={"event": "job_finished", "job_id": number})
    assert lines == ["1 of 5 jobs, 0 of 2 figures are done"]
