"""Reading one parameter of many checkpoints, whole or in ranges of rows."""

import tracemalloc

import numpy as np
import pytest

from learning_geometry import files
from learning_geometry.training import checkpoints
from learning_geometry.training.checkpoints import (
    checkpoint_path,
    parameter_shapes,
    read_trajectory,
    trajectory_blocks,
)

STEPS = [0, 10, 30]
SHAPES = {"matrix": (7, 3), "bias": (5,), "tensor": (4, 2, 3), "scalar": ()}


@pytest.fixture
def directory(tmp_path):
    for step in (0, 10, 20, 30):
        arrays = {name: values(name, step) for name in SHAPES}
        files.write_tensors(checkpoint_path(tmp_path, step), arrays, {})
    return tmp_path


def values(name, step):
    generator = np.random.default_rng([step, len(name)])
    return generator.standard_normal(SHAPES[name]).astype(np.float32)


def test_a_trajectory_is_the_parameter_at_every_step(directory):
    assert parameter_shapes(directory, 0) == SHAPES
    for name in SHAPES:
        expected = np.stack([values(name, step) for step in STEPS])
        np.testing.assert_array_equal(read_trajectory(directory, STEPS, name), expected, strict=True)
    rows = read_trajectory(directory, STEPS, "matrix", slice(2, 4))
    assert np.array_equal(rows, np.stack([values("matrix", step)[2:4] for step in STEPS]))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("numbers", [1, 20, 40, 10**6])
def test_blocks_put_together_are_the_whole(directory, name, numbers):
    blocks = list(trajectory_blocks(directory, STEPS, name, SHAPES[name], numbers))
    whole = read_trajectory(directory, STEPS, name).reshape(3, -1)
    assert np.array_equal(np.concatenate(blocks, axis=1), whole)
    row = 3 * int(np.prod(SHAPES[name][1:]))
    assert all(block.size <= max(numbers, row) for block in blocks)
    assert len(blocks) == 1 or numbers < whole.size


def test_reading_in_blocks_takes_the_memory_of_a_block(tmp_path):
    """40 snapshots of 300 x 300 take 14.4 MB; a block of 2^17 numbers takes half of one."""
    steps, shape = range(40), (300, 300)
    for step in steps:
        files.write_tensors(checkpoint_path(tmp_path, step), {"w": np.full(shape, step, dtype=np.float32)}, {})
    tracemalloc.start()
    total = sum(float(block[-1].sum()) for block in trajectory_blocks(tmp_path, steps, "w", shape, 2**17))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    read_trajectory(tmp_path, steps, "w")
    whole = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 39 * 300 * 300
    assert peak < 2.5e6 < 14.4e6 < whole


def test_what_does_not_fit_is_named(directory):
    with pytest.raises(FileNotFoundError, match="step-000005"):
        read_trajectory(directory, [0, 5], "bias")
    with pytest.raises(KeyError, match="holds no array 'readout'"):
        read_trajectory(directory, STEPS, "readout")
    files.write_tensors(checkpoint_path(directory, 40), {"bias": np.zeros(6, dtype=np.float32)}, {})
    with pytest.raises(ValueError, match=r"step-000040.*parameter bias: shape \(6,\), but \(5,\) at step 0"):
        read_trajectory(directory, [0, 40], "bias")
    assert checkpoints.BLOCK >= 2**20
