"""How many dimensions a run's weights move in, beside what random walks and decay give on the same snapshots."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from learning_geometry.geometry.trajectories import (
    InnerProducts,
    first_component_share,
    from_first,
    inner_products,
    share_along_start,
    together,
    variances,
    without_start,
)
from learning_geometry.measurements.common.execution_basis import TOGETHER, followed_matrices
from learning_geometry.measurements.common.neighbour_dimension import neighbour_dimensions
from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.common.trajectory_nulls import (
    RANDOM_NULLS,
    Draws,
    Numbers,
    draw,
    mean_rows,
    null_trajectories,
    numbers,
    row,
    rows,
)
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import tidy
from learning_geometry.training.checkpoints import parameter_shapes, trajectory_blocks

NEEDS = {
    "checkpoints": {"always": 4},
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
    "draws": {
        "type": "integer",
        "minimum": 100,
        "default": 200,
        "description": "Trajectories drawn of each null, for each part.",
    },
    "windows": {
        "type": "integer",
        "minimum": 0,
        "default": 5,
        "description": "Windows of equal length into which training is cut; 0 for none.",
    },
    "neighbours": {
        "type": "boolean",
        "default": True,
        "description": "Estimate the dimension of the model's trajectory from nearest neighbours too; takes seconds.",
    },
    "neighbour_draws": {
        "type": "integer",
        "minimum": 2,
        "default": 40,
        "description": "Trajectories of each null of which neighbours are compared.",
    },
}

FEWEST_SNAPSHOTS = 4
BELOW = 0.05
"""Quantile of a null's draws below which the r90 of a matrix must lie to be told from it."""
WINDOW_NULLS = ("isotropic_walk", "step_norm_walk")
IN_WINDOWS = ("r90", "participation_ratio", "pc1_share")


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the principal components of the checkpoints on the uniform grid, minus their mean.

    Parts: every attention matrix (``layers.<l>.attention.query`` and so on), ``layers.<l>.attention`` (its four
    matrices as one vector), ``model`` (all parameters), and ``attention_matrices``, the mean of the matrices' numbers.
    Of other matrices, by the setting or as another program called them, each is a part, those whose names are alike
    but for the end together are one, and the mean is ``matrices``. Parameters that never move are left out. Step = the
    last on the grid. Rows:

    - ``trajectory_r90``, ``trajectory_r99`` (dimensions): fewest components with 90 and 99 % of the variance;
      ``trajectory_participation_ratio`` (dimensions); ``trajectory_pc1_share`` (fraction) of the first component;
    - ``trajectory_initial_direction_share`` (fraction): variance along the first snapshot's own direction, where weight
      decay pulls; ``trajectory_pc1_share_without_initial_direction`` (fraction): the first component of the rest, left
      out if there is no rest;
    - ``trajectory_r90_p_value_<null>`` (fraction), per matrix: (1 + draws of r90 up to the run's) / (1 + draws);
      ``trajectory_r90_below_<null>`` (fraction), part ``attention_matrices``: matrices whose r90 is below the null's
      5 % quantile;
    - ``window_r90``, ``window_participation_ratio``, ``window_pc1_share``, per matrix and their mean, index = number of
      the window from 0, step = its last: successive windows, which share their end points;
      ``window_participation_ratio_over_null`` (1): over the mean of ``step_norm_walk``, as short windows of any
      trajectory have few dimensions;
    - ``two_nearest_neighbours_dimension``, ``maximum_likelihood_dimension`` (dimensions), part ``model``: they tell how
      a time series is sampled (where the next snapshot is the nearest, step norms fix them), and mean something beside
      the nulls only; left out if two snapshots coincide.

    Nulls, at the run's own sampling times and numbers of snapshots and entries: ``isotropic_walk``, ``step_norm_walk``,
    ``shuffled_increments``, ``random_signs``, ``ornstein_uhlenbeck`` (see ``geometry.walks``), and ``weight_decay``
    alone, exact, where the run has any. Of the initial direction: exact mean of an isotropic walk, 1 / entries.

    Every checkpoint is read once, a block at a time; what is kept are inner products of snapshots.

    Raises:
        ValueError: there are too few checkpoints on the uniform grid, or no attention matrix moves.
    """
    steps = run.uniform_steps()
    if len(steps) < FEWEST_SNAPSHOTS:
        raise ValueError(
            f"{run.experiment}, seed {run.seed}: {len(steps)} checkpoints on the uniform grid, but a trajectory takes "
            f"{FEWEST_SNAPSHOTS}; lower training.checkpoints.every"
        )
    windows = cut(len(steps), settings["windows"])
    where = f"{run.experiment}, seed {run.seed}"
    followed, mean = followed_matrices(parameter_shapes(run.checkpoints, steps[0]), settings.get("matrices"), where)
    products = read_products(run, steps)
    matrices = {part: products[name] for part, name in followed.items() if name in products}
    if not matrices:
        raise ValueError(f"{where}: of {', '.join(followed)} none moves; nothing can be measured")
    measured_rows = whole_rows(run, parts(products, matrices), list(matrices), mean, steps, settings["draws"])
    if settings["neighbours"]:
        measured_rows += neighbour_rows(run, together(products.values()), steps, settings["neighbour_draws"])
    for each in measured_rows:
        each["step"] = steps[-1]
    for index, window in enumerate(windows):
        columns = {"step": steps[window.stop - 1], "index": index}
        of_window = window_rows(run, matrices, mean, index, window, settings["draws"])
        measured_rows += [each | columns for each in of_window]
    return tidy(measured_rows, run.experiment, run.seed)


def read_products(run: Run, steps: Sequence[int]) -> dict[str, InnerProducts]:
    """Return the inner products of the trajectory of every parameter that moves, reading a block at a time."""
    products = {
        name: inner_products(trajectory_blocks(run.checkpoints, steps, name, shape))
        for name, shape in sorted(parameter_shapes(run.checkpoints, steps[0]).items())
    }
    # sums of squares of exact differences: what does not move has exactly 0
    return {name: of_one for name, of_one in products.items() if np.trace(of_one.displacements) > 0}


def parts(products: Mapping[str, InnerProducts], matrices: Mapping[str, InnerProducts]) -> dict[str, InnerProducts]:
    """Return the inner products of every part: matrices, those of one layer together, the model."""
    layers: dict[str, list[InnerProducts]] = {}
    for part, of_matrix in matrices.items():
        layers.setdefault(part.rpartition(".")[0], []).append(of_matrix)
    # a single matrix is no layer, but the only one of an attention that moves
    shown = {layer: each for layer, each in layers.items() if len(each) > 1 or layer.endswith(".attention")}
    of_layers = {
        f"{layer} (layer)" if layer in TOGETHER else layer: together(of_layer)
        for layer, of_layer in shown.items()
        if layer
    }
    return {**matrices, **of_layers, "model": together(products.values())}


def whole_rows(
    run: Run,
    of_parts: Mapping[str, InnerProducts],
    matrices: Sequence[str],
    mean: str,
    steps: Sequence[int],
    draws: int,
) -> list[dict[str, Any]]:
    """Return the rows of the whole trajectory of every part and of the mean over matrices, without steps."""
    made: list[dict[str, Any]] = []
    measured: dict[str, Numbers] = {}
    nulls: dict[str, dict[str, Draws]] = {}
    chance: dict[str, float] = {}
    for part, products in of_parts.items():
        grams = null_trajectories(products, steps, decay_of_a_step(run), draws, _streams(run, "whole", part))
        measured[part] = numbers(products.displacements) | start_numbers(products)
        nulls[part] = {null: numbers(gram) for null, gram in grams}
        chance[part] = 1 / products.entries
        made += rows("trajectory_", part, measured[part], nulls[part])
    of_matrices, of_nulls = [measured[part] for part in matrices], [nulls[part] for part in matrices]
    made += mean_rows("trajectory_", mean, of_matrices, of_nulls)
    chance[mean] = float(np.mean([chance[part] for part in matrices]))
    for part, share in chance.items():
        made.append(row("trajectory_initial_direction_share", part, share) | {"null": "isotropic_walk"})
    for null in RANDOM_NULLS:
        below = []
        for part in matrices:
            r90, drawn = measured[part]["r90"], nulls[part][null]["r90"]
            p_value = float((1 + np.sum(drawn <= r90)) / (1 + draws))
            made.append(row(f"trajectory_r90_p_value_{null}", part, p_value) | {"unit": "fraction"})
            below.append(r90 < np.quantile(drawn, BELOW, method="inverted_cdf"))
        of_all = row(f"trajectory_r90_below_{null}", mean, float(np.mean(below)), len(matrices))
        made.append(of_all | {"unit": "fraction"})
    return made


def start_numbers(products: InnerProducts) -> dict[str, np.ndarray]:
    """Return the share of variance along the start, and the first component's share of the rest, if there is a rest."""
    share = share_along_start(products)
    shares = {"initial_direction_share": np.asarray(share)}
    # what rounding leaves of a line is no rest
    if share < 1 - 1e-9:
        shares["pc1_share_without_initial_direction"] = first_component_share(variances(without_start(products)))
    return shares


def window_rows(
    run: Run, matrices: Mapping[str, InnerProducts], mean: str, index: int, window: slice, draws: int
) -> list[dict[str, Any]]:
    """Return the rows of one window, without step and index; a matrix that does not move in it is left out."""
    made: list[dict[str, Any]] = []
    of_matrices, nulls = [], []
    for part, products in matrices.items():
        of_window = products._replace(displacements=from_first(products.displacements[window, window]))
        if not np.trace(of_window.displacements) > 0:
            continue
        generator = _streams(run, "window", str(index), part)
        measured = _in_windows(of_window.displacements)
        drawn = {null: _in_windows(draw(null, of_window, draws, generator(null))) for null in WINDOW_NULLS}
        chance = drawn["step_norm_walk"]["participation_ratio"].mean()
        measured["participation_ratio_over_null"] = measured["participation_ratio"] / chance
        made += rows("window_", part, measured, drawn)
        of_matrices.append(measured)
        nulls.append(drawn)
    return made + mean_rows("window_", mean, of_matrices, nulls)


def neighbour_rows(run: Run, model: InnerProducts, steps: Sequence[int], draws: int) -> list[dict[str, Any]]:
    """Return the rows of the estimators by nearest neighbours, without steps."""
    dimensions = {name: value[0] for name, value in neighbour_dimensions(model.displacements[None]).items()}
    nulls: dict[str, Draws] = {}
    if dimensions:
        grams = null_trajectories(model, steps, decay_of_a_step(run), draws, _streams(run, "neighbours"))
        nulls = {null: neighbour_dimensions(gram) for null, gram in grams}
    return rows("", "model", dimensions, nulls)


def decay_of_a_step(run: Run) -> float:
    """Return the share of the weights that decay takes off at each step, at the full learning rate; 0 if not known."""
    optimizer = run.settings.get("optimizer", {})
    return float(optimizer.get("learning_rate", 0.0) * optimizer.get("weight_decay", 0.0))


def cut(snapshots: int, windows: int) -> list[slice]:
    """Return successive windows of equal numbers of steps; neighbours share a snapshot, a remainder is left at the end.

    Raises:
        ValueError: a window would have fewer than 4 snapshots.

    >>> cut(11, 3)
    [slice(0, 4, None), slice(3, 7, None), slice(6, 10, None)]
    """
    if windows == 0:
        return []
    length = (snapshots - 1) // windows
    if length + 1 < FEWEST_SNAPSHOTS:
        raise ValueError(
            f"measurements.trajectory_geometry.windows: {windows} windows of {snapshots} checkpoints on the uniform "
            f"grid have {length + 1} each, fewer than {FEWEST_SNAPSHOTS}; lower windows, or training.checkpoints.every"
        )
    return [slice(length * window, length * (window + 1) + 1) for window in range(windows)]


def _in_windows(gram: np.ndarray) -> dict[str, np.ndarray]:
    measured = numbers(gram)
    return {name: measured[name] for name in IN_WINDOWS}


def _streams(run: Run, *key: str) -> Callable[[str], np.random.Generator]:
    return lambda null: seeded("trajectory_geometry", *key, null, run.seed)
