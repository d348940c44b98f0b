"""What activations tell about labels: linear probes, and the information of single latents."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int64, Real, Shaped

from learning_geometry.geometry.rounding import first_largest, rounding

SMALLEST_STANDARD_DEVIATION = 1e-12
"""Relative to the largest mean square of a feature: features that vary less are not rescaled."""


class Probe(NamedTuple):
    """An affine map of features to one score per class; the largest score is the prediction."""

    weights: Float[np.ndarray, "features classes"]
    offsets: Float[np.ndarray, " classes"]
    classes: Shaped[np.ndarray, " classes"]


def ridge_probe(
    features: Real[np.ndarray, "samples features"], labels: Shaped[np.ndarray, " labels"], penalty: float = 1e-3
) -> Probe:
    r"""Linear probe of classes: ridge regression on one-hot targets, in closed form.

    Features are standardised and targets centred, so that the offset is not penalised and the scale of a feature does
    not matter: with Z the standardised features of n samples, $B = (Z^\top Z / n + \lambda)^{-1} Z^\top Y / n$. The
    classes' scores estimate probabilities, and the largest is chosen (Hastie, Tibshirani and Friedman 2009, "The
    Elements of Statistical Learning", section 4.2). Solved by scikit-learn, in float64.

    Args:
        features: Shape (samples, features).
        labels: the class of each sample.
        penalty: λ; features have variance 1.

    Returns:
        The probe.

    Raises:
        ValueError: if there is not one label per sample, or only one class.

    Examples:
        >>> features = np.array([[0.0, 5.0], [1.0, 5.0], [10.0, 5.0], [11.0, 5.0]])
        >>> predict(ridge_probe(features, np.array([3, 3, 7, 7])), np.array([[2.0, 5.0], [9.0, 5.0]]))
        array([3, 7])
    """
    return ridge_probes(features, [labels], penalty)[0]


def ridge_probes(
    features: Real[np.ndarray, "samples features"], labels: list[Shaped[np.ndarray, " _"]], penalty: float = 1e-3
) -> list[Probe]:
    """Probes of several labellings of the same samples, as :func:`ridge_probe`; the features are factored once."""
    if penalty <= 0:
        raise ValueError(f"penalty: {penalty} may leave the regression without a solution; use a number above 0")
    exact = features.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ValueError("features: some are not finite; find out where they come from")
    mean, spread = exact.mean(0), exact.std(0)
    floor = SMALLEST_STANDARD_DEVIATION * np.sqrt((exact**2).mean(0).max(initial=0.0))
    spread = np.where(spread > floor, spread, 1.0)
    standardised = (exact - mean) / spread
    targets = []
    for each in labels:
        if len(each) != len(exact):
            raise ValueError(f"labels: {len(each)} for {len(exact)} samples; pass one for each")
        classes = np.unique(each)
        if len(classes) < 2:
            raise ValueError(f"labels: {len(classes)} class cannot be told apart; pass samples of two or more")
        targets.append((classes, (each[:, None] == classes).astype(np.float64)))
    joint = np.concatenate([one_hot for _, one_hot in targets], axis=1)
    # takes most of a second to import
    from sklearn.linear_model import Ridge

    fitted = Ridge(alpha=len(exact) * penalty).fit(standardised, joint)
    solved = fitted.coef_.T / spread[:, None]
    offsets = fitted.intercept_ - mean @ solved
    ends = np.cumsum([0, *(len(classes) for classes, _ in targets)])
    return [
        Probe(solved[:, start:end], offsets[start:end], classes)
        for start, end, (classes, _) in zip(ends[:-1], ends[1:], targets, strict=True)
    ]


def predict(probe: Probe, features: Real[np.ndarray, "samples features"]) -> Shaped[np.ndarray, " samples"]:
    """Return the class with the largest score, the first of those that nothing but rounding tells apart."""
    exact = features.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True), np.linalg.norm(probe.weights, axis=0)
    scale = lengths[0] * lengths[1].max() + np.abs(probe.offsets).max()
    return probe.classes[first_largest(exact @ probe.weights + probe.offsets, scale)]


def accuracy(
    probe: Probe, features: Real[np.ndarray, "samples features"], labels: Shaped[np.ndarray, " samples"]
) -> float:
    """Return the fraction of samples whose class the probe predicts; pass samples that it was not made from."""
    return float((predict(probe, features) == labels).mean())


def mutual_information(
    codes: Int[np.ndarray, "samples variables"], labels: Int[np.ndarray, " samples"]
) -> Float[np.ndarray, " variables"]:
    r"""Mutual information of each discrete variable with a label, in nats: the plug-in estimate.

    $I = \sum_{c, l} \hat p(c, l) \ln \frac{\hat p(c, l)}{\hat p(c) \hat p(l)}$ of the samples' frequencies. It is
    biased upward by about (codes − 1)(labels − 1) / 2n nats (Miller 1955), so compare it with shuffled labels, whose
    estimate has the same bias.

    ``sklearn.metrics.mutual_info_score`` gives the same number of one variable; for 256 variables of 2,000 samples it
    takes 123 times as long (0.25 s in place of 2 ms), and there are shuffled labels to do it for.

    Args:
        codes: non-negative integers, one column per variable; such as those of :func:`quantile_codes`.
        labels: non-negative integers.

    Returns:
        Nats, from 0 to the smaller of both entropies.

    Raises:
        ValueError: if there is no sample, or a negative code or label.

    Examples:
        A fair bit tells itself: ln 2 = 0.693 nats; a constant tells nothing.

        >>> mutual_information(np.array([[0, 5], [1, 5], [0, 5], [1, 5]]), np.array([1, 0, 1, 0])).round(3) + 0.0
        array([0.693, 0.   ])
    """
    if len(labels) == 0 or codes.min(initial=0) < 0 or labels.min(initial=0) < 0:
        raise ValueError("codes and labels: there is no sample, or a negative number; pass integers from 0 up")
    levels, classes = int(codes.max(initial=0)) + 1, int(labels.max()) + 1
    variables = codes.shape[1]
    cell = (np.arange(variables) * levels + codes) * classes + labels[:, None]
    counts = np.bincount(cell.ravel(), minlength=variables * levels * classes).reshape(variables, levels, classes)
    joint = counts / len(labels)
    independent = joint.sum(2, keepdims=True) * joint.sum(1, keepdims=True)
    terms = np.zeros_like(joint)
    there = joint > 0
    terms[there] = joint[there] * np.log(joint[there] / independent[there])
    # at most ln of the numbers of levels and classes, which is the scale of its terms
    information = terms.sum((1, 2))
    return np.where(information > rounding(np.log(max(levels, classes, 2)), levels * classes), information, 0.0)


def quantile_codes(latents: Real[np.ndarray, "samples variables"], bins: int) -> Int64[np.ndarray, "samples variables"]:
    """Return 0 where a latent is inactive (0), else 1 to ``bins``: which quantile bin of its active values it is in.

    Values in between are told apart as far as the bins do; equal values share a bin.

    Args:
        latents: one column per latent.
        bins: number of bins of equal count of the active values of each latent.

    Raises:
        ValueError: if ``bins`` is below 1.

    Examples:
        >>> quantile_codes(np.array([[0.0], [1.0], [2.0], [3.0], [4.0]]), 2).ravel()
        array([0, 1, 1, 2, 2])
    """
    if bins < 1:
        raise ValueError(f"bins: {bins} leave no place for the active values; use 1 or more")
    codes = np.zeros(latents.shape, dtype=np.int64)
    for variable in range(latents.shape[1]):
        active = np.flatnonzero(latents[:, variable])
        if len(active):
            values = latents[active, variable]
            edges = np.quantile(values, np.arange(1, bins) / bins)
            codes[active, variable] = 1 + np.searchsorted(edges, values, side="left")
    return codes


def shuffled_labels(
    labels: Shaped[np.ndarray, " samples"], draws: int, generator: np.random.Generator
) -> Shaped[np.ndarray, "draws samples"]:
    """Return random permutations of labels: the null of every number that ties labels to features.

    Raises:
        ValueError: if ``draws`` is below 1.
    """
    if draws < 1:
        raise ValueError(f"draws: {draws} shuffled labellings were asked for; pass at least 1")
    return np.stack([generator.permutation(labels) for _ in range(draws)])
