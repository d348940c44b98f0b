"""What measurements need and tasks give, and what else a module must hold, as Markdown made from the literals."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from learning_geometry.config import task_data
from learning_geometry.config.interfaces import CALLED
from learning_geometry.config.modules import LITERALS, available, settings_schema, subject
from learning_geometry.config.named_settings import BY_NAME
from learning_geometry.config.needs import OF_LANGUAGE_MODELS, OF_RUNS, needs
from learning_geometry.config.problems import ConfigError

BEGIN, END = (f"<!-- {word} of what `python -m learning_geometry.config needs` prints -->" for word in ("begin", "end"))
"""The lines between which the tables stand in CONTRIBUTING.md."""


def needs_tables(chosen: Callable[[str], Iterable[str]] = available) -> str:
    """Return tables of what every measurement needs and every task gives, and of what the literals and files mean.

    Args:
        chosen: returns the names of the modules of a kind that are written down.
    """
    measurements = list(chosen("measurements"))
    of_runs = [name for name in measurements if subject(name) == "runs"]
    of_models = [name for name in measurements if subject(name) == "language_models"]
    blocks = [
        "What each measurement of trained runs needs:",
        _table(
            ("measurement", "of the task", "of the model", "of its settings and the experiment"),
            [(f"`{name}`", *_of_run(name)) for name in of_runs],
        ),
        "What each measurement of language models needs:",
        _table(
            ("measurement", "reads", "pairs of prompts", "parts kept of texts"),
            [(f"`{name}`", *_of_language_model(name)) for name in of_models],
        ),
        "What each task gives, with its default settings:",
        _table(
            ("task", "test sets", "arrays", "errors", "read-outs"),
            [(f"`{name}`", *_of_task(name)) for name in chosen("tasks")],
        ),
        "The keys of a measurement's `NEEDS`, all optional:",
        _table(
            ("key", "meaning"),
            [(f"`{key}`", entry["description"]) for key, entry in {**OF_RUNS, **OF_LANGUAGE_MODELS}.items()],
        ),
        "Settings of measurements of trained runs that are checked by their name:",
        _table(
            ("settings", "what is asked of them"), [(_code(key.split(", ")), text) for key, text in BY_NAME.items()]
        ),
        "What a module must hold:",
        _table(
            ("kind", "literal", "functions"),
            [
                (kind, f"`{LITERALS.get(kind, 'DERIVED_FROM')}`", _code(f"{f}({given})" for f, given in called.items()))
                for kind, called in CALLED.items()
            ],
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def _of_run(name: str) -> tuple[str, str, str]:
    """Return in words what a measurement of trained runs needs of the task, of the model, and of anything else."""
    wanted = needs(name)
    of_task = [f"test set {_code([each])}" for each in wanted.get("test_sets", [])]
    of_task += [f"arrays {_code(wanted['arrays'])}"] if "arrays" in wanted else []
    of_task += [f"error {_code([each])}" for each in wanted.get("errors", [])]
    of_task += [f"recorded `{error}` of `{of}`" for of, error in wanted.get("recorded_errors", {}).items()]
    of_task += [
        f"`task.{key}`" + ("" if least is None else f" ≥ {least}")
        for key, least in wanted.get("task_settings", {}).items()
    ]
    of_task += [f"function `{each}`" for each in wanted.get("task_functions", [])]
    of_model = [_code(wanted.get("model_settings", []))] if "model_settings" in wanted else []
    of_model += [f"not `{key}: {value}`" for key, values in wanted.get("model_without", {}).items() for value in values]
    return _cell(of_task), _cell(of_model), _cell(_of_experiment(name, wanted))


def _of_experiment(name: str, wanted: Mapping[str, Any]) -> list[str]:
    seeds = {"next": "the next seed, if there is one", "all": "another seed, and reads all"}
    phrases = [seeds[wanted["other_seeds"]]] if "other_seeds" in wanted else []
    phrases += [
        f"reads what `{other}` leaves, if both have the same {_code(same)}"
        for other, same in wanted.get("shares", {}).items()
    ]
    phrases += [
        f"{number} checkpoints on the uniform grid" if key == "always" else f"{number} more of these than `{key}`"
        for key, number in wanted.get("checkpoints", {}).items()
    ]
    phrases += [f"as many sequences as `{'` + `'.join(wanted['sequences'])}`"] if "sequences" in wanted else []
    for kind, sign in (("at_most", "≤"), ("leaves_out_above", "≤"), ("leaves_out_from", "<")):
        phrases += [f"`{key}` {sign} `{bound}`" for key, bound in wanted.get(kind, {}).items()]
    phrases += [f"batches of `{wanted['different_batches']}` that differ"] if "different_batches" in wanted else []
    named = {each for key in BY_NAME for each in key.split(", ")}
    properties = settings_schema("measurements", name)["properties"]
    # steps of something else, such as of a dictionary's training, are no steps of the run
    if properties.get("steps", {}).get("type") != "array" and "points" not in properties:
        named.remove("steps")
    by_name = [each for each in properties if each in named]
    return phrases + ([f"by their name: {_code(by_name)}"] if by_name else [])


def _of_language_model(name: str) -> tuple[str, str, str]:
    wanted = needs(name)
    pairs = [
        str(number) if key == "always" else f"`{key}`" + (f" + {number}" if number else "")
        for key, number in wanted.get("pairs", {}).items()
    ]
    parts = [
        _code(entries) + ("" if key == "always" else f" for `{key}`")
        for key, entries in wanted.get("parts", {}).items()
    ]
    read = [_code(wanted["reads"])] if "reads" in wanted else []
    read += [f"{_code(more)} for `{key}`" for key, more in wanted.get("reads_for", {}).items()]
    return _cell(read), " and ".join(pairs), _cell(parts)


def _of_task(name: str) -> tuple[str, str, str, str]:
    properties = settings_schema("tasks", name)["properties"]
    settings = {"name": name} | {key: entry["default"] for key, entry in properties.items()}
    task = json.dumps(settings, sort_keys=True)
    there = list(task_data.sizes(task) or {})
    arrays = sorted({each for test_set in there for each in task_data.arrays(task, test_set) or ()})
    errors, readouts = task_data.errors(task) or (), task_data.readouts(task) or ()
    return _code(there), _code(arrays), _code(sorted(errors)), _code(sorted(readouts))


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(parts: Iterable[str]) -> str:
    return "; ".join(parts)


def write_needs(path: str | Path) -> None:
    """Put the tables into a file, in place of what stands between ``BEGIN`` and ``END``.

    Raises:
        ConfigError: the marks are not there, in this order.
    """
    text = Path(path).read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ConfigError([f"{path}: lacks the lines {BEGIN!r} and {END!r}, between which the tables stand; add them"])
    # pandas, which it imports, is not needed to check a config
    from learning_geometry.files import write_text

    write_text(path, f"{before}{BEGIN}\n\n{needs_tables().strip()}\n\n{END}{after}")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
