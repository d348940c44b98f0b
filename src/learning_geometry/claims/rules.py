"""The rules by which claims are judged: each reduces every run to one number and compares it with a null.

A rule is a function of an ``Evidence`` (the tables and one claim) and the parameters of one comparison. It
returns a ``Judgement``. The side of the null is "above", "below" or "within".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from learning_geometry.claims.claim import ANY_INDEX, Claim, Series, Window
from learning_geometry.claims.evidence import Curve, Event, Measured, Run, Tables, bounds, window_mean
from learning_geometry.claims.statistics import (
    UNOBSERVED,
    Judgement,
    Side,
    exceeds,
    judge_mean,
    judge_measured,
    judge_most,
    judge_share,
    judge_shown,
    nothing,
)
from learning_geometry.geometry import rounding
from learning_geometry.geometry.uncertainty import half_change, pair_pseudo_values

NAN = float("nan")


class Missing(LookupError):
    """A quantity that a rule reads is not in the tables."""


def _lacking(series: Series, null: str) -> str:
    with_null = f" with its null {null}" if null else ""
    of_data = f" on {series.data}" if "*" in series.part and series.data else ""
    return f"not measured: {series.quantity} of {series.part}{of_data}{with_null}"


@dataclass(frozen=True)
class Evidence:
    """The tables of the experiment that a claim is judged on, and the runs that count."""

    claim: Claim
    tables: Tables
    runs: tuple[Run, ...]
    compared: "Evidence | None" = None
    """The same of the experiments that play the claim's reference role."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Experiment -> the first one of the same model (``models.distinct_models``); without, each is one of its own."""

    @property
    def reference(self) -> "Evidence":
        """The evidence of the experiments that play the claim's reference role.

        Raises:
            Missing: there is none.
        """
        if not self.claim.reference:
            raise ValueError(f"{self.claim.name}: a rule compares with other experiments; give the claim a reference")
        if self.compared is None:
            raise Missing(f"no experiment of the config plays the role {self.claim.reference}")
        return self.compared

    def curves(self, series: Series, null: str = "") -> dict[Run, Curve]:
        """Return the curve of every run.

        Raises:
            Missing: some run has none.
        """
        found = self.tables.curves(series, null)
        self._complete(found, series, null or series.relative_to)
        return found

    def events(self, series: Series | None) -> dict[Run, Event]:
        """Return the event of every run.

        Raises:
            Missing: some run has none.
        """
        if series is None:
            raise ValueError(f"{self.claim.name}: its windows are relative to an event; give the claim one")
        found = self.tables.events(series)
        self._complete(found, series, "")
        return found

    def _complete(self, found: Mapping[Run, object], series: Series, null: str) -> None:
        if not set(self.runs) <= set(found):
            raise Missing(_lacking(series, null))

    def per_unit(self, by_run: Mapping[Run, float]) -> Float[np.ndarray, " units"]:
        """Return one number per unit: per seed, or per model the mean of its seeds."""
        if self.claim.unit == "seed":
            return np.array([by_run[run] for run in self.runs], dtype=np.float64)
        experiments = sorted({experiment for experiment, _ in self.runs})
        return self.per_model(
            {each: float(np.mean([by_run[run] for run in self.runs if run[0] == each])) for each in experiments}
        )

    def per_model(self, by_experiment: Mapping[str, float]) -> Float[np.ndarray, " models"]:
        """Return one number per model: the mean of the experiments that are the same model."""
        of_model: dict[str, list[float]] = {}
        for experiment, value in by_experiment.items():
            of_model.setdefault(self.models.get(experiment, experiment), []).append(value)
        return np.array([np.mean(values) for values in of_model.values()], dtype=np.float64)

    def layers(self, series: Series, null: str = "") -> dict[str, dict[int, Measured]]:
        """Return a series, or its null, in every layer of each model: of its one run.

        A layer of which the series could not be measured is there, as NaN, so that it counts as not observed. Rows of
        other seeds are of dictionaries; what is measured of the model itself has the smallest seed.

        Raises:
            Missing: some model has none.
        """
        lacking = self.tables.lacking(series)
        found: dict[str, dict[int, Measured]] = {}
        for (model, seed), layers in self.tables.layers(series, null).items():
            undefined = dict.fromkeys(lacking.get((model, seed), ()), Measured(NAN, NAN, NAN, 0, 0))
            found.setdefault(model, dict(sorted((undefined | layers).items())))
        self._of_every_model(found, series, null)
        return found

    def unobserved(self, *several: Series) -> str:
        """Return which layers lack one of some series, and why; "" for none."""
        found: dict[str, None] = {}
        for series in several:
            undefined = {
                run: {layer: "undefined" for layer, each in layers.items() if np.isnan(each.value)}
                for run, layers in self.tables.layers(series).items()
            }
            for by_run in (self.tables.lacking(series), undefined):
                for (model, _), layers in by_run.items():
                    of_model = f" of {model}" if len({name for name, _ in self.runs}) > 1 else ""
                    found |= dict.fromkeys(
                        f"layer {layer}{of_model}: {_series(series)}, {why}" for layer, why in layers.items()
                    )
        return "; ".join(found)

    def measured(self, series: Series, null: str = "") -> dict[str, Measured]:
        """Return the last value of a series, or of its null, for each model.

        Raises:
            Missing: some model has none.
        """
        found: dict[str, Measured] = {}
        for (model, _), curve in sorted(self.tables.curves(series, null).items()):
            value, low, high, n = (float(field[-1]) for field in curve[1:])
            found.setdefault(model, Measured(value, low, high, int(n), 0))
        self._of_every_model(found, series, null)
        return found

    def dictionaries(self, series: Series) -> dict[Run, Measured]:
        """Return a series of each dictionary seed, the mean over the layers in which it was measured.

        Raises:
            Missing: there is none.
        """
        found = self.tables.layers(series)
        if not found:
            raise Missing(f"not measured: {series.quantity} of {series.data}")
        result = {}
        for run, layers in found.items():
            value = float(np.mean([of_layer.value for of_layer in layers.values()]))
            fewest = min(of_layer.at for of_layer in layers.values())
            result[run] = Measured(value, NAN, NAN, len(layers), fewest)
        return result

    def _of_every_model(self, found: Mapping[str, object], series: Series, null: str) -> None:
        if not {experiment for experiment, _ in self.runs} <= set(found):
            raise Missing(_lacking(series, null))

    def number_floor(self) -> float:
        """Return the claim's floor, which must be a number.

        Raises:
            ValueError: it is a word.
        """
        if isinstance(self.claim.floor, str):
            raise ValueError(f"{self.claim.name}: the floor {self.claim.floor!r} is unknown here; use a number")
        return float(self.claim.floor)

    def counts(self, *units: str) -> None:
        """Check that the claim counts one of these units.

        Raises:
            ValueError: it counts another.
        """
        if self.claim.unit not in units:
            raise ValueError(f"{self.claim.name}: a rule counts {' or '.join(units)}s; the unit is {self.claim.unit}")

    def in_window(self, series: Series, window: Window, null: str = "") -> dict[Run, Curve]:
        """Return, per run, a curve of a single point: the means over a window, NaN where it was not observed."""
        events = self.events(self.claim.event) if window.of == "transition" or window.not_before else {}
        result = {}
        for run, curve in self.curves(series, null).items():
            transition = events[run].step if run in events else NAN
            start, stop = bounds(window, transition, float(self.tables.last_step[run]))
            means = (np.array([window_mean(curve.steps, field, start, stop)]) for field in curve[1:])
            result[run] = Curve(np.array([(start + stop) / 2]), *means)
        return result

    def value(self, series: Series, window: Window, null: str = "") -> Float[np.ndarray, " units"]:
        """Return the mean over a window, one per unit."""
        found = self.in_window(series, window, null)
        return self.per_unit({run: float(found[run].values[0]) for run in self.runs})

    def floor(self, series: Series, *windows: Window, null: str = "") -> float:
        """Return the numerical floor of a difference of the means over some windows; the largest of all runs.

        With ``null``, of that null's own values.

        - "evaluation_noise": √(v (1 − v) / n) for a mean v of n fractions, the largest standard error that it
          can have.
        - "estimator_error": half the width of the interval that the measurement gives.
        - a number: the claim's own.
        """
        kind = self.claim.floor
        if not isinstance(kind, str):
            return float(kind)
        if kind not in ("evaluation_noise", "estimator_error"):
            raise ValueError(
                f'{self.claim.name}: the floor {kind!r} is unknown here; use a number or "evaluation_noise"'
            )
        total = dict.fromkeys(self.runs, 0.0)
        for window in windows:
            points = self.in_window(series, window, null)
            for run in self.runs:
                _, value, low, high, n = (float(field[0]) for field in points[run])
                if kind == "evaluation_noise":
                    total[run] += np.sqrt(max(value * (1 - value), 0.0) / n)
                else:
                    total[run] += (high - low) / 2
        observed = [each for each in total.values() if np.isfinite(each)]
        return max(observed, default=NAN)


