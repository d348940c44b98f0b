"""What the jobs of a plan would leave on disk, written without running any: small files with the right keys."""

from pathlib import Path

import numpy as np
import pandas as pd

from learning_geometry.files import finish_folder, write_json, write_table, write_tensors
from learning_geometry.known import file_digest
from learning_geometry.paths import record_path, recorded
from learning_geometry.planning.plan import Plan


def plant(plan: Plan, steps: tuple[int, ...] = (0,)) -> None:
    """Write the outputs of every job but the archive, and the files that a sweep of dictionaries leaves.

    Args:
        plan: of a config; relative results lie in the current folder.
        steps: of the checkpoints of a run.
    """
    for job in plan.jobs:
        if job.rule == "archive":
            continue
        provenance = {"key": plan.key(job), "made_from": plan.made_from(job), "made_with": {"python": "3"}}
        if job.rule == "measure_language_model" and "dictionary_sweep" in job.outputs[0]:
            provenance["leaves"] = True
            working = Path(f"{job.leaves}.working")
            write_tensors(working / "standard/sae_weights.safetensors", {"W": np.ones((2, 2))}, provenance)
            finish_folder(working, job.leaves, provenance)
        for output in job.outputs:
            path = Path(output)
            if output in recorded(job.outputs):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{job.title} {path.name}")
            elif path.suffix == ".parquet":
                write_table(pd.DataFrame({"value": [1.0]}), path, provenance)
            elif path.suffix == ".safetensors":
                write_tensors(path, {"tokens": np.arange(3)}, provenance)
            else:
                working = path.with_name(f"{path.name}.working")
                for step in steps:
                    write_tensors(working / f"step-{step:06d}.safetensors", {"w": np.ones(100)}, provenance)
                finish_folder(working, path, provenance)
        files = [Path(path) for path in recorded(job.outputs)]
        if files:
            record = provenance | {"digests": {path.name: file_digest(path) for path in files}}
            write_json(record_path(plan.results, job.outputs), record)
