import numpy as np
import pandas as pd
import pytest

from learning_geometry.config.needs import OTHER_SEEDS as NEEDED_SEEDS
from learning_geometry.tables.tidy import (
    COLUMNS,
    OTHER_SEEDS,
    central_range,
    check_other_seeds,
    check_table,
    gathered,
    tidy,
    with_other_seeds,
)

ROW = {"step": 100, "quantity": "loss", "value": 1.5}


def test_defaults_and_types():
    table = tidy([ROW], "copying", 3)
    assert {name: str(dtype) for name, dtype in table.dtypes.items()} == COLUMNS
    row = table.iloc[0].to_dict()
    assert np.isnan(row.pop("low"))
    assert np.isnan(row.pop("high"))
    assert row == ROW | {
        "experiment": "copying",
        "seed": 3,
        "part": "model",
        "index": 0,
        "data": "",
        "null": "",
        "n": 1,
        "unit": "1",
        "censored": False,
        "other_seeds": "",
    }


def test_no_rows_make_an_empty_table_of_the_right_types():
    table = tidy([], "copying", 0)
    assert len(table) == 0
    assert {name: str(dtype) for name, dtype in table.dtypes.items()} == COLUMNS


def test_arrays_make_one_row_per_entry_beside_scalar_rows():
    spectrum = {
        "step": 7,
        "quantity": "singular_value",
        "index": np.arange(1, 4),
        "value": np.array([3.0, 2, 1]),
    }
    table = tidy([spectrum, ROW, spectrum | {"step": 8}], "copying", 0)
    assert table["index"].tolist() == [1, 2, 3, 0, 1, 2, 3]
    assert table["value"].tolist() == [3.0, 2.0, 1.0, 1.5, 3.0, 2.0, 1.0]
    assert table["step"].tolist() == [7, 7, 7, 100, 8, 8, 8]
    assert table["quantity"].tolist() == ["singular_value"] * 3 + ["loss"] + ["singular_value"] * 3


def test_numpy_scalars_and_zero_dimensional_arrays_are_scalars():
    row = {
        "step": np.int64(5),
        "quantity": "loss",
        "value": np.array(2.0),
        "censored": np.True_,
        "n": np.int32(9),
    }
    table = tidy([row], "copying", 0)
    assert table[["step", "value", "censored", "n"]].iloc[0].tolist() == [5, 2.0, True, 9]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valeu": 1.0}, r"unknown keys \['valeu'\]"),
        ({"seed": 1}, r"'seed'"),
        ({"value": None}, r"lacks \['value'\]"),
        ({"step": None}, r"lacks \['step'\]"),
        ({"quantity": None}, r"lacks \['quantity'\]"),
        ({"step": 1.5}, "column 'step' must be int64"),
        ({"n": 2.0}, "column 'n' must be int64"),
        ({"value": "high"}, "column 'value' must be float64"),
        ({"value": {"a": 1}}, "column 'value' must be float64: float"),
        ({"unit": 1}, "column 'unit' must hold strings"),
        ({"censored": 1}, "column 'censored' must be bool"),
        ({"step": -1}, "column 'step' holds a negative"),
        ({"quantity": ""}, "column 'quantity' holds an empty string"),
        ({"low": 2.0, "high": 1.0}, "column 'low' is above column 'high'"),
        ({"index": [1, 2], "value": [1.0, 2.0, 3.0]}, "'loss' must be one-dimensional and of one length"),
        ({"value": np.ones((2, 2))}, "'loss' must be one-dimensional and of one length"),
    ],
)
def test_bad_rows_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tidy([ROW | change], "copying", 0)


@pytest.mark.parametrize("key", ["seed", "experiment"])
def test_row_cannot_override_the_run(key):
    with pytest.raises(ValueError, match=key):
        tidy([ROW | {key: 1}], "copying", 0)


def test_the_same_row_twice_is_refused():
    with pytest.raises(ValueError, match=r"'loss'.*twice"):
        tidy([ROW, ROW | {"value": 2.0}], "copying", 0)


def test_check_names_missing_and_unknown_columns():
    table = tidy([ROW], "copying", 0)
    check_table(table)
    with pytest.raises(ValueError, match=r"missing \['unit'\], unknown \['units'\]"):
        check_table(table.rename(columns={"unit": "units"}))
    with pytest.raises(ValueError, match="column 'value' must be float64, got float32"):
        check_table(table.astype({"value": "float32"}))
    with pytest.raises(ValueError, match="column 'data' must hold strings"):
        check_table(table.assign(data=pd.Series([None], dtype="str")))


