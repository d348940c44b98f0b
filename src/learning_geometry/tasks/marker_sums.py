"""Marker sums: add up, modulo C, the values that follow the markers of a sequence, and say it at the last position.

A sequence of T tokens holds m markers at positions p_0 < ... < p_{m-1} from {1, ..., T - 2}, at least two apart.
Marker i, in order of position, is token ``first_marker`` + i; the value after it is a token from {0, ..., C - 1}. The
label is the sum of the values modulo C. All other tokens are distractors, uniform over

- ``published``: every token but the values and the m markers of the batch. Values then occur after markers alone, so
  **a model can add up the small tokens of a sequence without looking at the markers**.
- ``any``: every token but the markers of the task (those of its largest m). A distractor may be a value token, so the
  values must be found by their markers: routing is needed. No distractor is a marker, or the label would be ambiguous.

A batch has one m and one set of marker positions, uniform over the sets allowed, as published; a test set has one m and
positions of its own for every sequence. Training data is fresh in every step.

Source: Xu, "Low-Dimensional Execution Manifolds in Transformer Learning Dynamics" (arXiv 2602.10496), its released
code. The paper's text differs in details (a modulus of 16 in places).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from learning_geometry.seeding import seeded
from learning_geometry.tasks.batch import IGNORED, Batch

SETTINGS: dict[str, dict[str, Any]] = {
    "vocabulary": {
        "type": "integer",
        "minimum": 3,
        "default": 256,
        "description": "number of different tokens",
    },
    "length": {
        "type": "integer",
        "minimum": 3,
        "default": 16,
        "description": "tokens per sequence, T",
    },
    "modulus": {
        "type": "integer",
        "minimum": 2,
        "default": 8,
        "description": "C: values are the tokens 0 to C - 1, labels their sums modulo C",
    },
    "markers": {
        "type": "array",
        "items": {"type": "integer", "minimum": 1},
        "minItems": 1,
        "uniqueItems": True,
        "default": [1, 2, 3, 4],
        "description": "numbers of markers m that a sequence may have; every batch draws one of them",
    },
    "first_marker": {
        "type": "integer",
        "minimum": 2,
        "default": 100,
        "description": "token of the first marker of a sequence; the next ones follow it",
    },
    "distractors": {
        "enum": ["published", "any"],
        "default": "published",
        "description": "tokens beside markers and values: published excludes the values and the markers in use, so "
        "that small tokens can be summed without markers; any excludes the markers alone, so that routing is needed",
    },
    "curriculum": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "training begins with the first entry of markers, and the next one joins after every this many "
        "steps; 0 for all from the start",
    },
    "test_sequences": {
        "type": "integer",
        "minimum": 1,
        "default": 2000,
        "description": "sequences in each test set",
    },
}
"""JSON Schema of each setting; a literal, so that it can be read without importing the module."""

ARRAYS = ("tokens", "targets", "marker_positions", "values")
"""Arrays of every test set; a literal, as all of these."""

ERRORS = ("error",)
"""What ``errors`` returns."""

READOUTS = (
    "all",
    "last",
)
"""Read-outs of a model that can learn it: the last position has a target."""

ANY = "_any_distractors"
"""What the name of a test set ends with whose distractors may be values, unlike in training."""


def check(settings: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the setting and the remedy, if the settings exclude each other."""
    vocabulary, length, modulus = settings["vocabulary"], settings["length"], settings["modulus"]
    markers, first = settings["markers"], settings["first_marker"]
    if modulus < 2:
        raise ValueError(f"modulus: {modulus} leaves one label, always right; use 2 or more")
    if not markers or min(markers) < 1:
        raise ValueError(f"markers: {markers} leaves sequences with nothing to sum; use numbers from 1 up")
    if len(set(markers)) < len(markers):
        raise ValueError(f"markers: {markers} names a number twice; name each once, every batch draws one of them")
    most = max(markers)
    if 2 * most - 1 > length - 2:
        raise ValueError(
            f"markers: {most} markers two apart, with a token before and a value after each, need {2 * most + 1} "
            f"positions and length is {length}; use at most {(length - 1) // 2} or a greater length"
        )
    if first < modulus:
        raise ValueError(
            f"first_marker: token {first} is also a value, as values are the tokens 0 to {modulus - 1}; "
            f"use {modulus} or more, or a smaller modulus"
        )
    if first + most > vocabulary:
        raise ValueError(
            f"first_marker: {most} markers from token {first} on end at {first + most - 1} and the last token is "
            f"{vocabulary - 1}; use at most {vocabulary - most} or a larger vocabulary"
        )
    if settings["distractors"] not in ("published", "any"):
        raise ValueError(f"distractors: {settings['distractors']!r} is not known; use published or any")
    # one spare position at least is no marker and no value, and with `any` the values serve
    if settings["distractors"] == "published" and vocabulary - modulus - most < 1:
        raise ValueError(
            f"vocabulary: {modulus} values and {most} markers leave none of {vocabulary} tokens for distractors; "
            f"use {modulus + most + 1} or more, or distractors: any"
        )
    if settings["curriculum"] < 0:
        raise ValueError(f"curriculum: {settings['curriculum']} steps is negative; use 0 for no curriculum, or more")
    if settings["test_sequences"] < 1:
        raise ValueError(f"test_sequences: {settings['test_sequences']} leaves nothing to test on; use 1 or more")


def vocabulary(settings: Mapping[str, Any]) -> int:
    """Return the number of different input tokens."""
    return settings["vocabulary"]


def outputs(settings: Mapping[str, Any]) -> int:
    """Return the number of classes to predict: the residues modulo C."""
    return settings["modulus"]


