"""Planted faults of every kind are named, and a series without faults has none."""

import numpy as np
import pytest
from torch import from_numpy

from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.runs.series_audit import KINDS, measure
from learning_geometry.training.checkpoints import finish_checkpoints, write_checkpoint

STEPS = list(range(0, 200, 10))


def series(seed=0):
    generator = np.random.default_rng(seed)
    arrays = {"tok.weight": generator.normal(size=(16, 8)), "h.0.qkv.weight": generator.normal(size=(24, 8))}
    arrays |= {"h.0.bias": np.zeros(8), "frozen.weight": np.eye(4)}
    points = {}
    for step in STEPS:
        points[step] = {name: array.astype(np.float32) for name, array in arrays.items()}
        for name in arrays:
            if name != "frozen.weight":
                arrays[name] = arrays[name] + 0.05 * generator.normal(size=arrays[name].shape)
    return points


def written(folder, points, source=lambda step: {}):
    steps = sorted(points)
    for step in steps:
        about = {"digest": f"of {step}", "types": {"F32": 4}} | source(step)
        arrays = {name: from_numpy(np.ascontiguousarray(array)) for name, array in points[step].items()}
        write_checkpoint(folder / "working", step, arrays, {"file": about, "uniform": True})
    finish_checkpoints(folder / "working", folder / "imported", steps, {})
    return Run("mine", 0, {"source": {}}, folder / "imported", None, folder / "metrics.parquet")


def findings(run):
    table = measure(run, {})
    counts = table[table["quantity"] == "audit_findings"].set_index("data")["value"].astype(int).to_dict()
    assert set(counts) == set(KINDS)
    found = {}
    for kind in KINDS:
        rows = table[table["quantity"] == f"audit_{kind}"]
        assert len(rows) == counts[kind]
        found |= {kind: [(row.step, row.part) for row in rows.itertuples()]} if len(rows) else {}
    return found


FROZEN = {"never_moves": [(0, "frozen")]}


def test_a_series_without_faults_has_none_but_the_tensor_that_never_moves(tmp_path):
    assert findings(written(tmp_path, series())) == FROZEN


def test_missing_steps_are_named(tmp_path):
    points = series()
    del points[70], points[80]
    assert findings(written(tmp_path, points)) == FROZEN | {"missing_step": [(70, "model"), (80, "model")]}


def test_a_file_equal_to_an_earlier_one_is_named_with_its_step(tmp_path):
    run = written(tmp_path, series() | {100: series()[60]}, lambda step: {"digest": "of 60"} if step == 100 else {})
    table = measure(run, {})
    row = table[table["quantity"] == "audit_same_bytes"].iloc[0]
    assert (row["step"], row["value"]) == (100, 60)
    assert findings(run)["out_of_place"] == [(100, "model")]


def test_parameters_equal_to_those_before_are_named_though_the_file_is_another(tmp_path):
    points = series()
    points[110] = points[100]
    assert findings(written(tmp_path, points))["same_parameters"] == [(110, "model")]


def test_parameters_equal_to_those_long_before_are_named_with_their_step(tmp_path):
    run = written(tmp_path, series() | {150: series()[40]})
    assert findings(run)["same_parameters"] == [(150, "model")]
    table = measure(run, {})
    assert table.loc[table["quantity"] == "audit_same_parameters", "value"].tolist() == [40.0]


def test_checkpoints_exchanged_are_named(tmp_path):
    points = series()
    points[30], points[120] = points[120], points[30]
    assert findings(written(tmp_path, points)) == FROZEN | {"out_of_place": [(30, "model"), (120, "model")]}


def test_a_checkpoint_of_another_run_is_named(tmp_path):
    found = findings(written(tmp_path, series() | {90: series(1)[90]}))
    assert found["out_of_place"] == [(90, "model")]


@pytest.mark.parametrize("factor", [1.5, 0.5])
def test_a_scaled_checkpoint_is_named_by_its_norms(factor, tmp_path):
    points = series()
    points[60] = {name: np.float32(factor) * array for name, array in points[60].items()}
    found = findings(written(tmp_path, points))
    assert {step for step, _ in found["norm_jumps"]} == {60}
    assert {part for _, part in found["norm_jumps"]} == {"frozen", "h.0.qkv", "tok"}
    assert found["out_of_place"] == [(60, "model")]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_named_with_tensor_and_step(bad, tmp_path):
    points = series()
    points[50]["tok.weight"][2, :3] = bad
    run = written(tmp_path, points)
    assert findings(run) == FROZEN | {"not_finite": [(50, "tok")]}
    table = measure(run, {})
    assert table.loc[table["quantity"] == "audit_not_finite", "value"].tolist() == [3.0]


def test_a_precision_that_changes_is_named_at_each_change(tmp_path):
    run = written(tmp_path, series(), lambda step: {"types": {"BF16": 4}} if 80 <= step < 120 else {})
    assert findings(run) == FROZEN | {"type_changes": [(80, "model"), (120, "model")]}


def test_two_checkpoints_are_enough(tmp_path):
    points = {step: array for step, array in series().items() if step < 20}
    assert findings(written(tmp_path, points)) == FROZEN
