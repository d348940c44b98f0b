"""When things happen: the first crossing of every progress measure, as events, from the tidy tables of a run."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from learning_geometry.geometry.uncertainty import half_crossing, roughness
from learning_geometry.tables.progress_measures import (
    FIRST_CROSSING,
    LAG,
    MEASURES,
    OUT,
    THRESHOLDS,
    TRANSITION,
    ProgressMeasure,
)
from learning_geometry.tables.tidy import tidy

DERIVED_FROM = ()

FEWEST_STEPS = 3
"""A curve at fewer recorded steps has no step between its ends, and so no crossing."""

ROUGHNESS_STEPS = 12
"""Fewest recorded steps from which the roughness of a curve is told from its change."""

ROUGHNESS_FACTOR = 8
"""Changes below this many standard deviations of a curve's roughness are none: then the middle between its ends is four
away from either, and of a hundred noisy values none is likely to cross it too early."""


def derive(table: pd.DataFrame) -> pd.DataFrame:
    """Find when each progress measure made half of its change, in every run by itself.

    The crossing of a curve is the first recorded step beyond the middle between its first and its last value
    (:func:`learning_geometry.geometry.uncertainty.half_crossing`), if its change exceeds all of

    - the width of the central 95 % range of its null baselines at its last step,
    - the half widths of the sampling intervals of both ends, added (for a fraction of n sequences without an interval,
      1.96 √(v (1 − v) / n)),
    - ``ROUGHNESS_FACTOR`` times its own roughness, if there are at least ``ROUGHNESS_STEPS`` recorded steps.

    Otherwise nothing happened by the last step, and the event is right-censored. A curve recorded at fewer than
    ``FEWEST_STEPS`` steps has no event. Rows, all in steps, with the part,
    index and data of their measure, at the experiment's last step:

    - ``first_crossing_of_<quantity>``: the crossing; [low, high] = the recorded step before it and it: the change was
      half made at some step between them, so that high − low is the event's resolution. Null ``even_drift``: the
      crossing of a straight line recorded at the same steps, about half of training; it only depends on the steps.
    - ``lag_of_<event>``: the event's step minus the step of the same run's transition (``first_step_below_0.5``, out
      of distribution), for each crossing and each other ``first_step_below_<threshold>``. Censored if either is. A mean
      over seeds of these paired differences, and its interval, say which of two events comes first.

    Args:
        table: the tidy rows of one experiment, of every measurement and seed.

    Returns:
        Tidy rows.
    """
    made = [
        tidy(_of_run(run, int(of_experiment["step"].max())), str(experiment), int(run["seed"].iloc[0]), "none")
        for experiment, of_experiment in table.groupby("experiment", sort=True)
        for _, run in of_experiment.groupby("seed", sort=True)
    ]
    return pd.concat(made, ignore_index=True) if made else tidy([], "none", 0)


def _of_run(run: pd.DataFrame, last: int) -> list[dict[str, Any]]:
    here = {"step": last, "unit": "steps"}
    crossings_of_run = [event | here for measure in MEASURES for event in _events(run, measure)]
    names = [name for name in run["quantity"].unique() if name.startswith(THRESHOLDS)]
    thresholds = run[run["quantity"].isin(names) & (run["null"] == "")].to_dict("records")
    transitions = [row for row in thresholds if row["quantity"] == TRANSITION and row["data"] == OUT]
    lags: list[dict[str, Any]] = []
    for transition in transitions:
        others = [row for row in thresholds if row is not transition]
        for event in [event for event in crossings_of_run if "null" not in event] + others:
            # a transition that did not happen leaves no time to count from
            since = event["value"] - transition["value"] if not transition["censored"] else np.nan
            lag = here | {name: event[name] for name in ("part", "index", "data", "n")}
            lag |= {"value": float(since), "censored": bool(event["censored"] or transition["censored"])}
            lags.append(lag | {"quantity": LAG + event["quantity"]})
    return crossings_of_run + lags


def _events(run: pd.DataFrame, measure: ProgressMeasure) -> Iterator[dict[str, Any]]:
    """Yield the crossing of every curve of a measure, and what an even drift would have."""
    rows = measure.rows(run)
    if measure.largest_of is not None:
        rows = rows.sort_values("value", kind="stable").drop_duplicates("step", keep="last")
        rows = rows.assign(index=measure.largest_of[0])
    for _, curve in rows.groupby(["part", "index"], sort=True):
        curve = curve.sort_values("step")
        part, index = curve[["part", "index"]].iloc[0]
        steps, values = curve["step"].to_numpy(), curve["value"].to_numpy()
        if len(steps) < FEWEST_STEPS:
            continue
        noise = max(_null_width(run, measure, curve), _sampling_width(curve), _rough(values))
        event = {"part": str(part), "index": int(index), "data": measure.data, "n": int(curve["n"].iloc[-1])}
        event |= {"quantity": FIRST_CROSSING + measure.quantity}
        crossing = half_crossing(steps, values, noise)
        bounds = {} if crossing.censored else {"low": _before(steps, crossing.step), "high": crossing.step}
        yield event | {"value": crossing.step, "censored": crossing.censored} | bounds
        drift = half_crossing(steps, steps.astype(np.float64)).step
        yield event | {"value": drift, "null": "even_drift", "n": 1, "censored": False}


def _before(steps: np.ndarray, step: float) -> float:
    return float(steps[max(int(np.searchsorted(steps, step)) - 1, 0)])


def _null_width(run: pd.DataFrame, measure: ProgressMeasure, curve: pd.DataFrame) -> float:
    last = curve.iloc[-1]
    name = measure.null_of or measure.quantity
    chosen = (run["quantity"] == name) & (run["null"] != "") & (run["data"] == measure.data)
    chosen &= (run["part"] == last["part"]) & (run["step"] == last["step"])
    if measure.largest_of is None:
        chosen &= run["index"] == last["index"]
    else:
        chosen &= run["index"].between(*measure.largest_of)
    widths = (run.loc[chosen, "high"] - run.loc[chosen, "low"]).dropna()
    return float(widths.max()) if len(widths) else 0.0


def _sampling_width(curve: pd.DataFrame) -> float:
    ends = curve.iloc[[0, -1]]
    known = (ends["high"] - ends["low"]).to_numpy() / 2
    share, n = ends["value"].clip(0, 1).to_numpy(), ends["n"].to_numpy()
    counted = (ends["unit"] == "fraction").to_numpy() & (n > 1)
    binomial = np.where(counted, 1.96 * np.sqrt(share * (1 - share) / np.maximum(n, 1)), 0.0)
    return float(np.where(np.isnan(known), binomial, known).sum())


def _rough(values: np.ndarray) -> float:
    if len(values) < ROUGHNESS_STEPS:
        return 0.0
    return ROUGHNESS_FACTOR * roughness(values)
