import ast
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from learning_geometry.seeding import seeded
from learning_geometry.tasks import copying
from learning_geometry.tasks.batch import IGNORED

DEFAULTS = {name: schema["default"] for name, schema in copying.SETTINGS.items()}


def settings(**changes):
    return DEFAULTS | changes


@pytest.fixture(scope="module")
def tests():
    return copying.test_sets(DEFAULTS, {}, 0)


def copies(test_set):
    """Both copies as lists of arrays."""
    where = zip(
        test_set["tokens"],
        test_set["first_start"],
        test_set["second_start"],
        test_set["segment_length"],
        strict=True,
    )
    return [(row[a : a + n], row[b : b + n]) for row, a, b, n in where]


def test_settings_are_a_literal_with_the_published_defaults():
    tree = ast.parse(Path(copying.__file__).read_text())
    literal = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and node.target.id == "SETTINGS"
    )
    assert literal == copying.SETTINGS
    assert all(schema["description"] for schema in literal.values())
    assert DEFAULTS == {
        "vocabulary": 64,
        "length": 64,
        "zipf_offset": 2.7,
        "segment_length": [10, 19],
        "out_of_distribution_segment_length": 25,
        "pool_size": None,
        "test_sequences": 5000,
    }
    copying.check(DEFAULTS)
    assert (copying.vocabulary(DEFAULTS), copying.outputs(DEFAULTS), copying.length(DEFAULTS)) == (64, 64, 64)


def test_token_probabilities_have_the_published_maximum_and_entropy():
    p = copying.token_probabilities(DEFAULTS)
    assert p.sum() == pytest.approx(1)
    assert p[0] == p.max() == pytest.approx(0.0889, abs=5e-5)
    assert -(p * np.log(p)).sum() == pytest.approx(3.80, abs=5e-3)


@pytest.mark.parametrize("changes", [{}, {"vocabulary": 7, "zipf_offset": -0.5}, {"vocabulary": 300}])
def test_tokens_follow_their_probabilities(changes):
    chosen = settings(**changes)
    tokens = copying._tokens(chosen, seeded(1, "frequencies"), (2000, 200))
    counts = np.bincount(tokens.ravel(), minlength=chosen["vocabulary"])
    assert len(counts) == chosen["vocabulary"]
    expected = tokens.size * copying.token_probabilities(chosen)
    assert stats.chisquare(counts, expected).pvalue > 0.01


def test_segments_and_noise_of_a_batch_follow_the_same_probabilities(tests):
    test_set = tests["in_distribution"]
    first = np.concatenate([a for a, _ in copies(test_set)])
    p = copying.token_probabilities(DEFAULTS)
    assert stats.chisquare(np.bincount(first, minlength=64), p * first.size).pvalue > 0.01
    positions = np.arange(64)
    in_second = (positions >= test_set["second_start"][:, None]) & (
        positions < (test_set["second_start"] + test_set["segment_length"])[:, None]
    )
    fresh = test_set["tokens"][~in_second]
    assert stats.chisquare(np.bincount(fresh, minlength=64), p * fresh.size).pvalue > 0.01


def test_out_of_distribution_is_uniform_with_long_segments(tests):
    test_set = tests["out_of_distribution"]
    assert (test_set["segment_length"] == 25).all()
    first = np.concatenate([a for a, _ in copies(test_set)])
    assert stats.chisquare(np.bincount(first, minlength=64)).pvalue > 0.01


def test_segment_lengths_are_uniform(tests):
    counts = np.bincount(tests["in_distribution"]["segment_length"])
    assert counts[:10].sum() == 0
    assert len(counts) == 20
    assert stats.chisquare(counts[10:]).pvalue > 0.01


@pytest.mark.parametrize("name", ["in_distribution", "out_of_distribution"])
def test_the_second_copy_repeats_the_first_apart_from_it_and_before_the_end(tests, name):
    test_set = tests[name]
    assert all((first == second).all() for first, second in copies(test_set))
    gap = test_set["second_start"] - test_set["first_start"] - test_set["segment_length"]
    after = 64 - test_set["second_start"] - test_set["segment_length"]
    # 1 is both required and reached; a copy may also start at the first token
    assert (gap.min(), after.min(), test_set["first_start"].min()) == (1, 1, 0)
    # nothing but the copy is repeated: the tokens after the copies agree as often as chance has it
    rows = np.arange(5000)
    following = test_set["tokens"][rows, test_set["first_start"] + test_set["segment_length"]]
    after_second = test_set["tokens"][rows, test_set["second_start"] + test_set["segment_length"]]
    p = copying.token_probabilities(DEFAULTS) if name == "in_distribution" else np.full(64, 1 / 64)
    agree = np.count_nonzero(following == after_second)
    assert stats.binomtest(agree, 5000, (p**2).sum()).pvalue > 0.01


