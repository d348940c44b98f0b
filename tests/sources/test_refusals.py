"""Checkpoints of other tools that are refused: the message names the file, what is in it, and what to do."""

import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint import save as distributed_save
from torch.distributed.checkpoint.api import CheckpointException

from learning_geometry.sources.readers import SourceError, open_checkpoint

from . import tiny


def refusal(path, state=None):
    """What is said of a checkpoint that is not opened; never to delete anything."""
    with pytest.raises(SourceError) as caught, open_checkpoint(path, state):
        pass
    said = str(caught.value)
    assert str(path) in said
    assert not re.search("delete|remove", said)
    return said


class Own(nn.Module):
    """A module without any layer of PyTorch's."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))


class Runs:
    """Runs a command when it is unpickled without care."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


def run_cure(said, folder):
    """Run the command that a message names, in a folder."""
    command = shlex.split(re.search(r"`(python .*?)`", said)[1])
    subprocess.run([sys.executable, *command[1:]], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_objects_are_named_and_the_command_that_is_named_converts_them(tmp_path, zipped):
    content = {"model_state_dict": tiny.tiny(), "args": argparse.Namespace(lr=0.1), "at": pathlib.PurePosixPath("x")}
    torch.save(content, tmp_path / "dict 5.pt", _use_new_zipfile_serialization=zipped)
    said = refusal(tmp_path / "dict 5.pt")
    assert "argparse.Namespace" in said and "save model.state_dict() alone" in said and "if you trust" in said
    assert not zipped or "pathlib.PurePosixPath" in said
    run_cure(said, tmp_path)
    with open_checkpoint(tmp_path / "dict 5-weights.pt") as opened:
        assert set(opened.tensors) == set(tiny.tiny())
        np.testing.assert_array_equal(opened.read("head.weight"), tiny.tiny()["head.weight"].numpy())


def test_a_path_in_lightnings_hyper_parameters_is_named(tmp_path):
    path = tmp_path / "epoch=0-step=5.ckpt"
    content = tiny.lightning(5, tiny.tiny(), hyper_parameters={"data": pathlib.Path("data"), "kind": "net"})
    content["state_dict"] = OrderedDict(content["state_dict"])
    content["state_dict"]._metadata = {"": {"version": 1}, "model": {"version": 1}}  # names of modules
    torch.save({"name": "module"} | content, path)
    said = refusal(path)
    assert "pathlib." in said and '["state_dict"]' in said


def test_a_whole_module_is_told_from_one_object_among_tensors(tmp_path):
    torch.save(nn.Linear(2, 3), tmp_path / "whole_5.pt")
    said = refusal(tmp_path / "whole_5.pt")
    assert "holds a whole module (torch.nn.modules.linear.Linear)" in said
    run_cure(said, tmp_path)
    with open_checkpoint(tmp_path / "whole_5-weights.pt") as opened:
        assert set(opened.tensors) == {"weight", "bias"}
    torch.save(Own(), tmp_path / "own.pt")
    assert "holds a whole module (tests.sources.test_refusals.Own)" in refusal(tmp_path / "own.pt")
    torch.save({"model": nn.Linear(2, 3), "epoch": 1}, tmp_path / "inside.pt")
    said = refusal(tmp_path / "inside.pt")
    run_cure(said, tmp_path)
    with open_checkpoint(tmp_path / "inside-weights.pt") as opened:
        assert set(opened.tensors) == {"weight", "bias"}


def test_the_key_of_the_state_dict_is_left_to_the_user_where_it_is_not_known(tmp_path):
    torch.save({"mine": {"a": torch.eye(2)}, "args": argparse.Namespace()}, tmp_path / "c.pt")
    assert '["KEY"]' in (said := refusal(tmp_path / "c.pt")) and "(KEY: of its state dict)" in said


@pytest.mark.parametrize("zipped", [True, False])
def test_what_would_run_a_command_is_refused_and_nobody_is_told_to_load_it(tmp_path, zipped):
    content = {"model": {"a": torch.eye(2)}, "x": Runs(f"touch {tmp_path / 'ran'}")}
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
    said = refusal(tmp_path / "c.pt")
    assert re.search(r"would run (posix|nt)\.system", said) and "weights_only=False" not in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_program_is_named(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 3)), tmp_path / "s.pt")
    assert "is a TorchScript program; load it with torch.jit.load" in refusal(tmp_path / "s.pt")


