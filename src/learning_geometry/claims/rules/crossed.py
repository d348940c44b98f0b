"""The share of units in which an event happened, against one half."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from learning_geometry.claims.claim import Claim, Series
from learning_geometry.claims.evidence import Evidence
from learning_geometry.claims.statistics import Judgement, judge_share
from learning_geometry.claims.words import words

ESTIMATE = "share"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    event: Series
    side: Literal["above", "below"]
    reference: bool = False
    """Count the runs of the reference experiments."""


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare the share with one half; of a model, it happened if it did in all of its seeds.

    Raises:
        ValueError: the side is neither above nor below.
    """
    if parameters.reference:
        evidence = evidence.reference
    if parameters.side not in ("above", "below"):
        raise ValueError(f'{evidence.claim.name}: a share is "above" or "below" one half')
    events = evidence.events(parameters.event)
    happened = evidence.per_unit({run: float(np.isfinite(events[run].step)) for run in evidence.runs})
    return judge_share(happened == 1.0, len(happened), parameters.side)


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    where = f" ({words(parameters.event.data)})" if parameters.event.data else ""
    units = f"{words(claim.reference)} units" if parameters.reference else "units"
    return f"share of {units} that reach {parameters.event.quantity}{where}, {parameters.side} one half"
