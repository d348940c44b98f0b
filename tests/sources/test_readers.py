"""Checkpoints of other tools that are read: files, names, types, tied weights, steps."""

import json
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file, save_model
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint import save as distributed_save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

import learning_geometry
from learning_geometry.sources.checkpoint import unwrapped
from learning_geometry.sources.readers import SourceError, open_checkpoint

from . import tiny


def assert_holds(path, held, **expected):
    """Assert that a checkpoint holds these tensors, bitwise, as arrays of their own, and what else is expected."""
    arrays = {}
    with open_checkpoint(path, expected.pop("asked", None)) as opened:
        assert set(opened.tensors) == set(held)
        assert {name: getattr(opened, name) for name in expected} == expected
        for name, head in opened.tensors.items():
            arrays[name] = opened.read(name)
            assert arrays[name].shape == head.shape == tuple(held[name].shape)
    for name, array in arrays.items():  # after it was closed
        wide = held[name].float() if held[name].dtype in (torch.bfloat16, torch.float16) else held[name]
        np.testing.assert_array_equal(array, wide.numpy(), strict=True, err_msg=name)
        assert array.flags.c_contiguous and array.flags.writeable


def told_by(code):
    """What a process of its own says."""
    environment = os.environ | {"PYTHONPATH": str(Path(learning_geometry.__file__).parents[1])}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_read_as_it_is_and_its_tied_head_is_an_alias(tmp_path, zipped):
    state = tiny.tiny()
    assert len(state) == 31
    torch.save(OrderedDict(state), tmp_path / "step_5.pt", _use_new_zipfile_serialization=zipped)
    assert_holds(tmp_path / "step_5.pt", state, aliases={"head.weight": "tok.weight"}, state="", inside={})


@pytest.mark.parametrize("name", ["step_5.pth", "epoch=0.ckpt", "pytorch_model.bin", "checkpoint.pth.tar", "weights"])
def test_a_file_of_torch_save_is_known_by_its_bytes_whatever_its_name(tmp_path, name):
    torch.save({"tok.weight": torch.eye(3)}, tmp_path / name)
    assert_holds(tmp_path / name, {"tok.weight": torch.eye(3)})


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "module", "net"])
def test_a_state_dict_is_found_under_the_keys_that_tools_use(tmp_path, key):
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    content = {key: tiny.tiny(), "optimizer_state_dict": optimizer, "epoch": 3, "loss": torch.tensor(0.5)}
    torch.save(content, tmp_path / "dict_5.pt")
    assert_holds(tmp_path / "dict_5.pt", tiny.tiny(), state=key, inside={})


def test_a_state_dict_elsewhere_is_read_when_its_keys_are_given(tmp_path):
    torch.save(
        {"ema.0": {"shadow": {"a.weight": torch.eye(3)}}, "model": {"a.weight": torch.eye(2)}}, tmp_path / "c.pt"
    )
    assert_holds(tmp_path / "c.pt", {"a.weight": torch.eye(3)}, asked="ema.0.shadow", state="ema.0.shadow")


def test_what_stands_beside_a_state_dict_is_told_but_for_what_goes_on_training(tmp_path):
    state = {"a.weight": torch.eye(2)}
    content = {"model": state, "extra": torch.ones(3), "ema": {"shadow": {"b.weight": torch.eye(3)}}}
    content |= {"optimizer": {"exp_avg": state}, "rng_state": torch.ones(8), "best_val_loss": torch.ones(1)}
    content |= {"lr_scheduler": {"rates": torch.ones(2)}, "epoch": torch.tensor(3), "step": 5}
    torch.save(content, tmp_path / "c.pt")
    assert_holds(tmp_path / "c.pt", state, state="model", beside=("extra", "ema.shadow"), inside={"step": 5})
    shadow = {"b.weight": torch.eye(3)}
    assert_holds(tmp_path / "c.pt", shadow, asked="ema.shadow", beside=("model", "extra"))


@pytest.mark.parametrize(
    "wrapper", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module._orig_mod."]
)
@pytest.mark.parametrize("file", ["ddp.pt", "ddp.safetensors"])
def test_wrappers_are_stripped_in_any_order(tmp_path, wrapper, file):
    wrapped = {wrapper + name: tensor for name, tensor in tiny.tiny().items()}
    (torch.save if file.endswith("pt") else save_file)(
        wrapped if file.endswith("pt") else tiny.untied(wrapped), tmp_path / file
    )
    assert_holds(tmp_path / file, tiny.tiny())


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # which torch.compile itself uses
def test_wrappers_are_those_of_pytorch():
    layer = nn.Linear(2, 3)
    assert set(unwrapped(torch.compile(nn.DataParallel(layer)).state_dict()).values()) == {"weight", "bias"}
    assert set(unwrapped(nn.DataParallel(torch.compile(layer)).state_dict()).values()) == {"weight", "bias"}
    layers = nn.Sequential(torch.compile(layer), layer)
    assert set(unwrapped(layers.state_dict()).values()) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_an_attribute_of_the_users_own_is_no_wrapper():
    names = ["module.weight", "head.weight"]
    assert unwrapped(names) == {name: name for name in names}
    assert unwrapped(["model.module.weight"]) == {"model.module.weight": "model.module.weight"}
    with pytest.raises(ValueError, match=r"both 'a.b' and 'a._orig_mod.b' are 'a.b'"):
        unwrapped(["a.b", "a._orig_mod.b"])