def level(
    evidence: Evidence,
    null: str,
    window: Window,
    side: Side,
    threshold: float | None = None,
    margin: float | None = None,
    reference: Series | None = None,
    quantity: Series | None = None,
    paired: bool = False,
    baseline: str | None = None,
    limit: Literal["low", "high"] | None = None,
    pairs: bool = False,
) -> Judgement:
    """Compare the mean of a curve over a window with a threshold or with a null of the tables.

    With ``threshold``: the values themselves against it. Otherwise the null's rows of the same series (or of
    ``reference``) over the same window: the values against its central 95 % range, averaged over runs; if
    ``paired``, the difference from the null's mean in the same run against 0, or within ± ``margin``; its estimator's
    error is then that of both. ``baseline`` is the null's name in the tables if it is not ``null``: a claim may compare
    two quantities with nulls of one name. ``limit`` takes that end of the null's range alone: "below" its high end is
    not above the null.
    """
    null = baseline or null
    series = quantity or evidence.claim.quantity
    values, floor = evidence.value(series, window), evidence.floor(series, window)
    if pairs:
        values = pair_pseudo_values(values)
    if threshold is not None:
        return judge_mean(values, threshold, threshold, side, floor)
    reference = reference or series
    if paired:
        differences = rounding.difference(values, evidence.value(reference, window, null))
        if evidence.claim.floor == "estimator_error":  # of both; a null without an interval is exact
            of_null = evidence.floor(reference, window, null=null)
            floor += of_null if np.isfinite(of_null) else 0.0
        return judge_mean(differences, -(margin or 0.0), margin or 0.0, side, floor)
    points = evidence.in_window(reference, window, null)
    observed = [points[run] for run in evidence.runs if np.isfinite(points[run].values[0])]
    if not observed:
        return nothing(UNOBSERVED, len(values), side)
    low, high = (float(np.mean([point[field][0] for point in observed])) for field in (2, 3))
    if limit is not None:
        low = high = low if limit == "low" else high
    return judge_mean(values, low, high, side, floor)


