"""Ablations of subspaces inside a transformer that copies, and what they leave of its heads and of its copying.

All on weights. The norms, which stand before what reads the stream, are folded in first: with x̂ the normalised stream
before γ and β (of RMSNorm there is no β), every weight W that reads it becomes W diag(γ) and its bias b + W β, which
changes no output. So an ablation R acts on x̂, which has the coordinates of the residual stream, where the singular
subspaces of the embedding live; β, a constant, stays. (An ablation after γ would be of another subspace, W R diag(γ)
instead of W diag(γ) R, and would take a part of β.) The norm's own mean and length are those of the whole stream: R
takes a part of the normalised stream, which is not normalised again.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.geometry.rounding import first_largest
from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.runs.head_scores import induction_scores, previous_token_scores
from learning_geometry.model_options import NORM_DEFAULTS
from learning_geometry.models import TaskSizes, build
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.models.sublayers import normed
from learning_geometry.tasks.batch import IGNORED

PREVIOUS, INDUCTION, ERROR, LOSS = OUTCOMES = "previous_token_score", "induction_score", "error", "loss"
"""What is measured of an intact or ablated model."""

BATCH = 50
"""Sequences computed at once; their patterns stay in the processor's cache."""

Arrays = Mapping[str, np.ndarray]
Outcome = dict[str, np.ndarray]
"""Name of ``OUTCOMES`` -> one number per sequence."""


class Component(NamedTuple):
    """A part of the model that reads (or writes) the residual stream."""

    part: str
    weights: tuple[str, ...]
    """Parameters, without ``.weight``, that the same ablation changes."""
    layer: int
    """First layer whose outcome changes; the number of layers for the read-out."""
    reaches: tuple[str, ...]
    """What can change."""
    writes: bool = False


class Circuit(NamedTuple):
    """A model at one checkpoint, norms folded in, and its residual streams on fixed sequences."""

    arrays: dict[str, np.ndarray]
    settings: dict[str, Any]
    shape: TaskSizes
    task: Any
    test_set: dict[str, np.ndarray]
    layers: tuple[int, int]
    """The layer of the previous-token head and that of the induction head."""
    heads: tuple[int, int]
    """The heads there that have the largest scores when intact."""
    streams: dict[int, Tensor]
    """Layer -> what enters it, (sequences, positions, width); the number of layers: what is read out."""
    means: dict[str, np.ndarray]
    """Weight -> mean over sequences and positions of what it reads."""
    intact: Outcome


def components(model: Mapping[str, Any], writer: int, reader: int) -> dict[str, Component]:
    """Return the components by their part: all that read the embedding, and the output weight of the writing layer."""
    first, second = f"layers.{writer}", f"layers.{reader}"
    after_values = (INDUCTION, ERROR, LOSS)

    def of(layer: int, part: str, roles: tuple[str, ...], reaches: tuple[str, ...], writes: bool = False) -> Component:
        weights = tuple(f"layers.{layer}.attention.{role}" for role in roles)
        return Component(part, weights, layer, reaches, writes)

    ablatable = [
        of(writer, f"{first}.query_key", ("query", "key"), OUTCOMES),
        of(writer, f"{first}.value_output", ("value",), after_values),
        of(reader, f"{second}.query_key", ("query", "key"), after_values),
        of(reader, f"{second}.query", ("query",), after_values),
        of(reader, f"{second}.key", ("key",), after_values),
        Component("readout", ("readout",), model["layers"], (ERROR, LOSS)),
        of(writer, f"{first}.output", ("output",), after_values, writes=True),
    ]
    return {component.part: component for component in ablatable}


