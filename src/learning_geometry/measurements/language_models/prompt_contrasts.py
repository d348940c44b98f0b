"""Two sets of prompts in a language model, layer by layer: the cosine of their mean states, and their variances."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Int64, Real

from learning_geometry import failures
from learning_geometry.geometry.activation_ranks import rogue_dimensions
from learning_geometry.geometry.contrasts import contrast, contrast_resampled
from learning_geometry.geometry.moments import moments
from learning_geometry.geometry.resampling import Resampled, difference, resampled
from learning_geometry.geometry.rounding import is_rounding
from learning_geometry.measurements.common.contrast_pairs import (
    FEWEST_LAYERS,
    MID,
    PRE,
    averaged,
    jackknife_corrected,
    last_name,
    layers_of,
    over_pairs,
    over_pairs_corrected,
    pair_counts,
    stream_names,
    swapped_labels,
    thirds,
    union_variance,
)
from learning_geometry.measurements.common.language_run import TRAINED, LanguageRun
from learning_geometry.tables.tidy import central_range, tidy

if TYPE_CHECKING:
    from learning_geometry.models.language import Norm

NEEDS = {"reads": ["prompts"], "pairs": {"always": 3}}
"""Of pairs: of two, a set without one has no variance."""

SETTINGS = {
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
        "description": "Draws of the null, in which the prompts of a pair change sets at random.",
    },
}

RAW, WITHOUT_ROGUES, NORMALISED = SUFFIXES = ("", "_without_rogues", "_normalised")

QUANTITIES = (
    "mean_cosine",
    "mean_variance-first",
    "mean_variance-second",
    "maximum_variance-first",
    "maximum_variance-second",
)
"""The names of what ``Contrast`` holds, in its order."""

COSINE = QUANTITIES.index("mean_cosine")

NO_MEAN = "the mean state of a set is zero, or that without a pair"


def measure(run: LanguageRun, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure how far the two sets of a contrast are apart at the last token of the prompt, in every layer.

    Rows, part ``layers.<l>.residual_pre``, ``layers.<l>.residual_mid`` and the last ``residual_post``, data = contrast,
    n = contrast pairs, [low, high] the 95 % interval over pairs (``contrast_pairs.over_pairs``, but of cosines):

    - ``mean_cosine``: cosine of the mean states of the two sets. Noise of the means lowers the plain cosine, and
      resampling would lower it again: value, interval and every draw of the null are corrected for that bias with the
      jackknife over pairs, each labelling with its own, so that measured and null compare; what is then above 1 is 1
      (``contrast_pairs.over_pairs_corrected``);
    - ``mean_variance-first``, ``mean_variance-second``, ``maximum_variance-first``, ``maximum_variance-second``:
      variance over the prompts of a set, mean and maximum over features, in the square of the activation's unit;
    - the five with the suffix ``_without_rogues``: without the coordinates of that stream that are out of proportion
      on the prompts of both sets together (``activation_ranks.rogue_dimensions``; ``rogue_dimensions`` counts them);
    - the five with the suffix ``_normalised``: of every prompt's state after the model's own norm without its weights,
      all coordinates: divided by its root mean square (Llama, Qwen2, Mistral), after its mean was subtracted (GPT-2,
      GPT-NeoX), with the number that the model adds to mean squares.

    Part ``layers.<l>`` from layer 1 on, ``log_variance_difference`` (nats), of the mean variance of both sets together:
    ln of residual_mid's minus the mean of the logarithms of residual_pre's of this and of the next layer (of the last
    layer's residual_post), between which it lies. One curve that grows exponentially through all of them gives 0. Layer
    0 has none: the embedding of a chat template's last token is the same for all prompts, with a cosine of 1 and no
    variance. A layer around which some other state is the same for all prompts has a row ``not_measured`` instead, and
    so has a cosine with a mean state of zero.

    Part ``model``, with each suffix, of at least three layers: ``cosine_middle_minus_first`` and
    ``cosine_last_minus_middle``, differences of the means of ``mean_cosine`` over the middle, the first and the last
    third of the layers, of residual_mid, corrected like it, but with nothing cut at 1.

    Null ``swapped_pairs`` of all that knows the sets apart: in every pair either prompt comes first, at random, the
    same in all layers and streams.

    Raises:
        ValueError: a state is not finite, or a contrast has fewer than two pairs.
    """
    rows: list[dict[str, Any]] = []
    layers = layers_of(run)
    middle = stream_names(run, MID)
    norm = run.norm()
    states = {name: run.prompt_states(TRAINED, name) for name in [*stream_names(run, PRE), *middle, last_name(run)]}
    for name, (first, second) in run.contrasts.items():
        pairs = first.stop - first.start
        counts = pair_counts(name, pairs, settings["resamples"])
        labels = swapped_labels(name, pairs, settings["swapped_labellings"])
        here = {"step": 0, "data": name}
        cosines: dict[str, list[tuple[Resampled, np.ndarray]]] = {suffix: [] for suffix in SUFFIXES}
        for part, both in states.items():
            vectors = np.concatenate([both[first], both[second]])
            rogue = rogue_dimensions(moments(vectors))
            row = here | {"part": part, "quantity": "rogue_dimensions", "unit": "dimensions"}
            rows.append(row | {"value": float(rogue.sum()), "n": pairs})
            for suffix, version in _versions(vectors, rogue, norm):
                statistics = contrast_resampled(version[:pairs], version[pairs:], counts)
                swapped = np.stack(contrast(version, 1 - labels, labels), axis=1)
                swapped[:, COSINE] = _corrected_cosines(version, labels, swapped[:, COSINE])
                rows += _rows(here | {"part": part}, suffix, statistics, swapped)
                if part in middle:
                    cosines[suffix].append((_cosine(statistics), swapped[:, COSINE]))
        rows += _log_variance_differences(here, states, (first, second), counts)
        if layers >= FEWEST_LAYERS:
            rows += _cosine_differences(here, cosines)
    return tidy(rows, run.experiment, 0)


