"""The landscape between plateau and solution: the straight line, a plane, and the way downhill without noise."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learning_geometry.geometry.curvature.lanczos import Eigenpair
from learning_geometry.geometry.curvature.landscape import (
    along_line,
    barrier,
    descend,
    mean_of,
    on_plane,
    orthonormal_pair,
    share_of,
)
from learning_geometry.geometry.curvature.products import flatten
from learning_geometry.geometry.rounding import first_largest
from learning_geometry.measurements.common.estimates import estimate_row
from learning_geometry.measurements.common.landscape_points import HELD_OUT, OWN, Batch, Points
from learning_geometry.measurements.common.run import Run


def interpolation(
    run: Run,
    settings: dict[str, Any],
    where: Points,
    top: Eigenpair,
    own: Batch,
    held_out: Batch,
    descended: Batch,
) -> list[dict[str, Any]]:
    """Return the rows of what leads from the plateau to the solution: the line, the plane, and the way downhill.

    Args:
        run: the run.
        settings: those of the landscape.
        where: the checkpoints.
        top: largest eigenvalue at the plateau, with its eigenvector.
        own: the sequences it was computed on.
        held_out: those on which all is judged.
        descended: those of the one batch of the descent.
    """
    plateau, solution = (run.parameters(where.steps[part]) for part in (where.plateau, "solution"))
    start, end = flatten(plateau), flatten(solution)
    places = np.linspace(0.0, 1.0, settings["line_points"])
    line = along_line(held_out.losses_at(plateau), start, end - start, places.tolist())
    at = {"data": HELD_OUT}
    rows = [at | estimate_row(mean_of(each), quantity="loss_on_line", index=i) for i, each in enumerate(line)]
    rows.append(at | estimate_row(barrier(line)[0], quantity="barrier_height"))
    fall = float((line[0] - line[-1]).mean())
    if settings["slice_seeds"] is None or run.seed in settings["slice_seeds"]:
        rows += _slice(settings, top, plateau, start, end, own, fall)
    return rows + _descent(run, settings, plateau, solution, held_out, descended)


def _slice(
    settings: dict[str, Any],
    top: Eigenpair,
    plateau: Mapping[str, Tensor],
    start: Tensor,
    end: Tensor,
    own: Batch,
    fall: float,
) -> list[dict[str, Any]]:
    length, count = float(torch.linalg.vector_norm(end - start)), settings["slice_points"]
    if length == 0:  # a single checkpoint: it spans no plane
        return []
    first, second, cosine = orthonormal_pair(top.vector, end - start)
    # so far along the top eigenvector that the loss rises about as much as it falls on the way to the solution
    reach = max(
        (2 * max(fall, 0.01) / top.value) ** 0.5 if top.value > top.error else 0.1 * length, abs(cosine) * length
    )
    across, ahead = np.linspace(-1.5, 1.5, count) * reach, np.linspace(-0.25, 1.25, count) * length
    losses = own.losses_at(plateau)
    grid = on_plane(lambda point: float(losses(point).mean()), start, first, second, across.tolist(), ahead.tolist())
    batch = {"data": OWN, "n": own.size}
    return [
        batch | {"quantity": "loss_on_slice", "index": np.arange(count**2), "value": grid.ravel()},
        {"quantity": "slice_row", "index": np.arange(count), "value": across, "unit": "1"},
        {"quantity": "slice_column", "index": np.arange(count), "value": ahead, "unit": "1"},
        {"quantity": "slice_cosine", "value": cosine, "unit": "1"},
    ]


def _descent(
    run: Run,
    settings: dict[str, Any],
    plateau: Mapping[str, Tensor],
    solution: Mapping[str, Tensor],
    held_out: Batch,
    descended: Batch,
) -> list[dict[str, Any]]:
    losses, errors, rows = [], [], []
    way = descend(
        descended.loss_and_gradient(plateau),
        flatten(plateau),
        settings["descent_rate"],
        settings["descent_steps"],
        settings["descent_every"],
    )
    for index, (step, loss, point) in enumerate(way):
        of_sequences, wrong = held_out.judged(plateau, point)
        losses.append(of_sequences)
        errors.append(wrong)
        at = {"index": index}
        rows += [
            at | {"quantity": "descent_step", "value": float(step), "unit": "steps"},
            at | {"quantity": "descent_loss", "value": loss, "data": OWN, "n": descended.size},
            at | estimate_row(mean_of(of_sequences), quantity="descent_loss", data=HELD_OUT),
            at | estimate_row(mean_of(wrong), quantity="descent_error", data=HELD_OUT, unit="fraction"),
        ]
        print(f"descent step {step}: loss {loss:.4f}, held out {of_sequences.mean():.4f}, error {wrong.mean():.3f}")
    goal = held_out.judged(solution, flatten(solution))[1]
    half = len(goal) // 2
    falls = errors[0] - np.stack(errors)
    best = int(first_largest(falls[:, :half].mean(1), 1.0))
    share = share_of(falls[best, half:], (errors[0] - goal)[half:])
    rows.append(estimate_row(share, quantity="descent_error_share", data=HELD_OUT, unit="fraction"))
    return rows
