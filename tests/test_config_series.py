"""A language model with a series: which models it stands for, what is refused before any job, which figures show it."""

import json
import shutil
from typing import Any

import pytest

from learning_geometry.config import ConfigError, plan, series, validate
from learning_geometry.model_files import hub
from tests.tiny_language_model import write_tiny_language_model

PATTERN = "runs/seed_{seed}/step-{step}"
HUB = {"source": "owner/model", "revision": "step{step}", "download": True}


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """The same model of two layers at three steps of two seeds; a file has no weights of its own step."""
    folder = tmp_path_factory.mktemp("trainings")
    first = write_tiny_language_model(folder / "runs/seed_1/step-00000", layers=2)
    for place in (
        "seed_1/step-00010",
        "seed_1/step-01000",
        "seed_2/step-00000",
        "seed_2/step-00010",
        "seed_2/step-01000",
    ):
        shutil.copytree(first, folder / "runs" / place)
    return folder


@pytest.fixture
def here(trainings, monkeypatch):
    monkeypatch.chdir(trainings)
    return trainings


@pytest.fixture
def copied(trainings, tmp_path, monkeypatch):
    shutil.copytree(trainings / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(model: Any, steps: Any, **more: Any) -> dict[str, Any]:
    entry = {
        "model": model if isinstance(model, dict) else {"source": model},
        "series": steps if isinstance(steps, dict) else {"step": steps},
        "texts": {"documentation": "python_documentation"},
        "text": {"tokens": 640, "window": 32},
        "measurements": {"activation_ranks": {}},
    }
    return {"language_models": {"tiny": entry | more}}


def problems(given: dict[str, Any], files: bool = True) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as error:
        validate(given, files=files)
    return error.value.problems


def test_it_stands_for_a_model_of_each_seed_and_step(here):
    given = config(PATTERN, {"step": [1000, 0, 10], "seeds": [2, 1]})
    checked = validate(given)
    assert list(checked["language_models"]) == [
        f"tiny_seed_{seed}_step_{step}" for seed in (1, 2) for step in (0, 10, 1000)
    ]
    one = checked["language_models"]["tiny_seed_2_step_10"]
    # the number in a name may be padded
    assert one["model"]["source"] == "runs/seed_2/step-00010"
    assert one["of_series"] == {"name": "tiny", "step": 10, "seed": 2} and "series" not in one
    # trainings of one set-up are one model in claims across models
    assert {each["set_up"] for each in checked["language_models"].values()} == {"tiny"}
    assert series(checked)["tiny"]["tiny_seed_1_step_1000"] == {"step": 1000, "seed": 1}
    assert validate(checked) == checked
    assert validate(json.loads(json.dumps(checked)), files=False) == checked
    assert "series tiny, 6 models, one after the other: steps 0, 10, 1000, seeds 1-2" in plan(checked)


def test_a_model_without_a_series_is_as_it_was(here):
    given = config("runs/seed_1/step-00000", {})
    del given["language_models"]["tiny"]["series"]
    (one,) = validate(given)["language_models"].values()
    assert not {"series", "of_series"} & one.keys() and one["set_up"] is None


def test_steps_are_found_by_their_names_or_listed(here):
    by_name = validate(config("runs/seed_1/step-{step}", "name"))
    assert [place["step"] for place in series(by_name)["tiny"].values()] == [0, 10, 1000]
    assert by_name == validate(config("runs/seed_1/step-{step}", [0, 10, 1000]))
    assert list(validate(config("runs/seed_1/step-{step}", [10]))["language_models"]) == ["tiny_step_10"]


def test_revisions_of_the_hub_are_listed(here):
    checked = validate(config(HUB, [0, 512]))["language_models"]
    assert {name: each["model"]["revision"] for name, each in checked.items()} == {
        "tiny_step_0": "step0",
        "tiny_step_512": "step512",
    }
    seeds = {"step": [0], "seeds": [1, 2]}
    checked = validate(config(HUB | {"source": "owner/model-seed{seed}"}, seeds))["language_models"]
    assert [each["model"]["source"] for each in checked.values()] == ["owner/model-seed1", "owner/model-seed2"]
    # models of each step's own
    checked = validate(config({"source": "owner/model-{step}", "download": True}, [0, 512]))["language_models"]
    assert [each["model"]["source"] for each in checked.values()] == ["owner/model-0", "owner/model-512"]


def test_revisions_that_are_not_here_are_named(here, monkeypatch):
    monkeypatch.setattr("learning_geometry.model_files.hub_folder", lambda *_: None)
    found = problems(config(HUB | {"download": False}, [0, 512]))
    assert [each.partition(":")[0] for each in found] == [
        f"language_models.tiny_step_{step}.model.source" for step in (512, 0)
    ]
    assert all("not in the hub's local cache" in each for each in found)
    assert hub.is_hub_id("owner/model")


@pytest.mark.parametrize(
    "model, steps, path, says",
    [
        ("runs/seed_1/step-00000", [0], "model.source", "has no {step}"),
        (PATTERN, [0], "series.seeds", "missing, and"),
        ("runs/seed_1/step-{step}", {"step": [0], "seeds": [1]}, "series.seeds", "has {seed}; write it"),
        ("runs/seed_1/step-{stp}", [0], "model.source", "{stp} is not known"),
        ("runs/{step}/step-{step}", [0], "model.source", "has {step} more than once"),
        ({"source": "runs/seed_1/step-{step}", "revision": "{step}"}, [0], "model.revision", "in one of the two"),
        ({"source": "runs/seed_1/step-{step}", "gguf": "{step}.gguf"}, [0], "model.gguf", "source and revision alone"),
        ("runs/seed_1/step-{step}", [0, 10, 11], "series.step", "nothing is there of step 11; there are 0, 10, 1000"),
        (PATTERN, {"step": [0], "seeds": [1, 3]}, "model.source", "runs holds seed_1, seed_2"),
        ("runs/seed_1/stp-{step}", [0], "model.source", "holds step-00000, step-00010"),
        ("runs/*/step-{step}", [0], "model.source", "of step 0; use a narrower pattern"),
        ("runs/seed_1/step-{step}", [0, 0], "series.step", "0 is repeated; list it once"),
        ("runs/seed_1/step-{step}", [0, 1.5], "series.step[1]", "got 1.5, expected integer"),
        ("runs/seed_1/step-{step}", ["ten"], "series.step[0]", 'got "ten", expected integer'),
        ("runs/seed_1/step-{step}", [-1], "series.step[0]", "integer ≥ 0"),
        ("runs/seed_1/step-{step}", 10, "series.step", "write [10]"),
        ("runs/seed_1/step-{step}", "names", "series.step", "or name"),
        ("runs/seed_1/step-{step}", [], "series.step", "got none"),
        ("runs/seed_1/step-{step}", {"seeds": None}, "series.step", "missing"),
        ("runs/seed_1/step-{step}", list(range(2001)), "series", "2001 models, and 2000 are the most"),
        (HUB, "name", "series.step", "list them"),
        ("nowhere/step_{step}", "name", "series.step", "nothing on this machine is nowhere/step_{step}"),
        (HUB | {"source": "owner/*"}, [0], "model.source", "on this machine alone"),
    ],
)  # fmt: skip
def test_what_is_no_series_is_named_before_any_job(here, model, steps, path, says):
    (problem,) = problems(config(model, steps))
    assert problem.startswith(f"language_models.tiny.{path}: ") and says in problem, problem


def test_places_of_steps_without_a_series_are_named(here):
    given = config("runs/seed_1/step-{step}", [])
    del given["language_models"]["tiny"]["series"]
    (problem,) = problems(given)
    assert "stands for several models, and there is no series" in problem


def test_two_folders_of_a_step_and_a_word_in_its_place_are_refused(copied):
    shutil.copytree(copied / "runs/seed_1/step-00010", copied / "runs/seed_1/step-10")
    (problem,) = problems(config("runs/seed_1/step-{step}", [0]))
    assert "step-00010 and runs/seed_1/step-10 are of step 10" in problem or "step-10 and" in problem
    (copied / "runs/seed_1/step-10").rename(copied / "runs/seed_1/step-final")
    (problem,) = problems(config("runs/seed_1/step-{step}", "name"))
    assert "step-final; list the steps" in problem
    assert len(validate(config("runs/seed_1/step-{step}", [0, 10]))["language_models"]) == 2


def test_every_seed_must_have_every_step(copied):
    shutil.rmtree(copied / "runs/seed_2/step-00010")
    (problem,) = problems(config(PATTERN, {"step": [0, 10], "seeds": [1, 2]}))
    assert "(seed 2): nothing is there of step 10" in problem
    (problem,) = problems(config(PATTERN, {"step": "name", "seeds": [1, 2]}))
    assert "no step 10 of seed 2" in problem


@pytest.mark.parametrize(
    "sizes, says", [({"layers": 3}, "number of layers is 3, and not 2"), ({"width": 32}, "width is 32")]
)
def test_models_of_other_sizes_are_named(copied, sizes, says):
    shutil.rmtree(copied / "runs/seed_1/step-00010")
    write_tiny_language_model(copied / "runs/seed_1/step-00010", **({"layers": 2} | sizes))
    (problem,) = problems(config("runs/seed_1/step-{step}", "name"))
    assert problem.startswith("language_models.tiny_step_10.model.source: ") and says in problem, problem


def test_a_model_that_computes_otherwise_or_is_not_whole_is_named(copied):
    file = copied / "runs/seed_1/step-00010/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rms_norm_eps": 0.5}))
    (copied / "runs/seed_1/step-00000/model.safetensors").unlink()
    found = problems(config("runs/seed_1/step-{step}", "name"))
    assert "tiny_step_0.model.source" in found[0] and "its weights cannot be read" in found[0]
    assert "tiny_step_10.model.source" in found[1] and "rms_norm_eps is 0.5" in found[1]


