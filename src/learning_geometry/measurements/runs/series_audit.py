"""Whether a series of checkpoints is what it says: steps missing, doubled, out of order, damaged or strange."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from xxhash import xxh3_64

from learning_geometry.geometry.series import detours, unusual_detours, unusual_jumps
from learning_geometry.measurements.common.execution_basis import part_names
from learning_geometry.measurements.common.run import Run
from learning_geometry.sources.grid import uniform_grid
from learning_geometry.tables.tidy import tidy
from learning_geometry.training.checkpoints import parameter_shapes, read_provenance, trajectory_blocks

NEEDS = {
    "weights": ["*"],
}
"""What it needs of task, model and experiment, without which the config refuses it (``config.needs``)."""

SETTINGS: dict[str, Any] = {}

KINDS = (
    "missing_step",
    "same_bytes",
    "same_parameters",
    "out_of_place",
    "not_finite",
    "norm_jumps",
    "never_moves",
    "type_changes",
)
"""What is looked for."""


class Followed(NamedTuple):
    """One tensor over all steps."""

    norms: np.ndarray
    """Euclidean norms."""
    to_next: np.ndarray
    """Squared distances between successive steps."""
    to_second: np.ndarray
    """Squared distances between steps two apart."""
    not_finite: np.ndarray
    """How many of its numbers are not finite."""
    digests: list[str]
    """Of the numbers as they are stored, at each step."""


def measure(run: Run, settings: dict[str, Any]) -> pd.DataFrame:
    """Look for what does not belong in the series of a run's checkpoints, tensor by tensor, whatever they are called.

    Rows of findings, value 1 where nothing else is said:

    - ``audit_missing_step``: a step of the uniform grid between others that has no checkpoint;
    - ``audit_same_bytes``: the file is, byte for byte, that of an earlier step, which is the value;
      ``audit_same_parameters``: the parameters are, though the file is not;
    - ``audit_out_of_place``: the checkpoint lies far off the way from the one before to the one after, by the value of
      ``geometry.series.detours``. Checkpoints exchanged, of another run or scaled are; at the first and the last step
      it cannot be told, nor an exchange among checkpoints that only scatter around one place;
    - ``audit_not_finite``: numbers of a tensor that are not finite, how many;
    - ``audit_norm_jumps``: the norm of a matrix is larger, or smaller, than at both neighbouring steps by much more
      than is usual there; the value is the factor. At the first step it cannot be told;
    - ``audit_never_moves``: a tensor is the same at all steps (step = the first);
    - ``audit_type_changes``: the file has tensors of other types than that before.

    And ``audit_findings``, step = the last, for each kind (``data``) how many there are; and of the model at every step
    ``audit_norm``, ``audit_distance`` (from the checkpoint before, as a share of that one's norm) and
    ``audit_detour``; these three are left out where they are not finite.
    """
    steps = run.steps()
    shapes = parameter_shapes(run.checkpoints, steps[0])
    of_tensors = {name: _followed(run, steps, name, shape) for name, shape in sorted(shapes.items())}
    files = [read_provenance(run.checkpoints, step).get("file", {}) for step in steps]
    found = [
        *_of_files(steps, files),
        *_of_path(steps, of_tensors, files),
        *_of_tensors(steps, of_tensors, shapes),
    ]
    counts = [
        {
            "quantity": "audit_findings",
            "data": kind,
            "step": steps[-1],
            "value": float(sum(row["quantity"] == f"audit_{kind}" for row in found)),
            "n": len(steps),
        }
        for kind in KINDS
    ]
    return tidy([*found, *counts, *_course(steps, _together(of_tensors.values()))], run.experiment, run.seed)


def _followed(run: Run, steps: Sequence[int], name: str, shape: tuple[int, ...]) -> Followed:
    """Follow one tensor through all checkpoints, a block of its rows at a time."""
    count = len(steps)
    squares, to_next = np.zeros(count), np.zeros(count - 1)
    to_second, bad = np.zeros(max(count - 2, 0)), np.zeros(count, dtype=np.int64)
    hashers = [xxh3_64() for _ in steps]
    for block in trajectory_blocks(run.checkpoints, steps, name, shape):
        bad += np.sum(~np.isfinite(block), axis=1)
        for hasher, row in zip(hashers, np.ascontiguousarray(block), strict=True):
            hasher.update(row)
        values = block.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            squares += np.sum(values**2, axis=1)
            to_next += np.sum(np.diff(values, axis=0) ** 2, axis=1)
            if count > 2:
                to_second += np.sum((values[2:] - values[:-2]) ** 2, axis=1)
    return Followed(np.sqrt(squares), to_next, to_second, bad, [hasher.hexdigest() for hasher in hashers])


def _together(tensors: Any) -> Followed:
    """Return all tensors as one."""
    listed = list(tensors)
    return Followed(
        np.sqrt(np.sum([each.norms**2 for each in listed], axis=0)),
        np.sum([each.to_next for each in listed], axis=0),
        np.sum([each.to_second for each in listed], axis=0),
        np.sum([each.not_finite for each in listed], axis=0),
        [" ".join(of_step) for of_step in zip(*(each.digests for each in listed), strict=True)],
    )


def _finding(kind: str, step: int, value: float | int | np.number = 1.0, part: str = "model") -> dict[str, Any]:
    return {"quantity": f"audit_{kind}", "step": step, "part": part, "value": float(value)}


def _of_files(steps: Sequence[int], files: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what steps and files alone tell."""
    for step in uniform_grid(steps).missing:
        yield _finding("missing_step", step)
    first: dict[str, int] = {}
    for place, (step, file) in enumerate(zip(steps, files, strict=True)):
        digest = file.get("digest")
        if digest is not None:
            if digest in first:
                yield _finding("same_bytes", step, first[digest])
            first.setdefault(digest, step)
        if place and file.get("types") != files[place - 1].get("types"):
            yield _finding("type_changes", step)


def _of_path(
    steps: Sequence[int], tensors: Mapping[str, Followed], files: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield what the way of all parameters together tells."""
    model = _together(tensors.values())
    digests = [file.get("digest") for file in files]
    first: dict[str, int] = {}
    for place, digest in enumerate(model.digests):
        earlier = first.setdefault(digest, place)
        if earlier < place and (digests[place] is None or digests[place] != digests[earlier]):
            yield _finding("same_parameters", steps[place], steps[earlier])
    found = detours(model.to_next, model.to_second)
    for place in np.flatnonzero(unusual_detours(found)).tolist():
        # beyond what a table may hold where the neighbours coincide
        yield _finding("out_of_place", steps[place], min(found[place], 1e12))


def _of_tensors(
    steps: Sequence[int], tensors: Mapping[str, Followed], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[dict[str, Any]]:
    """Yield what single tensors tell."""
    called = part_names(shapes)
    for name, followed in tensors.items():
        part = called[name]
        for place in np.flatnonzero(followed.not_finite).tolist():
            yield _finding("not_finite", steps[place], followed.not_finite[place], part)
        if len(steps) > 1 and len(set(followed.digests)) == 1:
            yield _finding("never_moves", steps[0], part=part)
        if len(shapes[name]) < 2:
            continue  # norms of a few numbers jump all the time
        for place in np.flatnonzero(unusual_jumps(followed.norms)).tolist():
            beside = followed.norms[place - 1 if place else place + 1]
            yield _finding("norm_jumps", steps[place], followed.norms[place] / beside, part)


def _course(steps: Sequence[int], model: Followed) -> Iterator[dict[str, Any]]:
    """Yield the numbers of the model at every step that are finite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        distances = np.concatenate([[np.nan], np.sqrt(model.to_next) / model.norms[:-1]])
    series = {"norm": model.norms, "distance": distances, "detour": detours(model.to_next, model.to_second)}
    for quantity, values in series.items():
        for step, value in zip(steps, values, strict=True):
            if np.isfinite(value):
                yield {"quantity": f"audit_{quantity}", "step": step, "value": float(value)}
