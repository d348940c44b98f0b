import ast
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from learning_geometry.seeding import seeded
from learning_geometry.tasks import marker_sums
from learning_geometry.tasks.batch import IGNORED

DEFAULTS = {name: schema["default"] for name, schema in marker_sums.SETTINGS.items()}


def settings(**changes):
    return DEFAULTS | changes


@pytest.fixture(scope="module")
def tests():
    """Test sets by the kind of distractors in training."""
    return {kind: marker_sums.test_sets(settings(distractors=kind), {}, 0) for kind in ("published", "any")}


def read(tokens, m, modulus=8, first_marker=100):
    """Solve one sequence from its tokens alone: positions of its markers, the values after them, the label."""
    positions = [int(np.flatnonzero(tokens == first_marker + i).item()) for i in range(m)]
    values = [int(tokens[position + 1]) for position in positions]
    return positions, values, sum(values) % modulus


def test_settings_are_a_literal_with_the_published_defaults():
    tree = ast.parse(Path(marker_sums.__file__).read_text())
    literal = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and node.target.id == "SETTINGS"
    )
    assert literal == marker_sums.SETTINGS
    assert all(schema["description"] for schema in literal.values())
    assert DEFAULTS == {
        "vocabulary": 256,
        "length": 16,
        "modulus": 8,
        "markers": [1, 2, 3, 4],
        "first_marker": 100,
        "distractors": "published",
        "curriculum": 0,
        "test_sequences": 2000,
    }
    marker_sums.check(DEFAULTS)
    assert (marker_sums.vocabulary(DEFAULTS), marker_sums.outputs(DEFAULTS), marker_sums.length(DEFAULTS)) == (
        256,
        8,
        16,
    )
    assert marker_sums.drawn_once(DEFAULTS, 3) == {}


@pytest.mark.parametrize(("length", "m"), [(16, 1), (16, 4), (9, 3), (9, 4), (5, 2), (3, 1)])
def test_positions_are_uniform_over_every_allowed_set(length, m):
    # enumerated from the definition: from 1 to T - 2, gaps above 1
    allowed = [
        chosen
        for chosen in combinations(range(1, length - 1), m)
        if all(after - before > 1 for before, after in pairwise(chosen))
    ]
    drawn = marker_sums.marker_positions(length, m, 200 * len(allowed), seeded("positions", length, m))
    assert (np.diff(drawn, axis=1) > 0).all()
    counts = dict.fromkeys(allowed, 0)
    for chosen in drawn.tolist():
        counts[tuple(chosen)] += 1  # KeyError: not allowed
    if len(allowed) > 1:
        assert stats.chisquare(list(counts.values())).pvalue > 0.01


@pytest.mark.parametrize("kind", ["published", "any"])
def test_the_label_of_a_batch_follows_from_its_tokens(kind):
    chosen = settings(distractors=kind)
    seen = set()
    for step in range(40):
        batch = marker_sums.training_batch(chosen, {}, seeded(0, "batch", step), 128, step)
        assert batch.tokens.shape == batch.targets.shape == (128, 16)
        assert batch.tokens.dtype == batch.targets.dtype == np.int64
        assert (batch.targets[:, :-1] == IGNORED).all()
        # markers are read off the columns that are constant: positions are shared by the whole batch
        columns = {int(batch.tokens[0, i]): i for i in range(16) if (batch.tokens[:, i] == batch.tokens[0, i]).all()}
        m = len(columns)
        assert sorted(columns) == list(range(100, 100 + m))
        assert list(columns.values()) == [columns[100 + i] for i in range(m)] == sorted(columns.values())
        for row, target in zip(batch.tokens, batch.targets[:, -1], strict=True):
            assert read(row, m)[2] == target
        seen.add(m)
    assert seen == {1, 2, 3, 4}


def test_every_batch_is_fresh_and_a_function_of_its_stream():
    def batch(*key):
        return marker_sums.training_batch(settings(markers=[2]), {}, seeded(*key), 128, 0).tokens

    assert (batch(0, "batch", 3) == batch(0, "batch", 3)).all()
    for other in [(0, "batch", 4), (1, "batch", 3)]:
        assert (batch(0, "batch", 3) == batch(*other)).mean() < 0.2


