"""What a rule is given: the tables of an experiment, and one claim that is judged on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from learning_geometry.claims.claim import Claim, Series, Window
from learning_geometry.claims.curves import Curve, Event, Measured, Run, Tables, bounds, window_means
from learning_geometry.claims.words import series_words
from learning_geometry.geometry.uncertainty import pseudo_values

NAN = float("nan")


class Missing(LookupError):
    """A quantity that a rule reads is not in the tables."""


def lacking(series: Series, null: str) -> str:
    """Say that a series, or its null, is not in the tables."""
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
        """Return the curve of every run, of numbers of single seeds.

        Raises:
            Missing: some run has none.
            ValueError: the numbers compare seeds, see ``of_single_seeds``.
        """
        self.of_single_seeds(series, null)
        return self._curves(series, null)

    def of_single_seeds(self, series: Series, null: str = "") -> None:
        """Check that the numbers of seeds do not depend on one another.

        Raises:
            ValueError: they compare seeds, which the means of ``value`` allow for and other rules do not.
        """
        if (compared := self.tables.other_seeds(series, null)) != "none":
            raise ValueError(
                f"{self.claim.name}: {series.quantity} compares each seed with {compared} of the others, which this "
                "rule does not allow for; use level, change or contrast"
            )

    def compares_seeds(self, parameters: Any) -> bool:
        """Whether a comparison counts seeds, by numbers that compare them.

        Args:
            parameters: of its rule.
        """
        p = {each.name: getattr(parameters, each.name) for each in fields(parameters)}
        series = [each for each in p.values() if isinstance(each, Series)]
        series += [self.claim.quantity] if p.get("quantity") is None else []
        # of a comparison that is not paired the null's range counts, whatever it is of
        nulls = ["", p["baseline"]] if p.get("baseline") and p.get("paired", True) else [""]
        said = {self.tables.other_seeds(each, null) for each in series for null in nulls}
        return self.claim.unit == "seed" and said != {"none"}

    def _curves(self, series: Series, null: str = "") -> dict[Run, Curve]:
        curves = self.tables.curves(series, null)
        self._complete(curves, series, null or series.relative_to)
        return curves

    def events(self, series: Series | None) -> dict[Run, Event]:
        """Return the event of every run.

        Raises:
            Missing: some run has none.
        """
        if series is None:
            raise ValueError(f"{self.claim.name}: its windows are relative to an event; give the claim one")
        self.of_single_seeds(series)
        events = self.tables.events(series)
        self._complete(events, series, "")
        return events

    def _complete(self, by_run: Mapping[Run, object], series: Series, null: str) -> None:
        if not set(self.runs) <= set(by_run):
            raise Missing(lacking(series, null))

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
        unmeasured = self.tables.lacking(series)
        by_model: dict[str, dict[int, Measured]] = {}
        for (model, seed), layers in self.tables.layers(series, null).items():
            undefined = dict.fromkeys(unmeasured.get((model, seed), ()), Measured(NAN, NAN, NAN, 0, 0))
            by_model.setdefault(model, dict(sorted((undefined | layers).items())))
        self._of_every_model(by_model, series, null)
        return by_model

    def unobserved(self, *several: Series) -> str:
        """Return which layers lack one of some series, and why; "" for none."""
        descriptions: dict[str, None] = {}
        for series in several:
            undefined = {
                run: {layer: "undefined" for layer, each in layers.items() if np.isnan(each.value)}
                for run, layers in self.tables.layers(series).items()
            }
            for by_run in (self.tables.lacking(series), undefined):
                for (model, _), layers in by_run.items():
                    of_model = f" of {model}" if len({name for name, _ in self.runs}) > 1 else ""
                    descriptions |= dict.fromkeys(
                        f"layer {layer}{of_model}: {series_words(series)}, {why}" for layer, why in layers.items()
                    )
        return "; ".join(descriptions)

    def measured(self, series: Series, null: str = "") -> dict[str, Measured]:
        """Return the last value of a series, or of its null, for each model.

        Raises:
            Missing: some model has none.
        """
        by_model: dict[str, Measured] = {}
        for (model, _), curve in sorted(self.tables.curves(series, null).items()):
            value, low, high, n = (float(field[-1]) for field in curve[1:])
            by_model.setdefault(model, Measured(value, low, high, int(n), 0))
        self._of_every_model(by_model, series, null)
        return by_model

    def dictionaries(self, series: Series) -> dict[Run, Measured]:
        """Return a series of each dictionary seed, the mean over the layers in which it was measured.

        Raises:
            Missing: there is none.
        """
        by_run = self.tables.layers(series)
        if not by_run:
            raise Missing(f"not measured: {series.quantity} of {series.data}")
        result = {}
        for run, layers in by_run.items():
            value = float(np.mean([of_layer.value for of_layer in layers.values()]))
            fewest = min(of_layer.at for of_layer in layers.values())
            result[run] = Measured(value, NAN, NAN, len(layers), fewest)
        return result

    def _of_every_model(self, by_model: Mapping[str, object], series: Series, null: str) -> None:
        if not {experiment for experiment, _ in self.runs} <= set(by_model):
            raise Missing(lacking(series, null))

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
        for run, curve in self._curves(series, null).items():
            transition = events[run].step if run in events else NAN
            start, stop = bounds(window, transition, float(self.tables.last_step[run]))
            means = window_means(curve.steps, curve[1:], start, stop)
            result[run] = Curve(np.array([(start + stop) / 2]), *(np.array([mean]) for mean in means))
        return result

    def value(self, series: Series, window: Window, null: str = "") -> Float[np.ndarray, " units"]:
        """Return the mean over a window, one per unit; of seeds that are compared, the jackknife's pseudo-values."""
        by_run = self.in_window(series, window, null)
        values = self.per_unit({run: float(by_run[run].values[0]) for run in self.runs})
        return pseudo_values(values, self.tables.other_seeds(series, null)) if self.claim.unit == "seed" else values

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
                f"{self.claim.name}: the floor {kind!r} is unknown here; "
                'use a number, "evaluation_noise" or "estimator_error"'
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
