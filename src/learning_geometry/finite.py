"""Which numbers of a table may be something other than finite; all others were computed from a diverged model."""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

KEY = ["experiment", "seed", "step", "part", "quantity", "index", "data", "null"]
"""The columns that tell one row from all others."""

UNBOUNDED_FRACTIONS = (
    "separability_gain",
    "_change_",
    "descent_error_share",
    "explained_variance",
    "attention_logit_share",
)
"""Parts of the names of quantities of unit fraction that may lie outside [0, 1]: differences, and shares with parts of
both signs. Of all others a null's range is cut there: Student's t of few draws knows no bounds."""

ALWAYS_DEFINED = ("nats",)
"""Units of which every value is a finite number: a loss or curvature that is not was computed from a diverged model."""

UNDEFINED = ("log_variance_difference",)
"""Quantities of these units that need not be: of a dimension that does not vary."""

INFINITE = ("between_over_within", "held_out_error-", "exponential_minus_")
"""Beginnings of the names of quantities that may be infinite: a ratio to what may be exactly zero, an extrapolation
that overflows. Others are undefined (NaN) at worst, as the cosine with a zero vector is, and their measurements say
where."""


def check_finite(table: pd.DataFrame) -> None:
    """Refuse values that were computed from numbers that are not finite.

    Not finite may be: what is censored, as an event that had not happened has no step; and NaN where a quantity is
    undefined, but never a loss, an eigenvalue or whatever else is in nats, and never an error of predictions.

    Raises:
        ValueError: naming experiment, seed, step, part, quantity, data and null of the first one.
    """
    value, quantity = table["value"], table["quantity"]
    of_predictions = (table["unit"] == "fraction") & _named(quantity, re.compile("error|accuracy").search)
    of_predictions &= ~is_unbounded(table)
    never = table["unit"].isin(ALWAYS_DEFINED) | of_predictions
    bad = (value.isna() & never & ~quantity.isin(UNDEFINED)) | (
        np.isinf(value) & ~quantity.str.startswith(INFINITE) & ~quantity.isin(UNDEFINED)
    )
    bad &= ~table["censored"]
    if bad.any():
        row = table.loc[bad].iloc[0].to_dict()
        place = ", ".join(f"{name} {row[name]!r}" for name in KEY if row[name] != "")
        raise ValueError(
            f"table: the value of {place} is {row['value']}, one of {int(bad.sum())} that are not finite; the model "
            "or its data hold numbers that are not finite, or training has diverged"
        )


def is_unbounded(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether rows of unit fraction are of quantities that may lie outside [0, 1]."""
    return _named(table["quantity"], re.compile("|".join(UNBOUNDED_FRACTIONS)).search)


def _named(quantities: "pd.Series[str]", is_one: Callable[[str], object]) -> "pd.Series[bool]":
    """Whether each quantity has a name of some kind; a table has few names and many rows."""
    return quantities.isin([name for name in quantities.unique() if is_one(name)])
