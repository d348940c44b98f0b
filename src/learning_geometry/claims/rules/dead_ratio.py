"""The ratio of the shares of dead latents of two dictionaries of a dictionary sweep, seed by seed, against a number."""

from dataclasses import dataclass

import numpy as np

from learning_geometry.claims.claim import Claim, Series
from learning_geometry.claims.evidence import NAN, Evidence
from learning_geometry.claims.statistics import Judgement, judge_mean, mean_of_observed, nothing
from learning_geometry.claims.words import series_words, words

ESTIMATE = "mean"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say."""

    other: Series
    """Of the dictionary whose share of dead latents is cut."""
    most: float
    """The ratio is to be below this."""
    fewest_dead: float
    """No evidence unless the share of the other is at least this in the mean: of few there is nothing to cut."""
    quantity: Series | None = None
    """Instead of the claim's."""


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare the ratios with ``most``; the floor is one latent of those that are dead in the other dictionary."""
    evidence.counts("seed")
    values = evidence.dictionaries(parameters.quantity or evidence.claim.quantity)
    others = evidence.dictionaries(parameters.other)
    dead = {run: others[run].value if run in others else NAN for run in values}
    ratios = np.array([value.value / dead[run] if dead[run] > 0 else NAN for run, value in values.items()])
    one_latent = [1 / (others[run].at * dead[run]) for run in values if dead[run] > 0 and others[run].at]
    share = mean_of_observed(np.array(list(dead.values())))
    if not share >= parameters.fewest_dead:
        dictionary = words(parameters.other.data)
        reason = f"{share:.3g} of the latents of {dictionary} are dead, fewer than {parameters.fewest_dead:g}"
        return nothing(reason, len(ratios), "below")
    return judge_mean(ratios, parameters.most, parameters.most, "below", max(one_latent, default=NAN))


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    name, dictionary = series_words(parameters.quantity or claim.quantity), words(parameters.other.data)
    return (
        f"{name} over that of {dictionary}, same seed, below {parameters.most:g}; only if the latter is at least "
        f"{parameters.fewest_dead:g}"
    )
