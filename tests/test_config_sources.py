"""Experiments with a source: what goes together, what their files can feed, and what is refused before any job."""

import copy
import json

import numpy as np
import pytest
import safetensors.numpy

from learning_geometry.config import ConfigError, plan, validate
from learning_geometry.fingerprint import PACKAGE
from learning_geometry.planning.jobs import all_jobs
from learning_geometry.planning.plan import Plan

SCRIPTS = PACKAGE.parents[1] / "workflow/scripts"
MODEL = {"width": 8, "heads": 2, "layers": 2, "positions": "none", "bias": False}
TASK = {
    "name": "copying",
    "vocabulary": 16,
    "length": 24,
    "segment_length": [6, 7],
    "out_of_distribution_segment_length": 8,
    "test_sequences": 60,
}
ROLES = ("query", "key", "value", "output")


def ours(seed=0, step=0):
    generator = np.random.default_rng([seed, step])
    shapes = {"embedding.weight": (16, 8), "readout.weight": (16, 8)}
    for layer in range(2):
        shapes |= {f"layers.{layer}.attention.{role}.weight": (8, 8) for role in ROLES}
        shapes |= {f"layers.{layer}.attention_norm.{kind}": (8,) for kind in ("weight", "bias")}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def theirs(name):
    return f"net.{name}"


@pytest.fixture
def folder(tmp_path):
    for seed in (0, 1):
        (tmp_path / f"run-{seed}").mkdir()
        for step in range(0, 60, 10):
            tensors = {theirs(name): array for name, array in ours(seed, step).items()}
            safetensors.numpy.save_file(tensors, tmp_path / f"run-{seed}/s{step:03d}.safetensors")
    write_map(tmp_path, ours())
    return tmp_path


def write_map(folder, names, ignore=()):
    lines = [f"{name}: {theirs(name)}" for name in names]
    lines += [f"ignore: {json.dumps(list(ignore))}"] if ignore else []
    (folder / "own.yaml").write_text("\n".join(lines))


def experiment(folder, source=(), **more):
    given = {"files": f"{folder}/run-{{seed}}/s{{step}}.safetensors", **dict(source)}
    return {"seeds": [0, 1], "source": given, **more}


def checked(each, **more):
    return validate({"experiments": {"mine": copy.deepcopy(each)}, **more})["experiments"]["mine"]


def refusal(each, **more):
    with pytest.raises(ConfigError) as caught:
        checked(each, **more)
    return "\n".join(caught.value.problems)


def mapped(folder, **source):
    return {"names": str(folder / "own.yaml"), "unchecked": True, **source}


def test_a_source_needs_neither_task_nor_model_and_has_no_defaults_of_them(folder):
    each = checked(experiment(folder))
    assert not {"task", "model", "optimizer", "training"} & set(each)
    sizes = [path.stat().st_size for path in folder.glob("run-0/*.safetensors")]
    steps = {"steps": [0, 10, 20, 30, 40, 50], "every": 10}
    assert each["source"]["found"] == steps | {"bytes": sum(sizes), "largest": max(sizes)}
    assert validate({"experiments": {"mine": each}})["experiments"]["mine"] == each


def test_training_and_source_exclude_each_other_and_one_is_needed(folder):
    training = {"task": TASK, "training": {"steps": 10}}
    assert "mine.source: there is `training` too" in refusal(experiment(folder, **training))
    assert "mine.task: missing; add it" in refusal({"seeds": [0]})
    assert "mine.training: missing; add it" in refusal({"seeds": [0], "task": TASK})
    swept = experiment(folder, sweep={"optimizer.learning_rate": [1.0]})
    assert "mine.sweep: nothing is trained where there is a source" in refusal(swept)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"files": None}, "source: give `files` or `hub`, one of the two"),
        ({"hub": "a/b"}, "source: give `files` or `hub`, one of the two"),
        ({"files": None, "hub": "a/b"}, "source.step: name, and of a hub the steps must be listed"),
        ({"files": None, "hub": "a/b", "step": [0]}, "source.hub: no {seed} in it or in revision"),
        ({"unchecked": True}, "source.unchecked: without `names` nothing is put in place"),
        ({"names": "llama", "ignore": ["a"]}, "source.ignore: a map has an `ignore` of its own"),
        ({"names": "llama", "unchecked": True, "check": {"file": "a"}}, "source.unchecked: there is a `check`"),
        ({"names": "llama", "check": {"file": "a", "seed": 7}}, "source.check.seed: 7 is no seed of the experiment"),
        ({"names": "lama", "unchecked": True}, "source.names: 'lama' is no map; did you mean llama"),
        ({"ignore": ["nothing.*"]}, "source.files: {folder}/run-0/s000.safetensors: nothing is called nothing.*"),
        ({"step": [0, 5]}, "source.files: {folder}/run-{seed}/s{step}.safetensors"),
    ],
)
def test_what_does_not_go_together_is_refused(source, message, folder):
    expected = f"experiments.mine.{message}".replace("{folder}", str(folder))
    assert expected in refusal(experiment(folder, source))


