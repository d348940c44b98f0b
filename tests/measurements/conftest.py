"""Small runs on disk, made without training."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from learning_geometry.files import write_table
from learning_geometry.measurements.common.run import Run
from learning_geometry.tables.tidy import tidy
from learning_geometry.tasks import copying
from learning_geometry.tasks.dataset import make_dataset, write_dataset
from learning_geometry.training.checkpoints import write_checkpoint
from learning_geometry.training.loop import build_model

TASK = {
    "name": "copying",
    "vocabulary": 24,
    "length": 24,
    "segment_length": [6, 7],
    "out_of_distribution_segment_length": 8,
    "test_sequences": 40,
}
MODEL = {"name": "transformer", "layers": 2, "heads": 2, "width": 16, "rotary_base": 100.0}


def defaults(properties):
    return {name: schema["default"] for name, schema in properties.items()}


def write_run(folder, *changes, model=None, seed=0):
    """Write the checkpoints of a model, each the initial parameters changed by a function, and return the run."""
    from learning_geometry.models.transformer import SETTINGS

    task = defaults(copying.SETTINGS) | TASK
    settings = {"task": task, "model": defaults(SETTINGS) | MODEL | (model or {})}
    write_dataset(folder / "dataset.safetensors", make_dataset(task, seed), {})
    for step, change in enumerate(changes or [lambda parameters: None]):
        parameters = build_model(settings).initialise(np.random.default_rng(seed))
        change(parameters)
        write_checkpoint(folder / "checkpoints", 10 * step, parameters, {})
    files = [folder / name for name in ("checkpoints", "dataset.safetensors", "metrics.parquet")]
    return Run("tiny", seed, settings, *files)


@pytest.fixture
def make_run(tmp_path):
    """As ``write_run``, in a folder of the test's own."""
    return partial(write_run, tmp_path)


@pytest.fixture(scope="session")
def measured():
    """Run a measurement with its default settings, changed, and return a function that looks values up."""

    def measure(module, run, **settings):
        table = module.measure(run, defaults(module.SETTINGS) | {"every": 1} | settings)

        def find(quantity, part=None, null="", **columns):
            chosen = table[(table["quantity"] == quantity) & (table["null"] == null)]
            for name, value in (columns | ({"part": part} if part else {})).items():
                chosen = chosen[chosen[name] == value]
            return chosen

        def value(*arguments, **columns):
            (found,) = find(*arguments, **columns)["value"]
            return found

        return SimpleNamespace(table=table, find=find, value=value)

    return measure


def put(parameters, name, array):
    """Replace a parameter by an array of the same shape."""
    assert parameters[name].shape == array.shape
    parameters[name] = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def write_errors(run, errors, data="out_of_distribution"):
    """Let training have evaluated these errors, one every 5 steps, and return the run."""
    rows = [
        {"step": 5 * i, "quantity": "running_error", "data": data, "value": error, "unit": "fraction"}
        for i, error in enumerate(errors)
    ]
    write_table(tidy(rows, run.experiment, run.seed), run.metrics_file, {})
    return run


@pytest.fixture(scope="session")
def tiny_language(tmp_path_factory):
    """A tiny language model that was captured, with two texts and two contrasts of 12 pairs; not to be changed."""
    from tests.measurements.language import tiny_language_run

    return tiny_language_run(tmp_path_factory.mktemp("tiny_language"))
