"""Activations on disk: captured once, in shards, and read back in any order without being in memory together.

A directory holds ``shard-00000.safetensors``, ``shard-00001.safetensors``, … and, once all of them are there,
``activations.json``. A shard has one float32 array (vectors, width) per name, and beside them the int64 arrays
``sequence`` and ``position`` that say which token each vector belongs to. Vectors are in the order of sequences and
positions. Only the rows asked for are read, and compared with their digests.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from learning_geometry.files import (
    WithoutDigestsError,
    read_json,
    read_tensor,
    read_tensor_metadata,
    read_tensor_shapes,
    verify_file,
    write_json,
    write_tensors,
)
from learning_geometry.known import file_digest
from learning_geometry.models.language import LanguageModel, activation_width, check_names
from learning_geometry.paths import how_to_make_again

SHARD_BYTES = 2**26
"""About how large a shard is; a capture holds twice as much in memory."""
LABELS = ("sequence", "position")
INDEX = "activations.json"


class AnotherCaptureError(ValueError):
    """What lies in the directory is of another capture."""


class Labels(NamedTuple):
    """Which token each vector belongs to: its sequence among those captured, and its position there."""

    sequence: Int64[np.ndarray, " vectors"]
    position: Int64[np.ndarray, " vectors"]


@runtime_checkable
class Observer(Protocol):
    """What else looks at the activations while they are captured, such as sums over all layers."""

    done: int
    """Shards that it has seen already, in a capture that was killed; it is not shown them again."""

    @property
    def names(self) -> Sequence[str]:
        """The activations it looks at, besides those that are kept."""

    def add(self, name: str, vectors: Float[Tensor, "*vectors _"]) -> None:
        """Look at the vectors of one activation in a batch, where and as it is computed.

        Those of one batch follow each other.
        """

    def added(self, vectors: int) -> None:
        """Know that a batch of so many vectors was shown."""

    def saved(self, shards: int) -> None:
        """Save, if it is time to, what it knows after so many shards; called before the last of them is written."""


@dataclass(frozen=True)
class Activations:
    """Captured activations: where they are, and what they are. Nothing is in memory until it is read."""

    directory: Path
    widths: dict[str, int]
    """Width of each activation, by name."""
    shards: tuple[int, ...]
    """Vectors of each shard."""
    digests: tuple[str, ...]
    """Hash of each shard's bytes."""
    provenance: dict[str, Any]

    @property
    def vectors(self) -> int:
        """Number of vectors of each name."""
        return sum(self.shards)

    def labels(self) -> Labels:
        """Return which token each vector belongs to.

        Raises:
            ValueError: a shard is corrupt.
        """
        parts = ([self._rows(shard, name, slice(None)) for shard in range(len(self.shards))] for name in LABELS)
        return Labels(*(np.concatenate(part) for part in parts))

    def read(self, name: str) -> Float[np.ndarray, "vectors width"]:
        """Return all vectors of a name: 4 · vectors · width bytes.

        Raises:
            ValueError: there are none of that name, or a shard is corrupt.
        """
        vectors = np.empty((self.vectors, self._width(name)), dtype=np.float32)
        filled = 0
        for block in self.blocks(name):
            vectors[filled : filled + len(block)] = block
            filled += len(block)
        return vectors

    def blocks(self, name: str, vectors: int = 4096) -> Iterator[Float[np.ndarray, "rows width"]]:
        """Yield the vectors of a name in order, at most ``vectors`` at a time.

        Raises:
            ValueError: there are none of that name, or a shard is corrupt.
        """
        self._width(name)
        for shard, rows in self._runs(vectors):
            yield self._rows(shard, name, rows)

    def batches(
        self, names: Sequence[str], size: int, generator: np.random.Generator, buffer: int = 2**15, run: int = 64
    ) -> Iterator[dict[str, Float[Tensor, "batch _"]]]:
        """Yield each vector once, in a shuffled order that the generator decides, in batches.

        Row i of every name in a batch belongs to the same token. Runs of neighbouring vectors are read in a random
        order into a buffer, which is shuffled as a whole: with more vectors than fit in the buffer neighbours stay
        in the same part of the pass, and with fewer every order is equally likely.

        Args:
            names: which activations.
            size: vectors of a batch; the last one of the pass may have fewer.
            generator: such as ``seeded(seed, "activations", number_of_the_pass)``.
            buffer: vectors of each name held in memory.
            run: neighbouring vectors read together.

        Raises:
            ValueError: there are none of these names, a size is not positive, or a shard is corrupt.
        """
        if min(size, buffer, run) < 1:
            raise ValueError(f"batches: size {size}, buffer {buffer} and run {run} must be 1 or more")
        runs = list(self._runs(run))
        capacity = min(buffer + run + size, self.vectors)
        pool = {name: np.empty((capacity, self._width(name)), dtype=np.float32) for name in names}
        filled = 0
        for number, chosen in enumerate(generator.permutation(len(runs)), 1):
            shard, rows = runs[chosen]
            count = rows.stop - rows.start
            for name, held in pool.items():
                held[filled : filled + count] = self._rows(shard, name, rows)
            filled += count
            last = number == len(runs)
            if filled < max(buffer, size) and not last:
                continue
            order = generator.permutation(filled)
            whole = filled if last else filled - filled % size
            for start in range(0, whole, size):
                batch = order[start : min(start + size, whole)]
                yield {name: torch.from_numpy(held[batch]) for name, held in pool.items()}
            rest = order[whole:]
            for held in pool.values():
                held[: len(rest)] = held[rest]
            filled = len(rest)

    def verify(self) -> None:
        """Read every byte and compare it with what was captured.

        Raises:
            ValueError: a shard is corrupt.
        """
        for shard, digest in enumerate(self.digests):
            path = shard_path(self.directory, shard)
            if file_digest(path) != digest:
                raise _corrupt(path, "its bytes are not those that were captured")

    def _width(self, name: str) -> int:
        if name not in self.widths:
            raise ValueError(f"{self.directory}: no activations {name!r}; there are {sorted(self.widths)}")
        return self.widths[name]

    def _runs(self, vectors: int) -> Iterator[tuple[int, slice]]:
        for shard, count in enumerate(self.shards):
            for start in range(0, count, vectors):
                yield shard, slice(start, min(start + vectors, count))

    def _rows(self, shard: int, name: str, rows: slice) -> np.ndarray:
        path = shard_path(self.directory, shard)
        try:
            return read_tensor(path, name, rows)
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise _corrupt(path, str(error.__cause__ or error)) from error


