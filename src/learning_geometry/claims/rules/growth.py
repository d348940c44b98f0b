"""The growth of a positive quantity between two moments, against 0 or that of another series."""

from dataclasses import dataclass, replace

import numpy as np

from learning_geometry.claims.claim import Claim, Series
from learning_geometry.claims.evidence import NAN, Evidence
from learning_geometry.claims.statistics import Judgement, Side, judge_mean
from learning_geometry.claims.words import series_words

ESTIMATE = "mean"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    start: int
    """A moment: an index of the series, percent of the event's step, with one row."""
    stop: int
    """The later moment."""
    side: Side
    against: Series | None = None
    """The series whose growth is taken off: factors of size, such as the number of parameters of a block, cancel."""


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare log(value(stop) / value(start)) of each run, minus the same of ``against``, with 0.

    The floor "estimator_error" is the sum of all relative half widths. A moment that a run did not reach, or a value
    that is not positive, is not observed.

    Raises:
        ValueError: the claim's floor is another word.
    """
    total = dict.fromkeys(evidence.runs, 0.0)
    error = dict.fromkeys(evidence.runs, 0.0)
    against = ((parameters.against, -1),) if parameters.against else ()
    for series, sign in ((evidence.claim.quantity, 1), *against):
        for index, direction in ((parameters.stop, 1), (parameters.start, -1)):
            curves = evidence.curves(replace(series, index=index))
            for run in evidence.runs:
                _, value, low, high, _ = (float(field[-1]) for field in curves[run])
                total[run] += sign * direction * (np.log(value) if value > 0 else NAN)
                error[run] += (high - low) / (2 * value) if value > 0 else NAN
    kind = evidence.claim.floor
    if isinstance(kind, str) and kind != "estimator_error":
        raise ValueError(
            f'{evidence.claim.name}: the floor {kind!r} is unknown here; use a number or "estimator_error"'
        )
    observed = [each for each in error.values() if np.isfinite(each)]
    floor = max(observed, default=NAN) if isinstance(kind, str) else float(kind)
    return judge_mean(evidence.per_unit(total), 0.0, 0.0, parameters.side, floor)


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    against = f", minus that of {series_words(parameters.against)}" if parameters.against else ""
    moments = f"from {parameters.start} % to {parameters.stop} % of t"
    return f"log ratio of {series_words(claim.quantity)} {moments}{against}, same run, {parameters.side} 0"
