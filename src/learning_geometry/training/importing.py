"""Checkpoints of another program become a run: one at a time, one tensor at a time, resumable after any kill.

The files are read, and nothing is ever written beside them. What is kept are the parameters alone, under the names of
the workflow's transformer where there is a map.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learning_geometry import tasks
from learning_geometry.files import read_tensor_metadata, read_tensors, verify_file, write_tensors_in_turn
from learning_geometry.models import Model
from learning_geometry.sources.checkpoint import SourceError
from learning_geometry.sources.doubts import otherwise, said
from learning_geometry.sources.grid import uniform_grid
from learning_geometry.sources.opening import BESIDE, Opened, opened
from learning_geometry.tasks.dataset import Dataset
from learning_geometry.training.checkpoints import checkpoint_path, read_checkpoint
from learning_geometry.training.loop import Rows, evaluation_rows, imported_model

Types = Mapping[str, tuple[np.dtype, tuple[int, ...]]]
Report = Callable[[int, str], None]
"""Called with a step and what there is to say of it."""


def import_run(
    run: Mapping[str, Any],
    places: Mapping[int, Path],
    directory: Path,
    digests: Mapping[int, str],
    provenance: Mapping[str, Any],
    dataset: Dataset | None = None,
    report: Report = lambda step, note: None,
    copy: bool = True,
) -> Rows:
    """Write the checkpoints of one seed below ``directory`` and return what there is to measure on the way.

    A checkpoint that is there already, whole and of the same provenance, is not read again.

    Args:
        run: the sections of the experiment: ``source``, and ``model``, ``task`` and ``optimizer`` as far as they are
            known.
        places: step -> file or folder.
        directory: the run's working directory; checkpoints go to ``directory/checkpoints``.
        digests: step -> digest of its file or files.
        provenance: what makes the run; stored in every checkpoint.
        dataset: what the run learned, if it is known; with a model that the map gives whole, losses and errors of its
            test sets are computed.
        report: called at every step.
        copy: whether parameters that lie in a safetensors file as they are are copied; if not, what is written says
            where they lie, with digests of their bytes.

    Returns:
        Rows ``running_loss`` and so on, as :func:`training.loop.train` gives them; none of a step whose logits are not
        finite.

    Raises:
        SourceError: a checkpoint cannot be read, or does not hold what the first one holds, naming the first tensor
            that differs.
    """
    grid = set(uniform_grid(places).steps)
    target = directory / "checkpoints"
    target.mkdir(parents=True, exist_ok=True)
    for leftover in target.glob("step-*.safetensors"):
        if int(leftover.stem.removeprefix("step-")) not in places:
            leftover.unlink()
    first: tuple[Path, Types] | None = None
    rows: Rows = []
    model: Model | None = None
    for step, place in sorted(places.items()):
        with opened(place, run["source"], run.get("model")) as one:
            # not the opened file, which would stay in memory
            first = first or (place, one.types)
            _check_alike(*first, one.path, one.types)
            held = dict(provenance) | {"step": step, "uniform": step in grid}
            held["file"] = one.about() | {"digest": digests[step]}
            note = _written(checkpoint_path(target, step), one, held, copy)
        if dataset is not None and "model" in run and run["source"]["names"] is not None and not one.missing:
            model = model or imported_model(run, {name: shape for name, (_, shape) in one.types.items()})
            try:
                rows += evaluation_rows(
                    model,
                    read_checkpoint(target, step),
                    tasks.load(run["task"]),
                    dataset,
                    run["source"]["evaluation_sequences"],
                    step,
                )
            except FloatingPointError as error:
                note += f"; its losses are not computed: {error}"
        report(step, note)
    return rows


def check_logits(run: Mapping[str, Any], place: Path, file: str | Path) -> float:
    """Compare the logits of a checkpoint, put in place by the map, with those of the code that it is from.

    Then each thing that no shape tells (:mod:`sources.doubts`) is supposed to be otherwise in its turn, as a square
    matrix transposed or two fused parts exchanged: logits that would pass so too cannot tell it.

    Args:
        run: with ``source``, whose ``check`` has a ``tolerance``, and ``model``.
        place: of the checkpoint.
        file: safetensors with ``tokens`` (sequences, positions) and ``logits`` (sequences, positions read, outputs).

    Returns:
        The largest difference, as a share of the largest logit less the mean of its position.

    Raises:
        SourceError: they differ by more than the tolerance, could not tell that a matrix is transposed, say, or do not
            fit.
    """
    given = read_tensors(file)
    if set(given) != {"tokens", "logits"} or given["tokens"].ndim != 2 or given["logits"].ndim != 3:
        held = ", ".join(f"{name} {array.shape}" for name, array in sorted(given.items()))
        raise SourceError(
            f"{file}: holds {held or 'nothing'}; it must hold `tokens` (sequences, positions) and `logits` (sequences, "
            "positions read, outputs), and nothing else"
        )
    tolerance = run["source"]["check"]["tolerance"]
    with opened(place, run["source"], run.get("model")) as one:
        if one.missing:
            raise SourceError(f"{file}: logits are given, and the map does not give {one.missing[0]}; add it there")
        one.check()
        parameters = {name: torch.from_numpy(one.read(name)) for name in one.types}
        untold = one.untold
    model = imported_model(run, {name: tuple(value.shape) for name, value in parameters.items()})
    tokens, logits = torch.from_numpy(given["tokens"]).long(), given["logits"].astype(np.float64)
    apart = _difference(model, parameters, tokens, logits, file)
    if not apart <= tolerance:
        raise SourceError(
            f"{file}: the logits of {place} through the map {run['source']['names']} differ from these by {apart:.2g} "
            f"of the largest, more than the tolerance {tolerance:.2g}; a matrix is transposed, a part is in another "
            "place, rotary positions turn other pairs, or the settings of `model` are not those of your code (epsilon, "
            "activation, order of the norms)"
        )
    for doubt in untold:
        others = otherwise(doubt, {name: parameters[name].numpy() for change in doubt.changes for name in change.names})
        if not others:
            continue  # a part of the tensor is left out by the map: there is nothing to put in its place
        changed = parameters | {name: torch.from_numpy(array) for name, array in others.items()}
        if (other := _difference(model, changed, tokens, logits, file)) <= 3 * tolerance:
            raise SourceError(
                f"{file}: no shape tells {said(doubt)}, and if that were otherwise the logits would differ by "
                f"{other:.2g} of the largest, which the tolerance {tolerance:.2g} would let pass; give logits of a "
                "later step, or a smaller tolerance"
            )
    return apart


def _difference(
    model: Model, parameters: dict[str, torch.Tensor], tokens: torch.Tensor, logits: np.ndarray, file: str | Path
) -> float:
    if int(tokens.min()) < 0 or int(tokens.max()) >= len(parameters["embedding.weight"]):
        raise SourceError(
            f"{file}: tokens from {int(tokens.min())} to {int(tokens.max())}, and the embedding has "
            f"{len(parameters['embedding.weight'])}; give tokens of this model"
        )
    with torch.no_grad():
        ours = model.forward(parameters, tokens).double().numpy()
    if ours.shape != logits.shape:
        raise SourceError(
            f"{file}: logits of shape {logits.shape}, and the model gives {ours.shape} for these tokens; correct "
            "model.readout, or the file"
        )
    centred = logits - logits.mean(-1, keepdims=True)
    scale = float(np.abs(centred).max())
    return float(np.abs(ours - logits).max() / scale) if scale > 0 else float("inf")


def _written(path: Path, one: Opened, held: Mapping[str, Any], copy: bool) -> str:
    """Write one checkpoint with its metadata, if it is not there; return what there is to say of it."""
    with suppress(FileNotFoundError, ValueError, KeyError):
        if read_tensor_metadata(path) == json.loads(json.dumps(held)):
            verify_file(path)
            return "there already"
    one.check()
    places = {} if copy else one.places
    write_tensors_in_turn(path, one.types, one.read, held, places)
    others = ", ".join(name for name, why in one.left_out.items() if why == BESIDE)
    note = f"{len(one.types)} tensors of {one.path}" + f", {len(places)} of them in place" * bool(places)
    return note + f"; beside the state dict, and left out: {others}" * bool(others)


def _check_alike(first: Path, before: Types, path: Path, now: Types) -> None:
    """Raise an error if a checkpoint holds other tensors than the first."""
    for name in sorted(set(before) | set(now)):
        if name not in before or name not in now:
            holds, lacks = (first, path) if name in before else (path, first)
            raise SourceError(f"{lacks}: holds no {name}, which {holds} holds; they are not of one run")
        if before[name][1] != now[name][1]:
            raise SourceError(
                f"{path}: {name} is {now[name][1]}, and {before[name][1]} in {first}; they are not of one run"
            )
