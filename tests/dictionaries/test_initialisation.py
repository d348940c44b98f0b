"""Starts of dictionaries: where their directions lie, their norm, their biases, and what they explain."""

import numpy as np
import pytest
import torch

from learning_geometry.dictionaries import topk
from learning_geometry.dictionaries.initialisation import (
    COARSE_NORMS,
    FINE_NORMS,
    Options,
    active_subspace,
    best_norm,
    draw,
    mean_over_spread,
    random_subspace,
)

WIDTH, RANK, LATENTS, ACTIVE = 32, 12, 200, 8


def low_dimensional(vectors=1500, offset=0.0, noise=0.01, seed=0):
    """Vectors in a subspace of RANK dimensions, up to noise, around an offset along the first coordinate."""
    generator = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(99).standard_normal((WIDTH, RANK)))[0]
    drawn = generator.standard_normal((vectors, RANK)) @ basis.T + noise * generator.standard_normal((vectors, WIDTH))
    drawn[:, 0] += offset
    vectors = torch.from_numpy(drawn).float()
    return vectors * topk.scale_factor(vectors)


def start(vectors, seed=0, targets=None, **options):
    return draw(vectors, Options(LATENTS, **options), ACTIVE, np.random.default_rng(seed), targets)


def outside(rows, basis):
    """Length of what of each row lies outside the span of a basis."""
    return (rows.double() - rows.double() @ basis @ basis.T).norm(dim=1)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_every_decoder_row_lies_in_the_active_subspace(centred, tied):
    vectors = low_dimensional(offset=3.0)
    dictionary = start(vectors, subspace="active", dimension=RANK, centred=centred, tied=tied)
    exact = vectors.double().numpy()
    directions = torch.from_numpy(np.linalg.svd(exact - exact.mean(0))[2][:RANK].T)
    decoder = dictionary["decoder.weight"]
    assert outside(decoder, directions).max() < 1e-5
    # and fills it
    assert torch.linalg.matrix_rank(decoder, rtol=1e-3) == RANK
    encoder = dictionary["encoder.weight"]
    assert torch.equal(encoder, decoder) == tied
    if not tied:
        assert (outside(encoder, directions) / encoder.norm(dim=1) > 0.3).all()


def test_rows_of_a_random_subspace_have_its_dimension_but_not_its_place():
    vectors = low_dimensional()
    decoder = start(vectors, subspace="random", dimension=RANK)["decoder.weight"].double()
    assert torch.linalg.matrix_rank(decoder, rtol=1e-3) == RANK
    directions = active_subspace(vectors, RANK)
    share = 1 - (outside(decoder, directions) / decoder.norm(dim=1)).square().mean()
    assert float(share) == pytest.approx(RANK / WIDTH, abs=0.15)
    everywhere = start(vectors)["decoder.weight"]
    assert torch.linalg.matrix_rank(everywhere, rtol=1e-3) == WIDTH


def test_the_active_subspace_is_spanned_by_right_singular_vectors():
    vectors = low_dimensional(300, offset=5.0, noise=0.3)
    exact = vectors.double().numpy()
    theirs = np.linalg.svd(exact - exact.mean(0))[2]
    for dimension in (1, RANK, WIDTH):
        ours = active_subspace(vectors, dimension).numpy()
        np.testing.assert_allclose(ours.T @ ours, np.eye(dimension), atol=1e-12)
        np.testing.assert_allclose(np.abs(np.sum(ours * theirs[:dimension].T, axis=0)), 1, atol=1e-6)


def test_random_subspaces_are_uniform():
    generator = np.random.default_rng(0)
    projections = np.mean([(b := random_subspace(6, 2, generator).numpy()) @ b.T for _ in range(3000)], axis=0)
    np.testing.assert_allclose(projections, np.eye(6) / 3, atol=0.03)


@pytest.mark.parametrize("subspace", ["none", "active", "random"])
def test_centred_starts_have_the_means_in_their_biases_and_others_nothing(subspace):
    vectors = low_dimensional(offset=3.0)
    dimension = None if subspace == "none" else RANK
    centred, plain = (start(vectors, subspace=subspace, dimension=dimension, centred=each) for each in (True, False))
    torch.testing.assert_close(centred["decoder.bias"], vectors.mean(0))
    means = topk.encode(centred, vectors, LATENTS).mean(0)
    torch.testing.assert_close(means, torch.zeros(LATENTS), atol=1e-4, rtol=0)
    assert not plain["decoder.bias"].any() and not plain["encoder.bias"].any()
    units = [each["decoder.weight"] / each["decoder.weight"].norm(dim=1, keepdim=True) for each in (centred, plain)]
    torch.testing.assert_close(*units)


@pytest.mark.parametrize("options", [{}, {"centred": False}, {"subspace": "active", "dimension": 5}])
def test_the_norm_is_the_best_of_a_coarse_and_then_a_fine_search(options):
    vectors = low_dimensional(400, offset=1.0, noise=0.2)

    def error(norm):
        dictionary = start(vectors, norm=float(norm), **options)
        torch.testing.assert_close(dictionary["decoder.weight"].norm(dim=1), torch.full((LATENTS,), float(norm)))
        reconstructed = topk.decode(dictionary, topk.encode(dictionary, vectors, ACTIVE))
        return float((vectors - reconstructed).double().square().sum())

    coarse = min(COARSE_NORMS, key=error)
    fine = min(coarse + FINE_NORMS, key=error)
    found = start(vectors, **options)["decoder.weight"].norm(dim=1)
    torch.testing.assert_close(found, torch.full((LATENTS,), float(fine)))
    assert error(fine) <= error(coarse)
    # an encoder of its own takes the norm of the one that is tied
    untied = start(vectors, tied=False, **options)
    torch.testing.assert_close(untied["decoder.weight"], start(vectors, **options)["decoder.weight"])
    torch.testing.assert_close(untied["encoder.weight"].norm(dim=1), found)


