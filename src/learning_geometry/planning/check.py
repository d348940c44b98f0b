"""Verify every artifact of a config, remove what must be made anew, and tell what takes the disk."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from learning_geometry.failures import failures
from learning_geometry.ownership import check_ours
from learning_geometry.paths import RECORDS, record_path
from learning_geometry.planning.jobs import Job
from learning_geometry.planning.plan import Plan, passing
from learning_geometry.planning.removal import remove


class Found(NamedTuple):
    """An artifact of the config, and what is wrong with it."""

    path: str
    job: Job
    problem: str
    """Why it cannot be used as it is; empty: it can."""
    there: bool
    needed: bool
    """Whether a next run makes it, or only if something needs it."""


def verified(plan: Plan) -> list[Found]:
    """Compare every artifact of a plan with its digests, its settings and its code.

    Args:
        plan: of the config.

    Raises:
        FileNotFoundError: a file from outside is missing.
        ValueError: the code cannot be read.
    """
    checked = []
    for job in plan.jobs:
        for path in job.outputs:
            there = os.path.lexists(path)
            problem = plan.wrong(job, path) or damage(path, job)
            # nobody has to pack an archive
            needed = not passing(job, path) and not (job.rule == "archive" and not there)
            checked.append(Found(path, job, problem, there, needed))
    plan.known.save()
    return checked


def damage(path: str, job: Job) -> str:
    """Return how the bytes of an artifact differ from those written, or why it holds nothing; "" if all is well."""
    from learning_geometry.files import verify

    places = [path, *([job.leaves] if job.leaves and Path(job.leaves).is_dir() else [])]
    for place in places:
        try:
            verify(place)
        except (ValueError, OSError) as error:
            return str(error)
    if job.rule in ("measure", "measure_language_model"):
        # it is up to date, and would not be tried again
        return next((f"could not be made: {each.reason}" for each in failures([path])), "")
    return ""


def removable(plan: Plan, checked: list[Found]) -> list[Path]:
    """Return what a next run must make anew though it is there: artifacts that cannot be used, with all of their job.

    Nothing else is among them: no file that no job of the config makes.
    """
    jobs = dict.fromkeys(each.job for each in checked if each.problem and each.there)
    paths: list[Path] = []
    for job in jobs:
        bad = {each.path for each in checked if each.job == job and each.problem}
        # a run makes all outputs of a job; checkpoints that are whole stay, unless the whole job is made again
        final = any(not passing(job, path) for path in bad)
        paths += [Path(path) for path in job.outputs if path in bad or final]
        paths += [record_path(plan.results, job.outputs)] + ([Path(job.leaves)] if job.leaves else [])
    return [path for path in paths if os.path.lexists(path)]


class Usage(NamedTuple):
    """What a kind of artifacts takes of the disk."""

    kind: str
    size: int
    """Bytes."""
    advice: str
    """Whether it may go, and what is then lost or made again."""


KINDS = {
    "dequantised weights": "may go; made again, of the GGUF file, when a model must be run or its weights be measured",
    "captures of texts": "may go; made again, by running the model, when a measurement of it must be made",
    "captures of prompts": "may go; made again, by running the model, when a measurement of it must be made",
    "dictionaries": "part of their measurement; without them a next run trains them again",
    "eigenvectors": "part of their measurement; without them a next run makes it again",
    "early checkpoints": "may go; without them a new or changed measurement trains the run again",
    "last checkpoints": "may go; without them a new or changed measurement trains the run again",
    "data": "may go; drawn again, the same, when something needs it",
    "work in progress": "may go if no run is in progress; what was done so far is then done again",
    "tables": "what was measured; a next run makes them again, with all that this needs",
    "figures and pages": "drawn again in seconds",
    "logs": "may go",
    "archive": "`make archive` makes it again",
    "other files": "no artifacts of this config; never removed",
}
"""Kinds of artifacts -> what to know before deleting them."""


def disk_usage(plan: Plan) -> list[Usage]:
    """Return what each kind of artifacts takes of the disk below the results folder, the largest first."""
    sizes = dict.fromkeys(KINDS, 0)
    last: dict[Path, Path] = {}
    kinds = _kinds(plan)
    for path in _files(plan.results):
        kind = _kind(path, plan.results, kinds)
        size = path.lstat().st_size
        if kind == "checkpoints":
            before = last.get(path.parent)
            if before is None or path.name > before.name:
                last[path.parent] = path
            kind = "early checkpoints"
        sizes[kind] += size
    for path in last.values():
        sizes["early checkpoints"] -= path.lstat().st_size
        sizes["last checkpoints"] += path.lstat().st_size
    usages = [Usage(kind, size, KINDS[kind]) for kind, size in sizes.items() if size]
    return sorted(usages, key=lambda usage: -usage.size)


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if os.path.lexists(path):
                yield path


def _kinds(plan: Plan) -> dict[str, str]:
    """Return path of an artifact -> its kind."""
    kinds = {}
    rules = {
        "dequantise": "dequantised weights",
        "capture_text": "captures of texts",
        "capture_prompts": "captures of prompts",
        "make_dataset": "data",
    }
    for job in plan.jobs:
        for path in job.outputs:
            kind = "tables" if path.endswith(".parquet") else "figures and pages"
            kinds[path] = "checkpoints" if path.endswith("/checkpoints") else rules.get(job.rule, kind)
            if job.rule == "archive":
                kinds[path] = "archive"
        if job.leaves:
            kinds[job.leaves] = "dictionaries" if job.rule == "measure_language_model" else "eigenvectors"
        if job.works_in:
            kinds[job.works_in] = "work in progress"
    return kinds


def _kind(path: Path, results: Path, kinds: Mapping[str, str]) -> str:
    relative = path.relative_to(results)
    if "logs" in relative.parts[:-1] or relative.parts[0].startswith((RECORDS, ".")):
        return "logs"
    for place in (path, *path.parents):
        if str(place) in kinds:
            kind = kinds[str(place)]
            return "other files" if kind == "checkpoints" and path.suffix != ".safetensors" else kind
        if place == results:
            break
    return "other files"


def report(plan: Plan, delete: bool = False) -> tuple[list[str], bool]:
    """Verify a plan's artifacts; return the lines that say what was found, and whether all that is there is sound.

    Args:
        plan: of the config.
        delete: whether to remove what a next run must make anew.

    Raises:
        FileNotFoundError, ValueError: as :func:`verified`.
    """
    checked = verified(plan)
    bad = [each for each in checked if each.problem and each.there]
    missing = [each for each in checked if each.problem and not each.there and each.needed]
    unneeded = [each for each in checked if each.problem and not each.there and passing(each.job, each.path)]
    sound = sum(not each.problem for each in checked)
    lines = [f"{each.path}: {_without(each.problem, each.path)}" for each in bad]
    lines += [f"{each.path}: missing; a next run makes it" for each in missing]
    lines.append(
        f"{plan.results}: {sound} artifacts are whole, of these settings and this code; {len(bad)} are not, "
        f"{len(missing)} are missing, and {len(unneeded)} more that are made only when something needs them"
    )
    if delete:
        doomed = removable(plan, checked)
        check_ours(doomed)
        for path in doomed:
            remove(path)
            lines.append(f"removed {path}")
    lines += ["", *usage_lines(disk_usage(plan))]
    return lines, not bad


def usage_lines(usages: list[Usage]) -> list[str]:
    """Return a table of what takes the disk, in MB."""
    width = max((len(usage.kind) for usage in usages), default=0)
    return [f"{usage.size / 1e6:10.1f} MB  {usage.kind.ljust(width)}  {usage.advice}" for usage in usages]


def _without(problem: str, path: str) -> str:
    return problem.removeprefix(f"{path}: ")
