import numpy as np
import pytest
import torch

from learning_geometry.geometry.curvature.following import follow_largest
from learning_geometry.geometry.curvature.lanczos import largest_eigenpair

SIZE = 300


def planted(spectrum, noise=0.2, seed=0):
    """A matrix, one that resembles it as the Hessian on fewer sequences does, and the eigenvectors as columns."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.as_tensor(spectrum, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64))[0]
    wrong = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
    root = spectrum.abs().sqrt()
    wrong = noise * root[:, None] * (wrong + wrong.T) / 2 * root
    return (basis * spectrum) @ basis.T, basis @ (torch.diag(spectrum) + wrong) @ basis.T, basis


def decaying(*top, seed=0):
    """Given largest eigenvalues above many small ones of both signs."""
    rest = np.random.default_rng(seed).exponential(0.05, SIZE - len(top)).clip(0, 0.5) - 0.05
    return np.concatenate([top, rest])


@pytest.mark.parametrize("seed", range(5))
def test_a_moved_eigenvector_is_followed_with_few_products(seed):
    spectrum = decaying(3.0, 2.2, 1.8, 1.5, seed=seed)
    matrix, preview, basis = planted(spectrum, seed=seed)
    start = basis[:, 0] + 0.3 * basis[:, 1] - 0.3 * basis[:, 7]
    pair = follow_largest(lambda v: matrix @ v, lambda v: preview @ v, SIZE, 1e-3, start)
    assert pair.converged and abs(pair.value - 3.0) <= pair.error <= 1e-3 * pair.value
    assert float((matrix @ pair.vector - pair.value * pair.vector).norm()) == pytest.approx(pair.residual, rel=1e-6)
    now = largest_eigenpair(lambda v: matrix @ v, SIZE, 1e-3, start)
    assert pair.products <= 0.6 * now.products


@pytest.mark.parametrize("gap", [0.1, 0.2, 0.4])
@pytest.mark.parametrize("seed", range(8))
def test_a_crossing_is_seen_from_an_exact_eigenvector_of_the_former_largest(gap, seed):
    matrix, preview, basis = planted(decaying(1 + gap, 1.0, 0.8, 0.7, seed=seed), seed=seed)
    start = basis[:, 1].contiguous()
    pair = follow_largest(lambda v: matrix @ v, lambda v: preview @ v, SIZE, 1e-3, start)
    assert pair.converged and pair.value == pytest.approx(1 + gap, rel=1e-3)


def test_near_crossings_are_seen_as_often_as_without_a_preview():
    found = {"following": 0, "from noise": 0}
    for seed in range(20):
        matrix, preview, basis = planted(decaying(1.05, 1.0, 0.8, 0.7, seed=seed), seed=seed)
        start, generator = basis[:, 1].contiguous(), torch.Generator().manual_seed(seed)
        pair = follow_largest(lambda v, m=matrix: m @ v, lambda v, m=preview: m @ v, SIZE, 1e-3, start, generator)
        found["following"] += abs(pair.value / 1.05 - 1) <= 1e-3
        generator.manual_seed(seed)
        pair = largest_eigenpair(lambda v, m=matrix: m @ v, SIZE, 1e-3, start, generator)
        found["from noise"] += abs(pair.value / 1.05 - 1) <= 1e-3
    assert found["following"] >= found["from noise"] - 1 >= 15


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_without_a_start_and_of_a_negative_spectrum(dtype, tolerance):
    matrix, preview, _ = (value.to(dtype) for value in planted(decaying(3.0, 2.0) - 4.0))
    pair = follow_largest(lambda v: matrix @ v, lambda v: preview @ v, SIZE, tolerance, dtype=dtype)
    assert pair.converged and pair.vector.dtype == dtype
    assert pair.value == pytest.approx(-1.0, rel=10 * tolerance)


def test_a_preview_of_another_matrix_costs_products_and_not_the_value():
    matrix, _, _ = planted(decaying(3.0, 2.0, 1.9))
    _, other, _ = planted(decaying(5.0, 4.0, 1.0), seed=1)
    pair = follow_largest(lambda v: matrix @ v, lambda v: other @ v, SIZE, 1e-4, dtype=torch.float64)
    assert pair.converged and pair.value == pytest.approx(3.0, rel=1e-4)


def test_small_and_degenerate_matrices():
    one = follow_largest(lambda v: -3.0 * v, lambda v: -2.0 * v, 1, 1e-6)
    assert one.converged and one.products == 1 and abs(one.value + 3.0) < 1e-6
    same = follow_largest(lambda v: v, lambda v: v, 50, 1e-6)
    assert same.converged and same.products == 1 and abs(same.value - 1.0) < 1e-6
    zero = follow_largest(torch.zeros_like, torch.zeros_like, 50, 1e-6)
    assert zero.converged and zero.value == 0.0 and zero.error == 0.0


def test_not_converged_is_reported():
    matrix, preview, _ = planted(np.linspace(0.0, 1.0, SIZE), noise=0.01)
    pair = follow_largest(
        lambda v: matrix @ v, lambda v: preview @ v, SIZE, 1e-10, maximum_products=5, dtype=torch.float64
    )
    assert not pair.converged and pair.products == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"product": lambda v: v * torch.nan}, "product: it is not finite at product 1"),
        ({"preview": lambda v: v * torch.inf}, "preview: it is not finite at product 1"),
        ({"start": torch.zeros(4)}, "start: it is zero"),
        ({"start": torch.full((4,), torch.nan)}, "not finite"),
        ({"start": torch.ones(3)}, r"start: its shape is \(3,\)"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"dimension": 0}, "dimension"),
        ({"maximum_products": 0}, "maximum_products"),
    ],
)
def test_errors_name_what_is_wrong(change, message):
    arguments = {"product": lambda v: v, "preview": lambda v: v, "dimension": 4, "tolerance": 1e-3} | change
    with pytest.raises(ValueError, match=message):
        follow_largest(**arguments)
