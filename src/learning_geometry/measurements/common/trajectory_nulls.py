"""What trajectory measurements share: the numbers of a trajectory, its nulls, and the rows of both."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from learning_geometry.geometry import walks
from learning_geometry.geometry.trajectories import (
    InnerProducts,
    dimension,
    effective_components,
    first_component_share,
    variances,
)
from learning_geometry.tables.tidy import central_range

RANDOM_NULLS = ("isotropic_walk", "step_norm_walk", "shuffled_increments", "random_signs", "ornstein_uhlenbeck")
WEIGHT_DECAY = "weight_decay"

FRACTIONS = ("share", "direction")
"""Last words of the names of fractions; ratios are pure numbers, and all else counts dimensions."""

Numbers = Mapping[str, np.ndarray | np.floating[Any]]
"""Numbers of a trajectory, or of means over several, by name."""

Draws = Mapping[str, np.ndarray]
"""The same numbers of the draws of a null, shape (draws,)."""


def numbers(gram: Float[np.ndarray, "*draws snapshots snapshots"]) -> dict[str, np.ndarray]:
    """Return r90, r99, participation ratio and share of the first component of trajectories, by their inner products.

    >>> line = np.outer([0.0, 1.0, 2.0], [0.0, 1.0, 2.0])
    >>> {name: float(value) for name, value in numbers(line).items()}
    {'r90': 1.0, 'r99': 1.0, 'participation_ratio': 1.0, 'pc1_share': 1.0}
    """
    spectrum = variances(gram)
    return {
        "r90": dimension(spectrum, 0.9),
        "r99": dimension(spectrum, 0.99),
        "participation_ratio": effective_components(spectrum),
        "pc1_share": first_component_share(spectrum),
    }


def draw(
    null: str, products: InnerProducts, draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "draws snapshots snapshots"]:
    """Return the inner products of draws of one of ``RANDOM_NULLS`` of a trajectory."""
    gram, entries = products.displacements, products.entries
    match null:
        case "isotropic_walk":
            return walks.isotropic_walk(len(gram), entries, draws, generator)
        case "step_norm_walk":
            return walks.step_norm_walk(gram, entries, draws, generator)
        case "shuffled_increments":
            return walks.shuffled_increments(gram, draws, generator)
        case "random_signs":
            return walks.random_signs(gram, draws, generator)
        case "ornstein_uhlenbeck":
            return walks.ornstein_uhlenbeck(gram, entries, draws, generator)
        case _:
            raise ValueError(f"null: {null!r} is not known; use one of {RANDOM_NULLS}")


def null_trajectories(
    products: InnerProducts,
    steps: Sequence[int],
    decay: float,
    draws: int,
    generator: Callable[[str], np.random.Generator],
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of every null and its draws' inner products; of weight decay, where there is any, a single one.

    Args:
        products: of the run's trajectory.
        steps: of its snapshots.
        decay: share of the weights that decay takes off at each step.
        draws: of each random null.
        generator: gives the generator of a null by its name.
    """
    for null in RANDOM_NULLS:
        yield null, draw(null, products, draws, generator(null))
    if decay > 0 and products.start > 0:
        yield WEIGHT_DECAY, walks.weight_decay(products.start, decay, np.array(steps))[None]


def rows(prefix: str, part: str, measured: Numbers, nulls: Mapping[str, Draws], n: int = 1) -> list[dict[str, Any]]:
    """Return the rows of measured numbers and of the nulls' draws of them; names get the prefix."""
    made = [row(prefix + name, part, float(value), n) for name, value in measured.items()]
    for null, drawn in nulls.items():
        made += [row(prefix + name, part, 0.0) | central_range(draws, null) for name, draws in drawn.items()]
    return made


def mean_rows(
    prefix: str, part: str, measured: Sequence[Numbers], nulls: Sequence[Mapping[str, Draws]]
) -> list[dict[str, Any]]:
    """Return the rows of the means over matrices; draw j of the null of a mean is the mean of all draws j."""
    means = {name: np.mean(values, axis=0) for name, values in _by_key(measured).items()}
    of_nulls = {
        null: {name: np.mean(values, axis=0) for name, values in _by_key(drawn).items()}
        for null, drawn in _by_key(nulls).items()
    }
    return rows(prefix, part, means, of_nulls, len(measured))


def row(quantity: str, part: str, value: float, n: int = 1) -> dict[str, Any]:
    """Return one measured row, with its unit from its name.

    >>> [row(name, "model", 0.0)["unit"] for name in ("window_r90", "window_pc1_share", "ratio_over_null")]
    ['dimensions', 'fraction', '1']
    """
    unit = "fraction" if quantity.endswith(FRACTIONS) else "1" if quantity.endswith("over_null") else "dimensions"
    return {"quantity": quantity, "part": part, "value": value, "n": n, "unit": unit}


def _by_key(mappings: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    collected: dict[str, list[Any]] = {}
    for mapping in mappings:
        for key, value in mapping.items():
            collected.setdefault(key, []).append(value)
    return collected
