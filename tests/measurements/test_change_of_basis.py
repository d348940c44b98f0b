import numpy as np
import pytest

from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.self_contained import change_of_basis
from learning_geometry.measurements.self_contained.change_of_basis import (
    DOTS,
    LINES,
    REACH,
    disc_and_ring,
    followed,
    grid,
    initialised,
    loss_and_gradient,
    train,
)
from learning_geometry.seeding import seeded

from .conftest import defaults

RUN = LanguageRun("any", {}, {}, {})
SETTINGS = {"points": 60, "null_draws": 20}


@pytest.fixture(scope="module")
def table():
    return change_of_basis.measure(RUN, defaults(change_of_basis.SETTINGS) | SETTINGS)


def points(table, part, data):
    rows = table[(table["part"] == part) & (table["data"] == data)].sort_values("index")
    return np.stack([rows[rows["quantity"] == name]["value"].to_numpy() for name in "xy"], axis=1)


def separability(table, part, null=""):
    rows = table[(table["quantity"] == "class_separability") & (table["part"] == part) & (table["null"] == null)]
    (found,) = rows.to_dict("records")
    return found


def test_layers_untangle_what_no_line_separates(table):
    shuffled = separability(table, "layers.0.pre", "shuffled_labels")
    assert shuffled["low"] < separability(table, "layers.0.pre")["value"] < 0.65
    last = separability(table, "layers.2.post")
    assert last["value"] > 0.97 and last["n"] == 120
    assert separability(table, "layers.2.post", "shuffled_labels")["high"] < 0.75
    assert separability(table, "layers.2.post", "untrained")["value"] < 0.8


@pytest.mark.parametrize("data", ["grid", "inner", "outer"])
def test_points_go_through_basis_relu_and_skip(table, data):
    for layer in range(3):
        pre, basis, relu, post = (
            points(table, f"layers.{layer}.{part}", data) for part in ("pre", "basis", "relu", "post")
        )
        np.testing.assert_array_equal(relu, np.maximum(basis, 0))
        written = points(table, f"layers.{layer}.post", "written_basis")
        np.testing.assert_allclose(post, pre + relu @ written, atol=1e-12)
        # coordinates in the basis that is drawn
        origin, *ends = points(table, f"layers.{layer}.pre", "read_basis")
        vectors = np.stack(ends) - origin
        np.testing.assert_allclose(origin + basis @ vectors, pre, atol=1e-9)
        assert np.linalg.cond(vectors) < 2
        if layer:
            np.testing.assert_array_equal(pre, points(table, f"layers.{layer - 1}.post", data))


def test_the_readouts_line_has_the_classes_on_its_sides(table):
    at, across = points(table, "layers.2.post", "readout")
    assert np.linalg.norm(across) == pytest.approx(1)
    inner, outer = ((points(table, "layers.2.post", data) - at) @ across for data in ("inner", "outer"))
    assert (inner < 0).mean() > 0.97 and (outer > 0).mean() > 0.97
    assert abs(at[0] * across[1] - at[1] * across[0]) < 1e-9  # next to the origin


def test_the_grid_is_lines(table):
    found = grid().reshape(2, LINES, DOTS, 2)
    assert (np.ptp(found[0, ..., 0], axis=1) == 0).all() and (np.ptp(found[1, ..., 1], axis=1) == 0).all()
    assert found.min() == -REACH and found.max() == REACH
    np.testing.assert_array_equal(points(table, "layers.0.pre", "grid"), grid())


def test_the_gradient_is_that_of_the_loss():
    network = initialised(2, seeded("test", "network"))
    data = np.concatenate(disc_and_ring(20, seeded("test", "points")))
    labels = np.repeat([0, 1], 20)
    gradient = loss_and_gradient(network, data, labels)[1]
    for layer in range(2):
        for field in ("weight", "bias", "written"):
            array, slope = getattr(network.layers[layer], field), getattr(gradient.layers[layer], field)
            numeric = np.empty_like(array)
            for place in np.ndindex(array.shape):
                losses = []
                for sign in (1, -1):
                    array[place] += sign * 1e-6
                    losses.append(loss_and_gradient(network, data, labels)[0])
                    array[place] -= sign * 1e-6
                numeric[place] = (losses[0] - losses[1]) / 2e-6
            np.testing.assert_allclose(slope, numeric, atol=1e-6)


def test_training_lowers_the_loss_and_is_the_same_for_every_model(table):
    data, labels = np.concatenate(disc_and_ring(20, seeded("test", "points"))), np.repeat([0, 1], 20)
    start = initialised(1, seeded("test", "network"))
    found = train(start, data, labels, 30)
    assert loss_and_gradient(found, data, labels)[0] < loss_and_gradient(start, data, labels)[0]
    assert followed(found, data)[0].pre is data
    tables = [
        change_of_basis.measure(
            LanguageRun(name, {}, {}, {}), defaults(change_of_basis.SETTINGS) | SETTINGS | {"steps": 5}
        )
        for name in ("one", "other")
    ]
    np.testing.assert_array_equal(tables[0]["value"], tables[1]["value"])
    assert set(tables[1]["experiment"]) == {"other"}
