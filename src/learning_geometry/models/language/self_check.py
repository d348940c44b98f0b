"""Whether a loaded language model computes what the names of its activations say.

A family's description says where attention, MLP and norms are, and what stands between W_O and the stream. With another
architecture behind it, everything would run and every number be wrong. So a few tokens are read at every load.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from learning_geometry.models.language import MLP_PARTS, PARTS, LanguageModel

TOLERANCE, ROUNDINGS = 1e-4, 4
"""Largest difference between two sides of an identity, relative to the norm of what is added; float32 has 1e-7. Models
of fewer bits may differ by as many times their rounding: a norm or factor that is passed over changes more."""
POSITIONS = 20
"""Tokens that are read: some so far from the first that rotary positions turn their queries and keys."""

Activations = dict[str, Float[Tensor, "batch position _"]]


class Identity(NamedTuple):
    """Two things that should be the same."""

    name: str
    left: Float[Tensor, "batch position _"]
    right: Float[Tensor, "batch position _"]
    terms: list[Tensor]
    """What is compared or added: the largest of these at a position is what a difference there is relative to."""


@torch.no_grad()
def check_identities(model: LanguageModel, module: Any = None, tolerance: float | None = None) -> float:
    """Check on a few tokens that activations and weights are what their names say.

    In every layer, at every position:

    - residual_pre + attention.output = residual_mid, and residual_mid + mlp.output = residual_post;
    - residual_post = residual_pre of the next layer;
    - z W_Oᵀ + b = attention.projected, with W_O and b of ``layer_weights``;
    - attention.projected, or the norm or the multiple of it that stands between, = attention.output; and a norm
      multiplies by ``output_norm`` of ``layer_weights``;
    - z of one token alone = W_V, of ``layer_weights``, of what attention reads of residual_pre, but for a constant:
      between two tokens the difference is compared. Not where values are clipped;
    - mlp.input = the norm before the MLP of residual_mid, or of residual_pre in a parallel layer; or these themselves;
    - residual_pre and ``final`` = ``output_hidden_states`` of the model itself, without hooks;
    - the logits with hooks = those without.

    Args:
        model: the model.
        module: the Hugging Face model behind it; None: the identities that need it are left out.
        tolerance: largest difference at a position that is allowed, relative to the largest norm there of what is
            compared or added; None: ``TOLERANCE``, or, of models in fewer bits, four times their rounding.

    Returns:
        The largest such difference.

    Raises:
        ValueError: a difference is larger, or is not finite; the message names identity, layer, position and
            difference.
    """
    if tolerance is None:
        tolerance = max(TOLERANCE, ROUNDINGS * torch.finfo(_dtype(model)).eps)
    return max(_difference(model, each, tolerance) for each in _identities(model, module))


def _identities(model: LanguageModel, module: Any) -> Iterator[Identity]:
    tokens = _tokens(model)
    activations = Activations()

    def see(name: str, value: Tensor) -> Tensor:
        activations[name] = value.detach()
        return value

    logits = model.forward(tokens, hook=see)
    parts = [part for part in PARTS if model.sizes.mlp_width or part not in MLP_PARTS]
    for layer in range(model.sizes.layers):
        at = f"layers.{layer}"
        if absent := [part for part in parts if f"{at}.{part}" not in activations]:
            raise ValueError(f"{_beginning(model)}: {at}.{absent[0]} is never computed; {_ADVICE}")
        yield from _of_layer(model, at, {part: activations[f"{at}.{part}"].float() for part in parts}, layer)
        following = f"layers.{layer + 1}.residual_pre"
        if layer + 1 < model.sizes.layers:
            here = activations[f"{at}.residual_post"]
            yield Identity(f"{at}.residual_post = {following}", here, activations[following], [here])
        if model.mlp_norm is not None and model.sizes.mlp_width:
            entered = "residual_pre" if model.parallel else "residual_mid"
            expected = model.mlp_norm(layer, activations[f"{at}.{entered}"])
            read = activations[f"{at}.mlp.input"]
            yield Identity(f"norm of {at}.{entered} = {at}.mlp.input", expected, read, [expected, read])
    yield from _of_values(model, tokens)
    if module is not None:
        yield from _of_module(model, module, tokens, activations, logits)


def _of_values(model: LanguageModel, tokens: Int64[Tensor, "batch position"]) -> Iterator[Identity]:
    """The first token attends to itself alone, so that z is its value, which a bias makes differ by a constant."""
    if model.attention_norm is None or "output_value" in model.besides:
        return
    layers = range(model.sizes.layers)
    streams, z = ([f"layers.{layer}.{part}" for layer in layers] for part in ("residual_pre", "attention.z"))
    found = model.activations(tokens[0, [0, -1], None], [*streams, *z])
    for layer in layers:
        read = model.attention_norm(layer, found[streams[layer]]).float()
        value = read @ model.layer_weights(layer).value.to(read).T
        (first, other), (here, there) = value[:, None], found[z[layer]].float()[:, None]
        name = f"W_V of what attention reads of layers.{layer}.residual_pre = {z[layer]}, as their differences,"
        # a bias is rounded with the rest
        yield Identity(name, first - other, here - there, [first, other, here, there])


def _of_layer(model: LanguageModel, at: str, here: dict[str, Tensor], layer: int) -> Iterator[Identity]:
    pre, mid, post = here["residual_pre"], here["residual_mid"], here["residual_post"]
    attention = here["attention.output"]
    name = f"{at}.residual_pre + {at}.attention.output = {at}.residual_mid"
    yield Identity(name, pre + attention, mid, [pre, attention, mid])
    if "mlp.output" in here:
        whole = pre + attention + here["mlp.output"]
        name = f"{at}.residual_pre + {at}.attention.output + {at}.mlp.output = {at}.residual_post"
        yield Identity(name, whole, post, [pre, attention, here["mlp.output"], post])
    weights = model.layer_weights(layer)
    z = here["attention.z"]
    written = z @ weights.output.to(z).T
    if weights.output_bias is not None:
        written = written + weights.output_bias.to(z)
    projected, dtype = here["attention.projected"], _dtype(model)
    name = f"{at}.attention.z W_O + b = {at}.attention.projected"
    yield Identity(name, written, projected, [written, projected])
    between, name = projected, f"{at}.attention.projected = {at}.attention.output"
    if model.between is not None:
        what = "norm" if model.between.factor is None else f"{model.between.factor:g} times"
        between, name = model.between.apply(layer, projected.to(dtype)).float(), f"{what} {name}"
    yield Identity(name, between, attention, [between, attention])
    if weights.output_norm is not None and model.norm is not None:
        size = (projected.square().mean(-1, keepdim=True) + model.norm.epsilon).sqrt()
        normed = weights.output_norm.to(projected) * projected / size
        name = f"{at}.attention.projected by its root mean square, times output_norm = {at}.attention.output"
        yield Identity(name, normed, attention, [normed, attention])


def _of_module(
    model: LanguageModel, module: Any, tokens: Int64[Tensor, "batch position"], activations: Activations, logits: Tensor
) -> Iterator[Identity]:
    """What the module says of itself, against what the hooks saw."""
    plain = module(input_ids=tokens, use_cache=False, output_hidden_states=True)
    names = [*(f"layers.{layer}.residual_pre" for layer in range(model.sizes.layers)), "final"]
    if len(plain.hidden_states) != len(names):
        raise ValueError(f"{_beginning(model)}: {len(plain.hidden_states)} hidden states for {len(names)}; {_ADVICE}")
    for name, state in zip(names, plain.hidden_states, strict=True):
        yield Identity(f"{name} = output_hidden_states", activations[name], state, [state])
    yield Identity("logits with hooks = logits without", logits, plain.logits, [plain.logits])


_ADVICE = (
    "the architecture is another than the description of its family says, and every measurement of it would be wrong: "
    "use a model of a known family as transformers has it"
)


def _beginning(model: LanguageModel) -> str:
    return f"{model.name}: the check at loading failed for the family {model.family!r}"


def _difference(model: LanguageModel, identity: Identity, tolerance: float) -> float:
    """The largest difference of two sides, relative to the largest of the terms at that position."""
    name, left, right, terms = identity
    if left.shape != right.shape:
        raise ValueError(f"{_beginning(model)}: {name} has shapes {list(left.shape)}, {list(right.shape)}; {_ADVICE}")
    scale = torch.stack([_norms(term) for term in terms]).amax(0)
    difference = _norms(left.float() - right.float())
    # what is not a number fails; where all is 0 there is no difference
    relative = torch.nan_to_num(torch.where(difference == 0, 0.0, difference / scale), nan=torch.inf)[0]
    worst = int(relative.argmax())
    if not relative[worst] <= tolerance:
        raise ValueError(
            f"{_beginning(model)}: {name} is off by {float(relative[worst]):.2g} of the norm at position {worst}, and "
            f"{tolerance:.2g} is allowed; {_ADVICE}"
        )
    return float(relative[worst])


def _dtype(model: LanguageModel) -> torch.dtype:
    return next(iter(model.parameters.values())).dtype


def _norms(vectors: Float[Tensor, "batch position _"]) -> Float[Tensor, "batch position"]:
    return torch.linalg.vector_norm(vectors.float(), dim=-1)


def _tokens(model: LanguageModel) -> Int64[Tensor, "batch position"]:
    """Tokens spread over the whole vocabulary, the same at every load."""
    length = min(POSITIONS, model.sizes.context or POSITIONS)
    step = max(1, model.sizes.vocabulary // length)
    return (torch.arange(length) * step % model.sizes.vocabulary)[None]
