"""The loss around the plateau, the transition and the solution: is the plateau a saddle, or a local minimum."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from learning_geometry.geometry.curvature.density import (
    SpectralDensity,
    mass_below,
    mass_bounds,
    smoothed,
    spectral_density,
)
from learning_geometry.geometry.curvature.lanczos import Eigenpair, value_error
from learning_geometry.geometry.curvature.landscape import along_line, drop_both_ways, mean_of
from learning_geometry.geometry.curvature.products import flatten, gradient_with_graph
from learning_geometry.geometry.curvature.trace import Estimate
from learning_geometry.measurements.common.eigenpairs import Tolerances, ends, leave
from learning_geometry.measurements.common.estimates import bounds, clipped, estimate_row, fraction
from learning_geometry.measurements.common.landscape_interpolation import interpolation
from learning_geometry.measurements.common.landscape_points import HELD_OUT, OWN, Batch, batches, points
from learning_geometry.measurements.common.run import Run
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import tidy

NEEDS = {
    "test_sets": ["in_distribution"],
    "recorded_errors": {"out_of_distribution": "error"},
    "sequences": ["sequences", "held_out", "descent_sequences"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "plateau": {
        "type": "array",
        "items": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "minItems": 1,
        "uniqueItems": True,
        "default": [0.5],
        "description": "Where the plateau is measured, as fractions of the transition step; the descent, the line and "
        "the slice start from the first.",
    },
    "threshold": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.5,
        "description": "Out-of-distribution error whose first crossing is the transition.",
    },
    "sequences": {
        "type": "integer",
        "minimum": 2,
        "default": 32,
        "description": "In-distribution test sequences in the fixed batch whose loss is differentiated. Its most "
        "negative direction follows the chance of few sequences: the held-out loss tells.",
    },
    "held_out": {
        "type": "integer",
        "minimum": 4,
        "default": 200,
        "description": "Further in-distribution test sequences on which steps and descent are judged.",
    },
    "tolerance": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 1.0e-2,
        "description": "Relative error at which the iteration for the largest eigenvalue stops.",
    },
    "smallest_tolerance": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 3.0e-3,
        "description": "Error of the smallest eigenvalue at which its iteration stops, as a fraction of the largest.",
    },
    "maximum_products": {
        "type": "integer",
        "minimum": 2,
        "default": 300,
        "description": "Hessian-vector products after which the iteration gives up; the measurement then fails.",
    },
    "floor": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 3.0e-3,
        "description": "Eigenvalues nearer to zero than this fraction of the largest are not told from zero.",
    },
    "density_probes": {
        "type": "integer",
        "minimum": 2,
        "default": 3,
        "description": "Random vectors of the spectral density, from whose spread its error follows.",
    },
    "density_steps": {
        "type": "integer",
        "minimum": 2,
        "default": 10,
        "description": "Hessian-vector products for each of them.",
    },
    "distances": {
        "type": "array",
        "items": {"type": "number", "exclusiveMinimum": 0},
        "minItems": 1,
        "uniqueItems": True,
        "default": [0.05, 0.1, 0.2, 0.4],
        "description": "Lengths of the steps to both sides along the most negative direction, increasing.",
    },
    "line_points": {
        "type": "integer",
        "minimum": 3,
        "default": 9,
        "description": "Points of the line from the plateau to the solution, both ends included.",
    },
    "slice_seeds": {
        "type": ["array", "null"],
        "items": {"type": "integer", "minimum": 0},
        "default": None,
        "description": "Seeds whose 2-D slice is computed, since a figure shows one; null for all.",
    },
    "slice_points": {
        "type": "integer",
        "minimum": 3,
        "default": 15,
        "description": "Points of the 2-D slice in each of its directions.",
    },
    "descent_sequences": {
        "type": "integer",
        "minimum": 1,
        "default": 100,
        "description": "Sequences in the one fixed batch of the descent without noise; few are learned by heart.",
    },
    "descent_steps": {
        "type": "integer",
        "minimum": 1,
        "default": 24,
        "description": "Updates of the descent; one that has not left the plateau by then says nothing.",
    },
    "descent_rate": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 3.0e-3,
        "description": "Learning rate of the descent (Adam, no dropout, no weight decay).",
    },
    "descent_every": {
        "type": "integer",
        "minimum": 1,
        "default": 6,
        "description": "The descent is judged on the held-out sequences after multiples of this many updates.",
    },
}

LINEAR = 0.01
"""Eigenvalue (nats) around which the axis of the spectral density turns from linear to logarithmic."""

PLACES = 10
"""Its ends, in units of asinh(eigenvalue / LINEAR): ± 110 nats."""

SMOOTHING = 0.4
"""Width of a node in the same units: a sixth of a decade."""


class _Curvature(NamedTuple):
    largest: Eigenpair
    rows: list[dict[str, Any]]


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the loss around the checkpoints of a run, and between plateau and solution, without dropout.

    ``part`` names the checkpoint: ``untrained`` (the first), ``plateau_<fraction>`` of the transition step t,
    ``transition``, ``solution`` (the last); t is the first evaluation with an out-of-distribution error below
    ``threshold``. Every row is at the last step, so that seeds with different t are averaged; ``checkpoint_step``
    (steps) says where each part is. Without a transition t is the last step, and every row is marked as censored.

    data ``in_distribution``: the fixed batch that is differentiated; ``held_out``: other sequences of the same
    distribution. A direction of negative curvature found on few sequences need not be one of the distribution, so
    steps are judged on the held-out ones. Intervals [low, high]: 95 % over sequences, paired with the point itself,
    unless said otherwise. n = sequences (probes for the spectrum). Both ends of the spectrum, with their eigenvectors,
    are left for the measurement ``sharpness``.

    - ``checkpoint_loss``; ``gradient_norm`` with null ``sampling_noise``, the norm that a batch of this size has where
      the distribution's gradient is zero, from the difference of its two halves.
    - ``largest_eigenvalue``, ``smallest_eigenvalue`` (nats) ± their error bounds, and
      ``smallest_to_largest_eigenvalue`` with nulls ``untrained`` and ``solution``.
    - ``negative_spectral_mass``: fraction of the eigenvalues below 0, its interval reaching from the lowest to the
      highest that the quadrature allows; ``negative_spectral_mass_beyond_floor``: the lowest fraction below -``floor``
      times the largest that it allows. Intervals over probes; the same nulls. ``spectral_floor`` (nats) is that
      threshold; ``spectral_density`` by place (index), per unit of asinh(eigenvalue / .01); places in
      ``spectral_place`` (nats).
    - ``loss_along_most_negative_direction`` by place (index), on both kinds of sequences: difference to the loss at the
      point; places, signed distances, in ``distance``; null ``random_direction``: one of equal norm.
    - ``loss_drop_along_most_negative_direction``: mean fall of the held-out loss to both sides, at the distance best on
      one half of the held-out sequences, judged on the other; nulls ``random_direction`` and ``solution``.
    - ``loss_on_line`` by place (index) from the plateau to the solution, difference to the plateau; ``barrier_height``.
    - Descent with one fixed batch and without noise: ``descent_loss`` (of the batch, in_distribution; held_out) and
      ``descent_error`` (the task's ``error``, held out) by place (index), ``descent_step`` (steps);
      ``descent_error_share``: fall of the error over that from plateau to solution, best on one half of the held-out
      sequences, judged on the other. A fixed batch's random tokens are learned by heart, which raises the held-out
      loss, so leaving the plateau is judged by the error.
    - ``loss_on_slice``, index = row · points + column: loss of the fixed batch at plateau + a u + b w, u the top
      eigenvector, w the displacement to the solution without its part along u; a in ``slice_row``, b in
      ``slice_column``; ``slice_cosine``: between u and the displacement.

    Raises:
        ArithmeticError: an iteration did not converge, naming the checkpoint.
    """
    where = points(run, settings["plateau"], settings["threshold"])
    own, held_out, descended = batches(
        run, settings["sequences"], settings["held_out"], settings["descent_sequences"], OWN
    )
    curvatures: dict[int, _Curvature] = {}
    rows: list[dict[str, Any]] = []
    for part, step in where.steps.items():
        rows.append({"part": part, "quantity": "checkpoint_step", "value": float(step), "unit": "steps"})
        if step not in curvatures:
            curvatures[step] = _curvature(run, settings, step, own, held_out)
        rows += [row | {"part": part} for row in curvatures[step].rows]
    rows += _nulls(rows, list(where.steps))
    top = curvatures[where.steps[where.plateau]].largest
    rows += [
        row | {"part": where.plateau} for row in interpolation(run, settings, where, top, own, held_out, descended)
    ]
    last = run.steps()[-1]
    rows = [{"step": last, "censored": where.censored, "unit": "nats"} | row for row in rows]
    return tidy(rows, run.experiment, run.seed)


