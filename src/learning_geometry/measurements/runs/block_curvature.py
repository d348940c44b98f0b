"""Where the curvature is: sharpness of each block of parameters, loss increase under noise inside subspaces."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from learning_geometry.geometry.curvature.hessian import largest_hessian_eigenpair
from learning_geometry.geometry.curvature.lanczos import value_error
from learning_geometry.geometry.curvature.landscape import mean_of
from learning_geometry.geometry.curvature.localisation import loss_increases, subspace_noise
from learning_geometry.geometry.head_products import query_key_products
from learning_geometry.geometry.nulls import haar_subspace
from learning_geometry.geometry.subspaces import right_singular_subspace, top_right_singular_subspace
from learning_geometry.measurements.common.estimates import bounds, check_converged, estimate_row
from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.common.transition import nearest, transition
from learning_geometry.model_options import key_rank
from learning_geometry.models.blocks import parts
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {
    "test_sets": ["in_distribution"],
    "recorded_errors": {"out_of_distribution": "error"},
    "model_settings": ["layers", "heads", "width"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 2000,
        "description": "Measure the checkpoints whose step is a multiple of this, the first and the last.",
    },
    "moments": {
        "type": "array",
        "items": {"type": "number", "exclusiveMinimum": 0},
        "uniqueItems": True,
        "default": [0.6, 1.0, 1.25],
        "description": "Measure also the checkpoints nearest to these multiples of the run's own transition step.",
    },
    "threshold": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.5,
        "description": "Out-of-distribution error whose first crossing is the transition.",
    },
    "sequences": {
        "type": "integer",
        "minimum": 1,
        "default": 64,
        "description": "In-distribution test sequences in the fixed batch whose loss is differentiated.",
    },
    "tolerance": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.01,
        "description": "Relative error at which the iteration for a block's largest eigenvalue stops.",
    },
    "maximum_products": {
        "type": "integer",
        "minimum": 2,
        "default": 200,
        "description": "Hessian-vector products after which an iteration gives up; the measurement then fails.",
    },
    "layer": {
        "type": "integer",
        "minimum": 0,
        "default": 1,
        "description": "Layer, counted from 0, whose keys are perturbed and whose query-key product holds the bridge.",
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
    "bridge_rank": {
        "type": "integer",
        "minimum": 1,
        "default": 10,
        "description": "Rank of the bridge.",
    },
    "noise_norm": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 0.01,
        "description": "Frobenius norm of the noise, as a fraction of the weight's.",
    },
    "noise_pairs": {
        "type": "integer",
        "minimum": 2,
        "default": 8,
        "description": "Perturbations ±δ averaged in each subspace.",
    },
    "noise_sequences": {
        "type": "integer",
        "minimum": 1,
        "default": 32,
        "description": "In-distribution test sequences in the batch on which the loss increase is measured.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 2,
        "default": 20,
        "description": "Random subspaces of each dimension, with one perturbation ±δ each, for the null.",
    },
}

Loss = Callable[[dict[str, Tensor]], Tensor]

EIGENVALUE, INCREASE = "block_largest_hessian_eigenvalue", "noise_loss_increase"


class _Moment(NamedTuple):
    """A multiple of the transition step: in percent, and the checkpoint nearest to it, if the run has one."""

    percent: int
    step: int | None


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the curvature of the in-distribution loss without dropout in single blocks and subspaces.

    Rows (nats):

    - ``block_largest_hessian_eigenvalue``, part = block or group of blocks (``models.blocks``): the largest eigenvalue
      of the Hessian by the parameters of this part alone, with [low, high] the value ± its error bound, both by
      a float64 product; n = sequences. Each checkpoint starts from the eigenvector of the one before
      and noise of its own. Null
      ``untrained``: the run's own model at its first checkpoint.
    - ``noise_loss_increase``, part = ``<weight>-<subspace>``: mean loss increase when noise is added to one weight,
      ``embedding`` or ``layers.<l>.attention.key``, whose rows lie in a subspace of the residual stream: ``top``,
      ``medium`` and ``bottom`` right singular vectors of the embedding, and ``bridge``, the top right singular vectors
      of layer l's W_QK (of several heads: of all of them stacked). The noise has a fixed fraction of the weight's
      Frobenius norm, in every subspace the same; ± pairs cancel the gradient. [low, high] is its 95 % interval over n
      pairs; in float64, whose rounding, 1e-15 nats, is its floor. Null ``random_subspace``: random subspaces of the
      same dimension, one pair each. Its mean is the same for every dimension; one dimension spreads more than many.
    - ``curvature_moment`` (steps), index = percent of the transition step: the checkpoint nearest to it.
    - both quantities with the suffix ``_at_moment`` and that index, at these checkpoints. Their step is the last one in
      all runs. Where a run made no transition, or ends before the moment, the row is marked as censored, its value NaN.

    Raises:
        ArithmeticError: an iteration did not converge, naming the step and the part.
        ValueError: the model has no such layer, or the subspaces do not fit in its width.
    """
    _check(run, settings)
    steps = run.steps()
    moments = _moments(run, settings)
    grid = {steps[0], *run.steps(settings["every"])}
    rows: list[dict[str, Any]] = [
        {"step": steps[-1], "quantity": "curvature_moment", "index": moment.percent, "unit": "steps"}
        | {"value": float(steps[-1] if moment.step is None else moment.step), "censored": moment.step is None}
        for moment in moments
    ]
    increases = _Increases(run, settings)
    untrained: dict[tuple[str, str], dict[str, Any]] = {}
    for step, eigenvalues in _eigenvalues(
        run, settings, sorted(grid | {m.step for m in moments if m.step is not None})
    ):
        measured = eigenvalues | increases.at(step)
        for key, (columns, null) in measured.items():
            row = {"step": step, "quantity": key[0], "part": key[1], "data": "in_distribution", "unit": "nats"}
            both = columns, null or untrained.setdefault(key, columns) | {"null": "untrained"}
            if step in grid:
                rows += [row | each for each in both]
            for moment in moments:
                at = row | {"step": steps[-1], "quantity": f"{key[0]}_at_moment", "index": moment.percent}
                if moment.step == step:
                    rows += [at | each for each in both]
                elif moment.step is None and step == steps[-1]:
                    nothing = {name: float("nan") for name in ("value", "low", "high")} | {"censored": True}
                    rows += [at | each | nothing for each in both]
    return tidy(rows, run.experiment, run.seed)


