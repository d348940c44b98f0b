"""Text: what is held out shares no file with training, tokens are bytes or byte pairs, and what is refused."""

import numpy as np
import pytest

from learning_geometry.tasks import text
from learning_geometry.tasks.texts import documents, text_files

SETTINGS = {name: schema["default"] for name, schema in text.SETTINGS.items()}
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon"]


def written(folder, number=10, **changes):
    """Files of words, each with its own number, and the settings of a task of them."""
    generator = np.random.default_rng(0)
    for file in range(number):
        words = generator.choice(WORDS, 60)
        (folder / f"{file:02}.txt").write_text("\n".join(f"{word} {file}" for word in words))
    return SETTINGS | {"file": str(folder / "*.txt"), "length": 16, "repeated_length": 6, "test_sequences": 5} | changes


@pytest.mark.parametrize("encoding", [{}, {"encoding": "bpe", "vocabulary": 300}])
def test_no_file_is_on_both_sides_and_tokens_spell_the_text(tmp_path, encoding):
    settings = written(tmp_path, **encoding)
    text.check(settings)
    sides = text.divided(settings)
    assert set(sides.training) & set(sides.held_out) == set()
    assert set(sides.training) | set(sides.held_out) == {str(path) for path in tmp_path.glob("*.txt")}
    drawn = text.drawn_once(settings, 0)
    for side in ("training", "held_out"):
        assert decoded(drawn, drawn[side]) == "\n\n".join(getattr(sides, side).values())
        assert drawn[side].max() < text.vocabulary(settings)
    assert len(drawn["held_out"]) > 0.05 * len(drawn["training"])
    if encoding:
        assert len(drawn["training"]) < len("\n\n".join(sides.training.values()).encode()) / 2


def decoded(drawn, tokens):
    if "tokenizer" not in drawn:
        return bytes(tokens.astype(np.uint8)).decode()
    from tokenizers import Tokenizer

    return Tokenizer.from_str(bytes(drawn["tokenizer"]).decode()).decode(tokens.tolist())


def test_byte_pairs_are_learned_alike_each_time_and_from_training_files_alone(tmp_path):
    settings = written(tmp_path, encoding="bpe", vocabulary=300)
    first = text.drawn_once(settings, 0)
    text._encoded.cache_clear()
    again = text.drawn_once(settings, 1)
    assert {name: array.tobytes() for name, array in first.items()} == {n: a.tobytes() for n, a in again.items()}
    held_out = sorted(text.divided(settings).held_out)[0]
    # of the same number of characters, so that the same files are held out
    (tmp_path / held_out).write_text("z" * len((tmp_path / held_out).read_text()))
    changed = text.drawn_once(settings, 0)
    assert held_out in text.divided(settings).held_out
    assert np.array_equal(changed["tokenizer"], first["tokenizer"])
    assert np.array_equal(changed["training"], first["training"])
    assert not np.array_equal(changed["held_out"], first["held_out"])
    assert not np.array_equal(changed["text_digest"], first["text_digest"])


def test_a_single_file_is_cut_at_a_line_and_no_window_crosses_the_cut(tmp_path):
    settings = written(tmp_path, number=1, held_out=0.3)
    sides = text.divided(settings | {"file": str(tmp_path / "00.txt")})
    ((training,), (held_out,)) = (side.values() for side in (sides.training, sides.held_out))
    assert f"{training}\n{held_out}" == (tmp_path / "00.txt").read_text()
    assert len(held_out) / len(training + held_out) == pytest.approx(0.3, abs=0.03)


def test_windows_predict_the_next_token(tmp_path):
    settings = written(tmp_path)
    drawn = text.drawn_once(settings, 0)
    batch = text.training_batch(settings, drawn, np.random.default_rng(0), 7)
    assert batch.tokens.shape == (7, 16) and batch.tokens.dtype == np.int64
    assert np.array_equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    spelled = decoded(drawn, drawn["training"])
    assert all(decoded(drawn, row) in spelled for row in batch.tokens)
    sets = text.test_sets(settings, drawn, 0)
    held_out = sets["held_out"]["tokens"]
    out = decoded(drawn, drawn["held_out"])
    assert all(decoded(drawn, row) in out for row in held_out) and len(np.unique(held_out, axis=0)) == 5
    assert text.test_set_sizes(settings) == {name: len(each["tokens"]) for name, each in sets.items()}
    assert text.test_set_arrays(settings) == {name: set(each) for name, each in sets.items()}


def test_the_repeated_segment_can_be_copied_and_errors_count_it_alone(tmp_path):
    settings = written(tmp_path, length=32, repeated_length=8)
    drawn = text.drawn_once(settings, 0)
    repeated = text.test_sets(settings, drawn, 0)["repeated"]
    for row, first, second in zip(*(repeated[n] for n in ("tokens", "first_start", "second_start")), strict=True):
        assert np.array_equal(row[first : first + 8], row[second : second + 8])
    assert np.isin(repeated["tokens"], np.unique(drawn["training"])).all()
    assert text.errors(repeated["targets"], repeated)["error"].tolist() == [0.0] * 5
    wrong = repeated["targets"] + 1
    assert text.errors(wrong, repeated)["error"].mean() == 1.0
    of_text = text.test_sets(settings, drawn, 0)["held_out"]
    half = np.where(np.arange(32) % 2, of_text["targets"], -1)
    assert text.errors(half, of_text)["error"].tolist() == [0.5] * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": 300}, "vocabulary: 300, and there are 256 bytes"),
        ({"encoding": "bpe"}, "vocabulary: 256 leaves nothing to merge"),
        ({"repeated_length": 8}, "repeated_length: two copies of 8 tokens"),
        ({"file": "no/such.txt"}, "file: no/such.txt: no such text"),
        ({"file": "no/such/*.txt"}, r"file: no/such/\*.txt: no such text"),
        ({"length": 4000}, "file: .* too few to hold a window out"),
    ],
)
def test_what_cannot_be_a_task_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        text.check(written(tmp_path) | changes)


def test_without_tokenizers_byte_pairs_are_refused_by_name(tmp_path, monkeypatch):
    settings = written(tmp_path, encoding="bpe", vocabulary=300)
    monkeypatch.setattr(text, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^encoding: bpe is learned by the package tokenizers, which is not"):
        text.check(settings)


def test_too_few_windows_and_an_empty_side_are_refused(tmp_path):
    settings = written(tmp_path, test_sequences=5000)
    with pytest.raises(ValueError, match=r"^test_sequences: the text held out has .* windows of 16 tokens, and 5000"):
        text.test_sets(settings, text.drawn_once(settings, 0), 0)
    with pytest.raises(ValueError, match=r"^held_out: a share of 0.99 .* leaves nothing on one side"):
        text.divided(written(tmp_path, held_out=0.99))


def test_the_library_is_whole_and_without_what_some_machines_lack():
    files = text_files("python_library")
    names = list(documents("python_library"))
    assert len(files) > 200 and {"argparse.py", "asyncio/events.py", "json/decoder.py"} <= set(names)
    assert names == sorted(names, key=lambda name: name.split("/")) and len(names) <= len(files)
    for left_out in ("test", "site-packages", "encodings", "idlelib", "lib2to3", "__pycache__"):
        assert not any(left_out in name.split("/") for name in names)
    assert not any("sysconfigdata" in name for name in names)