@pytest.mark.parametrize("file", ["bf16.pt", "bf16.safetensors"])
def test_half_precision_becomes_float32_exactly_and_other_types_stay(tmp_path, file):
    every = torch.arange(-(2**15), 2**15).to(torch.int16)
    halves = {"b": every.view(torch.bfloat16), "h": every.view(torch.float16)}
    state = {name: torch.where(tensor.isnan(), 0, tensor) for name, tensor in halves.items()}
    state |= {"d": torch.randn(3, 2, dtype=torch.float64), "f": torch.randn(2, 3), "mask": torch.eye(2).bool()}
    state |= {kind: torch.tensor([1, 2], dtype=getattr(torch, kind)) for kind in ("int64", "int32", "uint8", "int8")}
    state |= {"scalar": torch.tensor(float("-inf")), "empty": torch.zeros(0, 4)}
    (torch.save if file.endswith("pt") else save_file)(state, tmp_path / file)
    assert_holds(tmp_path / file, state, aliases={})
    with open_checkpoint(tmp_path / file) as opened:
        kinds = {name: opened.tensors[name].type for name in ("b", "h", "d", "f", "mask", "int64", "uint8")}
    assert list(kinds.values()) == ["BF16", "F16", "F64", "F32", "BOOL", "I64", "U8"]


def test_views_of_large_storages_are_read_as_arrays_of_their_own_size(tmp_path):
    big = torch.randn(1000, 1000)
    state = {"corner": big[:2, :2], "transposed": torch.randn(3, 2).T, "every_other": big[0, ::2], "row": big[:1]}
    torch.save(state, tmp_path / "view.pt")
    assert (tmp_path / "view.pt").stat().st_size > 4e6
    assert_holds(tmp_path / "view.pt", state, aliases={})
    with open_checkpoint(tmp_path / "view.pt") as opened:
        corner = opened.read("corner")
        assert corner.base is None or corner.base.nbytes == 16
        corner[:] = 0  # the array is the caller's
        assert opened.read("corner").any()
    torch.testing.assert_close(torch.load(tmp_path / "view.pt", weights_only=True)["corner"], state["corner"])


def test_parameters_are_read_as_tensors(tmp_path):
    torch.save({"w": nn.Parameter(torch.eye(2))}, tmp_path / "p.pt")
    assert_holds(tmp_path / "p.pt", {"w": torch.eye(2)})


@pytest.fixture
def ranks(request):
    """A process group of so many ranks, of which this is the first and the others are not there."""
    dist.init_process_group("fake", rank=0, world_size=request.param, store=FakeStore())
    yield init_device_mesh("cpu", (request.param,))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("ranks", "placement"), [(1, Shard(0)), (1, Replicate()), (2, Replicate())], indirect=["ranks"]
)
def test_a_distributed_tensor_that_is_whole_is_read_without_a_process_group(tmp_path, ranks, placement):
    torch.save({"w": distribute_tensor(torch.eye(4), ranks, [placement])}, tmp_path / "state.pt")
    read = f"""
from learning_geometry.sources.readers import open_checkpoint
with open_checkpoint({str(tmp_path / "state.pt")!r}) as opened:
    print(opened.tensors["w"].shape, opened.read("w").tolist())
"""
    assert told_by(read).strip() == f"(4, 4) {torch.eye(4).tolist()}"


@pytest.mark.parametrize("ranks", [2], indirect=True)
def test_one_ranks_part_of_a_tensor_is_refused(tmp_path, ranks):
    torch.save({"model": {"w": distribute_tensor(torch.eye(4), ranks, [Shard(0)])}}, tmp_path / "state.pt")
    with pytest.raises(SourceError, match=r"state.pt: w is one rank's part, of 2; save what .*full_state_dict=True"):
        open_checkpoint(tmp_path / "state.pt").__enter__()


