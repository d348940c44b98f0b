"""Which checkpoint of another tool belongs to which seed and which step of training."""

import filecmp
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from learning_geometry.model_files.hub import download_revision, hub_folder, is_hub_id
from learning_geometry.sources.checkpoint import STEP_KEYS, SourceError
from learning_geometry.sources.folders import TRAINER_STATE, counts_saves, files_of, weight_files
from learning_geometry.sources.patterns import ODD_NUMBER, Match, left_out, matches, placeholders
from learning_geometry.sources.readers import open_checkpoint

SHOWN = 6


def find_series(
    files: str,
    seeds: Sequence[int],
    step: str | Sequence[int],
    every_number_is: int = 1,
    base: Path = Path(),
    *,
    state: str | None = None,
    notes: list[str] | None = None,
) -> dict[int, dict[int, Path]]:
    """Return the checkpoints of every seed: seed -> step -> file or folder, steps ascending.

    Args:
        files: pattern of files or folders, see :func:`patterns.matches`; ``{seed}`` is required for several seeds.
        seeds: to look for.
        step: "name": the number where ``files`` has ``{step}``; "inside": what the checkpoint itself says; or the
            steps of all files in the natural order of their names.
        every_number_is: steps for each number in a name; above 1 where names count epochs.
        base: folder to which ``files`` is relative.
        state: as of :func:`readers.open_checkpoint`, which "inside" calls.
        notes: takes a sentence for every file that is left out: the second of two with equal bytes, and one whose
            name has a word in the place of the step, such as ``ckpt_best.pt``.

    Raises:
        SourceError: nothing matches, or it cannot be told which file is of which step.
    """
    notes = [] if notes is None else notes
    names = placeholders(files)
    _check(files, names, seeds, step, every_number_is)
    series = {}
    for seed in seeds:
        found = _numbered(files, seed, base, notes) if step == "name" else matches(files, seed, base)
        of = f"{files} (seed {seed})" if "seed" in names else files
        if step == "name":
            steps = [int(match.number or 0) * every_number_is for match in found]
        elif step == "inside":
            steps = [_step_inside(match.path, state) for match in found]
        elif isinstance(step, str) or len(step) != len(found):
            raise SourceError(
                f"{of}: matches {len(found)} ({_some([match.path.name for match in found])}), and `step` lists "
                f"{len(step)}; list one for each, in the order of the names"
            )
        else:
            steps = list(step)
        series[seed] = _by_step(of, found, steps, notes)
    return series


def hub_series(hub: str, revision: str, steps: Sequence[int], download: bool) -> dict[int, Path]:
    """Return the folder in the hub's local cache of every step's revision: step -> folder, steps ascending.

    Args:
        hub: owner/name.
        revision: its name, with ``{step}``, such as "step{step}".
        steps: to look for.
        download: whether to download what the cache lacks, one revision after the other; a caller that reads them one
            by one calls this with one step at a time.

    Raises:
        SourceError: a revision is not in the cache and may not or cannot be downloaded, or holds no weights.
    """
    if not is_hub_id(hub):
        raise SourceError(f"{hub}: is no hub id; write owner/name")
    if placeholders(revision) != ["step"]:
        raise SourceError(f"{revision}: must hold {{step}} once, and nothing else in braces; such as step{{step}}")
    _check_steps(f"{hub}: `steps`", steps)
    return {step: _revision(hub, revision.replace("{step}", str(step)), download) for step in sorted(steps)}


def _check(files: str, names: list[str], seeds: Sequence[int], step: str | Sequence[int], every_number_is: int) -> None:
    if "seed" not in names and len(seeds) > 1:
        raise SourceError(
            f"{files}: has no {{seed}}, and there are {len(seeds)} seeds; write {{seed}} where they differ"
        )
    if odd := [seed for seed in seeds if seed < 0 or list(seeds).count(seed) > 1]:
        raise SourceError(f"seeds: {odd[0]} is negative or there twice; give other seeds")
    if every_number_is < 1 or (every_number_is > 1 and step != "name"):
        raise SourceError(
            f"every_number_is: {every_number_is}, which must be 1 or more, and 1 unless `step` is name; correct it"
        )
    if isinstance(step, str):
        if step not in ("name", "inside"):
            raise SourceError(f"step: {step!r} is not known; write name, inside, or a list of steps")
        if step == "name" and "step" not in names:
            raise SourceError(
                f"{files}: has no {{step}}; write it where the number stands, or `step: inside`, or a list of steps"
            )
    else:
        _check_steps("step", step)


