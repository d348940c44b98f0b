"""How far a run is, and about how long it still takes: one line on the terminal from time to time."""

import logging
import time
from collections.abc import Callable, Mapping

from learning_geometry.planning.jobs import Job
from learning_geometry.planning.order import estimated_seconds, kind
from learning_geometry.progress import duration

TRUST, OF_A_KIND = 60.0, 5.0
"""Seconds of work that must have ended before this machine's speed, and that of a kind of job, count half."""


class Remaining(logging.Handler):
    """Listens to Snakemake's log for jobs that begin and end, and says how far the run is."""

    def __init__(
        self,
        jobs: Mapping[int, Job | None],
        cores: int | None,
        show: Callable[[str], None],
        interval: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Begin.

        Args:
            jobs: what is to run, by Snakemake's number; None stands for what takes no time.
            cores: how many jobs run at once; None: nobody knows, as on a cluster, and no time is told.
            show: takes each line.
            interval: seconds between two lines, at least; the end of a figure is told at once.
            clock: returns seconds; replaced in tests.
        """
        super().__init__()
        self._jobs, self._cores, self._show = dict(jobs), cores, show
        self._estimated = {number: 0.0 if job is None else estimated_seconds(job) for number, job in jobs.items()}
        self._interval, self._clock = interval, clock
        self._start = self._shown = clock()
        self._began: dict[int, float] = {}
        self._done: set[int] = set()
        self._taken: dict[str, list[float]] = {}

    @property
    def jobs(self) -> int:
        """How many jobs have ended well."""
        return sum(self._jobs.get(number) is not None for number in self._done)

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return self._clock() - self._start

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a message of Snakemake's."""
        event, now = getattr(record, "event", None), self._clock()
        if event == "job_started":
            self._began |= dict.fromkeys(getattr(record, "jobs", ()), now)
        elif event == "job_finished":
            self._finished(record.__dict__["job_id"], now)

    def _finished(self, number: int, now: float) -> None:
        job = self._jobs.get(number)
        if number in self._done:
            return
        self._done.add(number)
        if job is None:
            return
        estimated, took = self._taken.setdefault(kind(job), [0.0, 0.0])
        self._taken[kind(job)] = [estimated + self._estimated[number], took + now - self._began.get(number, now)]
        # those of a bundle end together
        alone = job.rule.startswith("figure_") and self._cores is not None
        if alone or now - self._shown >= self._interval:
            self._shown = now
            self._show(self.line(now))

    def line(self, now: float) -> str:
        """Return how many jobs and figures are done, and about how long the rest takes."""
        jobs = {number: job for number, job in self._jobs.items() if job is not None}
        counted = [f"{len(self._done & jobs.keys())} of {len(jobs)} jobs"]
        figures = [number for number, job in jobs.items() if job.rule.startswith("figure_")]
        if figures:
            counted.append(f"{len(self._done.intersection(figures))} of {len(figures)} figures")
        told = ", ".join(counted) + " are done"
        if self._cores is None:
            return told
        left = sum(self._left(number, job, now) for number, job in jobs.items() if number not in self._done)
        taken = sum(took for _, took in self._taken.values())
        share = f"{100 * taken / (taken + left):.0f} % of the work" if taken + left > 0 else ""
        parts = [told, share, f"about {duration(left / self._cores)} left" if left else ""]
        return ", ".join(part for part in parts if part)

    def _left(self, number: int, job: Job, now: float) -> float:
        """Return about how many seconds of one core a job still takes, as fast as others of its kind were."""
        every = [sum(values) for values in zip(*self._taken.values(), strict=True)] or [0.0, 0.0]
        estimated, took = self._taken.get(kind(job), (0.0, 0.0))
        overall = (every[1] + TRUST) / (every[0] + TRUST)
        speed = (took + OF_A_KIND * overall) / (estimated + OF_A_KIND)
        seconds = self._estimated[number] * speed
        return max(seconds - (now - self._began[number]), 0.0) if number in self._began else seconds
