"""TopK dictionaries: what they keep, what they find, and what they report."""

import numpy as np
import pytest
import torch

from learning_geometry.dictionaries import topk
from learning_geometry.dictionaries.topk import (
    Settings,
    begin,
    dead,
    dead_share,
    decode,
    encode,
    explained_variance,
    finish,
    fit,
    initialise,
    reconstruct,
    scale_factor,
    step,
    strongest,
    train,
    variance,
)

WIDTH, ATOMS, ACTIVE = 24, 32, 3


def planted(vectors=6000, seed=0):
    """Sums of ACTIVE atoms out of ATOMS directions, with positive coefficients, around a common offset."""
    generator = np.random.default_rng(seed)
    atoms = generator.standard_normal((ATOMS, WIDTH))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    chosen = generator.random((vectors, ATOMS)).argsort(1)[:, :ACTIVE]
    coefficients = np.zeros((vectors, ATOMS))
    np.put_along_axis(coefficients, chosen, generator.uniform(1, 2, chosen.shape), axis=1)
    vectors = torch.from_numpy(coefficients @ atoms + 0.5).float()
    return vectors * scale_factor(vectors), torch.from_numpy(atoms).float()


SETTINGS = Settings(latents=ATOMS, k=ACTIVE, steps=700, batch_size=256, learning_rate=3e-3)


@pytest.fixture(scope="module")
def recovered():
    vectors, atoms = planted()
    return vectors, atoms, fit(vectors, SETTINGS, "test")


def test_a_planted_dictionary_is_recovered(recovered):
    vectors, atoms, fitted = recovered
    cosines = fitted.dictionary["decoder.weight"] @ atoms.T
    assert cosines.max(0).values.mean() > 0.9
    start = initialise(vectors, ATOMS, np.random.default_rng(0))["decoder.weight"] @ atoms.T
    assert start.max(0).values.mean() < 0.6
    held_out = planted(500, seed=1)[0]  # other atoms: nothing is explained by remembering directions
    codes = encode(fitted.dictionary, vectors, ACTIVE)
    assert explained_variance(vectors, decode(fitted.dictionary, codes)) > 0.85
    assert explained_variance(held_out, decode(fitted.dictionary, encode(fitted.dictionary, held_out, ACTIVE))) < 0.5
    assert fitted.losses[-50:].mean() == pytest.approx(
        1 - explained_variance(vectors, decode(fitted.dictionary, codes)), abs=0.02
    )


@pytest.mark.parametrize("changed", [{"optimizer": "sparse_adam"}, {"tied": True}])
def test_other_ways_to_train_recover_it_too(changed):
    vectors, atoms = planted()
    fitted = fit(vectors, SETTINGS._replace(**changed), "test")
    assert (fitted.dictionary["decoder.weight"] @ atoms.T).max(0).values.mean() > 0.9
    assert torch.equal(*(fitted.dictionary[f"{role}.weight"] for role in ("encoder", "decoder"))) == ("tied" in changed)


def test_exactly_k_latents_are_active_and_they_are_the_largest(recovered):
    vectors, _, fitted = recovered
    codes = encode(fitted.dictionary, vectors, ACTIVE)
    assert ((codes != 0).sum(1) == ACTIVE).all()
    everything = encode(fitted.dictionary, vectors, ATOMS)
    smallest_kept = torch.where(codes != 0, codes, torch.inf).min(1).values
    assert (torch.where(codes == 0, everything, -torch.inf).max(1).values <= smallest_kept).all()
    direct = vectors @ fitted.dictionary["encoder.weight"].T + fitted.dictionary["encoder.bias"]
    torch.testing.assert_close(everything, direct)


def test_active_latents_alone_reconstruct_the_same(recovered):
    vectors, _, fitted = recovered
    codes = strongest(fitted.dictionary, vectors[:50], ACTIVE)
    assert codes.values.shape == codes.latents.shape == (50, ACTIVE)
    dense = encode(fitted.dictionary, vectors[:50], ACTIVE)
    assert torch.equal(dense.gather(1, codes.latents), codes.values)
    torch.testing.assert_close(reconstruct(fitted.dictionary, codes), decode(fitted.dictionary, dense))


