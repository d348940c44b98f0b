"""How two kinds of sequences come apart in the residual stream over training, such as ID and OOD ones."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64

from learning_geometry.geometry.contrasts import Contrast, contrast
from learning_geometry.geometry.probes import shuffled_labels
from learning_geometry.geometry.untangling import held_out_hits
from learning_geometry.measurements.common.estimates import clipped
from learning_geometry.measurements.common.run import Run
from learning_geometry.models.language import LanguageModel, ModelSizes
from learning_geometry.models.language.trained import language_model
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy
from learning_geometry.tasks.dataset import Arrays

NEEDS = {
    "model_settings": ["layers", "heads", "width", "mlp_width", "norm", "positions", "activation"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 200,
        "description": "Measure the checkpoints whose step is a multiple of this, and the first and the last.",
    },
    "first": {
        "type": "string",
        "minLength": 1,
        "default": "in_distribution",
        "description": "Name of the test set that is the first of the two.",
    },
    "second": {
        "type": "string",
        "minLength": 1,
        "default": "out_of_distribution",
        "description": "Name of the test set that is the second.",
    },
    "sequences": {
        "type": "integer",
        "minimum": 10,
        "default": 150,
        "description": "Sequences of each of the two, the first ones.",
    },
    "place": {
        "type": ["string", "null"],
        "minLength": 1,
        "default": "second_start",
        "description": "Array of the test sets with a position for each sequence, from which `offset` is counted; null "
        "takes the last position.",
    },
    "offset": {
        "type": "integer",
        "minimum": 0,
        "default": 4,
        "description": "How many positions after the place a sequence is looked at; not used at the last position.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 1,
        "default": 20,
        "description": "Shuffled labellings in the null baseline.",
    },
}

SEPARABILITY = "separability"
OF_CONTRAST = {
    "mean_cosine": "cosine",
    "mean_variance-first": "mean_variance_first",
    "mean_variance-second": "mean_variance_second",
}
"""Name of the quantity -> field of the contrast."""


class _Samples(NamedTuple):
    """One sequence each: tokens, and the position at which it is looked at; those of the first set come first."""

    tokens: Int64[np.ndarray, "sequences position"]
    positions: Int64[np.ndarray, " sequences"]
    labels: Int64[np.ndarray, " sequences"]


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure how far apart two test sets are in the residual stream, one vector for each sequence.

    By default these are sequences of the copying task in and out of distribution, at the fifth token of their second
    copy. There both have seen the same amount of what is to be recognised, five tokens of the copy, and the next token
    is the first whose prediction is scored; the last position of a sequence lies a random way behind the copy, in
    noise, and any other fixed position lies somewhere else in every sequence.

    Rows, data = "<first>-<second>", part ``layers.0.residual_pre``, ``layers.<l>.residual_mid`` of every layer and,
    if there are MLPs, ``layers.<l>.residual_pre`` of the others and ``residual_post`` of the last: without MLPs these
    are the residual_mid before them. n = sequences of both sets, with 95 % intervals over them.

    - ``mean_cosine``: cosine of the means of the two sets. What is random in means of so few sequences lowers it, which
      its interval does not undo and the shuffled labels share: compare it with them;
    - ``mean_variance-first``, ``mean_variance-second``: variance over the sequences of a set, mean over coordinates;
      the intervals of both are those of the jackknife;
    - ``separability`` (fraction): share of sequences that a linear probe assigns to the right set, made without them
      (8-fold cross-validation); its interval is that of a share of n independent sequences (Wilson).

    Nulls of all:

    - ``shuffled_labels``: the same vectors, which set they are of in random order;
    - ``untrained``: the run's own model at its first checkpoint. The sets may differ in which tokens they are made of,
      which any mixture of their embeddings shows: what enters the first layer tells how far the token looked at alone
      gives its set away.

    Raises:
        KeyError: there is no such test set, it has fewer sequences, or no such array of places.
        ValueError: both are the same test set or differ in length, a place and its offset lie outside of a sequence,
            or the model reads out at the last position alone and another place is asked for.
    """
    samples = _samples(run, settings)
    data = f"{settings['first']}-{settings['second']}"
    named = ("contrast_over_training", settings["first"], settings["second"])
    shuffled = shuffled_labels(samples.labels, settings["null_draws"], seeded(run.seed, *named, "shuffled_labels"))
    untrained: dict[tuple[str, str], float] = {}
    rows: list[dict[str, Any]] = []
    # the first checkpoint is the null, measured or not
    for step in sorted({run.steps()[0], *run.steps(settings["every"])}):
        model = language_model(run.model, run.parameters(step), f"{run.experiment}, seed {run.seed}, step {step}")
        for part, vectors in states(model, samples.tokens, samples.positions).items():
            here = {"step": step, "part": part, "data": data}
            # the folds are the same at all checkpoints
            folds = seeded(run.seed, *named, "folds")
            for row in _of_part(vectors, samples.labels, shuffled, folds):
                rows.append(here | row)
                if "null" not in row:
                    first = untrained.setdefault((part, row["quantity"]), row["value"])
                    rows.append(here | row | {"null": "untrained", "value": first, "low": first, "high": first})
    return tidy(rows, run.experiment, run.seed)


