import numpy as np
import pytest

from learning_geometry.geometry.contrasts import Contrast, contrast, contrast_resampled
from learning_geometry.geometry.probes import shuffled_labels
from learning_geometry.geometry.resampling import bca_ends, bootstrap_counts, difference, pair_counts

PAIRS, WIDTH = 24, 10


def sets(seed=0, width=WIDTH):
    generator = np.random.default_rng(seed)
    spread = np.geomspace(3, 0.3, width)
    first = 1 + generator.standard_normal((PAIRS, width)) * spread
    second = generator.standard_normal(width) + 2 * generator.standard_normal((PAIRS, width)) * spread
    return first, second


def direct(first, second):
    means = first.mean(0), second.mean(0)
    cosine = means[0] @ means[1] / np.sqrt((means[0] @ means[0]) * (means[1] @ means[1]))
    variances = first.var(0, ddof=1), second.var(0, ddof=1)
    return [cosine, variances[0].mean(), variances[1].mean(), variances[0].max(), variances[1].max()]


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_counts_are_as_good_as_copies_of_the_samples(kind):
    first, second = (each.astype(kind) for each in sets())
    vectors = np.concatenate([first, second])
    counts = np.random.default_rng(1).multinomial(PAIRS, np.ones(2 * PAIRS) / (2 * PAIRS), size=(2, 600))
    found = np.stack(contrast(vectors, *counts), axis=1)
    assert found.shape == (600, 5)  # more than are computed at once
    exact = vectors.astype(np.float64)
    for row in (0, 255, 256, 599):
        copies = [np.repeat(exact, counts[side, row], axis=0) for side in (0, 1)]
        np.testing.assert_allclose(found[row], direct(*copies), rtol=1e-10)


def test_a_large_common_part_costs_no_digits_of_the_variances():
    first, second = sets()
    one, other = pair_counts(np.ones((1, PAIRS), dtype=np.int64))
    found = contrast(np.concatenate([first, second]) + 1e6, one, other)
    plain = direct(first, second)
    np.testing.assert_allclose(np.stack(found)[1:, 0], plain[1:], rtol=1e-8)
    assert found.cosine[0] == pytest.approx(1.0, abs=1e-10)


def test_planted_means_and_variances():
    # closed form: means along two axes at 60 degrees, variances 1 in one coordinate and 4 in all three
    signs = np.array([[1.0], [-1.0]]) * np.sqrt(0.5)
    first = np.array([2.0, 0.0, 0.0]) + signs * [0.0, 0.0, 1.0]
    second = np.array([1.0, np.sqrt(3), 0.0]) + 2 * signs * np.ones(3)
    found = contrast(np.concatenate([first, second]), *pair_counts(np.ones((1, 2), dtype=np.int64)))
    np.testing.assert_allclose(np.stack(found)[:, 0], [0.5, 1 / 3, 4.0, 1.0, 4.0])


def test_equal_samples_have_cosine_one_and_no_variance():
    # the embedding of a token that all prompts share
    vectors = np.tile(np.random.default_rng(0).standard_normal(WIDTH).astype(np.float32), (2 * PAIRS, 1))
    found = contrast_resampled(vectors[:PAIRS], vectors[PAIRS:], bootstrap_counts(PAIRS, 50, np.random.default_rng(0)))
    np.testing.assert_allclose(found.estimate, [1, 0, 0, 0, 0], atol=1e-14)
    np.testing.assert_allclose(bca_ends(found), [[1, 0, 0, 0, 0]] * 2, atol=1e-14)


def test_resamples_are_of_pairs_and_one_pair_is_left_out_at_a_time():
    first, second = sets()
    counts = bootstrap_counts(PAIRS, 300, np.random.default_rng(2))
    found = contrast_resampled(first, second, counts)
    np.testing.assert_allclose(found.estimate, direct(first, second), rtol=1e-10)
    for draw in (0, 299):
        drawn = np.repeat(np.arange(PAIRS), counts[draw])
        np.testing.assert_allclose(found.resamples[draw], direct(first[drawn], second[drawn]), rtol=1e-10)
    for pair in (0, PAIRS - 1):
        rest = np.delete(np.arange(PAIRS), pair)
        np.testing.assert_allclose(found.left_out[pair], direct(first[rest], second[rest]), rtol=1e-10)
    ends = bca_ends(found)
    assert (ends[0] < found.estimate).all() and (found.estimate < ends[1]).all()


def test_differences_between_layers_are_paired_over_prompts():
    first, second = sets(width=200)
    generator = np.random.default_rng(3)
    later = [1.1 * each + 0.01 * generator.standard_normal(each.shape) for each in (first, second)]
    counts = bootstrap_counts(PAIRS, 500, generator)
    before, after = contrast_resampled(first, second, counts), contrast_resampled(*later, counts)
    grown = Contrast(*bca_ends(difference(after, before)).T)
    expected = 0.21 * np.array(direct(first, second)[1:])
    widths = np.diff(bca_ends(before), axis=0)[0]
    for ends, size, width in zip(grown[1:3], expected, widths[1:], strict=False):
        assert ends[0] > 0 and ends[0] < size * 1.01 and ends[1] > size * 0.99
        assert np.diff(ends) < 0.3 * width


def test_sets_shuffled_together_are_the_null():
    first, second = sets()
    vectors, labels = np.concatenate([first, second]), np.repeat([0, 1], PAIRS)
    null = shuffled_labels(labels, 400, np.random.default_rng(4))
    found = contrast(vectors, 1 - null, null)
    # both halves have the variance of the union in the mean, and means alike
    union = vectors.var(0, ddof=1).mean()
    assert found.mean_variance_first.mean() == pytest.approx(union, rel=0.02)
    assert found.mean_variance_second.mean() == pytest.approx(union, rel=0.02)
    true = direct(first, second)
    assert true[0] < np.quantile(found.cosine, 0.05)
    ratio = found.mean_variance_second / found.mean_variance_first
    assert true[2] / true[1] > np.quantile(ratio, 0.99)


def test_a_set_of_one_has_no_variance_and_a_zero_mean_no_cosine():
    vectors = np.array([[1.0, 2.0], [1.0, 0.0], [-1.0, 0.0]])
    found = contrast(vectors, np.array([[1, 0, 0]]), np.array([[0, 1, 1]]))
    assert np.isnan(found.cosine[0]) and np.isnan(found.mean_variance_first[0]) and found.mean_variance_second[0] == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contrast(np.full((2, 1), np.inf), np.array([[1, 0]]), np.array([[0, 1]])), "not finite"),
        (lambda: contrast(np.ones((2, 1)), np.array([[1, 0]]), np.array([[0, 0]])), "second: .* a set is empty"),
        (lambda: contrast(np.ones((2, 1)), np.array([[1, -1]]), np.array([[0, 1]])), "first: a count is negative"),
        (
            lambda: contrast_resampled(np.ones((3, 2)), np.ones((2, 2)), np.ones((1, 3), dtype=int)),
            "3 vectors, 2 partners",
        ),
        (lambda: contrast_resampled(np.ones((3, 2)), np.ones((3, 2)), np.ones((1, 2), dtype=int)), "counts of 2"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
