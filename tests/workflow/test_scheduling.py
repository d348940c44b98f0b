"""How often Snakemake looks for jobs, and what the terminal says of a run on the way."""

import re

from benchmarks.overhead import times


def test_the_scheduler_looks_for_jobs_when_one_ends_and_says_how_far_it_is(workflow_copy):
    output = workflow_copy.snakemake("--cores", "2", "--verbose", "results/figures/grokking_timeline.png").stdout
    jobs = int(re.search(r"^total +(\d+)$", output, re.MULTILINE)[1])
    assert jobs > 6
    # with Snakemake's own limit of jobs a second one more each second for each job that ended while others waited
    assert output.count("Ready jobs: ") <= jobs + 1
    assert re.findall(r"(\d+) of \d+ jobs, 1 of 1 figures are done, 100 % of the work", output) == [str(jobs)]
    table = times(workflow_copy.folder / "results").set_index("rule")
    assert table.loc["train", "jobs"] == 1
    assert table["jobs"].sum() == jobs + 1  # and Snakemake itself
    assert (table["start"] > 0).all()