def test_a_tied_head_that_save_model_left_out_is_an_alias(tmp_path):
    model = nn.ModuleDict({"tok": nn.Embedding(16, 8), "head": nn.Linear(8, 16, bias=False)})
    model["head"].weight = model["tok"].weight
    save_model(model, str(tmp_path / "m.safetensors"), metadata={"format": "pt", "step": "20"})
    state = model.state_dict()
    assert_holds(tmp_path / "m.safetensors", state, aliases={"tok.weight": "head.weight"}, inside={"step": 20})


def test_metadata_that_name_no_tensor_are_no_aliases(tmp_path):
    save_file({"pt": torch.eye(2), "a": torch.ones(1)}, tmp_path / "m.safetensors", metadata={"format": "pt", "a": "b"})
    assert_holds(tmp_path / "m.safetensors", {"pt": torch.eye(2), "a": torch.ones(1)}, aliases={})


def test_a_header_as_long_as_a_pickle_begins_is_one_of_safetensors(tmp_path):
    for pad in range(300):
        save_file({"a": torch.eye(2)}, tmp_path / "m.safetensors", metadata={"format": "p" * pad})
        if (tmp_path / "m.safetensors").read_bytes()[:1] == b"\x80":
            break
    else:
        raise AssertionError("no header began with 0x80")
    assert_holds(tmp_path / "m.safetensors", {"a": torch.eye(2)})
    (tmp_path / "m.safetensors").rename(tmp_path / "renamed.bin")
    assert_holds(tmp_path / "renamed.bin", {"a": torch.eye(2)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [True, False])
def test_shards_of_transformers_and_accelerate_are_one_checkpoint(tmp_path, dtype, config):
    state = {name: tensor.to(dtype) for name, tensor in tiny.llama().items()}
    tiny.write_shards(tmp_path / "llama", state)
    if config:
        (tmp_path / "llama/config.json").write_text("{}")
    assert_holds(tmp_path / "llama", state)
    assert_holds(tmp_path / "llama/model.safetensors.index.json", state)


def test_shards_of_pytorchs_files_are_one_checkpoint(tmp_path):
    state = tiny.llama()
    assert_holds(tiny.write_shards(tmp_path, state, write=torch.save, whole="pytorch_model.bin"), state)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_shards_that_pytorch_writes_for_hugging_face_are_read(tmp_path):
    state = tiny.untied(tiny.tiny())
    distributed_save(state, storage_writer=HuggingFaceStorageWriter(str(tmp_path / "step_5")), no_dist=True)
    assert {path.name for path in (tmp_path / "step_5").iterdir()} >= {
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
    }
    assert_holds(tmp_path / "step_5", state)


@pytest.mark.parametrize("config", [True, False])
def test_a_checkpoint_of_trainer_says_its_step(tmp_path, config):
    state = {"transformer.wte.weight": torch.randn(16, 8), "transformer.h.0.attn.c_attn.weight": torch.randn(8, 24)}
    folder = tiny.trainer_folder(tmp_path / "checkpoint-10", 10, state, config)
    assert_holds(folder, state, inside={"global_step": 10})
    assert_holds(folder / "model.safetensors", state, inside={"global_step": 10})


def test_a_state_of_trainer_that_says_another_step_than_the_file_is_not_preferred(tmp_path):
    folder = tiny.trainer_folder(tmp_path / "checkpoint-10", 10, {"a": torch.eye(3)})
    save_file({"a": torch.eye(3)}, folder / "model.safetensors", metadata={"global_step": "5"})
    assert_holds(folder, {"a": torch.eye(3)}, inside={"global_step": 5, "trainer_state.json's global_step": 10})


def test_of_two_formats_at_the_hub_safetensors_are_read(tmp_path):
    folder = tiny.trainer_folder(tmp_path / "checkpoint-10", 10, {"a": torch.eye(3)})
    torch.save({"a": torch.zeros(3, 3)}, folder / "pytorch_model.bin")
    (folder / "consolidated.safetensors").write_bytes(b"the same by other names")
    assert_holds(folder, {"a": torch.eye(3)})


@pytest.mark.parametrize("pickled", [True, False])
def test_a_checkpoint_of_accelerate_is_read_and_says_no_step(tmp_path, pickled):
    state = tiny.tiny() if pickled else {k: v for k, v in tiny.tiny().items() if k != "head.weight"}
    folder = tiny.accelerate_folder(tmp_path / "checkpoints/checkpoint_0", state, pickled)
    aliases = {"head.weight": "tok.weight"} if pickled else {}
    assert_holds(folder, state, inside={}, aliases=aliases)


def test_a_checkpoint_of_lightning_keeps_the_modules_attribute_and_says_its_step(tmp_path):
    path = tmp_path / "epoch=0-step=5.ckpt"
    torch.save(tiny.lightning(5, tiny.tiny(), hyper_parameters={"lr": 0.1}), path)
    state = {f"model.{name}": tensor for name, tensor in tiny.tiny().items()}
    aliases = {"model.head.weight": "model.tok.weight"}
    assert_holds(path, state, state="state_dict", inside={"global_step": 5}, aliases=aliases)


def test_a_checkpoint_of_nanogpt_is_read_without_compiles_prefix(tmp_path):
    state = tiny.nanogpt_state()
    torch.save(tiny.nanogpt(2000, state), tmp_path / "ckpt.pt")
    aliases = {"lm_head.weight": "transformer.wte.weight"}
    assert_holds(tmp_path / "ckpt.pt", state, state="model", inside={"iter_num": 2000}, aliases=aliases)


def test_a_checkpoint_of_transformer_lens_is_read(tmp_path):
    state = tiny.transformer_lens()
    torch.save(state, tmp_path / "model_0.pt")
    assert_holds(tmp_path / "model_0.pt", state)


def test_deep_copies_are_no_aliases(tmp_path):
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False)
    torch.save(encoder.state_dict(), tmp_path / "e.pt")
    with open_checkpoint(tmp_path / "e.pt") as opened:
        assert opened.aliases == {}
        assert opened.tensors["layers.1.self_attn.in_proj_weight"].shape == (24, 8)
        np.testing.assert_array_equal(
            opened.read("layers.0.self_attn.in_proj_weight"), opened.read("layers.1.self_attn.in_proj_weight")
        )


