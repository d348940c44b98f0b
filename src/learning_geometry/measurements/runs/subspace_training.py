"""Does learning go on inside the execution basis, or outside of it? Training continued with projected steps."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from learning_geometry.measurements.common.execution_basis import execution_basis, random_basis
from learning_geometry.measurements.common.run import Run
from learning_geometry.models.evaluation import evaluate
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import tidy
from learning_geometry.training.loop import state_from
from learning_geometry.training.projected import Projection, confine, continue_training, projection

NEEDS = {
    "trains": True,
    "errors": ["error"],
    "checkpoints": {"directions": 2},
    "at_most": {"directions": "matrix_entries"},
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "from_step": {
        "type": ["integer", "null"],
        "minimum": 0,
        "default": None,
        "description": "Checkpoint on the uniform grid to go on from; null: the first whose history gives the basis.",
    },
    "steps": {
        "type": "integer",
        "minimum": 1,
        "default": 60,
        "description": "Training steps made from there on, in each way.",
    },
    "points": {
        "type": "integer",
        "minimum": 1,
        "default": 3,
        "description": "Evaluations after the start, evenly spaced; the number of steps is a multiple of it.",
    },
    "directions": {
        "type": "integer",
        "minimum": 1,
        "default": 3,
        "description": "Principal directions of each attention matrix' trajectory in the basis.",
    },
    "optimizer": {
        "enum": ["run", "sgd"],
        "default": "run",
        "description": "The run's own optimiser, its moments starting at 0, or plain gradient descent on its batches.",
    },
    "sgd_learning_rate": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 0.1,
        "description": "Learning rate of plain gradient descent; not read for the run's own optimiser.",
    },
    "sequences": {
        "type": "integer",
        "minimum": 2,
        "default": 250,
        "description": "Sequences of each test set.",
    },
}

UNPROJECTED, FROZEN = "unprojected", "frozen"
INSIDE, OUTSIDE, RANDOM_INSIDE, RANDOM_OUTSIDE = "inside", "outside", "random_inside", "random_outside"
ARMS = (UNPROJECTED, INSIDE, OUTSIDE, RANDOM_INSIDE, RANDOM_OUTSIDE, FROZEN)
"""Ways to go on; the rows' part."""

RANDOM_BASIS = "random_basis"
UNITS = {"loss": "nats", "error": "fraction"}