@pytest.mark.parametrize("length", [1.0, 0.4])
def test_decoder_rows_keep_their_norm(length):
    vectors, _ = planted(500)
    start = initialise(vectors, ATOMS, np.random.default_rng(0))
    start["decoder.weight"] *= length
    decoder = train(start, vectors, SETTINGS._replace(steps=20), np.random.default_rng(0)).dictionary["decoder.weight"]
    torch.testing.assert_close(decoder.norm(dim=1), torch.full((ATOMS,), length))
    assert not torch.allclose(decoder, start["decoder.weight"], atol=0.01)


def test_a_dictionary_starts_tied_centred_and_at_the_mean():
    vectors, _ = planted(500)
    dictionary = initialise(vectors, ATOMS, np.random.default_rng(0))
    assert {name: tuple(value.shape) for name, value in dictionary.items()} == {
        "encoder.weight": (ATOMS, WIDTH),
        "encoder.bias": (ATOMS,),
        "decoder.weight": (ATOMS, WIDTH),
        "decoder.bias": (WIDTH,),
    }
    assert torch.equal(dictionary["encoder.weight"], dictionary["decoder.weight"])
    torch.testing.assert_close(dictionary["decoder.bias"], vectors.mean(0))
    torch.testing.assert_close(
        encode(dictionary, vectors.mean(0, keepdim=True), ATOMS), torch.zeros(1, ATOMS), atol=1e-5, rtol=0
    )


def test_scaled_vectors_have_mean_norm_of_the_root_of_their_width():
    vectors = torch.randn(100, 16, generator=torch.Generator().manual_seed(0)) + 3
    scaled = vectors * scale_factor(vectors)
    assert float(scaled.norm(dim=1).mean()) == pytest.approx(4.0, rel=1e-5)


def test_explained_variance_is_that_of_its_definition():
    generator = np.random.default_rng(0)
    vectors, guesses = generator.standard_normal((2, 50, 7))
    expected = 1 - ((vectors - guesses) ** 2).sum() / ((vectors - vectors.mean(0)) ** 2).sum()
    assert explained_variance(torch.from_numpy(vectors), torch.from_numpy(guesses)) == pytest.approx(expected)
    mean = torch.from_numpy(np.broadcast_to(vectors.mean(0), vectors.shape).copy())
    assert explained_variance(torch.from_numpy(vectors), mean) == pytest.approx(0, abs=1e-12)
    assert explained_variance(torch.from_numpy(vectors), torch.from_numpy(vectors)) == 1


def test_the_same_key_gives_the_same_bits_and_the_start_is_left_alone():
    vectors, _ = planted(500)
    short = SETTINGS._replace(steps=5)
    one, same, other = (fit(vectors, short, *key).dictionary for key in (("a", 1), ("a", 1), ("a", 2)))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["decoder.weight"], other["decoder.weight"])
    start = initialise(vectors, ATOMS, np.random.default_rng(0))
    before = {name: value.clone() for name, value in start.items()}
    train(start, vectors, short, np.random.default_rng(0))
    assert all(torch.equal(start[name], before[name]) for name in start)


