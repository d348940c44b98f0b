"""The rules by which claims are judged: each reduces every run to one number and compares it with a null.

A rule is a function of an ``Evidence`` (the tables and one claim) and the parameters of one comparison. It
returns a ``Judgement``. The side of the null is "above", "below" or "within".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from learning_geometry.claims.claim import Claim, Series, Window
from learning_geometry.claims.evidence import Curve, Event, Run, Tables, bounds, window_mean
from learning_geometry.claims.statistics import UNOBSERVED, Judgement, Side, judge_mean, judge_share, nothing
from learning_geometry.geometry.uncertainty import half_change, pair_pseudo_values

NAN = float("nan")


class Missing(LookupError):
    """A quantity that a rule reads is not in the tables."""


@dataclass(frozen=True)
class Evidence:
    """The tables of the experiment that a claim is judged on, and the runs that count."""

    claim: Claim
    tables: Tables
    runs: tuple[Run, ...]
    compared: "Evidence | None" = None
    """The same of the experiments that play the claim's reference role."""

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
            with_null = f" with its null {null}" if null else ""
            raise Missing(f"not measured: {series.quantity} of {series.part}{with_null}")

    def per_unit(self, by_run: Mapping[Run, float]) -> Float[np.ndarray, " units"]:
        """Return one number per unit: per seed, or per model the mean of its seeds."""
        if self.claim.unit == "seed":
            return np.array([by_run[run] for run in self.runs], dtype=np.float64)
        models = sorted({experiment for experiment, _ in self.runs})
        return np.array([np.mean([by_run[run] for run in self.runs if run[0] == model]) for model in models])

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
        differences = values - evidence.value(reference, window, null)
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
    differences = evidence.value(series, window) - evidence.value(other, window)
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
        by_run[run] = float(values[run].values[0]) - (float(np.mean(same_seed)) if same_seed else NAN)
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
    differences = evidence.value(series, stop) - evidence.value(series, start)
    if baseline is not None:
        of_null = reference or series
        differences = differences - (evidence.value(of_null, stop, baseline) - evidence.value(of_null, start, baseline))
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
    return judge_mean(third - second - factor * (second - first), 0.0, 0.0, side, floor)


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


Rule = Callable[..., Judgement]

RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (level, change, contrast, difference, excess_over_trend, growth, onset, duration, crossed)
}
"""Every rule by its name in the claims."""


def _onset(curve: Curve) -> float:
    return half_change(curve.steps, curve.values).step if curve.values[-1] > curve.values[0] else NAN


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
    raise ValueError(f"{claim.name}: no rule {rule!r}; rules: {', '.join(RULES)}")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _series(series: Series) -> str:
    places = [series.part] if series.part != "model" else []
    if isinstance(series.index, tuple):
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
