"""Training of models with the options of Llama, of GPT-NeoX, and with norms after sublayers: it learns, and resumes."""

import pytest
import torch

from learning_geometry.config import validate
from learning_geometry.tasks.dataset import make_dataset
from learning_geometry.training.checkpoints import read_checkpoint
from learning_geometry.training.loop import initial_state, train
from learning_geometry.training.projected import confine, continue_training, projection

TASK = {"name": "copying", "vocabulary": 8, "length": 24, "segment_length": [6, 7]}
TASK |= {"out_of_distribution_segment_length": 8, "test_sequences": 20}
TRAINING = {"steps": 60, "batch_size": 10, "evaluate_every": 10, "evaluation_sequences": 20}
TRAINING |= {"checkpoints": {"logarithmic": 2, "every": 20}}
MODELS = {
    "llama": {
        "heads": 4,
        "key_value_heads": 2,
        "head_width": 4,
        "norm_kind": "rms_norm",
        "norm_epsilon": 1.0e-6,
        "mlp_width": 12,
        "gated_mlp": True,
        "activation": "silu",
        "bias": False,
        "final_norm": True,
    },
    "gpt_neox": {
        "heads": 2,
        "parallel_residual": True,
        "rotary_width": 2,
        "mlp_width": 12,
        "activation": "gelu",
        "final_norm": True,
        "bias": ["query_key_value", "output", "mlp"],
        "dropout": 0.1,
    },
    "post": {"heads": 2, "norm": "post", "mlp_width": 12, "activation": "relu", "positions": "learned"},
}


def experiment_with(model):
    sections = {"seeds": [0], "task": TASK, "model": {"width": 8} | MODELS[model], "training": TRAINING}
    sections |= {"optimizer": {"learning_rate": 0.01}, "measurements": {}}
    return validate({"experiments": {"tiny": sections}})["experiments"]["tiny"]


@pytest.mark.parametrize("model", MODELS)
def test_it_learns_and_an_interrupted_run_ends_bitwise_equal(model, tmp_path):
    experiment = experiment_with(model)
    dataset = make_dataset(experiment["task"], 0)

    def interrupt(step, rows):
        if step == 30:
            raise KeyboardInterrupt

    expected = train(experiment, 0, dataset, tmp_path / "whole", {})
    with pytest.raises(KeyboardInterrupt):
        train(experiment, 0, dataset, tmp_path / "killed", {}, interrupt, seconds_between_saves=0.0)
    seen = []
    assert train(experiment, 0, dataset, tmp_path / "killed", {}, lambda step, _: seen.append(step), 0.0) == expected
    assert seen[0] >= 30
    whole, resumed = (read_checkpoint(tmp_path / name / "checkpoints", 60) for name in ("whole", "killed"))
    assert list(whole) == list(resumed) and all(torch.equal(whole[name], resumed[name]) for name in whole)
    losses = [
        row["value"] for row in expected if row["quantity"] == "running_loss" and row["data"] == "in_distribution"
    ]
    assert losses[-1] < losses[0] - 0.1
    started = initial_state(experiment, 0).parameters
    assert [name for name, value in whole.items() if torch.equal(value, started[name])] == []


def test_steps_inside_a_subspace_of_matrices_that_are_not_square():
    experiment = experiment_with("llama")
    state = initial_state(experiment, 0)
    before = {name: value.clone() for name, value in state.parameters.items()}
    name = "layers.1.attention.key.weight"
    direction = torch.linalg.qr(torch.randn(64, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    confine(state, projection(state.parameters, {name: direction.numpy()}))
    list(continue_training(state, experiment, make_dataset(experiment["task"], 0), 0, 0, [3]))
    assert [each for each, value in state.parameters.items() if not torch.equal(value, before[each])] == [name]
    moved = (state.parameters[name] - before[name]).flatten().double()
    assert moved.norm() > 1e-3
    torch.testing.assert_close(direction @ (direction.T @ moved), moved, rtol=0, atol=1e-6)
