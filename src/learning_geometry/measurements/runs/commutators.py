"""SGD commutators: by how much the order of two batches matters, and how much of it lies in the execution basis."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from learning_geometry.geometry.commutators import Commutator, Loss, commutator, defect, finite_commutator, scale_free
from learning_geometry.geometry.curvature.landscape import mean_of
from learning_geometry.geometry.curvature.products import gradient_with_graph, unflatten
from learning_geometry.geometry.nulls import random_subspace_energies
from learning_geometry.measurements.common.estimates import clipped, fraction
from learning_geometry.measurements.common.execution_basis import Basis, execution_basis, inside
from learning_geometry.measurements.common.run import Run
from learning_geometry.models.blocks import blocks
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {
    "at_most": {"directions": "matrix_entries"},
    "different_batches": "batch_size",
    "other_seeds": "next",
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": ["integer", "null"],
        "minimum": 1,
        "default": 500,
        "description": "Measure the checkpoints whose step is a multiple of this, and the last; null: those of steps.",
    },
    "steps": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0},
        "uniqueItems": True,
        "default": [],
        "description": "Measure the checkpoints of these steps too.",
    },
    "pairs": {
        "type": "integer",
        "minimum": 1,
        "default": 9,
        "description": "Pairs of fresh training batches at each checkpoint.",
    },
    "batch_size": {
        "type": ["integer", "null"],
        "minimum": 1,
        "default": None,
        "description": "Sequences in each batch; null: as many as in training.",
    },
    "step_size": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 1.0e-3,
        "description": "Learning rate of the finite steps; the Hessian products are the limit of small ones.",
    },
    "directions": {
        "type": "integer",
        "minimum": 0,
        "default": 3,
        "description": "Principal directions of each attention matrix' trajectory in the execution basis; 0 for none, "
        "and no shares in it.",
    },
    "finite_pairs": {
        "type": "integer",
        "minimum": 0,
        "default": 2,
        "description": "Of the pairs, how many are measured by finite steps too, in float64 and in float32.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 100,
        "default": 1000,
        "description": "Random subspaces drawn at each checkpoint for each of the two nulls of random directions.",
    },
}

DATA = "training"
NORM, ENERGY = "commutator_share_norm", "commutator_share_energy"
DEFECT, SCALE_FREE, BLOCK = "commutator_defect", "commutator_scale_free_defect", "commutator_block_share"
ROUNDING, STEP_ERROR = "commutator_rounding_error", "commutator_step_error"
SUFFIXES = {torch.float64: "_finite_float64", torch.float32: "_finite_float32"}

Rows = Iterator[dict[str, Any]]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Vector:
    """A vector of all parameters, by name."""

    arrays: dict[str, np.ndarray]

    @cached_property
    def energies(self) -> dict[str, float]:
        """Squared norm of each parameter's part."""
        flat = {name: array.reshape(-1).astype(np.float64) for name, array in self.arrays.items()}
        return {name: float(part @ part) for name, part in flat.items()}

    @cached_property
    def energy(self) -> float:
        return sum(self.energies.values())

    def share_of(self, names: Iterable[str]) -> float:
        """Return the share of the squared norm in some of the parameters."""
        return sum(self.energies[name] for name in names) / self.energy

    def share_in(self, basis: Basis) -> float:
        """Return the share of the squared norm inside a basis, in [0, 1]."""
        return min(sum(inside(basis, self.arrays).values()) / self.energy, 1.0)


