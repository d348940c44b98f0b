"""What the heads of attention read and write, as products of their weights.

Weights are those of ``torch.nn.Linear`` (y = W x); what is made of these products stands in ``composition``.
"""

import numpy as np
from jaxtyping import Float


def split_heads(weight: Float[np.ndarray, "inner width"], heads: int) -> Float[np.ndarray, "heads head_width width"]:
    """Rows of a query, key or value weight by head, in float64.

    Args:
        weight: Shape (heads · head_width, width).
        heads: number of heads.

    Raises:
        ValueError: if the heads do not divide the rows, or an entry is not finite.

    Examples:
        >>> split_heads(np.eye(4)[:, :3].copy(), 2).shape
        (2, 2, 3)
    """
    if heads < 1 or len(weight) % heads:
        raise ValueError(f"heads: {heads} do not divide the {len(weight)} rows of the weight; pass a divisor")
    if not np.isfinite(weight).all():
        raise ValueError("weight: an entry is not finite; drop this checkpoint")
    return weight.astype(np.float64).reshape(heads, -1, weight.shape[1])


def split_shared_heads(
    weight: Float[np.ndarray, "inner width"], heads: int, head_width: int
) -> Float[np.ndarray, "heads head_width width"]:
    """Rows of a key or value weight by query head, in float64: heads that share one have a copy each.

    Query head h reads key and value head h // (heads / their number) (Ainslie et al. 2023, arXiv 2305.13245).

    Args:
        weight: Shape (key and value heads · head_width, width).
        heads: number of query heads.
        head_width: width of each.

    Raises:
        ValueError: if the rows are no whole heads, their number does not divide that of the query heads, or an entry
            is not finite.

    Examples:
        >>> split_shared_heads(np.array([[1.0], [2.0]]), 4, 1).ravel()
        array([1., 1., 2., 2.])
    """
    shared, rest = divmod(len(weight), head_width)
    if rest or not shared or heads % shared:
        raise ValueError(
            f"weight: {len(weight)} rows are no heads of width {head_width} whose number divides {heads} query heads; "
            "pass the query, key and value weights of one layer, and its number of query heads"
        )
    return split_heads(weight, shared).repeat(heads // shared, 0)


def turn_pairs(
    vectors: Float[np.ndarray, "*batch head_width columns"],
    lags: Float[np.ndarray, " lags"],
    base: float,
    rotary_width: int | None = None,
) -> Float[np.ndarray, "lags *batch head_width columns"]:
    r"""Rotary turn of interleaved pairs of rows by the angles of each lag.

    Rows 2j and 2j + 1 turn by $\Delta\, \mathrm{base}^{-2j/\mathrm{rotary\_width}}$ (Su et al. 2021, arXiv
    2104.09864, eq. 15); those from the rotary width on stay. A query at position t and a key at t − Δ, each turned by
    its position, have the same product as the query turned by Δ and the key left as it is.

    Args:
        vectors: query weights (head_width × width) or queries as columns; head_width even.
        lags: lags Δ, query position minus key position.
        base: base of the rotary frequencies, positive.
        rotary_width: number of rows that turn, the first ones; None: all.

    Returns:
        Shape (lags, ..., head_width, columns).

    Raises:
        ValueError: if head_width is odd, or rotary_width odd or above it.

    Examples:
        The first pair turns by one radian per position:

        >>> turn_pairs(np.array([[1.0], [0.0]]), np.array([np.pi / 2]), 10000.0).round(6)[0]
        array([[0.],
               [1.]])
    """
    head_width = vectors.shape[-2]
    if head_width % 2:
        raise ValueError(f"vectors: {head_width} rows are no pairs; rotary positions need an even head width")
    turned = head_width if rotary_width is None else rotary_width
    if turned % 2 or not 0 < turned <= head_width:
        raise ValueError(f"rotary_width: {turned} is no even number up to the head width {head_width}; pass one")
    frequency = np.zeros(head_width // 2)
    frequency[: turned // 2] = base ** (-np.arange(0, turned, 2) / turned)
    angle = lags[:, None] * frequency
    cosine, sine = (
        np.repeat(f(angle), 2, axis=1).reshape(len(lags), *(1,) * (vectors.ndim - 2), head_width, 1)
        for f in (np.cos, np.sin)
    )
    quarter_turn = np.empty_like(vectors)
    quarter_turn[..., 0::2, :], quarter_turn[..., 1::2, :] = -vectors[..., 1::2, :], vectors[..., 0::2, :]
    return cosine * vectors + sine * quarter_turn


def query_key_products(
    query: Float[np.ndarray, "inner width"], key: Float[np.ndarray, "shared width"], heads: int
) -> Float[np.ndarray, "heads width width"]:
    r"""Per head $W_{QK} = W_q^\top W_k / \sqrt{\text{head width}}$, query index first.

    Args:
        query: weight of the query projection, shape (heads · head_width, width).
        key: weight of the key projection, same shape, or of fewer heads that the query heads share.
        heads: number of query heads.

    Returns:
        Shape (heads, width, width): x_queryᵀ W_QK x_key is the attention score at lag 0, without biases.

    Raises:
        ValueError: if the heads do not divide the rows, the rows of the key are no heads that they can share, or an
            entry is not finite.

    Examples:
        >>> query_key_products(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]]), 1)[0]  # reads 2nd coordinate of keys
        array([[0., 2.],
               [0., 0.]])
    """
    by_head = split_heads(query, heads)
    return by_head.transpose(0, 2, 1) @ split_shared_heads(key, heads, by_head.shape[1]) / np.sqrt(by_head.shape[1])


def query_key_products_at_lags(
    query: Float[np.ndarray, "inner width"],
    key: Float[np.ndarray, "shared width"],
    heads: int,
    lags: Float[np.ndarray, " lags"],
    base: float,
    rotary_width: int | None = None,
) -> Float[np.ndarray, "lags heads width width"]:
    r"""Per lag Δ and head $W_q^\top R_{-\Delta} W_k / \sqrt{\text{head width}}$, with the rotary turn R between them.

    Args:
        query: weight of the query projection, shape (heads · head_width, width), head_width even.
        key: weight of the key projection, same shape, or of fewer heads that the query heads share.
        heads: number of query heads.
        lags: query position minus key position.
        base: base of the rotary frequencies.
        rotary_width: how many numbers of a head turn; None: all.

    Returns:
        Shape (lags, heads, width, width); at lag 0 the same as :func:`query_key_products`.

    Raises:
        ValueError: as :func:`query_key_products` and :func:`turn_pairs`.

    Examples:
        >>> identity = np.eye(2)
        >>> query_key_products_at_lags(identity, identity, 1, np.array([np.pi / 2]), 10000.0)[0, 0].round(4)
        array([[ 0.    ,  0.7071],
               [-0.7071,  0.    ]])
    """
    by_head = split_heads(query, heads)
    turned = turn_pairs(by_head, lags, base, rotary_width)
    shared = split_shared_heads(key, heads, by_head.shape[1])
    return turned.swapaxes(-1, -2) @ shared / np.sqrt(by_head.shape[1])


def output_value_products(
    output: Float[np.ndarray, "width inner"], value: Float[np.ndarray, "shared width"], heads: int
) -> Float[np.ndarray, "heads width width"]:
    """Per head W_OV = W_o W_v: what the head writes (rows) of what it reads at the token attended to (columns).

    Args:
        output: weight of the output projection, shape (width, heads · head_width).
        value: weight of the value projection, shape (heads · head_width, width), or of fewer heads that are shared.
        heads: number of query heads.

    Returns:
        Shape (heads, width, width).

    Raises:
        ValueError: as :func:`query_key_products`.

    Examples:
        >>> output_value_products(np.array([[0.0], [3.0]]), np.array([[1.0, 0.0]]), 1)[0]  # writes 2nd coordinate
        array([[0., 0.],
               [3., 0.]])
    """
    by_head = split_heads(np.ascontiguousarray(output.T), heads)
    return by_head.transpose(0, 2, 1) @ split_shared_heads(value, heads, by_head.shape[1])
