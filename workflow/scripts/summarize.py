"""Gather every table of an experiment, add what follows from them alone, and summarise over seeds with intervals."""

import pandas as pd

from learning_geometry.files import atomic_path, read_provenance, read_table, write_table
from learning_geometry.measurements.grokking_events import grokking_events
from learning_geometry.measurements.onsets import onsets
from learning_geometry.measurements.saturation_fits import saturation_fits
from learning_geometry.measurements.summary import summarize
from learning_geometry.running import job, mixed

with job(snakemake) as running:
    tables = [read_table(path) for path in snakemake.input.tables]
    measured = pd.concat(tables, ignore_index=True)
    tables += [derived(measured) for derived in (onsets, grokking_events, saturation_fits)]
    made = {path: read_provenance(path) for path in snakemake.input.tables}
    summary = summarize(tables)
    different = mixed(made.values())
    provenance = running.provenance(tables=made, **({"mixed": different} if different else {}))
    write_table(pd.concat(tables, ignore_index=True), snakemake.output.runs, provenance)
    write_table(summary, snakemake.output.summary, provenance)
    with atomic_path(snakemake.output.csv) as path:
        summary.to_csv(path, index=False, float_format="%.6g")
    running.terminal(f"{snakemake.wildcards.experiment}: {len(summary)} numbers over seeds")
    for name, values in different.items():
        running.terminal(f"{snakemake.wildcards.experiment}: made with different {name}: {', '.join(values)}")
