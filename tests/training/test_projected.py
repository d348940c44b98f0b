"""Steps inside and outside of a subspace: where they go, and that nothing else about training changes."""

import numpy as np
import pytest
import torch

from learning_geometry.config import validate
from learning_geometry.geometry.nulls import haar_subspace
from learning_geometry.tasks.dataset import make_dataset
from learning_geometry.training.checkpoints import read_checkpoint
from learning_geometry.training.loop import State, initial_state, state_from, train, training_step
from learning_geometry.training.optimizers import make_optimizer, optimizer_tensors, restore_optimizer
from learning_geometry.training.projected import confine, continue_training, projection

MATRICES = [f"layers.0.attention.{role}.weight" for role in ("query", "key", "value", "output")]
STEPS = 12


def experiment_with(**optimizer):
    task = {"name": "copying", "vocabulary": 8, "length": 24, "segment_length": [6, 7]}
    task |= {"out_of_distribution_segment_length": 8, "test_sequences": 20}
    training = {"steps": 40, "batch_size": 5, "checkpoints": {"logarithmic": 2, "every": 20, "steps": [10]}}
    training |= {"evaluate_every": 20, "evaluation_sequences": 20}
    model = {"width": 8, "dropout": 0.1, "layers": 1}
    run = {"study": "orthogonal_subspaces", "seeds": [0], "task": task, "model": model, "training": training}
    raw = {"experiments": {"tiny": run | {"optimizer": optimizer, "measurements": {}}}, "figures": {}}
    return validate(raw)["experiments"]["tiny"]


ADAMW = {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1, "clip_norm": 1.0}
SGD = {"name": "sgd", "learning_rate": 0.1, "weight_decay": 0.1, "momentum": 0.9}


def random_basis(directions=3, seed=0):
    generator = np.random.default_rng(seed)
    return {name: haar_subspace(64, directions, generator) for name in MATRICES}


def trained(experiment, project=None, steps=STEPS):
    """A run confined from its start on; returns the flat parameters before and after."""
    state = initial_state(experiment, 0)
    before = state.flat.clone()
    if project is not None:
        confine(state, project(state.parameters))
    list(continue_training(state, experiment, make_dataset(experiment["task"], 0), 0, 0, [steps]))
    return state, before, state.flat.detach()


def entries(state, name):
    start = state.parameters[name].storage_offset()
    return slice(start, start + state.parameters[name].numel())


@pytest.mark.parametrize("optimizer", [ADAMW, SGD])
def test_inside_only_the_directions_move(optimizer):
    basis = random_basis()
    state, before, after = trained(experiment_with(**optimizer), lambda x: projection(x, basis))
    moved = (after - before).double()
    for name in state.parameters:
        piece = moved[entries(state, name)]
        if name in basis:
            columns = torch.from_numpy(basis[name])
            assert (piece - columns @ (columns.T @ piece)).norm() < 1e-5 * piece.norm() and piece.norm() > 1e-3
        else:
            assert torch.equal(piece, torch.zeros_like(piece))


@pytest.mark.parametrize("optimizer", [ADAMW, SGD])
def test_outside_the_coordinates_along_the_directions_stay(optimizer):
    basis = random_basis()
    state, before, after = trained(experiment_with(**optimizer), lambda x: projection(x, basis, outside=True))
    for name in state.parameters:
        piece = (after - before).double()[entries(state, name)]
        assert piece.norm() > 1e-3
        if name in basis:
            assert (torch.from_numpy(basis[name]).T @ piece).abs().max() < 1e-6
    _, _, free = trained(experiment_with(**optimizer))
    assert any(
        (torch.from_numpy(basis[name]).T @ (free - before).double()[entries(state, name)]).abs().max() > 1e-3
        for name in basis
    )


def test_without_a_projection_training_goes_on_bitwise_as_the_run_did(tmp_path):
    experiment = experiment_with(**ADAMW)
    dataset = make_dataset(experiment["task"], 0)
    train(experiment, 0, dataset, tmp_path, {})
    ten, forty = (read_checkpoint(tmp_path / "checkpoints", step) for step in (10, 40))
    run = initial_state(experiment, 0)
    for step in range(10):
        training_step(run, experiment, dataset, 0, step)
    state = state_from(run.model, ten, experiment["optimizer"])
    restore_optimizer(state.optimizer, optimizer_tensors(run.optimizer))
    points = []
    for after in continue_training(state, experiment, dataset, 0, 10, [0, 15, 30]):
        points.append((after, state.flat.clone()))
    assert [after for after, _ in points] == [0, 15, 30]
    for (_, found), expected in zip((points[0], points[-1]), (ten, forty), strict=True):
        assert torch.equal(found, torch.cat([expected[name].flatten() for name in run.parameters]))
    assert not torch.equal(points[1][1], points[-1][1])
    assert torch.equal(
        ten[MATRICES[0]], read_checkpoint(tmp_path / "checkpoints", 10)[MATRICES[0]]
    )  # left as they were


