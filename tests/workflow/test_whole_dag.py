"""What a user sees: one command builds everything; an edit reruns what depends on it and nothing else."""

import os
import re
import shutil

import pandas as pd
import pytest
from PIL import Image

from learning_geometry.claims.models import weights_in
from learning_geometry.claims.studies import STUDIES
from learning_geometry.config import read_yaml
from learning_geometry.files import read_provenance, read_table
from learning_geometry.models.language.loading import load
from learning_geometry.tables.tidy import check_table

from .conftest import FIGURES, LANGUAGE_FIGURES, REPOSITORY, SUMS_FIGURES, tiny_config

MEASUREMENTS = {name: tuple(each["measurements"]) for name, each in tiny_config()["experiments"].items()}
OF_LANGUAGE_MODELS = tuple(tiny_config()["language_models"]["tiny_language"]["measurements"])
RUNS = [(name, seed) for name, each in tiny_config()["experiments"].items() for seed in each["seeds"]]


def conclusions(experiment="tiny"):
    """What reads the tables of an experiment, one job of each."""
    shown = [name for name, figure in tiny_config()["figures"].items() if experiment in figure["experiments"]]
    return dict.fromkeys([*(f"figure_{name}" for name in shown), "judge_claims"], 1)


SOURCE = "src/learning_geometry"


def test_every_artifact_is_there_and_tidy(finished):
    results = finished[0].folder / "results"
    for experiment, seed in RUNS:
        for name in (*MEASUREMENTS[experiment], "training_metrics"):
            path = results / f"{experiment}/seed-{seed}/{name}.parquet"
            table = read_table(path)
            check_table(table)
            assert set(table["seed"]) == {seed}
            assert read_provenance(path)["code"]
            if name == "trajectory_orientation":
                assert read_provenance(path)["other_seeds"] == [1 - seed]
    for seed in (0, 1):
        steps = [path.stem for path in sorted((results / f"tiny/seed-{seed}/checkpoints").glob("*.safetensors"))]
        assert steps == ["step-000000", "step-000001", "step-000004", "step-000020", "step-000040"]
        assert not (results / f"tiny/seed-{seed}/training").exists()
    summary = read_table(results / "tiny/summary.parquet")
    measured = summary[summary["null"] == ""]
    assert set(measured["n"]) == {2}
    assert {
        "error",
        "running_error",
        "previous_token_score",
        "singular_value",
        "largest_hessian_eigenvalue",
        "hessian_trace",
        "attention_logit_share_content",
        "composition_z_score",
        "bridge_energy_key_at_lag",
        "induction_score_after_ablation",
        "error_at_length",
        "first_crossing_of_running_error",
        "lag_of_first_crossing_of_running_error",
    } <= set(measured["quantity"])
    pd.testing.assert_frame_equal(
        pd.read_csv(results / "tiny/summary.csv", keep_default_na=False)[["quantity", "step"]],
        summary[["quantity", "step"]],
        check_dtype=False,
    )


def test_language_models_are_measured_and_tidy(finished):
    results = finished[0].folder / "results/tiny_language"
    for name in OF_LANGUAGE_MODELS:
        table = read_table(results / f"measurements/{name}.parquet")
        check_table(table)
        assert set(table["step"]) == {0} and set(table["experiment"]) == {"tiny_language"}
        provenance = read_provenance(results / f"measurements/{name}.parquet")
        assert provenance["code"] and provenance["model"]["model"]["source"] == "tiny_language_model"
        # which weights, and what they read, unless the measurement reads no model
        assert (provenance["weights"] is None) == (name == "change_of_basis")
        read = [each["reading"] for kind in provenance["read"].values() for each in kind.values()]
        assert read or name == "change_of_basis"
        assert all(each["prepend_bos"] is False for each in read)
    assert (results / "texts/documentation/moments.safetensors").is_file()
    assert not (results / "capturing").exists() or not list((results / "capturing").iterdir())
    assert (results / "measurements/dictionary_sweep/standard-seed-0/sae_weights.safetensors").is_file()
    (weights,) = weights_in(read_provenance(results / "runs.parquet"))  # by which claims count models
    assert weights == load(finished[0].folder / "tiny_language_model", tokenizer=False).digest()
    summary = read_table(results / "summary.parquet")
    cosines = summary[(summary["quantity"] == "mean_cosine") & (summary["null"] == "")]
    assert set(cosines["interval"]) <= {"within_run", "none"} and "within_run" in set(cosines["interval"])


