"""Spectra of activations over training: effective rank, exponent of a power law, phases, and how many heads write."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from learning_geometry.geometry.activation_ranks import ranks
from learning_geometry.geometry.moments import Moments, merged, principal_variances
from learning_geometry.geometry.nulls import gaussian_singular_values
from learning_geometry.geometry.phases import Phases, three_phases
from learning_geometry.geometry.power_laws import planted_power_law_exponents, power_law
from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.runs.rank_over_training import check_counts, measured_positions, moments_of
from learning_geometry.models.language import LanguageModel
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
    "early": {
        "type": "boolean",
        "default": True,
        "description": "Measure the checkpoints before the first multiple of `every` too.",
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
        "minimum": 2,
        "default": 200,
        "description": "Sequences of each test set, the first ones; null takes all.",
    },
    "least_vectors_per_width": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 20,
        "description": "Fewest vectors for each dimension of the width, two times as many as half of them need; with "
        "fewer the measurement stops.",
    },
    "ranks": {
        "type": "array",
        "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "minItems": 2,
        "maxItems": 2,
        "default": [0.05, 0.5],
        "description": "First and last rank to which the power law is fitted, in shares of the width.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 2,
        "default": 20,
        "description": "Samples of Gaussian vectors in each null baseline.",
    },
}

SHOWN = ("attention.output", "mlp.output", "residual_post")
"""Parts of a layer whose spectra are measured."""

COMPARED = ("attention.output", "mlp.output", "residual_mid", "residual_post")
"""Parts of which the mean over layers has the ranks of ``OF_MEANS``, too."""

READ = ("attention.z", *COMPARED)
"""Activations that are computed."""

FINAL = "final_stream"
"""What the stream that leaves the last layer is called: the state from which the next token is read."""

FRACTIONS = ("effective_rank", "effective_rank_of_variances", "directions_99", "power_law_r_squared")

PHASES = {"effective_rank_of_variances": "nats", "power_law_exponent": "1"}
"""Quantities of the final stream with phases -> their unit: logarithms of ranks, and the exponents themselves."""


class _Numbers(NamedTuple):
    """What is made of one spectrum; names are those of the quantities."""

    effective_rank_of_variances: float
    effective_rank: float
    directions_99: float
    power_law_exponent: float
    power_law_r_squared: float


OF_MEANS = ("directions_99", "effective_rank")
OF_SPECTRA = ("effective_rank_of_variances", "power_law_exponent", "power_law_r_squared")


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the spectra of activations of every layer on fixed sequences, the first position of each left out.

    Rows, data = test set, n = vectors (of means over layers: layers). Of ``layers.<l>.`` and each of ``SHOWN``, of
    their means over layers (parts ``attention.output`` and so on), and of ``final_stream``, what leaves the last layer:

    - ``effective_rank_of_variances`` (share of the width): exponential of the entropy of the covariance's normalised
      eigenvalues, its von Neumann entropy (Li et al. 2025, arXiv 2509.23024, call it RankMe; Garrido et al. 2023 take
      singular values, which ``final_stream`` has as ``effective_rank``);
    - ``power_law_exponent``: α of eigenvalues ∝ rank^−α, fitted over ``ranks``; ``power_law_r_squared`` of the fit;
    - ``directions_99`` and ``effective_rank`` (shares of the width) of the means over layers of ``COMPARED``; those of
      each layer are in ``rank_over_training``.

    Nulls: ``isotropic``, as many Gaussian vectors; ``untrained``, the run's first checkpoint; of the exponent of
    ``final_stream`` also ``planted_power_law``: what the fit finds in as many Gaussian vectors whose spectrum has the
    exponent that was measured, and so what is wrong with it.

    Phases of ``final_stream``, at the last step: ``<quantity>_phase`` of the logarithm of the effective rank (nats),
    and of the exponent, turned round as it falls where the rank rises. Index 0, 1, 2: fall before, rise in, and fall
    after the stretch with the largest rise, which is found on one half of the sequences, every second one, and measured
    on the other; both ways round, averaged. ``<quantity>_phase_step`` (steps), index 0 and 1: its start and stop.

    Heads, part ``layers.<l>.heads.<h>``: ``head_participation_ratio`` (dimensions) of what the head writes, W_O z;
    nulls ``untrained`` and ``isotropic_z``, W_O of a z without structure. Part ``layers.<l>``: ``participating_heads``
    (heads), the participation ratio of the heads' variances; null ``untrained``.

    Raises:
        KeyError: there is no such test set, or it has fewer sequences.
        ValueError: there are fewer vectors than ``least_vectors_per_width`` asks for, or too few ranks for a fit.
    """
    names = settings["test_sets"] or sorted(run.dataset.test_sets)
    probes = {name: run.test_set(name, settings["sequences"])["tokens"] for name in names}
    first, last = fitted_ranks(settings["ranks"], run.settings["model"]["width"])
    null = _Isotropic(run, settings["null_draws"], (first, last))
    untrained: dict[tuple[str, str, str], float] = {}
    halves: dict[tuple[str, str], list[list[float]]] = {}
    rows: list[dict[str, Any]] = []
    steps = measured_steps(run, settings["every"], settings["early"])
    for step in steps:
        model = language_model(run.model, run.parameters(step), f"{run.experiment}, seed {run.seed}, step {step}")
        for data, tokens in probes.items():
            kept = measured_positions(run, model, tokens, READ)
            least = float(settings["least_vectors_per_width"])
            check_counts("spectrum_over_training", run, model, data, kept, least)
            by_half = [
                moments_of(model, tokens[half::2], {name: where[half::2] for name, where in kept.items()})
                for half in (0, 1)
            ]
            together = {name: merged(by_half[0][name], by_half[1][name]) for name in kept}
            made = _spectra(model, together, (first, last), null) + _heads(model, together)
            final = f"layers.{model.sizes.layers - 1}.residual_post"
            exponent = numbers(together[final], first, last).power_law_exponent
            made += _planted(run, step, exponent, together[final].n, (first, last), settings["null_draws"])
            for number, half in enumerate(by_half):
                found = numbers(half[final], first, last)
                values = (math.log(found.effective_rank_of_variances), -found.power_law_exponent)
                for quantity, value in zip(PHASES, values, strict=True):
                    halves.setdefault((data, quantity), [[], []])[number].append(value)
            for row in made:
                row |= {"step": step, "data": data}
                if "null" not in row:
                    key = (data, row["part"], row["quantity"])
                    start = untrained.setdefault(key, row["value"])
                    rows.append(row | {"null": "untrained", "value": start, "low": start, "high": start})
            rows += made
    for (data, quantity), curves in halves.items():
        rows += [{"data": data, "part": FINAL, "step": steps[-1]} | row for row in _phases(quantity, curves, steps)]
    return tidy(rows, run.experiment, run.seed)


