from itertools import combinations

import numpy as np
import pytest

from learning_geometry.geometry.nulls import haar_subspace
from learning_geometry.geometry.probes import predict, ridge_probe, shuffled_labels
from learning_geometry.geometry.untangling import (
    Untangling,
    between_over_within,
    held_out_hits,
    span_coordinates,
    swapped_pairs,
    untangling,
)

PAIRS, WIDTH = 40, 100
LABELS = np.repeat([0, 1], PAIRS)
PAIR_OF = np.tile(np.arange(PAIRS), 2)


def pairs(distance, seed=0):
    """Pairs that share a topic of their own; the second of each is moved along one direction."""
    generator = np.random.default_rng(seed)
    topics = np.tile(generator.standard_normal((PAIRS, WIDTH)), (2, 1))
    moved = distance * np.outer(LABELS, haar_subspace(WIDTH, 1, generator)[:, 0])
    return topics + 0.5 * generator.standard_normal((2 * PAIRS, WIDTH)) + moved


def test_planted_sets_are_separable_and_shuffled_ones_are_not():
    nulls = shuffled_labels(LABELS, 60, np.random.default_rng(1))
    accuracies = []
    for distance in (0.0, 4.0, 30.0):
        hits = held_out_hits(pairs(distance), np.concatenate([LABELS[None], nulls]), PAIR_OF, np.random.default_rng(2))
        accuracies.append(hits[0].mean())
        assert abs(hits[1:].mean() - 0.5) < 0.03
    assert 0.3 < accuracies[0] < 0.7 and accuracies[1] > 0.8 and accuracies[2] == 1.0


@pytest.mark.parametrize("folds", [2, 7, PAIRS - 1])
def test_samples_are_judged_by_probes_that_never_saw_their_group(folds):
    features = pairs(2.0)
    # groups of any size and name, in any order
    of_pairs = np.random.default_rng(3).choice(1000, PAIRS, replace=False) - 500
    of_pairs[7] = of_pairs[3]
    groups = of_pairs[PAIR_OF]
    labellings = np.stack([LABELS, 1 - LABELS])
    found = held_out_hits(features, labellings, groups, np.random.default_rng(4), folds, penalty=0.3)
    names, group = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(4).permutation(np.arange(len(names)) % folds)[group]
    for part in range(folds):
        train = fold != part
        assert not np.isin(groups[~train], groups[train]).any() and not train.all()
        probe = ridge_probe(features[train], LABELS[train], 0.3)
        np.testing.assert_array_equal(found[0, ~train], predict(probe, features[~train]) == LABELS[~train])
    np.testing.assert_array_equal(found[0], found[1])  # names of classes do not matter


def test_a_class_that_follows_the_group_is_not_learned_from_the_partner():
    # features say which pair a sample is of, and the pair says the class: across pairs there is nothing to learn
    generator = np.random.default_rng(5)
    features = np.tile(generator.standard_normal((PAIRS, WIDTH)), (2, 1))
    of_pairs = np.tile(shuffled_labels(LABELS[::2], 40, generator), (1, 2))
    leaking = held_out_hits(features, of_pairs, np.arange(2 * PAIRS), np.random.default_rng(6))
    assert leaking.mean() > 0.8
    assert abs(held_out_hits(features, of_pairs, PAIR_OF, np.random.default_rng(6)).mean() - 0.5) < 0.08


def test_between_over_within_of_planted_classes():
    generator = np.random.default_rng(7)
    labels = np.array(["b", "a", "b", "b", "a"])
    vectors = generator.standard_normal((5, 3)) + 1e5
    parts = [vectors[labels == name] for name in "ab"]
    total = ((vectors - vectors.mean(0)) ** 2).sum()
    within = sum(((part - part.mean(0)) ** 2).sum() for part in parts)
    assert between_over_within(vectors, labels) == pytest.approx((total - within) / within, rel=1e-8)
    turned = 7 * vectors @ haar_subspace(3, 3, generator)
    assert between_over_within(turned, labels) == pytest.approx((total - within) / within, rel=1e-8)
    assert between_over_within(np.array([[0.0], [0.0], [1.0]]), np.array([0, 0, 1])) == np.inf
    assert np.isnan(between_over_within(np.ones((3, 1)), np.array([0, 0, 1])))


def test_between_over_within_of_all_shufflings_is_the_closed_form():
    vectors = np.random.default_rng(8).standard_normal((8, 3)) * [1.0, 5.0, 0.2]
    shares = []
    for chosen in combinations(range(8), 3):
        ratio = between_over_within(vectors, np.isin(np.arange(8), chosen))
        shares.append(ratio / (1 + ratio))  # of the total
    assert np.mean(shares) == pytest.approx(1 / 7)


def test_coordinates_of_the_span_keep_every_number():
    vectors = pairs(3.0)
    reduced = span_coordinates(vectors)
    assert reduced.shape == (2 * PAIRS, 2 * PAIRS)
    np.testing.assert_allclose(untangling(reduced, LABELS, 5), untangling(vectors, LABELS, 5), rtol=1e-8)
    centred = vectors - vectors.mean(0)
    np.testing.assert_allclose(reduced @ reduced.T, centred @ centred.T, atol=1e-9)
    # fewer features than samples: nothing to reduce
    np.testing.assert_allclose(span_coordinates(vectors[:, :3]), centred[:, :3])


