"""Sharpness of the loss over training: Hessian eigenvalues, where the top one sits, trace, mean loss increase."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from learning_geometry.geometry.curvature.hessian import largest_hessian_eigenpair
from learning_geometry.geometry.curvature.lanczos import Eigenpair, value_error
from learning_geometry.geometry.curvature.localisation import masses, random_direction_mass, sine_bound
from learning_geometry.geometry.curvature.products import gradient_with_graph
from learning_geometry.geometry.curvature.trace import hutch_plus_plus, mean_loss_increase
from learning_geometry.measurements.common.eigenpairs import Ends, Tolerances, ends, good_enough, shared_ends
from learning_geometry.measurements.common.estimates import bounds, check_converged
from learning_geometry.measurements.common.run import Run
from learning_geometry.models.blocks import parts, sizes
from learning_geometry.models.evaluation import cross_entropy
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import tidy

NEEDS = {
    "test_sets": ["in_distribution"],
    "shares": {"landscape": ["sequences"]},
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 500,
        "description": "Measure the checkpoints whose step is a multiple of this, and the last.",
    },
    "details_every": {
        "type": "integer",
        "minimum": 1,
        "default": 2000,
        "description": "Of those, measure the smallest eigenvalue, the trace and the proxy too at the first, the last "
        "and the multiples of this.",
    },
    "sequences": {
        "type": "integer",
        "minimum": 1,
        "default": 64,
        "description": "In-distribution test sequences in the fixed batch whose loss is differentiated.",
    },
    "tolerance": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 1.0e-3,
        "description": "Relative error at which the iteration for the largest eigenvalue stops.",
    },
    "smallest_tolerance": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.01,
        "description": "Error of the smallest eigenvalue at which its iteration stops, as a fraction of the largest.",
    },
    "maximum_products": {
        "type": "integer",
        "minimum": 2,
        "default": 200,
        "description": "Hessian-vector products after which the iteration gives up; the measurement then fails.",
    },
    "trace_probes": {
        "type": "integer",
        "minimum": 2,
        "default": 8,
        "description": "Random vectors, one Hessian-vector product each, from whose spread the trace's error follows.",
    },
    "trace_sketch": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "Dimension of the subspace on which the trace is exact, two products each; 0 for none.",
    },
    "proxy_radius": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 1.0e-3,
        "description": "Standard deviation r of the perturbation of every parameter in the proxy.",
    },
    "proxy_pairs": {
        "type": "integer",
        "minimum": 2,
        "default": 6,
        "description": "Perturbations ±rξ averaged in the proxy.",
    },
}


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the sharpness of the in-distribution loss without dropout, on a fixed batch.

    Rows (nats unless said otherwise), n = sequences:

    - ``largest_hessian_eigenvalue``, with [low, high] the value ± its error bound: of float32 products, confirmed by
      losses in float64, or by a product in float64 (``largest_hessian_eigenpair``). Each checkpoint starts from the
      eigenvector of the one before and noise of its own.
    - ``top_eigenvector_mass`` (fraction), part = block or group of blocks (``models.blocks``): share of the squared
      norm of that eigenvalue's vector, and so of the eigenvalue; sums to 1 over blocks, and over groups. [low, high] is
      the value ± the sine of the vector's largest possible angle to the eigenvector. Null ``random_direction``: the
      part's share of all parameters, and its exact central 95 % range.
    - ``smallest_hessian_eigenvalue``: the most negative curvature, to a fraction of the largest, and the largest
      beside it, by products in float64.
    - ``hessian_trace``, with [low, high] its 95 % interval over random vectors (Hutch++), in float32.
    - ``sharpness_proxy``: E[L(θ + rξ) − L(θ)], ξ ~ N(0, 1), antithetic, with [low, high] its 95 % interval over ±ξ;
      in float64, whose rounding, 1e-15 nats, is its floor. To order r⁴ it is r²/2 times the trace.

    Where ``landscape`` has found both ends on the same sequences, with errors within the tolerances here, they are
    taken from there: both tables then have the same values.

    The last three are measured at fewer checkpoints. All checkpoints share their random vectors. Null ``untrained`` of
    all but the mass: the run's own model at its first checkpoint, on the same batch.

    Raises:
        ArithmeticError: an iteration did not converge, naming the step.
    """
    test_set = run.test_set("in_distribution", settings["sequences"])
    tokens, targets = torch.from_numpy(test_set["tokens"]), torch.from_numpy(test_set["targets"])

    def loss(parameters: dict[str, Tensor], twice: bool = True) -> Tensor:
        return cross_entropy(run.model.forward(parameters, tokens, twice_differentiable=twice), targets)

    rows: list[dict[str, Any]] = []
    untrained: dict[str, dict[str, float]] = {}
    start: Tensor | None = None
    noise = torch.Generator().manual_seed(0)
    steps = run.steps(settings["every"])
    for step in steps:
        parameters = run.parameters(step)
        check, detailed = step == steps[0], step % settings["details_every"] == 0 or step in (steps[0], steps[-1])
        found = _shared(run, settings, step, detailed)
        if detailed:
            largest, measured = _details(run, settings, step, loss, parameters, start, check, found)
        elif found is not None:
            largest, measured = found.largest, {}
        else:
            largest = largest_hessian_eigenpair(
                loss, parameters, settings["tolerance"], start, noise, settings["maximum_products"], check
            )
            measured = {}
        remedy = "measurements.sharpness.maximum_products or tolerance"
        check_converged(largest, run, step, "the largest Hessian eigenvalue", remedy)
        start = largest.vector
        measured = {"largest_hessian_eigenvalue": bounds(largest.value, value_error(largest))} | measured
        for name, columns in measured.items():
            row = {
                "step": step,
                "quantity": name,
                "data": "in_distribution",
                "n": settings["sequences"],
                "unit": "nats",
            }
            rows += [row | columns, row | untrained.setdefault(name, columns) | {"null": "untrained"}]
        rows += [
            {"step": step, "quantity": "top_eigenvector_mass", "data": "in_distribution", "unit": "fraction"} | columns
            for columns in _masses(largest, parameters, settings["sequences"])
        ]
        print(f"step {step}: " + ", ".join(f"{name} {columns['value']:.4g}" for name, columns in measured.items()))
        taken = "of landscape " if found is not None else ""
        print(f"step {step}: {largest.products} products {taken}for the eigenvalues")
    return tidy(rows, run.experiment, run.seed)


