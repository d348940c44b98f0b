"""Command line that writes the checkpoints of a run for other tools.

``python -m learning_geometry.export RUN --as gpt_neox --to FOLDER [--steps 0 500]`` reads ``RUN``, such as
``results/copying/seed-0``, and writes one checkpoint per step: folders ``checkpoint-500`` with ``config.json`` and
``model.safetensors`` for Hugging Face's ``gpt2``, ``gpt_neox`` and ``llama``, files ``ckpt_500.pt`` for ``nanogpt``,
and ``model_500.pt`` beside one ``config.json`` for ``transformer_lens``. What the tool cannot hold is refused by name,
and nothing that is there is overwritten.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from learning_geometry import tasks
from learning_geometry.models import transformer
from learning_geometry.sources.checkpoint import SourceError
from learning_geometry.sources.export import check_absent, export, write, written_path
from learning_geometry.sources.targets import TARGETS
from learning_geometry.training.checkpoints import checkpoint_steps, read_arrays, read_provenance


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m learning_geometry.export", description="Write for other tools.")
    parser.add_argument("run", type=Path, metavar="RUN", help="such as results/copying/seed-0")
    parser.add_argument("--as", dest="target", required=True, choices=TARGETS, help="the tool, or the family of models")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where to write; made if absent")
    parser.add_argument("--steps", type=int, nargs="+", metavar="STEP", help="default: all checkpoints")
    options = parser.parse_args(arguments)
    try:
        written = export_run(options.run, options.target, options.to, options.steps)
    except (SourceError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(written)} checkpoints written, first {written[0]}")
    return 0


def export_run(run: Path, target: str, folder: Path, steps: Sequence[int] | None = None) -> list[Path]:
    """Write checkpoints of a run for another tool, and return their paths.

    Args:
        run: folder of a run, or of its checkpoints.
        target: one of :data:`TARGETS`.
        folder: where to write.
        steps: which checkpoints; None: all.

    Raises:
        FileNotFoundError: there is no such run or step.
        SourceError: the target cannot hold the model, or a file is there already; nothing is written then.
        ValueError: a checkpoint is damaged.
    """
    inside = [run / name for name in ("checkpoints", "imported") if (run / name).is_dir()]
    checkpoints = inside[0] if inside else run
    chosen = list(dict.fromkeys(checkpoint_steps(checkpoints) if steps is None else steps))
    for step in chosen:
        check_absent(written_path(target, folder, step))
    written = []
    for step in chosen:
        parameters = read_arrays(checkpoints, step)
        settings, length = _model(read_provenance(checkpoints, step))
        written.append(write(target, folder, step, export(target, parameters, settings, length)))
    return written


def _model(provenance: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the model's settings, defaults filled in, and the number of positions of its task."""
    described: dict[str, Any] = transformer.SETTINGS
    defaults = {key: schema["default"] for key, schema in described.items()}
    if "model" not in provenance:
        raise SourceError("nothing is known of the model that these checkpoints are of; give `model` beside `source`")
    task = provenance.get("task")
    return defaults | provenance["model"], int(tasks.load(task).length(task)) if task else 1


if __name__ == "__main__":
    sys.exit(main())
