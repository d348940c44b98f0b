"""Texts made from the config: the plan of what it asks for, and config/README.md."""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from learning_geometry.config.feeds import SHOWN, held_by, lacking
from learning_geometry.config.language_models import memory_of
from learning_geometry.config.measured import check_measurement
from learning_geometry.config.modules import LITERALS, available, module_literal, settings_schema, subject
from learning_geometry.config.reading import read_yaml
from learning_geometry.config.schemas import SCHEMA, filled
from learning_geometry.config.series import last_models, series, series_of, series_shown, shows_series
from learning_geometry.config.sourced import described
from learning_geometry.config.sweeps import sweeps
from learning_geometry.config.wording import expected, yaml_text
from learning_geometry.sources.chosen import checkpoints_of
from learning_geometry.sources.grid import uniform_grid

PLAN_WIDTH = 130
"""Longest line of a plan, in characters."""


def plan(config: dict[str, Any]) -> str:
    """Return one screen of text that says what a valid config asks for.

    Args:
        config: as :func:`validate` returns it.
    """
    experiments, language_models = config["experiments"], config["language_models"]
    runs = sum(len(experiment["seeds"]) for experiment in experiments.values())
    read = f", {len(language_models)} language model{'s' * (len(language_models) > 1)}" if language_models else ""
    lines = [f"{len(experiments)} experiments, {runs} runs{read}, results in {config['results']}", ""]
    rows = [["experiment", "task", "model", "seeds", "steps", "checkpoints"]]
    for name, experiment in experiments.items():
        standing = described(experiment)
        training = standing["training"]
        checkpoints, more = training["checkpoints"], len(training["checkpoints"]["steps"])
        rows.append(
            [
                name,
                *(
                    textwrap.shorten(_changed(f"{kind}s", standing[kind]), 25, placeholder=" …")
                    if standing[kind]
                    else "-"
                    for kind in ("task", "model")
                ),
                _ranges(experiment["seeds"]),
                str(training["steps"]),
                f"every {checkpoints['every']}"
                + (f", {checkpoints['logarithmic']} early" if "source" not in experiment else "")
                + (f", {more} more" if more else ""),
            ]
        )
    if experiments:
        lines += [*_aligned(rows), ""]
    for name, experiment in experiments.items():
        if "source" in experiment:
            lines += [*_source(name, experiment), ""]
    by_series = series(config)
    # of a series one model stands for all, which differ in their step and seed alone
    entry_of = series_of(config)
    one_of_each = {last_models(places)[-1] for places in by_series.values()}
    told = {name: each for name, each in language_models.items() if name in one_of_each or name not in entry_of}
    if language_models:
        rows = [["language model", "source", "texts", "tokens", "contrasts"]]
        for name, each in told.items():
            tokens = str(each["text"]["tokens"]) if each["texts"] else "-"
            texts, prompts = (", ".join(each[section]) or "-" for section in ("texts", "prompts"))
            rows.append([name, each["model"]["source"], texts, tokens, prompts])
        lines += [*_aligned(rows), ""]
        for name, each in told.items():
            if memory := memory_of(each):
                lines += textwrap.wrap(f"memory of {name}: {memory}", PLAN_WIDTH, subsequent_indent="  ")
        lines.append("")
    for name, places in by_series.items():
        steps, seeds = (sorted({place[key] for place in places.values()}) for key in ("step", "seed"))
        of_seeds = f", seeds {_ranges(seeds)}" if len(seeds) > 1 else ""
        text = f"series {name}, {len(places)} models, one after the other: steps {', '.join(map(str, steps))}{of_seeds}"
        lines += textwrap.wrap(text, PLAN_WIDTH, subsequent_indent="  ")
    for name, members in sweeps(config).items():
        keys = dict.fromkeys(key for values in members.values() for key in values)
        text = ", ".join(f"{key} {' '.join(_values(key, members.values()))}" for key in keys)
        lines += textwrap.wrap(f"sweep {name}, {len(members)} experiments: {text}", PLAN_WIDTH, subsequent_indent="  ")
    experiments = experiments | {entry_of.get(name, name): each for name, each in told.items()}
    measured: dict[str, list[str]] = {}
    for name, experiment in experiments.items():
        for measurement in experiment["measurements"]:
            measured.setdefault(measurement, []).append(name)
    together: dict[tuple[str, ...], list[str]] = {}
    for measurement, names in measured.items():
        together.setdefault(tuple(names), []).append(measurement)
    for measured_in, measurements in together.items():
        others = [name for name in experiments if name not in measured_in]
        shown = ", ".join(measured_in)
        if len(others) < len(measured_in):
            shown = f"all but {', '.join(others)}" if others else "all"
        lines += textwrap.wrap(f"measurement {', '.join(measurements)}: {shown}", PLAN_WIDTH, subsequent_indent="  ")
    figures: dict[str, list[str]] = {}
    for name, figure in config["figures"].items():
        names = series_shown(figure["experiments"], config) if shows_series(name) else figure["experiments"]
        figures.setdefault(", ".join(names), []).append(name)
    for shown, names in figures.items():
        lines += textwrap.wrap(f"figure {', '.join(names)}: {shown}", PLAN_WIDTH, subsequent_indent="  ")
    return "\n".join(lines).rstrip()


