"""The share of layers of a language model in which a number is away from 0 by more than a margin, against one half."""

from dataclasses import dataclass

import numpy as np

from learning_geometry.claims.claim import Claim, Series
from learning_geometry.claims.evidence import Evidence
from learning_geometry.claims.statistics import Judgement, exceeds, judge_mean, judge_shown
from learning_geometry.claims.words import series_words, taken_as_independent

ESTIMATE = "share"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    margin: float
    quantity: Series | None = None
    """Instead of the claim's."""
    first: int = 0
    """Layers before this are left out."""


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare the share of layers of one model; or, of a claim across models, the mean of the models' shares.

    A layer shows it if its whole interval lies on one side of ± the margin, and the contrary if all of it lies between;
    otherwise it shows neither.
    """
    evidence.counts("layer", "model")
    margin, floor = parameters.margin, evidence.number_floor()
    series = parameters.quantity or evidence.claim.quantity
    judgements, missing = {}, evidence.unobserved(series)
    for model, of_layer in evidence.layers(series).items():
        rows = [each for layer, each in of_layer.items() if layer >= parameters.first]
        low, high = (np.array([getattr(each, end) for each in rows]) for end in ("low", "high"))
        seen = np.isfinite(low) & np.isfinite(high)
        outside = exceeds(low, margin) | exceeds(-margin, high)
        inside = exceeds(low, -margin) & exceeds(margin, high)
        judgements[model] = judge_shown(outside[seen], inside[seen], len(rows), floor)
    if evidence.claim.unit == "model":
        shares = evidence.per_model({model: judgement.estimate for model, judgement in judgements.items()})
        return judge_mean(shares, 0.5, 0.5, "above", 0.0)._replace(missing=missing)
    (judgement,) = judgements.values()
    return judgement._replace(missing=missing)


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    name = series_words(parameters.quantity or claim.quantity)
    where = f" from layer {parameters.first} on" if parameters.first else ""
    shown = f"whose interval of {name} lies outside ±{parameters.margin:g}, above one half"
    return f"share of layers{where} {shown}{taken_as_independent(claim)}"
