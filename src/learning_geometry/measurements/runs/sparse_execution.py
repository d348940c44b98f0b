"""What a sparse dictionary of the states that carry the values tells of routing and execution, and what it does."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from learning_geometry.dictionaries import topk
from learning_geometry.geometry.probes import (
    mutual_information,
    predict,
    quantile_codes,
    ridge_probes,
    shuffled_labels,
)
from learning_geometry.geometry.rounding import descending
from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.common.value_states import (
    Labels,
    LastLayer,
    ValueStates,
    answers,
    as_rows,
    fresh_sequences,
    largest_marker_set,
    last_layer,
    read_states,
)
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {
    "test_sets": ["markers_*"],
    "arrays": ["marker_positions", "values"],
    "task_settings": {"modulus": None, "first_marker": None},
    "model_settings": ["layers", "positions"],
    "at_most": {"k": "latents"},
    "leaves_out_from": {"ablated": "latents"},
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "latents": {
        "type": "integer",
        "minimum": 2,
        "default": 256,
        "description": "Latents of the dictionary.",
    },
    "k": {
        "type": "integer",
        "minimum": 1,
        "default": 16,
        "description": "Latents that are active for each state.",
    },
    "training_sequences": {
        "type": "integer",
        "minimum": 2,
        "default": 4000,
        "description": "Fresh sequences whose states train the dictionary and the probes; each has a state per marker.",
    },
    "steps": {
        "type": "integer",
        "minimum": 1,
        "default": 400,
        "description": "Training steps of the dictionary.",
    },
    "batch_size": {
        "type": "integer",
        "minimum": 1,
        "default": 256,
        "description": "States in a training batch of the dictionary.",
    },
    "learning_rate": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 1.0e-3,
        "description": "Learning rate of the dictionary's Adam.",
    },
    "auxiliary": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "Dead latents in the dictionary's auxiliary loss (AuxK); 0 leaves it out.",
    },
    "ablated": {
        "type": "array",
        "items": {"type": "integer", "minimum": 1},
        "minItems": 1,
        "uniqueItems": True,
        "default": [1, 2, 4, 8, 16, 32, 64, 128],
        "description": "Numbers of latents ablated; those from the number of latents on are left out.",
    },
    "random_draws": {
        "type": "integer",
        "minimum": 2,
        "default": 5,
        "description": "Random choices of latents to remove.",
    },
    "bins": {
        "type": "integer",
        "minimum": 1,
        "default": 4,
        "description": "Bins of a latent's active values in its information; 1 tells active from inactive only.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 2,
        "default": 10,
        "description": "Shufflings of the labels in the null of decoding and of information.",
    },
    "sequences": {
        "type": "integer",
        "minimum": 2,
        "default": 1000,
        "description": "Test sequences on which everything is judged.",
    },
}

VALUE, MARKER, VARIANCE, RANDOM = CHOICES = ("value", "marker", "variance", "random")
"""Ways to choose the latents that are ablated."""

INTACT, RECONSTRUCTION, MEAN = CONTROLS = ("intact", "reconstruction", "mean")

RUNNING_SUM, AFTER_FIRST = "running_sum", "running_sum_after_first"
SHUFFLED = "shuffled_labels"

LATENTS, STATES = SOURCES = ("latents", "states")

MOST_MARKERS = "most_markers"
"""The test set of a task's largest number of markers."""


