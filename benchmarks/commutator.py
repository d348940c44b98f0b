"""The commutator of two gradient steps of the marker-sums model, against its gradients and other Hessian products."""

import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._timing import Case
from learning_geometry.geometry.commutators import commutator, finite_commutator
from learning_geometry.geometry.curvature.products import flatten, gradient_with_graph
from learning_geometry.models import Model, transformer
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.seeding import seeded
from learning_geometry.tasks import marker_sums
from learning_geometry.training.loop import build_model

with warnings.catch_warnings():
    # it loads what torch itself deprecates
    warnings.simplefilter("ignore")
    from curvlinops import HessianLinearOperator

LAYERS, HEADS, WIDTH, BATCH = 5, 4, 128, 128
STEP_SIZE = 1e-3
TOLERANCE = 1e-3
"""Relative difference of the commutators by ours and the peers' Hessian products."""

Loss = Callable[[dict[str, Tensor]], Tensor]


@dataclass
class Work:
    """The model at its initialisation and two batches, the same for all sides."""

    model: Model
    parameters: dict[str, Tensor]
    batches: list[tuple[Tensor, Tensor]]

    def losses(self, twice_differentiable: bool) -> list[Loss]:
        """Return the loss on each of the batches."""
        return [
            lambda p, tokens=tokens, targets=targets: cross_entropy(
                self.model.forward(p, tokens, twice_differentiable=twice_differentiable), targets
            )
            for tokens, targets in self.batches
        ]


def cases(small: bool) -> list[Case]:
    """Return the cases with batches of 128 sequences at the published size, or of 2 with one small layer."""
    work = make_work(small)
    fused, twice_differentiable = work.losses(twice_differentiable=False), work.losses(twice_differentiable=True)

    def one_gradient() -> None:
        gradient(fused[0], work.parameters)

    def four_gradients() -> None:
        for loss in (*fused, *fused):
            gradient(loss, work.parameters)

    def by_steps() -> None:
        finite_commutator(fused[0], fused[1], work.parameters, STEP_SIZE)

    def by_products() -> Tensor:
        return commutator(*(gradient_with_graph(loss, work.parameters) for loss in twice_differentiable)).delta

    module, order = plain_model(work)
    peers = {"curvlinops": curvlinops(work, module), "torch.func, jvp of grad": forward_over_reverse(work, module)}
    for name, peer in peers.items():
        check(name, peer(), by_products(), order, work)
    return [
        Case("commutator by finite steps", "four gradients", by_steps, four_gradients),
        Case("commutator by Hessian products", "one gradient", by_products, one_gradient),
        *(Case("commutator by Hessian products", name, by_products, peer) for name, peer in peers.items()),
    ]


def make_work(small: bool) -> Work:
    task = {name: schema["default"] for name, schema in marker_sums.SETTINGS.items()} | {"name": "marker_sums"}
    model = {name: schema["default"] for name, schema in transformer.SETTINGS.items()} | {"name": "transformer"}
    model |= {"layers": LAYERS, "heads": HEADS, "width": WIDTH, "positions": "learned"}
    model |= {"final_norm": True, "readout": "last"}
    if small:
        model |= {"layers": 1, "width": 8}
    built = build_model({"task": task, "model": model})
    batches = []
    for side in (0, 1):
        drawn = marker_sums.training_batch(task, {}, seeded("commutator", side), 2 if small else BATCH)
        batches.append((torch.from_numpy(drawn.tokens), torch.from_numpy(drawn.targets)))
    return Work(built, built.initialise(seeded("commutator")), batches)


def gradient(loss: Loss, parameters: dict[str, Tensor]) -> tuple[Tensor, ...]:
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
    return torch.autograd.grad(loss(leaves), list(leaves.values()))


