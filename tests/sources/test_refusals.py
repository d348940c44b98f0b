"""Checkpoints of other tools that are refused: the message names the file, what is in it, and what to do."""

import argparse
import datetime
import decimal
import fractions
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import types
import uuid
import zipfile
import zlib
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint import save as distributed_save
from torch.distributed.checkpoint.api import CheckpointException

from learning_geometry.sources import refusals
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


class Calls:
    """Calls a function when it is unpickled without care."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def cure(said):
    """The command that a message names."""
    command = shlex.split(re.search(r"`(python .*?)`", said)[1])
    return [sys.executable, *command[1:]]


def run_cure(said, folder):
    """Run the command that a message names, in a folder."""
    subprocess.run(cure(said), cwd=folder, check=True, capture_output=True)


def write(path, content, zipped):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert (path.read_bytes()[:2] == b"PK") is zipped
    return path


def write_pickle(path, pickle, zipped):
    """A file of PyTorch of which the pickle is given, as a program that does not come with PyTorch may write it."""
    write(path, "content", zipped)
    known = b"\x80\x02X\x07\x00\x00\x00contentq\x00."
    if not zipped:
        content = path.read_bytes()
        assert content.count(known) == 1
        path.write_bytes(content.replace(known, pickle))
        return path
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            assert not name.endswith("data.pkl") or content == known
            archive.writestr(name, pickle if name.endswith("data.pkl") else content)
    return path


def offers_nothing(said):
    """Whether a message holds no command, and no word of another way to load the file."""
    return "`" not in said and "python" not in said and "weights_only" not in said and "add_safe_globals" not in said


both_formats = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
HELD = {
    "argparse.Namespace": argparse.Namespace(lr=0.1, at=["x"]),
    "builtins.bytes": b"",
    "builtins.frozenset": frozenset([1]),
    "builtins.range": range(3),
    "builtins.slice": slice(3),
    "datetime.date": datetime.date(2024, 1, 2),
    "datetime.datetime": datetime.datetime(2024, 1, 2, 3, 4, 5, 6),
    "datetime.time": datetime.time(1, 2),
    "datetime.timedelta": datetime.timedelta(1),
    "datetime.timezone": datetime.UTC,
    "decimal.Decimal": decimal.Decimal("1.5"),
    "fractions.Fraction": fractions.Fraction(1, 3),
    "pathlib.PurePosixPath": pathlib.PurePosixPath("a/b"),
    "pathlib.PureWindowsPath": pathlib.PureWindowsPath("a"),
    "torch.torch_version.TorchVersion": torch.__version__,
    "types.SimpleNamespace": types.SimpleNamespace(a=1),
    "uuid.UUID": uuid.UUID(int=2**90),
}


@both_formats
def test_pickled_objects_are_named_and_the_command_that_is_named_converts_them(tmp_path, zipped):
    (folder := tmp_path / "it's a 'folder'").mkdir()
    content = {"model_state_dict": tiny.tiny(), "args": argparse.Namespace(lr=0.1), "at": pathlib.Path("x")}
    path = write(folder / "dict 5 é.pt", content, zipped)
    before = path.read_bytes()
    (tmp_path / "torch.py").write_text("raise SystemExit('the code that came with the file ran')")
    said = refusal(path)
    assert f"holds argparse.Namespace, pathlib.{type(pathlib.Path()).__name__} besides tensors" in said
    assert "save model.state_dict() alone" in said and "weights_only=True" in said and "False" not in said
    run_cure(said, tmp_path)
    new = folder / "dict 5 é-weights.pt"
    with open_checkpoint(new) as opened:
        assert set(opened.tensors) == set(tiny.tiny())
        np.testing.assert_array_equal(opened.read("head.weight"), tiny.tiny()["head.weight"].numpy())
    assert path.read_bytes() == before and sorted(folder.iterdir()) == sorted([new, path])


@both_formats
def test_the_command_that_is_named_overwrites_nothing(tmp_path, zipped):
    path = write(tmp_path / "c.pt", {"model": {"a": torch.eye(2)}, "args": argparse.Namespace()}, zipped)
    said = refusal(path)
    run_cure(said, tmp_path)
    new = tmp_path / "c-weights.pt"
    for kept in (new.read_bytes(), b"of the user"):
        new.write_bytes(kept)
        again = subprocess.run(cure(said), cwd=tmp_path, check=False, capture_output=True, text=True)
        assert again.returncode and "FileExistsError" in again.stderr
        assert new.read_bytes() == kept


@both_formats
def test_all_that_is_called_harmless_is_made_by_the_command_that_is_named(tmp_path, zipped):
    said = refusal(write(tmp_path / "c.pt", {"model": {"a": torch.eye(2)}} | HELD, zipped))
    listed = said.split("add_safe_globals([")[1].split("])")[0]
    for name in HELD:
        assert name.removeprefix("builtins.") in listed
    assert "and 13 more that merely hold data" in said
    run_cure(said, tmp_path)
    with open_checkpoint(tmp_path / "c-weights.pt") as opened:
        np.testing.assert_array_equal(opened.read("a"), np.eye(2))


def test_every_class_that_is_called_harmless_is_tried_or_one_that_pytorch_takes_or_a_path():
    known = {name for name in refusals.HARMLESS if not name.startswith("pathlib.")}
    assert known - set(HELD) == {"collections.Counter", "collections.OrderedDict"}
    assert set(HELD) <= set(refusals.HARMLESS)


@both_formats
@pytest.mark.parametrize("name", [name for name in refusals.HARMLESS if name.startswith("pathlib.")])
def test_a_path_of_another_system_or_python_is_no_hindrance(tmp_path, name, zipped):
    path = write(tmp_path / "c.pt", {"model": {"a": torch.eye(2)}, "at": pathlib.PurePosixPath("x")}, zipped)
    module, _, kind = name.rpartition(".")
    with_other(path, b"cpathlib\nPurePosixPath\n", f"c{module}\n{kind}\n".encode(), zipped)
    said = refusal(path)
    assert f"holds {name} besides" in said
    # what the command allows, without the time that another Python takes to start
    allowed = eval(re.search(r"add_safe_globals\((\[.*?\])\)", cure(said)[-3])[1], {"pathlib": pathlib})
    with torch.serialization.safe_globals(allowed):
        content = torch.load(path, weights_only=True)
    assert isinstance(content["at"], pathlib.PurePath) and str(content["at"]) == "x"


def with_other(path, old, new, zipped):
    """Replace bytes in the pickle of a file."""
    if not zipped:
        assert path.read_bytes().count(old) == 1
        path.write_bytes(path.read_bytes().replace(old, new))
        return
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    assert sum(content.count(old) for content in entries.values()) == 1
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content.replace(old, new))


@both_formats
def test_a_path_in_lightnings_hyper_parameters_is_named(tmp_path, zipped):
    path = tmp_path / "epoch=0-step=5.ckpt"
    content = tiny.lightning(5, tiny.tiny(), hyper_parameters={"data": pathlib.Path("data"), "kind": "net"})
    content["state_dict"] = OrderedDict(content["state_dict"])
    content["state_dict"]._metadata = {"": {"version": 1}, "model": {"version": 1}}  # names of modules
    said = refusal(write(path, {"name": "module"} | content, zipped))
    assert "holds pathlib." in said and '["state_dict"]' in said
    run_cure(said, tmp_path)
    with open_checkpoint(tmp_path / "epoch=0-step=5-weights.pt") as opened:
        assert set(opened.tensors) == {f"model.{name}" for name in tiny.tiny()}


@both_formats
@pytest.mark.parametrize("holder", [nn.Linear(2, 3), Own()], ids=["layer", "own"])
def test_a_whole_module_is_told_from_one_object_among_tensors_and_gets_no_command(tmp_path, holder, zipped):
    name = f"{type(holder).__module__}.{type(holder).__qualname__}"
    said = refusal(write(tmp_path / "whole_5.pt", holder, zipped))
    assert f"holds a whole module ({name}), which only its own code makes" in said
    assert "save model.state_dict() alone" in said and offers_nothing(said)
    said = refusal(write(tmp_path / "inside.pt", {"model": holder, "epoch": 1}, zipped))
    assert f"holds {name} besides tensors" in said
    assert "save model.state_dict() alone" in said and offers_nothing(said)


@both_formats
@pytest.mark.parametrize("name", ["mine", "a b", "`id`", "$(id)", 'x"]'])
def test_the_state_dict_is_found_under_another_key_if_that_is_a_plain_one(tmp_path, name, zipped):
    said = refusal(write(tmp_path / "c.pt", {name: {"a": torch.eye(2)}, "args": argparse.Namespace()}, zipped))
    if name != "mine":
        assert '["KEY"]' in cure(said)[-3] and name not in cure(said)[-3]
        return
    run_cure(said, tmp_path)
    with open_checkpoint(tmp_path / "c-weights.pt") as opened:
        assert set(opened.tensors) == {"a"}


@both_formats
def test_a_state_dict_under_several_keys_is_found(tmp_path, zipped):
    moments = {"state": {0: {"exp_avg": torch.eye(3)}}, "param_groups": []}
    inner = {"model": {"a": torch.eye(2)}, "ema": {"a": torch.ones(2)}, "optimizer": moments}
    said = refusal(write(tmp_path / "c.pt", {"args": argparse.Namespace(), "best": inner}, zipped))
    assert '["best"]["model"]' in said
    run_cure(said, tmp_path)
    with open_checkpoint(tmp_path / "c-weights.pt") as opened:
        np.testing.assert_array_equal(opened.read("a"), np.eye(2))


@both_formats
def test_the_key_of_the_state_dict_is_left_to_the_user_where_there_are_several(tmp_path, zipped):
    content = {"model": {"a": torch.eye(2)}, "net": {"a": torch.eye(2)}, "args": argparse.Namespace()}
    said = refusal(write(tmp_path / "c.pt", content, zipped))
    assert '["KEY"]' in said and '(instead of ["KEY"] one of ["model"], ["net"])' in said


@both_formats
def test_no_command_is_named_where_no_state_dict_is_seen(tmp_path, zipped):
    said = refusal(write(tmp_path / "c.pt", {"a": torch.eye(2), "args": argparse.Namespace()}, zipped))
    assert "holds argparse.Namespace besides tensors" in said and offers_nothing(said)


@both_formats
@pytest.mark.parametrize(
    ("calls", "names"),
    [
        (Calls(eval, "open('ran', 'w').close()"), "builtins.eval"),
        (Calls(subprocess.Popen, ["touch", "ran"]), "subprocess.Popen"),
        (Calls(getattr, "a", "upper"), "builtins.getattr"),
    ],
    ids=["eval", "subprocess", "getattr"],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_may_run_code_is_named_and_no_command_is(tmp_path, monkeypatch, calls, names, first, zipped):
    monkeypatch.chdir(tmp_path)  # where the file would be made
    content = {"model": {"a": torch.eye(2)}, "args": argparse.Namespace(lr=0.1)}
    content = {"x": calls} | content if first else content | {"x": calls}
    said = refusal(write(tmp_path / "c.pt", content, zipped))
    assert f"holds {names}, argparse.Namespace besides tensors" in said
    assert "save model.state_dict() alone, and do not load elsewhere what you do not trust" in said
    assert offers_nothing(said)
    assert [each.name for each in tmp_path.iterdir()] == ["c.pt"]


@both_formats
@pytest.mark.parametrize("harmless", [True, False], ids=["after a harmless one", "alone"])
def test_what_would_run_a_command_is_refused_and_nobody_is_told_to_load_it(tmp_path, harmless, zipped):
    before = {"args": argparse.Namespace(lr=0.1)} if harmless else {}
    content = before | {"model": {"a": torch.eye(2)}, "x": Calls(os.system, f"touch {tmp_path / 'ran'}")}
    said = refusal(write(tmp_path / "c.pt", content, zipped))
    assert re.search(r"would run (posix|nt)\.system when it is loaded", said)
    assert ("(it names argparse.Namespace too)" in said) is harmless
    assert "do not load it elsewhere" in said and offers_nothing(said)
    assert not (tmp_path / "ran").exists()


@both_formats
def test_of_many_classes_none_that_may_run_code_is_left_out(tmp_path, zipped):
    others = [type(f"Kind{number:02}", (), {"__module__": "elsewhere"}) for number in range(30)]
    module = types.ModuleType("elsewhere")
    vars(module).update({other.__name__: other for other in others})
    sys.modules["elsewhere"] = module
    try:
        content = {"model": {"a": torch.eye(2)}, "held": HELD, "own": [other() for other in others]}
        path = write(tmp_path / "c.pt", content | {"x": Calls(zlib.crc32, b"x")}, zipped)
    finally:
        del sys.modules["elsewhere"]
    said = refusal(path)
    named = said.split("holds ")[1].split(" besides")[0]
    names = [f"elsewhere.Kind{number:02}" for number in range(30)] + ["zlib.crc32"]
    assert named.split(", ")[:31] == names
    assert named.endswith("and 13 more that merely hold data") and offers_nothing(said)


@both_formats
@pytest.mark.parametrize("named", ["\x1b[2J\x1b[31mNamespace", "Nämespace", "a b`id`", "\u202eevil", "Namesp\\x61ce"])
def test_what_steers_a_terminal_is_escaped_in_names(tmp_path, named, zipped):
    pickle = (
        b"\x80\x02}(X\x01\x00\x00\x00acargparse\n" + named.encode() + b"\n)\x81X\x01\x00\x00\x00bcmine\nOwn\n)\x81u."
    )
    said = refusal(write_pickle(tmp_path / "c.pt", pickle, zipped))
    assert f"holds argparse.{ascii(named)[1:-1]}, mine.Own besides tensors" in said
    assert said.isprintable() and said.removeprefix(str(tmp_path)).isascii()
    assert "python" not in said.removeprefix(str(tmp_path)) and "weights_only" not in said


TEXT = {text: b"\x8c" + bytes([len(text)]) + text.encode() for text in ("argparse", "Namespace", "zlib", "crc32")}
STATES = b"X\x05\x00\x00\x00model}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n)Rs"
ARGUMENTS = b"X\x04\x00\x00\x00argscargparse\nNamespace\n)\x81"


def pickled(*more):
    """A dictionary with a state dict, a harmless object and more keys and values, but for the end."""
    return b"\x80\x02}(" + ARGUMENTS + b"".join(more) + STATES + b"u"


@both_formats
def test_a_pickle_made_by_hand_gets_a_command_where_it_is_harmless(tmp_path, zipped):
    said = refusal(write_pickle(tmp_path / "c.pt", pickled() + b".", zipped))
    assert "holds argparse.Namespace besides tensors, which" in said and "`python" in said


@both_formats
@pytest.mark.parametrize(
    ("pickle", "names"),
    [
        (TEXT["zlib"] + TEXT["crc32"] + b"\x93", "zlib.crc32, argparse.Namespace"),
        (TEXT["zlib"] + b"\x94" + TEXT["crc32"] + b"\x94h\x00h\x01\x93", "zlib.crc32, argparse.Namespace"),
        (TEXT["argparse"] + TEXT["Namespace"] + b"\x93", "argparse.Namespace"),
        (b"]" + TEXT["crc32"] + b"\x93", "an object whose name cannot be told, argparse.Namespace"),
        (b"\x82\x01", "an object whose name cannot be told, argparse.Namespace"),
        (b"(izlib\ncrc32\n", "zlib.crc32, argparse.Namespace"),
        (b"(czlib\ncrc32\no", "zlib.crc32, argparse.Namespace"),
    ],
    ids=["stack", "memo", "harmless", "no text", "extension", "inst", "obj"],
)
def test_names_are_found_however_a_pickle_says_them_and_such_a_pickle_gets_no_command(tmp_path, pickle, names, zipped):
    path = write_pickle(tmp_path / "c.pt", pickled(b"X\x01\x00\x00\x00x", pickle) + b".", zipped)
    said = refusal(path)
    assert f"holds {names} besides tensors (and perhaps more" in said
    assert offers_nothing(said)


@both_formats
@pytest.mark.parametrize("end", [b".\x80\x02czlib\ncrc32\n.", b"", b"\xff"], ids=["second", "cut", "damaged"])
def test_a_pickle_that_is_not_all_gets_no_command(tmp_path, end, zipped):
    path = write_pickle(tmp_path / "c.pt", pickled() + end, zipped)
    said = refusal(path)
    assert "argparse.Namespace besides tensors" in said and offers_nothing(said)
    assert zipped or end[:1] != b"." or "zlib.crc32" in said  # the old format has it where another pickle is read


def test_an_archive_behind_a_file_of_the_old_format_does_not_hide_its_pickle(tmp_path):
    write(tmp_path / "good.pt", {"model": {"a": torch.eye(2)}, "args": argparse.Namespace()}, True)
    path = write(tmp_path / "c.pt", {"x": argparse.Namespace(), "y": Calls(eval, "1+1")}, False)
    path.write_bytes(path.read_bytes() + (tmp_path / "good.pt").read_bytes())
    said = refusal(path)
    assert "holds builtins.eval, argparse.Namespace besides" in said and offers_nothing(said)


def test_an_archive_with_two_pickles_gets_no_command(tmp_path):
    path = write(tmp_path / "c.pt", {"model": {"a": torch.eye(2)}, "args": argparse.Namespace()}, True)
    assert "`python" in refusal(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", b"\x80\x02czlib\ncrc32\n.")
    said = refusal(path)
    assert "holds zlib.crc32, argparse.Namespace besides tensors (and perhaps more" in said and offers_nothing(said)


def test_a_class_behind_the_content_of_the_old_format_is_named(tmp_path):
    path = write(tmp_path / "c.pt", {"model": {"a": torch.eye(2)}, "args": argparse.Namespace()}, False)
    assert "`python" in refusal(path)
    content = path.read_bytes()
    key = content.rindex(b"\x80\x02]")  # the keys of tensors, behind the content
    path.write_bytes(content[:key] + b"\x80\x02czlib\ncrc32\n0" + content[key + 2 :])
    said = refusal(path)
    assert "holds zlib.crc32, argparse.Namespace besides" in said and offers_nothing(said)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_program_is_named_as_one_that_runs_code(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 3)), tmp_path / "s.pt")
    said = refusal(tmp_path / "s.pt")
    assert "is a TorchScript program, which can run code when it is loaded; if you trust who wrote it, load it" in said
    assert "torch.jit.load" in said and "weights_only" not in said


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
