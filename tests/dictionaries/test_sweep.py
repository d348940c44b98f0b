"""Dictionaries trained on one stream end as they would alone, and are judged on another."""

import numpy as np
import pytest
import torch

from learning_geometry.dictionaries import topk
from learning_geometry.dictionaries.initialisation import Options, draw
from learning_geometry.dictionaries.sweep import Entry, evaluate, train_together
from learning_geometry.seeding import seeded

WIDTH, ATOMS, ACTIVE = 16, 24, 3


def planted(vectors, seed=0, offset=0.0):
    """Sums of ACTIVE out of ATOMS fixed directions, with positive coefficients, around an offset."""
    atoms = np.random.default_rng(99).standard_normal((ATOMS, WIDTH))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    generator = np.random.default_rng(seed)
    chosen = generator.random((vectors, ATOMS)).argsort(1)[:, :ACTIVE]
    coefficients = np.zeros((vectors, ATOMS))
    np.put_along_axis(coefficients, chosen, generator.uniform(1, 2, chosen.shape), axis=1)
    return torch.from_numpy(coefficients @ atoms + offset).float()


SETTINGS = topk.Settings(k=ACTIVE, learning_rate=3e-3, dead_after=2000)


def dictionaries(vectors, **changed):
    """Two sizes, two starts, two optimisers, tied or not, with and without the auxiliary loss."""
    kinds = {
        "standard": (Options(ATOMS), SETTINGS),
        "large": (Options(2 * ATOMS, tied=False), SETTINGS._replace(auxiliary=4, dead_after=200)),
        "active": (Options(ATOMS, "active", 8), SETTINGS._replace(optimizer="sparse_adam", tied=True)),
    }
    return {
        name: Entry(draw(vectors, options, settings.k, seeded(3, name)), settings._replace(**changed))
        for name, (options, settings) in kinds.items()
    }


def batches(vectors, steps=60, size=64):
    return topk.draw_batches(vectors, size, steps, seeded(3, "batches"))


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


def test_each_dictionary_ends_as_if_it_were_alone():
    vectors = planted(2000)
    spread = topk.variance(vectors)
    together = train_together(dictionaries(vectors), batches(vectors), spread)
    again = train_together(dictionaries(vectors), batches(vectors), spread)
    assert list(together) == ["standard", "large", "active"]
    for name, dictionary in dictionaries(vectors).items():
        alone = train_together({name: dictionary}, batches(vectors), spread)[name]
        by_itself = topk.train(
            dictionary.start, vectors, dictionary.settings._replace(steps=60, batch_size=64), seeded(3, "batches")
        )
        for other in (again[name], alone, by_itself):
            assert same(together[name].dictionary, other.dictionary)
            assert np.array_equal(together[name].losses, other.losses)
            assert np.array_equal(together[name].silent, other.silent)
            assert np.array_equal(together[name].dead_shares, other.dead_shares)
        assert together[name].losses.shape == (60,)
        assert together[name].losses[-5:].mean() < together[name].losses[:5].mean()
        assert not same(together[name].dictionary, dictionary.start)


def test_a_planted_dictionary_is_recovered_from_a_stream_of_a_mapped_file(tmp_path):
    vectors, held_out = planted(20000).numpy(), planted(1000, seed=1)
    np.save(tmp_path / "shard.npy", vectors)
    shard = np.load(tmp_path / "shard.npy", mmap_mode="r")
    read = []

    def shards():
        for epoch in range(5):
            for start in range(0, len(shard), 200):
                read.append((epoch, start))
                yield shard[start : start + 200]

    beginning = torch.from_numpy(vectors[:1000])
    chosen = {name: dictionary for name, dictionary in dictionaries(beginning).items() if name == "standard"}
    fitted = train_together(chosen, shards(), topk.variance(beginning))["standard"]
    assert len(read) == len(fitted.losses) == 500
    atoms = np.random.default_rng(99).standard_normal((ATOMS, WIDTH))
    atoms = torch.from_numpy(atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).float()
    decoder = fitted.dictionary["decoder.weight"]
    assert (decoder / decoder.norm(dim=1, keepdim=True) @ atoms.T).max(0).values.mean() > 0.9
    assert evaluate(fitted.dictionary, [held_out], ACTIVE).explained_variance > 0.8


