"""Does attention saturate along the routing coordinate: fits judged on seeds left out, from tidy tables."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from learning_geometry.geometry.saturation import FORMS, held_out_error
from learning_geometry.tables.tidy import tidy

DERIVED_FROM = ("attention_entropy", "routing_coordinate")

ENTROPY, COORDINATE = "attention_entropy", "routing_coordinate"

HELD_OUT_ERROR = "held_out_error_"
"""What the names of the errors begin with; form and regressor follow."""

REGRESSORS = ("coordinate", "step")

PART = "last_layer"
"""The part of all rows, so that models of different depths compare."""

FEWEST_STEPS = 5
"""With fewer checkpoints in a seed, a curve of three parameters says nothing."""


def derive(table: pd.DataFrame) -> pd.DataFrame:
    """Fit the last layer's attention entropy on all seeds but one, and measure the error on the one left out.

    Points are the checkpoints at which both ``attention_entropy`` and ``routing_coordinate`` of the last layer were
    measured. A saturating curve a + b exp(−x / c) and a line are fitted to those of all other seeds together, with x
    the coordinate or the training step, which both follow time. Rows, all root mean square errors on the seed's own
    points (nats), part ``last_layer``, data = test set, n = points, at the experiment's last step:

    - ``held_out_error_saturating_coordinate``, ``held_out_error_line_coordinate``,
      ``held_out_error_saturating_step``, ``held_out_error_line_step``;
    - ``held_out_error_free_step``: of the mean of the other seeds at the same step, a function of the step of no
      particular form.

    Null ``mean_of_other_seeds``: of their mean over all steps, a constant. An experiment of one seed has no rows, nor
    has one of fewer than ``FEWEST_STEPS`` such checkpoints.

    Args:
        table: the tidy rows of one experiment or several, of every measurement and seed.

    Returns:
        Tidy rows.
    """
    made = []
    for experiment, of_experiment in table.groupby("experiment", sort=True):
        points = _points(of_experiment)
        seeds = points["seed"].unique().tolist()
        for seed in seeds if len(seeds) > 1 else []:
            rows = list(_of_seed(points, seed, int(of_experiment["step"].max())))
            # a fit is near the optimum of every seed's error, which so depends on the other seeds in second order only
            made.append(tidy(rows, str(experiment), seed, "none"))
    return pd.concat(made, ignore_index=True) if made else tidy([], "none", 0)


def _points(table: pd.DataFrame) -> pd.DataFrame:
    """Return seed, data, step, coordinate and entropy wherever both were measured; of seeds with enough of them."""
    measured = table[table["null"] == ""]
    coordinates = measured.loc[measured["quantity"] == COORDINATE, ["seed", "step", "part", "value"]]
    entropies = measured.loc[measured["quantity"] == ENTROPY, ["seed", "step", "part", "data", "value"]]
    points = entropies.rename(columns={"value": "entropy"}).merge(
        coordinates.rename(columns={"value": "coordinate"}), on=["seed", "step", "part"]
    )
    enough = points.groupby(["seed", "data"])["step"].transform("size") >= FEWEST_STEPS
    return points[enough].sort_values(["data", "seed", "step"], kind="stable")


def _of_seed(points: pd.DataFrame, seed: int, last: int) -> Iterator[dict[str, Any]]:
    for data, of_data in points.groupby("data", sort=True):
        own, others = of_data[of_data["seed"] == seed], of_data[of_data["seed"] != seed]
        if own.empty or others.empty:
            continue
        entropy = own["entropy"].to_numpy()
        by_step = others.groupby("step")["entropy"].mean()
        errors = {
            f"{form}_{regressor}": held_out_error(
                others[regressor].to_numpy(), others["entropy"].to_numpy(), own[regressor].to_numpy(), entropy, form
            )
            for regressor in REGRESSORS
            for form in FORMS
        }
        errors["free_step"] = _root_mean_square(np.interp(own["step"], by_step.index, by_step) - entropy)
        constant = _root_mean_square(others["entropy"].mean() - entropy)
        for name, error in errors.items():
            row = {"step": last, "part": PART, "quantity": HELD_OUT_ERROR + name, "data": str(data), "unit": "nats"}
            yield row | {"value": error, "n": len(own)}
            yield row | {"value": constant, "low": constant, "high": constant, "null": "mean_of_other_seeds"}


def _root_mean_square(differences: np.ndarray) -> float:
    return float(np.sqrt(np.mean(differences**2)))
