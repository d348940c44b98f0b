"""Does layer 1 attend by content or by position: shares of the variance of its attention logits."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from learning_geometry.geometry.head_products import split_shared_heads
from learning_geometry.geometry.variance import logit_variance_shares
from learning_geometry.measurements.common.run import Run
from learning_geometry.model_options import NORM_DEFAULTS
from learning_geometry.tables.tidy import tidy

NEEDS = {
    "weights": [
        "embedding.weight",
        "layers.0.attention_norm.*",
        "layers.0.attention.query.*",
        "layers.0.attention.key.*",
    ],
    "test_sets": ["out_of_distribution"],
    "model_settings": ["heads", "norm", "causal", "positions", "rotary_base"],
    # a logit then depends on more than content and lag
    "model_without": {"positions": ["learned"]},
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 100,
        "description": "Measure the checkpoints whose step is a multiple of this, and the last.",
    },
}


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure how much of the attention logits of the first layer is content, relative position and interaction.

    In the first layer a logit (before the softmax) depends on the query's token, the key's token and the lag Δ alone,
    so all logits are computed from the weights, without sampling. Tokens are weighted by their frequency in the
    out-of-distribution test set, lags by how many pairs of positions have them, and the three count as independent.
    Each query token's mean is removed, because softmax ignores it. Rows, part ``layers.0``, index = head:

    - ``attention_logit_share_content``: fraction of the variance that query and key token explain at the average lag;
    - ``attention_logit_share_position``: fraction that the lag explains for average tokens;
    - ``attention_logit_share_interaction``: the rest, an effect of the lag that differs between tokens;
    - ``attention_logit_variance``: what the fractions are of (squared logits).

    n = test sequences. Null ``untrained``: the run's own model at its first checkpoint.

    Raises:
        ValueError: the positions are a learned embedding, so that logits do not depend on the lag alone.
    """
    model = run.settings["model"]
    if model["positions"] == "learned":
        raise ValueError(
            "measurements.attention_logits: with learned positions a logit does not depend on content and lag alone; "
            "leave this measurement out, or set model.positions to rotary, alibi or none"
        )
    tokens = run.test_set("out_of_distribution")["tokens"]
    sequences, length = tokens.shape
    lags = np.arange(0 if model["causal"] else 1 - length, length)
    untrained: dict[tuple[str, int], float] = {}
    rows: list[dict[str, Any]] = []
    for step in run.steps(settings["every"]):
        logits = first_layer_logits(run.arrays(step), model, lags)
        frequency = np.bincount(tokens.ravel(), minlength=logits.shape[1]).astype(np.float64)
        for head, of_head in enumerate(logits):
            decomposition = logit_variance_shares(
                of_head, frequency, frequency, (length - np.abs(lags)).astype(np.float64)
            )
            shares = {
                f"share_{source}": getattr(decomposition, source) for source in ("content", "position", "interaction")
            }
            for name, value in ({"variance": decomposition.total} | shares).items():
                row = {"step": step, "part": "layers.0", "index": head, "data": "out_of_distribution", "n": sequences}
                row |= {"quantity": f"attention_logit_{name}", "unit": "1" if name == "variance" else "fraction"}
                first = untrained.setdefault((name, head), value)
                rows += [row | {"value": value}, row | {"value": first, "null": "untrained"}]
    return tidy(rows, run.experiment, run.seed)


def first_layer_logits(
    arrays: dict[str, np.ndarray], model: dict[str, Any], lags: Int[np.ndarray, " lags"]
) -> Float[np.ndarray, "heads tokens tokens lags"]:
    """Return the attention scores of layer 1 for every query token, key token and lag, in that order.

    Scores are q k / √head_width with biases, norm, and rotary turn or ALiBi's penalty, before mask and softmax.

    Args:
        arrays: parameters of a transformer without learned positions.
        model: its settings.
        lags: query position minus key position.
    """
    heads, name = model["heads"], "layers.0.attention"
    x = arrays["embedding.weight"].astype(np.float64)
    if model["norm"] == "pre":
        x = _normed(x, arrays, f"{name}_norm", model)
    width = len(arrays[f"{name}.query.weight"]) // heads
    query, key = (
        np.stack([x @ weight.T for weight in split_shared_heads(arrays[f"{name}.{role}.weight"], heads, width)])
        + _biases(arrays, f"{name}.{role}.bias", heads, width)
        for role in ("query", "key")
    )
    query = query / np.sqrt(width)
    if model["positions"] != "rotary":
        scores = np.repeat((query @ key.swapaxes(1, 2))[..., None], len(lags), axis=-1)
        if model["positions"] == "alibi":
            slopes = 2.0 ** (-8.0 * np.arange(1, heads + 1) / heads)
            scores -= slopes[:, None, None, None] * np.abs(lags)
        return scores
    # pairs as complex numbers: the score is the real part of Σ_j q_j conj(k_j) e^{iΔθ_j}
    query, key = (np.ascontiguousarray(y).view(np.complex128) for y in (query, key))
    pairs = query[:, :, None] * key[:, None].conj()
    turned = (model.get("rotary_width") or width) // 2
    frequency = np.zeros(pairs.shape[-1])
    frequency[:turned] = model["rotary_base"] ** (-2 * np.arange(turned) / (2 * turned))
    angle = frequency[:, None] * lags
    return pairs.real @ np.cos(angle) - pairs.imag @ np.sin(angle)


def _normed(x: np.ndarray, arrays: dict[str, np.ndarray], name: str, model: dict[str, Any]) -> np.ndarray:
    centred = x if model.get("norm_kind") == "rms_norm" else x - x.mean(1, keepdims=True)
    epsilon = model.get("norm_epsilon", NORM_DEFAULTS["norm_epsilon"])
    normed = centred / np.sqrt((centred**2).mean(1, keepdims=True) + epsilon) * arrays[f"{name}.weight"]
    return normed + arrays[f"{name}.bias"] if f"{name}.bias" in arrays else normed


def _biases(arrays: dict[str, np.ndarray], name: str, heads: int, width: int) -> np.ndarray:
    """The biases by query head, zeros if there are none."""
    if name not in arrays:
        return np.zeros((heads, 1, width))
    return split_shared_heads(arrays[name][:, None], heads, width).swapaxes(1, 2)