def test_offsets_are_uniform_over_pairs():
    # T = 18, |s| = 6: offsets from {0, ..., 5}, 15 pairs
    noise = np.zeros((15000, 18), dtype=np.int64)
    drawn = copying._sequences(noise, np.full(15000, 6), seeded(3, "offsets"))
    a, b = drawn["first_start"], drawn["second_start"] - 6
    counts = np.zeros((6, 6))
    np.add.at(counts, (a, b), 1)
    upper = np.triu_indices(6, 1)
    assert counts[upper].sum() == 15000
    assert stats.chisquare(counts[upper]).pvalue > 0.01


def test_the_tightest_sequence_fits():
    tight = settings(length=14, segment_length=[6, 6], out_of_distribution_segment_length=6, test_sequences=50)
    copying.check(tight)
    for test_set in copying.test_sets(tight, {}, 0).values():
        assert (test_set["first_start"] == 0).all()
        assert (test_set["second_start"] == 7).all()
        assert (test_set["tokens"][:, :6] == test_set["tokens"][:, 7:13]).all()


def test_targets_are_the_next_tokens():
    batch = copying.training_batch(DEFAULTS, {}, seeded(0, "batch", 0), 50)
    assert batch.tokens.shape == batch.targets.shape == (50, 64)
    assert batch.tokens.dtype == batch.targets.dtype == np.int64
    assert (batch.targets[:, :-1] == batch.tokens[:, 1:]).all()
    assert (batch.targets[:, -1] == IGNORED).all()


def test_a_batch_is_a_function_of_its_stream():
    def tokens(*key):
        return copying.training_batch(DEFAULTS, {}, seeded(*key), 50).tokens

    assert (tokens(0, "batch", 3) == tokens(0, "batch", 3)).all()
    chance = (copying.token_probabilities(DEFAULTS) ** 2).sum()
    for other in [(0, "batch", 4), (1, "batch", 3)]:
        assert (tokens(0, "batch", 3) == tokens(*other)).mean() == pytest.approx(chance, abs=0.015)


def test_a_finite_pool_is_what_training_and_the_in_distribution_test_use():
    chosen = settings(pool_size=30, test_sequences=400)
    drawn_once = copying.drawn_once(chosen, seed=5)
    assert drawn_once["segments"].shape == (30, 19)
    lengths = (drawn_once["segments"] >= 0).sum(1)
    assert (lengths == drawn_once["lengths"]).all()
    pool = [tuple(row[:n]) for row, n in zip(drawn_once["segments"], lengths, strict=True)]

    test_sets = copying.test_sets(chosen, drawn_once, seed=5)
    found = [tuple(a) for a, _ in copies(test_sets["in_distribution"])]
    assert set(found) == set(pool)
    assert all((a == b).all() for a, b in copies(test_sets["in_distribution"]))
    assert test_sets["in_distribution"]["tokens"].min() >= 0

    batch = copying.training_batch(chosen, drawn_once, seeded(5, "batch", 0), 50)
    for row in batch.tokens:
        windows = {n: [tuple(w) for w in np.lib.stride_tricks.sliding_window_view(row, n)] for n in set(lengths)}
        assert any(windows[len(s)].count(s) >= 2 for s in pool)
    # the noise stays fresh: two sequences with the same segment differ elsewhere
    assert len(np.unique(test_sets["in_distribution"]["tokens"], axis=0)) == 400


def test_pools_depend_on_the_seed_and_their_lengths_are_uniform():
    chosen = settings(pool_size=3000)
    one, same, other = (copying.drawn_once(chosen, seed) for seed in (0, 0, 1))
    assert (one["segments"] == same["segments"]).all()
    assert not (one["lengths"] == other["lengths"]).all()
    assert stats.chisquare(np.bincount(one["lengths"])[10:]).pvalue > 0.01
    assert copying.drawn_once(DEFAULTS, 0) == {}