def normalised(
    vectors: Real[np.ndarray, "vectors width"], kind: str, epsilon: float
) -> Float32[np.ndarray, "vectors width"]:
    """Return vectors after a model's norm without its weights.

    Args:
        vectors: one a row.
        kind: "root_mean_square" (each is divided by its own), or "layer" (its mean is subtracted first).
        epsilon: added to the mean square.

    Raises:
        ValueError: no such kind.

    >>> vectors = np.array([[3.0, 5.0]])
    >>> normalised(vectors, "root_mean_square", 0.0).round(3), normalised(vectors, "layer", 0.0)
    (array([[0.728, 1.213]], dtype=float32), array([[-1.,  1.]], dtype=float32))
    """
    exact = vectors.astype(np.float64)
    if kind == "layer":
        exact -= exact.mean(1, keepdims=True)
    elif kind != "root_mean_square":
        raise ValueError(f"norm: {kind!r} is not known; there are root_mean_square and layer")
    squares = np.mean(exact**2, axis=1, keepdims=True)
    # float32, as a model has them: of equal states the variance is then exactly 0
    return (exact / np.sqrt(squares + epsilon)).astype(np.float32)


def _versions(
    vectors: Real[np.ndarray, "prompts width"], rogue: np.ndarray, norm: "Norm"
) -> Iterator[tuple[str, Real[np.ndarray, "prompts _"]]]:
    yield RAW, vectors
    yield WITHOUT_ROGUES, vectors[:, ~rogue]
    yield NORMALISED, normalised(vectors, norm.kind, norm.epsilon)


def _rows(
    here: dict[str, Any], suffix: str, statistics: Resampled, swapped: Float[np.ndarray, "draws quantities"]
) -> list[dict[str, Any]]:
    """Rows of what ``Contrast`` holds, and of its null."""
    rows: list[dict[str, Any]] = []
    measured, null = over_pairs(statistics), central_range(swapped, "swapped_pairs")
    cosine = _within(over_pairs_corrected(_cosine(statistics)))
    cosine_null = _within(central_range(np.minimum(swapped[:, COSINE], 1.0), "swapped_pairs"))
    for i, quantity in enumerate(QUANTITIES):
        unit = "activation²" if "variance" in quantity and suffix != NORMALISED else "1"
        row = here | {"quantity": f"{quantity}{suffix}", "unit": unit}
        if i == COSINE and np.isnan(cosine["value"]):
            rows.append(failures.row(row["part"], f"no {row['quantity']}, as {NO_MEAN}", here["data"]))
            continue
        for columns in (cosine, cosine_null) if i == COSINE else (measured, null):
            rows.append(row | {key: column[i] if np.ndim(column) else column for key, column in columns.items()})
    return rows


