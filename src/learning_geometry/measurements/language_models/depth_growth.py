"""How the state at a prompt's last token moves and grows through the layers: increments, and by which law it grows."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from scipy.special import ndtri

from learning_geometry import failures
from learning_geometry.geometry.growth import LAWS, held_out_law_errors
from learning_geometry.geometry.increments import increments, successive_cosines
from learning_geometry.geometry.moments import ACTIVATION_EPSILON
from learning_geometry.geometry.resampling import Resampled, resampled
from learning_geometry.measurements.common.contrast_pairs import (
    STREAMS,
    averaged,
    last_name,
    mean_over_prompts,
    over_pairs,
    pair_counts,
    stream_names,
    union_variance,
)
from learning_geometry.measurements.common.language_run import TRAINED, LanguageRun
from learning_geometry.tables.tidy import tidy

NEEDS = {"reads": ["prompts"], "pairs": {"always": 2}}
"""Of pairs: of one there is no interval."""

SETTINGS = {
    "resamples": {
        "type": "integer",
        "minimum": 50,
        "default": 400,
        "description": "Bootstrap resamples over contrast pairs.",
    },
}

FEWEST_FITTED_LAYERS = 4
"""Layers of a model whose growth is fitted: layer 0 is left out, two are fitted and one is judged."""

RIVALS = tuple(law for law in LAWS if law != "exponential")

GROWING = ("mean_variance", "state_norm")
"""What laws are fitted to."""


def measure(run: LanguageRun, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure how the residual stream at the last token of the prompt moves from layer to layer.

    Data = contrast, whose two sets count together; n = contrast pairs, [low, high] the 95 % interval over pairs
    (``contrast_pairs.over_pairs``). Part ``layers.<l>.residual_post``, the state that leaves layer l:

    - ``state_norm``: its norm, mean over prompts; also of part ``layers.<l>.residual_mid``;
    - ``increment_norm``: norm of what the layer, attention and MLP, adds to the state, mean over prompts;
    - ``increment_cosine``, from layer 1 on: cosine between what layers l − 1 and l add, mean over prompts. Null
      ``random_directions``: see :func:`random_directions_spread`;
    - part ``model``, ``mean_increment_cosine``: its mean over layers, with the same null.

    A layer that adds nothing to some prompt has no direction: of its cosine, that of the next layer and the mean there
    is one row ``not_measured`` each instead.

    Part ``layers.<l>.residual_pre`` and ``residual_mid``, ``mean_variance``: variance over the prompts of both sets
    together, mean over features.

    Part ``residual_pre`` and ``residual_mid``, of at least 4 layers: errors of a law fitted to that stream on the first
    two thirds of the layers and judged on the last third (``geometry.growth``; layer 0, where all prompts have one
    embedding, is left out):

    - ``held_out_error-<law>-<what>``: root mean square of ln(prediction / value), law linear, square (of
      a line), power or exponential, what ``mean_variance`` or ``state_norm``; infinite where a falling line is not
      positive;
    - ``exponential_minus_<law>-<what>``: its difference from each of the others, negative where the exponential
      predicts better.

    Of a stream in which all prompts of a contrast have one state in some layer after 0, or a state of zero, there is
    one row ``not_measured`` instead: there is no logarithm of it.

    Raises:
        ValueError: a state is not finite.
    """
    rows: list[dict[str, Any]] = []
    streams = {which: [run.prompt_states(TRAINED, name) for name in stream_names(run, which)] for which in STREAMS}
    last = run.prompt_states(TRAINED, last_name(run))
    for name, (first, second) in run.contrasts.items():
        counts = pair_counts(name, first.stop - first.start, settings["resamples"])
        chosen = np.r_[first, second]
        pre, mid = (np.stack([states[chosen] for states in streams[which]]) for which in STREAMS)
        if not np.isfinite(mid).all():  # the increments check the other stream
            raise ValueError(f"{name}: a state of {STREAMS[1]} is not finite; leave out this contrast")
        here = {"step": 0, "data": name}
        rows += _motion(here, np.concatenate([pre, last[None, chosen]]), counts)
        for which, states in zip(STREAMS, (pre, mid), strict=True):
            rows += _growth(here, which, states, counts)
    return tidy(rows, run.experiment, 0)


def random_directions_spread(
    first: Float[np.ndarray, "prompts width"], second: Float[np.ndarray, "prompts width"]
) -> float:
    r"""Standard deviation of the mean cosine between two sets of vectors, one of which is turned at random as a whole.

    All prompts turn together, for what a layer adds to one prompt is much like what it adds to another: their cosines
    are not independent, and a mean over prompts may stray from 0 nearly as far as a single one. With unit vectors
    $u_i, v_i$ the mean of $u_i \cdot R v_i$ is $\langle M, R \rangle$, $M = \frac1n \sum_i u_i v_i^\top$; over Haar
    rotations it has mean 0 and variance $\|M\|_F^2 / d$, of which $\|M\|_F^2 = \frac1{n^2} \sum_{ij} (u_i \cdot u_j)
    (v_i \cdot v_j)$.

    Args:
        first: what a layer adds, of every prompt.
        second: what another one adds, in the same order.

    Returns:
        From 0 to 1 / √width, which is that of single directions.

    >>> same = np.array([[1.0, 0.0, 0.0, 0.0]] * 5)
    >>> random_directions_spread(same, 3 * same)
    0.5
    """
    units = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (first, second)]
    products = (units[0] @ units[0].T) * (units[1] @ units[1].T)
    return float(np.sqrt(max(float(products.mean()), 0.0) / first.shape[1]))


