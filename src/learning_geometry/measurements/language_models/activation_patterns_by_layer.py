"""Which hidden units of a language model's MLPs the activation function zeroes, and in how many patterns."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from learning_geometry.geometry.activation_patterns import patterns
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {"reads": ["texts", "model"], "parts": {"always": ["mlp.input"]}}

SETTINGS = {
    "vectors": {
        "type": "integer",
        "minimum": 2,
        "default": 4096,
        "description": "Tokens of each text, the first ones that were kept; patterns are counted among them.",
    },
    "group": {
        "type": "integer",
        "minimum": 1,
        "default": 12,
        "description": "Units of a group, among which patterns are counted too: of all units every token has its own.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 1,
        "default": 3,
        "description": "Random gates of each layer.",
    },
}

READ = "mlp.input"
"""The activation, which must have been kept, that the gate reads."""

GROUPS = 32
"""Groups of units, at most: the first ones, as units are in no order."""

UNITS = {
    "zeroed_share": "fraction",
    "distinct_patterns": "patterns",
    "never_active": "fraction",
    "always_active": "fraction",
}


def measure(run: LanguageRun, settings: dict[str, Any]) -> pd.DataFrame:
    """Count the activation patterns of the MLPs whose input was kept, over the first tokens of each text.

    A hidden unit is active where what the activation function gets is positive: a ReLU zeroes the others. GELU and
    SiLU, gated or not, zero nothing exactly: what is negative they nearly zero, and the sign is counted all the same.

    Rows, part ``layers.<l>.mlp``, data = text, n = tokens:

    - ``zeroed_share``: share of units that are not active, mean over tokens;
    - ``distinct_patterns``: different patterns (a number, from 1 to n) among the tokens, of all units (index 0), and of
      groups of as many units as the index says, mean over groups: among these there are 2 to the power of the index
      orthants;
    - ``never_active`` and ``always_active``: share of units that are so at every token.

    Null ``random_gate``, of all: a gate whose weights have the same norms and biases and random directions, over draws.

    Raises:
        ValueError: the MLP of a layer is a mixture of experts, or the input of none was kept.
    """
    model = run.load()
    rows: list[dict[str, Any]] = []
    for text in run.texts:
        activations = run.activations(text)
        names = [name for name in activations.widths if name.endswith(f".{READ}")]
        if not names:
            raise ValueError(
                f"{run.experiment}: {READ} of no layer was kept of the text {text!r}, only {list(activations.widths)}; "
                f"add {READ!r} to the parts that are kept of texts"
            )
        for name in names:
            layer = int(name.split(".")[1])
            weights = model.layer_weights(layer)
            if weights.gate is None:
                raise ValueError(
                    f"{run.experiment}: the MLP of layer {layer} is a mixture of experts, each with a gate of its own, "
                    "whose patterns are not counted; leave activation_patterns_by_layer out"
                )
            gate = weights.gate.float().cpu().numpy()
            bias = None if weights.gate_bias is None else weights.gate_bias.float().cpu().numpy()
            vectors = list(first(activations.blocks(name), settings["vectors"]))
            row = {"step": 0, "part": f"layers.{layer}.mlp", "data": text}
            group = min(settings["group"], len(gate))
            measured = counted(vectors, gate, bias, group)
            n = sum(map(len, vectors))
            generator = seeded("activation_patterns", "random_gate", layer)
            draws = [counted(vectors, random_gate(gate, generator), bias, group) for _ in range(settings["null_draws"])]
            for quantity, index in measured:
                named = row | {"quantity": quantity, "index": index, "unit": UNITS[quantity]}
                rows.append(named | {"value": measured[quantity, index], "n": n})
                of_draws = np.array([draw[quantity, index] for draw in draws])
                rows.append(named | central_range(of_draws, "random_gate"))
    return tidy(rows, run.experiment, 0)


def counted(
    vectors: Iterable[Float[np.ndarray, "_ width"]],
    gate: Float[np.ndarray, "hidden width"],
    bias: Float[np.ndarray, " hidden"] | None,
    group: int,
) -> dict[tuple[str, int], float]:
    """Return the value of each quantity and index.

    >>> counts = counted([np.array([[1.0, 1.0], [2.0, -1.0]])], np.eye(2), None, 1)
    >>> counts["zeroed_share", 0], counts["distinct_patterns", 0], counts["distinct_patterns", 1]
    (0.25, 2.0, 1.5)
    """
    signs = [active(block, gate, bias) for block in vectors]
    counts = patterns(signs)
    groups = min(GROUPS, len(gate) // group)
    columns = np.arange(len(gate))[: groups * group].reshape(groups, group)
    of_groups = [patterns(block[:, chosen] for block in signs).distinct for chosen in columns]
    return {
        ("zeroed_share", 0): counts.zeroed,
        ("distinct_patterns", 0): float(counts.distinct),
        ("distinct_patterns", group): float(np.mean(of_groups)),
        ("never_active", 0): counts.never_active,
        ("always_active", 0): counts.always_active,
    }


def active(
    vectors: Float[np.ndarray, "rows width"],
    gate: Float[np.ndarray, "hidden width"],
    bias: Float[np.ndarray, " hidden"] | None,
) -> Bool[np.ndarray, "rows hidden"]:
    """Return which hidden units are active: where what the activation function gets is positive."""
    # against the negative bias: exact, and without another array
    return np.asarray(vectors @ gate.T > (0.0 if bias is None else -bias))


def random_gate(
    gate: Float[np.ndarray, "hidden width"], generator: np.random.Generator
) -> Float[np.ndarray, "hidden width"]:
    """Return a gate whose rows have the same norms and uniformly random directions.

    >>> np.linalg.norm(random_gate(np.diag([1.0, 3.0]), np.random.default_rng(0)), axis=1).round(6)
    array([1., 3.])
    """
    drawn = generator.standard_normal(gate.shape).astype(gate.dtype)
    scale = np.linalg.norm(gate, axis=1) / np.linalg.norm(drawn, axis=1)
    return np.asarray(drawn * scale[:, None], dtype=gate.dtype)


def first(blocks: Iterable[Float[np.ndarray, "_ width"]], vectors: int) -> Iterator[Float[np.ndarray, "_ width"]]:
    """Yield blocks until they hold that many vectors.

    >>> [block.shape[0] for block in first([np.zeros((3, 2))] * 3, 5)]
    [3, 2]
    """
    left = vectors
    for block in blocks:
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return
