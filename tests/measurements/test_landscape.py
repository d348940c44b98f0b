from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from learning_geometry.files import write_table
from learning_geometry.geometry.curvature.products import flatten, gradient_with_graph, unflatten
from learning_geometry.measurements.common.landscape_points import batches, points
from learning_geometry.measurements.runs import landscape
from learning_geometry.models.evaluation import cross_entropy, evaluate
from learning_geometry.tables.tidy import tidy
from learning_geometry.training.checkpoints import checkpoint_path, write_checkpoint
from tests.measurements.conftest import write_run

MODEL = {"layers": 1, "heads": 1, "width": 4}
SETTINGS = {
    "plateau": [0.5, 0.75],
    "sequences": 6,
    "held_out": 12,
    "tolerance": 1e-4,
    "smallest_tolerance": 1e-4,
    "density_probes": 20,
    "density_steps": 30,
    "distances": [0.2, 0.1],
    "line_points": 5,
    "slice_points": 7,
    "descent_sequences": 20,
    "descent_steps": 6,
    "descent_every": 4,
    "descent_rate": 0.02,
}


def train(folder, errors=(0.9,) * 8 + (0.4,) * 9):
    """Checkpoints of 8 × 10 noisy updates, and recorded errors of one's choice at every 5 steps."""
    run = write_run(folder, model=MODEL)
    parameters = run.parameters(0)
    optimizer = torch.optim.Adam(list(parameters.values()), lr=0.01)
    arrays = run.test_set("in_distribution", 40)
    for step in range(10, 90, 10):
        for start in range(0, 40, 4):
            tokens, targets = (torch.from_numpy(arrays[name][start : start + 4]) for name in ("tokens", "targets"))
            for value in parameters.values():
                value.requires_grad_()
            optimizer.zero_grad()
            cross_entropy(run.model.forward(parameters, tokens), targets).backward()
            optimizer.step()
        saved = {name: value.detach().clone() for name, value in parameters.items()}
        write_checkpoint(run.checkpoints, step, saved, {})
    rows = [
        {"step": 5 * i, "quantity": "running_error", "data": "out_of_distribution", "value": error}
        for i, error in enumerate(errors)
    ]
    write_table(tidy(rows, run.experiment, run.seed), run.metrics_file, {})
    return run


@pytest.fixture
def make_trained(tmp_path):
    return partial(train, tmp_path)


@pytest.fixture(scope="module")
def found(tmp_path_factory, measured):
    run = train(tmp_path_factory.mktemp("landscape"))
    return run, measured(landscape, run, **SETTINGS)


def test_checkpoints_are_relative_to_the_runs_own_transition(found):
    run, table = found
    rows = table.find("checkpoint_step")
    steps = dict(zip(rows["part"], rows["value"], strict=True))
    assert steps == {"untrained": 0, "plateau_0.5": 20, "plateau_0.75": 30, "transition": 40, "solution": 80}
    assert set(table.table["step"]) == {80} and not table.table["censored"].any()
    assert points(run, [0.5], 0.5).plateau == "plateau_0.5"


def test_without_a_transition_every_row_says_so(make_trained, measured):
    table = measured(landscape, make_trained([0.9] * 17), **SETTINGS)
    assert table.table["censored"].all()
    assert table.value("checkpoint_step", "plateau_0.5") == 40 and table.value("checkpoint_step", "transition") == 80


def test_curvature_agrees_with_the_dense_hessian(found):
    run, table = found
    parameters = {name: value.double() for name, value in run.parameters(30).items()}
    own, _, _ = batches(run, 6, 12, 20, "in_distribution")
    at = gradient_with_graph(own.loss, parameters)
    dense = torch.stack([at.product(row) for row in torch.eye(at.gradient.numel(), dtype=torch.float64)])
    exact = torch.linalg.eigvalsh((dense + dense.T) / 2).numpy()
    here = {"part": "plateau_0.75"}
    assert table.value("largest_eigenvalue", **here) == pytest.approx(exact[-1], rel=1e-3)
    assert table.value("smallest_eigenvalue", **here) == pytest.approx(exact[0], abs=1e-3 * exact[-1])
    assert table.value("smallest_to_largest_eigenvalue", **here) == pytest.approx(exact[0] / exact[-1], abs=1e-3)
    assert table.value("gradient_norm", **here) == pytest.approx(float(at.gradient.norm()), rel=1e-4)
    floor = table.value("spectral_floor", **here)
    assert floor == pytest.approx(-3e-3 * exact[-1], rel=1e-3)
    mass, beyond = (table.find(f"negative_spectral_mass{end}", **here).iloc[0] for end in ("", "_beyond_floor"))
    assert mass["low"] <= (exact < 0).mean() <= mass["high"]
    assert 0 < beyond["value"] <= (exact < floor).mean() + 0.02  # the least that the quadrature allows
    density = table.find("spectral_density", **here)
    places = table.find("spectral_place", **here)["value"].to_numpy()
    assert np.trapezoid(density["value"], np.arcsinh(places / 0.01)) == pytest.approx(1.0, abs=1e-3)
    assert (density["low"] <= density["value"]).all() and (density["value"] <= density["high"]).all()


def test_sampling_noise_is_the_gradient_of_a_batch_without_any_other(found):
    run, table = found
    own, _, _ = batches(run, 6, 12, 20, "in_distribution")
    halves = [
        gradient_with_graph(lambda p, s=s: own.loss(p, part=s), run.parameters(20)) for s in (slice(3), slice(3, 6))
    ]
    expected = float((halves[0].gradient - halves[1].gradient).norm()) / 2
    noise = table.value("gradient_norm", "plateau_0.5", null="sampling_noise")
    assert noise == pytest.approx(expected, rel=1e-4)


