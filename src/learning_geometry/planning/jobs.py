"""Every job that a config asks for: what it makes, from what, with which settings and code.

The rules in ``workflow/rules`` take their inputs and parameters from here.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from learning_geometry.claims.studies import needed_experiments, used_rules
from learning_geometry.config.needs import OTHER_SEEDS, needed_seeds, other_seeds, reads, shared
from learning_geometry.config.series import earlier_models, last_models, series, series_shown, shows_series
from learning_geometry.config.sweeps import sweeps
from learning_geometry.discovery import module_files, module_name
from learning_geometry.model_files import EMBEDDED, places_of
from learning_geometry.paths import CONCLUDED_FROM, artifact
from learning_geometry.planning.outside import gguf_name
from learning_geometry.sources.saelens import saelens_folders

NO_NUMBER = ("results", "seconds_between_saves")
"""Keys of a config that change no number."""

PASSING = ("/checkpoints", "/imported")
"""Ends of paths that come with a table, and may be deleted when they are measured."""

SECTIONS = ("task", "model", "optimizer", "training")
"""Sections of an experiment that make its runs."""

OWN_MAP = "own"
"""What a map in a file of the user's is called in the settings of a run; its digest stands for it."""

OF_SOURCE, OF_IMPORT = ("unchecked", "batch_size"), ("state", "ignore", "unchecked", "evaluation_sequences", "copy")
"""Keys of a source on which measurements depend, and on which the import does; files are told by digests."""


class Job(NamedTuple):
    """One job of the workflow."""

    rule: str
    wildcards: dict[str, str]
    """Of the rule, such as ``{"experiment": "copying", "seed": "0"}``; none for figures and claims."""
    outputs: tuple[str, ...]
    """Paths of the files and folders that it makes."""
    inputs: dict[str, tuple[str, ...]]
    """Role -> paths of what other jobs make and this one reads."""
    settings: dict[str, Any]
    """What else its result depends on; the parameters of its rule."""
    modules: tuple[str, ...] = ()
    """The package's modules that its script imports by a computed name."""
    reads: Mapping[str, Any] = {}
    """What it reads from outside, see ``planning.outside.outside_files``."""
    script: str = ""
    """File name of its script."""
    passing: bool = False
    """Whether its outputs serve other jobs alone, so that they may be deleted when these are done."""
    leaves: str = ""
    """A folder in which it may leave files beside its outputs."""
    works_in: str = ""
    """A folder that holds what it has done so far, and is gone when it is finished."""
    found: Mapping[str, Any] = {}
    """Of checkpoints of another program that it reads: the ``bytes`` of a run, and of the ``largest``, at most."""

    def __hash__(self) -> int:
        return hash(self.outputs)

    @property
    def title(self) -> str:
        """The rule and the wildcards, such as ``train copying 0``."""
        return " ".join([self.rule, *self.wildcards.values()])


def all_jobs(config: Mapping[str, Any], redraw: bool = False) -> list[Job]:
    """Return every job that a config asks for, and those that pack an archive.

    Args:
        config: with all defaults, as ``config.validate`` returns it.
        redraw: the jobs that draw the tables of an archive again.
    """
    drawn = [*_sweeps(config), *_series(config), *_figures(config), *_claims(config)]
    if redraw:
        return [*_written_summaries(config), *drawn]
    return [
        *_runs(config),
        *_dequantised(config),
        *_language_models(config),
        *_summaries(config),
        *drawn,
        _archive(config),
    ]


def judged(config: Mapping[str, Any]) -> list[str]:
    """Return the experiments and language models of the config that claims are judged on; of series the last step."""
    earlier = earlier_models(config)
    return list(needed_experiments({name: each for name, each in _studied(config).items() if name not in earlier}))


def final_outputs(config: Mapping[str, Any], jobs: Iterable[Job], study: str | None = None) -> list[str]:
    """Return what a run makes of one study, or of all; claims only if none is of another study.

    These are the tables, summaries, figures and claims; the data, checkpoints and captures that they are made from are
    made if they are needed.
    """
    studied = _studied(config)
    chosen = {name for name, experiment in studied.items() if study in (None, experiment["study"])}
    figures = {f"figure_{name}" for name, each in config["figures"].items() if set(each["experiments"]) <= chosen}
    rules = figures | ({"judge_claims"} if set(judged(config)) <= chosen else set())
    # a sweep is of the study of its experiments, and a series of that of its models
    chosen |= {name for name, by_member in (sweeps(config) | series(config)).items() if set(by_member) <= chosen}
    outputs = []
    for job in jobs:
        if job.rule in rules or (job.wildcards.get("experiment") in chosen and not job.passing):
            outputs += [path for path in job.outputs if not path.endswith(PASSING)]
    return outputs


