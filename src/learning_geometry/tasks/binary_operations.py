"""Binary operations modulo a prime p: some of the p² pairs train, the others test whether the operation was found.

A sequence is x, y, = (token p); the label, read at the last position, is one of

- ``add`` x + y, ``subtract`` x − y, ``multiply`` x y, ``square_sum`` x² + y²;
- ``quadratic_form`` x² + xy + y², ``cubic_form`` x³ + xy, which small transformers are published not to generalise;

modulo p. The training pairs are drawn once per seed, uniformly among all ordered pairs, so the mirror image of a pair
held out may be in training. Small transformers first fit the training pairs and, with weight decay, generalise long
after (grokking).

Source: Power et al., "Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets" (arXiv 2201.02177);
Nanda et al., "Progress measures for grokking via mechanistic interpretability" (arXiv 2301.05217), addition modulo
113; the set-up with six operations modulo 97 of Xu (arXiv 2602.16746).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from learning_geometry.seeding import seeded
from learning_geometry.tasks.batch import IGNORED, Batch

SETTINGS: dict[str, dict[str, Any]] = {
    "operation": {
        "enum": ["add", "subtract", "multiply", "square_sum", "quadratic_form", "cubic_form"],
        "default": "add",
        "description": "x + y, x − y, x y, x² + y², x² + xy + y² or x³ + xy, modulo the prime",
    },
    "prime": {
        "type": "integer",
        "minimum": 3,
        "default": 97,
        "description": "p: the numbers are 0 to p − 1",
    },
    "training_fraction": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.5,
        "description": "share of the p² pairs that are trained on; the others are held out",
    },
}
"""JSON Schema of each setting; a literal, so that it can be read without importing the module."""

ARRAYS = ("tokens", "targets")
"""Arrays of every test set; a literal, as all of these."""

ERRORS = ("error",)
"""What ``errors`` returns."""

READOUTS = (
    "all",
    "last",
)
"""Read-outs of a model that can learn it: the last position has a target."""

OPERATIONS = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "square_sum": lambda x, y: x**2 + y**2,
    "quadratic_form": lambda x, y: x**2 + x * y + y**2,
    "cubic_form": lambda x, y: x**3 + x * y,
}
"""By name, functions of integer arrays, before the modulus is taken."""

LARGEST_PRIME = 2_000_000
"""Above it x³ could overflow 64 bits; far below it, p² pairs fill the memory."""


def check(settings: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the setting and the remedy, if the settings exclude each other."""
    prime, fraction = settings["prime"], settings["training_fraction"]
    if settings["operation"] not in OPERATIONS:
        raise ValueError(f"operation: {settings['operation']!r} is not known; use one of {', '.join(OPERATIONS)}")
    if not 3 <= prime <= LARGEST_PRIME:
        raise ValueError(f"prime: {prime} is out of range; use a prime from 3 to {LARGEST_PRIME}")
    if not _is_prime(prime):
        below = next(n for n in range(prime - 1, 1, -1) if _is_prime(n))
        above = next(n for n in range(prime + 1, 2 * prime) if _is_prime(n))
        raise ValueError(f"prime: {prime} is not a prime number; the nearest are {below} and {above}")
    if not 0 < fraction < 1:
        raise ValueError(f"training_fraction: {fraction} leaves no pair to train on or none to test; use one in (0, 1)")
    trained = round(fraction * prime**2)
    if not 0 < trained < prime**2:
        raise ValueError(
            f"training_fraction: {fraction} of {prime**2} pairs rounds to {trained}; use one between "
            f"{1 / prime**2:.2g} and {1 - 1 / prime**2:.6g}"
        )


def vocabulary(settings: Mapping[str, Any]) -> int:
    """Return the number of different input tokens: the p numbers and the equality sign."""
    return settings["prime"] + 1


def outputs(settings: Mapping[str, Any]) -> int:
    """Return the number of classes to predict: the p numbers."""
    return settings["prime"]


def length(settings: Mapping[str, Any]) -> int:
    """Return the number of tokens per sequence: x, y and the equality sign."""
    del settings  # part of every task's interface
    return 3


def drawn_once(settings: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Draw what a run draws once: which pairs it trains on.

    Returns:
        ``training_pairs`` and ``held_out_pairs``, int64 [pairs, 2] of x and y, in random order: together all p² pairs.
    """
    prime = settings["prime"]
    order = seeded(seed, "binary_operations", "pairs").permutation(prime**2)
    pairs = np.stack(np.divmod(order, prime), axis=1)
    trained = round(settings["training_fraction"] * prime**2)
    return {"training_pairs": pairs[:trained].copy(), "held_out_pairs": pairs[trained:].copy()}


def training_batch(
    settings: Mapping[str, Any],
    drawn_once: Mapping[str, np.ndarray],
    generator: np.random.Generator,
    size: int,
    step: int = 0,
) -> Batch:
    """Draw ``size`` different training pairs; all of them, always in one order, if ``size`` is their number or more.

    Targets are ``IGNORED`` but at the last position.
    """
    del step  # part of every task's interface; this one is the same throughout training
    pairs = drawn_once["training_pairs"]
    if size < len(pairs):
        pairs = pairs[generator.choice(len(pairs), size, replace=False, shuffle=False)]
    return _sequences(settings, pairs)


def test_sets(
    settings: Mapping[str, Any], drawn_once: Mapping[str, np.ndarray], seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return the test sets ``training_pairs`` and ``held_out_pairs``, of the run's own division (``drawn_once``).

    Their order is random, so that the first ones are a fair sample.

    Returns:
        By name of the test set, int64 arrays ``tokens`` and ``targets`` [pairs, 3].
    """
    del seed  # the division is drawn once
    return {name: _sequences(settings, drawn_once[name])._asdict() for name in ("training_pairs", "held_out_pairs")}


def test_set_sizes(settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of pairs of each test set, without drawing any."""
    pairs = settings["prime"] ** 2
    trained = round(settings["training_fraction"] * pairs)
    return {"training_pairs": trained, "held_out_pairs": pairs - trained}


def errors(
    predictions: Int64[np.ndarray, "sequence read"], test_set: Mapping[str, np.ndarray]
) -> dict[str, Float64[np.ndarray, " sequence"]]:
    """Return ``error``, per pair: 1 where the prediction at the last position is not the result, else 0."""
    return {"error": (predictions[:, -1] != test_set["targets"][:, -1]).astype(np.float64)}


def results(operation: str, prime: int, pairs: Int64[np.ndarray, "pairs two"]) -> Int64[np.ndarray, " pairs"]:
    """Return the operation's results, from 0 to p − 1.

    >>> results("subtract", 7, np.array([[2, 5], [5, 2]])).tolist(), results("cubic_form", 7, np.array([[2, 5]])).item()
    ([4, 3], 4)
    """
    return OPERATIONS[operation](pairs[:, 0], pairs[:, 1]) % prime


def _sequences(settings: Mapping[str, Any], pairs: Int64[np.ndarray, "pairs two"]) -> Batch:
    tokens = np.full((len(pairs), 3), settings["prime"], dtype=np.int64)
    tokens[:, :2] = pairs
    targets = np.full_like(tokens, IGNORED)
    targets[:, -1] = results(settings["operation"], settings["prime"], pairs)
    return Batch(tokens, targets)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
