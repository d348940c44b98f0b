"""Import the checkpoints of one seed that another program made; writes ours (a directory) and their metrics (a table).

The files are read alone. Work in progress lies in the working directory, as in training, and a job that was killed
continues behind the last checkpoint that is whole.
"""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

import shutil
from collections import Counter, defaultdict
from itertools import count
from pathlib import Path

import torch

from learning_geometry.files import write_table
from learning_geometry.known import digest_of
from learning_geometry.progress import Progress
from learning_geometry.running import job
from learning_geometry.sources.chosen import checked_at, checkpoints_of
from learning_geometry.tables.tidy import tidy
from learning_geometry.tasks.dataset import read_dataset
from learning_geometry.training.checkpoints import finish_checkpoints, read_provenance
from learning_geometry.training.importing import check_logits, import_run

with job(snakemake) as running:
    torch.set_num_threads(snakemake.threads)
    experiment, seed = snakemake.params.experiment, snakemake.params.seed
    name, working = snakemake.wildcards.experiment, Path(snakemake.params.working)
    provenance = experiment | {"name": name, "seed": seed, **running.of()}
    source = snakemake.params.source
    run = experiment | {"source": source}
    digests = defaultdict(list)
    for role, digest in sorted(running.of()["made_from"]["outside"].items()):
        _, step, *_ = role.split("/")
        if step.isdigit():
            digests[int(step)].append(digest)
    notes = []
    # what came since this was planned waits for the next run
    places = {step: place for step, place in checkpoints_of(source, [seed], notes)[seed].items() if step in digests}
    running.ready()
    if source["check"]:
        at = checked_at(source, snakemake.params.seeds)
        apart = check_logits(run, at.path, source["check"]["file"])
        running.terminal(f"{name}: logits of {at.path} as given, but for {apart:.1g} of the largest")
    progress, done = Progress(len(places), f"{name} seed {seed}"), count(1)

    def report(step, note):
        """Show what was imported; that nothing changed meanwhile is seen at the end."""
        progress(next(done), f"step {step}: {note}")

    dataset = read_dataset(snakemake.input.dataset[0]) if snakemake.input.dataset else None
    of_steps = {step: digest_of(of_one) for step, of_one in digests.items()}
    for line in notes:
        running.terminal(f"{name}: {line}")
    rows = import_run(run, places, working, of_steps, provenance, dataset, report, source["copy"])
    if source["unchecked"]:
        rows.append({"step": min(places), "quantity": "map_unchecked", "value": 1.0})
    provenance = running.provenance(**provenance)
    write_table(tidy(rows, name, seed), snakemake.output.metrics, provenance)
    finish_checkpoints(working / "checkpoints", snakemake.output.checkpoints, places, provenance)
    shutil.rmtree(working)
    kinds = Counter()
    for step in places:
        kinds.update(read_provenance(snakemake.output.checkpoints, step)["file"]["types"])
    shorter = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()) if kind not in ("F32", "F64"))
    if shorter:
        running.terminal(f"{name} seed {seed}: tensors kept in float32, which holds them exactly: {shorter}")
    running.terminal(progress.summary())
