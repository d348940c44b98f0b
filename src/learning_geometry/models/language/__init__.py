"""Language models behind one small interface: activations by name, weights by role.

The workflow's own transformer (module ``trained``) and Hugging Face models (modules ``families`` and ``loading``) look
alike. With d the width of the residual stream, layer l has these activations, named ``layers.<l>.<part>``:

- ``residual_pre``: the residual stream that enters the layer (width d);
- ``attention.z``: what the heads mix, concatenated, before W_O (width heads · head_width);
- ``attention.projected``: W_O z with its bias (d);
- ``attention.output``: what attention adds to the stream (d). In most families that is attention.projected; in some a
  norm (Gemma 2 and 3, OLMo 2 and 3) or a factor (Granite) stands between W_O and the stream;
- ``residual_mid``: residual_pre + attention.output (d);
- ``mlp.input``: what the MLP reads, after its norm if it has one (d), and ``mlp.output``: what it adds to the stream,
  after what stands between (d);
- ``residual_post``: the stream that leaves the layer (d); the last one is the input of the final norm.

Then come ``final``, the stream after the final norm, and ``logits``. Layers without an MLP have no ``mlp`` parts.

In sequential layers the MLP reads residual_mid. In **parallel** ones (GPT-J, Phi, Cohere, most of Falcon, and GPT-NeoX
unless its config says otherwise) it reads residual_pre as attention does, and residual_mid is a sum that no part of the
model reads. A model of the workflow whose norms stand after its sublayers (``norm: post``) has the norms of these sums
as residual_mid and residual_post.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from xxhash import xxh3_128

from learning_geometry.geometry.head_products import output_value_products, query_key_products

Hook = Callable[[str, Tensor], Tensor]
"""Called with the name and value of every activation; what it returns is used instead."""

ATTENTION_PARTS = ("residual_pre", "attention.z", "attention.projected", "attention.output", "residual_mid")
MLP_PARTS = ("mlp.input", "mlp.output")
PARTS = (*ATTENTION_PARTS, *MLP_PARTS, "residual_post")
"""The activations of a layer, in the order in which a model computes them."""


class ModelSizes(NamedTuple):
    """Sizes of a language model."""

    vocabulary: int
    layers: int
    width: int
    """Of the residual stream."""
    heads: int
    """Query heads of a layer."""
    head_width: int
    mlp_width: int
    """Hidden width of the MLP, of each expert if it is a mixture of them; 0 if there is none."""
    context: int | None
    """The longest sequence that the model can read; None: any."""


class LayerWeights(NamedTuple):
    """Weights of one layer by role, as those of ``torch.nn.Linear`` (y = W x + b).

    Heads of grouped-query attention that share a key and a value head each have a copy of it here. Norms are not
    folded in, those of queries and keys neither. Biases of query, key and value are left out, as in
    ``geometry.composition``. Rows of rotary queries and keys are in the order that the model has them in: that of
    Hugging Face models is not that of interleaved pairs.
    """

    query: Float[Tensor, "inner width"]
    key: Float[Tensor, "inner width"]
    value: Float[Tensor, "inner width"]
    output: Float[Tensor, "width inner"]
    """W_O: z to attention.projected."""
    output_bias: Float[Tensor, " width"] | None
    down: Float[Tensor, "width hidden"] | None
    """W_down: the MLP's hidden activations to what it writes, before a norm or a factor that stands between that and
    mlp.output. None, as the gate, if there is no MLP, or if it is a mixture of experts, which each have their own."""
    down_bias: Float[Tensor, " width"] | None
    gate: Float[Tensor, "hidden width"] | None
    """mlp.input to what the activation function gets, which a gated MLP then multiplies by another map of mlp.input."""
    gate_bias: Float[Tensor, " hidden"] | None
    activation: str
    """Name of the MLP's activation function, such as "silu", as the model's settings give it; "" if there is no MLP."""
    score_scale: float
    """What the products of queries and keys are multiplied by to give scores, such as 1/√head_width."""
    output_norm: Float[Tensor, " width"] | None = None
    """What a root-mean-square norm between W_O and the stream multiplies each coordinate by, after it has divided a
    vector by one number: attention adds what diag(output_norm) W_O can write. None: there is none."""
    down_norm: Float[Tensor, " width"] | None = None
    """The same of W_down."""


class Norm(NamedTuple):
    """What a model's norms do before their weights."""

    kind: str
    """"root_mean_square" (vectors are divided by theirs) or "layer" (their mean is subtracted first)."""
    epsilon: float
    """Added to the mean square, in the square of the activation's unit."""


