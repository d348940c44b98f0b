"""When activations become low-dimensional: how many directions those of a trained run use, over training."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64

from learning_geometry.geometry.activation_ranks import Ranks, activation_ranks, isotropic_ranks, ranks
from learning_geometry.geometry.moments import Moments, merged, moments, principal_variances
from learning_geometry.geometry.rounding import difference
from learning_geometry.geometry.uncertainty import Crossing
from learning_geometry.measurements.common.run import Run
from learning_geometry.models.language import LanguageModel, activation_names, activation_width
from learning_geometry.models.language.cache import beyond_the_first
from learning_geometry.models.language.trained import language_model
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {
    "model_settings": ["layers", "heads", "width", "mlp_width", "norm", "positions", "activation"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS = {
    "every": {
        "type": "integer",
        "minimum": 1,
        "default": 100,
        "description": "Measure the checkpoints whose step is a multiple of this, and the first and the last.",
    },
    "test_sets": {
        "type": ["array", "null"],
        "items": {"type": "string"},
        "minItems": 1,
        "uniqueItems": True,
        "default": None,
        "description": "Names of the test sets whose activations are measured, each by itself; null takes all.",
    },
    "sequences": {
        "type": ["integer", "null"],
        "minimum": 1,
        "default": 100,
        "description": "Sequences of each test set, the first ones; null takes all.",
    },
    "least_vectors_per_width": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 10,
        "description": "Fewest vectors for each dimension of the width; with fewer, which lower every dimension, the "
        "measurement stops.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 1,
        "default": 20,
        "description": "Samples of isotropic vectors in the null baseline.",
    },
}

QUANTITIES = {"directions_99": "directions", "effective_rank": "effective_rank"}
"""Name of the quantity -> which of the ranks it is."""

PARTS = ("residual_pre", "attention.z", "attention.output", "residual_mid", "mlp.output")
"""Of every layer, in the order in which a model computes them; the last of a layer with an MLP alone."""

LASTING = "lasting_first_crossing_of_directions_99"

LEAST_CHANGE = 0.1
"""A smaller change of ``directions_99``, in shares of the width, is no event."""

BATCH_SIZE = 100
"""Sequences per forward pass."""


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure how many directions the activations of every layer use, on fixed sequences.

    The first position of every sequence, at which attention has nothing else to look at, is left out. Where a model
    reads out at the last position alone, its last layer does too: what that layer would add elsewhere is never computed
    in training, and only its residual_pre is measured at all positions.

    Rows, both in shares of the width, data = test set, part ``layers.<l>.`` and one of ``PARTS``, n = vectors:
    ``directions_99``, the principal directions that hold 99 % of the variance, and ``effective_rank`` (Roy and
    Vetterli; see ``geometry.activation_ranks``). Both are NaN of activations that do not vary. Nulls:

    - ``isotropic``: as many Gaussian vectors of that width;
    - ``untrained``: the run's own model at its first checkpoint.

    At the last step, ``lasting_first_crossing_of_directions_99`` (steps) of every part and test set: the first
    measured step from which on the curve stays beyond the middle between its first and its last value; censored if
    these differ by no more than ``LEAST_CHANGE``. [low, high] = the measured step before it, and it.
    Null ``even_drift``: of a straight line, about half of training.

    What enters the first layer is looked up in a table of embeddings: of that part n counts different vectors, and the
    isotropic null has as many, each as often as it is there. More sequences do not make more of them.

    Raises:
        KeyError: there is no such test set, or it has fewer sequences.
        ValueError: there are fewer vectors than ``least_vectors_per_width`` asks for, alike ones counted as often as
            they are there.
    """
    names = settings["test_sets"] or sorted(run.dataset.test_sets)
    probes = {name: run.test_set(name, settings["sequences"])["tokens"] for name in names}
    null = _Isotropic(run, settings["null_draws"])
    untrained: dict[tuple[str, str, str], float] = {}
    curves: dict[tuple[str, str], dict[int, float]] = {}
    rows: list[dict[str, Any]] = []
    # the first checkpoint is the null, measured or not
    for step in sorted({run.steps()[0], *run.steps(settings["every"])}):
        model = language_model(run.model, run.parameters(step), f"{run.experiment}, seed {run.seed}, step {step}")
        for data, tokens in probes.items():
            kept = measured_positions(run, model, tokens)
            check_counts("rank_over_training", run, model, data, kept, float(settings["least_vectors_per_width"]))
            for part, part_moments in moments_of(model, tokens, kept).items():
                width = activation_width(model.sizes, part)
                repeats = _repeats(run, tokens, kept[part]) if part == "layers.0.residual_pre" else None
                n = part_moments.n if repeats is None else len(repeats)
                of_part = activation_ranks(part_moments)
                curves.setdefault((data, part), {})[step] = of_part.directions
                isotropic = null.draws(data, width, part_moments.n, repeats)
                for quantity, field in QUANTITIES.items():
                    value = float(getattr(of_part, field))
                    first = untrained.setdefault((data, part, quantity), value)
                    row = {"step": step, "part": part, "quantity": quantity, "data": data, "unit": "fraction"}
                    rows.append(row | {"value": value, "n": n})
                    rows.append(row | {"null": "untrained", "value": first, "low": first, "high": first, "n": n})
                    drawn = np.array([getattr(each, field) for each in isotropic])
                    rows.append(row | central_range(drawn, "isotropic"))
    for (data, part), curve in curves.items():
        rows += [{"part": part, "data": data} | event for event in _event(curve)]
    return tidy(rows, run.experiment, run.seed)


