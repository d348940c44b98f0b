"""Principal components of trajectories against the SVD of the centred snapshots, and on planted subspaces."""

from itertools import pairwise

import numpy as np
import pytest

from learning_geometry.geometry import trajectories
from learning_geometry.geometry.spectra import participation_ratio
from learning_geometry.geometry.trajectories import (
    centred,
    dimension,
    effective_components,
    first_component_share,
    gram_matrix,
    inner_products,
    principal_coordinates,
    principal_directions,
    share_along_start,
    together,
    variances,
    without_start,
)


def random_trajectory(snapshots=12, entries=5000, seed=0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    steps = generator.standard_normal((snapshots, entries)) * np.linspace(2.0, 0.5, entries)
    return (np.cumsum(steps, axis=0) + 100.0).astype(dtype)


def svd(snapshots):
    """Left vectors, sums of squares and right vectors of the centred snapshots."""
    return np.linalg.svd(snapshots - snapshots.mean(0), full_matrices=False)


def test_variances_directions_and_coordinates_are_those_of_the_svd():
    snapshots = random_trajectory()
    left, values, right = svd(snapshots)
    gram = inner_products([snapshots]).displacements
    assert np.allclose(variances(gram), values[:-1] ** 2 / 11, rtol=1e-10)
    directions = principal_directions(snapshots, 4)
    assert np.allclose(np.abs(right[:4] @ directions), np.eye(4), atol=1e-8)
    assert np.allclose(directions.T @ directions, np.eye(4), atol=1e-12)
    coordinates = principal_coordinates(gram, 4)
    assert np.allclose((snapshots - snapshots.mean(0)) @ directions, coordinates, atol=1e-8)
    assert np.allclose(np.abs(left[:, :4] * values[:4]), np.abs(coordinates), atol=1e-8)
    assert (coordinates[-1] >= 0).all()


def test_blocks_add_up_to_the_whole_whatever_their_sizes():
    snapshots = random_trajectory()
    whole = inner_products([snapshots])
    sizes = [0, 1, 100, 2500, 2500, 5000]  # one block is empty
    blocks = [snapshots[:, a:b] for a, b in pairwise(sizes)]
    for found in (inner_products(iter(blocks)), together([inner_products(blocks[:2]), inner_products(blocks[2:])])):
        assert np.allclose(found.displacements, whole.displacements, rtol=1e-12)
        assert np.allclose(found.with_start, whole.with_start, rtol=1e-12)
        assert found.start == pytest.approx(whole.start, rel=1e-12) and found.entries == 5000
    assert np.allclose(gram_matrix(blocks), snapshots @ snapshots.T, rtol=1e-12)
    assert np.allclose(centred(gram_matrix(blocks)), centred(whole.displacements), rtol=1e-6)


def test_float32_is_summed_in_float64():
    """A sum of 3e7 squares would stop growing in float32; here many small numbers are added to a large one."""
    block = np.zeros((3, 100_001), dtype=np.float32)
    block[1:, 0] = 4096.0
    block[2, 1:] = 0.5
    assert inner_products([block]).displacements[2, 2] == 4096.0**2 + 100_000 / 4
    # the changes of parameters 1e6 times larger are exact
    far = np.float32(1e6) + np.array([[0.0, 0.0], [0.25, 0.0], [0.25, 0.5]], dtype=np.float32)
    near = np.array([[0.0, 0.0], [0.25, 0.0], [0.25, 0.5]])
    assert np.array_equal(inner_products([far]).displacements, near @ near.T)


@pytest.mark.parametrize("planted", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_planted_dimension_is_found_to_within_one(planted, noise):
    """Equal variances in `planted` directions hold .9 of the variance at .9 of them, rounded up."""
    generator = np.random.default_rng(planted)
    basis = np.linalg.qr(generator.standard_normal((4000, planted)))[0]
    coordinates = np.linalg.qr(generator.standard_normal((40, planted)))[0]
    snapshots = coordinates @ basis.T + noise * generator.standard_normal((40, 4000)) / np.sqrt(4000 * 40)
    found = int(dimension(variances(inner_products([snapshots]).displacements), 0.9))
    assert abs(found - planted) <= 1
    cosines = np.linalg.svd(basis.T @ principal_directions(snapshots, planted), compute_uv=False)
    # exact up to noise, but for the mean that centring takes
    assert cosines[-1] > 0.98


def test_dimension_counts_components_up_to_the_share():
    values = np.array([[5.0, 4.0, 1.0], [8.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    assert dimension(values, 0.9).tolist() == [2, 2, 1]
    assert dimension(values, 0.91).tolist() == [3, 3, 1]
    assert dimension(np.full(10, 0.1), 0.3) == 3  # ten tenths sum to less than one in floats
    assert first_component_share(values).tolist() == [0.5, 0.8, 1.0]
    expected = [participation_ratio(np.sqrt(row)) for row in values]
    assert effective_components(values) == pytest.approx(expected, rel=1e-12)


def test_many_trajectories_at_once_are_each_alone():
    grams = np.stack([gram_matrix([random_trajectory(6, 20, seed)]) for seed in range(4)])
    for gram, found in zip(grams, variances(grams), strict=True):
        assert np.allclose(found, variances(gram))


def test_decay_towards_zero_lies_along_the_start_and_what_is_left_does_not():
    generator = np.random.default_rng(3)
    start = 3 * generator.standard_normal(400)
    decay = start * 0.9 ** np.arange(10)[:, None]
    assert share_along_start(inner_products([decay])) == pytest.approx(1.0)
    walk = np.cumsum(generator.standard_normal((10, 400)), axis=0)
    walk -= walk[0]
    walk -= np.outer(walk @ start, start) / (start @ start)
    both = inner_products([decay + walk])
    of_walk, of_decay = (np.sum((part - part.mean(0)) ** 2) for part in (walk, decay))
    assert share_along_start(both) == pytest.approx(of_decay / (of_decay + of_walk))
    assert np.allclose(variances(without_start(both)), variances(gram_matrix([walk])), atol=1e-9)
    # a start of zero has no direction
    zero = inner_products([walk])
    assert share_along_start(zero) == 0 and np.allclose(without_start(zero), centred(zero.displacements))


def test_nothing_larger_than_a_slice_is_converted(monkeypatch):
    shapes = []

    class Watched(np.ndarray):
        def astype(self, *arguments, **options):
            shapes.append(self.shape)
            return np.asarray(self).astype(*arguments, **options)

    monkeypatch.setattr(trajectories, "COLUMNS", 64)
    block = random_trajectory(5, 1000, dtype=np.float32)
    expected = inner_products([block]).displacements
    assert np.allclose(inner_products([block.view(Watched)]).displacements, expected)
    assert max(columns for _, columns in shapes) == 64 and sum(columns for _, columns in shapes) == 1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: inner_products([]), "blocks: there is none"),
        (lambda: inner_products([np.ones((3, 2)), np.ones((4, 2))]), r"blocks: they have \[3, 4\] snapshots"),
        (lambda: inner_products([np.full((3, 2), np.nan)]), "blocks: an entry is not finite"),
        (lambda: variances(np.eye(2)), "2 snapshots are too few"),
        (lambda: variances(np.full((3, 3), np.inf)), "gram: an entry is not finite"),
        (lambda: dimension(np.ones(3), 1.0), "share: 1.0"),
        (lambda: dimension(np.zeros(3), 0.9), "does not move"),
        (lambda: first_component_share(np.array([[1.0], [0.0]])), "does not move"),
        (lambda: share_along_start(inner_products([np.ones((3, 2))])), "does not move"),
        (lambda: principal_directions(np.ones((4, 9)), 1), "does not move"),
        (lambda: principal_directions(random_trajectory(2, 9), 1), "2 snapshots are too few"),
        (lambda: principal_directions(random_trajectory(5, 9), 5), "5 of 5 snapshots; ask for 1 to 4"),
        (lambda: principal_directions(random_trajectory(5, 2), 3), "3 of a space of 2"),
        (lambda: principal_directions(np.outer(np.arange(5.0), np.ones(9)), 2), "spans 1, not 2"),
        (lambda: principal_coordinates(np.eye(4), 0), "directions: 0"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