def test_test_sets_are_fixed_and_unlike_each_other(tests):
    again = copying.test_sets(DEFAULTS, {}, seed=7)
    for name, test_set in tests.items():
        assert set(test_set) == {"tokens", "targets", "first_start", "second_start", "segment_length"}
        for key, array in test_set.items():
            assert array.dtype == np.int64
            assert (array == again[name][key]).all()
    pooled = settings(pool_size=20, test_sequences=100)
    a, b = (copying.test_sets(pooled, copying.drawn_once(pooled, seed), seed) for seed in (0, 1))
    assert not (a["in_distribution"]["tokens"] == b["in_distribution"]["tokens"]).all()
    assert (a["out_of_distribution"]["tokens"] == b["out_of_distribution"]["tokens"]).all()


def perfect_copier(test_set, otherwise):
    """Predict the first copy's continuation inside the second copy, and ``otherwise`` elsewhere."""
    predictions = np.full_like(test_set["tokens"], otherwise)
    for row, (first, _) in enumerate(copies(test_set)):
        begin = test_set["second_start"][row]
        predictions[row, begin : begin + len(first) - 1] = first[1:]
    return predictions


@pytest.mark.parametrize(("name", "floor"), [("in_distribution", 0.087), ("out_of_distribution", 0.047)])
def test_a_perfect_copier_has_no_error_and_the_published_floor(tests, name, floor):
    found = copying.errors(perfect_copier(tests[name], otherwise=0), tests[name])
    assert found["error"].shape == (5000,)
    assert found["error"].max() == 0
    assert found["error_published_mask"].mean() == pytest.approx(floor, abs=0.0015)


def test_the_most_frequent_token_gives_the_plateau(tests):
    constant = np.zeros((5000, 64), dtype=np.int64)
    found = copying.errors(constant, tests["in_distribution"])
    plateau = 1 - copying.token_probabilities(DEFAULTS)[0]
    assert plateau == pytest.approx(0.911, abs=5e-4)
    assert found["error"].mean() == pytest.approx(plateau, abs=0.005)
    assert found["error_published_mask"].mean() == pytest.approx(plateau, abs=0.005)
    for error in copying.errors(constant, tests["out_of_distribution"]).values():
        assert error.mean() == pytest.approx(63 / 64, abs=0.003)


def test_errors_count_exactly_the_scored_positions():
    test_set = {name: array[:1] for name, array in copying.test_sets(DEFAULTS, {}, 0)["in_distribution"].items()}
    begin, n = int(test_set["second_start"][0]), int(test_set["segment_length"][0])
    right = np.where(test_set["targets"] == IGNORED, 0, test_set["targets"])
    scored = {"error": set(), "error_published_mask": set()}
    for position in range(64):
        predictions = right.copy()
        predictions[0, position] = (predictions[0, position] + 1) % 64
        for name, value in copying.errors(predictions, test_set).items():
            if value[0] > 0:
                scored[name].add(position)
                assert value[0] == pytest.approx(1 / (n - 4 - (name == "error")))
    assert scored["error"] == set(range(begin + 4, begin + n - 1))
    assert scored["error_published_mask"] == set(range(begin + 4, begin + n))


def test_the_mean_error_weighs_positions_alike(tests):
    test_set = tests["in_distribution"]
    predictions = seeded(0, "random predictions").integers(64, size=(5000, 64))
    positions = np.arange(64)
    begin, end = (
        test_set["second_start"][:, None],
        (test_set["second_start"] + test_set["segment_length"])[:, None],
    )
    mask = (positions >= begin + 4) & (positions < end - 1)
    pooled = (predictions != test_set["targets"])[mask].mean()
    assert copying.errors(predictions, test_set)["error"].mean() == pytest.approx(pooled)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment_length": [19, 10]}, "segment_length: .*exchange"),
        ({"segment_length": [10, 32]}, "segment_length: .*at most 31"),
        ({"segment_length": [5, 19]}, "segment_length: .*use 6 or more"),
        ({"out_of_distribution_segment_length": 32}, "out_of_distribution_segment_length: .*at most 31"),
        ({"out_of_distribution_segment_length": 5}, "out_of_distribution_segment_length: .*use 6 or more"),
        ({"length": 51}, "out_of_distribution_segment_length: .*greater length"),
        ({"pool_size": 0}, "pool_size: .*null"),
        ({"vocabulary": 1}, "vocabulary: .*use 2 or more"),
        ({"zipf_offset": -1}, "zipf_offset: .*above -1"),
        ({"test_sequences": 0}, "test_sequences: .*use 1 or more"),
    ],
)
def test_impossible_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        copying.check(settings(**changes))


def test_the_longest_segment_that_fits_is_accepted():
    copying.check(settings(segment_length=[10, 31], out_of_distribution_segment_length=31))