def _within(columns: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a cosine, none outside of [-1, 1]."""
    return columns | {name: np.clip(columns[name], -1.0, 1.0) for name in ("value", "low", "high")}


def _cosine(statistics: Resampled) -> Resampled:
    return Resampled(*(np.asarray(part[..., COSINE]) for part in statistics))


def _corrected_cosines(
    vectors: Real[np.ndarray, "prompts width"],
    labels: Int64[np.ndarray, "draws prompts"],
    cosines: Float[np.ndarray, " draws"],
) -> Float[np.ndarray, " draws"]:
    """Return the cosines of labellings that swap pairs, each corrected with the jackknife over pairs.

    Sums without a pair follow from inner products of prompts, so that no mean of them is formed.
    """
    pairs = len(vectors) // 2
    exact = vectors.astype(np.float64)
    products = exact @ exact.T
    of_first, of_second = (1 - labels) @ products, labels @ products
    here = np.arange(pairs) + pairs * labels[:, :pairs]  # whichever of the pair is in the first set
    there = np.arange(pairs) + pairs * labels[:, pairs:]
    squares = np.diag(products)

    def taken(of_set: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.take_along_axis(of_set, which, axis=1)

    def total(of_set: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.sum(of_set * others, axis=1, keepdims=True)

    first = total(of_first, 1 - labels) - 2 * taken(of_first, here) + squares[here]
    second = total(of_second, labels) - 2 * taken(of_second, there) + squares[there]
    both = total(of_first, labels) - taken(of_first, there) - taken(of_second, here) + np.diag(products, pairs)
    # squared lengths of sums of all vectors of a set but one
    scale = pairs**2 * squares.max()
    directed = ~(is_rounding(first, scale, len(vectors)) | is_rounding(second, scale, len(vectors)))
    with np.errstate(invalid="ignore"):
        left_out = np.clip(both / np.where(directed, np.sqrt(first * second), np.nan), -1.0, 1.0)
    return jackknife_corrected(cosines, left_out.T)


def _cosine_differences(
    here: dict[str, Any], cosines: dict[str, list[tuple[Resampled, np.ndarray]]]
) -> list[dict[str, Any]]:
    """Rows of the differences between thirds of the layers."""
    rows: list[dict[str, Any]] = []
    for suffix, by_layer in cosines.items():
        parts = thirds(len(by_layer))
        first, middle, last = (averaged([by_layer[layer][0] for layer in part]) for part in parts)
        nulls = [np.mean([by_layer[layer][1] for layer in part], axis=0) for part in parts]
        for quantity, change, null in (
            ("cosine_middle_minus_first", difference(middle, first), nulls[1] - nulls[0]),
            ("cosine_last_minus_middle", difference(last, middle), nulls[2] - nulls[1]),
        ):
            row = here | {"quantity": f"{quantity}{suffix}"}
            if np.isnan(change.estimate):
                rows.append(failures.row("model", f"no {row['quantity']}, as in some layer {NO_MEAN}", here["data"]))
                continue
            rows += [row | over_pairs_corrected(change), row | central_range(null, "swapped_pairs")]
    return rows


def _log_variance_differences(
    here: dict[str, Any], states: dict[str, np.ndarray], sets: tuple[slice, slice], counts: np.ndarray
) -> list[dict[str, Any]]:
    """Rows of the variance of residual_mid over that of the streams around it, from layer 1 on."""

    def logarithm(name: str) -> Resampled:
        vectors = np.concatenate([states[name][rows_of_set] for rows_of_set in sets])

        def statistic(drawn: np.ndarray) -> np.ndarray:
            with np.errstate(divide="ignore"):
                return np.log(union_variance(vectors, drawn))

        return resampled(statistic, counts)

    layers = sum(name.endswith(MID) for name in states)
    around = [f"layers.{layer}.{PRE}" for layer in range(1, layers)] + [f"layers.{layers - 1}.residual_post"]
    rows, before = [], logarithm(around[0])
    for layer, following in enumerate(around[1:], 1):
        after = logarithm(following)
        row = here | {"part": f"layers.{layer}", "quantity": "log_variance_difference", "unit": "nats"}
        excess = difference(logarithm(f"layers.{layer}.{MID}"), averaged([before, after]))
        if np.isfinite(excess.estimate):
            rows.append(row | over_pairs(excess))
        else:
            reason = "no log_variance_difference, as all prompts have the same state there, before it or after it"
            rows.append(failures.row(row["part"], reason, here["data"]))
        before = after
    return rows
