"""What the embedding's subspaces and the bridge are for: head scores and errors without them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from learning_geometry import failures
from learning_geometry.geometry.ablation import ablated_norm, equal_norm_ablation, projector
from learning_geometry.geometry.head_products import query_key_products
from learning_geometry.geometry.nulls import haar_subspaces
from learning_geometry.geometry.subspaces import right_singular_subspace, top_right_singular_subspace
from learning_geometry.measurements.common.ablations import (
    INDUCTION,
    LOSS,
    PREVIOUS,
    Circuit,
    Component,
    Outcome,
    changed_weights,
    components,
    joint_weight,
    open_circuit,
    outcome,
)
from learning_geometry.measurements.common.run import Run
from learning_geometry.model_options import key_rank
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {
    "test_sets": ["out_of_distribution"],
    "arrays": ["first_start", "second_start", "segment_length"],
    "errors": ["error"],
    "model_settings": ["layers", "heads", "width", "norm", "positions", "tied_readout"],
    # norms in the residual stream cannot be folded into what reads it
    "model_without": {"norm": ["post"]},
    "leaves_out_from": {"ranks": "width"},
    # beyond what the keys read any directions would do
    "leaves_out_above": {"ranks": "key_rank"},
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 1000,
        "description": "Measure the checkpoints whose step is a multiple of this, and the last.",
    },
    "first_step": {
        "type": "integer",
        "minimum": 0,
        "default": 1,
        "description": "Leave out the checkpoints before this step, but not the last.",
    },
    "sequences": {
        "type": "integer",
        "minimum": 2,
        "default": 50,
        "description": "Number of out-of-distribution test sequences.",
    },
    "writing_layer": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "Layer, counted from 0, of the previous-token head.",
    },
    "reading_layer": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "Later layer, counted from 0, of the induction head, whose query-key product holds the bridge.",
    },
    "top": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "Number of right singular vectors of the embedding in its top subspace.",
    },
    "medium": {
        "type": "integer",
        "minimum": 1,
        "default": 34,
        "description": "Number of the next ones, in its medium subspace; the rest is its bottom subspace.",
    },
    "ranks": {
        "type": "array",
        "items": {"type": "integer", "minimum": 1},
        "minItems": 1,
        "uniqueItems": True,
        "default": [10],
        "description": "Ranks of the bridge. The default is left out of a model that is no wider, and a row "
        "`not_measured` says so; any others from the width on are refused.",
    },
    "mean_kept_everywhere": {
        "type": "boolean",
        "default": False,
        "description": "Repeat every ablation with the mean of what it takes put back, not only those from the writing "
        "layer's query-key.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 2,
        "default": 6,
        "description": "Random rotations drawn once per run, each evaluated at every ablation for both nulls.",
    },
}

GROUPS = ("top", "medium", "bottom")
RANDOM, EQUAL_NORM = NULLS = ("random_subspace", "equal_norm_ablation")
ABLATED, ALONE = "after_ablation", "kept_alone"
MEAN_KEPT = "_mean_kept"

Outcomes = dict[str, list[Outcome]]
"""Null, "" for the measured one -> outcomes: a single one, or one per draw."""


class Ablation(NamedTuple):
    """Which directions are ablated from which component, and the name of the rows."""

    component: Component
    subspace: str
    basis: np.ndarray
    """Orthonormal columns that span the stream."""
    start: int
    stop: int
    """The columns ablated."""
    kind: str = ABLATED
    rank: int = 0
    keep_mean: bool = False

    @property
    def suffix(self) -> str:
        """What the names of its quantities end with."""
        return self.kind + MEAN_KEPT * self.keep_mean


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    r"""Measure head scores, error and loss out of distribution with subspaces projected out of weights.

    Of an ablation R (a projector) a weight W that reads the stream becomes W (1 − R), on the normalised stream before γ
    (see ``ablations``), and one that writes (1 − R) W. With w the writing and r the reading layer, the embedding's top,
    medium and bottom right singular subspaces are ablated from

    - ``layers.<w>.query_key``: W_q and W_k; ``layers.<w>.value_output``: the input of W_v, what the head copies;
    - ``layers.<r>.query_key``: W_q and W_k, and each alone as ``layers.<r>.query`` and ``layers.<r>.key``, which read
      what layer w wrote in the subspace, too; ``readout``.

    The bridge of rank k, the top-k right singular subspace of W_qᵀ W_k of layer r with γ folded in (of all heads below
    each other), is ablated from, or kept alone in, ``layers.<r>.key`` (W_k) and ``layers.<w>.output`` (W_o, written).

    Rows, part ``<component>-embedding.<group>`` (index 0) or ``<component>-bridge`` (index = rank), data
    ``out_of_distribution``, n = sequences, with the 95 % interval over sequences:

    - ``previous_token_score_after_ablation``, ``induction_score_…``, ``error_…`` (fraction), ``loss_…`` (nats): the
      scores of the two heads, in layers w and r, that have the largest when intact. Those that cannot change are left
      out. ``…_kept_alone`` for the bridge kept alone.
    - the same with ``…_mean_kept``, from ``layers.<w>.query_key`` or everywhere: the mean of what the intact model
      reads in the subspace (over sequences and positions) stays as a constant. A plain ablation takes it too, so it
      also hurts where the subspace only carries a constant, as it may in attention by position alone.
    - ``previous_token_score_change_after_ablation`` and so on: minus the intact model's on the same sequences.
    - ``previous_token_score_intact`` and so on: part ``model``.
    - ``previous_token_score_dissociation``, part ``layers.<w>.query_key``: change without medium − change without
      bottom, above 0 if the bottom subspace is needed more. ``induction_score_dissociation``, parts
      ``layers.<r>.query_key``, ``.query``, ``.key``: change without bottom − change without medium, above 0 if the
      medium one is needed more. ``…_dissociation_mean_kept`` likewise.

    Null ``random_subspace``: the same directions' numbers of a random rotation, so that the groups of a draw are
    complementary as well. Null ``equal_norm_ablation``: successive directions of the rotation, the last one in part,
    until what is ablated has the Frobenius norm of the real ablation, of all weights of the component together.

    Of each rank of the bridge from the width on, or above that of all keys of the layer, there is one row
    ``not_measured`` instead.

    Raises:
        ValueError: the model has no such layers, or the groups do not fit in its width.
    """
    model, writer, reader = run.settings["model"], settings["writing_layer"], settings["reading_layer"]
    _check(model, settings)
    parts = components(model, writer, reader)
    generator = seeded("subspace_function", "rotations", run.seed)
    rotations = haar_subspaces(model["width"], model["width"], settings["null_draws"], generator)
    rows: list[dict[str, Any]] = []
    steps = run.steps(settings["every"])
    for step in [step for step in steps if step >= settings["first_step"] or step == steps[-1]]:
        circuit = open_circuit(run, step, settings["sequences"], writer, reader)
        here = {"step": step, "data": "out_of_distribution"}
        rows += [
            here | _unit(name) | {"quantity": f"{name}_intact"} | _over_sequences(values)
            for name, values in circuit.intact.items()
        ]
        changes: dict[tuple[str, str, bool], Outcomes] = {}
        for ablation in _ablations(circuit, parts, settings):
            outcomes = _with_nulls(circuit, ablation, rotations)
            at = here | {"part": f"{ablation.component.part}-{ablation.subspace}", "index": ablation.rank}
            change = {
                null: [{name: value - circuit.intact[name] for name, value in one.items()} for one in several]
                for null, several in outcomes.items()
            }
            rows += _rows(at, outcomes, ablation.suffix) + _rows(at, change, f"change_{ablation.suffix}")
            changes[ablation.component.part, ablation.subspace, ablation.keep_mean] = change
        rows += _dissociations(here, changes, writer, reader)
    most, of = _largest_rank(model)
    rows += failures.left_out(f"layers.{reader}", "bridge ablated", settings["ranks"], most, of)
    return tidy(rows, run.experiment, run.seed)


def _dissociations(
    here: dict[str, Any], changes: dict[tuple[str, str, bool], Outcomes], writer: int, reader: int
) -> list[dict[str, Any]]:
    # part -> the score judged, the subspace that it is said to need, and the one that it is said not to
    matching = (INDUCTION, "medium", "bottom")
    said = {f"layers.{writer}.query_key": (PREVIOUS, "bottom", "medium")}
    said |= {f"layers.{reader}.{roles}": matching for roles in ("query_key", "query", "key")}
    rows = []
    for part, (score, needed, spared) in said.items():
        for keep_mean in (False, True):
            if (part, f"embedding.{needed}", keep_mean) in changes:
                without_needed, without_spared = (
                    changes[part, f"embedding.{group}", keep_mean] for group in (needed, spared)
                )
                contrast = {
                    null: [{score: b[score] - a[score]} for a, b in zip(draws, without_spared[null], strict=True)]
                    for null, draws in without_needed.items()
                }
                rows += _rows(here | {"part": part}, contrast, "dissociation" + MEAN_KEPT * keep_mean)
    return rows


def _ablations(circuit: Circuit, parts: dict[str, Component], settings: dict[str, Any]) -> Iterator[Ablation]:
    embedding = circuit.arrays["embedding.weight"]
    width = embedding.shape[1]
    writer, reader = settings["writing_layer"], settings["reading_layer"]
    everywhere = settings["mean_kept_everywhere"]
    embedded = right_singular_subspace(embedding, 1, width)
    ends = [0, settings["top"], settings["top"] + settings["medium"], width]
    for component in [component for component in parts.values() if not component.writes]:
        also = everywhere or component.part == f"layers.{writer}.query_key"
        for keep_mean in (False, True) if also else (False,):
            for group, start, stop in zip(GROUPS, ends[:-1], ends[1:], strict=True):
                subspace = f"embedding.{group}"
                yield Ablation(component, subspace, embedded, start, stop, keep_mean=keep_mean)
    query, key = (circuit.arrays[f"layers.{reader}.attention.{role}.weight"] for role in ("query", "key"))
    products = query_key_products(query, key, circuit.settings["heads"])
    bridge = top_right_singular_subspace(products.reshape(-1, width), width)
    for part in (f"layers.{reader}.key", f"layers.{writer}.output"):
        for rank in [rank for rank in settings["ranks"] if rank <= _largest_rank(circuit.settings)[0]]:
            for keep_mean in (False, True) if everywhere else (False,):
                yield Ablation(parts[part], "bridge", bridge, 0, rank, ABLATED, rank, keep_mean)
                yield Ablation(parts[part], "bridge", bridge, rank, width, ALONE, rank, keep_mean)


def _with_nulls(circuit: Circuit, ablation: Ablation, rotations: np.ndarray) -> Outcomes:
    def without(matrix: np.ndarray) -> Outcome:
        changed = changed_weights(circuit, ablation.component, matrix, ablation.keep_mean)
        return outcome(circuit, ablation.component, changed)

    weight = joint_weight(circuit, ablation.component)
    directions = slice(ablation.start, ablation.stop)
    real = projector(ablation.basis[:, directions])
    norm = ablated_norm(weight, real)
    return {
        "": [without(real)],
        RANDOM: [without(projector(rotation[:, directions])) for rotation in rotations],
        EQUAL_NORM: [
            without(equal_norm_ablation(weight, np.roll(rotation, -ablation.start, axis=1), norm))
            for rotation in rotations
        ],
    }


def _rows(here: dict[str, Any], outcomes: Outcomes, kind: str) -> list[dict[str, Any]]:
    rows = []
    for name, values in outcomes[""][0].items():
        row = here | _unit(name) | {"quantity": f"{name}_{kind}"}
        rows.append(row | _over_sequences(values))
        for null in NULLS:
            draws = np.array([one[name].mean() for one in outcomes[null]])
            rows.append(row | central_range(draws, null))
    return rows


def _over_sequences(values: np.ndarray) -> dict[str, Any]:
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    return {"value": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error, "n": len(values)}


def _unit(name: str) -> dict[str, str]:
    return {"unit": "nats" if name == LOSS else "fraction"}


def _largest_rank(model: dict[str, Any]) -> tuple[int, str]:
    """The largest rank of the bridge that is ablated, which leaves something, and what that is."""
    keys, most = key_rank(model), model["width"] - 1
    return (most, "one less than the width") if most <= keys else (keys, "the width of all keys")


def _check(model: dict[str, Any], settings: dict[str, Any]) -> None:
    writer, reader = settings["writing_layer"], settings["reading_layer"]
    if not writer < reader < model["layers"]:
        raise ValueError(
            f"measurements.subspace_function: layer {reader} cannot read layer {writer} in a model of "
            f"{model['layers']} layers; set writing_layer < reading_layer < layers, or leave this measurement out"
        )
    if settings["top"] + settings["medium"] >= model["width"]:
        raise ValueError(
            f"measurements.subspace_function: top {settings['top']} and medium {settings['medium']} leave nothing of "
            f"width {model['width']} for the bottom subspace; lower medium"
        )