Outcomes = dict[tuple[str, str], np.ndarray]
"""Test set, and loss or error -> one number per sequence."""


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    r"""Measure the loss and error that training reaches when its steps are projected.

    The execution basis is the top principal directions of each attention matrix' trajectory up to the start, as a
    subspace of all parameters (``execution_basis``). From the start on the run goes on in six ways:

    - ``unprojected``: as it would with a fresh optimiser;
    - ``inside``: gradient and step projected on the basis; all parameters but the attention matrices stand still;
    - ``outside``: both projected off the basis; everything else moves, all other parameters freely;
    - ``random_inside``, ``random_outside``: the same with a random basis of the same shape in the same matrices;
    - ``frozen``: nothing moves.

    All make their steps on the batches that the run itself drew there, with the same dropout masks and learning rates.
    The optimiser's moments start at 0 in each. Rows, step = that of the start, index = steps after it:

    - ``loss_after_projection`` (nats) and ``error_after_projection`` (fraction), part = the way, data = every test set,
      n = sequences, with the 95 % interval over sequences.
    - ``loss_change_after_projection`` and ``error_change_after_projection``: minus that at the start, on the same
      sequences.
    - ``displacement_share_inside`` (fraction), part ``unprojected``: share of the squared length of the free
      displacement that lies in the basis. Null ``random_basis``: the exact mean over random bases of the same shape,
      $\sum_W \frac{k}{\text{entries of } W} \|\Delta_W\|^2 / \|\Delta\|^2$.

    AdamW rescales what it is given entry by entry, so that a step inside is about as long as a free one, in whatever
    basis; with plain gradient descent it is as long as the gradient's share.

    Raises:
        ValueError: no checkpoint to start from, or not enough steps of training after it.
    """
    start, basis = _start(run, settings)
    after = np.arange(settings["points"] + 1) * (settings["steps"] // settings["points"])
    _check(run, settings, start)
    experiment = run.trained | {"optimizer": _optimizer(run.settings["optimizer"], settings)}
    drawn = random_basis(basis, seeded("subspace_training", RANDOM_BASIS, run.seed))
    rows: list[dict[str, Any]] = []
    at_start = _outcomes(run, settings, run.parameters(start))
    for arm in ARMS:
        state = state_from(run.model, run.parameters(start), experiment["optimizer"])
        project = _projection(arm, state.parameters, basis, drawn)
        if project is not None:
            confine(state, project)
        begun = state.flat.clone()
        if arm == FROZEN:
            rows += [row | {"part": arm, "index": int(index)} for index in after for row in _rows(at_start, at_start)]
            continue
        on = projection(state.parameters, basis)
        for index in continue_training(state, experiment, run.dataset, run.seed, start, after.tolist()):
            outcomes = _outcomes(run, settings, state.parameters) if index else at_start
            rows += [row | {"part": arm, "index": index} for row in _rows(outcomes, at_start)]
            if arm == UNPROJECTED and index:
                rows += _displacement(state.parameters, state.flat - begun, basis, on, index)
    return tidy([{"step": start} | row for row in rows], run.experiment, run.seed)


def _projection(
    arm: str, parameters: Mapping[str, Tensor], basis: dict[str, np.ndarray], drawn: dict[str, np.ndarray]
) -> Projection | None:
    if arm in (UNPROJECTED, FROZEN):
        return None
    chosen = drawn if arm in (RANDOM_INSIDE, RANDOM_OUTSIDE) else basis
    return projection(parameters, chosen, outside=arm in (OUTSIDE, RANDOM_OUTSIDE))


def _outcomes(run: Run, settings: dict[str, Any], parameters: dict[str, Tensor]) -> Outcomes:
    outcomes = {}
    for data in run.dataset.test_sets:
        test_set = run.test_set(data, settings["sequences"])
        result = evaluate(run.model, parameters, test_set["tokens"], test_set["targets"], settings["sequences"])
        outcomes[data, "loss"] = result.losses
        outcomes[data, "error"] = run.task.errors(result.predictions, test_set)["error"]
    return outcomes


def _rows(outcomes: Outcomes, at_start: Outcomes) -> Iterator[dict[str, Any]]:
    for (data, name), values in outcomes.items():
        row = {"data": data, "unit": UNITS[name], "n": len(values)}
        for kind, of_kind in (("", values), ("_change", values - at_start[data, name])):
            mean, half_width = float(of_kind.mean()), 1.96 * float(of_kind.std(ddof=1) / np.sqrt(len(values)))
            ends = {"low": mean - half_width, "high": mean + half_width}
            yield row | ends | {"quantity": f"{name}{kind}_after_projection", "value": mean}


def _displacement(
    parameters: Mapping[str, Tensor], moved: Tensor, basis: dict[str, np.ndarray], on: Projection, index: int
) -> list[dict[str, Any]]:
    moved = moved.detach().double()
    total = float(moved.square().sum())
    pieces = dict(zip(parameters, moved.split([value.numel() for value in parameters.values()]), strict=True))
    expected = sum(
        columns.shape[1] / columns.shape[0] * float(pieces[name].square().sum()) for name, columns in basis.items()
    )
    row = {"part": UNPROJECTED, "quantity": "displacement_share_inside", "index": index, "unit": "fraction"}
    return [
        row | {"value": float(on(moved).square().sum()) / total},
        row | {"value": expected / total, "null": RANDOM_BASIS},
    ]


def _start(run: Run, settings: dict[str, Any]) -> tuple[int, dict[str, np.ndarray]]:
    grid, wanted, directions = run.uniform_steps(), settings["from_step"], settings["directions"]
    if wanted is None:
        # two more snapshots than directions, as the basis asks for
        if len(grid) < directions + 2:
            raise ValueError(
                f"measurements.subspace_training: {len(grid)} checkpoints on the uniform grid give no {directions} "
                "directions; lower training.checkpoints.every, or directions"
            )
        wanted = grid[directions + 1]
    elif wanted not in grid:
        raise ValueError(
            f"measurements.subspace_training.from_step: {wanted} is no checkpoint on the uniform grid; use one "
            f"of {grid}"
        )
    return wanted, execution_basis(run, wanted, directions)


def _optimizer(of_run: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    if settings["optimizer"] == "run":
        return of_run
    plain = {"name": "sgd", "learning_rate": settings["sgd_learning_rate"], "momentum": 0.0, "weight_decay": 0.0}
    return of_run | plain


def _check(run: Run, settings: dict[str, Any], start: int) -> None:
    steps, total = settings["steps"], run.trained["training"]["steps"]
    if steps % settings["points"]:
        raise ValueError(
            f"measurements.subspace_training: {steps} steps cannot be split into {settings['points']} equal parts; "
            "make steps a multiple of points"
        )
    if start + steps > total:
        raise ValueError(
            f"measurements.subspace_training: {steps} steps from {start} on go beyond the run's {total}, whose batches "
            "and learning rates they are; lower steps or from_step"
        )