def test_numbers_of_markers_are_equally_frequent():
    counts = dict.fromkeys((4, 1, 3), 0)
    for step in range(1500):
        tokens = marker_sums.training_batch(settings(markers=[4, 1, 3]), {}, seeded(2, "m", step), 5, step).tokens
        counts[sum(int((tokens == 100 + i).all(0).any()) for i in range(4))] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_the_curriculum_adds_numbers_of_markers_in_their_order():
    chosen = settings(markers=[3, 1, 2], curriculum=50)

    def seen(steps):
        found = set()
        for step in steps:
            tokens = marker_sums.training_batch(chosen, {}, seeded(0, "curriculum", step), 8, step).tokens
            found.add(sum(int((tokens == 100 + i).all(0).any()) for i in range(3)))
        return found

    assert seen(range(0, 50)) == {3}
    assert seen(range(50, 100)) == {3, 1}
    assert seen(range(100, 200)) == seen(range(5000, 5100)) == {1, 2, 3}


@pytest.mark.parametrize("kind", ["published", "any"])
def test_test_sets_hold_what_can_be_read_off_their_tokens(tests, kind):
    suffixes = ["", "_any_distractors"] if kind == "published" else [""]
    assert list(tests[kind]) == [f"markers_{m}{suffix}" for m in (1, 2, 3, 4) for suffix in suffixes]
    for name, test_set in tests[kind].items():
        m = int(name.split("_")[1])
        assert set(test_set) == {"tokens", "targets", "marker_positions", "values"}
        assert all(array.dtype == np.int64 and len(array) == 2000 for array in test_set.values())
        assert test_set["marker_positions"].shape == test_set["values"].shape == (2000, m)
        assert (test_set["targets"][:, :-1] == IGNORED).all()
        for row in range(2000):
            positions, values, label = read(test_set["tokens"][row], m)
            assert positions == test_set["marker_positions"][row].tolist()
            assert values == test_set["values"][row].tolist()
            assert label == test_set["targets"][row, -1]
        # every sequence has positions of its own: many of the C(15 - m, m) sets occur
        assert len(np.unique(test_set["marker_positions"], axis=0)) > {1: 13, 2: 70, 3: 200, 4: 300}[m]
        assert stats.chisquare(np.bincount(test_set["targets"][:, -1], minlength=8)).pvalue > 0.001


def distractors(test_set):
    """The tokens that are neither markers nor the values after them."""
    rest = np.ones(test_set["tokens"].shape, dtype=bool)
    for offset in (0, 1):
        np.put_along_axis(rest, test_set["marker_positions"] + offset, False, axis=1)
    return test_set["tokens"][rest]


@pytest.mark.parametrize("m", [1, 2, 4])
def test_distractors_are_uniform_over_the_tokens_allowed(tests, m):
    own, routed = (
        {*range(8, 256)} - {*range(100, 100 + m)},  # published: no value, no marker in use
        {*range(256)} - {*range(100, 104)},  # any: no marker of the task, in use or not
    )
    for test_set, allowed in [
        (tests["published"][f"markers_{m}"], own),
        (tests["published"][f"markers_{m}_any_distractors"], routed),
        (tests["any"][f"markers_{m}"], routed),
    ]:
        counts = np.bincount(distractors(test_set), minlength=256)
        assert set(np.flatnonzero(counts)) == allowed
        assert stats.chisquare(counts[sorted(allowed)]).pvalue > 0.001


def test_small_tokens_can_be_summed_without_markers_among_published_distractors_alone(tests):
    def shortcut(test_set):
        tokens = test_set["tokens"]
        predictions = np.zeros_like(tokens)
        predictions[:, -1] = np.where(tokens < 8, tokens, 0).sum(1) % 8
        return marker_sums.errors(predictions, test_set)["error"]

    for m in (1, 2, 3, 4):
        assert shortcut(tests["published"][f"markers_{m}"]).max() == 0
        # it is right when no distractor is a value, or their sum vanishes by chance
        value_free = (1 - 8 / 252) ** (16 - 2 * m)
        expected = (1 - value_free) * 7 / 8
        for test_set in (tests["published"][f"markers_{m}_any_distractors"], tests["any"][f"markers_{m}"]):
            assert shortcut(test_set).mean() == pytest.approx(expected, abs=0.04)


