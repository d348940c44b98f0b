"""Training continued with projected steps: a small trained run, and what must hold for each way of going on."""

import numpy as np
import pytest
import torch

from learning_geometry.config import validate
from learning_geometry.measurements.common.execution_basis import execution_basis, random_basis
from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.runs import subspace_training
from learning_geometry.measurements.runs.subspace_training import ARMS
from learning_geometry.models.evaluation import cross_entropy, evaluate
from learning_geometry.seeding import seeded
from learning_geometry.tasks.dataset import make_dataset, write_dataset
from learning_geometry.training.loop import state_from, train, training_step
from learning_geometry.training.projected import projection

from .conftest import defaults

TASK = {"name": "marker_sums", "vocabulary": 12, "length": 5, "modulus": 4, "markers": [1], "first_marker": 8}
TASK |= {"test_sequences": 40}
DATA = "markers_1"
SETTINGS = {"steps": 20, "points": 2, "sequences": 30}
GRID = 10
START = 40
"""The fifth checkpoint on the grid, the first that gives three directions."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    training = {"steps": 80, "batch_size": 8, "evaluate_every": 40, "evaluation_sequences": 20}
    training |= {"checkpoints": {"logarithmic": 2, "every": GRID, "steps": [45]}}
    optimizer = {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1}
    settings = {"study": "execution_manifolds", "seeds": [0], "task": TASK, "training": training}
    settings |= {"model": {"width": 8, "layers": 1, "positions": "learned"}, "optimizer": optimizer, "measurements": {}}
    experiment = validate({"experiments": {"tiny": settings}, "figures": {}})["experiments"]["tiny"]
    dataset = make_dataset(experiment["task"], 0)
    train(experiment, 0, dataset, path / "training", {})
    write_dataset(path / "dataset.safetensors", dataset, {})
    return Run("tiny", 0, experiment, path / "training/checkpoints", path / "dataset.safetensors", path / "metrics")


def measured(run, **settings):
    return subspace_training.measure(run, defaults(subspace_training.SETTINGS) | SETTINGS | settings)


@pytest.fixture(scope="module")
def table(run):
    return measured(run)


def values(table, part, quantity="loss_after_projection", data=DATA, null=""):
    rows = table[(table["part"] == part) & (table["quantity"] == quantity) & (table["null"] == null)]
    rows = rows[rows["data"] == data]
    return dict(zip(rows["index"].tolist(), rows["value"].tolist(), strict=True))


def test_all_start_at_the_checkpoint_and_go_their_own_way(run, table):
    test_set = run.test_set(DATA, 30)
    loss = evaluate(run.model, run.parameters(START), test_set["tokens"], test_set["targets"]).losses.mean()
    assert set(table["step"]) == {START} and set(table["data"]) == {"", DATA, "markers_1_any_distractors"}
    ends = {}
    for arm in ARMS:
        found = values(table, arm)
        assert list(found) == [0, 10, 20]
        assert found[0] == pytest.approx(loss, rel=1e-6)
        ends[arm] = found[20]
        change = values(table, arm, "loss_change_after_projection")
        assert change == pytest.approx({index: value - found[0] for index, value in found.items()}, abs=1e-9)
    assert len(set(ends.values())) == len(ARMS)
    assert set(values(table, "frozen").values()) == {values(table, "frozen")[0]}
    assert ends["unprojected"] < ends["frozen"]
    # a random basis takes almost nothing away
    assert abs(ends["random_outside"] - ends["unprojected"]) < abs(ends["frozen"] - ends["unprojected"]) / 2
    rows = table[table["quantity"] == "error_after_projection"]
    assert set(rows["unit"]) == {"fraction"} and rows["value"].between(0, 1.5).all() and set(rows["n"]) == {30}


def test_unprojected_steps_are_those_of_training_on_the_batches_of_the_run(run, table):
    state = state_from(run.model, run.parameters(START), run.settings["optimizer"])
    for step in range(START, START + 20):
        training_step(state, run.settings, run.dataset, 0, step)
    test_set = run.test_set(DATA, 30)
    result = evaluate(run.model, state.parameters, test_set["tokens"], test_set["targets"])
    assert values(table, "unprojected")[20] == pytest.approx(result.losses.mean(), rel=1e-6)


def test_plain_descent_is_the_closed_form_of_one_step(run):
    """After one step of rate η the loss has changed by −η gᵀ P g' to first order: of inside and outside the sum."""
    rate = 1e-3
    table = measured(run, optimizer="sgd", sgd_learning_rate=rate, steps=1, points=1, sequences=40)
    parameters = {name: value.requires_grad_() for name, value in run.parameters(START).items()}
    names = list(run.model.initialise(np.random.default_rng(0)))
    basis = execution_basis(run, START, 3)

    def gradient(tokens, targets):
        loss = cross_entropy(run.model.forward(parameters, torch.from_numpy(tokens)), torch.from_numpy(targets))
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [parameters[name] for name in names])])

    batch = run.task.training_batch(run.settings["task"], run.dataset.drawn_once, seeded(0, "batch", START), 8, START)
    step = -rate * gradient(batch.tokens, batch.targets)
    test_set = run.test_set(DATA, 40)
    slope = gradient(test_set["tokens"], test_set["targets"])
    ordered = {name: parameters[name] for name in names}
    for arm, outside in (("inside", False), ("outside", True)):
        found = values(table, arm)
        expected = float(slope @ projection(ordered, basis, outside)(step.detach()))
        assert found[1] - found[0] == pytest.approx(expected, rel=0.05, abs=3e-7)


def test_the_share_of_the_displacement_and_its_null(run, table):
    share, null = (values(table, "unprojected", "displacement_share_inside", "", name) for name in ("", "random_basis"))
    assert list(share) == list(null) == [10, 20]
    state = state_from(run.model, run.parameters(START), run.settings["optimizer"])
    before = state.flat.clone()
    for step in range(START, START + 20):
        training_step(state, run.settings, run.dataset, 0, step)
    moved = (state.flat - before).detach().double()
    basis, generator = execution_basis(run, START, 3), np.random.default_rng(0)

    def share_in(columns):
        return float(projection(state.parameters, columns)(moved).square().sum() / moved.square().sum())

    assert share[20] == pytest.approx(share_in(basis), rel=1e-6)
    draws = [share_in(random_basis(basis, generator)) for _ in range(400)]
    assert null[20] == pytest.approx(np.mean(draws), rel=0.1)
    assert share[20] > 2 * null[20]


def test_from_a_later_step_and_the_same_table_again(run, table):
    assert set(measured(run, from_step=60, steps=10)["step"]) == {60}
    assert measured(run).equals(table)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"from_step": 45}, "from_step: 45 is no checkpoint on the uniform grid"),
        ({"from_step": 10}, "too few"),
        ({"steps": 50}, "50 steps from 40 on go beyond the run's 80"),
        ({"steps": 20, "points": 3}, "20 steps cannot be split into 3"),
        ({"directions": 9}, "9 checkpoints on the uniform grid give no 9 directions"),
    ],
)
def test_what_cannot_be_done_is_named(run, settings, message):
    with pytest.raises(ValueError, match=message):
        measured(run, **settings)