@pytest.mark.parametrize("name", ["a.pt", "model.safetensors"])
def test_an_empty_file_is_named_as_one(tmp_path, name):
    (tmp_path / name).touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / name)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_the_empty_file_that_pytorch_leaves_of_a_tied_head_is_refused(tmp_path):
    with pytest.raises(CheckpointException, match="Some tensors share memory"):
        distributed_save(tiny.tiny(), storage_writer=HuggingFaceStorageWriter(str(tmp_path)), no_dist=True)
    (empty,) = tmp_path.glob("*.safetensors")
    assert empty.stat().st_size == 0
    assert "is empty (0 bytes)" in refusal(empty)
    assert "there is model-00001-of-00001.safetensors" in refusal(tmp_path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_cut_file_is_refused(tmp_path, kind, keep):
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pt")
    if kind == "safetensors":
        save_file({"a": torch.randn(100, 100)}, path)
    else:
        torch.save({"a": torch.randn(100, 100)}, path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert "it is cut, damaged or no such file" in refusal(path)


@pytest.mark.parametrize("content", [b"hello, world", b"\x1f\x8b" + bytes(50), b"\x93NUMPY" + bytes(50)])
def test_a_file_of_another_format_is_refused(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    assert "neither a safetensors file nor one of torch.save" in refusal(tmp_path / "a.pt")
    np.savez(tmp_path / "b.npz", a=np.eye(2))
    assert "cannot be read as a file of PyTorch" in refusal(tmp_path / "b.npz")
    assert "no such file or folder" in refusal(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("name", "tensor", "kind"),
    [
        ("freqs", torch.eye(2, dtype=torch.complex64), "COMPLEX64"),
        ("sparse", torch.eye(2).to_sparse(), "SPARSE_COO"),
        ("eight", torch.eye(2).to(torch.float8_e4m3fn), "FLOAT8_E4M3FN"),
    ],
)
def test_a_tensor_of_a_type_that_is_not_read_is_listed_and_refused_by_name(tmp_path, name, tensor, kind):
    torch.save({"a": torch.eye(2), name: tensor}, tmp_path / "odd.pt")
    with open_checkpoint(tmp_path / "odd.pt") as opened:
        assert opened.tensors[name] == (kind, (2, 2))
        assert opened.read("a").any()
        with pytest.raises(SourceError, match=rf"odd\.pt: {name} is of type {kind}, which is not read"):
            opened.read(name)


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_quantised_tensors_are_refused_by_name(tmp_path):
    torch.save({"q": torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8)}, tmp_path / "q.pt")
    with open_checkpoint(tmp_path / "q.pt") as opened, pytest.raises(SourceError, match="q is of type QINT8"):
        opened.read("q")


def test_types_of_safetensors_that_are_not_read_are_refused_by_name(tmp_path):
    state = {"f": torch.eye(2).to(torch.float8_e5m2), "c": torch.eye(2, dtype=torch.complex64)}
    save_file(state, tmp_path / "odd.safetensors")
    with open_checkpoint(tmp_path / "odd.safetensors") as opened:
        for name, kind in (("f", "F8_E5M2"), ("c", "C64")):
            with pytest.raises(SourceError, match=f"{name} is of type {kind}, which is not read"):
                opened.read(name)


def test_a_tensor_without_values_is_refused_by_name(tmp_path):
    torch.save({"m": torch.empty(2, device="meta")}, tmp_path / "m.pt")
    with open_checkpoint(tmp_path / "m.pt") as opened, pytest.raises(SourceError, match="m has no values"):
        opened.read("m")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"model": {"a": torch.eye(2)}, "net": {"a": torch.eye(2)}},
            "under model and net; say which, as `state: model`",
        ),
        ({"ema": {"avg": {"a": torch.eye(2)}}, "epoch": 1}, "tensors under ema.avg; say which, as `state: ema.avg`"),
        ({"state": {0: {"exp_avg": torch.eye(2)}}, "param_groups": []}, "holds state, param_groups and no state dict"),
        ({"model": {"a": torch.eye(2), "extra": None}}, "'extra' under 'model' is a NoneType beside tensors"),
        ({"a": torch.eye(2), "step": 5}, "'step' in the file is a int beside tensors, and would be left out"),
        ({0: torch.eye(2)}, "0 in the file is a Tensor beside tensors, and would be left out"),
        (torch.eye(2), "holds one tensor without a name"),
        ([torch.eye(2)], "holds a list; save model.state_dict()"),
        ({}, "holds nothing and no state dict"),
        ({"model": {}}, "holds model and no state dict"),
    ],
)
def test_a_state_dict_that_cannot_be_told_is_refused(tmp_path, content, said):
    torch.save(content, tmp_path / "c.pt")
    assert said in refusal(tmp_path / "c.pt")