def measured_positions(
    run: Run,
    model: LanguageModel,
    tokens: Int64[np.ndarray, "sequences position"],
    parts: Sequence[str] = PARTS,
) -> dict[str, Bool[np.ndarray, "sequences position"]]:
    """Return for each activation that is measured, by name, at which positions the model makes use of it."""
    everywhere = beyond_the_first(tokens)
    at_the_last = everywhere.copy()
    at_the_last[:, :-1] = False
    last = f"layers.{model.sizes.layers - 1}"
    alone = run.settings["model"].get("readout") == "last"
    return {
        name: at_the_last if alone and name.startswith(last) and not name.endswith("residual_pre") else everywhere
        for name in activation_names(model.sizes, parts)
    }


def moments_of(
    model: LanguageModel,
    tokens: Int64[np.ndarray, "sequences position"],
    kept: Mapping[str, Bool[np.ndarray, "sequences position"]],
) -> dict[str, Moments]:
    """Return the moments of activations, by name, each at the positions kept; no vector outlives its batch."""
    by_name: dict[str, Moments] = {}
    for start in range(0, len(tokens), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        for name, values in model.activations(torch.from_numpy(tokens[batch]), list(kept)).items():
            vectors = values.numpy()[kept[name][batch]]
            by_name[name] = merged(by_name[name], moments(vectors)) if name in by_name else moments(vectors)
    return by_name


def isotropic_lookup_ranks(
    repeats: Int64[np.ndarray, " vectors"], width: int, draws: int, generator: np.random.Generator
) -> list[Ranks]:
    """Null of vectors that are looked up in a table: Gaussian ones, each as often as the data's is.

    Args:
        repeats: how often each different vector is there.
        width: of the vectors.
        draws: number of samples.
        generator: source of randomness.

    >>> isotropic_lookup_ranks(np.array([1, 1, 1]), 100, 1, np.random.default_rng(0))[0].directions  # a plane
    0.02
    """
    drawn = []
    for _ in range(draws):
        vectors = generator.standard_normal((len(repeats), width))
        vectors -= repeats @ vectors / repeats.sum()
        drawn.append(ranks(principal_variances((vectors * repeats[:, None]).T @ vectors)))
    return drawn


def lasting_first_crossing(steps: Int64[np.ndarray, " n"], values: Float[np.ndarray, " n"], noise: float) -> Crossing:
    """Return the first step from which on a curve stays beyond the middle between its first and its last value.

    Unlike the first crossing of that middle, it is not set off by a dip that passes.

    Args:
        steps: training steps, increasing.
        values: the curve at these steps.
        noise: changes up to this are none: then the event is censored, at the last step.

    >>> lasting_first_crossing(np.array([0, 10, 20, 30]), np.array([1.0, 0.0, 1.0, 0.0]), 0.1)
    Crossing(step=30.0, censored=False)
    """
    change = float(difference(values[-1], values[0]))
    if not abs(change) > noise:  # NaN has not changed
        return Crossing(float(steps[-1]), True)
    before = np.flatnonzero(difference(values, (values[0] + values[-1]) / 2) * np.sign(change) <= 0)
    return Crossing(float(steps[before[-1] + 1]), False)


def _event(curve: Mapping[int, float]) -> Iterator[dict[str, Any]]:
    """Yield the lasting first crossing of a curve, by step, and what an even drift would have."""
    steps, values = np.array(list(curve)), np.array(list(curve.values()))
    row = {"quantity": LASTING, "step": int(steps[-1]), "unit": "steps"}
    event = lasting_first_crossing(steps, values, LEAST_CHANGE)
    before = float(steps[steps < event.step].max(initial=steps[0]))
    bounds = {} if event.censored else {"low": before, "high": event.step}
    yield row | {"value": event.step, "censored": event.censored} | bounds
    yield row | {"value": lasting_first_crossing(steps, steps.astype(np.float64), 0.0).step, "null": "even_drift"}


class _Isotropic:
    """The isotropic null: drawn once for every number of vectors and width, or every table that is looked up."""

    def __init__(self, run: Run, draws: int) -> None:
        self.seed, self.count = run.seed, draws
        self.drawn: dict[tuple[str, int, int], list[Ranks]] = {}

    def draws(self, data: str, width: int, n: int, repeats: np.ndarray | None) -> list[Ranks]:
        key = ("" if repeats is None else data, width, n)
        if key not in self.drawn:
            generator = seeded(self.seed, "rank_over_training", *key)
            self.drawn[key] = (
                isotropic_ranks(n, width, self.count, generator)
                if repeats is None
                else isotropic_lookup_ranks(repeats, width, self.count, generator)
            )
        return self.drawn[key]


def _repeats(
    run: Run, tokens: Int64[np.ndarray, "sequences position"], kept: Bool[np.ndarray, "sequences position"]
) -> Int64[np.ndarray, " vectors"]:
    """Return how often each vector that enters the first layer is there: one per token, and position if learned."""
    looked_up = tokens
    if run.settings["model"].get("positions") == "learned":
        looked_up = tokens * tokens.shape[1] + np.arange(tokens.shape[1])
    return np.unique(looked_up[kept], return_counts=True)[1]


def check_counts(
    name: str, run: Run, model: LanguageModel, data: str, kept: Mapping[str, np.ndarray], least_per_width: float
) -> None:
    """Check that there are so many vectors for each dimension of their width, of every activation.

    Raises:
        ValueError: there are fewer, naming the measurement, the experiment, the test set and the activation.
    """
    for activation, positions in kept.items():
        least, n = least_per_width * activation_width(model.sizes, activation), int(positions.sum())
        if n < least:
            where = "one of each sequence, " if positions[:, :-1].sum() == 0 else ""
            raise ValueError(
                f"{name}, {run.experiment}, {data}: {n} vectors of {activation} ({where}{len(positions)} "
                f"sequences) are fewer than {least:g}, and would make any activation look low-dimensional; raise "
                "`sequences` or task.test_sequences, or lower `least_vectors_per_width`"
            )
