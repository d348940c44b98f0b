"""Overlays and sweeps as a user starts them: Snakemake plans what the config's own command line shows."""

import yaml

from .conftest import tiny_config


def write(copy, name, config):
    (copy.folder / name).parent.mkdir(exist_ok=True)
    (copy.folder / name).write_text(yaml.safe_dump(config))


def test_an_overlay_shares_results_and_trains_what_is_new(editable):
    grokking = tiny_config()["experiments"]["tiny_grokking"]
    overlay = {
        "extends": "../tiny.yaml",
        "experiments": {
            "tiny_sums": None,
            "tried": grokking | {"measurements": {}, "sweep": {"optimizer.learning_rate": [0.001, 0.003]}},
        },
        "figures": {"sweep": {"experiments": ["tried"], "quantities": [{"quantity": "running_loss"}]}},
    }
    write(editable, "own/mine.yaml", overlay)
    new = {"make_dataset": 2, "train": 2, "summarize": 2, "gather_sweep": 1, "figure_sweep": 1, "judge_claims": 1}
    assert editable.planned(config="own/mine.yaml") == new
    del new["figure_sweep"], new["judge_claims"]
    # a second file is laid over the first, and --config over both
    write(editable, "second.yaml", {"figures": {"sweep": None}})
    done = editable.planned("results/tried/sweep.csv", config="own/mine.yaml")
    assert done == new
    files = ["--configfile", "own/mine.yaml", "second.yaml"]
    done = editable.snakemake("--dry-run", "--cores", "1", *files, "--config", "results=here", config=None)
    assert "figure_sweep" not in done.stdout and "here/tried/sweep.parquet" in done.stdout


def test_a_missing_file_below_is_one_message(workflow_copy):
    write(workflow_copy, "own/mine.yaml", {"extends": "gone.yaml"})
    done = workflow_copy.snakemake("--cores", "1", config="own/mine.yaml", check=False)
    assert done.returncode != 0 and "own/gone.yaml: no such file" in done.stdout
    assert "Traceback" not in done.stdout and len(done.stdout.splitlines()) < 10
