"""Timing two functions in turn, so that both meet the same load, clock speed and cache."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

COLUMNS = ["benchmark", "peer", "ours", "theirs", "unit", "ratio", "spread"]


class Case(NamedTuple):
    """What is timed: our function and a peer doing the same work, without arguments."""

    benchmark: str
    peer: str
    ours: Callable[[], object]
    theirs: Callable[[], object]


def compare(case: Case, rounds: int) -> dict[str, object]:
    """Time both functions of a case in turn, ``rounds`` times each, and return a row of the table.

    ``ours`` and ``theirs`` are medians and ``ratio`` is ours / theirs; ``spread`` is the interquartile range
    of the ratios of neighbouring timings. Which of the two goes first alternates; two more rounds come first
    and do not count.
    """
    pair = (case.ours, case.theirs)
    seconds = np.empty((rounds + 2, 2))
    for round_ in range(rounds + 2):
        for which in (0, 1) if round_ % 2 else (1, 0):
            start = time.perf_counter()
            pair[which]()
            seconds[round_, which] = time.perf_counter() - start
    seconds = seconds[2:]
    ours, theirs = 1e3 * np.median(seconds, axis=0)
    low, high = np.quantile(seconds[:, 0] / seconds[:, 1], [0.25, 0.75])
    values = [case.benchmark, case.peer, ours, theirs, "ms", ours / theirs, high - low]
    return dict(zip(COLUMNS, values, strict=True))