def _source(name: str, experiment: dict[str, Any]) -> Iterator[str]:
    """Yield what a source holds, and which measurements it can feed; of those that it cannot, what they lack."""
    source, steps = experiment["source"], experiment["source"]["found"]["steps"]
    grid = uniform_grid(steps)
    shown = f"{len(steps)} steps, {steps[0]} to {steps[-1]}, {len(grid.steps)} of them every {grid.every}"
    few = ", ".join(map(str, grid.missing[:SHOWN])) + ", …" * (len(grid.missing) > SHOWN)
    missing = f", {few} missing" if grid.missing else ""
    notes: list[str] = []
    checkpoints_of(source, experiment["seeds"], notes)
    names = f"names by {source['names']}" if source["names"] else "names as they are"
    lines = [f"source {name}: {source['files'] or source['hub']}: {shown}{missing}; {names}"]
    lines += [f"  {each}" for each in notes]
    if source["unchecked"]:
        lines.append("  NOT CHECKED against logits of your own code; every table and figure says so")
    held = held_by(experiment)
    lines += [f"  {held.uneven}"] if held.uneven else []
    fed: list[str] = []
    unfed: dict[str, list[str]] = {}
    for measurement in available("measurements"):
        if subject(measurement) != "runs":
            continue
        defaults = filled({}, settings_schema("measurements", measurement))
        asked = experiment["measurements"].get(measurement, defaults)
        lack = lacking(measurement, asked, experiment, held) or _refused(measurement, asked, experiment)
        if lack:
            unfed.setdefault(lack, []).append(measurement)
        else:
            fed.append(measurement)
    lines.append(f"  can feed {', '.join(fed) or 'nothing'}")
    lines += [f"  cannot feed {', '.join(several)}: {lack}" for lack, several in unfed.items()]
    for line in lines:
        indent = line[: len(line) - len(line.lstrip())]
        yield from textwrap.wrap(line.lstrip(), PLAN_WIDTH, initial_indent=indent, subsequent_indent="    ")


def _refused(measurement: str, settings: dict[str, Any], experiment: dict[str, Any]) -> str:
    """Return why a measurement cannot be made of an experiment, whatever its settings; "" if it can."""
    problems: dict[str, str] = {}

    def report(key: str, problem: str) -> None:
        problems.setdefault(key, problem)

    check_measurement(measurement, settings, described(experiment), report)
    return problems.get(f"measurements.{measurement}", "").removesuffix(f"; leave {measurement} out")


def _values(key: str, experiments: Iterable[dict[str, Any]]) -> list[str]:
    """Return the values of a swept key, each once."""
    return list(dict.fromkeys(yaml_text(values[key]) for values in experiments))


def _aligned(rows: list[list[str]]) -> list[str]:
    """Return the rows of a table with its columns aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _changed(folder: str, section: dict[str, Any]) -> str:
    """Return the name of a task or model and the settings that are not at their default."""
    properties = settings_schema(folder, section["name"])["properties"]
    changed = [f"{key} {yaml_text(section[key])}" for key in properties if section[key] != properties[key]["default"]]
    return ", ".join([section["name"], *changed])


def _ranges(seeds: Sequence[int]) -> str:
    """Return "0-4, 7" for [0, 1, 2, 3, 4, 7]."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def readme(schema: Path | str = SCHEMA, chosen: Callable[[str], dict[str, str]] = available) -> str:
    """Return the text of config/README.md: how config files work, and a table of keys per section.

    Args:
        schema: JSON Schema of the fixed keys.
        chosen: returns the modules of a kind that are written down, as :func:`available` returns all.
    """
    fixed = read_yaml(schema)
    blocks = [f"# {fixed['title']}", fixed["description"].strip(), "## Top level"]
    blocks.extend(_section("", fixed | {"description": ""}, chosen))
    return "\n\n".join(blocks) + "\n"


def _section(title: str, schema: dict[str, Any], chosen: Callable[[str], dict[str, str]]) -> Iterator[str]:
    """Yield the Markdown blocks of a mapping of the schema and of what lies below it."""
    properties = schema.get("properties", {})
    if title:
        yield f"## `{title}`"
    if schema.get("description"):
        yield schema["description"]
    if properties:
        yield _table(properties, schema.get("required"))
    for key, entry in properties.items():
        where = f"{title}.{key}".removeprefix(".")
        others = entry.get("additionalProperties")
        if isinstance(others, dict):
            yield from _section(f"{where}.<name>", others, chosen)
        elif "properties" in entry:
            yield from _section(where, entry, chosen)
        folder = key if key in LITERALS else f"{key}s"
        if folder not in LITERALS:
            continue
        of_language_models = title.startswith("language_models")
        for name, summary in chosen(folder).items():
            if folder == "models" and of_language_models:
                continue  # its keys are all in the schema
            if folder == "measurements" and (subject(name) != "runs") != of_language_models:
                continue
            yield f"### {folder.removesuffix('s')} `{name}`"
            settings = settings_schema(folder, name)["properties"]
            if folder == "figures":
                reads = ", ".join(f"`{measurement}`" for measurement in module_literal(folder, name))
                yield f"{summary} Reads {reads or 'what training records'}."
            else:
                yield summary
            if settings or folder != "figures":
                yield _table(settings)


def _table(properties: dict[str, Any], required: Sequence[str] | None = None) -> str:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, entry in properties.items():
        default = entry.get("default")
        text = default if isinstance(default, str) else yaml_text(default)
        shown = f"`{text}`" if "default" in entry else "required" if required is None or key in required else "-"
        cells = [f"`{key}`", expected(entry), shown, entry["description"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