def test_what_models_have_in_common_is_said_once(here):
    given = config("runs/seed_1/step-{step}", "name", text={"tokens": 640, "window": 1000})
    assert {problem.partition(":")[0] for problem in problems(given)} == {
        "language_models.tiny.text.tokens",
        "language_models.tiny.text.window",
    }
    for measurement, says in (("dictionary_sweep", "seeds of its own"), ("change_of_basis", "reads no model")):
        (problem,) = problems(config("runs/seed_1/step-{step}", "name", measurements={measurement: {}}))
        assert problem.startswith(f"language_models.tiny.measurements.{measurement}: ") and says in problem


def test_names_that_something_else_has_are_refused(here):
    given = config("runs/seed_1/step-{step}", "name")
    alone = {key: each for key, each in given["language_models"]["tiny"].items() if key != "series"}
    alone |= {"model": {"source": "runs/seed_1/step-00000"}}
    given["language_models"]["tiny_step_10"] = alone
    assert "tiny_step_10 is the name of another language model" in problems(given)[0]
    given = config("runs/seed_1/step-{step}", "name")
    given["experiments"] = {"tiny": {"seeds": [0], "task": {"name": "copying"}, "training": {"steps": 100}}}
    assert "the name of another entry, experiments.tiny" in problems(given)[0]
    given = config("runs/seed_1/step-{step}", "name")
    given["language_models"]["figures"] = given["language_models"].pop("tiny")
    assert "has a folder figures" in problems(given)[0]