def test_steps_are_judged_on_sequences_that_the_direction_has_not_seen(found):
    run, table = found
    held_out = {name: array[6:18] for name, array in run.test_set("in_distribution", 18).items()}
    parameters = run.parameters(20)
    direction = unflatten(flatten(run.parameters(80)) - flatten(parameters), parameters)
    end = {name: value + direction[name] for name, value in parameters.items()}
    rise = (
        evaluate(run.model, end, held_out["tokens"], held_out["targets"]).losses
        - evaluate(run.model, parameters, held_out["tokens"], held_out["targets"]).losses
    )
    line = table.find("loss_on_line", "plateau_0.5", data="held_out")
    assert line["value"].iloc[0] == 0 and line["value"].iloc[-1] == pytest.approx(rise.mean(), abs=1e-6)
    half_width = (line["high"] - line["low"]).iloc[-1] / 2
    assert half_width == pytest.approx(2.201 * rise.std(ddof=1) / np.sqrt(12), rel=1e-3)
    assert table.find("distance", "plateau_0.5")["value"].tolist() == [-0.2, -0.1, 0.0, 0.1, 0.2]
    of_loss = "loss_along_most_negative_direction"
    own = table.find(of_loss, "plateau_0.5", data="in_distribution")["value"].to_numpy()
    curvature = (own[1] + own[3]) / 0.1**2  # the second difference: v' H v
    assert curvature == pytest.approx(table.value("smallest_eigenvalue", "plateau_0.5"), rel=0.2)
    drop = table.find("loss_drop_along_most_negative_direction", "plateau_0.5", data="held_out").iloc[0]
    assert drop["n"] == 6
    for null in ("solution", "untrained"):
        row = table.find("loss_drop_along_most_negative_direction", "plateau_0.5", null=null)
        assert row["value"].item() == table.value("loss_drop_along_most_negative_direction", null)
    flat = table.find(of_loss, "plateau_0.5", null="random_direction", data="held_out")
    assert flat["value"].iloc[2] == 0 and len(flat) == 5


def test_the_plane_holds_plateau_and_solution(found):
    run, table = found
    grid = table.find("loss_on_slice", "plateau_0.5")["value"].to_numpy().reshape(7, 7)
    rows, columns = (table.find(name, "plateau_0.5")["value"].to_numpy() for name in ("slice_row", "slice_column"))
    length = float((flatten(run.parameters(80)) - flatten(run.parameters(20))).norm())
    np.testing.assert_allclose(columns, length * np.linspace(-0.25, 1.25, 7), rtol=1e-5)
    assert rows[3] == 0 and columns[1] == pytest.approx(0, abs=1e-6)
    assert grid[3, 1] == pytest.approx(table.value("checkpoint_loss", "plateau_0.5"), abs=1e-5)
    assert abs(table.value("slice_cosine", "plateau_0.5")) < 1


def test_one_checkpoint_spans_no_plane(make_trained, measured):
    run = make_trained()
    for step in run.steps()[1:]:
        checkpoint_path(run.checkpoints, step).unlink()
    coarse = {"tolerance": 0.3, "smallest_tolerance": 0.3, "density_probes": 2, "density_steps": 2}
    table = measured(landscape, replace(run), **SETTINGS | coarse | {"plateau": [0.5]})
    rows = table.find("checkpoint_step")
    assert set(rows["value"]) == {0}
    kept = {"loss_on_slice", "slice_row", "slice_column", "slice_cosine"} & set(table.table["quantity"])
    assert kept == set() and (table.find("loss_on_line")["value"] == 0).all()
    assert table.find("descent_loss", "plateau_0.5", data="held_out")["value"].notna().all()


def test_descent_lowers_the_loss_of_its_batch_alone(found):
    _, table = found
    assert table.find("descent_step", "plateau_0.5")["value"].tolist() == [0, 4, 6]
    own, held_out = (
        table.find("descent_loss", "plateau_0.5", data=data)["value"].to_numpy()
        for data in ("in_distribution", "held_out")
    )
    assert (np.diff(own) < 0).all() and held_out[0] == pytest.approx(own[0], abs=0.3)
    assert table.find("descent_loss", data="held_out")["n"].unique().tolist() == [12]


def test_chunks_of_the_descended_batch_change_nothing(found, monkeypatch):
    run, _ = found
    _, _, descended = batches(run, 6, 12, 20, "in_distribution")
    parameters = run.parameters(20)
    whole = descended.loss_and_gradient(parameters)(flatten(parameters))
    monkeypatch.setattr("learning_geometry.measurements.common.landscape_points.CHUNK", 7)
    chunked = descended.loss_and_gradient(parameters)(flatten(parameters))
    assert chunked[0] == pytest.approx(whole[0], abs=1e-6)
    torch.testing.assert_close(chunked[1], whole[1], atol=1e-6, rtol=1e-4)


def test_same_run_same_bits(found, measured):
    run, table = found
    first, second = (each.table["value"].to_numpy() for each in (table, measured(landscape, run, **SETTINGS)))
    assert np.array_equal(first, second, equal_nan=True)


def test_what_cannot_be_measured_is_named(make_trained, measured):
    with pytest.raises(ArithmeticError, match=r"tiny seed 0 step 0: the \w+ Hessian eigenvalue did not converge in 2 "):
        measured(landscape, make_trained(), **SETTINGS | {"maximum_products": 2})
    with pytest.raises(KeyError, match="in_distribution"):
        measured(landscape, make_trained(), **SETTINGS | {"held_out": 100})
    run = make_trained()
    write_table(run.metrics.assign(data="in_distribution"), run.metrics_file, {})
    with pytest.raises(ValueError, match="leave this measurement out"):
        measured(landscape, replace(run), **SETTINGS)
