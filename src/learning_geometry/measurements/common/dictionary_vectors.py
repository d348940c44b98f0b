"""Vectors of a language model's captured texts for dictionaries: some to train on, and windows that are held out."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.files import read_tensor
from learning_geometry.models.language.cache import Activations, shard_path
from learning_geometry.seeding import seeded

BLOCK = 4096
"""Vectors read together, in order."""

Pair = tuple[Float[Tensor, "vectors inputs"], Float[Tensor, "vectors outputs"]]


class Text(NamedTuple):
    """The vectors of a text, in two parts that share no window."""

    training: Activations
    """All but those held out."""
    held_out: tuple[tuple[Path, slice], ...]
    """File and rows of those held out, at most ``BLOCK`` at a time."""
    context: int
    """Positions of a window."""


@dataclass(frozen=True)
class Pairs:
    """What is encoded and what is to be reconstructed, of the tokens of several texts; read a little at a time."""

    texts: dict[str, Text]
    names: tuple[str, str]
    """Of the activations; the same twice for an autoencoder."""
    scales: tuple[float, float] = (1.0, 1.0)
    """What they are multiplied by."""

    def batches(self, size: int, *key: int | str) -> Iterator[Pair]:
        """Yield batches of vectors in random order without end, each with the texts in proportion to their size.

        A pass over a text has each of its vectors at most once: what is left over at its end is dropped.

        Args:
            size: vectors of a batch.
            key: names the generators, one for each pass over each text.

        Raises:
            ValueError: there are fewer vectors for training.
        """
        names = list(dict.fromkeys(self.names))
        parts = [
            _forever(text.training, names, count, *key, name)
            for (name, text), count in zip(self.texts.items(), self._counts(size), strict=True)
            if count
        ]
        while True:
            drawn = [next(part) for part in parts]
            yield self._pair({name: torch.cat([each[name] for each in drawn]) for name in names})

    def held_out(self) -> Iterator[Pair]:
        """Yield the vectors that are held out, in order.

        Raises:
            ValueError: a shard is corrupt.
        """
        for text in self.texts.values():
            for path, rows in text.held_out:
                yield self._read(path, rows)

    def everything(self) -> Iterator[Pair]:
        """Yield all vectors, those of a text that are held out after the others.

        Raises:
            ValueError: a shard is corrupt.
        """
        for text in self.texts.values():
            for shard, count in enumerate(text.training.shards):
                for first in range(0, count, BLOCK):
                    rows = slice(first, min(first + BLOCK, count))
                    yield self._read(shard_path(text.training.directory, shard), rows)
            for path, rows in text.held_out:
                yield self._read(path, rows)

    def _read(self, path: Path, rows: slice) -> Pair:
        return self._pair({name: torch.tensor(read_tensor(path, name, rows)) for name in set(self.names)})

    def _pair(self, activations: Mapping[str, Tensor]) -> Pair:
        inputs, outputs = self.names
        vectors = activations[inputs] * self.scales[0]
        return (vectors, vectors) if inputs == outputs else (vectors, activations[outputs] * self.scales[1])

    def _counts(self, size: int) -> list[int]:
        """Return how many vectors of each text are in a batch: as their numbers are, by largest remainders."""
        there = np.array([text.training.vectors for text in self.texts.values()])
        if size > there.sum():
            raise ValueError(
                f"batch_size: {size}, and {there.sum()} vectors are there for training; lower it, or keep more tokens"
            )
        exact = size * there / there.sum()
        counts = exact.astype(np.int64)
        counts[np.argsort(counts - exact, kind="stable")[: size - counts.sum()]] += 1
        return [int(count) for count in counts]


def split(activations: Activations, held_out: float) -> Text:
    """Divide the windows of a text: of those of every shard the last ones are held out, a share of all in all.

    Raises:
        ValueError: no window is left for one of both.
    """
    labels = activations.labels()
    ends = np.cumsum(activations.shards)
    cuts, rows, seen, kept_out = [], [], 0, 0
    for shard, end in enumerate(ends):
        start = int(end) - activations.shards[shard]
        # a window is never in two shards
        starts = np.unique(labels.sequence[start:end], return_index=True)[1]
        seen += len(starts)
        chosen = round(held_out * seen) - kept_out
        kept_out += chosen
        cut = int(starts[len(starts) - chosen]) if chosen else activations.shards[shard]
        cuts.append(cut)
        for first in range(cut, activations.shards[shard], BLOCK):
            rows.append(
                (shard_path(activations.directory, shard), slice(first, min(first + BLOCK, activations.shards[shard])))
            )
    if not 0 < kept_out < seen:
        raise ValueError(
            f"{activations.directory}: a share {held_out} of its {seen} windows is {kept_out}, and some are needed "
            "for training and some to be held out; change held_out, or keep more windows"
        )
    # the first vectors of each shard are all that is read of it
    return Text(replace(activations, shards=tuple(cuts)), tuple(rows), int(labels.position.max()) + 1)


def _forever(
    activations: Activations, names: list[str], size: int, *key: int | str
) -> Iterator[dict[str, Float[Tensor, "batch _"]]]:
    """Yield full batches, pass after pass."""
    for number in itertools.count():
        for batch in activations.batches(names, size, seeded(*key, number)):
            if len(batch[names[0]]) == size:
                yield batch