class _Pair(NamedTuple):
    """What is kept of the commutator of one pair of batches."""

    delta: _Vector
    gradients: tuple[_Vector, _Vector]
    defect: float
    scale_free: float


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    r"""Measure the commutators of two plain gradient steps on fresh training batches, without dropout.

    One step on batch A and then one on B, less the other order, is δ = η² (H_B g_A − H_A g_B) for a small step size η
    (``geometry.commutators``). Batches are drawn as training draws them at that step. Hessian products are in float32,
    their loss from the logits on in float64. Rows, all of data ``training`` and with n = pairs of batches:

    - ``commutator_defect``: ‖δ‖ / (‖η g_A‖ ‖η g_B‖), and ``commutator_scale_free_defect``: ‖δ‖ / (η² (‖H_B g_A‖ +
      ‖H_A g_B‖)), medians over the pairs; with ``_of_pair`` each pair's, index = pair.
    - ``commutator_block_share`` (fraction), part = block (``models.blocks``): mean share of ‖δ‖² in the block, which
      sum to 1. Nulls: ``gradients``, the same of the gradients, and ``parameters``, the block's share of parameters.
    - ``commutator_share_norm`` (fraction): mean of ρ = ‖P δ‖ / ‖δ‖, with P the projection on the execution basis, the
      principal directions of each attention matrix' trajectory up to this step; with ``_of_pair`` each pair's.
      ``commutator_share_energy`` is the mean of ρ². Left out where the history is too short for a basis. Nulls:
      ``random_subspace``, of equal dimension among all parameters; ``random_within_matrices``, as many directions in
      each attention matrix; both by the exact law for these commutators, which share the subspace of a draw;
      ``gradients``, the gradients' own share (mean of each pair's two); ``another_seed``, the share in the next seed's
      execution basis, if there is one. Their [low, high] is the range of draws, or of pairs.
    - norm, energy and defect with ``_finite_float64`` and ``_finite_float32``: from steps really taken with η =
      step_size, on the first pairs, in this arithmetic.
    - ``commutator_rounding_error``: ‖δ₃₂ − δ₆₄‖ / ‖δ₆₄‖ of finite steps in float32 and in float64, and
      ``commutator_step_error``: the same of the Hessian products against finite steps in float64; means over the pairs.

    Means have their 95 % interval over pairs (Student's t); with one pair, none.

    Raises:
        ValueError: a step has no checkpoint, both batches of a pair are the same, or a loss is not finite; the message
            names the step.
    """
    steps = _steps(run, settings)
    rows: list[dict[str, Any]] = []
    for step in steps:
        try:
            of_step = list(_rows(run, settings, step, step == steps[0]))
        except ValueError as error:
            raise ValueError(f"{run.experiment}, seed {run.seed}, step {step}: {error}") from error
        rows += [{"step": step, "data": DATA} | row for row in of_step]
        shown = {row["quantity"]: row["value"] for row in of_step if "null" not in row and np.ndim(row["value"]) == 0}
        print(f"step {step}: " + ", ".join(f"{key} {shown[key]:.4g}" for key in (DEFECT, NORM) if key in shown))
    return tidy(rows, run.experiment, run.seed, other_seeds="none")


def _steps(run: Run, settings: dict[str, Any]) -> list[int]:
    there = run.steps()
    missing = sorted(set(settings["steps"]) - set(there))
    if missing:
        raise ValueError(
            f"measurements.commutators.steps: {run.experiment} has no checkpoint of step {missing[0]}, only of "
            f"{there}; name it in training.checkpoints.steps, or leave it out"
        )
    if settings["every"] is None and not settings["steps"]:
        raise ValueError("measurements.commutators: every is null and steps is empty; give one of them")
    regular = [] if settings["every"] is None else run.steps(settings["every"])
    return sorted({*regular, *settings["steps"]})


