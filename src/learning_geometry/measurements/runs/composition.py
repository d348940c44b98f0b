"""How well what layer-2 keys read matches what layer-1 heads write, from the weights alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from learning_geometry import failures
from learning_geometry.geometry.composition import (
    composition_z_score,
    randomly_turned_products,
    subspace_match,
    token_mismatch,
)
from learning_geometry.geometry.head_products import output_value_products, query_key_products
from learning_geometry.geometry.nulls import haar_subspaces, principal_cosines_null
from learning_geometry.measurements.common.run import Run
from learning_geometry.model_options import head_rank
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {
    "weights": [
        "embedding.weight",
        "layers.*.attention.query.weight",
        "layers.*.attention.key.weight",
        "layers.*.attention.value.weight",
        "layers.*.attention.output.weight",
    ],
    "model_settings": ["layers", "heads", "width"],
    "leaves_out_above": {"ranks": "head_width"},
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 100,
        "description": "Measure the checkpoints whose step is a multiple of this, and the last.",
    },
    "writing_layer": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "Layer, counted from 0, whose value and output weights write.",
    },
    "reading_layer": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "Later layer, counted from 0, whose keys read.",
    },
    "ranks": {
        "type": "array",
        "items": {"type": "integer", "minimum": 1},
        "minItems": 1,
        "uniqueItems": True,
        "default": [5, 10, 15, 20],
        "description": "Ranks of the subspaces matched. Of the default, those above the width of a head are left out, "
        "and a row `not_measured` says so; any others are refused.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 40,
        "default": 100,
        "description": "Random rotations between the two layers, drawn once per run.",
    },
    "subspace_draws": {
        "type": "integer",
        "minimum": 40,
        "default": 1000,
        "description": "Random subspaces drawn once per run for the null of the matches.",
    },
}


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the composition of the keys of one layer with the outputs of an earlier one.

    W_QK (query index first) belongs to the reading layer, W_OV to the writing layer, M = W_QK W_OV. Rows, part
    ``layers.<reading>``, or with several heads one part ``layers.<l>.heads.<h>-layers.<m>.heads.<g>`` per pair,
    written before read:

    - ``composition_z_score``: (mean of M's diagonal − mean of all) / standard deviation of all; at most √(width − 1).
    - ``token_mismatch`` (fraction): rows of W_E M W_Eᵀ whose largest entry is off the diagonal.
    - ``subspace_match_largest_cosine`` and ``subspace_match_rms_cosine``, index = rank r: cosines between the top-r
      right singular subspace of W_QK (what keys read) and the top-r left one of W_OV (what is written).

    Nulls: ``random_weights`` for the first two puts a random rotation between the two matrices, so that both keep
    their spectra; ``random_subspaces`` for the matches.

    Of each rank above the width of a head there is one row ``not_measured`` instead.

    Raises:
        ValueError: the model has no such layers.
    """
    model = run.settings["model"]
    heads, width = model["heads"], model["width"]
    writer, reader = settings["writing_layer"], settings["reading_layer"]
    if not writer < reader < model["layers"]:
        raise ValueError(
            f"measurements.composition: layer {reader} cannot read layer {writer} in a model of {model['layers']} "
            "layers; set writing_layer < reading_layer < layers, or leave this measurement out"
        )
    most = head_rank(model)
    ranks = [rank for rank in settings["ranks"] if rank <= most]
    lacking = failures.left_out(f"layers.{reader}", "subspace_match", settings["ranks"], most, "the width of a head")
    subspaces = _match_nulls(width, ranks, settings["subspace_draws"], run.seed)
    rotations = haar_subspaces(width, width, settings["null_draws"], seeded("composition", "rotations", run.seed))
    rows: list[dict[str, Any]] = []
    for step in run.steps(settings["every"]):
        arrays = run.arrays(step)
        embedding = arrays["embedding.weight"].astype(np.float64)
        at = f"layers.{reader}.attention"
        read = query_key_products(arrays[f"{at}.query.weight"], arrays[f"{at}.key.weight"], heads)
        at = f"layers.{writer}.attention"
        written = output_value_products(arrays[f"{at}.output.weight"], arrays[f"{at}.value.weight"], heads)
        for h, output_value in enumerate(written):
            for g, query_key in enumerate(read):
                pair = f"layers.{writer}.heads.{h}-layers.{reader}.heads.{g}"
                here = {"step": step, "part": pair if heads > 1 else f"layers.{reader}"}
                product = query_key @ output_value
                turned = randomly_turned_products(query_key, output_value, rotations)
                score = here | {"quantity": "composition_z_score"}
                mismatch = here | {"quantity": "token_mismatch", "unit": "fraction"}
                rows += [
                    score | {"value": composition_z_score(product)},
                    score | central_range(composition_z_score(turned), "random_weights"),
                    mismatch | {"value": token_mismatch(embedding, product)},
                    mismatch | central_range(token_mismatch(embedding, turned), "random_weights"),
                ]
                cosines = subspace_match(query_key, output_value, ranks)
                for name, summarize in STATISTICS.items():
                    match = here | {"quantity": name, "index": ranks}
                    rows += [
                        match | {"value": np.array([summarize(c[None])[0] for c in cosines])},
                        match | subspaces[name],
                    ]
    return tidy(rows + lacking, run.experiment, run.seed)


def _largest(cosines: np.ndarray) -> np.ndarray:
    return cosines[..., 0]


def _root_mean_square(cosines: np.ndarray) -> np.ndarray:
    return np.sqrt((cosines**2).mean(-1))


STATISTICS = {"subspace_match_largest_cosine": _largest, "subspace_match_rms_cosine": _root_mean_square}
"""What is reported of the principal cosines of each rank."""


def _match_nulls(width: int, ranks: Sequence[int], draws: int, seed: int) -> dict[str, dict[str, Any]]:
    """Return, per statistic, the columns of its null rows: one entry per rank."""
    cosines = principal_cosines_null(width, ranks, draws, seeded("composition", "subspaces", seed))
    return {
        name: central_range(np.stack([summarize(c) for c in cosines], axis=1), "random_subspaces") if ranks else {}
        for name, summarize in STATISTICS.items()
    }