def test_quality_is_that_of_all_batches_at_once():
    vectors = planted(1000, offset=50.0)
    dictionary = draw(vectors, Options(ATOMS), ACTIVE, seeded(0))
    codes = topk.encode(dictionary, vectors, ACTIVE)
    found = evaluate(dictionary, vectors.split(300), ACTIVE)
    expected = topk.explained_variance(vectors, topk.decode(dictionary, codes))
    assert found.explained_variance == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(found.activations, (codes != 0).sum(0).numpy())
    half = evaluate(dictionary, [vectors.half(), vectors.half().numpy()], ACTIVE)
    assert half.explained_variance == pytest.approx(expected, abs=0.01) and half.vectors == 2000
    assert found.vectors == 1000 and found.activations.sum() == 1000 * ACTIVE
    few = evaluate(dictionary, [vectors[:3]], ACTIVE)
    assert few.dead_share == pytest.approx(float(topk.dead(codes[:3]).double().mean())) and few.dead_share > 0
    pairs = ((part, topk.decode(dictionary, topk.encode(dictionary, part, 3))) for part in vectors.split(9))
    exact = evaluate(dictionary, pairs, 3)
    assert exact.explained_variance == pytest.approx(1, abs=1e-8)


def test_transcoders_learn_pairs():
    vectors = planted(3000)
    mapped = vectors @ torch.randn(WIDTH, 5, generator=torch.Generator().manual_seed(0))
    start = draw(vectors, Options(ATOMS, tied=False), ACTIVE, seeded(0), mapped)
    drawn = topk.draw_batches(vectors, 128, 400, seeded(0, "batches"), mapped)
    dictionary = Entry(start, SETTINGS._replace(k=6, learning_rate=1e-2))
    fitted = train_together({"transcoder": dictionary}, drawn, topk.variance(mapped))["transcoder"]
    before, after = (evaluate(each, [(vectors, mapped)], 6) for each in (start, fitted.dictionary))
    assert before.explained_variance < 0.3 and after.explained_variance > 0.8


def test_latents_die_of_an_uncentred_mean_and_not_of_a_centred_one():
    vectors = planted(3000, offset=4.0)
    vectors = vectors * topk.scale_factor(vectors)
    slow = SETTINGS._replace(learning_rate=3e-4)
    drawn = {
        name: Entry(draw(vectors, Options(8 * ATOMS, centred=name == "centred"), ACTIVE, seeded(1)), slow)
        for name in ("centred", "uncentred")
    }
    fitted = train_together(drawn, batches(vectors, 100, 128), topk.variance(vectors))
    dead = {name: evaluate(each.dictionary, [vectors], ACTIVE).dead_share for name, each in fitted.items()}
    assert dead["uncentred"] > dead["centred"] + 0.5
    # counted over the last 2000 of 12800 vectors in training
    assert fitted["uncentred"].dead_shares[-1] == pytest.approx(dead["uncentred"], abs=0.1)
    assert fitted["uncentred"].dead_shares[14] == 0 and fitted["uncentred"].dead_shares[15] > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: train_together({}, [x], 1.0), "dictionaries: there are none"),
        (lambda x: train_together(dictionaries(x), [], 1.0), "stream: it holds no batch"),
        (
            lambda x: train_together(dictionaries(x), [x[:, :9]], 1.0),
            "batch 0 have width 9, but those of standard 16",
        ),
        (lambda x: train_together(dictionaries(x), [x, (x, x[:, :9])], 1.0), "targets of batch 1 have width 9"),
        (lambda x: train_together(dictionaries(x), [(x, x[:9])], 1.0), "9 targets for 300 vectors"),
        (lambda x: train_together(dictionaries(x, optimizer="sgd"), [x], 1.0), "optimizer: 'sgd'"),
        (lambda x: evaluate(dictionaries(x)["large"].start, [], 3), "none or all equal"),
        (lambda x: evaluate(dictionaries(x)["large"].start, [0 * x], 3), "none or all equal"),
        (lambda x: evaluate(dictionaries(x)["large"].start, [x[:, :9]], 3), "width 9"),
        (lambda x: evaluate(dictionaries(x)["large"].start, [x], 49), "k: 49 of 48"),
    ],
)
def test_what_cannot_be_done_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(planted(300))


def test_a_loss_that_is_not_finite_is_named():
    vectors = planted(300)
    with pytest.raises(FloatingPointError, match=r"standard: .* at step 1"):
        train_together(dictionaries(vectors, learning_rate=1e30), batches(vectors), 1.0)
