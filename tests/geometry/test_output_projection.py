"""Causes of low-dimensional attention outputs: against direct computation on z, and planted one by one."""

import numpy as np
import pytest
from scipy.linalg import block_diag, sqrtm

from learning_geometry.geometry.activation_ranks import Ranks, activation_ranks
from learning_geometry.geometry.moments import covariance, moments
from learning_geometry.geometry.nulls import haar_subspace, haar_subspaces
from learning_geometry.geometry.output_projection import (
    ProjectionRanks,
    projection_ranks,
    random_reading,
    random_writing,
    share_of_drop,
    whitened_within_heads,
)

HEADS, HEAD_WIDTH = 4, 6
INNER = HEADS * HEAD_WIDTH


def correlated_z(count=3000, seed=0):
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((INNER, INNER)) * np.geomspace(1, 0.05, INNER)
    return generator.standard_normal((count, INNER)) @ mixing.T + generator.standard_normal(INNER)


def weight_of(width=INNER, seed=1):
    return np.random.default_rng(seed).standard_normal((width, INNER)) * np.geomspace(1, 0.1, INNER)


@pytest.mark.parametrize("width", [INNER, INNER + 6, INNER - 8])
def test_everything_follows_from_the_covariance_as_computed_on_z_itself(width):
    z, weight = correlated_z(), weight_of(width)
    found = projection_ranks(covariance(moments(z)), weight, HEADS, 1, np.random.default_rng(7))

    sigma = np.cov(z.T)
    blocks = [sigma[h : h + HEAD_WIDTH, h : h + HEAD_WIDTH] for h in range(0, INNER, HEAD_WIDTH)]
    root = block_diag(*(sqrtm(block) for block in blocks))
    white, canonical = z @ np.linalg.inv(root), weight @ root
    np.testing.assert_allclose(canonical @ white.T, weight @ z.T, atol=1e-8)
    generator = np.random.default_rng(7)
    reading = random_reading(canonical, generator)
    writing = random_writing(canonical, HEADS, generator)
    gaussian = generator.standard_normal((width, INNER))

    def direct(vectors, reachable):
        return np.array(activation_ranks(moments(vectors))) * vectors.shape[1] / reachable

    reachable = min(width, INNER)
    np.testing.assert_allclose(found.z, direct(white, INNER), rtol=1e-8)
    np.testing.assert_allclose(found.output, direct(z @ weight.T, reachable), rtol=1e-8)
    np.testing.assert_allclose(found.random_reading, direct(white @ reading.T, reachable), rtol=1e-7)
    np.testing.assert_allclose(found.random_writing, direct(white @ writing.T, reachable), rtol=1e-7)
    np.testing.assert_allclose(found.random_weight, direct(white @ gaussian.T, reachable), rtol=1e-7)
    if width < INNER:
        assert np.isnan(found.orthogonal_writing).all()
    else:
        generator = np.random.default_rng(8)
        places = np.split(haar_subspace(width, INNER, generator), HEADS, axis=1)
        heads = np.split(canonical, HEADS, axis=1)
        # U_h to orthonormal vectors that no other head has: the heads' outputs, as they are, side by side
        apart = np.concatenate(
            [
                place @ np.linalg.svd(head, full_matrices=False)[0].T @ head
                for place, head in zip(places, heads, strict=True)
            ],
            axis=1,
        )
        np.testing.assert_allclose(found.orthogonal_writing, direct(white @ apart.T, reachable), rtol=1e-7)
    # heads without correlation between them: another token's z for every head
    shuffled = np.concatenate([np.roll(part, 701 * h, axis=0) for h, part in enumerate(np.split(z, HEADS, 1))], axis=1)
    np.testing.assert_allclose(found.white_input, direct(shuffled @ weight.T, reachable), atol=0.05)


