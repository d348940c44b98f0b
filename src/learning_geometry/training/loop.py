"""The training loop: resumable after any kill, bitwise equal to an uninterrupted run."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry import tasks
from learning_geometry.files import read_tensor_metadata, read_tensors, write_tensors
from learning_geometry.model_options import sizes_of
from learning_geometry.models import Model, TaskSizes, build
from learning_geometry.models.evaluation import cross_entropy, evaluate, not_finite
from learning_geometry.seeding import seeded
from learning_geometry.tasks.dataset import Dataset
from learning_geometry.training.checkpoints import schedule, verify_checkpoints, write_checkpoint
from learning_geometry.training.optimizers import (
    learning_rate_factor,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
)

Rows = list[dict[str, Any]]


class State(NamedTuple):
    """A run between two steps: what changes is ``flat`` and the optimiser's state.

    The parameters are views of one vector, ``flat``, so that the optimiser runs over one tensor, not dozens.
    """

    model: Model
    parameters: dict[str, Tensor]
    flat: Tensor
    optimizer: torch.optim.Optimizer


def build_model(experiment: dict[str, Any]) -> Model:
    """Return the experiment's model, sized for its task."""
    task, settings = tasks.load(experiment["task"]), experiment["task"]
    shape = TaskSizes(task.vocabulary(settings), task.outputs(settings), task.length(settings))
    return build(experiment["model"], shape)


