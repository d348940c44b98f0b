"""The cache of what files hold: right whatever happens to the files or to it."""

import os
import time

import pytest

from learning_geometry.known import Known, digest_of, file_digest


@pytest.fixture
def later(monkeypatch):
    """Files that were just written count as settled."""
    monkeypatch.setattr("learning_geometry.known.time.time_ns", lambda now=time.time_ns: now() + 10**11)


def test_a_file_is_read_once(tmp_path, later):
    path, read = tmp_path / "a", []
    path.write_text("one")
    for _ in range(2):
        known = Known(tmp_path / "known.json")
        assert known.of(path, "text", lambda path: (read.append(path), path.read_text())[1]) == "one"
        known.save()
    assert read == [path]


def test_other_bytes_of_the_same_size_and_time_are_seen(tmp_path, later):
    path = tmp_path / "a"
    path.write_text("one")
    known = Known()
    before, first = path.stat(), known.digest(path)
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    assert known.digest(path) == file_digest(path) != first


def test_a_folder_that_cannot_be_written_to_costs_time_alone(tmp_path, later):
    path = tmp_path / "a"
    path.write_text("one")
    known = Known(tmp_path / "no/such/folder/known.json")
    assert known.digest(path) == file_digest(path)
    known.save()
    assert sorted(tmp_path.iterdir()) == [path]


def test_what_was_changed_just_now_is_not_kept(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    known = Known(tmp_path / "known.json")
    known.digest(path)
    known.save()
    assert not (tmp_path / "known.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"digest a": 3}', '{"digest a": [[1], "x"]}', "\x00\xff"])
def test_a_damaged_cache_is_no_cache(tmp_path, later, text):
    (tmp_path / "known.json").write_text(text)
    path = tmp_path / "a"
    path.write_text("one")
    known = Known(tmp_path / "known.json")
    assert known.digest(path) == file_digest(path)
    known.save()
    assert Known(tmp_path / "known.json").digest(path) == file_digest(path)


def test_two_writers_keep_each_others_entries(tmp_path, later):
    paths = [tmp_path / name for name in "ab"]
    knowns = []
    for path in paths:
        path.write_text(path.name)
        knowns.append(Known(tmp_path / "known.json"))
        knowns[-1].digest(path)
    for known in knowns:
        known.save()
    found = Known(tmp_path / "known.json")
    for path in paths:
        assert found.of(path, "digest", lambda path: "read again") == file_digest(path)
    assert not list(tmp_path.glob("known.json.*"))


def test_digests_of_values_depend_on_values_alone():
    assert digest_of({"a": [1, 2.5, None], "b": "x"}) == digest_of({"b": "x", "a": [1, 2.5, None]})
    assert digest_of([1]) != digest_of([1.5])
