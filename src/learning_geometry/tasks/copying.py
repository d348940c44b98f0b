"""Copying: random tokens with one segment repeated, so that the second copy can be predicted from the first.

A sequence of T tokens is noise, s, noise, s, noise. In distribution, noise and segment are independent draws
from p(i) ∝ 1 / (i + zipf_offset), i = 1..vocabulary (token i - 1), and |s| is uniform over the range
``segment_length``; out of distribution p is uniform and |s| is ``out_of_distribution_segment_length``. A
model that knows token frequencies alone stays on a plateau (error 1 - max p in distribution); one that looks
up what followed the last match copies both.

Where the copies lie: two different offsets a < b are drawn from {0, ..., T - 2|s| - 1}; the first copy starts
at a, the second at b + |s|. The first ends before a + |s|, so b - a >= 1 tokens lie between the copies; the
second ends before b + 2|s| <= T - 1, so at least one token follows it. None need precede the first. Two
different offsets exist if T - 2|s| >= 2.

Source: Song, Xu & Zhong, "Out-of-distribution generalization via composition: a lens through induction heads
in Transformers", PNAS 2025 (arXiv:2408.09503), the synthetic copying task and its published code.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from learning_geometry.seeding import seeded
from learning_geometry.tasks.batch import IGNORED, Batch

SETTINGS: dict[str, dict[str, Any]] = {
    "vocabulary": {
        "type": "integer",
        "minimum": 2,
        "default": 64,
        "description": "number of different tokens",
    },
    "length": {
        "type": "integer",
        "minimum": 14,
        "default": 64,
        "description": "tokens per sequence, T",
    },
    "zipf_offset": {
        "type": "number",
        "exclusiveMinimum": -1,
        "default": 2.7,
        "description": "c in the in-distribution token probabilities p(i) ∝ 1 / (i + c), i = 1..vocabulary",
    },
    "segment_length": {
        "type": "array",
        "items": {"type": "integer", "minimum": 6},
        "minItems": 2,
        "maxItems": 2,
        "default": [10, 19],
        "description": "shortest and longest repeated segment in distribution, both included",
    },
    "out_of_distribution_segment_length": {
        "type": "integer",
        "minimum": 6,
        "default": 25,
        "description": "length of the repeated segment out of distribution",
    },
    "pool_size": {
        "type": ["integer", "null"],
        "minimum": 1,
        "default": None,
        "description": "number of segments drawn once per run, for training and the in-distribution test; "
        "null draws a fresh segment for every sequence",
    },
    "test_sequences": {
        "type": "integer",
        "minimum": 1,
        "default": 5000,
        "description": "sequences in each test set",
    },
}
"""JSON Schema of each setting; a literal, so that it can be read without importing the module."""

ARRAYS = ("tokens", "targets", "first_start", "second_start", "segment_length")
"""Arrays of every test set; a literal, as all of these."""

ERRORS = (
    "error",
    "error_published_mask",
)
"""What ``errors`` returns."""

READOUTS = ("all",)
"""Read-outs of a model that can learn it: the last position has no target."""

SKIPPED = 4
"""Positions at the start of the second copy that the errors leave out: the match must be found first."""


def check(settings: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the setting and the remedy, if the settings exclude each other."""
    length, (shortest, longest) = settings["length"], settings["segment_length"]
    if settings["vocabulary"] < 2:
        raise ValueError(f"vocabulary: {settings['vocabulary']} leaves nothing to predict; use 2 or more")
    if settings["zipf_offset"] <= -1:
        raise ValueError(
            f"zipf_offset: {settings['zipf_offset']} makes 1 / (1 + zipf_offset) infinite or negative; "
            "use a number above -1"
        )
    if shortest > longest:
        raise ValueError(
            f"segment_length: the shortest, {shortest}, exceeds the longest, {longest}; exchange the two numbers"
        )
    out = settings["out_of_distribution_segment_length"]
    for key, low, high in [
        ("segment_length", shortest, longest),
        ("out_of_distribution_segment_length", out, out),
    ]:
        if low < SKIPPED + 2:
            raise ValueError(
                f"{key}: a segment of {low} tokens has no scored position once the first {SKIPPED} "
                f"are skipped; use {SKIPPED + 2} or more"
            )
        if 2 * high + 2 > length:
            raise ValueError(
                f"{key}: two copies of {high} tokens, one token between and one after need {2 * high + 2} "
                f"positions and length is {length}; use at most {(length - 2) // 2} or a greater length"
            )
    if settings["pool_size"] is not None and settings["pool_size"] < 1:
        raise ValueError(
            f"pool_size: {settings['pool_size']} leaves no segment to draw; use 1 or more, or null for fresh segments"
        )
    if settings["test_sequences"] < 1:
        raise ValueError(f"test_sequences: {settings['test_sequences']} leaves nothing to test on; use 1 or more")


def vocabulary(settings: Mapping[str, Any]) -> int:
    """Return the number of different input tokens."""
    return settings["vocabulary"]


