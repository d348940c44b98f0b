"""Which file is of which seed and step: from names, from inside, from a list; and what cannot be told."""

import re
import shutil

import pytest
import torch
from safetensors.torch import save_file

from learning_geometry.sources.readers import SourceError, open_checkpoint
from learning_geometry.sources.series import find_series, hub_series

from . import tiny


def write(folder, *names, value=None):
    """Write files that differ, or hold the same value."""
    for place, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"model": {"a": torch.full((2,), float(place if value is None else value))}}, folder / name)


def names_of(series, folder):
    return {
        seed: {step: path.relative_to(folder).as_posix() for step, path in files.items()}
        for seed, files in series.items()
    }


def refused(folder, files, *arguments, **options):
    with pytest.raises(SourceError) as caught:
        find_series(files, *arguments, base=folder, **options)
    assert not re.search("delete|remove", str(caught.value))
    return str(caught.value)


def test_seeds_and_steps_are_the_numbers_in_names(tmp_path):
    write(tmp_path, *(f"runs/seed-{seed}/ckpt_{step}.pt" for seed in (0, 1, 10) for step in (100, 5, 20)))
    series = find_series("runs/seed-{seed}/ckpt_{step}.pt", [1, 10], "name", base=tmp_path)
    assert [list(files) for files in series.values()] == [[5, 20, 100]] * 2
    assert names_of(series, tmp_path)[1] == {step: f"runs/seed-1/ckpt_{step}.pt" for step in (5, 20, 100)}
    assert series == find_series(str(tmp_path / "runs/seed-{seed}/ckpt_{step}.pt"), [1, 10], "name")
    above = tmp_path / "runs"
    assert find_series("../runs/seed-{seed}/ckpt_{step}.pt", [1], "name", base=above)[1].keys() == {5, 20, 100}


def test_a_series_is_found_from_where_the_process_is(tmp_path, monkeypatch):
    write(tmp_path, "runs/ckpt_5.pt", "runs/ckpt_best.pt")
    monkeypatch.chdir(tmp_path)
    notes = []
    assert list(find_series("runs/ckpt_{step}.pt", [0], "name", notes=notes)[0]) == [5]
    assert notes == ["runs/ckpt_best.pt: left out, as no number stands where {step} does in runs/ckpt_{step}.pt"]


def test_folders_are_matched_and_numbers_may_be_padded_or_count_epochs(tmp_path):
    for step in (500, 1000):
        tiny.trainer_folder(tmp_path / f"out/checkpoint-{step}", step, {"a": torch.eye(2)})
    series = find_series("out/checkpoint-{step}", [0], "name", base=tmp_path)
    assert names_of(series, tmp_path) == {0: {500: "out/checkpoint-500", 1000: "out/checkpoint-1000"}}
    write(tmp_path, "s007/epoch_000.pt", "s007/epoch_010.pt", "s007/epoch_002.pt")
    series = find_series("s{seed}/epoch_{step}.pt", [7], "name", 391, tmp_path)
    assert names_of(series, tmp_path)[7] == {
        0: "s007/epoch_000.pt",
        782: "s007/epoch_002.pt",
        3910: "s007/epoch_010.pt",
    }


@pytest.mark.parametrize("wild", ["*", "{any}"])
def test_names_of_lightning_are_matched_with_anything_for_the_epoch(tmp_path, wild):
    names = ["epoch=0-step=5.ckpt", "epoch=0-step=10.ckpt", "epoch=1-step=15.ckpt"]
    write(tmp_path, *names, "last.ckpt", "epoch=0-step=10-train_loss=4.49.ckpt")
    notes = []
    series = find_series(f"epoch={wild}-step={{step}}.ckpt", [0], "name", base=tmp_path, notes=notes)
    assert names_of(series, tmp_path) == {0: dict(zip((5, 10, 15), names, strict=True))}
    assert len(notes) == 1 and "epoch=0-step=10-train_loss=4.49.ckpt: left out" in notes[0]


