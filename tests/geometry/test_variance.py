import numpy as np
import pytest

from learning_geometry.geometry.variance import logit_variance_shares

QUERIES, KEYS, LAGS = 5, 6, 7


def centred(array, weights, axis):
    """Remove the weighted mean along an axis."""
    shape = [1] * array.ndim
    shape[axis] = -1
    return array - (array * weights.reshape(shape)).sum(axis, keepdims=True)


def planted(seed=0):
    """Weights, and pure effects of unit variance: content, position, interaction, and the query's own."""
    generator = np.random.default_rng(seed)
    weights = [w / w.sum() for w in (generator.uniform(0.2, 1.0, n) for n in (QUERIES, KEYS, LAGS))]
    content = centred(generator.standard_normal((QUERIES, KEYS, 1)), weights[1], 1)
    position = centred(generator.standard_normal((1, 1, LAGS)), weights[2], 2)
    both = generator.standard_normal((QUERIES, KEYS, LAGS))
    both = centred(centred(both, weights[2], 2), weights[1], 1)
    own = generator.standard_normal((QUERIES, 1, 1)) * np.ones((QUERIES, KEYS, LAGS))
    joint = np.einsum("a,b,l->abl", *weights)
    effects = [e / np.sqrt((joint * e**2).sum()) for e in (content, position, both)]
    return weights, effects, own


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [
        ((2.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
        ((0.0, 0.5, 0.0), (0.0, 1.0, 0.0)),
        ((0.0, 0.0, 3.0), (0.0, 0.0, 1.0)),
        ((1.0, 2.0, 0.0), (0.2, 0.8, 0.0)),
        ((1.0, 2.0, 3.0), (1 / 14, 4 / 14, 9 / 14)),
    ],
)
def test_planted_sources_are_told_apart(sizes, shares):
    weights, effects, own = planted()
    logits = sum(size * effect for size, effect in zip(sizes, effects, strict=True)) + 10 * own - 4.0
    found = logit_variance_shares(logits, *weights)
    assert np.allclose(found[1:], shares, atol=1e-9)
    assert np.isclose(found.total, np.dot(sizes, sizes))


def test_axes_are_not_interchangeable():
    # a key's own effect is content; a query's own effect is nothing that softmax would see
    weights = [np.ones(n) for n in (4, 4, 4)]
    effect = np.array([1.0, -1.0, 2.0, -2.0])
    cube = np.zeros((4, 4, 4))
    assert logit_variance_shares(cube + effect[None, :, None], *weights)[1:] == (1.0, 0.0, 0.0)
    assert logit_variance_shares(cube + effect[None, None, :], *weights)[1:] == (0.0, 1.0, 0.0)
    alone = logit_variance_shares(cube + effect[:, None, None], *weights)
    assert alone.total == 0.0 and np.isnan(alone[1:]).all()


def test_shares_sum_to_one_and_agree_with_sampling():
    weights, _, _ = planted(1)
    generator = np.random.default_rng(2)
    logits = generator.standard_normal((QUERIES, KEYS, LAGS)) + generator.standard_normal((KEYS, 1))
    found = logit_variance_shares(logits, *weights)
    assert np.isclose(sum(found[1:]), 1.0)
    # content: covariance of two logits of the same tokens at independent lags, within the query's row
    a, b, other = (
        generator.choice(n, 400_000, p=w)
        for n, w in zip((QUERIES, KEYS, KEYS), (*weights[:2], weights[1]), strict=True)
    )
    first, second, third = (generator.choice(LAGS, 400_000, p=weights[2]) for _ in range(3))
    content = np.mean(logits[a, b, first] * (logits[a, b, second] - logits[a, other, third]))
    assert np.isclose(content / found.total, found.content, atol=0.02)
    # position: the same lag, independent tokens
    c, d = generator.choice(QUERIES, 400_000, p=weights[0]), other
    position = np.mean(logits[a, b, first] * (logits[c, d, first] - logits[c, d, second]))
    assert np.isclose(position / found.total, found.position, atol=0.02)


def test_weights_are_counts_of_any_scale():
    weights, effects, _ = planted(3)
    logits = effects[0] + effects[1] + effects[2]
    again = logit_variance_shares(logits, *(17 * w for w in weights))
    assert np.allclose(again, logit_variance_shares(logits, *weights))
    with pytest.raises(ValueError, match="lag_weights"):
        logit_variance_shares(logits, *weights[:2], np.zeros(LAGS))