@pytest.mark.parametrize("optimizer", [ADAMW, SGD])
def test_confined_to_the_whole_space_nothing_changes(optimizer):
    experiment = experiment_with(**optimizer)
    sizes = {name: value.numel() for name, value in initial_state(experiment, 0).parameters.items()}
    whole = {name: np.eye(size) for name, size in sizes.items()}
    free, inside, nothing = (
        trained(experiment, project)[2]
        for project in (None, lambda x: projection(x, whole), lambda x: projection(x, whole, outside=True))
    )
    torch.testing.assert_close(inside, free, atol=1e-5, rtol=1e-5)
    assert torch.equal(nothing, initial_state(experiment, 0).flat)


@pytest.mark.parametrize("outside", [False, True])
def test_adam_sees_the_projected_gradient(outside):
    """Its first step has the sign of what it is given, entry by entry, and is then projected itself."""
    experiment = experiment_with(**ADAMW | {"weight_decay": 0.0, "clip_norm": None})
    state, before, after = trained(experiment, lambda x: projection(x, random_basis(), outside), steps=1)
    free = initial_state(experiment, 0)
    training_step(free, experiment, make_dataset(experiment["task"], 0), 0, 0)
    project = projection(state.parameters, random_basis(), outside)
    seen = project(free.flat.grad)
    expected = project(-0.01 * seen / (seen.abs() + 1e-8))
    torch.testing.assert_close(after - before, expected, atol=1e-5, rtol=1e-3)
    assert (expected - project(-0.01 * free.flat.grad.sign())).norm() > 0.05 * expected.norm()


def quadratic(hessian, start, project, rate, steps):
    flat = start.clone()
    optimizer = make_optimizer({**SGD, "learning_rate": rate, "weight_decay": 0.0, "momentum": 0.0}, {"all": flat})
    state = State(None, {"x": flat}, flat, optimizer)
    confine(state, project)
    for _ in range(steps):
        flat.grad = hessian @ flat
        optimizer.step()
    return flat


@pytest.mark.parametrize("outside", [False, True])
def test_descent_on_a_quadratic_is_the_closed_form(outside):
    """On ½ xᵀHx, x_t = x_0 + Q y_t with y_{t+1} = y_t − η Qᵀ H (x_0 + Q y_t): descent in the span's coordinates."""
    generator = np.random.default_rng(0)
    square = generator.standard_normal((6, 6))
    hessian = torch.from_numpy(square @ square.T / 6)
    start, whole = torch.from_numpy(generator.standard_normal(6)), haar_subspace(6, 6, generator)
    inside, rest = whole[:, :2], torch.from_numpy(whole[:, 2:] if outside else whole[:, :2])
    project = projection({"x": start}, {"x": inside}, outside)
    found = quadratic(hessian, start, project, rate=0.2, steps=25)
    reduced, force = rest.T @ hessian @ rest, rest.T @ hessian @ start
    values, vectors = torch.linalg.eigh(reduced)
    # y_t = −(1 − (1 − ηA)^t) A⁻¹ b with A the reduced Hessian and b the reduced gradient at the start
    shrunk = (1 - (1 - 0.2 * values) ** 25) / values
    expected = start - rest @ (vectors * shrunk) @ vectors.T @ force
    torch.testing.assert_close(found, expected)


def test_projections_are_complementary_and_idempotent():
    state = initial_state(experiment_with(**ADAMW), 0)
    on, off = (projection(state.parameters, random_basis(), outside) for outside in (False, True))
    vector = torch.from_numpy(np.random.default_rng(1).standard_normal(state.flat.numel()))
    torch.testing.assert_close(on(vector) + off(vector), vector)
    torch.testing.assert_close(on(on(vector)), on(vector))
    torch.testing.assert_close(off(off(vector)), off(vector))
    assert torch.equal(on(off(vector)).abs() < 1e-12, torch.ones_like(vector, dtype=torch.bool))


@pytest.mark.parametrize(
    ("basis", "message"),
    [
        ({"nowhere": np.eye(64)[:, :2]}, "nowhere is no parameter"),
        ({MATRICES[0]: np.eye(63)[:, :2]}, "63 entries, the parameter 64"),
        ({MATRICES[0]: 2 * np.eye(64)[:, :2]}, "not orthonormal"),
    ],
)
def test_a_basis_that_does_not_fit_is_named(basis, message):
    with pytest.raises(ValueError, match=message):
        projection(initial_state(experiment_with(**ADAMW), 0).parameters, basis)
