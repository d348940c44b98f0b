"""Which frequencies the embedding of the numbers modulo p holds: shares of its discrete Fourier transform."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from scipy.special import betaincinv

from learning_geometry.geometry.rounding import is_rounding
from learning_geometry.measurements.common.run import Run
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {
    "weights": ["embedding.weight"],
    # below 5 there is one frequency
    "task_settings": {"prime": 5},
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 100,
        "description": "Measure the checkpoints whose step is a multiple of this, and the last.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 40,
        "default": 200,
        "description": "Random orders of the numbers drawn for the null at each checkpoint.",
    },
}

LEVEL = 0.05
"""Probability that an embedding without frequencies has any key frequency at all."""


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure how the energy of the numbers' embedding is spread over frequencies k = 1, ..., (p − 1) / 2.

    The embedding's rows of the p numbers, as functions of the number, minus their mean, are written as sums of cosines
    and sines of 2πkx/p. A model that adds by rotating phases keeps few frequencies ("key frequencies"). For an
    operation other than addition or subtraction the numbers' order means less: multiplication has its waves along
    their logarithms. Rows, part ``embedding``:

    - ``frequency_share``, index k: the share of frequency k in the energy, a fraction; they sum to 1.
    - ``key_frequencies``: number of shares above the limit that a Gaussian embedding exceeds at any k with
      probability ``LEVEL`` (:func:`key_share`).
    - ``key_frequencies_in_order``: number of shares above the limit that the same rows in random order exceed at any k
      with that probability. An embedding of few directions has large shares in any order, which the Gaussian limit
      takes for key frequencies and this one does not.

    Nulls: ``gaussian_matrix``, independent Gaussian entries, exact: what an untrained embedding has.
    ``shuffled_numbers``: the embedding's own rows in random order. The limits are such that, of key frequencies, their
    mean is about ``LEVEL`` and the central range 0.

    Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (arXiv 2301.05217).

    Raises:
        ValueError: the task has no setting ``prime``, or one below 5.
    """
    task = run.settings["task"]
    if "prime" not in task:
        raise ValueError(
            f"measurements.embedding_frequencies: task {task['name']} has no numbers modulo a prime; "
            "use it with binary_operations"
        )
    prime = task["prime"]
    if prime < 5:
        raise ValueError(f"measurements.embedding_frequencies: prime {prime} has one frequency only; use 5 or more")
    generator = seeded("embedding_frequencies", "null", run.seed)
    frequencies = np.arange(1, prime // 2 + 1)
    rows: list[dict[str, Any]] = []
    for step in run.steps(settings["every"]):
        embedding = run.arrays(step)["embedding.weight"][:prime].astype(np.float64)
        width = embedding.shape[1]
        limit = key_share(prime, width)
        shares = frequency_shares(embedding)
        shuffled = np.stack(
            [frequency_shares(embedding[generator.permutation(prime)]) for _ in range(settings["null_draws"])]
        )
        # of n draws and one more of the same kind, each is the largest as often: the quantile at (n + 1) (1 - level)
        shuffled_limit = np.quantile(shuffled.max(1), 1 - LEVEL, method="weibull")
        here = {"step": step, "part": "embedding"}
        share = here | {"quantity": "frequency_share", "index": frequencies, "unit": "fraction"}
        keys, in_order = (here | {"quantity": f"key_frequencies{suffix}"} for suffix in ("", "_in_order"))
        none = {"value": LEVEL, "low": 0.0, "high": 0.0}
        rows += [
            share | {"value": shares},
            share | _gaussian_share(prime, width),
            share | central_range(shuffled, "shuffled_numbers"),
            keys | {"value": float((shares > limit).sum())},
            keys | none | {"null": "gaussian_matrix"},
            in_order | {"value": float((shares > shuffled_limit).sum())},
            in_order | none | {"null": "shuffled_numbers", "n": settings["null_draws"]},
        ]
    return tidy(rows, run.experiment, run.seed)


def frequency_shares(embedding: Float[np.ndarray, "p width"]) -> Float64[np.ndarray, " frequencies"]:
    """Return the shares of the frequencies 1, ..., (p − 1) / 2 in the energy of the centred rows; they sum to 1.

    Args:
        embedding: a row for each number 0, ..., p − 1, p odd; in any unit.

    Raises:
        ValueError: p is even or below 3, or all rows are equal.

    >>> x = np.arange(7)[:, None]
    >>> wave = 5 + 2 * np.cos(2 * np.pi * 3 * x / 7 + 0.4) + np.sin(2 * np.pi * x / 7)
    >>> frequency_shares(wave).round(6)  # energies 4 : 1
    array([0.2, 0. , 0.8])
    """
    prime = len(embedding)
    if prime < 3 or prime % 2 == 0:
        raise ValueError(
            f"embedding: {prime} rows; pass those of the numbers modulo an odd prime, without other tokens"
        )
    constant, *energies = (np.abs(np.fft.rfft(embedding.astype(np.float64), axis=0)) ** 2).sum(1)
    if is_rounding(np.sqrt(np.sum(energies)), np.sqrt(constant), prime):
        raise ValueError("embedding: all numbers have the same row, which has no frequencies; drop this checkpoint")
    return np.array(energies) / np.sum(energies)


def key_share(prime: int, width: int, level: float = LEVEL) -> float:
    r"""Return the share that the largest share of a Gaussian embedding exceeds with probability ``level``.

    In K = (p − 1) / 2 frequencies such an embedding has independent energies, each a Gamma variable of shape ``width``
    (a cosine and a sine in every column), so the shares are Dirichlet distributed and each is
    Beta(width, (K − 1) width). The limit is the quantile at 1 − level / K: by Bonferroni's inequality the probability
    is at most ``level``, and as the shares are negatively associated (Joag-Dev & Proschan 1983, "Negative association
    of random variables with applications") at least 1 − (1 − level / K)^K, which for .05 is .0488 or more.

    Args:
        prime: p, from 5.
        width: columns of the embedding.
        level: a probability.

    >>> round(key_share(97, 128), 4), round(1 / 48, 4)  # few columns more make every share equal
    (0.0269, 0.0208)
    """
    count = prime // 2
    return float(betaincinv(width, (count - 1) * width, 1 - level / count))


def _gaussian_share(prime: int, width: int) -> dict[str, Any]:
    """Return the columns of the exact null row of a share."""
    count = prime // 2
    low, high = betaincinv(width, (count - 1) * width, [0.025, 0.975])
    return {"null": "gaussian_matrix", "value": 1 / count, "low": low, "high": high}