def test_as_many_steps_are_listed_as_there_are_checkpoints(folder):
    assert "s050.safetensors), and `step` lists 2; list one" in refusal(experiment(folder, {"step": [0, 5]}))


def test_a_seed_without_files_is_named(folder):
    assert "seed 2" in refusal(experiment(folder) | {"seeds": [0, 2]})


def test_without_a_map_only_what_takes_any_matrices_is_allowed(folder):
    any_matrices = {"matrix_spectra": {"every": 10}, "series_audit": {}, "trajectory_geometry": {"windows": 0}}
    checked(experiment(folder, measurements=any_matrices))
    for name in ("composition", "embedding_spectrum", "sharpness", "commutators", "attention_entropy"):
        message = refusal(experiment(folder, measurements={name: {}}))
        assert f"measurements.{name}: it tells the parameters of the workflow's transformer apart" in message
    message = refusal(experiment(folder, measurements={"matrix_spectra": {"matrices": "head.*"}}))
    assert "no matrix of the checkpoints is called head.*; there are net.embedding.weight, " in message


def test_a_partial_map_feeds_what_reads_its_parameters_and_names_what_lacks(folder):
    attention = [name for name in ours() if ".attention." in name and "norm" not in name]
    rest = ["net.readout.weight", "net.layers.*.attention_norm.*"]
    write_map(folder, ["embedding.weight", *attention], rest)
    each = experiment(folder, mapped(folder), model=MODEL)
    names = ("embedding_spectrum", "composition", "routing_coordinate")
    checked(each | {"measurements": {name: {} for name in names}})
    message = refusal(each | {"measurements": {"bridge_energy": {}}})
    assert "it reads embedding.weight, " in message and "layers.*.attention_norm.weight" in message
    assert "does not give layers.0.attention_norm.weight and 1 more; add it there, or leave bridge_energy" in message
    message = refusal(each | {"measurements": {"sharpness": {}}, "task": TASK})
    assert (
        "it runs the model, and the map" in message
        and "does not give layers.0.attention_norm.weight and 4 more" in message
    )
    del each["model"]
    assert "it needs the settings of the model" in refusal(each | {"measurements": {"composition": {}}})


def test_a_full_map_without_a_task_feeds_what_reads_no_sequences(folder):
    each = experiment(folder, mapped(folder), model=MODEL)
    checked(each | {"measurements": {"bridge_energy": {"medium": 4, "ranks": [2], "lag_rank": 2}}})
    for name in ("sharpness", "rank_over_training"):
        message = refusal(each | {"measurements": {name: {}}})
        assert "it reads sequences; give the `task` that the runs learned" in message


def test_a_full_map_and_the_task_feed_everything_that_is_known_of_the_training(folder):
    each = experiment(folder, mapped(folder), model=MODEL, task=TASK)
    checked(each | {"measurements": {"sharpness": {"sequences": 10}, "head_scores": {"sequences": 10}}})
    message = refusal(each | {"measurements": {"commutators": {}}})
    assert "commutators: it draws batches of training's size; give source.batch_size" in message
    message = refusal(each | {"measurements": {"subspace_training": {"steps": 6}}})
    assert "subspace_training: it trains on from a checkpoint; give `optimizer`" in message
    known = experiment(folder, mapped(folder, batch_size=16), model=MODEL, task=TASK, optimizer={})
    checked(known | {"measurements": {"commutators": {"every": 10, "directions": 1}}})


def test_square_matrices_are_not_put_in_place_unchecked_in_silence(folder):
    each = experiment(folder, {"names": str(folder / "own.yaml")}, model=MODEL)
    message = refusal(each)
    assert (
        "source.check: no shape tells whether layers.0.attention.key.weight is transposed (7 more such); give"
        in message
    )
    assert "or set source.unchecked: true" in message


def test_tensors_that_the_map_does_not_know_are_named(folder):
    write_map(folder, [name for name in ours() if name != "layers.1.attention.value.weight"])
    assert "does not say what layers.1.attention.value.weight is" in refusal(
        experiment(folder, mapped(folder), model=MODEL)
    )


def test_a_model_of_other_sizes_is_told_with_both_shapes(folder):
    message = refusal(experiment(folder, mapped(folder), model=MODEL | {"width": 16}))
    assert "(8, 8)" in message and "(16, 16)" in message


def test_figures_that_tell_names_apart_are_refused_without_a_map(folder):
    each = experiment(folder, measurements={"trajectory_geometry": {"windows": 0}})
    message = refusal(each, figures={"trajectory_dimension": {"experiments": ["mine"]}})
    assert "trajectory_dimension tells the matrices of the workflow's transformer apart" in message