def contrast(
    evidence: Evidence, null: str, window: Window, other: Series, side: Side, quantity: Series | None = None
) -> Judgement:
    """Compare the difference of two measured series of the same run, over a window, with 0."""
    series = quantity or evidence.claim.quantity
    differences = rounding.difference(evidence.value(series, window), evidence.value(other, window))
    floor = evidence.floor(series, window)
    if isinstance(evidence.claim.floor, str):
        floor += evidence.floor(other, window)
    return judge_mean(differences, 0.0, 0.0, side, floor)


def difference(
    evidence: Evidence,
    null: str,
    window: Window,
    side: Side,
    margin: float | None = None,
    quantity: Series | None = None,
) -> Judgement:
    """Compare the mean of a curve over a window with that of the reference experiments, seed by seed.

    From each run's value the mean of the reference runs of the same seed is taken; the differences are compared with 0,
    or are to be within ± ``margin``. A seed that no reference experiment has is not observed.
    """
    series, reference = quantity or evidence.claim.quantity, evidence.reference
    values, theirs = evidence.in_window(series, window), reference.in_window(series, window)
    by_run = {}
    for run in evidence.runs:
        same_seed = [float(theirs[other].values[0]) for other in reference.runs if other[1] == run[1]]
        of_seed = float(np.mean(same_seed)) if same_seed else NAN
        by_run[run] = float(rounding.difference(values[run].values[0], of_seed))
    floor = evidence.floor(series, window)
    if isinstance(evidence.claim.floor, str):
        floor += reference.floor(series, window)
    return judge_mean(evidence.per_unit(by_run), -(margin or 0.0), margin or 0.0, side, floor)


