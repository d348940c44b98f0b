"""Induction in models of several heads: the scores of each, what a repetition saves, and how two heads match."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64

from learning_geometry.geometry.head_products import output_value_products, query_key_products
from learning_geometry.geometry.nulls import principal_cosines_null
from learning_geometry.geometry.rounding import difference
from learning_geometry.geometry.uncertainty import Crossing, first_crossing
from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.runs.head_scores import scores_by_layer, uniform_scores
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {
    "test_sets": ["repeated"],
    "arrays": ["first_start", "second_start", "segment_length"],
    "model_settings": ["layers", "heads", "width"],
    "model_without": {"layers": [1]},
    "at_most": {"rank": "head_width"},
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 100,
        "description": "Measure the checkpoints whose step is a multiple of this, and the last.",
    },
    "sequences": {
        "type": "integer",
        "minimum": 2,
        "default": 200,
        "description": "Number of sequences of the test set `repeated`, the first ones.",
    },
    "rank": {
        "type": "integer",
        "minimum": 1,
        "default": 10,
        "description": "Rank of the subspaces matched.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 40,
        "default": 1000,
        "description": "Random subspaces drawn once per run for the null of the match.",
    },
}

DATA = "repeated"

SCORES = ("previous_token_score", "induction_score")

LEAST_RISE = 0.05
"""A largest score of all heads that rises by less, in shares of attention, has no time at which it rose."""

PERCENT = (10, 50, 90)
"""Shares of a rise whose crossings are events."""

BATCH_SIZE = 100
"""Sequences per forward pass."""


class Head(NamedTuple):
    """A head of a model: its layer and its number in it, from 0."""

    layer: int
    head: int


@torch.no_grad()
def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure induction on random tokens with a repeated segment, data ``repeated``, n = sequences.

    - ``previous_token_score`` and ``induction_score`` (fraction of attention; see ``head_scores``), part
      ``layers.<l>``, index = head, and ``largest_previous_token_score`` and ``largest_induction_score`` of all heads,
      which may be of another head at every step. Nulls ``uniform_attention``, exact, and of the largest ``untrained``.
    - ``loss_saved_by_repetition`` (nats): the loss of the segment's tokens in the first copy minus that in the second,
      from its second token on, with the 95 % interval over sequences; 0 for a model that does not look back.
    - ``<score>_rise_step`` (steps), index 10, 50 and 90, at the last step: the first measured step at which the largest
      score has made so many percent of its way from its first to its last value; censored if that is no rise of
      ``LEAST_RISE``. [low, high] = the measured step before it, and it.
    - ``circuit_match_rms_cosine``, index = rank: root mean square of the principal cosines between what the keys of the
      induction head read most and what the previous-token head writes most, from the weights alone (``composition``).
      The two are chosen at the last checkpoint: the head beyond the first layer with the largest induction score, and
      the head of an earlier layer with the largest previous-token score. Nulls: ``random_subspaces``, and
      ``other_heads``, all other pairs of an earlier and a later layer. ``circuit_head``, at the last step, index 0 and
      1 the layer and head that write, 2 and 3 those that read.

    Raises:
        ValueError: the model has a single layer, or the rank exceeds the width of a head.
    """
    model = run.settings["model"]
    if model["layers"] < 2:
        raise ValueError("measurements.induction_circuit: a model of one layer has no circuit; leave it out")
    test_set, steps = run.test_set(DATA, settings["sequences"]), run.steps(settings["every"])
    copies = [torch.from_numpy(test_set[name]) for name in ("first_start", "second_start", "segment_length")]
    chance = uniform_scores(test_set["tokens"].shape[1], copies)
    rows: list[dict[str, Any]] = []
    largest: dict[str, list[float]] = {name: [] for name in SCORES}
    by_head: dict[str, Float64[np.ndarray, "layers heads"]] = {}
    for step in steps:
        here = {"step": step, "data": DATA, "n": len(test_set["tokens"])}
        layers = scores_by_layer(run, step, test_set["tokens"], copies)
        for name in SCORES:
            by_head[name] = np.stack([layers[f"layers.{layer}"][name].double().mean(0) for layer in range(len(layers))])
            row = here | {"quantity": name, "unit": "fraction"}
            exact = {"null": "uniform_attention"} | dict.fromkeys(("value", "low", "high"), chance[name])
            for layer, values in enumerate(by_head[name]):
                of_layer = row | {"part": f"layers.{layer}", "index": np.arange(len(values))}
                rows += [of_layer | {"value": values}, of_layer | exact]
            largest[name].append(float(by_head[name].max()))
            first = {"null": "untrained"} | dict.fromkeys(("value", "low", "high"), largest[name][0])
            row |= {"quantity": f"largest_{name}"}
            rows += [row | {"value": largest[name][-1]}, row | exact, row | first]
        saved = loss_saved(run, step, test_set)
        error = 1.96 * float(saved.std(ddof=1)) / len(saved) ** 0.5
        value = float(saved.mean())
        row = here | {"quantity": "loss_saved_by_repetition", "unit": "nats"}
        rows.append(row | {"value": value, "low": value - error, "high": value + error})
    for name in SCORES:
        rows += _rises(name, steps, largest[name])
    writer, reader = circuit(by_head["previous_token_score"], by_head["induction_score"])
    ends = {"quantity": "circuit_head", "index": np.arange(4), "value": np.array([*writer, *reader], np.float64)}
    rows.append(ends | {"step": steps[-1], "data": DATA})
    return tidy(rows + _matches(run, steps, writer, reader, settings), run.experiment, run.seed)


