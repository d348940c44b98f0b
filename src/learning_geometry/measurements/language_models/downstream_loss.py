"""What a language model's loss keeps of activations that are projected on their principal directions."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from learning_geometry import failures
from learning_geometry.geometry.activation_ranks import principal_directions
from learning_geometry.geometry.nulls import haar_subspace
from learning_geometry.geometry.resampling import bootstrap_counts
from learning_geometry.measurements.common import token_losses
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.common.token_losses import (
    RESAMPLES,
    mean_loss,
    over_windows,
    real_cost,
    sample,
    share_recovered,
)
from learning_geometry.models.language import LanguageModel
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {"reads": ["texts", "model"]}

SETTINGS = {
    "layers": {
        "type": "array",
        "items": {"type": "integer"},
        "uniqueItems": True,
        "default": [],
        "description": "Layers projected alone, too, from 0, or from the end if negative; each takes as long as all.",
    },
    "ranks": {
        "type": "array",
        "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "minItems": 1,
        "uniqueItems": True,
        "default": [0.125, 0.25],
        "description": "Directions kept, as shares of the width.",
    },
    "texts": {
        "type": ["array", "null"],
        "items": {"type": "string"},
        "minItems": 1,
        "uniqueItems": True,
        "default": None,
        "description": "Names of the texts; null takes the first one.",
    },
    "windows": {
        "type": "integer",
        "minimum": 10,
        "default": 10,
        "description": "Windows of each text, spread evenly over it; intervals are over them.",
    },
    "tokens": {
        "type": "integer",
        "minimum": 3,
        "default": 32,
        "description": "Tokens of a window.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "Random subspaces of each rank, of nested bases.",
    },
}

PARTS = ("attention.output", "mlp.output")


class Projection(NamedTuple):
    """What is put in the place of activations: the mean of each, and of the rest what lies in a subspace."""

    part: str
    """An activation's name, or the part of which all layers' are replaced at once."""
    rank: int
    """Dimension of the subspaces; 0: the mean alone."""
    null: str
    replaced: dict[str, tuple[Tensor, Tensor]]
    """Name of the activation -> its mean, and an orthonormal basis of the subspace."""


def measure(run: LanguageRun, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the loss of next tokens with activations projected on their principal directions.

    Everywhere but at the first token of a window, x is replaced by m + P (x - m) with m the mean of x over the captured
    text and P the projection on its top k principal directions there (k = 0: by m). The loss is that of the tokens
    predicted from these places; the first token, an attention sink that no moments count, is left as it is. One layer
    alone hardly matters to a deep model, so that it is done in all layers at once, each with its own directions.

    Rows, part ``attention.output`` and ``mlp.output`` (of all layers at once) and ``layers.<l>.<the same>`` (of one
    layer alone), data = text, n = tokens predicted, [low, high] the 95 % BCa bootstrap interval over windows:

    - ``loss_recovered`` at index k: 1 - (loss with the projection - loss) / (loss with the mean - loss), 0 of the mean
      and 1 of what changes nothing; a row ``not_measured`` where the mean does not raise the loss. Null
      ``random_subspace``: random k-dimensional subspaces about the same means, over n draws, nested in k;
    - ``loss_increase`` (nats) at index k, and at index 0 with the mean; same null;
    - ``loss`` (nats), part ``model``: of the model as it is.

    Raises:
        KeyError: there is no such text.
        ValueError: there is no such layer, or the text has fewer windows.
    """
    count = run.sizes().layers
    layers = list(dict.fromkeys(_existing(layer, count) for layer in settings["layers"]))
    model = run.load(tokenizer=True)
    rows: list[dict[str, Any]] = []
    for text in settings["texts"] or list(run.texts)[:1]:
        names = run.moment_names(text)
        tokens = sample(run, model, text, settings, "downstream_loss")
        counts = bootstrap_counts(len(tokens), RESAMPLES, seeded("downstream_loss", text, "resamples"))
        here = {"step": 0, "data": text, "n": len(tokens) * (tokens.shape[1] - 2)}
        intact = window_losses(model, tokens)
        rows.append(here | {"quantity": "loss", "unit": "nats"} | over_windows(mean_loss(intact), counts))
        together = {part: [name for name in names if name.endswith(f".{part}")] for part in PARTS}
        parts = [part for part in PARTS if together[part]]
        alone = {f"layers.{layer}.{part}": [f"layers.{layer}.{part}"] for part in parts for layer in layers}
        for name in [name for name in alone if name not in names]:
            del alone[name]
            rows.append(failures.row(name, "its moments are not summed (text.moment_layers)", text))
        for part, replaced in (together | alone).items():
            if replaced and part in together and len(replaced) < count:
                why = f"moments of {len(replaced)} of {count} layers are summed (text.moment_layers), and it takes all"
                rows.append(failures.row(part, why, text))
            elif replaced:
                projections = _projections(run, text, part, replaced, settings)
                increases = [(each, window_losses(model, tokens, each) - intact) for each in projections]
                rows += _rows_of_part(part, increases, intact, counts, here)
    return tidy(rows, run.experiment, 0)


