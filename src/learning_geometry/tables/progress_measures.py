"""The progress measures of the copying task: which rows of a tidy table each of them is. Reads no model."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

IN, OUT = "in_distribution", "out_of_distribution"

FIRST_CROSSING, LAG, THRESHOLDS = "first_crossing_of_", "lag_of_", "first_step_below_"
"""What the names of events begin with; the name of a curve, of an event, and a number follow."""

TRANSITION = f"{THRESHOLDS}0.5"
"""The event, out of distribution, that lags are counted from."""

RANK = 10
"""The rank of a subspace that is shown where several are measured, or else the nearest."""


class ProgressMeasure(NamedTuple):
    """One curve over training (with several heads, one for each)."""

    title: str
    """Where the rows have a rank, its place is ``{rank}``."""
    unit: str
    quantity: str
    data: str = ""
    parts: Callable[[pd.Series], pd.Series] | None = None
    """Which parts of the model, from those there are; None takes all."""
    ranked: bool = False
    """Whether the index is a rank, of which the one nearest to ``RANK`` counts."""
    largest_of: tuple[int, int] | None = None
    """First and last index of a range, of which the largest value at each step counts."""
    null_of: str = ""
    """Quantity whose null it is compared with, if not its own."""

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the measured rows of a summary or of tidy tables; none if it is not measured."""
        rows = table[(table["quantity"] == self.quantity) & (table["null"] == "") & (table["data"] == self.data)]
        if rows.empty:
            return rows
        if self.parts is not None:
            rows = rows[self.parts(rows["part"])]
        if self.ranked and len(rows):
            rows = rows[rows["index"] == nearest_index(rows, RANK)]
        if self.largest_of is not None:
            rows = rows[rows["index"].between(*self.largest_of)]
        return rows

    def named(self, rows: pd.DataFrame) -> str:
        """Return the title, with the rank of the rows in its place."""
        return self.title.format(rank=rows["index"].iloc[0]) if self.ranked else self.title


def nearest_index(rows: pd.DataFrame, wanted: int) -> int:
    """Return the index in the rows that is nearest to the one wanted, the smaller of two.

    >>> nearest_index(pd.DataFrame({"index": [5, 10, 20]}), 10), nearest_index(pd.DataFrame({"index": [2, 5]}), 10)
    (10, 5)
    """
    return int(min(rows["index"].unique(), key=lambda index: (abs(index - wanted), index)))


def first_layer(parts: pd.Series) -> pd.Series:
    """Say which parts ``layers.<l>`` are of the first layer."""
    return parts == min(parts, key=_layer)


def last_layer(parts: pd.Series) -> pd.Series:
    """Say which parts ``layers.<l>`` are of the last layer."""
    return parts == max(parts, key=_layer)


def _layer(part: str) -> int:
    return int(part.split(".")[1])


def _group(name: str) -> Callable[[pd.Series], pd.Series]:
    return lambda parts: parts.str.endswith(f"embedding.{name}")


def _embedding(parts: pd.Series) -> pd.Series:
    return parts == "embedding"


def _embedding_gap(title: str, first: int, last: int) -> ProgressMeasure:
    return ProgressMeasure(title, "ratio", "singular_value_gap", parts=_embedding, largest_of=(first, last))


TIMELINE = (
    ProgressMeasure("OOD error", "fraction", "running_error", OUT, null_of="error"),
    ProgressMeasure("ID error", "fraction", "running_error", IN, null_of="error"),
    ProgressMeasure("OOD loss", "nats", "running_loss", OUT),
    ProgressMeasure("previous-token score", "fraction", "previous_token_score", OUT, first_layer),
    ProgressMeasure("induction score", "fraction", "induction_score", OUT, last_layer),
    ProgressMeasure("content share of logits", "fraction", "attention_logit_share_content", OUT),
    ProgressMeasure("composition z-score", "z", "composition_z_score"),
    ProgressMeasure("subspace match, r = {rank}", "cosine", "subspace_match_rms_cosine", ranked=True),
    ProgressMeasure("token mismatch", "fraction", "token_mismatch"),
    ProgressMeasure("bridge in bottom, r = {rank}", "fraction", "bridge_energy_key", "", _group("bottom"), ranked=True),
    ProgressMeasure("effective rank of embedding", "rank", "effective_rank", parts=_embedding),
    ProgressMeasure("largest Hessian eigenvalue", "nats", "largest_hessian_eigenvalue", IN),
)
"""What the timeline of progress measures shows, in its order."""

MEASURES = (
    *TIMELINE,
    ProgressMeasure("ID loss", "nats", "running_loss", IN),
    ProgressMeasure("position share of logits", "fraction", "attention_logit_share_position", OUT),
    ProgressMeasure("bridge in medium, r = {rank}", "fraction", "bridge_energy_key", "", _group("medium"), ranked=True),
    ProgressMeasure("bridge in top, r = {rank}", "fraction", "bridge_energy_key", "", _group("top"), ranked=True),
    _embedding_gap("embedding gap σ₁/σ₂", 1, 1),
    # the range in which the second published gap, after the 35th of 64, is looked for
    _embedding_gap("embedding gap, 20 to 50", 20, 50),
    ProgressMeasure("Hessian trace", "nats", "hessian_trace", IN),
)
"""Every progress measure whose crossing is an event. A new one is one line here."""