def change(
    evidence: Evidence,
    null: str,
    start: Window,
    stop: Window,
    side: Side,
    quantity: Series | None = None,
    baseline: str | None = None,
    reference: Series | None = None,
) -> Judgement:
    """Compare the change of a curve from one window to another, in the same run, with 0.

    With ``baseline``, of its difference from the mean of that null, of the same series or of ``reference``.
    """
    series = quantity or evidence.claim.quantity
    differences = rounding.difference(evidence.value(series, stop), evidence.value(series, start))
    if baseline is not None:
        of_null = reference or series
        null_differences = rounding.difference(
            evidence.value(of_null, stop, baseline), evidence.value(of_null, start, baseline)
        )
        differences = rounding.difference(differences, null_differences)
    return judge_mean(differences, 0.0, 0.0, side, evidence.floor(series, start, stop))


def excess_over_trend(
    evidence: Evidence, null: str, early: Window, start: Window, stop: Window, side: Side
) -> Judgement:
    """Compare a change from ``start`` to ``stop`` with the trend before it, continued, in the same run.

    With f the mean over a window and m its middle: f(stop) − f(start) − (f(start) − f(early)) ·
    (m(stop) − m(start)) / (m(start) − m(early)), against 0.
    """
    series = evidence.claim.quantity
    middle = [(window.start + window.stop) / 2 for window in (early, start, stop)]
    factor = (middle[2] - middle[1]) / (middle[1] - middle[0])
    first, second, third = (evidence.value(series, window) for window in (early, start, stop))
    floor = evidence.floor(series, start, stop) + factor * evidence.floor(series, early, start)
    trend = factor * rounding.difference(second, first)
    return judge_mean(rounding.difference(rounding.difference(third, second), trend), 0.0, 0.0, side, floor)


def growth(
    evidence: Evidence, null: str, start: int, stop: int, side: Side, against: Series | None = None
) -> Judgement:
    """Compare the growth of a positive quantity between two moments with 0, or with that of another series.

    The moments are indices of the series, percent of the event's step, with one row each. Per run
    log(value(stop) / value(start)), minus the same of ``against``: factors of size, such as the number of parameters of
    a block, cancel. The floor "estimator_error" is the sum of all relative half widths. A moment that a run did not
    reach, or a value that is not positive, is not observed.
    """
    total = dict.fromkeys(evidence.runs, 0.0)
    error = dict.fromkeys(evidence.runs, 0.0)
    for series, sign in ((evidence.claim.quantity, 1), *(((against, -1),) if against else ())):
        for index, direction in ((stop, 1), (start, -1)):
            curves = evidence.curves(replace(series, index=index))
            for run in evidence.runs:
                _, value, low, high, _ = (float(field[-1]) for field in curves[run])
                total[run] += sign * direction * (np.log(value) if value > 0 else NAN)
                error[run] += (high - low) / (2 * value) if value > 0 else NAN
    kind = evidence.claim.floor
    if isinstance(kind, str) and kind != "estimator_error":
        raise ValueError(
            f'{evidence.claim.name}: the floor {kind!r} is unknown here; use a number or "estimator_error"'
        )
    observed = [each for each in error.values() if np.isfinite(each)]
    floor = max(observed, default=NAN) if isinstance(kind, str) else float(kind)
    return judge_mean(evidence.per_unit(total), 0.0, 0.0, side, floor)


def onset(evidence: Evidence, null: str, margin: float) -> Judgement:
    """Compare the onset of a curve with the claim's event in the same run: onset / event − 1 within ± ``margin``.

    The onset is the first recorded step at which the curve is above the middle between its first and its last
    value. A curve that does not rise has none, and counts as not observed. The floor is the larger spacing of
    recorded steps, of the curve and of the event, over the event's step.
    """
    curves, events = evidence.curves(evidence.claim.quantity), evidence.events(evidence.claim.event)
    by_run = {run: _onset(curves[run]) / events[run].step - 1 for run in evidence.runs}
    steps = [events[run].step for run in evidence.runs if events[run].step > 0]
    if not steps:
        return nothing(UNOBSERVED, len(evidence.per_unit(by_run)), "within")
    floor = _grid([curves[run].steps for run in evidence.runs]) / min(steps)
    return judge_mean(evidence.per_unit(by_run), -margin, margin, "within", floor)


