"""Two sets of prompts untangled layer by layer: how well a plane separates them, and how each of them lies in space."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Int64, Real
from scipy.spatial.distance import cdist

from learning_geometry import failures
from learning_geometry.geometry.resampling import Resampled, difference
from learning_geometry.geometry.rounding import is_rounding
from learning_geometry.geometry.untangling import between_over_within, held_out_hits, span_coordinates
from learning_geometry.geometry.untangling import untangling as shapes
from learning_geometry.measurements.common.contrast_pairs import (
    FEWEST_LAYERS,
    MID,
    constant,
    mean_over_prompts,
    over_pairs,
    pair_counts,
    stream_names,
    swapped_labels,
    thirds,
)
from learning_geometry.measurements.common.language_run import TRAINED, UNTRAINED, LanguageRun
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {"reads": ["prompts", "untrained_prompts"], "pairs": {"always": 3, "folds": 0, "rank": 1}}
"""Of pairs: of three, each prompt has two neighbours; a fold
needs a pair, and a principal subspace more prompts than dimensions."""

SETTINGS = {
    "streams": {
        "type": "array",
        "items": {"enum": ["residual_mid", "residual_pre"]},
        "minItems": 1,
        "uniqueItems": True,
        "default": ["residual_mid"],
        "description": "Where the residual stream is read: before the MLP (mid), before the attention (pre).",
    },
    "folds": {
        "type": "integer",
        "minimum": 2,
        "default": 5,
        "description": "Parts into which contrast pairs are divided to judge a linear probe on those it has not seen.",
    },
    "rank": {
        "type": "integer",
        "minimum": 1,
        "default": 8,
        "description": "Dimension of each set's principal subspace, below the number of pairs.",
    },
    "resamples": {
        "type": "integer",
        "minimum": 50,
        "default": 400,
        "description": "Bootstrap resamples over contrast pairs.",
    },
    "swapped_labellings": {
        "type": "integer",
        "minimum": 2,
        "default": 100,
        "description": "Draws of the null, in which the prompts of a pair change sets at random, of separability and "
        "variance ratios.",
    },
    "swapped_shapes": {
        "type": "integer",
        "minimum": 2,
        "default": 10,
        "description": "The first of these draws: those of which dimensions and angles are taken, which cost more.",
    },
}

SETS = ("first", "second", "union")

COINCIDE = "prompts of a set coincide, or it spans fewer than {} directions"
"""Why a number that is NaN is not defined."""

NEAREST = 3
"""Points that tell the intrinsic dimension about one: itself and two neighbours."""


def measure(run: LanguageRun, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure in every layer how the two sets of a contrast lie in the residual stream at the last token of the prompt.

    Rows, part ``layers.<l>.residual_mid`` (and ``residual_pre``, where the setting says), data = contrast, n = pairs of
    pairs:

    - ``separability`` (fraction): accuracy of a ridge probe of the set on pairs that it was made without, by
      cross-validation; [low, high] is the 95 % interval over pairs, given the probes (``contrast_pairs.over_pairs``);
    - ``between_over_within``: variance between the two means over that within the sets, summed over features;
    - ``participation_ratio-<set>`` (dimensions) of the principal variances, set first, second or union;
    - ``intrinsic_dimension-<set>``: TwoNN's, from the distances to two nearest neighbours. Of so few prompts
      it is too low if it is large: compare sets of one size alone;
    - ``set_cosine_rms``, ``set_cosine_largest``: cosines of the principal angles between the two sets' principal
      subspaces, root mean square and largest.

    No interval of the last ones: the bootstrap's repeated prompts bias them. Nulls:

    - ``swapped_pairs``, of all but the union's: in every pair either prompt comes first, the same in all layers;
    - ``untrained``: the same of a model of the same shape with random weights; a single one.

    Of each number that is undefined, as prompts coincide or a set spans fewer directions than the rank, there is one
    row ``not_measured`` instead, and no null of it.

    Layer 0 of residual_pre is left out: the embedding of a chat template's last token is the same for all prompts.

    Part ``model``, of at least three layers: ``separability_gain``, mean over the last third of the layers minus that
    over the first, of residual_mid (or the stream that is read), minus the same of the untrained model.

    Raises:
        ValueError: a state is not finite, or a contrast has too few pairs for the folds or the rank.
    """
    rows: list[dict[str, Any]] = []
    for name, (first, second) in run.contrasts.items():
        pairs = first.stop - first.start
        chosen = np.r_[first, second]
        counts = pair_counts(name, pairs, settings["resamples"])
        labels = np.repeat([0, 1], pairs)
        swapped = swapped_labels(name, pairs, settings["swapped_labellings"])
        judged = MID if MID in settings["streams"] else settings["streams"][0]
        for which in settings["streams"]:
            hits: dict[str, list[Bool[np.ndarray, " prompts"]]] = {TRAINED: [], UNTRAINED: []}
            parts = [part for part in stream_names(run, which) if not constant(part)]
            for part in parts:
                here = {"step": 0, "part": part, "data": name}
                numbers: dict[str, dict[str, float]] = {}
                for weights, labellings in ((TRAINED, np.stack([labels, *swapped])), (UNTRAINED, labels[None])):
                    states = run.prompt_states(weights, part)[chosen]
                    hits_by_labelling = hits_of_pairs(states, labellings, name, settings["folds"])
                    hits[weights].append(hits_by_labelling[0])
                    points = span_coordinates(states)
                    numbers[weights] = lying(points, labels, settings["rank"])
                    if weights == TRAINED:
                        null = central_range(hits_by_labelling[1:].mean(1), "swapped_pairs")
                        rows.append(here | {"quantity": "separability", "unit": "fraction"} | null)
                        rows += _null_rows(here, points, swapped, settings, numbers[TRAINED])
                for quantity, value in numbers[TRAINED].items():
                    if np.isnan(value):
                        rows.append(failures.row(part, f"no {quantity}, as {COINCIDE.format(settings['rank'])}", name))
                        continue
                    rows.append(here | _described(quantity) | {"value": value, "n": pairs})
                    rows.append(here | _described(quantity) | _untrained(numbers[UNTRAINED][quantity]))
            separability = {
                weights: mean_over_prompts(np.array(by_layer, dtype=np.float64), counts)
                for weights, by_layer in hits.items()
            }
            row = {"step": 0, "part": parts, "data": name, "quantity": "separability", "unit": "fraction"}
            rows.append(row | over_pairs(separability[TRAINED]))
            rows.append(row | _untrained(separability[UNTRAINED].estimate))
            if len(parts) >= FEWEST_LAYERS and which == judged:
                gained = difference(*(_gain(separability[weights]) for weights in (TRAINED, UNTRAINED)))
                row = {"step": 0, "data": name, "quantity": "separability_gain", "unit": "fraction"}
                rows.append(row | over_pairs(gained))
    return tidy(rows, run.experiment, 0)


