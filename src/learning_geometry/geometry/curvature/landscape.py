"""The loss around a point and between points: along a line, on a plane, and downhill without noise.

Every function takes the point and the directions as flat vectors. Losses are given per sample (per sequence), so that
differences between two points are paired: their standard error is far below that of the losses themselves.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.geometry.curvature.trace import Estimate
from learning_geometry.geometry.rounding import difference, first_largest, is_rounding

Losses = Callable[[Tensor], Float[np.ndarray, " samples"]]
"""Loss of every sample at a flat point; their mean is the loss."""

LossAndGradient = Callable[[Tensor], tuple[float, Tensor]]
"""Loss and its flat gradient at a flat point."""


class Descent(NamedTuple):
    """A point on the way downhill.

    Attributes:
        step: updates made so far.
        loss: loss that is descended, at this point.
        point: the flat point.
    """

    step: int
    loss: float
    point: Float[Tensor, " dimension"]


def mean_of(differences: Float[np.ndarray, " samples"]) -> Estimate:
    """Return the mean over samples with its standard error.

    Raises:
        ValueError: if there are fewer than two samples, or one is not finite.

    Examples:
        >>> mean_of(np.array([1.0, 3.0]))
        Estimate(value=2.0, standard_error=1.0, n=2)
    """
    if differences.size < 2 or not np.isfinite(differences).all():
        raise ValueError(f"differences: {differences.size} samples, all finite? pass at least two finite ones")
    return Estimate(
        float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(differences.size)), differences.size
    )


def along_line(
    losses: Losses, point: Float[Tensor, " dimension"], direction: Float[Tensor, " dimension"], places: Sequence[float]
) -> Float[np.ndarray, "places samples"]:
    r"""Loss differences $\ell_i(\theta + s d) - \ell_i(\theta)$ of every sample i at every place s.

    Args:
        losses: loss of every sample.
        point: where the line starts, θ.
        direction: d; places are in units of its length.
        places: s, any order; a place 0 gives exact zeros.

    Raises:
        ValueError: if point and direction differ in size, or a loss is not finite.

    Examples:
        Of the saddle (x² − y²) / 2 along y, with one sample:

        >>> saddle = lambda p: np.array([float(p[0] ** 2 - p[1] ** 2) / 2])
        >>> along_line(saddle, torch.zeros(2), torch.tensor([0.0, 1.0]), [-2.0, 0.0, 1.0])[:, 0]
        array([-2. ,  0. , -0.5])
    """
    if point.shape != direction.shape:
        raise ValueError(f"direction: {tuple(direction.shape)} entries for a point of {tuple(point.shape)}; pass equal")
    here = losses(point)
    differences = np.stack([losses(point + place * direction) - here if place else 0.0 * here for place in places])
    if not np.isfinite(differences).all():
        raise ValueError("losses: one is not finite on the line; use shorter distances, or drop this checkpoint")
    return differences


def drop_both_ways(
    forth: Float[np.ndarray, "places samples"], back: Float[np.ndarray, "places samples"]
) -> tuple[Estimate, int]:
    r"""How far the loss falls along ± a direction, at a distance chosen on other samples.

    The mean of both ways, $L(\theta) - (L(\theta + s d) + L(\theta - s d)) / 2$, has no part of the gradient: to order
    $s^4$ it is $-s^2 d^\top H d / 2$. The best of many distances is better than it should be by chance, so it is chosen
    on the first half of the samples and judged on the second.

    Args:
        forth: differences to the loss at the point, one row per distance.
        back: the same at minus these distances.

    Returns:
        The drop (positive if the loss falls) over the second half of the samples, and the row chosen.

    Raises:
        ValueError: if the shapes differ, or there are fewer than four samples.

    Examples:
        >>> drop_both_ways(np.array([[-1.0] * 4, [-2.0] * 4]), np.array([[-1.0] * 4, [1.0] * 4]))
        (Estimate(value=1.0, standard_error=0.0, n=2), 0)
    """
    if forth.shape != back.shape or forth.shape[1] < 4:
        raise ValueError(f"forth and back: shapes {forth.shape} and {back.shape}; pass equal ones, 4 samples or more")
    drop = -(forth + back) / 2
    half = drop.shape[1] // 2
    row = int(first_largest(drop[:, :half].mean(1), np.abs(drop).max()))
    return mean_of(drop[row, half:]), row


def share_of(part: Float[np.ndarray, " samples"], whole: Float[np.ndarray, " samples"]) -> Estimate:
    """Return mean(part) / mean(whole), paired by sample, with its standard error (delta method); NaN for a whole <= 0.

    Examples:
        >>> share_of(np.array([1.0, 1.0]), np.array([4.0, 4.0]))
        Estimate(value=0.25, standard_error=0.0, n=2)
    """
    if part.shape != whole.shape or part.size < 2:
        raise ValueError(f"part and whole: {part.size} and {whole.size} samples; pass two or more, paired")
    mean = float(whole.mean())
    if mean < 0 or is_rounding(mean, np.abs(whole).mean(), whole.size):
        return Estimate(float("nan"), float("nan"), part.size)
    share = float(part.mean()) / mean
    return Estimate(share, mean_of(part - share * whole).standard_error / mean, part.size)


def barrier(differences: Float[np.ndarray, "places samples"]) -> tuple[Estimate, int]:
    """Height of the highest place of a line above the higher of its two ends, and which place it is.

    0 without any error if that is an end: then the line has no barrier.

    Args:
        differences: losses along the line, first to last place, each less the same sample's loss at one fixed point.

    Raises:
        ValueError: if there are fewer than three places.

    Examples:
        >>> barrier(np.array([[0.0, 0.0], [1.0, 3.0], [-1.0, -1.0]]))
        (Estimate(value=2.0, standard_error=1.0, n=2), 1)
    """
    if len(differences) < 3:
        raise ValueError(f"differences: {len(differences)} places; a line needs its two ends and one between")
    means = differences.mean(1)
    # of places that rounding alone tells apart the first; an end counts before what lies between
    top = int(first_largest(means, np.abs(differences).max()))
    end = 0 if difference(means[0], means[-1], differences.shape[1]) >= 0 else len(means) - 1
    return mean_of(differences[top] - differences[end]), top


def orthonormal_pair(
    first: Float[Tensor, " dimension"], second: Float[Tensor, " dimension"]
) -> tuple[Float[Tensor, " dimension"], Float[Tensor, " dimension"], float]:
    """Unit vectors of the plane of two directions, the second made orthogonal to the first.

    Returns:
        The two, and the cosine between the directions as given.

    Raises:
        ValueError: if one is zero or they are parallel: they span no plane.

    Examples:
        >>> orthonormal_pair(torch.tensor([2.0, 0.0]), torch.tensor([3.0, 4.0]))
        (tensor([1., 0.]), tensor([0., 1.]), 0.6)
    """
    a, b = first.double(), second.double()
    lengths = float(torch.linalg.vector_norm(a)), float(torch.linalg.vector_norm(b))
    if not min(lengths) > 0:
        raise ValueError(f"first and second: lengths {lengths} span no plane; pass two directions")
    a, b = a / lengths[0], b / lengths[1]
    cosine = float(a @ b)
    b = b - cosine * a
    rest = float(torch.linalg.vector_norm(b))
    if rest < 1e-6:
        raise ValueError("first and second: they are parallel and span no plane; pass another direction")
    return a.to(first.dtype), (b / rest).to(first.dtype), round(cosine, 12)


def on_plane(
    loss: Callable[[Tensor], float],
    point: Float[Tensor, " dimension"],
    first: Float[Tensor, " dimension"],
    second: Float[Tensor, " dimension"],
    first_places: Sequence[float],
    second_places: Sequence[float],
) -> Float[np.ndarray, "first second"]:
    """Loss on the grid point + a · first + b · second; rows are places a, columns places b.

    Examples:
        >>> saddle = lambda p: float(p[0] ** 2 - p[1] ** 2)
        >>> on_plane(saddle, torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), [0.0, 2.0], [0.0, 1.0])
        array([[ 0., -1.],
               [ 4.,  3.]])
    """
    return np.array([[loss(point + a * first + b * second) for b in second_places] for a in first_places])


def descend(
    loss_and_gradient: LossAndGradient, start: Float[Tensor, " dimension"], rate: float, steps: int, every: int
) -> Iterator[Descent]:
    r"""Go downhill on one fixed loss, without any noise: Adam's update (Kingma and Ba 2015), no weight decay.

    Each entry moves by about ``rate`` per step at first, whatever its gradient: plain gradient descent would need
    thousands of steps where curvatures differ by a factor of as much. Deterministic: of the noise of training, the
    sampling of batches and dropout, nothing is left.

    Args:
        loss_and_gradient: the loss that is descended.
        start: where to start; left as it is.
        rate: learning rate, positive.
        steps: number of updates, at least 1.
        every: the points after multiples of this many updates, and the last, are returned.

    Yields:
        The points, the start first.

    Raises:
        ValueError: if a number is not positive.
        FloatingPointError: if the loss is not finite on the way, naming the step.

    Examples:
        In a bowl it comes to rest at the bottom:

        >>> bowl = lambda p: (float(p @ p) / 2, p.clone())
        >>> points = list(descend(bowl, torch.tensor([1.0, -1.0]), 0.1, 200, 200))
        >>> [point.step for point in points], points[-1].loss < 1e-4
        ([0, 200], True)
    """
    if not rate > 0 or steps < 1 or every < 1:
        raise ValueError(f"rate, steps and every: {rate}, {steps} and {every}; pass positive numbers")
    point = start.detach().clone()
    optimizer = torch.optim.Adam([point], lr=rate, betas=(0.9, 0.98), eps=1e-9)
    for step in range(steps + 1):
        loss, gradient = loss_and_gradient(point)
        if not np.isfinite(loss):
            raise FloatingPointError(f"descend: the loss is {loss} after {step} steps; lower the learning rate")
        if step % every == 0 or step == steps:
            yield Descent(step, loss, point.clone())
        point.grad = gradient
        optimizer.step()