def test_the_gauge_of_heads_changes_nothing():
    z, weight = correlated_z(), weight_of()
    turns = [np.random.default_rng(h).standard_normal((HEAD_WIDTH, HEAD_WIDTH)) for h in range(HEADS)]
    turns[2] *= 1e3
    gauge = block_diag(*turns)
    z_other, weight_other = z @ gauge.T, weight @ np.linalg.inv(gauge)
    np.testing.assert_allclose(weight_other @ z_other.T, weight @ z.T, atol=1e-6)
    # what is not invariant: ranks of z itself, singular values of W_O
    raw, raw_other = activation_ranks(moments(z)), activation_ranks(moments(z_other))
    assert abs(raw.effective_rank - raw_other.effective_rank) > 0.1

    one, other = (
        projection_ranks(covariance(moments(each)), projection, HEADS, 300, np.random.default_rng(3))
        for each, projection in [(z, weight), (z_other, weight_other)]
    )
    for name in ("z", "output", "white_input"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-6)
    for name in ("random_reading", "random_writing", "random_weight"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0.02)
    canonical = whitened_within_heads(covariance(moments(z_other)), weight_other, HEADS)
    expected = whitened_within_heads(covariance(moments(z)), weight, HEADS)
    np.testing.assert_allclose(
        *(np.linalg.svd(each.weight, compute_uv=False) for each in (canonical, expected)), rtol=1e-6
    )
    for h in range(0, INNER, HEAD_WIDTH):
        block = slice(h, h + HEAD_WIDTH)
        np.testing.assert_allclose(canonical.covariance[block, block], np.eye(HEAD_WIDTH), atol=1e-8)


@pytest.mark.parametrize("width", [5, INNER, 40])
def test_counterfactual_weights_keep_what_they_say(width):
    weight, generator = weight_of(width), np.random.default_rng(4)
    reading = random_reading(weight, generator)
    values = np.linalg.svd(weight, compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(reading, compute_uv=False), values)
    # the same left vectors: W Wᵀ is what it was
    np.testing.assert_allclose(reading @ reading.T, weight @ weight.T, atol=1e-10)
    writing = random_writing(weight, HEADS, generator)
    for h in range(0, INNER, HEAD_WIDTH):
        block = slice(h, h + HEAD_WIDTH)
        # a rotation of the output of a head: inner products of what it makes of its z are what they were
        np.testing.assert_allclose(
            writing[:, block].T @ writing[:, block], weight[:, block].T @ weight[:, block], atol=1e-10
        )
    assert np.abs(writing - weight).max() > 0.1 and np.abs(reading - weight).max() > 0.1


def test_random_rotations_are_uniform():
    generator = np.random.default_rng(5)
    weight = np.zeros((6, 4))
    weight[0, 0], weight[0, 2] = 2.0, 1.0
    draws = np.array([random_writing(weight, 2, generator) for _ in range(3000)])
    # each head's output is uniform on its sphere, independent of the other's
    np.testing.assert_allclose((draws[:, :, 0] ** 2).mean(0), 4 / 6, atol=0.06)
    np.testing.assert_allclose(np.einsum("nw,nw->n", draws[:, :, 0], draws[:, :, 2]).mean(), 0.0, atol=0.06)
    readings = np.array([random_reading(weight, generator) for _ in range(3000)])
    np.testing.assert_allclose((readings[:, 0] ** 2).mean(0), 5 / 4, atol=0.08)


def test_overlap_of_heads_is_found_and_undone():
    # all heads write to one subspace of 6 of the 24 dimensions
    weight = np.tile(haar_subspace(INNER, HEAD_WIDTH, np.random.default_rng(6)), HEADS)
    found = projection_ranks(np.eye(INNER), weight, HEADS, 3, np.random.default_rng(0))
    assert found.z.directions == 1.0 and found.output.directions == 0.25
    np.testing.assert_allclose(share_of_drop(found, found.random_reading), 0.0, atol=1e-9)
    # random rotations leave chance overlap
    assert 0.5 < min(share_of_drop(found, found.random_writing)) < 0.8
    np.testing.assert_allclose(share_of_drop(found, found.orthogonal_writing), 1.0)
    np.testing.assert_allclose(found.white_input, found.output)
    # heads that share no direction lose nothing, and there is no drop to explain
    rotation = haar_subspace(INNER, INNER, np.random.default_rng(8))
    apart = projection_ranks(np.eye(INNER), rotation, HEADS, 1, np.random.default_rng(0))
    np.testing.assert_allclose(apart.output, 1.0)
    assert np.isnan(share_of_drop(apart, apart.random_writing)).all()
    assert apart.random_writing.effective_rank < 0.95  # random ones overlap by chance


