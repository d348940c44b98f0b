"""Shapes in signatures are checked in tests, and no less than jaxtyping does by itself."""

import dataclasses
import functools
from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError

from learning_geometry.geometry import rounding, subspaces
from learning_geometry.measurements.common.run import Run

from .shapes import jaxtyped, theirs

WRONG = (BeartypeCallHintViolation, TypeCheckError)
ours = functools.partial(jaxtyped, typechecker=beartype)
both = pytest.mark.parametrize("decorate", [ours, functools.partial(theirs, typechecker=beartype)], ids=["ours", "jax"])
Vector = Float[np.ndarray, " n"]
SHORT, LONG = np.zeros(2), np.zeros(3)


def added(first: Vector, second: Vector | float) -> Vector:
    return np.concatenate([first, first]) if np.ndim(second) and second.any() else first


def named(names: list[str], number: int = 0) -> int:
    names[:] = [number]
    return len(names)


def stacked(rows: list[Vector]) -> tuple[Vector, int]:
    return rows[0], len(rows)


def returned(array: Vector, value: object) -> int:
    return value


def multiplied(array: Float[np.ndarray, "n {times}"], times: int) -> None:
    pass


def counted(number: int) -> Iterator[int]:
    yield number


@both
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (added, (SHORT, LONG)),
        (added, (SHORT[None], SHORT)),
        (added, (SHORT.astype(int), SHORT)),
        (added, ([0.0], SHORT)),
        (added, (SHORT, SHORT + 1)),  # what it returns is longer
        (returned, (SHORT, "text")),
        (named, ([0],)),
        (named, (["text"], "text")),
        (named, (["text"],)),  # it puts a number there
        (stacked, ([SHORT[None]],)),
        (multiplied, (np.zeros((2, 3)), 4)),
        (counted, ("text",)),
    ],
)
def test_what_does_not_fit_is_refused(decorate, function, arguments):
    with pytest.raises(WRONG):
        decorate(function)(*arguments)


@both
def test_what_fits_passes(decorate):
    assert decorate(added)(SHORT, SHORT) is SHORT and decorate(added)(LONG, second=1.0) is LONG
    assert decorate(returned)(SHORT, value=3) == 3
    assert decorate(stacked)([LONG])[1] == 1
    decorate(multiplied)(np.zeros((2, 3)), 3)
    assert list(decorate(counted)(3)) == [3]


@both
def test_names_of_sizes_mean_one_size_in_a_call_and_any_in_the_next(decorate):
    inner = decorate(added)

    @decorate
    def outer(array: Vector) -> Vector:
        inner(LONG, LONG)
        return array

    assert outer(SHORT) is SHORT and outer(np.zeros(5)).size == 5


@both
def test_a_function_inside_another_is_checked_each_time_it_is_made(decorate):
    def make(kind, scale):
        @decorate
        def scaled(array: kind, *more: float, by: int = 1) -> kind:
            return np.concatenate([array, array]) if more else scale * by * array

        return scaled

    Pairs = Float[np.ndarray, "n 2"]
    for _ in range(2):
        assert make(Vector, 2.0)(SHORT + 1, by=3).tolist() == [6, 6] and make(Vector, 3.0)(SHORT + 1).sum() == 6
        assert make(Pairs, 2.0)(np.ones((1, 2))).sum() == 4
        for wrong in (
            lambda: make(Vector, 2.0)(SHORT[None]),
            lambda: make(Pairs, 2.0)(SHORT),
            lambda: make(Vector, 2.0)(SHORT, 1.0),
            lambda: make(Vector, 2.0)(SHORT, by="text"),
            lambda: make(Vector, 2.0)(SHORT, "text"),
        ):
            with pytest.raises(WRONG):
                wrong()


@both
def test_dataclasses_and_methods_are_checked(decorate):
    @decorate
    @dataclasses.dataclass(frozen=True)
    class Pair:
        first: Vector
        second: Vector

        @decorate
        def longer(self, other: Float[np.ndarray, " m"]) -> bool:
            return other.size > self.first.size

    assert Pair(SHORT, SHORT).longer(LONG)
    for wrong in (lambda: Pair(SHORT, LONG), lambda: Pair(SHORT, SHORT).longer(LONG[None])):
        with pytest.raises(WRONG):
            wrong()


def test_the_package_is_checked():
    assert jaxtyping.jaxtyped is jaxtyped
    for function in (rounding.equal, subspaces.orthonormal_basis, Run.arrays):
        assert hasattr(function, "__wrapped__"), function
    with pytest.raises(WRONG):
        rounding.first_largest("text", 1.0)
