"""One number of a language model, with its own 95 % interval over prompts, against a threshold or a null."""

from dataclasses import dataclass

import numpy as np

from learning_geometry.claims.claim import Claim, Series
from learning_geometry.claims.curves import null_end
from learning_geometry.claims.evidence import Evidence
from learning_geometry.claims.statistics import Judgement, Side, judge_mean, judge_measured
from learning_geometry.claims.words import series_words, words

ESTIMATE = "mean"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    side: Side
    baseline: str
    """The null's name in the tables, whose central 95 % range counts if there is no threshold."""
    threshold: float | None = None
    margin: float | None = None
    """About the threshold; "within" takes ± this."""
    quantity: Series | None = None
    """Instead of the claim's."""
    floor: float | None = None
    """Instead of the claim's, in rows of a quantity of another kind."""


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare the number of one model; or, of a claim across models, the models' numbers, each one unit.

    The p values take the estimate to be normal, with the interval's width over 3.92 as its standard error.
    """
    evidence.counts("prompt", "model")
    series, side = parameters.quantity or evidence.claim.quantity, parameters.side
    floor = evidence.number_floor() if parameters.floor is None else parameters.floor
    by_model = evidence.measured(series)
    if parameters.threshold is not None:
        margin = parameters.margin or 0.0
        low, high = parameters.threshold - margin, parameters.threshold + margin
    else:
        of_null = evidence.measured(series, parameters.baseline).items()
        ends = ({model: null_end(each, end) for model, each in of_null} for end in ("below", "above"))
        low, high = (float(np.mean(evidence.per_model(end))) for end in ends)
    if evidence.claim.unit == "model":
        values = evidence.per_model({model: each.value for model, each in by_model.items()})
        return judge_mean(values, low, high, side, floor)
    ((value, its_low, its_high, n, _),) = by_model.values()
    return judge_measured(value, its_low, its_high, n, low, high, side, floor)


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    name, side = series_words(parameters.quantity or claim.quantity), parameters.side
    if parameters.threshold is None:
        return f"{name}, {side} the central 95 % range of {words(parameters.baseline)}; p normal"
    limit = f"{parameters.threshold:g}" + (f" ± {parameters.margin:g}" if parameters.margin else "")
    return f"{name}, {side} {limit}; p normal"