def test_alignment_with_what_z_varies_along_is_found_and_undone():
    # heads correlated in pairs of coordinates; white within heads
    correlation = 0.9 * np.ones((HEADS, HEADS)) + 0.1 * np.eye(HEADS)
    sigma = np.kron(correlation, np.eye(HEAD_WIDTH))
    vectors = np.linalg.eigh(sigma)[1][:, ::-1]
    rotation = haar_subspace(INNER, INNER, np.random.default_rng(9))
    values = np.geomspace(1, 0.3, INNER)
    aligned = rotation * values @ vectors.T
    against = rotation * values[::-1] @ vectors.T
    of_aligned, of_against = (
        projection_ranks(sigma, weight, HEADS, 20, np.random.default_rng(1)) for weight in (aligned, against)
    )
    assert min(share_of_drop(of_aligned, of_aligned.random_reading)[1:]) > 0.15
    assert of_against.random_reading.effective_rank < of_against.output.effective_rank
    # both have the same singular values: random readings cannot tell them apart
    np.testing.assert_allclose(of_aligned.random_reading, of_against.random_reading, rtol=0.02)


def test_of_random_weights_neither_cause_is_found():
    generator = np.random.default_rng(10)
    heads, head_width = 6, 16
    inner = heads * head_width
    z = generator.standard_normal((2000, inner)) @ generator.standard_normal((inner, inner))
    blocks = haar_subspaces(inner, head_width, heads, generator) * np.geomspace(1, 0.2, head_width)
    weight = np.concatenate(
        [blocks[h] @ haar_subspace(head_width, head_width, generator) for h in range(heads)], axis=1
    )
    white = whitened_within_heads(np.cov(z.T), weight, heads)
    found = projection_ranks(white.covariance, white.weight, heads, 5, generator)
    assert abs(share_of_drop(found, found.random_writing).effective_rank) < 0.1
    turned = random_reading(white.weight, generator)
    found = projection_ranks(np.eye(inner), turned, heads, 5, generator)
    assert abs(share_of_drop(found, found.random_reading).effective_rank) < 1e-6


def test_a_random_weight_lowers_the_rank_as_much_as_its_null():
    generator = np.random.default_rng(11)
    found = projection_ranks(np.eye(96), generator.standard_normal((96, 96)), 6, 5, generator)
    # white z, and still a drop: of the singular values of any random matrix
    assert found.z.directions == 1.0 and found.random_weight.directions < 0.85
    np.testing.assert_allclose(found.output, found.random_weight, atol=0.03)
    # W_O of equal singular values loses nothing
    rotation = haar_subspace(96, 96, generator)
    assert projection_ranks(np.eye(96), rotation, 6, 1, generator).output.directions > found.random_weight.directions


def test_directions_in_which_a_head_does_not_vary_stay_empty():
    z, weight = correlated_z(), weight_of()
    z[:, :HEAD_WIDTH] = 3.0  # a head that says nothing
    z[:, HEAD_WIDTH] = z[:, HEAD_WIDTH + 1]  # and one of lower rank
    found = projection_ranks(covariance(moments(z)), weight, HEADS, 2, np.random.default_rng(0))
    assert np.isfinite(np.array(found)).all()
    assert found.z.directions <= (INNER - HEAD_WIDTH - 1) / INNER
    direct = activation_ranks(moments(z @ weight.T))
    np.testing.assert_allclose(found.output, direct, rtol=1e-8)


def test_shares_of_a_drop():
    found = ProjectionRanks(*(Ranks(*3 * [number]) for number in (0.9, 0.5, 0.6, 0.7, 0.4, 0.8, 0.6)))
    np.testing.assert_allclose(share_of_drop(found, found.random_reading), 0.5)
    np.testing.assert_allclose(share_of_drop(found, found.random_writing), -0.25)
    risen = found._replace(output=found.z)
    assert np.isnan(share_of_drop(risen, found.random_reading)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: whitened_within_heads(np.eye(6), np.ones((3, 6)), 4), "4 do not divide the 6 columns"),
        (lambda: random_writing(np.ones((3, 6)), 0, np.random.default_rng(0)), "0 do not divide"),
        (lambda: random_reading(np.full((2, 2), np.nan), np.random.default_rng(0)), "weight: an entry is not finite"),
        (lambda: whitened_within_heads(np.full((2, 2), np.nan), np.eye(2), 1), "covariance: an entry is not finite"),
        (lambda: projection_ranks(np.eye(2), np.eye(2), 1, 0, np.random.default_rng(0)), "draws"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
