"""A run opened with settings that are not its own."""

from dataclasses import replace

import pytest


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"width": 8, "heads": 2}, r"step-000000.safetensors: parameter embedding.weight: expected shape \(24, 8\)"),
        ({"layers": 3}, "layers.2.attention_norm.weight: expected shape .* found no such parameter"),
        ({"layers": 1}, r"layers.1.attention.key.bias: expected no such parameter, found one of shape \(16,\)"),
    ],
)
def test_parameters_that_do_not_match_the_model_are_named(make_run, model, message):
    run = make_run()
    other = replace(run, settings={**run.settings, "model": run.settings["model"] | model})
    with pytest.raises(ValueError, match=message):
        other.parameters(0)
