"""Where the bridge lies in the embedding: energy of layer 2's query-key subspaces in W_E's singular subspaces."""

from typing import Any

import numpy as np
import pandas as pd

from learning_geometry import failures
from learning_geometry.geometry.head_products import query_key_products, query_key_products_at_lags
from learning_geometry.geometry.nulls import haar_subspaces
from learning_geometry.geometry.subspaces import nested_energies, right_singular_subspace
from learning_geometry.measurements.common.run import Run
from learning_geometry.model_options import head_rank
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {
    "weights": [
        "embedding.weight",
        "layers.*.attention.query.weight",
        "layers.*.attention.key.weight",
        "layers.*.attention_norm.weight",
    ],
    "model_settings": ["layers", "heads", "width", "norm", "positions", "rotary_base"],
    "leaves_out_above": {"ranks": "head_width", "lag_rank": "head_width"},
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 100,
        "description": "Measure the checkpoints whose step is a multiple of this, and the last.",
    },
    "layer": {
        "type": "integer",
        "minimum": 0,
        "default": 1,
        "description": "Layer, counted from 0, whose query-key product holds the bridge.",
    },
    "top": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "Number of right singular vectors of the embedding in its top subspace.",
    },
    "medium": {
        "type": "integer",
        "minimum": 1,
        "default": 34,
        "description": "Number of the next ones, in its medium subspace; the rest is its bottom subspace.",
    },
    "ranks": {
        "type": "array",
        "items": {"type": "integer", "minimum": 1},
        "minItems": 1,
        "uniqueItems": True,
        "default": [5, 10, 20],
        "description": "Ranks of the bridge. Of the default, those above the width of a head are left out, and a row "
        "`not_measured` says so; any others are refused.",
    },
    "lags": {
        "type": "integer",
        "minimum": 0,
        "default": 35,
        "description": "Largest lag whose rotary turn is put between query and key.",
    },
    "lag_rank": {
        "type": "integer",
        "minimum": 1,
        "default": 10,
        "description": "Rank of the bridge at each lag; no lags are measured if it is above the width of a head.",
    },
    "lags_every": {
        "type": "integer",
        "minimum": 1,
        "default": 500,
        "description": "Measure the lags at the checkpoints measured whose step is a multiple of this, and the last.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 40,
        "default": 1000,
        "description": "Random subspaces drawn once per run for the null.",
    },
}