@pytest.mark.parametrize("state", ["nothing", "epoch", "model.a"])
def test_a_state_that_is_none_is_refused(tmp_path, state):
    torch.save({"model": {"a": torch.eye(2)}, "epoch": 1}, tmp_path / "c.pt")
    assert f"under {state!r}, and no state dict; correct `state`" in refusal(tmp_path / "c.pt", state)
    save_file({"a": torch.eye(2)}, tmp_path / "c.safetensors")
    assert f"in which no `state` {state!r} can be" in refusal(tmp_path / "c.safetensors", state)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_folder_of_torch_distributed_is_refused_and_the_command_that_is_named_converts_it(tmp_path):
    folder = tmp_path / "step 5"
    distributed_save({"model": tiny.untied(tiny.tiny())}, checkpoint_id=str(folder), no_dist=True)
    assert (folder / ".metadata").is_file() and (folder / "__0_0.distcp").is_file()
    said = refusal(folder)
    assert "its .metadata is a pickle, which is not read" in said
    assert f"format_utils dcp_to_torch '{folder}' 'step 5.pt'`" in said
    run_cure(said, tmp_path)
    with open_checkpoint(tmp_path / "step 5.pt") as opened:
        assert opened.state == "model"
        assert set(opened.tensors) == set(tiny.tiny())
        np.testing.assert_array_equal(opened.read("pos.weight"), tiny.tiny()["pos.weight"].numpy())


def test_a_folder_around_one_of_torch_distributed_is_refused(tmp_path):
    (tmp_path / "c/pytorch_model_fsdp_0").mkdir(parents=True)
    (tmp_path / "c/pytorch_model_fsdp_0/.metadata").write_bytes(b"a pickle")
    assert "dcp_to_torch" in (said := refusal(tmp_path / "c")) and "pytorch_model_fsdp_0.pt" in said


def test_one_ranks_file_of_a_sharded_save_is_refused(tmp_path):
    path = tmp_path / "shard-00001-model-00001-of-00001.safetensors"
    save_file({"a": torch.eye(2)}, path)
    assert "holds one rank's parts of the tensors" in refusal(path)


def test_a_folder_with_two_formats_is_refused_where_nothing_says_that_they_are_the_same(tmp_path):
    folder = tiny.accelerate_folder(tmp_path / "c", {"a": torch.eye(2)})
    torch.save({"a": torch.zeros(2, 2)}, folder / "pytorch_model.bin")
    assert "holds both model.safetensors and pytorch_model.bin, which may be of two saves" in refusal(folder)


@pytest.mark.parametrize("name", ["model_1.safetensors", "model-00005-of-00005.safetensors", "v_head.bin", "ema.pt"])
def test_a_folder_with_other_tensors_beside_its_weights_is_refused(tmp_path, name):
    folder = tiny.trainer_folder(tmp_path / "checkpoint-5", 5, {"a": torch.eye(2)})
    (folder / name).write_bytes(b"tensors")
    assert f"holds {name} beside model.safetensors" in refusal(folder)
    with open_checkpoint(folder / "model.safetensors") as opened:  # the cure
        assert opened.inside == {"global_step": 5}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "there is no file; give another folder"),
        (["notes.txt"], "there is notes.txt; give another folder"),
        (["ckpt.pt", "optimizer.bin"], r"there is ckpt.pt, optimizer.bin; give the file itself in `files`"),
        (["zero_to_fp32.py", "latest"], "was written by DeepSpeed; make one file of it with its own zero_to_fp32.py"),
        (["adapter_model.safetensors", "adapter_config.json"], "is an adapter (such as LoRA)"),
        (
            ["model.safetensors", "model.safetensors.index.json"],
            "holds both model.safetensors and model.safetensors.index",
        ),
    ],
)
def test_a_folder_without_weights_or_with_too_many_says_what_is_there(tmp_path, names, said):
    (tmp_path / "out").mkdir()
    for name in names:
        (tmp_path / "out" / name).write_text("x")
    assert said in refusal(tmp_path / "out")


