"""A plan needs no parameters of jobs, and is the same as with them."""

import pytest


@pytest.fixture
def planned(workflow_copy):
    jobs = workflow_copy.planned()
    assert jobs["train"] > 1
    workflow_copy.edit("workflow/rules/common.smk", "    serve_bundle()\n", "    raise RuntimeError('worked out')\n")
    return jobs


def test_no_parameters_are_worked_out_for_a_plan(workflow_copy, planned):
    assert workflow_copy.planned() == planned
    done = workflow_copy.snakemake("--cores", "1", "results/tiny/seed-0/dataset.safetensors", check=False)
    assert "worked out" in done.stdout and done.returncode == 1


def test_a_script_that_is_missing_is_said_as_jobs_are_planned(workflow_copy):
    (workflow_copy.folder / "workflow/scripts/train.py").unlink()
    done = workflow_copy.snakemake("--dry-run", "--cores", "1", check=False)
    assert done.returncode == 1 and "train.py" in done.stdout