@pytest.mark.parametrize(
    ("quantity", "unit", "value"),
    [
        ("running_loss", "nats", np.nan),
        ("hessian_trace", "nats", np.inf),
        ("running_error", "fraction", np.nan),
        ("effective_rank", "1", -np.inf),
    ],
)
def test_a_value_that_is_not_finite_is_refused_by_name(quantity, unit, value):
    row = {"step": 40, "part": "layers.1", "quantity": quantity, "unit": unit, "data": "training", "value": value}
    with pytest.raises(
        ValueError, match=f"experiment 'copying', seed 3, step 40, part 'layers.1', quantity '{quantity}'.* is {value}"
    ):
        tidy([row | {"step": 20, "value": 1.0}, row], "copying", 3)


def test_what_did_not_happen_or_is_undefined_may_be_so():
    rows = [
        {"step": 0, "quantity": "grok_lead", "unit": "steps", "value": np.nan, "censored": True},
        {"step": 0, "quantity": "loss_at_moment", "unit": "nats", "value": np.nan, "censored": True},
        {"step": 0, "quantity": "mean_cosine", "value": np.nan},
        {"step": 0, "quantity": "between_over_within", "value": np.inf},
    ]
    assert len(tidy(rows, "copying", 0)) == 4


def test_ranges_of_null_fractions_stay_inside():
    """Student's t of three draws reached from -.6 to 1.4."""
    wide = central_range(np.array([0.1, 0.2, 0.9]), "shuffled")
    assert wide["low"] < 0 and wide["high"] > 1
    row = {"step": 0, "quantity": "separability", "unit": "fraction"}
    inside = tidy([row | wide], "copying", 0).iloc[0]
    assert (inside["low"], inside["value"], inside["high"]) == (0.0, pytest.approx(0.4), 1.0)
    # what is no fraction, a difference of fractions, and a value's own interval are left as they are
    for other in ({"unit": "nats"}, {"quantity": "separability_gain"}, {"null": ""}):
        kept = tidy([row | wide | other], "copying", 0).iloc[0]
        assert (kept["low"], kept["high"]) == (wide["low"], wide["high"])


def said(*words):
    return tidy([ROW | {"index": i, "other_seeds": word} for i, word in enumerate(words)], "copying", 0)


def test_two_measurements_with_one_row_are_named():
    tables = {"a.parquet": tidy([ROW], "copying", 0), "b.parquet": tidy([ROW | {"index": 1}], "copying", 0)}
    assert gathered(tables)["index"].tolist() == [ROW.get("index", 0), 1]
    tables["c.parquet"] = tidy([ROW | {"value": 2.0}], "copying", 0)
    with pytest.raises(ValueError, match=r"^a\.parquet and c\.parquet have the same row, quantity 'loss' of part"):
        gathered(tables)


def test_rows_say_what_of_the_other_seeds_is_in_them():
    assert OTHER_SEEDS[1:] == NEEDED_SEEDS
    for given, words in (("none", ("", "none")), ("next", ("none", "next")), ("all", ("none", "next", "all"))):
        check_other_seeds(said(*words), given, "mine")
        for word in set(OTHER_SEEDS) - set(words):
            with pytest.raises(ValueError, match=rf"^mine: 1 rows, such as 'loss' have other_seeds '{word}'"):
                check_other_seeds(said(*words, word), given, "mine")
    assert tidy([ROW, ROW | {"index": 1, "other_seeds": "next"}], "a", 0, "none")["other_seeds"].tolist() == [
        "none",
        "next",
    ]
    with pytest.raises(ValueError, match=r"other_seeds' holds \['some'\]"):
        said("some")


def test_tables_without_the_column_get_what_they_could_hold():
    share = ROW | {"quantity": "commutator_share_norm"}
    rows = [ROW, share, share | {"null": "another_seed"}, share | {"null": "gradients"}]
    rows.append(ROW | {"quantity": "orientation_rms_cosine"})
    old = tidy(rows, "copying", 0).drop(columns="other_seeds")
    new = with_other_seeds(old)
    check_table(new)
    assert new["other_seeds"].tolist() == ["", "", "next", "", "all"]
    assert with_other_seeds(new) is new
