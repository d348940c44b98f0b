"""The tidy table that every measurement returns: one row per number, the same columns everywhere."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from learning_geometry.finite import KEY, check_finite, is_unbounded
from learning_geometry.geometry.rounding import deviations
from learning_geometry.tables.renamed import with_present_names

FEWEST_FOR_QUANTILES = 100
"""Draws of a null from which its range is given by quantiles."""

COLUMNS: dict[str, str] = {
    "experiment": "str",
    "seed": "int64",
    "step": "int64",
    "part": "str",
    "quantity": "str",
    "index": "int64",
    "data": "str",
    "null": "str",
    "value": "float64",
    "low": "float64",
    "high": "float64",
    "n": "int64",
    "unit": "str",
    "censored": "bool",
    "other_seeds": "str",
}
"""Names, order and types of the columns.

``part`` is the part of the model, ``index`` the rank of a singular value, a lag, ... (0 if none), ``data``
the data set measured on ("" if none). ``null`` is "" for a measured value and otherwise names the null
baseline of the row: then ``value`` is its mean over ``n`` draws and [``low``, ``high``] its central 95 %
range; of a fraction it lies in [0, 1]. For a measured value ``low`` and ``high`` are NaN unless the sampling interval
within the run is known, and ``n`` counts what was averaged. ``censored``: the event had not happened by
``value``, the last step observed. ``other_seeds`` is one of ``OTHER_SEEDS``.
"""

OTHER_SEEDS = ("", "none", "next", "all")
"""What of the experiment's other seeds is in a value: "none" of them; "next", it compares its seed with the next one in
ascending order, and the last with the first; "all", it is the mean of its seed's comparisons with every other seed,
each the same in both directions (average a comparison that is not over both). Values that share seeds are not
independent, which an interval over seeds must allow for. "" is "none" where nothing else is possible: what is given
other seeds says one of the three of each of its rows (``check_other_seeds``)."""

COMPARED_BEFORE = {
    ("orientation_rms_cosine", ""): "all",
    ("orientation_largest_cosine", ""): "all",
    ("trajectory_r90_distance_from_other_seeds", ""): "all",
    ("commutator_share_norm", "another_seed"): "next",
    ("commutator_share_energy", "another_seed"): "next",
}
"""Quantity and null -> ``other_seeds``, of all rows other than "none" in tables of versions without that column."""

REQUIRED = ("step", "quantity", "value")
"""The columns without a default in ``tidy``."""

_DEFAULTS: dict[str, Any] = {
    "part": "model",
    "index": 0,
    "data": "",
    "null": "",
    "low": np.nan,
    "high": np.nan,
    "n": 1,
    "unit": "1",
    "censored": False,
    "other_seeds": "",
}


def tidy(rows: Iterable[Mapping[str, Any]], experiment: str, seed: int, other_seeds: str = "") -> pd.DataFrame:
    """Return the checked table of the measurements of one run.

    Args:
        rows: dictionaries with at least "step", "quantity" and "value"; the other columns default to
            part "model", index 0, data "", null "", low and high NaN, n 1, unit "1", censored False, and
            other_seeds to the argument of that name.
            Entries that are one-dimensional arrays or lists, all of one length, make that many rows; the
            scalars beside them are repeated (a whole spectrum is one dictionary).
        experiment: name of the experiment, in every row.
        seed: seed of the run, in every row.
        other_seeds: what of the other seeds is in the rows that do not say it themselves, see ``OTHER_SEEDS``.

    Raises:
        ValueError: a key is unknown or missing, arrays differ in length, or the table fails ``check_table``.

    >>> tidy([{"step": 0, "quantity": "singular_value", "index": [1, 2], "value": [3.0, 1.0]}], "copying", 0)[
    ...     ["step", "quantity", "index", "value"]
    ... ]
       step        quantity  index  value
    0     0  singular_value      1    3.0
    1     0  singular_value      2    1.0
    """
    columns: dict[str, list[Any]] = {name: [] for name in REQUIRED} | {name: [] for name in _DEFAULTS}
    for row in rows:
        _append(columns, {"other_seeds": other_seeds, **row})
    length = len(columns["value"])
    columns["experiment"] = [experiment] * length
    columns["seed"] = [seed] * length
    table = pd.DataFrame({name: _typed(name, columns[name]) for name in COLUMNS})
    check_table(table)
    bounded = (table["unit"] == "fraction") & (table["null"] != "") & ~is_unbounded(table)
    for name in ("low", "high"):
        table.loc[bounded, name] = table.loc[bounded, name].clip(0.0, 1.0)
    return table


def central_range(draws: np.ndarray, null: str) -> dict[str, Any]:
    """Return the columns of a null row from its draws (first axis): mean and central 95 % range, n = draws.

    From 100 draws on the range lies between the 2.5 % and 97.5 % quantiles. Of fewer draws these cover too little (of
    six normal ones 69 %), and the range is the one in which a further draw lies with 95 %, exact for normal draws:
    mean ± t s √(1 + 1/n), with Student's t. A single draw has no range.

    >>> row = central_range(np.linspace(0.0, 1.0, 201), "uniform")
    >>> {name: row[name] if name in ("null", "n") else round(float(row[name]), 3) for name in row}
    {'null': 'uniform', 'value': 0.5, 'low': 0.025, 'high': 0.975, 'n': 201}
    >>> row = central_range(np.array([-1.0, 1.0]), "few")  # t = 12.7, s = 1.41
    >>> round(float(row["low"]), 1), round(float(row["high"]), 1)
    (-22.0, 22.0)
    """
    mean, count = draws.mean(0), len(draws)
    if count >= FEWEST_FOR_QUANTILES:
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    elif count > 1:
        deviation = np.sqrt(np.sum(deviations(draws) ** 2, axis=0) / (count - 1))
        half_width = stdtrit(count - 1, 0.975) * deviation * np.sqrt(1 + 1 / count)
        low, high = mean - half_width, mean + half_width
    else:
        low = high = np.full_like(mean, np.nan)
    return {"null": null, "value": mean, "low": low, "high": high, "n": count}


def with_other_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of any version with the column ``other_seeds`` and present names (``renamed``).

    The column of tables of earlier versions follows from what they could hold.

    >>> old = tidy([{"step": 0, "quantity": "orientation_rms_cosine", "value": 0.5}], "copying", 0).iloc[:, :-1]
    >>> with_other_seeds(old)["other_seeds"].tolist()
    ['all']
    """
    if "other_seeds" in table.columns:
        return table
    table = with_present_names(table)
    names = zip(table["quantity"], table["null"], strict=True)
    return table.assign(other_seeds=pd.Series([COMPARED_BEFORE.get(name, "") for name in names], table.index, "str"))


