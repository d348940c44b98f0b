"""A measurement that its data do not allow: all else is made, and nothing looks like success."""

import pandas as pd
import pytest
import yaml

from learning_geometry.files import read_provenance, read_table

from .conftest import copy_workflow

REASON = "two draws do not do"

MEASUREMENT = "src/learning_geometry/measurements/runs/rank_over_training.py"
FIRST = "    # the first checkpoint is the null, measured or not\n"
FAILS = f"""    if settings["null_draws"] == 2:
        raise ValueError("of these data {REASON}")
"""


def config():
    """Two seeds of copying; rank_over_training cannot be made with two draws."""
    return {
        "experiments": {
            "tiny": {
                "study": "orthogonal_subspaces",
                "seeds": [0, 1],
                "task": {
                    "name": "copying",
                    "vocabulary": 8,
                    "length": 24,
                    "segment_length": [6, 7],
                    "out_of_distribution_segment_length": 8,
                    "test_sequences": 20,
                },
                "model": {"width": 8},
                "training": {
                    "steps": 20,
                    "batch_size": 5,
                    "evaluate_every": 10,
                    "evaluation_sequences": 20,
                    "checkpoints": {"every": 10, "logarithmic": 0},
                },
                "measurements": {
                    "embedding_spectrum": {"every": 10, "null_draws": 40, "gap_draws": 400},
                    "rank_over_training": {
                        "every": 10,
                        "sequences": 2,
                        "null_draws": 2,
                        "least_vectors_per_width": 1,
                    },
                },
            }
        },
        "figures": {
            "embedding_singular_values": {"experiments": ["tiny"]},
            "rank_over_training": {"experiments": ["tiny"]},
        },
    }


@pytest.mark.slow
def test_all_else_is_made_and_the_run_is_no_success(tmp_path):
    copy = copy_workflow(tmp_path)
    settings = config()
    copy.edit(MEASUREMENT, FIRST, FAILS + FIRST)
    copy.write_config(settings)
    first = copy.snakemake("--cores", "2", check=False)
    assert first.returncode != 0, first.stdout
    results = tmp_path / "results"
    # the table of the measurement has no rows, and says why; its log has the traceback
    path = results / "tiny/seed-0/rank_over_training.parquet"
    table, failure = read_table(path), read_provenance(path)["failure"]
    assert table.empty and failure["error"] == "ValueError" and REASON in failure["message"]
    assert "Traceback" in (results / "tiny/seed-0/logs/measure_rank_over_training.log").read_text()
    # summaries are there, and say what they lack
    for name, column in (("runs", "value"), ("summary", "estimate")):
        rows = read_table(results / f"tiny/{name}.parquet")
        lacking = rows[rows["quantity"] == "not_measured"]
        assert set(lacking["part"]) == {"rank_over_training"} and lacking[column].isna().all()
        assert lacking["data"].str.contains(REASON).all() and "singular_value" in set(rows["quantity"])
        recorded = read_provenance(results / f"tiny/{name}.parquet")["failures"]
        assert [each["seed"] for each in recorded] == [0, 1]
    assert "not_measured" in pd.read_csv(results / "tiny/summary.csv")["quantity"].tolist()
    # the figure that needs it is missing, the other is not; claims name the reason
    assert (results / "figures/embedding_singular_values.png").is_file()
    assert not (results / "figures/rank_over_training.png").exists()
    assert (
        "could not be made (ValueError:" in (results / "figures/logs/rank_over_training.log").read_text()
        if (results / "figures/logs/rank_over_training.log").is_file()
        else "rank_over_training of tiny, seed 0, could not be made" in first.stdout
    )
    assert "rank_over_training failed: ValueError:" in (results / "claims.md").read_text()
    # said at the very end
    end = first.stdout[first.stdout.rindex("2 measurements could not be made") :]
    assert "rank_over_training of tiny, seed 1: ValueError: " in end and "results/tiny/seed-1" in end

    # without that figure nothing else is to be done; it is said again, and is no success
    del settings["figures"]["rank_over_training"]
    copy.write_config(settings)
    again = copy.snakemake("--cores", "2", check=False)
    assert again.returncode != 0 and "2 measurements could not be made" in again.stdout
    third = copy.snakemake("--cores", "2", check=False)
    assert third.returncode != 0 and "2 measurements could not be made" in third.stdout
    assert not (results / "failed.txt").exists()
    assert copy.planned() == {"failed_measurements": 1}

    # with other settings it is tried again
    settings["experiments"]["tiny"]["measurements"]["rank_over_training"]["null_draws"] = 3
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    mended = copy.snakemake("--cores", "2")
    assert "could not be made" not in mended.stdout
    assert "not_measured" not in pd.read_csv(results / "tiny/summary.csv")["quantity"].tolist()
    assert copy.planned() == {}
