r"""Sparse autoencoders that keep the k largest latents (TopK).

A dictionary is a plain dict of four tensors. With N latents, inputs and outputs of width d (of a transcoder they may
differ):

- ``encoder.weight`` (N, inputs) and ``encoder.bias`` (N): pre-activations $W_E x + b_E$;
- ``decoder.weight`` (N, outputs), whose rows keep their norm in training (1, unless another was searched), and
  ``decoder.bias`` (outputs): $\hat x = z W_D + b_D$, with z the k largest pre-activations and 0 elsewhere.

Vectors are used as they come: multiply them by :func:`scale_factor` first, so that learning rates mean the same for all
data. The mean is not subtracted from them; the decoder's bias starts at it, and the encoder's bias so that the mean
has pre-activations 0, which centres the data for the encoder. :mod:`initialisation` has other starts.

Training writes the gradient out, as few latents are active: of the five products with a matrix of the dictionary's size
that autograd would do in a step, the pre-activations are left, and the other four visit active latents only.

Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders" (arXiv:2406.04093), sections 2.3 and A.1 to A.2.
Three differences: their pre-encoder bias stays tied to the decoder's, ours is tied at the start only; they start the
bias at the geometric median; and their code sets kept pre-activations below 0 to 0, while ours keeps exactly k.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from learning_geometry.dictionaries.sparse_adam import SparseAdam
from learning_geometry.geometry.rounding import rounding
from learning_geometry.seeding import seeded

Dictionary = dict[str, Tensor]

ADAM, SPARSE_ADAM = OPTIMIZERS = ("adam", "sparse_adam")

SMALLEST_NORM = 1e-12
"""Rows of the decoder shorter than this are not rescaled."""


class Settings(NamedTuple):
    """How a dictionary is trained."""

    latents: int = 256
    k: int = 16
    """Latents kept for every vector."""
    steps: int = 1000
    batch_size: int = 256
    learning_rate: float = 1e-3
    """Constant."""
    auxiliary: int = 0
    """Dead latents that model the residual in the auxiliary loss (AuxK); 0 leaves it out."""
    auxiliary_weight: float = 1 / 32
    dead_after: int = 10_000
    """Vectors in a row without an activation after which a latent counts as dead in training."""
    optimizer: str = ADAM
    """Or ``sparse_adam``, which leaves alone what has no gradient, such as the rows of latents that are not active."""
    tied: bool = False
    """Whether encoder and decoder are one matrix all along."""
    aligned: bool = False
    """Whether the inner product of each latent's encoder and decoder row is kept at 1 (see :func:`train`)."""


class Fitted(NamedTuple):
    """A trained dictionary, and by step its loss and its dead latents.

    The loss is the batch's squared error over the data's variance, without the auxiliary part.
    """

    dictionary: Dictionary
    losses: Float[np.ndarray, " steps"]
    dead_shares: Float[np.ndarray, " steps"]
    """Share of latents without an activation in the last ``dead_after`` vectors, after every step."""
    silent: Int64[np.ndarray, " latents"]
    """Vectors since a latent's last activation (all of them for one that never was active), at the end."""


class Codes(NamedTuple):
    """The active latents of every vector: which, and how strong."""

    values: Float[Tensor, "vectors k"]
    latents: Int64[Tensor, "vectors k"]


class Training(NamedTuple):
    """A dictionary in training; :func:`step` changes its tensors in place and adds to its lists."""

    parameters: Dictionary
    settings: Settings
    optimizer: torch.optim.Optimizer
    lengths: Float[Tensor, "latents 1"]
    """Norms of the decoder's rows."""
    silent: Int64[Tensor, " latents"]
    """Vectors since a latent's last activation."""
    losses: list[float]
    dead_shares: list[float]


