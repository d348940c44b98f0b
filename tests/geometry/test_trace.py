import numpy as np
import pytest
import torch

from learning_geometry.geometry.curvature.lanczos import extreme_eigenpairs, largest_eigenpair
from learning_geometry.geometry.curvature.products import gradient_with_graph
from learning_geometry.geometry.curvature.trace import hutch_plus_plus, mean_loss_increase


def planted(spectrum, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = len(spectrum)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    matrix = (basis * torch.as_tensor(spectrum, dtype=torch.float64)) @ basis.T
    return (matrix + matrix.T) / 2, basis


class Counted:
    def __init__(self, matrix):
        self.matrix, self.products = matrix, 0

    def __call__(self, vector):
        self.products += 1
        return self.matrix @ vector


@pytest.mark.parametrize("sketch", [0, 6])
def test_trace_is_unbiased_and_its_error_is_right(sketch):
    spectrum = np.concatenate([[20.0, 15.0, -10.0], np.linspace(-1, 2, 57)])
    matrix, _ = planted(spectrum)
    found = [
        hutch_plus_plus(lambda v: matrix @ v, 60, 10, sketch, np.random.default_rng(seed), torch.float64)
        for seed in range(300)
    ]
    values, errors = (np.array([getattr(estimate, name) for estimate in found]) for name in ("value", "standard_error"))
    assert abs(values.mean() - spectrum.sum()) < 4 * values.std() / np.sqrt(300)
    assert 0.85 < np.sqrt((errors**2).mean()) / values.std() < 1.15
    inside = np.mean([low <= spectrum.sum() <= high for low, high in (estimate.interval() for estimate in found)])
    assert 0.91 < inside < 0.985


def test_sketch_takes_the_large_eigenvalues_out_of_the_error():
    matrix, _ = planted(np.concatenate([[50.0, 40.0, -30.0], np.linspace(-0.1, 0.1, 97)]))
    product = Counted(matrix)
    plain = hutch_plus_plus(product, 100, 20, 0, np.random.default_rng(0), torch.float64)
    assert product.products == 20
    sketched = hutch_plus_plus(product, 100, 20, 4, np.random.default_rng(0), torch.float64)
    assert product.products == 20 + 20 + 2 * 4
    assert sketched.standard_error < plain.standard_error / 20
    whole = hutch_plus_plus(product, 100, 2, 100, np.random.default_rng(0), torch.float64)
    assert np.isclose(whole.value, 60.0) and whole.standard_error < 1e-8


def test_trace_of_a_network_hessian_in_float32():
    generator = torch.Generator().manual_seed(0)
    inputs, weights = (torch.randn(20, 4, generator=generator) for _ in range(2))
    point = {"first": weights[:6].clone(), "second": weights[6:8].T.clone() @ torch.randn(2, 6, generator=generator)}
    point["second"] = point["second"][:3].clone()
    targets = torch.randint(3, (20,), generator=generator)

    def loss(p):
        return torch.nn.functional.cross_entropy(torch.tanh(inputs @ p["first"].T) @ p["second"].T, targets)

    product = gradient_with_graph(loss, point).product
    size = sum(tensor.numel() for tensor in point.values())
    dense = torch.stack([product(row) for row in torch.eye(size)])
    found = hutch_plus_plus(product, size, 400, 4, np.random.default_rng(1))
    assert abs(found.value - float(dense.trace())) < 3.5 * found.standard_error < 0.2 * float(dense.trace())
    largest, smallest = extreme_eigenpairs(product, size, 1e-5, 1e-5)
    exact = torch.linalg.eigvalsh(dense.double())
    assert np.isclose(largest.value, exact[-1], rtol=1e-4) and np.isclose(smallest.value, exact[0], atol=1e-4)
    assert smallest.value < 0 < largest.value


def test_proxy_of_a_quadratic_is_half_the_squared_radius_times_the_trace():
    matrix, _ = planted(np.concatenate([[5.0], np.linspace(-1, 3, 39)]))
    slope = 100 * torch.ones(40, dtype=torch.float64)
    # a steep slope: pairs must cancel it
    point = {"x": torch.ones(5, 4), "y": torch.ones(20)}

    def loss(p):
        x = torch.cat([p["x"].reshape(-1), p["y"]])
        assert x.dtype == torch.float64
        return x @ matrix @ x / 2 + slope @ x

    found = [mean_loss_increase(loss, point, 1e-2, 8, np.random.default_rng(seed)) for seed in range(200)]
    values, errors = (np.array([getattr(estimate, name) for estimate in found]) for name in ("value", "standard_error"))
    expected = 1e-4 / 2 * float(matrix.trace())
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(200)
    assert values.std() < expected
    assert 0.85 < np.sqrt((errors**2).mean()) / values.std() < 1.15
    inside = np.mean([low <= expected <= high for low, high in (estimate.interval() for estimate in found)])
    assert 0.9 < inside < 0.99
    assert point["x"].dtype == torch.float32 and torch.equal(point["x"], torch.ones(5, 4))


@pytest.mark.parametrize("seed", range(4))
def test_both_ends_of_a_planted_spectrum(seed):
    spectrum = np.concatenate([[7.0, 5.0], np.linspace(-0.5, 1.0, 196), [-1.0, -2.5]])
    matrix, basis = planted(spectrum, seed)
    largest, smallest = extreme_eigenpairs(lambda v: matrix @ v, 200, 1e-6, 1e-6, dtype=torch.float64)
    assert largest.converged and smallest.converged and largest.products == smallest.products < 120
    assert np.isclose(largest.value, 7.0, rtol=1e-6) and np.isclose(smallest.value, -2.5, rtol=1e-5)
    assert float((largest.vector @ basis[:, 0]).abs()) > 0.9999
    assert float((smallest.vector @ basis[:, -1]).abs()) > 0.9999
    # Ritz values come from inside
    assert largest.value <= 7.0 + 1e-12 and smallest.value >= -2.5 - 1e-12
    alone = largest_eigenpair(lambda v: matrix @ v, 200, 1e-6, dtype=torch.float64)
    assert alone.products <= largest.products and np.isclose(alone.value, largest.value, rtol=1e-6)


def test_smallest_eigenvalue_inside_a_dense_edge_is_within_its_tolerance():
    # the edge of a transformer's Hessian: many small negative eigenvalues beside a few large positive ones
    generator = np.random.default_rng(0)
    spectrum = np.concatenate([[2.0, 1.5, 1.0], generator.exponential(0.02, 300), -generator.exponential(0.01, 197)])
    matrix, _ = planted(spectrum)
    largest, smallest = extreme_eigenpairs(lambda v: matrix @ v, 500, 1e-3, 0.01, dtype=torch.float64)
    assert smallest.converged and abs(smallest.value - spectrum.min()) < 0.01 * largest.value
    assert smallest.products < 60


def test_an_end_that_did_not_converge_is_told():
    spectrum = np.concatenate([[100.0], np.linspace(-1.0, 0.0, 299)])
    matrix, _ = planted(spectrum)
    largest, smallest = extreme_eigenpairs(
        lambda v: matrix @ v, 300, 1e-6, 1e-9, maximum_products=12, dtype=torch.float64
    )
    assert largest.converged and not smallest.converged
    assert np.isclose(largest.value, 100.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hutch_plus_plus(lambda v: v, 3, 1, 0, np.random.default_rng(0)), "probes and sketch: 1 and 0"),
        (lambda: hutch_plus_plus(lambda v: v, 3, 2, 4, np.random.default_rng(0)), "2 and 4"),
        (lambda: hutch_plus_plus(lambda v: v * torch.nan, 3, 2, 0, np.random.default_rng(0)), "not finite"),
        (
            lambda: mean_loss_increase(lambda p: p["x"].sum(), {"x": torch.ones(1)}, 0.0, 2, np.random.default_rng(0)),
            "radius",
        ),
        (
            lambda: mean_loss_increase(
                lambda p: p["x"].log().sum(), {"x": torch.zeros(1)}, 1.0, 2, np.random.default_rng(0)
            ),
            "finite",
        ),
        (lambda: extreme_eigenpairs(lambda v: v, 4, 1e-3, 0.0), "tolerance"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
