"""Optimisers from torch and the schedule of their learning rate."""

import math
from typing import Any

import torch
from torch import Tensor


def make_optimizer(settings: dict[str, Any], parameters: dict[str, Tensor]) -> torch.optim.Optimizer:
    """Return torch's AdamW or SGD on all parameters.

    Raises:
        ValueError: another optimiser name.
    """
    values, rate, decay = list(parameters.values()), settings["learning_rate"], settings["weight_decay"]
    if settings["name"] == "adamw":
        betas, epsilon = tuple(settings["betas"]), settings["epsilon"]
        return torch.optim.AdamW(values, lr=rate, betas=betas, eps=epsilon, weight_decay=decay, fused=True)
    if settings["name"] == "sgd":
        return torch.optim.SGD(values, lr=rate, momentum=settings["momentum"], weight_decay=decay, fused=True)
    raise ValueError(f"optimizer.name: {settings['name']!r} is not known; use adamw or sgd")


def learning_rate_factor(settings: dict[str, Any], step: int, steps: int) -> float:
    """Return the factor on the learning rate for the update that follows ``step`` of ``steps``.

    ``warmup_factor`` during the first ``warmup_steps``; then 1 (``constant``), or from 1 down to
    ``final_factor`` along a line (``linear``) or half a cosine (``cosine``).

    >>> constant = {"name": "constant", "warmup_steps": 5, "warmup_factor": 0.5, "final_factor": 0.0}
    >>> [learning_rate_factor(constant, step, 100) for step in (0, 4, 5, 99)]
    [0.5, 0.5, 1.0, 1.0]
    """
    if step < settings["warmup_steps"]:
        return float(settings["warmup_factor"])
    if settings["name"] == "constant":
        return 1.0
    progress = (step - settings["warmup_steps"]) / max(1, steps - settings["warmup_steps"])
    shape = 1 - progress if settings["name"] == "linear" else (1 + math.cos(math.pi * progress)) / 2
    final = float(settings["final_factor"])
    return final + (1 - final) * shape


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state as named tensors: ``<index>/<name>``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}/{name}": value
        for index, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