@pytest.mark.parametrize(("write", "whole"), [(save_file, "model.safetensors"), (torch.save, "pytorch_model.bin")])
def test_an_index_that_does_not_fit_its_shards_is_refused(tmp_path, write, whole):
    def shards(name):
        return tiny.write_shards(tmp_path / name, tiny.llama(), write=write, whole=whole)

    ending = whole.split(".")[1]
    missing = shards("missing")
    (second := sorted(missing.glob(f"*-00002*.{ending}"))[0]).rename(tmp_path / "elsewhere")
    assert f"is in {second.name!r}, and there is no such file" in refusal(missing)
    twice = shards("twice")
    first, second = sorted(twice.glob(f"*.{ending}"))[:2]
    write({"model.norm.weight": torch.ones(8), "model.embed_tokens.weight": torch.eye(2)}, second)
    assert re.search("is not in .*-00002|embed_tokens.weight is in .*-00001.* by", refusal(twice))
    index = twice / f"{whole}.index.json"
    named = json.loads(index.read_text())["weight_map"]
    both = next(name for name in named if named[name] == first.name)
    write({name: torch.ones(1) for name in [*(n for n in named if named[n] == second.name), both]}, second)
    assert f"{second.name}: {both} is in {first.name} by {whole}.index.json" in refusal(twice)
    index.write_text("{}")
    assert "its weight_map names no files" in refusal(twice)
    index.write_text("cut")
    assert "its index cannot be read" in refusal(twice)


@pytest.mark.parametrize("key", ["step", "global_step"])
def test_shards_of_two_steps_are_refused_and_both_named(tmp_path, key):
    steps = iter(["10", "10", "20", "10"])
    folder = tiny.write_shards(tmp_path, tiny.llama(), write=lambda *of: save_file(*of, metadata={key: next(steps)}))
    said = refusal(folder)
    assert f"model-00001-of-00004.safetensors: its {key} is 10, and that of " in said
    assert "model-00003-of-00004.safetensors, of the same checkpoint, 20; they are not of one save" in said


def test_shards_that_hold_their_tensors_under_different_keys_are_refused_and_both_named(tmp_path):
    keys = iter(["model", "model", "module", "model"])
    write = lambda tensors, path: torch.save({next(keys): tensors}, path)  # noqa: E731
    folder = tiny.write_shards(tmp_path, tiny.llama(), write=write, whole="pytorch_model.bin")
    said = refusal(folder)
    assert "pytorch_model-00001-of-00004.bin: holds its tensors under 'model', and " in said
    assert "pytorch_model-00003-of-00004.bin, of the same checkpoint, under 'module'; they are not of one save" in said


@pytest.mark.parametrize(
    "other",
    [{"ema": tiny.tiny(1)}, {"ema": {"module": {f"module.{name}": each for name, each in tiny.tiny(1).items()}}}],
)
def test_of_two_state_dicts_of_the_same_names_neither_is_chosen_in_silence(tmp_path, other):
    torch.save({"model": tiny.tiny(), "optimizer": {"exp_avg": tiny.tiny()}, **other}, tmp_path / "c.pt")
    key = "ema.module" if "module" in other["ema"] else "ema"
    said = refusal(tmp_path / "c.pt")
    assert f"holds state dicts of the same names under model and {key}; say which, as `state: model`" in said
    for asked, seed in (("model", 0), (key, 1)):
        with open_checkpoint(tmp_path / "c.pt", asked) as opened:
            np.testing.assert_array_equal(opened.read("pos.weight"), tiny.tiny(seed)["pos.weight"].numpy())


def test_an_index_may_not_lead_elsewhere(tmp_path):
    folder = tiny.write_shards(tmp_path / "c", tiny.llama())
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001", "../model-00001"))
    assert "which is not in the folder" in refusal(folder)


def test_a_damaged_state_of_trainer_is_refused(tmp_path):
    folder = tiny.trainer_folder(tmp_path / "checkpoint-5", 5, {"a": torch.eye(2)})
    (folder / "trainer_state.json").write_text("{")
    assert "its state cannot be read" in refusal(folder)
