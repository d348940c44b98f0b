"""A language model with a ``series`` stands for one language model for each step of its training, and each seed.

The check writes these in its place. Each says in ``of_series`` of which series it is, at which step and of which seed,
so that a checked config, such as that of an archive, can be checked again.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from learning_geometry import model_files
from learning_geometry.config.checks import RESERVED, check_language_model
from learning_geometry.config.modules import settings_schema, subject
from learning_geometry.config.problems import KeyPath, Problems
from learning_geometry.config.schemas import entries
from learning_geometry.config.series import last_models, series, series_shown, shows_series
from learning_geometry.config.wording import yaml_text
from learning_geometry.model_files import ModelFiles
from learning_geometry.model_files.hub import is_hub_id
from learning_geometry.sources.checkpoint import SourceError
from learning_geometry.sources.patterns import left_out, matches, placeholders
from learning_geometry.sources.series import find_series

MOST_MODELS = 2000
"""Models of one series, and room for all that PolyPythia has (ten seeds, 154 steps); more are a slip."""

SHOWN = 6

COMPUTED = (
    *("hidden_act", "activation_function", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rope_theta"),
    *("rope_scaling", "rope_parameters", "rotary_pct", "rotary_emb_base", "use_parallel_residual", "sliding_window"),
)
"""Keys of a model's ``config.json`` that change what it computes with weights of the same shapes."""


class _Wrong(ValueError):
    """What is wrong with a key of a language model's section."""

    def __init__(self, key: str, problem: str):
        self.key, self.problem = key, problem
        super().__init__(f"{key}: {problem}")


class _Place(NamedTuple):
    """One model of a series."""

    seed: int
    step: int
    source: str
    revision: str | None


def members(
    name: str, language_model: dict[str, Any], given: Mapping[str, Any], problems: Problems, files: bool
) -> dict[str, dict[str, Any]]:
    """Return what a language model stands for: itself, or the models of its series by their names.

    Args:
        name: of the language model.
        language_model: with all defaults filled in, and without problems.
        given: the language models of the config, whose names are taken.
        problems: to add to.
        files: whether the files that language models read must be there.
    """

    def report(key: str, problem: str) -> None:
        problems.setdefault(("language_models", name, *key.split(".")), problem)

    try:
        if "series" not in language_model:
            _check_alone(language_model["model"])
            return {name: language_model}
        if "of_series" in language_model:
            raise _Wrong("series", "a model of a series is no series itself; remove it, or of_series")
        _check_measurements(language_model)
        places = _places(language_model["model"], language_model["series"], files)
        written = _written_out(name, language_model, places)
        for member in written:
            if member in given:
                raise _Wrong("series", f"{member} is the name of another language model; rename one of the two")
    except _Wrong as wrong:
        report(wrong.key, wrong.problem)
        return {}
    return written


def check_members(name: str, written: Mapping[str, dict[str, Any]], problems: Problems, files: bool) -> None:
    """Report files, texts and prompts that do not fit, and models of a series that are not of one architecture.

    What the models of a series have in common is checked of the last alone.

    Args:
        name: of the language model in the config.
        written: it, or the models of its series, as :func:`members` returns them.
        problems: to add to.
        files: whether their files must be there.
    """
    last = next(reversed(list(written)), None)
    if last is None:
        return
    found: Problems = {}
    check_language_model(written[last], ("language_models", last), found, files)
    for path, problem in found.items():
        own = path[2] == "model"
        problems.setdefault(path if own else ("language_models", name, *path[2:]), problem)
    if len(written) > 1 and files:
        captured = bool(written[last]["texts"] or written[last]["prompts"])
        of_last = _files(written[last], captured, {}, last)
        for member, language_model in written.items():
            of = _files(language_model, captured, problems, member) if member != last else None
            if of is not None and of_last is not None and (differs := _difference(of, of_last)):
                problem = f"{differs} of {last}; a series is one model, so give the other an entry of its own"
                problems.setdefault(("language_models", member, "model", "source"), problem)


def _files(language_model: Mapping[str, Any], captured: bool, problems: Problems, name: str) -> ModelFiles | None:
    """Return what the files of a model hold; None if that is not known, or wrong, which is reported."""
    try:
        return model_files.check_files(**model_files.places_of(language_model["model"]), tokenizer=captured)
    except ValueError as error:
        problems.setdefault(("language_models", name, "model", "source"), str(error))
        return None


