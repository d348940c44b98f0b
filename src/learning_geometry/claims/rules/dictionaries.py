"""Two dictionaries of a dictionary sweep, one against the other, seed by seed."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from learning_geometry.claims.claim import Claim, Series
from learning_geometry.claims.evidence import NAN, Evidence
from learning_geometry.claims.statistics import Judgement, judge_mean
from learning_geometry.claims.words import series_words, words
from learning_geometry.geometry import rounding

ESTIMATE = "mean"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    other: Series
    """Of the other dictionary, which is taken off."""
    side: Literal["above", "below"]
    margin: float = 0.0
    """The difference is to be above minus this, or below this."""
    quantity: Series | None = None
    """Instead of the claim's."""


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare the differences; a number of a seed is the mean over the layers in which dictionaries were trained."""
    evidence.counts("seed")
    values = evidence.dictionaries(parameters.quantity or evidence.claim.quantity)
    others = evidence.dictionaries(parameters.other)
    differences = np.array(
        [
            float(rounding.difference(value.value, others[run].value if run in others else NAN))
            for run, value in values.items()
        ]
    )
    limit = -parameters.margin if parameters.side == "above" else parameters.margin
    return judge_mean(differences, limit, limit, parameters.side, evidence.number_floor())


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    name, side = series_words(parameters.quantity or claim.quantity), parameters.side
    sign = "−" if side == "above" and parameters.margin else ""
    return f"{name} minus that of {words(parameters.other.data)}, same seed, {side} {sign}{parameters.margin:g}"
