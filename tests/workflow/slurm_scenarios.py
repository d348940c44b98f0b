"""What happens to runs on the Slurm cluster of the slow tests, each in a copy of its own, beside each other."""

import os
import signal

import yaml

from tests.slurm_demo import PROFILE, start

from .slurm_runs import QUICK, RUN, at_work, edit, ended, running, small_config, until


def out_of_the_box(copy, up):
    return ended(start(copy, up), copy, up)


def cancelled(copy, up):
    process = start(copy, up, *QUICK)
    number = running(copy, up)
    up.run("scancel", number)
    return ended(process, copy, up, number)


def over_memory(copy, up):
    asked = [f"{rule}:mem_mb=attempt*attempt*400" for rule in ("make_dataset", "train", "measure")]
    found = ended(start(copy, up, *QUICK, "--set-resources", *asked), copy, up)
    return found._replace(number=found.jobs[0]["number"])


def over_time(copy, up):
    process = start(copy, up, *QUICK)
    number = running(copy, up)
    for each in until(lambda: at_work(copy)):
        os.kill(each, signal.SIGSTOP)
    up.run("scontrol", "update", f"JobId={number}", "TimeLimit=1")
    return ended(process, copy, up, number)


def killed(copy, up):
    process = start(copy, up, *QUICK)
    number = running(copy, up)
    process.kill()
    process.communicate()
    (job,) = [each for each in up.jobs(copy.folder) if each["number"] == number]
    up.run("scancel", "--name", job["name"])
    copy.snakemake(*PROFILE, "--unlock")
    found = ended(start(copy, up, *QUICK), copy, up, number)
    return found._replace(jobs=[job, *found.jobs])


def interrupted(copy, up):
    process = start(copy, up, *QUICK)
    number = running(copy, up)
    process.send_signal(signal.SIGINT)
    found = ended(process, copy, up, number)
    until(lambda: not [job for job in up.jobs(copy.folder) if job["state"] in ("RUNNING", "COMPLETING")])
    return found._replace(jobs=up.jobs(copy.folder))


def failing(copy, up):
    copy.edit("workflow/scripts/train.py", "with job(snakemake)", "raise RuntimeError('planted')\nwith job(snakemake)")
    found = ended(start(copy, up, *QUICK), copy, up)
    return found._replace(number=found.jobs[0]["number"])


def two_configs(copy, up):
    (copy.folder / "second.yaml").write_text(yaml.safe_dump(small_config() | {"results": "results/second"}))
    first, second = start(copy, up, *QUICK), start(copy, up, *QUICK, config="second.yaml")
    said, _ = second.communicate(timeout=500)
    found = ended(first, copy, up)
    return found._replace(status=found.status or second.returncode, said=found.said + said)


def edited_while_it_runs(copy, up):
    config = small_config()
    experiment = config["experiments"]["tiny_grokking"]
    # long enough for an edit
    experiment["training"] |= {"steps": 3000, "checkpoints": {"every": 500, "logarithmic": 0}}
    experiment["measurements"] = {"embedding_frequencies": {"every": 500}}
    copy.write_config(config | {"figures": {}})
    process = start(copy, up, *QUICK)
    number = running(copy, up)
    until((copy.folder / RUN / "logs/train.log").exists)
    edit(copy, "src/learning_geometry/training/loop.py")
    return ended(process, copy, up, number)


def asks_for_a_gpu(copy, up):
    found = ended(start(copy, up, *QUICK, "--set-resources", "train:gpu=1"), copy, up)
    # at once: Slurm forgets jobs after minutes
    asked = [up.run("scontrol", "--oneliner", "show", "job", job["number"]) for job in found.jobs]
    return found._replace(asked=tuple(asked))


SCENARIOS = (
    *(over_time, edited_while_it_runs, out_of_the_box, over_memory, killed),
    *(failing, cancelled, interrupted, two_configs, asks_for_a_gpu),
)
"""Those that take longest first."""
