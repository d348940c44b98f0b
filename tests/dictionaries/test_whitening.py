"""Variance spread evenly before training, and put into the weights afterwards."""

import numpy as np
import pytest
import torch

from learning_geometry.dictionaries import topk
from learning_geometry.dictionaries.initialisation import Options, draw
from learning_geometry.dictionaries.whitening import evenness, unwhitened, whitening


@pytest.fixture
def vectors():
    drawn = np.random.default_rng(0).standard_normal((400, 6)) * [9, 3, 1, 0.5, 0.2, 0.1] + 2
    return torch.from_numpy(drawn @ np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0])


def test_whitened_vectors_vary_alike_and_keep_their_mean(vectors):
    white = whitening(vectors)
    made = white.apply(vectors)
    assert evenness(torch.cov(made.T)) == pytest.approx(1)
    assert evenness(torch.cov(vectors.T)) < 0.3
    assert made.norm(dim=1).mean() == pytest.approx(6**0.5)
    torch.testing.assert_close(made.mean(0), vectors.mean(0) @ white.forward)
    torch.testing.assert_close(made @ white.backward, vectors)


def test_an_unwhitened_dictionary_does_the_same_to_vectors_as_they_are(vectors):
    white = whitening(vectors)
    seen = white.apply(vectors)
    dictionary = draw(seen, Options(20, centred=True, tied=False), 3, np.random.default_rng(0))
    plain = unwhitened(dictionary, white)
    codes = topk.encode(dictionary, seen, 3)
    torch.testing.assert_close(topk.encode(plain, vectors, 3), codes)
    torch.testing.assert_close(topk.decode(plain, codes), topk.decode(dictionary, codes) @ white.backward)


def test_what_does_not_vary_in_all_directions_is_refused_or_left(vectors):
    with pytest.raises(ValueError, match="6 of width 6 do not vary in all directions"):
        whitening(vectors[:6])
    flat = vectors.clone()
    flat[:, 0] = 1
    made = whitening(flat)
    assert torch.isfinite(made.forward).all() and torch.isfinite(made.backward).all()
    assert float(made.forward.abs().max()) < 1e4
