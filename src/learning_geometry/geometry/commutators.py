r"""Commutators of two gradient steps: by how much it matters which of two batches comes first.

From a point θ, a plain gradient step on batch A and then one on batch B leads to $\theta_{AB}$, the other order to
$\theta_{BA}$. With step size η,

$$\theta_{AB} - \theta_{BA} = \eta^2 (H_B g_A - H_A g_B) + O(\eta^3),$$

the Lie bracket of the two gradient fields, with g and H the batches' gradients and Hessians at θ: expand the second
gradient of either order around θ. All commutators here are divided by η², so that those of different η compare.

By Hessian-vector products (:func:`commutator`) the bracket itself comes out, with the relative accuracy of a gradient.
Steps really taken (:func:`finite_commutator`) give it as a difference of nearly equal points, in which little of single
precision may be left: the difference is of order η², the points' rounding is not.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.geometry.curvature.products import Gradient, flatten, unflatten

Loss = Callable[[dict[str, Tensor]], Tensor]


class Commutator(NamedTuple):
    r"""The commutator of the gradient steps on two batches, all as flat vectors in the order of the parameters.

    Attributes:
        delta: $(\theta_{AB} - \theta_{BA}) / \eta^2$, shape (dimension,).
        gradients: $g_A$ and $g_B$ at the point.
        terms: $H_B g_A$ and $H_A g_B$, to first order in η where they come from finite steps.
    """

    delta: Float[Tensor, " dimension"]
    gradients: tuple[Float[Tensor, " dimension"], Float[Tensor, " dimension"]]
    terms: tuple[Float[Tensor, " dimension"], Float[Tensor, " dimension"]]


def commutator(first: Gradient, second: Gradient) -> Commutator:
    """Commutator in the limit of small steps, by one Hessian-vector product for each batch.

    Args:
        first: gradient of the loss on batch A, with its graph
            (:func:`~learning_geometry.geometry.curvature.products.gradient_with_graph`). One gradient serves any number
            of commutators.
        second: the same of batch B at the same point.

    Raises:
        ValueError: if the gradients are by different numbers of parameters or of different dtypes, or the result is not
            finite.

    Examples:
        On A the loss pulls x towards 1, on B x and y towards each other: (x - 1)² / 2 and (y - x)² / 2. At the origin
        only the step on A moves, and the step on B only after it:

        >>> from learning_geometry.geometry.curvature.products import gradient_with_graph
        >>> point = {"x": torch.tensor(0.0), "y": torch.tensor(0.0)}
        >>> on_a = gradient_with_graph(lambda p: (p["x"] - 1) ** 2 / 2, point)
        >>> on_b = gradient_with_graph(lambda p: (p["y"] - p["x"]) ** 2 / 2, point)
        >>> commutator(on_a, on_b).delta
        tensor([-1.,  1.])
    """
    one, other = first.gradient, second.gradient
    if one.shape != other.shape or one.dtype != other.dtype:
        raise ValueError(
            f"first and second: gradients by {len(one)} and {len(other)} parameters, of {one.dtype} and {other.dtype}; "
            "pass those of two losses by the same parameters"
        )
    terms = second.product(one), first.product(other)
    return _finite(Commutator(terms[0] - terms[1], (one, other), terms), "drop this checkpoint")


def finite_commutator(
    first: Loss, second: Loss, parameters: Mapping[str, Float[Tensor, "..."]], step_size: float
) -> Commutator:
    r"""Commutator of steps really taken: $(\theta_{AB} - \theta_{BA}) / \eta^2$ from four gradients.

    Two at the point, and each batch's again after the other's step. All arithmetic is in the dtype of the parameters,
    the differences included. The truncated series errs by an amount linear in η. Rounding of the points adds a relative
    error of up to about $\varepsilon \|\theta\| / \|\theta_{AB} - \theta_{BA}\|$: with ε = 1e-7, in float32, it can
    exceed 1, and with 1e-16, in float64, it matters for vanishing gradients only.

    Args:
        first: scalar loss on batch A as a function of the named parameters, deterministic. One derivative suffices.
        second: the same on batch B.
        parameters: point, one tensor of one floating dtype per name; not changed.
        step_size: learning rate η of all steps, above 0.

    Raises:
        ValueError: if the step size is not above 0, there is no parameter, the dtypes differ, a loss is not a finite
            scalar (at the point or after a step), or the result is not finite.

    Examples:
        The same steps as in :func:`commutator`, where losses are quadratic and finite steps exact:

        >>> point = {"x": torch.tensor(0.0), "y": torch.tensor(0.0)}
        >>> on_a, on_b = (lambda p: (p["x"] - 1) ** 2 / 2), (lambda p: (p["y"] - p["x"]) ** 2 / 2)
        >>> finite_commutator(on_a, on_b, point, step_size=0.5).delta
        tensor([-1.,  1.])
    """
    if not step_size > 0:
        raise ValueError(f"step_size: {step_size} is no step; pass a number above 0")
    if len({tensor.dtype for tensor in parameters.values()}) > 1:
        raise ValueError("parameters: they are of several dtypes; convert them to one")
    point = flatten(parameters).detach()
    one, other = (_gradient(loss, point, parameters, "at the point; drop this checkpoint") for loss in (first, second))
    after_one, after_other = point - step_size * one, point - step_size * other
    too_far = f"after a step of {step_size}; lower step_size"
    second_after = _gradient(second, after_one, parameters, too_far)
    first_after = _gradient(first, after_other, parameters, too_far)
    delta = (after_one - step_size * second_after) - (after_other - step_size * first_after)
    terms = (other - second_after) / step_size, (one - first_after) / step_size
    return _finite(Commutator(delta / step_size**2, (one, other), terms), "lower step_size")


def defect(of: Commutator) -> float:
    r"""Norm of the commutator over those of the two steps, $\|\delta\| / (\|\eta g_A\| \|\eta g_B\|)$.

    In units of one over those of the parameters: it does not depend on η, but does on their scale, and grows as
    gradients vanish.

    Raises:
        ValueError: if a gradient is zero.

    Examples:
        >>> defect(Commutator(torch.tensor([6.0, 0.0]), (torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])), ()))
        3.0
    """
    return _ratio(norm(of.delta), norm(of.gradients[0]) * norm(of.gradients[1]))


def scale_free(of: Commutator) -> float:
    r"""Norm of the commutator over the summed norms of its terms, $\|\delta\| / (\eta^2 (\|H_B g_A\| + \|H_A g_B\|))$.

    A pure number in [0, 1]: 0 where both orders lead to the same point, 1 where the terms do not cancel at all.

    Raises:
        ValueError: if both terms are zero.

    Examples:
        >>> terms = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 5.0])
        >>> round(scale_free(Commutator(terms[0] - terms[1], (), terms)), 4)
        0.3162
    """
    return _ratio(norm(of.delta), norm(of.terms[0]) + norm(of.terms[1]))


def norm(vector: Float[Tensor, " dimension"]) -> float:
    """Euclidean norm, summed in float64."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


def _gradient(loss: Loss, point: Tensor, like: Mapping[str, Tensor], where: str) -> Tensor:
    leaves = {name: piece.requires_grad_() for name, piece in unflatten(point.detach(), like).items()}
    with torch.enable_grad():
        value = loss(leaves)
        if value.dim() != 0 or not torch.isfinite(value):
            raise ValueError(f"loss: it is {value.detach()} and not a finite scalar {where}")
        gradients = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def _finite(computed: Commutator, remedy: str) -> Commutator:
    if not torch.isfinite(computed.delta).all():
        raise ValueError(f"commutator: an entry is not finite; {remedy}")
    return computed


def _ratio(numerator: float, denominator: float) -> float:
    if denominator == 0:
        raise ValueError("commutator: the gradients it is compared with are zero; drop this checkpoint")
    return numerator / denominator