class Between(NamedTuple):
    """What stands between W_O and the residual stream."""

    factor: float | None
    """What attention.projected is multiplied by; None: it is a norm."""
    apply: Callable[[int, Tensor], Tensor]
    """Layer and attention.projected to attention.output."""


@dataclass(frozen=True)
class LanguageModel:
    """A language model with its weights, ready to be run and looked into; made by ``loading`` or ``trained``."""

    name: str
    family: str
    sizes: ModelSizes
    parallel: bool
    """Whether attention and MLP of a layer both read residual_pre."""
    run: Callable[[Tensor, Tensor | None, Hook | None], Tensor]
    """Tokens, mask and hook in, logits out, unchecked; see :meth:`forward`."""
    layer_weights: Callable[[int], LayerWeights]
    """Weights of a layer, counted from 0."""
    parameters: dict[str, Tensor] = field(repr=False)
    norm: Norm | None
    """Of all norms of the residual stream; None: there are none."""
    attention_norm: Callable[[int, Tensor], Tensor] | None = field(default=None, repr=False)
    """Layer and stream to what attention reads of it: the norm before it, with its weights, if it has one; None: not
    known."""
    mlp_norm: Callable[[int, Tensor], Tensor] | None = field(default=None, repr=False)
    """The same of the MLP."""
    between: Between | None = field(default=None, repr=False)
    """What stands between W_O and the stream; None: nothing."""
    besides: dict[str, str] = field(default_factory=dict)
    """"query_key" or "output_value" -> what the model computes besides, so that no such product says what it does."""
    origin: dict[str, Any] = field(default_factory=dict)
    """Where the weights come from: what JSON can hold."""
    tokenizer: Any = field(default=None, repr=False)
    """The Hugging Face tokenizer, or None."""
    run_after: Callable[[Tensor], Callable[[Tensor, Tensor | None, Hook | None], Tensor]] | None = field(
        default=None, repr=False
    )
    """Tokens in, ``run`` for what follows them out; None: the model keeps no keys and values; see :meth:`after`."""
    digests: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """What :meth:`digest` found, by :meth:`state`."""

    @property
    def names(self) -> list[str]:
        """Names of all activations but the logits, in the order in which the model computes them."""
        return [*activation_names(self.sizes), "final"]

    def forward(
        self,
        tokens: Int64[Tensor, "batch position"],
        mask: Bool[Tensor, "batch position"] | None = None,
        hook: Hook | None = None,
    ) -> Float[Tensor, "batch read vocabulary"]:
        """Return the logits, without dropout.

        Args:
            tokens: token numbers.
            mask: false where a sequence is padded; positions are counted from the first True, and the token numbers of
                padding do not matter. None: nowhere.
            hook: sees, and may replace, every activation of :attr:`names` and ``logits``. What it does not replace
                it must return as it is. In the workflow's own transformer ``mlp.input`` cannot be replaced.

        Raises:
            ValueError: sequences longer than the context, a token that is not in the vocabulary, a mask of another
                shape or with a sequence of padding alone, or any padding for the workflow's own transformer.
        """
        self._check(tokens, mask)
        device = next(iter(self.parameters.values())).device
        padded = None if mask is None or mask.all() else mask.to(device)
        if mask is not None and padded is not None:  # of padding there may be no embedding
            unknown = (tokens < 0) | (tokens >= self.sizes.vocabulary)
            tokens = tokens.masked_fill(unknown & ~mask.to(tokens.device), 0)
        return self.run(tokens.to(device), padded, hook)

    @torch.no_grad()
    def activations(
        self,
        tokens: Int64[Tensor, "batch position"],
        names: Sequence[str],
        mask: Bool[Tensor, "batch position"] | None = None,
    ) -> dict[str, Float[Tensor, "batch position _"]]:
        """Return the activations of these names; what comes after the last of them is not computed.

        Values at padded positions mean nothing.

        Raises:
            ValueError: a name that is not in :attr:`names`, or as :meth:`forward`.
        """
        seen = dict[str, Tensor]()
        self.visit(tokens, names, seen.__setitem__, mask)
        return {name: seen[name] for name in names}

    @torch.no_grad()
    def visit(
        self,
        tokens: Int64[Tensor, "batch position"],
        names: Sequence[str],
        see: Callable[[str, Tensor], object],
        mask: Bool[Tensor, "batch position"] | None = None,
    ) -> None:
        """Show the activations of these names one by one as they are computed, and compute none after the last of them.

        Those of all layers then need not be in memory together. Values at padded positions mean nothing.

        Args:
            tokens: token numbers.
            names: which activations.
            see: called with name and value; it must not change the value.
            mask: as of :meth:`forward`.

        Raises:
            ValueError: as :meth:`activations`.
        """
        check_names(self, names)
        left = set(names)

        def hook(name: str, value: Tensor) -> Tensor:
            if name in left:
                left.remove(name)
                see(name, value)
                if not left:
                    raise _AllSeen
            return value

        with suppress(_AllSeen):
            self.forward(tokens, mask, hook)

    def after(self, tokens: Int64[Tensor, " position"]) -> "LanguageModel":
        """Return the model that reads all its sequences as if these tokens stood before each, which it reads once.

        Keys and values of the tokens are kept, and sequences attend to them. Sequences are padded on the right, without
        a mask, with any tokens: none before sees them. What is computed differs by rounding from what is computed of
        whole sequences.

        Raises:
            ValueError: as :meth:`forward`, or the model keeps no keys and values.
        """
        self._check(tokens[None], None)
        if self.run_after is None:
            raise ValueError(f"{self.name}: keeps no keys and values; pass whole sequences")
        context = self.sizes.context
        left = self.sizes._replace(context=None if context is None else context - len(tokens))
        device = next(iter(self.parameters.values())).device
        return replace(self, run=self.run_after(tokens.to(device)), run_after=None, sizes=left)

    def query_key(self, layer: int, heads: Iterable[int] | None = None) -> Float[np.ndarray, "heads width width"]:
        """Per head W_QK of ``geometry.composition``, in float64: scores of a token with itself, without biases.

        x_queryᵀ W_QK x_key is the score of query and key at the same position (rotary positions turn it at others) of
        what the attention reads, which is the residual stream after its norm. What is added to scores or bounds them
        afterwards (ALiBi, a soft cap) is left out.

        Args:
            layer: layer, counted from 0.
            heads: which heads, counted from 0; None: all. One needs 8 · width² bytes.

        Raises:
            ValueError: no such layer or head, or scores are no such product, as queries and keys are normed or clipped.
        """
        weights, chosen = self._by_head("query_key", layer, heads)
        query, key = (_numpy(_rows(weight, self.sizes.heads, chosen)) for weight in (weights.query, weights.key))
        # the product is divided by √head_width, which is not every model's scale
        return query_key_products(query, key, len(chosen)) * (weights.score_scale * math.sqrt(self.sizes.head_width))

    def output_value(self, layer: int, heads: Iterable[int] | None = None) -> Float[np.ndarray, "heads width width"]:
        """Per head W_OV = W_O W_V of ``geometry.composition``, in float64: what it writes of what it reads.

        What stands between W_O and the stream is left out.

        Args:
            layer: layer, counted from 0.
            heads: which heads, counted from 0; None: all. One needs 8 · width² bytes.

        Raises:
            ValueError: no such layer or head, or values are clipped.
        """
        weights, chosen = self._by_head("output_value", layer, heads)
        output = _rows(weights.output.T, self.sizes.heads, chosen).T
        return output_value_products(
            _numpy(output), _numpy(_rows(weights.value, self.sizes.heads, chosen)), len(chosen)
        )

    def digest(self) -> str:
        """Return a hash, 32 hexadecimal digits, of all parameters: their names, types, shapes and values."""
        state = self.state()
        if state not in self.digests:
            hasher = hashlib.blake2b(digest_size=16)
            for name, parameter in sorted(self.parameters.items()):
                hasher.update(f"{name} {parameter.dtype} {tuple(parameter.shape)};".encode())
                hasher.update(_bytes_of(parameter))
            self.digests[state] = hasher.hexdigest()
        return self.digests[state]

    def state(self) -> str:
        """Return a hash of all that :meth:`digest` looks at, at the speed of memory (XXH3): a tenth of its time."""
        hasher = xxh3_128()
        for name, parameter in sorted(self.parameters.items()):
            hasher.update(f"{name} {parameter.dtype} {tuple(parameter.shape)};".encode())
            hasher.update(_bytes_of(parameter))
        return hasher.hexdigest()

    def _check(self, tokens: Tensor, mask: Tensor | None) -> None:
        sizes = self.sizes
        if not tokens.numel():
            raise ValueError(f"{self.name}: tokens of shape {tuple(tokens.shape)}, which are none; pass some")
        if sizes.context is not None and tokens.shape[1] > sizes.context:
            raise ValueError(
                f"{self.name}: {tokens.shape[1]} tokens in a sequence, and the model's context is {sizes.context}; "
                "pass shorter sequences"
            )
        if mask is not None and mask.shape != tokens.shape:
            raise ValueError(f"{self.name}: a mask of shape {tuple(mask.shape)} for tokens of {tuple(tokens.shape)}")
        if mask is not None and not mask.any(1).all():
            row = int((~mask.any(1)).nonzero()[0])
            raise ValueError(f"{self.name}: sequence {row} of the batch is padding alone; leave it out")
        read = tokens if mask is None else tokens[mask.to(tokens.device)]
        smallest, largest = (int(end) for end in torch.aminmax(read))
        if smallest < 0 or largest >= sizes.vocabulary:
            raise ValueError(
                f"{self.name}: tokens from {smallest} to {largest}, and the model knows 0 to {sizes.vocabulary - 1}; "
                "tokenize with the model's own tokenizer"
            )

    def _by_head(self, product: str, layer: int, heads: Iterable[int] | None) -> tuple[LayerWeights, list[int]]:
        if product in self.besides:
            raise ValueError(
                f"{self.name}: no {product}, since {self.besides[product]}, and no product of weights says what is "
                "computed; use a model of another family"
            )
        if not 0 <= layer < self.sizes.layers:
            raise ValueError(f"{self.name}: no layer {layer}; there are 0 to {self.sizes.layers - 1}")
        chosen = list(range(self.sizes.heads) if heads is None else heads)
        unknown = [head for head in chosen if not 0 <= head < self.sizes.heads]
        if unknown or not chosen:
            raise ValueError(f"{self.name}: no heads {unknown or chosen}; there are 0 to {self.sizes.heads - 1}")
        return self.layer_weights(layer), chosen


