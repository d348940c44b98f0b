"""What each key allows by itself but all together do not, in an experiment and between figures and experiments."""

import importlib
import json
from typing import Any

from learning_geometry import model_options
from learning_geometry.config import task_data
from learning_geometry.config.feeds import Held, check_files, lacking
from learning_geometry.config.interfaces import interface_problems
from learning_geometry.config.language_models import check_files as check_model_files
from learning_geometry.config.language_models import check_settings
from learning_geometry.config.machine import check_sizes
from learning_geometry.config.measured import check_measurement
from learning_geometry.config.modules import figure_limits, module_literal, subject, unknown_module
from learning_geometry.config.places import normal_path, path_problem, results_problem
from learning_geometry.config.problems import ConfigError, KeyPath, Problems, Report
from learning_geometry.config.schemas import entries
from learning_geometry.config.series import series_of, series_shown, shows_series
from learning_geometry.config.sourced import described
from learning_geometry.config.wording import did_you_mean, yaml_text
from learning_geometry.sources.saelens import saelens_folders


def check_experiment(
    experiment: dict[str, Any], path: KeyPath, problems: Problems, results: str = ".", new: bool = True
) -> None:
    """Report what each key allows by itself but all together do not.

    Args:
        experiment: with all defaults filled in.
        path: where it stands in the config.
        problems: to add to.
        results: the results folder, on whose disk checkpoints must fit.
        new: whether it is to be trained and measured; what was is only drawn again, with whatever was asked for.
    """

    def report(key: str, problem: str) -> None:
        problems.setdefault((*path, *key.split(".")), problem)

    if "source" in experiment:
        held = _check_sourced(experiment, path, problems, new)
        if held is None:
            return
    elif not _check_task(experiment, report, results, new):
        return  # no test set is drawn, however small, to see what measurements can read
    else:
        held = None
        _check_model(experiment["model"], report)
        _check_optimizer(experiment, report)
        _check_training(experiment, report, new)
    for name, settings in experiment["measurements"].items():
        if subject(name) != "runs":
            reads = "it measures language models" if subject(name) == "language_models" else "it reads no run"
            report(f"measurements.{name}", f"{reads}; move it to one under language_models")
        elif new and held is not None and (lack := lacking(name, settings, experiment, held)):
            report(f"measurements.{name}", f"{lack}, or leave {name} out")
        elif new:
            check_measurement(name, settings, described(experiment), report)


def _check_sourced(experiment: dict[str, Any], path: KeyPath, problems: Problems, new: bool) -> Held | None:
    """Report what is wrong with a source, and with what its runs learned; returns what it holds, if all is well."""
    before = len(problems)

    def report(key: str, problem: str) -> None:
        problems.setdefault((*path, *key.split(".")), problem)

    if new and experiment.get("task"):
        _check_settings_of_task(experiment["task"], report)
    if experiment.get("model"):
        _check_model(experiment["model"], report)
    if not new:
        if experiment["source"]["found"] is None:
            report("source.found", "missing; it is written by the check of the files, which lie elsewhere now")
        return None
    return check_files(experiment, report) if len(problems) == before else None


def _check_task(experiment: dict[str, Any], report: Report, results: str, new: bool) -> bool:
    """Report what is wrong with the task, and what of the model it does not go with; returns whether sizes fit."""
    task, model = experiment["task"], experiment["model"]
    module = importlib.import_module(f"learning_geometry.tasks.{task['name']}")
    if not _check_settings_of_task(task, report):
        return True
    if not getattr(module, "TRAINS", True):
        report("task.name", f"{task['name']} has nothing to train on; give a `source` in place of training")
        return True
    if model.get("tied_readout") and module.outputs(task) != module.vocabulary(task):
        report(
            "model.tied_readout",
            f"the task has {module.vocabulary(task)} tokens but {module.outputs(task)} outputs; set it to false",
        )

    readouts = task_data.readouts(json.dumps(task, sort_keys=True))
    if readouts is not None and model.get("readout", "all") not in readouts:
        report(
            "model.readout",
            f"the task has nothing to learn at the positions that are read out ({model['readout']}); use "
            f"{' or '.join(sorted(readouts))}",
        )

    known = hasattr(module, "length") and hasattr(module, "outputs")
    return not new or not known or check_sizes(experiment, module, results, report)


