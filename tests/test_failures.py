"""What counts as a failure of the data, and how it is said."""

import numpy as np
import pandas as pd
import pytest
import torch

from learning_geometry.failures import NOT_MEASURED, attempt, failure, failures, row, told
from learning_geometry.figures import style
from learning_geometry.files import read_tensors, write_table
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy


def raising(error):
    def measure():
        raise error

    return measure


@pytest.mark.parametrize(
    "error",
    [
        ValueError("layer 3 is not\nfinite"),
        ZeroDivisionError("no weights"),
        FloatingPointError("the loss is not finite"),
        np.linalg.LinAlgError("no convergence"),
        torch.linalg.LinAlgError("no convergence"),
        KeyError("no test set 'a'; the task has b"),
    ],
)
def test_a_failure_of_the_data_is_returned(error, capsys):
    table, found = attempt(raising(error))
    assert table is None
    assert found == {"error": type(error).__name__, "message": " ".join(str(error.args[0]).split())}
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        TypeError("a slip"),
        NameError("a slip"),
        AttributeError("a slip"),
        KeyError("slip"),
        IndexError("index 3 is out of bounds"),
        MemoryError(),
        OSError("no space left"),
        FileNotFoundError("no such file"),
        RuntimeError("anything"),
        KeyboardInterrupt(),
        SystemExit(1),
    ],
)
def test_everything_else_fails_the_job(error):
    with pytest.raises(type(error)):
        attempt(raising(error))


def test_a_damaged_file_is_no_failure_of_the_data(tmp_path):
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="damaged"):
        attempt(lambda: read_tensors(tmp_path / "damaged.safetensors"))


def test_failures_are_read_from_tables_and_said(tmp_path):
    whole, failed = tmp_path / "head_scores.parquet", tmp_path / "sharpness.parquet"
    write_table(tidy([], "tiny", 3), whole, {"settings": {}})
    of = {"error": "ValueError", "message": "no curvature", "experiment": "tiny", "seed": 3}
    write_table(tidy([], "tiny", 3), failed, {"failure": of})
    (tmp_path / "damaged.parquet").write_bytes(b"damaged")
    found = failures([whole, failed, tmp_path / "absent.parquet", tmp_path / "damaged.parquet"])
    assert found == [failure({"failure": of}, failed)]
    text = told(found)
    assert text.startswith("1 measurement could not be made") and told([]) == ""
    assert f"sharpness of tiny, seed 3: ValueError: no curvature; see {tmp_path}/logs/measure_sharpness.log" in text


def test_summaries_take_the_rows_and_figures_refuse_them():
    tables = [
        tidy([{"step": 5, "quantity": "loss", "value": 1.0 + seed}, row("sharpness", "ValueError: flat")], "tiny", seed)
        for seed in (0, 1)
    ]
    summary = summarize(tables)
    lacking = summary[summary["quantity"] == NOT_MEASURED].to_dict("records")
    assert len(lacking) == 1 and np.isnan(lacking[0]["estimate"]) and lacking[0]["n"] == 2
    assert lacking[0]["interval"] == "none" and lacking[0]["data"] == "ValueError: flat"
    runs = pd.concat(tables, ignore_index=True)
    style.check_measured(runs, ["head_scores"], ["tiny"])
    style.check_measured(runs, ["sharpness"], ["other"])
    with pytest.raises(ValueError, match=r"sharpness of tiny, seed 0, could not be made \(ValueError: flat\)"):
        style.check_measured(runs, ["head_scores", "sharpness"], ["tiny"])