def measured_steps(run: Run, every: int, early: bool) -> list[int]:
    """Return the steps that are measured: the first, multiples of ``every``, and those before them if ``early``."""
    steps = run.steps()
    return sorted({steps[0], *run.steps(every), *(step for step in steps if early and step < every)})


def fitted_ranks(shares: list[float], width: int) -> tuple[int, int]:
    """Return the first and the last rank of a fit, from their shares of the width.

    >>> fitted_ranks([0.05, 0.5], 128)
    (7, 64)
    """
    return math.ceil(shares[0] * width), math.floor(shares[1] * width)


def numbers(of: Moments, first: int, last: int) -> _Numbers:
    """Return what is made of the spectrum of some vectors, ranks in shares of the width."""
    return of_spectrum(principal_variances(of.scatter), first, last)


def of_spectrum(variances: Float[np.ndarray, " width"], first: int, last: int) -> _Numbers:
    """Return what is made of a covariance's eigenvalues, in descending order."""
    of_all, law = ranks(variances), power_law(variances, first, last)
    return _Numbers(of_all.effective_rank_of_variances, of_all.effective_rank, of_all.directions, *law)


def _row(part: str, quantity: str, value: float, n: int) -> dict[str, Any]:
    unit = "fraction" if quantity in FRACTIONS else "1"
    return {"part": part, "quantity": quantity, "value": value, "n": n, "unit": unit}


def _spectra(
    model: LanguageModel, moments: Mapping[str, Moments], fitted: tuple[int, int], null: "_Isotropic"
) -> list[dict[str, Any]]:
    """Return the rows of every part of every layer, of their means, and of the final stream."""
    rows: list[dict[str, Any]] = []
    layers = range(model.sizes.layers)
    for part in COMPARED:
        by_layer = {f"layers.{layer}.{part}": moments.get(f"layers.{layer}.{part}") for layer in layers}
        found = {name: numbers(of, *fitted) for name, of in by_layer.items() if of is not None}
        if not found:  # no MLP
            continue
        n = next(iter(moments[name].n for name in found))
        quantities = (*(OF_SPECTRA if part in SHOWN else ()), *OF_MEANS)
        for quantity in quantities:
            values = {name: float(getattr(each, quantity)) for name, each in found.items()}
            here = [_row(name, quantity, value, moments[name].n) for name, value in values.items()]
            here = [] if quantity in OF_MEANS else here
            here.append(_row(part, quantity, float(np.mean(list(values.values()))), len(values)))
            rows += [each for row in here for each in (row, row | null.range(quantity, n))]
    final = f"layers.{model.sizes.layers - 1}.residual_post"
    of_final = numbers(moments[final], *fitted)
    for quantity in (*OF_SPECTRA, "effective_rank"):
        row = _row(FINAL, quantity, float(getattr(of_final, quantity)), moments[final].n)
        rows += [row, row | null.range(quantity, moments[final].n)]
    return rows


