"""Train one seed; writes its checkpoints (a directory) and its metrics (a table).

Work in progress lies in the working directory and is moved to the outputs at the end, so that a job killed
at any moment and started again continues from its last saved state. The checkpoints are moved last: before that the
saved state has all of them, and after it both outputs are whole.
"""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

import shutil
from pathlib import Path

import torch

from learning_geometry.files import write_table
from learning_geometry.progress import Progress
from learning_geometry.running import job
from learning_geometry.tables.tidy import tidy
from learning_geometry.tasks.dataset import read_dataset
from learning_geometry.training.checkpoints import finish_checkpoints, schedule
from learning_geometry.training.loop import train

with job(snakemake) as running:
    torch.set_num_threads(snakemake.threads)
    experiment, seed = snakemake.params.experiment, snakemake.params.seed
    name, working = snakemake.wildcards.experiment, Path(snakemake.params.working)
    provenance = experiment | {"name": name, "seed": seed, **running.of()}
    progress = Progress(experiment["training"]["steps"], f"{name} seed {seed}")

    def report(step, rows):
        """Show the step and its losses and errors in the log; a state is saved after this, if the code is the same."""
        running.unchanged()
        shown = {f"running_{quantity}": quantity for quantity in ("loss", "error")}
        latest = [row for row in rows if row["step"] == step and row["quantity"] in shown]
        notes = [f"{row['data']} {shown[row['quantity']]} {row['value']:.3f}" for row in latest]
        progress(step, ", ".join(notes))

    dataset, pause = read_dataset(snakemake.input.dataset), snakemake.config["seconds_between_saves"]
    rows = train(experiment, seed, dataset, working, provenance, report, pause)
    provenance = running.provenance(**provenance)
    write_table(tidy(rows, name, seed), snakemake.output.metrics, provenance)
    kept = schedule(experiment["training"]["checkpoints"], experiment["training"]["steps"])
    finish_checkpoints(working / "checkpoints", snakemake.output.checkpoints, kept, provenance)
    shutil.rmtree(working)
    running.terminal(progress.summary())
