"""From tidy tables to curves and events, one per run."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from learning_geometry.claims.claim import Series, Window
from learning_geometry.claims.statistics import Side, exceeds
from learning_geometry.failures import NOT_MEASURED
from learning_geometry.tables.tidy import with_other_seeds

Run = tuple[str, int]
"""Experiment and seed."""

IN_A_LAYER = re.compile(r"layers\.(\d+)((?:\..+)?)$")
"""A part of the model in a layer: its number, and what follows."""

OF_ONE_QUANTITY = re.compile(r"no (\w+_[\w-]+)")
"""How the reason of a part that lacks one quantity alone begins, after its data."""


class Curve(NamedTuple):
    """A number over the training of one run, at increasing steps.

    Attributes:
        steps: training steps, shape (n,).
        values: the number at these steps.
        low: lower end of the sampling interval of a measured value, or of the central range of a null.
        high: upper end.
        n: what each value averages (sequences, draws).
    """

    steps: Float[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    n: Float[np.ndarray, " n"]


class Event(NamedTuple):
    """When something first happened in a run; ``step`` is NaN if it had not by the last step (right-censored)."""

    step: float
    last: float


class Measured(NamedTuple):
    """One number of a run.

    Attributes:
        value: the number.
        low: lower end of its interval, or of the central range of a null; NaN where there is none.
        high: upper end.
        n: what it averages, or rests on (prompts, vectors, draws).
        at: its index in the table, such as the number of latents.
    """

    value: float
    low: float
    high: float
    n: int
    at: int


class Tables:
    """The tidy tables of some experiments, by quantity, with every run that is in them."""

    def __init__(self, tables: Iterable[pd.DataFrame]):
        """Index the tables; each holds one experiment or more, all of its seeds."""
        table = pd.concat([with_other_seeds(each) for each in tables], ignore_index=True)
        last = table.groupby(["experiment", "seed"], sort=True)["step"].max()
        self.runs: list[Run] = [(str(experiment), int(seed)) for experiment, seed in last.index]
        """Every run, sorted by experiment and seed."""
        self.last_step: dict[Run, int] = dict(zip(self.runs, last.tolist(), strict=True))
        """The last step in the tables of each run."""
        self._curves: dict[tuple[Series, str], dict[Run, Curve]] = {}
        self._other_seeds: dict[tuple[Series, str], str] = {}
        self._by_series: dict[str, dict[tuple[str, str, str], pd.DataFrame]] = {}
        self._layers: dict[str, dict[tuple[str, str, str], list[tuple[Run, int, Measured]]]] = {}
        self._by_quantity = dict(iter(table.groupby("quantity", sort=False)))
        failed = table[table["quantity"] == NOT_MEASURED].sort_values(["experiment", "seed", "part"])
        self.failed: list[str] = list(dict.fromkeys(failed["part"] + " failed: " + failed["data"]))
        """What could not be measured, and why."""
        self._lacking = [
            ((str(experiment), int(seed)), str(part), str(reason))
            for experiment, seed, part, reason in zip(
                *(failed[name] for name in ("experiment", "seed", "part", "data")), strict=True
            )
        ]

    @classmethod
    def merged(cls, several: Iterable["Tables"]) -> "Tables":
        """Return the tables of several experiments as one."""
        return cls(rows for tables in several for rows in tables._by_quantity.values())

    def curves(self, series: Series, null: str = "") -> dict[Run, Curve]:
        """Return the curve of a series, or of its null, for each run that has one.

        Of a range of indices the largest value at each step counts, with its own low, high and n. Censored rows
        count as not observed (NaN).
        """
        key = (series, null)
        if key not in self._curves:  # a claim reads a series once for each of its windows
            self._curves[key] = self._read_curves(series, null)
        return self._curves[key]

    def other_seeds(self, series: Series, null: str = "") -> str:
        """Return how the values of a series, or of its null, compare seeds: "none", "next" or "all".

        Raises:
            ValueError: its rows differ in it.
        """
        key = (series, null)
        if key not in self._other_seeds:
            rows = self._rows(series, null)
            comparisons = {str(said) or "none" for said in rows["other_seeds"].unique()} or {"none"}
            if len(comparisons) > 1:
                raise ValueError(
                    f"{series.quantity} of {series.part}: rows differ in other_seeds, {sorted(comparisons)}"
                )
            self._other_seeds[key] = comparisons.pop()
        return self._other_seeds[key]

    def events(self, series: Series) -> dict[Run, Event]:
        """Return the event of a series for each run that has it."""
        rows = self._rows(series, "")
        return {
            (str(experiment), int(seed)): Event(float("nan") if censored else float(value), float(step))
            for experiment, seed, value, censored, step in zip(
                rows["experiment"], rows["seed"], rows["value"], rows["censored"], rows["step"], strict=True
            )
        }

    def layers(self, series: Series, null: str = "") -> dict[Run, dict[int, Measured]]:
        """Return the last value of a series, or of its null, in every layer of each run that has one.

        Args:
            series: its part has a "*" in place of the layer's number; of a range of indices the largest index counts.
            null: name of a null; "" for what was measured.

        Raises:
            ValueError: the part names no layers.
        """
        if series.part.count("*") != 1:
            raise ValueError(f"{series.quantity}: the part {series.part!r} names no layers; write layers.*.<part>")
        if series.quantity not in self._layers:  # a claim reads a quantity of many parts
            self._layers[series.quantity] = self._read_layers(series.quantity)
        first, last = series.index if isinstance(series.index, tuple) else (series.index, series.index)
        by_run: dict[Run, dict[int, Measured]] = {}
        for run, layer, of_layer in self._layers[series.quantity].get((series.part, series.data, null), ()):
            if first <= of_layer.at <= last:
                by_run.setdefault(run, {})[layer] = of_layer
        return {run: dict(sorted(layers.items())) for run, layers in sorted(by_run.items())}

    def lacking(self, series: Series) -> dict[Run, dict[int, str]]:
        """Return the layers in which the part of a series could not be measured, and why.

        A reason that names another quantity is left out; a layer that has the series lacks something else of the part.
        """
        there = self.layers(series)
        prefix, _, suffix = series.part.partition("*")
        reasons: dict[Run, dict[int, str]] = {}
        for run, part, reason in self._lacking:
            of_data = not series.data or reason.startswith(f"{series.data}: ")
            why = reason.removeprefix(f"{series.data}: ")
            of_another = (named := OF_ONE_QUANTITY.match(why)) and named[1] != series.quantity
            match = IN_A_LAYER.match(part)
            if not of_data or of_another or not match or prefix != "layers." or match[2] != suffix:
                continue
            if int(match[1]) not in there.get(run, {}):
                reasons.setdefault(run, {}).setdefault(int(match[1]), why)
        return reasons

    def _read_layers(self, quantity: str) -> dict[tuple[str, str, str], list[tuple[Run, int, Measured]]]:
        """Return run, layer and number of every row of a quantity in a layer, by part, data and null; the last last."""
        result: dict[tuple[str, str, str], list[tuple[Run, int, Measured]]] = {}
        if quantity not in self._by_quantity:
            return result
        names = ["step", "index", "experiment", "seed", "part", "data", "null", "value", "low", "high", "n"]
        columns = [self._by_quantity[quantity][name].tolist() for name in names]
        rows = sorted(zip(*columns, strict=True), key=lambda row: row[:2])
        for _, at, experiment, seed, part, data, null, value, low, high, n in rows:
            if match := IN_A_LAYER.match(part):
                key = (f"layers.*{match[2]}", data, null)
                entry = ((experiment, seed), int(match[1]), Measured(value, low, high, n, at))
                result.setdefault(key, []).append(entry)
        return result

    def _read_curves(self, series: Series, null: str) -> dict[Run, Curve]:
        rows = self._rows(series, null)
        if series.relative_to:
            limits = self._rows(series, series.relative_to)
            rows = _relative(rows, limits)
        # a value at an event that never happened is none, and so is its error
        happened = ~rows["censored"].astype(bool)
        if not happened.all():
            rows = rows.assign(**{name: rows[name].where(happened) for name in ("value", "low", "high")})
        rows = rows.sort_values(["step", "value"], kind="stable", na_position="first").drop_duplicates(
            ["experiment", "seed", "step"], keep="last"
        )
        columns = [rows[name].to_numpy(np.float64) for name in ("step", "value", "low", "high", "n")]
        places = cast(dict[Run, np.ndarray], rows.groupby(["experiment", "seed"]).indices)
        return {
            (str(experiment), int(seed)): Curve(*(column[places[experiment, seed]] for column in columns))
            for experiment, seed in sorted(places)
        }

    def _rows(self, series: Series, null: str) -> pd.DataFrame:
        of_quantity = self._by_quantity.get(series.quantity)
        if of_quantity is None:
            return pd.DataFrame(
                columns=["experiment", "seed", "step", "index", "value", "low", "high", "n", "censored", "other_seeds"]
            )
        if series.quantity not in self._by_series:  # split once, not searched for each part and null
            groups = of_quantity.groupby(["part", "data", "null"], sort=False)
            self._by_series[series.quantity] = {
                (str(part), str(data), str(name)): rows for (part, data, name), rows in groups
            }
        rows = self._by_series[series.quantity].get((series.part, series.data, null))
        if rows is None:
            return of_quantity.iloc[:0]
        first, last = series.index if isinstance(series.index, tuple) else (series.index, series.index)
        return rows[rows["index"].between(first, last)]


def _relative(rows: pd.DataFrame, limits: pd.DataFrame) -> pd.DataFrame:
    """Divide values by the upper limit of a null at the same run, step and index; rows without one are lost."""
    key = ["experiment", "seed", "step", "index"]
    joined = rows.merge(limits[[*key, "high"]].rename(columns={"high": "limit"}), on=key)
    return joined.assign(**{name: joined[name] / joined["limit"] for name in ("value", "low", "high")})


def window_mean(steps: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"], start: float, stop: float) -> float:
    """Return the mean of a curve, linear between its points, from step ``start`` to ``stop``.

    NaN if the window is not within the observed steps: nothing is extrapolated. A curve known at one step holds
    everywhere.

    >>> window_mean(np.array([0.0, 10.0]), np.array([0.0, 1.0]), 2.0, 6.0)
    0.4
    """
    return window_means(steps, (values,), start, stop)[0]


def window_means(
    steps: Float[np.ndarray, " n"], several: Sequence[Float[np.ndarray, " n"]], start: float, stop: float
) -> list[float]:
    """Return ``window_mean`` of several curves that are known at the same steps."""
    nothing = [float("nan")] * len(several)
    if not (math.isfinite(start) and math.isfinite(stop)) or steps.size == 0:
        return nothing
    if steps.size == 1:
        return [float(values[0]) for values in several]
    # a window of 1.1 times 3000 steps ends at 3300.0000000000005
    if start > stop or _exceeds(float(steps[0]), start) or _exceeds(stop, float(steps[-1])):
        return nothing
    start, stop = (float(np.clip(end, steps[0], steps[-1])) for end in (start, stop))
    if start == stop:
        return [float(np.interp(start, steps, values)) for values in several]
    inside = steps[(steps > start) & (steps < stop)]
    knots = np.concatenate([[start], inside, [stop]])
    return [float(np.trapezoid(np.interp(knots, steps, values), knots) / (stop - start)) for values in several]


def _exceeds(first: float, second: float) -> bool:
    """Whether a number is above another by more than rounding; what is no larger is not looked at again."""
    return first > second and bool(exceeds(first, second))


def bounds(window: Window, transition: float, last: float) -> tuple[float, float]:
    """Return the first and last step of a window in one run, NaN if it does not exist there.

    Args:
        window: the window.
        transition: step of the event in this run, NaN if it had not happened.
        last: last step of the run.

    >>> bounds(Window(0.5, 0.75), 1000.0, 3500.0), bounds(Window(0.9, 1.0, "training"), 1000.0, 3500.0)
    ((500.0, 750.0), (3150.0, 3500.0))
    """
    unit = transition if window.of == "transition" else last
    start, stop = window.start * unit, window.stop * unit
    if window.not_before and (np.isnan(transition) or exceeds(window.not_before * transition, start)):
        return float("nan"), float("nan")
    return start, stop


def largest_spacing(steps: Iterable[Float[np.ndarray, " _"]]) -> float:
    """Return the largest spacing of the recorded steps of some curves; infinite if one has a single step.

    >>> largest_spacing([np.array([0.0, 10.0, 30.0]), np.array([0.0, 5.0])])
    20.0
    """
    return max(float(np.max(np.diff(each))) if each.size > 1 else float("inf") for each in steps)


def null_end(of_null: Measured, side: Side) -> float:
    """Return the end of a null's range that a value must be beyond, or its mean where it has no range.

    >>> null_end(Measured(0.5, 0.4, 0.7, 100, 0), "above"), null_end(Measured(0.5, np.nan, np.nan, 1, 0), "below")
    (0.7, 0.5)
    """
    end = of_null.high if side == "above" else of_null.low
    return end if np.isfinite(end) else of_null.value
