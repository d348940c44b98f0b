r"""Why attention outputs are low-dimensional: what W_O makes of z, and what other W_O would make of it.

z is the concatenation of the heads' outputs (inner = heads · head_width numbers), W_O (width × inner) maps it to the
attention output. Everything follows from the covariance Σ of z: the output's is $W Σ W^\top$.

**Gauge.** The rank of z is not a property of the model: with any invertible $A_h$ for every head, $z_h \to A_h z_h$
(through W_V) and $W_h \to W_h A_h^{-1}$ leave the output as it is and change the ranks of z and the singular values of
W_O at will. :func:`whitened_within_heads` takes $A_h = Σ_{hh}^{-1/2}$: each head's z gets unit covariance, so that the
rank of z is lowered by correlation between heads alone, and all numbers here become invariant. Whitening all of z at
once would be invariant too, but z would then be isotropic by construction and the singular values of W_O those of the
output: nothing would be left to explain.

**Counterfactuals**, each of which undoes one cause:

- random reading: W_O with the same singular values and left vectors, and Haar-random right vectors (no alignment of
  what W_O reads with what z varies along);
- random writing: each head's block with its output turned by a random rotation of its own (no overlap between the
  heads' output subspaces beyond chance, each head's own output spectrum kept). Where inner = width, chance overlap
  lowers the rank much already;
- orthogonal writing: each head's block turned so that no two heads write along a common direction (no overlap at all);
- white input: z without correlation between heads (what is left is made by W_O alone).

The causes are not exclusive, so their shares of the drop need not add up to 1.

**Null.** Nearly any W_O lowers the rank of a z that is white within heads, since its singular values are not equal.
What the W_O at hand does beyond that shows against one of the same shape with independent Gaussian entries, in this
gauge.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64
from scipy.linalg import block_diag

from learning_geometry.geometry.activation_ranks import VARIANCE_SHARE, Ranks, ranks
from learning_geometry.geometry.moments import principal_variances
from learning_geometry.geometry.nulls import haar_subspace
from learning_geometry.geometry.rounding import is_rounding

SMALLEST_DROP = 1e-9
"""A rank that drops by less, from rounding, does not drop."""


class WhitenedHeads(NamedTuple):
    """Covariance of z and W_O in the gauge in which the z of each head is white; the output is the same."""

    covariance: Float64[np.ndarray, "inner inner"]
    weight: Float64[np.ndarray, "width inner"]


class ProjectionRanks(NamedTuple):
    """Ranks in shares of the number of directions that there can be: ``inner`` of z, min(inner, width) of the output.

    Attributes:
        z: of z, white within heads.
        output: of the attention output.
        white_input: of the output if z had no correlation between heads.
        random_reading: of the output of a W_O that reads random directions; mean over draws.
        random_writing: of the output of heads that write in random directions; mean over draws.
        orthogonal_writing: of the output of heads that write in orthogonal subspaces; NaN if inner exceeds the width,
            where there is no room for them.
        random_weight: of the output of a W_O of independent Gaussian entries, in the gauge of white heads; mean over
            draws.
    """

    z: Ranks
    output: Ranks
    white_input: Ranks
    random_reading: Ranks
    random_writing: Ranks
    orthogonal_writing: Ranks
    random_weight: Ranks


def whitened_within_heads(
    covariance: Float[np.ndarray, "inner inner"], weight: Float[np.ndarray, "width inner"], heads: int
) -> WhitenedHeads:
    r"""Take the gauge in which the z of each head has unit covariance.

    Directions in which a head's z does not vary, to rounding, are left out: their variance stays 0, and so do the
    columns of W_O that belong to them.

    Args:
        covariance: Σ of z.
        weight: W_O of ``torch.nn.Linear`` (y = W z), columns by head.
        heads: number of heads.

    Raises:
        ValueError: if the heads do not divide ``inner``, or an entry is not finite.

    Examples:
        Two heads of one number each: variances become 1, the correlation of .5 between them stays.

        >>> white = whitened_within_heads(np.array([[4.0, 1.0], [1.0, 1.0]]), np.ones((1, 2)), 2)
        >>> white.covariance
        array([[1. , 0.5],
               [0.5, 1. ]])
        >>> white.weight
        array([[2., 1.]])
    """
    blocks = _head_slices(weight, heads)
    if not np.isfinite(covariance).all():
        raise ValueError("covariance: an entry is not finite; leave out the vectors that are not")
    exact = covariance.astype(np.float64)
    inner = len(exact)
    root, inverse = np.zeros((inner, inner)), np.zeros((inner, inner))
    for block in blocks:
        values, vectors = np.linalg.eigh(exact[block, block])
        varies = values > len(values) * np.finfo(np.float64).eps * values[-1]
        vectors, deviations = vectors[:, varies], np.sqrt(values[varies])
        root[block, block] = (vectors * deviations) @ vectors.T
        inverse[block, block] = (vectors / deviations) @ vectors.T
    whitened = weight.astype(np.float64) @ root
    scale = np.outer(np.linalg.norm(weight, axis=1), np.linalg.norm(root, axis=0))
    whitened[is_rounding(whitened, scale, inner)] = 0.0  # of a weight that does not read what varies
    return WhitenedHeads(inverse @ exact @ inverse, whitened)


def random_reading(
    weight: Float[np.ndarray, "width inner"], generator: np.random.Generator
) -> Float64[np.ndarray, "width inner"]:
    """W_O with the same singular values and left singular vectors, and Haar-random right ones.

    Raises:
        ValueError: if an entry is not finite.

    Examples:
        >>> reading = random_reading(np.diag([3.0, 1.0]), np.random.default_rng(0))
        >>> np.linalg.norm(reading, axis=1)
        array([3., 1.])
    """
    _check_weight(weight)
    left, values, _ = np.linalg.svd(weight.astype(np.float64), full_matrices=False)
    return _reading_randomly(left * values, weight.shape[1], generator)


def random_writing(
    weight: Float[np.ndarray, "width inner"], heads: int, generator: np.random.Generator
) -> Float64[np.ndarray, "width inner"]:
    """W_O with the output of each head turned by a Haar-random rotation of its own.

    Only the turned left singular vectors of a block are drawn, a uniformly random basis of as many vectors.

    Args:
        weight: W_O, columns by head.
        heads: number of heads.
        generator: source of randomness.

    Raises:
        ValueError: if the heads do not divide ``inner``, or an entry is not finite.

    Examples:
        Heads of one number each: columns keep their lengths.

        >>> np.linalg.norm(random_writing(np.array([[3.0, 1.0], [4.0, 0.0]]), 2, np.random.default_rng(0)), axis=0)
        array([5., 1.])
    """
    return _writing_randomly(_without_left_vectors(weight, heads), len(weight), generator)


def projection_ranks(
    covariance: Float[np.ndarray, "inner inner"],
    weight: Float[np.ndarray, "width inner"],
    heads: int,
    draws: int,
    generator: np.random.Generator,
    share: float = VARIANCE_SHARE,
) -> ProjectionRanks:
    """Ranks of z, of the attention output, and of what the counterfactual W_O and random ones make of the same z.

    Args:
        covariance: Σ of z, from any gauge; of at least 10 · inner vectors.
        weight: W_O, columns by head.
        heads: number of heads.
        draws: number of random W_O of each kind; at a width of some hundreds they hardly differ.
        generator: source of randomness.
        share: share of the variance that the directions hold.

    Raises:
        ValueError: if ``draws`` is below 1, the heads do not divide ``inner``, or an entry is not finite.

    Examples:
        Two heads that write the same direction: that alone halves the rank of the output.

        >>> measured = projection_ranks(np.eye(2), np.array([[1.0, 1.0], [0.0, 0.0]]), 2, 50, np.random.default_rng(0))
        >>> measured.z.directions, measured.output.directions, measured.random_reading.directions
        (1.0, 0.5, 0.5)
        >>> measured.random_writing.directions > 0.8, measured.orthogonal_writing.directions
        (True, 1.0)
    """
    if draws < 1:
        raise ValueError(f"draws: {draws} random projections were asked for; pass at least 1")
    white = whitened_within_heads(covariance, weight, heads)
    width, inner = weight.shape
    reachable = min(width, inner)

    def of_output(other: np.ndarray, of_input: np.ndarray) -> Ranks:
        scale = float(np.linalg.norm(other) ** 2 * np.linalg.norm(of_input))
        return ranks(principal_variances(other @ of_input @ other.T, scale)[:reachable], share)

    # as random_reading and random_writing, with what all draws share computed once; left vectors change no rank
    values = np.linalg.svd(white.weight, compute_uv=False)
    written = _without_left_vectors(white.weight, heads)
    readings = [of_output(_reading_randomly(np.diag(values), inner, generator), white.covariance) for _ in range(draws)]
    writings = [of_output(_writing_randomly(written, width, generator), white.covariance) for _ in range(draws)]
    weights = [of_output(generator.standard_normal(weight.shape), white.covariance) for _ in range(draws)]
    nowhere = Ranks(np.nan, np.nan, np.nan)
    return ProjectionRanks(
        ranks(principal_variances(white.covariance), share),
        of_output(white.weight, white.covariance),
        ranks(values**2, share),
        Ranks(*np.mean(readings, axis=0).tolist()),
        Ranks(*np.mean(writings, axis=0).tolist()),
        of_output(block_diag(*written), white.covariance) if inner <= width else nowhere,
        Ranks(*np.mean(weights, axis=0).tolist()),
    )


def share_of_drop(measured: ProjectionRanks, counterfactual: Ranks) -> Ranks:
    """Share of the drop from z to the output that a counterfactual undoes.

    Args:
        measured: of :func:`projection_ranks`.
        counterfactual: one of its ranks.

    Returns:
        For each kind of rank (counterfactual − output) / (z − output): 0 if it changes nothing, 1 if the rank is that
        of z, negative if it is lower still. NaN where the rank does not drop.

    Examples:
        >>> whole, half = Ranks(1.0, 1.0, 1.0), Ranks(0.5, 0.5, 0.5)
        >>> share_of_drop(ProjectionRanks(whole, *[half] * 6), Ranks(0.75, 0.5, 1.0))
        Ranks(directions=0.5, effective_rank=0.0, effective_rank_of_variances=1.0)
    """
    shares = [
        (instead - after) / (before - after) if before - after > SMALLEST_DROP else np.nan
        for before, after, instead in zip(measured.z, measured.output, counterfactual, strict=True)
    ]
    return Ranks(*shares)


def _reading_randomly(
    written: Float64[np.ndarray, "width rank"], inner: int, generator: np.random.Generator
) -> Float64[np.ndarray, "width inner"]:
    """Singular values with left vectors, times random right vectors."""
    return written @ haar_subspace(inner, written.shape[1], generator).T


def _without_left_vectors(weight: np.ndarray, heads: int) -> list[Float64[np.ndarray, "rank head_width"]]:
    """Singular values times right vectors of each head's block: what it writes, in coordinates of where it does."""
    written = []
    for block in _head_slices(weight, heads):
        _, values, right = np.linalg.svd(weight[:, block].astype(np.float64), full_matrices=False)
        written.append(values[:, None] * right)
    return written


def _writing_randomly(
    written: list[Float64[np.ndarray, "rank head_width"]], width: int, generator: np.random.Generator
) -> Float64[np.ndarray, "width inner"]:
    return np.concatenate([haar_subspace(width, len(head), generator) @ head for head in written], axis=1)


def _head_slices(weight: np.ndarray, heads: int) -> list[slice]:
    _check_weight(weight)
    inner = weight.shape[1]
    if heads < 1 or inner % heads:
        raise ValueError(f"heads: {heads} do not divide the {inner} columns of the weight; pass a divisor")
    width = inner // heads
    return [slice(start, start + width) for start in range(0, inner, width)]


def _check_weight(weight: np.ndarray) -> None:
    if not np.isfinite(weight).all():
        raise ValueError("weight: an entry is not finite; drop this checkpoint")
