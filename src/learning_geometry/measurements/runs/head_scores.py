"""Previous-token and induction scores of every attention head."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from learning_geometry.measurements.common.run import Run
from learning_geometry.tables.tidy import tidy

NEEDS = {
    "test_sets": ["out_of_distribution"],
    "arrays": ["first_start", "second_start", "segment_length"],
    "model_settings": ["heads"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 100,
        "description": "Measure the checkpoints whose step is a multiple of this, and the last.",
    },
    "sequences": {
        "type": "integer",
        "minimum": 1,
        "default": 500,
        "description": "Number of out-of-distribution test sequences.",
    },
}


def previous_token_scores(
    pattern: Float[Tensor, "batch heads position position"],
) -> Float[Tensor, "batch heads"]:
    """Return, per sequence and head, the mean attention from position t to t − 1, over t ≥ 1; in [0, 1].

    >>> previous_token_scores(torch.eye(4).roll(1, 1)[None, None])  # attends to the next: nothing looks back
    tensor([[0.]])
    >>> previous_token_scores(torch.eye(4).roll(1, 0)[None, None])
    tensor([[1.]])
    """
    return pattern.diagonal(-1, dim1=-2, dim2=-1).mean(-1)


def induction_scores(
    pattern: Float[Tensor, "batch heads position position"],
    first_start: Int64[Tensor, "batch"],
    second_start: Int64[Tensor, "batch"],
    segment_length: Int64[Tensor, "batch"],
) -> Float[Tensor, "batch heads"]:
    """Return, per sequence and head, the mean attention from the second copy to the position after the match.

    The query is token j of the second copy, the key is token j + 1 of the first, for
    j = 0 .. segment_length − 2; in [0, 1].

    Source: Olsson et al. 2022 (In-context learning and induction heads), prefix-matching score.
    """
    batch, heads, length, _ = pattern.shape
    offset = torch.arange(length)
    counted = offset < segment_length[:, None] - 1  # batch offset
    query = torch.where(counted, second_start[:, None] + offset, 0)
    key = torch.where(counted, first_start[:, None] + offset + 1, 0)
    flat = (query * length + key)[:, None].expand(batch, heads, length)
    attention = pattern.reshape(batch, heads, length * length).gather(2, flat)
    return (attention * counted[:, None]).sum(2) / counted.sum(1)[:, None]


@torch.no_grad()
def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure both scores of every head on out-of-distribution sequences.

    Rows: ``previous_token_score`` and ``induction_score`` (fraction of attention) per part ``layers.<l>`` and
    index = head, n = sequences. Null ``uniform_attention``: every earlier position gets the same weight; exact.
    """
    test_set = run.test_set("out_of_distribution", settings["sequences"])
    copies = [torch.from_numpy(test_set[name]) for name in ("first_start", "second_start", "segment_length")]
    null_values = uniform_scores(test_set["tokens"].shape[1], copies)
    rows: list[dict[str, Any]] = []
    for step in run.steps(settings["every"]):
        for part, scores in scores_by_layer(run, step, test_set["tokens"], copies).items():
            for name, by_head in scores.items():
                row = {"step": step, "part": part, "quantity": name, "data": "out_of_distribution"}
                row |= {"unit": "fraction", "n": len(by_head), "index": np.arange(by_head.shape[1])}
                value = np.full(by_head.shape[1], null_values[name])
                rows.append(row | {"value": by_head.double().mean(0).numpy()})
                rows.append(row | {"null": "uniform_attention", "value": value, "low": value, "high": value})
    return tidy(rows, run.experiment, run.seed)


def _scores(pattern: Tensor, copies: list[Tensor]) -> dict[str, Tensor]:
    return {
        "previous_token_score": previous_token_scores(pattern),
        "induction_score": induction_scores(pattern, *copies),
    }


def uniform_scores(length: int, copies: list[Tensor]) -> dict[str, float]:
    """Return the mean of both scores if every position attends alike to itself and all earlier ones.

    Args:
        length: positions per sequence.
        copies: per sequence, where the first and second copy start, and how long they are.
    """
    uniform = torch.tril(torch.ones(length, length)) / torch.arange(1, length + 1)[:, None]
    null = _scores(uniform.expand(len(copies[0]), 1, length, length), copies)
    return {name: float(scores.double().mean()) for name, scores in null.items()}


@torch.no_grad()
def scores_by_layer(
    run: Run, step: int, tokens: np.ndarray, copies: list[Tensor], batch_size: int = 100
) -> dict[str, dict[str, Tensor]]:
    """Return by layer and by name both scores, one row per sequence and one column per head.

    Args:
        run: the run.
        step: of its checkpoint.
        tokens: the sequences.
        copies: per sequence, where the first and second copy start, and how long they are.
        batch_size: sequences per forward pass.
    """
    parameters = run.parameters(step)
    parts: dict[str, dict[str, list[Tensor]]] = {}
    for start in range(0, len(tokens), batch_size):
        window = slice(start, start + batch_size)
        these = [array[window] for array in copies]

        def see(name: str, value: Tensor, these: list[Tensor] = these) -> Tensor:
            if name.endswith("attention.pattern"):
                part = name.removesuffix(".attention.pattern")
                for score, values in _scores(value, these).items():
                    parts.setdefault(part, {}).setdefault(score, []).append(values)
            return value

        run.model.forward(parameters, torch.from_numpy(tokens[window]), hook=see)
    return {part: {name: torch.cat(v) for name, v in scores.items()} for part, scores in parts.items()}