def test_a_loss_in_the_name_is_not_taken_for_the_step(tmp_path):
    write(tmp_path, "epoch=0-step=10-train_loss=4.49.ckpt")
    series = find_series("*step={step}-*.ckpt", [0], "name", base=tmp_path)
    assert list(series[0]) == [10]
    said = refused(tmp_path, "*{step}*.ckpt", [0], "name")
    assert "both 0 and 49 could be {step}" in said and "write more of the name" in said


def test_all_but_placeholders_and_stars_is_literal(tmp_path):
    write(tmp_path, "a[1]?/x.5.pt", "a1b/x.5.pt", "a[1]?/xy5.pt", ".hidden/x.5.pt")
    series = find_series("a[1]?/x.{step}.pt", [0], "name", base=tmp_path)
    assert names_of(series, tmp_path) == {0: {5: "a[1]?/x.5.pt"}}
    assert names_of(find_series("*/x.{step}.pt", [0], [3, 5], base=tmp_path), tmp_path)[0] == {
        3: "a1b/x.5.pt",
        5: "a[1]?/x.5.pt",
    }


def test_the_step_inside_is_that_of_each_tool(tmp_path):
    torch.save(tiny.lightning(20, tiny.tiny()), tmp_path / "a.ckpt")
    torch.save(tiny.nanogpt(5, tiny.nanogpt_state()), tmp_path / "b.ckpt")
    tiny.trainer_folder(tmp_path / "c.ckpt", 10, {"a": torch.eye(2)})
    series = find_series("*.ckpt", [0], "inside", base=tmp_path)
    assert names_of(series, tmp_path) == {0: {5: "b.ckpt", 10: "c.ckpt", 20: "a.ckpt"}}
    assert list(series[0]) == [5, 10, 20]


def test_a_second_file_of_the_same_bytes_is_left_out_and_said(tmp_path):
    for step in (5, 10):
        torch.save(tiny.lightning(step, tiny.tiny()), tmp_path / f"epoch=0-step={step}.ckpt")
    shutil.copy(tmp_path / "epoch=0-step=10.ckpt", tmp_path / "last.ckpt")
    notes = []
    series = find_series("*.ckpt", [0], "inside", base=tmp_path, notes=notes)
    assert names_of(series, tmp_path) == {0: {5: "epoch=0-step=5.ckpt", 10: "epoch=0-step=10.ckpt"}}
    assert len(notes) == 1 and "last.ckpt: left out, as it holds the same bytes as" in notes[0]
    torch.save(tiny.lightning(10, tiny.tiny(1)), tmp_path / "last.ckpt")
    said = refused(tmp_path, "*.ckpt", [0], "inside")
    assert "epoch=0-step=10.ckpt and " in said and "last.ckpt are of step 10, and differ" in said


def test_two_folders_of_a_step_are_compared_by_their_weights(tmp_path):
    for name in ("a-10", "b-10"):
        tiny.trainer_folder(tmp_path / name, 10, {"a": torch.eye(2)})
    notes = []
    assert names_of(find_series("*-{step}", [0], "name", base=tmp_path, notes=notes), tmp_path) == {0: {10: "a-10"}}
    assert len(notes) == 1
    save_file({"a": torch.zeros(2, 2)}, tmp_path / "b-10/model.safetensors")
    assert "are of step 10, and differ" in refused(tmp_path, "*-{step}", [0], "name")


def test_a_list_of_steps_goes_with_the_natural_order_of_names(tmp_path):
    for number in (0, 1, 2, 10):
        tiny.accelerate_folder(tmp_path / f"checkpoints/checkpoint_{number}", {"a": torch.full((2,), float(number))})
    series = find_series("checkpoints/checkpoint_*", [0], [0, 5, 10, 50], base=tmp_path)
    expected = dict(zip((0, 5, 10, 50), (0, 1, 2, 10), strict=True))
    assert names_of(series, tmp_path)[0] == {step: f"checkpoints/checkpoint_{n}" for step, n in expected.items()}
    with open_checkpoint(series[0][50]) as opened:
        assert opened.read("a").tolist() == [10, 10]
    said = refused(tmp_path, "checkpoints/checkpoint_*", [0], [0, 5])
    assert "matches 4 (checkpoint_0, checkpoint_1, checkpoint_2, checkpoint_10), and `step` lists 2" in said