def outputs(settings: Mapping[str, Any]) -> int:
    """Return the number of classes to predict: every token of the vocabulary."""
    return settings["vocabulary"]


def length(settings: Mapping[str, Any]) -> int:
    """Return the number of tokens per sequence."""
    return settings["length"]


def token_probabilities(settings: Mapping[str, Any]) -> Float64[np.ndarray, " token"]:
    """Return the in-distribution token probabilities, largest first; they sum to 1.

    >>> p = token_probabilities({"vocabulary": 64, "zipf_offset": 2.7})
    >>> f"largest {p[0]:.4f}, entropy {-(p * np.log(p)).sum():.2f} nats, plateau of the error {1 - p[0]:.3f}"
    'largest 0.0889, entropy 3.80 nats, plateau of the error 0.911'
    """
    weights = 1.0 / (np.arange(1, settings["vocabulary"] + 1) + settings["zipf_offset"])
    return weights / weights.sum()


def drawn_once(settings: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Draw what a run draws once: its pool of segments.

    Returns:
        An empty dictionary for fresh segments; else ``segments``, int64 [pool_size, longest segment], padded
        with -1, and ``lengths``, int64 [pool_size].
    """
    if settings["pool_size"] is None:
        return {}
    generator = seeded(seed, "copying", "pool")
    shortest, longest = settings["segment_length"]
    lengths = generator.integers(shortest, longest + 1, settings["pool_size"])
    segments = _tokens(settings, generator, (settings["pool_size"], longest))
    return {"segments": np.where(np.arange(longest) < lengths[:, None], segments, -1), "lengths": lengths}


def training_batch(
    settings: Mapping[str, Any],
    drawn_once: Mapping[str, np.ndarray],
    generator: np.random.Generator,
    size: int,
    step: int = 0,
) -> Batch:
    """Draw ``size`` in-distribution sequences; targets are the next tokens, ``IGNORED`` at the last."""
    del step  # part of every task's interface; this one is the same throughout training
    drawn = _in_distribution(settings, drawn_once, generator, size)
    return Batch(drawn["tokens"], drawn["targets"])


def test_sets(
    settings: Mapping[str, Any], drawn_once: Mapping[str, np.ndarray], seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Draw the fixed test sets ``in_distribution`` and ``out_of_distribution``.

    They are the same for every seed, except that the in-distribution segments come from the run's pool if it
    has one (``drawn_once``); the noise around them and their positions come from one generator either way.

    Returns:
        By name of the test set, int64 arrays: ``tokens`` and ``targets`` [test_sequences, length];
        ``first_start``, ``second_start`` and ``segment_length`` [test_sequences] say where the copies are.
    """
    del seed  # part of every task's interface
    size = settings["test_sequences"]
    return {
        "in_distribution": _in_distribution(settings, drawn_once, seeded("copying", "test", "in_distribution"), size),
        "out_of_distribution": out_of_distribution(settings, seeded("copying", "test", "out_of_distribution"), size),
    }


def out_of_distribution(
    settings: Mapping[str, Any], generator: np.random.Generator, size: int
) -> dict[str, np.ndarray]:
    """Draw ``size`` out-of-distribution sequences; with another ``length`` in the settings, of that length.

    Returns:
        Arrays as of :func:`test_sets`.
    """
    lengths = np.full(size, settings["out_of_distribution_segment_length"], dtype=np.int64)
    uniform = generator.integers(settings["vocabulary"], size=(size, settings["length"]))
    return _sequences(uniform, lengths, generator)


def test_set_sizes(settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of sequences of each test set, without drawing any."""
    return dict.fromkeys(("in_distribution", "out_of_distribution"), settings["test_sequences"])


def at_length(settings: Mapping[str, Any], length: int, scale_segments: bool = False) -> dict[str, Any]:
    """Return the settings of out-of-distribution sequences of another length, for :func:`out_of_distribution`.

    Args:
        settings: of the task.
        length: tokens per sequence.
        scale_segments: whether the repeated segment grows by the same factor, rounded, to one token at least.

    Raises:
        ValueError: two copies do not fit in that length, or have no scored position.
    """
    segment = settings["out_of_distribution_segment_length"]
    if scale_segments:
        segment = max(round(segment * length / settings["length"]), 1)
    changed = dict(settings) | {"length": length, "out_of_distribution_segment_length": segment}
    # shorter segments in distribution than any length leaves room for: they are not drawn here
    check(changed | {"segment_length": [segment, segment]})
    return changed


def errors(
    predictions: Int64[np.ndarray, "sequence position"], test_set: Mapping[str, np.ndarray]
) -> dict[str, Float64[np.ndarray, " sequence"]]:
    """Count wrong predictions on the second copy, per sequence.

    ``predictions[:, t]`` is the most probable token t + 1 given the tokens up to t. With the second copy at
    b, ..., b + |s| - 1:

    - ``error``: positions t = b + 4, ..., b + |s| - 2, targets b + 5, ..., b + |s| - 1: all can be copied.
      A perfect copier has 0.
    - ``error_published_mask``: the published mask, which also has t = b + |s| - 1. Its target is the random
      token after the copy, so a perfect copier keeps a floor of (1 - max p) / mean(|s| - 4): with the default
      settings .911 / 10.5 = .087 in distribution and (63 / 64) / 21 = .047 out of distribution.

    Returns:
        For each error, one number per sequence: its wrong predictions over the **mean** number of scored
        positions of the test set. So the mean over sequences is the fraction of wrong predictions among all
        scored positions (as published: every position counts alike, long segments count more). With segments
        of different lengths a single sequence may exceed 1.
    """
    positions = np.arange(predictions.shape[1])
    begin, end = test_set["second_start"], test_set["second_start"] + test_set["segment_length"]
    published = (positions >= begin[:, None] + SKIPPED) & (positions < end[:, None])
    copied = published & (positions < end[:, None] - 1)
    wrong = predictions != test_set["targets"]
    return {
        name: (wrong & mask).sum(1) / mask.sum(1).mean()
        for name, mask in [("error", copied), ("error_published_mask", published)]
    }


def _in_distribution(
    settings: Mapping[str, Any], drawn_once: Mapping[str, np.ndarray], generator: np.random.Generator, size: int
) -> dict[str, np.ndarray]:
    noise = _tokens(settings, generator, (size, settings["length"]))
    if not drawn_once:
        shortest, longest = settings["segment_length"]
        return _sequences(noise, generator.integers(shortest, longest + 1, size), generator)
    chosen = generator.integers(len(drawn_once["lengths"]), size=size)
    return _sequences(noise, drawn_once["lengths"][chosen], generator, drawn_once["segments"][chosen])


def _sequences(
    noise: Int64[np.ndarray, "sequence position"],
    lengths: Int64[np.ndarray, " sequence"],
    generator: np.random.Generator,
    segments: Int64[np.ndarray, "sequence longest"] | None = None,
) -> dict[str, np.ndarray]:
    """Place the two copies (of ``segments`` if given) in the noise and say where they are."""
    size, length = noise.shape
    offsets = length - 2 * lengths
    # floor(u n) of a uniform u < 1 stays below n, and is faster than integers() with an array of bounds
    uniforms = generator.random((2, size))
    one = (uniforms[0] * offsets).astype(np.int64)
    other = (uniforms[1] * (offsets - 1)).astype(np.int64)
    other += other >= one  # uniform over the offsets that differ from `one`
    first, second = np.minimum(one, other), np.maximum(one, other) + lengths

    positions = np.arange(length)
    # without given segments the noise already at the first copy is the segment: both are drawn from p
    if segments is not None:
        within = positions - first[:, None]
        inside = (within >= 0) & (within < lengths[:, None])
        longest = segments.shape[1]
        padded = segments.ravel().take(longest * np.arange(size)[:, None] + within.clip(0, longest - 1))
        noise = np.where(inside, padded, noise)
    within = positions - second[:, None]
    inside = (within >= 0) & (within < lengths[:, None])
    source = positions - inside * (second - first)[:, None]
    tokens = noise.ravel().take(length * np.arange(size)[:, None] + source)

    targets = np.full_like(tokens, IGNORED)
    targets[:, :-1] = tokens[:, 1:]
    return {
        "tokens": tokens,
        "targets": targets,
        "first_start": first,
        "second_start": second,
        "segment_length": lengths,
    }


def _tokens(
    settings: Mapping[str, Any], generator: np.random.Generator, shape: tuple[int, int]
) -> Int64[np.ndarray, "row column"]:
    """Draw independent in-distribution tokens by inverting the cumulative distribution with a guide table."""
    cumulative, guide = _guide_table(settings["vocabulary"], settings["zipf_offset"])
    uniforms = generator.random(shape)
    tokens = guide.take((uniforms * len(guide)).astype(np.int64))
    return tokens + (uniforms >= cumulative.take(tokens))


@lru_cache(maxsize=8)
def _guide_table(
    vocabulary: int, zipf_offset: float
) -> tuple[Float64[np.ndarray, " token"], Int64[np.ndarray, " bin"]]:
    """Return the cumulative probabilities and, per bin of [0, 1), the token at the bin's lower edge.

    A bin is no wider than the smallest probability, so within it the token increases by one at most (Chen &
    Asau, "On generating random variates from an empirical distribution", AIIE Transactions 1974).
    """
    probabilities = token_probabilities({"vocabulary": vocabulary, "zipf_offset": zipf_offset})
    cumulative = probabilities.cumsum()
    cumulative /= cumulative[-1]  # ends at exactly 1, so that no uniform lies beyond the last token
    bins = int(np.ceil(1 / probabilities[-1])) + 1
    guide = np.searchsorted(cumulative, np.arange(bins) / bins, side="right")
    cumulative.flags.writeable = guide.flags.writeable = False  # shared between calls
    return cumulative, guide