def fit(vectors: Float[Tensor, "vectors width"], settings: Settings, *key: int | str) -> Fitted:
    """Initialise a dictionary on vectors and train it on them; same vectors, settings and key: same bits.

    Args:
        vectors: what is to be reconstructed, scaled (see :func:`scale_factor`).
        settings: sizes and training.
        key: names the generators: ``seeded(*key, "initialisation")`` and ``seeded(*key, "batches")``.

    Raises:
        ValueError: as :func:`initialise` and :func:`train`.
    """
    dictionary = initialise(vectors, settings.latents, seeded(*key, "initialisation"))
    return train(dictionary, vectors, settings, seeded(*key, "batches"))


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
        vectors: the data, whose mean is the decoder's bias.
        latents: number N of latents.
        generator: source of the directions.

    Raises:
        ValueError: fewer vectors than latents, or vectors that do not vary.
    """
    if len(vectors) < latents:
        raise ValueError(
            f"vectors: {len(vectors)} cannot train {latents} latents; pass at least as many, or use fewer latents"
        )
    mean = vectors.mean(0)
    if not varies(float((vectors - mean).square().sum(1).mean()), mean_square(vectors), vectors.dtype):
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
    dictionary: Dictionary, vectors: Float[Tensor, "vectors inputs"], k: int
) -> Float[Tensor, "vectors latents"]:
    """Return the latents: the ``k`` largest pre-activations of each vector, 0 elsewhere.

    Raises:
        ValueError: more latents are to be active than there are, or none.
    """
    return _keep_largest(_preactivations(dictionary, vectors), k)


def decode(dictionary: Dictionary, latents: Float[Tensor, "vectors latents"]) -> Float[Tensor, "vectors outputs"]:
    """Return the vectors that latents stand for."""
    return torch.addmm(dictionary["decoder.bias"], latents, dictionary["decoder.weight"])


def strongest(dictionary: Dictionary, vectors: Float[Tensor, "vectors inputs"], k: int) -> Codes:
    """Return the ``k`` largest pre-activations of each vector and their latents, the largest first.

    Raises:
        ValueError: as :func:`encode`.
    """
    return _largest(_preactivations(dictionary, vectors), k)


def reconstruct(dictionary: Dictionary, codes: Codes) -> Float[Tensor, "vectors outputs"]:
    """Return what :func:`decode` does of the same latents, visiting active ones only."""
    return _weighted_rows(dictionary["decoder.weight"], codes) + dictionary["decoder.bias"]


def train(
    dictionary: Dictionary,
    vectors: Float[Tensor, "vectors inputs"],
    settings: Settings,
    generator: np.random.Generator,
    targets: Float[Tensor, "targets outputs"] | None = None,
) -> Fitted:
    r"""Train a dictionary on the squared error; the one given is left as it is.

    The loss is $\sum\|x - \hat x\|^2 / \sum\|x - \bar x\|^2$ with the variance of all targets in the denominator, plus
    ``auxiliary_weight`` times the same for what is left, $x - \hat x$ (held fixed), modelled by the ``auxiliary``
    largest pre-activations of dead latents. Before each step the part of a decoder row's gradient along the row is
    taken out, after it rows get back the norm they started with.

    **Aligned** training keeps $e \cdot d = 1$ for the encoder row e and the decoder row d of every latent, so that a
    latent that alone is active gives its own direction back at its own strength. The row is
    $e = v + (1 - v \cdot d)\, d / \|d\|^2$ with a free v: gradients are those of the loss by v and by d (through e as
    well), and after each step v becomes e, which changes nothing that is computed. There is no parameter more.

    Args:
        dictionary: where training starts.
        vectors: what is encoded; scaled.
        settings: of which ``latents`` is not read.
        generator: draws the batches, with replacement.
        targets: what is to be reconstructed, if it is not the vectors themselves (a transcoder); scaled.

    Raises:
        ValueError: more active latents than there are, targets that are not one for each vector or do not vary, an
            optimiser that is not known, ``tied`` with an encoder that does not start as the decoder, or ``aligned``
            with products that do not start at 1.
        FloatingPointError: the loss is not finite, naming the step.
    """
    batches = draw_batches(vectors, settings.batch_size, settings.steps, generator, targets)
    spread = variance(vectors if targets is None else targets)
    training = begin(dictionary, settings)
    for inputs, expected in batches:
        step(training, inputs, expected, spread)
    return finish(training)


def draw_batches(
    vectors: Float[Tensor, "vectors inputs"],
    batch_size: int,
    steps: int,
    generator: np.random.Generator,
    targets: Float[Tensor, "targets outputs"] | None = None,
) -> Iterator[tuple[Float[Tensor, "batch inputs"], Float[Tensor, "batch outputs"]]]:
    """Return batches drawn with replacement: vectors, and their targets (themselves if none are given).

    Raises:
        ValueError: targets that are not one for each vector.
    """
    wanted = vectors if targets is None else targets
    if len(wanted) != len(vectors):
        raise ValueError(f"targets: {len(wanted)} for {len(vectors)} vectors; pass one for each")

    def draw() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(steps):
            chosen = torch.from_numpy(generator.integers(len(vectors), size=batch_size))
            inputs = vectors[chosen]
            yield inputs, inputs if targets is None else wanted[chosen]

    return draw()


def variance(targets: Float[Tensor, "vectors outputs"]) -> float:
    """Return the mean squared distance of targets from their mean.

    Raises:
        ValueError: they do not vary.

    >>> variance(torch.tensor([[1.0, 2.0], [-1.0, 2.0]]))
    1.0
    """
    mean_squared_distance = float((targets - targets.mean(0)).square().sum(1).mean())
    if not varies(mean_squared_distance, mean_square(targets), targets.dtype):
        raise ValueError("targets: they are all equal, and there is nothing to learn; pass targets that vary")
    return mean_squared_distance


def varies(variance: float, square: float, dtype: torch.dtype) -> bool:
    """Return whether vectors vary by more than the rounding of their precision.

    Args:
        variance: their mean squared distance from their mean; NaN is none.
        square: their mean squared norm.
        dtype: of the vectors.

    >>> varies(1e-14, 1.0, torch.float32), varies(1e-10, 1.0, torch.float32)
    (False, True)
    """
    return variance > float(rounding(square**0.5, epsilon=torch.finfo(dtype).eps)) ** 2


def mean_square(vectors: Float[Tensor, "vectors width"]) -> float:
    """Return the mean squared norm of vectors, in float64."""
    return float(vectors.double().square().sum(1).mean())


def begin(dictionary: Dictionary, settings: Settings) -> Training:
    """Return the start of a training, from copies of a dictionary's tensors. Sizes and steps are not read.

    Raises:
        ValueError: as :func:`train`.
    """
    parameters = {name: value.detach().clone() for name, value in dictionary.items()}
    decoder = parameters["decoder.weight"]
    if not 1 <= settings.k <= len(decoder):
        raise ValueError(_cannot_keep(settings.k, len(decoder)))
    if settings.tied:
        if not torch.equal(parameters["encoder.weight"], decoder):
            raise ValueError("tied: the encoder does not start as the decoder; start from a tied initialisation")
        parameters["encoder.weight"] = decoder
    if settings.aligned:
        _check_aligned(parameters, settings)
    optimizer = _optimizer(settings, list({id(value): value for value in parameters.values()}.values()))
    silent = torch.zeros(len(decoder), dtype=torch.int64, device=decoder.device)
    return Training(parameters, settings, optimizer, decoder.norm(dim=1, keepdim=True), silent, [], [])


@torch.no_grad()
def step(
    training: Training,
    inputs: Float[Tensor, "batch inputs"],
    targets: Float[Tensor, "batch outputs"],
    spread: float,
) -> float:
    """Take one training step and return the batch's loss before it (see :func:`train`).

    Args:
        training: changed in place.
        inputs: batch of vectors.
        targets: what is to be reconstructed.
        spread: variance of all targets, see :func:`variance`.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    parameters, settings = training.parameters, training.settings
    decoder = parameters["decoder.weight"]
    preactivations = _preactivations(parameters, inputs)
    codes = _largest(preactivations, settings.k)
    residual = targets - reconstruct(parameters, codes)
    loss = float(residual.square().sum()) / (len(inputs) * spread)
    if not np.isfinite(loss):
        raise FloatingPointError(
            f"the dictionary's loss is {loss} at step {len(training.losses)}; "
            "lower its learning rate, or scale the vectors"
        )
    gradients = _gradients(parameters, inputs, codes, residual, -2 / (len(inputs) * spread))
    dead = training.silent >= settings.dead_after
    if settings.auxiliary and dead.any():
        of_dead = _largest_of(preactivations, dead, settings.auxiliary)
        left = residual - _weighted_rows(decoder, of_dead)
        added = _gradients(parameters, inputs, of_dead, left, -2 * settings.auxiliary_weight / (len(inputs) * spread))
        # the decoder's bias is part of the residual, not of its model
        for name in gradients.keys() - {"decoder.bias"}:
            gradients[name] += added[name]
    if settings.tied:
        gradients["decoder.weight"] += gradients.pop("encoder.weight")
    if settings.aligned:
        _by_free_rows(gradients, parameters)
    along = torch.linalg.vecdot(gradients["decoder.weight"], decoder)[:, None]
    along /= training.lengths.square().clamp_min(SMALLEST_NORM**2)
    gradients["decoder.weight"].addcmul_(along, decoder, value=-1)
    for name, gradient in gradients.items():
        parameters[name].grad = gradient
    training.optimizer.step()
    decoder.mul_(training.lengths / decoder.norm(dim=1, keepdim=True).clamp_min(SMALLEST_NORM))
    if settings.aligned:
        align(parameters)
    training.silent.add_(len(inputs))
    training.silent[codes.latents[codes.values != 0]] = 0
    training.losses.append(loss)
    training.dead_shares.append(dead_share(training.silent, settings.dead_after))
    return loss


