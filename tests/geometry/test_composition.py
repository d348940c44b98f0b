import numpy as np
import pytest
import torch

from learning_geometry.geometry.composition import (
    composition_z_score,
    randomly_turned_products,
    subspace_match,
    token_mismatch,
)
from learning_geometry.geometry.head_products import (
    output_value_products,
    query_key_products,
    query_key_products_at_lags,
    split_heads,
    turn_pairs,
)
from learning_geometry.geometry.nulls import haar_subspaces, principal_cosines_null
from learning_geometry.models.attention import rotate, rotation

from .oracles import subspace_energy

WIDTH, HEADS, HEAD_WIDTH = 16, 2, 8


def complementary(seed=0):
    """Two orthogonal 8-dimensional subspaces of 16 dimensions, as rows."""
    basis = haar_subspaces(WIDTH, WIDTH, 1, np.random.default_rng(seed))[0].T
    return basis[:HEAD_WIDTH], basis[HEAD_WIDTH:]


def by_head(first, second):
    return np.concatenate([first, second])


def test_products_are_scores_and_written_directions():
    generator = np.random.default_rng(0)
    query, key, value, output = generator.standard_normal((4, WIDTH, WIDTH))
    a, b = generator.standard_normal((2, WIDTH))
    read = query_key_products(query, key, HEADS)
    written = output_value_products(output, value, HEADS)
    assert read.shape == written.shape == (HEADS, WIDTH, WIDTH)
    for h in range(HEADS):
        rows = slice(h * HEAD_WIDTH, (h + 1) * HEAD_WIDTH)
        copied = output[:, rows] @ (value[rows] @ b)
        assert np.allclose(written[h] @ b, copied)
        for g in range(HEADS):
            rows = slice(g * HEAD_WIDTH, (g + 1) * HEAD_WIDTH)
            # a query of token a meets a key whose stream holds what head h copied of token b
            score = (query[rows] @ a) @ (key[rows] @ copied) / np.sqrt(HEAD_WIDTH)
            assert np.isclose(a @ read[g] @ written[h] @ b, score)
    # one head: the whole projection, other scale
    assert np.allclose(query_key_products(query, key, 1)[0], query.T @ key / 4)


def test_keys_are_the_right_side_and_writing_is_the_left():
    asked, answered = complementary()
    noise = 1e-3 * np.random.default_rng(1).standard_normal((2, WIDTH, WIDTH))
    # the heads plant opposite sides, so that neither swapped sides nor swapped heads can pass
    query, key = by_head(asked, answered) + noise[0], by_head(answered, asked) + noise[1]
    for product, queries, keys in zip(
        query_key_products(query, key, HEADS), (asked, answered), (answered, asked), strict=True
    ):
        left, _, right = np.linalg.svd(product)
        assert subspace_energy(left[:, :8], queries.T) > 0.999 and subspace_energy(right[:8].T, keys.T) > 0.999
        assert subspace_energy(left[:, :8], keys.T) < 0.001 and subspace_energy(right[:8].T, queries.T) < 0.001
    output, value = by_head(asked, answered).T.copy(), by_head(answered, asked)
    for product, writes, reads in zip(
        output_value_products(output, value, HEADS), (asked, answered), (answered, asked), strict=True
    ):
        left, _, right = np.linalg.svd(product)
        assert subspace_energy(left[:, :8], writes.T) > 0.999 and subspace_energy(right[:8].T, reads.T) > 0.999


def test_match_is_of_what_keys_read_with_what_is_written():
    here, there = complementary()
    # distinct strengths, so that singular vectors are unique
    strength = np.linspace(2.0, 1.0, HEAD_WIDTH)[:, None]
    keys_read_here = query_key_products(there, strength * here, 1)[0]
    keys_read_there = query_key_products(here, strength * there, 1)[0]
    writes_here = output_value_products((strength * here).T.copy(), there, 1)[0]
    writes_there = output_value_products((strength * there).T.copy(), here, 1)[0]
    ranks = [1, 3, 8]
    for cosines, rank in zip(subspace_match(keys_read_here, writes_here, ranks), ranks, strict=True):
        assert np.allclose(cosines, np.ones(rank))
    # queries that read it, or values that read it, are no match
    assert all(c.max() < 1e-7 for c in subspace_match(keys_read_there, writes_here, ranks))
    assert all(c.max() < 1e-7 for c in subspace_match(keys_read_here, writes_there, ranks))


def test_a_hand_made_induction_circuit_has_the_largest_scores():
    generator = np.random.default_rng(2)
    turn, embedding = haar_subspaces(WIDTH, WIDTH, 2, generator)
    # the first layer writes the attended token turned; keys of the second turn it back
    written = output_value_products(turn, np.eye(WIDTH), 1)[0]
    read = query_key_products(np.eye(WIDTH), turn.T.copy(), 1)[0]
    assert np.isclose(composition_z_score(read @ written), np.sqrt(WIDTH - 1))
    assert token_mismatch(embedding, read @ written) == 0.0
    # the other order is another matrix, and without the turn back there is nothing
    assert composition_z_score(query_key_products(np.eye(WIDTH), np.eye(WIDTH), 1)[0] @ written) < 1.0
    turned = randomly_turned_products(read, written, haar_subspaces(WIDTH, WIDTH, 400, generator))
    scores, mismatches = composition_z_score(turned), token_mismatch(embedding, turned)
    assert abs(scores.mean()) < 4 * scores.std() / np.sqrt(400) and np.abs(scores).max() < 1.5
    assert abs(mismatches.mean() - (1 - 1 / WIDTH)) < 0.01