def shard_path(directory: str | Path, shard: int) -> Path:
    """Return the path of a shard, counted from 0."""
    return Path(directory) / f"shard-{shard:05d}.safetensors"


def beyond_the_first(
    tokens: Int64[np.ndarray, "sequences position"], mask: Bool[np.ndarray, "sequences position"] | None = None
) -> Bool[np.ndarray, "sequences position"]:
    """Return where there is a token but the first of its sequence, which attention uses as a sink.

    >>> beyond_the_first(np.zeros((2, 3), dtype=np.int64), np.array([[True, True, True], [False, True, True]]))
    array([[False,  True,  True],
           [False, False,  True]])
    """
    there = np.ones(tokens.shape, dtype=bool) if mask is None else mask
    return there & (there.cumsum(1) > 1)


def shared_prefix(
    tokens: Int64[np.ndarray, "sequences position"],
    mask: Bool[np.ndarray, "sequences position"] | None,
    keep: Bool[np.ndarray, "sequences position"],
) -> int:
    """Return with how many of the same tokens all sequences begin, none of them kept; padding on the left is passed.

    >>> tokens = np.array([[0, 7, 8, 3], [7, 8, 4, 3]])
    >>> shared_prefix(tokens, np.array([[False, True, True, True], [True] * 4]), tokens == 3)
    2
    """
    starts = np.zeros(len(tokens), dtype=int) if mask is None else mask.argmax(1)
    if mask is not None and (np.diff(mask.astype(int), axis=1) < 0).any():
        return 0  # padded elsewhere
    kept = keep if mask is None else keep & mask
    first = np.where(kept.any(1), kept.argmax(1), tokens.shape[1]) - starts
    most = int(min(first.min(), (tokens.shape[1] - starts).min() - 1))
    begin = _after_padding(tokens, mask, most)
    same = (begin == begin[0]).all(0)
    return most if same.all() else int(same.argmin())


