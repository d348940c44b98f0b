"""When a run fits, when it generalises, and whether the commutator defect rose before: events from the tidy tables."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from learning_geometry.geometry.uncertainty import first_crossing
from learning_geometry.tables.tidy import tidy

DERIVED_FROM = ("running_error",)

HELD_OUT, TRAINING_PAIRS = "held_out_pairs", "training_pairs"
"""Test sets of tasks on which a run can grok."""

GROK_ERROR, FIT_ERROR = 0.1, 0.01
"""A run has generalised, or fits, at the first evaluation with an error below this."""

BASELINE_VALUES = 3
"""The defect's baseline is the median of this many first values; the last of them can already be the crossing."""

CROSSING_FACTOR, CROSSING_DEFECT = 10.0, 20.0
"""The defect has risen when it exceeds this many times its baseline, and this value."""


class _Event(NamedTuple):
    """When something happened: at some step after ``before``, up to ``step``; if censored, not by ``step``."""

    step: float
    before: float
    censored: bool

    def columns(self) -> dict[str, Any]:
        bounds = {} if self.censored else {"low": self.before, "high": self.step}
        return {"value": self.step, "censored": self.censored} | bounds


def derive(table: pd.DataFrame) -> pd.DataFrame:
    """Find when each run fitted its training pairs, generalised, and showed the early warning, in steps.

    Only of runs that training evaluated on ``held_out_pairs``. Rows, part ``model``, at the experiment's last step;
    [low, high] = the recorded step before the event and it, between which it happened:

    - ``grok_step``: the first evaluation with a ``running_error`` on held-out pairs below ``GROK_ERROR``, and
      ``fit_step``: on training pairs below ``FIT_ERROR``. Right-censored if that has not come by the last one.

    If the run has ``commutator_defect`` at ``BASELINE_VALUES`` steps or more, also:

    - ``defect_crossing_step``: the first measured step, from the third on, whose defect is above ``CROSSING_FACTOR``
      times the median of the first three and above ``CROSSING_DEFECT``; right-censored if there is none.
    - ``grok_lead``: grok_step − defect_crossing_step, positive where the defect rose first. Censored if either is: NaN
      without a crossing, else a lower bound.
    - ``defect_crossing_before_grok``: the crossing again, if the run had not grokked by then; right-censored if
      it had, or without a crossing. So it happened, or not, also in runs whose lead is censored.
    - ``false_alarm`` (a fraction, over seeds): 1 if the defect rose and the run did not grok by its last step, else 0.

    The defect's rule is that of the published code: Xu (arXiv 2602.16746); .9 accuracy is its threshold for grokking.

    Args:
        table: the tidy rows of one experiment, of every measurement and seed.

    Returns:
        Tidy rows; none if no run has held-out pairs.
    """
    made = [
        tidy(_of_run(run, int(of_experiment["step"].max())), str(experiment), int(run["seed"].iloc[0]), "none")
        for experiment, of_experiment in table.groupby("experiment", sort=True)
        for _, run in of_experiment.groupby("seed", sort=True)
    ]
    return pd.concat(made, ignore_index=True) if made else tidy([], "none", 0)


def _of_run(run: pd.DataFrame, last: int) -> Iterator[dict[str, Any]]:
    here = {"step": last, "unit": "steps"}
    grok = _falls_below(_curve(run, "running_error", HELD_OUT), GROK_ERROR)
    if grok is None:
        return
    yield here | {"quantity": "grok_step"} | grok.columns()
    fit = _falls_below(_curve(run, "running_error", TRAINING_PAIRS), FIT_ERROR)
    if fit is not None:
        yield here | {"quantity": "fit_step"} | fit.columns()
    crossing = _defect_crossing(_curve(run, "commutator_defect", "training"))
    if crossing is None:
        return
    yield here | {"quantity": "defect_crossing_step"} | crossing.columns()
    # each happened after one step and by another, and so did what lies between them
    lead = {
        "value": np.nan if crossing.censored else grok.step - crossing.step,
        "censored": grok.censored or crossing.censored,
    }
    if not lead["censored"]:
        lead |= {"low": grok.before - crossing.step, "high": grok.step - crossing.before}
    yield here | {"quantity": "grok_lead"} | lead
    warned = not crossing.censored and (grok.censored or crossing.step < grok.step)
    yield (
        here
        | {"quantity": "defect_crossing_before_grok"}
        | crossing._replace(step=crossing.step if warned else float(last), censored=not warned).columns()
    )
    yield here | {
        "quantity": "false_alarm",
        "value": float(grok.censored and not crossing.censored),
        "unit": "fraction",
    }


def _curve(run: pd.DataFrame, quantity: str, data: str) -> pd.DataFrame:
    chosen = (run["quantity"] == quantity) & (run["null"] == "") & (run["part"] == "model") & (run["data"] == data)
    return run[chosen].sort_values("step")


def _falls_below(curve: pd.DataFrame, threshold: float) -> _Event | None:
    if curve.empty:
        return None
    steps = curve["step"].to_numpy()
    crossing = first_crossing(steps, curve["value"].to_numpy(), threshold)
    return _event(steps, crossing.step, crossing.censored)


def _defect_crossing(curve: pd.DataFrame) -> _Event | None:
    if len(curve) < BASELINE_VALUES:
        return None
    steps, defects = curve["step"].to_numpy(), curve["value"].to_numpy()
    limit = max(CROSSING_FACTOR * float(np.median(defects[:BASELINE_VALUES])), CROSSING_DEFECT)
    later = slice(BASELINE_VALUES - 1, None)
    crossing = first_crossing(steps[later], defects[later], limit, "above")
    return _event(steps, crossing.step, crossing.censored)


def _event(steps: np.ndarray, step: float, censored: bool) -> _Event:
    return _Event(step, float(steps[max(int(np.searchsorted(steps, step)) - 1, 0)]), censored)