def test_the_best_norm_is_the_closed_form_to_a_hundredth():
    vectors = low_dimensional(400)
    unit = start(vectors, norm=1.0)
    modelled = topk.decode(unit, topk.encode(unit, vectors, ACTIVE)) - unit["decoder.bias"]
    centred = vectors - unit["decoder.bias"]
    exact = float((centred * modelled).sum() / modelled.square().sum()) ** 0.5
    assert best_norm(unit, vectors, ACTIVE) == pytest.approx(exact, abs=0.0051)


def test_an_active_subspace_explains_more_from_the_start():
    vectors = low_dimensional(offset=8.0)
    explained = {}
    for subspace in ("none", "random", "active"):
        dictionary = start(vectors, subspace=subspace, dimension=None if subspace == "none" else RANK)
        reconstructed = topk.decode(dictionary, topk.encode(dictionary, vectors, ACTIVE))
        explained[subspace] = topk.explained_variance(vectors, reconstructed)
    # fewer dimensions alone explain less
    assert explained["active"] > explained["none"] + 0.15
    assert explained["none"] > explained["random"] + 0.15


@pytest.mark.parametrize("subspace", ["none", "random", "active"])
def test_a_mean_above_the_spread_kills_latents_unless_it_is_taken_out(subspace):
    dimension, dead, above = None if subspace == "none" else RANK, {}, []
    for offset in (0.0, 8.0, 60.0):
        vectors = low_dimensional(offset=offset)
        above.append(mean_over_spread(vectors))
        for centred in (True, False):
            dictionary = start(vectors, subspace=subspace, dimension=dimension, centred=centred)
            codes = topk.encode(dictionary, vectors, ACTIVE)
            dead[offset, centred] = float(topk.dead(codes).float().mean())
    assert above[0] < 0.1 and above[1] > 2 and above[2] > 15
    assert dead[0.0, False] < 0.05 and 0.25 < dead[8.0, False] < 0.7 and dead[60.0, False] > 0.85
    assert all(share < 0.05 for (_, centred), share in dead.items() if centred)


def test_the_subspace_of_a_transcoder_is_that_of_its_targets():
    vectors = torch.from_numpy(np.random.default_rng(5).standard_normal((1500, 20)) + 1).float()
    targets = low_dimensional(offset=2.0)
    options = {"subspace": "active", "dimension": RANK, "tied": False}
    dictionary = start(vectors, targets=targets, **options)
    assert {name: tuple(value.shape) for name, value in dictionary.items()} == {
        "encoder.weight": (LATENTS, 20),
        "encoder.bias": (LATENTS,),
        "decoder.weight": (LATENTS, WIDTH),
        "decoder.bias": (WIDTH,),
    }
    assert outside(dictionary["decoder.weight"], active_subspace(targets, RANK)).max() < 1e-5
    torch.testing.assert_close(dictionary["decoder.bias"], targets.mean(0))
    # with the norm of an autoencoder of the targets
    same = start(targets, subspace="active", dimension=RANK)["decoder.weight"]
    torch.testing.assert_close(dictionary["decoder.weight"], same)
    torch.testing.assert_close(
        topk.encode(dictionary, vectors, LATENTS).mean(0), torch.zeros(LATENTS), atol=1e-4, rtol=0
    )


def test_the_same_generator_gives_the_same_bits():
    vectors = low_dimensional(300)
    options = {"subspace": "random", "dimension": RANK, "tied": False}
    one, same, other = (start(vectors, seed, **options) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["decoder.weight"], other["decoder.weight"])
    assert {value.dtype for value in one.values()} == {torch.float32}


def test_mean_over_spread_is_that_of_its_definition():
    values = np.random.default_rng(0).standard_normal((50, 7)) * np.arange(1, 8) + 2
    expected = np.linalg.norm(values.mean(0)) / np.linalg.norm(values.std(0))
    assert mean_over_spread(torch.from_numpy(values)) == pytest.approx(expected)
    assert mean_over_spread(3 * torch.from_numpy(values)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: start(x, subspace="some", dimension=3), "subspace: 'some' is not known; use one of none, active"),
        (lambda x: start(x, subspace="active"), "dimension: active needs one"),
        (lambda x: start(x, subspace="active", dimension=33), "no active subspace of 33 dimensions; use 1 to 32"),
        (lambda x: start(x[:10], subspace="active", dimension=10), "10 vectors of width 32 .* use 1 to 9"),
        (lambda x: start(x, subspace="random", dimension=33), "no subspace of 33 dimensions in 32"),
        (lambda x: start(x, targets=x[:, :5]), "encoder of width 32 cannot be a decoder of width 5"),
        (lambda x: start(0 * x), "all equal"),
        (lambda x: mean_over_spread(0 * x + 1), "all equal"),
        (lambda x: draw(x, Options(4), 5, np.random.default_rng(0)), "k: 5 of 4 latents"),
    ],
)
def test_what_cannot_be_done_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(low_dimensional(100))