GROUPS = ("embedding.top", "embedding.medium", "embedding.bottom")


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the energy of the bridge in the embedding's top, medium and bottom right singular subspaces.

    The bridge of rank r is the top-r right singular subspace of W_QK = W_qᵀ W_k / √head_width: what keys read. Its
    query side is the top-r left one. Energy is ‖P V‖² / r with V the subspace and P the projector on the group. Rows,
    parts ``embedding.top``, ``embedding.medium``, ``embedding.bottom`` (with several heads
    ``layers.<l>.heads.<h>-embedding.top`` and so on), all fractions that sum to 1 over the three parts:

    - ``bridge_energy_key`` and ``bridge_energy_query``, index = r;
    - the same with ``_norm_folded``: the norm's weight γ multiplied into both sides of W_QK, so that it acts on the
      normalised residual stream; only in models with norms before sublayers;
    - ``bridge_energy_key_at_lag`` and ``bridge_energy_query_at_lag``, index = lag: the rotary turn between query and
      key put between W_qᵀ and W_k; lag 0 is the plain product; only in models with rotary positions.

    Null ``random_subspace``: value = exact mean, size of group / width; range simulated.

    Of each rank above the width of a head there is one row ``not_measured`` instead.

    Raises:
        ValueError: the model has no such layer, or the groups do not fit in its width.
    """
    model, layer = run.settings["model"], settings["layer"]
    heads, width = model["heads"], model["width"]
    if layer >= model["layers"]:
        raise ValueError(
            f"measurements.bridge_energy.layer: {layer} in a model of {model['layers']} layers, counted from 0; "
            "lower it, or leave this measurement out"
        )
    sizes = [settings["top"], settings["medium"], width - settings["top"] - settings["medium"]]
    if sizes[-1] < 1:
        raise ValueError(
            f"measurements.bridge_energy: top {sizes[0]} and medium {sizes[1]} leave nothing of width {width} for the "
            "bottom subspace; lower medium"
        )
    most = head_rank(model)
    ranks = [rank for rank in settings["ranks"] if rank <= most]
    lacking = failures.left_out(f"layers.{layer}", "bridge_energy", settings["ranks"], most, "the width of a head")
    if model["positions"] == "rotary":
        of_lags = "bridge_energy at lags"
        lacking += failures.left_out(f"layers.{layer}", of_lags, [settings["lag_rank"]], most, "the width of a head")
    with_lags = model["positions"] == "rotary" and settings["lag_rank"] <= most
    lags = np.arange(settings["lags"] + 1)
    null, null_at_lags = _nulls(width, sizes, ranks, len(lags), settings, run.seed)
    last = run.steps()[-1]
    rows: list[dict[str, Any]] = []

    def append(step: int, quantity: str, index: Any, energies: np.ndarray, null: list[dict[str, Any]]) -> None:
        # energies: heads, index, groups
        for head, of_head in enumerate(energies):
            for group, name in enumerate(GROUPS):
                part = f"layers.{layer}.heads.{head}-{name}" if heads > 1 else name
                row = {"step": step, "part": part, "quantity": quantity, "index": index, "unit": "fraction"}
                rows.extend([row | {"value": of_head[:, group]}, row | null[group]])

    for step in run.steps(settings["every"]):
        arrays = run.arrays(step)
        embedded = right_singular_subspace(arrays["embedding.weight"], 1, width)
        query, key = (arrays[f"layers.{layer}.attention.{role}.weight"] for role in ("query", "key"))
        products = {"": query_key_products(query, key, heads)}
        if model["norm"] == "pre":
            scale = arrays[f"layers.{layer}.attention_norm.weight"]
            products["_norm_folded"] = query_key_products(query * scale, key * scale, heads)
        for suffix, product in products.items():
            for side, bases in singular_sides(product).items():
                energies = nested_energies(embedded, bases, ranks, sizes)
                append(step, f"bridge_energy_{side}{suffix}", ranks, energies, null)
        if with_lags and (step % settings["lags_every"] == 0 or step == last):
            product = query_key_products_at_lags(
                query, key, heads, lags.astype(float), model["rotary_base"], model.get("rotary_width")
            )
            for side, bases in singular_sides(product).items():
                energies = nested_energies(embedded, bases, [settings["lag_rank"]], sizes)
                append(step, f"bridge_energy_{side}_at_lag", lags, energies[:, :, 0].swapaxes(0, 1), null_at_lags)
    return tidy(rows + lacking, run.experiment, run.seed)


def singular_sides(query_key: np.ndarray) -> dict[str, np.ndarray]:
    """Return the singular vectors of W_QK (..., width, width) as columns: left = ``query`` side, right = ``key`` side.

    >>> sides = singular_sides(np.array([[0.0, 0.0], [3.0, 0.0]]))  # queries of coordinate 1 look for keys of 0
    >>> {side: abs(vectors[:, 0]).tolist() for side, vectors in sides.items()}
    {'query': [0.0, 1.0], 'key': [1.0, 0.0]}
    """
    left, _, right = np.linalg.svd(query_key)
    return {"query": left, "key": np.swapaxes(right, -1, -2)}


def _nulls(
    width: int, sizes: list[int], ranks: list[int], lags: int, settings: dict[str, Any], seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return per group the columns of the null rows by rank, and by lag."""
    every_rank = [*ranks, min(settings["lag_rank"], width)]
    bases = haar_subspaces(width, max(every_rank), settings["null_draws"], seeded("bridge_energy", "null", seed))
    energies = nested_energies(np.eye(width), bases, every_rank, sizes)
    by_rank, by_lag = [], []
    for group, size in enumerate(sizes):
        null = central_range(energies[:, :, group], "random_subspace") | {
            "value": np.full(len(every_rank), size / width)
        }
        by_rank.append({name: entry[:-1] if np.ndim(entry) else entry for name, entry in null.items()})
        by_lag.append({name: np.repeat(entry[-1:], lags) if np.ndim(entry) else entry for name, entry in null.items()})
    return by_rank, by_lag
