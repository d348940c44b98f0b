r"""Sparse autoencoders that keep the k largest latents (TopK).

A dictionary is a plain dict of four tensors. With N latents, inputs and outputs of width d (of a transcoder they may
differ):

- ``encoder.weight`` (N, inputs) and ``encoder.bias`` (N): pre-activations $W_E x + b_E$;
- ``decoder.weight`` (N, outputs), rows of unit norm, and ``decoder.bias`` (outputs): $\hat x = z W_D + b_D$,
  with z the k largest pre-activations and 0 elsewhere.

Vectors are used as they come: multiply them by :func:`scale_factor` first, so that learning rates mean the same for all
data. The mean is not subtracted from them; the decoder's bias starts at it, and the encoder's bias so that the mean
has pre-activations 0, which centres the data for the encoder.

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders" (arXiv:2406.04093), sections 2.3 and A.1 to A.2.
Two differences: their pre-encoder bias stays tied to the decoder's, ours is tied at the start only; and they start the
bias at the geometric median.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from learning_geometry.streams import stream

Dictionary = dict[str, Tensor]

SMALLEST_NORM = 1e-12
"""Rows of the decoder shorter than this are not rescaled."""


class Settings(NamedTuple):
    """How a dictionary is trained."""

    latents: int = 256
    active: int = 16
    """Latents k kept for every vector."""
    steps: int = 1000
    batch_size: int = 256
    learning_rate: float = 1e-3
    """Of Adam; constant."""
    auxiliary: int = 0
    """Dead latents that model the residual in the auxiliary loss (AuxK); 0 leaves it out."""
    auxiliary_weight: float = 1 / 32
    dead_after: int = 10_000
    """Vectors in a row without an activation after which a latent counts as dead in training."""


class Fitted(NamedTuple):
    """A trained dictionary and its loss at every step.

    The loss is the batch's squared error over the data's variance, without the auxiliary part.
    """

    dictionary: Dictionary
    losses: Float[np.ndarray, " steps"]


def fit(vectors: Float[Tensor, "vectors width"], settings: Settings, *key: int | str) -> Fitted:
    """Initialise a dictionary on vectors and train it on them; same vectors, settings and key: same bits.

    Args:
        vectors: What is to be reconstructed, scaled (see :func:`scale_factor`).
        settings: Sizes and training.
        key: Names the random streams: ``stream(*key, "initialisation")`` and ``stream(*key, "batches")``.

    Raises:
        ValueError: As :func:`initialise` and :func:`train`.
    """
    dictionary = initialise(vectors, settings.latents, stream(*key, "initialisation"))
    return train(dictionary, vectors, settings, stream(*key, "batches"))


def scale_factor(vectors: Float[Tensor, "vectors width"]) -> float:
    """Return the factor that gives vectors the mean norm √width.

    Raises:
        ValueError: every vector is zero, or a number is not finite.

    >>> scale_factor(torch.tensor([[3.0, 4.0], [0.0, 5.0]])).__round__(4)  # norms 5; √2 / 5
    0.2828
    """
    mean = float(vectors.double().norm(dim=1).mean())
    if not 0 < mean < np.inf:
        raise ValueError(f"vectors: their mean norm is {mean}; pass finite vectors that are not all zero")
    return float(np.sqrt(vectors.shape[1])) / mean


def initialise(vectors: Float[Tensor, "vectors width"], latents: int, generator: np.random.Generator) -> Dictionary:
    """Draw a dictionary: decoder rows uniform on the sphere, encoder equal to them, biases from the mean (see above).

    Args:
        vectors: The data, whose mean is the decoder's bias.
        latents: Number N of latents.
        generator: Source of the directions.

    Raises:
        ValueError: fewer vectors than latents, or vectors that do not vary.
    """
    if len(vectors) < latents:
        raise ValueError(
            f"vectors: {len(vectors)} cannot train {latents} latents; pass at least as many, or use fewer latents"
        )
    mean = vectors.mean(0)
    if not (vectors != vectors[0]).any():
        raise ValueError("vectors: they are all equal, and there is nothing to learn; pass vectors that vary")
    directions = torch.from_numpy(generator.standard_normal((latents, vectors.shape[1]), dtype=np.float32))
    decoder = _unit_rows(directions.to(vectors.dtype))
    return {
        "encoder.weight": decoder.clone(),
        "encoder.bias": -decoder @ mean,
        "decoder.weight": decoder,
        "decoder.bias": mean,
    }


def encode(
    dictionary: Dictionary, vectors: Float[Tensor, "vectors inputs"], active: int
) -> Float[Tensor, "vectors latents"]:
    """Return the latents: the ``active`` largest pre-activations of each vector, 0 elsewhere.

    Raises:
        ValueError: more latents are to be active than there are, or none.
    """
    return _keep_largest(_preactivations(dictionary, vectors), active)


def decode(dictionary: Dictionary, latents: Float[Tensor, "vectors latents"]) -> Float[Tensor, "vectors outputs"]:
    """Return the vectors that latents stand for."""
    return torch.addmm(dictionary["decoder.bias"], latents, dictionary["decoder.weight"])


def train(
    dictionary: Dictionary,
    vectors: Float[Tensor, "vectors inputs"],
    settings: Settings,
    generator: np.random.Generator,
    targets: Float[Tensor, "targets outputs"] | None = None,
) -> Fitted:
    r"""Train a dictionary by Adam on the squared error; the one given is left as it is.

    The loss is $\sum\|x - \hat x\|^2 / \sum\|x - \bar x\|^2$ with the variance of all targets in the denominator, plus
    ``auxiliary_weight`` times the same for what is left, $x - \hat x$ (held fixed), modelled by the ``auxiliary``
    largest pre-activations of dead latents. Before each step the part of a decoder row's gradient along the row is
    taken out, after it rows get unit norm.

    Args:
        dictionary: Where training starts.
        vectors: What is encoded; scaled.
        settings: Of which ``latents`` is not read.
        generator: Draws the batches, with replacement.
        targets: What is to be reconstructed, if it is not the vectors themselves (a transcoder); scaled.

    Raises:
        ValueError: more active latents than there are, or targets that are not one for each vector or do not vary.
        FloatingPointError: the loss is not finite, naming the step.
    """
    wanted = vectors if targets is None else targets
    if len(wanted) != len(vectors):
        raise ValueError(f"targets: {len(wanted)} for {len(vectors)} vectors; pass one for each")
    variance = float((wanted - wanted.mean(0)).square().sum(1).mean())
    if not variance > 0:
        raise ValueError("targets: they are all equal, and there is nothing to learn; pass targets that vary")
    parameters = {name: value.detach().clone().requires_grad_() for name, value in dictionary.items()}
    decoder = parameters["decoder.weight"]
    optimizer = torch.optim.Adam(list(parameters.values()), lr=settings.learning_rate)
    silent = torch.zeros(len(decoder), dtype=torch.int64)
    losses = np.empty(settings.steps)
    for step in range(settings.steps):
        chosen = torch.from_numpy(generator.integers(len(vectors), size=settings.batch_size))
        batch, expected = vectors[chosen], wanted[chosen]
        preactivations = _preactivations(parameters, batch)
        latents = _keep_largest(preactivations, settings.active)
        residual = expected - decode(parameters, latents)
        loss = total = residual.square().sum(1).mean() / variance
        dead = silent >= settings.dead_after
        if settings.auxiliary and dead.any():
            total = total + settings.auxiliary_weight / variance * _auxiliary_loss(
                preactivations, dead, decoder, residual.detach(), settings.auxiliary
            )
        optimizer.zero_grad()
        total.backward()
        with torch.no_grad():
            gradient = decoder.grad
            assert gradient is not None
            gradient -= (gradient * decoder).sum(1, keepdim=True) * decoder
            optimizer.step()
            decoder.copy_(_unit_rows(decoder))
        silent = torch.where((latents != 0).any(0), 0, silent + settings.batch_size)
        losses[step] = float(loss.detach())
        if not np.isfinite(losses[step]):
            raise FloatingPointError(
                f"the dictionary's loss is {losses[step]} at step {step}; lower its learning rate, or scale the vectors"
            )
    return Fitted({name: value.detach() for name, value in parameters.items()}, losses)


def explained_variance(
    vectors: Float[Tensor, "vectors width"], reconstructions: Float[Tensor, "vectors width"]
) -> float:
    r"""Share of the variance that reconstructions explain: $1 - E\|x - \hat x\|^2 / E\|x - \bar x\|^2$, in float64.

    1 for perfect reconstructions, 0 for the mean, negative for worse.

    Raises:
        ValueError: the vectors do not vary.

    >>> vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> explained_variance(vectors, 0 * vectors), explained_variance(vectors, vectors / 2)
    (0.0, 0.75)
    """
    exact = vectors.double()
    variance = float((exact - exact.mean(0)).square().sum())
    if not variance > 0:
        raise ValueError("vectors: they are all equal and have no variance to explain; pass vectors that vary")
    return 1 - float((exact - reconstructions.double()).square().sum()) / variance


def dead(latents: Float[Tensor, "vectors latents"]) -> Bool[Tensor, " latents"]:
    """Return which latents are active for none of the vectors.

    >>> dead(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))
    tensor([False, False,  True])
    """
    return ~(latents != 0).any(0)


def _preactivations(
    dictionary: Dictionary, vectors: Float[Tensor, "vectors inputs"]
) -> Float[Tensor, "vectors latents"]:
    return torch.addmm(dictionary["encoder.bias"], vectors, dictionary["encoder.weight"].T)


def _keep_largest(values: Float[Tensor, "vectors latents"], count: int) -> Float[Tensor, "vectors latents"]:
    if not 1 <= count <= values.shape[1]:
        raise ValueError(f"active: {count} of {values.shape[1]} latents cannot be kept; use 1 to {values.shape[1]}")
    largest, where = values.topk(count, dim=1)
    return torch.zeros_like(values).scatter(1, where, largest)


def _auxiliary_loss(
    preactivations: Float[Tensor, "vectors latents"],
    dead: Bool[Tensor, " latents"],
    decoder: Float[Tensor, "latents outputs"],
    residual: Float[Tensor, "vectors outputs"],
    count: int,
) -> Float[Tensor, ""]:
    of_dead = preactivations[:, dead]
    latents = _keep_largest(of_dead, min(count, of_dead.shape[1]))
    return (residual - latents @ decoder[dead]).square().sum(1).mean()


def _unit_rows(matrix: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
    return matrix / matrix.norm(dim=1, keepdim=True).clamp_min(SMALLEST_NORM)