def _nulls(rows: list[dict[str, Any]], parts: list[str]) -> list[dict[str, Any]]:
    """Give the plateau and the transition the values at the untrained model and at the solution as nulls."""
    compared = (
        "smallest_to_largest_eigenvalue",
        "negative_spectral_mass",
        "negative_spectral_mass_beyond_floor",
        "loss_drop_along_most_negative_direction",
    )
    values = {(row["part"], row["quantity"]): row for row in rows if row["quantity"] in compared and "null" not in row}
    return [
        values[null, quantity] | {"part": part, "null": null}
        for quantity in compared
        for part in parts
        if part not in ("untrained", "solution")
        for null in ("untrained", "solution")
    ]


def _curvature(run: Run, settings: dict[str, Any], step: int, own: Batch, held_out: Batch) -> _Curvature:
    parameters = run.parameters(step)
    at = gradient_with_graph(own.loss, parameters)
    found = ends(run, step, own.loss, parameters, at, Tolerances.asked("landscape", settings))
    leave(run, step, found)
    largest, smallest = found
    generator = seeded("landscape", "density", run.seed)
    size = at.gradient.numel()
    density = spectral_density(at.product, size, settings["density_probes"], settings["density_steps"], generator)
    print(f"step {step}: eigenvalues {smallest.value:.4g} to {largest.value:.4g} after {largest.products} products")
    batch = {"data": OWN, "n": own.size}
    noise = float(torch.linalg.vector_norm(own.gradient_of_halves(parameters))) / 2
    floor = settings["floor"] * largest.value
    of_largest, of_smallest = value_error(largest), value_error(smallest, largest.value)
    ratio = smallest.value / largest.value
    of_gradient = batch | {"quantity": "gradient_norm"}
    rows = [
        batch | {"quantity": "checkpoint_loss", "value": at.value},
        of_gradient | {"value": float(torch.linalg.vector_norm(at.gradient))},
        of_gradient | {"value": noise, "null": "sampling_noise"},
        batch | {"quantity": "largest_eigenvalue"} | bounds(largest.value, of_largest),
        batch | {"quantity": "smallest_eigenvalue"} | bounds(smallest.value, of_smallest),
        batch
        | {"quantity": "smallest_to_largest_eigenvalue", "unit": "1"}
        | bounds(ratio, (of_smallest + abs(ratio) * of_largest) / largest.value),
        batch | {"quantity": "spectral_floor", "value": -floor},
    ]
    rows += [batch | row for row in _spectrum(density, floor)]
    rows += _steps(run, settings, parameters, smallest.vector.to(at.gradient), own, held_out)
    return _Curvature(largest._replace(vector=largest.vector.to(at.gradient)), rows)