def test_the_first_step_is_adam_on_the_projected_gradient():
    vectors, _ = planted(500)
    start = initialise(vectors, ATOMS, np.random.default_rng(0))
    fitted = train(start, vectors, SETTINGS._replace(steps=1), np.random.default_rng(7))
    batch = vectors[np.random.default_rng(7).integers(500, size=256)]
    variance = (vectors - vectors.mean(0)).square().sum(1).mean()
    decoder = start["decoder.weight"].clone().requires_grad_()
    codes = encode(start, batch, ACTIVE)
    loss = (batch - codes @ decoder - start["decoder.bias"]).square().sum(1).mean() / variance
    assert fitted.losses[0] == pytest.approx(float(loss.detach()), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, decoder)
    gradient = gradient - (gradient * decoder).sum(1, keepdim=True) * decoder
    # Adam's first step: the sign of the gradient, where it is not tiny
    moved = decoder - SETTINGS.learning_rate * gradient / (gradient.abs() + 1e-8)
    expected = (moved / moved.norm(dim=1, keepdim=True)).detach()
    torch.testing.assert_close(fitted.dictionary["decoder.weight"], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("auxiliary", [0, 4])
def test_the_gradient_is_that_of_autograd(tied, auxiliary):
    vectors, _ = planted(500)
    vectors = vectors.double()
    start = initialise(vectors, ATOMS, np.random.default_rng(0))
    start["decoder.weight"] *= 0.7
    start["encoder.weight"] = start["decoder.weight"].clone()
    settings = SETTINGS._replace(tied=tied, auxiliary=auxiliary, auxiliary_weight=0.5, dead_after=1)
    training = begin(start, settings)
    training.silent[20:] = 1
    loss = step(training, vectors[:64], vectors[:64], variance(vectors))

    parameters = {name: value.clone().requires_grad_() for name, value in start.items()}
    used = parameters | ({"encoder.weight": parameters["decoder.weight"]} if tied else {})
    residual = vectors[:64] - decode(used, encode(used, vectors[:64], ACTIVE))
    total = main = residual.square().sum(1).mean() / variance(vectors)
    if auxiliary:
        of_dead = (vectors[:64] @ used["encoder.weight"].T + used["encoder.bias"])[:, 20:]
        largest, where = of_dead.topk(auxiliary, dim=1)
        modelled = torch.zeros_like(of_dead).scatter(1, where, largest) @ used["decoder.weight"][20:]
        total = main + 0.5 * (residual.detach() - modelled).square().sum(1).mean() / variance(vectors)
    assert loss == pytest.approx(float(main.detach()), rel=1e-12)
    total.backward()
    unit = start["decoder.weight"] / start["decoder.weight"].norm(dim=1, keepdim=True)
    gradient = parameters["decoder.weight"].grad
    parameters["decoder.weight"].grad = gradient - (gradient * unit).sum(1, keepdim=True) * unit
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            torch.testing.assert_close(training.parameters[name].grad, parameter.grad, rtol=1e-9, atol=1e-12)


def test_by_sparse_adam_only_latents_that_were_active_move():
    vectors, _ = planted(2000)
    start = initialise(vectors, ATOMS, np.random.default_rng(0))
    settings = SETTINGS._replace(steps=1, batch_size=4, learning_rate=0.1)
    batches = [np.random.default_rng(7).integers(2000, size=4), np.random.default_rng(8).integers(2000, size=4)]
    for optimizer in ("adam", "sparse_adam"):
        training = begin(start, settings._replace(optimizer=optimizer))
        step(training, vectors[batches[0]], vectors[batches[0]], 1.0)
        before = {name: value.clone() for name, value in training.parameters.items()}
        once = ~dead(encode(start, vectors[batches[0]], ACTIVE))
        now = ~dead(encode(before, vectors[batches[1]], ACTIVE))
        step(training, vectors[batches[1]], vectors[batches[1]], 1.0)
        moved = (training.parameters["encoder.weight"] != before["encoder.weight"]).any(1)
        assert (once & ~now).any() and moved[now].all()
        # momentum
        assert moved[once & ~now].all() == (optimizer == "adam")
        assert not moved[~once & ~now].any()


def test_latents_are_counted_as_dead_after_so_many_vectors_without_an_activation():
    vectors, _ = planted(2000)
    start = initialise(vectors, ATOMS, np.random.default_rng(0))
    start["encoder.bias"][:5] -= 100
    settings = SETTINGS._replace(steps=12, batch_size=8, dead_after=32)
    fitted = train(start, vectors, settings, np.random.default_rng(3))
    generator, dictionary, silent = np.random.default_rng(3), start, np.zeros(ATOMS, dtype=int)
    training = begin(start, settings)
    for number in range(12):
        batch = vectors[generator.integers(2000, size=8)]
        codes = encode(dictionary, batch, ACTIVE)
        silent = np.where(dead(codes).numpy(), silent + 8, 0)
        step(training, batch, batch, variance(vectors))
        dictionary = training.parameters
        assert fitted.dead_shares[number] == pytest.approx((silent >= 32).mean())
    assert np.array_equal(fitted.silent, silent)
    assert (silent[:5] == 96).all() and 5 / ATOMS <= fitted.dead_shares[-1] < 1
    assert dead_share(torch.from_numpy(silent), 97) == 0


def test_dead_latents_come_to_life_by_the_auxiliary_loss():
    vectors, _ = planted(2000)
    start = initialise(vectors, 2 * ATOMS, np.random.default_rng(0))
    start["encoder.bias"][ATOMS:] -= 100  # never among the largest
    settings = SETTINGS._replace(latents=2 * ATOMS, steps=150, dead_after=512)
    plain, revived = (
        train(start, vectors, settings._replace(auxiliary=count, auxiliary_weight=1.0), np.random.default_rng(0))
        for count in (0, 8)
    )
    assert dead(encode(plain.dictionary, vectors, ACTIVE))[ATOMS:].all()
    unmoved = plain.dictionary["decoder.weight"][ATOMS:]
    torch.testing.assert_close(unmoved, start["decoder.weight"][ATOMS:])
    directions = revived.dictionary["decoder.weight"][ATOMS:]
    assert (directions - unmoved).norm(dim=1).max() > 0.1
    # a dead latent with a pre-activation this negative models the residual with its sign turned, and grows back
    assert (revived.dictionary["encoder.bias"][ATOMS:] > start["encoder.bias"][ATOMS:] + 0.01).any()


def test_a_transcoder_learns_targets_of_another_width():
    vectors, _ = planted(2000)
    mapped = vectors @ torch.randn(WIDTH, 5, generator=torch.Generator().manual_seed(0))
    start = initialise(vectors, ATOMS, np.random.default_rng(0))
    rows = torch.randn(ATOMS, 5, generator=torch.Generator().manual_seed(1))
    start |= {"decoder.weight": rows / rows.norm(dim=1, keepdim=True), "decoder.bias": mapped.mean(0)}
    settings = SETTINGS._replace(k=8, steps=300, learning_rate=1e-2)
    fitted = train(start, vectors, settings, np.random.default_rng(0), mapped)
    before, after = (explained_variance(mapped, decode(each, encode(each, vectors, 8))) for each in (start, fitted[0]))
    assert before < 0.3 and after > 0.8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: encode(initialise(x, 8, np.random.default_rng(0)), x, 9), "k: 9 of 8 latents"),
        (lambda x: encode(initialise(x, 8, np.random.default_rng(0)), x, 0), "k: 0 of 8"),
        (lambda x: fit(x, Settings(latents=8, k=9, steps=1), 0), "k: 9 of 8"),
        (lambda x: initialise(x[:7], 8, np.random.default_rng(0)), "7 cannot train 8 latents"),
        (lambda x: initialise(0 * x, 8, np.random.default_rng(0)), "all equal"),
        (lambda x: scale_factor(0 * x), "mean norm is 0.0"),
        (lambda x: scale_factor(x / 0), "mean norm is"),
        (lambda x: explained_variance(0 * x, x), "all equal"),
        (
            lambda x: train(
                initialise(x, 8, np.random.default_rng(0)), x, Settings(8, 2), np.random.default_rng(0), x[:5]
            ),
            "targets: 5 for 50",
        ),
        (
            lambda x: train(
                initialise(x, 8, np.random.default_rng(0)), x, Settings(8, 2), np.random.default_rng(0), 0 * x
            ),
            "targets: they are all equal",
        ),
        (lambda x: fit(x, Settings(8, 2, optimizer="sgd"), 0), "optimizer: 'sgd' is not known"),
        (
            lambda x: begin(
                initialise(x, 8, np.random.default_rng(0)) | {"encoder.weight": torch.ones(8, 4)},
                Settings(8, 2, tied=True),
            ),
            "tied: the encoder does not start as the decoder",
        ),
    ],
)
def test_what_cannot_be_done_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.from_numpy(np.random.default_rng(0).standard_normal((50, 4))).float())