def align(dictionary: Dictionary) -> None:
    """Move, in place, every encoder row along its decoder row, to where their inner product is 1.

    >>> dictionary = {"encoder.weight": torch.tensor([[3.0, 5.0]]), "decoder.weight": torch.tensor([[2.0, 0.0]])}
    >>> align(dictionary)
    >>> dictionary["encoder.weight"]
    tensor([[0.5000, 5.0000]])
    """
    encoder, decoder = dictionary["encoder.weight"], dictionary["decoder.weight"]
    squares = decoder.square().sum(1, keepdim=True).clamp_min(SMALLEST_NORM**2)
    encoder.addcmul_((1 - torch.linalg.vecdot(encoder, decoder)[:, None]) / squares, decoder)


def finish(training: Training) -> Fitted:
    """Return what was trained.

    Raises:
        FloatingPointError: a parameter is not finite after the last step, naming it.
    """
    for name, value in training.parameters.items():
        if not torch.isfinite(value).all():
            raise FloatingPointError(
                f"the dictionary's {name} is not finite after step {len(training.losses)}; lower its learning rate"
            )
    dictionary = {name: value.clone() for name, value in training.parameters.items()}
    silent = training.silent.cpu().numpy().copy()
    return Fitted(dictionary, np.array(training.losses), np.array(training.dead_shares), silent)


