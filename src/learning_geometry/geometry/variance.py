"""Where the variance of attention logits comes from: content, relative position, or both together."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from learning_geometry.geometry.rounding import is_rounding


class LogitVariance(NamedTuple):
    """Variance of attention logits within the rows of a query, and the shares of its sources.

    Attributes:
        total: variance over keys and lags, averaged over query tokens, in squared logits.
        content: share that query and key token explain without the lag, in [0, 1].
        position: share that the lag explains without the tokens, in [0, 1].
        interaction: the rest: how the effect of the lag differs between tokens, in [0, 1].
    """

    total: float
    content: float
    position: float
    interaction: float


def logit_variance_shares(
    logits: Float[np.ndarray, "queries keys lags"],
    query_weights: Float[np.ndarray, " queries"],
    key_weights: Float[np.ndarray, " keys"],
    lag_weights: Float[np.ndarray, " lags"],
) -> LogitVariance:
    r"""Functional analysis of variance of logits l(a, b, Δ) of query token a, key token b and lag Δ.

    Softmax ignores what is common to all keys of a query, so each query token's mean is removed first. The rest
    splits into orthogonal parts (Hoeffding 1948; Sobol 1993): position
    $P(\Delta) = E_{ab}\, l - E\, l$, content $C(a, b) = E_\Delta\, l - E_{b\Delta}\, l$, and interaction
    $l - E_{b\Delta}\, l - P - C$. Tokens and lag are taken as independent, with the weights given.

    Args:
        logits: one logit per query token, key token and lag.
        query_weights: probabilities of the query tokens; any positive scale.
        key_weights: probabilities of the key tokens.
        lag_weights: probabilities of the lags.

    Returns:
        Total variance and shares that sum to 1; shares are NaN where the logits do not vary within a row.

    Raises:
        ValueError: if weights are negative or sum to nothing.

    Examples:
        Content and lag add up, each with variance 1: half and half.

        >>> content, lag = np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([1.0, -1.0])
        >>> logit_variance_shares(content[:, :, None] + lag, np.ones(2), np.ones(2), np.ones(2))
        LogitVariance(total=2.0, content=0.5, position=0.5, interaction=0.0)
    """
    by_query, by_key, by_lag = (
        _probabilities(weights, name)
        for weights, name in (
            (query_weights, "query_weights"),
            (key_weights, "key_weights"),
            (lag_weights, "lag_weights"),
        )
    )
    over_lags = logits @ by_lag
    row_mean = over_lags @ by_key
    centred = logits - row_mean[:, None, None]
    content = over_lags - row_mean[:, None]
    position = np.einsum("a,b,abl->l", by_query, by_key, centred, optimize=True)
    total = float(by_query @ (centred**2 @ by_lag) @ by_key)
    parts = [float(by_query @ content**2 @ by_key), float(position**2 @ by_lag)]
    if is_rounding(np.sqrt(total), np.abs(logits).max(), key_weights.size * lag_weights.size):
        return LogitVariance(0.0, np.nan, np.nan, np.nan)
    interaction = centred - content[:, :, None] - position
    parts.append(float(by_query @ (interaction**2 @ by_lag) @ by_key))
    return LogitVariance(total, *(part / total for part in parts))


def _probabilities(weights: np.ndarray, name: str) -> np.ndarray:
    total = weights.sum()
    if not np.isfinite(total) or total <= 0 or (weights < 0).any():
        raise ValueError(f"{name}: they are negative, not finite, or sum to nothing; pass probabilities or counts")
    return weights / total
