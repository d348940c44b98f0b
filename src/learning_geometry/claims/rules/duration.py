"""The time from a first event to a second, against the time from step 0 to the first."""

from dataclasses import dataclass

from learning_geometry.claims.claim import Claim, Series
from learning_geometry.claims.curves import largest_spacing
from learning_geometry.claims.evidence import Evidence
from learning_geometry.claims.statistics import Judgement, judge_mean

ESTIMATE = "time"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    first: Series
    """The first event."""
    second: Series
    """The second."""
    grid: Series
    """The curve whose crossings the events are: each crossing is known up to the spacing of its steps."""


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare (t₂ − t₁) − t₁ steps with 0: below it, in every run that reaches both.

    The floor is twice the spacing of the steps of ``grid``.
    """
    early, late = evidence.events(parameters.first), evidence.events(parameters.second)
    by_run = {run: late[run].step - 2 * early[run].step for run in evidence.runs}
    spacing = largest_spacing([evidence.curves(parameters.grid)[run].steps for run in evidence.runs])
    return judge_mean(evidence.per_unit(by_run), 0.0, 0.0, "below", 2 * spacing, each=True)


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    first, second = parameters.first.quantity, parameters.second.quantity
    return f"({second} − {first}) − {first}, same run, below 0 in every run that reaches both"