def test_random_weights_are_at_their_null():
    generator = np.random.default_rng(3)
    embedding = generator.standard_normal((24, WIDTH))
    rotations = haar_subspaces(WIDTH, WIDTH, 200, generator)
    (null,) = principal_cosines_null(WIDTH, [4], 2000, generator)
    inside = np.zeros(4)
    for _ in range(100):
        query, key, value, output = generator.uniform(-0.25, 0.25, (4, WIDTH, WIDTH))
        read, written = query_key_products(query, key, 1)[0], output_value_products(output, value, 1)[0]
        turned = randomly_turned_products(read, written, rotations)
        (cosines,) = subspace_match(read, written, [4])
        for i, (value, draws) in enumerate(
            [
                (composition_z_score(read @ written), composition_z_score(turned)),
                (token_mismatch(embedding, read @ written), token_mismatch(embedding, turned)),
                (cosines[0], null[:, 0]),
                ((cosines**2).mean(), (null**2).mean(1)),
            ]
        ):
            low, high = np.quantile(draws, [0.025, 0.975])
            inside[i] += low <= value <= high
    # 95 expected, standard deviation 2.2; a discrete statistic may be inside more often
    assert (inside >= 88).all() and (inside[[0, 2, 3]] <= 100).all(), inside


@pytest.mark.parametrize("heads", [1, 2])
def test_lag_is_query_position_minus_key_position(heads):
    generator = np.random.default_rng(4)
    query, key = generator.standard_normal((2, WIDTH, WIDTH))
    stream = generator.standard_normal((12, WIDTH))
    factors = rotation(12, WIDTH // heads, 100.0, torch.float64, "cpu")

    def turned(weight):  # heads position head_width, as the model computes them
        projected = torch.from_numpy(stream @ weight.T).view(12, heads, -1).transpose(0, 1)
        return rotate(projected, factors).numpy()

    queries, keys = turned(query), turned(key)
    lags = np.array([0, 1, 3, 7])
    products = query_key_products_at_lags(query, key, heads, lags.astype(float), 100.0)
    assert np.allclose(products[0], query_key_products(query, key, heads))
    for product, lag in zip(products, lags, strict=True):
        for h in range(heads):
            for position in range(lag, 12):
                score = queries[h, position] @ keys[h, position - lag] / np.sqrt(WIDTH // heads)
                assert np.isclose(stream[position] @ product[h] @ stream[position - lag], score)
    # the opposite turn is another matrix: the sign matters
    opposite = query_key_products_at_lags(query, key, heads, -lags.astype(float), 100.0)
    assert not np.allclose(opposite[1:], products[1:])


@pytest.mark.parametrize("rotary_width", [None, 4])
def test_products_of_shared_heads_and_partial_rotary_are_those_of_the_model(rotary_width):
    """Four query heads of width 6 on two key heads, each query head with the key head of its group."""
    generator = np.random.default_rng(6)
    query, key, value = (generator.standard_normal((rows, WIDTH)) for rows in (24, 12, 12))
    output = generator.standard_normal((WIDTH, 24))
    stream = generator.standard_normal((5, WIDTH))
    factors = rotation(5, 6, 100.0, torch.float64, "cpu", rotary_width)

    def turned(weight):
        return rotate(torch.from_numpy(stream @ weight.T).view(5, -1, 6).transpose(0, 1), factors).numpy()

    queries, keys = turned(query), turned(key)
    lags = np.array([0.0, 1.0, 3.0])
    products = query_key_products_at_lags(query, key, 4, lags, 100.0, rotary_width)
    assert products.shape == (3, 4, WIDTH, WIDTH)
    assert np.allclose(products[0], query_key_products(query, key, 4))
    written = output_value_products(output, value, 4)
    for h in range(4):
        for product, lag in zip(products, lags.astype(int), strict=True):
            score = queries[h, 4] @ keys[h // 2, 4 - lag] / np.sqrt(6)
            assert np.isclose(stream[4] @ product[h] @ stream[4 - lag], score)
        own = slice(6 * (h // 2), 6 * (h // 2) + 6)
        assert np.allclose(written[h], output[:, 6 * h : 6 * h + 6] @ value[own])


@pytest.mark.parametrize(("rows", "message"), [(10, "10 rows are no heads of width 6"), (18, "18 rows are no heads")])
def test_keys_that_the_heads_cannot_share_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        query_key_products(np.ones((24, WIDTH)), np.ones((rows, WIDTH)), 4)


@pytest.mark.parametrize("rotary_width", [0, 3, 10])
def test_a_rotary_width_that_is_no_part_of_a_head_is_refused(rotary_width):
    with pytest.raises(ValueError, match=f"rotary_width: {rotary_width} is no even number up to the head width 8"):
        turn_pairs(np.ones((8, 1)), np.ones(1), 10.0, rotary_width)


def test_turns_add_up_and_keep_lengths():
    vectors = np.random.default_rng(5).standard_normal((3, 8, 4))
    once = turn_pairs(turn_pairs(vectors, np.array([2.0]), 50.0)[0], np.array([3.0]), 50.0)
    assert np.allclose(once, turn_pairs(vectors, np.array([5.0]), 50.0))
    assert np.allclose(np.linalg.norm(once, axis=2), np.linalg.norm(vectors, axis=1))


def test_constant_scores_have_no_z_score():
    assert np.isnan(composition_z_score(np.ones((3, 3))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_heads(np.ones((6, 4)), 4), "heads: 4 do not divide the 6 rows"),
        (lambda: split_heads(np.full((2, 2), np.nan), 1), "not finite"),
        (lambda: turn_pairs(np.ones((3, 2)), np.zeros(1), 10.0), "even head width"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
