"""The attention patterns of one sequence before, at and after the transition, to look at."""

from typing import Any

import numpy as np
import pandas as pd

from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.common.transition import DATA, nearest, transition
from learning_geometry.tables.tidy import tidy

NEEDS = {
    "test_sets": ["out_of_distribution"],
    "arrays": ["first_start", "second_start", "segment_length"],
    "recorded_errors": {"out_of_distribution": "error"},
    "model_settings": ["heads", "causal"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "seeds": {
        "type": ["array", "null"],
        "items": {"type": "integer", "minimum": 0},
        "default": None,
        "description": "Seeds whose patterns are kept, thousands of rows each; null keeps those of every seed.",
    },
    "sequence": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "Which sequence of the out-of-distribution test set, counted from 0.",
    },
    "heads": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "Number of heads kept in every layer, the first ones.",
    },
    "threshold": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.5,
        "description": "Out-of-distribution error whose first crossing is the transition.",
    },
}


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Record the attention of every layer on one out-of-distribution sequence, at three checkpoints.

    Rows, with data ``out_of_distribution``:

    - ``attention`` (fraction), part ``layers.<l>.heads.<h>``, index = query · length + key: attention of the query
      position to the key position; a causal model's keys after the query are left out.
    - ``attention_step`` (steps), index 0, 1, 2 for before, at and after: the checkpoint nearest to half the
      transition step, the one nearest to that step, and the last. The transition is the first evaluation during
      training with a ``running_error`` below the threshold; without one, the middle of training stands for it and
      the row is marked as censored. At the last step, as the next.
    - ``first_start``, ``second_start``, ``segment_length`` (1): where the sequence's two copies are, from 0.

    Runs of seeds that are not kept have ``attention_step`` alone. A picture of one sequence has no null.
    """
    steps, censored = moments(run, settings["threshold"])
    here = {"step": run.steps()[-1], "data": DATA}
    rows: list[dict[str, Any]] = [
        here
        | {
            "quantity": "attention_step",
            "index": moment,
            "value": float(step),
            "unit": "steps",
            "censored": censored and moment < 2,
        }
        for moment, step in enumerate(steps)
    ]
    if settings["seeds"] is None or run.seed in settings["seeds"]:
        chosen = settings["sequence"]
        test_set = {name: array[chosen:] for name, array in run.test_set(DATA, chosen + 1).items()}
        rows += [
            here | {"quantity": name, "value": float(test_set[name][0])}
            for name in ("first_start", "second_start", "segment_length")
        ]
        for step in sorted(set(steps)):
            rows += _patterns(run, step, test_set["tokens"], settings["heads"])
    return tidy(rows, run.experiment, run.seed)


def moments(run: Run, threshold: float) -> tuple[list[int], bool]:
    """Return the checkpoints before, at and after the transition, and whether there was none.

    Raises:
        ValueError: training recorded no out-of-distribution error.
    """
    crossing = transition(run, threshold)
    checkpoints = run.steps()
    at = checkpoints[-1] / 2 if crossing.censored else crossing.step
    return [nearest(checkpoints, at / 2), nearest(checkpoints, at), checkpoints[-1]], crossing.censored


def _patterns(run: Run, step: int, tokens: np.ndarray, heads: int) -> list[dict[str, Any]]:
    # here, so that runs whose patterns are not kept do not wait for its import
    import torch

    length = tokens.shape[1]
    queries, keys = np.tril_indices(length) if run.settings["model"]["causal"] else np.indices((length, length))
    queries, keys = queries.ravel(), keys.ravel()
    rows: list[dict[str, Any]] = []

    def see(name: str, value: torch.Tensor) -> torch.Tensor:
        if name.endswith("attention.pattern"):
            layer = name.removesuffix(".attention.pattern")
            for head, pattern in enumerate(value[0, :heads].double().numpy()):
                row = {"step": step, "part": f"{layer}.heads.{head}", "quantity": "attention", "data": DATA}
                row |= {"index": queries * length + keys, "value": pattern[queries, keys], "unit": "fraction"}
                rows.append(row)
        return value

    with torch.no_grad():
        run.model.forward(run.parameters(step), torch.from_numpy(tokens), hook=see)
    return rows
