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


def update(optimizer: torch.optim.Optimizer) -> None:
    """Make one step of an optimiser of :func:`make_optimizer`, by the kernel that its ``step`` calls: the same bits.

    For AdamW that is done directly, as the rest of ``step`` takes longer than the kernel on a small model. The first
    step, which makes the state, and steps with hooks are torch's own.
    """
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if hooks or not optimizer.state or not isinstance(optimizer, torch.optim.AdamW):
        optimizer.step()
        return
    with torch.no_grad():
        for group in optimizer.param_groups:
            values = [value for value in group["params"] if value.grad is not None]
            state = [optimizer.state[value] for value in values]
            steps = [one["step"] for one in state]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                values,
                [value.grad for value in values],
                [one["exp_avg"] for one in state],
                [one["exp_avg_sq"] for one in state],
                [],
                steps,
                amsgrad=False,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )


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