def duration(evidence: Evidence, null: str, first: Series, second: Series, grid: Series) -> Judgement:
    """Compare the time from a first event to a second with the time from step 0 to the first.

    Per run (t₂ − t₁) − t₁ steps, below 0, in every run that reaches both. The floor is twice the spacing of the
    steps of ``grid``, the curve whose crossings the events are: each crossing is known up to that spacing.
    """
    early, late = evidence.events(first), evidence.events(second)
    by_run = {run: late[run].step - 2 * early[run].step for run in evidence.runs}
    spacing = _grid([evidence.curves(grid)[run].steps for run in evidence.runs])
    return judge_mean(evidence.per_unit(by_run), 0.0, 0.0, "below", 2 * spacing, each=True)


def crossed(evidence: Evidence, null: str, event: Series, side: Side, reference: bool = False) -> Judgement:
    """Compare the share of units in which an event happened with one half; of a model, in all of its seeds.

    With ``reference``, of the runs of the reference experiments.
    """
    if reference:
        evidence = evidence.reference
    if side == "within":
        raise ValueError(f'{evidence.claim.name}: a share is "above" or "below" one half')
    events = evidence.events(event)
    happened = evidence.per_unit({run: float(np.isfinite(events[run].step)) for run in evidence.runs})
    return judge_share(happened == 1.0, len(happened), side)


# Language models, which have one run: their units are layers, prompts, or dictionaries ----------------------


def layers(
    evidence: Evidence,
    null: str,
    side: Literal["above", "below"],
    other: Series | None = None,
    threshold: float | None = None,
    previous: bool = False,
    baseline: str | None = None,
    first: int = 0,
    depth: tuple[float, float] = (0.0, 1.0),
    logarithm: bool = False,
    quantity: Series | None = None,
    summary: Literal["share", "mean"] = "share",
) -> Judgement:
    """Compare a quantity of every layer with something of the same layer; each layer is one unit.

    Layers of one model are no sample of layers: a verdict is about this model, and takes its layers to be independent.
    Of a claim across models each model is one unit, with its share of layers (compared with one half) or its mean.

    Args:
        evidence: of the claim.
        null: what the row compares with; the null in the tables, unless ``baseline`` names it.
        side: of the layer's difference from what it is compared with.
        other: compare with this series of the same layer; or
        threshold: with this number; or
        previous: with the same series of the measured layer before; or, without any of these,
        baseline: with the end of the central 95 % range of this null that is nearer to the claimed side, of the same
            layer (its mean, if it has no range).
        first: layers before this are left out.
        depth: share of the depth where the first layer, and the first layer not, counted begin.
        logarithm: compare the logarithms, so that the floor is relative.
        quantity: instead of the claim's.
        summary: the share of layers on the claimed side, by more than the floor, against one half; or the mean over
            layers of the differences against 0.
    """
    evidence.counts("layer", "model")
    series, floor = quantity or evidence.claim.quantity, evidence.number_floor()
    # of a null the end of its range counts, of another series its value
    from_null = other is None and threshold is None and not previous
    read = baseline or null if from_null else ""
    missing = evidence.unobserved(series, *([other] if other else []))
    by_model: dict[str, np.ndarray] = {}
    for model, of_layer in evidence.layers(series).items():
        if previous:
            compared = {layer: of_layer[before].value for before, layer in pairwise(of_layer) if before >= first}
        elif threshold is not None:
            compared = dict.fromkeys(of_layer, threshold)
        else:
            rows = evidence.layers(other or series, read)[model]
            compared = {layer: _end(each, side) if from_null else each.value for layer, each in rows.items()}
        chosen = _within_depth(of_layer, first, depth)
        if previous:
            chosen = [layer for layer in chosen if layer in compared]
        elif not set(chosen) <= set(compared):
            raise Missing(f"{_lacking(other or series, read)} in layer {min(set(chosen) - set(compared))}")
        values = np.array([[of_layer[layer].value, compared[layer]] for layer in chosen]).reshape(-1, 2)
        if logarithm:
            values = np.log(np.where(values > 0, values, NAN))
        by_model[model] = rounding.difference(values[:, 0], values[:, 1])
    if evidence.claim.unit == "model":
        if summary == "mean":
            means = evidence.per_model({model: _mean(each) for model, each in by_model.items()})
            return judge_mean(means, 0.0, 0.0, side, floor)._replace(missing=missing)
        shares = {model: judge_most(each, 0.0, 0.0, side, floor).estimate for model, each in by_model.items()}
        return judge_mean(evidence.per_model(shares), 0.5, 0.5, "above", 0.0)._replace(missing=missing)
    (differences,) = by_model.values()
    if not differences.size:
        return nothing("no measured layer lies where the rule looks", 0, side)
    judged = judge_most if summary == "share" else judge_mean
    return judged(differences, 0.0, 0.0, side, floor)._replace(missing=missing)


