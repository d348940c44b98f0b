"""The checkpoints that the section ``source`` of an experiment chooses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from learning_geometry.sources.checkpoint import SourceError
from learning_geometry.sources.series import find_series, hub_series


class Place(NamedTuple):
    """One checkpoint of a series."""

    seed: int
    step: int
    path: Path


def checkpoints_of(
    source: Mapping[str, Any], seeds: Sequence[int], notes: list[str] | None = None
) -> dict[int, dict[int, Path]]:
    """Return where the checkpoints of a source lie: seed -> step -> file or folder, steps ascending.

    Args:
        source: the section, with all defaults filled in.
        seeds: of the experiment, or some of them.
        notes: takes a sentence for every file that is left out.

    Raises:
        SourceError: there are none of a seed, or it cannot be told which is of which step.
    """
    if source["hub"] is None:
        return find_series(
            source["files"], seeds, source["step"], source["every_number_is"], state=source["state"], notes=notes
        )
    hub, revision = ({seed: source[key].replace("{seed}", str(seed)) for seed in seeds} for key in ("hub", "revision"))
    return {seed: hub_series(hub[seed], revision[seed], source["step"], source["download"]) for seed in seeds}


def checked_at(source: Mapping[str, Any], seeds: Sequence[int]) -> Place:
    """Return the checkpoint whose logits are compared with those that are given: by default the last of the first seed.

    Args:
        source: the section, which has a ``check``.
        seeds: of the experiment.

    Raises:
        SourceError: as :func:`checkpoints_of`, or there is no checkpoint of that step.
    """
    seed, step = source["check"]["seed"], source["check"]["step"]
    seed = seeds[0] if seed is None else seed
    series = checkpoints_of(source, [seed])[seed]
    step = max(series) if step is None else step
    if step not in series:
        raise SourceError(f"no checkpoint of step {step} of seed {seed}; there are {', '.join(map(str, series))}")
    return Place(seed, step, series[step])
