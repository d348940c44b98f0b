import pandas as pd
import pytest

from learning_geometry.figures.layer_panels import MID, PRE, Column, placed
from learning_geometry.tables.tidy import tidy


def test_a_quantity_without_rows_must_have_a_reason():
    rows = tidy([{"step": 0, "quantity": "mean_cosine", "data": "mood", "value": 0.5}], "chat", 0)
    column = Column("chat", "mood", rows, [], (), ["no log_variance_difference, as no variance is above zero"])
    assert column.select("mean_cosine")["value"].tolist() == [0.5]
    empty = column.select("log_variance_difference")
    assert empty.empty and list(empty.columns) == list(rows.columns)
    # the reason of another quantity, whose name begins alike, is none
    with pytest.raises(ValueError, match="quantity='log_variance'"):
        column.select("log_variance")


def test_a_stream_that_was_not_measured_is_named():
    rows = pd.DataFrame({"part": ["layers.0.residual_mid", "layers.1.residual_mid"], "value": 1.0})
    assert placed(rows, MID)["place"].tolist() == [0.5, 1.5]
    with pytest.raises(ValueError, match=rf"no row of {PRE} among the parts \['layers\.0\.residual_mid', 'layers\.1"):
        placed(rows, PRE)
