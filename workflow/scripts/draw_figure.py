"""Draw one figure from the tables of its experiments; writes a PDF and a PNG."""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

from importlib import import_module

import pandas as pd

from learning_geometry.figures import style
from learning_geometry.files import read_table
from learning_geometry.running import job

with job(snakemake) as running:
    tables = {
        name: pd.concat([read_table(path) for path in snakemake.input[name]], ignore_index=True)
        for name in ("summary", "runs")
    }
    module = import_module(f"learning_geometry.figures.{snakemake.params.figure}")
    style.check_measured(tables["runs"], module.REQUIRES, snakemake.params.options["experiments"])
    with style.applied():
        figure = module.draw(tables, snakemake.params.options)
        style.say_unchecked(figure, snakemake.params.options.get("unchecked", []))
        running.unchanged()
        style.save(figure, snakemake.output.pdf, snakemake.output.png)
    running.terminal(f"figure {snakemake.output.png}")