@pytest.mark.parametrize("files", ["checkpoints/checkpoint_{step}", "checkpoints/checkpoint_{step}/model.safetensors"])
def test_accelerates_numbers_of_saves_are_not_taken_for_steps(tmp_path, files):
    for number in (0, 1):
        tiny.accelerate_folder(tmp_path / f"checkpoints/checkpoint_{number}", {"a": torch.eye(2)})
    said = refused(tmp_path, files, [0], "name")
    assert "its number counts saves, not steps; give `step: [..]`" in said
    assert "holds no step" in refused(tmp_path, files, [0], "inside")
    tiny.accelerate_folder(tmp_path / "own/step_500", {"a": torch.eye(2)})  # named by the user: save_state("step_500")
    assert list(find_series("own/step_{step}", [0], "name", base=tmp_path)[0]) == [500]


def test_what_is_there_is_said_where_nothing_matches(tmp_path):
    write(tmp_path, "runs/seed-0/ckpt_5.pt", "runs/seed-0/ckpt_10.pt", "runs/seed-2/ckpt_5.pt")
    files = "runs/seed-{seed}/ckpt_{step}.pt"
    said = refused(tmp_path, files, [0, 1], "name")
    assert f"{files} (seed 1): nothing matches" in said and "holds seed-0, seed-2" in said
    assert "holds ckpt_5.pt, ckpt_10.pt" in refused(tmp_path, "runs/seed-0/model_{step}.pt", [0], "name")
    assert "runs holds seed-0, seed-2" in refused(tmp_path, "runs/sed-0/ckpt_{step}.pt", [0], "name")
    assert "is a file, in which nothing is" in refused(tmp_path, "runs/seed-0/ckpt_5.pt/{step}", [0], "name")
    (tmp_path / "empty").mkdir()
    assert "empty is empty" in refused(tmp_path, "empty/{step}.pt", [0], "name")


def test_names_without_a_number_are_named(tmp_path):
    write(tmp_path, "ckpt_best.pt", "ckpt_last.pt")
    said = refused(tmp_path, "ckpt_{step}.pt", [0], "name")
    assert "no number stands where {step} does in ckpt_best.pt, ckpt_last.pt" in said and "`step: inside`" in said


@pytest.mark.parametrize("number", ["-1", "1.5", "1e3", "5k"])
def test_a_number_that_is_no_step_is_refused(tmp_path, number):
    write(tmp_path, f"ckpt_{number}.pt", "ckpt_5.pt")
    said = refused(tmp_path, "ckpt_{step}.pt", [0], "name")
    assert f"{number!r} stands where {{step}} does" in said and "no whole number from 0 on" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"global_step": 10, "iter_num": 9}, "global_step is 10 and iter_num is 9, and one is the step"),
        ({"global_step": -5}, "its global_step is -5, which is negative"),
        ({"epoch": 5}, "holds no step, neither global_step, iter_num, step nor trainer_state.json"),
    ],
)
def test_a_step_inside_that_cannot_be_told_is_refused(tmp_path, content, said):
    torch.save({"model": {"a": torch.eye(2)}} | content, tmp_path / "c.pt")
    assert said in refused(tmp_path, "*.pt", [0], "inside")
    torch.save({"model": {"a": torch.eye(2)}, "global_step": 7, "step": 7}, tmp_path / "c.pt")
    assert list(find_series("*.pt", [0], "inside", base=tmp_path)[0]) == [7]


def test_the_state_dict_of_a_step_inside_may_be_named(tmp_path):
    content = {"model": {"a": torch.eye(2)}, "net": {"a": torch.eye(2)}, "step": 3}
    torch.save(content, tmp_path / "c.pt")
    assert "under model and net" in refused(tmp_path, "*.pt", [0], "inside")
    assert list(find_series("*.pt", [0], "inside", base=tmp_path, state="net")[0]) == [3]