def _check(run: Run, settings: dict[str, Any]) -> None:
    model, layer, width = run.settings["model"], settings["layer"], run.settings["model"]["width"]
    if layer >= model["layers"]:
        raise ValueError(
            f"measurements.block_curvature.layer: {layer} in a model of {model['layers']} layers, counted from 0; "
            "lower it, or leave this measurement out"
        )
    if settings["top"] + settings["medium"] >= width or settings["bridge_rank"] > key_rank(model):
        raise ValueError(
            f"measurements.block_curvature: top {settings['top']} and medium {settings['medium']} leave nothing of "
            f"width {width} for the bottom subspace, or bridge_rank {settings['bridge_rank']} is above it, or "
            f"above the width of all keys, {key_rank(model)}; lower them"
        )


def _moments(run: Run, settings: dict[str, Any]) -> list[_Moment]:
    if not settings["moments"]:
        return []
    steps, crossing = run.steps(), transition(run, settings["threshold"])
    reached = [not crossing.censored and multiple * crossing.step <= steps[-1] for multiple in settings["moments"]]
    return [
        _Moment(round(100 * multiple), nearest(steps, multiple * crossing.step) if there else None)
        for multiple, there in zip(settings["moments"], reached, strict=True)
    ]


def _loss(run: Run, sequences: int, twice: bool) -> Loss:
    test_set = run.test_set("in_distribution", sequences)
    tokens, targets = torch.from_numpy(test_set["tokens"]), torch.from_numpy(test_set["targets"])
    return lambda parameters: cross_entropy(run.model.forward(parameters, tokens, twice_differentiable=twice), targets)


def _moved(loss: Loss, parameters: dict[str, Tensor], chosen: dict[str, Tensor]) -> Tensor:
    # in the precision of those chosen: products are checked in double precision
    dtype = next(iter(chosen.values())).dtype
    return loss({name: value.to(dtype) for name, value in parameters.items()} | chosen)


Measured = dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any] | None]]
"""Quantity and part -> columns of the measured row and, if the step has one of its own, of its null."""


