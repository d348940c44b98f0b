"""Spectra of matrices with known ones, under any names."""

import numpy as np
import pytest
from torch import from_numpy

from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.runs.matrix_spectra import measure
from learning_geometry.training.checkpoints import finish_checkpoints, write_checkpoint

SETTINGS = {"matrices": None, "every": 10, "values": 3, "null_draws": 400}


def written(folder, points):
    for step, arrays in points.items():
        tensors = {name: from_numpy(array.astype(np.float32)) for name, array in arrays.items()}
        write_checkpoint(folder / "working", step, tensors, {"uniform": True})
    finish_checkpoints(folder / "working", folder / "imported", list(points), {})
    return Run("mine", 0, {"source": {}}, folder / "imported", None, folder / "metrics.parquet")


def value(table, quantity, **where):
    rows = table[(table["quantity"] == quantity) & (table["null"] == where.pop("null", ""))]
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted]
    (found,) = rows["value"]
    return found


def orthogonal(size, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def with_spectrum(values, seed):
    return orthogonal(len(values), seed) * np.array(values) @ orthogonal(len(values), seed + 1)


def test_spectra_ranks_and_increments_are_those_that_were_planted(tmp_path):
    first = with_spectrum([4.0, 2.0, 2.0, 0.0], 0)
    rank_one = np.outer([1.0, 0, 0, 0], [0, 0.5, 0, 0])
    points = {0: {"h.a.weight": first, "b": np.ones(3)}, 10: {"h.a.weight": first + rank_one, "b": np.ones(3)}}
    table = measure(written(tmp_path, points), SETTINGS)
    assert set(table["part"]) == {"h.a", "matrices"}
    for index, expected in enumerate([4.0, 2.0, 2.0], 1):
        assert value(table, "matrix_singular_value", step=0, index=index) == pytest.approx(expected, abs=1e-6)
    assert value(table, "matrix_stable_rank", step=0, part="h.a") == pytest.approx(1.5)
    shares = np.array([0.5, 0.25, 0.25])
    entropy = float(np.exp(-np.sum(shares * np.log(shares))))
    assert value(table, "matrix_effective_rank", step=0, part="h.a") == pytest.approx(entropy, rel=1e-6)
    assert value(table, "matrix_frobenius_norm", step=0, part="h.a") == pytest.approx(np.sqrt(24.0))
    assert value(table, "increment_norm_share", step=10, part="h.a") == pytest.approx(0.5 / np.sqrt(24.0), rel=1e-5)
    assert value(table, "increment_stable_rank", step=10, part="h.a") == pytest.approx(1.0, abs=1e-4)


def test_the_mean_is_over_matrices_and_its_null_narrower_than_theirs(tmp_path):
    arrays = {f"h.{i}.weight": np.random.default_rng(i).normal(size=(12, 8)) for i in range(9)}
    table = measure(written(tmp_path, {0: arrays, 10: arrays}), SETTINGS)
    each = [value(table, "matrix_stable_rank", step=0, part=f"h.{i}") for i in range(9)]
    assert value(table, "matrix_stable_rank", step=0, part="matrices") == pytest.approx(np.mean(each))
    null = table[
        (table["null"] == "gaussian_matrix") & (table["quantity"] == "matrix_stable_rank") & (table["step"] == 0)
    ]
    widths = (null["high"] - null["low"]).to_numpy()
    of_mean = widths[null["part"].to_numpy() == "matrices"]
    assert of_mean < 0.5 * widths[null["part"].to_numpy() != "matrices"].min()
    assert not table["quantity"].str.startswith("increment").any()  # nothing changed


def test_gaussian_matrices_lie_in_their_null(tmp_path):
    inside = []
    for seed in range(40):
        arrays = {"a.weight": np.random.default_rng(seed).normal(size=(12, 8))}
        table = measure(written(tmp_path / str(seed), {0: arrays}), SETTINGS)
        measured = value(table, "matrix_stable_rank", part="a")
        null = table[(table["null"] != "") & (table["quantity"] == "matrix_stable_rank") & (table["part"] == "a")].iloc[
            0
        ]
        inside.append(null["low"] <= measured <= null["high"])
    assert 33 <= sum(inside) <= 40


def test_matrices_are_chosen_by_name_and_attention_by_default(tmp_path):
    arrays = {"layers.0.attention.query.weight": np.eye(3), "embedding.weight": np.eye(3), "x.weight": np.eye(3)}
    run = written(tmp_path, {0: arrays})
    assert set(measure(run, SETTINGS)["part"]) == {"layers.0.attention.query", "attention_matrices"}
    assert set(measure(run, SETTINGS | {"matrices": "*.weight"})["part"]) >= {"x", "embedding", "matrices"}
    with pytest.raises(ValueError, match=r"mine, seed 0: no matrix is called y\*; there are embedding\.weight, "):
        measure(run, SETTINGS | {"matrices": "y*"})


def test_numbers_that_are_not_finite_are_named(tmp_path):
    broken = np.eye(3)
    broken[0, 0] = np.nan
    run = written(tmp_path, {0: {"a.weight": np.eye(3)}, 10: {"a.weight": broken}})
    with pytest.raises(ValueError, match=r"mine, seed 0: a\.weight at step 10"):
        measure(run, SETTINGS)
