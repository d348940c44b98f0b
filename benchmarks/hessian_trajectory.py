"""The largest Hessian eigenvalue along a copying run, against curvlinops, PyHessian and hessian-eigenthings."""

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from benchmarks._memory import peak
from benchmarks._timing import Case, Count
from benchmarks.training_step import CONFIG, plain_model
from learning_geometry.config import load
from learning_geometry.geometry.curvature.hessian import largest_hessian_eigenpair
from learning_geometry.geometry.curvature.products import gradient_with_graph
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.tasks.batch import IGNORED
from learning_geometry.tasks.dataset import Dataset, make_dataset
from learning_geometry.training.checkpoints import checkpoint_path, read_checkpoint
from learning_geometry.training.loop import build_model, initial_state, train

with warnings.catch_warnings():
    # both load what torch itself deprecates
    warnings.simplefilter("ignore")
    from curvlinops import HessianLinearOperator
    from pyhessian import hessian

TOLERANCE = 1e-3
SEQUENCES = 200
ORACLE = 40
"""Lanczos steps after which hessian-eigenthings' value is taken to be exact."""
STEPS = range(2000, 3501, 100)
"""16 checkpoints: the out-of-distribution error of seed 0 falls through .5 near step 2400."""
FINISHED = Path("results/copying/seed-0/checkpoints")
OWN = Path("results/benchmarks/copying-seed-0")


