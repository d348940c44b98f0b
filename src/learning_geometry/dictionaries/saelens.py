r"""Dictionaries that SAELens trained, as it computes with them: in its order and its type, with nothing folded.

With a vector x of width d: $\tilde x$ is x normalised as the dictionary says, $h = (\tilde x - b_D) W_E + b_E$ (without
$b_D$ if it is not subtracted), and the latents f are

- ``topk``: the k largest of h, those below 0 set to 0; with ``rescale_acts_by_decoder_norm`` of h times the norms of
  the decoder's rows, by which f is divided again before decoding;
- ``standard``: h where it is positive, and 0 elsewhere;
- ``jumprelu``: h where it is positive and above the latent's threshold, and 0 elsewhere;

and the reconstruction is $f W_D + b_D$ with the normalisation undone. Two normalisations are known: ``layer_norm``
subtracts the mean over coordinates and divides by their standard deviation (of d - 1) plus 1e-5, and multiplies by the
deviation without 1e-5 when it is undone; ``constant_norm_rescale`` gives every vector the norm √d.

Source: SAELens 6.54.12, see ``sources.saelens``, which says what is read and refused.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.dictionaries.sweep import Applied
from learning_geometry.files import read_tensors
from learning_geometry.sources.saelens import CONSTANT_NORM, JUMPRELU, LAYER_NORM, TOPK, WEIGHTS, Description, describe

LAYER_NORM_EPSILON = 1e-5


class SaelensDictionary(NamedTuple):
    """A dictionary with its weights, in the type that it computes in."""

    description: Description
    weights: dict[str, Tensor]
    """W_enc (inputs, latents), b_enc (latents), W_dec (latents, inputs), b_dec (inputs), threshold (latents)."""

    @property
    def directions(self) -> Float[Tensor, "latents width"]:
        """Rows of the decoder."""
        return self.weights["W_dec"]


class Coded(NamedTuple):
    """What a dictionary makes of vectors."""

    latents: Float[Tensor, "vectors latents"]
    reconstructed: Float[Tensor, "vectors width"]

    def counted(self) -> Applied:
        """Return the reconstructions, and in how many vectors each latent was active."""
        return Applied(self.reconstructed, (self.latents != 0).sum(0))


def load(folder: str | Path) -> SaelensDictionary:
    """Read a dictionary; nothing is written.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a key, a value or a tensor that is not understood, or a weight that is not finite; the message
            names it and the file.
    """
    description = describe(folder)
    path, dtype = Path(folder) / WEIGHTS, getattr(torch, description.dtype)
    weights = {name: torch.from_numpy(array).to(dtype) for name, array in read_tensors(path).items()}
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise ValueError(f"{path}: {name} holds what is not finite; the dictionary diverged, train it again")
    return SaelensDictionary(description, weights)


@torch.no_grad()
def code(dictionary: SaelensDictionary, vectors: Float[Tensor, "vectors width"]) -> Coded:
    """Return the latents and the reconstructions of vectors, as the model has them.

    Raises:
        ValueError: vectors of another width.
    """
    of, weights = dictionary.description, dictionary.weights
    if vectors.shape[1] != of.inputs:
        raise ValueError(f"vectors: of width {vectors.shape[1]}, and {of.folder} is for width {of.inputs}")
    normalised, restore = _normalised(vectors.to(weights["W_enc"].dtype), of.normalisation)
    hidden = (normalised - weights["b_dec"] * of.subtracts_bias) @ weights["W_enc"] + weights["b_enc"]
    norms = weights["W_dec"].norm(dim=-1)
    if of.architecture == TOPK:
        hidden = hidden * norms if of.rescales else hidden
        values, where = hidden.topk(of.k or 0, dim=-1, sorted=False)
        latents = torch.zeros_like(hidden).scatter(-1, where, values.relu())
    else:
        latents = hidden.relu()
        if of.architecture == JUMPRELU:
            latents = latents * (hidden > weights["threshold"])
    decoded = latents * (1 / norms) if of.rescales else latents
    return Coded(latents, restore(decoded @ weights["W_dec"] + weights["b_dec"]))


def _normalised(
    vectors: Float[Tensor, "vectors width"], normalisation: str
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return vectors normalised, and what undoes it."""
    if normalisation == LAYER_NORM:
        mean = vectors.mean(dim=-1, keepdim=True)
        centred = vectors - mean
        deviation = centred.std(dim=-1, keepdim=True)
        return centred / (deviation + LAYER_NORM_EPSILON), lambda coded: coded * deviation + mean
    if normalisation == CONSTANT_NORM:
        factor = vectors.shape[1] ** 0.5 / vectors.norm(dim=-1, keepdim=True)
        return vectors * factor, lambda coded: coded / factor
    return vectors, lambda coded: coded