def dead_share(silent: Int64[Tensor, " latents"], window: int) -> float:
    """Return the share of latents that were not active for the last ``window`` vectors.

    >>> dead_share(torch.tensor([0, 512, 1024, 2048]), 1024)
    0.5
    """
    return float((silent >= window).float().mean())


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
    if not varies(variance / max(len(exact), 1), mean_square(exact), vectors.dtype):
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
    largest, where = _largest(values, count)
    return torch.zeros_like(values).scatter(1, where, largest)


def _largest(values: Float[Tensor, "vectors latents"], count: int) -> Codes:
    if not 1 <= count <= values.shape[1]:
        raise ValueError(_cannot_keep(count, values.shape[1]))
    return Codes(*values.topk(count, dim=1))


def _cannot_keep(count: int, latents: int) -> str:
    return f"k: {count} of {latents} latents cannot be kept; use 1 to {latents}"


def _largest_of(values: Float[Tensor, "vectors latents"], chosen: Bool[Tensor, " latents"], count: int) -> Codes:
    """Return the largest values among chosen latents: ``count`` of them, or all there are."""
    numbers = chosen.nonzero()[:, 0]
    codes = _largest(values[:, numbers], min(count, len(numbers)))
    return Codes(codes.values, numbers[codes.latents])


def _weighted_rows(matrix: Float[Tensor, "latents outputs"], codes: Codes) -> Float[Tensor, "vectors outputs"]:
    return F.embedding_bag(codes.latents, matrix, mode="sum", per_sample_weights=codes.values)


