"""Failures that tables of measurements record, as planning knows them."""

import pandas as pd
import pytest

from learning_geometry import known
from learning_geometry.failures import failures
from learning_geometry.files import write_table
from learning_geometry.planning.artifacts import known_failures


def test_a_table_that_tells_of_a_failure_is_read_once_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(known, "UNSETTLED", -1)
    cache, table = known.Known(tmp_path / "known.json"), str(tmp_path / "sharpness.parquet")
    write_table(pd.DataFrame({"value": [1.0]}), table, {})
    assert known_failures([table, str(tmp_path / "absent.parquet")], cache) == []
    what = {"experiment": "small", "seed": 0, "error": "ValueError", "message": "not finite"}
    write_table(pd.DataFrame({"value": []}), table, {"failure": what})
    (told,) = known_failures([table], cache)
    assert [told] == failures([table]) and "not finite" in str(told)
    cache.save()
    monkeypatch.setattr("learning_geometry.failures.failures", lambda tables: pytest.fail("read again"))
    assert known_failures([table], known.Known(tmp_path / "known.json")) == [told]