def imported_model(run: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Model:
    """Return the model of checkpoints that another program made, sized as their parameters are.

    Args:
        run: its settings, with ``model``.
        shapes: of the parameters, by the names of the workflow's transformer.

    Raises:
        ValueError: there are no settings of a model.
    """
    if "model" not in run:
        raise ValueError("nothing is known of the model that these checkpoints are of; give `model` beside `source`")
    return build(run["model"], TaskSizes(*sizes_of(shapes)))


def train(
    experiment: dict[str, Any],
    seed: int,
    dataset: Dataset,
    directory: str | Path,
    provenance: dict[str, Any],
    report: Callable[[int, Rows], None] = lambda step, rows: None,
    seconds_between_saves: float = 10.0,
) -> Rows:
    """Train one seed, write its checkpoints below ``directory``, and return its metrics.

    The batch of step t comes from ``seeded(seed, "batch", t)`` and its dropout masks from
    ``seeded(seed, "dropout", t)``, so a run continues from ``directory/state.safetensors`` without any
    generator state. A saved state is discarded, and the run starts anew, if it was made by other settings, another
    seed or other code, if a bit of it flipped, or if a checkpoint from before it is missing or damaged.

    Args:
        experiment: the sections ``task``, ``model``, ``optimizer`` and ``training`` of the config.
        seed: of the batches and the dropout, and of the initialisation unless the training settings name another.
        dataset: what the run draws once, and its test sets.
        directory: the run's working directory; checkpoints go to ``directory/checkpoints``.
        provenance: what made the run; stored in every checkpoint.
        report: called with the step and the metrics so far at every evaluation.
        seconds_between_saves: how much work a kill may cost; does not affect the result.

    Returns:
        One row per step, quantity and test set: ``running_loss`` (nats) and the task's errors as
        ``running_<error>`` (fraction) on the first ``evaluation_sequences`` sequences of each test set, and
        ``batch_loss`` (nats, mean of the training batches since the last evaluation).

    Raises:
        FloatingPointError: a training loss, a parameter, the optimiser's state or a logit is not finite, naming the
            step and the parameter; looked at before every checkpoint and evaluation, after the last update too.
    """
    directory = Path(directory)
    settings, task = experiment["training"], tasks.load(experiment["task"])
    state, steps = initial_state(experiment, seed), settings["steps"]
    kept = schedule(settings["checkpoints"], steps)
    first, rows = _restore(directory, provenance, state, kept)
    batch_losses: list[Tensor] = []
    saved_at = time.monotonic()

    for step in range(first, steps + 1):
        evaluating = step % settings["evaluate_every"] == 0 or step == steps
        if step in kept or evaluating:
            check_finite(state, seed, step, batch_losses)
        if step in kept:
            write_checkpoint(directory / "checkpoints", step, state.parameters, provenance | {"uniform": kept[step]})
        evaluated_before = step == first and bool(rows)
        if evaluating and not evaluated_before:
            if batch_losses:
                rows.append(_batch_loss_row(batch_losses, settings["batch_size"], step))
                batch_losses = []
            try:
                rows += evaluation_rows(
                    state.model, state.parameters, task, dataset, settings["evaluation_sequences"], step
                )
            except FloatingPointError as error:
                raise FloatingPointError(f"seed {seed}: at step {step}, {error}") from error
            report(step, rows)
            # saved right after an evaluation: no partial mean of batch losses need be kept
            if step < steps and time.monotonic() - saved_at >= seconds_between_saves:
                _save(directory, provenance, state, step, rows)
                saved_at = time.monotonic()
        if step < steps:
            batch_losses.append(training_step(state, experiment, dataset, seed, step))
    return rows


def check_finite(state: State, seed: int, step: int, losses: Sequence[Tensor] = ()) -> None:
    """Look at all that a run holds before ``step``: cheap beside an evaluation, too dear for every step.

    Args:
        state: the run.
        seed: the run's.
        step: where it stands.
        losses: of the updates since the last look, the last one that of step − 1.

    Raises:
        FloatingPointError: something is not finite; names the step and what, the first loss first.
    """
    remedy = "training has diverged; lower optimizer.learning_rate"
    finite = torch.isfinite(torch.stack([*losses])) if losses else torch.ones(1, dtype=torch.bool)
    if not finite.all():
        first = int(finite.logical_not().nonzero()[0])
        raise FloatingPointError(
            f"seed {seed}: the training loss is {float(losses[first])} at step {step - len(losses) + first}; {remedy}"
        )
    if bad := not_finite({"all": state.flat}) and not_finite(state.parameters):
        raise FloatingPointError(f"seed {seed}: before step {step}, {bad}; {remedy}")
    if bad := not_finite(optimizer_tensors(state.optimizer)):
        # the state is that of the flat vector
        names = {
            f"{name} of {parameter}": part
            for name, value in optimizer_tensors(state.optimizer).items()
            if value.shape == state.flat.shape
            for parameter, part in zip(
                state.parameters, value.split([one.numel() for one in state.parameters.values()]), strict=True
            )
        }
        raise FloatingPointError(
            f"seed {seed}: before step {step}, the optimiser's {not_finite(names) or bad}; {remedy}"
        )


def initial_state(experiment: dict[str, Any], seed: int) -> State:
    """Return a run of ``seed`` before its first step; its initialisation may be that of another seed."""
    model = build_model(experiment)
    shared = experiment["training"]["initialisation_seed"]
    drawn = model.initialise(seeded(seed if shared is None else shared, "initialisation"))
    return state_from(model, drawn, experiment["optimizer"])


def state_from(model: Model, parameters: Mapping[str, Tensor], optimizer: dict[str, Any]) -> State:
    """Return a run that stands at the parameters given, with a fresh optimiser; they are copied.

    The flat vector has them in the order of the model's initialisation, as in training.

    Args:
        model: the run's.
        parameters: by name, as read from a checkpoint.
        optimizer: the section ``optimizer`` of an experiment.
    """
    # a file has its own order of names; sums over all entries, such as that of a clipped norm, have the model's
    ordered = [(name, parameters[name].detach()) for name in model.initialise(np.random.default_rng(0))]
    flat = torch.cat([value.flatten() for _, value in ordered])
    views = flat.split([value.numel() for _, value in ordered])
    named = {name: view.view(value.shape).requires_grad_() for (name, value), view in zip(ordered, views, strict=True)}
    return State(model, named, flat, make_optimizer(optimizer, {"all": flat}))


def training_step(
    state: State, experiment: dict[str, Any], dataset: Dataset, seed: int, step: int
) -> Float[Tensor, ""]:
    """Make the optimiser step that follows ``step``, in place, and return its batch's loss (nats)."""
    settings, task = experiment["optimizer"], tasks.load(experiment["task"])
    factor = learning_rate_factor(settings["schedule"], step, experiment["training"]["steps"])
    for group in state.optimizer.param_groups:
        group["lr"] = settings["learning_rate"] * factor
    batch = task.training_batch(
        experiment["task"], dataset.drawn_once, seeded(seed, "batch", step), experiment["training"]["batch_size"], step
    )
    tokens, targets = torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)
    logits = state.model.forward(state.parameters, tokens, dropout=seeded(seed, "dropout", step))
    loss = cross_entropy(logits, targets)
    gradients = torch.autograd.grad(loss, list(state.parameters.values()))
    state.flat.grad = torch.cat([gradient.flatten() for gradient in gradients])
    if settings["clip_norm"] is not None:
        torch.nn.utils.clip_grad_norm_(state.flat, settings["clip_norm"])
    state.optimizer.step()
    return loss.detach()


