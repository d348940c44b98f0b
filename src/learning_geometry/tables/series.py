"""The tables of one language model at several steps of its training, and of several seeds, as tables over steps."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from learning_geometry.tables.summary import KEY, summarize
from learning_geometry.tables.tidy import check_table


def gather(tables: Mapping[str, pd.DataFrame], places: Mapping[str, Mapping[str, int]], name: str) -> pd.DataFrame:
    """Return all numbers of the models of a series in one tidy table, each with its model's step and seed.

    Args:
        tables: model -> its tidy table, of seed 0 and step 0.
        places: model -> its "step" and "seed", in the order of the rows.
        name: of the series, which becomes the experiment.

    Raises:
        ValueError: the two do not name the same models, or a table has steps or seeds of its own; the message names it.
    """
    if set(tables) != set(places):
        raise ValueError(
            f"{name}: tables of {sorted(tables)} and steps of {sorted(places)}; give a table for every model"
        )
    placed = []
    for model, place in places.items():
        table = tables[model]
        own = table[(table["step"] != 0) | (table["seed"] != 0)]
        if len(own):
            raise ValueError(
                f"{model}: {own['quantity'].iloc[0]} has steps or seeds of its own, for which the table of the series "
                f"{name} has no room; leave its measurement out"
            )
        placed.append(table.assign(experiment=name, step=place["step"], seed=place["seed"]))
    gathered = pd.concat(placed, ignore_index=True)
    check_table(gathered)
    return gathered


def summarize_series(gathered: pd.DataFrame) -> pd.DataFrame:
    """Return the summary of what :func:`gather` returns: that of each step, as if there were no other.

    So the numbers of a single seed keep their own intervals, over prompts or windows, at every step: they are those of
    the summary of that step's model. Of several seeds the intervals are over seeds.

    >>> from learning_geometry.tables.tidy import tidy
    >>> table = tidy([{"step": 0, "quantity": "rank", "value": 3.0, "low": 2.0, "high": 5.0}], "model", 0)
    >>> gathered = gather({"model": table}, {"model": {"step": 8, "seed": 0}}, "models")
    >>> summarize_series(gathered)[["step", "low", "interval"]]
       step  low    interval
    0     8  2.0  within_run
    """
    steps = [summarize([rows.assign(step=0)]).assign(step=step) for step, rows in gathered.groupby("step", sort=True)]
    summary = pd.concat(steps, ignore_index=True).astype({"step": "int64"})
    return summary.sort_values(KEY, kind="stable", ignore_index=True)


def same_weights(provenances: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the models of a series that have the same weights, as files that are one under several names have.

    Args:
        provenances: as of :func:`check_same_tokens`.

    >>> tables = {"x.parquet": {"weights": "1f"}}
    >>> same_weights({"a": {"tables": tables}, "b": {"tables": tables}, "c": {"tables": {}}})
    [['a', 'b']]
    """
    models: dict[str, list[str]] = {}
    for model, provenance in provenances.items():
        for weights in {str(each["weights"]) for each in provenance["tables"].values() if each.get("weights")}:
            models.setdefault(weights, []).append(model)
    return [several for several in models.values() if len(several) > 1]


def check_same_tokens(provenances: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Check that all models of a series read the same tokens: otherwise steps differ in what was read, too.

    Args:
        provenances: model -> what its table of all measurements was made from.
        name: of the series.

    Raises:
        ValueError: two read other tokens of the same text or prompts; names them.
    """
    first: dict[tuple[str, str], tuple[str, str]] = {}
    for model, provenance in provenances.items():
        for made in provenance.get("tables", {}).values():
            for kind, by_name in (made.get("read") or {}).items():
                for what, read in by_name.items():
                    other, tokens = first.setdefault((kind, what), (model, str(read["tokens"])))
                    if tokens != str(read["tokens"]):
                        raise ValueError(
                            f"{name}: {other} and {model} read other tokens of {what} ({kind}), as their tokenizers "
                            "differ, so that their steps cannot be compared; give one of them an entry of its own"
                        )
