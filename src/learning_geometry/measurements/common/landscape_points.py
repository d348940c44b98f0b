"""Where the landscape is measured: checkpoints, and batches of sequences."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from learning_geometry.geometry.curvature.landscape import LossAndGradient, Losses
from learning_geometry.geometry.curvature.products import unflatten
from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.common.transition import nearest, transition
from learning_geometry.models.evaluation import cross_entropy, evaluate
from learning_geometry.tasks.dataset import Arrays

OWN, HELD_OUT = "in_distribution", "held_out"
"""The column ``data`` of what is measured on the batch that is differentiated, and on other sequences."""

CHUNK = 250
"""Sequences whose graph is in memory at one time in the descent."""


class Points(NamedTuple):
    """Steps of the checkpoints by name; which is the plateau that all starts from; whether there was no transition."""

    steps: dict[str, int]
    plateau: str
    censored: bool


def points(run: Run, plateau: list[float], threshold: float) -> Points:
    """Return the checkpoints nearest to fractions of the transition step, to that step, and the first and last.

    Raises:
        ValueError: training recorded no out-of-distribution error.
    """
    crossing, saved = transition(run, threshold), run.steps()
    names = {f"plateau_{fraction:g}": nearest(saved, fraction * crossing.step) for fraction in plateau}
    steps = {"untrained": saved[0]} | names
    steps |= {"transition": nearest(saved, crossing.step), "solution": saved[-1]}
    return Points(steps, next(iter(names)), crossing.censored)


@dataclass(frozen=True)
class Batch:
    """Fixed sequences, and the losses of a run's model on them in evaluation mode."""

    run: Run
    arrays: Arrays

    @property
    def size(self) -> int:
        """Number of sequences."""
        return len(self.arrays["tokens"])

    def loss(self, parameters: Mapping[str, Tensor], twice: bool = True, part: slice = slice(None)) -> Tensor:
        """Mean loss over (part of) the sequences; twice differentiable if ``twice``."""
        tokens, targets = (torch.from_numpy(self.arrays[name][part]) for name in ("tokens", "targets"))
        return cross_entropy(self.run.model.forward(dict(parameters), tokens, twice_differentiable=twice), targets)

    def losses_at(self, like: Mapping[str, Tensor]) -> Losses:
        """Return the function from a flat point to the loss of every sequence."""
        return lambda point: self.judged(like, point)[0]

    def judged(self, like: Mapping[str, Tensor], point: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return loss (nats) and the task's ``error`` of every sequence at a flat point."""
        result = evaluate(self.run.model, unflatten(point, like), self.arrays["tokens"], self.arrays["targets"])
        return result.losses, self.run.task.errors(result.predictions, self.arrays)["error"]

    def _gradient(self, parameters: Mapping[str, Tensor], part: slice) -> tuple[float, Tensor]:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
        loss = self.loss(leaves, twice=False, part=part)
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return float(loss.detach()), torch.cat([gradient.reshape(-1) for gradient in gradients])

    def gradient_of_halves(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the flat gradient on the first half less that on the second."""
        half = self.size // 2
        first, second = slice(0, half), slice(half, 2 * half)
        return self._gradient(parameters, first)[1] - self._gradient(parameters, second)[1]

    def loss_and_gradient(self, like: Mapping[str, Tensor]) -> LossAndGradient:
        """Return the function from a flat point to the mean loss and its flat gradient; all sequences count alike."""

        def at(point: Tensor) -> tuple[float, Tensor]:
            parameters = unflatten(point, like)
            total, gradient = 0.0, torch.zeros_like(point)
            for start in range(0, self.size, CHUNK):
                part = slice(start, min(start + CHUNK, self.size))
                share = (part.stop - part.start) / self.size
                loss, of_part = self._gradient(parameters, part)
                total, gradient = total + share * loss, gradient + share * of_part
            return total, gradient

        return at


def batches(run: Run, own: int, held_out: int, descended: int, data: str) -> tuple[Batch, Batch, Batch]:
    """Return the first ``own`` sequences of a test set, the next ``held_out``, and the next ``descended``.

    Raises:
        KeyError: the test set holds fewer.
    """
    arrays = run.test_set(data, own + held_out + descended)
    ends = (0, own, own + held_out, own + held_out + descended)
    first, second, third = (
        Batch(run, {name: array[start:stop] for name, array in arrays.items()}) for start, stop in pairwise(ends)
    )
    return first, second, third