def apart(evidence: Evidence, null: str, margin: float, quantity: Series | None = None, first: int = 0) -> Judgement:
    """Compare the share of layers in which a number is away from 0 by more than a margin with one half.

    A layer shows it if its whole interval lies on one side of ± ``margin``, and the contrary if all of it lies between;
    otherwise it shows neither.
    """
    evidence.counts("layer", "model")
    series, floor = quantity or evidence.claim.quantity, evidence.number_floor()
    judgements, missing = {}, evidence.unobserved(series)
    for model, of_layer in evidence.layers(series).items():
        rows = [each for layer, each in of_layer.items() if layer >= first]
        low, high = (np.array([getattr(each, end) for each in rows]) for end in ("low", "high"))
        seen = np.isfinite(low) & np.isfinite(high)
        outside = exceeds(low, margin) | exceeds(-margin, high)
        inside = exceeds(low, -margin) & exceeds(margin, high)
        judgements[model] = judge_shown(outside[seen], inside[seen], len(rows), floor)
    if evidence.claim.unit == "model":
        shares = evidence.per_model({model: judgement.estimate for model, judgement in judgements.items()})
        return judge_mean(shares, 0.5, 0.5, "above", 0.0)._replace(missing=missing)
    (judgement,) = judgements.values()
    return judgement._replace(missing=missing)


def measured(
    evidence: Evidence,
    null: str,
    side: Side,
    threshold: float | None = None,
    margin: float | None = None,
    baseline: str | None = None,
    quantity: Series | None = None,
    floor: float | None = None,
) -> Judgement:
    """Compare one number of a language model, with its own 95 % interval over prompts, with a threshold or a null.

    Without ``threshold``, with the central 95 % range of the null in the tables; ``within`` takes ± ``margin`` about
    the threshold. The p values take the estimate to be normal, with the interval's width over 3.92 as its standard
    error. Of a claim across models each model's number is one unit. ``floor`` stands for the claim's in rows of
    a quantity of another kind.
    """
    evidence.counts("prompt", "model")
    series, floor = quantity or evidence.claim.quantity, evidence.number_floor() if floor is None else floor
    found = evidence.measured(series)
    if threshold is not None:
        low, high = threshold - (margin or 0.0), threshold + (margin or 0.0)
    else:
        of_null = evidence.measured(series, baseline or null).items()
        ends = ({model: _end(each, end) for model, each in of_null} for end in ("below", "above"))
        low, high = (float(np.mean(evidence.per_model(end))) for end in ends)
    if evidence.claim.unit == "model":
        values = evidence.per_model({model: each.value for model, each in found.items()})
        return judge_mean(values, low, high, side, floor)
    ((value, its_low, its_high, n, _),) = found.values()
    return judge_measured(value, its_low, its_high, n, low, high, side, floor)


def cells(
    evidence: Evidence,
    null: str,
    other: Series,
    side: Literal["above", "below"],
    margin: float = 0.0,
    quantity: Series | None = None,
) -> Judgement:
    """Compare two cells of a dictionary sweep, seed by seed: the difference above −``margin`` or below ``margin``.

    A number of a seed is the mean over the layers in which dictionaries were trained.
    """
    evidence.counts("seed")
    values, others = evidence.dictionaries(quantity or evidence.claim.quantity), evidence.dictionaries(other)
    differences = np.array(
        [
            float(rounding.difference(value.value, others[run].value if run in others else NAN))
            for run, value in values.items()
        ]
    )
    limit = -margin if side == "above" else margin
    return judge_mean(differences, limit, limit, side, evidence.number_floor())


