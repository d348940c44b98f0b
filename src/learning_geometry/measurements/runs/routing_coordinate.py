"""How far the last layer's queries and keys have gone along the main direction of their trajectory."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from learning_geometry.geometry.trajectories import ending_signs, inner_products, principal_coordinates
from learning_geometry.geometry.walks import step_norm_walk
from learning_geometry.measurements.common.run import Run
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {
    "weights": ["layers.*.attention.query.weight", "layers.*.attention.key.weight"],
    "checkpoints": {"always": 3},
    "model_settings": ["layers"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "null_draws": {
        "type": "integer",
        "minimum": 40,
        "default": 200,
        "description": "Random walks drawn for the null.",
    },
}

FEWEST_SNAPSHOTS = 3


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the coordinate of the last layer's W_Q and W_K on the first principal component of their trajectory.

    Both matrices together are one point; the trajectory is its checkpoints on the uniform grid of steps. Rows:
    ``routing_coordinate`` (1, in units of the weights), part ``layers.<last>``, at every such step: projection on the
    trajectory's first principal component, minus its value at the first checkpoint, with the sign that lets it end
    positive. Null ``step_norm_walk``: the same of random walks with the run's own step norms.

    Raises:
        ValueError: there are too few checkpoints on the uniform grid, or the matrices do not move.
    """
    steps = run.uniform_steps()
    if len(steps) < FEWEST_SNAPSHOTS:
        raise ValueError(
            f"{run.experiment} seed {run.seed}: measurements.routing_coordinate: {len(steps)} checkpoints on the "
            f"uniform grid, {FEWEST_SNAPSHOTS} are needed; lower training.checkpoints.every, or leave this out"
        )
    part = f"layers.{run.settings['model']['layers'] - 1}"
    names = [f"{part}.attention.{role}.weight" for role in ("query", "key")]
    arrays = [run.arrays(step) for step in steps]
    products = inner_products(np.stack([at_step[name].ravel() for at_step in arrays]) for name in names)
    walks = step_norm_walk(
        products.displacements, products.entries, settings["null_draws"], seeded("routing_coordinate", "null", run.seed)
    )
    null = central_range(np.stack([first_coordinate(walk) for walk in walks]), "step_norm_walk")
    row = {"step": steps, "part": part, "quantity": "routing_coordinate"}
    rows = [row | {"value": first_coordinate(products.displacements)}, row | null]
    return tidy(rows, run.experiment, run.seed)


def first_coordinate(gram: Float[np.ndarray, "snapshots snapshots"]) -> Float[np.ndarray, " snapshots"]:
    """Return the coordinate on the first principal component, from 0 at the first snapshot to a positive end.

    Args:
        gram: inner products of the snapshots about any origin.

    >>> place = np.array([1.0, 0.0, -2.0])
    >>> first_coordinate(np.outer(place, place)).round(6)
    array([0., 1., 3.])
    """
    coordinate = principal_coordinates(gram, 1)[:, 0]
    travelled = coordinate - coordinate[0]
    return travelled * ending_signs(travelled[:, None])
