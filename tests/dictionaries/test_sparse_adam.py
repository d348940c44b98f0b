"""SparseAdam: its rule written out, and against torch's two optimisers where they are comparable."""

import numpy as np
import pytest
import torch

from learning_geometry.dictionaries.sparse_adam import SparseAdam

SHAPE, STEPS, RATE = (7, 3), 12, 0.05


def gradients(zero):
    """Gradients of STEPS steps; entries are zero where ``zero(step)`` is true."""
    drawn = np.random.default_rng(0).standard_normal((STEPS, *SHAPE))
    for step in range(STEPS):
        drawn[step][zero(step)] = 0
    return torch.from_numpy(drawn)


def at_random(step):
    return np.random.default_rng((1, step)).random(SHAPE) < 0.6


def at_first(step):
    """Every entry is zero up to some step, and never again; some entries from the start to the end."""
    return step < np.random.default_rng(2).integers(0, STEPS + 3, SHAPE)


def never(step):
    return np.zeros(SHAPE, dtype=bool)


def run(make, gradients, sparse=False):
    """Return the parameters after every step."""
    parameter = torch.from_numpy(np.random.default_rng(3).standard_normal(SHAPE))
    optimizer, path = make([parameter]), [parameter.clone()]
    for gradient in gradients:
        parameter.grad = gradient.to_sparse() if sparse else gradient.clone()
        optimizer.step()
        path.append(parameter.clone())
    return torch.stack(path)


def ours(parameters):
    return SparseAdam(parameters, lr=RATE, betas=(0.8, 0.95), eps=1e-3)


def test_moments_always_decay_and_what_has_no_gradient_does_not_move():
    given = gradients(at_random)
    path = run(ours, given).numpy()
    mean, square = np.zeros(SHAPE), np.zeros(SHAPE)
    for step, gradient in enumerate(given.numpy(), 1):
        mean, square = 0.8 * mean + 0.2 * gradient, 0.95 * square + 0.05 * gradient**2
        factor = RATE * np.sqrt(1 - 0.95**step) / (1 - 0.8**step)
        move = np.where(gradient != 0, factor * mean / (np.sqrt(square) + 1e-3), 0)
        np.testing.assert_allclose(path[step], path[step - 1] - move, rtol=1e-12, atol=1e-14)
        assert (path[step] == path[step - 1])[gradient == 0].all()


@pytest.mark.parametrize("zero", [never, at_first])
def test_it_is_torchs_until_a_gradient_comes_back_after_having_been_zero(zero):
    given = gradients(zero)
    theirs = run(lambda p: torch.optim.SparseAdam(p, lr=RATE, betas=(0.8, 0.95), eps=1e-3), given, sparse=True)
    torch.testing.assert_close(run(ours, given), theirs, rtol=1e-12, atol=1e-14)


def test_from_then_on_torchs_moments_have_not_decayed():
    given = gradients(never)[:3]
    given[1] = 0
    given[1, 0, 0] = 1  # torch skips steps without any entry
    mine = run(ours, given)
    theirs = run(lambda p: torch.optim.SparseAdam(p, lr=RATE, betas=(0.8, 0.95), eps=1e-3), given, sparse=True)
    torch.testing.assert_close(mine[:3], theirs[:3], rtol=1e-12, atol=1e-14)
    assert ((mine[3] - theirs[3]).abs().flatten()[1:] > 1e-4).all()


def test_it_is_adam_for_gradients_that_are_nowhere_zero_and_a_tiny_epsilon():
    given = gradients(never)
    mine = run(lambda p: SparseAdam(p, lr=RATE, eps=1e-16), given)
    adam = run(lambda p: torch.optim.Adam(p, lr=RATE, eps=1e-16), given)
    torch.testing.assert_close(mine, adam, rtol=1e-10, atol=1e-12)
    moving = gradients(at_random)
    by_adam = run(lambda p: torch.optim.Adam(p, lr=RATE), moving)
    went_on = (by_adam[6] != by_adam[5])[moving[5] == 0]
    assert went_on.any()


def test_parameters_without_a_gradient_are_left_out():
    one, other = torch.zeros(2), torch.zeros(2)
    optimizer = SparseAdam([one, other])
    one.grad = torch.ones(2)
    assert optimizer.step() is None and optimizer.step(lambda: 5) == 5
    assert (one < 0).all() and not other.any()
