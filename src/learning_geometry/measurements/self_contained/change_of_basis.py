"""A small network in the plane as the change of basis it is: what each of its layers does to the points of a grid.

Nothing here reads a language model. The network is trained in the measurement, from fixed seeds, so that the table is
the same for every one: it shows what the measurements of language models are about, and is evidence of nothing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int64

from learning_geometry.geometry.untangling import held_out_hits
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

SETTINGS = {
    "layers": {"type": "integer", "minimum": 1, "default": 3, "description": "Residual ReLU layers of the network."},
    "points": {"type": "integer", "minimum": 20, "default": 100, "description": "Points of each class."},
    "steps": {"type": "integer", "minimum": 1, "default": 1500, "description": "Steps of training."},
    "null_draws": {
        "type": "integer",
        "minimum": 2,
        "default": 100,
        "description": "Labels shuffled, of the null of the separability.",
    },
}

GRID, INNER, OUTER = ("grid", "inner", "outer")
READ, WRITTEN, READOUT = ("read_basis", "written_basis", "readout")

REACH = 1.5
"""The grid goes from minus this to this."""
LINES, DOTS = 11, 31
"""Lines of the grid in either direction, and points of each."""

LEARNING_RATE, FIRST_DECAY, SECOND_DECAY = 0.02, 0.9, 0.999
SHRINKAGE = 1e-3
"""Weight decay, in the loss."""
UPRIGHTNESS = 0.02
"""Weight in the loss of how far each W is from a rotation: else a basis may be too skew to be drawn."""


class Layer(NamedTuple):
    """x ↦ x + V ReLU(W x + b) in the plane, with two hidden units."""

    weight: Float64[np.ndarray, "2 2"]
    """W: from the coordinates of the stream to those in the layer's own basis."""
    bias: Float64[np.ndarray, "2"]
    written: Float64[np.ndarray, "2 2"]
    """V: its columns are what the hidden units write."""


class Network(NamedTuple):
    """Layers, and a linear read-out whose sign is the class."""

    layers: tuple[Layer, ...]
    readout: Float64[np.ndarray, "2"]
    threshold: Float64[np.ndarray, "1"]


class Stages(NamedTuple):
    """Points within one layer."""

    pre: Float64[np.ndarray, "points 2"]
    basis: Float64[np.ndarray, "points 2"]
    relu: Float64[np.ndarray, "points 2"]
    post: Float64[np.ndarray, "points 2"]


def measure(run: LanguageRun, settings: dict[str, Any]) -> pd.DataFrame:
    """Train residual ReLU layers in the plane to tell a disc from the ring around it, and follow points through them.

    No map that is continuous and one-to-one lets a line tell the two apart: a layer has to fold the plane.

    Rows ``x`` and ``y``, two of each point (index), data ``grid`` (lines of equal x, then of equal y; index = line
    times the number of points of a line, plus the point), ``inner`` or ``outer`` (the classes):

    - part ``layers.<l>.pre``: the stream that enters the layer;
    - part ``layers.<l>.basis``: W x + b, the same point in the basis of the layer;
    - part ``layers.<l>.relu``: what ReLU leaves of it, the first orthant;
    - part ``layers.<l>.post``: the stream that leaves the layer, x + V ReLU(W x + b).

    Further rows ``x`` and ``y``: data ``read_basis``, part ``layers.<l>.pre``: the origin (index 0) of the layer's
    basis and the ends of its two vectors (1 and 2), in coordinates of the stream; data ``written_basis``, part
    ``layers.<l>.post``: the columns of V (1 and 2); data ``readout``, part ``.post`` of the last layer: the point of
    the read-out's line next to the origin (index 0), and the direction across it (1).

    ``class_separability`` (part ``layers.<l>.pre``, and ``.post`` of the last, fraction, n = points of both classes):
    share that a linear probe made without them classifies right. Nulls: ``shuffled_labels``, and ``untrained``, the
    same network before training.
    """
    classes = disc_and_ring(settings["points"], seeded("change_of_basis", "points"))
    points = np.concatenate(classes)
    labels = np.repeat([0, 1], settings["points"])
    untrained = initialised(settings["layers"], seeded("change_of_basis", "weights"))
    trained = train(untrained, points, labels, settings["steps"])
    sets = {GRID: grid(), INNER: classes[0], OUTER: classes[1]}
    rows = [
        row
        for data, start in sets.items()
        for layer, stages in enumerate(followed(trained, start))
        for part, at in stages._asdict().items()
        for row in _coordinates(f"layers.{layer}.{part}", data, np.arange(len(at)), at)
    ]
    for number, layer in enumerate(trained.layers):
        ends = np.linalg.solve(layer.weight, np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) - layer.bias[:, None]).T
        rows += _coordinates(f"layers.{number}.pre", READ, np.arange(3), ends)
        rows += _coordinates(f"layers.{number}.post", WRITTEN, np.arange(1, 3), layer.written.T)
    across = trained.readout / np.linalg.norm(trained.readout)
    nearest = -trained.threshold[0] * across / np.linalg.norm(trained.readout)
    last = f"layers.{len(trained.layers) - 1}.post"
    rows += _coordinates(last, READOUT, np.arange(2), np.stack([nearest, across]))
    rows += _separability(trained, untrained, points, labels, settings["null_draws"])
    return tidy([{"step": 0} | row for row in rows], run.experiment, 0)


