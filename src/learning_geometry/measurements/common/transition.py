"""When a run made its transition, from the errors that training recorded."""

import numpy as np

from learning_geometry.geometry.uncertainty import Crossing, first_crossing
from learning_geometry.measurements.common.run import Run

DATA = "out_of_distribution"


def transition(run: Run, threshold: float) -> Crossing:
    """Return the first evaluation during training with a ``running_error`` out of distribution below a threshold.

    Raises:
        ValueError: training recorded no such error.
    """
    metrics = run.metrics
    curve = metrics[(metrics["quantity"] == "running_error") & (metrics["data"] == DATA)].sort_values("step")
    if curve.empty:
        raise ValueError(
            f"{run.experiment} seed {run.seed}: the training metrics hold no running_error {DATA}, so there is no "
            "transition step; leave this measurement out, or use a task with that test set and error"
        )
    return first_crossing(curve["step"].to_numpy(), curve["value"].to_numpy(), threshold)


def nearest(steps: list[int], wanted: float) -> int:
    """Return the step nearest to the one wanted, the earlier of two.

    >>> nearest([0, 10, 20], 15.0)
    10
    """
    return steps[int(np.abs(np.array(steps) - wanted).argmin())]
