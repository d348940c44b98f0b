from dataclasses import replace

import numpy as np
import pytest
import torch

from learning_geometry.geometry.curvature.products import gradient_with_graph
from learning_geometry.measurements.common.eigenpairs import leave, shared_ends
from learning_geometry.measurements.runs import landscape, sharpness
from learning_geometry.models.blocks import blocks, groups, parts
from learning_geometry.models.evaluation import cross_entropy

from .conftest import write_errors

MODEL = {"layers": 1, "heads": 1, "width": 4}
SETTINGS = {"sequences": 5, "details_every": 20, "tolerance": 1e-4}


def scaled(factor):
    def change(parameters):
        for value in parameters.values():
            value *= factor

    return change


def test_every_quantity_agrees_with_the_dense_hessian_on_its_grid(make_run, measured):
    run = make_run(scaled(1.0), scaled(1.5), scaled(0.9), scaled(1.2), model=MODEL)
    table = measured(sharpness, run, smallest_tolerance=1e-3, trace_probes=25, proxy_pairs=25, **SETTINGS)
    batch = run.test_set("in_distribution", 5)
    tokens, targets = torch.from_numpy(batch["tokens"]), torch.from_numpy(batch["targets"])
    parameters = {name: value.double() for name, value in run.parameters(30).items()}

    def loss(p):
        return cross_entropy(run.model.forward(p, tokens, twice_differentiable=True), targets)

    at = gradient_with_graph(loss, parameters)
    dense = torch.stack([at.product(row) for row in torch.eye(at.gradient.numel(), dtype=torch.float64)])
    exact, trace = torch.linalg.eigvalsh((dense + dense.T) / 2).numpy(), float(dense.trace())
    largest, smallest, found_trace, proxy = (
        table.find(name, step=30).iloc[0]
        for name in ("largest_hessian_eigenvalue", "smallest_hessian_eigenvalue", "hessian_trace", "sharpness_proxy")
    )
    assert largest["value"] == pytest.approx(exact[-1], rel=1e-3)
    assert smallest["value"] == pytest.approx(exact[0], abs=2e-3 * exact[-1])
    for row, expected in ((found_trace, trace), (proxy, 1e-6 / 2 * trace)):
        half_width = (row["high"] - row["low"]) / 2
        assert row["value"] == pytest.approx((row["low"] + row["high"]) / 2)
        assert abs(row["value"] - expected) < 2 * half_width < expected
    spectral = table.table[table.table["quantity"] != "top_eigenvector_mass"]
    assert set(spectral["n"]) == {5} and set(spectral["unit"]) == {"nats"}
    # all but the largest eigenvalue on a grid of their own, each beside the untrained model
    assert table.find("largest_hessian_eigenvalue")["step"].tolist() == [0, 10, 20, 30]
    for name in ("smallest_hessian_eigenvalue", "hessian_trace", "sharpness_proxy"):
        rows, nulls = table.find(name), table.find(name, null="untrained")
        assert rows["step"].tolist() == nulls["step"].tolist() == [0, 20, 30]
        assert set(nulls["value"]) == {rows["value"].iloc[0]} and rows["value"].nunique() == 3


@pytest.mark.parametrize("model", [MODEL, {"layers": 2, "heads": 2, "width": 4, "mlp_width": 2}])
def test_masses_are_those_of_the_dense_eigenvector(make_run, measured, model):
    run = make_run(scaled(1.0), scaled(1.5), model=model)
    table = measured(sharpness, run, **SETTINGS | {"tolerance": 1e-5})
    batch = run.test_set("in_distribution", 5)
    tokens, targets = torch.from_numpy(batch["tokens"]), torch.from_numpy(batch["targets"])
    parameters = {name: value.double() for name, value in run.parameters(10).items()}
    sizes = [value.numel() for value in parameters.values()]

    def loss(vector):
        pieces = zip(parameters.items(), vector.split(sizes), strict=True)
        shaped = {name: piece.view(value.shape) for (name, value), piece in pieces}
        return cross_entropy(run.model.forward(shaped, tokens, twice_differentiable=True), targets)

    point = torch.cat([value.flatten() for value in parameters.values()])
    squares = torch.linalg.eigh(torch.autograd.functional.hessian(loss, point))[1][:, -1].numpy() ** 2
    names = np.repeat(list(parameters), sizes)
    of_parts = parts(parameters)
    rows = table.find("top_eigenvector_mass", step=10)
    assert rows["part"].tolist() == list(of_parts)
    for row in rows.to_dict("records"):
        exact = squares[np.isin(names, of_parts[row["part"]])].sum()
        assert row["value"] == pytest.approx(exact, abs=2e-3)
        assert row["low"] - 1e-3 <= exact <= row["high"] + 1e-3
        null = table.find("top_eigenvector_mass", row["part"], null="random_direction", step=10).iloc[0]
        assert null["value"] == pytest.approx(np.isin(names, of_parts[row["part"]]).mean())
        assert null["low"] < null["value"] < null["high"]
    for partition in (blocks(parameters), groups(parameters)):
        assert rows.loc[rows["part"].isin(partition), "value"].sum() == pytest.approx(1)


