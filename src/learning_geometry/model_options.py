"""What the options of the transformer mean together: sizes that follow from others, and what does not go together.

All functions take the settings of a model and do with those of other models, which may lack any of them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Settings = Mapping[str, Any]

LARGEST_DIVISOR = 1000
"""Up to which numbers of heads are proposed."""

NORM_DEFAULTS = {"norm_kind": "layer_norm", "norm_bias": True, "norm_epsilon": 1e-5}
"""What says of norms how they are, and what it says where nothing was asked for."""


def head_width(model: Settings) -> int:
    """Return the width of a head.

    >>> head_width({"width": 8, "heads": 2}), head_width({"width": 8, "heads": 2, "head_width": 6})
    (4, 6)
    """
    return int(model.get("head_width") or model["width"] // model.get("heads", 1))


def head_rank(model: Settings) -> int:
    """Return the largest rank of what a head reads and writes: the head width, or the model's if that is less.

    >>> head_rank({"width": 8, "heads": 2, "head_width": 10})
    8
    """
    return min(head_width(model), int(model["width"]))


def key_rank(model: Settings) -> int:
    """Return the largest rank of what the keys of a layer read: that of all of them, or the width if that is less.

    >>> key_rank({"width": 8, "heads": 4}), key_rank({"width": 8, "heads": 4, "key_value_heads": 2})
    (8, 4)
    """
    return min(attention_widths(model)[1], int(model["width"]))


def key_value_heads(model: Settings) -> int:
    """Return the number of heads of keys and values, each shared by as many query heads.

    >>> key_value_heads({"heads": 4}), key_value_heads({"heads": 4, "key_value_heads": 2})
    (4, 2)
    """
    return int(model.get("key_value_heads") or model.get("heads", 1))


def attention_widths(model: Settings) -> tuple[int, int]:
    """Return the width of all queries of a position, and that of all its keys (or values).

    >>> attention_widths({"width": 8, "heads": 4, "key_value_heads": 1})
    (8, 2)
    """
    return int(model.get("heads", 1)) * head_width(model), key_value_heads(model) * head_width(model)


def layer_weights(model: Settings) -> int:
    """Return the number of entries of a layer's weight matrices.

    >>> layer_weights({"width": 8, "heads": 2, "mlp_width": 10}) == 4 * 8**2 + 2 * 8 * 10
    True
    """
    queries, keys = attention_widths(model)
    matrices = 3 if model.get("gated_mlp") else 2
    return int(model["width"] * (2 * queries + 2 * keys + matrices * model["mlp_width"]))


def has_bias(model: Settings, layers: str) -> bool:
    """Return whether linear layers have a bias: ``query_key_value``, ``output``, ``mlp`` or ``readout``.

    >>> has_bias({"bias": ["readout"]}, "readout"), has_bias({"bias": ["readout"]}, "mlp"), has_bias({}, "mlp")
    (True, False, True)
    """
    bias = model.get("bias", True)
    return layers in bias if isinstance(bias, list) else bool(bias)


def parameter_shapes(model: Settings, vocabulary: int, outputs: int, length: int) -> dict[str, tuple[int, ...]]:
    """Return the parameters of a transformer by name, with their shapes, from the embedding to the read-out.

    Weights are as those of ``torch.nn.Linear``, outputs first.

    Args:
        model: settings of the transformer, defaults filled in.
        vocabulary: tokens that there are.
        outputs: of the read-out.
        length: positions; only a learned embedding of positions depends on it.

    >>> settings = {"width": 4, "heads": 1, "layers": 0, "mlp_width": 0, "norm": "none", "tied_readout": True}
    >>> parameter_shapes(settings | {"positions": "none", "final_norm": False}, 7, 7, 5)
    {'embedding.weight': (7, 4), 'readout.bias': (7,)}
    """
    width, mlp_width = model["width"], model["mlp_width"]
    queries, keys = attention_widths(model)
    norms = ("weight", "bias") if model.get("norm_bias", True) and model.get("norm_kind") != "rms_norm" else ("weight",)
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary, width)}

    def linear(group: str, name: str, rows: int, columns: int, weight: bool = True) -> None:
        if weight:
            shapes[f"{name}.weight"] = (rows, columns)
        if has_bias(model, group):
            shapes[f"{name}.bias"] = (rows,)

    def norm(name: str) -> None:
        shapes.update({f"{name}.{kind}": (width,) for kind in norms})

    if model["positions"] == "learned":
        shapes["positions.weight"] = (length, width)
    for layer in range(model["layers"]):
        at = f"layers.{layer}"
        if model["norm"] != "none":
            norm(f"{at}.attention_norm")
        for role, rows in (("query", queries), ("key", keys), ("value", keys)):
            linear("query_key_value", f"{at}.attention.{role}", rows, width)
        linear("output", f"{at}.attention.output", width, queries)
        if mlp_width:
            if model["norm"] != "none":
                norm(f"{at}.mlp_norm")
            for role in ("gate", "up") if model.get("gated_mlp") else ("up",):
                linear("mlp", f"{at}.mlp.{role}", mlp_width, width)
            linear("mlp", f"{at}.mlp.down", width, mlp_width)
    if model["final_norm"]:
        norm("final_norm")
    linear("readout", "readout", outputs, width, weight=not model["tied_readout"])
    return shapes


def sizes_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int]:
    """Return how many tokens, outputs and positions a model has, from the shapes of its parameters.

    Args:
        shapes: by the names of the workflow's transformer.

    Raises:
        ValueError: there is no embedding.
    """
    if "embedding.weight" not in shapes:
        raise ValueError("no embedding.weight among the parameters, which tells the vocabulary; add it to the map")
    vocabulary = shapes["embedding.weight"][0]
    outputs = shapes.get("readout.weight", (vocabulary,))[0]
    return vocabulary, outputs, shapes.get("positions.weight", (1,))[0]


def problems(model: Settings) -> Iterator[tuple[str, str]]:
    """Yield the keys of options that do not go together, each with what is wrong and what to do."""
    yield from _heads(model)
    yield from _rotary(model)
    yield from _norms(model)
    yield from _sublayers(model)


def _heads(model: Settings) -> Iterator[tuple[str, str]]:
    width, heads, given = model.get("width", 1), model.get("heads", 1), model.get("head_width")
    shared = model.get("key_value_heads")
    if shared is not None and heads % shared:
        yield "key_value_heads", f"{shared} does not divide the {heads} heads; use one of {_divisors(heads)}, or null"
    if given is None and width % heads:
        yield "heads", f"{heads} does not divide the width {width}; use one of {_divisors(width)}"
    elif model.get("positions") == "rotary" and head_width({"width": width} | dict(model)) % 2:
        if given is None:
            yield (
                "heads",
                f"rotary positions need an even head width, and {width} / {heads} is {width // heads}; "
                "change heads or width, or set positions to learned, alibi or none",
            )
        else:
            yield (
                "head_width",
                f"rotary positions need an even head width, and it is {given}; change it, or set positions to learned, "
                "alibi or none",
            )


def _rotary(model: Settings) -> Iterator[tuple[str, str]]:
    turned = model.get("rotary_width")
    if turned is None:
        return
    most = head_width({"width": 1} | dict(model))
    if model.get("positions") != "rotary":
        yield "rotary_width", f"positions: {model.get('positions')} turns nothing; set it to null"
    elif turned % 2:
        yield "rotary_width", f"{turned} is odd, and pairs are turned; use an even number"
    elif turned > most:
        yield (
            "rotary_width",
            f"{turned} is above the head width, {most}; lower it, or set it to null for the whole head",
        )


def _norms(model: Settings) -> Iterator[tuple[str, str]]:
    if model.get("norm", "none") != "none" or model.get("final_norm"):
        return
    for key, default in NORM_DEFAULTS.items():
        if model.get(key, default) != default:
            yield key, "the model has no norms; leave it out, or set norm to pre or post"


def _sublayers(model: Settings) -> Iterator[tuple[str, str]]:
    bias = model.get("bias")
    if not model.get("mlp_width"):
        for key in ("gated_mlp", "parallel_residual"):
            if model.get(key):
                yield key, "the model has no MLP; set mlp_width, or this to false"
        if isinstance(bias, list) and "mlp" in bias:
            yield "bias", "mlp is named, and the model has no MLP; set mlp_width, or remove it"
    if model.get("parallel_residual") and model.get("norm") == "post":
        yield (
            "parallel_residual",
            "norm: post norms the stream between attention and MLP, which are side by side; set norm to pre or none, "
            "or this to false",
        )


def _divisors(number: int) -> str:
    most = min(number, LARGEST_DIVISOR)
    return ", ".join(str(divisor) for divisor in range(1, most + 1) if number % divisor == 0)
