"""How concentrated attention is where a model reads out: its entropy at the last position, over training."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.measurements.common.run import Run
from learning_geometry.tables.tidy import tidy

NEEDS = {
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
    "test_sets": {
        "type": ["array", "null"],
        "items": {"type": "string"},
        "minItems": 1,
        "uniqueItems": True,
        "default": None,
        "description": "Names of the test sets whose first sequences are the probe; null takes every test set.",
    },
    "sequences": {
        "type": "integer",
        "minimum": 2,
        "default": 64,
        "description": "Sequences of each test set, the first ones.",
    },
}

BATCH_SIZE = 256
"""Sequences per forward pass."""


def last_query_entropy(
    pattern: Float[Tensor, "batch heads position position"],
) -> Float[Tensor, "batch heads"]:
    """Return the entropy −Σ p ln p (nats) of the attention of the last position, from 0 to ln(positions).

    >>> uniform, one_hot = torch.full((4, 4), 0.25), torch.eye(4)
    >>> last_query_entropy(torch.stack([uniform, one_hot])[None])  # ln 4, and 0
    tensor([[1.3863, 0.0000]], dtype=torch.float64)
    """
    return torch.special.entr(pattern[:, :, -1].double()).sum(-1)


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the entropy of every layer's attention at the last query position, on fixed sequences.

    Rows: ``attention_entropy`` (nats), part ``layers.<l>``, data = test set: mean over heads and sequences, n =
    sequences, [low, high] its 95 % sampling interval over sequences, whose heads are averaged first. Nulls:

    - ``uniform_attention``: every position gets the same weight, ln(positions); exact;
    - ``untrained``: the run's own model at its first checkpoint.

    Raises:
        KeyError: there is no such test set, or it has fewer sequences.
    """
    names = settings["test_sets"] or sorted(run.dataset.test_sets)
    probes = {name: run.test_set(name, settings["sequences"])["tokens"] for name in names}
    # the first checkpoint is the null, measured or not
    steps = sorted({run.steps()[0], *run.steps(settings["every"])})
    untrained: dict[tuple[str, str], float] = {}
    rows: list[dict[str, Any]] = []
    for step in steps:
        parameters = run.parameters(step)
        for name, tokens in probes.items():
            for part, by_sequence in entropies(run, parameters, tokens).items():
                mean = float(by_sequence.mean())
                half_width = 1.96 * float(by_sequence.std(ddof=1)) / np.sqrt(len(by_sequence))
                first = untrained.setdefault((name, part), mean)
                row = {"step": step, "part": part, "quantity": "attention_entropy", "data": name, "unit": "nats"}
                rows.append(
                    row | {"value": mean, "low": mean - half_width, "high": mean + half_width, "n": len(by_sequence)}
                )
                for null, value in (("uniform_attention", float(np.log(tokens.shape[1]))), ("untrained", first)):
                    rows.append(row | {"null": null, "value": value, "low": value, "high": value})
    return tidy(rows, run.experiment, run.seed)


@torch.no_grad()
def entropies(
    run: Run, parameters: dict[str, Tensor], tokens: np.ndarray
) -> dict[str, Float[np.ndarray, " sequences"]]:
    """Return per part ``layers.<l>`` the entropy (nats) of the last query, mean over heads, for each sequence.

    Args:
        run: the run whose model it is.
        parameters: of one of its checkpoints.
        tokens: sequences of one length.
    """
    by_layer: dict[str, list[np.ndarray]] = {}

    def see(name: str, value: Tensor) -> Tensor:
        if name.endswith("attention.pattern"):
            of_layer = by_layer.setdefault(name.removesuffix(".attention.pattern"), [])
            of_layer.append(last_query_entropy(value).mean(1).numpy())
        return value

    for start in range(0, len(tokens), BATCH_SIZE):
        run.model.forward(parameters, torch.from_numpy(tokens[start : start + BATCH_SIZE]), hook=see)
    return {part: np.concatenate(batches) for part, batches in by_layer.items()}
