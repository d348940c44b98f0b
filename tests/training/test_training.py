"""The training loop: what it learns, that it resumes bitwise, and what it records."""

import copy

import numpy as np
import pytest
import torch

from learning_geometry import tasks
from learning_geometry.config import read_yaml, validate
from learning_geometry.files import read_manifest
from learning_geometry.models.evaluation import evaluate
from learning_geometry.tasks.dataset import make_dataset, read_dataset, write_dataset
from learning_geometry.training.checkpoints import (
    check_steps,
    checkpoint_path,
    checkpoint_steps,
    finish_checkpoints,
    read_checkpoint,
    read_provenance,
    schedule,
    write_checkpoint,
)
from learning_geometry.training.loop import check_finite, initial_state, train, training_step
from learning_geometry.training.optimizers import (
    learning_rate_factor,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
)
from learning_geometry.training.projected import continue_training

TASK = {
    "name": "copying",
    "vocabulary": 8,
    "length": 24,
    "segment_length": [6, 7],
    "out_of_distribution_segment_length": 8,
    "test_sequences": 40,
}


@pytest.fixture(scope="module")
def experiment():
    raw = {
        "experiments": {
            "tiny": {
                "study": "orthogonal_subspaces",
                "seeds": [0],
                "task": TASK,
                "model": {"width": 8, "dropout": 0.1},
                "training": {
                    "steps": 60,
                    "batch_size": 5,
                    "evaluate_every": 10,
                    "evaluation_sequences": 20,
                    "checkpoints": {"logarithmic": 2, "every": 20, "steps": [7]},
                },
                "measurements": {},
            }
        },
        "figures": {},
    }
    return validate(raw)["experiments"]["tiny"]


@pytest.fixture(scope="module")
def dataset(experiment):
    return make_dataset(experiment["task"], 0)


def final(directory, step=60):
    return read_checkpoint(directory / "checkpoints", step)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_schedule_is_log_spaced_early_then_uniform_with_named_and_last_steps():
    kept = schedule({"logarithmic": 4, "every": 100, "steps": [250]}, 430)
    assert kept == {
        0: True, 1: False, 3: False, 10: False, 32: False,
        100: True, 200: True, 250: False, 300: True, 400: True, 430: False,
    }  # fmt: skip
    assert schedule({"logarithmic": 0, "every": 5, "steps": []}, 10) == {0: True, 5: True, 10: True}


def test_two_runs_are_the_same_bits_and_seeds_differ(experiment, dataset, tmp_path):
    rows = [train(experiment, seed, dataset, tmp_path / str(i), {}) for i, seed in enumerate((0, 0, 1))]
    assert rows[0] == rows[1] != rows[2]
    for step in checkpoint_steps(tmp_path / "0/checkpoints"):
        files = [checkpoint_path(tmp_path / str(i) / "checkpoints", step).read_bytes() for i in range(3)]
        assert files[0] == files[1] != files[2]


def test_a_shared_initialisation_leaves_the_data_of_each_seed(experiment, dataset, tmp_path):
    shared = experiment | {"training": experiment["training"] | {"initialisation_seed": 7}}
    runs = {"0": (shared, 0), "1": (shared, 1), "7": (experiment, 7)}
    for name, (settings, seed) in runs.items():
        train(settings, seed, dataset, tmp_path / name, {})
    first, second, own = (final(tmp_path / name, 0) for name in runs)
    assert same(first, second) and same(first, own)
    assert not same(final(tmp_path / "0", 1), final(tmp_path / "1", 1))


