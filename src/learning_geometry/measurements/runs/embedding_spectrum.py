"""Singular values of the token embedding over training: sizes, gaps, effective rank, and the mean embedding."""

from typing import Any

import numpy as np
import pandas as pd

from learning_geometry.geometry.nulls import gaussian_singular_values, random_direction_cosine
from learning_geometry.geometry.spectra import (
    effective_rank,
    gaussian_gap_quantiles,
    significant_gaps,
    singular_value_gaps,
)
from learning_geometry.measurements.common.run import Run
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {
    "weights": ["embedding.weight"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 100,
        "description": "Measure the checkpoints whose step is a multiple of this, and the last.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 40,
        "default": 200,
        "description": "Gaussian matrices drawn for the null.",
    },
    "gap_draws": {
        "type": "integer",
        "minimum": 400,
        "default": 8000,
        "description": "Gaussian matrices drawn for the thresholds of the gaps.",
    },
}


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the spectrum of the embedding W_E (vocabulary × width).

    Rows, part ``embedding``, i from 1:

    - ``singular_value``, index i, and ``effective_rank`` (exponential of the entropy of the normalised singular
      values). Null ``gaussian_matrix``: matrices of the same shape and Frobenius norm with independent entries.
    - ``singular_value_gap``, index i: σ_i / σ_(i+1). Null ``gaussian_matrix``: value = median ratio of Gaussian
      matrices at that index; [low, high] = 1 to the threshold that ratios of a Gaussian matrix exceed at any index
      with probability .001; the same for all seeds.
    - ``significant_gap``, index i: 1 where the ratio is above that threshold, else 0.
    - ``mean_embedding_alignment``: |cosine| between the first right singular vector and the mean embedding. Null
      ``random_direction``: of an independent direction, exact; null ``gaussian_matrix``: of a Gaussian matrix with its
      own mean row, which is larger, as the first singular vector has the largest part in any mean.
    """
    rows: list[dict[str, Any]] = []
    embedding = run.arrays(run.steps()[0])["embedding.weight"]
    generator = seeded("embedding_spectrum", "null", run.seed)
    unit_norm = gaussian_singular_values(embedding.shape, settings["null_draws"], generator, 1.0)
    null_rank = central_range(np.array([effective_rank(draw) for draw in unit_norm]), "gaussian_matrix")
    null_gap = central_range(singular_value_gaps(unit_norm), "gaussian_matrix")
    null_gap |= {"value": np.median(singular_value_gaps(unit_norm), axis=0), "low": np.ones(unit_norm.shape[1] - 1)}
    thresholds = gaussian_gap_quantiles(
        embedding.shape, seeded("embedding_spectrum", "gaps"), draws=settings["gap_draws"]
    )
    mean, low, high = random_direction_cosine(embedding.shape[1])
    null_direction = {"null": "random_direction", "value": mean, "low": low, "high": high}
    null_alignment = central_range(_mean_alignments(unit_norm, generator), "gaussian_matrix")
    for step in run.steps(settings["every"]):
        embedding = run.arrays(step)["embedding.weight"].astype(np.float64)
        _, values, right = np.linalg.svd(embedding, full_matrices=False)
        here = {"step": step, "part": "embedding"}
        index = np.arange(1, len(values) + 1)
        spectrum = here | {"quantity": "singular_value", "index": index}
        rank = here | {"quantity": "effective_rank"}
        gap = here | {"quantity": "singular_value_gap", "index": index[:-1]}
        alignment = here | {"quantity": "mean_embedding_alignment"}
        average = embedding.mean(0)
        rows += [
            spectrum | {"value": values},
            spectrum | central_range(unit_norm * np.linalg.norm(embedding), "gaussian_matrix"),
            rank | {"value": effective_rank(values)},
            rank | null_rank,
            gap | {"value": singular_value_gaps(values)},
            gap | null_gap | {"high": thresholds},
            gap
            | {"quantity": "significant_gap", "value": np.isin(index[:-1], significant_gaps(values, thresholds)) * 1.0},
            alignment | {"value": abs(float(right[0] @ average)) / np.linalg.norm(average)},
            alignment | null_direction,
            alignment | null_alignment,
        ]
    return tidy(rows, run.experiment, run.seed)


def _mean_alignments(spectra: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return per Gaussian matrix the |cosine| of its first right singular vector with its mean row.

    The mean row is Σ_i σ_i c_i v_i with c the left singular vectors' sums: a uniformly random direction.
    """
    parts = np.abs(spectra * generator.standard_normal(spectra.shape))
    return parts[:, 0] / np.linalg.norm(parts, axis=1)
