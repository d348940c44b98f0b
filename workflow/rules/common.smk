# Every helper function of the workflow; the other rule files hold rules alone.
import os
import sys
from functools import cache

SOURCE = os.path.join(workflow.basedir, "src")
sys.path.insert(0, SOURCE)
# scripts run in processes of their own: they find the package without being installed, and keep freed
# memory (with glibc this saves a tenth of a training step)
environment = os.environ
environment["PYTHONPATH"] = os.pathsep.join([SOURCE, environment.get("PYTHONPATH", "")])
environment.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
environment.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))

from snakemake.exceptions import WorkflowError

from learning_geometry.claims.studies import needed_experiments
from learning_geometry.config import (
    ConfigError,
    available,
    needed_seeds,
    other_seeds,
    read_yaml,
    validate,
)
from learning_geometry.fingerprint import code_fingerprint
from learning_geometry.paths import CONCLUDED_FROM, artifact

try:
    for path in workflow.configfiles:
        read_yaml(path)
    config.update(validate(config))
except ConfigError as error:
    raise WorkflowError(f"The config is not valid.\n{error}") from None

RESULTS = config["results"]
EXPERIMENTS = config["experiments"]
FIGURES = config["figures"]
JUDGED = needed_experiments(EXPERIMENTS)


wildcard_constraints:
    experiment="[a-z0-9_]+",
    measurement="[a-z0-9_]+",
    seed="[0-9]+",


def result(name, **wildcards):
    """The path of an artifact of this config."""
    return artifact(RESULTS, name, **wildcards)


@cache
def code(script, *modules):
    """The fingerprint of a script and of every module of the package that it uses."""
    roots = [f"learning_geometry.{module}" for module in modules]
    return code_fingerprint(
        os.path.join(workflow.basedir, "workflow/scripts", script), *roots
    )


def settings(wildcards, *sections):
    """The sections of an experiment's config that a rule depends on."""
    experiment = EXPERIMENTS[wildcards.experiment]
    return {section: experiment[section] for section in sections}


def task_module(wildcards):
    return f"tasks.{EXPERIMENTS[wildcards.experiment]['task']['name']}"


def model_module(wildcards):
    return f"models.{EXPERIMENTS[wildcards.experiment]['model']['name']}"


compared_seeds = cache(other_seeds)


def seeds_compared_with(wildcards):
    """The other seeds that a measurement of one run reads."""
    seeds = EXPERIMENTS[wildcards.experiment]["seeds"]
    wanted = compared_seeds(wildcards.measurement)
    return needed_seeds(wanted, int(wildcards.seed), seeds)


def runs_compared_with(wildcards):
    """What training left of the other seeds that a measurement reads."""
    return [
        result(name, experiment=wildcards.experiment, seed=seed)
        for name in ("checkpoints", "dataset", "metrics")
        for seed in seeds_compared_with(wildcards)
    ]


def run_tables(wildcards):
    """Every table of every seed of an experiment."""
    experiment = EXPERIMENTS[wildcards.experiment]
    at = [
        {"experiment": wildcards.experiment, "seed": seed}
        for seed in experiment["seeds"]
    ]
    return [result("metrics", **run) for run in at] + [
        result("measurement", measurement=measurement, **run)
        for measurement in experiment["measurements"]
        for run in at
    ]


def figure_inputs(figure, table):
    """The tables of the experiments that a figure shows, in their order."""
    experiments = FIGURES.get(figure, {"experiments": []})["experiments"]
    return [result(table, experiment=experiment) for experiment in experiments]


def figure_options(figure):
    """A figure's section of the config, and what its experiments learn, with which model and optimiser."""
    options = FIGURES.get(figure, {"experiments": []})
    return options | {
        f"{section}s": {
            name: EXPERIMENTS[name][section] for name in options["experiments"]
        }
        for section in ("task", "model", "optimizer")
    }


def in_words(name):
    """A name of the config as a heading."""
    return name.replace("_", " ").capitalize()


def figure_category(figure):
    """Where the report lists a figure: under the study of the experiment that it shows first."""
    shown = FIGURES.get(figure, {"experiments": []})["experiments"]
    return in_words(EXPERIMENTS[shown[0]]["study"]) if shown else "Figures"


def judged_settings():
    """What the claims ask of the experiments that they are judged on."""
    sections = ("study", "task", "model", "optimizer", "training")
    return {
        name: {section: EXPERIMENTS[name][section] for section in sections}
        for name in JUDGED
    }


def drawn_figures():
    """Every figure of the config: its image, and the experiments it shows."""
    return {
        name: {
            "path": result("figure_png", figure=name),
            "experiments": figure["experiments"],
        }
        for name, figure in FIGURES.items()
    }


def final_outputs(study=None):
    """The summaries, figures and claims of one study, or of all; claims only if none is of another study."""
    chosen = [
        name
        for name, experiment in EXPERIMENTS.items()
        if study in (None, experiment["study"])
    ]
    figures = [
        name
        for name, figure in FIGURES.items()
        if set(figure["experiments"]) <= set(chosen)
    ]
    claims = [result("claims_csv")] if JUDGED and set(JUDGED) <= set(chosen) else []
    return (
        claims
        + [result("summary", experiment=name) for name in chosen]
        + [result("figure_pdf", figure=name) for name in figures]
        + [result("figure_png", figure=name) for name in figures]
    )


def archived_tables():
    """Every table that figures and claims are made from."""
    return [
        result(table, experiment=name)
        for name in EXPERIMENTS
        for table in CONCLUDED_FROM
    ]


def archived_config():
    """The config, without the keys that change no number."""
    left_out = ("results", "seconds_between_saves")
    return {key: value for key, value in config.items() if key not in left_out}


def drawn_outputs():
    """Everything that is made from the tables: figures, claims, and summaries as CSV."""
    claims = ("claims_csv", "claims_markdown", "claims_page") if JUDGED else ()
    return (
        [result(name) for name in claims]
        + [result("summary_csv", experiment=name) for name in EXPERIMENTS]
        + [result("figure_pdf", figure=name) for name in FIGURES]
        + [result("figure_png", figure=name) for name in FIGURES]
    )
