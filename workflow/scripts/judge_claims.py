"""Judge every claim from the tables of its experiments; writes a CSV, a Markdown and an HTML page."""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

import os

from learning_geometry.claims.judge import judge
from learning_geometry.claims.models import weights_in
from learning_geometry.claims.pages import Drawn, markdown, webpage
from learning_geometry.files import atomic_path, read_provenance, read_table, write_text
from learning_geometry.running import job

with job(snakemake) as running:
    experiments, runs = snakemake.params.experiments, snakemake.input.runs
    weights = {name: weights_in(read_provenance(path)) for name, path in zip(experiments, runs, strict=True)}
    ledger = judge(experiments, [read_table(path) for path in runs], weights=weights)
    folder = os.path.dirname(snakemake.output.page)
    figures = {
        name: Drawn(os.path.relpath(figure["path"], folder), tuple(figure["experiments"]))
        for name, figure in snakemake.params.figures.items()
    }
    running.unchanged()
    with atomic_path(snakemake.output.csv) as path:
        ledger.table.to_csv(path, index=False, float_format="%.6g")
    write_text(snakemake.output.markdown, markdown(ledger, figures))
    write_text(snakemake.output.page, webpage(ledger, figures))
    verdicts = ledger.table.drop_duplicates(["study", "claim", "experiment"])["verdict"].value_counts()
    running.terminal("claims: " + ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items())))
