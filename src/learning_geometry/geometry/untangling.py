"""How far two sets of activations are apart, and how they lie in space: numbers that a shuffled labelling gives too.

Every number here is a function of vectors and labels. Its null is the same number of the same vectors with shuffled
labels, which shares the count, the width and the spectrum with what it is compared with. Of contrast pairs the labels
are swapped within pairs (:func:`swapped_pairs`): sets shuffled as a whole (``probes.shuffled_labels``) are no longer
matched in topic, and lie further apart by that alone.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64, Real, Shaped

from learning_geometry.geometry.probes import predict, ridge_probes
from learning_geometry.geometry.rounding import deviations, is_rounding
from learning_geometry.geometry.spectra import participation_ratio
from learning_geometry.geometry.subspaces import principal_cosines

FOLDS = 8
PENALTY = 1.0
"""Of the ridge probe on features of variance 1, which outnumber the samples here."""


class Untangling(NamedTuple):
    """Geometry of two labelled sets of vectors.

    Attributes:
        between_over_within: variance between the sets' means over that within the sets, summed over features; 0 up.
        participation_first: participation ratio of the principal variances of the first set (of the smaller label).
        participation_second: the same of the second set.
        participation_union: the same of all vectors; no shuffling changes it.
        root_mean_square_cosine: of the principal angles between the sets' principal subspaces, in [0, 1]; NaN where
            a set spans fewer dimensions.
        largest_cosine: of the smallest of these angles; NaN likewise.
    """

    between_over_within: float
    participation_first: float
    participation_second: float
    participation_union: float
    root_mean_square_cosine: float
    largest_cosine: float


def swapped_pairs(pairs: int, draws: int, generator: np.random.Generator) -> Int64[np.ndarray, "draws samples"]:
    """Null labels of contrast pairs, the first set before the second: in every pair either one comes first.

    If what makes the contrast did not matter, the two of a pair would be exchangeable, and every such labelling as
    good as the true one (0 for the first set, 1 for the second).

    Raises:
        ValueError: if a number is below 1.

    Examples:
        >>> labels = swapped_pairs(3, 2, np.random.default_rng(0))
        >>> labels[:, :3] + labels[:, 3:]
        array([[1, 1, 1],
               [1, 1, 1]])
    """
    if pairs < 1 or draws < 1:
        raise ValueError(f"pairs and draws: {pairs} and {draws} make no labels; pass numbers from 1 up")
    swapped = generator.integers(2, size=(draws, pairs))
    return np.concatenate([swapped, 1 - swapped], axis=1)


def held_out_hits(
    features: Real[np.ndarray, "samples features"],
    labellings: Shaped[np.ndarray, "labellings samples"],
    groups: Int[np.ndarray, " grouped"],
    generator: np.random.Generator,
    folds: int = FOLDS,
    penalty: float = PENALTY,
) -> Bool[np.ndarray, "labellings samples"]:
    """Which samples a linear probe classifies right that was made without them, for several labellings.

    Cross-validation by groups: samples of a group, such as the two of a pair, are held out together, so that no probe
    has seen the partner of what it is judged on. The mean over samples is the cross-validated linear separability; the
    mean over a group is one independent value per pair of prompts.

    Args:
        features: one row per sample.
        labellings: class of every sample in each labelling, such as the true one and shuffled ones.
        groups: number of the group of every sample.
        generator: shuffles the groups into folds, the same for all labellings.
        folds: number of parts, from 2 to the number of groups.
        penalty: of the ridge regression (see ``probes.ridge_probe``).

    Raises:
        ValueError: if there are fewer groups than folds or fewer than two folds, there is not one group for each
            sample, or the samples of a training part are all of one class.

    Examples:
        >>> features, groups = np.array([[0.0], [9.0], [1.0], [8.0]]), np.array([0, 0, 1, 1])
        >>> held_out_hits(features, np.array([[0, 1, 0, 1]]), groups, np.random.default_rng(0), folds=2)
        array([[ True,  True,  True,  True]])
    """
    if len(groups) != len(features):
        raise ValueError(f"groups: {len(groups)} for {len(features)} samples; pass one for each")
    names, group = np.unique(groups, return_inverse=True)
    if not 2 <= folds <= len(names):
        raise ValueError(f"folds: {len(names)} groups do not make {folds} parts; pass 2 to {len(names)}")
    fold = generator.permutation(np.arange(len(names)) % folds)[group]
    hits = np.empty(labellings.shape, dtype=bool)
    for part in range(folds):
        held = fold == part
        probes = ridge_probes(features[~held], list(labellings[:, ~held]), penalty)
        for labelling, probe in enumerate(probes):
            hits[labelling, held] = predict(probe, features[held]) == labellings[labelling, held]
    return hits


def span_coordinates(vectors: Real[np.ndarray, "samples width"]) -> Float64[np.ndarray, "samples dimension"]:
    """Coordinates of centred vectors in an orthonormal basis of their span, at most as many as samples.

    Distances and inner products about the mean stay, so every number of :func:`untangling` does, and fewer columns make
    many shuffled labellings cheap.

    Raises:
        ValueError: if there is no vector, or an entry is not finite.

    Examples:
        >>> span_coordinates(np.array([[1.0, 1.0, 7.0], [4.0, 5.0, 7.0]])).shape
        (2, 2)
    """
    if len(vectors) == 0 or not np.isfinite(vectors).all():
        raise ValueError("vectors: there is none, or an entry is not finite; leave out this layer")
    centred = _centred(vectors)
    if centred.shape[0] >= centred.shape[1]:
        return centred
    upper: Float64[np.ndarray, "dimension samples"] = np.linalg.qr(centred.T)[1]
    upper[is_rounding(upper, np.abs(upper).max(), centred.size)] = 0.0
    return upper.T


def between_over_within(vectors: Real[np.ndarray, "samples width"], labels: Shaped[np.ndarray, " labelled"]) -> float:
    r"""Variance between classes over variance within them, summed over features.

    $\sum_c n_c \|m_c - m\|^2 / \sum_i \|x_i - m_{c(i)}\|^2$. Of n samples in k classes with shuffled labels the
    numerator is (k − 1) / (n − 1) of the total in the mean, so that the ratio is near (k − 1) / (n − k).

    Args:
        vectors: one row per sample.
        labels: class of each sample.

    Returns:
        A number from 0 up: infinite if nothing varies within classes, NaN if nothing varies.

    Raises:
        ValueError: if there is not one label per sample.

    Examples:
        >>> between_over_within(np.array([[0.0], [2.0], [10.0], [12.0]]), np.array([0, 0, 1, 1]))  # 4 · 25 / 4
        25.0
    """
    if len(labels) != len(vectors):
        raise ValueError(f"labels: {len(labels)} for {len(vectors)} samples; pass one for each")
    centred = _centred(vectors)
    scale = np.abs(vectors).max()
    between = within = 0.0
    for label in np.unique(labels):
        of_class = centred[labels == label]
        mean = of_class.mean(0)
        between += len(of_class) * float(mean @ mean)
        within += float(np.sum(deviations(of_class, scale) ** 2))
    # a sum of squares of deviations, which are exactly 0 where they are rounding
    if within == 0:
        return float("inf") if between else float("nan")
    return between / within


def untangling(
    vectors: Real[np.ndarray, "samples width"], labels: Shaped[np.ndarray, " labelled"], rank: int
) -> Untangling:
    """Numbers of how two sets lie in space (see :class:`Untangling`).

    The participation ratio of n samples is at most n − 1 and grows with n: compare sets of one size. So do the cosines
    of random vectors grow with the rank; the shuffled labelling has the same of both.

    Args:
        vectors: one row per sample.
        labels: one of two classes for each sample.
        rank: dimension of the sets' principal subspaces, below the size of the smaller set.

    Raises:
        ValueError: if there is not one label per sample, there are not two classes, a set has too few samples for the
            rank, or an entry is not finite.

    Examples:
        Two sets that vary along orthogonal directions, and whose means coincide:

        >>> vectors = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
        >>> [round(number, 3) for number in untangling(vectors, np.array([0, 0, 1, 1]), 1)]
        [0.0, 1.0, 1.0, 2.0, 0.0, 0.0]
    """
    if len(labels) != len(vectors):
        raise ValueError(f"labels: {len(labels)} for {len(vectors)} samples; pass one for each")
    classes = np.unique(labels)
    if len(classes) != 2:
        raise ValueError(f"labels: {len(classes)} classes; pass samples of two")
    if not np.isfinite(vectors).all():
        raise ValueError("vectors: an entry is not finite; leave out this layer, or capture in float32")
    ratios: list[float] = []
    bases: list[np.ndarray | None] = []
    for label in classes:
        of_set = vectors[labels == label]
        _check_rank(rank, of_set)
        _, values, directions = np.linalg.svd(_centred(of_set), full_matrices=False)
        values = np.where(is_rounding(values, np.linalg.norm(of_set), max(of_set.shape)), 0.0, values)
        ratios.append(participation_ratio(values))
        # of a set that spans less, the rest of the directions is arbitrary
        bases.append(directions[:rank].T if values[rank - 1] > 0 else None)
    first, second = bases
    cosines = np.full(rank, np.nan) if first is None or second is None else principal_cosines(first, second)
    return Untangling(
        between_over_within(vectors, labels),
        ratios[0],
        ratios[1],
        participation_ratio(np.linalg.svd(_centred(vectors), compute_uv=False)),
        float(np.sqrt(np.mean(cosines**2))),
        float(cosines[0]),
    )


def _check_rank(rank: int, vectors: np.ndarray) -> None:
    samples, width = vectors.shape
    if not 1 <= rank <= min(samples - 1, width):
        raise ValueError(
            f"rank: {samples} vectors of width {width} have no {rank} principal directions; "
            f"pass 1 to {min(samples - 1, width)}"
        )


def _centred(vectors: np.ndarray) -> Float64[np.ndarray, "samples width"]:
    # one scale for all features: what they have in common may have been turned, as in `span_coordinates`
    return deviations(vectors, np.abs(vectors).max())
