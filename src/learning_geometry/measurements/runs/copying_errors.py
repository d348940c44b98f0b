"""Errors and losses on the whole test sets, and the steps at which the running error falls."""

from typing import Any

import numpy as np
import pandas as pd

from learning_geometry.geometry.uncertainty import first_crossing
from learning_geometry.measurements.common.run import Run
from learning_geometry.models.evaluation import evaluate
from learning_geometry.tables.tidy import tidy

NEEDS = {
    "errors": ["error"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 500,
        "description": "Evaluate the checkpoints whose step is a multiple of this, and the last.",
    },
    "thresholds": {
        "type": "array",
        "items": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "minItems": 1,
        "uniqueItems": True,
        "default": [0.9, 0.5, 0.2],
        "description": "Errors whose first crossing is a transition step.",
    },
}


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure each test set whole at some checkpoints; find transition steps in the training metrics.

    Rows: ``loss`` (nats) and the task's errors (fraction) per test set, n = sequences; the null
    ``constant_prediction`` is the error of the best single token on the same sequences.
    ``first_step_below_<threshold>`` (steps): the first evaluation during training whose running error lies
    below the threshold, at the resolution of ``training.evaluate_every``; right-censored at the last step
    if there is none.
    """
    rows: list[dict[str, Any]] = []
    for data, test_set in run.dataset.test_sets.items():
        constant = constant_errors(run, test_set)
        for step in run.steps(settings["every"]):
            result = evaluate(run.model, run.parameters(step), test_set["tokens"], test_set["targets"])
            at = {"step": step, "data": data, "n": len(result.losses)}
            rows.append(at | {"quantity": "loss", "value": result.losses.mean(), "unit": "nats"})
            for name, errors in run.task.errors(result.predictions, test_set).items():
                row = at | {"quantity": name, "unit": "fraction"}
                rows.append(row | {"value": errors.mean()})
                value = constant[name]
                rows.append(row | {"null": "constant_prediction", "value": value, "low": value, "high": value})
    return tidy(rows + _transition_rows(run, settings["thresholds"]), run.experiment, run.seed)


def constant_errors(run: Run, test_set: dict[str, np.ndarray]) -> dict[str, float]:
    """Return, per error, the smallest that predicting one and the same token everywhere gives."""
    outputs = run.model.shape.outputs
    by_token = [
        {
            name: errors.mean()
            for name, errors in run.task.errors(np.full_like(test_set["tokens"], token), test_set).items()
        }
        for token in range(outputs)
    ]
    return {name: float(min(errors[name] for errors in by_token)) for name in by_token[0]}


def _transition_rows(run: Run, thresholds: list[float]) -> list[dict[str, Any]]:
    rows = []
    for data in run.dataset.test_sets:
        chosen = (run.metrics["quantity"] == "running_error") & (run.metrics["data"] == data)
        curve = run.metrics[chosen].sort_values("step")
        for threshold in thresholds:
            crossing = first_crossing(curve["step"].to_numpy(), curve["value"].to_numpy(), threshold)
            rows.append(
                {
                    "step": int(curve["step"].iloc[-1]),
                    "quantity": f"first_step_below_{threshold:g}",
                    "data": data,
                    "value": crossing.step,
                    "censored": crossing.censored,
                    "unit": "steps",
                    "n": int(curve["n"].iloc[-1]),
                }
            )
    return rows
