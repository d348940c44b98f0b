"""A training step and an evaluation of the copying experiment, against bare products and plain modules."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._timing import Case
from learning_geometry import tasks
from learning_geometry.config import load
from learning_geometry.models.evaluation import evaluate
from learning_geometry.seeding import seeded
from learning_geometry.tasks.batch import IGNORED, Batch
from learning_geometry.tasks.dataset import Dataset
from learning_geometry.training.loop import initial_state, training_step

CONFIG = Path(__file__).parents[1] / "config" / "config.yaml"

Experiment = dict[str, Any]


def cases(small: bool) -> list[Case]:
    """Return the cases at the size of the default run, or with batches of 2 sequences."""
    experiment = load(CONFIG)["experiments"]["copying"]
    if small:
        experiment["training"]["batch_size"] = 2
    task, settings = tasks.load(experiment["task"]), experiment["task"]
    state, nothing = initial_state(experiment, seed=0), Dataset({}, {})
    steps = iter(range(10**9))
    test_set = task.training_batch(settings, {}, seeded("test"), 4 if small else 1000)

    def step() -> None:
        training_step(state, experiment, nothing, 0, next(steps))

    def evaluation() -> None:
        evaluate(state.model, state.parameters, test_set.tokens, test_set.targets)

    plain_step, plain_evaluation = plain_modules(experiment, test_set)
    evaluated = f"evaluation of {len(test_set.tokens)} sequences"
    return [
        Case("training step", "its matrix products alone", step, bare_products(experiment)),
        Case("training step", "plain torch modules", step, plain_step),
        Case(evaluated, "plain torch modules", evaluation, plain_evaluation),
    ]


def bare_products(experiment: Experiment) -> Callable[[], None]:
    """Return the matrix products of a training step, forward and backward, and nothing else.

    Per layer: query, key, value and output projections, attention scores, mix of the values; then the
    read-out. Each product A B has two in the backward pass, one per factor. As in the step, products read
    what earlier ones wrote, and what the backward pass needs is kept.
    """
    settings, task = experiment["model"], tasks.load(experiment["task"])
    batch, length, width = (
        experiment["training"]["batch_size"],
        task.length(experiment["task"]),
        settings["width"],
    )
    outputs, layers = task.outputs(experiment["task"]), settings["layers"]
    generator = torch.Generator().manual_seed(0)
    embedded = torch.randn((batch * length, width), generator=generator)
    weights = torch.randn((layers, 4, width, width), generator=generator) / width
    readout = torch.randn((outputs, width), generator=generator) / width
    by_sequence = (batch, length, width)

    def products() -> None:
        x, kept = embedded, []
        for layer in range(layers):
            query, key, value = (torch.mm(x, weights[layer, role].T).view(by_sequence) for role in range(3))
            pattern = torch.bmm(query, key.transpose(1, 2))
            z = torch.bmm(pattern, value).view(x.shape)
            kept.append((x, query, key, value, pattern, z))
            x = torch.mm(z, weights[layer, 3].T)
        logits = torch.mm(x, readout.T)
        torch.mm(logits.T, x)
        gradient = torch.mm(logits, readout)
        for layer in reversed(range(layers)):
            x, query, key, value, pattern, z = kept.pop()
            torch.mm(gradient.T, z)
            to_z = torch.mm(gradient, weights[layer, 3]).view(by_sequence)
            to_value = torch.bmm(pattern.transpose(1, 2), to_z)
            to_pattern = torch.bmm(to_z, value.transpose(1, 2))
            to_query, to_key = torch.bmm(to_pattern, key), torch.bmm(to_pattern.transpose(1, 2), query)
            for role, to_role in enumerate((to_query, to_key, to_value)):
                torch.mm(to_role.view(x.shape).T, x)
                gradient = torch.mm(to_role.view(x.shape), weights[layer, role])

    return products


class PlainLayer(nn.Module):
    """Pre-norm single-head causal attention with rotary positions, from torch's modules."""

    def __init__(self, width: int, length: int, base: float, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.dropout = nn.Dropout(dropout)
        frequency = base ** (-torch.arange(0, width, 2) / width)
        angle = torch.arange(length)[:, None] * frequency
        self.register_buffer("cosine", angle.cos())
        self.register_buffer("sine", angle.sin())
        self.register_buffer("future", torch.ones(length, length, dtype=torch.bool).triu(1))

    def rotate(self, x: Tensor) -> Tensor:
        even, odd = x[..., ::2], x[..., 1::2]
        turned = (even * self.cosine - odd * self.sine, even * self.sine + odd * self.cosine)
        return torch.stack(turned, -1).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        query, key = self.rotate(self.query(normed)), self.rotate(self.key(normed))
        scores = query @ key.transpose(1, 2) / math.sqrt(x.shape[-1])
        pattern = scores.masked_fill(self.future, -math.inf).softmax(-1)
        return x + self.dropout(self.output(pattern @ self.value(normed)))


def plain_model(experiment: Experiment) -> nn.Sequential:
    """Return the architecture of the experiment, with torch's initialisation."""
    settings, task = experiment["model"], tasks.load(experiment["task"])
    width, length, base = settings["width"], task.length(experiment["task"]), settings["rotary_base"]
    return nn.Sequential(
        nn.Embedding(task.vocabulary(experiment["task"]), width),
        *(PlainLayer(width, length, base, settings["dropout"]) for _ in range(settings["layers"])),
        nn.Linear(width, task.outputs(experiment["task"])),
    )


def plain_modules(experiment: Experiment, test_set: Batch) -> tuple[Callable[[], None], Callable[[], object]]:
    """Return a training step and an evaluation written the common way, for the same architecture."""
    optimizer_settings, task = experiment["optimizer"], tasks.load(experiment["task"])
    model = plain_model(experiment)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=optimizer_settings["learning_rate"],
        betas=tuple(optimizer_settings["betas"]),
        eps=optimizer_settings["epsilon"],
        weight_decay=optimizer_settings["weight_decay"],
    )
    generator = seeded("plain")

    def cross_entropy(tokens: Tensor, targets: Tensor, reduction: str) -> tuple[Tensor, Tensor]:
        logits = model(tokens)
        flat, expected = logits.flatten(0, 1), targets.flatten()
        return logits, F.cross_entropy(flat, expected, ignore_index=IGNORED, reduction=reduction)

    def step() -> None:
        drawn = task.training_batch(experiment["task"], {}, generator, experiment["training"]["batch_size"])
        model.train()
        optimizer.zero_grad()
        cross_entropy(torch.from_numpy(drawn.tokens), torch.from_numpy(drawn.targets), "mean")[1].backward()
        optimizer.step()

    @torch.no_grad()
    def evaluation() -> tuple[np.ndarray, np.ndarray]:
        model.eval()
        losses, predictions = [], []
        for start in range(0, len(test_set.tokens), 100):
            tokens, targets = (torch.from_numpy(array[start : start + 100]) for array in test_set)
            logits, loss = cross_entropy(tokens, targets, "none")
            losses.append(loss.view(targets.shape).sum(1) / (targets != IGNORED).sum(1))
            predictions.append(logits.argmax(-1))
        return torch.cat(losses).numpy(), torch.cat(predictions).numpy()

    return step, evaluation