class Sparse(NamedTuple):
    """A dictionary of states, with what it makes of the training and of the test states."""

    dictionary: topk.Dictionary
    scale: float
    states: dict[str, Float[Tensor, "states width"]]
    """``training`` and ``test`` states, scaled."""
    latents: dict[str, Float[Tensor, "states latents"]]
    means: Float[Tensor, " latents"]
    """Mean latents of the training states."""


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure what a TopK dictionary's latents tell and do, at the last checkpoint and with most markers.

    States: the residual stream at the value positions (behind each marker) before the last layer's attention, which
    reads them. The dictionary and the probes are trained on fresh sequences, everything is judged on the test set
    markers_<m> of the largest m. Sequences with a value at the last position, where the answer is read out, are left
    out. Rows, l = the last layer, data = ``most_markers``, that test set under one name whatever m is:

    - ``sparse_explained_variance`` and ``sparse_dead_share`` (fractions), part ``layers.<l>.residual_pre``: of the test
      states; share of latents that are active for none of the training states (n).
    - ``accuracy_after_ablation`` (fraction), n = sequences, with the 95 % interval over them, states at all value
      positions replaced. Part ``ablation-intact``: by nothing; ``-reconstruction``: by the dictionary's
      reconstruction, nothing ablated; ``-mean``: by that of the mean latents. Parts ``ablation-value``, ``-marker``,
      ``-variance``, index = number of latents ablated: by the reconstruction with so many latents at their mean (over
      training states), those that have most information on the value or the marker's number, or that vary most;
      ``ablation-random``: any latents that are ever active, value = mean over draws (n). Null ``random`` of the
      other three: the range over the draws.
    - ``accuracy_after_published_ablation``: the same, for the largest number ablated, with a dictionary of the states
      *after* the last layer, edited there, where nothing reads them: equal to intact, whatever is ablated.
    - ``decoding_accuracy`` (fraction), n = sequences, parts ``latents-<label>`` and ``states-<label>``: linear probes
      of the marker's number (routing), of the running sum up to this value (execution), and of the value. At the first
      marker the sum is the value; ``running_sum_after_first`` has the other markers alone. ``final_latents-…`` and
      ``final_states-…`` of the states after the last layer.
    - ``best_latent_information`` (nats), the same parts: largest mutual information of a single latent (or coordinate)
      with the label over the training states (n).

    Null ``position_only`` of the decoding of the marker's number: the marker most frequent at the same position, which
    any state that holds its position can tell, as markers come in order.
    Null ``shuffled_labels`` of the last two: the labels of the training states in random order, for information the
    largest of all latents again.

    Rows on the marker's number and on later markers need several markers.

    Raises:
        ValueError: a run of another task, too few states for the dictionary, or more active latents than there are.
    """
    step, data = run.steps()[-1], largest_marker_set(run)
    parameters, layer = run.parameters(step), run.settings["model"]["layers"] - 1
    markers = run.test_set(data, 1)["marker_positions"].shape[1]
    generator = seeded(run.seed, "sparse_execution", "sequences")
    drawn = fresh_sequences(run, markers, settings["training_sequences"], generator)
    training, test = (
        read_states(run, parameters, sequences) for sequences in (drawn, run.test_set(data, settings["sequences"]))
    )
    rows: list[dict[str, Any]] = []
    for site, name, quantity, prefix in (
        ("before", "residual_pre", "accuracy_after_ablation", ""),
        ("final", "residual_post", "accuracy_after_published_ablation", "final_"),
    ):
        sparse = _sparse(getattr(training, site), getattr(test, site), settings, run.seed, site)
        part = f"layers.{layer}.{name}"
        rows += _quality(sparse, part)
        codes = {
            LATENTS: quantile_codes(sparse.latents["training"].numpy(), settings["bins"]),
            STATES: quantile_codes(sparse.states["training"].numpy(), settings["bins"]),
        }
        rows += _decoding(sparse, training.labels, test.labels, settings, run.seed, prefix)
        rows += _information(codes, training.labels, settings, run.seed, prefix)
        orders = _orders(sparse, codes[LATENTS], training.labels, settings, run.seed)
        counts = [count for count in sorted(settings["ablated"]) if count < settings["latents"]]
        # what changes nothing is shown once, by the largest edits
        counts = counts if site == "before" else counts[-1:]
        answered = _ablations(sparse, last_layer(run, parameters), test, orders, counts, site)
        rows += _accuracies(answered, test.targets, quantity)
    rows += _position_only(training, test)
    return tidy([{"step": step, "data": MOST_MARKERS} | row for row in rows], run.experiment, run.seed)


def _position_only(training: ValueStates, test: ValueStates) -> Iterator[dict[str, Any]]:
    """Yield how often the marker most frequent at a position, in the training states, is the one there."""
    if MARKER not in training.labels:
        return
    where, markers = training.positions.numpy().ravel(), training.labels[MARKER].ravel()
    counts = np.zeros((training.stream.shape[1], int(markers.max()) + 1), dtype=np.int64)
    np.add.at(counts, (where, markers), 1)
    right = counts.argmax(1)[test.positions.numpy()] == test.labels[MARKER]
    for source in SOURCES:
        for prefix in ("", "final_"):
            row = {"part": f"{prefix}{source}-{MARKER}", "quantity": "decoding_accuracy", "unit": "fraction"}
            yield row | {"null": "position_only", "value": float(right.mean()), "n": len(right)}


def _sparse(
    training: Float[Tensor, "training markers width"],
    test: Float[Tensor, "test markers width"],
    settings: dict[str, Any],
    seed: int,
    site: str,
) -> Sparse:
    scale = topk.scale_factor(as_rows(training))
    states = {"training": scale * as_rows(training), "test": scale * as_rows(test)}
    chosen = {name: settings[name] for name in ("latents", "k", "steps", "batch_size", "learning_rate", "auxiliary")}
    fitted = topk.fit(states["training"], topk.Settings(**chosen), seed, "sparse_execution", site)
    latents = {name: topk.encode(fitted.dictionary, of, settings["k"]) for name, of in states.items()}
    return Sparse(fitted.dictionary, scale, states, latents, latents["training"].mean(0))


def _quality(sparse: Sparse, part: str) -> Iterator[dict[str, Any]]:
    explained = topk.explained_variance(sparse.states["test"], topk.decode(sparse.dictionary, sparse.latents["test"]))
    dead = float(topk.dead(sparse.latents["training"]).float().mean())
    row = {"part": part, "unit": "fraction"}
    yield row | {"quantity": "sparse_explained_variance", "value": explained, "n": len(sparse.states["test"])}
    yield row | {"quantity": "sparse_dead_share", "value": dead, "n": len(sparse.states["training"])}


def _orders(
    sparse: Sparse, codes: Int64[np.ndarray, "states latents"], labels: Labels, settings: dict[str, Any], seed: int
) -> dict[str, list[np.ndarray]]:
    """Return how latents follow each other when more and more are ablated, by choice; several for random ones."""
    orders = {
        choice: [descending(mutual_information(codes, labels[choice].ravel()))]
        for choice in (VALUE, MARKER)
        if choice in labels
    }
    latents = sparse.latents["training"]
    orders[VARIANCE] = [descending(latents.double().var(0).numpy())]
    # dead ones last: they hold nothing that could be ablated
    dead = topk.dead(latents).numpy()
    generator = seeded(seed, "sparse_execution", "random")
    orders[RANDOM] = [
        np.argsort(dead + generator.random(len(dead)) / 2, kind="stable") for _ in range(settings["random_draws"])
    ]
    return orders


def _ablations(
    sparse: Sparse,
    layer: LastLayer,
    test: ValueStates,
    orders: dict[str, list[np.ndarray]],
    counts: list[int],
    site: str,
) -> dict[tuple[str, int], list[np.ndarray]]:
    """Return the answers by kind of ablation and number of latents ablated, one array for each choice of latents."""
    shape = test.before.shape

    def after(latents: Float[Tensor, "states latents"]) -> np.ndarray:
        states = (topk.decode(sparse.dictionary, latents) / sparse.scale).view(shape)
        return answers(layer, test, **{site: states})

    kept = sparse.latents["test"]
    answered = {
        (INTACT, 0): [answers(layer, test)],
        (RECONSTRUCTION, 0): [after(kept)],
        (MEAN, 0): [after(sparse.means.expand_as(kept))],
    }
    for choice, of_choice in orders.items():
        for count in counts:
            answered[choice, count] = []
            for order in of_choice:
                latents = kept.clone()
                gone = torch.from_numpy(order[:count].copy())
                latents[:, gone] = sparse.means[gone]
                answered[choice, count].append(after(latents))
    return answered


def _accuracies(
    answered: dict[tuple[str, int], list[np.ndarray]], targets: np.ndarray, quantity: str
) -> Iterator[dict[str, Any]]:
    for (choice, count), several in answered.items():
        right = np.array([answer == targets for answer in several], dtype=float)
        row = {"part": f"ablation-{choice}", "quantity": quantity, "index": count, "unit": "fraction"}
        if choice == RANDOM:
            yield row | {"value": right.mean(), "n": len(right)}
            continue
        yield row | _over_sequences(right[0])
        if (RANDOM, count) in answered and choice not in CONTROLS:
            draws = np.array([(answer == targets).mean() for answer in answered[RANDOM, count]])
            yield row | central_range(draws, RANDOM)


def _decoding(
    sparse: Sparse, training: Labels, test: Labels, settings: dict[str, Any], seed: int, prefix: str
) -> Iterator[dict[str, Any]]:
    for source in SOURCES:
        of_source = {LATENTS: sparse.latents, STATES: sparse.states}[source]
        features = {name: of.numpy() for name, of in of_source.items()}
        for name, (used, labels) in _labellings(training).items():
            shuffled = shuffled_labels(labels, settings["null_draws"], seeded(seed, "sparse_execution", SHUFFLED, name))
            judged, expected = _labellings(test)[name]
            probes = ridge_probes(features["training"][used], [labels, *shuffled])
            right = [predict(probe, features["test"][judged]) == expected for probe in probes]
            # states of one sequence are not independent
            by_sequence = np.array(right, dtype=float).reshape(len(probes), len(test[VALUE]), -1).mean(2)
            row = {"part": f"{prefix}{source}-{name}", "quantity": "decoding_accuracy", "unit": "fraction"}
            yield row | _over_sequences(by_sequence[0])
            yield row | central_range(by_sequence[1:].mean(1), SHUFFLED)


def _information(
    codes: dict[str, Int64[np.ndarray, "states _"]], labels: Labels, settings: dict[str, Any], seed: int, prefix: str
) -> Iterator[dict[str, Any]]:
    for name, (used, expected) in _labellings(labels).items():
        shuffled = shuffled_labels(expected, settings["null_draws"], seeded(seed, "sparse_execution", SHUFFLED, name))
        for source, of_source in codes.items():
            best, *nulls = (mutual_information(of_source[used], each).max() for each in (expected, *shuffled))
            row = {"part": f"{prefix}{source}-{name}", "quantity": "best_latent_information", "unit": "nats"}
            yield row | {"value": float(best), "n": len(expected)}
            yield row | central_range(np.array(nulls), SHUFFLED)


def _labellings(labels: Labels) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return by name which states a label is of, and the label of each."""
    everywhere = {name: (np.ones(label.size, dtype=bool), label.ravel()) for name, label in labels.items()}
    running = labels[RUNNING_SUM]
    if running.shape[1] > 1:
        later = np.broadcast_to(np.arange(running.shape[1]) > 0, running.shape).ravel()
        everywhere[AFTER_FIRST] = (later, running.ravel()[later])
    return everywhere


def _over_sequences(values: Float[np.ndarray, " sequences"]) -> dict[str, Any]:
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    return {"value": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error, "n": len(values)}
