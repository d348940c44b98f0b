"""Checkpoints of another program become a run: their files are read alone, and nothing is put in the wrong place."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from learning_geometry.config import settings_schema
from learning_geometry.config.schemas import filled
from learning_geometry.files import read_tensor, read_tensor_metadata, read_tensor_shapes, verify_file
from learning_geometry.models import build
from learning_geometry.models.sizes import TaskSizes
from learning_geometry.models.transformer import SETTINGS, initialise
from learning_geometry.sources import torch_files
from learning_geometry.sources.checkpoint import SourceError
from learning_geometry.sources.opening import opened
from learning_geometry.tasks.dataset import make_dataset
from learning_geometry.training.checkpoints import read_arrays
from learning_geometry.training.importing import check_logits, import_run

MODEL = {"name": "transformer"} | {key: schema["default"] for key, schema in SETTINGS.items()}
MODEL |= {"width": 8, "heads": 2, "layers": 2, "mlp_width": 32, "positions": "learned", "final_norm": True}
MODEL |= {"tied_readout": True, "bias": ["query_key_value", "output", "mlp"]}
SOURCE = {"state": None, "names": "nanogpt", "ignore": [], "evaluation_sequences": 10, "batch_size": None}
SOURCE |= {"check": {"tolerance": 1e-4}, "unchecked": False}
SIZES = TaskSizes(8, 8, 24)
TASK = filled(
    {"vocabulary": 8, "length": 24, "segment_length": [6, 7], "test_sequences": 12}, settings_schema("tasks", "copying")
)
TASK |= {"name": "copying", "out_of_distribution_segment_length": 8}


def parameters(seed):
    drawn = initialise(MODEL, SIZES, np.random.default_rng(seed))
    return {name: value * 3 for name, value in drawn.items()}


def as_nanogpt(ours):
    state = {"transformer.wte.weight": ours["embedding.weight"], "transformer.wpe.weight": ours["positions.weight"]}
    for layer in range(2):
        at, there = f"layers.{layer}", f"transformer.h.{layer}"
        for kind in ("weight", "bias"):
            fused = [ours[f"{at}.attention.{role}.{kind}"] for role in ("query", "key", "value")]
            state[f"{there}.attn.c_attn.{kind}"] = torch.cat(fused)
            for own, name in {
                "attention_norm": "ln_1",
                "attention.output": "attn.c_proj",
                "mlp_norm": "ln_2",
                "mlp.up": "mlp.c_fc",
                "mlp.down": "mlp.c_proj",
            }.items():
                state[f"{there}.{name}.{kind}"] = ours[f"{at}.{own}.{kind}"]
    state |= {f"transformer.ln_f.{kind}": ours[f"final_norm.{kind}"] for kind in ("weight", "bias")}
    return {
        f"_orig_mod.{name}": value for name, value in (state | {"lm_head.weight": ours["embedding.weight"]}).items()
    }


def written(folder, steps=(0, 10, 20), change=lambda step, state: state):
    folder.mkdir(parents=True, exist_ok=True)
    for step in steps:
        state = change(step, as_nanogpt(parameters(step)))
        torch.save({"model": state, "model_args": {"bias": True}, "iter_num": step}, folder / f"ckpt_{step}.pt")
    return {step: folder / f"ckpt_{step}.pt" for step in steps}


def imported(places, directory, report=lambda step, note: None, run=None, dataset=None):
    run = run or {"source": SOURCE, "model": MODEL}
    return import_run(run, places, directory, {step: f"{step:x}" for step in places}, {"seed": 0}, dataset, report)


def snapshot(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in folder.rglob("*")}


def test_parameters_are_put_in_place_and_the_files_stay_as_they_are(tmp_path):
    places = written(tmp_path / "theirs")
    before = snapshot(tmp_path / "theirs")
    imported(places, tmp_path / "ours")
    for step in places:
        arrays, expected = read_arrays(tmp_path / "ours/checkpoints", step), parameters(step)
        assert arrays.keys() == expected.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, expected[name].numpy())
    assert snapshot(tmp_path / "theirs") == before
    about = read_tensor_metadata(tmp_path / "ours/checkpoints/step-000010.safetensors")
    assert about["file"]["path"] == str(places[10]) and about["file"]["digest"] == "a"
    assert about["file"]["types"] == {"F32": len(expected)} and about["uniform"] and about["step"] == 10


def test_an_import_goes_on_behind_the_last_checkpoint_that_is_whole(tmp_path):
    places, notes = written(tmp_path / "theirs"), {}

    def stop(step, note):
        if step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imported(places, tmp_path / "ours", stop)
    damaged = tmp_path / "ours/checkpoints/step-000000.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x01")
    imported(places, tmp_path / "ours", lambda step, note: notes.update({step: note}))
    assert {step: note == "there already" for step, note in notes.items()} == {0: False, 10: True, 20: False}
    straight = tmp_path / "straight"
    imported(places, straight)
    for step in places:
        name = f"checkpoints/step-{step:06d}.safetensors"
        assert (tmp_path / "ours" / name).read_bytes() == (straight / name).read_bytes()


def test_a_checkpoint_of_a_step_that_is_gone_is_not_kept(tmp_path):
    places = written(tmp_path / "theirs")
    imported(places, tmp_path / "ours")
    imported({0: places[0], 20: places[20]}, tmp_path / "ours")
    assert sorted(path.name for path in (tmp_path / "ours/checkpoints").iterdir()) == [
        "step-000000.safetensors",
        "step-000020.safetensors",
    ]


def test_losses_and_errors_are_computed_where_the_task_is_known_and_not_of_what_is_no_number(tmp_path):
    def spoil(step, state):
        if step == 20:
            state["_orig_mod.transformer.h.1.mlp.c_fc.bias"][0] = float("nan")
        return state

    places, notes = written(tmp_path / "theirs", change=spoil), {}
    run = {"source": SOURCE, "model": MODEL, "task": TASK}
    report = lambda step, note: notes.update({step: note})  # noqa: E731
    rows = imported(places, tmp_path / "ours", report, run, make_dataset(TASK, 0))
    assert {row["step"] for row in rows} == {0, 10}
    assert {row["quantity"] for row in rows} >= {"running_loss", "running_error"}
    assert "losses are not computed" in notes[20] and "layers.1.mlp.up.bias: 1 of 32" in notes[20]
    assert np.isnan(read_arrays(tmp_path / "ours/checkpoints", 20)["layers.1.mlp.up.bias"][0])


def test_without_a_map_names_stay_and_what_is_left_out_is_told(tmp_path):
    tensors = {"a.weight": torch.ones(2, 3), "half": torch.full((4,), 1.5, dtype=torch.bfloat16)}
    tensors |= {"mask": torch.ones(2, 2, dtype=torch.bool), "scale": torch.tensor(2.0), "skip.weight": torch.ones(2, 2)}
    safetensors.torch.save_file(tensors, tmp_path / "step_5.safetensors")
    run = {"source": SOURCE | {"names": None, "ignore": ["skip.*"]}}
    imported({5: tmp_path / "step_5.safetensors"}, tmp_path / "ours", run=run)
    arrays = read_arrays(tmp_path / "ours/checkpoints", 5)
    assert {name: (array.dtype.name, array.shape) for name, array in arrays.items()} == {
        "a.weight": ("float32", (2, 3)),
        "half": ("float32", (4,)),
    }
    about = read_tensor_metadata(tmp_path / "ours/checkpoints/step-000005.safetensors")["file"]
    assert about["left_out"] == {"mask": "of type BOOL", "scale": "a single number", "skip.weight": "ignored"}
    assert about["types"] == {"BF16": 1, "F32": 1}


def test_fused_tensors_are_read_once(tmp_path, monkeypatch):
    read = []
    values = torch_files._values
    monkeypatch.setattr(torch_files, "_values", lambda *of: read.append(of[2].split(": ")[1]) or values(*of))
    imported(written(tmp_path, steps=(0,)), tmp_path / "ours")
    fused = sorted(name for name in read if "c_attn" in name)
    assert fused == [f"_orig_mod.transformer.h.{i}.attn.c_attn.{kind}" for i in (0, 1) for kind in ("bias", "weight")]


@pytest.mark.parametrize("names", ["nanogpt", None])
def test_what_stands_beside_the_state_dict_is_told(names, tmp_path):
    content = {"model": as_nanogpt(parameters(0)), "extra": torch.ones(3), "optimizer": {"m": torch.ones(3)}}
    torch.save(content, tmp_path / "ckpt_0.pt")
    run = {"source": SOURCE | {"names": names}} | ({"model": MODEL} if names else {})
    notes = []
    imported({0: tmp_path / "ckpt_0.pt"}, tmp_path / "ours", lambda step, note: notes.append(note), run=run)
    assert notes[0].endswith("; beside the state dict, and left out: extra")
    about = read_tensor_metadata(tmp_path / "ours/checkpoints/step-000000.safetensors")["file"]
    assert about["left_out"]["extra"] == "beside the state dict" and "optimizer.m" not in about["left_out"]


def test_what_is_to_be_ignored_must_be_there(tmp_path):
    safetensors.torch.save_file({"a.weight": torch.ones(2, 3)}, tmp_path / "step_5.safetensors")
    run = {"source": SOURCE | {"names": None, "ignore": ["b.*"]}}
    with pytest.raises(SourceError, match=r"nothing is called b\.\*"):
        imported({5: tmp_path / "step_5.safetensors"}, tmp_path / "ours", run=run)


def test_checkpoints_that_are_not_of_one_run_are_told_apart(tmp_path):
    for step, columns in ((0, 3), (5, 4)):
        safetensors.torch.save_file({"a.weight": torch.ones(2, columns)}, tmp_path / f"step_{step}.safetensors")
    places = {step: tmp_path / f"step_{step}.safetensors" for step in (0, 5)}
    run = {"source": SOURCE | {"names": None}}
    with pytest.raises(SourceError, match=r"step_5.*a\.weight is \(2, 4\), and \(2, 3\) in .*step_0"):
        imported(places, tmp_path / "ours", run=run)
    safetensors.torch.save_file({"b.weight": torch.ones(2, 3)}, tmp_path / "step_5.safetensors")
    with pytest.raises(SourceError, match=r"step_5\.safetensors: holds no a\.weight"):
        imported(places, tmp_path / "again", run=run)


def logits_of(tmp_path, step):
    tokens = torch.randint(8, (3, 24), generator=torch.Generator().manual_seed(0))
    logits = build(MODEL, SIZES).forward(parameters(step), tokens)
    safetensors.torch.save_file({"tokens": tokens, "logits": logits.detach()}, tmp_path / "check.safetensors")
    return tmp_path / "check.safetensors"


RUN = {"source": SOURCE, "model": MODEL}


def test_logits_of_the_right_parameters_pass(tmp_path):
    assert check_logits(RUN, written(tmp_path)[20], logits_of(tmp_path, 20)) < 1e-6


def test_a_transposed_key_is_told_by_the_logits_alone(tmp_path):
    def transpose(step, state):
        fused = state["_orig_mod.transformer.h.0.attn.c_attn.weight"]
        fused[8:16] = fused[8:16].T.clone()
        return state

    places = written(tmp_path, change=transpose)
    imported(places, tmp_path / "ours")  # no shape tells
    with pytest.raises(SourceError, match="a matrix is transposed"):
        check_logits(RUN, places[20], logits_of(tmp_path, 20))


def test_other_settings_of_the_model_are_told_by_the_logits(tmp_path):
    places = written(tmp_path)
    for change in ({"activation": "relu"}, {"norm_epsilon": 1e-1}, {"causal": False}):
        with pytest.raises(SourceError, match="settings of `model`"):
            check_logits({"source": SOURCE, "model": MODEL | change}, places[20], logits_of(tmp_path, 20))


def test_logits_that_could_not_tell_are_refused(tmp_path):
    places = written(tmp_path)
    loose = {"source": SOURCE | {"check": {"tolerance": 0.1}}, "model": MODEL | {"mlp_width": 32}}

    def faint(step, state):
        # outputs of attention that hardly matter
        return {name: value * (1e-4 if "c_proj" in name else 1.0) for name, value in state.items()}

    faint_places = written(tmp_path / "faint", change=faint)
    tokens = torch.randint(8, (3, 24), generator=torch.Generator().manual_seed(0))
    with opened(faint_places[20], SOURCE, MODEL) as one:
        read = {name: torch.from_numpy(one.read(name)) for name in one.types}
    logits = build(MODEL, SIZES).forward(read, tokens)
    safetensors.torch.save_file({"tokens": tokens, "logits": logits}, tmp_path / "faint.safetensors")
    with pytest.raises(
        SourceError, match=r"no shape tells whether .*\.attention\.output\.weight is transposed.* would let pass"
    ):
        check_logits(loose, faint_places[20], tmp_path / "faint.safetensors")
    with pytest.raises(SourceError, match="differ"):  # those of another run are told by how far off they are
        check_logits(RUN, places[20], tmp_path / "faint.safetensors")


def exchanged_keys_and_queries(step, state):
    for name, value in state.items():
        if "c_attn" in name:
            value[:16] = value[:16].roll(8, 0)
    return state


def fused_head_by_head(step, state):
    for name in [name for name in state if "c_attn" in name]:
        by_role = state[name].reshape(3, 2, 4, *state[name].shape[1:])
        state[name] = by_role.swapaxes(0, 1).reshape(state[name].shape)
    return state


@pytest.mark.parametrize("change", [exchanged_keys_and_queries, fused_head_by_head])
def test_parts_in_another_order_are_told_by_the_logits_alone(change, tmp_path):
    places = written(tmp_path, change=change)
    imported(places, tmp_path / "ours")  # no shape tells
    with pytest.raises(SourceError, match="a part is in another place"):
        check_logits(RUN, places[20], logits_of(tmp_path, 20))


def test_logits_that_could_not_tell_the_order_of_fused_parts_are_refused(tmp_path):
    def alike(step, state):
        # queries that are keys as well
        for name, value in state.items():
            if "c_attn" in name:
                value[8:16] = value[:8]
        return state

    places = written(tmp_path, change=alike)
    with opened(places[20], SOURCE, MODEL) as one:
        read = {name: torch.from_numpy(one.read(name)) for name in one.types}
    tokens = torch.randint(8, (3, 24), generator=torch.Generator().manual_seed(0))
    logits = build(MODEL, SIZES).forward(read, tokens)
    safetensors.torch.save_file({"tokens": tokens, "logits": logits}, tmp_path / "alike.safetensors")
    with pytest.raises(SourceError, match=r"which of .*query\.weight and .*key\.weight comes first.* would let pass"):
        check_logits(RUN, places[20], tmp_path / "alike.safetensors")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"tokens": torch.zeros(1, 4, dtype=torch.int64)}, "must hold `tokens`"),
        (
            {"tokens": torch.full((1, 4), 9), "logits": torch.ones(1, 4, 8)},
            "tokens from 9 to 9, and the embedding has 8",
        ),
        (
            {"tokens": torch.zeros(1, 4, dtype=torch.int64), "logits": torch.ones(1, 4, 9)},
            r"logits of shape \(1, 4, 9\)",
        ),
    ],
)
def test_a_file_of_logits_that_does_not_fit_is_refused(tensors, message, tmp_path):
    safetensors.torch.save_file(tensors, tmp_path / "check.safetensors")
    with pytest.raises(SourceError, match=message):
        check_logits(RUN, written(tmp_path)[20], tmp_path / "check.safetensors")


LIMITED = """
    import resource, sys
    from pathlib import Path
    import numpy, torch
    from learning_geometry.training.importing import import_run
    torch.set_num_threads(1)
    folder, ending, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    source = {"state": None, "names": None, "ignore": [], "evaluation_sequences": 1, "batch_size": None}
    places = {step: folder / f"step_{step}.{ending}" for step in range(6)}
    def run(places, to):
        import_run({"source": source}, places, folder / to, {step: "" for step in places}, {})
    run({0: folder / f"small.{ending}"}, "first")  # what is imported late
    now = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
    most = now + int(1.3 * size)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    run(places, "ours")
    print("done")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is set from what Linux tells")