def window_losses(
    model: LanguageModel, tokens: Int64[np.ndarray, "windows position"], projection: Projection | None = None
) -> Float64[np.ndarray, " windows"]:
    """Return the mean loss (nats) of each window, of the tokens from the third on.

    Args:
        model: the model.
        tokens: windows, run a few at a time.
        projection: what replaces activations from the second token on; None: nothing.
    """

    def see(name: str, value: Tensor) -> Tensor:
        if projection is None or name not in projection.replaced:
            return value
        mean, basis = (each.to(value.device) for each in projection.replaced[name])
        # in float32, whatever the model computes in
        projected = mean + (value[:, 1:].float() - mean) @ basis @ basis.T
        return torch.cat([value[:, :1], projected.to(value.dtype)], 1)

    return token_losses.window_losses(model, tokens, see)


def _projections(
    run: LanguageRun, text: str, part: str, names: list[str], settings: dict[str, Any]
) -> Iterator[Projection]:
    """The mean alone, then for each rank the principal directions and random ones; all layers have the same ranks."""
    of = {name: run.moments(text, name) for name in names}
    width = len(next(iter(of.values())).mean)
    ranks = sorted({max(1, round(share * width)) for share in settings["ranks"]})
    means = {name: torch.from_numpy(each.mean).float() for name, each in of.items()}

    def projection(bases: dict[str, Tensor], rank: int, null: str = "") -> Projection:
        return Projection(part, rank, null, {name: (means[name], bases[name][:, :rank]) for name in names})

    principal = {name: _tensor(principal_directions(each, ranks[-1])) for name, each in of.items()}
    draws = [
        {name: _tensor(haar_subspace(width, ranks[-1], seeded("downstream_loss", text, name, draw))) for name in names}
        for draw in range(settings["null_draws"])
    ]
    yield projection(principal, 0)
    for rank in ranks:
        yield projection(principal, rank)
        for random in draws:
            yield projection(random, rank, "random_subspace")


def _tensor(array: Float[np.ndarray, "width rank"]) -> Float[Tensor, "width rank"]:
    return torch.from_numpy(array.astype(np.float32))


def _rows_of_part(
    part: str,
    increases: list[tuple[Projection, Float[np.ndarray, " windows"]]],
    intact: Float[np.ndarray, " windows"],
    counts: Int64[np.ndarray, "draws windows"],
    here: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Rows of one activation, from how much each of its projections raises the loss of each window."""
    mean = increases[0][1]
    for each, increase in increases:
        if each.null:
            continue
        row = here | {"part": part, "index": each.rank}
        to_loss, of_recovery = row | {"quantity": "loss_increase", "unit": "nats"}, row | {"quantity": "loss_recovered"}
        yield to_loss | over_windows(mean_loss(increase), counts)
        if not each.rank:
            continue
        drawn = np.array([other.mean() for null, other in increases if null.null and null.rank == each.rank])
        yield to_loss | central_range(drawn, "random_subspace")
        cost = real_cost(mean.mean(), intact.mean())
        if np.isnan(cost):
            reason = f"no loss_recovered by {each.rank} directions, as the mean in their place raises no loss"
            yield failures.row(part, reason, here["data"])
            continue
        yield of_recovery | over_windows(share_recovered(increase, mean, intact), counts)
        recovered = 1 - drawn / cost
        yield of_recovery | central_range(recovered, "random_subspace")


def _existing(layer: int, layers: int) -> int:
    """Number of a layer from 0 on."""
    if not -layers <= layer < layers:
        raise ValueError(f"downstream_loss.layers: no layer {layer}; there are 0 to {layers - 1}")
    return layer % layers
