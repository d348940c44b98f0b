"""Sequences of one's own: what is refused before any job, and the share of targets that is not predicted."""

import numpy as np
import pytest
import safetensors.numpy

from learning_geometry.tasks import given_test_sets

TOKENS = np.arange(12).reshape(3, 4)
TARGETS = np.where(TOKENS % 2 == 0, -100, TOKENS)


def written(folder, **arrays):
    given = {"mine/tokens": TOKENS, "mine/targets": TARGETS} | {
        name.replace("__", "/"): a for name, a in arrays.items()
    }
    safetensors.numpy.save_file({name: np.ascontiguousarray(a) for name, a in given.items()}, folder / "t.safetensors")
    return {"file": str(folder / "t.safetensors")}


def test_tokens_and_targets_are_taken_as_they_are(tmp_path):
    settings = written(tmp_path)
    given_test_sets.check(settings)
    assert (given_test_sets.vocabulary(settings), given_test_sets.outputs(settings)) == (12, 12)
    held = given_test_sets.test_sets(settings, {}, 0)["mine"]
    assert np.array_equal(held["tokens"], TOKENS) and np.array_equal(held["targets"], TARGETS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mine__tokens": TOKENS - 1}, "mine/tokens holds negative numbers"),
        ({"mine__targets": TARGETS - 1}, "mine/targets holds negative numbers"),
        ({"mine__tokens": TOKENS.astype(np.float32)}, "mine/tokens is float32; give integers"),
        ({"mine__tokens": TOKENS[:0], "mine__targets": TARGETS[:0]}, "mine has no sequences"),
        ({"mine__tokens": TOKENS[:, :0], "mine__targets": TARGETS[:, :0]}, "mine has no sequences"),
        (
            {"mine__targets": np.where(np.arange(3)[:, None] == 1, -100, TARGETS)},
            "sequence 1 of mine has no target, as 1 of 3 have",
        ),
        ({"tokens": TOKENS}, "tokens is of no test set"),
        ({"other__tokens": TOKENS}, "other/targets is missing"),
        ({"mine__marks": TOKENS[:2]}, "mine/marks has not one row for each sequence"),
    ],
)
def test_what_can_be_no_test_set_is_refused(arrays, message, tmp_path):
    with pytest.raises(ValueError, match=f"^file: .*t.safetensors: {message}"):
        given_test_sets.check(written(tmp_path, **arrays))


def test_the_error_is_of_the_targets_that_are_read():
    predictions = np.where(TARGETS == 3, 0, TARGETS)
    test_set = {"tokens": TOKENS, "targets": TARGETS}
    assert given_test_sets.errors(predictions, test_set)["error"].tolist() == [0.5, 0.0, 0.0]
    assert given_test_sets.errors(predictions[:, -1:], test_set)["error"].tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="sequence 0 of a test set has no target at the last 1 positions"):
        given_test_sets.errors(predictions[:, -1:], {"targets": TARGETS[:, :-1]})