def drawn_outputs(jobs: Iterable[Job]) -> list[str]:
    """Return everything that is made from the summaries: figures and claims, and summaries of all kinds as CSV."""
    outputs: list[str] = []
    for job in jobs:
        if job.rule.startswith("figure_") or job.rule == "judge_claims":
            outputs += job.outputs
        elif job.rule in ("summarize", "write_summary", "gather_sweep", "gather_series"):
            outputs += [path for path in job.outputs if path.endswith(".csv")]
    return outputs


def figure_options(config: Mapping[str, Any], figure: str) -> dict[str, Any]:
    """Return a figure's section of the config, and what its experiments learn or read, with which model.

    If some are of a sweep, "swept" says of which, and with which values; "unchecked" names those whose
    parameters a map put in place that was not checked; "said" has words for those that are language models. Where a
    figure shows all steps of series, the experiments are these, and what they read is said of the last model of each.
    """
    options, studied = config["figures"][figure], _studied(config)
    if shows_series(figure):
        by_series = series(config)
        names = series_shown(options["experiments"], config)
        options = options | {"experiments": names}
        studied = {name: studied[last_models(by_series[name])[0]] for name in names}
    sections = {"tasks": "task", "models": "model", "optimizers": "optimizer", "prompts": "prompts"}
    swept = {name: studied[name]["swept"] for name in options["experiments"] if studied[name].get("swept")}
    by_section = {
        plural: {name: studied[name].get(section, {}) for name in options["experiments"]}
        for plural, section in sections.items()
    }
    unchecked = [name for name in options["experiments"] if studied[name].get("source", {}).get("unchecked")]
    said = {name: said_of(studied[name]["model"]) for name in options["experiments"] if "texts" in studied[name]}
    more = {"swept": swept, "unchecked": unchecked, "said": said}
    more = {key: value for key, value in more.items() if value}
    return options | by_section | more


def said_of(model: Mapping[str, Any]) -> str:
    """Return in words which language model a section ``model`` of the config names, and in what it is computed.

    >>> said_of({"source": "a/b", "gguf": None, "revision": "step1", "dtype": "bfloat16"})
    'a/b, revision step1, computed in bfloat16'
    """
    embedded = model["source"] == EMBEDDED
    said = ["the embedded SmolLM2-135M-Instruct, with quantised weights" if embedded else str(model["source"])]
    said += [str(model["gguf"])] if model["gguf"] else []
    said += [f"revision {model['revision']}"] if model["revision"] else []
    said += [f"computed in {model['dtype']}"] if model["dtype"] != "float32" else []
    return ", ".join(said)


def archived_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config without the keys that change no number."""
    return {key: value for key, value in config.items() if key not in NO_NUMBER}


def _studied(config: Mapping[str, Any]) -> dict[str, Any]:
    return config["experiments"] | config["language_models"]


def run_settings(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of an experiment that make its runs; of a source what measurements depend on."""
    run = {section: experiment[section] for section in SECTIONS if section in experiment}
    if "source" in experiment:
        source = experiment["source"]
        run["source"] = {key: source[key] for key in OF_SOURCE} | {"names": map_name(source)}
    return run


def map_name(source: Mapping[str, Any]) -> str | None:
    """Return what the map of a source is called, wherever it lies; None without one."""
    return OWN_MAP if Path(source["names"] or "").suffix else source["names"]


