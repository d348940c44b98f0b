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


def split_heads(weight: Float[np.ndarray, "inner width"], heads: int) -> Float[np.ndarray, "heads head_width width"]:
    """Rows of a query, key or value weight by head, in float64.

    Args:
        weight: Shape (heads · head_width, width).
        heads: Number of heads.

    Raises:
        ValueError: If the heads do not divide the rows, or an entry is not finite.

    Examples:
        >>> split_heads(np.eye(4)[:, :3].copy(), 2).shape
        (2, 2, 3)
    """
    if heads < 1 or len(weight) % heads:
        raise ValueError(f"heads: {heads} do not divide the {len(weight)} rows of the weight; pass a divisor")
    if not np.isfinite(weight).all():
        raise ValueError("weight: an entry is not finite; drop this checkpoint")
    return weight.astype(np.float64).reshape(heads, -1, weight.shape[1])


def turn_pairs(
    vectors: Float[np.ndarray, "*batch head_width columns"], lags: Float[np.ndarray, " lags"], base: float
) -> Float[np.ndarray, "lags *batch head_width columns"]:
    r"""Rotary turn of interleaved pairs of rows by the angles of each lag.

    Rows 2j and 2j + 1 turn by $\Delta\, \mathrm{base}^{-2j/\mathrm{head\_width}}$ (Su et al. 2021, arXiv 2104.09864,
    eq. 15). A query at position t and a key at t − Δ, each turned by its position, have the same product as the query
    turned by Δ and the key left as it is.

    Args:
        vectors: Query weights (head_width × width) or queries as columns; head_width even.
        lags: Lags Δ, query position minus key position.
        base: Base of the rotary frequencies, positive.

    Returns:
        Shape (lags, ..., head_width, columns).

    Raises:
        ValueError: If head_width is odd.

    Examples:
        The first pair turns by one radian per position:

        >>> turn_pairs(np.array([[1.0], [0.0]]), np.array([np.pi / 2]), 10000.0).round(6)[0]
        array([[0.],
               [1.]])
    """
    head_width = vectors.shape[-2]
    if head_width % 2:
        raise ValueError(f"vectors: {head_width} rows are no pairs; rotary positions need an even head width")
    angle = lags[:, None] * base ** (-np.arange(0, head_width, 2) / head_width)
    cosine, sine = (
        np.repeat(f(angle), 2, axis=1).reshape(len(lags), *(1,) * (vectors.ndim - 2), head_width, 1)
        for f in (np.cos, np.sin)
    )
    quarter_turn = np.empty_like(vectors)
    quarter_turn[..., 0::2, :], quarter_turn[..., 1::2, :] = -vectors[..., 1::2, :], vectors[..., 0::2, :]
    return cosine * vectors + sine * quarter_turn


def query_key_products(
    query: Float[np.ndarray, "inner width"], key: Float[np.ndarray, "inner width"], heads: int
) -> Float[np.ndarray, "heads width width"]:
    r"""Per head $W_{QK} = W_q^\top W_k / \sqrt{\text{head width}}$, query index first.

    Args:
        query: Weight of the query projection, shape (heads · head_width, width).
        key: Weight of the key projection, same shape.
        heads: Number of heads.

    Returns:
        Shape (heads, width, width): x_queryᵀ W_QK x_key is the attention score at lag 0, without biases.

    Raises:
        ValueError: If the heads do not divide the rows, or an entry is not finite.

    Examples:
        >>> query_key_products(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]]), 1)[0]  # reads 2nd coordinate of keys
        array([[0., 2.],
               [0., 0.]])
    """
    by_head = split_heads(query, heads)
    return by_head.transpose(0, 2, 1) @ split_heads(key, heads) / np.sqrt(by_head.shape[1])


def query_key_products_at_lags(
    query: Float[np.ndarray, "inner width"],
    key: Float[np.ndarray, "inner width"],
    heads: int,
    lags: Float[np.ndarray, " lags"],
    base: float,
) -> Float[np.ndarray, "lags heads width width"]:
    r"""Per lag Δ and head $W_q^\top R_{-\Delta} W_k / \sqrt{\text{head width}}$, with the rotary turn R between them.

    Args:
        query: Weight of the query projection, shape (heads · head_width, width), head_width even.
        key: Weight of the key projection, same shape.
        heads: Number of heads.
        lags: Query position minus key position.
        base: Base of the rotary frequencies.

    Returns:
        Shape (lags, heads, width, width); at lag 0 the same as :func:`query_key_products`.

    Raises:
        ValueError: As :func:`query_key_products` and :func:`turn_pairs`.

    Examples:
        >>> identity = np.eye(2)
        >>> query_key_products_at_lags(identity, identity, 1, np.array([np.pi / 2]), 10000.0)[0, 0].round(4)
        array([[ 0.    ,  0.7071],
               [-0.7071,  0.    ]])
    """
    by_head = split_heads(query, heads)
    turned = turn_pairs(by_head, lags, base)
    return turned.swapaxes(-1, -2) @ split_heads(key, heads) / np.sqrt(by_head.shape[1])


def output_value_products(
    output: Float[np.ndarray, "width inner"], value: Float[np.ndarray, "inner width"], heads: int
) -> Float[np.ndarray, "heads width width"]:
    """Per head W_OV = W_o W_v: what the head writes (rows) of what it reads at the token attended to (columns).

    Args:
        output: Weight of the output projection, shape (width, heads · head_width).
        value: Weight of the value projection, shape (heads · head_width, width).
        heads: Number of heads.

    Returns:
        Shape (heads, width, width).

    Raises:
        ValueError: If the heads do not divide the rows, or an entry is not finite.

    Examples:
        >>> output_value_products(np.array([[0.0], [3.0]]), np.array([[1.0, 0.0]]), 1)[0]  # writes 2nd coordinate
        array([[0., 0.],
               [3., 0.]])
    """
    return split_heads(np.ascontiguousarray(output.T), heads).transpose(0, 2, 1) @ split_heads(value, heads)


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
        ranks: Ranks r, each from 1 to width; above the rank of a product the singular vectors are arbitrary.

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
        rotations: Orthogonal matrices, such as ``nulls.haar_subspaces(width, width, draws, generator)``.

    Examples:
        >>> from learning_geometry.geometry.nulls import haar_subspaces
        >>> rotations = haar_subspaces(6, 6, 3, np.random.default_rng(0))
        >>> turned = randomly_turned_products(np.eye(6), np.diag(np.arange(6.0)), rotations)
        >>> np.allclose(np.linalg.svd(turned, compute_uv=False), np.arange(6.0)[::-1])
        True
    """
    return query_key @ rotations @ output_value