def fold_norms(arrays: Arrays, model: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return equal parameters in float64 whose norms have γ = 1 and β = 0, and the settings they belong to.

    Every linear layer gets a bias, and a tied read-out a matrix of its own.

    Raises:
        ValueError: the norms stand after the sublayers: the stream itself then has γ and β in it.
    """
    if model["norm"] == "post":
        raise ValueError(
            "norm: post has norms in the residual stream, which cannot be folded into what reads it; measure a model "
            "with norms before its sublayers, or without"
        )
    folded = {name: array.astype(np.float64) for name, array in arrays.items()}
    if model["tied_readout"]:
        folded["readout.weight"] = folded["embedding.weight"].copy()
    for name in [name for name in folded if name.endswith(".weight") and _is_linear(name)]:
        folded.setdefault(name.removesuffix("weight") + "bias", np.zeros(len(folded[name])))
    readers = {"final_norm": ["readout"]}
    for layer in range(model["layers"]):
        at = f"layers.{layer}"
        readers[f"{at}.attention_norm"] = [f"{at}.attention.{role}" for role in ("query", "key", "value")]
        readers[f"{at}.mlp_norm"] = [
            f"{at}.mlp.{role}" for role in ("gate", "up") if f"{at}.mlp.{role}.weight" in folded
        ]
    for norm, weights in readers.items():
        if f"{norm}.weight" in folded:
            scale, shift = folded[f"{norm}.weight"], folded.get(f"{norm}.bias")
            for weight in weights:
                if shift is not None:
                    folded[f"{weight}.bias"] = folded[f"{weight}.bias"] + folded[f"{weight}.weight"] @ shift
                folded[f"{weight}.weight"] = folded[f"{weight}.weight"] * scale
            folded[f"{norm}.weight"] = np.ones_like(scale)
            if shift is not None:
                folded[f"{norm}.bias"] = np.zeros_like(shift)
    return folded, dict(model) | {"bias": True, "tied_readout": False}


def _is_linear(name: str) -> bool:
    return "norm" not in name and name not in ("embedding.weight", "positions.weight")


@torch.no_grad()
def open_circuit(run: Run, step: int, sequences: int, writer: int, reader: int) -> Circuit:
    """Fold the norms of a checkpoint in and run it, intact, on out-of-distribution sequences."""
    arrays, settings = fold_norms(run.arrays(step), run.settings["model"])
    test_set = run.test_set("out_of_distribution", sequences)
    model = build(settings, run.model.shape)
    parameters = _tensors(arrays)
    seen: dict[str, list[Tensor]] = {}

    def see(name: str, value: Tensor) -> Tensor:
        if name.endswith(("residual_pre", "residual_post", "attention.z", "final")):
            seen.setdefault(name, []).append(value)
        return value

    for batch in _batches(test_set["tokens"]):
        model.forward(parameters, batch, hook=see)
    inside = {name: torch.cat(values) for name, values in seen.items()}
    last = settings["layers"]
    streams = {layer: inside[f"layers.{layer}.residual_pre"] for layer in range(last)}
    streams[last] = inside[f"layers.{last - 1}.residual_post"]
    circuit = Circuit(
        arrays,
        settings,
        run.model.shape,
        run.task,
        test_set,
        (writer, reader),
        (0, 0),
        streams,
        _means(inside, parameters, settings),
        {},
    )
    by_head = _outcome_by_head(circuit, {}, 0)
    # scores are shares of attention
    previous, induction = (int(first_largest(by_head[name].mean(0), 1.0)) for name in (PREVIOUS, INDUCTION))
    circuit = circuit._replace(heads=(previous, induction))
    return circuit._replace(intact=_of_heads(circuit, by_head))


def changed_weights(
    circuit: Circuit, component: Component, ablation: Float[np.ndarray, "width width"], keep_mean: bool = False
) -> dict[str, np.ndarray]:
    """Return the parameters that an ablation changes.

    A weight that reads becomes W (1 − R), one that writes (1 − R) W; biases stay. With ``keep_mean``, the mean over
    sequences and positions of what is removed is added to the bias: what the intact model reads (or writes) loses its
    variation in the subspace, but not its mean.
    """
    changed = {}
    for name in component.weights:
        weight = circuit.arrays[f"{name}.weight"]
        removed = ablation @ weight if component.writes else weight @ ablation
        changed[f"{name}.weight"] = weight - removed
        if keep_mean:
            changed[f"{name}.bias"] = circuit.arrays[f"{name}.bias"] + removed @ circuit.means[name]
    return changed


def joint_weight(circuit: Circuit, component: Component) -> Float[np.ndarray, "rows width"]:
    """Return all weights of a component below each other, the side that an ablation acts on as columns."""
    weights = [circuit.arrays[f"{name}.weight"] for name in component.weights]
    return np.concatenate([weight.T if component.writes else weight for weight in weights])


@torch.no_grad()
def outcome(circuit: Circuit, component: Component, changed: Arrays) -> Outcome:
    """Return scores, errors and losses of the model with some parameters changed, those that can differ.

    Scores are of the heads that have the largest when the model is intact. Layers before the component are not computed
    again.
    """
    by_head = _outcome_by_head(circuit, changed, component.layer)
    outcomes = _of_heads(circuit, by_head)
    return {name: outcomes[name] for name in component.reaches}


def _of_heads(circuit: Circuit, by_head: Outcome) -> Outcome:
    followed = dict(zip((PREVIOUS, INDUCTION), circuit.heads, strict=True))
    return {name: value[:, followed[name]] if name in followed else value for name, value in by_head.items()}


def _outcome_by_head(circuit: Circuit, changed: Arrays, first: int) -> Outcome:
    """Run the layers from ``first`` on: a transformer of fewer layers, every position a token of its own."""
    writer, reader = circuit.layers
    stream = circuit.streams[first]
    sequences, length, width = stream.shape
    kept = {name: array for name, array in (circuit.arrays | dict(changed)).items() if _at_or_after(name, first)}
    parameters = _tensors({_moved(name, first): array for name, array in kept.items()})
    # positions that are learned are in the stream already
    positions = "none" if circuit.settings["positions"] == "learned" else circuit.settings["positions"]
    settings = circuit.settings | {"layers": circuit.settings["layers"] - first, "positions": positions}
    model = build(settings, circuit.shape)
    places = {
        f"layers.{writer - first}.attention.pattern": PREVIOUS,
        f"layers.{reader - first}.attention.pattern": INDUCTION,
    }
    per_batch: dict[str, list[np.ndarray]] = {}
    predictions = []
    for start in range(0, sequences, BATCH):
        window = slice(start, start + BATCH)
        copies = [
            torch.from_numpy(circuit.test_set[name][window])
            for name in ("first_start", "second_start", "segment_length")
        ]

        def see(name: str, value: Tensor, copies: list[Tensor] = copies) -> Tensor:
            if name in places:
                score = previous_token_scores(value) if places[name] == PREVIOUS else induction_scores(value, *copies)
                per_batch.setdefault(places[name], []).append(score.double().numpy())
            return value

        rows = stream[window].reshape(-1, width)
        tokens = torch.arange(len(rows)).view(-1, length)
        logits = model.forward(parameters | {"embedding.weight": rows}, tokens, hook=see)
        targets = torch.from_numpy(circuit.test_set["targets"][window])
        per_position = cross_entropy(logits, targets, reduction="none").view(targets.shape)
        counted = (targets != IGNORED).sum(1)
        per_batch.setdefault(LOSS, []).append((per_position.sum(1) / counted).double().numpy())
        predictions.append(logits.argmax(-1).numpy())
    errors = circuit.task.errors(np.concatenate(predictions), circuit.test_set)[ERROR]
    return {name: np.concatenate(values) for name, values in per_batch.items()} | {ERROR: errors}


def _means(
    inside: Mapping[str, Tensor], parameters: dict[str, Tensor], settings: dict[str, Any]
) -> dict[str, np.ndarray]:
    def mean(value: Tensor) -> np.ndarray:
        return value.double().mean((0, 1)).numpy()

    means = {"readout": mean(inside["final"])}
    for layer in range(settings["layers"]):
        at = f"layers.{layer}"
        stream = inside[f"{at}.residual_pre"]
        # of the folded model, whose norms have neither γ nor β
        read = normed(parameters, stream, f"{at}.attention_norm", NORM_DEFAULTS | settings, fused=False)
        means |= {f"{at}.attention.{role}": mean(read) for role in ("query", "key", "value")}
        means[f"{at}.attention.output"] = mean(inside[f"{at}.attention.z"])
    return means


def _at_or_after(name: str, first: int) -> bool:
    return not name.startswith("layers.") or int(name.split(".")[1]) >= first


def _moved(name: str, first: int) -> str:
    if not name.startswith("layers."):
        return name
    layer, rest = name.removeprefix("layers.").split(".", 1)
    return f"layers.{int(layer) - first}.{rest}"


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) for name, array in arrays.items()}


def _batches(tokens: np.ndarray) -> Iterable[Tensor]:
    return (torch.from_numpy(tokens[start : start + BATCH]) for start in range(0, len(tokens), BATCH))