def test_a_loss_that_is_not_finite_is_named():
    vectors, _ = planted(200)
    with pytest.raises(FloatingPointError, match="at step 1"):
        train(
            initialise(vectors, ATOMS, np.random.default_rng(0)),
            vectors,
            SETTINGS._replace(learning_rate=1e30),
            np.random.default_rng(0),
        )


def test_a_parameter_that_is_not_finite_after_the_last_step_is_named():
    # no loss is computed any more that would tell
    vectors, _ = planted(200)
    training = begin(initialise(vectors, ATOMS, np.random.default_rng(0)), SETTINGS)
    step(training, vectors, vectors, variance(vectors))
    assert finish(training).losses.shape == (1,)
    training.parameters["decoder.weight"][3, 1] = torch.nan
    with pytest.raises(
        FloatingPointError, match=r"decoder\.weight is not finite after step 1; lower its learning rate"
    ):
        finish(training)


def test_an_aligned_step_is_that_of_free_rows_by_autograd(vectors_for_alignment):
    vectors, start, settings = vectors_for_alignment
    spread = topk.variance(vectors)
    training = topk.begin(start, settings)
    topk.step(training, vectors, vectors, spread)

    free, decoder = (start[name].clone().requires_grad_() for name in ("encoder.weight", "decoder.weight"))
    encoder_bias, bias = (start[name].clone().requires_grad_() for name in ("encoder.bias", "decoder.bias"))

    def aligned():
        along = (1 - (free * decoder).sum(1, keepdim=True)) / decoder.square().sum(1, keepdim=True)
        return free + along * decoder

    hidden = vectors @ aligned().T + encoder_bias
    values, where = hidden.topk(settings.k, dim=1)
    made = torch.zeros_like(hidden).scatter(1, where, values) @ decoder + bias
    ((vectors - made).square().sum() / (len(vectors) * spread)).backward()
    with torch.no_grad():
        lengths = decoder.norm(dim=1, keepdim=True)
        decoder.grad -= (decoder.grad * decoder).sum(1, keepdim=True) / lengths**2 * decoder
        torch.optim.Adam([free, encoder_bias, decoder, bias], lr=settings.learning_rate, fused=True).step()
        decoder *= lengths / decoder.norm(dim=1, keepdim=True)
        found = training.parameters
        torch.testing.assert_close(found["decoder.weight"], decoder.detach())
        torch.testing.assert_close(found["encoder.weight"], aligned().detach())
        torch.testing.assert_close(found["encoder.bias"], encoder_bias.detach())