def test_a_measured_number_can_be_recomputed_by_hand(finished):
    results = finished[0].folder / "results"
    errors = [read_table(results / f"tiny/seed-{seed}/copying_errors.parquet") for seed in (0, 1)]
    chosen = [
        table.query("quantity == 'loss' and step == 40 and data == 'out_of_distribution'")["value"].item()
        for table in errors
    ]
    summary = read_table(results / "tiny/summary.parquet")
    row = summary.query("quantity == 'loss' and step == 40 and data == 'out_of_distribution'").iloc[0]
    assert row["estimate"] == pytest.approx(sum(chosen) / 2)
    # Student t with one degree of freedom: 12.706 standard errors
    assert row["high"] - row["estimate"] == pytest.approx(12.7062 * abs(chosen[0] - chosen[1]) / 2, rel=1e-4)


def test_every_claim_has_a_row_and_none_a_verdict_that_two_seeds_cannot_give(finished):
    results = finished[0].folder / "results"
    ledger = pd.read_csv(results / "claims.csv", keep_default_na=False, na_values=[""])
    assert ",".join(ledger.columns) == (
        "claim,study,statement,source,published,experiment,scale,unit,n,estimate,low,high,"
        "null,null_low,null_high,floor,rule,verdict"
    )
    judged = {experiment["study"] for experiment in tiny_config()["experiments"].values()} | {"activation_geometry"}
    assert set(ledger["claim"]) == {claim.name for study in STUDIES if study.name in judged for claim in study.claims}
    assert not ledger.duplicated(["claim", "experiment", "null"]).any()
    of_runs = ledger[ledger["study"] != "activation_geometry"]
    assert set(of_runs["verdict"]) <= {"not supported", "inconclusive"}
    by_claim = ledger.groupby("claim")
    assert by_claim.get_group("one_layer_cannot")["n"].tolist() == [0]
    assert by_claim.get_group("sharpness_rises_through_the_transition")["experiment"].tolist() == ["tiny"] * 2
    scale = by_claim.get_group("transition_is_sharp")["scale"].item()
    assert scale.startswith("observed in 0 of 2 seeds; training.steps 40 (published 20000)")
    page = (results / "claims.html").read_text()
    assert page.count("<tr data-verdict=") == len(ledger) and 'href="figures/transition_timeline.png"' in page
    assert "## Orthogonal subspaces" in (results / "claims.md").read_text()


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_are_there_and_not_blank(finished, figure):
    figures = finished[0].folder / "results/figures"
    assert (figures / f"{figure}.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(figures / f"{figure}.png") as image:
        assert image.width > 500
        assert len(image.convert("RGB").getcolors(maxcolors=2**24)) > 20


def test_the_terminal_tells_each_finished_job(finished):
    output = finished[1]
    assert re.search(r"tiny seed 1: 40 steps in [\d.]+ s", output)
    assert re.search(r"sharpness, tiny seed 0: \d+ numbers in [\d.]+ s", output)
    assert "100%" in output
    log = finished[0].folder / "results/tiny/seed-0/logs/measure_sharpness.log"
    assert "products" in log.read_text()


def test_a_second_run_does_nothing(finished):
    assert "Nothing to be done" in finished[0].snakemake("--cores", "1").stdout


TWICE = (
    "tiny/seed-1/training_metrics",
    "tiny/seed-1/sharpness",
    "tiny_sums/seed-0/commutators",
    "tiny_grokking/summary",
    "tiny_language/measurements/prompt_contrasts",
)
"""What is made twice in every test run; all of it is in the slow one."""


def test_two_runs_are_the_same_bits(finished, workflow_copy):
    workflow_copy.snakemake("--cores", "2", *(f"results/{name}.parquet" for name in TWICE))
    first, second = finished[0].tables(), workflow_copy.tables()
    assert {f"{name}.parquet" for name in TWICE} <= second.keys() <= first.keys()
    assert [path for path in second if first[path] != second[path]] == []


@pytest.mark.slow
def test_two_whole_runs_are_the_same_bits(finished, workflow_copy):
    workflow_copy.snakemake("--cores", "2")
    first, second = finished[0].tables(), workflow_copy.tables()
    per_run = sum(1 + len(MEASUREMENTS[experiment]) for experiment, _ in RUNS)
    gathered = 2 * (len(MEASUREMENTS) + 1)
    assert first.keys() == second.keys() and len(first) == per_run + len(OF_LANGUAGE_MODELS) + gathered
    assert [path for path in first if first[path] != second[path]] == []
    results = finished[0].folder / "results"
    for path in sorted([*results.glob("figures/*"), *results.glob("claims.*")]):
        assert path.read_bytes() == (workflow_copy.folder / "results" / path.relative_to(results)).read_bytes()


def test_one_more_seed_trains_one_run(editable):
    config = tiny_config()
    config["experiments"]["tiny"]["seeds"].append(2)
    editable.write_config(config)
    expected = {"make_dataset": 1, "train": 1, "measure": len(MEASUREMENTS["tiny"]), "summarize": 1}
    assert editable.planned() == expected | conclusions()


def test_one_more_seed_is_compared_with_the_others_again(editable):
    config = tiny_config()
    config["experiments"]["tiny_sums"]["seeds"].append(2)
    editable.write_config(config)
    # beside the new run's own: the orientation of both others, and the commutators of the one that it comes next to
    measured = len(MEASUREMENTS["tiny_sums"]) + 2 + 1
    expected = {"make_dataset": 1, "train": 1, "measure": measured, "summarize": 1}
    assert editable.planned() == expected | conclusions("tiny_sums")


def test_one_changed_setting_reruns_what_depends_on_it(editable):
    config = tiny_config()
    config["experiments"]["tiny"]["measurements"]["head_scores"]["sequences"] = 30
    editable.write_config(config)
    assert editable.planned() == {"measure": 2, "summarize": 1} | conclusions()
    config["experiments"]["tiny"]["optimizer"] = {"learning_rate": 0.0005}
    editable.write_config(config)
    expected = {"train": 2, "measure": 2 * len(MEASUREMENTS["tiny"]), "summarize": 1}
    assert editable.planned() == expected | conclusions()


def test_prompts_and_weights_of_a_language_model_are_followed(editable):
    with open(editable.folder / "harmful.txt", "a") as file:
        file.write("\nharmful thing number 12")
    with open(editable.folder / "harmless.txt", "a") as file:
        file.write("\nharmless thing number 12")
    read = ("prompt_contrasts", "depth_growth", "untangling", "shared_directions")
    expected = {"capture_prompts": 2, "measure_language_model": len(read), "summarize": 1}
    assert editable.planned() == expected | conclusions("tiny_language")
    config = editable.folder / "tiny_language_model/config.json"
    config.write_text(config.read_text() + "\n")
    # all but the drawn network, which reads no model
    expected = {"capture_prompts": 2, "capture_text": 1, "measure_language_model": len(OF_LANGUAGE_MODELS) - 1}
    assert editable.planned() == expected | {"summarize": 1} | conclusions("tiny_language")


def test_one_setting_of_a_language_model_reruns_what_depends_on_it(editable):
    config = tiny_config()
    config["language_models"]["tiny_language"]["measurements"]["untangling"]["rank"] = 3
    editable.write_config(config)
    assert editable.planned() == {"measure_language_model": 1, "summarize": 1} | conclusions("tiny_language")


def test_times_copies_and_what_changes_no_number_rerun_nothing(editable, tmp_path):
    # cp -r without times, then moved, touched, with files of the future, a longer log, another version
    shutil.copytree(editable.folder, tmp_path / "copied", copy_function=shutil.copyfile)
    (tmp_path / "copied").rename(tmp_path / "moved")
    moved = type(editable)(tmp_path / "moved")
    for path in moved.folder.rglob("*"):
        os.utime(path)
    for path in [*moved.folder.glob("tiny_language_model/*"), *moved.folder.glob("results/*/summary.parquet")]:
        os.utime(path, (2**31 - 10**8,) * 2)
    (moved.folder / "tiny_language_model/notes.json").write_text("{}")
    moved.edit(f"{SOURCE}/__init__.py", '__version__ = "', '__version__ = "9.')
    moved.edit(f"{SOURCE}/progress.py", "import ctypes\n", "import ctypes\n\nprint()\n")
    shutil.rmtree(moved.folder / ".snakemake")
    assert moved.planned() == {}


def test_content_is_compared_where_snakemake_has_no_record(editable):
    shutil.rmtree(editable.folder / ".snakemake")
    config = tiny_config()
    config["experiments"]["tiny_grokking"]["model"]["width"] = 16
    editable.write_config(config)
    measured = len(MEASUREMENTS["tiny_grokking"])
    assert editable.planned() == {"train": 1, "measure": measured, "summarize": 1} | conclusions("tiny_grokking")
    assert editable.planned("--until", "train") == {"train": 1}
    assert editable.planned("results/tiny/summary.parquet") == {}


def test_deleted_data_and_pages_are_made_again_and_nothing_else(editable):
    results = editable.folder / "results"
    (results / "tiny/seed-0/dataset.safetensors").unlink()
    (results / "tiny/seed-1/checkpoints/step-000001.safetensors").unlink()
    (results / "claims.md").unlink()
    assert editable.planned() == {"judge_claims": 1}
    (results / "tiny/seed-0/head_scores.parquet").unlink()
    expected = {"make_dataset": 1, "measure": 1, "summarize": 1}
    assert editable.planned() == expected | conclusions()
    assert editable.planned("results/tiny/seed-1/checkpoints") == {"train": 1}


def test_comments_docstrings_and_layout_rerun_nothing(editable):
    editable.edit(f"{SOURCE}/training/loop.py", '"""The training loop:', '"""The loop of training, reworded:')
    editable.edit(f"{SOURCE}/models/transformer.py", "import math\n", "import math  # a comment\n\n")
    editable.edit("workflow/scripts/train.py", "import shutil\n", "import shutil  # a comment\n")
    assert editable.planned() == {}


def test_an_edit_of_code_reruns_what_uses_it(editable):
    editable.edit(f"{SOURCE}/figures/transition_timeline.py", "\nimport ", "\nimport os\nimport ")
    assert editable.planned() == {"figure_transition_timeline": 1}
    editable.edit(f"{SOURCE}/measurements/runs/sharpness.py", "import torch\n", "import os\n\nimport torch\n")
    assert editable.planned() == {"measure": 2, "summarize": 1} | conclusions()
    editable.edit(f"{SOURCE}/training/optimizers.py", "import math\n", "import math\nimport os\n")
    assert editable.planned()["train"] == len(RUNS)


def test_a_study_is_a_target(workflow_copy):
    planned = workflow_copy.planned("orthogonal_subspaces")
    assert planned["train"] == 2 and planned["figure_transition_timeline"] == 1
    planned = workflow_copy.planned("execution_manifolds")
    assert planned["train"] == len(RUNS) - 2 and all(planned[f"figure_{name}"] == 1 for name in SUMS_FIGURES)
    assert "figure_transition_timeline" not in planned
    planned = workflow_copy.planned("activation_geometry")
    assert planned["capture_text"] == 1 and "train" not in planned
    assert all(planned[f"figure_{name}"] == 1 for name in LANGUAGE_FIGURES)


def test_the_report_holds_figures_and_captions(finished):
    copy, _ = finished
    copy.snakemake("--cores", "1", "--report", "report.html")
    text = (copy.folder / "report.html").read_text()
    labels = [name.replace("_", " ").capitalize() for name in FIGURES]
    for label in (*labels, "summary over seeds", "claims and verdicts"):
        assert label in text
    # Snakemake writes the targets of links behind every caption: after an empty line, or they are read as its text
    assert ".. _Workflow" not in text and "javascript:show_panel('workflow')" not in text


@pytest.mark.parametrize(
    "section,key,value,message",
    [
        ("model", "heads", 3, r"experiments\.tiny\.model\.heads: .*does not divide"),
        ("training", "stepz", 3, r"experiments\.tiny\.training.*stepz.*steps"),
        ("task", "segment_length", [20, 30], r"experiments\.tiny\.task.*segment_length"),
    ],
)
def test_a_bad_config_is_one_clear_message_and_no_job(workflow_copy, section, key, value, message):
    config = tiny_config()
    config["experiments"]["tiny"][section][key] = value
    workflow_copy.write_config(config)
    done = workflow_copy.snakemake("--cores", "1", check=False)
    assert done.returncode != 0
    assert re.search(message, done.stdout), done.stdout
    assert "Traceback" not in done.stdout
    assert len(done.stdout.splitlines()) < 10
    assert not (workflow_copy.folder / "results").exists()


def test_a_key_given_twice_is_refused(workflow_copy):
    with open(workflow_copy.folder / "tiny.yaml", "a") as file:
        file.write("results: elsewhere\nresults: here\n")
    done = workflow_copy.snakemake("--cores", "1", check=False)
    assert done.returncode != 0 and "results" in done.stdout and "twice" in done.stdout


def test_the_default_config_is_read_unless_another_is_named(workflow_copy):
    default, paper = (workflow_copy.planned(config=config) for config in (None, "config/paper.yaml"))
    experiments = read_yaml(REPOSITORY / "config/config.yaml")["experiments"].values()
    assert default["train"] == sum(len(experiment["seeds"]) for experiment in experiments)
    assert paper["train"] >= 10 * 5 and paper["train"] % 10 == 0


def test_slurm_profile_plans_the_same_jobs(workflow_copy):
    slurm = workflow_copy.planned("--workflow-profile", "profiles/slurm")
    assert slurm == workflow_copy.planned()


def test_a_failing_job_says_where_to_look(workflow_copy):
    config = tiny_config()
    config["experiments"]["tiny"]["measurements"]["sharpness"]["maximum_products"] = 2
    workflow_copy.write_config(config)
    done = workflow_copy.snakemake("--cores", "2", "results/tiny/seed-0/sharpness.parquet", check=False)
    assert done.returncode != 0
    assert re.search(r"did not converge in 2 products.*see results/tiny/seed-0/logs/measure_sharpness.log", done.stdout)
