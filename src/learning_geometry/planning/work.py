"""How much a job computes, from its settings: beside the default run, where it was timed."""

from collections.abc import Mapping
from typing import Any

from learning_geometry import tasks
from learning_geometry.model_options import attention_widths, layer_weights
from learning_geometry.planning.jobs import Job

STEP, FLOP = 3.7e-3, 8.3e-12
"""Seconds of one core for a training step whatever its size, and for each operation of its products.

Twelve experiments of the default run took .75 to 1.3 times what these two give (Intel Xeon, AVX-512).
"""
NOT_WORK = ("every", "details_every", "lags_every", "seeds", "from_step", "layer", "k")
"""Settings of measurements that are whole numbers, and make no work."""


def training_seconds(experiment: Mapping[str, Any]) -> float:
    """Return about how many core-seconds a run's training takes."""
    training = experiment["training"]
    return float(training["steps"] * (STEP + FLOP * training["batch_size"] * sequence_operations(experiment)))


def sequence_operations(experiment: Mapping[str, Any]) -> float:
    """Return the floating-point operations of the products of one sequence, forward and backward pass."""
    model, settings = experiment["model"], experiment["task"]
    task, width = tasks.load(settings), model["width"]
    length, layers = task.length(settings), model["layers"]
    read = length if model["readout"] == "all" else 1
    in_layers = layers * (length * layer_weights(model) + 2 * length**2 * attention_widths(model)[0])
    return float(6 * (in_layers + read * width * task.outputs(settings)))


def work(job: Job) -> float:
    """Return about how much a measurement computes, in a unit of its kind's own; 1 for other jobs.

    It is in proportion to the checkpoints it reads, to what one of the run's sequences takes, and to the sum of its
    whole numbers, such as sequences, draws and probes. That is rough: what takes long grows by one of these. What
    trains dictionaries has the product of their latents, steps and batches instead.
    """
    settings = job.settings.get("measurement")
    if not isinstance(settings, Mapping):
        return 1.0
    amount = _trained(settings) or 1.0 + sum(_numbers(settings))
    run = job.settings.get("run")
    if not isinstance(run, Mapping):
        return amount
    kept, steps = run["training"]["checkpoints"], run["training"]["steps"]
    read = steps // max(kept["every"], settings.get("every") or 0) + kept["logarithmic"] + len(kept["steps"]) + 1
    return float(amount * read * sequence_operations(run))


def _trained(settings: Mapping[str, Any]) -> float:
    """The latents of all dictionaries times the vectors that each is trained on; 0 if none is trained."""
    dictionaries = settings.get("dictionaries") or {"": settings}
    latents = sum(each.get("latents") or 0 for each in dictionaries.values())
    runs = 1
    if "dictionaries" in settings:
        runs = max(len(settings.get("seeds") or []), 1) * max(len(settings.get("texts") or []), 1)
    return float(latents * settings["steps"] * settings.get("batch_size", 1) * runs) if latents else 0.0


def _numbers(settings: Mapping[str, Any]) -> list[float]:
    found: list[float] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += _numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool) and name not in NOT_WORK:
            found.append(float(value))
    return found
