import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from learning_geometry.measurements.runs import routing_coordinate
from learning_geometry.training.checkpoints import checkpoint_steps, read_checkpoint, write_checkpoint

from .conftest import put

WIDTH = 16


def marked(run, uniform):
    """Write the checkpoints again, with what says that they are on the uniform grid."""
    for step in checkpoint_steps(run.checkpoints):
        write_checkpoint(run.checkpoints, step, read_checkpoint(run.checkpoints, step), {"uniform": step in uniform})
    return run


def moved(query, key, elsewhere=0.0):
    """Move layer 1's queries and keys along fixed directions from the same start, and everything else at random."""

    def change(parameters):
        generator = np.random.default_rng(0)
        directions = [generator.standard_normal((WIDTH, WIDTH)) for _ in range(2)]
        for name, array in parameters.items():
            start = generator.standard_normal(array.shape)
            put(
                parameters,
                name,
                start + elsewhere * np.random.default_rng(int(100 * elsewhere)).normal(size=array.shape),
            )
        for role, direction, distance in zip(("query", "key"), directions, (query, key), strict=True):
            start = np.random.default_rng(1).standard_normal((WIDTH, WIDTH))
            put(
                parameters,
                f"layers.1.attention.{role}.weight",
                start + distance * direction / np.linalg.norm(direction),
            )

    return change


PATH = [0.0, 0.5, 3.0, 3.5, 5.0, 4.5]


def run_along(make_run, path, uniform=None):
    run = make_run(*(moved(3 * x, 4 * x, elsewhere=i) for i, x in enumerate(path)))
    return marked(run, uniform or range(0, 10 * len(path), 10))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_path_is_the_coordinate(make_run, measured, sign):
    # queries go 3, keys 4 for every unit of the path: together 5
    found = measured(routing_coordinate, run_along(make_run, sign * np.array(PATH)), null_draws=40)
    rows = found.find("routing_coordinate")
    assert rows["step"].tolist() == [0, 10, 20, 30, 40, 50]
    assert set(rows["part"]) == {"layers.1"} and set(rows["unit"]) == {"1"}
    np.testing.assert_allclose(rows["value"], 5 * np.array(PATH), atol=1e-5)


def test_only_the_uniform_grid_counts(make_run, measured):
    run = run_along(make_run, PATH, uniform=(0, 20, 40))
    rows = measured(routing_coordinate, run, null_draws=40).find("routing_coordinate")
    assert rows["step"].tolist() == [0, 20, 40]
    np.testing.assert_allclose(rows["value"], [0, 15, 25], atol=1e-5)


def test_it_is_a_projection_on_the_first_principal_component(make_run, measured):
    generator = np.random.default_rng(3)
    run = run_along(make_run, PATH)
    points = []
    for step in run.steps():
        parameters = run.parameters(step)
        for role in ("query", "key"):
            name = f"layers.1.attention.{role}.weight"
            put(parameters, name, parameters[name].numpy() + 0.2 * generator.standard_normal((WIDTH, WIDTH)))
        write_checkpoint(run.checkpoints, step, parameters, {"uniform": True})
        points.append(
            np.concatenate(
                [parameters[f"layers.1.attention.{role}.weight"].numpy().ravel() for role in ("query", "key")]
            )
        )
    centred = np.array(points, dtype=np.float64) - np.mean(points, axis=0)
    projection = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    expected = (projection - projection[0]) * np.sign(projection[-1] - projection[0])
    rows = measured(routing_coordinate, run, null_draws=40).find("routing_coordinate")
    np.testing.assert_allclose(rows["value"], expected, atol=1e-4)


def test_of_walks_with_the_runs_steps_the_coordinate_is_smaller(make_run, measured):
    """Of n equal steps in many dimensions a walk's first coordinate is half a cosine, √n steps from end to end."""
    steps = 24
    found = measured(routing_coordinate, run_along(make_run, np.arange(float(steps))), null_draws=200)
    null = found.find("routing_coordinate", null="step_norm_walk")
    assert set(null["n"]) == {200}
    assert (null["low"] <= null["value"]).all() and (null["value"] <= null["high"]).all()
    angle = (np.arange(steps) + 0.5) / steps
    cosine = (1 - np.cos(np.pi * angle)) * np.sqrt(2 / steps) * 5 / (2 * np.sin(np.pi / 2 / steps))
    np.testing.assert_allclose(null["value"], cosine - cosine[0], atol=1.0)
    assert null["value"].iloc[-1] < 0.4 * found.find("routing_coordinate")["value"].iloc[-1]


def test_draws_belong_to_the_seed(make_run, measured):
    run = run_along(make_run, PATH)
    once, again, other = (
        measured(routing_coordinate, each, null_draws=40).find("routing_coordinate", null="step_norm_walk")["value"]
        for each in (run, run, replace(run, seed=1))
    )
    assert (once == again).all() and not np.allclose(once, other)


def test_what_is_missing_is_named(make_run, measured):
    run = run_along(make_run, PATH, uniform=(0, 50))
    with pytest.raises(
        ValueError, match=r"tiny seed 0: .*routing_coordinate: 2 checkpoints .*lower training.checkpoints"
    ):
        measured(routing_coordinate, run)
    with pytest.raises(ValueError, match="does not move"):
        measured(routing_coordinate, run_along(make_run, [1.0] * 4))


def test_it_starts_without_torch():
    code = f"import sys, {routing_coordinate.__name__}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