def dead_ratio(
    evidence: Evidence, null: str, other: Series, most: float, fewest_dead: float, quantity: Series | None = None
) -> Judgement:
    """Compare the ratio of the shares of dead latents of two cells of a dictionary sweep, seed by seed, with ``most``.

    The ratio is to be below. No evidence unless the share of the other cell is at least ``fewest_dead`` in the mean: of
    few there is nothing to cut. The floor is one latent of those that are dead in the other cell.
    """
    evidence.counts("seed")
    values, others = evidence.dictionaries(quantity or evidence.claim.quantity), evidence.dictionaries(other)
    dead = {run: others[run].value if run in others else NAN for run in values}
    ratios = np.array([value.value / dead[run] if dead[run] > 0 else NAN for run, value in values.items()])
    one_latent = [1 / (others[run].at * dead[run]) for run in values if dead[run] > 0 and others[run].at]
    share = _mean(np.array(list(dead.values())))
    if not share >= fewest_dead:
        reason = f"{share:.3g} of the latents of {_words(other.data)} are dead, fewer than {fewest_dead:g}"
        return nothing(reason, len(ratios), "below")
    return judge_mean(ratios, most, most, "below", max(one_latent, default=NAN))


def _end(of_null: Measured, side: Side) -> float:
    """Return the end of a null's range that a value must be beyond, or its mean where it has no range."""
    end = of_null.high if side == "above" else of_null.low
    return end if np.isfinite(end) else of_null.value


def _mean(values: Float[np.ndarray, " n"]) -> float:
    """Return the mean of the numbers that are finite; NaN for none."""
    seen = values[np.isfinite(values)]
    return float(np.mean(seen)) if seen.size else NAN


def _within_depth(of_layer: Mapping[int, Measured], first: int, depth: tuple[float, float]) -> list[int]:
    total = max(of_layer) + 1
    start, stop = (round(share * total, 6) for share in depth)
    return [layer for layer in of_layer if layer >= first and start <= layer < stop]


Rule = Callable[..., Judgement]

RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        level,
        change,
        contrast,
        difference,
        excess_over_trend,
        growth,
        onset,
        duration,
        crossed,
        layers,
        apart,
        measured,
        cells,
        dead_ratio,
    )
}
"""Every rule by its name in the claims."""


def _onset(curve: Curve) -> float:
    return half_change(curve.steps, curve.values).step if exceeds(curve.values[-1], curve.values[0]) else NAN


def _grid(steps: list[Float[np.ndarray, " n"]]) -> float:
    """Return the largest spacing of recorded steps; infinite if a curve has one step only."""
    return max(float(np.max(np.diff(each))) if each.size > 1 else float("inf") for each in steps)


# How a rule reads in the ledger --------------------------------------------------------------------------