@pytest.mark.parametrize("killed_at", [0, 10, 30, 60])
def test_an_interrupted_run_ends_bitwise_equal(experiment, dataset, tmp_path, killed_at):
    def interrupt(step, rows):
        if step == killed_at:
            raise KeyboardInterrupt

    expected = train(experiment, 0, dataset, tmp_path / "whole", {})
    with pytest.raises(KeyboardInterrupt):
        train(experiment, 0, dataset, tmp_path / "killed", {}, interrupt, seconds_between_saves=0.0)
    seen = []
    rows = train(experiment, 0, dataset, tmp_path / "killed", {}, lambda step, rows: seen.append(step), 0.0)
    assert rows == expected
    if killed_at >= 20:
        assert seen[0] >= killed_at  # it did continue, from the evaluation before the interruption
    for step in checkpoint_steps(tmp_path / "whole/checkpoints"):
        whole, killed = (checkpoint_path(tmp_path / d / "checkpoints", step) for d in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()


def test_a_state_made_by_other_settings_is_discarded(experiment, dataset, tmp_path):
    def interrupt(step, rows):
        if step == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(experiment, 0, dataset, tmp_path, {"code": "old"}, interrupt, seconds_between_saves=0.0)
    seen = []
    train(experiment, 0, dataset, tmp_path, {"code": "new"}, lambda step, rows: seen.append(step))
    assert seen[0] == 0


def damage(path, how):
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *(("state", how) for how in ("gone", "cut", "flipped")),
        *(("checkpoints/step-000000", how) for how in ("gone", "cut", "flipped")),
        ("checkpoints/step-000020", "flipped"),
        ("checkpoints", "moved"),
    ],
)
def test_a_run_in_progress_that_lost_something_starts_anew_and_loses_nothing(
    experiment, dataset, tmp_path, caplog, name, how
):
    """What was saved of a run cannot be trusted alone: its early checkpoints may be gone, or moved away."""

    def interrupt(step, rows):
        if step == 40:
            raise KeyboardInterrupt

    expected = train(experiment, 0, dataset, tmp_path / "whole", {})
    with pytest.raises(KeyboardInterrupt):
        train(experiment, 0, dataset, tmp_path / "killed", {}, interrupt, seconds_between_saves=0.0)
    if name == "checkpoints":
        # as after a kill between moving them and removing the working folder
        (tmp_path / "killed/checkpoints").rename(tmp_path / "moved")
    else:
        damage(tmp_path / f"killed/{name}.safetensors", how)
    seen = []
    assert train(experiment, 0, dataset, tmp_path / "killed", {}, lambda step, rows: seen.append(step)) == expected
    assert seen[0] == 0
    if (name, how) != ("state", "gone"):
        assert "training starts anew, as what was saved is not whole" in caplog.text
    for step in checkpoint_steps(tmp_path / "whole/checkpoints"):
        whole, killed = (checkpoint_path(tmp_path / d / "checkpoints", step) for d in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()
    assert checkpoint_steps(tmp_path / "killed/checkpoints") == checkpoint_steps(tmp_path / "whole/checkpoints")


def test_checkpoints_are_finished_if_they_are_those_of_the_schedule(experiment, dataset, tmp_path):
    train(experiment, 0, dataset, tmp_path, {})
    working, target = tmp_path / "checkpoints", tmp_path / "finished"
    kept = schedule(experiment["training"]["checkpoints"], 60)
    with pytest.raises(ValueError, match=r"checkpoints: 1 of 8 checkpoints are missing, first step-000050; run `snake"):
        finish_checkpoints(working, target, [*kept, 50], {})
    with pytest.raises(ValueError, match=r"1 checkpoints are not in the schedule of the settings, first step-000007"):
        finish_checkpoints(working, target, [step for step in kept if step != 7], {})
    assert not target.exists()
    finish_checkpoints(working, target, kept, {"seed": 0})
    assert check_steps(target, kept) == list(kept) and not working.exists()
    assert read_manifest(target)["provenance"] == {"seed": 0}
    damage(checkpoint_path(target, 60), "cut")
    with pytest.raises(ValueError, match=r"step-000060\.safetensors: has \d+ bytes, not \d+"):
        check_steps(target, kept)


def test_evaluation_does_not_touch_training(experiment, dataset, tmp_path):
    often = copy.deepcopy(experiment)
    often["training"] |= {"evaluate_every": 3, "evaluation_sequences": 7}
    train(experiment, 0, dataset, tmp_path / "seldom", {})
    train(often, 0, dataset, tmp_path / "often", {})
    assert same(final(tmp_path / "seldom"), final(tmp_path / "often"))


def test_metrics_rows(experiment, dataset, tmp_path):
    rows = train(experiment, 0, dataset, tmp_path, {})
    losses = {r["step"]: r for r in rows if (r["quantity"], r["data"]) == ("running_loss", "out_of_distribution")}
    assert list(losses) == list(range(0, 61, 10))
    assert losses[0]["n"] == 20
    # random parameters predict about uniformly over 8 tokens
    assert abs(losses[0]["value"] - np.log(8)) < 0.7
    batch = [r for r in rows if r["quantity"] == "batch_loss"]
    assert [r["step"] for r in batch] == list(range(10, 61, 10))
    assert {r["n"] for r in batch} == {50}


def test_training_learns_the_token_frequencies(experiment, dataset, tmp_path):
    longer = copy.deepcopy(experiment)
    longer["training"]["steps"] = 300
    longer["optimizer"]["learning_rate"] = 1e-2
    rows = train(longer, 0, dataset, tmp_path, {})
    losses = [row["value"] for row in rows if (row["quantity"], row["data"]) == ("running_loss", "in_distribution")]
    probabilities = tasks.load(TASK).token_probabilities(longer["task"])
    entropy = -(probabilities * np.log(probabilities)).sum()
    assert losses[0] > entropy + 0.2
    assert losses[-1] < entropy + 0.1


def test_checkpoints_carry_what_made_them(experiment, dataset, tmp_path):
    train(experiment, 0, dataset, tmp_path, {"seed": 0, "code": "abc"})
    directory = tmp_path / "checkpoints"
    assert checkpoint_steps(directory) == [0, 1, 4, 7, 20, 40, 60]
    assert read_provenance(directory, 7) == {"seed": 0, "code": "abc", "step": 7, "uniform": False}
    assert read_provenance(directory, 20)["uniform"] is True
    assert checkpoint_path(directory, 7).name == "step-000007.safetensors"
    assert set(read_checkpoint(directory, 0)) >= {"embedding.weight", "layers.1.attention.query.bias"}


def test_missing_checkpoints_are_named(experiment, dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        checkpoint_steps(tmp_path)
    train(experiment, 0, dataset, tmp_path, {})
    with pytest.raises(FileNotFoundError, match=r"there are steps \[0, 1, 4"):
        read_checkpoint(tmp_path / "checkpoints", 5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"embedding.weight": (9, 8)}, r"step-000003.*embedding.weight: expected shape \(9, 8\), found \(8, 8\)"),
        ({"positions.weight": (24, 8)}, r"positions.weight: expected shape \(24, 8\), found no such parameter"),
        ({"readout.bias": None}, r"readout.bias: expected no such parameter, found one of shape \(8,\)"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_match_its_model_is_named(tmp_path, changed, message):
    parameters = {"embedding.weight": torch.zeros(8, 8), "readout.bias": torch.zeros(8)}
    write_checkpoint(tmp_path, 3, parameters, {})
    shapes = {"embedding.weight": (8, 8), "readout.bias": (8,)}
    assert same(parameters, read_checkpoint(tmp_path, 3, shapes))
    expected = {name: shape for name, shape in (shapes | changed).items() if shape is not None}
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path, 3, expected)


def test_a_loss_that_is_not_finite_stops_the_run(experiment, dataset, tmp_path):
    wild = copy.deepcopy(experiment)
    wild["optimizer"] |= {"name": "sgd", "learning_rate": 1e30}
    wild["model"]["norm"] = "none"
    with pytest.raises(FloatingPointError, match=r"seed 0: .* step \d+.*lower optimizer.learning_rate"):
        train(wild, 0, dataset, tmp_path, {})


def test_a_divergence_in_the_very_last_update_stops_the_run(experiment, dataset, tmp_path):
    """It ended as success, with errors made from NaN logits and a checkpoint of NaN."""
    wild = copy.deepcopy(experiment)
    wild["training"] |= {"steps": 1, "evaluate_every": 1}
    wild["optimizer"] |= {"name": "sgd", "learning_rate": 1e39}
    with pytest.raises(FloatingPointError, match=r"before step 1, embedding.weight: \d+ of \d+ entries not finite"):
        train(wild, 0, dataset, tmp_path, {})
    assert not list(tmp_path.rglob("*1.safetensors"))
    # parameters so large that they are finite, and their logits are not
    wild["optimizer"] |= {"name": "adamw", "learning_rate": 1e30}
    with pytest.raises(FloatingPointError, match=r"seed 0: at step 1, evaluate: the logits of sequence \d+ are not"):
        train(wild, 0, dataset, tmp_path / "adamw", {})


def test_everything_a_run_holds_is_looked_at(experiment, dataset):
    state = initial_state(experiment, 0)
    training_step(state, experiment, dataset, 0, 0)
    check_finite(state, 0, 1)
    losses = [torch.tensor(1.0), torch.tensor(float("nan")), torch.tensor(float("inf"))]
    with pytest.raises(FloatingPointError, match="seed 7: the training loss is nan at step 18"):
        check_finite(state, 7, 20, losses)
    moments = state.optimizer.state_dict()["state"][0]["exp_avg"]
    moments[-1] = float("inf")
    last = list(state.parameters)[-1]
    with pytest.raises(FloatingPointError, match=f"step 1, the optimiser's 0/exp_avg of {last}: 1 of .* not finite"):
        check_finite(state, 0, 1)
    state.flat[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"before step 1, embedding.weight: 1 of .* not finite"):
        check_finite(state, 0, 1)


def test_no_prediction_is_made_from_logits_that_are_not_finite(experiment, dataset):
    state = initial_state(experiment, 0)
    test_set = dataset.test_sets["in_distribution"]
    state.flat[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"sequence \d+ are not finite \(embedding.weight: 1 of"):
        evaluate(state.model, state.parameters, test_set["tokens"], test_set["targets"])


def test_further_training_inside_a_subspace_stops_at_a_divergence(experiment, dataset):
    wild = copy.deepcopy(experiment)
    wild["optimizer"] |= {"name": "sgd", "learning_rate": 1e39}
    with pytest.raises(FloatingPointError, match="before step 1, "):
        list(continue_training(initial_state(wild, 0), wild, dataset, 0, 0, [1]))


def test_finite_pool_survives_the_dataset_file(experiment, tmp_path):
    settings = experiment["task"] | {"pool_size": 3}
    dataset = make_dataset(settings, 5)
    write_dataset(tmp_path / "d.safetensors", dataset, {"seed": 5})
    again = read_dataset(tmp_path / "d.safetensors")
    assert dataset.drawn_once.keys() == again.drawn_once.keys() and dataset.drawn_once
    for name, array in dataset.drawn_once.items():
        assert np.array_equal(array, again.drawn_once[name])
    for name, test_set in dataset.test_sets.items():
        for key, array in test_set.items():
            assert np.array_equal(array, again.test_sets[name][key])


OPTIMIZER = {
    "name": "adamw", "learning_rate": 0.1, "betas": [0.9, 0.98], "epsilon": 1e-9, "weight_decay": 0.5, "momentum": 0.0,
}  # fmt: skip


def test_adamw_first_step_by_hand():
    parameter = torch.tensor([2.0, -1.0], requires_grad=True)
    optimizer = make_optimizer(OPTIMIZER, {"w": parameter})
    (parameter * torch.tensor([3.0, -5.0])).sum().backward()
    optimizer.step()
    # decay by 1 − lr·wd, then a step of lr against the sign of the gradient
    torch.testing.assert_close(parameter.detach(), torch.tensor([2 * 0.95 - 0.1, -0.95 + 0.1]))


def test_sgd_momentum_state_survives():
    settings = OPTIMIZER | {"name": "sgd", "momentum": 0.9, "weight_decay": 0.0}
    results = []
    for restore in (False, True):
        parameter = torch.tensor([1.0], requires_grad=True)
        optimizer = make_optimizer(settings, {"w": parameter})
        for step in range(4):
            if step == 2 and restore:
                tensors = {k: v.clone() for k, v in optimizer_tensors(optimizer).items()}
                optimizer = make_optimizer(settings, {"w": parameter})
                restore_optimizer(optimizer, tensors)
            optimizer.zero_grad()
            parameter.square().sum().backward()
            optimizer.step()
        results.append(parameter.item())
    assert results[0] == results[1]


@pytest.mark.parametrize("name,middle,end", [("linear", 0.55, 0.1), ("cosine", 0.55, 0.1), ("constant", 1, 1)])
def test_schedules(name, middle, end):
    settings = {"name": name, "warmup_steps": 10, "warmup_factor": 1 / 3, "final_factor": 0.1}
    assert learning_rate_factor(settings, 9, 110) == 1 / 3
    assert learning_rate_factor(settings, 10, 110) == 1
    assert learning_rate_factor(settings, 60, 110) == pytest.approx(middle)
    assert learning_rate_factor(settings, 110, 110) == pytest.approx(end)


def test_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="'adam' is not known; use adamw or sgd"):
        make_optimizer(OPTIMIZER | {"name": "adam"}, {"w": torch.zeros(1, requires_grad=True)})


def test_tiny_config_is_what_the_default_config_would_be(experiment):
    default = validate(read_yaml("config/config.yaml"))["experiments"]["copying"]
    assert default["training"].keys() == experiment["training"].keys()
    assert default["optimizer"]["betas"] == [0.9, 0.98]
