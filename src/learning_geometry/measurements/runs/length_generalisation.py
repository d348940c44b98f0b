"""Does a model copy in sequences longer than those it was trained on: errors, losses and head scores by test length."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.runs.copying_errors import constant_errors
from learning_geometry.measurements.runs.head_scores import scores_by_layer, uniform_scores
from learning_geometry.models.evaluation import evaluate
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import tidy
from learning_geometry.tasks.dataset import Arrays

NEEDS = {
    "test_sets": ["out_of_distribution"],
    "arrays": ["first_start", "second_start", "segment_length"],
    "task_settings": {"length": None, "out_of_distribution_segment_length": None},
    "task_functions": ["out_of_distribution", "at_length"],
    "model_settings": ["heads"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 1000,
        "description": "Measure the checkpoints whose step is a multiple of this, and the last.",
    },
    "factors": {
        "type": "array",
        "items": {"type": "number", "exclusiveMinimum": 0},
        "minItems": 1,
        "uniqueItems": True,
        "default": [1.0, 1.25, 1.5, 2.0, 3.0],
        "description": "Test lengths, as multiples of the training length; a learned position embedding is tested up "
        "to 1 only.",
    },
    "test_sequences": {
        "type": "integer",
        "minimum": 2,
        "default": 200,
        "description": "Out-of-distribution sequences drawn for each test length.",
    },
    "scale_segments": {
        "type": "boolean",
        "default": False,
        "description": "Whether to test also with repeated segments that are longer by the same factor.",
    },
}

DATA = "out_of_distribution"


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure errors, losses and both head scores on out-of-distribution sequences of other lengths.

    Test sets come from a generator of their own, for each length, and are the same for all seeds and checkpoints.
    Rows, data ``out_of_distribution``, index = test length (tokens), n = sequences; [low, high] is the 95 % sampling
    interval over sequences:

    - ``<error>_at_length`` (fraction) for each error of the task. Null ``constant_prediction``: the error of the best
      single token on the same sequences.
    - ``loss_at_length`` (nats). Null ``uniform_prediction``: the same probability for every token, exact.
    - ``previous_token_score_at_length`` and ``induction_score_at_length`` (fraction), part ``layers.<l>``, or with
      several heads ``layers.<l>.heads.<h>``. Null ``uniform_attention``, exact.

    With ``scale_segments`` the same with ``_scaled_segments`` appended, where the segment grows with the length. A
    learned position embedding ends at the training length: no row has a larger index there.

    Raises:
        ValueError: the task cannot be drawn at another length, or a length is too short for it, or none is left.
    """
    rows: list[dict[str, Any]] = []
    steps = run.steps(settings["every"])
    parameters = {step: run.parameters(step) for step in steps}
    for (length, suffix), test_set in draw_test_sets(run, settings).items():
        copies = [torch.from_numpy(test_set[name]) for name in ("first_start", "second_start", "segment_length")]
        constant = constant_errors(run, test_set)
        uniform = uniform_scores(length, copies)
        for step in steps:
            here = {"step": step, "data": DATA, "index": length}
            result = evaluate(run.model, parameters[step], test_set["tokens"], test_set["targets"])
            loss = here | {"quantity": f"loss_at_length{suffix}", "unit": "nats"}
            rows += [
                loss | _mean(result.losses),
                loss | _exact("uniform_prediction", np.log(run.model.shape.outputs)),
            ]
            for name, errors in run.task.errors(result.predictions, test_set).items():
                row = here | {"quantity": f"{name}_at_length{suffix}", "unit": "fraction"}
                rows += [row | _mean(errors), row | _exact("constant_prediction", constant[name])]
            for layer, scores in scores_by_layer(run, step, test_set["tokens"], copies).items():
                for name, by_head in scores.items():
                    heads = by_head.shape[1]
                    for head in range(heads):
                        part = f"{layer}.heads.{head}" if heads > 1 else layer
                        row = here | {"part": part, "quantity": f"{name}_at_length{suffix}", "unit": "fraction"}
                        rows.append(row | _mean(by_head[:, head].double().numpy()))
                        rows.append(row | _exact("uniform_attention", uniform[name]))
    return tidy(rows, run.experiment, run.seed)


def draw_test_sets(run: Run, settings: dict[str, Any]) -> dict[tuple[int, str], Arrays]:
    """Draw the out-of-distribution test set of each test length, and of each with longer segments.

    Returns:
        Test length and what is appended to the names of quantities -> arrays as the task's own test set has them.

    Raises:
        ValueError: as :func:`measure`.
    """
    task = run.settings["task"]
    functions = all(hasattr(run.task, name) for name in NEEDS["task_functions"])
    if not (functions and set(NEEDS["task_settings"]) <= set(task)):
        raise ValueError(
            f"measurements.length_generalisation: the task {task['name']} cannot be drawn at another length; give it "
            "the settings and functions `out_of_distribution` and `at_length` of tasks/copying.py, or leave this out"
        )
    limit = task["length"] if run.settings["model"].get("positions") == "learned" else None
    lengths = sorted({round(factor * task["length"]) for factor in settings["factors"]})
    readable = [length for length in lengths if limit is None or length <= limit]
    if not readable:
        raise ValueError(
            f"measurements.length_generalisation.factors: all of {settings['factors']} are longer than the learned "
            f"position embedding, {limit} tokens; add 1.0"
        )
    test_sets = {}
    for length in readable:
        for suffix in ("", "_scaled_segments") if settings["scale_segments"] else ("",):
            try:
                changed = run.task.at_length(task, length, bool(suffix))
            except ValueError as error:
                raise ValueError(
                    f"measurements.length_generalisation.factors: {length} tokens are no length of this task ({error})"
                ) from None
            segment = changed["out_of_distribution_segment_length"]
            generator = seeded("length_generalisation", "test", length, segment)
            test_sets[length, suffix] = run.task.out_of_distribution(changed, generator, settings["test_sequences"])
    return test_sets


def _mean(values: np.ndarray) -> dict[str, Any]:
    mean = float(values.mean())
    half_width = 1.96 * float(values.std(ddof=1)) / np.sqrt(len(values))
    return {"value": mean, "low": mean - half_width, "high": mean + half_width, "n": len(values)}


def _exact(null: str, value: float) -> dict[str, Any]:
    return {"null": null, "value": float(value), "low": float(value), "high": float(value)}