def stream_names(sizes: ModelSizes) -> list[str]:
    """Return the names of the residual stream wherever a part of the model has changed it, and of what enters.

    >>> sizes = ModelSizes(vocabulary=11, layers=2, width=8, heads=2, head_width=4, mlp_width=0, context=None)
    >>> stream_names(sizes)
    ['layers.0.residual_pre', 'layers.0.residual_mid', 'layers.1.residual_mid']
    """
    names = [f"layers.{layer}.{part}" for layer in range(sizes.layers) for part in ("residual_pre", "residual_mid")]
    if sizes.mlp_width:
        return [*names, f"layers.{sizes.layers - 1}.residual_post"]
    return [name for name in names if name == names[0] or name.endswith("residual_mid")]


def states(
    model: LanguageModel,
    tokens: Int64[np.ndarray, "sequences position"],
    positions: Int64[np.ndarray, " sequences"],
) -> dict[str, Float[np.ndarray, "sequences width"]]:
    """Return the residual stream of each sequence at its position, by name of the activation."""
    activations = model.activations(torch.from_numpy(tokens), stream_names(model.sizes))
    return {name: values[np.arange(len(tokens)), positions].numpy() for name, values in activations.items()}


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n independent cases, which keeps a width where all of them are hits.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    >>> [round(end, 3) for end in wilson_interval(10, 10)]
    [0.722, 1.0]
    """
    z, share = 1.959964, hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return float(max(middle - half_width, 0.0)), float(min(middle + half_width, 1.0))


def two_sample_jackknife(
    left_out: Float[np.ndarray, "sequences quantities"], labels: Int64[np.ndarray, " sequences"]
) -> Float[np.ndarray, " quantities"]:
    """Return standard errors of numbers of two independent sets, from their values with each sequence left out.

    The variances that come from either set add up (Efron and Tibshirani 1993, "An Introduction to the Bootstrap",
    section 11.2, for each). A bootstrap would draw the noise of the means twice, and lie below the cosine itself.

    Of a difference of means it is the known standard error, here √(1 / 2 + 4 / 2) for variances 1 and 4:

    >>> first, second = np.array([0.0, 2.0]) / np.sqrt(2), np.array([0.0, 4.0]) / np.sqrt(2)
    >>> differences = [first[1] - 2 / 2**0.5, first[0] - 2 / 2**0.5, 2**-0.5 - second[1], 2**-0.5 - second[0]]
    >>> two_sample_jackknife(np.array(differences)[:, None], np.array([0, 0, 1, 1])).round(4)
    array([1.5811])
    """
    variance = np.zeros(left_out.shape[1])
    for label in np.unique(labels):
        of_set = left_out[labels == label]
        variance += (len(of_set) - 1) * of_set.var(0)
    return np.sqrt(variance)


def _of_part(
    vectors: Float[np.ndarray, "sequences width"],
    labels: Int64[np.ndarray, " sequences"],
    shuffled: Int64[np.ndarray, "draws sequences"],
    folds: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    n = len(labels)
    # all of them, then all but one
    counts = np.ones((n + 1, n), dtype=np.int64)
    counts[1:] -= np.eye(n, dtype=np.int64)
    estimates = _chosen(contrast(vectors, counts * (labels == 0), counts * (labels == 1)))
    estimate, half_width = estimates[0], 1.959964 * two_sample_jackknife(estimates[1:], labels)
    null = _chosen(contrast(vectors, (shuffled == 0).astype(np.int64), (shuffled == 1).astype(np.int64)))
    for place, quantity in enumerate(OF_CONTRAST):
        row = {"quantity": quantity, "unit": "1"}
        low, high = estimate[place] - half_width[place], estimate[place] + half_width[place]
        within = {"low": max(low, -1.0), "high": min(high, 1.0)} if quantity == "mean_cosine" else {}
        yield row | {"value": float(estimate[place]), "low": low, "high": high, "n": n} | within
        yield row | central_range(null[:, place], "shuffled_labels")
    hits = held_out_hits(vectors, np.concatenate([labels[None], shuffled]), np.arange(n), folds)
    low, high = wilson_interval(int(hits[0].sum()), n)
    row = {"quantity": SEPARABILITY, "unit": "fraction"}
    yield row | {"value": float(hits[0].mean()), "low": low, "high": high, "n": n}
    null_row = central_range(hits[1:].mean(1), "shuffled_labels")
    yield row | null_row | clipped(null_row["low"], null_row["high"])


def _chosen(of: Contrast) -> Float[np.ndarray, "draws quantities"]:
    return np.stack([getattr(of, field) for field in OF_CONTRAST.values()], axis=1)


def _samples(run: Run, settings: dict[str, Any]) -> _Samples:
    first, second = settings["first"], settings["second"]
    if first == second:
        raise ValueError(f"contrast_over_training, {run.experiment}: `first` and `second` are both {first!r}; name two")
    if settings["place"] is not None and run.settings["model"].get("readout") == "last":
        raise ValueError(
            f"contrast_over_training, {run.experiment}: the model reads out at the last position alone, and `place` is "
            f"{settings['place']!r}; set it to null"
        )
    sets = {name: run.test_set(name, settings["sequences"]) for name in (first, second)}
    lengths = {name: of["tokens"].shape[1] for name, of in sets.items()}
    if lengths[first] != lengths[second]:
        raise ValueError(
            f"contrast_over_training, {run.experiment}: sequences of {lengths} positions, which differ for that reason "
            "alone; name two test sets of one length"
        )
    tokens = np.concatenate([of["tokens"] for of in sets.values()])
    positions = np.concatenate([_positions(run, name, of, settings) for name, of in sets.items()])
    return _Samples(tokens, positions, np.repeat([0, 1], settings["sequences"]))


def _positions(run: Run, name: str, test_set: Arrays, settings: dict[str, Any]) -> Int64[np.ndarray, " sequences"]:
    length, place = test_set["tokens"].shape[1], settings["place"]
    if place is None:
        return np.full(len(test_set["tokens"]), length - 1)
    numbers = sorted(key for key, array in test_set.items() if array.ndim == 1)
    if place not in numbers:
        raise KeyError(
            f"contrast_over_training, {run.experiment}: {name} has no {place!r}, one position for each sequence; it "
            f"has {numbers}; set `place` to one of them, or to null for the last position"
        )
    positions = test_set[place] + settings["offset"]
    if positions.min() < 0 or positions.max() >= length:
        raise ValueError(
            f"contrast_over_training, {run.experiment}: {place} + {settings['offset']} is {positions.min()} to "
            f"{positions.max()} in {name}, of {length} positions; lower `offset`"
        )
    return positions
