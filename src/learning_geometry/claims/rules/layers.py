"""A quantity of every layer of a language model, against something of the same layer; each layer is one unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float

from learning_geometry.claims.claim import Claim, Series
from learning_geometry.claims.curves import Measured, null_end
from learning_geometry.claims.evidence import NAN, Evidence, Missing, lacking
from learning_geometry.claims.statistics import Judgement, judge_mean, judge_most, mean_of_observed, nothing
from learning_geometry.claims.words import series_words, taken_as_independent, words
from learning_geometry.geometry import rounding

ESTIMATE = "share"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a comparison can say; without ``other``, ``threshold`` and ``previous`` it is one with a null."""

    side: Literal["above", "below"]
    """Of the layer's difference from what it is compared with."""
    baseline: str
    """The null's name in the tables: the end of its central 95 % range that is nearer to the claimed side counts, of
    the same layer, or its mean, if it has no range."""
    other: Series | None = None
    """Compare with the value of this series in the same layer."""
    threshold: float | None = None
    """Compare with this number."""
    previous: bool = False
    """Compare with the same series of the measured layer before."""
    first: int = 0
    """Layers before this are left out."""
    depth: tuple[float, float] = (0.0, 1.0)
    """Share of the depth where the first layer, and the first layer not, counted begin."""
    logarithm: bool = False
    """Compare the logarithms, so that the floor is relative."""
    quantity: Series | None = None
    """Instead of the claim's."""
    summary: Literal["share", "mean"] = "share"
    """The share of layers on the claimed side, by more than the floor, against one half; or the mean over layers of the
    differences against 0."""

    @property
    def from_null(self) -> bool:
        """Whether layers are compared with a null."""
        return self.other is None and self.threshold is None and not self.previous


def judge(evidence: Evidence, parameters: Parameters) -> Judgement:
    """Compare the layers of one model; or, of a claim across models, the models, each with its share or its mean.

    Layers of one model are no sample of layers: a verdict is about this model, and takes its layers to be independent.

    Raises:
        Missing: a quantity is not in the tables, or not in a layer that counts.
    """
    evidence.counts("layer", "model")
    series, side, floor = parameters.quantity or evidence.claim.quantity, parameters.side, evidence.number_floor()
    by_model = {
        model: _differences(evidence, parameters, series, model, of_layer)
        for model, of_layer in evidence.layers(series).items()
    }
    missing = evidence.unobserved(series, *([parameters.other] if parameters.other else []))
    if evidence.claim.unit == "model":
        if parameters.summary == "mean":
            means = evidence.per_model({model: mean_of_observed(each) for model, each in by_model.items()})
            return judge_mean(means, 0.0, 0.0, side, floor)._replace(missing=missing)
        shares = {model: judge_most(each, 0.0, 0.0, side, floor).estimate for model, each in by_model.items()}
        return judge_mean(evidence.per_model(shares), 0.5, 0.5, "above", 0.0)._replace(missing=missing)
    (differences,) = by_model.values()
    if not differences.size:
        return nothing("no measured layer lies where the rule looks", 0, side)
    judged = judge_most if parameters.summary == "share" else judge_mean
    return judged(differences, 0.0, 0.0, side, floor)._replace(missing=missing)


def _differences(
    evidence: Evidence, parameters: Parameters, series: Series, model: str, of_layer: Mapping[int, Measured]
) -> Float[np.ndarray, " layers"]:
    """Return the difference of each layer that counts from what it is compared with."""
    compared = _compared(evidence, parameters, series, model, of_layer)
    chosen = _within_depth(of_layer, parameters.first, parameters.depth)
    if parameters.previous:
        chosen = [layer for layer in chosen if layer in compared]
    elif not set(chosen) <= set(compared):
        null = parameters.baseline if parameters.from_null else ""
        first = min(set(chosen) - set(compared))
        raise Missing(f"{lacking(parameters.other or series, null)} in layer {first}")
    values = np.array([[of_layer[layer].value, compared[layer]] for layer in chosen]).reshape(-1, 2)
    if parameters.logarithm:
        values = np.log(np.where(values > 0, values, NAN))
    return rounding.difference(values[:, 0], values[:, 1])


def _compared(
    evidence: Evidence, parameters: Parameters, series: Series, model: str, of_layer: Mapping[int, Measured]
) -> dict[int, float]:
    """Return what each layer of a model is compared with: the end of a null's range, or the value of another series."""
    if parameters.previous:
        return {layer: of_layer[before].value for before, layer in pairwise(of_layer) if before >= parameters.first}
    if parameters.threshold is not None:
        return dict.fromkeys(of_layer, parameters.threshold)
    if parameters.other is not None:
        return {layer: each.value for layer, each in evidence.layers(parameters.other)[model].items()}
    of_null = evidence.layers(series, parameters.baseline)[model]
    return {layer: null_end(each, parameters.side) for layer, each in of_null.items()}


def _within_depth(of_layer: Mapping[int, Measured], first: int, depth: tuple[float, float]) -> list[int]:
    total = max(of_layer) + 1
    start, stop = (round(share * total, 6) for share in depth)
    return [layer for layer in of_layer if layer >= first and start <= layer < stop]


def describe(claim: Claim, parameters: Parameters) -> str:
    """Return in words what is compared."""
    start, stop = parameters.depth
    where = [f"from layer {parameters.first} on"] if parameters.first else []
    where += [f"from {start:.2g} to {stop:.2g} of the depth"] if (start, stop) != (0.0, 1.0) else []
    places = f" {' '.join(where)}" if where else ""
    name = ("log of " if parameters.logarithm else "") + series_words(parameters.quantity or claim.quantity)
    compared = f"{name} {parameters.side} {_against(parameters)}"
    if parameters.summary == "mean":
        return f"mean over layers{places} of the difference: {compared}{taken_as_independent(claim)}"
    mean = "mean over models of the " if claim.unit == "model" else ""
    return f"{mean}share of layers{places} with {compared}, above one half{taken_as_independent(claim)}"


def _against(parameters: Parameters) -> str:
    if parameters.threshold is not None:
        return f"{parameters.threshold:g}"
    if parameters.previous:
        return "that of the measured layer before"
    if parameters.other is not None:
        return f"{series_words(parameters.other)} of the same layer"
    end = "high" if parameters.side == "above" else "low"
    return f"the {end} end of the central 95 % range of {words(parameters.baseline)} in the same layer"