def _motion(
    here: dict[str, Any], states: Float[np.ndarray, "depth prompts width"], counts: np.ndarray
) -> list[dict[str, Any]]:
    """Rows of norms and directions of what layers add."""
    added = increments(states)
    parts = [f"layers.{layer}.residual_post" for layer in range(len(added))]
    norms = np.linalg.norm(states[1:].astype(np.float64), axis=-1)
    lengths = np.linalg.norm(added, axis=-1)
    moves = lengths.min(1) > lengths.max() * ACTIVATION_EPSILON
    there = moves[1:] & moves[:-1]
    lacking = [
        failures.row(part, "no increment_cosine, as it or the layer before adds nothing to some prompt", here["data"])
        for part, defined in zip(parts[1:], there, strict=True)
        if not defined
    ]
    rows = [
        here | {"part": parts, "quantity": quantity, "unit": "activation"} | over_pairs(mean_over_prompts(each, counts))
        for quantity, each in (("state_norm", norms), ("increment_norm", lengths))
    ] + lacking
    if lacking:
        reason = f"no mean_increment_cosine over all layers, as {len(lacking)} of them have none"
        rows.append(failures.row("model", reason, here["data"]))
    if not there.any():
        return rows
    cosines = mean_over_prompts(successive_cosines(added)[there], counts)
    chosen = [pair for pair, defined in zip(pairwise(added), there, strict=True) if defined]
    spreads = np.array([random_directions_spread(*pair) for pair in chosen])
    named = [part for part, defined in zip(parts[1:], there, strict=True) if defined]
    row = here | {"part": named, "quantity": "increment_cosine"}
    rows += [row | over_pairs(cosines), row | _random_directions(spreads)]
    if lacking:
        return rows
    # turned independently, layers have uncorrelated cosines, though each has a part in two of them
    spread = np.sqrt(np.sum(spreads**2)) / len(spreads)
    row = here | {"quantity": "mean_increment_cosine"}
    by_layer = [Resampled(*(np.asarray(part[..., i]) for part in cosines)) for i in range(len(spreads))]
    return [*rows, row | over_pairs(averaged(by_layer)), row | _random_directions(spread)]


def _random_directions(spread: Any) -> dict[str, Any]:
    half_width = ndtri(0.975) * spread
    return {"null": "random_directions", "value": 0.0 * spread, "low": -half_width, "high": half_width}


def _growth(
    here: dict[str, Any], which: str, states: Float[np.ndarray, "layers prompts width"], counts: np.ndarray
) -> list[dict[str, Any]]:
    """Rows of the variance of a stream and the norm of residual_mid, and of the laws by which both grow."""
    parts = [f"layers.{layer}.{which}" for layer in range(len(states))]

    def variances(drawn: np.ndarray) -> Float64[np.ndarray, "draws layers"]:
        return np.stack([union_variance(vectors, drawn) for vectors in states], axis=1)

    norms = np.linalg.norm(states.astype(np.float64), axis=-1)
    curves = dict(zip(GROWING, (resampled(variances, counts), mean_over_prompts(norms, counts)), strict=True))
    rows: list[dict[str, Any]] = []
    for what, curve in curves.items():
        unit = "activation²" if what == "mean_variance" else "activation"
        # norms of residual_pre are those of the residual_post before it
        if (what, which) != ("state_norm", "residual_pre"):
            rows.append(here | {"part": parts, "quantity": what, "unit": unit} | over_pairs(curve))
        if len(states) < FEWEST_FITTED_LAYERS:
            continue
        if not all((part[..., 1:] > 0).all() for part in curve):
            reason = f"no law of {what}, as it is 0 in some layer after 0, or in a resample"
            rows.append(failures.row(which, reason, here["data"]))
            continue
        # resampled curves, and those without a pair, are fitted as the curve itself
        columns = over_pairs(Resampled(*(_errors(part) for part in curve)))
        names = [f"held_out_error-{law}-{what}" for law in LAWS]
        names += [f"exponential_minus_{law}-{what}" for law in RIVALS]
        rows.append(here | {"part": which, "quantity": names} | columns)
    return rows


def _errors(curves: Float[np.ndarray, "*draws layers"]) -> Float64[np.ndarray, "*draws errors"]:
    """Errors of all laws, and the exponential's minus each of the others'."""
    errors = held_out_law_errors(np.arange(curves.shape[-1]), curves)
    return np.stack([*(errors[law] for law in LAWS), *(errors["exponential"] - errors[law] for law in RIVALS)], axis=-1)
