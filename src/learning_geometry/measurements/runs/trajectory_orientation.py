"""Whether the weights of several seeds move in the same directions: angles between their trajectories' subspaces."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from learning_geometry.geometry.trajectories import dimension, inner_products, principal_directions, variances
from learning_geometry.geometry.wishart import haar_corners
from learning_geometry.measurements.common.execution_basis import followed_matrices
from learning_geometry.measurements.common.run import Run
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy
from learning_geometry.training.checkpoints import parameter_shapes, read_trajectory

NEEDS = {
    "checkpoints": {"always": 2, "ranks": 1},
    "at_most": {"ranks": "matrix_entries"},
    "other_seeds": "all",
    "weights": ["*"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "matrices": {
        "type": ["string", "null"],
        "minLength": 1,
        "default": None,
        "description": "Matrices that are followed, by name, * standing for anything; null: the attention matrices, or "
        "all matrices of checkpoints whose names are another program's.",
    },
    "ranks": {
        "type": "array",
        "items": {"type": "integer", "minimum": 1},
        "minItems": 1,
        "uniqueItems": True,
        "default": [1, 2, 3, 4, 5],
        "description": "Numbers of leading trajectory directions whose subspaces are compared.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 100,
        "default": 1000,
        "description": "Random subspaces drawn for each matrix and other seed.",
    },
}

COSINES = ("orientation_rms_cosine", "orientation_largest_cosine")


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the principal cosines between the trajectory subspaces of this run and of each other seed.

    The subspace of rank k of an attention matrix is spanned by the first k principal directions of its checkpoints on
    the uniform grid. Seeds of different initialisations differ by the symmetries of the model alone, so compare seeds
    of one initialisation (``training.initialisation_seed``). Step = the last on the grid. Rows, fractions, means over
    the other seeds, index = k; parts each attention matrix (``layers.<l>.attention.query``) and ``attention_matrices``,
    the mean over them (of other matrices, by the setting or as another program called them, ``matrices``):

    - ``orientation_rms_cosine``: root of the mean squared principal cosine;
    - ``orientation_largest_cosine``: cosine of the smallest principal angle;
    - null ``random_subspaces``: the same means of uniformly random subspaces, simulated exactly.

    And ``trajectory_r90_distance_from_other_seeds`` (dimensions), part ``attention_matrices``: mean over matrices and
    other seeds of the absolute difference of r90 (see ``trajectory_geometry``).

    Raises:
        ValueError: there is no other seed, the seeds differ in checkpoints or matrices, or a matrix has fewer entries,
            or its trajectory fewer directions, than the largest rank.
    """
    if not run.others:
        raise ValueError(
            f"{run.experiment}: trajectory_orientation compares seeds, and there is one; add seeds, or leave it out"
        )
    steps, ranks = run.uniform_steps(), settings["ranks"]
    for other in run.others:
        if other.uniform_steps() != steps:
            raise ValueError(f"{run.experiment}: seeds {run.seed} and {other.seed} have other checkpoints; train again")
    shapes = parameter_shapes(run.checkpoints, steps[0])
    followed, mean = followed_matrices(shapes, settings.get("matrices"), f"{run.experiment}, seed {run.seed}")
    rows: list[dict[str, Any]] = []
    measured, drawn, distances = [], [], []
    for part, name in followed.items():
        own, own_r90 = _trajectory(run, steps, name, max(ranks))
        cosines = []
        for other in run.others:
            theirs, r90 = _trajectory(other, steps, name, max(ranks))
            if len(theirs) != len(own):
                raise ValueError(f"{run.experiment}: {name} of seeds {run.seed} and {other.seed} differs in size")
            cosines.append(nested_cosines(own.T @ theirs, ranks))
            distances.append(abs(r90 - own_r90))
        measured.append(np.mean(cosines, axis=0))
        generator = seeded("trajectory_orientation", part, run.seed)
        corners = haar_corners(len(own), max(ranks), settings["null_draws"] * len(run.others), generator)
        chance = nested_cosines(corners, ranks).reshape(settings["null_draws"], len(run.others), len(COSINES), -1)
        drawn.append(chance.mean(1))
        rows += _rows(part, ranks, measured[-1], drawn[-1], len(run.others))
    rows += _rows(mean, ranks, np.mean(measured, axis=0), np.mean(drawn, axis=0), len(distances))
    rows.append(
        {
            "quantity": "trajectory_r90_distance_from_other_seeds",
            "part": mean,
            "value": float(np.mean(distances)),
            "unit": "dimensions",
            "n": len(distances),
            "other_seeds": NEEDS["other_seeds"],
        }
    )
    return tidy([row | {"step": steps[-1]} for row in rows], run.experiment, run.seed)


def nested_cosines(overlap: np.ndarray, ranks: Sequence[int]) -> np.ndarray:
    """Return root-mean-square and largest principal cosine of the subspaces of the first k directions of two bases.

    Args:
        overlap: inner products of the two bases' orthonormal columns, shape (..., directions, directions).
        ranks: the k.

    Returns:
        Cosines in [0, 1], shape (..., 2, ranks).

    >>> nested_cosines(np.diag([0.0, 1.0]), [1, 2]).round(4)
    array([[0.    , 0.7071],
           [0.    , 1.    ]])
    """
    cosines = [np.minimum(np.linalg.svd(overlap[..., :k, :k], compute_uv=False), 1.0) for k in ranks]
    rms = np.stack([np.sqrt(np.mean(of_rank**2, axis=-1)) for of_rank in cosines], axis=-1)
    return np.stack([rms, np.stack([of_rank[..., 0] for of_rank in cosines], axis=-1)], axis=-2)


def _trajectory(run: Run, steps: list[int], name: str, directions: int) -> tuple[np.ndarray, int]:
    """Return the principal directions of a matrix's trajectory, shape (entries, directions), and its r90."""
    snapshots = read_trajectory(run.checkpoints, steps, name).reshape(len(steps), -1)
    try:
        basis = principal_directions(snapshots, directions)
    except ValueError as error:
        raise ValueError(
            f"{run.experiment}, seed {run.seed}: {name}: {error}; or lower measurements.trajectory_orientation.ranks"
        ) from error
    return basis, int(dimension(variances(inner_products([snapshots]).displacements), 0.9))


def _rows(part: str, ranks: list[int], cosines: np.ndarray, drawn: np.ndarray, n: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for i, quantity in enumerate(COSINES):
        row = {"quantity": quantity, "part": part, "index": ranks, "unit": "fraction"}
        rows += [
            row | {"value": cosines[i], "n": n, "other_seeds": NEEDS["other_seeds"]},
            row | central_range(drawn[:, i], "random_subspaces") | {"other_seeds": "none"},
        ]
    return rows
