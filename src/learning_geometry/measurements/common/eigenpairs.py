"""Both ends of the Hessian's spectrum at a checkpoint: found once, and left for measurements that share them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.files import read_tensor_metadata, read_tensors, write_tensors
from learning_geometry.geometry.curvature.hessian import Loss, double_product
from learning_geometry.geometry.curvature.lanczos import Eigenpair, extreme_eigenpairs, refined
from learning_geometry.geometry.curvature.products import Gradient
from learning_geometry.measurements.common.estimates import check_converged
from learning_geometry.measurements.common.run import Run

NUMBERS = ("value", "residual", "error", "products", "converged", "gap")
"""What is kept of a pair beside its vector."""


class Ends(NamedTuple):
    """The pair of the largest and the pair of the smallest eigenvalue, values in float64."""

    largest: Eigenpair
    smallest: Eigenpair


class Tolerances(NamedTuple):
    """Errors allowed: of the largest eigenvalue relative to it, of the smallest as a fraction of the larger in size."""

    largest: float
    smallest: float
    maximum_products: int
    measurement: str
    """Which a message names."""

    @classmethod
    def asked(cls, measurement: str, settings: Mapping[str, Any]) -> "Tolerances":
        """Return those in the settings of a measurement."""
        return cls(settings["tolerance"], settings["smallest_tolerance"], settings["maximum_products"], measurement)


def ends(
    run: Run,
    step: int,
    loss: Loss,
    parameters: dict[str, Tensor],
    at: Gradient,
    tolerances: Tolerances,
    start: Float[Tensor, " dimension"] | None = None,
) -> Ends:
    """Find both ends of the spectrum: vectors by the products of ``at``, values by one in float64 each.

    Args:
        run: the run.
        step: its checkpoint.
        loss: that is differentiated, as a function of the parameters in any precision.
        parameters: the checkpoint's.
        at: the gradient there, with its graph.
        tolerances: as of the measurement.
        start: eigenvector at an earlier checkpoint, if any.

    Raises:
        ArithmeticError: the iteration did not converge, naming the step.
    """
    pairs = extreme_eigenpairs(
        at.product,
        at.gradient.numel(),
        tolerances.largest,
        tolerances.smallest,
        None if start is None else start.to(at.gradient),
        maximum_products=tolerances.maximum_products,
    )
    for pair, name, key in zip(pairs, Ends._fields, ("tolerance", "smallest_tolerance"), strict=True):
        remedy = f"measurements.{tolerances.measurement}.maximum_products or {key}"
        check_converged(pair, run, step, f"the {name} Hessian eigenvalue", remedy)
    exact = double_product(loss, parameters)
    return Ends(*(refined(pair, exact) for pair in pairs))


def leave(run: Run, step: int, found: Ends) -> None:
    """Write the ends at a checkpoint for others, if the run has a folder for that; vectors in float32, as found."""
    if run.output is None:
        return
    run.output.mkdir(parents=True, exist_ok=True)
    vectors = {name: pair.vector.float() for name, pair in found._asdict().items()}
    numbers = {name: {key: getattr(pair, key) for key in NUMBERS} for name, pair in found._asdict().items()}
    write_tensors(run.output / _name(step), vectors, {"ends": numbers})


def shared_ends(run: Run, measurement: str, step: int) -> Ends | None:
    """Return the ends that another measurement left at a checkpoint; None if there are none.

    Raises:
        ValueError: the file is not as it was written.
    """
    folder = run.shared.get(measurement)
    path = None if folder is None else folder / _name(step)
    if path is None or not path.exists():
        return None
    vectors, numbers = read_tensors(path), read_tensor_metadata(path)["ends"]
    pairs = []
    for name in Ends._fields:
        vector = torch.from_numpy(vectors[name]).double()
        pairs.append(Eigenpair(vector=vector / torch.linalg.vector_norm(vector), **numbers[name]))
    return Ends(*pairs)


def good_enough(found: Ends, largest: float, smallest: float | None = None) -> bool:
    """Whether the errors of shared ends are within tolerances, as of :class:`Tolerances`; None asks for none."""
    size = max(abs(found.largest.value), abs(found.smallest.value))
    return found.largest.error <= largest * abs(found.largest.value) and (
        smallest is None or found.smallest.error <= smallest * size
    )


def _name(step: int) -> str:
    return f"step-{step:06d}.safetensors"
