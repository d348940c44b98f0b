import ast
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from learning_geometry.seeding import seeded
from learning_geometry.tasks import binary_operations
from learning_geometry.tasks.batch import IGNORED

DEFAULTS = {name: schema["default"] for name, schema in binary_operations.SETTINGS.items()}

# written out once more with Python's integers, reduced at the end
BY_HAND = {
    "add": lambda x, y, p: (x + y) % p,
    "subtract": lambda x, y, p: (x - y) % p,
    "multiply": lambda x, y, p: x * y % p,
    "square_sum": lambda x, y, p: (pow(x, 2, p) + pow(y, 2, p)) % p,
    "quadratic_form": lambda x, y, p: (x * x + x * y + y * y) % p,
    "cubic_form": lambda x, y, p: (pow(x, 3, p) + x * y) % p,
}


def settings(**changes):
    return DEFAULTS | changes


def test_settings_are_a_literal_with_the_published_defaults():
    tree = ast.parse(Path(binary_operations.__file__).read_text())
    literal = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and node.target.id == "SETTINGS"
    )
    assert literal == binary_operations.SETTINGS
    assert all(schema["description"] for schema in literal.values())
    assert DEFAULTS == {"operation": "add", "prime": 97, "training_fraction": 0.5}
    binary_operations.check(DEFAULTS)
    sizes = [getattr(binary_operations, name)(DEFAULTS) for name in ("vocabulary", "outputs", "length")]
    assert sizes == [98, 97, 3]
    assert literal["operation"]["enum"] == list(binary_operations.OPERATIONS) == list(BY_HAND)


@pytest.mark.parametrize("operation", BY_HAND)
@pytest.mark.parametrize("prime", [3, 7, 113])
def test_every_pair_is_there_once_with_its_result(operation, prime):
    chosen = settings(operation=operation, prime=prime)
    test_sets = binary_operations.test_sets(chosen, binary_operations.drawn_once(chosen, 0), 0)
    assert set(test_sets) == {"training_pairs", "held_out_pairs"}
    seen = set()
    for test_set in test_sets.values():
        assert all(array.dtype == np.int64 and array.shape[1] == 3 for array in test_set.values())
        assert (test_set["targets"][:, :-1] == IGNORED).all()
        for (x, y, equals), result in zip(test_set["tokens"].tolist(), test_set["targets"][:, -1], strict=True):
            assert equals == prime and result == BY_HAND[operation](x, y, prime)
            seen.add((x, y))
    assert len(seen) == sum(len(test_set["tokens"]) for test_set in test_sets.values()) == prime**2


def test_a_large_prime_does_not_overflow():
    pairs = np.array([[1_999_992, 1_999_992], [1_999_992, 0]])
    for operation, by_hand in BY_HAND.items():
        found = binary_operations.results(operation, 1_999_993, pairs)
        assert found.tolist() == [by_hand(x, y, 1_999_993) for x, y in pairs.tolist()]


@pytest.mark.parametrize(("fraction", "trained"), [(0.5, 4704), (0.3, 2823), (0.9999, 9408)])
def test_the_fraction_trains(fraction, trained):
    division = binary_operations.drawn_once(settings(training_fraction=fraction), 0)
    assert (len(division["training_pairs"]), len(division["held_out_pairs"])) == (trained, 9409 - trained)


def test_the_division_depends_on_the_seed_and_is_fair():
    chosen = settings(prime=7, training_fraction=0.25)
    assert (
        binary_operations.drawn_once(chosen, 4)["training_pairs"]
        == binary_operations.drawn_once(chosen, 4)["training_pairs"]
    ).all()
    counts = np.zeros((7, 7), dtype=int)
    first = np.zeros((7, 7), dtype=int)
    for seed in range(3000):
        pairs = binary_operations.drawn_once(chosen, seed)["training_pairs"]
        counts[tuple(pairs.T)] += 1
        first[tuple(pairs[0])] += 1
    # 12 of 49 pairs, without replacement: the variance is that of a draw times 1 - 12 / 49 times 49 / 48
    expected = 3000 * 12 / 49
    scaled = ((counts - expected) ** 2 / expected).sum() / (37 / 48)
    assert stats.chi2.sf(scaled, 48) > 0.01
    assert stats.chisquare(first.ravel()).pvalue > 0.01  # the first of them are a fair sample


