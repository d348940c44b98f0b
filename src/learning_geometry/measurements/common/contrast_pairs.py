"""What measurements of contrastive prompts share: the streams, the draws over contrast pairs, and their intervals.

Resamples draw both prompts of a pair together, and a contrast has one set of resamples and of swapped labellings for
all layers, streams and measurements: differences between them are paired over prompts.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64, Int64, Real
from scipy.special import stdtrit

from learning_geometry.geometry.resampling import Resampled, bca_ends, bootstrap_counts, resampled
from learning_geometry.geometry.rounding import deviations, difference
from learning_geometry.geometry.uncertainty import SMALLEST_BOOTSTRAP_SAMPLE
from learning_geometry.geometry.untangling import swapped_pairs
from learning_geometry.seeding import seeded

if TYPE_CHECKING:
    from learning_geometry.measurements.common.language_run import LanguageRun

STREAMS = PRE, MID = ("residual_pre", "residual_mid")
"""The residual stream of every layer before its attention and before its MLP."""

FEWEST_LAYERS = 3
"""Of a model whose layers can be divided into a first, a middle and a last third."""


def stream_names(run: "LanguageRun", which: str) -> list[str]:
    """Return the names of one of ``STREAMS`` by layer, from 0."""
    return [f"layers.{layer}.{which}" for layer in range(layers_of(run))]


def layers_of(run: "LanguageRun") -> int:
    """Return the number of layers of which there are states of the prompts."""
    return sum(name.endswith(f".{PRE}") for name in run.prompt_names())


def last_name(run: "LanguageRun") -> str:
    """Return the name of the stream that leaves the last layer."""
    return f"layers.{layers_of(run) - 1}.residual_post"


def constant(name: str) -> bool:
    """Whether an activation at the last token of a chat template is the same for all prompts: the embedding is.

    >>> [constant(f"layers.{layer}.{part}") for layer, part in [(0, "residual_pre"), (0, "residual_mid")]]
    [True, False]
    """
    return name == f"layers.0.{PRE}"


def pair_counts(contrast: str, pairs: int, draws: int) -> Int64[np.ndarray, "draws pairs"]:
    """Return how often each pair is drawn in the resamples of a contrast, always the same."""
    return bootstrap_counts(pairs, draws, seeded("prompts", contrast, "resamples"))


def swapped_labels(contrast: str, pairs: int, draws: int) -> Int64[np.ndarray, "draws samples"]:
    """Return the null labels of a contrast, always the same: 1 for the second set, pairs swapped at random."""
    return swapped_pairs(pairs, draws, seeded("prompts", contrast, "swapped_twins"))


def thirds(layers: int) -> list[Int64[np.ndarray, " _"]]:
    """Return the numbers of the layers of the first, the middle and the last third; the first ones are not smaller.

    >>> [part.tolist() for part in thirds(7)]
    [[0, 1, 2], [3, 4], [5, 6]]
    """
    return np.array_split(np.arange(layers), 3)


def over_pairs(of: Resampled) -> dict[str, Any]:
    """Return the columns value, low, high and n of statistics of contrast pairs: the 95 % interval over pairs.

    BCa bootstrap from 10 pairs on. Below, where it undercovers, Student's t with the jackknife's standard error, which
    of a mean is the usual t interval.

    >>> values = np.array([1.0, 2.0, 3.0])
    >>> means = resampled(lambda counts: counts @ values / counts.sum(1), np.ones((1, 3), dtype=np.int64))
    >>> {name: round(float(column), 2) for name, column in over_pairs(means).items()}  # 2 ± 4.30 · 1 / √3
    {'value': 2.0, 'low': -0.48, 'high': 4.48, 'n': 3.0}
    """
    pairs = len(of.left_out)
    if pairs >= SMALLEST_BOOTSTRAP_SAMPLE:
        low, high = bca_ends(of)
    else:
        half_width = _half_width(of)
        low, high = of.estimate - half_width, of.estimate + half_width
    return {"value": of.estimate, "low": low, "high": high, "n": pairs}


def over_pairs_corrected(of: Resampled) -> dict[str, Any]:
    """Return the columns of ``over_pairs`` of statistics that noise moves one way, as it lowers a cosine of means.

    Resamples move them once more, so that quantiles of them miss the truth. The value is the bias-corrected jackknife
    estimate instead (``jackknife_corrected``), the interval Student's t with the jackknife's standard error.

    >>> values = np.array([1.0, 2.0, 3.0])
    >>> means = resampled(lambda counts: counts @ values / counts.sum(1), np.ones((1, 3), dtype=np.int64))
    >>> {name: round(float(column), 2) for name, column in over_pairs_corrected(means).items()}  # a mean has no bias
    {'value': 2.0, 'low': -0.48, 'high': 4.48, 'n': 3.0}
    """
    value, half_width = jackknife_corrected(np.asarray(of.estimate), of.left_out), _half_width(of)
    return {"value": value, "low": value - half_width, "high": value + half_width, "n": len(of.left_out)}


def jackknife_corrected(
    estimate: Float[np.ndarray, "*quantities"], left_out: Float[np.ndarray, "units *quantities"]
) -> Float[np.ndarray, "*quantities"]:
    """Return estimates less their bias in 1 / n, which is known from leaving out each of n units.

    >>> values = np.array([1.0, 2.0, 6.0])  # a variance over n becomes one over n - 1
    >>> left_out = np.array([np.delete(values, unit).var() for unit in range(3)])
    >>> float(jackknife_corrected(np.array(values.var()), left_out).round(6))
    7.0
    """
    units = len(left_out)
    return np.asarray(units * estimate - (units - 1) * left_out.mean(0))


def _half_width(of: Resampled) -> Float[np.ndarray, "*quantities"]:
    """Return half the 95 % interval by Student's t and the jackknife's standard error."""
    pairs = len(of.left_out)
    with np.errstate(invalid="ignore"):
        variance = np.mean(deviations(of.left_out) ** 2, axis=0)
        return np.asarray(stdtrit(pairs - 1, 0.975) * np.sqrt((pairs - 1) * variance))


def mean_over_prompts(
    values: Real[np.ndarray, "quantities prompts"], counts: Int64[np.ndarray, "draws pairs"]
) -> Resampled:
    """Return the means over the prompts of both sets, and of resamples over contrast pairs.

    Args:
        values: the first set's prompts before their partners.
        counts: of :func:`pair_counts`.

    >>> mean_over_prompts(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[2, 0]])).resamples
    array([[2.]])
    """
    pairs = counts.shape[1]
    of_pairs = (values[:, :pairs] + values[:, pairs:]) / 2
    return resampled(lambda drawn: drawn @ of_pairs.T / drawn.sum(1, keepdims=True), counts)


def union_variance(
    vectors: Real[np.ndarray, "prompts width"], counts: Int64[np.ndarray, "draws pairs"]
) -> Float64[np.ndarray, " draws"]:
    """Return the variance over the prompts of both sets together, unbiased, mean over features, of each resample.

    Args:
        vectors: the first set's before those of their partners.
        counts: of :func:`pair_counts`, or of other draws of pairs.

    >>> union_variance(np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[1]]))  # 2 and 0
    array([1.])
    """
    pairs = counts.shape[1]
    centred = deviations(vectors)
    squares = np.sum(centred[:pairs] ** 2 + centred[pairs:] ** 2, axis=1)
    sums = centred[:pairs] + centred[pairs:]
    size = 2 * counts.sum(1)
    # from inner products of pairs, so that no mean of a resample is formed
    of_means = np.sum((counts @ (sums @ sums.T)) * counts, axis=1) / size
    left = np.maximum(difference(counts @ squares, of_means, vectors.size), 0.0)
    return np.asarray(left / (size - 1) / vectors.shape[1])


def averaged(several: list[Resampled]) -> Resampled:
    """Return the mean of statistics that were resampled with the same counts, such as those of some layers."""
    return Resampled(*(np.mean(np.stack(parts), axis=0) for parts in zip(*several, strict=True)))
