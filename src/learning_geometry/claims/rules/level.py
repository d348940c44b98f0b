"""The mean of a curve over a window, against a threshold or a null of the tables."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from learning_geometry.claims.claim import Claim, Series, Window
from learning_geometry.claims.evidence import Evidence
from learning_geometry.claims.statistics import UNOBSERVED, Judgement, Side, judge_mean, nothing
from learning_geometry.claims.words import series_words, window_words, within_or_beyond_zero, words
from learning_geometry.geometry import rounding

ESTIMATE = "mean"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    window: Window
    side: Side
    baseline: str
    """The null's name in the tables."""
    threshold: float | None = None
    """Compare the values themselves with this, and with no null."""
    paired: bool = False
    """Compare the difference from the null's mean in the same run with 0."""
    margin: float | None = None
    """If paired: the difference is to be within ± this."""
    limit: Literal["low", "high"] | None = None
    """Take that end of the null's range alone: "below" its high end is not above the null."""
    quantity: Series | None = None
    """Instead of the claim's."""
    reference: Series | None = None
    """The series whose null it is, if not the same."""


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare with the threshold; or else with the null's rows of the same series, over the same window.

    The values are compared with the null's central 95 % range, averaged over runs, or, if paired, with its mean in the
    same run; the estimator's error is then that of both.
    """
    series, window, side = parameters.quantity or evidence.claim.quantity, parameters.window, parameters.side
    values, floor = evidence.value(series, window), evidence.floor(series, window)
    if parameters.threshold is not None:
        return judge_mean(values, parameters.threshold, parameters.threshold, side, floor)
    reference = parameters.reference or series
    if parameters.paired:
        return _judge_paired(evidence, parameters, reference, values, floor)
    points = evidence.in_window(reference, window, parameters.baseline)
    observed = [points[run] for run in evidence.runs if np.isfinite(points[run].values[0])]
    if not observed:
        return nothing(UNOBSERVED, len(values), side)
    low, high = (float(np.mean([point[field][0] for point in observed])) for field in (2, 3))
    if parameters.limit is not None:
        low = high = low if parameters.limit == "low" else high
    return judge_mean(values, low, high, side, floor)


def _judge_paired(
    evidence: Evidence, parameters: Parameters, reference: Series, values: Float[np.ndarray, " units"], floor: float
) -> Judgement:
    null, margin = parameters.baseline, parameters.margin or 0.0
    differences = rounding.difference(values, evidence.value(reference, parameters.window, null))
    if evidence.claim.floor == "estimator_error":  # of both; a null without an interval is exact
        of_null = evidence.floor(reference, parameters.window, null=null)
        floor += of_null if np.isfinite(of_null) else 0.0
    return judge_mean(differences, -margin, margin, parameters.side, floor)


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    where = f"{series_words(parameters.quantity or claim.quantity)}, {window_words(parameters.window)}"
    if parameters.threshold is not None:
        return f"{where}, {parameters.side} {parameters.threshold:g}"
    null = words(parameters.baseline)
    if parameters.paired:
        limit = within_or_beyond_zero(parameters.side, parameters.margin)
        return f"{where}, minus {null} in the same run, {limit}"
    end = f"the {parameters.limit} end of " if parameters.limit else ""
    return f"{where}, {parameters.side} {end}the central 95 % range of {null}"
