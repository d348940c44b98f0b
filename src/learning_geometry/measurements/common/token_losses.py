"""The loss of next tokens of a language model with something else in the place of its activations, window by window."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64

from learning_geometry.geometry.resampling import Statistic, bca_ends, resampled
from learning_geometry.geometry.rounding import rounding
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.models.language import Hook, LanguageModel
from learning_geometry.models.language.tokens import text_windows
from learning_geometry.tasks.texts import read_text

RESAMPLES = 2000
AT_A_TIME = 8
"""Windows in a batch: its logits are windows · tokens · vocabulary numbers."""


@torch.no_grad()
def window_losses(
    model: LanguageModel, tokens: Int64[np.ndarray, "windows position"], hook: Hook | None = None
) -> Float64[np.ndarray, " windows"]:
    """Return the mean loss (nats) of each window, of the tokens from the third on.

    Args:
        model: the model.
        tokens: windows, run a few at a time.
        hook: sees, and may replace, every activation (``LanguageModel.forward``); None: none.
    """
    window_means = []
    for inputs in torch.from_numpy(tokens).split(AT_A_TIME):
        logits = model.forward(inputs, hook=hook)[:, 1:-1]
        losses = F.cross_entropy(logits.float().mT, inputs[:, 2:].to(logits.device), reduction="none")
        window_means.append(losses.double().mean(1).cpu())
    return torch.cat(window_means).numpy()


def sample(
    run: LanguageRun, model: LanguageModel, text: str, settings: Mapping[str, Any], where: str
) -> Int64[np.ndarray, "windows position"]:
    """Return windows of a text, spread evenly over it.

    Args:
        run: whose text it is.
        model: with its tokenizer.
        text: its name.
        settings: how many ``windows``, of how many ``tokens``.
        where: the key of these settings, for messages.

    Raises:
        ValueError: the text has fewer windows.
    """
    source = read_text(run.settings["texts"][text])
    windows = text_windows(model, source, settings["tokens"], prepend_bos=run.settings.get("prepend_bos"))
    if len(windows) < settings["windows"]:
        raise ValueError(
            f"{text}: has {len(windows)} windows of {settings['tokens']} tokens, and {settings['windows']} are asked "
            f"for; lower {where}.windows or .tokens, or give a longer text"
        )
    return windows[np.linspace(0, len(windows) - 1, settings["windows"]).round().astype(int)]


def over_windows(statistic: Statistic, counts: Int64[np.ndarray, "draws windows"]) -> dict[str, float]:
    """Return the columns of a statistic over windows: its value and its 95 % BCa interval, from bootstrap counts."""
    resamples = resampled(statistic, counts)
    low, high = bca_ends(resamples)
    return {"value": float(resamples.estimate), "low": float(low), "high": float(high)}


def mean_loss(values: Float[np.ndarray, " windows"]) -> Statistic:
    """Return the mean over windows."""
    return lambda counts: counts @ values / counts.sum(1)


def share_recovered(
    increase: Float[np.ndarray, " windows"],
    of_mean: Float[np.ndarray, " windows"],
    intact: Float[np.ndarray, " windows"],
) -> Statistic:
    """Return the share of what the mean costs that something better does not; NaN where the mean costs nothing."""

    def statistic(counts: Int64[np.ndarray, "draws windows"]) -> Float[np.ndarray, " draws"]:
        return 1 - counts @ increase / real_cost(counts @ of_mean, counts @ intact)

    return statistic


def real_cost(
    increase: Float[np.ndarray, " *draws"] | float, of: Float[np.ndarray, " *draws"] | float
) -> Float[np.ndarray, " *draws"]:
    """Return an increase of a loss; NaN where it is none, or rounding of the loss, whose logits are in float32."""
    return np.where(increase > rounding(of, epsilon=float(np.finfo(np.float32).eps)), increase, np.nan)