def _details(
    run: Run,
    settings: dict[str, Any],
    step: int,
    loss: Callable[..., Tensor],
    parameters: dict[str, Tensor],
    start: Tensor | None,
    check: bool,
    found: Ends | None,
) -> tuple[Eigenpair, dict[str, dict[str, float]]]:
    """Return the largest eigenpair and the columns of the quantities that are measured at fewer checkpoints."""
    at = gradient_with_graph(loss, parameters, check)
    if found is None:
        found = ends(run, step, loss, parameters, at, Tolerances.asked("sharpness", settings), start)
    largest, smallest = found
    trace = hutch_plus_plus(
        at.product,
        at.gradient.numel(),
        settings["trace_probes"],
        settings["trace_sketch"],
        seeded("sharpness", "trace", run.seed),
    )
    proxy = mean_loss_increase(
        lambda parameters: loss(parameters, twice=False),
        parameters,
        settings["proxy_radius"],
        settings["proxy_pairs"],
        seeded("sharpness", "proxy", run.seed),
    )
    measured = {"smallest_hessian_eigenvalue": bounds(smallest.value, value_error(smallest, largest.value))}
    for name, estimate in {"hessian_trace": trace, "sharpness_proxy": proxy}.items():
        low, high = estimate.interval()
        measured[name] = {"value": estimate.value, "low": low, "high": high}
    return largest, measured


def _shared(run: Run, settings: dict[str, Any], step: int, detailed: bool) -> Ends | None:
    """Return what ``landscape`` found at a checkpoint, if it is there and as accurate as asked for here."""
    found = shared_ends(run, "landscape", step)
    smallest = settings["smallest_tolerance"] if detailed else None
    return found if found is not None and good_enough(found, settings["tolerance"], smallest) else None


def _masses(pair: Eigenpair, parameters: dict[str, Tensor], sequences: int) -> list[dict[str, Any]]:
    """Return the columns of the rows of the eigenvector's mass in every part, each followed by its null."""
    of_parts = parts(parameters)
    numbers = sizes(of_parts, {name: tensor.numel() for name, tensor in parameters.items()})
    doubt, rows = sine_bound(pair), []
    for part, mass in masses(pair.vector, parameters, of_parts).items():
        mean, low, high = random_direction_mass(numbers[part], pair.vector.numel())
        rows += [
            {
                "part": part,
                "value": mass,
                "n": sequences,
                "low": max(mass - doubt, 0.0),
                "high": min(mass + doubt, 1.0),
            },
            {"part": part, "null": "random_direction", "value": mean, "low": low, "high": high},
        ]
    return rows
