"""Several dictionaries of one sweep, trained on one stream of activations, and judged on another.

A stream is any iterable of batches: arrays of shape (vectors, width), or pairs of arrays, the vectors and what is to be
reconstructed of them (a transcoder). It is read once, and holds one batch at a time, so it may be larger than memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from learning_geometry.dictionaries import topk

Array = Float[Tensor, "_ _"] | Float[np.ndarray, "_ _"]
Batch = Array | tuple[Array, Array]


class Entry(NamedTuple):
    """One dictionary of a sweep: where its training starts, and how it goes on (sizes and steps are the stream's)."""

    start: topk.Dictionary
    settings: topk.Settings


class Quality(NamedTuple):
    """What a dictionary is worth on a stream."""

    explained_variance: float
    r"""$1 - E\|x - \hat x\|^2 / E\|x - \bar x\|^2$: 1 for perfect reconstructions, 0 for the mean."""
    activations: Int64[np.ndarray, " latents"]
    """How often each latent was active."""
    vectors: int

    @property
    def dead_share(self) -> float:
        """Share of latents that were never active."""
        return float((self.activations == 0).mean())


class Applied(NamedTuple):
    """What a dictionary makes of a batch."""

    reconstructed: Float[Tensor, "vectors outputs"]
    activations: Int64[Tensor, " latents"]
    """In how many of the vectors each latent was active."""


def train_together(dictionaries: Mapping[str, Entry], stream: Iterable[Batch], spread: float) -> dict[str, topk.Fitted]:
    """Train all dictionaries on the same batches, until the stream ends.

    Each one ends as if it had been trained alone, to the bit, and the same starts and stream give the same bits: draw
    starts and batches from generators by name (``seeding.seeded``).

    Args:
        dictionaries: by name.
        stream: batches, scaled (see :func:`topk.scale_factor`).
        spread: variance of the targets (see :func:`topk.variance`), such as of the batch that starts were drawn for.

    Returns:
        The dictionaries by name, with losses in units of ``spread``.

    Raises:
        ValueError: no dictionaries, an empty stream, a batch of another width, or as :func:`topk.train`.
        FloatingPointError: the loss of a dictionary is not finite, naming it and the step.
    """
    if not dictionaries:
        raise ValueError("dictionaries: there are none to train; pass at least one")
    trainings = {name: topk.begin(dictionary.start, dictionary.settings) for name, dictionary in dictionaries.items()}
    for number, (inputs, targets) in enumerate(_pairs(stream)):
        for name, training in trainings.items():
            _check_widths(name, number, training.parameters, inputs, targets)
            try:
                topk.step(training, inputs, targets, spread)
            except FloatingPointError as error:
                raise FloatingPointError(f"{name}: {error}") from error
    if not all(training.losses for training in trainings.values()):
        raise ValueError("stream: it holds no batch; pass at least one")
    return {name: topk.finish(training) for name, training in trainings.items()}


@torch.no_grad()
def evaluate(dictionary: topk.Dictionary, stream: Iterable[Batch], k: int) -> Quality:
    """Judge a dictionary on a stream, held out from its training; sums are in float64.

    Args:
        dictionary: see :mod:`topk`.
        stream: batches, scaled like those of the training.
        k: latents kept for every vector.

    Raises:
        ValueError: an empty stream, targets that do not vary, a batch of another width, or as :func:`topk.encode`.
    """

    def checked() -> Iterator[tuple[Tensor, Tensor]]:
        for number, (inputs, targets) in enumerate(_pairs(stream)):
            _check_widths("dictionary", number, dictionary, inputs, targets)
            yield inputs, targets

    def apply(inputs: Tensor) -> Applied:
        codes = topk.strongest(dictionary, inputs, k)
        active = codes.latents[codes.values != 0]
        return Applied(topk.reconstruct(dictionary, codes), torch.bincount(active, minlength=latents))

    latents = len(dictionary["decoder.weight"])
    return judge(latents, checked(), apply)


@torch.no_grad()
def judge(latents: int, stream: Iterable[Batch], apply: Callable[[Tensor], Applied]) -> Quality:
    """Judge a dictionary of any kind on a stream; sums are in float64.

    Args:
        latents: how many it has.
        stream: batches.
        apply: called with the vectors of a batch.

    Raises:
        ValueError: an empty stream, or targets that do not vary.
    """
    activations = torch.zeros(latents, dtype=torch.int64)
    vectors, errors, squares = 0, 0.0, 0.0
    shift = total = torch.zeros(0)
    dtype = torch.float32
    for inputs, targets in _pairs(stream):
        exact, dtype = targets.double(), targets.dtype
        if not vectors:
            # squares around a value near the mean keep their digits
            shift = exact.mean(0)
            total = torch.zeros_like(shift)
        applied = apply(inputs)
        errors += float((exact - applied.reconstructed).square().sum())
        squares += float((exact - shift).square().sum())
        total += (exact - shift).sum(0)
        activations += applied.activations
        vectors += len(inputs)
    variance = squares - float(total.square().sum()) / max(vectors, 1)
    square = float(shift.square().sum()) + squares / max(vectors, 1)
    if not topk.varies(variance / max(vectors, 1), square, dtype):
        raise ValueError("stream: its targets are none or all equal, with no variance to explain; pass ones that vary")
    return Quality(1 - errors / variance, activations.numpy(), vectors)


def _pairs(stream: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in stream:
        inputs, targets = batch if isinstance(batch, tuple) else (batch, batch)
        first = _tensor(inputs)
        second = first if targets is inputs else _tensor(targets)
        if len(second) != len(first):
            raise ValueError(f"stream: a batch has {len(second)} targets for {len(first)} vectors; pass one for each")
        yield first, second


def _tensor(array: Array) -> Float[Tensor, "_ _"]:
    if isinstance(array, Tensor):
        return array.to(torch.promote_types(array.dtype, torch.float32))
    # a copy: torch knows no read-only memory, such as that of a mapped file
    return torch.tensor(array, dtype=torch.float32)


def _check_widths(name: str, number: int, dictionary: topk.Dictionary, inputs: Tensor, targets: Tensor) -> None:
    for role, batch, weight in (("vectors", inputs, "encoder.weight"), ("targets", targets, "decoder.weight")):
        if batch.shape[1] != dictionary[weight].shape[1]:
            raise ValueError(
                f"stream: {role} of batch {number} have width {batch.shape[1]}, but those of {name} "
                f"{dictionary[weight].shape[1]}; start it from the same activations"
            )
