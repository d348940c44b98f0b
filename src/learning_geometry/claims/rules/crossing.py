"""When a curve rises, against the claim's event in the same run."""

from dataclasses import dataclass

from learning_geometry.claims.claim import Claim
from learning_geometry.claims.curves import Curve, largest_spacing
from learning_geometry.claims.evidence import NAN, Evidence
from learning_geometry.claims.statistics import UNOBSERVED, Judgement, exceeds, judge_mean, nothing
from learning_geometry.claims.words import series_words
from learning_geometry.geometry.uncertainty import half_crossing

ESTIMATE = "mean"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    margin: float
    """Crossing / event − 1 is to be within ± this."""


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare crossing / event − 1 of each run with ± the margin.

    The crossing is the first recorded step at which the curve is above the middle between its first and its last
    value. A curve that does not rise has none, and counts as not observed. The floor is the larger spacing of
    recorded steps, of the curve and of the event, over the event's step.
    """
    curves, events = evidence.curves(evidence.claim.quantity), evidence.events(evidence.claim.event)
    by_run = {run: _crossing(curves[run]) / events[run].step - 1 for run in evidence.runs}
    steps = [events[run].step for run in evidence.runs if events[run].step > 0]
    if not steps:
        return nothing(UNOBSERVED, len(evidence.per_unit(by_run)), "within")
    floor = largest_spacing([curves[run].steps for run in evidence.runs]) / min(steps)
    return judge_mean(evidence.per_unit(by_run), -parameters.margin, parameters.margin, "within", floor)


def _crossing(curve: Curve) -> float:
    return half_crossing(curve.steps, curve.values).step if exceeds(curve.values[-1], curve.values[0]) else NAN


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    return f"(step of half rise of {series_words(claim.quantity)}) / t − 1, same run, within ±{parameters.margin:g}"