def test_eigenvalues_are_those_of_float64_within_their_error(make_run, measured):
    run = make_run(model=MODEL)
    table = measured(sharpness, run, **SETTINGS | {"tolerance": 1e-6, "smallest_tolerance": 1e-6})
    batch = run.test_set("in_distribution", 5)
    tokens, targets = torch.from_numpy(batch["tokens"]), torch.from_numpy(batch["targets"])
    for step in sorted(set(table.table["step"])):
        parameters = {name: value.double() for name, value in run.parameters(step).items()}
        sizes = [value.numel() for value in parameters.values()]

        def loss(vector, parameters=parameters, sizes=sizes):
            pieces = zip(parameters.items(), vector.split(sizes), strict=True)
            shaped = {name: piece.view(value.shape) for (name, value), piece in pieces}
            return cross_entropy(run.model.forward(shaped, tokens, twice_differentiable=True), targets)

        point = torch.cat([value.flatten() for value in parameters.values()])
        exact = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, point))[[-1, 0]].tolist()
        for end, value in zip(("largest", "smallest"), exact, strict=True):
            row = table.find(f"{end}_hessian_eigenvalue", step=step).iloc[0]
            # the parameters are float32 exactly, and the products of the quotient float64
            assert row["low"] - 1e-12 <= value <= row["high"] + 1e-12
            assert row["value"] == pytest.approx(value, rel=1e-9)


def test_an_iteration_that_does_not_converge_fails_with_the_step(make_run, measured):
    with pytest.raises(ArithmeticError, match=r"tiny seed 0 step 0: the \w+ Hessian eigenvalue did not converge in 2 "):
        measured(sharpness, make_run(model=MODEL), maximum_products=2, **SETTINGS)


def test_same_run_same_bits(make_run, measured):
    run = make_run(model=MODEL)
    first, second = (measured(sharpness, run, **SETTINGS).table["value"].to_numpy() for _ in range(2))
    assert np.array_equal(first, second)


SHARED = {"sequences": 5, "tolerance": 1e-4, "smallest_tolerance": 1e-4}


@pytest.fixture
def shared(make_run, measured, tmp_path):
    """A run whose ends of the spectrum ``landscape`` has left, and the table that it wrote."""
    run = write_errors(make_run(scaled(1.0), scaled(1.5), scaled(0.9), model=MODEL), [0.9, 0.9, 0.4, 0.1, 0.1])
    small = {"held_out": 4, "descent_sequences": 4, "descent_steps": 1, "slice_points": 3, "line_points": 3}
    run = replace(run, output=tmp_path / "landscape")
    table = measured(landscape, run, **SHARED | small)
    return replace(run, output=None, shared={"landscape": run.output}), table


def test_ends_that_the_landscape_found_are_taken_from_there(shared, measured, monkeypatch, capsys):
    run, of_landscape = shared
    alone = measured(sharpness, replace(run, shared={}), **SETTINGS | {"smallest_tolerance": 1e-4})
    capsys.readouterr()
    monkeypatch.setattr("learning_geometry.measurements.common.eigenpairs.extreme_eigenpairs", None)
    monkeypatch.setattr("learning_geometry.measurements.runs.sharpness.largest_hessian_eigenpair", None)
    table = measured(sharpness, run, **SETTINGS | {"smallest_tolerance": 1e-4})
    assert capsys.readouterr().out.count("products of landscape for the eigenvalues") == 3
    for end in ("largest", "smallest"):
        taken = table.find(f"{end}_hessian_eigenvalue").set_index("step")[["value", "low", "high"]]
        for part, step in (("untrained", 0), ("transition", 10), ("solution", 20)):
            row = of_landscape.find(f"{end}_eigenvalue", part).iloc[0]
            if step in taken.index:
                assert taken.loc[step].tolist() == row[["value", "low", "high"]].tolist()
        own = alone.find(f"{end}_hessian_eigenvalue")
        wide = 2e-4 * alone.find("largest_hessian_eigenvalue").set_index("step").loc[own["step"], "value"].to_numpy()
        assert (np.abs(own["value"].to_numpy() - taken["value"].to_numpy()) <= wide).all()
    # what does not come from there is as it was
    for name in ("hessian_trace", "sharpness_proxy"):
        assert table.find(name)["value"].tolist() == alone.find(name)["value"].tolist()
    masses = [each.find("top_eigenvector_mass")["value"].to_numpy() for each in (table, alone)]
    np.testing.assert_allclose(*masses, atol=1e-2)


def test_ends_less_accurate_than_asked_for_are_not_taken(shared, measured, capsys):
    run, _ = shared
    found = shared_ends(run, "landscape", 10)
    rough = found._replace(smallest=found.smallest._replace(error=2e-4 * found.largest.value))
    leave(replace(run, output=run.shared["landscape"]), 10, rough)
    kept = shared_ends(run, "landscape", 10)
    assert kept.largest.value == found.largest.value and torch.equal(kept.largest.vector, found.largest.vector)
    for details_every, taken in ((20, 3), (10, 2)):
        measured(sharpness, run, **SETTINGS | {"smallest_tolerance": 1e-4, "details_every": details_every})
        # where the largest alone is asked for, its error is what counts
        assert capsys.readouterr().out.count("of landscape") == taken


def test_a_landscape_that_could_not_be_made_leaves_nothing_to_share(shared, measured):
    run, _ = shared
    missing = replace(run, shared={"landscape": run.shared["landscape"].with_name("none")})
    first, second = (measured(sharpness, each, **SETTINGS).table for each in (missing, replace(run, shared={})))
    assert first["value"].equals(second["value"])


def test_damaged_ends_are_refused(shared, measured):
    run, _ = shared
    path = sorted(run.shared["landscape"].iterdir())[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=path.name):
        measured(sharpness, run, **SETTINGS)
