"""How one attention layer writes what a later one reads: products of head matrices, and how well they fit.

Weights are those of ``torch.nn.Linear`` (y = W x). All products act on the residual stream, width × width, per head:

- W_QK = W_qᵀ W_k / √head_width, query index first: its left singular vectors are the query side, its **right** ones the
  key side;
- W_OV = W_o W_v: its **left** singular vectors are what the head writes, its right ones what it copies from;
- M = W_QK W_OV of a later W_QK and an earlier W_OV: how a token at the query matches the token that the earlier head
  copied to the key (Elhage et al. 2021, "A mathematical framework for transformer circuits", K-composition).

Biases are left out: they act on no direction of the residual stream, or on one side only.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from learning_geometry.geometry.rounding import is_rounding


def composition_z_score(product: Float[np.ndarray, "*draws width width"]) -> Float[np.ndarray, "*draws"]:
    r"""How far the diagonal of M stands out: (mean of diagonal − mean of all entries) / standard deviation of all.

    The largest possible value is $\sqrt{\text{width} - 1}$, taken by every a·1 + b with a > 0 (Cauchy-Schwarz); of
    independent entries the mean is 0 and the standard deviation about $1 / \sqrt{\text{width}}$.

    Args:
        product: M = W_QK W_OV, with any number of leading axes.

    Returns:
        One number per matrix; NaN where all entries are equal.

    Examples:
        >>> composition_z_score(np.eye(5))
        array(2.)
    """
    with np.errstate(invalid="ignore"):
        diagonal = np.diagonal(product, axis1=-2, axis2=-1).mean(-1)
        spread = product.std((-2, -1))
        constant = is_rounding(spread, np.abs(product).max((-2, -1)), product.shape[-1] ** 2)
        return np.asarray((diagonal - product.mean((-2, -1))) / np.where(constant, np.nan, spread))


def token_mismatch(
    embedding: Float[np.ndarray, "tokens width"], product: Float[np.ndarray, "*draws width width"]
) -> Float[np.ndarray, "*draws"]:
    """Share of tokens that match another token best: rows of W_E M W_Eᵀ whose largest entry is off the diagonal.

    By more than rounding: a token that matches itself as well as another one is no mismatch.

    Of scores that know nothing of the token it is 1 − 1/tokens.

    Args:
        embedding: W_E, shape (tokens, width).
        product: M = W_QK W_OV, with any number of leading axes.

    Returns:
        One fraction per matrix.

    Examples:
        Each token matches itself, or the next one:

        >>> token_mismatch(np.eye(4), np.stack([np.eye(4), np.roll(np.eye(4), 1, axis=1)]))
        array([0., 1.])
    """
    matches = embedding @ product @ embedding.T
    lengths = np.linalg.norm(embedding, axis=1)
    scale = lengths * lengths.max() * np.linalg.norm(product, axis=(-2, -1))[..., None]
    lead = matches.max(-1) - np.diagonal(matches, axis1=-2, axis2=-1)
    return np.asarray((~is_rounding(lead, scale, embedding.shape[1])).mean(-1))


def subspace_match(
    query_key: Float[np.ndarray, "width width"], output_value: Float[np.ndarray, "width width"], ranks: Sequence[int]
) -> list[Float[np.ndarray, " _"]]:
    """Principal cosines between what a head's keys read most and what an earlier head writes most.

    The top-r right singular subspace of W_QK against the top-r left one of W_OV. Chance:
    ``nulls.principal_cosines_null``.

    Args:
        query_key: W_QK of the later head.
        output_value: W_OV of the earlier head.
        ranks: ranks r, each from 1 to width; above the rank of a product the singular vectors are arbitrary.

    Returns:
        For each rank its cosines in [0, 1], descending.

    Examples:
        Keys read the first coordinate, and the earlier head writes it:

        >>> reads, writes = np.zeros((2, 3, 3))
        >>> reads[2, 0], writes[0, 1] = 1.0, 1.0
        >>> subspace_match(reads, writes, [1])
        [array([1.])]
    """
    read = np.linalg.svd(query_key)[2]
    written = np.linalg.svd(output_value)[0]
    overlap = read @ written
    return [np.minimum(np.linalg.svd(overlap[:rank, :rank], compute_uv=False), 1.0) for rank in ranks]


def randomly_turned_products(
    query_key: Float[np.ndarray, "width width"],
    output_value: Float[np.ndarray, "width width"],
    rotations: Float[np.ndarray, "draws width width"],
) -> Float[np.ndarray, "draws width width"]:
    """Null of M: W_QK Q W_OV with Q a random rotation, so that both spectra stay and what fits is chance.

    Args:
        query_key: W_QK of the later head.
        output_value: W_OV of the earlier head.
        rotations: orthogonal matrices, such as ``nulls.haar_subspaces(width, width, draws, generator)``.

    Examples:
        >>> from learning_geometry.geometry.nulls import haar_subspaces
        >>> rotations = haar_subspaces(6, 6, 3, np.random.default_rng(0))
        >>> turned = randomly_turned_products(np.eye(6), np.diag(np.arange(6.0)), rotations)
        >>> np.allclose(np.linalg.svd(turned, compute_uv=False), np.arange(6.0)[::-1])
        True
    """
    return query_key @ rotations @ output_value