def circuit(
    previous_token: Float64[np.ndarray, "layers heads"], induction: Float64[np.ndarray, "layers heads"]
) -> tuple[Head, Head]:
    """Return the head that writes and the one that reads, from the scores of all heads.

    >>> scores = np.array([[0.1, 0.9], [0.8, 0.0], [0.0, 0.3]])
    >>> circuit(scores, scores)
    (Head(layer=0, head=1), Head(layer=1, head=0))
    """
    layer, head = np.unravel_index(induction[1:].argmax(), induction[1:].shape)
    reader = Head(int(layer) + 1, int(head))
    earlier = previous_token[: reader.layer]
    layer, head = np.unravel_index(earlier.argmax(), earlier.shape)
    return Head(int(layer), int(head)), reader


def loss_saved(run: Run, step: int, test_set: Mapping[str, np.ndarray]) -> Float64[np.ndarray, " sequences"]:
    """Return for each sequence the mean loss (nats) of a segment's tokens in the first copy minus that in the second.

    Args:
        run: the run.
        step: of its checkpoint.
        test_set: with ``tokens``, ``targets``, and where the copies are.
    """
    parameters, saved = run.parameters(step), []
    for start in range(0, len(test_set["tokens"]), BATCH_SIZE):
        these = {name: array[start : start + BATCH_SIZE] for name, array in test_set.items()}
        tokens, targets = torch.from_numpy(these["tokens"]), torch.from_numpy(these["targets"])
        logits = run.model.forward(parameters, tokens)
        losses = cross_entropy(logits, targets, reduction="none").view(targets.shape).double().numpy()
        saved.append(saved_in(losses, *(these[name] for name in ("first_start", "second_start", "segment_length"))))
    return np.concatenate(saved)


def saved_in(
    losses: Float[np.ndarray, "sequences position"],
    first_start: Int64[np.ndarray, " sequences"],
    second_start: Int64[np.ndarray, " sequences"],
    segment_length: Int64[np.ndarray, " sequences"],
) -> Float64[np.ndarray, " sequences"]:
    """Return the mean of ``losses`` over the first copy minus that over the second, at positions that know a token.

    The loss at position t is that of token t + 1: counted are the positions of all but the last token of each copy.

    >>> one = np.array([1])
    >>> saved_in(np.array([[9.0, 4.0, 4.0, 9.0, 1.0, 1.0, 9.0]]), one, 4 * one, 3 * one)
    array([3.])
    """
    positions = np.arange(losses.shape[1])
    means = []
    for start in (first_start, second_start):
        counted = (positions >= start[:, None]) & (positions < (start + segment_length - 1)[:, None])
        means.append((losses * counted).sum(1) / counted.sum(1))
    return np.asarray(difference(means[0], means[1]), np.float64)


