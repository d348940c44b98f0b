r"""Training whose every step stays inside, or outside, a subspace of the parameters.

The subspace is spanned by orthonormal columns for some of the parameters (such as the principal directions of each
attention matrix' trajectory), all other entries of the parameter vector being zero in it. *Inside*, only these
directions move: parameters without columns stand still. *Outside*, everything else moves: parameters without columns
move freely, those with columns in the orthogonal complement of them.

A step projects the gradient and, since AdamW's step is not a multiple of what it is given and weight decay does not
ask, the step that comes out: $\theta \leftarrow \theta_0 + P(\theta' - \theta_0)$ with θ' what the optimiser made. The
displacement so far is in the subspace, so this is the projection of the step, and rounding does not add up.

Sources: Gur-Ari, Roberts and Dyer 2018, "Gradient descent happens in a tiny subspace" (arXiv:1812.04754); Song, Ahn and
Yun 2024, "Does SGD really happen in tiny subspaces?" (arXiv:2405.16002), who project on and off the top Hessian
eigenvectors and find that learning goes on off them only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.tasks.dataset import Dataset
from learning_geometry.training.loop import State, check_finite, training_step

Projection = Callable[[Tensor], Tensor]
"""Map of a flat vector of all parameters to its part inside, or outside, of a subspace."""

TOLERANCE = 1e-4
"""How far the columns of a basis may be from orthonormal."""


class Block(NamedTuple):
    """Where a parameter lies in the flat vector, and its directions."""

    start: int
    end: int
    basis: Float[Tensor, "entries directions"]


def projection(
    parameters: Mapping[str, Tensor], basis: Mapping[str, Float[np.ndarray, "_ _"]], outside: bool = False
) -> Projection:
    """Return the orthogonal projection of flat vectors on the span of a basis, or off it.

    Args:
        parameters: all parameters, in the order of the flat vector.
        basis: name of a parameter -> orthonormal columns, one row for each of its entries, in row-major order.
        outside: return what is orthogonal to the span instead.

    Raises:
        ValueError: a name that is no parameter, columns of another length, or that are not orthonormal.

    >>> parameters = {"bias": torch.zeros(1), "weight": torch.zeros(1, 2)}
    >>> basis = {"weight": np.array([[0.6], [0.8]])}
    >>> vector = torch.tensor([7.0, 1.0, 0.0])
    >>> projection(parameters, basis)(vector), projection(parameters, basis, outside=True)(vector)
    (tensor([0.0000, 0.3600, 0.4800]), tensor([ 7.0000,  0.6400, -0.4800]))
    """
    blocks = list(_blocks(parameters, basis))

    def project(vector: Float[Tensor, " dimension"]) -> Float[Tensor, " dimension"]:
        result = vector.clone() if outside else torch.zeros_like(vector)
        for start, end, columns in blocks:
            # in the precision of the columns: what is left of a small step off the span is a difference
            piece = vector[start:end].to(columns.dtype)
            inside = columns @ (columns.T @ piece)
            result[start:end] = (piece - inside if outside else inside).to(vector.dtype)
        return result

    return project


def confine(state: State, project: Projection) -> None:
    """Let every further step of a run's optimiser move along a subspace only, from where the run stands.

    The gradient is projected before the optimiser sees it (after it is clipped, if it is), the displacement after the
    step.
    """
    start = state.flat.clone()

    def before(*_: Any) -> None:
        if state.flat.grad is not None:
            state.flat.grad = project(state.flat.grad)

    def after(*_: Any) -> None:
        with torch.no_grad():
            state.flat.copy_(start + project(state.flat - start))

    state.optimizer.register_step_pre_hook(before)
    state.optimizer.register_step_post_hook(after)


def continue_training(
    state: State, experiment: dict[str, Any], dataset: Dataset, seed: int, first: int, evaluate_after: Iterable[int]
) -> Iterator[int]:
    """Make the steps of a run that follow step ``first``, on the run's own batches; yield at the points asked for.

    The batch and the dropout masks of a step are those of the run (``training.loop``), whatever was projected before.

    Args:
        state: changed in place.
        experiment: the sections ``task``, ``model``, ``optimizer`` and ``training``.
        dataset: the run's.
        seed: the run's.
        first: the step that the run stands at.
        evaluate_after: numbers of steps after ``first``, ascending.

    Yields:
        Each of these numbers, when so many steps have been made.

    Raises:
        FloatingPointError: a parameter or the optimiser's state is not finite then; names it and the step.
    """
    made = 0
    for wanted in evaluate_after:
        while made < wanted:
            training_step(state, experiment, dataset, seed, first + made)
            made += 1
        check_finite(state, seed, first + made)
        yield made


def _blocks(parameters: Mapping[str, Tensor], basis: Mapping[str, np.ndarray]) -> Iterator[Block]:
    unknown = [name for name in basis if name not in parameters]
    if unknown:
        raise ValueError(f"basis: {unknown[0]} is no parameter of the model; it has {list(parameters)}")
    start = 0
    for name, value in parameters.items():
        end = start + value.numel()
        if name in basis:
            columns = torch.from_numpy(np.ascontiguousarray(basis[name], dtype=np.float64))
            if len(columns) != value.numel():
                raise ValueError(
                    f"basis: the columns of {name} have {len(columns)} entries, the parameter {value.numel()}; "
                    "flatten it row by row"
                )
            gram = columns.T @ columns
            if (gram - torch.eye(len(gram), dtype=gram.dtype)).abs().max() > TOLERANCE:
                raise ValueError(f"basis: the columns of {name} are not orthonormal; take the Q of their QR")
            yield Block(start, end, columns)
        start = end
