"""What a sweep makes, and that what an overlay leaves as it is keeps its key."""

from pathlib import Path

import yaml

from learning_geometry.archive import table_names
from learning_geometry.claims.studies import STUDIES
from learning_geometry.config import SCHEMA, load, read_yaml, validate
from learning_geometry.planning.jobs import all_jobs, drawn_outputs, figure_options, final_outputs
from learning_geometry.planning.plan import Plan

from .conftest import SCRIPTS, small_config


def swept_config():
    config = small_config()
    config.pop("language_models")
    config["experiments"]["small"]["sweep"] = {"optimizer.learning_rate": [0.001, 0.01]}
    config["experiments"]["other"] = {
        "study": "execution_manifolds",
        "seeds": [0],
        "task": {"name": "marker_sums"},
        "training": {"steps": 40},
    }
    config["figures"]["sweep"] = {"experiments": ["small"]}
    return validate(config)


NAMES = ["small_learning_rate_0_001", "small_learning_rate_0_01"]


def test_a_sweep_gathers_the_summaries_of_its_experiments():
    config = swept_config()
    jobs = all_jobs(config)
    (job,) = [job for job in jobs if job.rule == "gather_sweep"]
    assert job.outputs == ("results/small/sweep.parquet", "results/small/sweep.csv")
    assert job.inputs == {"summaries": tuple(f"results/{name}/summary.parquet" for name in NAMES)}
    assert job.settings["values"] == {
        name: {"optimizer.learning_rate": rate} for name, rate in zip(NAMES, (0.001, 0.01), strict=True)
    }
    assert sum(job.rule == "train" for job in jobs) == 2 * 2 + 1
    assert sorted(table_names(config)) == sorted(
        f"{name}/{table}.parquet" for name in [*NAMES, "other"] for table in ("runs", "summary")
    )
    (archive,) = [job for job in jobs if job.rule == "archive"]
    assert "results/small/sweep.csv" in archive.inputs["drawn"]
    assert set(archive.settings["config"]["experiments"]) == {*NAMES, "other"}


def test_it_is_part_of_its_study_and_drawn_again_from_an_archive():
    config = swept_config()
    jobs = all_jobs(config)
    of_study = {study.name: final_outputs(config, jobs, study.name) for study in STUDIES}
    assert "results/small/sweep.parquet" in of_study["orthogonal_subspaces"]
    assert "results/figures/sweep.png" in of_study["orthogonal_subspaces"]
    assert not any("small" in path or "sweep" in path for path in of_study["execution_manifolds"])
    assert "results/small/sweep.csv" in final_outputs(config, jobs)
    again = all_jobs(validate(yaml.safe_load(yaml.safe_dump(config)), files=False), redraw=True)
    assert {"results/small/sweep.csv", "results/figures/sweep.pdf"} <= set(drawn_outputs(again))


def test_figures_are_told_the_swept_values_and_others_nothing_new():
    config = swept_config()
    assert figure_options(config, "sweep")["swept"][NAMES[1]] == {
        "name": "small",
        "values": {"optimizer.learning_rate": 0.01},
    }
    assert "swept" not in figure_options(validate(small_config(), files=False), "embedding_singular_values")


def test_results_are_shared_where_an_overlay_changes_nothing(tmp_path):
    base = small_config() | {"figures": {}}
    base.pop("language_models")
    base["experiments"]["other"] = base["experiments"]["small"] | {"seeds": [3]}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    overlay = {
        "extends": "base.yaml",
        "experiments": {"other": {"model": {"layers": 1}}, "small": {"seeds": [0, 1, 2]}},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(overlay))
    before, after = (Plan(load(tmp_path / f"{name}.yaml"), SCRIPTS) for name in ("base", "mine"))
    for job in before.jobs:
        if job.rule in ("make_dataset", "train", "measure"):
            found = after.find(job.rule, job.wildcards)
            same = job.wildcards["experiment"] == "small" or job.rule == "make_dataset"
            assert (after.key(found) == before.key(job)) == same, job.title
    assert after.find("train", {"experiment": "small", "seed": "2"})


def test_the_schema_knows_the_studies_that_have_claims():
    properties = read_yaml(SCHEMA)["properties"]
    for section in ("experiments", "language_models"):
        studies = properties[section]["additionalProperties"]["properties"]["study"]["enum"]
        assert studies == [*(study.name for study in STUDIES), "none"]


def test_every_study_is_a_target_from_one_list():
    text = Path(SCRIPTS).parents[1].joinpath("Snakefile").read_text()
    assert "for study in studies():" in text
    assert not any(study.name in text.replace("--cores N orthogonal_subspaces", "") for study in STUDIES)
