"""Losses and predictions of a model on fixed sequences."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from learning_geometry.models import Model
from learning_geometry.tasks.batch import IGNORED


class Evaluation(NamedTuple):
    """Per sequence, the mean loss over its targets (nats); per position, the most probable output."""

    losses: Float[np.ndarray, "sequences"]
    predictions: Int64[np.ndarray, "sequences read"]


def cross_entropy(
    logits: Float[Tensor, "batch read outputs"],
    targets: Int64[Tensor, "batch position"],
    reduction: str = "mean",
) -> Float[Tensor, "..."]:
    """Return the cross-entropy (nats) over the positions read whose target is not ``IGNORED``.

    ``reduction`` is ``mean`` (a scalar) or ``none`` (flat, zero where ignored). A model that reads out at
    the last position is judged there alone.
    """
    read = targets[:, -logits.shape[1] :]
    return F.cross_entropy(logits.flatten(0, 1), read.flatten(), ignore_index=IGNORED, reduction=reduction)


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Return which tensors hold numbers that are not finite, "" if none does.

    >>> not_finite({"weight": torch.tensor([1.0, float("inf")]), "bias": torch.zeros(1)})
    'weight: 1 of 2 entries not finite'
    """
    bad = {name: int((~torch.isfinite(value)).sum()) for name, value in tensors.items()}
    return ", ".join(
        f"{name}: {count} of {tensors[name].numel()} entries not finite" for name, count in bad.items() if count
    )


@torch.no_grad()
def evaluate(
    model: Model,
    parameters: dict[str, Tensor],
    tokens: Int64[np.ndarray, "sequences position"],
    targets: Int64[np.ndarray, "sequences position"],
    batch_size: int = 100,
) -> Evaluation:
    """Evaluate without dropout, ``batch_size`` sequences at a time; no random number is drawn.

    Raises:
        FloatingPointError: a logit is not finite, so that there is no most probable output; names the parameters at
            fault and the first sequence.
    """
    device = parameters["embedding.weight"].device
    losses, predictions = [], []
    for start in range(0, len(tokens), batch_size):
        batch = torch.from_numpy(tokens[start : start + batch_size]).to(device)
        expected = torch.from_numpy(targets[start : start + batch_size]).to(device)
        logits = model.forward(parameters, batch)
        finite = torch.isfinite(logits).flatten(1).all(1)
        if not finite.all():
            first = start + int(finite.logical_not().nonzero()[0])
            raise FloatingPointError(
                f"evaluate: the logits of sequence {first} are not finite "
                f"({not_finite(parameters) or 'all parameters are'}); training has diverged, "
                "lower optimizer.learning_rate"
            )
        per_position = cross_entropy(logits, expected, reduction="none").view(logits.shape[:2])
        counted = (expected[:, -logits.shape[1] :] != IGNORED).sum(1)
        losses.append((per_position.sum(1) / counted).cpu().numpy())
        predictions.append(logits.argmax(-1).cpu().numpy())
    return Evaluation(np.concatenate(losses).astype(np.float64), np.concatenate(predictions))