def _modules(run: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules of a run's task and model, as far as it has them."""
    return tuple(f"{kind}s.{run[kind]['name']}" for kind in ("task", "model") if kind in run)


def _runs(config: Mapping[str, Any]) -> Iterator[Job]:
    for name, experiment in config["experiments"].items():
        run, asked = run_settings(experiment), experiment["measurements"]
        # looked up once, not for each seed
        found = {each: (other_seeds(each), shared(each, asked), module_name("measurements", each)) for each in asked}
        for seed in experiment["seeds"]:
            at = {"experiment": name, "seed": str(seed)}
            if "task" in run:
                yield Job(
                    "make_dataset",
                    at,
                    (artifact(config["results"], "dataset", **at),),
                    {},
                    {"seed": seed, "task": run["task"]},
                    (f"tasks.{run['task']['name']}",),
                    reads={"task": run["task"]} if run["task"].get("file") else {},
                    script="make_dataset.py",
                    passing=True,
                )
            makes = _imported if "source" in experiment else _trained
            yield makes(config["results"], at, run, experiment)
            yield from _measured(config["results"], at, run, experiment, found)


def run_artifacts(experiment: Mapping[str, Any]) -> dict[str, str]:
    """Return what measurements of a run read, by role -> artifact; a dataset only of runs that learned a task."""
    if "source" not in experiment:
        return {"checkpoints": "checkpoints", "dataset": "dataset", "metrics": "metrics"}
    dataset = {"dataset": "dataset"} if "task" in experiment else {}
    return {"checkpoints": "imported", **dataset, "metrics": "imported_metrics"}


def _trained(results: str, at: dict[str, str], run: dict[str, Any], experiment: Mapping[str, Any]) -> Job:
    return Job(
        "train",
        at,
        tuple(artifact(results, kind, **at) for kind in ("checkpoints", "metrics")),
        {"dataset": (artifact(results, "dataset", **at),)},
        {"seed": int(at["seed"]), "experiment": run},
        _modules(run),
        script="train.py",
        works_in=artifact(results, "working", **at),
    )


def _imported(results: str, at: dict[str, str], run: dict[str, Any], experiment: Mapping[str, Any]) -> Job:
    source = experiment["source"]
    imports = {key: source[key] for key in OF_IMPORT} | {"names": map_name(source)}
    imports |= {"tolerance": source["check"]["tolerance"]} if source["check"] else {}
    # what stays in place lies somewhere
    imports |= {} if source["copy"] else {"place": os.path.abspath(source["files"] or source["hub"])}
    learned = {section: run[section] for section in ("task", "model") if section in run}
    return Job(
        "import_checkpoints",
        at,
        tuple(artifact(results, kind, **at) for kind in ("imported", "imported_metrics")),
        {"dataset": (artifact(results, "dataset", **at),) if "task" in run else ()},
        {"seed": int(at["seed"]), "experiment": learned | {"imports": imports}, "source": source}
        | {"seeds": experiment["seeds"]},
        # PyTorch's own files are opened by a module that is imported for them alone
        (*_modules(run), "sources.torch_files"),
        reads={"source": source | {"seed": int(at["seed"]), "seeds": experiment["seeds"]}},
        script="import_checkpoints.py",
        works_in=artifact(results, "importing", **at),
        found=source.get("found", {}),
    )


def _measured(
    results: str,
    at: dict[str, str],
    run: dict[str, Any],
    experiment: Mapping[str, Any],
    found: Mapping[str, tuple[str, list[str], str]],
) -> Iterator[Job]:
    """Jobs that measure one run; of each measurement are ``found`` the other seeds, what it shares, and its module."""
    kinds, modules = run_artifacts(experiment), _modules(run)
    seed = int(at["seed"])
    read = {role: (artifact(results, kind, **at),) for role, kind in kinds.items()}
    for measurement, settings in experiment["measurements"].items():
        wanted, sharing, module = found[measurement]
        # listing the others of each seed takes the square of their number
        others = [] if wanted == OTHER_SEEDS[0] else needed_seeds(wanted, seed, experiment["seeds"])
        yield Job(
            "measure",
            at | {"measurement": measurement},
            (artifact(results, "measurement", measurement=measurement, **at),),
            read
            | {
                # all checkpoints, then all datasets, then all metrics
                "others": tuple(
                    artifact(results, kind, experiment=at["experiment"], seed=other)
                    for kind in kinds.values()
                    for other in others
                ),
                "shared": tuple(artifact(results, "measurement", measurement=other, **at) for other in sharing),
            },
            {"seed": seed, "others": others, "run": run, "measurement": settings},
            (*modules, module),
            script="measure.py",
            leaves=artifact(results, "run_files", measurement=measurement, **at),
            found=experiment.get("source", {}).get("found", {}),
        )


def _dequantised(config: Mapping[str, Any]) -> Iterator[Job]:
    """One job for each GGUF file, however many language models of the config are read from it."""
    # whatever they are computed in
    models = {gguf_name(chosen["model"]): places_of(chosen["model"]) for chosen in config["language_models"].values()}
    for name, model in models.items():
        if name:
            yield Job(
                "dequantise",
                {"gguf": name},
                (artifact(config["results"], "dequantised", gguf=name),),
                {},
                {"model": model},
                reads={"model": model},
                script="dequantise.py",
                passing=True,
            )


def _captures(results: str, name: str, chosen: Mapping[str, Any], weights_of: tuple[str, ...]) -> Iterator[Job]:
    """Jobs that run a language model, whose dequantised weights are ``weights_of`` if it is read from a GGUF file."""
    at = {"experiment": name}
    for text, source in chosen["texts"].items():
        yield Job(
            "capture_text",
            at | {"text": text},
            (artifact(results, "text", text=text, **at),),
            {"dequantised": weights_of},
            {
                "model": chosen["model"],
                "source": source,
                "settings": chosen["text"],
                "prepend_bos": chosen["prepend_bos"],
            },
            reads={"model": chosen["model"], "text": source},
            script="capture_text.py",
            passing=True,
            works_in=artifact(results, "capturing", captured=f"text_{text}", **at),
        )
    asked = {section: chosen[section] for section in ("model", "prompts", "chat_template", "prepend_bos")}
    for weights in ("trained", "untrained") if chosen["prompts"] else ():
        yield Job(
            "capture_prompts",
            at | {"weights": weights},
            (artifact(results, "prompts", weights=weights, **at),),
            {"dequantised": weights_of if weights == "trained" else ()},
            {"settings": asked},
            reads={"model": chosen["model"], "prompts": chosen["prompts"]},
            script="capture_prompts.py",
            passing=True,
            works_in=artifact(results, "capturing", captured=f"prompts_{weights}", **at),
        )


def _language_models(config: Mapping[str, Any]) -> Iterator[Job]:
    results = config["results"]
    for name, chosen in config["language_models"].items():
        at, gguf = {"experiment": name}, gguf_name(chosen["model"])
        weights_of = (artifact(results, "dequantised", gguf=gguf),) if gguf else ()
        yield from _captures(results, name, chosen, weights_of)
        for measurement, settings in chosen["measurements"].items():
            wanted = reads(measurement, settings)
            outside: dict[str, Any] = {"model": chosen["model"]} if "model" in wanted else {}
            if of_others := saelens_folders(settings):
                outside["dictionaries"] = of_others
            weights_read = ["trained"] * bool({"prompts", "untrained_prompts"} & set(wanted))
            weights_read += ["untrained"] * ("untrained_prompts" in wanted)
            sections = {"model"} | ({"texts", "text", "prepend_bos"} if "texts" in wanted else set())
            sections |= {"prompts", "chat_template", "prepend_bos"} if weights_read else set()
            yield Job(
                "measure_language_model",
                at | {"measurement": measurement},
                (artifact(results, "model_measurement", measurement=measurement, **at),),
                {
                    "texts": tuple(
                        artifact(results, "text", text=text, **at) for text in chosen["texts"] if "texts" in wanted
                    ),
                    "prompts": tuple(artifact(results, "prompts", weights=weights, **at) for weights in weights_read),
                    "dequantised": weights_of if "model" in wanted else (),
                },
                {
                    "weights": weights_read,
                    "settings": {section: chosen[section] for section in sorted(sections)},
                    "measurement": settings,
                },
                (module_name("measurements", measurement),),
                reads=outside,
                script="measure_language_model.py",
                leaves=artifact(results, "model_files", measurement=measurement, **at),
            )


def _summaries(config: Mapping[str, Any]) -> Iterator[Job]:
    results = config["results"]
    tables: dict[str, list[str]] = {}
    for name, experiment in config["experiments"].items():
        metrics = run_artifacts(experiment)["metrics"]
        tables[name] = [artifact(results, metrics, experiment=name, seed=seed) for seed in experiment["seeds"]]
        tables[name] += [
            artifact(results, "measurement", experiment=name, seed=seed, measurement=measurement)
            for measurement in experiment["measurements"]
            for seed in experiment["seeds"]
        ]
    for name, chosen in config["language_models"].items():
        tables[name] = [
            artifact(results, "model_measurement", experiment=name, measurement=measurement)
            for measurement in chosen["measurements"]
        ]
    for name, made in tables.items():
        outputs = tuple(artifact(results, kind, experiment=name) for kind in (*CONCLUDED_FROM, "summary_csv"))
        derived = tuple(module_name("derived", path.stem) for path in module_files("derived"))
        inputs = {"tables": tuple(made)}
        yield Job("summarize", {"experiment": name}, outputs, inputs, {}, derived, script="summarize.py")


def _sweeps(config: Mapping[str, Any]) -> Iterator[Job]:
    for name, values in sweeps(config).items():
        outputs = tuple(artifact(config["results"], kind, experiment=name) for kind in ("sweep", "sweep_csv"))
        summaries = tuple(artifact(config["results"], "summary", experiment=member) for member in values)
        inputs, settings = {"summaries": summaries}, {"values": values}
        yield Job("gather_sweep", {"experiment": name}, outputs, inputs, settings, script="gather_sweep.py")


def _series(config: Mapping[str, Any]) -> Iterator[Job]:
    for name, members in series(config).items():
        kinds = ("series_runs", "series", "series_csv")
        outputs = tuple(artifact(config["results"], kind, experiment=name) for kind in kinds)
        runs = tuple(artifact(config["results"], "runs", experiment=member) for member in members)
        inputs, settings = {"runs": runs}, {"members": members}
        yield Job("gather_series", {"experiment": name}, outputs, inputs, settings, script="gather_series.py")


def _figures(config: Mapping[str, Any]) -> Iterator[Job]:
    for figure, each in config["figures"].items():
        names, kinds = each["experiments"], {"summary": "summary", "runs": "runs"}
        if shows_series(figure):
            names, kinds = series_shown(names, config), {"summary": "series", "runs": "series_runs"}
        shown = {
            role: tuple(artifact(config["results"], kind, experiment=name) for name in names)
            for role, kind in kinds.items()
        }
        outputs = tuple(artifact(config["results"], kind, figure=figure) for kind in ("figure_pdf", "figure_png"))
        settings = {"figure": figure, "options": figure_options(config, figure)}
        yield Job(f"figure_{figure}", {}, outputs, shown, settings, (f"figures.{figure}",), script="draw_figure.py")


def _claims(config: Mapping[str, Any]) -> Iterator[Job]:
    results, studied, names = config["results"], _studied(config), judged(config)
    if not names:
        return
    # of checkpoints of another program some sections are not known
    of_runs = ("study", "task", "model", "optimizer", "training", "source")
    of_models = ("study", "model", "texts", "prompts", "set_up", "measurements")
    asked = {
        name: {key: studied[name][key] for key in of_models}
        if name in config["language_models"]
        else {key: studied[name][key] for key in of_runs if key in studied[name]}
        for name in names
    }
    earlier = earlier_models(config)
    figures = {
        name: {
            "path": artifact(results, "figure_png", figure=name),
            "experiments": [each for each in figure["experiments"] if each not in earlier],
        }
        for name, figure in config["figures"].items()
    }
    yield Job(
        "judge_claims",
        {},
        tuple(artifact(results, kind) for kind in ("claims_csv", "claims_markdown", "claims_page")),
        {"runs": tuple(artifact(results, "runs", experiment=name) for name in names)},
        {"experiments": asked, "figures": figures},
        tuple(module_name("rules", rule) for rule in used_rules(studied)),
        script="judge_claims.py",
    )


def _written_summaries(config: Mapping[str, Any]) -> Iterator[Job]:
    for name in _studied(config):
        yield Job(
            "write_summary",
            {"experiment": name},
            (artifact(config["results"], "summary_csv", experiment=name),),
            {"summary": (artifact(config["results"], "summary", experiment=name),)},
            {},
            script="write_summary.py",
        )


def _archive(config: Mapping[str, Any]) -> Job:
    tables = (
        artifact(config["results"], kind, experiment=name) for name in _studied(config) for kind in CONCLUDED_FROM
    )
    drawn = drawn_outputs(
        [*_summaries(config), *_sweeps(config), *_series(config), *_figures(config), *_claims(config)]
    )
    return Job(
        "archive",
        {},
        (artifact(config["results"], "archive"),),
        {"tables": tuple(tables), "drawn": tuple(drawn)},
        {"config": archived_config(config)},
        script="pack_archive.py",
    )
