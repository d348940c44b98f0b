"""Several eigenpairs at once: repeated and nearly repeated eigenvalues, bounds, starts, and what is hidden."""

import numpy as np
import pytest
import torch

from learning_geometry.geometry.curvature.eigenpairs import eigenpairs
from learning_geometry.geometry.curvature.krylov import Krylov


def planted(spectrum, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    size = len(spectrum)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    matrix = (basis * torch.as_tensor(spectrum, dtype=torch.float64)) @ basis.T
    return ((matrix + matrix.T) / 2).to(dtype), basis


def values(pairs):
    return np.array([pair.value for pair in pairs])


def outward_errors(found, spectrum):
    """How far each eigenvalue lies beyond its Ritz value."""
    ordered = np.sort(spectrum)[::-1]
    largest = ordered[: len(found.largest)] - values(found.largest)
    return np.concatenate([largest, values(found.smallest) - ordered[::-1][: len(found.smallest)]])


BULK = np.linspace(-1.0, 1.0, 240)


@pytest.mark.parametrize("top", [[5, 5, 5, 4, 4], [5, 5, 5, 5, 5], [5, 4.999, 4.99, 3, 2], [9, 8, 7, 6, 5]])
@pytest.mark.parametrize("warm", [False, True])
def test_repeated_and_nearly_repeated_eigenvalues(top, warm):
    spectrum = np.concatenate([top, BULK, [-2.0, -2.0, -3.0]])
    matrix, basis = planted(spectrum)
    # eigenvectors of the wrong eigenvalues: of the second and of the bulk
    start = basis[:, [1, 100]].contiguous() if warm else None
    found = eigenpairs(lambda v: matrix @ v, len(spectrum), 5, 3, 1e-8, start=start, dtype=torch.float64)
    assert found.converged and all(pair.converged for pair in found.largest + found.smallest)
    assert found.products < len(spectrum) / 2
    assert np.allclose(values(found.largest), top, atol=1e-7)
    assert np.allclose(values(found.smallest), [-3.0, -2.0, -2.0], atol=1e-7)
    columns = torch.stack([pair.vector for pair in found.largest + found.smallest], dim=1)
    assert torch.allclose(columns.T @ columns, torch.eye(8, dtype=torch.float64), atol=1e-10)


def test_one_start_vector_alone_misses_copies():
    # what the confirmation is for: without it, this same test matrix loses a copy
    spectrum = np.concatenate([[5.0, 5.0, 3.0], BULK])
    matrix, _ = planted(spectrum)
    alone = eigenpairs(lambda v: matrix @ v, len(spectrum), 2, 0, 1e-6, dtype=torch.float64, confirmation=0)
    assert np.allclose(values(alone.largest), [5.0, 3.0])
    found = eigenpairs(lambda v: matrix @ v, len(spectrum), 2, 0, 1e-6, dtype=torch.float64)
    assert np.allclose(values(found.largest), [5.0, 5.0])


def test_bounds_and_residuals_hold_and_hidden_copies_are_rare():
    missed = counted = 0
    for seed in range(30):
        random = np.random.default_rng(seed)
        top = np.repeat(random.uniform(2, 6, 4), random.integers(1, 4, 4))
        spectrum = np.concatenate([top, random.uniform(-1, 1, 200), -np.repeat(random.uniform(1.5, 3, 2), 2)])
        matrix, basis = planted(spectrum, seed)
        start = None
        if seed % 2:
            noise = torch.from_numpy(random.standard_normal((len(spectrum), 2)))
            start = basis[:, [len(top) - 1, 40]] + 0.05 * noise
        for tolerance in (1e-2, 1e-5):
            found = eigenpairs(
                lambda v, matrix=matrix: matrix @ v, len(spectrum), 5, 2, tolerance, start=start,
                generator=torch.Generator().manual_seed(seed), dtype=torch.float64,
            )  # fmt: skip
            assert found.converged
            for error, pair in zip(outward_errors(found, spectrum), found.largest + found.smallest, strict=True):
                # always: from inside, and the residual is the residual
                assert error > -1e-11 and pair.error <= tolerance * np.abs(spectrum).max()
                residual = float(torch.linalg.vector_norm(matrix @ pair.vector - pair.value * pair.vector))
                assert np.isclose(residual, pair.residual, rtol=1e-3, atol=1e-11)
                missed += error > 1.001 * pair.error + 1e-11
                counted += 1
    assert missed <= 0.01 * counted


def test_the_error_bound_of_a_cluster_is_quadratic():
    spectrum = np.concatenate([[5.0, 5.0 - 1e-7, 5.0 - 2e-7], BULK])
    matrix, _ = planted(spectrum)
    found = eigenpairs(lambda v: matrix @ v, len(spectrum), 3, 0, 1e-2, dtype=torch.float64)
    worst = max(found.largest, key=lambda pair: pair.residual)
    # the gap inside the cluster gives no better bound than the residual; that behind it does
    assert worst.residual**2 / 1e-7 > worst.residual > 1e-7
    assert outward_errors(found, spectrum).max() <= worst.error + 1e-14 and worst.error < 1e-3 * worst.residual


def test_a_start_from_eigenvectors_saves_products_and_a_crossing_is_followed():
    spectrum = np.concatenate([[5.0, 4.5, 4.0, 3.5], BULK])
    matrix, basis = planted(spectrum)
    near = basis[:, 1:3] + 1e-3 * torch.randn(len(spectrum), 2, dtype=torch.float64)
    found = eigenpairs(lambda v: matrix @ v, len(spectrum), 2, 0, 1e-4, start=near)
    assert np.allclose(values(found.largest), [5.0, 4.5], rtol=1e-4)
    dense = np.concatenate([np.linspace(2.0, 3.0, 10), np.linspace(-2.0, 1.9, 790)])
    matrix, basis = planted(dense)
    start = basis[:, [9, 8]] + 1e-3 * torch.randn(800, 2, generator=torch.Generator().manual_seed(1)).double()
    warm, cold = (
        eigenpairs(lambda v: matrix @ v, 800, 2, 0, 1e-3, start=each, dtype=torch.float64) for each in (start, None)
    )
    assert warm.converged and warm.products < cold.products
    assert np.allclose(values(warm.largest), dense[[9, 8]], rtol=2e-3)


@pytest.mark.parametrize("gap", [1.0, 0.3])
def test_confirmation_finds_what_is_orthogonal_to_the_start_as_often_as_promised(gap):
    # the space is an exact eigenvector, everything else is hidden from it; the bound for this gap, at 20 products
    spectrum = np.concatenate([[3.0, 3.0 + gap], np.linspace(0.0, 1.0, 98)])
    width, confirmation = 3.0 + gap, 20
    bound = 1.648 * np.sqrt(100) * np.exp(-(2 * confirmation - 1) * np.sqrt(gap / width))
    assert bound < 0.01
    matrix, basis = planted(spectrum)
    for seed in range(20):
        space = Krylov(lambda v: matrix @ v, 100, torch.float64, "cpu")
        direction = space.expand(space.add(basis[:, 0]))
        assert not direction.any() and space.pending == 0
        direction = space.add(torch.randn(100, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
        for _ in range(confirmation):
            direction = space.expand(direction)
        assert space.ritz()[0][-1] > 3.0


def test_krylov_space_keeps_its_promises_whatever_is_expanded():
    matrix, _ = planted(np.concatenate([[8.0, -5.0], BULK]))
    generator = torch.Generator().manual_seed(0)
    space = Krylov(lambda v: matrix @ v, len(matrix), torch.float64, "cpu")
    random = np.random.default_rng(0)
    for step in range(40):
        if step % 10 == 0:
            space.add(torch.randn(len(matrix), generator=generator, dtype=torch.float64))
        space.expand(random.standard_normal(space.pending))
    known = space.size + space.pending
    basis = space.basis[:known].T
    assert space.pending == 4
    assert torch.allclose(basis.T @ basis, torch.eye(known, dtype=torch.float64), atol=1e-12)
    # every product lies in the basis with these coefficients
    coefficients = torch.from_numpy(space.coefficients[:known, : space.size])
    assert torch.allclose(matrix @ basis[:, : space.size], basis @ coefficients, atol=1e-11)


def test_float32_agrees_with_float64():
    spectrum = np.concatenate([[9.0, 8.0, 8.0], BULK, [-4.0, -6.0]])
    matrix, _ = planted(spectrum)
    single = matrix.float()
    found = eigenpairs(lambda v: single @ v, len(spectrum), 3, 2, 1e-5)
    assert found.converged and found.largest[0].vector.dtype == torch.float32
    assert np.allclose(values(found.largest), [9.0, 8.0, 8.0], atol=1e-4)
    assert np.allclose(values(found.smallest), [-6.0, -4.0], atol=1e-4)


def test_all_eigenvalues_and_degenerate_matrices():
    matrix, _ = planted([3.0, -1.0, 2.0, 2.0])
    found = eigenpairs(lambda v: matrix @ v, 4, 2, 2, 1e-10, dtype=torch.float64)
    assert np.allclose(values(found.largest), [3.0, 2.0]) and np.allclose(values(found.smallest), [-1.0, 2.0])
    assert found.converged and found.products == 4
    same = eigenpairs(lambda v: 2 * v, 50, 3, 2, 1e-6)
    assert same.converged and np.allclose(values(same.largest + same.smallest), 2.0)
    zero = eigenpairs(torch.zeros_like, 50, 2, 1, 1e-6)
    assert zero.converged and not values(zero.largest + zero.smallest).any()
    none = eigenpairs(lambda v: matrix @ v, 4, 0, 1, 1e-6, dtype=torch.float64)
    assert none.largest == [] and np.isclose(none.smallest[0].value, -1.0)


def test_not_converged_is_told_for_each_pair():
    spectrum = np.concatenate([[100.0], np.linspace(-1.0, 0.0, 299)])
    matrix, _ = planted(spectrum)
    found = eigenpairs(lambda v: matrix @ v, 300, 1, 1, 1e-10, maximum_products=12, dtype=torch.float64)
    assert found.largest[0].converged and not found.smallest[0].converged and not found.converged
    assert found.products == 12


def test_same_generator_same_bits():
    matrix, _ = planted(BULK, dtype=torch.float32)
    first, second = (eigenpairs(lambda v: matrix @ v, len(BULK), 2, 1, 1e-4) for _ in range(2))
    assert (values(first.largest) == values(second.largest)).all() and first.products == second.products


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((4, 3, 2, 1e-3), {}, "3 and 2 eigenvalues of a matrix with 4 rows"),
        ((4, 0, 0, 1e-3), {}, "at least one eigenvalue"),
        ((4, -1, 2, 1e-3), {}, "none below 0"),
        ((0, 1, 0, 1e-3), {}, "one dimension"),
        ((4, 1, 1, 0.0), {}, "tolerance"),
        ((4, 2, 1, 1e-3), {"maximum_products": 2}, "maximum_products: 2 for 3"),
        ((4, 1, 0, 1e-3), {"start": torch.zeros(4, 1)}, "start: a column is zero"),
        ((4, 1, 0, 1e-3), {"start": torch.full((4, 1), torch.nan)}, "not finite"),
        ((5, 1, 0, 1e-3), {"start": torch.ones(4, 1)}, r"start: its shape is \(4, 1\), not \(5, columns\)"),
    ],
)
def test_errors_name_what_is_wrong(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        eigenpairs(lambda v: v, *arguments, **options)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_product_that_is_not_finite_is_named(bad):
    with pytest.raises(ValueError, match="product: it is not finite at product 1"):
        eigenpairs(lambda v: v * bad, 4, 1, 1, 1e-3)
