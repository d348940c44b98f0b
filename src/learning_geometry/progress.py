"""What a long job says while it runs: lines in its log, and one line on the terminal."""

import ctypes
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


def _print_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Progress:
    """Lines such as ``copying seed 3: step 1200/3500 (34 %), 35.2 steps/s, 65 s left, loss 4.16``.

    Call it with the steps done so far as often as convenient: at most every ``interval`` seconds it writes a
    line. Speed and time left count from the first call, so a resumed job, whose first call is at a later
    step, is not credited with what was done before.

    >>> seconds = iter([0.0, 1.0, 10.0, 11.0, 16.0, 17.0])
    >>> progress = Progress(30, "demo", show=print, clock=lambda: next(seconds))
    >>> for step in [0, 18, 20, 30]:
    ...     progress(step, "loss 0.5")
    demo: step 18/30 (60 %), 2.0 steps/s, 6 s left, loss 0.5
    demo: step 30/30 (100 %), 2.0 steps/s, 0 s left, loss 0.5
    >>> progress.summary()
    'demo: 30 steps in 17 s, 2.0 steps/s'
    """

    def __init__(
        self,
        total: int,
        label: str,
        unit: str = "step",
        show: Callable[[str], None] = _print_error,
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Start the clock.

        Args:
            total: number of steps of the whole job.
            label: what the job is, at the start of each line.
            unit: what is counted, in the singular.
            show: takes each line; writes to standard error by default.
            interval: seconds between two lines, at least.
            clock: returns seconds; replaced in tests.
        """
        self._total, self._label, self._unit = total, label, unit
        self._show, self._interval, self._clock = show, interval, clock
        self._began = self._written = clock()
        self._first: tuple[int, float] | None = None  # steps and time at the first call
        self._last = (0, self._began)  # and at the last

    def __call__(self, done: int, note: str = "") -> None:
        """Note that ``done`` steps of the whole job are done; write a line if the last is old enough."""
        now = self._clock()
        self._last = (done, now)
        if self._first is None:
            self._first = self._last
        if now - self._written < self._interval:
            return
        self._written = now
        parts = [f"{self._unit} {done}/{self._total} ({100 * done // max(self._total, 1)} %)"]
        if speed := self._speed():
            parts += [self._per_second(speed), f"{duration((self._total - done) / speed)} left"]
        self._show(f"{self._label}: {', '.join([*parts, note] if note else parts)}")

    def summary(self) -> str:
        """Return one line with the steps done in this process, the time since the start and the speed."""
        first, done = (self._first or self._last)[0], self._last[0]
        line = f"{self._label}: {done - first} {self._unit}s in {duration(self._clock() - self._began)}"
        if speed := self._speed():
            line += f", {self._per_second(speed)}"
        return line + (f", resumed at {self._unit} {first}" if first else "")

    def _speed(self) -> float:
        """Return the steps per second since the first call, 0 if there is nothing to tell it from."""
        first, began = self._first or self._last
        done, now = self._last
        return (done - first) / (now - began) if now > began else 0.0

    def _per_second(self, speed: float) -> str:
        digits = 0 if speed >= 100 else 1 if speed >= 1 else 3
        return f"{speed:.{digits}f} {self._unit}s/s"


class Log(NamedTuple):
    """The log file of a job, and a function that writes one line to the terminal all the same."""

    path: Path
    terminal: Callable[[str], None]


@contextmanager
def log_to(path: str | Path, rule: str = "") -> Iterator[Log]:
    """Send all output of the process to the log at ``path``; ``log.terminal(line)`` reaches the terminal.

    Standard output and error are redirected as file descriptors, so what C libraries and child processes
    write is in the log too. Python's output appears there line by line. ``terminal`` writes to the standard
    error there was before; it is for a line at the end of the job.

    On an exception the log gets the traceback, the terminal one line that names the rule (by default the
    log's name without suffix), the error and the log, and the process exits with status 1.

    Raises:
        SystemExit: an exception was raised inside.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rule = rule or path.stem
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    streams, descriptors = (sys.stdout, sys.stderr), {number: os.dup(number) for number in (1, 2)}

    def terminal(line: str) -> None:
        os.write(descriptors[2], f"{line}\n".encode())

    with open(path, "w", buffering=1, encoding="utf-8", errors="backslashreplace") as file:
        try:
            for number in descriptors:
                os.dup2(file.fileno(), number)
            sys.stdout = sys.stderr = file
            yield Log(path, terminal)
        except Exception as error:
            traceback.print_exc(file=file)
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            terminal(f"rule {rule} failed: {reason}; see {path}")
            raise SystemExit(1) from error
        except KeyboardInterrupt:
            terminal(f"rule {rule} stopped; run the same command again to continue")
            raise SystemExit(130) from None
        finally:
            sys.stdout, sys.stderr = streams
            ctypes.CDLL(None).fflush(None)  # what C's printf still holds belongs to the log
            for number, original in descriptors.items():
                os.dup2(original, number)
                os.close(original)


def duration(seconds: float) -> str:
    """Return a rounded duration.

    >>> [duration(seconds) for seconds in (0.42, 65.0, 200.0, 7400.0)]
    ['0.4 s', '65 s', '3 min 20 s', '2 h 3 min']
    """
    whole = round(seconds)
    if 0 < seconds < 0.95:
        return f"{seconds:.1f} s"
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
