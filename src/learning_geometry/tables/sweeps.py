"""One table of all experiments of a sweep, with the swept values as columns."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from learning_geometry.tables.summary import COLUMNS


def gather(summaries: Mapping[str, pd.DataFrame], values: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the summaries below each other, in the order of ``values``, with one more column for each swept key.

    Args:
        summaries: experiment -> its summary table (``learning_geometry.tables.summary``).
        values: experiment -> swept key, such as ``optimizer.learning_rate``, -> its value there.

    Returns:
        The columns of the swept keys, then those of a summary. Numbers and truth values are kept as such, with null
        where the config says null; of other values the text.

    Raises:
        ValueError: the two do not name the same experiments, or these do not have the same keys.

    >>> summary = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    >>> list(gather({"a": summary}, {"a": {"model.layers": 2}}).columns[:3])
    ['model.layers', 'experiment', 'step']
    """
    keys = {tuple(each) for each in values.values()}
    if set(summaries) != set(values) or len(keys) != 1:
        raise ValueError(
            f"gather: summaries of {sorted(summaries)} and values of {sorted(values)} with the keys {sorted(keys)}; "
            "give one summary and the same keys for every experiment"
        )
    table = pd.concat([summaries[name][list(COLUMNS)] for name in values], ignore_index=True)
    lengths = [len(summaries[name]) for name in values]
    columns = {}
    for key in keys.pop():
        of_experiments = _column([each[key] for each in values.values()])
        columns[key] = of_experiments.repeat(lengths).reset_index(drop=True)
    return pd.concat([pd.DataFrame(columns), table], axis=1)


def _column(values: Sequence[Any]) -> pd.Series:
    """Return values of a config as a column of one type."""
    known = {type(value) for value in values if value is not None}
    for allowed, kind in (({bool}, "boolean"), ({int}, "Int64"), ({int, float}, "Float64")):
        if known and known <= allowed:
            return pd.Series(list(values), dtype=kind)
    return pd.Series([_text(value) for value in values], dtype="str")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
