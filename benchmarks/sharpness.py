"""The measurement ``sharpness`` as a default run makes it, against peers that find its largest eigenvalues alone."""

import atexit
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from benchmarks._timing import Case, Count
from benchmarks.hessian_trajectory import CONFIG, PEERS, SIDES, Work, check, default_work, make_work, small_work
from learning_geometry.config import load
from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.runs import sharpness
from learning_geometry.tasks.dataset import Dataset, make_dataset, write_dataset
from learning_geometry.training.checkpoints import read_checkpoint, write_checkpoint

NAME = "sharpness as the workflow runs it"


@dataclass
class Job:
    """A run on disk, the settings of the measurement, and the same checkpoints and sequences for the peers."""

    run: Run
    settings: dict[str, Any]
    work: Work

    def measure(self) -> None:
        """Measure all that the measurement does: both ends, masses, trace and proxy."""
        table = sharpness.measure(self.run, self.settings)
        found = table[(table["quantity"] == "largest_hessian_eigenvalue") & (table["null"] == "")]
        self.work.values["ours"] = found["value"].tolist()


def cases(small: bool) -> list[Case | Count]:
    """Return a case for each peer, each side once: checkpoints and sequences of ``config.yaml``, or two and five."""
    job = set_up(small)
    return [
        Case(NAME, peer, job.measure, theirs(job, side), parts=1) for side, peer in PEERS.items() if side != "eigsh"
    ]


def theirs(job: Job, side: str) -> Any:
    """Return a function that finds all largest eigenvalues, and compares them with ours, found before or after."""
    iterator = SIDES[side](job.work)

    def find() -> None:
        job.work.values[side] = list(iterator)
        check({name: job.work.values[name] for name in (side, "ours") if name in job.work.values})

    return find


def set_up(small: bool) -> Job:
    """Return the run of seed 0, finished or trained once, or two scaled initial models."""
    experiment = load(CONFIG)["experiments"]["copying"]
    settings = experiment["measurements"]["sharpness"]
    here, task = Path(mkdtemp()), experiment["task"]
    atexit.register(shutil.rmtree, here, ignore_errors=True)
    if small:
        settings = settings | {"every": 1, "sequences": 5}
        task = task | {"test_sequences": 8}
        checkpoints = here / "checkpoints"
        for step, point in enumerate(small_work().points):
            write_checkpoint(checkpoints, step, point, {})
    else:
        checkpoints = default_work().folder
    dataset: Dataset = make_dataset(task, seed=0)
    write_dataset(here / "dataset.safetensors", dataset, {})
    asked = {"task": task, "model": experiment["model"]}
    run = Run("copying", 0, asked, checkpoints, here / "dataset.safetensors", here / "no_metrics.parquet")
    points = [read_checkpoint(checkpoints, step) for step in run.steps(settings["every"])]
    return Job(run, settings, make_work(experiment, dataset, points, settings["sequences"]))