@pytest.mark.parametrize(
    ("files", "seeds", "step", "every", "said"),
    [
        ("c_{step}.pt", [0, 1], "name", 1, "has no {seed}, and there are 2 seeds; write {seed} where they differ"),
        ("c.pt", [0], "name", 1, "has no {step}; write it where the number stands"),
        ("{epoch}_{step}.pt", [0], "name", 1, "{epoch} is not known"),
        ("{step}/{step}.pt", [0], "name", 1, "has {step} more than once"),
        ("{step.pt", [0], "name", 1, "a brace is not closed"),
        ("**/{step}.pt", [0], "name", 1, "** is not read"),
        ("c_{step}.pt", [0], "names", 1, "step: 'names' is not known"),
        ("c_{step}.pt", [0], "name", 0, "every_number_is: 0, which must be 1 or more"),
        ("c_{step}.pt", [0], "inside", 391, "every_number_is: 391, which must be 1 or more, and 1 unless"),
        ("c_{step}.pt", [0], [0, -5], 1, "step: -5 is negative"),
        ("c_{step}.pt", [0], [5, 5], 1, "step: 5 is there twice"),
        ("{seed}_{step}.pt", [1, 1], "name", 1, "seeds: 1 is negative or there twice"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path, files, seeds, step, every, said):
    assert said in refused(tmp_path, files, seeds, step, every)


# --- the hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A local cache of the hub: links to blobs, a branch for every step, two of them without weights."""
    import huggingface_hub.constants

    repository = tmp_path / "hub/models--owner--tiny"
    for step in (0, 1, 512, 1000):
        commit = repository / f"snapshots/commit{step}"
        commit.mkdir(parents=True)
        (repository / "blobs").mkdir(exist_ok=True)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / f"refs/step{step}").write_text(f"commit{step}")
        (commit / "config.json").write_text("{}")
        if step != 1000:
            save_file({"a": torch.full((2,), float(step))}, repository / f"blobs/{step}")
            (commit / "model.safetensors").symlink_to(f"../../blobs/{step}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository


def test_revisions_in_the_hubs_cache_are_found_by_their_steps(cache):
    series = hub_series("owner/tiny", "step{step}", [512, 0, 1], download=False)
    assert list(series) == [0, 1, 512]
    for step, folder in series.items():
        with open_checkpoint(folder) as opened:
            assert opened.read("a").tolist() == [step, step]


@pytest.mark.parametrize(
    ("hub", "revision", "steps", "said"),
    [
        ("owner/tiny", "step{step}", [2], r"owner/tiny \(step2\): it is not in the hub's local cache; set `download"),
        ("owner/tiny", "step{step}", [1000], r"owner/tiny \(step1000\): what the hub's local cache has .* holds none"),
        ("owner/tiny", "main", [0], r"main: must hold \{step\} once"),
        ("owner/tiny", "step{step}", [-1], "`steps`: -1 is negative"),
        ("tiny", "step{step}", [0], "tiny: is no hub id"),
    ],
)
def test_a_revision_that_is_not_there_is_refused(cache, hub, revision, steps, said):
    with pytest.raises(SourceError, match=said):
        hub_series(hub, revision, steps, download=False)


def test_only_what_the_cache_lacks_is_downloaded(cache, monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot_download(source, revision, allow_patterns, **options):
        asked.append((source, revision))
        assert "*.safetensors" in allow_patterns and not any("bin" in pattern for pattern in allow_patterns)
        if revision == "step2":
            raise OSError("there is no network")
        (cache / "snapshots/commit1000/model.safetensors").symlink_to("../../blobs/0")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert list(hub_series("owner/tiny", "step{step}", [0, 1000], download=True)) == [0, 1000]
    assert asked == [("owner/tiny", "step1000")]
    with pytest.raises(SourceError, match=r"owner/tiny \(step2\): cannot be downloaded \(there is no network\)"):
        hub_series("owner/tiny", "step{step}", [2], download=True)
