"""Deleting folders so that a kill leaves no part under their name."""

import asyncio
import shutil

import pytest
import snakemake.io
from snakemake.io import IOFile, directory

from learning_geometry.planning import removal
from learning_geometry.planning.removal import remove
from learning_geometry.planning.snakemake_work import _whole


def by_snakemake(path):
    asyncio.run(_whole(snakemake.io.remove)(IOFile(directory(str(path))), remove_non_empty_dir=True))


@pytest.fixture(params=[remove, by_snakemake])
def removing(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "results" / "checkpoints"
    made.mkdir(parents=True)
    for name in ("manifest.json", "step-0.safetensors"):
        (made / name).write_text(name)
    return made


class Killed(BaseException):
    """As if the process ended here."""


def killed_before_the_last_file(path, ignore_errors=False):
    next(path.iterdir()).unlink()
    raise Killed


def test_a_folder_loses_its_name_before_a_file_of_it(folder, removing, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(shutil, "rmtree", killed_before_the_last_file)
        removing(folder)
    assert not folder.exists()
    (left,) = folder.parent.iterdir()
    assert left.name.startswith(".checkpoints.removed.") and len(list(left.iterdir())) == 1
    # the next one takes what was left with it, before it is made anew and after
    folder.mkdir()
    removing(folder)
    assert list(folder.parent.iterdir()) == []


def test_what_was_left_goes_though_the_folder_is_gone(folder, monkeypatch):
    left = folder.replace(folder.with_name(".checkpoints.removed.0123abcd"))
    by_snakemake(folder)
    assert not left.exists()


def test_nothing_else_goes(folder, removing):
    others = [".checkpoints.removed.mine", ".checkpoints", ".metrics.removed.0123abcd", "checkpoints.removed.0123abcd"]
    for name in others:
        (folder.parent / name).mkdir()
    elsewhere = folder.parent.parent / "elsewhere"
    folder.replace(elsewhere)
    folder.symlink_to(elsewhere)
    (folder.parent / ".checkpoints.removed.00000000").symlink_to(elsewhere)
    removing(folder)
    assert not folder.is_symlink() and len(list(elsewhere.iterdir())) == 2
    assert {path.name for path in folder.parent.iterdir()} == {*others, ".checkpoints.removed.00000000"}


def test_files_go_as_before(tmp_path):
    file = tmp_path / "summary.csv"
    file.write_text("a")
    remove(file)
    assert not file.exists()
    with pytest.raises(FileNotFoundError):
        remove(file)
    assert removal.remove_leftovers(tmp_path / "absent" / "folder") is None
