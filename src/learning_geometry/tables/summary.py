"""From the tables of single seeds to estimates over seeds, with 95 % intervals."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from learning_geometry.geometry.uncertainty import (
    SMALLEST_BOOTSTRAP_SAMPLE,
    interval,
    pseudo_deviations,
    pseudo_values,
)
from learning_geometry.tables.tidy import check_table, with_other_seeds

KEY = ["experiment", "part", "quantity", "data", "null", "index", "step", "unit"]
"""The columns that tell one estimate from all others; rows are sorted by them, in this order."""

COLUMNS: dict[str, str] = {
    "experiment": "str",
    "step": "int64",
    "part": "str",
    "quantity": "str",
    "index": "int64",
    "data": "str",
    "null": "str",
    "unit": "str",
    "estimate": "float64",
    "low": "float64",
    "high": "float64",
    "n": "int64",
    "censored": "int64",
    "interval": "str",
}
"""Names, order and types of the columns of a summary table; see ``summarize``."""


def summarize(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Summarize the tidy tables of several seeds: one row per quantity, with its interval over seeds.

    - Measured values: ``estimate`` is the mean over the ``n`` seeds and [``low``, ``high``] its 95 %
      confidence interval: Student's t below 10 seeds (``interval`` "student_t"), bias-corrected and
      accelerated bootstrap from 10 on ("bca"); with one seed the bounds are NaN ("none").
    - Of an experiment that is not trained, a language model, which has one run and step 0 alone: with one seed the
      bounds are those of the run's own sampling interval, over prompts or tokens ("within_run"; ``n`` is still 1). Of a
      trained run they would pass for an interval over seeds, and are left out.
    - Events that some seed never reached: ``censored`` counts those seeds, and estimate and bounds are NaN
      ("none"), because a mean over the other seeds would be biased towards early events. If the seeds'
      events carry different steps of observation, ``step`` tells them apart: give events one common step.
    - Comparisons with other seeds, which the rows name in the column ``other_seeds``: the same, of the jackknife's
      pseudo-values (``geometry.uncertainty.pseudo_values``), as values share seeds; none for two seeds.
    - Null baselines: ``estimate`` is the mean over seeds of the null's mean, and [``low``, ``high``] the mean
      over seeds of its central 95 % range ("null_range"; "none" where a null was drawn once).

    A value that is NaN for one seed makes the estimate NaN: no seed is ever left out silently.

    Args:
        tables: tidy tables (``learning_geometry.tables.tidy``) of different seeds or experiments; those of earlier
            versions, without ``other_seeds``, as well.

    Returns:
        A table with the columns ``COLUMNS``, sorted by ``KEY``; the same for any order of ``tables``.

    Raises:
        ValueError: there is no table, a table is not tidy, a seed has the same row twice, or seeds differ in
            ``other_seeds`` of the same row.

    >>> from learning_geometry.tables.tidy import tidy
    >>> losses = [[{"step": 0, "quantity": "loss", "value": value}] for value in (1.0, 3.0)]
    >>> tables = [tidy(rows, "copying", seed) for seed, rows in enumerate(losses)]
    >>> summarize(tables)[["estimate", "low", "high", "n", "interval"]].round(2)
       estimate    low   high  n   interval
    0       2.0 -10.71  14.71  2  student_t
    """
    collected = [with_other_seeds(table) for table in tables]
    if not collected:
        raise ValueError("summarize: no tables; give the tidy table of at least one seed")
    table = pd.concat(collected, ignore_index=True)
    check_table(table)

    label = table.groupby(KEY, sort=True, dropna=False).ngroup().to_numpy()
    # sums run over seeds in one order, so that the order of the tables cannot change the last bit
    order = np.lexsort((table["seed"].to_numpy(), label))
    label = label[order]
    count = np.bincount(label)
    start = np.cumsum(count) - count
    columns = {name: table[name].to_numpy()[order] for name in ("value", "low", "high", "censored")}
    result = table[KEY].iloc[order[start]].reset_index(drop=True)
    null = (result["null"] != "").to_numpy()
    compared = _compared(table["other_seeds"].iloc[order], label, result)
    paired = compared != ""
    untrained = ~result["experiment"].isin(table.loc[table["step"] > 0, "experiment"].unique()).to_numpy()

    with np.errstate(invalid="ignore"):  # the mean of infinities of both signs is NaN, and may be
        # relative to the first seed, so that equal values have an interval of width zero
        first = columns["value"][start]
        origin = np.where(np.isfinite(first), first, 0.0)
        estimate = origin + np.bincount(label, columns["value"] - origin[label]) / count
        low, high = (np.bincount(label, columns[name]) / count for name in ("low", "high"))
        deviations = columns["value"] - estimate[label]
        for kind, seeds in {(compared[group], count[group]) for group in np.flatnonzero(paired & ~null)}:
            groups = np.flatnonzero((compared == kind) & (count == seeds) & ~null)
            places = start[groups][:, None] + np.arange(seeds)
            deviations[places] = pseudo_deviations(deviations[places], kind)
        squares = np.bincount(label, deviations**2)
        degrees = np.maximum(count - 1, 1)
        half_width = stdtrit(degrees, 0.975) * np.sqrt(squares / degrees / count)
    student = ~null & np.isfinite(estimate) & (count > np.where(paired, 2, 1)) & (count < SMALLEST_BOOTSTRAP_SAMPLE)
    within = ~null & untrained & (count == 1) & np.isfinite(low) & np.isfinite(high)
    low[~null & ~within], high[~null & ~within] = np.nan, np.nan
    low[student] = (estimate - half_width)[student]
    high[student] = (estimate + half_width)[student]
    method = np.full(len(result), "none", dtype=object)
    method[student] = "student_t"
    method[within] = "within_run"
    method[null & ~np.isnan(low) & ~np.isnan(high)] = "null_range"

    censored = np.bincount(label, columns["censored"]).astype(np.int64)
    for group in np.flatnonzero(~null & (count >= SMALLEST_BOOTSTRAP_SAMPLE) & (censored == 0)):
        values = columns["value"][start[group] : start[group] + count[group]]
        of_seeds = interval(pseudo_values(values, compared[group]))
        low[group], high[group], method[group] = of_seeds.low, of_seeds.high, of_seeds.method
    for array in (estimate, low, high):
        array[censored > 0] = np.nan
    method[censored > 0] = "none"

    result = result.assign(estimate=estimate, low=low, high=high, n=count, censored=censored, interval=method)[
        list(COLUMNS)
    ]
    return result.astype(COLUMNS)


def _compared(said: "pd.Series[str]", label: np.ndarray, result: pd.DataFrame) -> np.ndarray:
    """Return how the values of each estimate compare seeds, "" if they do not; all of its rows must say the same."""
    words = said.replace("none", "").to_numpy(dtype=object)
    first = np.flatnonzero(np.diff(label, prepend=-1))
    differ = words != words[first][label]
    if differ.any():
        row = result.iloc[label[np.argmax(differ)]].to_dict()
        place = ", ".join(f"{name} {row[name]!r}" for name in KEY if row[name] != "")
        raise ValueError(f"summarize: seeds differ in other_seeds of {place}; measure them with one version")
    return words[first]