class PlainLayer(nn.Module):
    """Pre-norm causal attention with heads, from torch's modules."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention = nn.ModuleDict({role: nn.Linear(width, width) for role in ("query", "key", "value", "output")})
        self.register_buffer("future", torch.ones(length, length, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        by_head = (*x.shape[:2], self.heads, -1)
        query, key, value = (
            self.attention[role](normed).view(by_head).transpose(1, 2) for role in ("query", "key", "value")
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        pattern = scores.masked_fill(self.future, -math.inf).softmax(-1)
        return x + self.attention["output"]((pattern @ value).transpose(1, 2).reshape(x.shape))


class PlainModel(nn.Module):
    """The same architecture from torch's modules, under the same names; logits of the last position."""

    def __init__(self, settings: dict[str, Any], vocabulary: int, outputs: int, length: int) -> None:
        super().__init__()
        width = settings["width"]
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.layers = nn.ModuleList(PlainLayer(width, settings["heads"], length) for _ in range(settings["layers"]))
        self.final_norm, self.readout = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions.weight
        for layer in self.layers:
            x = layer(x)
        return self.readout(self.final_norm(x[:, -1]))


def plain_model(work: Work) -> tuple[nn.Module, list[str]]:
    """Return the model from torch's modules with the same parameters, and their names in its order."""
    shape = work.model.shape
    module = PlainModel(work.model.settings, shape.vocabulary, shape.outputs, shape.length)
    module.load_state_dict(module.state_dict() | work.parameters)
    return module, [name for name, _ in module.named_parameters()]


def curvlinops(work: Work, module: nn.Module) -> Callable[[], Tensor]:
    """Return the commutator by curvlinops: gradients by autograd, then one product with each batch's Hessian."""
    parameters, criterion = list(module.parameters()), nn.CrossEntropyLoss()
    data = [(tokens, targets[:, -1]) for tokens, targets in work.batches]

    def delta() -> Tensor:
        gradients, hessians = [], []
        for tokens, labels in data:
            by_parameter = torch.autograd.grad(criterion(module(tokens), labels), parameters)
            gradients.append(torch.cat([piece.flatten() for piece in by_parameter]))
            hessians.append(
                HessianLinearOperator(
                    module, criterion, parameters, [(tokens, labels)], check_deterministic=False, num_data=len(tokens)
                )
            )
        return hessians[1] @ gradients[0] - hessians[0] @ gradients[1]

    return delta


def forward_over_reverse(work: Work, module: nn.Module) -> Callable[[], Tensor]:
    """Return the commutator by torch.func: gradients, then the directional derivative of each batch's gradient."""
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}

    def slope(tokens: Tensor, labels: Tensor) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
        def loss(p: dict[str, Tensor]) -> Tensor:
            return nn.functional.cross_entropy(torch.func.functional_call(module, p, (tokens,)), labels)

        return torch.func.grad(loss)

    slopes = [slope(tokens, targets[:, -1]) for tokens, targets in work.batches]

    def delta() -> Tensor:
        gradients = [of_batch(parameters) for of_batch in slopes]
        terms = [torch.func.jvp(slopes[1 - i], (parameters,), (gradients[i],))[1] for i in (0, 1)]
        return flatten(terms[0]) - flatten(terms[1])

    return delta


def check(name: str, theirs: Tensor, ours: Tensor, order: list[str], work: Work) -> None:
    """Print how far a peer's commutator is from ours; raise ArithmeticError if it is another one."""
    entries = {key: tensor.numel() for key, tensor in work.parameters.items()}
    pieces = dict(zip(entries, ours.split(list(entries.values())), strict=True))
    their_pieces = dict(zip(order, theirs.detach().split([entries[key] for key in order]), strict=True))
    # torch 2.13.0 gets the rows of LayerNorm's weights wrong where a jacrev is differentiated, as inside curvlinops
    compared = [key for key in order if not key.endswith("norm.weight")]
    difference = torch.cat([(pieces[key].flatten() - their_pieces[key].flatten()) for key in compared]).norm()
    relative = float(difference / torch.cat([pieces[key].flatten() for key in compared]).norm())
    print(f"commutator: {name} within {relative:.1e} of ours", file=sys.stderr)
    if not relative <= TOLERANCE:
        raise ArithmeticError(f"{name}: its commutator differs from ours by {relative:.2g} of its norm")
