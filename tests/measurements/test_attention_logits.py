import numpy as np
import pytest
import torch

from learning_geometry.measurements.runs import attention_logits
from learning_geometry.measurements.runs.attention_logits import first_layer_logits

from .conftest import put


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"heads": 1, "width": 8},
        {"positions": "alibi"},
        {"positions": "none"},
        {"norm": "none"},
        {"bias": False},
        {"causal": False, "norm": "none", "bias": False},
        {"heads": 4, "key_value_heads": 2, "head_width": 6, "rotary_width": 4, "norm_kind": "rms_norm"},
        {"norm_bias": False, "norm_epsilon": 0.3, "bias": ["query_key_value"]},
        {"norm": "post", "key_value_heads": 1, "bias": ["output"]},
        {"parallel_residual": True, "mlp_width": 4, "rotary_width": 2},
    ],
)
def test_logits_are_those_of_the_model(make_run, model):
    generator = np.random.default_rng(0)

    def change(parameters):
        for name in list(parameters):
            if "norm" in name:  # so that forgetting the affine part shows
                put(parameters, name, generator.uniform(0.5, 2.0, parameters[name].shape))

    run = make_run(change, model=model)
    parameters, settings = run.parameters(0), run.settings["model"]
    tokens = run.test_set("out_of_distribution", 5)["tokens"]
    seen = {}
    run.model.forward(parameters, torch.from_numpy(tokens), hook=lambda name, value: seen.setdefault(name, value))
    query, key = (seen[f"layers.0.attention.{role}"].double().numpy() for role in ("query", "key"))
    key = key.repeat(query.shape[1] // key.shape[1], 1)
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])
    length, heads = tokens.shape[1], settings["heads"]
    lags = np.arange(1 - length, length)
    logits = first_layer_logits(run.arrays(0), settings, lags)
    assert logits.shape == (heads, 24, 24, len(lags))
    position = np.arange(length)
    distance = position[:, None] - position
    ours = logits[:, tokens[:, :, None], tokens[:, None, :], distance + length - 1].swapaxes(0, 1)
    if settings["positions"] == "alibi":  # Press et al.: the first of two heads has the slope 1/16
        scores = scores - np.array([1 / 16, 1 / 256])[:, None, None] * np.abs(distance)
    assert np.allclose(ours, scores, atol=1e-4)
    pattern = torch.from_numpy(ours)
    if settings["causal"]:
        pattern = pattern.masked_fill(torch.from_numpy(distance < 0), -np.inf)
    assert torch.allclose(pattern.softmax(-1).float(), seen["layers.0.attention.pattern"], atol=1e-4)


def no_content(parameters):
    """Queries and keys that are the same for every token: biases alone."""
    for role in ("query", "key"):
        put(parameters, f"layers.0.attention.{role}.weight", np.zeros((16, 16)))


SOURCES = ("content", "position", "interaction")


def shares(found, **columns):
    return [found.value(f"attention_logit_share_{source}", **columns) for source in SOURCES]


def test_position_alone(make_run, measured):
    found = measured(attention_logits, make_run(lambda parameters: None, no_content))
    for head in (0, 1):
        assert np.allclose(shares(found, step=10, index=head), [0, 1, 0], atol=1e-9)
        assert sum(shares(found, step=0, index=head)) == pytest.approx(1.0)
        assert found.value("attention_logit_share_content", step=0, index=head) > 0.2
        for step in (0, 10):
            null = found.value("attention_logit_share_content", null="untrained", step=step, index=head)
            assert null == found.value("attention_logit_share_content", step=0, index=head)


def test_content_alone_and_both_added(make_run, measured):
    found = measured(attention_logits, make_run(model={"positions": "none"}))
    assert np.allclose(shares(found, index=0), [1, 0, 0], atol=1e-9)
    found = measured(attention_logits, make_run(model={"positions": "alibi"}))
    content, position, interaction = shares(found, index=0)
    assert content > 0 and position > 0 and abs(interaction) < 1e-9
    # ALiBi's penalty of slope 1/16 over the lags of pairs of 24 positions
    lags = np.arange(24)
    weights = (24 - lags) / (24 - lags).sum()
    variance = weights @ (lags / 16) ** 2 - (weights @ (lags / 16)) ** 2
    assert position * found.value("attention_logit_variance", index=0) == pytest.approx(variance)


def test_turning_content_is_interaction(make_run, measured):
    def change(parameters):
        # one pair that turns by two radians per position, and nothing else
        weights = np.zeros((16, 16))
        weights[0, 0] = weights[1, 1] = 1.0
        for role in ("query", "key"):
            put(parameters, f"layers.0.attention.{role}.weight", weights)
            put(parameters, f"layers.0.attention.{role}.bias", np.zeros(16))
        embedding = np.random.default_rng(1).standard_normal((24, 16))
        put(parameters, "embedding.weight", embedding - embedding.mean(0))

    found = measured(attention_logits, make_run(change, model={"norm": "none"}))
    content, position, interaction = shares(found, index=0)
    assert interaction > 0.9 and content < 0.1 and position < 0.05
    assert found.value("attention_logit_variance", index=1) == 0.0
    assert np.isnan(shares(found, index=1)).all()


def test_shares_agree_with_sampled_sequences(make_run, measured):
    """Total variance and the part of the lag, from the logits of the model on random sequences."""
    run = make_run()
    found = measured(attention_logits, run)
    tokens = np.random.default_rng(2).integers(24, size=(3000, 24))
    seen = {}
    run.model.forward(
        run.parameters(0), torch.from_numpy(tokens), hook=lambda name, value: seen.setdefault(name, value)
    )
    query, key = (seen[f"layers.0.attention.{role}"][:, 0].double().numpy() for role in ("query", "key"))
    scores = query @ key.swapaxes(1, 2) / np.sqrt(8)
    rows, columns = np.tril_indices(24)
    logits = scores[:, rows, columns]
    # each query token's mean over its pairs
    asking = tokens[:, rows]
    sums, counts = (np.bincount(asking.ravel(), weights=w, minlength=24) for w in (logits.ravel(), None))
    centred = logits - (sums / counts)[asking]
    total = (centred**2).mean()
    by_lag = np.array([centred[:, rows - columns == lag].mean() for lag in range(24)])
    position = np.mean(by_lag[rows - columns] ** 2) / total
    assert found.value("attention_logit_variance", index=0) == pytest.approx(total, rel=0.1)
    assert found.value("attention_logit_share_position", index=0) == pytest.approx(position, abs=0.01)


def test_learned_positions_are_refused(make_run, measured):
    with pytest.raises(ValueError, match="leave this measurement out"):
        measured(attention_logits, make_run(model={"positions": "learned"}))
