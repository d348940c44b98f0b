"""Nothing is deleted that the workflow did not make."""

import re

import numpy as np
import pytest
import safetensors.numpy

from learning_geometry.files import finish_folder, write_tensors
from learning_geometry.ownership import NotOursError, check_ours, foreign_file

ARRAYS = {"a": np.zeros(3, np.float32)}


def finished(folder):
    write_tensors(folder / "working/step-000000.safetensors", ARRAYS, {"step": 0})
    finish_folder(folder / "working", folder / "checkpoints", {})
    return folder / "checkpoints"


def test_what_the_workflow_made_is_its_own_finished_or_not_damaged_or_not(tmp_path):
    folder = finished(tmp_path)
    (folder / ".snakemake_timestamp").touch()
    (folder / ".step-000010.0a1b2c3d.safetensors").write_bytes(b"of a writer that was killed")
    check_ours([folder, tmp_path / "absent"])
    (folder / "step-000000.safetensors").write_bytes(b"damaged")
    check_ours([folder])
    write_tensors(tmp_path / "half/step-000010.safetensors", ARRAYS, {})
    check_ours([tmp_path / "half"])


@pytest.mark.parametrize(
    "name", ["ckpt_10.pt", "notes.txt", "deeper/ckpt.bin", ".data/ckpt.pt", "step-000010.safetensors"]
)
def test_a_file_of_another_program_in_a_folder_is_named(name, tmp_path):
    folder = finished(tmp_path)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"mine")
    with pytest.raises(NotOursError, match=rf"{re.escape(name)} was not written by this workflow.*`source`"):
        check_ours([folder])
    assert (folder / name).read_bytes() == b"mine"


def test_safetensors_of_another_program_are_not_ours(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    safetensors.numpy.save_file(ARRAYS, tmp_path / "checkpoints/step-000000.safetensors")
    safetensors.numpy.save_file(ARRAYS, tmp_path / "dataset.safetensors")
    assert foreign_file(tmp_path / "checkpoints") == tmp_path / "checkpoints/step-000000.safetensors"
    assert foreign_file(tmp_path / "dataset.safetensors") == tmp_path / "dataset.safetensors"


def test_a_damaged_file_at_the_place_of_an_artifact_may_be_ours(tmp_path):
    (tmp_path / "dataset.safetensors").write_bytes(b"cut")
    check_ours([tmp_path / "dataset.safetensors"])