def _check_settings_of_task(task: dict[str, Any], report: Report) -> bool:
    """Report what a task says is wrong with its settings; returns whether nothing is."""
    try:
        importlib.import_module(f"learning_geometry.tasks.{task['name']}").check(task)
    except ValueError as error:
        key, colon, problem = str(error).partition(": ")
        if colon and key in task:
            report(f"task.{key}", problem)
        else:
            report("task", str(error))
        return False
    return True


def _check_model(model: dict[str, Any], report: Report) -> None:
    """Report options that do not go together."""
    for key, problem in model_options.problems(model):
        report(f"model.{key}", problem)


def _check_optimizer(experiment: dict[str, Any], report: Report) -> None:
    optimizer, steps = experiment["optimizer"], experiment["training"]["steps"]
    if optimizer["name"] != "sgd" and optimizer["momentum"]:
        report("optimizer.momentum", f"{optimizer['name']} has no momentum; set it to 0, or name to sgd")
    if optimizer["schedule"]["warmup_steps"] > steps:
        report(
            "optimizer.schedule.warmup_steps",
            f"{optimizer['schedule']['warmup_steps']} is more than the {steps} steps of training; lower it",
        )


def _check_training(experiment: dict[str, Any], report: Report, new: bool) -> None:
    """Report numbers of steps and of test sequences beyond those that there are."""
    training = experiment["training"]
    steps = training["steps"]
    tests = experiment["task"].get("test_sequences")
    if tests is not None and training["evaluation_sequences"] > tests:
        report(
            "training.evaluation_sequences",
            f"{training['evaluation_sequences']} is more than the task's {tests} test_sequences; lower it",
        )
    # a default that is larger than a short training is no slip, and the first and the last step are always there
    for key, spacing, default in (
        ("training.evaluate_every", training["evaluate_every"], 50),
        ("training.checkpoints.every", training["checkpoints"]["every"], 100),
    ):
        if new and spacing > steps and spacing != default:
            report(key, f"{spacing} is more than the {steps} steps of training; lower it")
    late = [step for step in training["checkpoints"]["steps"] if step > steps]
    if late:
        report("training.checkpoints.steps", f"{late[0]} lies beyond the {steps} steps of training; remove it")


def check_language_model(language_model: dict[str, Any], path: KeyPath, problems: Problems, files: bool = True) -> None:
    """Report files that are not there or do not fit, if they matter, and measurements without what they read."""

    def report(key: str, problem: str) -> None:
        problems.setdefault((*path, *key.split(".")), problem)

    if _check_paths(language_model, report) and files:
        check_model_files(language_model, report)
    check_settings(language_model, report)


def _check_paths(language_model: dict[str, Any], report: Report) -> bool:
    """Report what no path can be, whatever is there; returns whether all can."""
    model = language_model["model"]
    paths = {"model.source": model["source"], "model.gguf": model["gguf"]}
    paths |= {f"texts.{name}": path for name, path in language_model["texts"].items()}
    problems = {key: path_problem(path) for key, path in paths.items() if path is not None}
    for measurement, settings in language_model["measurements"].items():
        for name, folder in saelens_folders(settings).items():
            problems[f"measurements.{measurement}.dictionaries.{name}.saelens"] = path_problem(folder)
    for name, sets in language_model["prompts"].items():
        problems[f"prompts.{name}"] = next(filter(None, map(path_problem, sets)), "")
    for key, problem in problems.items():
        if problem:
            report(key, problem)
    return not any(problems.values())


def check_results(config: dict[str, Any], problems: Problems) -> None:
    """Report a results folder that none can be made in, and write the one way in which Snakemake compares paths."""
    results = config["results"]
    if not isinstance(results, str) or ("results",) in problems:
        config["results"] = "results" if not isinstance(results, str) else results
        return
    problem = results_problem(results)
    if problem:
        problems.setdefault(("results",), f"{yaml_text(results)} {problem}")
    else:
        config["results"] = normal_path(results)


RESERVED = {"figures": "the figures", "logs": "the logs", "dequantised": "the weights of GGUF files"}
"""Folders of the results folder that are no experiment's."""