def test_steps_off_the_grid_and_holes_are_told_by_the_plan(folder):
    for seed in (0, 1):
        (folder / f"run-{seed}/s030.safetensors").unlink()
        tensors = {theirs(name): array for name, array in ours(seed, 3).items()}
        safetensors.numpy.save_file(tensors, folder / f"run-{seed}/s003.safetensors")
    config = validate({"experiments": {"mine": experiment(folder)}})
    text = plan(config)
    assert "6 steps, 0 to 50, 5 of them every 10, 30 missing; names as they are" in " ".join(text.split())
    assert "can feed matrix_spectra, series_audit, trajectory_geometry, trajectory_orientation" in " ".join(
        text.split()
    )
    assert "cannot feed attention_entropy" in text


def test_an_unchecked_map_is_said_by_the_plan(folder):
    config = validate({"experiments": {"mine": experiment(folder, mapped(folder), model=MODEL)}})
    assert "NOT CHECKED against logits of your own code" in plan(config)


def test_a_config_that_was_checked_is_drawn_again_where_the_files_are_not(folder):
    each = checked(experiment(folder, measurements={"series_audit": {}}))
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    again = validate({"experiments": {"mine": copy.deepcopy(each)}}, files=False)["experiments"]["mine"]
    assert again == each
    assert [job.rule for job in all_jobs({**validate({"experiments": {"mine": each}}, files=False)}, redraw=True)]
    assert "source.files: " in refusal(experiment(folder))


def given(folder, **arrays):
    tokens = np.arange(48).reshape(2, 24) % 16
    arrays = {"mine/tokens": tokens, "mine/targets": np.roll(tokens, -1, 1), **arrays}
    safetensors.numpy.save_file(
        {name: array for name, array in arrays.items() if array is not None}, folder / "t.safetensors"
    )
    return {"name": "given_test_sets", "file": str(folder / "t.safetensors")}


def test_sequences_of_ones_own_feed_what_needs_no_more_of_a_task(folder):
    each = experiment(folder, mapped(folder), model=MODEL, task=given(folder))
    checked(each | {"measurements": {"attention_entropy": {"every": 10, "sequences": 2}}})
    message = refusal(each | {"measurements": {"sharpness": {}}})
    assert "it reads the test set in_distribution, and the task has mine alone" in message
    message = refusal(each | {"measurements": {"attention_entropy": {"sequences": 3}}})
    assert "3 is more than the 2 of the test set mine" in message


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mine/targets": None}, "mine/targets is missing; it must be sequences × positions"),
        (
            {"mine/targets": np.zeros((2, 23), np.int64)},
            "mine/tokens is (2, 24), and its targets (2, 23); give each position a target, -100 for none",
        ),
        ({"loose": np.zeros(2)}, "loose is of no test set; call it `<test set>/<array>`"),
        ({"mine/place": np.zeros(3, np.int64)}, "mine/place has not one row for each sequence"),
    ],
)
def test_files_of_sequences_that_do_not_fit_are_refused(arrays, message, folder):
    task = given(folder, **arrays)
    assert f"task.file: {folder}/t.safetensors: {message}" in refusal(experiment(folder, task=task))


def test_given_sequences_cannot_be_trained_on(folder):
    message = refusal({"seeds": [0], "task": given(folder), "training": {"steps": 10}})
    assert "task.name: given_test_sets has nothing to train on" in message


def test_a_pattern_of_names_that_a_trained_model_lacks_is_refused_before_it_is_trained():
    each = {
        "seeds": [0],
        "task": TASK,
        "training": {"steps": 400, "evaluation_sequences": 60},
        "measurements": {"matrix_spectra": {"matrices": "h.*"}},
    }
    message = refusal(each)
    assert "matrix_spectra.matrices: no matrix of the model is called h.*; there are embedding.weight, " in message
    each["measurements"]["matrix_spectra"]["matrices"] = "layers.*.key.weight"
    checked(each)


def test_claims_are_judged_on_another_programs_checkpoints_and_hang_on_no_folder(folder, tmp_path_factory):
    def keys(at):
        each = experiment(at, mapped(at), task=TASK, model=MODEL | {"positions": "rotary", "heads": 1})
        each |= {"optimizer": {"name": "adamw", "learning_rate": 1e-3}}
        each |= {"study": "orthogonal_subspaces", "measurements": {"composition": {}}}
        config = validate({"experiments": {"mine": each}, "figures": {}})
        plan = Plan(config, SCRIPTS)
        (claims,) = [job for job in plan.jobs if job.rule == "judge_claims"]
        assert list(claims.settings["experiments"]) == ["mine"]
        # an archive holds the config, and so the folder
        return {job.title: plan.key(job) for job in plan.jobs if job.rule != "archive"}

    before = keys(folder)
    moved = tmp_path_factory.mktemp("moved") / "there"
    folder.rename(moved)
    assert keys(moved) == before
    assert len(before) > 6
