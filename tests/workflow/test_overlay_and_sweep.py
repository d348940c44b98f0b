"""Overlays and sweeps as a user starts them: Snakemake plans what the config's own command line shows."""

import yaml

from .conftest import tiny_config


def write(copy, name, config):
    (copy.folder / name).parent.mkdir(exist_ok=True)
    (copy.folder / name).write_text(yaml.safe_dump(config))


def test_an_overlay_is_planned_with_its_sweep(workflow_copy):
    grokking = tiny_config()["experiments"]["tiny_grokking"]
    overlay = {
        "extends": "../tiny.yaml",
        "experiments": {
            "tiny_sums": None,
            "tried": grokking | {"measurements": {}, "sweep": {"optimizer.learning_rate": [0.001, 0.003]}},
        },
        "figures": {"sweep": {"experiments": ["tried"], "quantities": [{"quantity": "running_loss"}]}},
    }
    write(workflow_copy, "own/mine.yaml", overlay)
    planned = workflow_copy.planned(config="own/mine.yaml")
    # two seeds of the experiment of copying, one of grokking, and one of each value
    assert planned["train"] == 2 + 1 + 2 and planned["gather_sweep"] == planned["figure_sweep"] == 1
    assert "figure_commutator_alignment" not in planned and planned["figure_grokking_timeline"] == 1
    alone = {"make_dataset": 2, "train": 2, "summarize": 2, "gather_sweep": 1}
    assert workflow_copy.planned("results/tried/sweep.csv", config="own/mine.yaml") == alone
    # a second file is laid over the first, and --config over both
    write(workflow_copy, "second.yaml", {"figures": {"sweep": None}})
    files = ["--configfile", "own/mine.yaml", "second.yaml"]
    asked = ["here/tried/sweep.csv", "--config", "results=here"]
    assert workflow_copy.planned(asked[0], *files, *asked[1:], config=None) == alone
    planned = workflow_copy.planned(*files, config=None)
    assert "figure_sweep" not in planned and planned["gather_sweep"] == 1


def test_a_missing_file_below_is_one_message(workflow_copy):
    write(workflow_copy, "own/mine.yaml", {"extends": "gone.yaml"})
    done = workflow_copy.snakemake("--cores", "1", config="own/mine.yaml", check=False)
    assert done.returncode != 0 and "own/gone.yaml: no such file" in done.stdout
    assert "Traceback" not in done.stdout and len(done.stdout.splitlines()) < 10


def test_an_archive_is_packed_in_the_run_that_makes_its_figures(workflow_copy):
    planned = workflow_copy.planned("archive")
    assert planned["archive"] == planned["figure_positions"] == 1