def _planted(run: Run, step: int, exponent: float, n: int, fitted: tuple[int, int], draws: int) -> list[dict[str, Any]]:
    if not np.isfinite(exponent):
        return []
    width = run.settings["model"]["width"]
    generator = seeded(run.seed, "spectrum_over_training", "planted", step, n)
    found = planted_power_law_exponents(exponent, n, width, *fitted, draws, generator)
    return [_row(FINAL, "power_law_exponent", 0.0, n) | central_range(found, "planted_power_law")]


def _heads(model: LanguageModel, moments: Mapping[str, Moments]) -> list[dict[str, Any]]:
    """Return the rows of what every head writes."""
    rows: list[dict[str, Any]] = []
    heads, width = model.sizes.heads, model.sizes.head_width
    for layer in range(model.sizes.layers):
        of_z = moments[f"layers.{layer}.attention.z"]
        output = model.layer_weights(layer).output.detach().double().numpy()
        variances = []
        for head in range(heads):
            place = slice(head * width, (head + 1) * width)
            # of the same lengths and angles, in the head's own dimensions
            turned = np.linalg.qr(output[:, place])[1]
            written = turned @ of_z.scatter[place, place] @ turned.T / of_z.n
            variances.append(float(np.trace(written)))
            row = {"part": f"layers.{layer}.heads.{head}", "quantity": "head_participation_ratio", "n": of_z.n}
            row |= {"unit": "dimensions"}
            alone = participation(turned @ turned.T)
            rows.append(row | {"value": participation(written)})
            rows.append(row | {"null": "isotropic_z", "value": alone, "low": alone, "high": alone})
        value = participation(np.diag(variances))
        row = {"part": f"layers.{layer}", "quantity": "participating_heads", "unit": "heads", "n": of_z.n}
        rows.append(row | {"value": value})
    return rows


def participation(covariance: Float[np.ndarray, "width width"]) -> float:
    r"""Return $(\sum \lambda)^2 / \sum \lambda^2$ of a covariance's eigenvalues, from its entries; NaN of zeros.

    >>> participation(np.diag([2.0, 2.0, 0.0]))
    2.0
    """
    total = float((covariance**2).sum())
    return float(np.trace(covariance) ** 2 / total) if total > 0 else math.nan


def _phases(quantity: str, curves: list[list[float]], steps: list[int]) -> list[dict[str, Any]]:
    """Return the rows of the phases of a curve that rises in the second, from both halves of the data."""
    first, second = (np.array(curve) for curve in curves)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return []
    found = [three_phases(first, second), three_phases(second, first)]
    changes = [float(np.mean([each[number] for each in found])) for number in range(3)]
    ends = [float(np.mean([steps[place] for place in places])) for places in _ends(found)]
    rows = [
        {"quantity": f"{quantity}_phase", "index": number, "value": change, "unit": PHASES[quantity], "n": 2}
        for number, change in enumerate(changes)
    ]
    rows += [
        {"quantity": f"{quantity}_phase_step", "index": number, "value": end, "unit": "steps", "n": 2}
        for number, end in enumerate(ends)
    ]
    return rows


def _ends(found: list[Phases]) -> tuple[list[int], list[int]]:
    return [each.start for each in found], [each.stop for each in found]


class _Isotropic:
    """The null of Gaussian vectors of equal variance, drawn once for every number of them."""

    def __init__(self, run: Run, draws: int, fitted: tuple[int, int]) -> None:
        self.seed, self.draws, self.fitted, self.width = run.seed, draws, fitted, run.settings["model"]["width"]
        self.drawn: dict[int, list[_Numbers]] = {}

    def range(self, quantity: str, n: int) -> dict[str, Any]:
        if n not in self.drawn:
            generator = seeded(self.seed, "spectrum_over_training", "isotropic", n)
            values = gaussian_singular_values((n - 1, self.width), self.draws, generator)
            padded = np.zeros((self.draws, self.width))
            padded[:, : values.shape[1]] = values**2
            self.drawn[n] = [of_spectrum(variances, *self.fitted) for variances in padded]
        drawn = np.array([getattr(each, quantity) for each in self.drawn[n]])
        return central_range(drawn, "isotropic")
