"""Eigenpairs along a trajectory: warm starts, cold ones, and one graph at a time."""

import gc
import weakref

import numpy as np
import pytest
import torch

from learning_geometry.geometry.curvature import trajectory as trajectory_module
from learning_geometry.geometry.curvature.eigenpairs import eigenpairs
from learning_geometry.geometry.curvature.products import Gradient, gauss_newton_with_graph, gradient_with_graph
from learning_geometry.geometry.curvature.trajectory import eigenpairs_along


def quadratic(spectra, seed=0, turn=0.02):
    """Points whose Hessians have the given spectra, in a basis that turns a little from one to the next."""
    size = len(spectra[0])
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    for spectrum in spectra:
        change = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
        basis = torch.linalg.qr(basis + turn * change)[0]
        matrix = (basis * torch.as_tensor(spectrum)) @ basis.T
        yield {"x": torch.ones(size, dtype=torch.float64), "matrix": (matrix + matrix.T) / 2}


def differentiate(point):
    return gradient_with_graph(lambda p: p["x"] @ point["matrix"] @ p["x"] / 2, {"x": point["x"]})


BULK = np.linspace(-1.0, 1.0, 150)


def test_eigenpairs_of_every_point_while_eigenvalues_cross():
    spectra = [np.concatenate([[6.0 - a, 4.0 + a, 3.0, -2.0 - a], BULK]) for a in (0.0, 0.5, 1.0, 1.5, 2.0)]
    points = list(quadratic(spectra))
    count = 0
    for point, spectrum, at in zip(
        points, spectra, eigenpairs_along(points, differentiate, 2, 1, 1e-6, cold_every=2), strict=True
    ):
        ordered = np.sort(spectrum)
        assert at.pairs.converged
        assert np.allclose([pair.value for pair in at.pairs.largest], ordered[::-1][:2], atol=1e-5)
        assert np.isclose(at.pairs.smallest[0].value, ordered[0], atol=1e-5)
        assert torch.allclose(at.gradient.gradient, point["matrix"] @ point["x"])
        # the product is there for more
        assert torch.allclose(at.gradient.product(point["x"]), point["matrix"] @ point["x"])
        assert (at.cold_gain is None) == (count not in (2, 4))
        assert at.cold_gain is None or 0 <= at.cold_gain < 1e-5
        count += 1
    assert count == 5


class Watched:
    """A product that can be watched to be freed."""

    def __init__(self, point):
        self.matrix = point["matrix"]

    def __call__(self, vector):
        return self.matrix @ vector


def test_one_graph_at_a_time_whatever_the_caller_keeps():
    alive, most = [], []

    def build(point):
        gc.collect()
        most.append(sum(reference() is not None for reference in alive))
        product = Watched(point)
        alive.append(weakref.ref(product))
        return Gradient(0.0, point["x"], product)

    kept = list(eigenpairs_along(quadratic([BULK] * 4), build, 1, 0, 1e-2))
    gc.collect()
    # when one is built, none of those before is left
    assert most == [0, 0, 0, 0] and not any(reference() is not None for reference in alive)
    with pytest.raises(ValueError, match="graph of checkpoint 2 was freed"):
        kept[2].gradient.product(torch.ones(150, dtype=torch.float64))


def test_a_cold_start_reports_what_the_warm_one_missed(monkeypatch):
    # a warm start that stays on the second largest and second smallest eigenvalue
    def stuck(product, dimension, largest, smallest, tolerance, start=None, *arguments, **options):
        found = eigenpairs(product, dimension, 2, 2, tolerance, None, *arguments, **options)
        take = slice(0, 1) if start is None else slice(1, 2)
        return found._replace(largest=found.largest[take], smallest=found.smallest[take])

    monkeypatch.setattr(trajectory_module, "eigenpairs", stuck)
    points = list(quadratic([np.concatenate([[3.0, 2.5, -2.0, -4.0], BULK])] * 3))
    first, second, third = eigenpairs_along(points, differentiate, 1, 1, 1e-8, cold_every=2)
    assert first.cold_gain is None and second.cold_gain is None
    assert np.isclose(second.pairs.largest[0].value, 2.5) and np.isclose(second.pairs.smallest[0].value, -2.0)
    # the larger gain of the two is that of the smallest eigenvalue; the cold pairs are kept
    assert np.isclose(third.cold_gain, 2.0)
    assert np.isclose(third.pairs.largest[0].value, 3.0) and np.isclose(third.pairs.smallest[0].value, -4.0)
    assert third.pairs.products > second.pairs.products


def test_the_gauss_newton_matrix_along_a_trajectory():
    def build(point):
        return gauss_newton_with_graph(lambda p: p["x"] ** 2, lambda y: (y**2).sum() / 2, point)

    points = [{"x": torch.tensor([1.0, 3.0])}, {"x": torch.tensor([2.0, 1.0])}]
    # (2 x)², where the Hessian is 6 x²
    values = [found.pairs.largest[0].value for found in eigenpairs_along(points, build, 1, 0, 1e-6)]
    assert np.allclose(values, [36.0, 16.0])


def test_warm_starts_save_products_where_little_changes():
    spectra = [np.linspace(-2.0, 2.0, 500)] * 3
    points = list(quadratic(spectra, turn=1e-3))
    counts = [at.pairs.products for at in eigenpairs_along(points, differentiate, 1, 0, 1e-3)]
    assert max(counts[1:]) < counts[0]


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        ([BULK, BULK[:20]], {}, "checkpoint 1: parameters: 20 here, but 150 before"),
        ([BULK, BULK * np.nan], {}, "checkpoint 1: loss: it is nan"),
        ([BULK], {"largest": 151}, "checkpoint 0: largest and smallest: 151 and 0"),
        ([BULK], {"cold_every": -1}, "cold_every: -1"),
    ],
)
def test_errors_name_the_checkpoint(points, options, message):
    made = (next(quadratic([np.nan_to_num(p)])) | {"scale": torch.tensor(p.sum() * 0 + 1)} for p in points)

    def scaled(point):
        return gradient_with_graph(lambda p: point["scale"] * (p["x"] @ point["matrix"] @ p["x"]), {"x": point["x"]})

    with pytest.raises(ValueError, match=message):
        list(eigenpairs_along(made, scaled, **{"largest": 1, "smallest": 0, "tolerance": 1e-2} | options))
