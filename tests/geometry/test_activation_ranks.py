import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from learning_geometry.geometry.activation_ranks import (
    activation_ranks,
    isotropic_ranks,
    principal_directions,
    ranks,
    rogue_dimensions,
)
from learning_geometry.geometry.moments import gathered, growing, moments, principal_variances, restricted
from learning_geometry.geometry.nulls import haar_subspace
from learning_geometry.geometry.subspaces import principal_cosines


def test_ranks_are_those_of_the_singular_values_of_the_centred_vectors():
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((60, 9)) * np.geomspace(1, 0.01, 9) + generator.standard_normal(9)
    values = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False)
    found = activation_ranks(gathered(np.split(vectors, [10, 25])))
    cumulative = np.cumsum(values**2) / np.sum(values**2)
    assert found.directions == np.flatnonzero(cumulative >= 0.99)[0].item() / 9 + 1 / 9
    for number, weights in [(found.effective_rank, values), (found.effective_rank_of_variances, values**2)]:
        shares = weights / weights.sum()
        assert number == pytest.approx(np.prod(shares**-shares) / 9)
    half = activation_ranks(moments(vectors), share=0.5).directions
    assert half == (np.flatnonzero(cumulative >= 0.5)[0] + 1) / 9


@pytest.mark.parametrize("rank", [1, 10, 100])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_planted_rank_is_found_whatever_the_offset(rank, kind):
    generator = np.random.default_rng(rank)
    width = 120
    # equal variances exactly: plus and minus every basis vector
    basis = haar_subspace(width, rank, generator).T
    vectors = (np.concatenate([basis, -basis]) + 10 * generator.standard_normal(width)).astype(kind)
    found = activation_ranks(moments(vectors))
    tolerance = 1e-9 if kind is np.float64 else 2e-3
    assert found.directions == np.ceil(0.99 * rank - 1e-9) / width
    assert found.effective_rank_of_variances == pytest.approx(rank / width, rel=tolerance)
    if kind is np.float64:
        assert found.effective_rank == pytest.approx(rank / width, rel=1e-9)
        assert np.count_nonzero(principal_variances(moments(vectors).scatter)) == rank


def test_scale_offset_and_rotation_do_not_matter_and_stretching_does():
    generator = np.random.default_rng(1)
    vectors = generator.standard_normal((300, 12)) * np.linspace(0.2, 2, 12)
    plain = activation_ranks(moments(vectors))
    changed = 1e4 * vectors @ haar_subspace(12, 12, generator) + generator.standard_normal(12)
    np.testing.assert_allclose(activation_ranks(moments(changed)), plain, rtol=1e-9)
    stretched = activation_ranks(moments(vectors * np.geomspace(1, 100, 12)))
    assert (np.array(stretched) < 0.8 * np.array(plain)).all()


def marchenko_pastur(ratio, share=0.99):
    """Ranks of isotropic vectors in the limit of many, `ratio` of width over count."""
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2

    def density(x):
        return np.sqrt((high - x) * (x - low)) / (2 * np.pi * ratio * x)

    def mean(f, start=low):
        return quad(lambda x: f(x) * density(x), start, high)[0]

    def entropy(f):
        total = mean(f)
        return -mean(lambda x: f(x) / total * np.log(f(x) / total))

    cut = brentq(lambda start: mean(lambda x: x, start) - share, low, high)
    # p = f(x) / (d E f), so that exp H / d = exp(-E[f / Ef ln(f / Ef)])
    return mean(lambda x: 1.0, cut), np.exp(entropy(np.sqrt)), np.exp(entropy(lambda x: x))


@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_isotropic_vectors_follow_the_marchenko_pastur_law(ratio):
    width = 200
    count = int(width / ratio)
    expected = marchenko_pastur(ratio)
    null = np.mean(isotropic_ranks(count, width, 4, np.random.default_rng(0)), axis=0)
    np.testing.assert_allclose(null, expected, atol=0.006)
    vectors = np.random.default_rng(1).standard_normal((count, width))
    np.testing.assert_allclose(activation_ranks(moments(vectors)), null, atol=0.01)


def test_the_curve_rises_with_the_number_of_vectors_to_its_limit():
    generator = np.random.default_rng(2)
    counts = [10, 40, 160, 640, 2560]
    stream = (generator.standard_normal((100, 20)) for _ in range(26))
    curve = np.array([activation_ranks(found) for found in growing(stream, counts)])
    assert (np.diff(curve, axis=0) >= 0).all() and (curve[0] < 0.5).all()
    np.testing.assert_allclose(curve[-1], [1.0, 1.0, 1.0], atol=0.03)
    # fewer vectors than dimensions: one less than their number
    assert curve[0, 0] <= 9 / 20
    null = np.mean(isotropic_ranks(10, 20, 200, np.random.default_rng(3)), axis=0)
    np.testing.assert_allclose(curve[0], null, atol=0.06)


def test_rogue_dimensions_are_found_and_hide_the_rank():
    generator = np.random.default_rng(4)
    vectors = generator.standard_normal((2000, 40))
    assert not rogue_dimensions(moments(vectors)).any()
    vectors[:, 5] *= 40  # varies
    vectors[:, 11] += 30  # constant
    found = moments(vectors)
    rogue = rogue_dimensions(found)
    assert np.flatnonzero(rogue).tolist() == [5, 11]
    assert np.array_equal(rogue_dimensions(moments(1e-6 * vectors)), rogue)
    assert activation_ranks(found).directions < 0.7
    clean = activation_ranks(restricted(found, ~rogue))
    assert clean.directions > 0.95
    np.testing.assert_allclose(clean, activation_ranks(moments(vectors[:, ~rogue])), rtol=1e-9)
    # in another basis nothing is rogue: the rule is about coordinates
    assert not rogue_dimensions(moments(vectors @ haar_subspace(40, 40, generator))).any()


def test_principal_directions_are_planted_ones_in_order():
    generator = np.random.default_rng(5)
    planted = haar_subspace(10, 3, generator)
    vectors = generator.standard_normal((5000, 3)) * [5.0, 3.0, 2.0] @ planted.T
    vectors += 0.01 * generator.standard_normal(vectors.shape) + 7.0
    found = principal_directions(moments(vectors), 3)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(principal_cosines(found, planted), 1.0, atol=1e-5)
    assert (np.abs(np.sum(found * planted, axis=0)) > 0.99).all()


def test_vectors_that_do_not_vary_have_no_rank():
    assert np.isnan(activation_ranks(moments(np.full((5, 3), 0.1)))).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: activation_ranks(moments(np.ones((1, 2)))), "1 vector"),
        (lambda: ranks(np.array([1.0, -1.0])), "negative"),
        (lambda: ranks(np.array([2.0, 1.0]), share=1.0), "share"),
        (lambda: principal_variances(np.full((2, 2), np.nan)), "not finite"),
        (lambda: principal_directions(moments(np.ones((3, 2))), 3), "no 3 principal"),
        (lambda: rogue_dimensions(moments(np.ones((3, 2))), 0.5), "ratio"),
        (lambda: isotropic_ranks(1, 3, 1, np.random.default_rng(0)), "count"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
