"""Command line that writes the checkpoints of a run for other tools.

``python -m learning_geometry.export RUN --as gpt_neox --to FOLDER [--steps 0 500] [--length 2048]`` reads ``RUN``, such
as ``results/copying/seed-0``, and writes one checkpoint per step: folders ``checkpoint-500`` with ``config.json`` and
``model.safetensors`` for Hugging Face's ``gpt2``, ``gpt_neox`` and ``llama``, files ``ckpt_500.pt`` for ``nanogpt``,
and ``model_500.pt`` beside one ``config.json`` for ``transformer_lens``. What the tool cannot hold, and what is not
whole, is refused by name; all steps are written or none, and nothing that is there is overwritten.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from learning_geometry import tasks
from learning_geometry.models import transformer
from learning_geometry.sources.checkpoint import SourceError
from learning_geometry.sources.export import Exported, check, check_absent, export, write_all, written_path
from learning_geometry.sources.targets import TARGETS
from learning_geometry.training.checkpoints import (
    checkpoint_path,
    checkpoint_steps,
    parameter_shapes,
    read_arrays,
    read_provenance,
)


class _Described(NamedTuple):
    """What is known of the checkpoint of a step beside its parameters."""

    settings: dict[str, Any]
    """Of the model, defaults filled in."""
    length: int
    """Positions that there are."""
    read_as: str | None
    """The type that all its tensors had in the file of another program, if it is from one that had one type."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m learning_geometry.export", description="Write for other tools.")
    parser.add_argument("run", type=Path, metavar="RUN", help="such as results/copying/seed-0")
    parser.add_argument("--as", dest="target", required=True, choices=TARGETS, help="the tool, or the family of models")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where to write; made if absent")
    parser.add_argument("--steps", type=int, nargs="+", metavar="STEP", help="default: all checkpoints")
    parser.add_argument(
        "--length", type=int, metavar="POSITIONS", help="of the model's context, where neither model nor task tells it"
    )
    options = parser.parse_args(arguments)
    try:
        written = export_run(options.run, options.target, options.to, options.steps, options.length)
    except (SourceError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(written)} checkpoints written, first {written[0]}")
    return 0


def export_run(
    run: Path, target: str, folder: Path, steps: Sequence[int] | None = None, length: int | None = None
) -> list[Path]:
    """Write checkpoints of a run for another tool, all or none, and return their paths.

    Args:
        run: folder of a run, or of its checkpoints.
        target: one of :data:`TARGETS`.
        folder: where to write.
        steps: which checkpoints; None: all.
        length: positions of the model's context; needed where neither learned positions nor a task tell it.

    Raises:
        FileNotFoundError: there is no such run or step.
        SourceError: the target cannot hold the model, or a checkpoint does not hold what its settings say, or the
            length is not known or another, or a file is there already; nothing is written then.
        ValueError: a checkpoint is damaged; nothing is written then.
    """
    inside = [run / name for name in ("checkpoints", "imported") if (run / name).is_dir()]
    checkpoints = inside[0] if inside else run
    there = checkpoint_steps(checkpoints)
    chosen = list(dict.fromkeys(there if steps is None else steps))
    if absent := [step for step in chosen if step not in there]:
        raise FileNotFoundError(
            f"{checkpoint_path(checkpoints, absent[0])}: no such checkpoint; there are steps {there}"
        )
    for step in chosen:
        check_absent(written_path(target, folder, step))
    # all heads of files are looked at before the first tensor is read, which takes time
    described = {step: _described(checkpoints, step, target, length) for step in chosen}

    def exported(step: int) -> Exported:
        with _at(checkpoints, step):
            of = described[step]
            return export(target, read_arrays(checkpoints, step), of.settings, of.length, of.read_as)

    return write_all(target, folder, chosen, exported)


@contextmanager
def _at(checkpoints: Path, step: int) -> Iterator[None]:
    """Say of a SourceError of which checkpoint it is."""
    try:
        yield
    except SourceError as error:
        raise SourceError(f"{checkpoint_path(checkpoints, step)}: {error}") from error


def _described(checkpoints: Path, step: int, target: str, length: int | None) -> _Described:
    """Return what is known of a checkpoint, after comparing the head of its file with it."""
    with _at(checkpoints, step):
        provenance, shapes = read_provenance(checkpoints, step), parameter_shapes(checkpoints, step)
        settings = _model(provenance)
        check(target, shapes, settings)
        learned = shapes["positions.weight"][0] if "positions.weight" in shapes else None
        types = list(provenance.get("file", {}).get("types", ()))
        read_as = types[0] if len(types) == 1 else None
        return _Described(settings, _length(learned, provenance.get("task"), length), read_as)


def _model(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's settings, defaults filled in."""
    described: dict[str, Any] = transformer.SETTINGS
    defaults = {key: schema["default"] for key, schema in described.items()}
    given: dict[str, Any] | None = provenance.get("model")
    if given is None:
        raise SourceError("nothing is known of the model that these checkpoints are of; give `model` beside `source`")
    unknown = sorted(set(given) - set(defaults) - {"name"})
    if unknown and given.get("name", "transformer") == "transformer":
        # of another version: what the option does would be left out
        raise SourceError(f"the model has the option {unknown[0]}, which is not known here; use the version of the run")
    return defaults | given


def _length(learned: int | None, task: Mapping[str, Any] | None, given: int | None) -> int:
    """Return the number of positions of a model: of learned ones, or else of its task, or else as given.

    Raises:
        SourceError: it is not known, or what is given is another.
    """
    known = _length_of(task) if learned is None else learned
    if known is None and given is None:
        raise SourceError(
            "the length of the context is not known, since there are neither learned positions nor a task; give "
            "--length, the positions that the model was trained with"
        )
    if given is not None and given < 1:
        raise SourceError(f"--length {given}: give at least one position")
    if known is not None and given not in (None, known):
        by = "its task" if learned is None else "its learned positions"
        raise SourceError(f"--length {given}: the model has {known} by {by}; leave it out")
    return int(known if known is not None else given or 0)


def _length_of(task: Mapping[str, Any] | None) -> int | None:
    """Return the number of positions of a task; None: there is none, or the file that tells it is not here."""
    if not task or not task.get("file", True):
        return None
    settings = dict(task)
    with suppress(FileNotFoundError):
        return int(tasks.load(settings).length(settings))
    return None


if __name__ == "__main__":
    sys.exit(main())