def _gradients(
    parameters: Dictionary,
    inputs: Float[Tensor, "vectors inputs"],
    codes: Codes,
    residual: Float[Tensor, "vectors outputs"],
    factor: float,
) -> dict[str, Tensor]:
    """Return the gradient of a loss whose slope at the reconstructions is ``factor`` times the residual."""
    decoder = parameters["decoder.weight"]
    slopes = _row_products(decoder, codes, residual) * factor
    # active entries, sorted by latent: a latent's gradient is a weighted sum of the rows of few vectors
    latents = codes.latents.flatten()
    order = latents.argsort(stable=True)
    ends = torch.bincount(latents, minlength=len(decoder)).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    vectors = order // codes.latents.shape[1]

    def by_latent(rows: Tensor, weights: Tensor) -> Tensor:
        return F.embedding_bag(vectors, rows, starts, mode="sum", per_sample_weights=weights.flatten()[order])

    return {
        "encoder.weight": by_latent(inputs, slopes),
        "encoder.bias": torch.zeros_like(parameters["encoder.bias"]).index_add_(0, latents, slopes.flatten()),
        "decoder.weight": by_latent(residual, codes.values * factor),
        "decoder.bias": residual.sum(0) * factor,
    }


def _row_products(
    matrix: Float[Tensor, "latents outputs"], codes: Codes, vectors: Float[Tensor, "vectors outputs"]
) -> Float[Tensor, "vectors k"]:
    """Return the inner products of each vector with the rows of its active latents."""
    values = codes.values.detach().requires_grad_()
    # the derivative of a weighted sum of rows by its weights: rows are visited where they are
    with torch.enable_grad():
        weighted = _weighted_rows(matrix, Codes(values, codes.latents))
    return torch.autograd.grad(weighted, values, vectors)[0]


def _optimizer(settings: Settings, parameters: list[Tensor]) -> torch.optim.Optimizer:
    if settings.optimizer == ADAM:
        return torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)
    if settings.optimizer == SPARSE_ADAM:
        return SparseAdam(parameters, lr=settings.learning_rate)
    raise ValueError(f"optimizer: {settings.optimizer!r} is not known; use one of {', '.join(OPTIMIZERS)}")


def _check_aligned(parameters: Dictionary, settings: Settings) -> None:
    encoder, decoder = parameters["encoder.weight"], parameters["decoder.weight"]
    if settings.tied:
        raise ValueError("aligned: not with tied, whose rows are one; choose one of the two")
    if encoder.shape != decoder.shape:
        raise ValueError(
            f"aligned: encoder rows of width {encoder.shape[1]} have no inner product with decoder rows of width "
            f"{decoder.shape[1]}; leave it out"
        )
    off = float((torch.linalg.vecdot(encoder.double(), decoder.double()) - 1).abs().max())
    if not off <= float(rounding(1.0, epsilon=torch.finfo(encoder.dtype).eps)):
        raise ValueError(
            f"aligned: inner products of encoder and decoder rows start up to {off:g} away from 1; start from an "
            "aligned initialisation"
        )


def _by_free_rows(gradients: dict[str, Tensor], parameters: Dictionary) -> None:
    """Make, in place, gradients by encoder and decoder rows those by v and d of :func:`train`, where v is e."""
    encoder, decoder = parameters["encoder.weight"], parameters["decoder.weight"]
    squares = decoder.square().sum(1, keepdim=True).clamp_min(SMALLEST_NORM**2)
    along = torch.linalg.vecdot(gradients["encoder.weight"], decoder)[:, None] / squares
    gradients["decoder.weight"].addcmul_(along, encoder, value=-1)
    gradients["encoder.weight"].addcmul_(along, decoder, value=-1)


def _unit_rows(matrix: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
    return matrix / matrix.norm(dim=1, keepdim=True).clamp_min(SMALLEST_NORM)