@pytest.fixture
def vectors_for_alignment():
    """Vectors, an aligned start that is not tied, with rows of other norms than 1, and settings, in float64."""
    generator = np.random.default_rng(3)
    vectors = torch.from_numpy(generator.standard_normal((40, 6)) + 1)
    encoder, decoder = (torch.from_numpy(generator.standard_normal((12, 6))) for _ in range(2))
    start = {"encoder.weight": encoder, "decoder.weight": decoder}
    topk.align(start)
    start |= {"encoder.bias": torch.zeros(12).double(), "decoder.bias": vectors.mean(0)}
    return vectors, start, topk.Settings(k=3, aligned=True, learning_rate=1e-2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder.weight": torch.ones(12, 6).double()}, "start up to .* away from 1"),
        ({"decoder.weight": torch.ones(12, 5).double()}, "rows of width 6 have no inner product .* of width 5"),
    ],
)
def test_what_is_not_aligned_is_refused(vectors_for_alignment, changed, message):
    _, start, settings = vectors_for_alignment
    with pytest.raises(ValueError, match=message):
        topk.begin(start | changed, settings)
    tied = start | {"encoder.weight": start["decoder.weight"]}
    with pytest.raises(ValueError, match="aligned: not with tied"):
        topk.begin(tied, settings._replace(tied=True))
