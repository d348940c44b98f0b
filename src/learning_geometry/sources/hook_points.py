"""TransformerLens' names of the activations of a language model, and ours.

Both mean the same in models of ``FAMILIES`` that were loaded without processing
(``HookedTransformer.from_pretrained_no_processing``, which is how SAELens loads them): what attention adds to the
stream is W_O z there, with nothing between. What the MLP reads has no hook point: ``ln2.hook_normalized`` comes before
the norm's weights.

Source: TransformerLens 3.9, ``components/transformer_block.py``, ``layer_norm.py`` and ``rms_norm.py``.
"""

import re

FAMILIES = ("gpt2", "gpt_neox", "llama", "mistral", "qwen2")
"""``model_type`` of the models whose hook points are known to be these activations."""

POINTS = {
    "hook_resid_pre": "residual_pre",
    "attn.hook_z": "attention.z",
    "hook_attn_out": "attention.output",
    "hook_resid_mid": "residual_mid",
    "hook_mlp_out": "mlp.output",
    "hook_resid_post": "residual_post",
}
"""Hook point of a block -> activation of a layer. Of ``hook_z`` the heads are to be concatenated."""

CHANGED_BY = {
    "center_writing_weights": tuple(point for point in POINTS if point != "attn.hook_z"),
    "fold_value_biases": ("attn.hook_z",),
    "refactor_factored_attn_matrices": ("attn.hook_z",),
}
"""Processing of weights at loading -> the hook points whose activations it changes."""


def hook_point(activation: str, family: str | None) -> str:
    """Return TransformerLens' name of an activation.

    Args:
        activation: our name, such as ``layers.3.attention.output``.
        family: ``model_type`` of the model; None: not known.

    Raises:
        ValueError: it has no hook point that is known to be the same, and why.

    >>> hook_point("layers.3.attention.output", "llama")
    'blocks.3.hook_attn_out'
    """
    found = re.fullmatch(r"layers\.(\d+)\.(.+)", activation)
    point = {ours: theirs for theirs, ours in POINTS.items()}.get(found[2]) if found else None
    if found is None or point is None:
        raise ValueError(f"no hook point of TransformerLens is {activation}")
    _check_family(family)
    if family == "gpt_neox" and point == "hook_resid_mid":
        raise ValueError("blocks whose attention and MLP are parallel have no hook_resid_mid")
    return f"blocks.{found[1]}.{point}"


def activation_of(name: str, family: str | None) -> str:
    """Return our name of the activation that a hook point shows; of one of our names itself.

    Args:
        name: such as ``blocks.3.hook_attn_out``.
        family: ``model_type`` of the model; None: not known yet, and not checked.

    Raises:
        ValueError: it cannot be told which activation that is.

    >>> activation_of("blocks.3.attn.hook_z", "gpt2"), activation_of("layers.3.mlp.input", "other")
    ('layers.3.attention.z', 'layers.3.mlp.input')
    """
    if is_activation(name):
        return name
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if found is None or found[2] not in POINTS:
        raise ValueError(f"{name} is none of the hook points that are known, blocks.<layer>. and {', '.join(POINTS)}")
    if family is not None:
        _check_family(family)
    return f"layers.{found[1]}.{POINTS[found[2]]}"


def is_activation(name: str) -> bool:
    """Return whether that is one of our names of an activation of a layer."""
    found = re.fullmatch(r"layers\.(\d+)\.(.+)", name)
    return found is not None and found[2] in {*POINTS.values(), "mlp.input"}


def _check_family(family: str | None) -> None:
    if family not in FAMILIES:
        raise ValueError(
            f"of the family {family!r} it is not known that hook points are these activations: something may stand "
            f"between W_O and the stream; known are {', '.join(FAMILIES)}"
        )
