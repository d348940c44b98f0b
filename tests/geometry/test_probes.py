"""Probes and information against planted classes, closed forms and independence."""

import numpy as np
import pytest
from scipy.stats import entropy

from learning_geometry.geometry.probes import (
    accuracy,
    mutual_information,
    predict,
    quantile_codes,
    ridge_probe,
    ridge_probes,
    shuffled_labels,
)

CLASSES = 5


def planted(samples, seed=0, noise=0.3, width=12):
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((CLASSES, width))
    labels = generator.integers(CLASSES, size=samples)
    return centres[labels] + noise * generator.standard_normal((samples, width)) + 3.0, labels


def test_planted_classes_are_told_apart_and_independent_labels_are_not():
    features, labels = planted(600)
    held_out, expected = planted(4000, seed=1)
    assert accuracy(ridge_probe(features, labels), held_out, expected) > 0.99
    independent = np.random.default_rng(2).integers(CLASSES, size=4600)
    chance = accuracy(ridge_probe(features, independent[:600]), held_out, independent[600:])
    assert chance == pytest.approx(1 / CLASSES, abs=0.025)
    shuffled = shuffled_labels(labels, 5, np.random.default_rng(3))
    nulls = [accuracy(probe, held_out, expected) for probe in ridge_probes(features, list(shuffled))]
    assert np.mean(nulls) == pytest.approx(1 / CLASSES, abs=0.1)
    assert (np.sort(shuffled, axis=1) == np.sort(labels)).all() and len(np.unique(shuffled, axis=0)) == 5


def test_the_probe_is_the_minimum_of_its_penalised_squares():
    features, labels = planted(200, noise=2.0)
    penalty = 0.1
    probe = ridge_probe(features, labels, penalty)
    standardised = (features - features.mean(0)) / features.std(0)
    one_hot = np.eye(CLASSES)[labels]
    # rows of data for the penalty: ordinary least squares of the augmented system, with an offset of its own
    design = np.c_[np.ones(200), standardised]
    penalties = np.sqrt(200 * penalty) * np.eye(13)[1:]
    expected = np.linalg.lstsq(np.r_[design, penalties], np.r_[one_hot, np.zeros((12, CLASSES))])[0]
    np.testing.assert_allclose(probe.weights, expected[1:] / features.std(0)[:, None], atol=1e-10)
    np.testing.assert_allclose(features @ probe.weights + probe.offsets, design @ expected, atol=1e-10)


def test_several_labellings_at_once_are_the_same_as_one_by_one():
    features, labels = planted(200)
    names = np.array(["b", "a"])[(features[:, 0] > 3).astype(int)]
    for together, alone in zip(
        ridge_probes(features, [labels, names]), (ridge_probe(features, x) for x in (labels, names)), strict=True
    ):
        np.testing.assert_allclose(together.weights, alone.weights, atol=1e-12)
    assert set(predict(ridge_probe(features, names), features)) == {"a", "b"}


def test_scales_and_constant_features_do_not_matter():
    features, labels = planted(300)
    held_out, _ = planted(100, seed=1)
    scale = 10.0 ** np.arange(-6, 6)
    plain = predict(ridge_probe(features, labels), held_out)
    changed = ridge_probe(np.c_[features * scale, np.full(300, 7.0)], labels)
    np.testing.assert_array_equal(plain, predict(changed, np.c_[held_out * scale, np.full(100, 7.0)]))


def test_more_features_than_samples_have_a_solution():
    generator = np.random.default_rng(0)
    features, labels = generator.standard_normal((20, 50)), np.arange(20) % 2
    assert accuracy(ridge_probe(features, labels), features, labels) == 1.0


def test_information_of_known_joint_distributions():
    bit = np.arange(1000) % 2
    label = np.arange(1000) % 4
    codes = np.stack([bit, label, np.zeros(1000, int), (label == 3).astype(int)], axis=1)
    of_one_in_four = entropy([0.25, 0.75])
    np.testing.assert_allclose(mutual_information(codes, label), [np.log(2), np.log(4), 0, of_one_in_four], atol=1e-12)
    np.testing.assert_allclose(mutual_information(codes, bit)[:2], np.log(2), atol=1e-12)
    # a channel that flips one bit in ten, by exact counts
    noisy = np.where(np.arange(1000) // 2 % 10 == 0, 1 - bit, bit)
    assert mutual_information(noisy[:, None], bit)[0] == pytest.approx(np.log(2) - entropy([0.1, 0.9]))


def test_information_of_independent_variables_is_its_bias():
    generator = np.random.default_rng(0)
    codes, labels = generator.integers(2, size=(2000, 400)), generator.integers(8, size=2000)
    assert mutual_information(codes, labels).mean() == pytest.approx(7 / (2 * 2000), rel=0.1)


def test_codes_of_latents():
    latents = np.array([[0.0, -1.0], [2.0, 0.0], [3.0, 0.0], [5.0, 4.0]])
    np.testing.assert_array_equal(quantile_codes(latents, 1), [[0, 1], [1, 0], [1, 0], [1, 1]])
    np.testing.assert_array_equal(quantile_codes(latents, 3)[:, 0], [0, 1, 2, 3])
    assert quantile_codes(np.zeros((3, 2)), 4).max() == 0
    # a latent that holds four values tells all of them, its activity tells nothing
    label = np.arange(400) % 4
    held = (1.0 + label)[:, None]
    assert mutual_information(quantile_codes(held, 4), label)[0] == pytest.approx(np.log(4))
    assert mutual_information(quantile_codes(held, 1), label)[0] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ridge_probe(np.ones((3, 2)), np.array([0, 1])), "labels: 2 for 3 samples"),
        (lambda: ridge_probe(np.ones((3, 2)), np.zeros(3)), "labels: 1 class"),
        (lambda: ridge_probe(np.ones((3, 2)), np.arange(3), 0.0), "penalty: 0.0"),
        (lambda: mutual_information(np.zeros((0, 2), int), np.zeros(0, int)), "no sample"),
        (lambda: mutual_information(np.array([[-1]]), np.zeros(1, int)), "negative"),
        (lambda: quantile_codes(np.ones((3, 2)), 0), "bins: 0"),
        (lambda: shuffled_labels(np.arange(3), 0, np.random.default_rng(0)), "draws: 0"),
    ],
)
def test_what_cannot_be_done_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