@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_a_series_larger_than_memory_is_imported_within_one_third_more_than_a_checkpoint(ending, tmp_path):
    rows = 2**21  # sixteen tensors of 4 MB: a file of 64 MB, six of them 400
    save = torch.save if ending == "pt" else safetensors.torch.save_file
    save({"a.weight": torch.ones(2, 2)}, tmp_path / f"small.{ending}")
    for step in range(6):
        tensors = {f"h.{i}.weight": torch.full((rows // 16, 8), float(step + i)) for i in range(16)}
        save(tensors, tmp_path / f"step_{step}.{ending}")
    size = (tmp_path / f"step_0.{ending}").stat().st_size
    code = textwrap.dedent(LIMITED)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC", "GLIBC"))}
    environment = plain | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(tmp_path), ending, str(size)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr
    assert read_arrays(tmp_path / "ours/checkpoints", 5)["h.15.weight"][0, 0] == 20.0


def test_what_lies_in_safetensors_as_it_is_can_stay_there(tmp_path):
    tensors = {"a.weight": torch.randn(300, 300), "odd": torch.randn(3, 5)}
    tensors |= {"half": torch.full((4,), 1.5, dtype=torch.bfloat16), "skip.weight": torch.ones(2, 2)}
    theirs = tmp_path / "step_5.safetensors"
    safetensors.torch.save_file(tensors, theirs)
    run = {"source": SOURCE | {"names": None, "ignore": ["skip.*"]}}
    import_run(run, {5: theirs}, tmp_path / "ours", {5: "5"}, {}, copy=False)
    path = tmp_path / "ours/checkpoints/step-000005.safetensors"
    assert path.stat().st_size < theirs.stat().st_size / 20
    arrays = read_arrays(tmp_path / "ours/checkpoints", 5)
    assert set(arrays) == {"a.weight", "odd", "half"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, tensors[name].float().numpy())
        np.testing.assert_array_equal(read_tensor(path, name, slice(1, 3)), tensors[name].float().numpy()[1:3])
    assert read_tensor_shapes(path)["a.weight"] == (300, 300)
    verify_file(path)
    # a bit that changes there is an error as it is here
    content = bytearray(theirs.read_bytes())
    content[-2000] ^= 1
    theirs.write_bytes(content)
    with pytest.raises(ValueError, match=r"they lie in .*step_5\.safetensors, which was changed"):
        verify_file(path)
    theirs.unlink()
    with pytest.raises(ValueError, match=r"lies in .*step_5\.safetensors, which is not there; put it back"):
        read_arrays(tmp_path / "ours/checkpoints", 5)


def test_through_a_map_only_what_needs_no_operation_stays(tmp_path):
    state = {name.removeprefix("_orig_mod."): value for name, value in as_nanogpt(parameters(0)).items()}
    state = {name: value.contiguous() for name, value in state.items() if name != "lm_head.weight"}
    safetensors.torch.save_file(state, tmp_path / "step_0.safetensors")
    import_run(RUN, {0: tmp_path / "step_0.safetensors"}, tmp_path / "ours", {0: "0"}, {}, copy=False)
    path = tmp_path / "ours/checkpoints/step-000000.safetensors"
    with safetensors.safe_open(path, framework="numpy") as opened:
        inside = set(opened.keys())
    fused = [f"attention.{role}.{kind}" for role in ("query", "key", "value") for kind in ("weight", "bias")]
    assert inside == {f"layers.{layer}.{name}" for layer in (0, 1) for name in fused}
    for name, array in read_arrays(tmp_path / "ours/checkpoints", 0).items():
        np.testing.assert_array_equal(array, parameters(0)[name].numpy())
