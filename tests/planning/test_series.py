"""What a series of language models makes, in which order, and what one more step makes again."""

import json
import shutil
from collections import Counter
from itertools import pairwise

import pytest

from learning_geometry.archive import table_names
from learning_geometry.claims.models import distinct_models
from learning_geometry.config import validate
from learning_geometry.planning.jobs import all_jobs, drawn_outputs, figure_options, final_outputs, judged
from learning_geometry.planning.order import priorities

SINGLE = "read"


@pytest.fixture
def trainings(project):
    """The project with a series of two steps and two seeds instead of its language model; a third step lies there."""
    for seed in (1, 2):
        for step in (0, 512, 1000):
            shutil.copytree("model", f"runs/{seed}/step{step}")
            # weights of its own
            with open(f"runs/{seed}/step{step}/model.safetensors", "ab") as file:
                file.write(f"{seed} {step}".encode())
    read = project.config["language_models"].pop(SINGLE)
    read["model"] = {"source": "runs/{seed}/step{step}"}
    read["series"] = {"step": [0, 1000], "seeds": [1, 2]}
    read["measurements"].pop("dictionary_sweep")
    project.config["language_models"]["series"] = read
    project.config["figures"] |= {"activation_ranks_by_step": {"experiments": ["series"]}}
    return project


def at(seed, step):
    return f"series_seed_{seed}_step_{step}"


def test_a_model_is_captured_and_measured_as_one_of_its_own(trainings):
    plan = trainings.plan()
    rules = Counter(job.rule for job in plan.jobs if job.wildcards.get("experiment") == at(1, 0))
    assert rules == {"capture_text": 1, "capture_prompts": 2, "measure_language_model": 2, "summarize": 1}
    assert all(job.passing for job in plan.jobs if job.rule.startswith("capture"))
    job = plan.find("gather_series", {"experiment": "series"})
    assert job.inputs == {
        "runs": tuple(f"results/{at(*each)}/runs.parquet" for each in ((1, 0), (1, 1000), (2, 0), (2, 1000)))
    }
    assert job.settings["members"][at(2, 1000)] == {"step": 1000, "seed": 2}
    # the figure over steps reads what was gathered
    figure = plan.find("figure_activation_ranks_by_step")
    assert figure.inputs == {
        "summary": ("results/series/series.parquet",),
        "runs": ("results/series/series_runs.parquet",),
    }
    assert figure.settings["options"]["experiments"] == ["series"]
    assert figure.settings["options"]["models"]["series"]["source"] == "runs/1/step1000"


def test_one_more_step_runs_its_own_jobs_and_gathers_again(trainings):
    trainings.finish()
    assert trainings.again() == {}
    plan = trainings.plan()
    before = {job.title: plan.key(job) for job in plan.jobs}
    trainings.config["language_models"]["series"]["series"]["step"] = [0, 512, 1000]
    plan = trainings.plan()
    new = Counter(job.rule for job in plan.to_make)
    # no measurement reads prompts of random weights
    each = {"capture_text": 2, "capture_prompts": 2, "measure_language_model": 4, "summarize": 2}
    assert new == each | {"gather_series": 1, "figure_activation_ranks_by_step": 1}
    assert {job.wildcards["experiment"] for job in plan.to_make if job.rule in each} == {at(1, 512), at(2, 512)}
    changed = {job.title for job in plan.jobs if before.get(job.title, plan.key(job)) != plan.key(job)}
    assert changed == {"gather_series series", "figure_activation_ranks_by_step", "archive"}


def test_one_changed_checkpoint_is_measured_again_alone(trainings):
    trainings.finish()
    with open("runs/2/step0/model.safetensors", "ab") as file:
        file.write(b"more")
    made = trainings.plan().to_make
    assert {job.wildcards.get("experiment") for job in made if job.rule in ("capture_text", "summarize")} == {at(2, 0)}
    # captures that nobody needs may go, at any time
    trainings.finish()
    for seed in (1, 2):
        shutil.rmtree(f"results/{at(seed, 0)}/texts")
    assert trainings.again() == {}


def test_a_model_of_a_series_has_the_jobs_of_the_same_model_alone(trainings):
    read = dict(trainings.config["language_models"]["series"])
    read.pop("series")
    # under the same name, in a config of its own
    alone = {"language_models": {at(1, 0): read | {"model": {"source": "runs/1/step0"}}}}
    other = trainings.plan()
    trainings.config = alone
    plan = trainings.plan()
    for job in plan.jobs:
        if job.rule not in ("archive", "judge_claims"):
            assert other.key(other.find(job.rule, job.wildcards)) == plan.key(job), job.title


def test_one_core_measures_a_model_before_it_captures_the_next(trainings):
    trainings.config["language_models"]["other"] = trainings.config["language_models"]["series"] | {
        "series": {"step": [0, 1000], "seeds": [1, 2]}
    }
    plan = trainings.plan()
    given = priorities(plan.jobs)
    done: set[str] = set()
    waiting, order = list(plan.to_make), []
    made = {path for job in waiting for path in job.outputs}
    while waiting:
        ready = [
            job
            for job in waiting
            if all(path in done or path not in made for paths in job.inputs.values() for path in paths)
        ]
        job = max(ready, key=given.__getitem__)
        waiting.remove(job)
        done.update(job.outputs)
        order.append(job)
    models = [job.wildcards["experiment"] for job in order if "_seed_" in job.wildcards.get("experiment", "")]
    # each in one go
    assert len([one for one, following in pairwise(models) if one != following]) == 8 - 1


def test_claims_are_judged_on_the_last_step_and_count_seeds_as_one_model(trainings):
    config = trainings.config
    config["figures"] |= {"contrast_by_layer": {"experiments": ["series"]}}
    config["language_models"]["series"]["measurements"] |= {"prompt_contrasts": {}}
    checked = validate(config, files=False)
    names = [name for name in judged(checked) if name.startswith("series")]
    assert names == [at(1, 1000), at(2, 1000)]
    assert len(set(distinct_models(names, checked["language_models"]).values())) == 1
    assert figure_options(checked, "contrast_by_layer")["experiments"] == names
    (claims,) = [job for job in all_jobs(checked) if job.rule == "judge_claims"]
    assert set(names) <= set(claims.settings["experiments"])
    assert claims.settings["figures"]["activation_ranks_by_step"]["experiments"] == names
    # of its study, and drawn again from an archive, which holds the tables of every model
    outputs = final_outputs(checked, all_jobs(checked), "activation_geometry")
    assert {"results/series/series.parquet", "results/figures/activation_ranks_by_step.png"} <= set(outputs)
    assert f"{at(1, 0)}/runs.parquet" in table_names(checked)
    again = all_jobs(validate(json.loads(json.dumps(checked)), files=False), redraw=True)
    assert {"results/series/series.csv", "results/figures/activation_ranks_by_step.pdf"} <= set(drawn_outputs(again))
    assert priorities(again)