def test_figures_show_the_last_step_and_those_over_steps_all(here):
    given = config(
        PATTERN, {"step": "name", "seeds": [1, 2]}, measurements={"activation_ranks": {}, "output_projection": {}}
    )
    given["figures"] = {name: {"experiments": ["tiny"]} for name in ("activation_ranks", "activation_ranks_by_step")}
    checked = validate(given)
    assert checked["figures"]["activation_ranks"]["experiments"] == ["tiny_seed_1_step_1000", "tiny_seed_2_step_1000"]
    # all six count as one series
    assert checked["figures"]["activation_ranks_by_step"]["experiments"] == list(checked["language_models"])
    assert validate(json.loads(json.dumps(checked))) == checked
    given["figures"]["activation_ranks"]["experiments"] = ["tiny_seed_1_step_0"]
    assert validate(given)["figures"]["activation_ranks"]["experiments"] == ["tiny_seed_1_step_0"]
    given["figures"] = {"activation_ranks_by_step": {"experiments": ["tiny_seed_1_step_0"]}}
    assert "is left out; name tiny instead" in problems(given)[0]


def test_figures_over_steps_refuse_what_is_no_series_and_say_once_what_is_lacking(here):
    given = config("runs/seed_1/step-{step}", "name")
    alone = {key: each for key, each in given["language_models"]["tiny"].items() if key != "series"}
    given["language_models"]["alone"] = alone | {"model": {"source": "runs/seed_1/step-00000"}}
    given["figures"] = {"activation_ranks_by_step": {"experiments": ["alone"]}}
    assert "is no series; give language_models.alone a series" in problems(given)[0]
    given["figures"] = {"activation_ranks": {"experiments": ["tiny"]}}
    (problem,) = problems(given)
    assert "tiny lacks what the figure reads: output_projection" in problem
    assert "language_models.tiny.measurements" in problem
    given = config(PATTERN, {"step": "name", "seeds": [1, 2]}, measurements={"output_projection": {}})
    given["figures"] = {"activation_ranks_by_step": {"experiments": ["tiny"]}}
    (problem,) = problems(given)
    assert "tiny lacks what the figure reads: activation_ranks" in problem


def test_what_is_only_drawn_again_needs_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked = validate(config(PATTERN, {"step": [0, 10], "seeds": [1]}), files=False)
    assert checked["language_models"]["tiny_seed_1_step_10"]["model"]["source"] == "runs/seed_1/step-10"
