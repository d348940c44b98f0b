"""The difference of two measured series of the same run, over a window, against 0."""

from dataclasses import dataclass

from learning_geometry.claims.claim import Claim, Series, Window
from learning_geometry.claims.evidence import Evidence
from learning_geometry.claims.statistics import Judgement, Side, judge_mean
from learning_geometry.claims.words import series_words, window_words
from learning_geometry.geometry import rounding

ESTIMATE = "mean"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    window: Window
    other: Series
    """Is taken from the first."""
    side: Side
    quantity: Series | None = None
    """The first, instead of the claim's."""


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare the differences with 0; a floor that is estimated is the sum of both."""
    series, window = parameters.quantity or evidence.claim.quantity, parameters.window
    differences = rounding.difference(evidence.value(series, window), evidence.value(parameters.other, window))
    floor = evidence.floor(series, window)
    if isinstance(evidence.claim.floor, str):
        floor += evidence.floor(parameters.other, window)
    return judge_mean(differences, 0.0, 0.0, parameters.side, floor)


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    name, other = series_words(parameters.quantity or claim.quantity), series_words(parameters.other)
    return f"{name} minus {other}, {window_words(parameters.window)}, same run, {parameters.side} 0"
