"""What jobs ask a cluster for: enough, more for more work, and not a minute each for jobs of a second."""

import math
from pathlib import Path

import pytest

from learning_geometry.config import read_yaml, validate
from learning_geometry.planning.jobs import Job, all_jobs
from learning_geometry.planning.order import estimated_seconds
from learning_geometry.planning.resources import BESIDE, MARGIN, ROOM, STARTS, UNKNOWN_MEMORY, megabytes, minutes
from learning_geometry.planning.seen import SEEN


def job(rule, name="a"):
    return Job(rule, {"experiment": name}, (f"{rule}/{name}",), {}, {})


def test_jobs_that_go_together_ask_for_what_all_need():
    jobs = [job("summarize", str(number)) for number in range(100)]
    asked = minutes(jobs)
    seconds = sum(map(estimated_seconds, jobs))
    assert sum(asked.values()) == math.ceil(STARTS + MARGIN * seconds / 60 - 1e-9)
    assert min(asked.values()) == 0
    assert minutes(jobs[:1]) == {jobs[0]: asked[jobs[0]]}


@pytest.mark.parametrize("config", ["config.yaml", "paper.yaml"])
def test_no_job_of_a_shipped_config_asks_for_less_than_it_takes(config):
    for each in all_jobs(validate(read_yaml(f"config/{config}"), files=False)):
        assert minutes([each])[each] * 60 >= MARGIN * estimated_seconds(each)


def test_the_sweep_of_the_published_scale_asks_for_days():
    jobs = all_jobs(validate(read_yaml("config/paper.yaml"), files=False))
    (sweep,) = [each for each in jobs if each.wildcards.get("measurement") == "dictionary_sweep"]
    assert minutes([sweep])[sweep] > 120 * 60  # 120 hours by another's count


def test_memory_is_what_was_seen_and_room():
    seen = SEEN["judge_claims"].memory
    assert ROOM * seen + BESIDE <= megabytes(job("judge_claims")) < ROOM * seen + BESIDE + 100
    assert megabytes(job("somebody's own")) >= ROOM * UNKNOWN_MEMORY + BESIDE
    assert megabytes(job("train", "somebody's own")) == megabytes(job("train", "copying"))


def test_large_checkpoints_of_another_program_ask_for_more():
    def asked(rule, **found):
        made = job(rule)._replace(wildcards={"experiment": "a", "measurement": "commutators"}, found=found)
        return minutes([made])[made], megabytes(made)

    for rule in ("import_checkpoints", "measure"):
        small, large = asked(rule, bytes=10**6, largest=10**5), asked(rule, bytes=10**12, largest=3 * 10**9)
        assert large[1] - small[1] >= 2 * 3000  # float32 of a checkpoint in bfloat16
        assert large[0] > MARGIN * 10**12 / 1e9 / 60 > small[0]  # no disk reads faster than a gigabyte a second


def test_the_docs_say_what_is_asked_for():
    words = {2: "two", 3: "three", 4: "four", 9: "nine", 10: "ten"}
    docs = " ".join((Path(__file__).parents[2] / "docs/cluster.md").read_text().split())
    assert f"{words[MARGIN]} times the estimate and {words[STARTS]} minutes" in docs
    assert ROOM == 1.5 and "half as much memory again as was seen" in docs
    rules = (Path(__file__).parents[2] / "workflow/rules/common.smk").read_text()
    assert "attempt * megabytes(" in rules and "two and three times the memory" in docs
    assert "attempt**2 *" in rules and "four and nine times the time" in docs
