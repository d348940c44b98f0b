import numpy as np
import pandas as pd
import pytest

from learning_geometry.files import read_table, write_table
from learning_geometry.tables.summary import COLUMNS, summarize
from learning_geometry.tables.sweeps import gather
from learning_geometry.tables.tidy import tidy


def summary(name, *values):
    rows = [{"step": step, "quantity": "loss", "value": value} for step, value in enumerate(values)]
    return summarize([tidy(rows, name, 0)])


def test_every_row_is_kept_beside_the_values_of_its_experiment(tmp_path):
    summaries = {"b": summary("b", 1.0), "a": summary("a", 2.0, 3.0)}
    values = {
        "a": {"optimizer.learning_rate": 0.001, "task.pool_size": None, "model.positions": "rotary", "m.betas": [0.9]},
        "b": {"optimizer.learning_rate": 0.1, "task.pool_size": 10, "model.positions": None, "m.betas": [0.5, 1]},
    }
    table = gather(summaries, values)
    assert list(table.columns) == [*values["a"], *COLUMNS]
    assert table["experiment"].tolist() == ["a", "a", "b"] and table["estimate"].tolist() == [2.0, 3.0, 1.0]
    assert table["optimizer.learning_rate"].tolist() == [0.001, 0.001, 0.1]
    assert table["task.pool_size"].isna().tolist() == [True, True, False] and table["task.pool_size"].iloc[2] == 10
    assert table["model.positions"].tolist() == ["rotary", "rotary", "null"]
    assert table["m.betas"].tolist() == ["[0.9]", "[0.9]", "[0.5, 1]"]
    write_table(table, tmp_path / "sweep.parquet", {})
    again = read_table(tmp_path / "sweep.parquet")
    assert again["task.pool_size"].isna().tolist() == [True, True, False]
    for name in table.columns:
        assert again[name].astype(object).where(again[name].notna(), "-").tolist() == (
            table[name].astype(object).where(table[name].notna(), "-").tolist()
        )


@pytest.mark.parametrize(
    "given, kind", [([True, False], "boolean"), ([1, 2], "Int64"), ([1, 0.5], "Float64"), ([None, None], "str")]
)
def test_values_keep_their_type(given, kind):
    values = {name: {"key": value} for name, value in zip("ab", given, strict=True)}
    column = gather({name: summary(name, 1.0) for name in "ab"}, values)["key"]
    assert str(column.dtype) == kind
    if kind != "str":
        assert np.array_equal(column.tolist(), given)


@pytest.mark.parametrize("values", [{"a": {"key": 1}}, {"a": {"key": 1}, "b": {"other": 1}}, {}])
def test_what_does_not_fit_is_refused(values):
    with pytest.raises(ValueError, match="give one summary and the same keys"):
        gather({"a": summary("a", 1.0), "b": summary("b", 1.0)}, values)


def test_the_index_starts_anew():
    table = gather({"a": summary("a", 1.0), "b": summary("b", 1.0)}, {"a": {"k": 1}, "b": {"k": 2}})
    pd.testing.assert_index_equal(table.index, pd.RangeIndex(2))