def disc_and_ring(
    points: int, generator: np.random.Generator
) -> tuple[Float64[np.ndarray, "points 2"], Float64[np.ndarray, "points 2"]]:
    """Return points of a disc and of the ring around it, spread evenly over their areas.

    >>> disc, ring = disc_and_ring(9, np.random.default_rng(0))
    >>> bool((np.linalg.norm(disc, axis=1) < 0.5).all() and (np.linalg.norm(ring, axis=1) > 0.8).all())
    True
    """
    regions = []
    for inner, outer in ((0.0, 0.5), (0.85, 1.15)):
        radius = np.sqrt(generator.uniform(inner**2, outer**2, points))
        angle = generator.uniform(0, 2 * np.pi, points)
        regions.append(radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return regions[0], regions[1]


def grid() -> Float64[np.ndarray, "points 2"]:
    """Return the points of the grid: lines of equal x one after the other, then lines of equal y."""
    along, places = np.linspace(-REACH, REACH, DOTS), np.linspace(-REACH, REACH, LINES)
    upright = np.stack([np.repeat(places, DOTS), np.tile(along, LINES)], axis=1)
    return np.concatenate([upright, upright[:, ::-1]])


def initialised(layers: int, generator: np.random.Generator) -> Network:
    """Return a network whose bases are rotated at random."""
    drawn_layers = []
    for _ in range(layers):
        rotation = np.linalg.qr(generator.standard_normal((2, 2)))[0]
        drawn_layers.append(
            Layer(rotation, 0.1 * generator.standard_normal(2), 0.5 * generator.standard_normal((2, 2)))
        )
    return Network(tuple(drawn_layers), generator.standard_normal(2), np.zeros(1))


def followed(network: Network, points: Float64[np.ndarray, "points 2"]) -> list[Stages]:
    """Return where points are within each layer."""
    stages = []
    for layer in network.layers:
        basis = points @ layer.weight.T + layer.bias
        relu = np.maximum(basis, 0.0)
        stages.append(Stages(points, basis, relu, points + relu @ layer.written.T))
        points = stages[-1].post
    return stages


def train(
    network: Network, points: Float64[np.ndarray, "points 2"], labels: Int64[np.ndarray, " points"], steps: int
) -> Network:
    """Return the network after steps of Adam on all points together (Kingma and Ba 2015, algorithm 1)."""
    parameters = _flat(network)
    first, second = np.zeros_like(parameters), np.zeros_like(parameters)
    for step in range(1, steps + 1):
        slope = _flat(loss_and_gradient(_unflat(parameters, len(network.layers)), points, labels)[1])
        first = FIRST_DECAY * first + (1 - FIRST_DECAY) * slope
        second = SECOND_DECAY * second + (1 - SECOND_DECAY) * slope**2
        mean, square = first / (1 - FIRST_DECAY**step), second / (1 - SECOND_DECAY**step)
        parameters = parameters - LEARNING_RATE * mean / (np.sqrt(square) + 1e-8)
    return _unflat(parameters, len(network.layers))


def loss_and_gradient(
    network: Network, points: Float64[np.ndarray, "points 2"], labels: Int64[np.ndarray, " points"]
) -> tuple[float, Network]:
    """Return the loss (nats, mean cross-entropy with its penalties) and its gradient, shaped as the network."""
    stages = followed(network, points)
    logits = stages[-1].post @ network.readout + network.threshold[0]
    loss = float(np.mean(np.logaddexp(0.0, logits) - labels * logits))
    of_logits = (1 / (1 + np.exp(-logits)) - labels) / len(labels)
    of_stream = np.outer(of_logits, network.readout)
    slopes = []
    for layer, at in zip(reversed(network.layers), reversed(stages), strict=True):
        of_basis = (of_stream @ layer.written) * (at.basis > 0)
        tilt = layer.weight.T @ layer.weight - np.eye(2)
        loss += UPRIGHTNESS * float(np.sum(tilt**2))
        loss += SHRINKAGE * float(np.sum(layer.bias**2) + np.sum(layer.written**2))
        slopes.append(
            Layer(
                of_basis.T @ at.pre + 4 * UPRIGHTNESS * layer.weight @ tilt,
                of_basis.sum(0) + 2 * SHRINKAGE * layer.bias,
                of_stream.T @ at.relu + 2 * SHRINKAGE * layer.written,
            )
        )
        of_stream = of_stream + of_basis @ layer.weight
    readout = stages[-1].post.T @ of_logits
    return loss, Network(tuple(reversed(slopes)), readout, of_logits.sum(keepdims=True))


def _flat(network: Network) -> Float64[np.ndarray, " parameters"]:
    arrays: Sequence[np.ndarray] = [each for layer in network.layers for each in layer]
    return np.concatenate([each.ravel() for each in (*arrays, network.readout, network.threshold)])


def _unflat(parameters: Float64[np.ndarray, " parameters"], layers: int) -> Network:
    of_layers = parameters[: 10 * layers].reshape(layers, 10)
    unflattened = tuple(Layer(each[:4].reshape(2, 2), each[4:6], each[6:].reshape(2, 2)) for each in of_layers)
    return Network(unflattened, parameters[-3:-1], parameters[-1:])


def _coordinates(
    part: str, data: str, index: Int64[np.ndarray, " points"], points: Float[np.ndarray, "points 2"]
) -> list[dict[str, Any]]:
    row = {"part": part, "data": data, "index": index}
    return [row | {"quantity": name, "value": points[:, axis]} for axis, name in enumerate("xy")]


def _separability(
    trained: Network,
    untrained: Network,
    points: Float64[np.ndarray, "points 2"],
    labels: Int64[np.ndarray, " points"],
    draws: int,
) -> list[dict[str, Any]]:
    generator = seeded("change_of_basis", "shuffled_labels")
    labellings = np.stack([labels, *(generator.permutation(labels) for _ in range(draws))])
    rows: list[dict[str, Any]] = []
    through, before = (
        {f"layers.{layer}.pre": stages.pre for layer, stages in enumerate(by_layer)}
        | {f"layers.{len(by_layer) - 1}.post": by_layer[-1].post}
        for by_layer in (followed(network, points) for network in (trained, untrained))
    )
    for part, at in through.items():
        row = {"part": part, "quantity": "class_separability", "data": "classes", "unit": "fraction"}
        hit_rates, start = (
            held_out_hits(each, labellings, np.arange(len(points)), seeded("change_of_basis", "folds")).mean(1)
            for each in (at, before[part])
        )
        rows += [
            row | {"value": float(hit_rates[0]), "n": len(points)},
            row | central_range(hit_rates[1:], "shuffled_labels"),
            row | {"null": "untrained", "value": float(start[0])},
        ]
    return rows