def _batch_loss_row(losses: list[Tensor], batch_size: int, step: int) -> dict[str, Any]:
    loss = float(torch.stack(losses).double().mean())
    return {
        "step": step,
        "quantity": "batch_loss",
        "data": "training",
        "value": loss,
        "unit": "nats",
        "n": len(losses) * batch_size,
    }


def evaluation_rows(
    model: Model, parameters: dict[str, Tensor], task: Any, dataset: Dataset, sequences: int, step: int
) -> Rows:
    """Return the losses and errors of a model on the first sequences of every test set, see :func:`train`.

    Raises:
        FloatingPointError: a logit is not finite.
    """
    rows: Rows = []
    for data, test_set in dataset.test_sets.items():
        some = {name: array[:sequences] for name, array in test_set.items()}
        result = evaluate(model, parameters, some["tokens"], some["targets"])
        values = {"loss": (result.losses, "nats")}
        values |= {name: (value, "fraction") for name, value in task.errors(result.predictions, some).items()}
        rows += [
            {
                "step": step,
                "quantity": f"running_{name}",
                "data": data,
                "value": float(value.mean()),
                "unit": unit,
                "n": len(value),
            }
            for name, (value, unit) in values.items()
        ]
    return rows


def _save(directory: Path, provenance: dict[str, Any], state: State, step: int, rows: Rows) -> None:
    tensors = {"parameters": state.flat}
    tensors |= {f"optimizer/{name}": value for name, value in optimizer_tensors(state.optimizer).items()}
    write_tensors(directory / "state.safetensors", tensors, {"provenance": provenance, "step": step, "rows": rows})


def _restore(directory: Path, provenance: dict[str, Any], state: State, kept: Iterable[int]) -> tuple[int, Rows]:
    """Load a saved state of the same provenance in place; return its step and metrics, or (0, [])."""
    path = directory / "state.safetensors"
    try:
        if path.exists() and (saved := read_tensor_metadata(path))["provenance"] == json.loads(json.dumps(provenance)):
            tensors = {name: torch.from_numpy(array) for name, array in read_tensors(path).items()}
            # that of the saved step itself is written again
            verify_checkpoints(directory / "checkpoints", (step for step in kept if step < saved["step"]))
            state.flat.copy_(tensors.pop("parameters"))
            restore_optimizer(
                state.optimizer, {name.removeprefix("optimizer/"): value for name, value in tensors.items()}
            )
            return saved["step"], saved["rows"]
    except (FileNotFoundError, ValueError) as error:
        logging.getLogger(__name__).warning("%s: training starts anew, as what was saved is not whole: %s", path, error)
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    return 0, []
