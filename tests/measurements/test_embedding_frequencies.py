"""Embeddings with planted frequencies, and Gaussian ones, which have none."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.runs import embedding_frequencies
from learning_geometry.measurements.runs.embedding_frequencies import frequency_shares, key_share
from learning_geometry.tables.tidy import check_table
from learning_geometry.tasks import binary_operations
from learning_geometry.training.checkpoints import write_checkpoint

from .conftest import defaults

PRIME, WIDTH = 53, 32
PUBLISHED = (14, 35, 41, 42, 52)


def gaussian(seed, prime=PRIME, width=WIDTH):
    return np.random.default_rng(seed).standard_normal((prime, width))


def waves(frequencies, prime, width, seed=0):
    """Each frequency along two random directions, as cosine and sine."""
    generator = np.random.default_rng(seed)
    phases = 2 * np.pi * np.outer(np.arange(prime), frequencies) / prime
    return np.concatenate([np.cos(phases), np.sin(phases)], 1) @ generator.standard_normal(
        (2 * len(frequencies), width)
    )


@pytest.fixture
def make_run(tmp_path):
    def make(*embeddings, prime=PRIME, **task):
        for step, embedding in enumerate(embeddings):
            # the last row is the equality sign's, enormous, and must not count
            weight = np.concatenate([embedding, np.full((1, embedding.shape[1]), 1e4)])
            tensor = torch.from_numpy(weight.astype(np.float32))
            write_checkpoint(tmp_path / "checkpoints", 10 * step, {"embedding.weight": tensor}, {})
        settings = {"task": defaults(binary_operations.SETTINGS) | {"name": "binary_operations", "prime": prime} | task}
        return Run("tiny", 0, settings, tmp_path / "checkpoints", tmp_path / "none", tmp_path / "none")

    return make


def test_shares_are_those_of_projections_on_cosines_and_sines():
    embedding = gaussian(0, 13, 5) + 3.0
    centred = embedding - embedding.mean(0)
    energies = []
    for k in range(1, 7):
        angle = 2 * np.pi * k * np.arange(13) / 13
        basis = np.stack([np.cos(angle), np.sin(angle)]) * np.sqrt(2 / 13)  # orthonormal rows
        energies.append(((basis @ centred) ** 2).sum())
    assert np.allclose(sum(energies), (centred**2).sum())  # nothing is left out
    assert np.allclose(frequency_shares(embedding), energies / np.sum(energies))


def test_shares_do_not_depend_on_origin_direction_scale_or_rotation():
    embedding = gaussian(1)
    shares = frequency_shares(embedding)
    rotation = np.linalg.qr(gaussian(2, WIDTH, WIDTH))[0]
    for same in (np.roll(embedding, 5, 0), embedding[::-1], -7 * embedding, embedding @ rotation, embedding + 9.0):
        assert np.allclose(frequency_shares(same), shares)
    # numbers multiplied by 2 turn frequency k into 2k
    doubled = embedding[2 * np.arange(PRIME) % PRIME]
    k = np.arange(1, PRIME // 2 + 1)
    moved = np.minimum(2 * k % PRIME, PRIME - 2 * k % PRIME)
    assert np.allclose(frequency_shares(doubled)[moved - 1], shares)


@pytest.mark.parametrize(("prime", "width"), [(53, 32), (23, 4), (5, 2)])
def test_gaussian_embeddings_have_the_shares_and_the_false_alarms_stated(prime, width):
    draws = np.random.default_rng(3).standard_normal((20_000, prime, width)) if prime < 50 else None
    count, runs = prime // 2, 4000
    if draws is None:
        generator = np.random.default_rng(3)
        shares = np.stack([frequency_shares(generator.standard_normal((prime, width))) for _ in range(runs)])
    else:
        shares, runs = np.stack([frequency_shares(draw) for draw in draws]), len(draws)
    null = embedding_frequencies._gaussian_share(prime, width)
    assert shares.mean(0) == pytest.approx(np.full(count, null["value"]), rel=0.05)
    one = shares[:, 1]
    assert stats.kstest(one, stats.beta(width, (count - 1) * width).cdf).pvalue > 0.01
    assert np.quantile(one, [0.025, 0.975]) == pytest.approx([null["low"], null["high"]], rel=0.05)
    alarms = int((shares.max(1) > key_share(prime, width)).sum())
    stated = np.array([1 - (1 - 0.05 / count) ** count, 0.05])
    fewest, most = stats.binom.ppf([0.005, 0.995], runs, stated)
    assert fewest <= alarms <= most


def test_planted_frequencies_are_found_in_noise(make_run, measured):
    planted = (3, 7, 19)
    noisy = gaussian(4) + waves(planted, PRIME, WIDTH)
    found = measured(embedding_frequencies, make_run(gaussian(5), noisy), null_draws=100)
    check_table(found.table)
    assert found.value("key_frequencies", "embedding", step=0) == 0
    assert found.value("key_frequencies", "embedding", step=10) == 3
    shares = found.find("frequency_share", "embedding", step=10)
    assert shares["value"].sum() == pytest.approx(1) and shares["index"].tolist() == list(range(1, 27))
    assert set(shares.nlargest(3, "value")["index"]) == set(planted)
    null = found.find("frequency_share", "embedding", "gaussian_matrix", step=10)
    assert null["value"].to_numpy() == pytest.approx(np.full(26, 1 / 26))
    assert (null["high"] < key_share(PRIME, WIDTH)).all()
    # no other order of the numbers shows them
    shuffled = found.find("frequency_share", "embedding", "shuffled_numbers", step=10)
    assert shares["value"].nlargest(3).min() > shuffled["high"].max()
    assert found.value("key_frequencies_in_order", "embedding", step=10) == 3
    assert found.value("key_frequencies_in_order", "embedding", step=0) == 0


def test_the_frequencies_of_the_published_network_modulo_113():
    embedding = gaussian(6, 113, 128) * 0.3 + waves(PUBLISHED, 113, 128)
    shares = frequency_shares(embedding)
    assert set(np.flatnonzero(shares > key_share(113, 128)) + 1) == set(PUBLISHED)


def test_few_directions_alone_make_large_shares_but_no_frequencies_in_order(make_run, measured):
    # rank one: random functions of the number, without structure
    flat = [gaussian(7 + seed, PRIME, 1) @ gaussian(8, 1, WIDTH) for seed in range(20)]
    found = measured(embedding_frequencies, make_run(*flat), null_draws=100)
    assert (found.find("key_frequencies")["value"] >= 2).all()
    in_order = found.find("key_frequencies_in_order")["value"]
    assert stats.binomtest(int((in_order > 0).sum()), 20, 0.05).pvalue > 0.01
    # a wave in as few directions is told apart
    wave = measured(embedding_frequencies, make_run(waves((5, 11), PRIME, WIDTH) + 0.1 * gaussian(9)), null_draws=100)
    assert wave.value("key_frequencies_in_order", step=0) == 2
    shares = found.find("frequency_share")["value"].to_numpy()
    wide = found.find("frequency_share", null="shuffled_numbers")
    assert ((shares >= wide["low"]) & (shares <= wide["high"])).mean() == pytest.approx(0.95, abs=0.04)
    assert np.allclose(wide["value"], 1 / 26, atol=0.02) and (wide["n"] == 100).all()


def test_what_has_no_frequencies_is_refused(make_run):
    settings = defaults(embedding_frequencies.SETTINGS)
    other = make_run(gaussian(0), name="copying")
    del other.settings["task"]["prime"]
    with pytest.raises(ValueError, match=r"embedding_frequencies: task copying .*binary_operations"):
        embedding_frequencies.measure(other, settings)
    with pytest.raises(ValueError, match=r"prime 3 .*5 or more"):
        embedding_frequencies.measure(make_run(gaussian(0, 3), prime=3), settings)
    with pytest.raises(ValueError, match=r"embedding: 54 rows.*odd prime"):
        frequency_shares(gaussian(0, 54))
    with pytest.raises(ValueError, match=r"same row.*drop"):
        frequency_shares(np.zeros((53, 4)))


def test_it_starts_without_torch():
    code = "import sys, learning_geometry.measurements.runs.embedding_frequencies; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
