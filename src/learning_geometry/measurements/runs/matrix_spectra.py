"""Spectra of weight matrices over training, whatever they are called, and of what training adds to them."""

from typing import Any

import numpy as np
import pandas as pd

from learning_geometry.geometry.nulls import gaussian_singular_values
from learning_geometry.geometry.spectra import effective_rank, singular_values, stable_rank
from learning_geometry.measurements.common.execution_basis import followed_matrices
from learning_geometry.measurements.common.run import Run
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy
from learning_geometry.training.checkpoints import parameter_shapes, read_trajectory

NEEDS = {
    "weights": ["*"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "matrices": {
        "type": ["string", "null"],
        "minLength": 1,
        "default": None,
        "description": "Matrices that are measured, by name, * standing for anything; null: the attention matrices, or "
        "all matrices of checkpoints whose names are another program's.",
    },
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 100,
        "description": "Measure the checkpoints whose step is a multiple of this, and the last.",
    },
    "values": {
        "type": "integer",
        "minimum": 1,
        "default": 8,
        "description": "Singular values that are kept of each matrix, the largest.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 40,
        "default": 100,
        "description": "Gaussian matrices drawn for the null of each shape.",
    },
}

RANKS = {"stable_rank": stable_rank, "effective_rank": effective_rank}


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the singular values of matrices, and of their changes between the checkpoints that are measured.

    Parts: every matrix (its name without ``.weight``), and the mean over them, ``attention_matrices`` or, of other
    matrices, ``matrices``. Rows:

    - ``matrix_singular_value``, index i from 1; ``matrix_frobenius_norm``;
    - ``matrix_stable_rank`` (dimensions): squared Frobenius norm over squared largest singular value;
      ``matrix_effective_rank`` (dimensions): exponential of the entropy of the normalised singular values;
    - ``increment_norm_share`` (1): Frobenius norm of the change since the checkpoint measured before, over that of the
      matrix there; ``increment_stable_rank`` and ``increment_effective_rank`` (dimensions) of the change. Left out of a
      matrix that did not change, or was zero.

    Null ``gaussian_matrix`` of the ranks: matrices of the same shape with independent entries. The mean over matrices
    has the mean of their nulls' draws.

    Raises:
        ValueError: no matrix has the name asked for, or one holds numbers that are not finite.
    """
    steps = run.steps(settings["every"])
    shapes = parameter_shapes(run.checkpoints, steps[0])
    followed, mean = followed_matrices(shapes, settings["matrices"], f"{run.experiment}, seed {run.seed}")
    # of each matrix its own draws, so that those of the mean are of independent matrices
    nulls = {part: _null(shapes[name], settings["null_draws"], part, run.seed) for part, name in followed.items()}
    rows: list[dict[str, Any]] = []
    for part, name in followed.items():
        before: np.ndarray | None = None
        for step in steps:
            matrix = read_trajectory(run.checkpoints, [step], name)[0].astype(np.float64)
            try:
                rows += _rows(part, step, matrix, before, settings["values"], nulls[part])
            except ValueError as error:
                raise ValueError(f"{run.experiment}, seed {run.seed}: {name} at step {step}: {error}") from error
            before = matrix
    return tidy([*rows, *_means(rows, mean, list(nulls.values()))], run.experiment, run.seed)


def _rows(
    part: str, step: int, matrix: np.ndarray, before: np.ndarray | None, values: int, null: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    here = {"part": part, "step": step}
    spectrum = singular_values(matrix)
    shown = spectrum[:values]
    rows = [
        here | {"quantity": "matrix_singular_value", "index": np.arange(1, len(shown) + 1), "value": shown},
        here | {"quantity": "matrix_frobenius_norm", "value": float(np.linalg.norm(spectrum))},
    ]
    rows += _ranks(here, "matrix", spectrum, null) if matrix.any() else []
    if before is None:
        return rows
    if before.any() and not np.array_equal(matrix, before):
        change = singular_values(matrix - before)
        share = float(np.linalg.norm(change) / np.linalg.norm(before))
        rows.append(here | {"quantity": "increment_norm_share", "value": share})
        rows += _ranks(here, "increment", change, null)
    return rows


def _ranks(here: dict[str, Any], kind: str, spectrum: np.ndarray, null: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, rank in RANKS.items():
        row = here | {"quantity": f"{kind}_{name}", "unit": "dimensions"}
        rows += [row | {"value": rank(spectrum)}, row | central_range(null[name], "gaussian_matrix")]
    return rows


def _null(shape: tuple[int, ...], draws: int, part: str, seed: int) -> dict[str, np.ndarray]:
    drawn = gaussian_singular_values((shape[0], shape[1]), draws, seeded("matrix_spectra", part, seed))
    return {name: np.array([rank(spectrum) for spectrum in drawn]) for name, rank in RANKS.items()}


def _means(rows: list[dict[str, Any]], mean: str, nulls: list[dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Return the means over matrices at each step of what they all have."""
    by_place: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        if "null" not in row and "index" not in row:
            by_place.setdefault((row["quantity"], row["step"]), []).append(row)
    of_means: list[dict[str, Any]] = []
    for (quantity, step), same in by_place.items():
        if len(same) < len(nulls):
            continue
        row = {key: value for key, value in same[0].items() if key != "value"} | {"part": mean, "step": step}
        of_means.append(row | {"value": float(np.mean([each["value"] for each in same])), "n": len(same)})
        rank = quantity.partition("_")[2]
        if rank in RANKS:
            of_means.append(row | central_range(np.mean([null[rank] for null in nulls], axis=0), "gaussian_matrix"))
    return of_means
