import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from learning_geometry.seeding import seeded

PARTS = st.one_of(st.integers(0, 2**70), st.text(max_size=5))
KEYS = st.lists(PARTS, min_size=1, max_size=4).map(tuple)


def draw(*key, n=4):
    return seeded(*key).integers(2**63, size=n).tolist()


@given(KEYS)
@settings(max_examples=50)
def test_a_key_always_gives_the_same_numbers(key):
    assert draw(*key) == draw(*key)


@given(KEYS, KEYS)
@settings(max_examples=100)
def test_different_keys_give_different_numbers(one, other):
    assert (draw(*one) == draw(*other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0,), (0, 0)),
        ((5,), (5, 0)),
        ((0, 1), (1, 0)),
        ((1,), ("1",)),
        (("ab", "c"), ("a", "bc")),
        (("a",), ("a", "")),
        (("a",), ("a\0",)),
        (("",), ("", 0)),
        ((2**32,), (0, 1)),
        ((0, 2**32), (0, 0, 1)),
        ((0, ""), (2**32, 0)),
    ],
)
def test_keys_that_look_alike_are_kept_apart(one, other):
    assert draw(*one) != draw(*other)


def test_numbers_are_the_same_in_another_process():
    draw_same = "print(seeded(3, 'batch', 17).integers(2**63, size=4).tolist())"
    code = f"from learning_geometry.seeding import seeded; {draw_same}"
    for hash_seed in ["1", "2"]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": hash_seed}
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert process.stdout.strip() == str(draw(3, "batch", 17))


def test_neighbouring_generators_are_independent():
    rows = np.array([seeded(seed, "batch", step).random(2000) for seed in range(4) for step in range(4)])
    assert stats.kstest(rows.ravel(), "uniform").pvalue > 0.01
    correlations = np.corrcoef(rows)[np.triu_indices(16, 1)]
    # 120 correlations of 2000 numbers: standard deviation 1/sqrt(2000), largest below 4 of them
    assert np.abs(correlations).max() < 4 / np.sqrt(2000)
    assert correlations.std() == pytest.approx(1 / np.sqrt(2000), rel=0.25)


def test_generators_leave_no_trace_on_each_other():
    first = seeded(0, "a")
    expected = seeded(0, "a").random(10)
    numbers = []
    for _ in range(10):
        numbers.append(first.random())
        seeded(0, "b").random(100)
    assert numbers == expected.tolist()


def test_first_numbers_of_many_generators_differ():
    keys = itertools.product(range(30), ["batch", "dropout"], range(30))
    assert len({tuple(draw(*key, n=1)) for key in keys}) == 1800


@pytest.mark.parametrize(
    ("key", "message"), [((), "empty; name the generator"), ((0, -1), "-1; use integers from 0 up")]
)
def test_keys_that_name_nothing_are_refused(key, message):
    with pytest.raises(ValueError, match=message):
        seeded(*key)
