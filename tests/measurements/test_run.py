"""What a measurement is given: checkpoints that are those of the model."""

import re

import pytest
import torch


def drop(parameters):
    del parameters["layers.1.attention.key.bias"]


def widen(parameters):
    parameters["readout.weight"] = torch.zeros(24, 20)


def add(parameters):
    parameters["layers.2.attention.key.bias"] = torch.zeros(16)


@pytest.mark.parametrize(
    "change, message",
    [
        (drop, r"layers.1.attention.key.bias is missing, but in the model of tiny it has shape (16,)"),
        (widen, r"readout.weight has shape (24, 20), but in the model of tiny it has shape (24, 16)"),
        (add, r"layers.2.attention.key.bias has shape (16,), but in the model of tiny it is missing"),
    ],
)
def test_a_checkpoint_of_another_model_is_said(make_run, change, message):
    run = make_run(lambda parameters: None, change)
    assert run.parameters(0).keys() >= {"embedding.weight"}
    with pytest.raises(ValueError, match=re.escape("step-000010.safetensors: " + message)):
        run.parameters(10)