def length(settings: Mapping[str, Any]) -> int:
    """Return the number of tokens per sequence."""
    return settings["length"]


def drawn_once(settings: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Return an empty dictionary: nothing is drawn once per run."""
    del settings, seed  # part of every task's interface
    return {}


def markers_at(settings: Mapping[str, Any], step: int) -> list[int]:
    """Return the numbers of markers that batches draw from at a training step, in the order of the setting.

    >>> settings = {"markers": [1, 2, 4], "curriculum": 100}
    >>> [markers_at(settings, step) for step in (0, 99, 100, 5000)]
    [[1], [1], [1, 2], [1, 2, 4]]
    """
    if settings["curriculum"] == 0:
        return list(settings["markers"])
    return list(settings["markers"][: 1 + step // settings["curriculum"]])


def training_batch(
    settings: Mapping[str, Any],
    drawn_once: Mapping[str, np.ndarray],
    generator: np.random.Generator,
    size: int,
    step: int = 0,
) -> Batch:
    """Draw ``size`` sequences with one number of markers at one set of positions; ``step`` is for the curriculum.

    Targets are ``IGNORED`` but at the last position.
    """
    del drawn_once  # part of every task's interface
    allowed = markers_at(settings, step)
    m = allowed[int(generator.integers(len(allowed)))]
    positions = marker_positions(settings["length"], m, 1, generator)
    values = generator.integers(settings["modulus"], size=(size, m))
    tokens = _distractors(settings, settings["distractors"], m, generator, size)
    # the positions are shared: whole columns, several times faster than an entry for each sequence
    tokens[:, positions[0]] = settings["first_marker"] + np.arange(m)
    tokens[:, positions[0] + 1] = values
    return Batch(tokens, _targets(settings, tokens, values))


def test_sets(
    settings: Mapping[str, Any], drawn_once: Mapping[str, np.ndarray], seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Draw the fixed test sets, the same for every seed: ``markers_<m>`` for each number m of markers.

    If training's distractors are ``published``, there is also ``markers_<m>_any_distractors``: the same positions and
    values among distractors that may be values. A model that sums small tokens fails on it.

    Returns:
        By name of the test set, int64 arrays: ``tokens`` and ``targets`` [test_sequences, length],
        ``marker_positions`` and ``values`` [test_sequences, m].
    """
    del drawn_once, seed  # part of every task's interface
    size, kinds = settings["test_sequences"], {"": settings["distractors"]}
    if settings["distractors"] == "published":
        kinds[ANY] = "any"
    made = {}
    for m in settings["markers"]:
        generator = seeded("marker_sums", "test", m)
        positions = marker_positions(settings["length"], m, size, generator)
        values = generator.integers(settings["modulus"], size=(size, m))
        for suffix, kind in kinds.items():
            tokens = _distractors(settings, kind, m, seeded("marker_sums", "test", m, kind), size)
            np.put_along_axis(tokens, positions, settings["first_marker"] + np.arange(m)[None], axis=1)
            np.put_along_axis(tokens, positions + 1, values, axis=1)
            made[f"markers_{m}{suffix}"] = {
                "tokens": tokens,
                "targets": _targets(settings, tokens, values),
                "marker_positions": positions,
                "values": values,
            }
    return made


def test_set_sizes(settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of sequences of each test set, without drawing any."""
    suffixes = ("", ANY) if settings["distractors"] == "published" else ("",)
    return {f"markers_{m}{suffix}": settings["test_sequences"] for m in settings["markers"] for suffix in suffixes}


def errors(
    predictions: Int64[np.ndarray, "sequence read"], test_set: Mapping[str, np.ndarray]
) -> dict[str, Float64[np.ndarray, " sequence"]]:
    """Return ``error``, per sequence: 1 where the prediction at the last position is not the label, else 0."""
    return {"error": (predictions[:, -1] != test_set["targets"][:, -1]).astype(np.float64)}


def marker_positions(length: int, m: int, size: int, generator: np.random.Generator) -> Int64[np.ndarray, "size m"]:
    """Draw ``size`` ascending sets of m positions from {1, ..., length - 2}, two apart, each set equally likely.

    Sets of m numbers from {0, ..., n - 1}, n = length - 1 - m, become all allowed sets, each once, by adding i + 1 to
    the i-th smallest: that opens the gaps. So a uniform subset is drawn, the places of the m smallest of n uniforms.

    >>> marker_positions(5, 2, 1, seeded("the one way"))
    array([[1, 3]])
    """
    uniforms = generator.random((size, length - 1 - m))
    return np.sort(uniforms.argsort(1)[:, :m], axis=1) + np.arange(1, m + 1)


def _distractors(
    settings: Mapping[str, Any], kind: str, m: int, generator: np.random.Generator, size: int
) -> Int64[np.ndarray, "sequence position"]:
    """Draw whole sequences of distractors, to be overwritten where markers and values go."""
    lowest, excluded = (settings["modulus"], m) if kind == "published" else (0, max(settings["markers"]))
    tokens = generator.integers(lowest, settings["vocabulary"] - excluded, size=(size, settings["length"]))
    tokens[tokens >= settings["first_marker"]] += excluded  # skips the excluded markers
    return tokens


def _targets(
    settings: Mapping[str, Any],
    tokens: Int64[np.ndarray, "sequence position"],
    values: Int64[np.ndarray, "sequence m"],
) -> Int64[np.ndarray, "sequence position"]:
    targets = np.full_like(tokens, IGNORED)
    targets[:, -1] = values.sum(1) % settings["modulus"]
    return targets
