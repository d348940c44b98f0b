"""Timing two functions in turn, so that both meet the same load, clock speed and cache."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

COLUMNS = ["benchmark", "peer", "ours", "theirs", "unit", "ratio", "spread"]


class Case(NamedTuple):
    """What is timed: our function and a peer doing the same work, without arguments.

    ``parts``: None if each call does the whole work; else the number of calls that make it up, such as one per
    checkpoint, whatever number of rounds is asked for.
    """

    benchmark: str
    peer: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    parts: int | None = None


class Count(NamedTuple):
    """What is counted or measured once instead of timed; asked for after all cases before it were timed."""

    benchmark: str
    peer: str
    ours: Callable[[], float]
    theirs: Callable[[], float]
    unit: str


def row(case: Case | Count, rounds: int) -> dict[str, object]:
    """Return the row of the table: timed or counted."""
    if isinstance(case, Case):
        return compare(case, rounds)
    ours, theirs = case.ours(), case.theirs()
    values = [case.benchmark, case.peer, ours, theirs, case.unit, ours / theirs, float("nan")]
    return dict(zip(COLUMNS, values, strict=True))


def compare(case: Case, rounds: int) -> dict[str, object]:
    """Time both functions of a case in turn, ``rounds`` times each, and return a row of the table.

    ``ours`` and ``theirs`` are medians, or sums over the parts of a case that has any, and ``ratio`` is ours /
    theirs; ``spread`` is the interquartile range of the ratios of neighbouring timings. Which of the two goes first
    alternates; two more rounds come first and do not count, except with parts.
    """
    pair = (case.ours, case.theirs)
    unmeasured, summary = (2, np.median) if case.parts is None else (0, np.sum)
    rounds = case.parts or rounds
    seconds = np.empty((rounds + unmeasured, 2))
    for round_ in range(rounds + unmeasured):
        for which in (0, 1) if round_ % 2 else (1, 0):
            start = time.perf_counter()
            pair[which]()
            seconds[round_, which] = time.perf_counter() - start
    seconds = seconds[unmeasured:]
    ours, theirs = 1e3 * summary(seconds, axis=0)
    low, high = np.quantile(seconds[:, 0] / seconds[:, 1], [0.25, 0.75])
    values = [case.benchmark, case.peer, ours, theirs, "ms", ours / theirs, high - low]
    return dict(zip(COLUMNS, values, strict=True))
