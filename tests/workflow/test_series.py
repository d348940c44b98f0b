"""A series of tiny language models as a user runs it: captured, measured, gathered over steps, drawn; one step more."""

import numpy as np
import pandas as pd
import pytest

from tests.tiny_language_model import write_tiny_language_model

LATER = 2000


def config(steps, seeds):
    model = {
        "model": {"source": "trainings/seed_{seed}/step-{step}"},
        "series": {"step": list(steps), "seeds": list(seeds)},
        "texts": {"documentation": "python_documentation"},
        "text": {"tokens": 640, "window": 32},
        "measurements": {"activation_ranks": {"null_draws": 2}},
    }
    return {
        "language_models": {"pythia": model},
        "figures": {"activation_ranks_by_step": {"experiments": ["pythia"]}},
    }


def of_model(results, seed, step, table):
    return pd.read_parquet(results / f"pythia_seed_{seed}_step_{step}" / f"{table}.parquet")


@pytest.mark.parametrize(
    "steps, seeds", [((0, 1000), (1,)), pytest.param((0, 10, 1000), (1, 2), marks=pytest.mark.slow)]
)
def test_a_series_is_captured_gathered_and_drawn(workflow_copy, steps, seeds):
    for seed in seeds:
        for number, step in enumerate((*steps, LATER)):
            place = workflow_copy.folder / f"trainings/seed_{seed}/step-{step}"
            write_tiny_language_model(place, layers=2, seed=10 * seed + number)
    workflow_copy.write_config(config(steps, seeds))
    workflow_copy.snakemake("--cores", "2")
    results = workflow_copy.folder / "results"
    runs, summary = (pd.read_parquet(results / f"pythia/{name}.parquet") for name in ("series_runs", "series"))
    assert set(runs["experiment"]) == set(summary["experiment"]) == {"pythia"}
    assert set(zip(runs["seed"], runs["step"], strict=True)) == {(seed, step) for seed in seeds for step in steps}
    # what there is of every step is what there is of its model alone
    for seed in seeds:
        for step in steps:
            here = runs[(runs["seed"] == seed) & (runs["step"] == step)]["value"].to_numpy()
            np.testing.assert_array_equal(here, of_model(results, seed, step, "runs")["value"])
    last = summary[(summary["step"] == steps[-1]) & (summary["quantity"] == "directions_99") & (summary["null"] == "")]
    alone = [of_model(results, seed, steps[-1], "summary") for seed in seeds]
    alone = [
        each[(each["quantity"] == "directions_99") & (each["null"] == "")]["estimate"].to_numpy() for each in alone
    ]
    np.testing.assert_allclose(last["estimate"], np.mean(alone, axis=0))
    assert set(last["n"]) == {len(seeds)} and (alone[0] != alone[-1]).any() == (len(seeds) > 1)
    assert (results / "figures/activation_ranks_by_step.png").stat().st_size > 10_000
    # activations may go as soon as they are measured
    for folder in results.glob("pythia_*/texts"):
        for file in sorted(folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
    assert workflow_copy.planned() == {}
    # one step more is captured and measured, and all are gathered and drawn
    workflow_copy.write_config(config([*steps, LATER], seeds))
    each = dict.fromkeys(("capture_text", "measure_language_model", "summarize"), len(seeds))
    assert workflow_copy.planned() == each | {"gather_series": 1, "figure_activation_ranks_by_step": 1}


def test_what_is_missing_stops_before_any_job(workflow_copy):
    write_tiny_language_model(workflow_copy.folder / "trainings/seed_1/step-0", layers=2)
    workflow_copy.write_config(config((0, 10), (1,)))
    done = workflow_copy.snakemake("--cores", "1", check=False)
    assert done.returncode != 0 and "nothing is there of step 10" in done.stdout and "Traceback" not in done.stdout
