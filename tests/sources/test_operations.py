"""Every operation is undone by its inverse, and moves numbers where the tool that writes so has them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning_geometry.sources.operations import Placement, fuse, place, placed_shape, square


@st.composite
def placements(draw):
    """Parts of one tensor with all operations that go together, and the shape of their parameters."""
    heads, head_width, width = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    bias = draw(st.booleans())
    heads_first = draw(st.booleans())
    across = heads_first and not bias and draw(st.booleans())
    count = 1 if heads_first else draw(st.integers(1, 3))
    per_head = not heads_first and draw(st.booleans())
    halves = 0 if across else 2 * draw(st.integers(0, head_width // 2))
    transpose = not bias and draw(st.booleans())
    shape = (width, heads * head_width) if across else (heads * head_width, width)
    shape = shape[:1] if bias else shape
    common = Placement(transpose, heads_first, across, per_head=per_head, heads=heads, halves=halves)
    return [common._replace(part=(number, count)) for number in range(count)], shape


@given(placements())
def test_there_and_back_is_the_same_bit_by_bit(case):
    places, shape = case
    size = int(np.prod(shape))
    parameters = [np.arange(size, dtype=np.float32).reshape(shape) + size * at.part[0] for at in places]
    tensor = fuse(parameters, places)
    assert tensor.flags.c_contiguous and tensor.size == size * len(places)
    for parameter, at in zip(parameters, places, strict=True):
        assert placed_shape(tensor.shape, at) == shape
        back = place(tensor, at)
        assert back.flags.c_contiguous and back.tobytes() == parameter.tobytes() and back.shape == shape
    assert fuse([place(tensor, at) for at in places], places).tobytes() == tensor.tobytes()


@given(placements())
def test_all_parts_together_hold_every_number_once(case):
    places, shape = case
    tensor = np.arange(int(np.prod(shape)) * len(places))
    tensor = tensor.reshape(fuse([np.zeros(shape)] * len(places), places).shape)
    held = np.concatenate([place(tensor, at).flatten() for at in places])
    assert sorted(held) == list(range(tensor.size))


def test_rows_fused_one_role_after_the_other_are_not_those_fused_head_by_head():
    tensor = np.arange(12)[:, None] * np.ones(2)  # two heads of width 2, three roles
    key = place(tensor, Placement(part=(1, 3)))
    assert key[:, 0].tolist() == [4, 5, 6, 7]
    key = place(tensor, Placement(part=(1, 3), per_head=True, heads=2))
    assert key[:, 0].tolist() == [2, 3, 8, 9]


def test_halves_of_a_head_become_interleaved_pairs_and_what_is_not_turned_stays():
    rows = np.arange(12)  # two heads of width 6, of which 4 are turned
    assert place(rows, Placement(heads=2, halves=4)).tolist() == [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]


def test_heads_that_come_first_are_rows_of_a_query_and_columns_of_an_output():
    query = np.arange(24).reshape(2, 4, 3)  # heads, inputs, head width
    placed = place(query, Placement(transpose=True, heads_first=True, heads=2))
    assert placed.shape == (6, 4)
    assert placed[4, 1] == query[1, 1, 1]
    output = np.arange(24).reshape(2, 3, 4)  # heads, head width, outputs
    placed = place(output, Placement(transpose=True, heads_first=True, across=True, heads=2))
    assert placed.shape == (4, 6)
    assert placed[1, 4] == output[1, 1, 1]


@pytest.mark.parametrize(
    ("shape", "at", "message"),
    [
        ((5,), Placement(transpose=True), "only a matrix"),
        ((2, 3, 4), Placement(transpose=True), "only a matrix"),
        ((8, 3), Placement(part=(0, 3)), "into 3 equal parts"),
        ((6, 4), Placement(part=(0, 3), per_head=True, heads=4), "into 3 equal parts of 4 heads"),
        ((), Placement(part=(0, 3)), "into 3 equal parts"),
        ((6, 4), Placement(heads=2, halves=4), "cannot turn 4 of the 6 rows of 2 heads"),
        ((7, 4), Placement(heads=2, halves=2), "cannot turn 2 of the 7 rows"),
        ((6, 4), Placement(heads=2, halves=3), "cannot turn 3 of the 6 rows"),
        ((3, 4, 5), Placement(heads_first=True, heads=2), "first dimension is 3, and the model has 2 heads"),
        ((2, 4), Placement(transpose=True, heads_first=True, heads=2), "heads come first"),
        ((2, 4, 5, 6), Placement(heads_first=True, heads=2), "heads come first"),
    ],
)
def test_a_tensor_in_which_nothing_can_lie_so_is_refused(shape, at, message):
    for refused in (lambda: placed_shape(shape, at), lambda: place(np.zeros(shape), at)):
        with pytest.raises(ValueError, match=message):
            refused()


def test_parts_of_unlike_shapes_are_not_fused():
    places = [Placement(part=(number, 2)) for number in range(2)]
    with pytest.raises(ValueError, match=r"have the shapes \(2, 3\), \(4, 3\)"):
        fuse([np.zeros((2, 3)), np.zeros((4, 3))], places)


def test_a_shape_tells_a_transposition_of_heads_by_their_own_matrix():
    at = Placement(transpose=True, heads_first=True, heads=2)
    assert not square((2, 8, 4), at)
    assert square((1, 8, 8), at)
    assert square((8, 8), Placement())
    assert not square((24, 8), Placement(part=(0, 3)))
    assert not square((8,), Placement())