def hits_of_pairs(
    states: Real[np.ndarray, "prompts width"],
    labellings: Int[np.ndarray, "labellings prompts"],
    contrast: str,
    folds: int,
) -> Bool[np.ndarray, "labellings prompts"]:
    """Return which prompts a probe that has not seen them or their partners classifies right, for several labellings.

    The division into folds is the same for all layers, labellings and weights of a contrast.
    """
    groups = np.tile(np.arange(len(states) // 2), 2)
    return held_out_hits(states, labellings, groups, seeded("prompts", contrast, "folds"), folds)


def lying(
    points: Float[np.ndarray, "prompts width"],
    labels: Int[np.ndarray, " prompts"],
    rank: int,
    distances: Float[np.ndarray, "prompts prompts"] | None = None,
) -> dict[str, float]:
    """Return all numbers but the separability of two sets, by quantity.

    Args:
        points: of both sets, such as their ``span_coordinates``.
        labels: 0 or 1 for each.
        rank: dimension of the principal subspaces.
        distances: between the points, if they are known; then the union's dimension is left out.

    Raises:
        ValueError: as ``geometry.untangling.untangling``.
    """
    measured = shapes(points, labels, rank)
    between = cdist(points, points) if distances is None else distances
    members = [np.flatnonzero(labels == label) for label in (0, 1)]
    if distances is None:
        members.append(np.arange(len(points)))
    numbers = {"between_over_within": measured.between_over_within}
    ratios = (measured.participation_first, measured.participation_second, measured.participation_union)
    for name, ratio, these in zip(SETS, ratios, members, strict=False):
        numbers[f"participation_ratio-{name}"] = ratio
        numbers[f"intrinsic_dimension-{name}"] = two_nearest_neighbours_dimension(between[np.ix_(these, these)])
    return numbers | {"set_cosine_rms": measured.root_mean_square_cosine, "set_cosine_largest": measured.largest_cosine}


def two_nearest_neighbours_dimension(distances: Float[np.ndarray, "points points"]) -> float:
    """Return TwoNN's intrinsic dimension of points from the distances between them; NaN where two coincide.

    Source: Facco et al. 2017, "Estimating the intrinsic dimension of datasets by a minimal neighborhood information".

    >>> plane = np.random.default_rng(0).random((400, 2))
    >>> round(two_nearest_neighbours_dimension(cdist(plane, plane)))
    2
    """
    # importing it takes two seconds
    from skdim.id import TwoNN

    nearest = np.sort(distances, axis=1)[:, :NEAREST]
    if len(distances) < NEAREST or is_rounding(nearest[:, 1], distances.max(), len(distances)).any():
        return float("nan")
    return float(TwoNN(dist=True).fit(nearest[:, 1:]).dimension_)


def _null_rows(
    here: dict[str, Any],
    points: Float[np.ndarray, "prompts width"],
    swapped: Int64[np.ndarray, "draws prompts"],
    settings: dict[str, Any],
    measured: dict[str, float],
) -> list[dict[str, Any]]:
    """Rows of the null of swapped pairs, of what is defined; what is the union's does not depend on labels."""
    ratios = np.array([between_over_within(points, labels) for labels in swapped])
    distances = cdist(points, points)
    drawn = [lying(points, labels, settings["rank"], distances) for labels in swapped[: settings["swapped_shapes"]]]
    draws = {name: np.array([numbers[name] for numbers in drawn]) for name in drawn[0]}
    draws["between_over_within"] = ratios
    return [
        here | _described(name) | central_range(values, "swapped_pairs")
        for name, values in draws.items()
        if not np.isnan(measured[name])
    ]


def _described(quantity: str) -> dict[str, str]:
    return {"quantity": quantity, "unit": "dimensions" if "-" in quantity else "1"}


def _untrained(value: Any) -> dict[str, Any]:
    return {"null": UNTRAINED, "value": value, "low": value, "high": value}


def _gain(separability: Resampled) -> Resampled:
    """The mean over the last third of the layers minus that over the first."""
    first, _, last = thirds(separability.estimate.shape[-1])
    return Resampled(*(np.asarray(part[..., last].mean(-1) - part[..., first].mean(-1)) for part in separability))
