"""States of a model of marker sums where the values are read in, and what it answers when they are edited."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from learning_geometry.measurements.common.run import Run
from learning_geometry.models import Model, build

BATCH = 250
"""Sequences computed at once."""

SEQUENCES_AT_ONE_PLACE = 8
"""Fresh sequences that share their marker positions, as a training batch does."""

Labels = dict[str, Int64[np.ndarray, "_ markers"]]


class ValueStates(NamedTuple):
    """States at the value positions, one behind each marker, and what is to be read from them."""

    before: Float[Tensor, "sequences markers width"]
    """The residual stream before the last layer's attention, which that attention reads."""
    final: Float[Tensor, "sequences markers width"]
    """The residual stream after the last layer, which nothing reads but at the last position."""
    labels: Labels
    stream: Float[Tensor, "sequences positions width"]
    """The whole residual stream before the last layer."""
    positions: Int64[Tensor, "sequences markers"]
    """The value positions."""
    targets: Int64[np.ndarray, " sequences"]


class LastLayer(NamedTuple):
    """The last layer with what follows it, as a model of one layer."""

    model: Model
    parameters: dict[str, Tensor]


def largest_marker_set(run: Run) -> str:
    """Return the name of the test set with most markers, ``markers_<m>``.

    Raises:
        ValueError: there is none: the task is another.
    """
    marker_sets = [name for name in run.dataset.test_sets if re.fullmatch(r"markers_\d+", name)]
    if not marker_sets:
        raise ValueError(
            f"{run.experiment}: no test set markers_<m>, only {sorted(run.dataset.test_sets)}; "
            "measure runs of the task marker_sums, or leave this measurement out"
        )
    return max(marker_sets, key=lambda name: int(name.removeprefix("markers_")))


def value_labels(values: Int64[np.ndarray, "sequences markers"], modulus: int) -> Labels:
    """Return what may be read at the value positions, by name.

    ``value``; ``marker``: its number from 0, only where there are several; ``running_sum``: the sum of the values up to
    this one, modulo the modulus.

    >>> {name: label.tolist() for name, label in value_labels(np.array([[3, 6]]), 8).items()}
    {'value': [[3, 6]], 'running_sum': [[3, 1]], 'marker': [[0, 1]]}
    """
    labels = {"value": values, "running_sum": values.cumsum(1) % modulus}
    if values.shape[1] > 1:
        labels["marker"] = np.broadcast_to(np.arange(values.shape[1]), values.shape).copy()
    return labels


def fresh_sequences(run: Run, markers: int, count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw sequences as in training, all with the largest number of markers; the arrays are those of a test set.

    Every few sequences have marker positions of their own.

    Args:
        run: of the task marker_sums.
        markers: the largest m of the task; no distractor is then one of them.
        count: how many sequences, rounded up to whole batches.
        generator: source of the draws.
    """
    settings = dict(run.settings["task"]) | {"markers": [markers], "curriculum": 0}
    batches = [
        run.task.training_batch(settings, run.dataset.drawn_once, generator, SEQUENCES_AT_ONE_PLACE, 0)
        for _ in range(-(-count // SEQUENCES_AT_ONE_PLACE))
    ]
    tokens, targets = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("tokens", "targets"))
    first = settings["first_marker"]
    positions = np.nonzero((tokens >= first) & (tokens < first + markers))[1].reshape(len(tokens), markers)
    values = np.take_along_axis(tokens, positions + 1, axis=1)
    return {"tokens": tokens, "targets": targets, "marker_positions": positions, "values": values}


@torch.no_grad()
def read_states(run: Run, parameters: dict[str, Tensor], sequences: Mapping[str, np.ndarray]) -> ValueStates:
    """Run the model and keep its states at the value positions, of the sequences without a value at the last position.

    At the last position the answer is read out, and an edit there would be read whatever attention does.

    Args:
        run: of the task marker_sums.
        parameters: at one step.
        sequences: ``tokens``, ``targets``, ``marker_positions`` and ``values``, as of a test set.
    """
    inside = sequences["marker_positions"].max(1) + 1 < sequences["tokens"].shape[1] - 1
    tokens, positions, values, targets = (
        sequences[name][inside] for name in ("tokens", "marker_positions", "values", "targets")
    )
    last = run.settings["model"]["layers"] - 1
    seen: dict[str, list[Tensor]] = {f"layers.{last}.residual_pre": [], f"layers.{last}.residual_post": []}

    def see(name: str, value: Tensor) -> Tensor:
        if name in seen:
            seen[name].append(value)
        return value

    for start in range(0, len(tokens), BATCH):
        run.model.forward(parameters, torch.from_numpy(tokens[start : start + BATCH]), hook=see)
    before, after = (torch.cat(batches) for batches in seen.values())
    at = torch.from_numpy(positions + 1)
    rows = torch.arange(len(at))[:, None]
    labels = value_labels(values, run.settings["task"]["modulus"])
    return ValueStates(before[rows, at], after[rows, at], labels, before, at, targets[:, -1])


def last_layer(run: Run, parameters: Mapping[str, Tensor]) -> LastLayer:
    """Return the last layer and the read-out as a model whose tokens are the rows of a residual stream."""
    settings = run.settings["model"]
    prefix = f"layers.{settings['layers'] - 1}."
    kept = {
        re.sub(rf"^{re.escape(prefix)}", "layers.0.", name): value
        for name, value in parameters.items()
        if name.startswith(prefix) or not name.startswith("layers.")
    }
    # learned positions are in the stream already
    positions = "none" if settings["positions"] == "learned" else settings["positions"]
    return LastLayer(build(dict(settings) | {"layers": 1, "positions": positions}, run.model.shape), kept)


@torch.no_grad()
def answers(
    layer: LastLayer,
    states: ValueStates,
    before: Float[Tensor, "sequences markers width"] | None = None,
    final: Float[Tensor, "sequences markers width"] | None = None,
) -> Int64[np.ndarray, " sequences"]:
    """Return the model's answer at the last position, with states at the value positions replaced.

    Args:
        layer: of the same parameters as the states.
        states: whose residual stream enters it.
        before: states to put there before the last attention reads them; None leaves them.
        final: states to put there after it; None leaves them.
    """
    predicted = []
    for start in range(0, len(states.stream), BATCH):
        window = slice(start, start + BATCH)
        stream, at = states.stream[window], states.positions[window]
        rows = torch.arange(len(at))[:, None]
        if before is not None:
            stream = stream.clone()
            stream[rows, at] = before[window]

        def edit(name: str, value: Tensor, window: slice = window, at: Tensor = at, rows: Tensor = rows) -> Tensor:
            if name == "layers.0.residual_post" and final is not None:
                value = value.clone()
                value[rows, at] = final[window]
            return value

        count, length, width = stream.shape
        tokens = torch.arange(count * length).view(count, length)
        # hooked even where nothing is edited after it, so that equal states give equal bits
        logits = layer.model.forward(
            layer.parameters | {"embedding.weight": stream.reshape(-1, width)}, tokens, hook=edit
        )
        predicted.append(logits[:, -1].argmax(-1).numpy())
    return np.concatenate(predicted)


def as_rows(states: Float[Tensor, "sequences markers width"]) -> Float[Tensor, "states width"]:
    """Return all states below each other."""
    return states.flatten(0, 1)
