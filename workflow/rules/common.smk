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
    needs,
    other_seeds,
    read_yaml,
    validate,
)
from learning_geometry.fingerprint import code_fingerprint
from learning_geometry.paths import CONCLUDED_FROM, artifact
from learning_geometry.tasks.prompts import prompt_file
from learning_geometry.tasks.texts import text_files

try:
    for path in workflow.configfiles:
        read_yaml(path)
    config.update(validate(config, files=globals().get("READS_FILES", True)))
except ConfigError as error:
    raise WorkflowError(f"The config is not valid.\n{error}") from None

RESULTS = config["results"]
EXPERIMENTS = config["experiments"]
LANGUAGE_MODELS = config["language_models"]
STUDIED = EXPERIMENTS | LANGUAGE_MODELS
FIGURES = config["figures"]
JUDGED = needed_experiments(STUDIED)


wildcard_constraints:
    experiment="[a-z0-9_]+",
    measurement="[a-z0-9_]+",
    seed="[0-9]+",
    text="[a-z0-9_]+",
    weights="trained|untrained",


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


def language_model(wildcards, *sections):
    """The sections of a language model's config that a rule depends on."""
    chosen = LANGUAGE_MODELS[wildcards.experiment]
    return {section: chosen[section] for section in sections}


def model_files(wildcards):
    """The files of a language model that lies on this machine; another weight is another result."""
    model = LANGUAGE_MODELS[wildcards.experiment]["model"]
    source, gguf = model["source"], model["gguf"]
    if os.path.isfile(source):
        return [source]
    kinds = (".json", ".safetensors", ".jinja", ".txt", ".model")
    names = sorted(os.listdir(source)) if os.path.isdir(source) else []
    return [
        os.path.join(source, name)
        for name in names
        if name.endswith(kinds) or name == gguf
    ]


def read_texts(wildcards):
    """The files of a text that a language model reads."""
    texts = LANGUAGE_MODELS[wildcards.experiment]["texts"]
    return [str(path) for path in text_files(texts[wildcards.text])]


def read_prompts(wildcards):
    """The files of the prompts that a language model reads."""
    prompts = LANGUAGE_MODELS[wildcards.experiment]["prompts"]
    return [str(prompt_file(name)) for sets in prompts.values() for name in sets]


def captured_texts(wildcards):
    """What was captured of the texts, if the measurement reads it."""
    texts = LANGUAGE_MODELS[wildcards.experiment]["texts"]
    wanted = texts if "texts" in needs(wildcards.measurement) else []
    return [
        result("text", experiment=wildcards.experiment, text=text) for text in wanted
    ]


def captured_weights(wildcards):
    """With which weights prompts are read, if the measurement reads what was captured of them."""
    wanted = needs(wildcards.measurement)
    return ["trained"] * bool({"prompts", "untrained_prompts"} & set(wanted)) + [
        "untrained"
    ] * ("untrained_prompts" in wanted)


def captured_prompts(wildcards):
    """What was captured of the prompts, if the measurement reads it."""
    return [
        result("prompts", experiment=wildcards.experiment, weights=weights)
        for weights in captured_weights(wildcards)
    ]


def sections_read(wildcards):
    """The sections of a language model's config that a measurement's result depends on."""
    wanted = {"model"}
    for need in needs(wildcards.measurement):
        wanted |= {
            "texts": {"texts", "text", "prepend_bos"},
            "prompts": {"prompts", "chat_template", "prepend_bos"},
            "untrained_prompts": {"prompts", "chat_template", "prepend_bos"},
            "model": set(),
        }[need]
    return language_model(wildcards, *sorted(wanted))


def weights_read(wildcards):
    """The files of the model's weights, if the measurement reads them."""
    return model_files(wildcards) if "model" in needs(wildcards.measurement) else []


def run_tables(wildcards):
    """Every table of an experiment, of each of its seeds, or of a language model."""
    if wildcards.experiment in LANGUAGE_MODELS:
        return [
            result(
                "model_measurement",
                experiment=wildcards.experiment,
                measurement=measurement,
            )
            for measurement in LANGUAGE_MODELS[wildcards.experiment]["measurements"]
        ]
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
    """A figure's section of the config, and what its experiments learn or read, with which model and optimiser."""
    options = FIGURES.get(figure, {"experiments": []})
    return (
        options
        | {
            f"{section}s": {
                name: STUDIED[name].get(section, {}) for name in options["experiments"]
            }
            for section in ("task", "model", "optimizer")
        }
        | {
            "prompts": {
                name: STUDIED[name].get("prompts", {})
                for name in options["experiments"]
            }
        }
    )


def in_words(name):
    """A name of the config as a heading."""
    return name.replace("_", " ").capitalize()


def figure_category(figure):
    """Where the report lists a figure: under the study of the experiment that it shows first."""
    shown = FIGURES.get(figure, {"experiments": []})["experiments"]
    return in_words(STUDIED[shown[0]]["study"]) if shown else "Figures"


def judged_settings():
    """What the claims ask of the experiments that they are judged on."""
    of_runs = ("study", "task", "model", "optimizer", "training")
    of_models = ("study", "model", "texts", "prompts", "set_up", "measurements")
    return {
        name: {
            section: STUDIED[name][section]
            for section in (of_models if name in LANGUAGE_MODELS else of_runs)
        }
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
        for name, experiment in STUDIED.items()
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
        result(table, experiment=name) for name in STUDIED for table in CONCLUDED_FROM
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
        + [result("summary_csv", experiment=name) for name in STUDIED]
        + [result("figure_pdf", figure=name) for name in FIGURES]
        + [result("figure_png", figure=name) for name in FIGURES]
    )
