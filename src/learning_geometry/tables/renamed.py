"""Quantities and nulls that had other names in tables of earlier versions: those without a column ``other_seeds``."""

import re

import pandas as pd

QUANTITIES = {
    r"(previous_token_score|induction_score|error|loss)(_change)?_after_removal(_mean_kept)?": r"\1\2_after_ablation\3",
    r"(lag_of_)?(lasting_)?half_change_step_of_(.+)": r"\1\2first_crossing_of_\3",
    r"defect_onset_step": "defect_crossing_step",
    r"onset_before_grok": "defect_crossing_before_grok",
}
"""Earlier names of quantities, as regular expressions of the whole name -> what they are called."""

NULLS = {"equal_norm_removal": "equal_norm_ablation", "swapped_twins": "swapped_pairs"}
"""Earlier names of nulls -> what they are called."""


def with_present_names(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of runs or a summary with the present names of its quantities and nulls, in the same order.

    >>> table = pd.DataFrame({"quantity": ["error_change_after_removal"], "null": ["equal_norm_removal"]})
    >>> with_present_names(table).iloc[0].tolist()
    ['error_change_after_ablation', 'equal_norm_ablation']
    """
    quantities, nulls = map(_present, table["quantity"]), (NULLS.get(null, null) for null in table["null"])
    return table.assign(
        quantity=pd.Series(list(quantities), table.index, "str"), null=pd.Series(list(nulls), table.index, "str")
    )


def _present(quantity: str) -> str:
    for earlier, name in QUANTITIES.items():
        if match := re.fullmatch(earlier, quantity):
            return match.expand(name)
    return quantity