def describe(claim: Claim, rule: str, null: str, parameters: Mapping[str, Any]) -> str:
    """Return in words what a comparison computes and demands; made from its data alone."""
    p = parameters
    series = p.get("quantity") or claim.quantity
    name = _series(series)
    if rule == "level":
        where = f"{name}, {_window(p['window'])}"
        if p.get("pairs"):
            where += ", jackknife over pairs of seeds"
        if p.get("threshold") is not None:
            return f"{where}, {p['side']} {p['threshold']:g}"
        null = p.get("baseline") or null
        if p.get("paired"):
            limit = f"within ±{p['margin']:g}" if p.get("margin") else f"{p['side']} 0"
            return f"{where}, minus {_words(null)} in the same run, {limit}"
        end = f"the {p['limit']} end of " if p.get("limit") else ""
        return f"{where}, {p['side']} {end}the central 95 % range of {_words(null)}"
    if rule == "contrast":
        return f"{name} minus {_series(p['other'])}, {_window(p['window'])}, same run, {p['side']} 0"
    if rule == "difference":
        limit = f"within ±{p['margin']:g}" if p.get("margin") else f"{p['side']} 0"
        return (
            f"{name}, {_window(p['window'])}, minus the mean of the same seed in {_words(claim.reference)} "
            f"experiments, {limit}"
        )
    if rule == "change":
        if p.get("baseline"):
            name = f"{name} minus {_words(p['baseline'])}"
        return f"{name}, from {_window(p['start'])} to {_window(p['stop'])}, same run, {p['side']} 0"
    if rule == "excess_over_trend":
        return (
            f"{name}, change from {_window(p['start'])} to {_window(p['stop'])}, minus what the trend since "
            f"{_window(p['early'])} predicts, same run, {p['side']} 0"
        )
    if rule == "growth":
        against = f", minus that of {_series(p['against'])}" if p.get("against") else ""
        return f"log ratio of {name} from {p['start']} % to {p['stop']} % of t{against}, same run, {p['side']} 0"
    if rule == "onset":
        return f"(step of half rise of {name}) / t − 1, same run, within ±{p['margin']:g}"
    if rule == "duration":
        first, second = p["first"].quantity, p["second"].quantity
        return f"({second} − {first}) − {first}, same run, below 0 in every run that reaches both"
    if rule == "crossed":
        where = f" ({_words(p['event'].data)})" if p["event"].data else ""
        units = f"{_words(claim.reference)} units" if p.get("reference") else "units"
        return f"share of {units} that reach {p['event'].quantity}{where}, {p['side']} one half"
    if rule == "layers":
        return _describe_layers(claim, series, null, p)
    if rule == "apart":
        where = f" from layer {p['first']} on" if p.get("first") else ""
        shown = f"whose interval of {name} lies outside ±{p['margin']:g}, above one half"
        return f"share of layers{where} {shown}{_independent(claim)}"
    if rule == "measured":
        if p.get("threshold") is None:
            return f"{name}, {p['side']} the central 95 % range of {_words(p.get('baseline') or null)}; p normal"
        limit = f"{p['threshold']:g}" + (f" ± {p['margin']:g}" if p.get("margin") else "")
        return f"{name}, {p['side']} {limit}; p normal"
    if rule == "cells":
        sign = "−" if p["side"] == "above" and p.get("margin") else ""
        return f"{name} minus that of {_words(p['other'].data)}, same seed, {p['side']} {sign}{p.get('margin', 0):g}"
    if rule == "dead_ratio":
        return (
            f"{name} over that of {_words(p['other'].data)}, same seed, below {p['most']:g}; only if the latter is at "
            f"least {p['fewest_dead']:g}"
        )
    raise ValueError(f"{claim.name}: no rule {rule!r}; rules: {', '.join(RULES)}")


def _describe_layers(claim: Claim, series: Series, null: str, p: Mapping[str, Any]) -> str:
    other: Series | None = p.get("other")
    if p.get("threshold") is not None:
        against = f"{p['threshold']:g}"
    elif p.get("previous"):
        against = "that of the measured layer before"
    elif other is not None:
        against = f"{_series(other)} of the same layer"
    else:
        end = "high" if p["side"] == "above" else "low"
        against = f"the {end} end of the central 95 % range of {_words(p.get('baseline') or null)} in the same layer"
    start, stop = p.get("depth", (0.0, 1.0))
    where = [f"from layer {p['first']} on"] if p.get("first") else []
    where += [f"from {start:.2g} to {stop:.2g} of the depth"] if (start, stop) != (0.0, 1.0) else []
    places = f" {' '.join(where)}" if where else ""
    compared = f"{'log of ' if p.get('logarithm') else ''}{_series(series)} {p['side']} {against}"
    if p.get("summary", "share") == "mean":
        return f"mean over layers{places} of the difference: {compared}{_independent(claim)}"
    mean = "mean over models of the " if claim.unit == "model" else ""
    return f"{mean}share of layers{places} with {compared}, above one half{_independent(claim)}"


def _independent(claim: Claim) -> str:
    """Tell what is assumed of layers where they are the units, and not models."""
    return "" if claim.unit == "model" else ", taken as independent"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _series(series: Series) -> str:
    part = series.part.removeprefix("layers.*").removeprefix(".") if "*" in series.part else series.part
    places = [_words(part)] if part not in ("model", "") else []
    if series.index == ANY_INDEX:
        pass
    elif isinstance(series.index, tuple):
        places.append(f"largest of indices {series.index[0]} to {series.index[1]}")
    elif series.index:
        places.append(f"index {series.index}")
    if series.data:
        places.append(_words(series.data))
    if series.relative_to:
        places.append(f"over the upper limit of {_words(series.relative_to)}")
    return _words(series.quantity) + (f" ({', '.join(places)})" if places else "")


def _window(window: Window) -> str:
    unit = "t" if window.of == "transition" else "training"
    text = f"{window.start:g}–{window.stop:g} {unit}"
    return text + (f" (not before {window.not_before:g} t)" if window.not_before else "")