def test_the_two_test_sets_of_a_number_differ_in_distractors_alone(tests):
    for m in (1, 2, 3, 4):
        own, routed = (tests["published"][f"markers_{m}{suffix}"] for suffix in ("", "_any_distractors"))
        for key in ("marker_positions", "values", "targets"):
            assert (own[key] == routed[key]).all()
        assert (own["tokens"] == routed["tokens"]).mean() < 2 * m / 16 + 0.02


def test_test_sets_are_the_same_for_every_seed(tests):
    again = marker_sums.test_sets(DEFAULTS, {}, 7)
    for name, test_set in tests["published"].items():
        assert all((array == again[name][key]).all() for key, array in test_set.items())


def test_errors_judge_the_last_position_alone(tests):
    test_set = {key: array[:8] for key, array in tests["published"]["markers_2"].items()}
    right = test_set["targets"].clip(0)
    for read_out in (right, right[:, -1:]):  # a model may read out everywhere, or at the end alone
        assert marker_sums.errors(read_out, test_set)["error"].tolist() == [0.0] * 8
        wrong = read_out.copy()
        wrong[3, -1] = (wrong[3, -1] + 1) % 8
        wrong[:, :-1] += 1
        assert marker_sums.errors(wrong, test_set)["error"].tolist() == [0.0] * 3 + [1.0] + [0.0] * 4


def test_the_tightest_tasks_work():
    for tight in (
        settings(length=3, markers=[1], vocabulary=4, modulus=2, first_marker=2),
        settings(length=9, markers=[4], vocabulary=12, modulus=7, first_marker=7),
        settings(length=9, markers=[4], vocabulary=12, modulus=8, first_marker=8, distractors="any"),
    ):
        chosen = tight | {"test_sequences": 30}
        marker_sums.check(chosen)
        m, modulus = chosen["markers"][0], chosen["modulus"]
        (_, test_set), *_ = marker_sums.test_sets(chosen, {}, 0).items()
        batch = marker_sums.training_batch(chosen, {}, seeded("tight"), 30, 0)
        for tokens, targets in (test_set["tokens"], test_set["targets"]), batch:
            assert tokens.max() < chosen["vocabulary"]
            for row, target in zip(tokens, targets[:, -1], strict=True):
                positions, _, label = read(row, m, modulus, chosen["first_marker"])
                assert label == target and positions == [1 + 2 * i for i in range(m)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"markers": [1, 8]}, "markers: .*need 17 positions.*at most 7 or a greater length"),
        ({"length": 8}, "markers: .*at most 3"),
        ({"markers": [1, 1]}, "markers: .*once"),
        ({"markers": [0, 1]}, "markers: .*from 1 up"),
        ({"markers": []}, "markers: .*from 1 up"),
        ({"modulus": 1}, "modulus: .*2 or more"),
        ({"modulus": 101}, "first_marker: .*101 or more"),
        ({"first_marker": 5}, "first_marker: .*8 or more"),
        ({"first_marker": 253}, "first_marker: .*at most 252"),
        ({"vocabulary": 103}, "first_marker: .*at most 99 or a larger vocabulary"),
        ({"vocabulary": 12, "first_marker": 8}, "vocabulary: .*13 or more, or distractors: any"),
        ({"distractors": "none"}, "distractors: .*published or any"),
        ({"curriculum": -1}, "curriculum: .*0"),
        ({"test_sequences": 0}, "test_sequences: .*1 or more"),
    ],
)
def test_impossible_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        marker_sums.check(settings(**changes))


def test_the_last_settings_that_fit_are_accepted():
    marker_sums.check(settings(markers=[1, 7]))
    marker_sums.check(settings(first_marker=252))
    marker_sums.check(settings(vocabulary=13, first_marker=8))
    marker_sums.check(settings(vocabulary=12, first_marker=8, distractors="any"))
