"""Runs on disk whose parameters follow given trajectories."""

import numpy as np

from learning_geometry.files import write_tensors
from learning_geometry.measurements.common.run import Run
from learning_geometry.training.checkpoints import checkpoint_path

ROLES = ("query", "key", "value", "output")


def matrix_names(layers):
    return [f"layers.{layer}.attention.{role}.weight" for layer in range(layers) for role in ROLES]


def write_run(directory, trajectories, seed=0, every=10, off_grid=(), optimizer=None, others=()):
    """Write a run whose parameter `name` at snapshot t is trajectories[name][t], in float32, and return it.

    Snapshots of steps in `off_grid`, given with their parameters, are marked as not on the uniform grid.
    """
    (count,) = {len(snapshots) for snapshots in trajectories.values()}
    points = {every * t: {name: snapshots[t] for name, snapshots in trajectories.items()} for t in range(count)}
    for step, parameters in [*points.items(), *dict(off_grid).items()]:
        arrays = {name: np.asarray(array, dtype=np.float32) for name, array in parameters.items()}
        write_tensors(checkpoint_path(directory / "checkpoints", step), arrays, {"uniform": step in points})
    optimizer = {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.0} | (optimizer or {})
    files = [directory / name for name in ("checkpoints", "dataset.safetensors", "metrics.parquet")]
    return Run("tiny", seed, {"optimizer": optimizer}, *files, others=tuple(others))


def walk(generator, snapshots, *shape):
    """An isotropic random walk from a random start."""
    start = generator.standard_normal(shape)
    moves = 0.1 * generator.standard_normal((snapshots - 1, *shape))
    return start + np.concatenate([np.zeros((1, *shape)), moves.cumsum(0)])


def curve(generator, snapshots, *shape, directions=2):
    """A smooth curve in a random plane (or along a line) from a random start."""
    start = generator.standard_normal(shape)
    basis = np.linalg.qr(generator.standard_normal((int(np.prod(shape)), directions)))[0]
    time = np.linspace(0, 1, snapshots)[:, None]
    coordinates = np.hstack([time, np.sin(np.pi * time)])[:, :directions]
    return start + (coordinates @ basis.T).reshape(snapshots, *shape)
