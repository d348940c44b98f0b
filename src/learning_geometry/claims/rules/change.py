"""The change of a curve from one window to another, in the same run, against 0."""

from dataclasses import dataclass

from learning_geometry.claims.claim import Claim, Series, Window
from learning_geometry.claims.evidence import Evidence
from learning_geometry.claims.statistics import Judgement, Side, judge_mean
from learning_geometry.claims.words import series_words, window_words, words
from learning_geometry.geometry import rounding

ESTIMATE = "mean"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    start: Window
    stop: Window
    side: Side
    quantity: Series | None = None
    """Instead of the claim's."""
    baseline: str | None = None
    """Name of a null in the tables; the change of its mean is then taken off."""
    reference: Series | None = None
    """The series whose null it is, if not the same."""


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare the changes, or their differences from the null's, with 0."""
    series, start, stop = parameters.quantity or evidence.claim.quantity, parameters.start, parameters.stop
    differences = rounding.difference(evidence.value(series, stop), evidence.value(series, start))
    if parameters.baseline is not None:
        of_null = parameters.reference or series
        null_differences = rounding.difference(
            evidence.value(of_null, stop, parameters.baseline), evidence.value(of_null, start, parameters.baseline)
        )
        differences = rounding.difference(differences, null_differences)
    return judge_mean(differences, 0.0, 0.0, parameters.side, evidence.floor(series, start, stop))


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    name = series_words(parameters.quantity or claim.quantity)
    if parameters.baseline:
        name = f"{name} minus {words(parameters.baseline)}"
    windows = f"from {window_words(parameters.start)} to {window_words(parameters.stop)}"
    return f"{name}, {windows}, same run, {parameters.side} 0"
