"""What a measurement is given: one trained run on disk.

Importing this module imports no torch, nor does anything but ``Run.model`` and ``Run.parameters``: a measurement of
weights alone starts seconds sooner.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from learning_geometry import tasks
from learning_geometry.files import WithoutDigestsError, check_folder, read_table
from learning_geometry.sources.grid import Grid, uniform_grid
from learning_geometry.tasks.dataset import Arrays, Dataset, read_dataset
from learning_geometry.training.checkpoints import (
    check_steps,
    checkpoint_steps,
    parameter_shapes,
    read_arrays,
    read_checkpoint,
    read_provenance,
    schedule,
)

if TYPE_CHECKING:
    import torch

    import learning_geometry.models


SHOWN = 5
"""Steps that a message lists."""


@dataclass(frozen=True)
class Run:
    """One seed of one experiment: its settings, and where its artifacts lie."""

    experiment: str
    seed: int
    settings: dict[str, Any]
    """The sections ``task``, ``model``, ``optimizer`` and ``training`` of the experiment's config; of checkpoints that
    another program made ``source``, and those of the others that are known."""
    checkpoints: Path
    dataset_file: Path | None
    """None: it is not known what the run learned."""
    metrics_file: Path
    others: tuple["Run", ...] = ()
    """Other seeds of the experiment, for measurements that ask for them (``other_seeds`` of its ``NEEDS``)."""
    shared: dict[str, Path] = field(default_factory=dict)
    """Other measurement of this run -> folder of what it left, if anything (``shares`` of its ``NEEDS``)."""
    output: Path | None = None
    """A folder where a measurement may leave files for others; None: nowhere."""

    @cached_property
    def model(self) -> "learning_geometry.models.Model":
        """The model, to be called with the parameters of a step."""
        from learning_geometry.training.loop import build_model, imported_model

        if "source" not in self.settings:
            return build_model(self.settings)
        return imported_model(self.settings, parameter_shapes(self.checkpoints, self._steps[0]))

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        parameters = self.model.initialise(np.random.default_rng(0))
        return {name: tuple(parameter.shape) for name, parameter in parameters.items()}

    @cached_property
    def dataset(self) -> Dataset:
        """What the run drew once, and its test sets.

        Raises:
            ValueError: it is not known what the run learned.
        """
        if self.dataset_file is None:
            raise ValueError(f"{self.experiment}: it has no task, and so no sequences; give the `task` that it learned")
        return read_dataset(self.dataset_file)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The table that training wrote."""
        return read_table(self.metrics_file)

    @property
    def task(self) -> Any:
        """The module of the task."""
        return tasks.load(self.settings["task"])

    @property
    def trained(self) -> dict[str, Any]:
        """The settings with a section ``training``; of checkpoints of another program what of it is known."""
        if "training" in self.settings:
            return self.settings
        known = {"steps": self._steps[-1], "batch_size": self.settings.get("source", {}).get("batch_size")}
        return self.settings | {"training": known}

    @cached_property
    def _steps(self) -> list[int]:
        """All steps that have a checkpoint, compared with those that the settings ask for."""
        if "training" not in self.settings:
            with suppress(WithoutDigestsError):  # in progress, or of an earlier version
                check_folder(self.checkpoints)
            return checkpoint_steps(self.checkpoints)
        training = self.settings["training"]
        return check_steps(self.checkpoints, schedule(training["checkpoints"], training["steps"]))

    def steps(self, every: int = 1) -> list[int]:
        """Return the checkpoints' steps that are multiples of ``every``, and the last step.

        Of checkpoints of another program ``every`` counts from the first step of their uniform grid.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: they are not those that the settings ask for, naming the first that is missing or too many.
        """
        steps = self._steps
        first = 0 if "training" in self.settings else uniform_grid(steps).steps[0]
        return [step for step in steps if (step - first) % every == 0 or step == steps[-1]]

    def uniform_steps(self, until: int | None = None) -> list[int]:
        """Return the checkpoints' steps on the uniform grid, up to ``until`` included (None: all of them).

        What depends on the spacing of checkpoints, such as the dimension of a trajectory, is measured on these alone.

        Raises:
            FileNotFoundError, ValueError: as :meth:`steps`.
            ValueError: a step of the grid is missing.
        """
        steps = [step for step in self._steps if read_provenance(self.checkpoints, step)["uniform"]]
        grid = uniform_grid(steps) if steps else Grid(1, (), ())
        early = [step for step in grid.steps if until is None or step <= until]
        if missing := [step for step in grid.missing if until is None or step <= until]:
            shown = ", ".join(map(str, missing[:SHOWN])) + ", …" * (len(missing) > SHOWN)
            raise ValueError(
                f"{self.experiment}, seed {self.seed}: among the checkpoints every {grid.every} steps there is none of "
                f"{shown}, and what depends on their spacing is not measured over holes; add them, or list steps of "
                "equal spacing in source.step"
            )
        return early

    def parameters(self, step: int) -> dict[str, "torch.Tensor"]:
        """Return the parameters at ``step``.

        Raises:
            ValueError: they are not those of the model, naming the file, the parameter, and both shapes.
        """
        return read_checkpoint(self.checkpoints, step, self._shapes)

    def arrays(self, step: int) -> dict[str, np.ndarray]:
        """Return the parameters at ``step`` as numpy arrays; torch is not imported."""
        return read_arrays(self.checkpoints, step)

    def test_set(self, name: str, sequences: int | None = None) -> Arrays:
        """Return (the first ``sequences`` of) a test set.

        Raises:
            KeyError: the task has no test set of that name, or fewer sequences.
        """
        test_sets = self.dataset.test_sets
        if name not in test_sets:
            raise KeyError(f"{self.experiment}: no test set {name!r}; the task has {sorted(test_sets)}")
        test_set = test_sets[name]
        if sequences is not None and sequences > len(test_set["tokens"]):
            raise KeyError(
                f"{self.experiment}: {sequences} sequences asked of {name!r}, which has {len(test_set['tokens'])}; "
                "lower `sequences` or raise task.test_sequences"
            )
        return {key: array[:sequences] for key, array in test_set.items()}