def gathered(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of several measurements, one table below the other.

    Args:
        tables: what made a table, such as a measurement's name and its seed -> tidy rows.

    Raises:
        ValueError: two tables have the same row; the message names both and the row.
    """
    rows = pd.concat([table.assign(made_by=name) for name, table in tables.items()], ignore_index=True)
    repeated = rows.duplicated(KEY, keep=False)
    if repeated.any():
        first = rows[repeated].iloc[0]
        same = rows[repeated & (rows[KEY] == first[KEY]).all(axis=1)]
        raise ValueError(
            f"{' and '.join(same['made_by'])} have the same row, quantity {first['quantity']!r} of part "
            f"{first['part']!r}, seed {first['seed']}, step {first['step']}; give the quantity of one another name"
        )
    return rows.drop(columns="made_by")


def check_other_seeds(table: pd.DataFrame, given: str, made_by: str) -> None:
    """Check that every row says what of the other seeds is in it, where its maker was given any, and no more than that.

    Args:
        table: what a measurement returned.
        given: ``other_seeds`` of its needs: "none", "next" or "all".
        made_by: its name, for the message.

    Raises:
        ValueError: naming the measurement and the quantity and null of the first row at fault.
    """
    allowed = {"none": ("", "none"), "next": ("none", "next"), "all": ("none", "next", "all")}[given]
    wrong = table.loc[~table["other_seeds"].isin(allowed), ["quantity", "null", "other_seeds"]]
    if len(wrong):
        quantity, null, said = wrong.iloc[0]
        which = f"{quantity!r}, null {null!r}," if null else repr(quantity)
        words = ", ".join(repr(each) for each in allowed if each)
        raise ValueError(
            f"{made_by}: {len(wrong)} rows, such as {which} have other_seeds {said!r}; it is given {given!r} of the "
            f"other seeds, so say one of {words} in each row, or in tidy(..., other_seeds=...): their interval over "
            "seeds depends on it"
        )


def check_table(table: pd.DataFrame) -> None:
    """Check that a table has the columns, types and ranges of ``COLUMNS``, no row twice, and no diverged number.

    Raises:
        ValueError: naming the column at fault, or the row as :func:`check_finite` does.
    """
    if list(table.columns) != list(COLUMNS):
        missing = [name for name in COLUMNS if name not in table.columns]
        unknown = [name for name in table.columns if name not in COLUMNS]
        raise ValueError(
            f"check_table: columns missing {missing}, unknown {unknown}; expected, in order, {list(COLUMNS)}"
        )
    for name, dtype in COLUMNS.items():
        column = table[name]
        if dtype == "str":
            # object columns of strings are what pandas 2 has in place of the string type
            if not pd.api.types.is_string_dtype(column) or column.isna().any():
                raise ValueError(f"check_table: column {name!r} must hold strings, got {column.dtype}")
        elif column.dtype != dtype:
            raise ValueError(f"check_table: column {name!r} must be {dtype}, got {column.dtype}")
    for name in ("seed", "step", "n"):
        if (table[name] < 0).any():
            raise ValueError(f"check_table: column {name!r} holds a negative number")
    for name in ("experiment", "part", "quantity", "unit"):
        if (table[name] == "").any():
            raise ValueError(f"check_table: column {name!r} holds an empty string")
    words = set(table["other_seeds"]) - set(OTHER_SEEDS)
    if words:
        raise ValueError(f"check_table: column 'other_seeds' holds {sorted(words)}; use one of {OTHER_SEEDS}")
    if (table["low"] > table["high"]).any():
        raise ValueError("check_table: column 'low' is above column 'high' in some row")
    check_finite(table)
    repeated = table.duplicated(KEY)
    if repeated.any():
        first = table.loc[repeated, KEY].iloc[0].to_dict()
        raise ValueError(f"check_table: columns {KEY} must tell rows apart, but {first} is there twice")


def _append(columns: dict[str, list[Any]], row: Mapping[str, Any]) -> None:
    unknown = [name for name in row if name not in columns]
    missing = [name for name in REQUIRED if row.get(name) is None]
    if unknown or missing:
        raise ValueError(
            f"tidy: row {dict(row)} has unknown keys {unknown}, lacks {missing}; known keys: {list(columns)}"
        )
    shapes = {shape for shape in map(_shape, row.values()) if shape}
    if len(shapes) > 1 or any(len(shape) > 1 for shape in shapes):
        raise ValueError(
            f"tidy: the arrays of the row of {row['quantity']!r} must be one-dimensional and of one length"
        )
    length = shapes.pop()[0] if shapes else 1
    for name, column in columns.items():
        entry = row.get(name, _DEFAULTS.get(name))
        if _shape(entry):
            column.extend(np.asarray(entry).tolist())
        else:
            column.extend([entry] * length)


def _shape(entry: Any) -> tuple[int, ...]:
    return () if isinstance(entry, (str, int, float)) else np.shape(entry)


def _typed(name: str, entries: list[Any]) -> "pd.Series[Any]":
    """Convert one column without losing anything: no rounding, no numbers turned into strings."""
    dtype = COLUMNS[name]
    if dtype == "str":
        if not all(issubclass(kind, str) for kind in set(map(type, entries))):
            raise ValueError(f"tidy: column {name!r} must hold strings")
        return pd.Series(entries, dtype="str")
    array = np.asarray(entries) if entries else np.empty(0, dtype)
    allowed = {"int64": "iu", "bool": "b", "float64": "iufO"}[dtype]
    if array.dtype.kind not in allowed:
        raise ValueError(f"tidy: column {name!r} must be {dtype}, got {array.dtype}")
    try:
        return pd.Series(array.astype(dtype))
    except (TypeError, ValueError) as error:
        raise ValueError(f"tidy: column {name!r} must be {dtype}: {error}") from error
