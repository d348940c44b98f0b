"""Changes between runs on a real cluster of this machine, or while they wait, and what a rule asks for."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.slurm_demo import different, start

from .conftest import Copy, environment, job_counts
from .slurm_runs import QUICK, RUN, SAME, edit, ended, prepared, told, until

pytestmark = pytest.mark.slow

MEASUREMENT = "src/learning_geometry/measurements/runs/embedding_frequencies.py"


def times(copy):
    return {str(path): path.stat().st_mtime_ns for path in (copy.folder / "results").rglob("*.parquet")}


def rewritten(copy, before):
    """The names of the tables that were written since."""
    return {
        path.rsplit("/", 1)[1].removesuffix(".parquet")
        for path, time in times(copy).items()
        if before.get(path) != time
    }


def nothing_to_be_done(copy, up):
    found = ended(start(copy, up, *QUICK), copy, up)
    return found.status == 0 and "Nothing to be done" in found.said


@pytest.fixture
def editable(seen, tmp_path):
    """A copy of the run that ended out of the box."""
    shutil.copytree(seen["out_of_the_box"]().copy.folder, tmp_path / "copy")
    return Copy(tmp_path / "copy")


def test_what_is_damaged_is_made_again_with_what_follows(here, editable, up):
    checkpoint = sorted((editable.folder / RUN / "checkpoints").glob("*.safetensors"))[-1]
    content = bytearray(checkpoint.read_bytes())
    content[-1] ^= 1
    checkpoint.write_bytes(content)
    (editable.folder / RUN / "embedding_frequencies.parquet").unlink()
    check = [sys.executable, "-m", "learning_geometry.check", "--configfile", "tiny.yaml", "--remove"]
    paths = environment() | {"PYTHONPATH": str(editable.folder / "src")}
    done = subprocess.run(check, cwd=editable.folder, env=paths, capture_output=True, text=True, check=True)
    assert f"removed {RUN}/checkpoints" in done.stdout
    planned = editable.planned()
    assert planned["train"] == planned["measure"] == planned["summarize"] == 1 and "make_dataset" not in planned
    before = times(editable)
    found = ended(start(editable, up, *QUICK), editable, up)
    assert found.status == 0, found.said
    assert job_counts(found.said) == planned
    assert rewritten(editable, before) == {"training_metrics", "embedding_frequencies", "runs", "summary"}
    assert different(here, editable) == []
    (state,) = {job["state"] for job in found.jobs}
    told("a checkpoint is damaged", state, f"after `make check REMOVE=1` it is made again, with what follows; {SAME}")


def test_an_edit_of_code_reruns_what_uses_it(editable, up):
    edit(editable, MEASUREMENT)
    planned = editable.planned()
    assert planned["measure"] == planned["summarize"] == 1 and not {"train", "make_dataset"} & planned.keys()
    before = times(editable)
    found = ended(start(editable, up, *QUICK), editable, up)
    assert found.status == 0, found.said
    assert job_counts(found.said) == planned
    assert rewritten(editable, before) == {"embedding_frequencies", "runs", "summary"}
    assert nothing_to_be_done(editable, up)
    (state,) = {job["state"] for job in found.jobs}
    told("code is edited between two runs", state, "what uses it is made again, and nothing else")


def test_an_edit_while_jobs_wait_is_in_what_they_make(up, tmp_path):
    copy = prepared(tmp_path)
    up.run("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        process = start(copy, up, *QUICK)
        until(lambda: [job for job in up.jobs(copy.folder) if job["state"] == "PENDING"])
        edit(copy, MEASUREMENT)
    finally:
        up.run("scontrol", "update", "PartitionName=main", "State=UP")
    found = ended(process, copy, up)
    assert found.status == 0, found.said
    assert nothing_to_be_done(copy, up)
    (state,) = {job["state"] for job in found.jobs}
    told("code is edited while jobs wait", state, "they run with the code of now; nothing is out of date at the end")


def test_an_edit_while_a_job_runs_is_refused_and_the_job_sent_again(seen, up):
    found = seen["edited_while_it_runs"]()
    assert found.status == 0, found.said
    logs = (found.copy.folder / ".snakemake/slurm_logs").rglob("*.log")
    assert any("the code changed while this job ran" in log.read_text() for log in logs)
    assert nothing_to_be_done(found.copy, up)
    outcome = "it writes nothing and is sent again, with the code of now; nothing is out of date at the end"
    told("code is edited while a job runs", found.state, outcome)


def test_a_gpu_is_asked_for_where_a_rule_has_one(seen):
    found = seen["asks_for_a_gpu"]()
    assert found.status == 0, found.said
    # the run travels together, the first of all
    asked = [bool(re.search(r"TresPerJob=gres:gpu:1\b", each)) for each in found.asked]
    assert asked == [True] + [False] * (len(asked) - 1)
    assert len(asked) > 1