def test_principal_subspaces_at_a_planted_angle_are_found():
    generator = np.random.default_rng(9)
    whole = haar_subspace(WIDTH, 4, generator)
    angles = np.array([0.2, 1.1])
    turned = whole[:, :2] * np.cos(angles) + whole[:, 2:] * np.sin(angles)
    draws = generator.standard_normal((2, PAIRS, 2))
    vectors = np.concatenate([draws[0] @ whole[:, :2].T + 3, draws[1] @ turned.T - 1])
    found = untangling(vectors, LABELS, 2)
    assert found.largest_cosine == pytest.approx(np.cos(0.2))
    assert found.root_mean_square_cosine == pytest.approx(np.sqrt(np.mean(np.cos(angles) ** 2)))


def test_participation_ratios_are_of_the_covariance_of_each_set_and_of_all():
    generator = np.random.default_rng(10)
    vectors = pairs(25.0) * np.geomspace(1, 0.1, WIDTH)
    vectors[PAIRS:] *= np.geomspace(1, 0.01, WIDTH)
    found = untangling(vectors, LABELS, 3)

    def ratio(part):
        covariance = np.cov(part.T)
        return np.trace(covariance) ** 2 / np.sum(covariance**2)

    np.testing.assert_allclose(found[1:4], [ratio(vectors[:PAIRS]), ratio(vectors[PAIRS:]), ratio(vectors)], rtol=1e-8)
    for null in shuffled_labels(LABELS, 5, generator):
        shuffled = untangling(vectors, null, 3)
        assert shuffled.participation_union == pytest.approx(found.participation_union)
        assert shuffled.between_over_within < 0.1 * found.between_over_within
        # each half of the mixture has the dimension of the mixture
        assert shuffled.participation_second < found.participation_first


def test_shuffled_sets_share_their_subspaces_and_planted_ones_need_not():
    generator = np.random.default_rng(11)
    whole = haar_subspace(WIDTH, 8, generator)
    draws = generator.standard_normal((2, PAIRS, 4))
    vectors = np.concatenate([draws[0] @ whole[:, :4].T, draws[1] @ whole[:, 4:].T])
    found = untangling(vectors, LABELS, 4)
    null = [untangling(vectors, labels, 4) for labels in shuffled_labels(LABELS, 20, generator)]
    assert found.largest_cosine < 1e-8
    assert min(each.root_mean_square_cosine for each in null) > 0.4


def test_labels_are_swapped_within_pairs_so_that_the_sets_stay_matched():
    generator = np.random.default_rng(12)
    swapped = swapped_pairs(PAIRS, 200, generator)
    assert (swapped[:, :PAIRS] != swapped[:, PAIRS:]).all()
    np.testing.assert_allclose(swapped.mean(0), 0.5, atol=0.15)
    # topics of the pairs in ten directions, no contrast
    topics = generator.standard_normal((PAIRS, 10)) @ haar_subspace(WIDTH, 10, generator).T
    vectors = np.tile(topics, (2, 1)) + 0.01 * generator.standard_normal((2 * PAIRS, WIDTH))
    true, matched, unmatched = (
        np.mean([untangling(vectors, labels, 3).root_mean_square_cosine for labels in labellings])
        for labellings in (LABELS[None], swapped[:20], shuffled_labels(LABELS, 20, generator))
    )
    assert true > 0.999 and matched > 0.999 and unmatched < 0.9


def test_names_of_the_classes_say_which_set_is_first():
    vectors = pairs(1.0)
    vectors[PAIRS:] *= np.geomspace(1, 0.01, WIDTH)
    plain = untangling(vectors, LABELS, 2)
    named = untangling(vectors[::-1].copy(), np.where(LABELS == 1, "harmful", "harmless"), 2)
    np.testing.assert_allclose(named, plain, rtol=1e-9)
    swapped = untangling(vectors, 1 - LABELS, 2)
    expected = plain._replace(
        participation_first=plain.participation_second, participation_second=plain.participation_first
    )
    np.testing.assert_allclose(swapped, expected, rtol=1e-9)
    assert isinstance(swapped, Untangling)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: held_out_hits(np.ones((4, 1)), LABELS[None, :4], PAIR_OF[:3], np.random.default_rng(0)),
            "groups: 3 for 4",
        ),
        (
            lambda: held_out_hits(pairs(1.0), LABELS[None], PAIR_OF // 10, np.random.default_rng(0)),
            "4 groups do not make 8",
        ),
        (lambda: held_out_hits(pairs(1.0), LABELS[None], PAIR_OF, np.random.default_rng(0), folds=1), "folds"),
        (lambda: swapped_pairs(0, 1, np.random.default_rng(0)), "pairs and draws"),
        (lambda: between_over_within(np.ones((3, 1)), LABELS[:2]), "labels: 2 for 3"),
        (lambda: span_coordinates(np.full((2, 2), np.nan)), "not finite"),
        (lambda: untangling(pairs(1.0), LABELS[1:], 2), "labels: 79 for 80"),
        (lambda: untangling(pairs(1.0), np.zeros(2 * PAIRS, dtype=int), 2), "labels: 1 classes"),
        (lambda: untangling(np.full((2 * PAIRS, 2), np.inf), LABELS, 2), "not finite"),
        (lambda: untangling(pairs(1.0), LABELS, PAIRS), "no 40 principal directions"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