def _spectrum(density: SpectralDensity, floor: float) -> list[dict[str, Any]]:
    least, most = mass_bounds(density, 0.0)
    negative = {"value": mass_below(density, 0.0).value} | clipped(least.interval()[0], most.interval()[1])
    rows: list[dict[str, Any]] = [
        negative | {"quantity": "negative_spectral_mass", "n": least.n, "unit": "fraction"},
        fraction(mass_bounds(density, -floor)[0], quantity="negative_spectral_mass_beyond_floor"),
    ]
    # smoothed where decades are equally wide, on both sides of zero
    decades = density._replace(nodes=np.arcsinh(density.nodes / LINEAR))
    grid = np.linspace(-PLACES, PLACES, 4 * PLACES + 1)
    curve, error = smoothed(decades, grid, SMOOTHING)
    ends = np.array([Estimate(*each, least.n).interval() for each in zip(curve, error, strict=True)])
    at = {"index": np.arange(len(grid)), "n": least.n}
    return [
        *rows,
        at
        | {
            "quantity": "spectral_density",
            "value": curve,
            "low": ends[:, 0].clip(0.0),
            "high": ends[:, 1],
            "unit": "1",
        },
        at | {"quantity": "spectral_place", "value": LINEAR * np.sinh(grid)},
    ]


def _steps(
    run: Run,
    settings: dict[str, Any],
    parameters: Mapping[str, Tensor],
    direction: Tensor,
    own: Batch,
    held_out: Batch,
) -> list[dict[str, Any]]:
    """Measure steps to both sides along a direction, and along a random one of equal norm."""
    point, distances = flatten(parameters), sorted(settings["distances"])
    places = [-distance for distance in reversed(distances)] + [0.0, *distances]
    generator = seeded("landscape", "random_direction", run.seed)
    random = torch.from_numpy(generator.standard_normal(point.numel())).to(point)
    random /= torch.linalg.vector_norm(random)
    rows: list[dict[str, Any]] = [{"quantity": "distance", "index": np.arange(len(places)), "value": np.array(places)}]
    rows[0]["unit"] = "1"
    for data, batch, vector, null in (
        (OWN, own, direction, {}),
        (HELD_OUT, held_out, direction, {}),
        (HELD_OUT, held_out, random, {"null": "random_direction"}),
    ):
        differences = along_line(batch.losses_at(parameters), point, vector, places)
        at = {"quantity": "loss_along_most_negative_direction", "data": data} | null
        rows += [at | estimate_row(mean_of(each), index=index) for index, each in enumerate(differences)]
        if data == HELD_OUT:
            middle = len(distances)
            drop, _ = drop_both_ways(differences[middle + 1 :], differences[:middle][::-1])
            rows.append(at | estimate_row(drop, quantity="loss_drop_along_most_negative_direction"))
    return rows
