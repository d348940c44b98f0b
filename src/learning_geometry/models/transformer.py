"""One transformer for every study: a pure function of a dictionary of named parameters."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from learning_geometry.model_options import attention_widths, has_bias, head_width, problems
from learning_geometry.models.attention import rotation, score_bias
from learning_geometry.models.dropout import dropout_mask
from learning_geometry.models.sizes import TaskSizes
from learning_geometry.models.sublayers import (
    Hook,
    Parameters,
    Scores,
    attention_sublayer,
    hooked_attention,
    last_attention_sublayer,
    mlp,
    normed,
)

SETTINGS = {
    "layers": {"type": "integer", "minimum": 1, "default": 2, "description": "Number of layers."},
    "heads": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "Attention heads per layer; must divide the width, unless head_width is given.",
    },
    "width": {
        "type": "integer",
        "minimum": 1,
        "default": 64,
        "description": "Width d of the residual stream.",
    },
    "head_width": {
        "type": ["integer", "null"],
        "minimum": 1,
        "default": None,
        "description": "Width of each head; null for width / heads.",
    },
    "key_value_heads": {
        "type": ["integer", "null"],
        "minimum": 1,
        "default": None,
        "description": "Heads of keys and values, each shared by heads / key_value_heads query heads (grouped-query "
        "attention); must divide heads; null for as many as heads.",
    },
    "mlp_width": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "Hidden width of the MLP after each attention; 0 for attention only.",
    },
    "activation": {
        "enum": ["gelu", "gelu_tanh", "relu", "silu"],
        "default": "gelu",
        "description": "Activation function of the MLP; gelu_tanh is GELU's approximation by tanh.",
    },
    "gated_mlp": {
        "type": "boolean",
        "default": False,
        "description": "Whether the MLP is down(activation(gate(x)) · up(x)), such as SwiGLU, and not "
        "down(activation(up(x))).",
    },
    "parallel_residual": {
        "type": "boolean",
        "default": False,
        "description": "Whether the MLP reads what attention reads, x + attention(norm(x)) + mlp(norm(x)), each with a "
        "norm of its own, and not the stream after it.",
    },
    "norm": {
        "enum": ["pre", "post", "none"],
        "default": "pre",
        "description": "A norm before each sublayer, x + sublayer(norm(x)), after each residual addition, "
        "norm(x + sublayer(x)), or none.",
    },
    "norm_kind": {
        "enum": ["layer_norm", "rms_norm"],
        "default": "layer_norm",
        "description": "What all norms are: LayerNorm (with affine), or RMSNorm, x / √(mean(x²) + ε) · weight.",
    },
    "norm_bias": {
        "type": "boolean",
        "default": True,
        "description": "Whether LayerNorms have a bias; RMSNorms have none, whatever it says.",
    },
    "norm_epsilon": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 1.0e-5,
        "description": "What norms add to the variance, or to the mean square.",
    },
    "final_norm": {"type": "boolean", "default": False, "description": "A norm before the read-out."},
    "positions": {
        "enum": ["rotary", "learned", "none", "alibi"],
        "default": "rotary",
        "description": "How positions enter: rotary on queries and keys (interleaved pairs), "
        "a learned embedding, not at all, or ALiBi's slopes on the scores.",
    },
    "rotary_base": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 10000.0,
        "description": "Base θ of the rotary frequencies.",
    },
    "rotary_width": {
        "type": ["integer", "null"],
        "minimum": 2,
        "default": None,
        "description": "How many numbers of each head are turned, the first ones, an even number; null for all.",
    },
    "bias": {
        "type": ["boolean", "array"],
        "items": {"enum": ["query_key_value", "output", "mlp", "readout"]},
        "uniqueItems": True,
        "default": True,
        "description": "Whether linear layers have a bias, or a list of those that have one: query_key_value, output "
        "(of attention), mlp, readout.",
    },
    "tied_readout": {
        "type": "boolean",
        "default": False,
        "description": "Read out with the token embedding instead of a matrix of its own.",
    },
    "dropout": {
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.0,
        "description": "Dropout rate on each attention output, in training only.",
    },
    "causal": {"type": "boolean", "default": True, "description": "Whether attention looks back only."},
    "readout": {
        "enum": ["all", "last"],
        "default": "all",
        "description": "Logits at all positions or at the last one.",
    },
}


def initialise(settings: dict[str, Any], shape: TaskSizes, generator: np.random.Generator) -> Parameters:
    """Draw float32 parameters as PyTorch's default initialisation does.

    Linear layers: weight and bias uniform in ±1/√fan_in; embeddings standard normal; norms one and zero.

    Raises:
        ValueError: options that do not go together, or a tied read-out with another number of outputs than tokens.
    """
    for key, problem in problems(settings):
        raise ValueError(f"{key}: {problem}")
    if settings["tied_readout"] and shape.outputs != shape.vocabulary:
        raise ValueError(
            f"tied_readout: the task has {shape.vocabulary} tokens but {shape.outputs} outputs; set it to false"
        )
    width, mlp_width = settings["width"], settings["mlp_width"]
    queries, keys = attention_widths(settings)
    norm_bias = settings["norm_bias"] and settings["norm_kind"] == "layer_norm"
    parameters: Parameters = {}

    def embedding(name: str, rows: int) -> None:
        draws = generator.standard_normal((rows, width), dtype=np.float32)
        parameters[f"{name}.weight"] = torch.from_numpy(draws)

    def linear(group: str, name: str, inputs: int, outputs: int, weight: bool = True) -> None:
        bound = 1 / math.sqrt(inputs)
        kinds: dict[str, tuple[int, ...]] = {"weight": (outputs, inputs)} if weight else {}
        kinds |= {"bias": (outputs,)} if has_bias(settings, group) else {}
        for kind, size in kinds.items():
            draws = (2 * generator.random(size, dtype=np.float32) - 1) * np.float32(bound)
            parameters[f"{name}.{kind}"] = torch.from_numpy(draws)

    def norm(name: str) -> None:
        parameters[f"{name}.weight"] = torch.ones(width)
        if norm_bias:
            parameters[f"{name}.bias"] = torch.zeros(width)

    embedding("embedding", shape.vocabulary)
    if settings["positions"] == "learned":
        embedding("positions", shape.length)
    for layer in range(settings["layers"]):
        at, normed = f"layers.{layer}", settings["norm"] != "none"
        if normed:
            norm(f"{at}.attention_norm")
        for role, outputs in (("query", queries), ("key", keys), ("value", keys)):
            linear("query_key_value", f"{at}.attention.{role}", width, outputs)
        linear("output", f"{at}.attention.output", queries, width)
        if mlp_width:
            if normed:
                norm(f"{at}.mlp_norm")
            for role in ("gate", "up") if settings["gated_mlp"] else ("up",):
                linear("mlp", f"{at}.mlp.{role}", width, mlp_width)
            linear("mlp", f"{at}.mlp.down", mlp_width, width)
    if settings["final_norm"]:
        norm("final_norm")
    linear("readout", "readout", width, shape.outputs, weight=not settings["tied_readout"])
    return parameters


def forward(
    parameters: Parameters,
    tokens: Int64[Tensor, "batch position"],
    settings: dict[str, Any],
    *,
    dropout: np.random.Generator | None = None,
    hook: Hook | None = None,
    twice_differentiable: bool = False,
) -> Float[Tensor, "batch read outputs"]:
    """Return the logits at every position, or at the last one only (``readout: last``).

    Args:
        parameters: named tensors as :func:`initialise` makes them; any float dtype and device.
        tokens: token numbers.
        settings: the options, defaults filled in.
        dropout: draws the masks while training; None evaluates.
        hook: sees, and may replace, every activation. Per layer l, ``layers.l.`` then ``residual_pre``,
            ``attention.query``, ``.key`` (rotated), ``.value`` (of the heads of keys and values), ``.pattern`` (by
            query head), ``.z`` (heads concatenated), ``.output``, ``residual_mid``, ``mlp.hidden`` (what ``down``
            reads), ``mlp.output``, ``residual_post``; and ``embedding``, ``final``, ``logits``. First and second
            derivatives are then autograd's own, and transforms of ``torch.func`` apply; of LayerNorm torch 2.13 gets
            the third wrong, and the second by ``torch.func.hessian``. ``residual_mid`` is residual_pre +
            attention.output, with ``norm: post`` the norm of that, and with ``parallel_residual`` a sum that the MLP
            does not read: what replaces it is what mlp.output is added to. ``residual_post`` is residual_mid +
            mlp.output, with ``norm: post`` the norm of that; residual_mid itself without an MLP.
        twice_differentiable: use the attention that has fast second derivatives. All derivatives are right either way.

    Raises:
        ValueError: more positions than a learned position embedding has.
    """
    positions, post = settings["positions"], settings["norm"] == "post"
    embedding = parameters["embedding.weight"]
    see: Hook = hook if hook is not None else lambda name, value: value
    scores = _scores(tokens.shape[1], settings, embedding.dtype, str(tokens.device))
    fused = hook is None
    # of the last layer only what the last position needs, where nothing else is seen
    last_alone = settings["layers"] - 1 if fused and settings["readout"] == "last" else None
    # before any mixing the stream depends on the token alone, and attention that is not hooked computes by token
    by_token = fused and positions != "learned" and len(embedding) <= tokens.numel() and last_alone != 0
    masks = dropout if settings["dropout"] > 0 else None

    x = see("embedding", embedding if by_token else _embedded(parameters, tokens, positions == "learned"))
    for layer in range(settings["layers"]):
        name = f"layers.{layer}"
        x = see(f"{name}.residual_pre", x)
        by = tokens if by_token and layer == 0 else None
        entered = x if settings["parallel_residual"] else None
        if hook is not None:
            x = hooked_attention(parameters, x, name, settings, scores, masks, hook)
        else:
            mask = None
            if masks is not None:
                mask = dropout_mask((*tokens.shape, settings["width"]), x, settings["dropout"], masks)
            if layer == last_alone:
                x = last_attention_sublayer(parameters, x, name, settings, scores, mask)
            else:
                x = attention_sublayer(parameters, x, by, name, settings, scores, mask, twice_differentiable)
        if post:
            x = normed(parameters, x, f"{name}.attention_norm", settings, fused)
        x = see(f"{name}.residual_mid", x)
        if settings["mlp_width"]:
            read = x if entered is None else entered[:, -1:] if layer == last_alone else entered
            if not post:
                read = normed(parameters, read, f"{name}.mlp_norm", settings, fused)
            update = see(f"{name}.mlp.output", mlp(parameters, read, name, settings, see))
            if by is not None and entered is not None:
                update = update.index_select(0, by.flatten()).view(x.shape)
            x = x + update
            if post:
                x = normed(parameters, x, f"{name}.mlp_norm", settings, fused)
        x = see(f"{name}.residual_post", x)

    if settings["readout"] == "last":
        x = x[:, -1:]
    x = see("final", normed(parameters, x, "final_norm", settings, fused))
    readout = "embedding" if settings["tied_readout"] else "readout"
    logits = F.linear(x, parameters[f"{readout}.weight"], parameters.get("readout.bias"))
    return see("logits", logits)


def _scores(length: int, settings: dict[str, Any], dtype: torch.dtype, device: str) -> Scores:
    heads, positions = settings["heads"], settings["positions"]
    factors = None
    if positions == "rotary":
        base, turned = float(settings["rotary_base"]), settings["rotary_width"]
        factors = rotation(length, head_width(settings), base, dtype, device, turned)
    return Scores(heads, factors, score_bias(length, heads, settings["causal"], positions == "alibi", dtype, device))


def _embedded(
    parameters: Parameters, tokens: Int64[Tensor, "batch position"], learned: bool
) -> Float[Tensor, "batch position width"]:
    """Embed every token at its position, with learned position embeddings or without."""
    weight, length = parameters["embedding.weight"], tokens.shape[1]
    # F.embedding's gradient is slow
    x = weight.index_select(0, tokens.flatten()).view(*tokens.shape, weight.shape[1])
    if not learned:
        return x
    positions = parameters["positions.weight"]
    if length > len(positions):
        raise ValueError(
            f"{length} positions, but the learned position embedding has {len(positions)}; "
            "use shorter sequences or other positions"
        )
    return x + positions[:length]