def check_series(config: Mapping[str, Any], problems: Problems) -> None:
    """Report names of series that something else has, and models of one that are the same or lack each other.

    Args:
        config: with every series written out.
        problems: to add to.
    """
    for name, places in series(config).items():
        where: KeyPath = ("language_models", next(iter(places)), "of_series")
        for section in ("experiments", "language_models"):
            if name in dict(entries(config.get(section))):
                problems.setdefault(
                    where, f"its series has the name of another entry, {section}.{name}; rename one of the two"
                )
        swept = [each.get("swept") for _, each in entries(config.get("experiments"))]
        if any(isinstance(each, dict) and each.get("name") == name for each in swept):
            problems.setdefault(where, f"its series has the name of a sweep, {name}; rename one of the two")
        if name in RESERVED:
            problems.setdefault(
                where, f"the results folder has a folder {name} for {RESERVED[name]}; give the series another name"
            )
        seen: dict[tuple[int, int], str] = {}
        for member, place in places.items():
            at = place["seed"], place["step"]
            if at in seen:
                problems.setdefault(
                    ("language_models", member, "of_series"),
                    f"{seen[at]} is of the same step and seed of the series {name}; remove one",
                )
            seen[at] = member
        steps = {step for _, step in seen}
        for seed in {seed for seed, _ in seen}:
            if lacking := sorted(step for step in steps if (seed, step) not in seen):
                problems.setdefault(
                    where, f"its series {name} has no step {lacking[0]} of seed {seed}, which other seeds have; add it"
                )


def shown_models(config: dict[str, Any]) -> None:
    """Write, in place, the models of a series where a figure names it: all, or those of the last step."""
    by_series = series(config)
    for name, figure in entries(config.get("figures")):
        shown = figure.get("experiments")
        if not isinstance(shown, list):
            continue
        whole = shows_series(name)
        chosen = {each: list(places) if whole else last_models(places) for each, places in by_series.items()}
        lists = [chosen[each] if isinstance(each, str) and each in chosen else [each] for each in shown]
        figure["experiments"] = [each for names in lists for each in names]


def check_series_figure(name: str, figure: Mapping[str, Any], config: Mapping[str, Any], problems: Problems) -> None:
    """Report what is no whole series where a figure shows series (its literal ``SERIES``).

    Args:
        name: of the figure.
        figure: its section, with series written out.
        config: with every series written out.
        problems: to add to.
    """
    shown = figure.get("experiments")
    if not shows_series(name) or not isinstance(shown, list):
        return
    if any(problem[:1] == ("language_models",) for problem in problems):
        return  # a series that could not be written out is said already
    by_series = series(config)
    whole = {member for each in series_shown(shown, config) for member in by_series[each]}
    for i, each in enumerate(shown):
        if each not in whole:
            problem = f"{yaml_text(each)} is no series; give language_models.{each} a series, or leave it out"
            problems.setdefault(("figures", name, "experiments", i), problem)
    if lacking := [member for member in whole if member not in shown]:
        of = next(each for each, places in by_series.items() if lacking[0] in places)
        problems.setdefault(
            ("figures", name, "experiments"), f"it shows whole series, and {lacking[0]} is left out; name {of} instead"
        )


def _check_alone(model: Mapping[str, Any]) -> None:
    for key in ("source", "revision"):
        if "{step}" in (model[key] or "") or "{seed}" in (model[key] or ""):
            raise _Wrong(
                f"model.{key}",
                f"{model[key]} stands for several models, and there is no series; list the steps under series",
            )


def _check_measurements(language_model: Mapping[str, Any]) -> None:
    for measurement in language_model["measurements"]:
        if subject(measurement) == "runs":
            continue  # refused of every language model
        if subject(measurement) != "language_models":
            raise _Wrong(
                f"measurements.{measurement}",
                "it reads no model, and would be the same at every step; move it to another entry",
            )
        if "seeds" in settings_schema("measurements", measurement)["properties"]:
            raise _Wrong(
                f"measurements.{measurement}",
                "it has seeds of its own, for which the table of a series has no room; give the models that it is for, "
                "such as that of the last step, an entry without a series",
            )


def _written_out(name: str, language_model: dict[str, Any], places: Sequence[_Place]) -> dict[str, dict[str, Any]]:
    seeds = language_model["series"]["seeds"] is not None
    written: dict[str, dict[str, Any]] = {}
    for place in places:
        member = f"{name}_seed_{place.seed}_step_{place.step}" if seeds else f"{name}_step_{place.step}"
        if len(member) > 100:
            raise _Wrong(
                "series",
                f"the name {member} of one of its models has {len(member)} characters, and 100 are the most; "
                f"shorten {name}",
            )
        each = {key: copy.deepcopy(value) for key, value in language_model.items() if key != "series"}
        each["model"] |= {"source": place.source, "revision": place.revision}
        # all are outcomes of what the series trains
        each["set_up"] = language_model["set_up"] or name
        each["of_series"] = {"name": name, "step": place.step, "seed": place.seed}
        written[member] = each
    return written