def _rows(run: Run, settings: dict[str, Any], step: int, first: bool) -> Rows:
    parameters = run.parameters(step)
    basis = _basis(run, step, settings["directions"])
    pairs: list[_Pair] = []
    finite: dict[torch.dtype, list[_Pair]] = {dtype: [] for dtype in SUFFIXES}
    step_errors: list[float] = []
    for index in range(settings["pairs"]):
        batches = _batches(run, settings, step, index)
        check = first and index == 0
        # not kept: the graphs are the bulk of the memory
        by_products = commutator(
            *(gradient_with_graph(_loss_for_products(run, batch), parameters, check) for batch in batches)
        )
        pairs.append(_pair(by_products, parameters))
        if index >= settings["finite_pairs"]:
            continue
        one, other = (_loss(run, batch) for batch in batches)
        for dtype, of_dtype in finite.items():
            point = {name: tensor.to(dtype) for name, tensor in parameters.items()}
            of_dtype.append(_pair(finite_commutator(one, other, point, settings["step_size"]), parameters))
            if dtype == torch.float64:
                step_errors.append(_relative_error(pairs[-1].delta, of_dtype[-1].delta))
    yield from _defect_rows(pairs)
    yield from _block_rows(pairs, parameters)
    if basis is not None:
        yield from _share_rows(run, settings, step, pairs, basis)
    for dtype, of_dtype in finite.items():
        if of_dtype:
            yield from _finite_rows(of_dtype, basis, SUFFIXES[dtype])
    if step_errors:
        both = zip(finite[torch.float32], finite[torch.float64], strict=True)
        rounding = [_relative_error(single.delta, double.delta) for single, double in both]
        yield {"quantity": ROUNDING, "value": float(np.mean(rounding)), "n": len(rounding)}
        yield {"quantity": STEP_ERROR, "value": float(np.mean(step_errors)), "n": len(step_errors)}


def _batches(run: Run, settings: dict[str, Any], step: int, pair: int) -> tuple[Batch, Batch]:
    task, size = run.settings["task"], settings["batch_size"]
    size = run.trained["training"]["batch_size"] if size is None else size
    drawn = [
        run.task.training_batch(
            task, run.dataset.drawn_once, seeded(run.seed, "commutators", step, pair, side), size, step
        )
        for side in (0, 1)
    ]
    if all(np.array_equal(one, other) for one, other in zip(*drawn, strict=True)):
        raise ValueError(
            f"measurements.commutators.batch_size: batches of {size} are all the same, and commute; use smaller ones"
        )
    first, second = ((torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)) for batch in drawn)
    return first, second


def _loss(run: Run, batch: Batch) -> Loss:
    tokens, targets = batch
    return lambda parameters: cross_entropy(run.model.forward(parameters, tokens), targets)


def _loss_for_products(run: Run, batch: Batch) -> Loss:
    """Return the loss with two derivatives, which keep their relative accuracy however small it is.

    Its gradient by the logits is a probability less 1, in float32 known to 6e-8: of a loss of 4e-7 nats the commutator
    is then wrong by 6 %, of 1e-10 altogether. With that difference in float64 and the rest in float32 it errs by 3e-5.
    """
    tokens, targets = batch
    return lambda parameters: cross_entropy(
        run.model.forward(parameters, tokens, twice_differentiable=True).double(), targets
    )


def _pair(computed: Commutator, parameters: dict[str, Tensor]) -> _Pair:
    def named(vector: Tensor) -> _Vector:
        return _Vector({name: piece.numpy() for name, piece in unflatten(vector, parameters).items()})

    first, second = (named(gradient) for gradient in computed.gradients)
    return _Pair(named(computed.delta), (first, second), defect(computed), scale_free(computed))


def _basis(run: Run, step: int, directions: int) -> dict[str, np.ndarray] | None:
    """Return the execution basis of the history up to a step, or None if it is too short for one, or none is wanted."""
    if directions == 0 or len(run.uniform_steps(step)) < directions + 2:
        return None
    return execution_basis(run, step, directions)


def _defect_rows(pairs: Sequence[_Pair]) -> Rows:
    for quantity, values in (
        (DEFECT, [pair.defect for pair in pairs]),
        (SCALE_FREE, [pair.scale_free for pair in pairs]),
    ):
        yield {"quantity": quantity, "value": float(np.median(values)), "n": len(pairs)}
        yield {"quantity": f"{quantity}_of_pair", "index": np.arange(len(pairs)), "value": np.array(values)}


def _block_rows(pairs: Sequence[_Pair], parameters: Mapping[str, Tensor]) -> Rows:
    entries = sum(tensor.numel() for tensor in parameters.values())
    for block, names in blocks(parameters).items():
        row = {"quantity": BLOCK, "part": block, "unit": "fraction"}
        yield row | _mean([pair.delta.share_of(names) for pair in pairs])
        of_gradients = [np.mean([gradient.share_of(names) for gradient in pair.gradients]) for pair in pairs]
        yield row | _over_pairs(np.array(of_gradients), "gradients")
        size = sum(parameters[name].numel() for name in names)
        yield row | {"null": "parameters", "value": size / entries}


