"""The prompt sets that come with the package, and what their reader says of files that are wrong."""

import pytest

from learning_geometry.tasks.prompts import FOLDER, prompt_file, read_contrast_pairs, read_prompts
from learning_geometry.tasks.texts import read_text

CONTRASTS = [("harmful", "harmless"), ("positive", "negative")]


@pytest.mark.parametrize("names", CONTRASTS)
def test_the_prompts_of_pairs_are_many_different_and_of_the_same_form(names):
    pairs = read_contrast_pairs(*names)
    assert len(pairs.first) == len(pairs.second) >= 64
    assert len({prompt.lower() for prompt in pairs.first + pairs.second}) == 2 * len(pairs.first)
    for first, second in zip(*pairs, strict=True):
        words = first.split(), second.split()
        assert abs(len(words[0]) - len(words[1])) <= 1, (first, second)
        # the same punctuation and beginning; most words are shared
        assert first[-1] == second[-1] and first[-1] in ".?"
        assert len(set(words[0]) & set(words[1])) >= 2, (first, second)
    lengths = [sum(len(prompt.split()) for prompt in prompts) for prompts in pairs]
    assert abs(lengths[0] - lengths[1]) < 0.01 * sum(lengths)


def test_every_file_belongs_to_a_contrast():
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(name for names in CONTRASTS for name in names)


def test_a_file_of_the_users_takes_the_place_of_one_of_ours(tmp_path):
    path = tmp_path / "mine.txt"
    # a mark of the encoding, foreign line ends, spaces, an ending without a line end, and a separator within a line
    path.write_bytes("\ufeffCould you  help? \r\nÇa va\u2028bien\r\n\r\n  ".encode())
    assert read_prompts(path) == read_prompts(str(path)) == ("Could you  help?", "Ça va\u2028bien")
    assert prompt_file("harmful").is_file() and prompt_file(path) == path


def test_a_name_of_ours_is_not_looked_up_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harmful").write_text("mine")
    assert prompt_file("harmful").parent == FOLDER
    assert read_prompts("./harmful") == ("mine",)


@pytest.mark.parametrize("name", ["harmfull", "nowhere/prompts.txt", "../tasks"])
def test_a_missing_file_is_named_with_what_there_is(name):
    with pytest.raises(FileNotFoundError, match=rf"^{name}: no such prompt file.*'harmful', 'harmless', 'negative'"):
        read_prompts(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no prompt"),
        (b"\n  \n", "holds no prompt"),
        (b"One.\n\nTwo.\n", "line 2: empty"),
        (b"\nOne.\n", "line 1: empty"),
        (b"One.\nTwo.\n One.\n", r"line 3: the same prompt as in line 1, 'One\.'"),
        (b"caf\xe9", "not UTF-8"),
    ],
)
def test_a_wrong_file_is_named_with_the_line(tmp_path, content, message):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path}.*{message}"):
        read_prompts(path)


def test_sides_that_do_not_match_are_named(tmp_path):
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("A.\nB.\n")
    other.write_text("C.\n")
    for sides in [(one, other), (other, one)]:
        with pytest.raises(ValueError, match=rf"{other}: holds 1 prompts, and {one} 2"):
            read_contrast_pairs(*sides)
    other.write_text("C.\nA.\n")
    with pytest.raises(ValueError, match=rf"{other}, line 2: the same prompt as in {one}, line 1, 'A\.'"):
        read_contrast_pairs(one, other)


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "set.txt"
    path.write_bytes(b"one prompt\nanother\0")
    with pytest.raises(ValueError, match=r"set.txt, line 2: holds a NUL"):
        read_prompts(path)
    with pytest.raises(ValueError, match=r"set.txt: holds a NUL"):
        read_text(path)