def capture(
    model: LanguageModel,
    tokens: Int64[np.ndarray, "sequences position"],
    names: Sequence[str],
    directory: str | Path,
    *,
    mask: Bool[np.ndarray, "sequences position"] | None = None,
    keep: Bool[np.ndarray, "sequences position"] | None = None,
    batch_size: int = 8,
    shard_bytes: int = SHARD_BYTES,
    provenance: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
    prefix: int = 0,
) -> Activations:
    """Run the model over the tokens and write its activations, or open them if they are there.

    A capture that was killed continues with the first shard that is missing or damaged, and ends with the same bytes as
    one that was not.

    Args:
        model: the model.
        tokens: sequences of tokens.
        names: which activations, of :attr:`LanguageModel.names`.
        directory: where to write; of this capture alone.
        mask: false where a sequence is padded.
        keep: at which tokens, such as :func:`beyond_the_first`; None: at all that are not padding.
        batch_size: sequences run together; other sizes round differently.
        shard_bytes: about how large a shard is.
        provenance: recorded beside what the capture itself records (model, hash of its weights, tokens, names).
        observer: is shown every batch, in the same pass. A shard on disk that it has not seen is captured again.
        prefix: with how many tokens all sequences begin after their padding, which is on the left, that are read once
            for all of them (:func:`shared_prefix`); what is kept differs by rounding from what it is with 0.

    Raises:
        ValueError: the model has no such activations or cannot read the tokens, nothing is to be kept, an activation
            is not finite, the directory holds another capture, or the sequences do not begin with the same tokens.
    """
    check_names(model, names)
    kept = np.ones(tokens.shape, dtype=bool) if keep is None else keep
    kept = kept if mask is None else kept & mask
    if kept.shape != tokens.shape or not kept.any():
        raise ValueError(f"keep: {kept.sum()} of the tokens, of shape {kept.shape}; keep some of {tokens.shape}")
    if min(batch_size, shard_bytes) < 1:
        raise ValueError(f"capture: batch_size {batch_size} and shard_bytes {shard_bytes} must be 1 or more")
    if prefix and not 0 < prefix <= shared_prefix(tokens, mask, kept):
        raise ValueError(f"prefix: {prefix} tokens, and {shared_prefix(tokens, mask, kept)} are shared and not kept")
    directory = Path(directory)
    widths = {name: activation_width(model.sizes, name) for name in dict.fromkeys(names)}
    sequences = np.flatnonzero(kept.any(1))
    largest = 4 * int(kept.sum(1).max()) * sum(widths.values())
    per_shard = batch_size * max(1, shard_bytes // (largest * batch_size))
    parts = [sequences[start : start + per_shard] for start in range(0, len(sequences), per_shard)]
    recorded = json.loads(
        json.dumps(
            dict(provenance or {})
            | {
                "model": model.name,
                "origin": model.origin,
                "weights": model.digest(),
                "tokens": _array_digest(tokens, np.ones(tokens.shape, bool) if mask is None else mask, kept),
                "names": list(widths),
                "batch_size": batch_size,
                "sequences_per_shard": per_shard,
            }
            | ({"prefix": prefix} if prefix else {}),
            default=str,
        )
    )
    directory.mkdir(parents=True, exist_ok=True)
    runs = _Sequences(model, tokens, mask, kept, prefix)
    for leftover in directory.glob(".shard-*"):  # of a capture that was killed while it wrote
        leftover.unlink()
    for shard, chosen in enumerate(parts):
        path = shard_path(directory, shard)
        unseen = observer is not None and observer.done <= shard
        if unseen or not _is_whole(path, widths, int(kept[chosen].sum()), recorded):
            watching = observer if unseen else None
            arrays = _capture_shard(runs, chosen, widths, batch_size, watching)
            if watching is not None:
                watching.saved(shard + 1)
            write_tensors(path, arrays, recorded)
    written = {
        "widths": widths,
        "shards": [int(kept[chosen].sum()) for chosen in parts],
        "digests": [file_digest(shard_path(directory, shard)) for shard in range(len(parts))],
        "provenance": recorded,
    }
    write_json(directory / INDEX, written)
    return open_activations(directory)


def open_activations(directory: str | Path) -> Activations:
    """Open the activations that :func:`capture` wrote; shards are looked at, not read.

    Raises:
        FileNotFoundError: there are none, or their capture did not finish.
        ValueError: a shard is missing or corrupt, or the index is.
    """
    directory = Path(directory)
    if not (directory / INDEX).exists():
        raise FileNotFoundError(f"{directory}: holds no {INDEX}; capture activations there, or let a capture finish")
    index = read_json(directory / INDEX)
    for shard, vectors in enumerate(index["shards"]):
        _check_shard(shard_path(directory, shard), index["widths"], vectors, index["provenance"])
    return Activations(directory, index["widths"], tuple(index["shards"]), tuple(index["digests"]), index["provenance"])


def _see(
    kept: Mapping[str, Float[np.ndarray, "vectors _"]],
    observed: Collection[str],
    observer: Observer | None,
    model: str,
    where: str,
    name: str,
    vectors: Float[Tensor, "*vectors _"],
) -> None:
    """Show the vectors of an activation to the observer, and keep them if they are to be kept."""
    if observer is not None and name in observed:
        observer.add(name, vectors)
    if name in kept:
        kept[name].reshape(vectors.shape)[...] = vectors.float().cpu().numpy()
        if not all_finite(kept[name]):
            raise ValueError(f"{model}: {name} is not finite in {where}; leave it out")


class _Sequences:
    """What a capture runs: all sequences, or what follows the tokens that they share."""

    def __init__(
        self,
        model: LanguageModel,
        tokens: Int64[np.ndarray, "sequences position"],
        mask: Bool[np.ndarray, "sequences position"] | None,
        kept: Bool[np.ndarray, "sequences position"],
        prefix: int,
    ):
        self.name, self.kept, self._model, self._prefix = model.name, kept, model, prefix
        self._tokens, self._mask, self._kept = tokens, mask, kept
        if prefix:
            self._shared = torch.from_numpy(_after_padding(tokens, mask, prefix)[0])
            # what follows is padded on the right: between both, padding would count where attention has a window
            starts = np.zeros((len(tokens), 1), dtype=int) if mask is None else mask.argmax(1)[:, None]
            columns = starts + np.arange(prefix, tokens.shape[1] - starts.min())
            there = columns < tokens.shape[1]
            columns = np.minimum(columns, tokens.shape[1] - 1)
            self._tokens, self._mask = np.take_along_axis(tokens, columns, 1), None
            self._kept = np.take_along_axis(kept, columns, 1) & there

    @cached_property
    def _run(self) -> LanguageModel:
        return self._model.after(self._shared) if self._prefix else self._model

    def visit(
        self,
        batch: Int64[np.ndarray, " batch"],
        names: Sequence[str],
        see: Callable[[str, Float[Tensor, "*vectors _"]], None],
    ) -> None:
        """Show the vectors that are kept of a batch of sequences, name by name."""
        padding = None if self._mask is None else torch.from_numpy(self._mask[batch])
        kept = self._kept[batch]
        here, columns = torch.from_numpy(np.flatnonzero(kept)), np.flatnonzero(kept[0])
        span = slice(int(columns[0]), int(columns[-1]) + 1) if len(columns) else slice(0)
        # the same neighbours of every sequence need no copy
        together = bool(kept[:, span].all()) and kept.sum() == kept[:, span].size

        def chosen(name: str, value: Tensor) -> None:
            some = value[:, span] if together else value.flatten(0, 1).index_select(0, here.to(value.device))
            see(name, some)

        self._run.visit(torch.from_numpy(self._tokens[batch]), names, chosen, padding)


def _capture_shard(
    runs: _Sequences,
    chosen: Int64[np.ndarray, " chosen"],
    widths: Mapping[str, int],
    batch_size: int,
    observer: Observer | None,
) -> dict[str, np.ndarray]:
    observed = set(observer.names) if observer else set()
    names = [*widths, *sorted(observed - widths.keys())]
    sequence, position = np.nonzero(runs.kept[chosen])
    arrays = {name: np.empty((len(sequence), width), dtype=np.float32) for name, width in widths.items()}
    filled = 0
    for start in range(0, len(chosen), batch_size):
        batch = chosen[start : start + batch_size]
        rows = slice(filled, filled + int(runs.kept[batch].sum()))
        here = {name: array[rows] for name, array in arrays.items()}
        where = f"sequences {batch[0]} to {batch[-1]}"
        runs.visit(batch, names, partial(_see, here, observed, observer, runs.name, where))
        if observer is not None:
            observer.added(rows.stop - rows.start)
        filled = rows.stop
    return arrays | {"sequence": chosen[sequence], "position": position}


def _is_whole(path: Path, widths: Mapping[str, int], vectors: int, provenance: Mapping[str, Any]) -> bool:
    """Whether a shard need not be captured again; an error if it is of another capture."""
    try:
        with suppress(WithoutDigestsError):
            verify_file(path)
        _check_shard(path, widths, vectors, provenance)
    except FileNotFoundError:
        return False
    except ValueError as error:
        if isinstance(error, AnotherCaptureError):
            raise
        return False
    return True


def _check_shard(path: Path, widths: Mapping[str, int], vectors: int, provenance: Mapping[str, Any]) -> None:
    try:
        shapes, recorded = read_tensor_shapes(path), read_tensor_metadata(path)
    except (ValueError, FileNotFoundError) as error:
        raise _corrupt(path, str(error.__cause__ or "it is not there")) from error
    for key in sorted(provenance.keys() | recorded.keys()):
        if provenance.get(key) != recorded.get(key):
            raise AnotherCaptureError(
                f"{path}: of another capture: its {key} is {recorded.get(key)!r}, not {provenance.get(key)!r}; "
                "capture into another directory"
            )
    expected = {name: (vectors, width) for name, width in widths.items()} | dict.fromkeys(LABELS, (vectors,))
    for name in [*expected, *shapes]:
        if shapes.get(name) != expected.get(name):
            raise _corrupt(path, f"{name} has the shape {shapes.get(name)}, not {expected.get(name)}")


def _corrupt(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path}: a corrupt shard ({why}); {how_to_make_again(path)} to make it again, or, outside the workflow, "
        "capture into the same directory, which writes this shard alone"
    )


def all_finite(array: np.ndarray) -> bool:
    """Whether every number of a float32 array is finite: their sum in float64 is, as it cannot overflow.

    >>> all_finite(np.float32([3e38, 3e38, 1])), all_finite(np.float32([np.inf, -np.inf, 1]))
    (True, False)
    """
    with np.errstate(invalid="ignore"):  # of infinities of both signs
        return bool(np.isfinite(array.sum(dtype=np.float64)))


def _after_padding(
    tokens: Int64[np.ndarray, "sequences position"], mask: Bool[np.ndarray, "sequences position"] | None, count: int
) -> Int64[np.ndarray, "sequences count"]:
    """The first tokens of sequences that are padded on the left."""
    starts = np.zeros((len(tokens), 1), dtype=int) if mask is None else mask.argmax(1)[:, None]
    return np.take_along_axis(tokens, starts + np.arange(count), 1)


def _array_digest(*arrays: np.ndarray) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    for array in arrays:
        hasher.update(f"{array.dtype} {array.shape};".encode())
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()
