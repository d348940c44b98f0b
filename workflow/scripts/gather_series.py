"""Gather the tables of all models of a series in one, with step and seed, and summarise each step over seeds."""

from learning_geometry.forkserver import run_in_a_fork

run_in_a_fork()

from learning_geometry.files import atomic_path, read_provenance, read_table, write_table
from learning_geometry.running import job, mixed
from learning_geometry.tables.series import check_same_tokens, gather, same_weights, summarize_series

with job(snakemake) as running:
    places, name = snakemake.params.members, snakemake.wildcards.experiment
    paths = dict(zip(places, snakemake.input.runs, strict=True))
    made = {model: read_provenance(path) for model, path in paths.items()}
    check_same_tokens(made, name)
    runs = gather({model: read_table(path) for model, path in paths.items()}, places, name)
    summary = summarize_series(runs)
    different = mixed(table for provenance in made.values() for table in provenance["tables"].values())
    more = {"mixed": different} if different else {}
    provenance = running.provenance(members=places, **more)
    write_table(runs, snakemake.output.runs, provenance)
    write_table(summary, snakemake.output.summary, provenance)
    with atomic_path(snakemake.output.csv) as path:
        summary.to_csv(path, index=False, float_format="%.6g")
    running.terminal(f"{name}: {len(summary)} numbers of {len(places)} models")
    for several in same_weights(made):
        running.terminal(f"{name}: the same weights are those of {', '.join(several)}")
    for key, values in different.items():
        running.terminal(f"{name}: made with different {key}: {', '.join(values)}")