@dataclass
class Work:
    """The same batch and checkpoints for all sides, and what each side found: eigenvalues and products."""

    experiment: dict[str, Any]
    tokens: Tensor
    targets: Tensor
    points: list[dict[str, Tensor]]
    folder: Path = Path()
    """Of the checkpoints, if they are of a run."""
    values: dict[str, list[float]] = field(default_factory=dict)
    products: dict[str, int] = field(default_factory=dict)

    def counted(self, side: str, product: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(*arguments: Any) -> Any:
            self.products[side] = self.products.get(side, 0) + 1
            return product(*arguments)

        return call


def cases(small: bool) -> list[Case | Count]:
    """Return the cases on 16 checkpoints and 200 sequences, or on 2 without training and 8."""
    work = small_work() if small else default_work()
    parts, name = len(work.points), "hessian trajectory"
    all_cases: list[Case | Count] = [
        Case(name, peer, turn(work, "ours"), turn(work, side), parts) for side, peer in PEERS.items()
    ]
    for side, peer in PEERS.items():
        counts = [lambda: work.products["ours"] / len(PEERS), lambda side=side: work.products[side]]
        all_cases.append(Count(f"{name}, products", peer, *counts, "products"))
    for side in ("curvlinops",) if small else ("curvlinops", "pyhessian"):
        peaks = [lambda each=each: peak_memory(each, small) for each in ("ours", side)]
        all_cases.append(Count(f"{name}, peak memory", PEERS[side], *peaks, "MB"))
    return all_cases


def turn(work: Work, side: str) -> Callable[[], None]:
    """Return a function that does the next checkpoint; after the last it checks the values against ours."""
    eigenvalues: list[float] = []
    iterator = SIDES[side](work)

    def step() -> None:
        eigenvalues.append(next(iterator))
        if len(eigenvalues) == len(work.points):
            work.values[side] = eigenvalues
            check({name: work.values[name] for name in (side, "ours") if name in work.values})

    return step


def check(values: dict[str, list[float]]) -> None:
    """Print how far each side's values are from ours; raise ArithmeticError if those with an error bound are.

    PyHessian stops when two iterates differ by less than the tolerance. That bounds no error: where the two largest
    eigenvalues are close it can stop on the second, so its deviation is printed and is no failure.
    """
    for side, eigenvalues in values.items():
        if side == "ours" or "ours" not in values:
            continue
        difference = np.abs(np.array(eigenvalues) / np.array(values["ours"]) - 1)
        print(
            f"hessian trajectory: {side} within {TOLERANCE} of ours at {(difference <= TOLERANCE).sum()} of "
            f"{len(eigenvalues)} checkpoints; largest difference {difference.max():.1e}",
            file=sys.stderr,
        )
        # each of the two may be off by its tolerance
        if side != "pyhessian" and not difference.max() <= 2 * TOLERANCE:
            raise ArithmeticError(f"{side}: its largest eigenvalues {eigenvalues} differ from ours {values['ours']}")


def ours(work: Work) -> Iterator[float]:
    """As the measurement ``sharpness`` does it; the losses in float64 that confirm a value count as one product."""
    model, start, noise = build_model(work.experiment), None, torch.Generator().manual_seed(0)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return cross_entropy(model.forward(parameters, work.tokens, twice_differentiable=True), work.targets)

    for index, point in enumerate(work.points):
        pair = largest_hessian_eigenpair(loss, point, TOLERANCE, start, noise, check=index == 0)
        work.products["ours"] = work.products.get("ours", 0) + pair.products + 1
        start = pair.vector
        yield pair.value


def eigsh_on_our_products(work: Work) -> Iterator[float]:
    model = build_model(work.experiment)
    for point in work.points:
        at = gradient_with_graph(
            lambda p: cross_entropy(model.forward(p, work.tokens, twice_differentiable=True), work.targets), point
        )
        product = work.counted("eigsh", at.product)
        matvec = lambda v: product(torch.from_numpy(v.ravel())).numpy()  # noqa: B023, E731
        yield largest(LinearOperator((at.gradient.numel(),) * 2, matvec=matvec, dtype=np.float32))


def curvlinops(work: Work) -> Iterator[float]:
    for point in work.points:
        model, criterion, data = plain(work, point)
        operator = HessianLinearOperator(
            model, criterion, list(model.parameters()), [data], check_deterministic=False, num_data=len(data[0])
        ).to_scipy(dtype=np.float32)
        matvec = work.counted("curvlinops", operator.matvec)
        yield largest(LinearOperator(operator.shape, matvec=matvec, dtype=np.float32))


def largest(operator: LinearOperator) -> float:
    start = np.random.default_rng(0).standard_normal(operator.shape[0]).astype(np.float32)
    return float(eigsh(operator, k=1, which="LA", tol=TOLERANCE, v0=start, return_eigenvectors=False)[0])


def pyhessian(work: Work) -> Iterator[float]:
    module = sys.modules[hessian.__module__]
    product = work.counted("pyhessian", module.hessian_vector_product)
    for point in work.points:
        model, criterion, data = plain(work, point)
        with (
            torch.random.fork_rng(),
            warnings.catch_warnings(),
            mock.patch.object(module, "hessian_vector_product", product),
        ):
            # it calls backward with create_graph, and torch warns that this leaks memory
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            at = hessian(model, criterion, data=data, cuda=False)
            values, _ = at.eigenvalues(maxIter=200, tol=TOLERANCE)
        # parameters and their gradients hold each other
        model.zero_grad(set_to_none=True)
        yield values[0]


def eigenthings(work: Work) -> Iterator[float]:
    """Its Lanczos iteration, which stops by no error: an oracle, not timed, tells it the fewest steps that will do."""
    from hessian_eigenthings.algorithms.lanczos import lanczos

    fewest = [_fewest(_operator(work, point)) for point in work.points]

    def values() -> Iterator[float]:
        for point, steps in zip(work.points, fewest, strict=True):
            work.products["eigenthings"] = work.products.get("eigenthings", 0) + steps
            yield float(lanczos(_operator(work, point), k=1, max_iter=steps, which="LA", seed=0).eigenvalues[0])

    return values()


def _operator(work: Work, point: dict[str, Tensor]) -> Any:
    from hessian_eigenthings.loss_fns.standard import supervised_loss
    from hessian_eigenthings.operators.hessian import HessianOperator

    model, criterion, data = plain(work, point)
    return HessianOperator(model, [data], supervised_loss(criterion))


def _fewest(operator: Any) -> int:
    """Return after how many steps the largest Ritz value is within the tolerance of that after ``ORACLE``, for good."""
    from hessian_eigenthings.algorithms.lanczos import lanczos_tridiagonal

    # as its lanczos draws it
    start = torch.randn(operator.size, dtype=operator.dtype, generator=torch.Generator().manual_seed(0))
    seen = lanczos_tridiagonal(operator, start, ORACLE)
    diagonal, above = seen.alphas.double().numpy(), seen.betas.double().numpy()
    values = [eigh_tridiagonal(diagonal[:k], above[: k - 1])[0][-1] for k in range(1, len(diagonal) + 1)]
    return max(k for k, value in enumerate([0.0, *values], 1) if abs(value / values[-1] - 1) > TOLERANCE)


SIDES = {
    "ours": ours,
    "eigsh": eigsh_on_our_products,
    "curvlinops": curvlinops,
    "pyhessian": pyhessian,
    "eigenthings": eigenthings,
}
PEERS = {
    "curvlinops": "curvlinops with scipy's eigsh",
    "pyhessian": "PyHessian's power iteration",
    "eigsh": "scipy's eigsh on our products",
    "eigenthings": "hessian-eigenthings' Lanczos, told when to stop",
}


class Flat(nn.Module):
    """A model whose outputs have one row per position, as criteria take them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens).flatten(0, 1)


def plain(work: Work, point: dict[str, Tensor]) -> tuple[nn.Module, nn.Module, tuple[Tensor, Tensor]]:
    """Return the model as common torch modules with the parameters of a point, the criterion and the batch."""
    model = plain_model(work.experiment).eval()
    layers = work.experiment["model"]["layers"]
    names = {"embedding": "0", "readout": str(layers + 1)}
    for layer in range(layers):
        names[f"layers.{layer}.attention_norm"] = f"{layer + 1}.norm"
        for role in ("query", "key", "value", "output"):
            names[f"layers.{layer}.attention.{role}"] = f"{layer + 1}.{role}"
    state = {}
    for name, value in point.items():
        module, _, kind = name.rpartition(".")
        state[f"{names[module]}.{kind}"] = value
    model.load_state_dict(model.state_dict() | state)
    return Flat(model), nn.CrossEntropyLoss(ignore_index=IGNORED), (work.tokens, work.targets.flatten())


def default_work() -> Work:
    """Return the checkpoints of a finished default run, or train one and keep it for the next call."""
    experiment = load(CONFIG)["experiments"]["copying"]
    dataset = make_dataset(experiment["task"], seed=0)
    folder = FINISHED
    if not all(checkpoint_path(FINISHED, step).exists() for step in STEPS):
        folder = OWN / "checkpoints"
        if not all(checkpoint_path(folder, step).exists() for step in STEPS):
            print("hessian trajectory: training a copying run once, about two minutes", file=sys.stderr)
            train(experiment, 0, dataset, OWN, experiment)
    work = make_work(experiment, dataset, [read_checkpoint(folder, step) for step in STEPS])
    return replace(work, folder=folder)


def small_work() -> Work:
    experiment = load(CONFIG)["experiments"]["copying"]
    parameters = initial_state(experiment, seed=0).parameters
    points = [{name: factor * value for name, value in parameters.items()} for factor in (0.8, 0.9)]
    return make_work(experiment, make_dataset(experiment["task"] | {"test_sequences": 8}, seed=0), points)


def make_work(
    experiment: dict[str, Any], dataset: Dataset, points: list[dict[str, Tensor]], sequences: int = SEQUENCES
) -> Work:
    test_set = {name: array[:sequences] for name, array in dataset.test_sets["in_distribution"].items()}
    return Work(experiment, torch.from_numpy(test_set["tokens"]), torch.from_numpy(test_set["targets"]), points)


@cache
def peak_memory(side: str, small: bool) -> float:
    """Return by how much three checkpoints on one side raise the peak memory (MB) of a process of their own."""
    command = [sys.executable, "-m", "benchmarks.hessian_trajectory", side, str(int(small))]
    return float(subprocess.check_output(command, text=True).split()[-1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    chosen = small_work() if sys.argv[2] == "1" else default_work()
    chosen.points = chosen.points[:3]
    before = peak()
    list(SIDES[sys.argv[1]](chosen))
    # never 0: a small case may fit into what start-up left
    print(max(peak() - before, 1.0))