@pytest.mark.parametrize("said", [5, 5.0, torch.tensor(5)])
def test_a_step_beside_the_state_dict_is_a_whole_number(tmp_path, said):
    torch.save({"model": {"a": torch.eye(2)}, "step": said, "iter_num": True, "global_step": 1.5}, tmp_path / "c.pt")
    assert_holds(tmp_path / "c.pt", {"a": torch.eye(2)}, inside={"step": 5})


@pytest.mark.parametrize(
    "said",
    [
        *(
            float("inf"),
            float("nan"),
            1e300,
            10**30,
            "9" * 5000,
            torch.tensor(float("nan")),
            torch.tensor(float("-inf")),
        ),
        *(torch.empty((), device="meta"), torch.tensor([5]), torch.tensor(5j)),
    ],
    ids=lambda said: f"{type(said).__name__} {said!s:.12}",
)
def test_what_is_no_finite_whole_number_is_no_step(tmp_path, said):
    torch.save({"model": {"a": torch.eye(2)}, "step": said, "iter_num": 7}, tmp_path / "c.pt")
    assert_holds(tmp_path / "c.pt", {"a": torch.eye(2)}, inside={"iter_num": 7})


def test_a_number_of_too_many_digits_in_metadata_is_no_step(tmp_path):
    metadata = {"global_step": "9" * 5000, "step": "0020"}
    save_file({"a": torch.eye(2)}, tmp_path / "c.safetensors", metadata=metadata)
    assert_holds(tmp_path / "c.safetensors", {"a": torch.eye(2)}, inside={"step": 20})


def test_safetensors_are_read_without_pytorch(tmp_path):
    tiny.write_shards(tmp_path / "llama", {k: v.bfloat16() for k, v in tiny.llama().items()})
    read = f"""
import sys
from learning_geometry.sources.readers import open_checkpoint
import learning_geometry.sources.series
with open_checkpoint({str(tmp_path / "llama")!r}) as opened:
    [opened.read(name) for name in opened.tensors]
print("torch" in sys.modules)
"""
    assert told_by(read) == "False\n"


@pytest.mark.parametrize("file", ["a.pt", "a.safetensors"])
def test_a_tensor_is_read_while_the_checkpoint_is_open_by_a_name_that_it_has(tmp_path, file):
    (torch.save if file.endswith("pt") else save_file)({"tok.weight": torch.eye(2)}, tmp_path / file)
    says = r"no tensor 'tok.weigth'; the nearest are tok\.weight"
    with open_checkpoint(tmp_path / file) as opened, pytest.raises(SourceError, match=says):
        opened.read("tok.weigth")
    with pytest.raises(SourceError, match=f"{file}: is closed"):
        opened.read("tok.weight")


def test_nothing_is_written_beside_the_files(tmp_path):
    folder = tiny.trainer_folder(tmp_path / "checkpoint-10", 10, {"a": torch.eye(3)})
    torch.save(tiny.tiny(), folder / "pytorch_model.bin")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    for path in (folder, folder / "pytorch_model.bin"):
        with open_checkpoint(path) as opened:
            for name in opened.tensors:
                opened.read(name)[...] = 0
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 10