def rise(steps: Sequence[int], values: Sequence[float], percent: int) -> Crossing:
    """Return the first step at which a curve has made a share of its way from its first to its last value.

    >>> rise([0, 10, 20, 30], [0.0, 0.2, 0.9, 1.0], 50)
    Crossing(step=20.0, censored=False)
    """
    change = values[-1] - values[0]
    if not change > LEAST_RISE:
        return Crossing(float(steps[-1]), True)
    # first_crossing looks for falls
    return first_crossing(np.array(steps), -np.array(values), -(values[0] + percent / 100 * change))


def _rises(name: str, steps: Sequence[int], values: Sequence[float]) -> list[dict[str, Any]]:
    rows = []
    for percent in PERCENT:
        event = rise(steps, values, percent)
        row = {"quantity": f"{name}_rise_step", "index": percent, "step": steps[-1], "data": DATA, "unit": "steps"}
        row |= {"value": event.step, "censored": event.censored}
        if not event.censored:
            row |= {"low": float(max(step for step in [steps[0], *steps] if step < event.step)), "high": event.step}
        rows.append(row)
    return rows


def _matches(
    run: Run, steps: Sequence[int], writer: Head, reader: Head, settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the rows of the match of two heads, from the weights."""
    width, rank = run.settings["model"]["width"], settings["rank"]
    generator = seeded("induction_circuit", "subspaces", run.seed)
    (cosines,) = principal_cosines_null(width, [rank], settings["null_draws"], generator)
    chance = central_range(np.sqrt((cosines**2).mean(-1)), "random_subspaces")
    rows = []
    for step in steps:
        reads, writes = subspaces(run, step, rank)
        row = {"step": step, "quantity": "circuit_match_rms_cosine", "index": rank}
        others = [
            match(reads[later], writes[earlier])
            for earlier, later in product(writes, reads)
            if earlier.layer < later.layer and (earlier, later) != (writer, reader)
        ]
        rows += [row | {"value": match(reads[reader], writes[writer])}, row | chance]
        rows += [row | central_range(np.array(others), "other_heads")] if others else []
    return rows


def subspaces(
    run: Run, step: int, rank: int
) -> tuple[dict[Head, Float64[np.ndarray, "width rank"]], dict[Head, Float64[np.ndarray, "width rank"]]]:
    """Return of every head an orthonormal basis of what its keys read most, and one of what it writes most."""
    model, arrays = run.settings["model"], run.arrays(step)
    reads, writes = {}, {}
    for layer in range(model["layers"]):
        weights = {
            role: arrays[f"layers.{layer}.attention.{role}.weight"] for role in ("query", "key", "value", "output")
        }
        read = query_key_products(weights["query"], weights["key"], model["heads"])
        written = output_value_products(weights["output"], weights["value"], model["heads"])
        for head in range(model["heads"]):
            reads[Head(layer, head)] = np.linalg.svd(read[head])[2][:rank].T
            writes[Head(layer, head)] = np.linalg.svd(written[head])[0][:, :rank]
    return reads, writes


def match(one: Float64[np.ndarray, "width rank"], other: Float64[np.ndarray, "width rank"]) -> float:
    """Return the root mean square of the principal cosines of two subspaces of one rank, from orthonormal bases.

    >>> match(np.eye(3)[:, :2], np.eye(3)[:, 1:])
    0.7071067811865476
    """
    return float(np.sqrt(((one.T @ other) ** 2).sum() / one.shape[1]))