def check_names(config: dict[str, Any], problems: Problems) -> None:
    """Report a config with nothing to do, and names that an experiment and a language model share."""
    experiments, language_models = config.get("experiments"), config.get("language_models")
    if not isinstance(experiments, dict) or not isinstance(language_models, dict):
        return
    if not experiments and not language_models:
        problems.setdefault(
            ("experiments",), "missing, and so are language_models; add an experiment, what is trained and measured"
        )
    for section in ("experiments", "language_models"):
        for name in config[section]:
            if name in RESERVED:
                problems.setdefault(
                    (section, name), f"the results folder has a folder of this name for {RESERVED[name]}; rename it"
                )
    for name in language_models:
        if name in experiments:
            problems.setdefault(
                ("language_models", name), "an experiment has this name too, and both would share a folder; rename one"
            )


def check_figure(name: str, figure: dict[str, Any], config: dict[str, Any], problems: Problems) -> None:
    """Report a figure that there is not, and experiments that lack what it reads."""
    path: KeyPath = ("figures", name)
    try:
        required = module_literal("figures", name)
    except KeyError:
        problems.setdefault(path, unknown_module("figures", name))
        return
    except ConfigError as error:
        problems.setdefault(path, error.problems[0])
        return
    if lacking := interface_problems("figures", name):
        problems.setdefault(path, "; ".join(lacking))
        return
    experiments, shown = config.get("experiments"), figure.get("experiments")
    if not isinstance(experiments, dict) or not isinstance(shown, list):
        return
    language_models = config.get("language_models")
    experiments = experiments | (language_models if isinstance(language_models, dict) else {})
    if not experiments:
        return
    try:
        most, controls = figure_limits(name)
    except ConfigError as error:
        problems.setdefault(path, error.problems[0])
        return
    # a series counts as one where all its steps are shown
    listed = series_shown(shown, config) if shows_series(name) else shown
    if len(listed) > most.get("experiments", len(listed)):
        problems.setdefault(
            (*path, "experiments"),
            f"{name} can show {most['experiments']} at most, got {len(listed)}; leave out "
            f"{', '.join(map(yaml_text, listed[most['experiments'] :]))}",
        )
    entry_of, said = series_of(config), set[str]()
    for i, experiment in enumerate(shown):
        # models of a series have all sections in common, but where they lie
        entry = entry_of.get(experiment, experiment) if isinstance(experiment, str) else None
        if entry is None or entry in said:
            continue
        said.update({entry} if entry != experiment else ())
        if experiment not in experiments:
            close = did_you_mean(experiment, experiments)
            problem = f"no experiment {yaml_text(experiment)}{close} experiments: {', '.join(experiments)}"
            problems.setdefault((*path, "experiments", i), problem)
            continue
        here = dict(entries(experiments)).get(experiment, {})
        if _tells_names(name) and isinstance(here.get("source"), dict) and here["source"].get("names") is None:
            problem = (
                f"{name} tells the matrices of the workflow's transformer apart, and those of {experiment} bear other "
                f"names; name a map in experiments.{experiment}.source.names, or leave {experiment} out"
            )
            problems.setdefault((*path, "experiments", i), problem)
        present = here.get("measurements")
        # of controls a figure shows what there is
        needed = [] if controls and i else required
        missing = [m for m in needed if isinstance(present, dict) and m not in present]
        if missing:
            problem = (
                f"{entry} lacks what the figure reads: {', '.join(missing)}; "
                f"add it under {_section(experiment, config)}.{entry}.measurements, or leave {entry} out"
            )
            problems.setdefault((*path, "experiments", i), problem)
        for section, number in most.items():
            there = dict(entries(experiments))[experiment].get(section) if section != "experiments" else None
            if isinstance(there, dict) and len(there) > number:
                problem = (
                    f"{entry} has {len(there)} {section}, of which {name} can show {number} at most; give the "
                    f"others to another entry of {_section(experiment, config)}, or leave {entry} out"
                )
                problems.setdefault((*path, "experiments", i), problem)


def _tells_names(figure: str) -> bool:
    try:
        return bool(module_literal("figures", figure, "NAMED"))
    except (KeyError, ConfigError):
        return False


def _section(name: str, config: dict[str, Any]) -> str:
    return "experiments" if name in config["experiments"] else "language_models"
