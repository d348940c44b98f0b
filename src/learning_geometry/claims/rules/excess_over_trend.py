"""A change from one window to another, against the trend before it, continued, in the same run."""

from dataclasses import dataclass

from learning_geometry.claims.claim import Claim, Window
from learning_geometry.claims.evidence import Evidence
from learning_geometry.claims.statistics import Judgement, Side, judge_mean
from learning_geometry.claims.words import series_words, window_words
from learning_geometry.geometry import rounding

ESTIMATE = "mean"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    early: Window
    """Where the trend begins; it ends at ``start``."""
    start: Window
    stop: Window
    side: Side


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare the excess with 0.

    With f the mean over a window and m its middle: f(stop) − f(start) − (f(start) − f(early)) ·
    (m(stop) − m(start)) / (m(start) − m(early)).
    """
    series, windows = evidence.claim.quantity, (parameters.early, parameters.start, parameters.stop)
    early, start, stop = windows
    middle = [(window.start + window.stop) / 2 for window in windows]
    factor = (middle[2] - middle[1]) / (middle[1] - middle[0])
    first, second, third = (evidence.value(series, window) for window in windows)
    floor = evidence.floor(series, start, stop) + factor * evidence.floor(series, early, start)
    trend = factor * rounding.difference(second, first)
    excess = rounding.difference(rounding.difference(third, second), trend)
    return judge_mean(excess, 0.0, 0.0, parameters.side, floor)


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    early, start, stop = map(window_words, (parameters.early, parameters.start, parameters.stop))
    return (
        f"{series_words(claim.quantity)}, change from {start} to {stop}, minus what the trend since {early} predicts, "
        f"same run, {parameters.side} 0"
    )