def test_batches_are_training_pairs_without_replacement():
    chosen = settings(prime=23)
    division = binary_operations.drawn_once(chosen, 1)
    allowed = {tuple(pair) for pair in division["training_pairs"].tolist()}
    assert len(allowed) == 264
    counts = dict.fromkeys(allowed, 0)
    for step in range(400):
        batch = binary_operations.training_batch(chosen, division, seeded(1, "batch", step), 100, step)
        assert batch.tokens.shape == batch.targets.shape == (100, 3)
        drawn = {tuple(pair) for pair in batch.tokens[:, :2].tolist()}
        assert len(drawn) == 100
        for x, y in drawn:
            counts[x, y] += 1  # KeyError: held out
        assert (batch.targets[:, -1] == batch.tokens[:, :2].sum(1) % 23).all()
        assert (batch.targets[:, :-1] == IGNORED).all() and (batch.tokens[:, -1] == 23).all()
    expected = 400 * 100 / 264
    scaled = ((np.array(list(counts.values())) - expected) ** 2 / expected).sum() / (164 / 263)
    assert stats.chi2.sf(scaled, 263) > 0.01


@pytest.mark.parametrize("size", [264, 265, 10_000])
def test_a_large_batch_is_all_training_pairs(size):
    chosen = settings(prime=23)
    division = binary_operations.drawn_once(chosen, 1)
    one, other = (
        binary_operations.training_batch(chosen, division, seeded(1, "batch", step), size, step) for step in (0, 1)
    )
    assert (one.tokens == other.tokens).all()  # full batch: every step the same gradient, to the last bit
    assert (one.tokens[:, :2] == division["training_pairs"]).all()


def test_a_batch_is_a_function_of_its_stream():
    division = binary_operations.drawn_once(DEFAULTS, 0)

    def tokens(*key):
        return binary_operations.training_batch(DEFAULTS, division, seeded(*key), 512, 0).tokens

    assert (tokens(0, "batch", 3) == tokens(0, "batch", 3)).all()
    assert not (tokens(0, "batch", 3) == tokens(0, "batch", 4)).all()


def test_errors_judge_the_last_position_alone():
    division = binary_operations.drawn_once(settings(prime=5), 0)
    test_set = binary_operations.test_sets(settings(prime=5), division, 0)["held_out_pairs"]
    right = test_set["targets"].clip(0)
    for read_out in (right, right[:, -1:]):
        assert binary_operations.errors(read_out, test_set)["error"].sum() == 0
        wrong = read_out.copy()
        wrong[4, -1] = (wrong[4, -1] + 1) % 5
        wrong[:, :-1] += 1
        assert np.flatnonzero(binary_operations.errors(wrong, test_set)["error"]).tolist() == [4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prime": 100}, "prime: 100 is not a prime number; the nearest are 97 and 101"),
        ({"prime": 9}, "prime: 9 .* 7 and 11"),
        ({"prime": 4}, "prime: 4 .* 3 and 5"),
        ({"prime": 2_000_000}, "prime: .* 1999993 and 2000003"),
        ({"prime": 2}, "prime: 2 .*from 3"),
        ({"prime": -7}, "prime: -7 .*from 3"),
        ({"prime": 2_000_003}, "prime: .*to 2000000"),
        ({"operation": "divide"}, "operation: 'divide' .*add, subtract"),
        ({"training_fraction": 0}, "training_fraction: .*nothing|training_fraction: .*no pair"),
        ({"training_fraction": 1.0}, "training_fraction: .*no pair"),
        ({"training_fraction": 1e-5}, "training_fraction: .*rounds to 0"),
        ({"training_fraction": 0.99999}, "training_fraction: .*rounds to 9409"),
    ],
)
def test_impossible_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        binary_operations.check(settings(**changes))


def test_every_prime_and_nothing_else_is_accepted():
    sieve = np.ones(500, dtype=bool)
    for n in range(2, 23):
        sieve[2 * n :: n] = False
    for n in range(3, 500):
        if sieve[n]:
            binary_operations.check(settings(prime=n))
        else:
            with pytest.raises(ValueError, match="not a prime"):
                binary_operations.check(settings(prime=n))
