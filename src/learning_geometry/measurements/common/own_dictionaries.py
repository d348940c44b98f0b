"""Dictionaries that were trained elsewhere, judged on a language model's captured texts and inside of the model."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.special import gammaln
from torch import Tensor

from learning_geometry import failures
from learning_geometry.dictionaries import saelens, sweep
from learning_geometry.geometry.activation_ranks import principal_directions
from learning_geometry.geometry.moments import Moments, gathered
from learning_geometry.geometry.resampling import bootstrap_counts
from learning_geometry.measurements.common.dictionary_vectors import BLOCK, Pair, Pairs, Text
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.common.token_losses import (
    RESAMPLES,
    mean_loss,
    over_windows,
    real_cost,
    sample,
    share_recovered,
    window_losses,
)
from learning_geometry.models.language import Hook
from learning_geometry.seeding import seeded
from learning_geometry.sources.saelens import FOLDER

AT_ONCE = 2**26
"""Latents, of all vectors together, that are in memory at a time."""

NULL = "random_direction"

Make = Callable[[Tensor], Tensor]
"""Vectors in, as many vectors out."""


def judged(
    run: LanguageRun,
    name: str,
    entry: Mapping[str, Any],
    settings: Mapping[str, Any],
    texts: Mapping[str, Text],
) -> list[dict[str, Any]]:
    r"""Judge one dictionary, which computes as SAELens does with it (:mod:`dictionaries.saelens`).

    It is judged on the activation that it was trained for, which its files say, on vectors as the model has them: all
    tokens but the first of each window.

    Rows, data = name, index = latents, part = the activation (of a transcoder ``layers.<l>.mlp``):

    - ``dead_share``: latents that are active for none of all vectors kept of the texts; n = their number;
    - ``explained_variance``: $1 - E\|x - \hat x\|^2 / E\|x - \bar x\|^2$ on held-out vectors; n = their number.
      SAELens' ``explained_variance`` is the same of the same vectors (its ``explained_variance_legacy``, a mean of the
      ratios of single vectors, is not);
    - ``active_latents``: how many are active for a held-out vector, the mean (L0); n = their number;
    - ``active_subspace_cosine``: the norm of the projection of a decoder row of norm 1 on the leading
      ``subspace_share`` of the principal directions of all vectors that are to be reconstructed, the mean over n
      latents, and ``active_subspace_cosine_dead``, over the dead ones alone, if there are any. Null
      ``random_direction``: exact mean over directions uniform on the sphere, with the range in which 95 % of the means
      of n of them lie, by the normal distribution;
    - ``dictionary_loss_increase`` (nats): by how much the loss of next tokens rises when the reconstruction takes the
      place of the activation everywhere but at the first token of a window, which stays; n = tokens predicted, [low,
      high] the 95 % BCa bootstrap interval over windows;
    - ``dictionary_loss_recovered``: 1 - that / the rise with the mean of the activation in its place, 0 of the mean and
      1 of what changes nothing, and ``dictionary_loss_recovered_from_zero``, with zeros in place of the mean, as
      SAELens has it; a row ``not_measured`` where that raises no loss.

    Args:
        run: the language model.
        name: of the entry.
        entry: "saelens", and if they are to be others "activation", "windows" and "tokens".
        settings: of the measurement: "layer" and "subspace_share".
        texts: vectors of the texts.

    Raises:
        FileNotFoundError: a file of the dictionary is missing.
        ValueError: the dictionary is not understood, is of another width or layer, what it reads was not kept of a
            text, or a text has too few windows.
    """
    dictionary = saelens.load(entry[FOLDER])
    pairs = Pairs(dict(texts), _activations(run, name, entry, settings, dictionary))
    reads, gives = pairs.names
    latents = dictionary.description.latents

    def quality(stream: Iterator[Pair]) -> sweep.Quality:
        return sweep.judge(latents, _in_pieces(stream, latents), partial(_apply, dictionary))

    everywhere, held_out = quality(pairs.everything()), quality(pairs.held_out())
    of_targets = gathered(targets.numpy() for _, targets in pairs.everything())
    dead = everywhere.activations == 0
    part = gives if reads == gives else gives.removesuffix(".output")
    base = {"step": 0, "part": part, "index": latents, "data": name}
    of_held_out = base | {"n": held_out.vectors}
    return [
        base | {"quantity": "dead_share", "value": float(dead.mean()), "n": everywhere.vectors, "unit": "fraction"},
        of_held_out | {"quantity": "explained_variance", "value": held_out.explained_variance, "unit": "fraction"},
        of_held_out
        | {
            "quantity": "active_latents",
            "value": float(held_out.activations.sum() / held_out.vectors),
            "unit": "count",
        },
        *_cosines(base, dictionary, of_targets, dead, settings["subspace_share"]),
        *_losses(base, run, name, entry, dictionary, pairs, of_targets.mean),
    ]


def _apply(dictionary: saelens.SaelensDictionary, vectors: Tensor) -> sweep.Applied:
    return saelens.code(dictionary, vectors).counted()


def _in_pieces(stream: Iterator[Pair], latents: int) -> Iterator[Pair]:
    size = max(1, min(BLOCK, AT_ONCE // latents))
    for inputs, targets in stream:
        if inputs is targets:
            yield from ((piece, piece) for piece in inputs.split(size))
        else:
            yield from zip(inputs.split(size), targets.split(size), strict=True)


def _activations(
    run: LanguageRun,
    name: str,
    entry: Mapping[str, Any],
    settings: Mapping[str, Any],
    dictionary: saelens.SaelensDictionary,
) -> tuple[str, str]:
    """Return what a dictionary reads and gives, once it is sure that the texts have it."""
    kept = {text: run.activations(text) for text in settings["texts"] or run.texts}
    family = next((each.provenance.get("family") for each in kept.values()), None)
    where = f"{run.experiment}: dictionary_sweep.dictionaries.{name}"
    try:
        names = dictionary.description.activations(entry.get("activation"), family)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    layer = settings["layer"]
    if layer is not None and layer != int(names[0].split(".")[1]):
        raise ValueError(f"{where}: it reads {names[0]}, and layer is {layer}; set layer to null, or leave it out")
    for text, activations in kept.items():
        for each in names:
            width = activations.widths.get(each)
            if width is None:
                raise ValueError(f"{where}: {each} was not kept of {text}; add its layer and part to `text`")
            if width != dictionary.description.inputs:
                raise ValueError(
                    f"{where}: of width {dictionary.description.inputs}, and {each} is of width {width}; "
                    "it was trained on another model"
                )
    return names


def _cosines(
    base: dict[str, Any],
    dictionary: saelens.SaelensDictionary,
    of: Moments,
    dead: np.ndarray,
    share: float,
) -> Iterator[dict[str, Any]]:
    width = len(of.mean)
    dimension = max(1, round(share * width))
    basis = torch.from_numpy(np.ascontiguousarray(principal_directions(of, dimension)))
    cosines = projected_norms(dictionary.directions, basis)
    mean, deviation = random_norm(width, dimension)
    for quantity, chosen in (
        ("active_subspace_cosine", np.ones_like(dead)),
        ("active_subspace_cosine_dead", dead),
    ):
        # a row of zeros has no direction
        values = cosines[chosen & np.isfinite(cosines)]
        if len(values):
            row = base | {"quantity": quantity, "n": len(values)}
            half = 1.96 * deviation / len(values) ** 0.5
            yield row | {"value": float(values.mean())}
            yield row | {"null": NULL, "value": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half)}


def projected_norms(
    directions: Float[Tensor, "latents width"], basis: Float64[Tensor, "width dimension"]
) -> Float64[np.ndarray, " latents"]:
    """Return the norm of the projection of each direction, made a unit vector, on a subspace; NaN of zeros.

    >>> projected_norms(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[1.0], [0.0]], dtype=torch.float64))
    array([0.6, 0. ])
    """
    exact = directions.double()
    return ((exact @ basis).norm(dim=1) / exact.norm(dim=1)).numpy()


def random_norm(width: int, dimension: int) -> tuple[float, float]:
    r"""Return mean and standard deviation of the norm of a random unit vector's projection on a subspace, exactly.

    Its square is Beta(k / 2, (d - k) / 2), so that the mean is
    $\Gamma(\frac{k + 1}{2}) \Gamma(\frac d2) / \Gamma(\frac k2) \Gamma(\frac{d + 1}{2})$ and the mean square k / d.

    >>> mean, deviation = random_norm(2, 1)  # 2/π, of |cos|
    >>> round(mean, 4), round(deviation, 4)
    (0.6366, 0.3078)
    """
    logarithm = gammaln((dimension + 1) / 2) + gammaln(width / 2) - gammaln(dimension / 2) - gammaln((width + 1) / 2)
    mean = float(np.exp(logarithm))
    return mean, float(np.sqrt(max(0.0, dimension / width - mean**2)))


def _losses(
    base: dict[str, Any],
    run: LanguageRun,
    name: str,
    entry: Mapping[str, Any],
    dictionary: saelens.SaelensDictionary,
    pairs: Pairs,
    mean: Float64[np.ndarray, " width"],
) -> Iterator[dict[str, Any]]:
    model = run.load(tokenizer=True)
    where = f"dictionary_sweep.dictionaries.{name}"
    asked = {"windows": entry.get("windows", 10), "tokens": entry.get("tokens", 32)}
    tokens = np.concatenate([sample(run, model, text, asked, where) for text in pairs.texts])
    counts = bootstrap_counts(len(tokens), RESAMPLES, seeded("dictionary_sweep", name, "resamples"))
    intact = window_losses(model, tokens)

    def increase(reads: str, gives: str, make: Make) -> Float64[np.ndarray, " windows"]:
        return window_losses(model, tokens, spliced(reads, gives, make)) - intact

    def constant(value: Tensor) -> Make:
        return lambda vectors: value.expand(len(vectors), -1)

    reads, gives = pairs.names
    rise = increase(reads, gives, lambda vectors: saelens.code(dictionary, vectors.cpu()).reconstructed)
    row = base | {"n": len(tokens) * (tokens.shape[1] - 2)}
    yield row | {"quantity": "dictionary_loss_increase", "unit": "nats"} | over_windows(mean_loss(rise), counts)
    average = torch.from_numpy(mean).float()
    for quantity, instead in (
        ("dictionary_loss_recovered", average),
        ("dictionary_loss_recovered_from_zero", torch.zeros_like(average)),
    ):
        without = increase(gives, gives, constant(instead))
        if np.isnan(real_cost(without.mean(), intact.mean())):
            reason = f"no {quantity} of {name}, as what stands in its place raises no loss"
            yield failures.row(str(base["part"]), reason)
        else:
            yield row | {"quantity": quantity} | over_windows(share_recovered(rise, without, intact), counts)


def spliced(reads: str, gives: str, make: Make) -> Hook:
    """Return a hook that puts what is made of one activation in the place of another, but at the first token.

    Args:
        reads: the activation that vectors are made of.
        gives: what they replace; it comes after it, or is the same.
        make: vectors in, as many vectors out, in float32 whatever the model computes in.
    """
    seen: list[Tensor] = []

    def see(name: str, value: Tensor) -> Tensor:
        if name == reads:
            seen[:] = [value]
        if name != gives:
            return value
        vectors = seen[0][:, 1:].float()
        made = make(vectors.flatten(0, 1)).unflatten(0, vectors.shape[:2])
        return torch.cat([value[:, :1], made.to(value.device, value.dtype)], 1)

    return see