def activation_names(sizes: ModelSizes, parts: Sequence[str] = PARTS, layers: Iterable[int] | None = None) -> list[str]:
    """Names of some parts of some layers (None: all), layer by layer; those of an MLP only if there is one.

    Raises:
        ValueError: no such part or layer.

    >>> sizes = ModelSizes(vocabulary=11, layers=2, width=8, heads=2, head_width=4, mlp_width=0, context=None)
    >>> activation_names(sizes, ["residual_pre", "mlp.output", "attention.z"])
    ['layers.0.residual_pre', 'layers.0.attention.z', 'layers.1.residual_pre', 'layers.1.attention.z']
    """
    chosen = list(range(sizes.layers) if layers is None else layers)
    if unknown := [part for part in parts if part not in PARTS]:
        raise ValueError(f"parts: {unknown} of a layer are not known; use some of {list(PARTS)}")
    if unknown_layers := [layer for layer in chosen if not 0 <= layer < sizes.layers]:
        raise ValueError(f"layers: no layers {unknown_layers}; there are 0 to {sizes.layers - 1}")
    wanted = [part for part in parts if sizes.mlp_width or part not in MLP_PARTS]
    return [f"layers.{layer}.{part}" for layer in chosen for part in wanted]


def activation_width(sizes: ModelSizes, name: str) -> int:
    """Width of the activation of that name: that of the residual stream, or of all heads together for z."""
    return sizes.heads * sizes.head_width if name.endswith(".attention.z") else sizes.width


def check_names(model: LanguageModel, names: Sequence[str]) -> None:
    """Check that the model has activations of these names.

    Raises:
        ValueError: it lacks one, or there are none.
    """
    known = model.names
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"{model.name}: no activations {unknown or list(names)}; there are {known[0]} to {known[-1]}, with the "
            f"parts {', '.join(part for part in PARTS if f'layers.0.{part}' in known)}"
        )


class _AllSeen(Exception):
    """The activations asked for are all there: leave the forward pass."""


def _rows(weight: Float[Tensor, "inner columns"], heads: int, chosen: list[int]) -> Float[Tensor, "rows columns"]:
    return weight.unflatten(0, (heads, -1))[chosen].flatten(0, 1)


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _numpy(tensor: Tensor) -> np.ndarray:
    held = tensor.detach().cpu()
    # of which NumPy has no type
    return held.float().numpy() if held.dtype == torch.bfloat16 else held.numpy()