def _places(model: Mapping[str, Any], wanted: Mapping[str, Any], files: bool) -> list[_Place]:
    """Return the models of a series by seed and step, ascending.

    Raises:
        _Wrong: a placeholder, a folder or a step is missing or there twice.
    """
    source, revision, steps = model["source"], model["revision"], wanted["step"]
    in_source, in_revision = _placeholders("source", source), _placeholders("revision", revision or "")
    if "{" in (model["gguf"] or ""):
        raise _Wrong("model.gguf", "steps and seeds may stand in source and revision alone; give the files in source")
    if "step" in in_source and "step" in in_revision:
        raise _Wrong("model.revision", f"both {source} and {revision} have {{step}}; write it in one of the two")
    if "step" not in in_source + in_revision:
        raise _Wrong(
            "model.source",
            f"{source} has no {{step}}, and neither has a revision; write it where the models of the series differ",
        )
    if "seed" in in_source + in_revision and wanted["seeds"] is None:
        raise _Wrong("series.seeds", "missing, and the model's source or revision has {seed}; list the seeds")
    if "seed" not in in_source + in_revision and wanted["seeds"] is not None:
        raise _Wrong(
            "series.seeds",
            "given, and neither the model's source nor its revision has {seed}; write it where they differ",
        )
    seeds = sorted(wanted["seeds"] or [0])
    at_hub = "step" in in_revision or _is_elsewhere(source, seeds[0], steps)
    number = len(seeds) * len(steps) if isinstance(steps, list) else 0
    if number > MOST_MODELS:
        problem = f"it stands for {number} models, and {MOST_MODELS} are the most; leave out steps or seeds"
        raise _Wrong("series", problem)
    if not at_hub:
        return [place for seed in seeds for place in _on_this_machine(source, revision, seed, steps, files)]
    if isinstance(steps, str):
        there = "" if in_revision else f"nothing on this machine is {source}, and "
        raise _Wrong("series.step", f"{there}which steps the hub has of a model is not looked up; list them")
    if "any" in in_source + in_revision or "*" in source + (revision or ""):
        raise _Wrong("model.source", "* and {any} stand for names on this machine alone; write the whole name")
    return [
        _Place(seed, step, _put(source, seed, step), _put(revision, seed, step) if revision is not None else None)
        for seed in seeds
        for step in sorted(steps)
    ]


def _placeholders(key: str, pattern: str) -> list[str]:
    try:
        return placeholders(pattern)
    except SourceError as error:
        raise _Wrong(f"model.{key}", str(error)) from None


def _put(pattern: str, seed: int, step: int) -> str:
    return pattern.replace("{seed}", str(seed)).replace("{step}", str(step))


def _is_elsewhere(source: str, seed: int, steps: Sequence[int] | str) -> bool:
    """Return whether a source with ``{step}`` names models at the hub: none of its folders is on this machine."""
    could_be = is_hub_id(_put(source, seed, 0 if isinstance(steps, str) else steps[0]))
    return could_be and not Path(source.split("/")[0]).exists()


def _on_this_machine(
    source: str, revision: str | None, seed: int, steps: Sequence[int] | str, files: bool
) -> list[_Place]:
    """Return the models of one seed whose folders or files match a pattern, steps ascending."""
    of = f"{source} (seed {seed})" if "{seed}" in source else source
    try:
        found = matches(source, seed)
        by_step: dict[int, Path] = {}
        for match in found:
            step = int(match.number or 0)
            if step in by_step:
                raise _Wrong(
                    "model.source", f"both {by_step[step]} and {match.path} are of step {step}; use a narrower pattern"
                )
            by_step[step] = match.path
        there = find_series(source, [seed], "name")[seed]
    except SourceError as error:
        if files or isinstance(steps, str):
            raise _Wrong("model.source", str(error)) from None
        # only drawn again
        return [_Place(seed, step, _put(source, seed, step), revision) for step in sorted(steps)]
    if isinstance(steps, str):
        if others := [each.path for each in left_out(source, seed) if each.path not in there.values()]:
            raise _Wrong(
                "series.step",
                f"no number stands where {of} has {{step}} in {others[0]}; list the steps, or use a narrower pattern",
            )
        steps = list(there)
        if len(steps) > MOST_MODELS:
            raise _Wrong("series", f"{of} matches {len(steps)}, and {MOST_MODELS} models are the most; list the steps")
    if missing := [step for step in steps if step not in there]:
        listed = ", ".join(map(str, list(there)[:SHOWN])) + ", …" * (len(there) > SHOWN)
        raise _Wrong("series.step", f"{of}: nothing is there of step {missing[0]}; there are {listed}")
    return [_Place(seed, step, there[step].as_posix(), revision) for step in sorted(steps)]


def _difference(of: ModelFiles, last: ModelFiles) -> str:
    """Return in words how a model differs from another in what its files say of its architecture; "" if not at all."""
    one, other = _architecture(of), _architecture(last)
    differs = [key for key in one if one[key] != other[key]]
    if differs:
        return f"its {differs[0]} is {one[differs[0]]}, and not {other[differs[0]]} as that"
    shapes, others = of.layout.shapes, last.layout.shapes
    odd = next((name for name in [*shapes, *others] if shapes.get(name) != others.get(name)), None)
    return f"its weight {odd} is of shape {shapes.get(odd)}, and not {others.get(odd)} as that" if odd else ""


def _architecture(of: ModelFiles) -> dict[str, Any]:
    number = of.config.get("num_attention_heads") or of.config.get("n_head")
    return {
        "family": of.config.get("model_type"),
        "number of layers": of.layout.layers,
        "width": of.layout.width,
        "number of heads": number,
        "width of heads": of.layout.head_width,
        "context": of.layout.context,
    } | {key: of.config.get(key) for key in COMPUTED}
