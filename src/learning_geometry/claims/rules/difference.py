"""The mean of a curve over a window, against that of the reference experiments, seed by seed."""

from dataclasses import dataclass

import numpy as np

from learning_geometry.claims.claim import Claim, Series, Window
from learning_geometry.claims.evidence import NAN, Evidence
from learning_geometry.claims.statistics import Judgement, Side, judge_mean
from learning_geometry.claims.words import series_words, window_words, within_or_beyond_zero, words
from learning_geometry.geometry import rounding

ESTIMATE = "mean"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    window: Window
    side: Side
    margin: float | None = None
    """The difference is to be within ± this."""
    quantity: Series | None = None
    """Instead of the claim's."""


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare each run's value minus the mean of the reference runs of the same seed with 0, or with ± the margin.

    A seed that no reference experiment has is not observed.
    """
    series, reference = parameters.quantity or evidence.claim.quantity, evidence.reference
    evidence.of_single_seeds(series)
    reference.of_single_seeds(series)
    values, theirs = evidence.in_window(series, parameters.window), reference.in_window(series, parameters.window)
    by_run = {}
    for run in evidence.runs:
        same_seed = [float(theirs[other].values[0]) for other in reference.runs if other[1] == run[1]]
        of_seed = float(np.mean(same_seed)) if same_seed else NAN
        by_run[run] = float(rounding.difference(values[run].values[0], of_seed))
    floor = evidence.floor(series, parameters.window)
    if isinstance(evidence.claim.floor, str):
        floor += reference.floor(series, parameters.window)
    margin = parameters.margin or 0.0
    return judge_mean(evidence.per_unit(by_run), -margin, margin, parameters.side, floor)


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    name, window = series_words(parameters.quantity or claim.quantity), window_words(parameters.window)
    limit = within_or_beyond_zero(parameters.side, parameters.margin)
    return f"{name}, {window}, minus the mean of the same seed in {words(claim.reference)} experiments, {limit}"