def _check_steps(where: str, steps: Sequence[int]) -> None:
    if odd := [step for step in steps if step < 0]:
        raise SourceError(f"{where}: {odd[0]} is negative; steps are counted from 0")
    if odd := [step for step in steps if list(steps).count(step) > 1]:
        raise SourceError(f"{where}: {odd[0]} is there twice; list each step once")


def _numbered(files: str, seed: int, base: Path, notes: list[str]) -> list[Match]:
    """What matches with a number; what has a word in its place is noted, and what has an odd number refused."""
    none = None
    try:
        found = matches(files, seed, base)
    except SourceError as error:
        found, none = [], error
    matched = {match.path for match in found}
    others = [match for match in left_out(files, seed, base) if match.path not in matched]
    if odd := [match for match in others if re.fullmatch(ODD_NUMBER, str(match.number))]:
        raise SourceError(
            f"{odd[0].path}: {odd[0].number!r} stands where {{step}} does in {files}, and is no whole number from 0 "
            "on; use a narrower pattern, or list the steps"
        )
    if others and not found:
        raise SourceError(
            f"{files}: no number stands where {{step}} does in {_some([match.path.name for match in others])}; "
            "correct the pattern, or write `step: inside` or a list of steps"
        )
    if none is not None:
        raise none
    notes += [f"{match.path}: left out, as no number stands where {{step}} does in {files}" for match in others]
    if counted := [match.path for match in found if counts_saves(match.path)]:
        raise SourceError(
            f"{counted[0]}: accelerate wrote it, and its number counts saves, not steps; give `step: [..]`, the step "
            "of each in the order of the names"
        )
    return found


def _step_inside(path: Path, state: str | None) -> int:
    """The step that a checkpoint holds, opened once as long as its files stay as they are."""
    stamps = [(each, each.stat()) for each in (*files_of(path), *path.glob(TRAINER_STATE))]
    return _step_as_of(path, state, *((each, status.st_mtime_ns, status.st_size) for each, status in stamps))


@lru_cache(maxsize=10_000)
def _step_as_of(path: Path, state: str | None, *stamps: tuple[Path, int, int]) -> int:
    del stamps  # others are other files
    with open_checkpoint(path, state) as checkpoint:
        inside = checkpoint.inside
    if not inside:
        raise SourceError(
            f"{path}: holds no step, neither {', '.join(STEP_KEYS)} nor {TRAINER_STATE} beside it; write "
            "`step: name` or a list of steps"
        )
    if len(set(inside.values())) > 1:
        said = " and ".join(f"{key} is {number}" for key, number in inside.items())
        raise SourceError(f"{path}: {said}, and one is the step; write `step: name` or a list of steps")
    number = next(iter(inside.values()))
    if number < 0:
        raise SourceError(f"{path}: its {next(iter(inside))} is {number}, which is negative; list the steps")
    return number


def _by_step(of: str, found: list[Match], steps: list[int], notes: list[str]) -> dict[int, Path]:
    by_step: dict[int, Path] = {}
    for (path, _), step in zip(found, steps, strict=True):
        first = by_step.setdefault(step, path)
        if first != path:
            if not _equal(first, path):
                raise SourceError(
                    f"{of}: both {first} and {path} are of step {step}, and differ; use a narrower pattern, or "
                    "list the steps"
                )
            notes.append(f"{path}: left out, as it holds the same bytes as {first}, of step {step}")
    return dict(sorted(by_step.items()))


def _equal(first: Path, second: Path) -> bool:
    """Whether the weights of two checkpoints lie in files of the same bytes."""
    one, other = weight_files(first), weight_files(second)
    if first.is_dir() and [path.name for path in one.files] != [path.name for path in other.files]:
        return False
    pairs = zip(one.files, other.files, strict=False)
    return len(one.files) == len(other.files) and all(filecmp.cmp(*pair, shallow=False) for pair in pairs)


def _revision(hub: str, revision: str, download: bool) -> Path:
    where = f"{hub} ({revision})"
    folder = hub_folder(hub, revision)
    if download and not _has_weights(folder):
        try:
            download_revision(hub, revision)
        except ValueError as error:
            raise SourceError(str(error)) from error
        folder = hub_folder(hub, revision)
    if folder is None:
        raise SourceError(f"{where}: it is not in the hub's local cache; set `download: true`, or download it first")
    try:
        weight_files(folder)
    except SourceError as error:
        raise SourceError(f"{where}: what the hub's local cache has of it cannot be read: {error}") from None
    return folder


def _has_weights(folder: Path | None) -> bool:
    try:
        return folder is not None and bool(weight_files(folder).files)
    except SourceError:
        return False


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