def _share_rows(run: Run, settings: dict[str, Any], step: int, pairs: Sequence[_Pair], basis: Basis) -> Rows:
    energies = np.array([pair.delta.share_in(basis) for pair in pairs])
    nulls = _random_energies(run, settings, step, [pair.delta.arrays for pair in pairs], basis)
    row = {"quantity": f"{NORM}_of_pair", "index": np.arange(len(pairs)), "unit": "fraction"}
    yield row | {"value": np.sqrt(energies)}
    of_gradients = np.array([[gradient.share_in(basis) for gradient in pair.gradients] for pair in pairs])
    in_another = None
    if run.others:
        other_basis = _basis(run.others[0], step, settings["directions"])
        if other_basis is not None:
            in_another = np.array([pair.delta.share_in(other_basis) for pair in pairs])
    for quantity, measure_of in ((NORM, np.sqrt), (ENERGY, np.asarray)):
        row = {"quantity": quantity, "unit": "fraction"}
        yield row | _mean(measure_of(energies))
        for null, drawn in nulls.items():
            yield row | central_range(measure_of(drawn).mean(1), null)
        yield row | _over_pairs(measure_of(of_gradients).mean(1), "gradients")
        if in_another is not None:
            yield row | _over_pairs(measure_of(in_another), "another_seed") | {"other_seeds": NEEDS["other_seeds"]}


def _finite_rows(pairs: Sequence[_Pair], basis: Basis | None, suffix: str) -> Rows:
    yield {
        "quantity": f"{DEFECT}{suffix}",
        "value": float(np.median([pair.defect for pair in pairs])),
        "n": len(pairs),
    }
    if basis is not None:
        energies = np.array([pair.delta.share_in(basis) for pair in pairs])
        yield {"quantity": f"{NORM}{suffix}", "unit": "fraction"} | _mean(np.sqrt(energies))
        yield {"quantity": f"{ENERGY}{suffix}", "unit": "fraction"} | _mean(energies)


def _random_energies(
    run: Run, settings: dict[str, Any], step: int, deltas: Sequence[dict[str, np.ndarray]], basis: Basis
) -> dict[str, np.ndarray]:
    """Return, by null, the shares of the squared norm of each commutator in each random subspace: (draws, pairs)."""
    draws = settings["null_draws"]
    grams = {name: _gram([delta[name] for delta in deltas]) for name in deltas[0]}
    whole = np.sum(list(grams.values()), axis=0)
    entries = sum(array.size for array in deltas[0].values())
    directions = sum(columns.shape[1] for columns in basis.values())
    generator = seeded(run.seed, "commutators", "null", step)
    anywhere = random_subspace_energies(whole, entries, directions, draws, generator)
    within = np.zeros_like(anywhere)
    for name, columns in basis.items():
        size, rank = columns.shape
        within += random_subspace_energies(grams[name], size, rank, draws, generator)
    return {"random_subspace": anywhere / np.diag(whole), "random_within_matrices": within / np.diag(whole)}


def _gram(vectors: Sequence[np.ndarray]) -> np.ndarray:
    matrix = np.stack([vector.reshape(-1) for vector in vectors]).astype(np.float64)
    return matrix @ matrix.T


def _relative_error(of: _Vector, exact: _Vector) -> float:
    difference = _Vector({name: array - exact.arrays[name] for name, array in of.arrays.items()})
    return float(np.sqrt(difference.energy / exact.energy))


def _mean(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Return the columns of a mean of fractions over pairs, with its interval if there are several."""
    if len(values) == 1:
        return {"value": float(values[0]), "n": 1}
    return fraction(mean_of(np.asarray(values)))


def _over_pairs(values: np.ndarray, null: str) -> dict[str, Any]:
    """Return the columns of a null of fractions with one draw for each pair."""
    row = central_range(values, null)
    return row | clipped(float(row["low"]), float(row["high"]))