def _eigenvalues(run: Run, settings: dict[str, Any], steps: list[int]) -> Iterator[tuple[int, Measured]]:
    """Yield the largest eigenvalue of every part at each of the steps, in their order."""
    loss = _loss(run, settings["sequences"], twice=True)
    starts: dict[str, Tensor] = {}
    noise = torch.Generator().manual_seed(0)
    for step in steps:
        parameters = run.parameters(step)
        eigenvalues: Measured = {}
        products = 0
        for part, names in parts(parameters).items():
            block = {name: parameters[name] for name in names}
            pair = largest_hessian_eigenpair(
                partial(_moved, loss, parameters),
                block,
                settings["tolerance"],
                starts.get(part),
                noise,
                settings["maximum_products"],
                check=part not in starts,
            )
            remedy = "measurements.block_curvature.maximum_products or tolerance"
            check_converged(pair, run, step, f"the largest Hessian eigenvalue of {part}", remedy)
            starts[part] = pair.vector
            products += pair.products
            eigenvalues[EIGENVALUE, part] = bounds(pair.value, value_error(pair)) | {"n": settings["sequences"]}, None
        print(
            f"step {step}: "
            + ", ".join(f"{part} {columns['value']:.4g}" for (_, part), (columns, _) in eigenvalues.items())
        )
        print(f"step {step}: {products} products for the eigenvalues of {len(eigenvalues)} parts")
        yield step, eigenvalues


class _Increases:
    """The loss increase under noise inside subspaces, at any step of a run."""

    def __init__(self, run: Run, settings: dict[str, Any]):
        self.run, self.settings = run, settings
        self.loss = _loss(run, settings["noise_sequences"], twice=False)

    def at(self, step: int) -> Measured:
        """Return the mean increase for every weight and subspace, with its null of random subspaces."""
        run, settings = self.run, self.settings
        arrays = run.arrays(step)
        parameters = {name: tensor.double() for name, tensor in run.parameters(step).items()}
        subspaces = _subspaces(arrays, settings, run.settings["model"]["heads"])
        mean_increases: Measured = {}
        for weight in ("embedding", f"layers.{settings['layer']}.attention.key"):
            matrix = arrays[f"{weight}.weight"].astype(np.float64)
            rows, width = matrix.shape
            norm = settings["noise_norm"] * float(np.linalg.norm(matrix))
            nulls: dict[int, dict[str, Any]] = {}
            for name, basis in subspaces.items():
                # the same random numbers at every step, so that steps differ by the run alone
                draw = seeded("block_curvature", "noise", run.seed, weight, name)
                noises = [subspace_noise(rows, basis, norm, draw) for _ in range(settings["noise_pairs"])]
                increases = loss_increases(self.loss, parameters, f"{weight}.weight", noises)
                rank = basis.shape[1]
                if rank not in nulls:
                    draw = seeded("block_curvature", "null", run.seed, weight, rank)
                    noises = [
                        subspace_noise(rows, haar_subspace(width, rank, draw), norm, draw)
                        for _ in range(settings["null_draws"])
                    ]
                    drawn = loss_increases(self.loss, parameters, f"{weight}.weight", noises)
                    nulls[rank] = central_range(drawn, "random_subspace")
                mean_increases[INCREASE, f"{weight}-{name}"] = estimate_row(mean_of(increases)), nulls[rank]
        return mean_increases


def _subspaces(arrays: dict[str, np.ndarray], settings: dict[str, Any], heads: int) -> dict[str, np.ndarray]:
    """Return bases in the residual stream: top, medium and bottom of the embedding, and the bridge."""
    width = arrays["embedding.weight"].shape[1]
    top, medium = settings["top"], settings["top"] + settings["medium"]
    embedded = right_singular_subspace(arrays["embedding.weight"], 1, width)
    query, key = (arrays[f"layers.{settings['layer']}.attention.{role}.weight"] for role in ("query", "key"))
    stacked = query_key_products(query, key, heads).reshape(-1, width)
    bridge = top_right_singular_subspace(stacked, settings["bridge_rank"])
    return {
        "top": embedded[:, :top],
        "medium": embedded[:, top:medium],
        "bottom": embedded[:, medium:],
        "bridge": bridge,
    }
